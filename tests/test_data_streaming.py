"""Reading in portions: the same cells and the same row numbers, wherever a portion ends."""

from __future__ import annotations

import gzip
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from jaxpref._checks import DataError, InputError
from jaxpref.data import (
    Comparisons,
    Rankings,
    _arrow,
    _groups,
    _source,
    _text,
    read_comparisons,
)


def votes(count: int, kind: Any = pl.String) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    first = rng.integers(0, 9, count)
    second = (first + rng.integers(1, 9, count)) % 9
    names = [f"m{k}" for k in range(9)]
    columns = {
        "item_a": pl.Series([names[k] for k in first], dtype=kind),
        "item_b": pl.Series([names[k] for k in second], dtype=kind),
        "winner": pl.Series(np.array(["a", "b", "tie"])[rng.integers(0, 3, count)]),
        "weight": rng.integers(0, 9, count) / 4,
        "rater": pl.Series([f"r{k}" for k in rng.integers(0, 4, count)]),
    }
    return pl.DataFrame(columns)


def write(folder: Path, frame: pl.DataFrame, suffix: str) -> Path:
    path = folder / f"votes{suffix}"
    if suffix == ".parquet":
        frame.write_parquet(path, row_group_size=64)
        return path
    text = io.BytesIO()
    if suffix.startswith(".jsonl"):
        frame.write_ndjson(text)
    else:
        frame.write_csv(text, separator="\t" if suffix == ".tsv" else ",")
    content = text.getvalue()
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    return path


@pytest.mark.parametrize("kind", ["string[python]", "string[pyarrow]", "object", "category"])
def test_every_pandas_dtype_gives_the_same_cells(kind):
    frame = votes(200)
    labels = ["item_a", "item_b", "winner", "rater"]
    pandas = frame.to_pandas().astype(dict.fromkeys(labels, kind))
    assert Comparisons.from_frame(pandas) == Comparisons.from_frame(frame)
    pandas.loc[150, "item_b"] = None
    with pytest.raises(DataError, match="row 151: item_b: expected the name of an item"):
        Comparisons.from_frame(pandas)


