"""From a fit to the leaderboard with intervals that ``jaxpref fit`` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import _terminal
from ._modelling import RESAMPLES, Uncertainty

if TYPE_CHECKING:
    from ..data import Comparisons, Rankings
    from ..fit import BootstrapResult, FitResult, Interval, RankingFit
    from ..report.leaderboard import Standing


class Board(NamedTuple):
    """A leaderboard with intervals, and how they were made."""

    rows: list[Standing]
    effects: dict[str, Interval]
    method: str
    cluster: str | None
    clusters: int | None
    resampled: BootstrapResult | None

    def describe(self, level: float) -> str:
        """Return how the intervals were made, in a few words."""
        text = {"wald": "from the information", "sandwich": "from the sandwich",
                "bootstrap": "percentiles of the bootstrap",
                "weights": "percentiles of the bootstrap by weights"}[self.method]  # fmt: skip
        found = self.resampled
        if found is not None:
            text += f", {len(found.scores):,} resamples"
            if found.separable or found.unfinished:
                text += (
                    f" ({found.separable:,} more have no fit and {found.unfinished:,} did not "
                    "converge: the intervals are too narrow)"
                )
        if self.cluster == "rater":
            text += f", clustered by {self.clusters:,} raters"
        elif self.cluster == "none":
            text += ", not clustered"
        return text

    def to_dict(self, uncertainty: Uncertainty) -> dict[str, Any]:
        """Return how the intervals were made, for JSON."""
        found = self.resampled
        content: dict[str, Any] = {"method": self.method, "level": uncertainty.level,
                                   "seed": uncertainty.seed}  # fmt: skip
        if self.cluster is not None:
            content |= {"cluster": self.cluster, "clusters": self.clusters}
        if found is not None:
            content |= {"resamples": found.resamples, "fitted": len(found.scores),
                        "separable": found.separable, "unfinished": found.unfinished}  # fmt: skip
        return content


def make_board(
    fit: FitResult | RankingFit, data: Comparisons | Rankings, uncertainty: Uncertainty
) -> Board:
    """Return the leaderboard of a fit with the intervals asked for."""
    import numpy as np

    from ..fit import bootstrap, effect_intervals, joint_sandwich, rank_intervals, score_intervals
    from ..report.leaderboard import standings

    level, how = uncertainty.level, uncertainty.intervals
    random = np.random.default_rng(uncertainty.seed)
    cluster = None
    if how != "wald":
        cluster = uncertainty.cluster or ("none" if data.rater is None else "rater")
    clusters = len(data.raters) if cluster == "rater" else None
    if cluster == "rater" and data.rater is None:
        from .._checks import InputError

        raise InputError(
            "--cluster: expected a column of raters (--rater NAME); the data have none"
        )
    if how in ("bootstrap", "weights"):
        whole, raters = (
            ("nonparametric", "rater") if how == "bootstrap" else ("weights", "rater_weights")
        )
        method = raters if cluster == "rater" else whole
        with _terminal.progress("Resampling") as move:
            count = uncertainty.resamples or RESAMPLES
            again = bootstrap(fit, data, key=random, resamples=count, method=method, progress=move)
        scores, ranks = again.score_intervals(level=level), again.rank_intervals(level=level)
        quasi = _quasi(fit, uncertainty, again.covariance() if uncertainty.quasi else None)
        rows = standings(fit, scores, ranks, quasi)
        return Board(rows, again.effect_intervals(level=level), how, cluster, clusters, again)
    joint = joint_sandwich(fit, data, cluster=cluster or "none") if how == "sandwich" else None
    covariance = fit.covariance() if joint is None else joint.scores
    rows = standings(
        fit,
        score_intervals(fit, level=level, covariance=covariance),
        rank_intervals(fit, key=random, level=level, covariance=covariance),
        _quasi(fit, uncertainty, covariance),
    )
    effects = effect_intervals(fit, level=level, covariance=joint)
    return Board(rows, effects, how, cluster, clusters, None)


def _quasi(
    fit: FitResult | RankingFit, uncertainty: Uncertainty, covariance: Any
) -> dict[str, float] | None:
    """Return quasi-standard errors by name, None where they are not asked for."""
    if not uncertainty.quasi:
        return None
    import numpy as np

    from .._checks import InputError
    from ..fit import quasi_variances

    variances = quasi_variances(fit, covariance=covariance)
    if (variances < 0).any():
        worst = fit.items[int(np.argmin(variances))]
        raise InputError(
            f"--quasi: expected quasi-variances above 0; that of {worst!r} is negative, its "
            "margins being known better than half the others', and has no root"
        )
    return dict(zip(fit.items, np.sqrt(variances).tolist(), strict=True))
