"""Maximum-likelihood and MAP scores from comparisons and rankings, with their uncertainty."""

from .base import LeaderboardRow
from .bootstrap import BootstrapResult, bootstrap
from .components import fit_components
from .design import Effect
from .implicit import ScoreFit, fit_scores
from .information import expected_information, observed_information
from .intervals import (
    Interval,
    effect_intervals,
    margin_interval,
    probability_interval,
    rank_intervals,
    score_intervals,
)
from .joint import JointCovariance, joint_covariance
from .pairwise import fit_pairwise
from .quasi import quasi_variances
from .rankings import fit_rankings
from .rankings_result import RankingFit
from .result import FitResult, OutcomeProbabilities
from .sandwich import joint_sandwich, sandwich_covariance

__all__ = [
    "BootstrapResult",
    "Effect",
    "FitResult",
    "Interval",
    "JointCovariance",
    "LeaderboardRow",
    "OutcomeProbabilities",
    "RankingFit",
    "ScoreFit",
    "bootstrap",
    "effect_intervals",
    "expected_information",
    "fit_components",
    "fit_pairwise",
    "fit_rankings",
    "fit_scores",
    "joint_covariance",
    "joint_sandwich",
    "margin_interval",
    "observed_information",
    "probability_interval",
    "quasi_variances",
    "rank_intervals",
    "sandwich_covariance",
    "score_intervals",
]
