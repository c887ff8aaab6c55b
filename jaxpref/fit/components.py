"""One fit for each component of the comparisons, where a single scale does not exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .._checks import DataError
from ..data.comparisons import Comparisons
from ..data.graph import strong_components
from ..links import Link, logistic
from .pairwise import fit_pairwise
from .result import FitResult


def fit_components(
    comparisons: Comparisons,
    *,
    link: Link = logistic,
    ties: str = "refuse",
    order_effect: bool = False,
    comparison_covariates: Sequence[str] | None = None,
    tolerance: float = 1e-10,
    max_steps: int = 200,
    throw: bool = True,
) -> list[FitResult]:
    """Return a fit for each group of items tied together by wins in both directions.

    Within such a group maximum likelihood scores exist; between groups no scale does, and each fit
    refuses to predict across.

    Parameters
    ----------
    comparisons : Comparisons
        Any comparisons; those between groups are left out.
    link, ties, order_effect, tolerance, max_steps, throw
        As in :func:`jaxpref.fit.fit_pairwise`.
    comparison_covariates : sequence of str, optional
        Names of ``comparisons.covariates``, each with a coefficient of its own in every fit.

    Returns
    -------
    list of FitResult
        The largest component first; items on their own have none. `unlinked` names the items
        outside each.

    Raises
    ------
    DataError
        If no two items are tied together, and as :func:`jaxpref.fit.fit_pairwise` does.

    Examples
    --------
    >>> votes = Comparisons.from_arrays(["x", "y", "x", "p", "q"], ["y", "x", "p", "q", "p"])
    >>> fits = fit_components(votes)
    >>> [fit.items for fit in fits]
    [('p', 'q'), ('x', 'y')]
    """
    if ties == "drop":
        comparisons = comparisons.without_ties()
    groups = [
        names for names in strong_components(comparisons).members(comparisons.items) if names[1:]
    ]
    if not groups:
        raise DataError(
            "comparisons: expected two items that each beat the other, directly or through "
            "others; got none. A prior (ridge=0.1) would rank them all"
        )
    fits = []
    for names in groups:
        fit = fit_pairwise(
            comparisons.select(names),
            link=link,
            ties=ties,
            order_effect=order_effect,
            comparison_covariates=comparison_covariates,
            tolerance=tolerance,
            max_steps=max_steps,
            throw=throw,
        )
        kept = set(names)
        others = tuple(name for name in comparisons.items if name not in kept)
        fits.append(replace(fit, unlinked=others))
    return fits
