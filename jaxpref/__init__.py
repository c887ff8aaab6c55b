"""Sensitivity of preference models: how far one preference moves when another does.

The public names, in the order of the argument: a link turns margins into probabilities; models
compose them; sensitivities differentiate them; regions say where a sensitivity exceeds M, and
areas how much of the square that is; data are read, fitted and audited.
"""

from . import links
from ._checks import (
    ConvergenceError,
    DataError,
    DisconnectedComparisonsError,
    InputError,
    TiesError,
)
from .audit import AuditReport, audit, network_sensitivity
from .data import Comparisons, read_comparisons
from .fit import FitResult, fit_pairwise
from .integrate import AreaEstimate, plackett_luce_monte_carlo_area, region_area
from .links import Link, LinkReport, check_link
from .models import (
    implied_probability,
    plackett_luce_log_alpha_beta,
    plackett_luce_log_probability,
    plackett_luce_log_probability_from_ratios,
    win_probability,
)
from .regions import (
    plackett_luce_region_area,
    region_boundaries,
    region_boundary,
    region_contains,
)
from .sensitivity import (
    log_sensitivity,
    plackett_luce_log_sensitivity,
    plackett_luce_log_sensitivity_in_plane,
    sensitivity,
)

__version__ = "0.1.0"

__all__ = [
    # links
    "links",
    "Link",
    "LinkReport",
    "check_link",
    # models
    "win_probability",
    "implied_probability",
    "plackett_luce_log_probability",
    "plackett_luce_log_probability_from_ratios",
    "plackett_luce_log_alpha_beta",
    # sensitivities
    "log_sensitivity",
    "sensitivity",
    "plackett_luce_log_sensitivity",
    "plackett_luce_log_sensitivity_in_plane",
    # regions and their areas
    "region_contains",
    "region_boundary",
    "region_boundaries",
    "plackett_luce_region_area",
    "AreaEstimate",
    "region_area",
    "plackett_luce_monte_carlo_area",
    # data, fits, audits
    "Comparisons",
    "read_comparisons",
    "FitResult",
    "fit_pairwise",
    "AuditReport",
    "audit",
    "network_sensitivity",
    # errors
    "InputError",
    "DataError",
    "DisconnectedComparisonsError",
    "TiesError",
    "ConvergenceError",
]
