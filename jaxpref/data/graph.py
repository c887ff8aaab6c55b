"""The graph of comparisons: which items can be put on one scale, and which cannot.

Item i points to item j where i beat j. Bradley-Terry scores of finite size maximise the likelihood
exactly when every item can be reached from every other along these edges [1]_.

References
----------
.. [1] L. R. Ford Jr., Solution of a ranking problem from binary comparisons, American Mathematical
   Monthly 64(8), 1957: the condition for existence and uniqueness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxpref._checks import InputError, check_option
from jaxpref.data.comparisons import Comparisons

NAMES_SHOWN = 5
REMEDIES = (
    "Remedies: a prior (ridge=0.1, or --ridge 0.1), dropping the items at fault "
    "(comparisons.drop([...]), or --drop), or fitting one component alone "
    "(comparisons.select([...]), or --component)."
)


@dataclass(frozen=True, eq=False)
class Components:
    """Components of the comparison graph, the largest first.

    Parameters
    ----------
    labels : ndarray of int32, shape (N,)
        Component of each item, from 0; larger components come first, then those with the earlier
        first item.
    count : int
        Number of components.
    sources : tuple of int
        Components that never lost to anyone outside, none if all items form one component. Empty
        for weak components.
    sinks : tuple of int
        Components that never beat anyone outside, likewise.
    """

    labels: np.ndarray
    count: int
    sources: tuple[int, ...] = ()
    sinks: tuple[int, ...] = ()

    def members(self, items: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the names in each component, as a list in the order of the labels.

        Parameters
        ----------
        items : sequence of str, length N
            The names, as in :attr:`jaxpref.data.Comparisons.items`.

        Raises
        ------
        InputError
            If there are not N names.
        """
        if len(items) != self.labels.size:
            raise InputError(f"items: expected {self.labels.size} names; got {len(items)}")
        grouped: list[list[str]] = [[] for _ in range(self.count)]
        for name, label in zip(items, self.labels, strict=True):
            grouped[label].append(name)
        return [tuple(names) for names in grouped]


def weak_components(comparisons: Comparisons) -> Components:
    """Find the islands: items that are linked by comparisons, whoever won.

    Parameters
    ----------
    comparisons : Comparisons
        The comparisons; cells without weight link nothing.

    Returns
    -------
    Components
        With no sources or sinks.

    Examples
    --------
    >>> votes = Comparisons.from_arrays(["x", "y", "p"], ["y", "z", "q"])
    >>> weak_components(votes).members(votes.items)
    [('x', 'y', 'z'), ('p', 'q')]
    """
    pairs = comparisons.pairs()
    labels, count = _label(pairs.item_a, pairs.item_b, comparisons.num_items, "weak")
    return Components(labels, count)


def strong_components(comparisons: Comparisons, *, ties: str = "half") -> Components:
    """Find the items among which each can be reached from each along wins.

    Parameters
    ----------
    comparisons : Comparisons
        The comparisons; cells without weight link nothing.
    ties : {"half", "ignore"}
        Whether a tie counts for both items, or for neither.

    Returns
    -------
    Components
        Maximum likelihood scores are finite, and unique up to a constant, exactly when ``count``
        is at most 1.

    Raises
    ------
    InputError
        If `ties` is neither.

    Examples
    --------
    >>> votes = Comparisons.from_arrays(["x", "y", "x"], ["y", "x", "z"])
    >>> components = strong_components(votes)
    >>> components.members(votes.items)
    [('x', 'y'), ('z',)]
    >>> components.sources, components.sinks
    ((0,), (1,))
    """
    winners, losers = _edges(comparisons, check_option("ties", ties, ("half", "ignore")))
    labels, count = _label(winners, losers, comparisons.num_items, "strong")
    if count <= 1:
        return Components(labels, count)
    leaving = labels[winners] != labels[losers]
    everyone = range(count)
    lost, won = set(labels[losers[leaving]].tolist()), set(labels[winners[leaving]].tolist())
    sources = tuple(label for label in everyone if label not in lost)
    sinks = tuple(label for label in everyone if label not in won)
    return Components(labels, count, sources, sinks)


