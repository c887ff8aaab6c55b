"""Read features of items from a table with one row for each item."""

from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Sequence

import numpy as np
import polars as pl

from jaxpref._checks import DataError, InputError, closest_names
from jaxpref.data import _files
from jaxpref.data._source import Source, name_row

ITEMS = ("item", "model", "name", "team")


def read_item_covariates(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    items: Sequence[str],
    *,
    item: str | None = None,
) -> dict[str, np.ndarray]:
    r"""Read columns of numbers for the items of a data set.

    Parameters
    ----------
    path : str or path
        A file ending in ``.csv``, ``.tsv``, ``.jsonl`` (each also with ``.gz``) or ``.parquet``,
        one row for each item. Rows of other items are left out.
    columns : sequence of str
        Columns of numbers, true and false as 1 and 0.
    items : sequence of str
        Names of the items, each of which must have a row.
    item : str, optional
        Column of names. When left out: ``item``, ``model``, ``name`` or ``team``.

    Returns
    -------
    dict of str to (items,) array
        One column each, in the order of `items`: ``item_covariates`` of
        :func:`jaxpref.fit.fit_pairwise`.

    Raises
    ------
    InputError
        If there is no such file or column.
    DataError
        If an item has no row or several, or a value is no finite number.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "models.csv")
    ...     _ = path.write_text("model,size\nb,70\na,7\n")
    ...     read_item_covariates(path, ["size"], ["a", "b"])
    {'size': array([ 7., 70.])}
    """
    file = _files.existing(path)
    kind = _files.format_of(file, None)
    try:
        source = _source(file, kind)
        present = source.frame.collect_schema().names()
        name = _column(str(file), "item", item, present, ITEMS)
        wanted = [_column(str(file), "columns", column, present, ()) for column in columns]
        table = source.frame.select(pl.col(name).cast(pl.String).str.strip_chars().alias("item"),
                                    *(_number(column) for column in wanted)).collect()  # fmt: skip
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise DataError(f"{file}: damaged or cut short: {_files.first_line(error)}") from None
    except (pl.exceptions.PolarsError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as {kind}: {_files.first_line(error)}") from None
    return _look_up(source, table, tuple(items), wanted)


def _source(file: os.PathLike[str], kind: str) -> Source:
    path = _files.existing(file)
    if kind == "parquet":
        return Source(str(path), _files.scan_parquet(path), name_row)
    text = _files.TextFile(
        path, _files.is_gzipped(path, named=True), _files.SEPARATORS.get(kind, "")
    )
    _files.refuse_other_kinds(text, kind)
    if kind == "jsonl":
        return Source(str(path), pl.read_ndjson(path, infer_schema_length=None).lazy(), name_row)
    return _files.separated_source(text)


def _column(
    label: str, option: str, given: str | None, present: list[str], known: tuple[str, ...]
) -> str:
    """Return a column as it is named, or the first known one."""
    if given is not None:
        if given not in present:
            hint = closest_names(given, present)
            raise InputError(f"{label}: no column {given!r} for {option}={hint}")
        return given
    lower = {name.strip().lower(): name for name in present}
    found = next((lower[name] for name in known if name in lower), None)
    if found is None:
        listed = ", ".join(map(repr, present[:30])) or "none"
        raise InputError(
            f"{label}: cannot tell which column names the items; its columns are {listed}; "
            f"expected one called {', '.join(known)}"
        )
    return found


def _number(name: str) -> pl.Expr:
    text = pl.col(name).cast(pl.String).str.strip_chars()
    low = text.str.to_lowercase()
    truth = pl.when(low == "true").then(1.0).when(low == "false").then(0.0)
    return pl.coalesce(text.cast(pl.Float64, strict=False), truth).alias(f"value {name}")


def _look_up(
    source: Source, table: pl.DataFrame, items: tuple[str, ...], columns: list[str]
) -> dict[str, np.ndarray]:
    """Return the rows of the items, in their order."""
    table = table.with_row_index("row").filter(pl.col("item").is_in(list(items)))
    twice = table.filter(~pl.col("item").is_first_distinct())
    if twice.height:
        place, name = source.place(int(twice["row"][0])), twice["item"][0]
        raise DataError(f"{place}: expected one row for each item; {name!r} has another")
    where = {name: k for k, name in enumerate(table["item"].to_list())}
    missing = [name for name in items if name not in where]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise DataError(f"{source.label}: expected a row for every item; none for "
                        f"{missing[0]!r}{more}")  # fmt: skip
    order = [where[name] for name in items]
    found = {}
    for column in columns:
        values = table[f"value {column}"].to_numpy().astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            row, name = int(table["row"][int(bad[0])]), table["item"][int(bad[0])]
            raise DataError(f"{source.place(row)}: {column}: expected a finite number for {name!r}")
        found[column] = values[order]
    return found
