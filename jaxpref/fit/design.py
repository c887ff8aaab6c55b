"""What a pairwise fit is asked to explain: cells of counts, and the columns of their margins.

The margin of a cell is s_a - s_b + sum_k z_k beta_k: the item scores, the order effect (a column of
ones, for the item shown first) and the comparison covariates. Item covariates explain the scores
themselves: s_i = sum_k x_ik gamma_k + u_i, with the prior on the deviations u.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from .._checks import DataError, InputError, check_option, show
from ..data.comparisons import Comparisons, PairCounts
from ..links import Link
from .outcomes import Cells

EffectKind = Literal["tie", "order", "comparison_covariate", "item_covariate"]


class Effect(NamedTuple):
    """A coefficient fitted besides the scores, in nats (per unit of its covariate).

    `kind` says what it multiplies: "order" is added to the margin of the item shown first, "tie"
    is the parameter of :mod:`jaxpref.fit.outcomes`.
    """

    name: str
    kind: EffectKind
    estimate: float
    standard_error: float


class Design(NamedTuple):
    """Cells of counts and the columns of their margins.

    Attributes
    ----------
    item_a, item_b : (cells,)
        Indices of the item shown first and of the other.
    cells : Cells
        Wins of item_a, wins of item_b, ties.
    columns : (cells, effects)
        Order effect, comparison covariates; and, where items have no scores of their own, the
        differences of item covariates.
    item_columns : (items, effects)
        Centred item covariates; none where items have no scores of their own.
    item_features : (items, effects)
        Centred item covariates, wherever they enter.
    names : tuple of (name, kind)
        Of the columns, then of the item columns.
    num_items : int
        Number of items.
    link : Link
        The link.
    ties : {"rao_kupper", "davidson"} or None
        Model of ties.
    ridge : float
        Strength of the prior on scores, or on their deviations from the item covariates.
    own_scores : bool
        False where scores are wholly explained by item covariates.
    """

    item_a: Int64[np.ndarray, " cells"]
    item_b: Int64[np.ndarray, " cells"]
    cells: Cells
    columns: Float64[np.ndarray, "cells effects"]
    item_columns: Float64[np.ndarray, "items item_effects"]
    item_features: Float64[np.ndarray, "items features"]
    names: tuple[tuple[str, EffectKind], ...]
    num_items: int
    link: Link
    ties: str | None
    ridge: float
    own_scores: bool

    @property
    def num_effects(self) -> int:
        """Number of coefficients besides the scores and the tie parameter."""
        return self.columns.shape[1] + self.item_columns.shape[1]


Covariates = Mapping[str, Any]


def build_design(
    comparisons: Comparisons,
    *,
    link: Link,
    ties: str | None,
    ridge: float,
    order_effect: bool,
    item_covariates: Covariates | None,
    comparison_covariates: Covariates | None,
) -> Design:
    """Return the design of a fit, its options and covariates checked.

    Parameters
    ----------
    comparisons : Comparisons
        Ties are dealt with already unless a model of them is asked for.
    link, ties, ridge, order_effect, item_covariates, comparison_covariates
        As in :func:`jaxpref.fit.fit_pairwise`; `ties` is the model or None.

    Raises
    ------
    InputError
        For covariates of the wrong length, not finite, constant, or not named by text.
    """
    per_item = _columns("item_covariates", item_covariates, comparisons.num_items)
    per_item = {name: column - column.mean() for name, column in per_item.items()}
    for name, column in per_item.items():
        if not np.any(column):
            raise InputError(
                f"item_covariates[{name!r}]: expected values that differ; all are equal"
            )
    rows = len(comparisons.item_a)
    per_cell = _columns("comparison_covariates", comparison_covariates, rows)
    a, b, cells, per_cell = _cells(comparisons, order_effect, per_cell)
    named: list[tuple[str, EffectKind, np.ndarray]] = []
    if order_effect:
        named.append(("order", "order", np.ones(len(a))))
    for name, column in per_cell.items():
        named.append((name, "comparison_covariate", column))
    own_scores = not math.isinf(ridge)
    features = _stack(list(per_item.values()), comparisons.num_items)
    for name, x in per_item.items() if not own_scores else ():
        named.append((name, "item_covariate", x[a] - x[b]))
    names: list[tuple[str, EffectKind]] = [(name, kind) for name, kind, _ in named]
    for name in per_item if own_scores else ():
        names.append((name, "item_covariate"))
    return Design(
        a,
        b,
        cells,
        _stack([column for *_, column in named], len(a)),
        features if own_scores else np.zeros((comparisons.num_items, 0)),
        features,
        tuple(names),
        comparisons.num_items,
        link,
        ties,
        ridge,
        own_scores,
    )


def named_covariates(
    comparisons: Comparisons, given: Covariates | Sequence[str] | None
) -> Covariates | None:
    """Return covariates of comparisons by name: as given, or looked up in the comparisons.

    Raises
    ------
    InputError
        For a name that the comparisons do not have.
    """
    if given is None or isinstance(given, Mapping):
        return given
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(
            f"comparison_covariates: expected names, or a mapping of names to arrays; got "
            f"{show(given)}"
        )
    for name in given:
        check_option("comparison_covariates", name, tuple(comparisons.covariates))
    return {name: comparisons.covariates[name] for name in given}


def plain_design(pairs: PairCounts, num_items: int, link: Link, ridge: float) -> Design:
    """Return the design of scores alone.

    >>> one, two = np.array([0]), np.array([1])
    >>> counts = PairCounts(one, two, one + 3.0, one + 2.0, one + 0.0)
    >>> from jaxpref.links import logistic
    >>> plain_design(counts, 2, logistic, 0.0).num_effects
    0
    """
    a, b = pairs.item_a.astype(np.int64), pairs.item_b.astype(np.int64)
    cells = Cells(pairs.wins_a, pairs.wins_b, pairs.ties)
    none, nothing = np.zeros((len(a), 0)), np.zeros((num_items, 0))
    return Design(a, b, cells, none, nothing, nothing, (), num_items, link, None, ridge, True)


def _stack(columns: list[np.ndarray], length: int) -> Float64[np.ndarray, "rows columns"]:
    return np.stack(columns, axis=1) if columns else np.zeros((length, 0))


def _columns(argument: str, given: Covariates | None, length: int) -> dict[str, np.ndarray]:
    """Return covariates as checked float64 columns."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(f"{argument}: expected a mapping of names to arrays; got {show(given)}")
    found = {}
    for name, values in given.items():
        place = f"{argument}[{name!r}]"
        if not isinstance(name, str) or not name:
            raise InputError(f"{place}: expected a name as text; got {name!r}")
        column = np.asarray(values)
        if column.shape != (length,) or column.dtype.kind not in "biuf":
            raise InputError(
                f"{place}: expected {length} numbers; got shape {column.shape} of {column.dtype}"
            )
        column = column.astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(column))
        if bad.size:
            raise InputError(f"{place}[{bad[0]}]: expected a finite number; got {column[bad[0]]}")
        found[name] = column
    return found


def _cells(
    comparisons: Comparisons, order_effect: bool, per_cell: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, Cells, dict[str, np.ndarray]]:
    """Return the cells with a comparison, added up where the model cannot tell them apart."""
    if not (order_effect or per_cell):
        pairs = comparisons.pairs()
        a, b = pairs.item_a.astype(np.int64), pairs.item_b.astype(np.int64)
        return a, b, Cells(pairs.wins_a, pairs.wins_b, pairs.ties), {}
    a, b = comparisons.item_a.astype(np.int64), comparisons.item_b.astype(np.int64)
    cells = Cells(comparisons.wins_a, comparisons.wins_b, comparisons.ties)
    if not per_cell:
        keys, where = np.unique(a * comparisons.num_items + b, return_inverse=True)
        cells = Cells(*(np.bincount(where, column, len(keys)) for column in cells))
        a, b = np.divmod(keys, comparisons.num_items)
    keep = cells.total > 0
    if not keep.any():
        raise DataError("comparisons: expected at least one comparison; every count is zero")
    kept = {name: column[keep] for name, column in per_cell.items()}
    return a[keep], b[keep], Cells(*(column[keep] for column in cells)), kept
