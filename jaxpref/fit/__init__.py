"""Maximum-likelihood and MAP scores from comparisons and rankings, with their uncertainty."""

from .bootstrap import BootstrapResult, bootstrap
from .pairwise import fit_pairwise
from .rankings import fit_rankings
from .rankings_result import RankingFit
from .result import FitResult, LeaderboardRow
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
    "FitResult",
    "Interval",
    "LeaderboardRow",
    "RankingFit",
    "bootstrap",
    "expected_information",
    "fit_pairwise",
    "fit_rankings",
    "margin_interval",
    "observed_information",
    "probability_interval",
    "quasi_variances",
    "rank_intervals",
    "sandwich_covariance",
    "score_intervals",
]