def read_by(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Make portions of that many rows, or of about as many bytes of text."""
    monkeypatch.setattr(_source, "PORTION", rows)
    monkeypatch.setattr(_text, "CHUNK", 16 * rows)


SUFFIXES = [".parquet", ".csv", ".csv.gz", ".tsv", ".jsonl", ".jsonl.gz"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("portion", [1, 20])
@pytest.mark.parametrize("places", [_groups.PLACES, 200])
def test_cells_do_not_depend_on_the_portions(tmp_path, monkeypatch, suffix, portion, places):
    frame = votes(60 if portion == 1 else 200)
    path = write(tmp_path, frame, suffix)
    whole = Comparisons.from_frame(frame)
    read_by(monkeypatch, portion)
    monkeypatch.setattr(_groups, "PLACES", places)
    assert read_comparisons(path) == whole


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum([f"m{k}" for k in range(9)])])
def test_every_kind_of_label_gives_the_same_cells(tmp_path, monkeypatch, kind):
    frame = votes(300, kind)
    read_by(monkeypatch, 100)
    expected = Comparisons.from_frame(votes(300))
    assert read_comparisons(write(tmp_path, frame, ".parquet")) == expected
    assert Comparisons.from_frame(frame) == expected


def in_arrow(frame: pl.DataFrame, library: str) -> Any:
    """Return a table whose text lies in Arrow's memory, in chunks of different lengths."""
    table = pa.concat_tables([frame[:70].to_arrow(), frame[70:].to_arrow()])
    if library == "pyarrow":
        return table
    types = dict.fromkeys(["item_a", "item_b", "winner", "rater"], library)
    return table.to_pandas().astype(types)


ARROW = ["pyarrow", "string[pyarrow]"]


@pytest.mark.parametrize("library", ARROW)
@pytest.mark.parametrize("run", [1, 512])
def test_words_beyond_the_sample_are_found(monkeypatch, library, run):
    monkeypatch.setattr(_arrow, "PORTION", 40)
    monkeypatch.setattr(_arrow, "RUNS", 5)
    monkeypatch.setattr(_arrow, "RUN", run)
    rare = votes(300).with_columns(
        pl.when(pl.int_range(pl.len()) == 211)
        .then(pl.lit("m99"))
        .otherwise("item_a")
        .alias("item_a")
    )
    found = Comparisons.from_frame(in_arrow(rare, library))
    assert found == Comparisons.from_frame(rare)
    assert "m99" in found.items


def test_text_of_endless_words_is_left_to_hashing(monkeypatch):
    many = pa.chunked_array([pa.array([f"r{k}" for k in range(20_000)])])
    assert _arrow.text_column(many) is None
    frame = votes(2000).with_columns(pl.Series("rater", [f"r{k}" for k in range(2000)]))
    monkeypatch.setattr(_arrow, "RUN", 20)
    assert Comparisons.from_frame(in_arrow(frame, "pyarrow")) == Comparisons.from_frame(frame)


@pytest.mark.parametrize("library", ARROW)
@pytest.mark.parametrize("fault", ["missing name", "against itself", "NaN weight", "unknown label"])
def test_a_fault_in_arrow_memory_keeps_its_row(monkeypatch, library, fault):
    values, message = FAULTS[fault]
    chosen = pl.int_range(pl.len()).is_in([250, 260])
    new = [pl.when(chosen).then(pl.lit(v)).otherwise(k).alias(k) for k, v in values.items()]
    monkeypatch.setattr(_arrow, "PORTION", 40)
    with pytest.raises(DataError, match=re.escape(f"row 251 and 1 more row like it: {message}")):
        Comparisons.from_frame(in_arrow(votes(300).with_columns(new), library))


# Every row of PEERS.md's table of bad input that stands in a row, and what the message says.
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown label": ({"winner": "A wins"}, "winner: expected a known label; unknown: 'A wins'"),
    "1 against a": ({"winner": "1"}, "winner: expected a known label; unknown: '1'"),
    "missing label": ({"winner": None}, "winner: expected a known label; unknown: a blank"),
    "missing name": ({"item_a": None}, "item_a: expected the name of an item; it is missing"),
    "NaN name": ({"item_b": "NaN"}, "item_b: expected the name of an item; it is missing"),
    "against itself": ({"item_a": "m3", "item_b": "m3"}, "'m3' is compared with itself"),
    "negative weight": ({"weight": -1.0}, "weight: expected a finite weight of at least 0"),
    "NaN weight": ({"weight": float("nan")}, "weight: expected a finite weight of at least 0"),
    "missing weight": ({"weight": None}, "weight: expected a finite weight of at least 0"),
    "missing rater": ({"rater": None}, "rater: expected the name of a rater; it is missing"),
}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz", ".jsonl"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_beyond_the_first_portion_keeps_its_row(tmp_path, monkeypatch, suffix, fault):
    values, message = FAULTS[fault]
    if suffix != ".parquet" and fault == "NaN weight":
        values = {"weight": None} if suffix == ".jsonl" else values  # JSON has no NaN
    chosen = pl.int_range(pl.len()).is_in([250, 260])
    new = [
        pl.when(chosen).then(pl.lit(value)).otherwise(name).alias(name)
        for name, value in values.items()
    ]
    path = write(tmp_path, votes(300).with_columns(new), suffix)
    read_by(monkeypatch, 40)
    line = 252 if ".csv" in suffix else 251
    place = "" if suffix == ".parquet" else f" (line {line} of the file)"
    expected = re.escape(f"row 251{place} and 1 more row like it: {message}")
    with pytest.raises(DataError, match=expected):
        read_comparisons(path)


def test_blank_lines_at_the_end_of_a_portion_are_skipped(tmp_path, monkeypatch):
    path = tmp_path / "votes.csv"
    path.write_text("\nitem_a,item_b,winner\n" + "\n\nx,y,a\n\n" * 50 + "x,x,a\n")
    read_by(monkeypatch, 1)
    with pytest.raises(DataError, match=r"row 51 \(line 203 of the file\): 'x' is compared"):
        read_comparisons(path)
    path.write_text("item_a,item_b,winner\n" + "x,y,a\n\n" * 50)
    assert read_comparisons(path).num_comparisons == 50


