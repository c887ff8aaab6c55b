"""Fit scores to pairwise comparisons by maximum likelihood, or with a Gaussian prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from .._checks import (
    DataError,
    DisconnectedComparisonsError,
    InputError,
    TiesError,
    check_option,
)
from ..data.comparisons import Comparisons, PairCounts
from ..links import Link, logistic
from ._host import float64
from ._limits import check_limits, check_ridge, check_two_items, require_converged
from .careful import fit_carefully, lost_coefficient
from .design import (
    Covariates,
    Design,
    Effect,
    EffectKind,
    build_design,
    named_covariates,
    plain_design,
)
from .existence import Connection, connection, refuse_unbounded_ties
from .inexact import fit_fast
from .likelihood import pair_terms
from .outcomes import TIE_MODELS
from .result import FitResult

TIES = ("refuse", "half", "drop", *TIE_MODELS)
_CONCAVE = ("logistic", "probit", "laplace")
_SEPARABLE = (
    " Perhaps there is no maximum: an order effect or covariate that decides every comparison "
    "grows for ever."
)
_FAST_ITEMS = 24
"""Below this many items factoring costs less than looking for a way around it."""


class Options(NamedTuple):
    """The options of a fit, checked."""

    link: Link
    ties: str
    ridge: float
    order_effect: bool
    item_covariates: Covariates | None
    comparison_covariates: Covariates | None
    tolerance: float
    max_steps: int

    @property
    def tie_model(self) -> str | None:
        """The model of ties, None where there are two outcomes."""
        return self.ties if self.ties in TIE_MODELS else None

    @property
    def plain(self) -> bool:
        """Whether there is nothing to fit but scores."""
        columns = self.item_covariates or self.comparison_covariates
        return not (self.tie_model or self.order_effect or columns)

    @property
    def regular(self) -> bool:
        """Whether the fit exists whatever the graph."""
        return self.ridge > 0


def fit_pairwise(
    comparisons: Comparisons,
    *,
    link: Link = logistic,
    ties: str = "refuse",
    ridge: float = 0.0,
    order_effect: bool = False,
    item_covariates: Covariates | None = None,
    comparison_covariates: Covariates | Sequence[str] | None = None,
    tolerance: float = 1e-10,
    max_steps: int = 200,
    throw: bool = True,
) -> FitResult:
    r"""Return the scores under which the comparisons are most likely.

    .. math:: \max_{s, \beta} \sum_c w_c \log P(\text{outcome}_c \mid m_c)
              - \frac{\rho}{2} \sum_i (s_i - x_i^\top \gamma)^2 , \qquad
              m_c = s_a - s_b + z_c^\top \beta , \qquad \sum_i s_i = 0

    With the logistic link and nothing but scores this is the Bradley-Terry model (section 2.3).
    Computed in float64 whatever JAX's default is.

    Parameters
    ----------
    comparisons : Comparisons
        At least two items; every item compared at least once, unless there is a ridge. Weights
        are those of the cells.
    link : Link
        Symmetric, with a concave log-probability: logistic, probit or laplace, or a user's own.
    ties : {"refuse", "half", "drop", "rao_kupper", "davidson"}
        "refuse" raises if there are any; "half" counts a tie as half a win for both; "drop" leaves
        them out; the others model ties as a third outcome and estimate the parameter
        (:mod:`jaxpref.fit.outcomes`).
    ridge : float, >= 0
        The strength rho of a Gaussian prior of variance 1/rho on every score (on its deviation
        from the item covariates, if there are any). Above 0 the scores always exist, also across
        islands and for items that never lost. ``math.inf`` with item covariates: no deviations.
    order_effect : bool
        Estimate an advantage of the item shown first (home, left), in nats, added to its margin.
    item_covariates : mapping of str to (items,), optional
        Features of the items that explain their scores, by name; centred. Needs a ridge, without
        which scores and covariates explain the same.
    comparison_covariates : mapping of str to (cells,), or sequence of str, optional
        Features of each comparison that add to the margin of its `item_a`, such as a difference
        in length of two answers ("style control"); one value for each entry of
        ``comparisons.item_a``. Names alone stand for ``comparisons.covariates``.
    tolerance : float, > 0
        Stop when a Newton step moves no score by more than this (relative to the largest score
        where that exceeds 1).
    max_steps : int, >= 1
        Newton steps to take at most.
    throw : bool
        Raise if the search does not converge; otherwise return what there is, with its `status`.

    Returns
    -------
    FitResult
        Scores that sum to zero, with status, uncertainty and predictions by name.

    Raises
    ------
    TiesError
        There are ties and `ties` is "refuse".
    DisconnectedComparisonsError
        Without a ridge, when the "was beaten by" graph is not strongly connected: the maximum
        does not exist (Ford 1957). The message names the components and the remedies.
    DataError
        Fewer than two items, no comparisons at all, ties that leave the tie parameter unbounded,
        or a coefficient that the data cannot tell from the scores.
    InputError
        For an option out of range.
    ConvergenceError
        The search ended early and `throw` is true.

    Notes
    -----
    Plain Bradley-Terry data go through Newton-CG (:mod:`jaxpref.fit.inexact`), which compiles
    nothing; what that will not take, and every other model, through damped Newton
    (:mod:`jaxpref.fit.careful`). Errors of centred scores are about 1e-10 even on chains of
    hundreds of items with counts of a million to one. Links other than the logistic compile one
    elementwise function, padded to a few sizes, so that a second data set of about the same size
    does not compile again. With an order effect or covariates the maximum can fail to exist though
    the graph is connected (the home team always wins): the status then says "max_steps".

    References
    ----------
    L. R. Ford, "Solution of a ranking problem from binary comparisons", American Mathematical
    Monthly 64(8), 1957: when the maximum exists.

    Examples
    --------
    >>> from jaxpref.data import load_bundled
    >>> fit = fit_pairwise(load_bundled("baseball"))
    >>> fit.rank()[:2], fit.status
    (('Milwaukee', 'Detroit'), 'converged')
    >>> round(fit.margin("Milwaukee", "Baltimore"), 3)  # Agresti 1990, section 10.6
    1.581
    """
    if not isinstance(comparisons, Comparisons):
        raise InputError(f"comparisons: expected Comparisons; got {type(comparisons).__name__}")
    options = _check_options(
        Options(
            link,
            ties,
            ridge,
            order_effect,
            item_covariates,
            named_covariates(comparisons, comparison_covariates),
            tolerance,
            max_steps,
        ),
    )
    comparisons = _settle_ties(comparisons, ties)
    pairs = _observed(comparisons)
    connected = connection(comparisons, pairs)
    _refuse_separation(comparisons, pairs, connected, options)
    fit = _fit(comparisons, pairs, connected, options)
    if throw:
        require_converged(
            fit,
            "fit_pairwise",
            tolerance,
            moved="a score",
            gradient=f"{fit.gradient_norm:.3g} comparisons",
            perhaps=_SEPARABLE if fit.effects else "",
        )
    return fit


def _check_options(options: Options) -> Options:
    if not isinstance(options.link, Link):
        raise InputError(f"link: expected a jaxpref Link; got {options.link!r}")
    check_option("ties", options.ties, TIES)
    _check_ridge(options)
    check_limits(options.tolerance, options.max_steps)
    if not isinstance(options.order_effect, bool):
        raise InputError(f"order_effect: expected True or False; got {options.order_effect!r}")
    if options.ties == "davidson" and options.link.name != "logistic":
        raise InputError(
            'ties: expected "rao_kupper" with this link; Davidson\'s model is defined for the '
            f"logistic link, got {options.link.name}"
        )
    if options.link.name not in _CONCAVE:
        _check_concave(options.link)
    return options._replace(ridge=float(options.ridge))


def _check_ridge(options: Options) -> None:
    ridge, explained = options.ridge, bool(options.item_covariates)
    if isinstance(ridge, float) and math.isinf(ridge) and ridge > 0 and explained:
        return
    check_ridge(ridge)
    if explained and ridge == 0:
        raise InputError(
            "ridge: expected a number above 0 with item_covariates (math.inf for no deviations "
            "from them); got 0, with which scores and covariates explain the same"
        )


def _check_concave(link: Link) -> None:
    """Refuse a link for which the maximum need not be unique, or that prefers a side."""
    if not link.symmetric:
        raise InputError(
            f"link: expected a symmetric link; got {link.name}, for which "
            "who is named first would change the fit"
        )
    with float64():
        margin = jnp.linspace(-30.0, 30.0, 601)
        one, zero = jnp.ones_like(margin), jnp.zeros_like(margin)
        curvature = np.asarray(pair_terms(link, margin, one, zero).curvature)
    if not np.all(curvature >= -1e-9):
        raise InputError(
            f"link: expected a link with a concave log-probability, such as logistic, probit or "
            f"laplace; got {link.name}, whose likelihood can have several maxima"
        )


def _settle_ties(comparisons: Comparisons, ties: str) -> Comparisons:
    """Return the comparisons as the caller wants ties dealt with."""
    if ties in TIE_MODELS or not comparisons.ties.any():
        return comparisons
    if ties == "half":
        return comparisons.with_ties_as_half_wins()
    if ties == "drop":
        return comparisons.without_ties()
    raise TiesError(
        f"comparisons: {comparisons.num_ties:g} of the comparisons are ties, and what a tie means "
        'is yours to say: pass ties="half" (--ties half) to count each as half a win for both '
        'items, ties="davidson" or "rao_kupper" to model them, or ties="drop" to leave them out'
    )


def _observed(comparisons: Comparisons) -> PairCounts:
    """Return the counts of the pairs that were compared, after checking that there are some."""
    check_two_items("comparisons", comparisons.num_items)
    pairs = _as_pairs(comparisons)
    if not len(pairs.item_a):
        raise DataError("comparisons: expected at least one comparison; every count is zero")
    return pairs


def _as_pairs(comparisons: Comparisons) -> PairCounts:
    """Return the pairs, without adding anything up where the cells already are pairs."""
    a, b = comparisons.item_a, comparisons.item_b
    if len(a) and (a < b).all():
        rising = (a[1:] > a[:-1]) | ((a[1:] == a[:-1]) & (b[1:] > b[:-1]))
        total = comparisons.wins_a + comparisons.wins_b + comparisons.ties
        if rising.all() and (total > 0).all():
            return PairCounts(a, b, comparisons.wins_a, comparisons.wins_b, comparisons.ties)
    return comparisons.pairs()


def _refuse_separation(
    comparisons: Comparisons, pairs: PairCounts, connected: Connection, options: Options
) -> None:
    """Raise where there is no finite maximum."""
    if not options.regular:
        problem = connected.describe(comparisons)
        if problem is not None:
            raise DisconnectedComparisonsError(problem)
    if options.tie_model is not None:
        refuse_unbounded_ties(comparisons, pairs, options.tie_model, prior=options.regular)


def _fit(
    comparisons: Comparisons, pairs: PairCounts, connected: Connection, options: Options
) -> FitResult:
    """Fit by the fastest way that takes the problem."""
    limits = {"tolerance": options.tolerance, "max_steps": options.max_steps}
    if options.plain and options.link.name == "logistic" and comparisons.num_items >= _FAST_ITEMS:
        a, b = pairs.item_a.astype(np.int64), pairs.item_b.astype(np.int64)
        counts = a, b, pairs.wins_a, pairs.wins_b, comparisons.num_items
        if connected.weak.count == 1:
            fast = fit_fast(*counts, ridge=options.ridge, **limits)
            if fast is not None:
                return _as_result(comparisons, pairs, connected, options, None, fast._asdict())
    design = _design(comparisons, pairs, options)
    lost = lost_coefficient(design)
    if lost is not None:
        raise DataError(
            f"{lost}: expected a coefficient that the comparisons tell from the scores and the "
            "other coefficients; got one that they do not"
        )
    found = fit_carefully(design, **limits)
    return _as_result(comparisons, pairs, connected, options, design, found._asdict())


def _design(comparisons: Comparisons, pairs: PairCounts, options: Options) -> Design:
    if not options.plain:
        return build_design(
            comparisons,
            link=options.link,
            ties=options.tie_model,
            ridge=options.ridge,
            order_effect=options.order_effect,
            item_covariates=options.item_covariates,
            comparison_covariates=options.comparison_covariates,
        )
    return plain_design(pairs, comparisons.num_items, options.link, options.ridge)


def _as_result(
    comparisons: Comparisons,
    pairs: PairCounts,
    connected: Connection,
    options: Options,
    design: Design | None,
    found: dict[str, Any],
) -> FitResult:
    effects: tuple[Effect, ...] = ()
    scores, covariance = found["scores"], None
    if design is not None and not options.plain:
        effects, covariance = _effects(design, found), found["effect_covariance"]
        if not design.own_scores:
            explained = [kind == "item_covariate" for _, kind in design.names]
            scores = design.item_features @ found["effects"][explained]
    return FitResult(
        items=comparisons.items,
        scores=scores - scores.mean(),
        link=options.link,
        ridge=options.ridge,
        ties=options.ties,
        status=found.get("status", "converged"),
        gradient_norm=found["gradient_norm"],
        step_size=found["step_size"],
        steps=found["steps"],
        log_likelihood=found["log_likelihood"],
        pairs=pairs,
        components=connected.strong,
        islands=connected.weak,
        effects=effects,
        effect_covariance=covariance,
        design=None if options.plain else design,
    )


def _effects(design: Design, found: dict[str, Any]) -> tuple[Effect, ...]:
    """Return the coefficients by name, the tie parameter last."""
    named: list[tuple[str, EffectKind]] = [*design.names]
    estimates = list(found["effects"])
    if design.ties is not None:
        named.append(("tie", "tie"))
        estimates.append(found["tie"])
    errors = np.sqrt(np.diagonal(found["effect_covariance"]))
    return tuple(
        Effect(name, kind, float(estimate), float(error))
        for (name, kind), estimate, error in zip(named, estimates, errors, strict=True)
    )
