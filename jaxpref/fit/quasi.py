"""Quasi-variances: one number for each item, from which any two can be compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64

from .._checks import InputError
from .joint import Fit, score_covariance


def quasi_variances(fit: Fit, *, covariance: Any = None) -> Float64[np.ndarray, " items"]:
    r"""Return q such that q_a + q_b comes close to the variance of every margin s_a - s_b.

    With them anyone can compare any two items from one column of numbers [1]_. They minimise the
    sum over pairs of (log(q_a + q_b) - log V_ab)^2, V_ab the variance of the margin.

    Parameters
    ----------
    fit : FitResult or RankingFit
        Of at least three items.
    covariance : array_like, shape (items, items), or JointCovariance, optional
        In place of ``fit.covariance()``.

    Returns
    -------
    (items,) array
        nats^2, in the order of ``fit.items``. An item's may be negative when its margins are known
        better than half the others'; every sum of two is positive.

    Raises
    ------
    InputError
        With fewer than three items, or a covariance in which some margin has variance 0.

    References
    ----------
    .. [1] D. Firth and R. de Menezes, "Quasi-variances", Biometrika 91(1), 2004.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 2, 2], [2, 0, 2], [2, 2, 0]]))
    >>> quasi_variances(fit).round(9).tolist()  # each margin has variance 2/3
    [0.333333333, 0.333333333, 0.333333333]
    """
    matrix = score_covariance(fit, covariance)
    size = matrix.shape[0]
    if size < 3:
        raise InputError(f"fit: expected at least three items; got {size}")
    diagonal = np.diagonal(matrix)
    margins = diagonal[:, None] + diagonal[None, :] - 2 * matrix
    apart = ~np.eye(size, dtype=bool)
    if not (margins[apart] > 0).all():
        raise InputError("covariance: expected every margin to have a variance above 0")
    return _fit_quasi(np.where(apart, margins, 1.0), apart)


def _fit_quasi(margins: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Minimise the squared log ratios by damped Gauss-Newton."""
    size = margins.shape[0]
    total = np.where(apart, margins, 0.0).sum(axis=1)
    quasi = np.maximum(total / (size - 2) - total.sum() / (2 * (size - 1) * (size - 2)), 0.0)
    quasi += 1e-3 * margins[apart].mean()

    def residual(q: np.ndarray) -> np.ndarray:
        sums = np.where(apart, q[:, None] + q[None, :], 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(apart, np.log(sums / margins), 0.0)

    current = residual(quasi)
    for _ in range(200):
        weight = np.where(apart, 1 / (quasi[:, None] + quasi[None, :]), 0.0)
        normal = weight**2 + np.diag((weight**2).sum(axis=1))
        step = -np.linalg.solve(normal, (weight * current).sum(axis=1))
        length = 1.0
        while length > 1e-12:
            trial = residual(quasi + length * step)
            if np.isfinite(trial).all() and (trial**2).sum() <= (current**2).sum():
                break
            length /= 2
        else:
            break
        quasi, current = quasi + length * step, trial
        if np.abs(step).max() <= 1e-13 * np.abs(quasi).max():
            break
    return quasi
