"""Tables in memory, of any library that narwhals knows."""

from __future__ import annotations

from typing import Any

import narwhals as nw
import polars as pl

from jaxpref._checks import InputError
from jaxpref.data._columns import ColumnOptions, resolve_columns
from jaxpref.data._rows import Source, name_row, reduce_rows
from jaxpref.data.comparisons import Comparisons


def read_frame(frame: Any, options: ColumnOptions) -> Comparisons:
    """Reduce a table of comparisons to cells."""
    try:
        table = nw.from_native(frame)
    except TypeError:
        kind = type(frame).__name__
        raise InputError(f"frame: expected a pandas, polars or pyarrow table; got {kind}") from None
    columns = resolve_columns(_text_names(table.collect_schema().names()), options, "frame")
    chosen = table.select(columns.needed())
    return reduce_rows(Source("frame", _to_polars(chosen), name_row), columns)


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
        return table.to_polars().lazy()
    except Exception as error:  # each library has its own errors, pyarrow's among them
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"frame: a column does not hold one type of value: {first_line}") from None
