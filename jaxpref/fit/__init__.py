"""Maximum-likelihood and MAP scores from comparisons and rankings, with their uncertainty."""

from .base import LeaderboardRow
from .bootstrap import BootstrapResult, bootstrap
from .components import fit_components
from .design import Effect
from .implicit import ScoreFit, fit_scores
from .pairwise import fit_pairwise
from .rankings import fit_rankings
from .rankings_result import RankingFit
from .result import FitResult, OutcomeProbabilities
from .uncertainty import (
    Interval,
    expected_information,
    margin_interval,
    observed_information,
    probability_interval,
    quasi_variances,
    rank_intervals,
    sandwich_covariance,
    score_intervals,
)

__all__ = [
    "BootstrapResult",
    "Effect",
    "FitResult",
    "Interval",
    "LeaderboardRow",
    "OutcomeProbabilities",
    "RankingFit",
    "ScoreFit",
    "bootstrap",
    "expected_information",
    "fit_components",
    "fit_pairwise",
    "fit_rankings",
    "fit_scores",
    "margin_interval",
    "observed_information",
    "probability_interval",
    "quasi_variances",
    "rank_intervals",
    "sandwich_covariance",
    "score_intervals",
]
