"""What the paper's experiments share: how a claim is judged, and how a result is written.

A claim is reduced to one number, the error of what the paper prints, and a tolerance; where the
printed form misses it and a corrected form is stated, the error of that one counts. The verdict
follows from the numbers.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxpref.report.files import check_folder, to_json, write_json

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
HOLDS, CORRECTED, DIFFERS = "holds", "holds with a stated correction", "differs"
Progress = Callable[[int, int], None]
Row = dict[str, Any]


class Correction(NamedTuple):
    """What is right where the paper's own form is not, and by how much it misses."""

    text: str
    error: float


def judge(
    item: str,
    claim: str,
    *,
    paper: str,
    ours: float | str,
    error: float,
    tolerance: float,
    evidence: str,
    correction: Correction | None = None,
) -> Row:
    """Return a row of the comparison, its verdict computed from the errors.

    Parameters
    ----------
    item, claim : str
        Where in the paper, and what it says.
    paper, ours : str or float
        Its value or form, and what was found.
    error, tolerance : float
        Distance of the printed form from the truth (or the number of counter-examples), and how
        much is allowed. NaN is a miss.
    evidence : str
        What was tried, in a line.
    correction : Correction, optional
        The form that is right, and its own error.
    """
    verdict, why = DIFFERS, evidence
    if error <= tolerance:
        verdict = HOLDS
    elif correction is not None:
        verdict = CORRECTED if correction.error <= tolerance else DIFFERS
        why = f"{evidence}; {correction.text}"
    return {
        "item": item,
        "claim": claim,
        "paper": paper,
        "ours": ours,
        "error": error,
        "tolerance": tolerance,
        "verdict": verdict,
        "why": why,
    }


def judge_identity(
    item: str,
    claim: str,
    error: float,
    *,
    tolerance: float,
    evidence: str,
    correction: Correction | None = None,
) -> Row:
    """Return the row of an equation: the largest error found is what counts."""
    return judge(
        item,
        claim,
        paper="identity",
        ours=float(error),
        error=float(error),
        tolerance=tolerance,
        evidence=evidence,
        correction=correction,
    )


def judge_exceptions(
    item: str, claim: str, count: int, *, evidence: str, correction: Correction | None = None
) -> Row:
    """Return the row of a law that was searched for exceptions: none may be found."""
    return judge(
        item,
        claim,
        paper="0 exceptions",
        ours=float(count),
        error=int(count),
        tolerance=0,
        evidence=evidence,
        correction=correction,
    )


def printed_tolerance(printed: str) -> float:
    """Return half a unit of the last printed digit.

    >>> printed_tolerance("0.96"), printed_tolerance("8,552")
    (0.005, 0.5)
    """
    digits = printed.replace(",", "").partition(".")[2]
    return 0.5 * 10.0 ** -len(digits)


def judge_number(item: str, claim: str, printed: str, ours: float, evidence: str) -> Row:
    """Return the row of a printed number: ours must round to it."""
    # The last bit is for the decimal's own rounding, as where ours is exactly the printed value.
    tolerance = printed_tolerance(printed) + 1e-12
    error = abs(ours - float(printed.replace(",", "")))
    return judge(
        item, claim, paper=printed, ours=ours, error=error, tolerance=tolerance, evidence=evidence
    )


def needed(p_ij: str, p_kj: str) -> float:
    """Return the p_ik with which a printed p_ij would follow from p_kj by Eq. 3.

    >>> round(needed("0.96", "0.02"), 5)
    0.99915
    """
    wanted, known = float(p_ij), float(p_kj)
    odds = wanted / (1 - wanted) * (1 - known) / known
    return odds / (1 + odds)


def paper_values() -> dict[str, Any]:
    """Return every number the paper prints, as text, by the item it belongs to."""
    return json.loads((HERE / "paper_values.json").read_text(encoding="utf-8"))


def environment() -> dict[str, str]:
    """Return the versions a result was computed with."""
    packages = ("jaxpref", "jax", "jaxlib", "numpy")
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": jax.default_backend(),
    }


def result(config: Any, values: Any, comparison: Iterable[Row]) -> dict[str, Any]:
    """Return what goes into result.json."""
    rows = list(comparison)
    return {
        "config": asdict(config),
        "values": values,
        "comparison": rows,
        "environment": environment(),
    }


def save(content: dict[str, Any], folder: Path) -> Path:
    """Write result.json into a folder, whole or not at all."""
    return write_json(check_folder("--out", folder) / "result.json", content)