def _edges(comparisons: Comparisons, ties: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the winner and the loser of each edge."""
    pairs = comparisons.pairs()
    tied = (pairs.ties > 0) & (ties == "half")
    ahead, behind = (pairs.wins_a > 0) | tied, (pairs.wins_b > 0) | tied
    winners = np.concatenate([pairs.item_a[ahead], pairs.item_b[behind]])
    losers = np.concatenate([pairs.item_b[ahead], pairs.item_a[behind]])
    return winners, losers


def _label(
    start: np.ndarray, end: np.ndarray, num_items: int, connection: str
) -> tuple[np.ndarray, int]:
    """Label the components of a directed graph, the largest first; read-only."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if num_items == 0:
        return np.zeros(0, np.int32), 0
    graph: Any = coo_array((np.ones(start.size), (start, end)), shape=(num_items, num_items))
    count, raw = connected_components(graph.tocsr(), directed=True, connection=connection)
    size = np.bincount(raw, minlength=count)
    first = np.full(count, num_items)
    np.minimum.at(first, raw, np.arange(num_items))
    rank = np.empty(count, np.int32)
    rank[np.lexsort((first, -size))] = np.arange(count)
    labels = rank[raw]
    labels.flags.writeable = False
    return labels, int(count)


def describe_separation(comparisons: Comparisons) -> str | None:
    """Say why the comparisons have no finite maximum likelihood fit, and what would help.

    Parameters
    ----------
    comparisons : Comparisons
        The comparisons; a tie counts for both items.

    Returns
    -------
    str or None
        None where the fit exists. Otherwise sentences that name the islands never compared with
        each other, or the items that only win or only lose against the rest, and the remedies.

    Examples
    --------
    >>> describe_separation(Comparisons.from_arrays(["x", "y"], ["y", "x"])) is None
    True
    >>> print(describe_separation(Comparisons.from_arrays(["x", "y", "x"], ["y", "x", "z"])))
    No finite maximum likelihood fit: of 3 items, the largest component holds 2. Never beat
    another item: 'z'. Remedies: a prior (ridge=0.1, or --ridge 0.1), dropping the items at fault
    (comparisons.drop([...]), or --drop), or fitting one component alone
    (comparisons.select([...]), or --component).
    """
    strong = strong_components(comparisons)
    if strong.count <= 1:
        return None
    weak = weak_components(comparisons)
    sentences = [*_describe_islands(comparisons, weak), *_describe_ends(comparisons, strong)]
    largest = int((strong.labels == 0).sum())
    size = f"of {strong.labels.size} items, the largest component holds {largest}."
    return " ".join(["No finite maximum likelihood fit:", size, *sentences, REMEDIES])


def _describe_islands(comparisons: Comparisons, weak: Components) -> list[str]:
    """Name the islands, and apart from them the items that were never compared."""
    groups = weak.members(comparisons.items)
    alone = [names[0] for names in groups if len(names) == 1]
    islands = [names for names in groups if len(names) > 1]
    sentences = []
    if len(islands) > 1:
        shown = "; ".join(f"{{{_some(names)}}}" for names in islands[:NAMES_SHOWN])
        more = len(islands) - NAMES_SHOWN
        rest = f"; and {more} more" if more > 0 else ""
        sentences.append(f"{len(islands)} islands never compared with each other: {shown}{rest}.")
    if alone:
        sentences.append(f"Never compared with any other item: {_some(alone)}.")
    return sentences


def _describe_ends(comparisons: Comparisons, strong: Components) -> list[str]:
    """Name the items and components that only win, or only lose, against the rest.

    A component that does both is an island of its own. A group of more than half the items is the
    rest, from which the others are set apart.
    """
    groups = strong.members(comparisons.items)
    sentences = []
    for ends, others, verb in (
        (strong.sources, strong.sinks, "lost to"),
        (strong.sinks, strong.sources, "beat"),
    ):
        apart = [groups[label] for label in ends if label not in others]
        single = [names[0] for names in apart if len(names) == 1]
        several = [names for names in apart if 1 < len(names) <= strong.labels.size / 2]
        if single:
            sentences.append(f"Never {verb} another item: {_some(single)}.")
        shown = "; ".join(f"{{{_some(names)}}}" for names in several[:NAMES_SHOWN])
        more = f"; and {len(several) - NAMES_SHOWN} more" if len(several) > NAMES_SHOWN else ""
        if several:
            sentences.append(f"Never {verb} anyone outside their group: {shown}{more}.")
    return sentences


def _some(names: Sequence[str]) -> str:
    """Write a handful of names, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:NAMES_SHOWN])
    more = len(names) - NAMES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
