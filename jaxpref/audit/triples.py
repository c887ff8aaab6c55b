r"""The paper's triple view: an unseen pair (i, j), and an item k that both were compared with.

With margins x = s_i - s_k and y = s_k - s_j the prediction is p_ij = g(x + y) (Lemma 1), and
log|dp_ij/dp_ik| = log g'(x + y) - log g'(x) (Eq. 4 for the logistic link). For one pair x + y is
the same whatever k is, so the most sensitive triple goes through the k whose margins are most
extreme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float64, Int, Int32

from .._checks import check_count, check_positive
from ..fit._host import pad, pair_bucket
from ..fit.likelihood import predict
from ..fit.result import FitResult
from ..links import Link
from ..sensitivity import log_sensitivity


class Triple(NamedTuple):
    """One prediction seen through one intermediate item.

    `margin_ik` and `margin_kj` are the paper's (x, y), `probability_ik` and `probability_kj` the
    two fitted inputs, the log-sensitivities those of p_ij to each. `region` is the largest of the
    audit's thresholds M with the point strictly inside its M-sensitive region, with respect to
    either input, or None; `wrt` names the input p_ij is more sensitive to.
    """

    item_k: str
    margin_ik: float
    margin_kj: float
    probability_ik: float
    probability_kj: float
    log_sensitivity_ik: float
    log_sensitivity_kj: float
    region: float | None
    wrt: str


class TripleCounts(NamedTuple):
    """How many triples of a data set lie in each M-sensitive region.

    `inside[t]` is the number of triples (unseen pair, intermediate item) of which one of the two
    sensitivities exceeds `thresholds[t]`; regions are nested, so the counts never increase.
    """

    thresholds: tuple[float, ...]
    inside: tuple[int, ...]
    total: int

    def to_dict(self) -> dict[str, Any]:
        """Return the counts with their shares of all triples (None where there are none)."""
        shares = [count / self.total if self.total else None for count in self.inside]
        columns = zip(self.thresholds, self.inside, shares, strict=True)
        return {
            "total": self.total,
            "regions": [{"threshold": m, "triples": n, "share": share} for m, n, share in columns],
        }


def check_thresholds(thresholds: Sequence[float | int]) -> tuple[float, ...]:
    """Return the thresholds M, ascending, or raise unless all are finite, above 0, and differ.

    >>> check_thresholds([3, 2])
    (2.0, 3.0)
    """
    check_positive("thresholds", thresholds, "a finite threshold M above 0")
    ordered = tuple(sorted({float(m) for m in thresholds}))
    check_count("thresholds: how many", len(ordered))
    return ordered


@eqx.filter_jit
def log_densities(
    link: Link, rows: Float64[Array, " rows"], scores: Float64[Array, " items"]
) -> Float64[Array, "rows items"]:
    """Return log g'(s_i - s_j) for some items and every item."""
    return link.log_density(rows[:, None] - scores[None, :])


@jax.jit
def most_sensitive_triples(
    log_density: Float64[Array, "rows items"],
    adjacent: Bool[Array, "rows items"],
    log_thresholds: Float64[Array, " thresholds"],
    row_i: Int[Array, " pairs"],
    row_j: Int[Array, " pairs"],
    item_j: Int[Array, " pairs"],
) -> tuple[Int[Array, " pairs"], Int[Array, " pairs"], Int[Array, "pairs thresholds"]]:
    """Return, per pair, the intermediate of the most sensitive triple, and counts of triples.

    Pairs are given by the rows of their items, and by the second item itself.

    Returns
    -------
    middle : (pairs,)
        Index of the item k, or -1 where no item was compared with both.
    total : (pairs,)
        Number of such items.
    inside : (pairs, thresholds)
        Number of them whose larger sensitivity exceeds each threshold.
    """
    places = jnp.arange(adjacent.shape[1], dtype=jnp.int32)

    def one(pair: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, j, second = pair
        common = adjacent[i] & adjacent[j]
        flattest = jnp.minimum(log_density[i], log_density[j])
        larger = jnp.where(common, log_density[i, second] - flattest, -jnp.inf)
        # A difference of 1e-12 is rounding: the first of equals, so that no machine's answer
        # differs from another's.
        first = common & (larger >= jnp.max(larger) - 1e-12)
        middle = jnp.min(jnp.where(first, places, jnp.iinfo(jnp.int32).max))
        middle = jnp.where(jnp.any(common), middle, -1)
        inside = jnp.sum(larger[None, :] > log_thresholds[:, None], axis=1, dtype=jnp.int32)
        return middle, jnp.sum(common, dtype=jnp.int32), inside

    return jax.lax.map(one, (row_i, row_j, item_j))


def describe_triples(
    fit: FitResult,
    item_i: Int32[np.ndarray, " pairs"],
    item_j: Int32[np.ndarray, " pairs"],
    item_k: Int32[np.ndarray, " pairs"],
    thresholds: tuple[float, ...],
) -> list[Triple | None]:
    """Return the named records of triples (i, j, k), None where k is -1. Needs 64 bits."""
    x, y = fit.scores[item_i] - fit.scores[item_k], fit.scores[item_k] - fit.scores[item_j]
    size = pair_bucket(len(x))
    logs = _log_sensitivities(fit.link, jnp.asarray(pad(x, size)), jnp.asarray(pad(y, size)))
    log_ik, log_kj = (np.asarray(log) for log in logs)
    p_ik, p_kj = predict(fit.link, x).probability, predict(fit.link, y).probability
    return [
        Triple(
            item_k=fit.items[k],
            margin_ik=float(x[n]),
            margin_kj=float(y[n]),
            probability_ik=float(p_ik[n]),
            probability_kj=float(p_kj[n]),
            log_sensitivity_ik=float(log_ik[n]),
            log_sensitivity_kj=float(log_kj[n]),
            region=_region(max(log_ik[n], log_kj[n]), thresholds),
            wrt="ik" if log_ik[n] >= log_kj[n] else "kj",
        )
        if k >= 0
        else None
        for n, k in enumerate(item_k.tolist())
    ]


@eqx.filter_jit
def _log_sensitivities(
    link: Link, x: Float64[Array, " pairs"], y: Float64[Array, " pairs"]
) -> tuple[Float64[Array, " pairs"], Float64[Array, " pairs"]]:
    return log_sensitivity(x, y, link=link)


def _region(larger: float, thresholds: tuple[float, ...]) -> float | None:
    """Return the largest threshold M whose region strictly contains the point, or None."""
    below = [threshold for threshold in thresholds if larger > math.log(threshold)]
    return below[-1] if below else None
