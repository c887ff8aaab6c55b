"""The bundled tables are the published ones, and each has a fit."""

from __future__ import annotations

import numpy as np
import pytest

from jaxpref._checks import InputError
from jaxpref.data import (
    bundled_citation,
    bundled_names,
    bundled_path,
    describe_separation,
    load_bundled,
    read_comparisons,
)


@pytest.mark.parametrize("name", bundled_names())
def test_each_table_is_strongly_connected_and_cited(name: str) -> None:
    votes = load_bundled(name)
    assert describe_separation(votes) is None
    assert votes == read_comparisons(bundled_path(name))
    assert bundled_citation(name).endswith(".")


@pytest.mark.parametrize("name", ["baseball_path", "journals_path", "example1"])
def test_a_path_holds_the_consecutive_pairs_and_no_other(name: str) -> None:
    votes = load_bundled(name)
    pairs = votes.pairs()
    np.testing.assert_array_equal(pairs.item_a, np.arange(votes.num_items - 1))
    np.testing.assert_array_equal(pairs.item_b, pairs.item_a + 1)
    assert (np.minimum(pairs.wins_a, pairs.wins_b) > 0).all()


@pytest.mark.parametrize("name", ["baseball", "journals"])
def test_a_path_keeps_the_counts_of_the_whole(name: str) -> None:
    whole, path = load_bundled(name), load_bundled(f"{name}_path")
    assert whole.items == path.items
    kept = path.counts_matrix() > 0
    np.testing.assert_array_equal(whole.counts_matrix()[kept], path.counts_matrix()[kept])


def test_baseball_has_thirteen_games_a_pair() -> None:
    wins = load_bundled("baseball").counts_matrix()
    np.testing.assert_array_equal(wins + wins.T, 13 * (1 - np.eye(7)))
    # Wins of the season within the division, added up by hand from the printed table.
    np.testing.assert_array_equal(wins.sum(axis=1), [50, 47, 44, 43, 40, 31, 18])


def test_journals_by_total_citations() -> None:
    votes = load_bundled("journals")
    assert votes.items == ("Biometrika", "Comm Statist", "JASA", "JRSS-B")
    np.testing.assert_array_equal(votes.counts_matrix().sum(axis=1), [1449, 118, 1275, 885])


def test_example1_has_the_papers_probabilities() -> None:
    pairs = load_bundled("example1").pairs()
    np.testing.assert_array_equal(pairs.wins_a / (pairs.wins_a + pairs.wins_b), [0.99, 0.02])


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'baseball'"):
        load_bundled("basebal")
