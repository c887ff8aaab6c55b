r"""Whether a reward model's preferences are as sure as they are right.

Of a pair of chosen and rejected the model says p = g(s_chosen - s_rejected); its confidence is
max(p, 1 - p), and it is right where p > 1/2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from .._checks import InputError
from .scores import Scores

EDGES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
_STEPS = 100


class CalibrationBin(NamedTuple):
    """Pairs whose confidence lies in [low, high): how sure, and how often right."""

    low: float
    high: float
    pairs: int
    confidence: float | None
    accuracy: float | None


class Calibration(NamedTuple):
    """How right and how sure a reward model is on pairs of chosen and rejected.

    Attributes
    ----------
    pairs : int
    accuracy, accuracy_error : float
        Share of pairs in which chosen scores higher, equal scores half, and its standard error.
    log_loss, log_loss_error : float
        Mean of -log p(chosen over rejected) (nats), and its standard error; log 2 for a model that
        prefers nothing.
    calibration_error : float
        Mean over pairs of the distance between confidence and accuracy of their bin.
    slope : float
        The b with which g(b (s_chosen - s_rejected)) fits best: below 1 the model is surer than it
        is right. 0 where it is wrong as often as right; inf where it is always right.
    bins : tuple of CalibrationBin
    """

    pairs: int
    accuracy: float
    accuracy_error: float
    log_loss: float
    log_loss_error: float
    calibration_error: float
    slope: float
    bins: tuple[CalibrationBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {**self._asdict(), "bins": [row._asdict() for row in self.bins]}


def reward_calibration(scores: Scores) -> Calibration:
    """Return accuracy and calibration of scores of chosen and rejected, under the logistic link.

    Parameters
    ----------
    scores : Scores
        Pairs of chosen and rejected.

    Returns
    -------
    Calibration

    Raises
    ------
    InputError
        For scores that are not of chosen and rejected: nothing says what is right there.

    Examples
    --------
    >>> found = reward_calibration(Scores.from_pairs([2.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.5]))
    >>> found.accuracy, round(found.log_loss, 4), round(found.slope, 2)
    (0.75, 0.5569, 0.96)
    """
    if not scores.paired:
        raise InputError("scores: expected pairs of chosen and rejected; got responses unordered")
    margin = scores.score[0::2] - scores.score[1::2]
    count = len(margin)
    loss = np.logaddexp(0.0, -margin)
    right = (margin > 0) + 0.5 * (margin == 0)
    accuracy = float(right.mean())
    bins, error = _bins(margin, right)
    return Calibration(
        pairs=count,
        accuracy=accuracy,
        accuracy_error=float(np.sqrt(accuracy * (1 - accuracy) / count)),
        log_loss=float(loss.mean()),
        log_loss_error=float(loss.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan"),
        calibration_error=error,
        slope=_slope(margin),
        bins=bins,
    )


def _bins(
    margin: Float64[np.ndarray, " pairs"], right: Float64[np.ndarray, " pairs"]
) -> tuple[tuple[CalibrationBin, ...], float]:
    sure = 1 / (1 + np.exp(-np.abs(margin)))
    place = np.clip(np.searchsorted(np.array(EDGES), sure, side="right") - 1, 0, len(EDGES) - 2)
    rows, error = [], 0.0
    for n in range(len(EDGES) - 1):
        inside = place == n
        pairs = int(inside.sum())
        confidence = float(sure[inside].mean()) if pairs else None
        accuracy = float(right[inside].mean()) if pairs else None
        if confidence is not None and accuracy is not None:
            error += pairs * abs(confidence - accuracy)
        rows.append(CalibrationBin(EDGES[n], EDGES[n + 1], pairs, confidence, accuracy))
    return tuple(rows), error / len(margin)


def _slope(margin: Float64[np.ndarray, " pairs"]) -> float:
    """Return the b >= 0 that minimises the mean of log(1 + exp(-b m)), by bisection."""
    if margin.sum() <= 0:
        return 0.0
    if (margin >= 0).all():
        return float("inf")
    scale = float(np.abs(margin).max())
    m = margin / scale

    def falls(b: float) -> bool:  # the mean still falls at b
        return float(np.sum(m / (1 + np.exp(np.clip(b * m, -700, 700))))) > 0

    low, high = 0.0, 1.0
    while falls(high) and high < 1e12:
        high *= 2
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(middle) else (low, middle)
    return low / scale
