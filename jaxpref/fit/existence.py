"""Whether a finite maximum exists, told quickly where the answer is yes.

Without a tie model, it exists exactly when every item can be reached from every other along wins,
a tie counting both ways (Ford 1957). With a tie model it must besides be impossible that wins are
decided, and ties are ties, by score differences all growing together: see
:func:`ties_explained_by_growth`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from .._checks import DataError
from ..data.comparisons import Comparisons, PairCounts
from ..data.graph import (
    Components,
    describe_separation,
    strong_components,
    weak_components,
)

_ROUNDS = 64
_SAMPLES = 8, 64
_FEW = 160
"""Up to this many items a matrix of who beat whom is quicker than looking at samples."""


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
    """Whether a few rounds of reaching out from an item, along wins and against them, find it so.

    Samples of the pairs go first; they leave few items, whose pairs are then all looked at.
    """
    if num_items <= _FEW:
        return _connected_few(pairs, num_items)
    down = _hub(pairs, num_items)
    up = down.copy()
    strides = [len(pairs.item_a) // (size * num_items) for size in _SAMPLES]
    for step in [stride for stride in strides if stride > 1] + [1]:
        known = down & up
        if known.all():
            return True
        a, b = (column[::step].astype(np.int64) for column in (pairs.item_a, pairs.item_b))
        left = np.flatnonzero(~(known[a] & known[b]))
        won, lost, ties = (column[::step][left] for column in pairs[2:])
        a, b, won, lost = a[left], b[left], won + ties > 0, lost + ties > 0
        _spread(down, a, b, won, lost)
        _spread(up, a, b, lost, won)
    return bool((down & up).all())


def _connected_few(pairs: PairCounts, num_items: int) -> bool:
    """Whether the first item reaches all others along wins, and all others reach it."""
    a, b = pairs.item_a.astype(np.int64), pairs.item_b.astype(np.int64)
    beat = np.zeros((num_items, num_items))
    beat.ravel()[a * num_items + b] = pairs.wins_a + pairs.ties
    beat.ravel()[b * num_items + a] = pairs.wins_b + pairs.ties
    for way in (beat, beat.T):
        reached, count = np.zeros(num_items), 1
        reached[0] = 1.0
        for _ in range(num_items):
            reached = ((reached @ way + reached) > 0).astype(np.float64)
            before, count = count, int(np.count_nonzero(reached))
            if count in (num_items, before):
                break
        if count < num_items:
            return False
    return True


def _hub(pairs: PairCounts, num_items: int) -> Bool[np.ndarray, " items"]:
    """Return an item with many opponents that it both beat and lost to, and these opponents."""
    step = max(1, len(pairs.item_a) // (_SAMPLES[0] * num_items))
    mutual = _mutual(pairs, slice(None, None, step))
    degree = np.bincount(pairs.item_a[::step][mutual], minlength=num_items)
    hub = int(np.argmax(degree + np.bincount(pairs.item_b[::step][mutual], minlength=num_items)))
    of_hub = np.flatnonzero((pairs.item_a == hub) | (pairs.item_b == hub))
    of_hub = of_hub[_mutual(pairs, of_hub)]
    around = np.zeros(num_items, bool)
    around[hub] = True
    around[pairs.item_a[of_hub]] = True
    around[pairs.item_b[of_hub]] = True
    return around


def _mutual(pairs: PairCounts, chosen: Any) -> Bool[np.ndarray, " chosen"]:
    """Return which of the chosen pairs were won by either side, a tie counting for both."""
    won, lost, tied = pairs.wins_a[chosen], pairs.wins_b[chosen], pairs.ties[chosen]
    return (won + tied > 0) & (lost + tied > 0)


def _spread(
    reached: np.ndarray, item_a: np.ndarray, item_b: np.ndarray, up: np.ndarray, down: np.ndarray
) -> None:
    """Mark what the marked items reach, in place."""
    start, end = (
        np.concatenate([item_a[up], item_b[down]]),
        np.concatenate([item_b[up], item_a[down]]),
    )
    count = 0
    for _ in range(_ROUNDS):
        reached[end[reached[start]]] = True
        before, count = count, int(np.count_nonzero(reached))
        if count == before:
            return


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
    >>> ties_explained_by_growth(PairCounts(one, two, one + 3.0, one + 2.0, one + 1.0), 2)
    False
    >>> ties_explained_by_growth(PairCounts(one, two, one + 3.0, one + 0.0, one + 1.0), 2)
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
