"""Whether a finite maximum exists, told quickly where the answer is yes.

Without a tie model, it exists exactly when every item can be reached from every other along wins,
a tie counting both ways (Ford 1957). With a tie model it must besides be impossible that wins are
decided, and ties are ties, by score differences all growing together: see
:func:`ties_explained_by_growth`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from .._checks import DataError
from ..data.comparisons import Comparisons, PairCounts
from ..data.graph import (
    Components,
    describe_separation,
    strong_components,
    weak_components,
)

_ROUNDS = 64
_SAMPLE = 8


class Connection(NamedTuple):
    """Strong and weak components."""

    strong: Components
    weak: Components

    def describe(self, comparisons: Comparisons) -> str | None:
        """Say why there is no maximum, or return None where there is one."""
        return None if self.strong.count <= 1 else describe_separation(comparisons)


def connection(comparisons: Comparisons, pairs: PairCounts) -> Connection:
    """Return the components of the graph "was beaten by", in which a tie counts both ways.

    >>> votes = Comparisons.from_arrays([0, 1], [1, 0])
    >>> connection(votes, votes.pairs()).strong.count
    1
    """
    if _strongly_connected(pairs, comparisons.num_items):
        labels = np.zeros(comparisons.num_items, np.int32)
        labels.flags.writeable = False
        return Connection(Components(labels, 1), Components(labels, 1))
    return Connection(strong_components(comparisons), weak_components(comparisons))


def _strongly_connected(pairs: PairCounts, num_items: int) -> bool:
    """Whether a few rounds of reaching out find it so; a sample of the pairs often suffices."""
    tied = pairs.ties > 0
    won, lost = (pairs.wins_a > 0) | tied, (pairs.wins_b > 0) | tied
    stride = len(pairs.item_a) // (_SAMPLE * num_items)
    for step in {max(stride, 1), 1}:
        a, b, up, down = (c[::step] for c in (pairs.item_a, pairs.item_b, won, lost))
        if _reaches_all(a[up], b[up], a[down], b[down], num_items) and _reaches_all(
            b[up], a[up], b[down], a[down], num_items
        ):
            return True
    return False


def _reaches_all(
    from_a: np.ndarray, to_b: np.ndarray, to_a: np.ndarray, from_b: np.ndarray, num_items: int
) -> bool:
    """Whether all items are reached from item 0 in a few rounds."""
    reached = np.zeros(num_items, bool)
    reached[0] = True
    count = 1
    for _ in range(_ROUNDS):
        reached[to_b[reached[from_a]]] = True
        reached[to_a[reached[from_b]]] = True
        before, count = count, int(np.count_nonzero(reached))
        if count == num_items:
            return True
        if count == before:
            return False
    return False


def refuse_unbounded_ties(
    comparisons: Comparisons, pairs: PairCounts, ties: str, *, prior: bool
) -> None:
    """Raise where the tie parameter has no finite maximum.

    Raises
    ------
    DataError
        If there are no ties, or nothing but ties, or scores and tie parameter can grow together
        for ever, which a prior on the scores rules out.
    """
    what = f"ties={ties!r}: expected"
    if comparisons.num_ties == 0:
        raise DataError(f'{what} at least one tie to estimate it from; got none: use ties="refuse"')
    if comparisons.num_ties == comparisons.num_comparisons:
        raise DataError(f"{what} some comparisons that are not ties; got only ties")
    if not prior and ties_explained_by_growth(pairs, comparisons.num_items):
        raise DataError(
            f"{what} wins that no ordering explains; here every win goes down one ranking in which "
            "ties are between neighbours, so that scores and tie parameter grow without bound. Use "
            'ties="half", add a prior (ridge=0.1), or collect more comparisons'
        )


def ties_explained_by_growth(pairs: PairCounts, num_items: int) -> bool:
    """Whether scores exist with every win at least 2 apart and every tie at most 2 apart.

    If so, scores and tie parameter can grow for ever without making any outcome less likely. It is
    so unless some cycle holds more wins, all in one direction, than ties (Bellman-Ford).

    >>> one, two = np.array([0]), np.array([1])
    >>> ties_explained_by_growth(PairCounts(one, two, one + 3.0, one + 0.0, one + 1.0), 2)
    False
    >>> ties_explained_by_growth(PairCounts(one, two, one + 3.0, one + 0.0, one + 0.0), 2)
    True
    """
    up, down, tied = pairs.wins_a > 0, pairs.wins_b > 0, pairs.ties > 0
    a, b = pairs.item_a, pairs.item_b
    # score[high] >= score[low] + need
    high = np.concatenate([a[up], b[down], a[tied], b[tied]])
    low = np.concatenate([b[up], a[down], b[tied], a[tied]])
    need = np.repeat([2, 2, -2, -2], [up.sum(), down.sum(), tied.sum(), tied.sum()])
    score = np.zeros(num_items, np.int64)
    for _ in range(num_items + 1):
        before: Int[np.ndarray, " items"] = score.copy()
        np.maximum.at(score, high, before[low] + need)
        if np.array_equal(before, score):
            return True
    return False
