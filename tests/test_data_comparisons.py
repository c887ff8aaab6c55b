"""The container: laws of its sums, exact small cases, and everything it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxpref._checks import DataError, InputError
from jaxpref.data import Comparisons
from tests.strategies import comparison_fields, counts


def make(**changes: Any) -> Comparisons:
    fields: dict[str, Any] = {
        "items": ("x", "y", "z"),
        "item_a": np.array([0, 1, 0]),
        "item_b": np.array([1, 0, 2]),
        "wins_a": np.array([3.0, 1.0, 0.0]),
        "wins_b": np.array([1.0, 4.0, 0.0]),
        "ties": np.array([2.0, 0.0, 0.0]),
    }
    return Comparisons(**{**fields, **changes})


# Laws


@given(comparison_fields())
def test_pairs_are_sorted_unordered_and_keep_every_weight(fields: dict[str, Any]) -> None:
    votes = Comparisons(**fields)
    pairs = votes.pairs()
    assert (pairs.item_a < pairs.item_b).all()
    keys = list(zip(pairs.item_a.tolist(), pairs.item_b.tolist(), strict=True))
    assert keys == sorted(set(keys))
    totals = pairs.wins_a + pairs.wins_b + pairs.ties
    assert (totals > 0).all()
    assert totals.sum() == votes.num_comparisons
    assert pairs.ties.sum() == votes.num_ties


@given(comparison_fields())
def test_pairs_agree_with_a_dictionary(fields: dict[str, Any]) -> None:
    votes = Comparisons(**fields)
    expected: dict[tuple[int, int], np.ndarray] = defaultdict(lambda: np.zeros(3))
    cells = (votes.item_a, votes.item_b, votes.wins_a, votes.wins_b, votes.ties)
    for a, b, wins_a, wins_b, ties in zip(*cells, strict=True):
        key = (int(min(a, b)), int(max(a, b)))
        expected[key] += (wins_a, wins_b, ties) if a < b else (wins_b, wins_a, ties)
    expected = {key: sums for key, sums in expected.items() if sums.any()}
    got = {(int(a), int(b)): sums for a, b, *sums in zip(*votes.pairs(), strict=True)}
    assert got.keys() == expected.keys()
    for key, sums in got.items():
        np.testing.assert_array_equal(sums, expected[key])


@given(comparison_fields())
def test_counts_matrix_agrees_with_pairs(fields: dict[str, Any]) -> None:
    votes = Comparisons(**fields)
    wins, pairs = votes.counts_matrix(), votes.pairs()
    np.testing.assert_array_equal(wins[pairs.item_a, pairs.item_b], pairs.wins_a)
    np.testing.assert_array_equal(wins[pairs.item_b, pairs.item_a], pairs.wins_b)
    assert wins.sum() == votes.num_comparisons - votes.num_ties


@given(counts())
def test_a_matrix_of_counts_comes_back(wins: np.ndarray) -> None:
    np.testing.assert_array_equal(Comparisons.from_counts(wins).counts_matrix(), wins)


@given(comparison_fields())
def test_half_wins_keep_the_total_and_the_differences(fields: dict[str, Any]) -> None:
    votes = Comparisons(**fields)
    halves = votes.with_ties_as_half_wins()
    assert halves.num_ties == 0
    assert halves.num_comparisons == votes.num_comparisons
    before, after = votes.counts_matrix(), halves.counts_matrix()
    np.testing.assert_array_equal(after - after.T, before - before.T)


@given(comparison_fields(), st.data())
def test_selecting_is_a_submatrix_and_dropping_its_complement(
    fields: dict[str, Any], data: st.DataObject
) -> None:
    votes = Comparisons(**fields)
    order = data.draw(st.permutations(votes.items))
    kept = order[: data.draw(st.integers(1, len(order)))]
    index = [votes.index(name) for name in kept]
    chosen = votes.select(kept)
    assert chosen.items == tuple(kept)
    np.testing.assert_array_equal(
        chosen.counts_matrix(), votes.counts_matrix()[np.ix_(index, index)]
    )
    rest = [name for name in votes.items if name not in kept]
    assert votes.drop(rest) == votes.select([name for name in votes.items if name in kept])


@given(st.data(), st.integers(2, 40), st.booleans())
def test_arrays_of_indices_and_names_count_alike(
    data: st.DataObject, size: int, weighted: bool
) -> None:
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    length = data.draw(st.sampled_from([1, 5, 900]))  # sorting for few rows, bins for many
    winner = generator.integers(0, size, length)
    loser = (winner + 1 + generator.integers(0, size - 1, length)) % size
    weight = generator.integers(0, 5, length) / 4 if weighted else None
    expected = np.zeros((size, size))
    np.add.at(expected, (winner, loser), 1.0 if weight is None else weight)
    names = [f"item {k}" for k in range(size)]
    by_index = Comparisons.from_arrays(winner, loser, items=names, weight=weight)
    by_name = Comparisons.from_arrays(
        [names[k] for k in winner], [names[k] for k in loser], items=names, weight=weight
    )
    np.testing.assert_array_equal(by_index.counts_matrix(), expected)
    assert by_index == by_name


def test_large_sparse_indices_are_sorted_not_binned() -> None:
    generator = np.random.default_rng(0)
    winner = generator.integers(0, 200_000, 5_000)
    loser = (winner + 1) % 200_001
    pairs = Comparisons.from_arrays(winner, loser).pairs()
    unique = np.unique(np.stack([np.minimum(winner, loser), np.maximum(winner, loser)]), axis=1)
    np.testing.assert_array_equal(pairs.item_a, unique[0])
    np.testing.assert_array_equal(pairs.item_b, unique[1])
    assert pairs.wins_a.sum() + pairs.wins_b.sum() == 5_000


# Exact references


def test_summary_numbers() -> None:
    votes = make(rater=np.array([0, 1, 0]), raters=("ann", "bob"))
    assert (votes.num_items, votes.num_comparisons, votes.num_ties) == (3, 11.0, 2.0)
    assert repr(votes) == "Comparisons(3 items, 11 comparisons (2 ties) in 1 pair, 2 raters)"
    np.testing.assert_array_equal(votes.counts_matrix(), [[0, 7, 0], [2, 0, 0], [0, 0, 0]])
    assert votes.pairs().item_a.dtype == np.int32
    assert votes.index("z") == 2


def test_selecting_leaves_out_raters_without_a_vote() -> None:
    votes = make(rater=np.array([0, 0, 1]), raters=("ann", "bob"))
    assert votes.select(["x", "z"]).raters == ("bob",)
    assert votes.drop("z").raters == ("ann",)


def test_arrays_are_copies_that_cannot_be_written() -> None:
    wins = np.array([3.0, 1.0, 0.0])
    votes = make(wins_a=wins)
    wins[0] = 99
    assert votes.wins_a[0] == 3
    for array in (votes.item_a, votes.item_b, votes.wins_a, votes.wins_b, votes.ties):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        votes.items = ("p", "q")  # type: ignore[misc]


def test_equality_is_by_value_and_sees_every_field() -> None:
    assert make() == make()
    assert make() != make(wins_a=np.array([3.0, 1.0, 1.0]))
    assert make() != make(items=("x", "y", "w"))
    assert make() != make(rater=np.zeros(3, int), raters=("ann",))
    assert make() != "votes"


@pytest.mark.parametrize("diagonal", [0.0, np.nan])
def test_the_diagonal_may_be_zero_or_nan(diagonal: float) -> None:
    votes = Comparisons.from_counts([[diagonal, 2], [1, diagonal]], items=["x", "y"])
    np.testing.assert_array_equal(votes.counts_matrix(), [[0, 2], [1, 0]])


def test_indices_stand_for_positions_even_unused_ones() -> None:
    votes = Comparisons.from_arrays([0, 3], [3, 0])
    assert votes.items == ("0", "1", "2", "3")


@pytest.mark.parametrize("column", [np.array, pd.Series, pl.Series, pa.array, list])
def test_names_and_indices_come_in_any_column(column: Any) -> None:
    by_name = Comparisons.from_arrays(column(["b", "b"]), column(["a", "c"]))
    by_index = Comparisons.from_arrays(column([1, 1]), column([0, 2]), items="a b c".split())
    assert by_name == by_index
    np.testing.assert_array_equal(by_name.counts_matrix(), [[0, 0, 0], [1, 0, 1], [0, 0, 0]])


# Hard places


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": ("x", "y", "x")}, r"each name once; got 'x' more than once"),
        ({"items": ("x", "", "z")}, r"items\[1\]: expected a non-empty name"),
        ({"item_a": np.array([0, 1, 3])}, r"item_a\[2\]: expected an index from 0 to 2; got 3"),
        ({"item_b": np.array([1, -1, 2])}, r"item_b\[1\]: .* from 0 to 2; got -1"),
        ({"item_b": np.array([1, 1, 2])}, r"item_b\[1\]: .* both are 'y'"),
        ({"item_a": np.array([0.0, 1.0, 0.0])}, "whole-number indices; got float64"),
        ({"item_a": np.array([[0, 1, 0]])}, r"one dimension; got shape \(1, 3\)"),
        ({"wins_a": np.array([1.0, -1.0, 0.0])}, r"wins_a\[1\]: .* at least 0; got -1"),
        ({"wins_b": np.array([1.0, np.nan, 0.0])}, r"wins_b\[1\]: .*; got nan"),
        ({"ties": np.array([np.inf, 0.0, 0.0])}, r"ties\[0\]: .*; got inf"),
        ({"ties": np.array(["1", "2", "3"])}, "ties: expected real weights"),
        ({"ties": np.array([1.0])}, "ties: expected 3 values; got 1"),
        ({"rater": np.array([0, 0, 1]), "raters": ("ann",)}, r"rater\[2\]: .* got 1"),
        ({"raters": ("ann",)}, "raters: expected no names"),
    ],
)
def test_the_container_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("matrix", "items", "message"),
    [
        ([[0, 1, 2], [1, 0, 2]], None, r"square matrix; got shape \(2, 3\)"),
        ([0, 1], None, r"square matrix; got shape \(2,\)"),
        ([[0, 1], [1]], None, "rows of equal length"),
        ([["-", "a"], ["b", "-"]], None, "expected numbers"),
        ([[1, 1], [1, 0]], None, "'0' is compared with itself"),
        ([[0, -1], [1, 0]], ["x", "y"], r"'x' over 'y' \(row 1, column 2\).*; got -1"),
        ([[0, 1], [np.nan, 0]], ["x", "y"], r"'y' over 'x' .*; got nan"),
        ([[0, np.inf], [1, 0]], None, "got inf"),
        ([[0, 1], [1, 0]], ["x"], "expected 2 names, one for each row; got 1"),
        ([[0, 1], [1, 0]], "xy", "expected a sequence of names"),
    ],
)
def test_a_matrix_is_refused(matrix: Any, items: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Comparisons.from_counts(matrix, items)


@pytest.mark.parametrize(
    ("winner", "loser", "options", "message"),
    [
        (
            [0, -1, -1],
            [1, 0, 0],
            {},
            r"row 2 and 1 more row like it: winner: .* at least 0; got -1",
        ),
        ([0, 2], [1, 2], {}, "row 2: loser: expected another item"),
        ([0], [2], {"items": ["x", "y"]}, "row 1: loser: expected an index from 0 to 1; got 2"),
        ([0, 10**9], [1, 0], {}, "row 2: winner: .* at most 10,000,000"),
        ([0], [1, 2], {}, "expected 1 values; got 2"),
        ([], [], {}, "at least one comparison"),
        ([0, 1], [1, 0], {"weight": [1, np.nan]}, "row 2: weight: .*; got nan"),
        ([0, 1], [1, 0], {"weight": [-2, 1]}, "row 1: weight: .*; got -2"),
        ([0, 1], [1, 0], {"weight": [1]}, "expected 2 values; got 1"),
        ([0.5], [1], {}, "row 1: winner: expected a name; got 0.5"),
        ([True], [False], {}, "row 1: winner: expected a name; got True"),
        ([0], ["x"], {}, "row 1: winner: expected a name; got 0"),
        (["x", "x"], ["y", None], {}, "row 2: loser: .* it is missing"),
        (["x", "x"], ["y", float("nan")], {}, "row 2: loser: .* it is missing"),
        (["x", "x"], ["y", "x"], {}, "row 2: 'x' is compared with itself"),
        (["x"], ["yy"], {"items": ["x", "y"]}, r"row 1: unknown item 'yy' \(closest: 'y'\)"),
        (["x", "y"], ["y", "x"], {"weight": [1, np.inf]}, "row 2: weight: .*; got inf"),
        (["x", "y"], ["y"], {}, "expected equal lengths; got 2 in winner, 1 in loser"),
        ("x", "y", {}, "expected a column of names or indices; got 'x'"),
    ],
)
def test_arrays_are_refused(winner: Any, loser: Any, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Comparisons.from_arrays(winner, loser, **options)


@pytest.mark.parametrize("method", ["index", "select", "drop"])
def test_an_unknown_name_is_met_with_the_closest(method: str) -> None:
    votes = Comparisons.from_arrays(["GPT-4", "Claude"], ["Claude", "Llama"])
    with pytest.raises(InputError, match=r"no item is called 'GPT4' \(closest: 'GPT-4'\)"):
        getattr(votes, method)("GPT4")


def test_selecting_a_name_twice_is_refused() -> None:
    with pytest.raises(InputError, match="'x' more than once"):
        make().select(["x", "x"])


def test_too_many_rows_for_their_names_are_a_data_error() -> None:
    with pytest.raises(DataError):
        Comparisons.from_arrays([0], [0])


def test_importing_the_package_loads_no_table_library() -> None:
    code = (
        "import sys, jaxpref.data; "
        "print(*sorted({'polars', 'narwhals', 'pandas', 'pyarrow', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
