"""Where a sensitivity exceeds M: regions of pairs and of rankings, and their closed-form areas."""

from .areas import bradley_terry_area, closed_form_area
from .pairs import (
    PAIR_REGIONS,
    Witness,
    combined_log_sensitivity,
    peak_log_sensitivity,
    region_boundaries,
    region_boundary,
    region_contains,
    theorem_1_witness,
)
from .rankings import (
    RANKING_REGIONS,
    LengthTrend,
    plackett_luce_area_by_length,
    plackett_luce_reachable_pair,
    plackett_luce_region_area,
)

__all__ = [
    "PAIR_REGIONS",
    "RANKING_REGIONS",
    "LengthTrend",
    "Witness",
    "bradley_terry_area",
    "closed_form_area",
    "combined_log_sensitivity",
    "peak_log_sensitivity",
    "plackett_luce_area_by_length",
    "plackett_luce_reachable_pair",
    "plackett_luce_region_area",
    "region_boundaries",
    "region_boundary",
    "region_contains",
    "theorem_1_witness",
]
