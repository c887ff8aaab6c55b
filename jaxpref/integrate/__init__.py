"""Areas of sensitive regions, each with its error: quadrature, lattice, Monte Carlo."""

from .areas import METHODS, plackett_luce_monte_carlo_area, region_area
from .estimate import AreaEstimate
from .sampling import Progress

__all__ = ["METHODS", "AreaEstimate", "Progress", "plackett_luce_monte_carlo_area", "region_area"]
