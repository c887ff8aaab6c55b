"""Every mathematical claim of the paper, recomputed, each with a verdict.

Item: sections 2 and 3, appendices B and C.5: equations, lemmas, propositions, theorems, examples
    and printed numbers.
Claim: each as printed; the verdict says whether it holds, holds with a stated correction, or not.
Command: python experiments/claims.py [--smoke] [--out FOLDER]
Minutes: 1. Device: CPU.

Theorems are tested by seeded search for counter-examples. Printed numbers come, as text, from
paper_values.json; their tolerance is half a unit of the last digit.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _common
import claims_pairwise
import claims_rankings
import claims_rewards

NAME = "claims"
CLAIMS = (*claims_pairwise.CLAIMS, *claims_rankings.CLAIMS, *claims_rewards.CLAIMS)


@dataclass(frozen=True)
class Config:
    """Draws of each search, and the seed of all."""

    draws: int = 20_000
    seed: int = 0


SMOKE = Config(draws=1000)


def compute(config: Config, progress: _common.Progress | None = None) -> dict[str, Any]:
    """Return the verdict on every claim, with how many of each kind there are."""
    rows: list[_common.Row] = []
    for done, claim in enumerate(CLAIMS):
        rows += claim(config.seed, config.draws)
        if progress is not None:
            progress(done + 1, len(CLAIMS))
    kinds = (_common.HOLDS, _common.CORRECTED, _common.DIFFERS)
    counts = {kind: sum(row["verdict"] == kind for row in rows) for kind in kinds}
    return _common.result(config, {"verdicts": counts}, rows)


def plot(folder: Path) -> list[Path]:
    """Draw nothing: summary.py makes the table."""
    return []


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment as a program."""
    return _common.run_script(NAME, sys.modules[__name__], arguments)


if __name__ == "__main__":
    sys.exit(main())
