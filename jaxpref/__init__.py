"""Sensitivity of preference models: how far one preference moves when another does.

The public names, in the order of the argument: a link turns margins into probabilities; models
compose them; sensitivities differentiate them; regions say where a sensitivity exceeds M, and
areas how much of the square that is; data are read, fitted and audited. ``jaxpref.llm``, which
needs the extra ``llm``, is imported when it is first asked for.
"""

from importlib import import_module as _import_module
from types import ModuleType as _ModuleType

from . import links
from ._checks import (
    ConvergenceError,
    DataError,
    DisconnectedComparisonsError,
    InputError,
    TiesError,
)
from .audit import AuditReport, audit, network_sensitivity
from .data import Comparisons, Rankings, read_comparisons, read_rankings
from .fit import (
    FitResult,
    RankingFit,
    bootstrap,
    fit_components,
    fit_pairwise,
    fit_rankings,
    fit_scores,
)
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
    peak_log_sensitivity,
    plackett_luce_area_by_length,
    plackett_luce_reachable_pair,
    plackett_luce_region_area,
    region_boundaries,
    region_boundary,
    region_contains,
    theorem_1_witness,
)
from .sensitivity import (
    log_sensitivity,
    plackett_luce_log_sensitivity,
    plackett_luce_log_sensitivity_in_plane,
    sensitivity,
)

__version__ = "0.1.0"


def __getattr__(name: str) -> _ModuleType:
    """Import the language models when they are asked for: they bring flax with them."""
    if name != "llm":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return _import_module(".llm", __name__)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__name__):
            raise
        raise ModuleNotFoundError(
            f"jaxpref.llm needs {error.name}: pip install 'jaxpref[llm]'", name=error.name
        ) from None


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
    "theorem_1_witness",
    "peak_log_sensitivity",
    "plackett_luce_region_area",
    "plackett_luce_area_by_length",
    "plackett_luce_reachable_pair",
    "AreaEstimate",
    "region_area",
    "plackett_luce_monte_carlo_area",
    # data, fits, audits
    "Comparisons",
    "read_comparisons",
    "Rankings",
    "read_rankings",
    "FitResult",
    "fit_pairwise",
    "fit_components",
    "fit_scores",
    "RankingFit",
    "fit_rankings",
    "bootstrap",
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
