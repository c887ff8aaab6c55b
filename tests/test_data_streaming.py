"""Reading in portions: the same cells and the same row numbers, wherever a portion ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from jaxpref._checks import DataError, InputError
from jaxpref.data import Comparisons, Rankings, _rows, read_comparisons


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
    else:
        frame.write_csv(path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("portion", [1, 7, 100, 500, 501])
def test_cells_do_not_depend_on_the_portions(tmp_path, monkeypatch, suffix, portion):
    frame = votes(60 if portion == 1 else 500)
    path = write(tmp_path, frame, suffix)
    whole = Comparisons.from_frame(frame)
    monkeypatch.setattr(_rows, "PORTION", portion)
    assert read_comparisons(path) == whole


@pytest.mark.parametrize("kind", [pl.String, pl.Categorical, pl.Enum([f"m{k}" for k in range(9)])])
def test_every_kind_of_label_gives_the_same_cells(tmp_path, monkeypatch, kind):
    frame = votes(300, kind)
    monkeypatch.setattr(_rows, "PORTION", 100)
    expected = Comparisons.from_frame(votes(300))
    assert read_comparisons(write(tmp_path, frame, ".parquet")) == expected
    assert Comparisons.from_frame(frame) == expected


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_fault_beyond_the_first_portion_keeps_its_row(tmp_path, monkeypatch, suffix):
    frame = votes(300).with_columns(
        weight=pl.when(pl.int_range(pl.len()).is_in([250, 260])).then(-1.0).otherwise("weight")
    )
    monkeypatch.setattr(_rows, "PORTION", 100)
    with pytest.raises(DataError, match=r"row 251.* and 1 more row like it: weight"):
        read_comparisons(write(tmp_path, frame, suffix))


def test_blank_lines_at_the_end_of_a_portion_are_skipped(tmp_path, monkeypatch):
    path = tmp_path / "votes.csv"
    path.write_text("item_a,item_b,winner\n" + "x,y,a\n\n" * 50)
    monkeypatch.setattr(_rows, "PORTION", 10)
    assert read_comparisons(path).num_comparisons == 50


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


def test_a_dictionary_of_splits_asks_for_one():
    with pytest.raises(InputError, match="choose one of 'train'"):
        Comparisons.from_frame({"train": Dataset(votes(3).to_arrow())})
