"""``python -m jaxpref``, and the console script ``jaxpref``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the program's name; ``sys.argv[1:]`` when left out.

    Returns
    -------
    int
        0 done, 2 bad usage or bad input, 3 did not converge or failed a check, 130 interrupted.
    """
    # transformers reads tokenizers here: that PyTorch is missing is as it should be.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from .cli.app import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
