"""Rankings: containers and readers; every fault is one message with its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxpref._checks import DataError, InputError
from jaxpref.data import Rankings, read_rankings, strong_components

NAMES = ["x", "Y", "a,b", "007", "7", "Åland"]


@st.composite
def ranking_lists(draw: st.DrawFn) -> list[list[str | list[str]]]:
    """Draw rankings, some partial, some with ties."""
    lists = []
    for _ in range(draw(st.integers(1, 6))):
        chosen = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=True))
        groups: list[list[str]] = [[chosen[0]]]
        for name in chosen[1:]:
            if draw(st.booleans()):
                groups.append([name])
            else:
                groups[-1].append(name)
        lists.append([group[0] if len(group) == 1 else sorted(group) for group in groups])
    return lists


def long_rows(lists) -> list[dict]:
    return [
        {"ranking": f"r{number}", "rank": place, "item": name}
        for number, groups in enumerate(lists)
        for place, group in enumerate(groups)
        for name in (group if isinstance(group, list) else [group])
    ]


def as_sets(rankings: Rankings) -> list[list]:
    return [[sorted(g) if isinstance(g, list) else g for g in one] for one in rankings.lists()]


# Laws


@settings(max_examples=50, deadline=None)
@given(lists=ranking_lists())
def test_lists_come_back_as_they_went_in(lists):
    assert as_sets(Rankings.from_lists(lists)) == lists


@settings(max_examples=30, deadline=None)
@given(lists=ranking_lists(), order=st.randoms(use_true_random=False))
def test_rows_of_a_long_table_may_come_in_any_order(lists, order):
    rows = long_rows(lists)
    order.shuffle(rows)
    rankings = Rankings.from_frame(pl.DataFrame(rows))
    assert sorted(map(str, as_sets(rankings))) == sorted(map(str, lists))


@pytest.mark.parametrize(
    "library", [pd.DataFrame, pl.DataFrame, pl.LazyFrame, pa.Table.from_pylist]
)
def test_every_frame_gives_the_same_rankings(library):
    lists = [["x", ["Y", "7"]], ["7", "x"]]
    assert Rankings.from_frame(library(long_rows(lists))) == Rankings.from_lists(
        lists, items=("7", "Y", "x")
    )


@settings(max_examples=30, deadline=None)
@given(lists=ranking_lists())
def test_neighbours_connect_exactly_what_all_pairs_connect(lists):
    rankings = Rankings.from_lists(lists)
    near = strong_components(rankings.adjacent(), ties="ignore")
    every = strong_components(rankings.comparisons(), ties="ignore")
    np.testing.assert_array_equal(near.labels, every.labels)


def test_weights_of_ranks_do_not_count_only_their_order():
    one = Rankings(("x", "y", "z"), np.arange(3), np.array([0.5, 7.0, 7.0]), np.array([0, 3]))
    two = Rankings(("x", "y", "z"), np.array([2, 1, 0]), np.array([9, 9, 1]), np.array([0, 3]))
    assert one.lists() == [["x", ["y", "z"]]]
    assert as_sets(two) == one.lists()


# Formats


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def csv_of(lists) -> str:
    frame = pl.DataFrame(long_rows(lists))
    return frame.write_csv()


@settings(max_examples=10, deadline=None)
@given(lists=ranking_lists())
def test_every_format_reads_the_same(tmp_path_factory, lists):
    folder = tmp_path_factory.mktemp("formats")
    jsonl = "\n\n".join(json.dumps(one) for one in lists)
    pl.DataFrame(long_rows(lists)).write_parquet(folder / "votes.parquet")
    files = [
        write(folder, "votes.jsonl", jsonl),
        write(folder, "votes.jsonl.gz", gzip.compress(jsonl.encode())),
        write(folder, "votes.csv", csv_of(lists)),
        write(folder, "votes.csv.gz", gzip.compress(csv_of(lists).encode())),
        folder / "votes.parquet",
    ]
    for file in files:
        assert as_sets(read_rankings(file)) == lists


def test_json_objects_carry_weight_and_rater(tmp_path):
    lines = '{"ranking": ["x", "y"], "weight": 2, "rater": "ann"}\n'
    lines += '{"ranking": [1, ["x", "y"]], "rater": 7}\n'
    rankings = read_rankings(write(tmp_path, "v.jsonl", lines))
    assert rankings.weight.tolist() == [2.0, 1.0]
    assert rankings.raters == ("7", "ann") and rankings.items == ("1", "x", "y")


def test_long_table_with_other_column_names_weights_and_raters(tmp_path):
    text = "race,place,driver,n,judge\n1,2,x,3,a\n1,1,y,3,a\n2,1.5,x,0,b\n2,1.5,y,0,b\n"
    rankings = read_rankings(
        write(tmp_path, "v.csv", text), item="driver", weight="n", rater="judge"
    )
    assert rankings.lists() == [["y", "x"], [["x", "y"]]]
    assert rankings.weight.tolist() == [3.0, 0.0]
    assert rankings.tie_sizes().size == 0  # the only tie has no weight


# Top-k, ties and pairs


def test_unlisted_items_follow_only_when_said_to():
    lists = [["x", "y"], ["z"]]
    with pytest.raises(DataError, match=r"ranking 2: expected at least 2 items; got only 'z'"):
        Rankings.from_lists(lists)
    top = Rankings.from_lists(lists, unlisted="last")
    entries = top.entries()
    assert entries.item.tolist() == [0, 1, 2, 2, 0, 1]
    assert entries.rank.tolist() == [1, 2, 3, 1, 2, 2]
    assert entries.listed.tolist() == [2, 1]
    np.testing.assert_array_equal(
        top.comparisons().counts_matrix(), [[0, 1, 1], [0, 0, 1], [1, 1, 0]]
    )
    assert top.comparisons().num_ties == 0


def test_pairs_of_a_ranking_with_ties_by_hand():
    pairs = Rankings.from_lists([[["x", "y"], "z"]], weight=[2.0]).comparisons()
    np.testing.assert_array_equal(pairs.counts_matrix(), [[0, 0, 2], [0, 0, 2], [0, 0, 0]])
    assert pairs.num_ties == 2


def test_select_and_drop_keep_what_still_compares():
    rankings = Rankings.from_lists([["x", "y", "z"], ["z", "y"]], rater=["ann", "bob"])
    assert rankings.drop("y").lists() == [["x", "z"]]
    assert rankings.drop("y").raters == ("ann",)
    with pytest.raises(InputError, match="'w'"):
        rankings.drop("w")


def test_arrays_cannot_be_written_to():
    rankings = Rankings.from_lists(np.array([[0, 1], [1, 0]]))
    with pytest.raises(ValueError, match="read-only"):
        rankings.item[0] = 1


# Bad input

BAD_LISTS = [
    ([["x", "y"], ["x", "y", "x"]], r"ranking 2: .*'x' is listed twice"),
    ([["x", "y"], ["x"], ["y"]], r"ranking 2 and 1 more ranking like it: .*only 'x'"),
    ([["x", ["y", "y"]]], r"ranking 1: .*'y' is listed twice"),
    ([["x", " "]], r"ranking 1: expected the name of an item; got a blank"),
    ([["x", None]], r"ranking 1: expected the name of an item; got None"),
    ([["x", 1.5]], r"ranking 1: .*1.5"),
    ([[0, 1], [0, -1]], r"ranking 2: expected an index from 0 to 10,000,000; got -1"),
    (np.array([[0, 1], [2, 2]]), r"ranking 2: .*'2' is listed twice"),
    (["xy"], r"ranking 1: expected a list of items; got 'xy'"),
    ([], "at least one ranking"),
    ("xyz", "expected a sequence of rankings"),
]


@pytest.mark.parametrize(("lists", "message"), BAD_LISTS)
def test_a_list_that_cannot_be_used_is_numbered(lists, message):
    with pytest.raises(InputError, match=message):
        Rankings.from_lists(lists)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_bad_weight_is_numbered(weight):
    with pytest.raises(DataError, match=r"ranking 2: weight: expected a finite weight"):
        Rankings.from_lists([["x", "y"]] * 3, weight=[1, weight, 1])


def test_unknown_names_and_indices_are_answered():
    with pytest.raises(DataError, match=r"ranking 1: unknown item 'Yy'.*'Y'"):
        Rankings.from_lists([["x", "Yy"]], items=["x", "Y"])
    with pytest.raises(DataError, match="from 0 to 1; got 2"):
        Rankings.from_lists([[0, 2]], items=["x", "Y"])


HEAD = "ranking,rank,item,weight\n"
BAD_ROWS = [
    (HEAD + "1,1,x,1\n1,2,x,1\n", r"row 2 \(line 3 of the file\): 'x' is listed twice"),
    (HEAD + "1,1,x,1\n1,2,y,1\n2,1,x,1\n", r"row 3 .*ranking '2': expected at least 2 items"),
    (HEAD + "1,1,x,1\n1,first,y,1\n", r"row 2 .*rank: expected a rank.*'first'"),
    (HEAD + "1,1,x,1\n1,nan,y,1\n", r"row 2 .*rank: expected a rank"),
    (HEAD + "1,1, ,1\n1,2,y,1\n", r"row 1 .*item: expected the name of an item"),
    (HEAD + ",1,x,1\n1,2,y,1\n", r"row 1 .*ranking: expected the name of a ranking"),
    (HEAD + "1,1,x,-1\n1,2,y,-1\n", r"row 1 .*and 1 more row like it: weight: .*'-1'"),
    (HEAD + "1,1,x,1\n1,2,y,2\n", r"row 2 .*weight: expected one value for the whole of ranking"),
    ("who,rank,item\n1,1,x\n", "cannot tell which column holds the ranking"),
    (HEAD, "at least one ranking"),
]


@pytest.mark.parametrize(("text", "message"), BAD_ROWS)
def test_a_row_that_cannot_be_used_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_rankings(write(tmp_path, "votes.csv", text))


BAD_LINES = [
    ('["x", "y"]\n["x"\n', r"line 2 is not JSON"),
    ('["x", "y"]\n\n["x"]\n', r"ranking 2 \(line 3 of the file\): expected at least 2 items"),
    ('["x", null]\n', r"line 1: expected the name of an item; got null"),
    ('{"order": ["x"]}\n', r"line 1: expected a list, or an object with a 'ranking'"),
    ("3\n", r"line 1: expected a list of items, best first; got 3"),
    ('{"ranking": ["x", "y"], "weight": "2"}', r"line 1: weight: expected a number"),
    ('{"ranking": ["x", "y"], "weight": -2}', r"ranking 1 \(line 1 of the file\): weight"),
]


@pytest.mark.parametrize(("text", "message"), BAD_LINES)
def test_a_line_that_cannot_be_used_is_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_rankings(write(tmp_path, "votes.jsonl", text))


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_rankings(tmp_path / "none.csv")
    with pytest.raises(DataError, match="PNG"):
        read_rankings(write(tmp_path, "v.csv", b"\x89PNG\r\n"))
