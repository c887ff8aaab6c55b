"""Scores of reward models: how dominant their preferences are, and which quadruples flip.

Section C.5 of the paper as a tool for a file of scores. Importing this package loads no polars;
the reader does.
"""

from .calibration import Calibration, reward_calibration
from .dominance import PUBLISHED, RewardBin, RewardDominance, reward_dominance
from .quadruples import Quadruple, QuadrupleRule, Quadruples, fragile_quadruples
from .scores import Scores, common_step, read_scores
from .triples import TripleShares, triple_shares

__all__ = [
    "PUBLISHED",
    "Calibration",
    "Quadruple",
    "QuadrupleRule",
    "Quadruples",
    "RewardBin",
    "RewardDominance",
    "Scores",
    "TripleShares",
    "common_step",
    "fragile_quadruples",
    "read_scores",
    "reward_calibration",
    "reward_dominance",
    "triple_shares",
]
