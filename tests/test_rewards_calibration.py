"""Accuracy and calibration of rewards: laws, exact values, hard places."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tolerances import EXACT

from jaxpref import InputError
from jaxpref.rewards import Scores, reward_calibration


def pairs(margin):
    return Scores.from_pairs(np.asarray(margin, float), np.zeros(len(margin)))


def test_scores_drawn_from_their_own_model_are_calibrated():
    random = np.random.default_rng(0)
    size = random.normal(0, 2, 40_000)
    margin = np.where(random.random(40_000) < 1 / (1 + np.exp(-size)), size, -size)
    found = reward_calibration(pairs(margin))
    assert found.calibration_error < 0.02
    assert abs(found.slope - 1) < 0.03
    twice = reward_calibration(pairs(2 * margin))
    assert abs(twice.slope - found.slope / 2) < 1e-9 and twice.accuracy == found.accuracy
    assert twice.calibration_error > 0.05


def test_exact_values_and_ends():
    found = reward_calibration(pairs([1.0, -1.0, 0.0]))
    assert found.accuracy == 0.5 and found.slope == 0
    loss = (math.log1p(math.exp(-1)) + math.log1p(math.exp(1)) + math.log(2)) / 3
    assert abs(found.log_loss - loss) < EXACT
    assert sum(row.pairs for row in found.bins) == 3
    assert reward_calibration(pairs([1.0, 2.0])).slope == math.inf
    far = reward_calibration(pairs([1e4, -1e4, 1e4]))
    assert math.isfinite(far.log_loss) and far.bins[-1].pairs == 3


def test_unordered_responses_are_refused():
    scores = Scores.from_arrays(["x", "x"], ["a", "b"], [0.0, 1.0])
    with pytest.raises(InputError, match="expected pairs of chosen and rejected"):
        reward_calibration(scores)
