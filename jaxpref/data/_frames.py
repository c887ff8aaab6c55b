"""Tables in memory, of any library that narwhals knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from jaxpref._checks import InputError
from jaxpref.data._arrow import portions, text_column
from jaxpref.data._columns import ColumnOptions, resolve_columns
from jaxpref.data._rows import reduce_rows
from jaxpref.data._source import Source, name_row
from jaxpref.data.comparisons import Comparisons

STREAM_BATCH = 100_000


def read_frame(frame: Any, options: ColumnOptions) -> Comparisons:
    """Reduce a table of comparisons to cells."""
    table = _from_native(frame)
    columns = resolve_columns(_text_names(table.collect_schema().names()), options, "frame")
    chosen = table.select(columns.needed())
    return reduce_rows(_arrow_source(chosen) or _whole_source(chosen), columns)


def frame_rows(frame: Any) -> Source:
    """Return a table of any library as rows still to be read."""
    table = _from_native(frame)
    return _whole_source(table.select(_text_names(table.collect_schema().names())))


def _whole_source(table: Any) -> Source:
    """Return a table as it is, in one portion."""
    return Source("frame", _to_polars(table), name_row)


def _arrow_source(table: Any) -> Source | None:
    """Return a table whose text lies in Arrow's memory in portions; None for any other table."""
    if isinstance(table, nw.LazyFrame):
        return None
    kind, native = table.implementation, nw.to_native(table)
    names = table.columns
    if kind.is_pandas():
        held = [name for name in names if _in_arrow(native[name])]
    else:
        held = names if kind.is_pyarrow() else []
    text = {name: text_column(native[name]) for name in held}
    text = {name: column for name, column in text.items() if column is not None}
    if not text:
        return None
    others = _to_polars(table.select([name for name in names if name not in text])).collect()
    schema = {name: pl.Enum([]) if name in text else others.schema[name] for name in names}
    return Source(
        "frame", pl.LazyFrame(schema=schema), name_row, portions=portions(text, others, names)
    )


def _in_arrow(column: Any) -> bool:
    """Whether a pandas column holds strings in Arrow's memory."""
    kind = column.dtype
    return getattr(kind, "storage", None) == "pyarrow" or hasattr(kind, "pyarrow_dtype")


def _from_native(frame: Any) -> Any:
    """Return a table as narwhals sees it; a Hugging Face dataset by its Arrow table."""
    try:
        return nw.from_native(frame)
    except TypeError:
        pass
    except nw.exceptions.DuplicateError as error:
        names = " ".join(str(error).split("\n")[1:]).strip("- ")
        raise InputError(f"frame: expected each column name once; got {names}") from None
    table = _arrow_table(frame)
    if table is not None:
        return nw.from_native(table)
    if isinstance(frame, Mapping) and frame:  # a DatasetDict, of which one split must be chosen
        names = ", ".join(map(repr, list(frame)[:10]))
        raise InputError(f"frame: expected one table; got several, choose one of {names}")
    kind = type(frame).__name__
    raise InputError(f"frame: expected a pandas, polars or pyarrow table; got {kind}")


def _arrow_table(frame: Any) -> Any:
    """Return a Hugging Face dataset as a table, without importing its library; None otherwise.

    ``with_format("arrow")`` makes slices Arrow tables, memory-mapped and with the dataset's own
    selection of rows applied, whatever format the dataset was set to.
    """
    if hasattr(frame, "with_format") and hasattr(frame, "column_names"):
        arrow = frame.with_format("arrow")
        if hasattr(arrow, "__len__"):
            return arrow[:]
        batches = list(arrow.iter(batch_size=STREAM_BATCH))  # an IterableDataset, read as it comes
        frames = [pl.DataFrame(pl.from_arrow(batch)) for batch in batches]
        return pl.concat(frames, how="vertical_relaxed")
    if hasattr(frame, "to_polars") and not isinstance(frame, type):
        return frame.to_polars()
    return None


def _text_names(names: list[Any]) -> list[str]:
    """Return the column names that are text: pandas allows others, which no option can name."""
    return [name for name in names if isinstance(name, str)]


def _to_polars(table: Any) -> pl.LazyFrame:
    """Return a table as a polars frame, lazy where it already is."""
    native = nw.to_native(table)
    if isinstance(native, pl.LazyFrame):
        return native
    if isinstance(table, nw.LazyFrame):
        table = table.collect()
    try:
        if table.implementation.is_pandas():
            return _from_pandas(native).lazy()
        return table.to_polars().lazy()
    except Exception as error:  # each library has its own errors, pyarrow's among them
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"frame: a column does not hold one type of value: {first_line}") from None


def _from_pandas(frame: Any) -> pl.DataFrame:
    """Return a pandas table, its columns of Python strings as categories.

    Such a column is hashed by pandas, so that only its distinct values are looked at one by one;
    it needs no pyarrow. Other columns are converted as they are.
    """
    columns = {}
    for name in frame.columns:
        column = frame[name]
        columns[name] = _categories(column)
        if columns[name] is None:
            columns[name] = nw.from_native(column, series_only=True).to_polars()
    return pl.DataFrame(columns)


def _categories(column: Any) -> pl.Series | None:
    """Return a column of Python strings as categories, None for any other column."""
    storage = getattr(column.dtype, "storage", None)  # "python" or "pyarrow" where it is text
    if column.dtype != object and storage != "python":
        return None
    codes, distinct = column.factorize()  # -1 is missing
    words = distinct.tolist()
    if not all(isinstance(word, str) for word in words):
        return None
    choice = pl.Series([*words, None], dtype=pl.Enum(words))
    return choice.gather(np.where(codes < 0, len(words), codes))
