"""The comparison graph: components against a slow search, and the words for what is separated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from jaxpref._checks import InputError
from jaxpref.data import (
    Comparisons,
    describe_separation,
    read_comparisons,
    strong_components,
    weak_components,
)
from tests.strategies import comparison_fields, counts


def reachable(edges: np.ndarray) -> np.ndarray:
    """Warshall's closure: who is reached from whom, each item from itself."""
    closed = edges | np.eye(len(edges), dtype=bool)
    for middle in range(len(edges)):
        closed |= closed[:, [middle]] & closed[[middle], :]
    return closed


# Laws


@given(counts())
def test_components_are_mutual_reachability(wins: np.ndarray) -> None:
    votes = Comparisons.from_counts(wins)
    along = reachable(wins > 0)
    strong = strong_components(votes)
    np.testing.assert_array_equal(strong.labels[:, None] == strong.labels, along & along.T)
    weak = weak_components(votes)
    np.testing.assert_array_equal(
        weak.labels[:, None] == weak.labels, reachable((wins + wins.T) > 0)
    )


@given(counts())
def test_sources_and_sinks_are_by_the_matrix(wins: np.ndarray) -> None:
    strong = strong_components(Comparisons.from_counts(wins))
    sources, sinks = [], []
    for label in range(strong.count):
        inside = strong.labels == label
        if not wins[np.ix_(~inside, inside)].any():
            sources.append(label)
        if not wins[np.ix_(inside, ~inside)].any():
            sinks.append(label)
    expected = (sources, sinks) if strong.count > 1 else ([], [])
    assert (list(strong.sources), list(strong.sinks)) == expected


@given(comparison_fields())
def test_half_wins_are_what_half_means(fields: dict[str, Any]) -> None:
    votes = Comparisons(**fields)
    as_ties = strong_components(votes)
    as_wins = strong_components(votes.with_ties_as_half_wins(), ties="ignore")
    np.testing.assert_array_equal(as_ties.labels, as_wins.labels)


@given(comparison_fields())
def test_members_are_a_partition_largest_first(fields: dict[str, Any]) -> None:
    votes = Comparisons(**fields)
    groups = strong_components(votes).members(votes.items)
    assert sorted(name for group in groups for name in group) == sorted(votes.items)
    sizes = [len(group) for group in groups]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) > 0


@given(counts())
def test_a_description_exactly_where_no_fit_exists(wins: np.ndarray) -> None:
    text = describe_separation(Comparisons.from_counts(wins))
    assert (text is None) == bool(reachable(wins > 0).all())
    assert text is None or all(remedy in text for remedy in ("--ridge", "--drop", "--component"))


# Exact references


def test_ties_link_both_ways_or_not_at_all() -> None:
    one, two = np.array([0]), np.array([1])
    votes = Comparisons(("x", "y"), one, two, np.zeros(1), np.zeros(1), np.ones(1))
    assert strong_components(votes).count == 1
    assert strong_components(votes, ties="ignore").count == 2
    assert describe_separation(votes) is None


def test_an_undefeated_and_a_winless_item_are_named() -> None:
    wins = [[0, 1, 2, 1], [0, 0, 3, 1], [0, 1, 0, 1], [0, 0, 0, 0]]
    votes = Comparisons.from_counts(wins, items=["ace", "x", "y", "last"])
    text = describe_separation(votes)
    assert text is not None
    assert "of 4 items, the largest component holds 2" in text
    assert "Never lost to another item: 'ace'." in text
    assert "Never beat another item: 'last'." in text
    assert "island" not in text


def test_islands_are_named_and_so_are_items_never_compared() -> None:
    wins = np.zeros((5, 5))
    wins[0, 1] = wins[1, 0] = wins[2, 3] = wins[3, 2] = 1
    text = describe_separation(Comparisons.from_counts(wins, items=list("pqrst")))
    assert text is not None
    assert "2 islands never compared with each other: {'p', 'q'}; {'r', 's'}." in text
    assert "Never compared with any other item: 't'." in text
    assert "Never lost" not in text


def test_groups_that_only_win_or_lose_are_named() -> None:
    wins = np.zeros((7, 7))
    for group in ([0, 1], [2, 3, 4], [5, 6]):
        for k, item in enumerate(group):
            wins[item, group[(k + 1) % len(group)]] = 1
    wins[0, 2] = wins[2, 5] = 1
    text = describe_separation(Comparisons.from_counts(wins, items=list("abcdefg")))
    assert text is not None
    assert "Never lost to anyone outside their group: {'a', 'b'}." in text
    assert "Never beat anyone outside their group: {'f', 'g'}." in text


def test_long_lists_are_cut() -> None:
    text = describe_separation(
        Comparisons.from_arrays(["top"] * 17, [f"n{k:02}" for k in range(17)])
    )
    assert text is not None
    assert "Never beat another item: 'n00', 'n01', 'n02', 'n03', 'n04' and 12 more." in text


@pytest.mark.parametrize("wins", [np.zeros((0, 0)), np.zeros((1, 1))])
def test_nothing_to_separate(wins: np.ndarray) -> None:
    votes = Comparisons.from_counts(wins)
    assert describe_separation(votes) is None
    assert strong_components(votes).count == weak_components(votes).count == len(wins)


def test_bad_arguments_are_refused() -> None:
    votes = Comparisons.from_arrays(["x"], ["y"])
    with pytest.raises(InputError, match="ties: expected one of 'half', 'ignore'; got 'halves'"):
        strong_components(votes, ties="halves")
    with pytest.raises(InputError, match="expected 2 names; got 1"):
        weak_components(votes).members(["x"])


# Real data


@pytest.mark.shared_data
def test_soccer_has_an_island(shared_data) -> None:
    votes = read_comparisons(shared_data / "soccer_international/results.csv.gz")
    text = describe_separation(votes)
    assert text is not None and "{'Aymara', 'Mapuche', 'Maule Sur'}" in text
    main = strong_components(votes).members(votes.items)[0]
    assert describe_separation(votes.select(main)) is None


@pytest.mark.shared_data
def test_the_crowd_votes_are_connected(shared_data) -> None:
    votes = read_comparisons(shared_data / "llmfao/crowd-comparisons.csv.gz")
    assert describe_separation(votes) is None
