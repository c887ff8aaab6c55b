r"""The share of triples of responses to one prompt that lie in each M-sensitive region.

For an ordered triple (i, k, j) the sensitivity dp_ij/dp_ik is g'(s_i - s_j) / g'(s_i - s_k): with
the responses m sorted by log g'(s_i - s_m), the triples of one i are counted by binary search,
n^2 log n for a prompt. dp_ij/dp_kj has the same share, since (j, k, i) mirrors (i, k, j).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from .._checks import check_count
from ..audit.triples import check_thresholds
from ..links import Link, logistic
from ._sorted import log_densities, whole_sum
from .scores import Scores

THRESHOLDS = (1.01, 2.0, 3.0, 5.0, 10.0)
_AT_ONCE = 1 << 22


class TripleShares(NamedTuple):
    """How many triples of responses to one prompt lie in each M-sensitive region.

    Attributes
    ----------
    thresholds : tuple of float
        M, ascending.
    inside : tuple of float
        Ordered triples with dp_ij/dp_ik > M: whole numbers where all were counted.
    errors : tuple of float
        Standard error of each, 0 where all were counted.
    total : int
        Ordered triples (i, k, j) of three responses each; 0 where no prompt has three.
    method : str
        "exact" or "sampled".
    """

    thresholds: tuple[float, ...]
    inside: tuple[float, ...]
    errors: tuple[float, ...]
    total: int
    method: str

    def to_dict(self) -> dict[str, Any]:
        """Return counts and shares of all triples (None where there are none), for JSON."""
        total = self.total
        rows = zip(self.thresholds, self.inside, self.errors, strict=True)
        return {
            "total": total,
            "method": self.method,
            "regions": [
                {
                    "threshold": level,
                    "triples": count,
                    "share": count / total if total else None,
                    "share_error": error / total if total else None,
                }
                for level, count, error in rows
            ],
        }


def triple_shares(
    scores: Scores,
    *,
    link: Link = logistic,
    thresholds: Sequence[float] = THRESHOLDS,
    most_first: int = 2000,
    seed: int = 0,
) -> TripleShares:
    """Count the triples of responses to one prompt that lie in each M-sensitive region.

    Parameters
    ----------
    scores : Scores
        Scores in units of the link.
    link : Link
        The link g.
    thresholds : sequence of float
        M, finite and above 0.
    most_first : int
        A prompt with more responses than this is sampled: so many of its responses, drawn without
        replacement, take the place i; all (k, j) are counted for each.
    seed : int
        Of that draw.

    Returns
    -------
    TripleShares

    Raises
    ------
    InputError
        For a threshold that is not a finite number above 0, or none.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), Definitions 3 and 4, Eq. 4.

    Examples
    --------
    >>> scores = Scores.from_arrays(["x"] * 3, ["i", "k", "j"], [4.6, 0.0, 3.9])
    >>> triple_shares(scores, thresholds=(2.0, 20.0)).inside
    (2.0, 1.0)
    """
    levels = check_thresholds(thresholds)
    most = check_count("most_first", most_first, at_least=2)
    rng = np.random.default_rng(check_count("seed", seed, at_least=0))
    sizes = scores.sizes
    inside, variance = [0] * len(levels), np.zeros(len(levels))
    for size in np.unique(sizes[sizes >= 3]).tolist():
        rows = scores.score[scores.start[:-1][sizes == size][:, None] + np.arange(size)]
        if size <= most:
            counts = _all_first(link, rows, levels)
        else:
            counts, more = _some_first(link, rows, levels, most, rng)
            variance += more
        inside = [old + new for old, new in zip(inside, counts, strict=True)]
    return TripleShares(
        levels,
        tuple(float(count) for count in inside),
        tuple(np.sqrt(variance).tolist()),
        whole_sum(sizes * (sizes - 1) * (sizes - 2)),
        "sampled" if (sizes > most).any() else "exact",
    )


def _all_first(
    link: Link, rows: Float64[np.ndarray, "prompts size"], levels: tuple[float, ...]
) -> list[int]:
    """Return the count at each threshold, over every response in the place i."""
    size = rows.shape[1]
    first = np.tile(np.arange(size), (len(rows), 1))
    counts = [0] * len(levels)
    step = max(1, _AT_ONCE // size**2)
    for begin in range(0, len(rows), step):
        part = slice(begin, begin + step)
        found = _count(link, rows[part], first[part], levels)
        counts = [old + whole_sum(new) for old, new in zip(counts, found, strict=True)]
    return counts


def _some_first(
    link: Link,
    rows: Float64[np.ndarray, "prompts size"],
    levels: tuple[float, ...],
    most: int,
    rng: np.random.Generator,
) -> tuple[list[float], Float64[np.ndarray, " thresholds"]]:
    """Return estimates at each threshold, and their variances, from some responses as i."""
    size = rows.shape[1]
    estimate, variance = np.zeros(len(levels)), np.zeros(len(levels))
    step = max(1, _AT_ONCE // size)
    for row in rows:
        chosen = rng.choice(size, most, replace=False)
        parts = [
            _count(link, row[None], chosen[None, begin : begin + step], levels)
            for begin in range(0, most, step)
        ]
        each = np.concatenate(parts, axis=1).astype(np.float64)
        estimate += size * each.mean(axis=1)
        variance += size**2 * (1 - most / size) * each.var(axis=1, ddof=1) / most
    return estimate.tolist(), variance


def _count(
    link: Link,
    rows: Float64[np.ndarray, "prompts size"],
    first: Int64[np.ndarray, "prompts places"],
    levels: tuple[float, ...],
) -> Int64[np.ndarray, "thresholds entries"]:
    """Return for each response in the place i the number of (k, j), at each threshold."""
    size = rows.shape[1]
    margin = np.take_along_axis(rows, first, axis=1)[:, :, None] - rows[:, None, :]
    density = log_densities(link, margin)
    np.put_along_axis(density, first[:, :, None], np.inf, axis=2)  # i itself: sorted last, left out
    density = np.sort(density.reshape(-1, size), axis=1)[:, :-1]
    return np.stack([_pairs_apart(density, float(np.log(level))) for level in levels])


def _pairs_apart(
    values: Float64[np.ndarray, "rows size"], gap: float
) -> Int64[np.ndarray, " rows"]:
    """Return how many ordered pairs of each sorted row lie more than `gap` apart, none paired
    with itself.

    >>> _pairs_apart(np.array([[0.0, 1.0, 3.0]]), 1.5).tolist()
    [2]
    """  # noqa: D205
    low = np.zeros(values.shape, np.int64)
    high = np.full(values.shape, values.shape[1])
    for _ in range(values.shape[1].bit_length()):
        going = low < high
        middle = (low + high) // 2
        other = np.take_along_axis(values, np.minimum(middle, values.shape[1] - 1), axis=1)
        apart = going & (values - other > gap)
        low = np.where(apart, middle + 1, low)
        high = np.where(going & ~apart, middle, high)
    return low.sum(axis=1) - (values.shape[1] if gap < 0 else 0)