def load(folder: Path) -> dict[str, Any] | None:
    """Return a folder's result.json, or None where there is none or it compares nothing."""
    path = folder / "result.json"
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = content.get("comparison") if isinstance(content, dict) else None
    judged = isinstance(rows, list) and all(isinstance(r, dict) and "verdict" in r for r in rows)
    return content if judged else None


def missed(
    content: dict[str, Any], recorded: dict[str, Any] | None, *, partial: bool = False
) -> list[str]:
    """Return what failed: a verdict that is not the recorded one, or, unrecorded, not "holds".

    That the paper differs is a finding, not a failure, once it stands in the record. A partial
    (smoke) run need not have every row of the record.
    """
    rows = {row["item"]: row["verdict"] for row in (recorded or {}).get("comparison", [])}
    found = {row["item"]: row["verdict"] for row in content["comparison"]}
    changed = [
        f"{item}: {verdict} (recorded: {rows.get(item, HOLDS)})"
        for item, verdict in found.items()
        if verdict != rows.get(item, HOLDS)
    ]
    if partial:
        return changed
    return changed + [f"{item}: not computed" for item in rows if item not in found]


DRIFT = 0.01
"""How far learned probabilities may be from the record's: rounding, grown by training. Cutting rows
to other widths moved them by 1e-4."""


def missed_alike(
    config: Any, content: dict[str, Any], recorded: dict[str, Any] | None, *, own: bool = True
) -> list[str]:
    """Return how a training fails the record: verdicts of the same configuration, or the curves.

    Where only some of the recorded permutations and seeds were trained, means over seeds and so
    verdicts may differ; what each training learned may not. What another model (not `own`) or
    another data set gives is no failure but a finding: there is nothing to hold it to.
    """
    if not own or recorded is None:
        return []
    asked, known = json.loads(to_json(asdict(config))), recorded["config"]
    if asked == known:
        return missed(content, recorded)
    parts = ("omegas", "seeds")
    rest = [{k: v for k, v in one.items() if k not in parts} for one in (asked, known)]
    if rest[0] != rest[1] or not all(
        name in known and set(map(str, asked[name])) <= set(map(str, known[name])) for name in parts
    ):
        return []
    return drifted(asked["seeds"], content, recorded)


def drifted(seeds: list[int], content: dict[str, Any], recorded: dict[str, Any]) -> list[str]:
    """Return the curves whose learned probabilities are not those recorded for their seeds."""
    known = {tuple(curve["omega"]): curve for curve in recorded["values"]["curves"]}
    places = [recorded["config"]["seeds"].index(seed) for seed in seeds]
    found = []
    for curve in content["values"]["curves"]:
        record = known[tuple(curve["omega"])]
        gap = max(
            float(np.max(np.abs(np.asarray(curve[name]) - np.asarray(record[name])[places])))
            for name in ("p12", "p23", "p13")
        )
        if not gap <= DRIFT:
            order = "-".join(curve["omega"])
            found.append(f"{order}: {gap:.3g} from the recorded probabilities, at most {DRIFT}")
    return found


def show(rows: Iterable[Row]) -> None:
    """Print one line a row."""
    for row in rows:
        ours = f"{row['ours']:.6g}" if isinstance(row["ours"], float) else row["ours"]
        print(
            f"{row['verdict']:<31} {row['item']}: paper {row['paper']}; ours {ours}. {row['why']}"
        )


def part(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Return what moves a display along one of several equal parts of it."""
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, count * total)


def run_script(name: str, module: Any, arguments: list[str] | None = None) -> int:
    """Run an experiment as a program: compute, write, draw, print; 3 if something failed.

    A smoke run writes only where --out says, so that it never replaces a recorded result.
    """
    parser = argparse.ArgumentParser(description=module.__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="the small form, for tests")
    parser.add_argument("--out", type=Path, help="folder for the results")
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    recorded = load(RESULTS / name)
    content = module.compute(module.SMOKE if options.smoke else module.Config())
    folder = options.out or (None if options.smoke else RESULTS / name)
    if folder is not None:
        save(content, folder)
        module.plot(folder)
    describe = getattr(module, "table", None)
    if describe is not None:
        print(describe(content["values"]))
    else:
        show(content["comparison"])
    failures = missed(content, recorded, partial=options.smoke)
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 3 if failures else 0
