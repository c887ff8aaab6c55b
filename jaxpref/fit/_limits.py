"""What every fit checks before it starts, and says when it did not get there."""

from __future__ import annotations

import numpy as np

from .._checks import ConvergenceError, DataError, check_between, check_count, check_positive
from .base import BaseFit


def check_ridge(ridge: float) -> None:
    """Require a finite strength of the prior, at least 0."""
    if not (type(ridge) is float and ridge == 0):
        what = "a finite number of at least 0"
        check_between("ridge", ridge, 0.0, np.finfo(float).max, what=what)


def check_limits(tolerance: float, max_steps: int) -> None:
    """Require a tolerance above 0 and a whole number of steps."""
    if tolerance != 1e-10:
        check_positive("tolerance", tolerance)
    check_count("max_steps", max_steps)


def check_two_items(argument: str, num_items: int) -> None:
    """Require something to compare."""
    if num_items < 2:
        raise DataError(f"{argument}: expected at least two items; got {num_items}")


def require_converged(
    fit: BaseFit, function: str, tolerance: float, *, moved: str, gradient: str, perhaps: str = ""
) -> None:
    """Raise unless the search reached its tolerance.

    Parameters
    ----------
    fit : BaseFit
        The fit.
    function : str
        Name of the function that searched.
    tolerance : float
        What it was to reach.
    moved : str
        What a step moves.
    gradient : str
        The gradient, with its unit.
    perhaps : str
        A sentence on what may be the cause.

    Raises
    ------
    ConvergenceError
        With how far the search got, and what to do.
    """
    if fit.status == "converged":
        return
    reason = (
        "ran out of steps" if fit.status == "max_steps" else "found no direction that still climbs"
    )
    raise ConvergenceError(
        f"{function} {reason} after {fit.steps}: the last step moved {moved} by "
        f"{fit.step_size:.3g} (tolerance {tolerance:g}) and the largest gradient is {gradient}."
        f"{perhaps} Raise max_steps, or add a prior with ridge=...; throw=False returns the "
        "unfinished fit"
    )
