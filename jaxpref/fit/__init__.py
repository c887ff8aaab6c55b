"""Maximum-likelihood and MAP scores from comparisons, with their uncertainty."""

from .pairwise import fit_pairwise
from .result import FitResult, LeaderboardRow

__all__ = ["FitResult", "LeaderboardRow", "fit_pairwise"]