def test_a_line_break_inside_quotes_ends_no_portion(tmp_path, monkeypatch):
    path = tmp_path / "votes.csv"
    row = '"a ""b""\nc\n",y,a\r\n'
    path.write_text("item_a,item_b,winner\n" + row * 30 + "z,y,nobody\n", newline="")
    for size in range(1, 60, 7):
        monkeypatch.setattr(_text, "CHUNK", size)
        with pytest.raises(DataError, match=r"row 31 \(line 92 of the file\): winner"):
            read_comparisons(path)
    path.write_text("item_a,item_b,winner\n" + row * 30, newline="")
    assert read_comparisons(path).items == ('a "b"\nc', "y")


@pytest.mark.parametrize("open_quote", ['"x,y,a', 'x"x,y,a'])
def test_a_quote_left_open_is_an_error(tmp_path, monkeypatch, open_quote):
    path = tmp_path / "votes.csv"
    path.write_text("item_a,item_b,winner\n" + "x,y,a\n" * 20 + open_quote + "\n" + "x,y,a\n" * 20)
    for longest in (_text.LONGEST, 50):
        monkeypatch.setattr(_text, "CHUNK", 30)
        monkeypatch.setattr(_text, "LONGEST", longest)
        with pytest.raises(DataError):
            read_comparisons(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_progress_rises_to_the_end(tmp_path, monkeypatch, suffix):
    path = write(tmp_path, votes(3000), suffix)
    read_by(monkeypatch, 100)
    seen: list[tuple[int, int]] = []
    read_comparisons(path, progress=lambda done, total: seen.append((done, total)))
    done = [step for step, _ in seen]
    assert len(seen) > 2 and done == sorted(done)
    assert seen[-1][0] == seen[-1][1]


class Dataset:
    """What of a Hugging Face dataset is used here: formats, slices, columns."""

    def __init__(self, table: pa.Table, arrow: bool = False) -> None:
        self.table, self.arrow = table, arrow

    @property
    def column_names(self) -> list[str]:
        return self.table.column_names

    def __len__(self) -> int:
        return self.table.num_rows

    def with_format(self, kind: str) -> Dataset:
        assert kind == "arrow"
        return Dataset(self.table, arrow=True)

    def __getitem__(self, rows: slice) -> Any:
        assert rows == slice(None)
        return self.table if self.arrow else self.table.to_pydict()


class IterableDataset:
    """A dataset that only streams, in batches."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.column_names = table, table.column_names

    def with_format(self, kind: str) -> IterableDataset:
        assert kind == "arrow"
        return self

    def iter(self, batch_size: int):
        assert batch_size > 0
        for start in range(0, self.table.num_rows, 37):
            yield self.table.slice(start, 37)


@pytest.mark.parametrize("kind", [Dataset, IterableDataset])
def test_datasets_are_read_without_their_library(kind):
    frame = votes(100)
    assert Comparisons.from_frame(kind(frame.to_arrow())) == Comparisons.from_frame(frame)
    long = pl.DataFrame({"ranking": [1, 1, 2, 2], "rank": [1, 2, 2, 1], "item": list("xyxy")})
    assert Rankings.from_frame(kind(long.to_arrow())).lists() == [["x", "y"], ["y", "x"]]


def test_a_hugging_face_dataset_is_read_with_its_selection_of_rows():
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    frame = votes(100)
    chosen = [3, 50, 7, 99]
    rows = datasets.Dataset.from_dict(frame.to_dict(as_series=False)).select(chosen)
    expected = Comparisons.from_frame(frame[chosen])
    assert Comparisons.from_frame(rows) == expected
    assert Comparisons.from_frame(rows.with_format("numpy")) == expected
    assert Comparisons.from_frame(rows.to_iterable_dataset()) == expected


def test_a_narwhals_frame_is_read_as_what_it_wraps():
    narwhals = pytest.importorskip("narwhals")
    frame = votes(50)
    for native in (frame, frame.lazy(), frame.to_pandas(), frame.to_arrow()):
        wrapped = narwhals.from_native(native)
        assert Comparisons.from_frame(wrapped) == Comparisons.from_frame(frame)


def test_a_dictionary_of_splits_asks_for_one():
    with pytest.raises(InputError, match="choose one of 'train'"):
        Comparisons.from_frame({"train": Dataset(votes(3).to_arrow())})
