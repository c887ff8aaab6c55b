"""Readers: every format gives the same cells; every fault is one message with its row."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxpref._checks import DataError, InputError
from jaxpref.data import Comparisons, read_comparisons
from tests.strategies import Row, faulty_rows, rows

FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
HEADER = "item_a,item_b,winner\n"


def to_csv(data: list[Row], separator: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(data[0]), delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(data)
    return text.getvalue().encode()


def to_jsonl(data: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in data).encode()


def to_parquet(data: list[Row]) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame(data, infer_schema_length=None).write_parquet(buffer)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[list[Row]], bytes]] = {
    ".csv": to_csv,
    ".csv.gz": lambda data: gzip.compress(to_csv(data)),
    ".tsv": lambda data: to_csv(data, "\t"),
    ".parquet": to_parquet,
    ".jsonl": to_jsonl,
    ".jsonl.gz": lambda data: gzip.compress(to_jsonl(data)),
}
FRAMES: dict[str, Callable[[list[Row]], Any]] = {
    "pandas": pd.DataFrame,
    "polars": lambda data: pl.DataFrame(data, infer_schema_length=None),
    "polars lazy": lambda data: pl.LazyFrame(data, infer_schema_length=None),
    "pyarrow": pa.Table.from_pylist,
}


def by_name(votes: Comparisons) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    assert votes.rater is not None
    cells = zip(
        votes.item_a, votes.item_b, votes.rater, votes.wins_a, votes.wins_b, votes.ties, strict=True
    )
    return {
        (votes.items[a], votes.items[b], votes.raters[r]): (wins_a, wins_b, ties)
        for a, b, r, wins_a, wins_b, ties in cells
    }


def counted(data: list[Row]) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    sums: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for row in data:
        place = ("a", "b", "tie").index(row["winner"])
        sums[row["item_a"], row["item_b"], row["rater"]][place] += row["weight"]
    return {key: (a, b, tie) for key, (a, b, tie) in sums.items()}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# Laws


@FILES
@given(data=rows(), suffix=st.sampled_from(list(FORMATS)))
def test_every_format_counts_what_a_dictionary_counts(
    tmp_path: Path, data: list[Row], suffix: str
) -> None:
    votes = read_comparisons(write(tmp_path, f"votes{suffix}", FORMATS[suffix](data)))
    assert by_name(votes) == counted(data)


@FILES
@given(data=rows(), library=st.sampled_from(list(FRAMES)))
def test_every_frame_counts_what_a_dictionary_counts(data: list[Row], library: str) -> None:
    assert by_name(Comparisons.from_frame(FRAMES[library](data))) == counted(data)


@FILES
@given(data=rows(), order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_makes_no_difference(data: list[Row], order: Any) -> None:
    shuffled = list(data)
    order.shuffle(shuffled)
    first, second = (Comparisons.from_frame(pl.DataFrame(rows)) for rows in (data, shuffled))
    assert first == second


@FILES
@given(drawn=faulty_rows(), suffix=st.sampled_from(list(FORMATS)))
def test_the_first_fault_is_named_by_row_and_its_like_are_counted(
    tmp_path: Path, drawn: tuple[list[Row], int, int], suffix: str
) -> None:
    data, first, count = drawn
    path = write(tmp_path, f"votes{suffix}", FORMATS[suffix](data))
    with pytest.raises(DataError) as caught:
        read_comparisons(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, row {first + 1}")
    like_it = f"and {count - 1} more row"
    assert (like_it in message) == (count > 1)
    if suffix.startswith(".jsonl"):
        assert f"(line {first + 1} of the file)" in message


# Exact references: one small election, in every layout


LAYOUTS = {
    "labels a and b": HEADER + "x,y,a\nx,y,B\ny,x,tie\n",
    "names": HEADER + "x,y,x\nx,y,Y\ny,x,draw\n",
    "column names": HEADER + "x,y,item_a\nx,y,ITEM_B\ny,x,Tie\n",
    "arena": "model_a,model_b,winner\nx,y,model_a\nx,y,model_b\ny,x,tie (bothbad)\n",
    "left and right": "model_x,winner,left,right\n1,left,x,y\n1,right,x,y\n2,tie,y,x\n",
    "scores": "home_team,away_team,home_score,away_score\nx,y,3,2\nx,y,9,10\ny,x,0,0.0\n",
    "numbered teams": "team1,team2,score1,score2\nx,y,1e1,2\nx,y,-2,-1\ny,x, 7 ,7\n",
    "spaces and quotes": 'Item_A, item_b ,WINNER\n"x", y , a\n x,"y",b\n\ny,x,tie\n\n\n',
    "byte order mark": "\ufeff" + HEADER + "x,y,a\nx,y,b\ny,x,tie\n",
    "windows line ends": HEADER.replace("\n", "\r\n") + "x,y,a\r\nx,y,b\r\ny,x,tie\r\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_recognised(tmp_path: Path, layout: str) -> None:
    votes = read_comparisons(write(tmp_path, "votes.csv", LAYOUTS[layout]))
    expected = Comparisons(
        ("x", "y"),
        np.array([0, 1]),
        np.array([1, 0]),
        np.array([1.0, 0.0]),
        np.array([1.0, 0.0]),
        np.array([0.0, 1.0]),
    )
    assert votes == expected


def test_winner_and_loser_columns_do_not_tell_the_order(tmp_path: Path) -> None:
    path = write(tmp_path, "votes.csv", "winner,loser\ny,x\nx,y\ny,x\n")
    votes = read_comparisons(path)
    assert votes == Comparisons.from_counts([[0, 1], [2, 0]], items=["x", "y"])


def test_options_name_columns_and_labels(tmp_path: Path) -> None:
    path = write(
        tmp_path, "v.txt", "p;q;who;w;judge\n".replace(";", ",") + "x,y,1,2,ann\nx,y,0,3,bo\n"
    )
    votes = read_comparisons(
        path,
        item_a="p",
        item_b="q",
        winner="who",
        weight="w",
        rater="judge",
        labels_a=1,
        labels_b=[0.0, "lost"],
        format="csv",
    )
    assert by_name(votes) == {("x", "y", "ann"): (2, 0, 0), ("x", "y", "bo"): (0, 3, 0)}


def test_side_labels_follow_the_columns_not_the_position(tmp_path: Path) -> None:
    path = write(tmp_path, "votes.csv", "right,left,winner\nx,y,left\n")
    votes = read_comparisons(path, item_a="right", item_b="left")
    assert votes.counts_matrix()[votes.index("y"), votes.index("x")] == 1


def test_side_labels_of_other_columns_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "votes.csv", "model_x,model_y,winner,left,right\n1,2,left,two,one\n")
    with pytest.raises(DataError, match="unknown: 'left'"):
        read_comparisons(path, item_a="model_x", item_b="model_y")


@pytest.mark.parametrize("header", ["rater", "worker", "Worker"])
def test_raters_are_recognised_and_can_be_left_out(tmp_path: Path, header: str) -> None:
    path = write(tmp_path, "v.csv", f"item_a,item_b,winner,{header}\nx,y,a,10\nx,y,a,9\n")
    assert read_comparisons(path).raters == ("9", "10")
    assert read_comparisons(path, rater=False).rater is None


def test_a_weight_column_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "v.csv", "item_a,item_b,winner,weight\nx,y,a,0.5\nx,y,b,2\n")
    assert read_comparisons(path).num_comparisons == 2.5
    assert read_comparisons(path, weight=False).num_comparisons == 2


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([10, 9], dtype=pl.Int64),
        pl.Series([10.0, 9.0]),
        pl.Series(["10", "9"], dtype=pl.Categorical),
        pl.Series(["10", "9"], dtype=pl.Enum(["9", "10"])),
        pd.Series([10, 9]),
        pd.Series(pd.Categorical([10, 9])),
    ],
    ids=["int", "float", "categorical", "enum", "pandas int", "pandas categorical"],
)
def test_labels_of_any_type_become_text(column: Any) -> None:
    polars: bool = isinstance(column, pl.Series)
    other: Any = column.reverse() if polars else column[::-1].reset_index(drop=True)
    library = pl.DataFrame if polars else pd.DataFrame
    frame = library({"item_a": column, "item_b": other, "winner": column})
    votes = Comparisons.from_frame(frame)
    assert votes.items == ("9", "10")
    assert votes.wins_a.tolist() == [1, 1]


@pytest.mark.parametrize(
    "text", [",x,y\nx,,2\ny,3,\n", "of,x,y\nx,-,2\ny,3,-\n\n", ",x,y\nx,0,2\ny,3,0"]
)
def test_a_square_table_is_a_matrix_of_counts(tmp_path: Path, text: str) -> None:
    votes = read_comparisons(write(tmp_path, "counts.csv", text))
    assert votes == Comparisons.from_counts([[0, 2], [3, 0]], items=["x", "y"])


def test_the_columns_of_a_matrix_may_be_in_another_order(tmp_path: Path) -> None:
    votes = read_comparisons(write(tmp_path, "counts.tsv", "\ty\tx\nx\t2\t\ny\t\t3\n"))
    assert votes.items == ("x", "y")
    np.testing.assert_array_equal(votes.counts_matrix(), [[0, 2], [3, 0]])


@pytest.mark.parametrize("name", ["a[1]*.csv", "a?.jsonl", "a b.CSV"])
def test_a_path_is_not_a_pattern(tmp_path: Path, name: str) -> None:
    row = {"item_a": "x", "item_b": "y", "winner": "a"}
    content = to_jsonl([row]) if name.endswith("jsonl") else to_csv([row])
    assert read_comparisons(str(write(tmp_path, name, content))).num_comparisons == 1


# Hard places: rows


BAD_ROWS = {
    "1/0 against A/B": (
        HEADER + "x,y,a\nx,y,1\nx,y,0\n",
        r"row 2 \(line 3 .*more row .*unknown: '1'",
    ),
    "blank label": (
        HEADER + "x,y,\n",
        r"row 1 \(line 2 of the file\): winner: .* a blank\. Accepted",
    ),
    "NaN label": (HEADER + "x,y,NaN\n", "unknown: 'NaN'"),
    "label with two readings": (HEADER + "b,a,a\n", "ambiguous: 'a' between 'b' and 'a'"),
    "missing first item": (
        HEADER + ",y,a\n",
        "item_a: expected the name of an item; it is missing",
    ),
    "missing second item": (HEADER + 'x,"",a\n', "item_b: expected the name of an item"),
    "itself": (
        HEADER + "x,y,a\nx, x,a\n",
        r"row 2 \(line 3 of the file\): 'x' is compared with its",
    ),
    "row short of fields": (HEADER + "x,y,a\nx\n", r"row 2 \(line 3 .*item_b: .* missing"),
    "blank but for a note": (
        HEADER[:-1] + ",note\nx,y,a,\n\n,,,hi\n",
        r"row 2 \(line 4 .*both are mis",
    ),
    "blank lines before": (HEADER + "\n\nx,y,a\n\nx,y,?\n", r"row 2 \(line 6 of the file\)"),
    "line break in a name": (HEADER + '"x\n1",y,a\nx,y,?\n', r"row 2 \(line 4 of the file\)"),
    "missing rater": (HEADER[:-1] + ",rater\nx,y,a,\n", "rater: .* missing .rater=False"),
    "negative weight": (HEADER[:-1] + ",weight\nx,y,a,-1\n", "weight: .* at least 0; got '-1'"),
    "NaN weight": (HEADER[:-1] + ",weight\nx,y,a,nan\n", "weight: .*; got 'nan'"),
    "blank weight": (HEADER[:-1] + ",weight\nx,y,a,\n", "weight: .*; got a blank"),
    "infinite weight": (HEADER[:-1] + ",weight\nx,y,a,inf\n", "weight: .*; got 'inf'"),
    "weight in words": (HEADER[:-1] + ",weight\nx,y,a,two\n", "weight: .*; got 'two'"),
    "missing score": (
        "team1,team2,score1,score2\nx,y,1,\n",
        "score2: expected a score.*; got a blank",
    ),
    "score in words": ("team1,team2,score1,score2\nx,y,n/a,1\n", "score1: .*; got 'n/a'"),
    "infinite score": ("team1,team2,score1,score2\nx,y,1,inf\n", "score2: .*; got 'inf'"),
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_a_bad_row_is_refused_by_number(tmp_path: Path, fault: str) -> None:
    text, message = BAD_ROWS[fault]
    with pytest.raises(DataError, match=message):
        read_comparisons(write(tmp_path, "votes.csv", text))


def test_a_bad_line_of_json_is_counted_with_the_blank_ones(tmp_path: Path) -> None:
    good = '{"item_a": "x", "item_b": "y", "winner": "a"}\n'
    path = write(tmp_path, "votes.jsonl", good + "\n" + good.replace('"a"}', "1}"))
    with pytest.raises(DataError, match=r"row 2 \(line 3 of the file\): .* unknown: '1'"):
        read_comparisons(path)


def test_a_frame_names_the_row_without_a_line() -> None:
    frame = pd.DataFrame({"item_a": ["x", "x"], "item_b": ["y", "y"], "winner": [1, 0]})
    with pytest.raises(DataError, match=r"^frame, row 1 and 1 more row like it: winner: .*: 1\. "):
        Comparisons.from_frame(frame)
    votes = Comparisons.from_frame(frame, labels_a=1, labels_b=0)
    assert (votes.wins_a.tolist(), votes.wins_b.tolist(), votes.num_ties) == ([1], [1], 0)


# Hard places: columns and options


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("p,q,r", {}, "which columns hold the two items: its columns are 'p', 'q', 'r'; .*item_a="),
        ("item_a,item_b,r", {}, "which column says who won: its columns are"),
        (
            "item_a,item_b,left,right,winner",
            {},
            r"could be \('item_a', 'item_b'\) or \('left', 'ri",
        ),
        ("left,right,winner,loser", {}, r"or \('winner', 'loser'\)"),
        ("team1,team2,winner,score1,score2", {}, "the outcome could be 'winner' or"),
        ("item_a,item_b,item_a,winner", {}, "names column 'item_a' more than once"),
        ("item_a;item_b;winner", {}, "it looks separated by ';'"),
        ("item_a,item_b,winner", {"winner": "winer"}, r"no column 'winer' .*\(closest: 'winner'\)"),
        ("item_a,item_b,winner", {"rater": "judge"}, "no column 'judge' for rater="),
        ("item_a,item_b,winner", {"item_a": "item_b"}, "both columns to be named, or neither"),
        ("item_a,item_b,winner", {"item_a": "item_b", "item_b": "item_b"}, "expected two columns"),
        ("item_a,item_b,s", {"score_a": "s"}, "score_a and score_b: expected both"),
        ("item_a,item_b,s", {"score_a": "s", "score_b": "s", "winner": "s"}, "one way to tell"),
        ("team1,team2,score1,score2", {"labels_a": 1}, "expected only with a winner column"),
        ("item_a,item_b,winner", {"labels_a": 1, "labels_b": "1"}, "'1' is given for two outcomes"),
        ("item_a,item_b,winner", {"labels_tie": [" "]}, "labels_tie: expected labels that are not"),
        ("item_a,item_b,winner", {"format": "cvs"}, "did you mean 'csv'"),
    ],
)
def test_columns_that_cannot_be_used(
    tmp_path: Path, header: str, options: dict[str, Any], message: str
) -> None:
    row = ",".join("x" * len(header.split(",")))
    with pytest.raises(InputError, match=message):
        read_comparisons(write(tmp_path, "votes.csv", f"{header}\n{row}\n"), **options)


# Hard places: files


ROW = {"item_a": "x", "item_b": "y", "winner": "a"}
MANY = [{**ROW, "item_a": f"x{k}"} for k in range(3000)]
BROKEN_GZIP = bytearray(FORMATS[".csv.gz"](MANY))
BROKEN_GZIP[-6] ^= 255

BAD_FILES: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("v.csv", b"", "the file is empty"),
    "only blanks": ("v.csv", " \n\n", "the file is empty"),
    "empty gzip": ("v.csv.gz", gzip.compress(b""), "the file is empty"),
    "empty parquet": ("v.parquet", b"", "the file is empty"),
    "header only": ("v.csv", HEADER, "it has no rows of data"),
    "header and blank lines": ("v.csv", HEADER + "\n\n", "it has no rows of data"),
    "an image": ("v.csv", b"\x89PNG\r\n\x1a\n" + bytes(60), "it is a PNG image"),
    "an image as JSON": ("v.jsonl", b"\x89PNG\r\n\x1a\n" + bytes(60), "it is a PNG image"),
    "a workbook": ("v.csv", b"PK\x03\x04" + bytes(60), "an Excel workbook"),
    "binary": ("v.csv", b"item_a,\0\0\0", "it is binary"),
    "text as parquet": ("v.parquet", HEADER, "expected a Parquet file"),
    "parquet as text": ("v.csv", to_parquet([ROW]), "it is a Parquet file"),
    "cut parquet": ("v.parquet", to_parquet([ROW])[:-9], "damaged Parquet file"),
    "plain text as gzip": ("v.csv.gz", HEADER, "not compressed by gzip"),
    "gzip without its name": ("v.csv", gzip.compress(HEADER.encode()), "name ending in .gz"),
    "cut gzip": ("v.csv.gz", FORMATS[".csv.gz"](MANY)[:-2000], "damaged or cut short"),
    "broken gzip": ("v.csv.gz", bytes(BROKEN_GZIP), "damaged or cut short"),
    "cut JSON gzip": ("v.jsonl.gz", FORMATS[".jsonl.gz"](MANY)[:-2000], "damaged or cut short"),
    "gzip of an image": ("v.csv.gz", gzip.compress(b"\x89PNG" + bytes(9)), "it is a PNG image"),
    "JSON as CSV": ("v.csv", to_jsonl([ROW]), "it looks like JSON"),
    "a web page": ("v.csv", "<!DOCTYPE html>\n<html>", "a web page"),
    "CSV as JSON": ("v.jsonl", HEADER, "line 1 is not JSON"),
    "invalid JSON": ("v.jsonl", to_jsonl([ROW]) + b'\n{"item_a":\n', "line 3 is not JSON: Expect"),
    "a JSON list": ("v.jsonl", "[1, 2]\n", "line 1: expected a JSON object; got list"),
    "JSON of nothing": ("v.jsonl", "{}\n", "its columns are none"),
    "nested JSON": ("v.jsonl", to_jsonl([{**ROW, "item_a": ["x"]}]), "item_a: expected names"),
    "too many fields": (
        "v.csv",
        HEADER + "x,y,a\nx,y,a,4\n",
        "line 3 has 4 fields; the header has 3",
    ),
    "an open quote": ("v.csv", HEADER + 'x,"y,a\nx,y,a\n', "a quote is left open"),
    "latin-1": ("v.csv", (HEADER + "x,é,a\n").encode("latin-1"), "line 2 holds the byte 0xe9"),
    "latin-1 far down": (
        "v.csv",
        (HEADER + "x,y,a\n" * 20_000 + "x,é,a\n").encode("latin-1"),
        "line 20002 is not text in UTF-8",
    ),
    "UTF-16": ("v.csv", HEADER.encode("utf-16"), "it is text in UTF-16"),
    "unknown ending": ("v.xlsx", "x", "cannot tell its format"),
    "no ending": ("v", "x", "cannot tell its format"),
    "blank off the diagonal": (
        "v.csv",
        ",x,y\nx,,2\ny,,\n",
        "line 3: wins of 'y' over 'x': .*blank",
    ),
    "item against itself": ("v.csv", ",x,y\nx,1,2\ny,3,\n", "line 2: 'x' is compared with itself"),
    "negative count": ("v.csv", ",x,y\nx,,-2\ny,3,\n", "line 2: .* at least 0; got '-2'"),
    "NaN count": ("v.csv", ",x,y\nx,,nan\ny,3,\n", "line 2: .*; got 'nan'"),
    "words in a matrix": ("v.csv", ",x,y\nx,,two\ny,3,\n", "line 2: .*; got 'two'"),
    "row missing": ("v.csv", ",x,y\nx,,2\n", "'y' is only in the header"),
    "another row": ("v.csv", ",x,y\nx,,2\nz,3,1\n", "'y' is only in the header"),
    "row twice": ("v.csv", ",x,y\nx,,2\nx,,2\n", "first column holds 'x' more than once"),
    "short row": ("v.csv", ",x,y\nx,,2\ny,3\n", "line 3: expected 2 counts.*; got 1"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_bad_file_is_one_clear_message(tmp_path: Path, fault: str) -> None:
    name, content, message = BAD_FILES[fault]
    path = write(tmp_path, name, content)
    with pytest.raises(InputError, match=message) as caught:
        read_comparisons(path)
    assert str(path) in str(caught.value)
    # No traceback of another library behind the message.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_parquet_file_of_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "votes.parquet"
    pl.DataFrame(schema=dict.fromkeys(ROW, pl.String)).write_parquet(path)
    with pytest.raises(DataError, match="it has no rows of data"):
        read_comparisons(path)


def test_no_file_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_comparisons(tmp_path / "gone.csv")
    with pytest.raises(InputError, match="it is a directory"):
        read_comparisons(tmp_path)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ([1, 2], "expected a pandas, polars or pyarrow table; got list"),
        (pl.DataFrame({"item_a": [], "item_b": [], "winner": []}), "no rows of data"),
        (
            pl.DataFrame({**{k: [v] for k, v in ROW.items()}, "weight": [[1]]}),
            "'weight': expected num",
        ),
        (pl.DataFrame({**ROW, "item_a": [["x"]]}), "'item_a': expected names or labels"),
        (pd.DataFrame([{**ROW}, {**ROW, "item_a": 3}]), "does not hold one type of value"),
        (
            pd.DataFrame({"item_a": [1.0, None], "item_b": [2, 3], "winner": "a"}),
            "row 2: item_a: .*mis",
        ),
        (
            pd.DataFrame([["x", "y", "a", "b"]], columns=["item_a", "item_b", "winner", "winner"]),
            "expected each column name once; got 'winner' 2 times",
        ),
    ],
)
def test_a_frame_that_cannot_be_used(frame: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Comparisons.from_frame(frame)


# Real data


@pytest.mark.shared_data
def test_llmfao_crowd(shared_data: Path) -> None:
    votes = read_comparisons(shared_data / "llmfao/crowd-comparisons.csv.gz")
    assert (votes.num_items, len(votes.raters)) == (59, 124)
    assert (votes.wins_a.sum(), votes.wins_b.sum(), votes.num_ties) == (2911, 2549, 3471)
    assert votes.items[0] == "Airoboros L2 70B"  # the names, not the ids


@pytest.mark.shared_data
def test_soccer(shared_data: Path) -> None:
    votes = read_comparisons(shared_data / "soccer_international/results.csv.gz")
    assert (votes.num_items, votes.num_comparisons) == (337, 49_520)


@pytest.mark.shared_data
def test_nfl_agrees_with_its_own_result_column(shared_data: Path) -> None:
    votes = read_comparisons(shared_data / "nfl_538/nfl_games.csv.gz")
    assert votes.num_items == 123
    assert (votes.wins_a.sum(), votes.wins_b.sum(), votes.num_ties) == (9566, 6928, 316)
