"""Arrow columns of text as categories, a portion of the rows at a time, in threads.

Text is most of the work of counting rows: each value is hashed. Arrow does that without Python's
lock, so that columns and portions share the processor's cores; and looking values up among words
known from a sample takes it two thirds of the time of collecting them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import polars as pl

# Rows of a portion, and how many portions are ahead of the one being counted.
PORTION = 1 << 19
AHEAD = 4
# Runs of rows, evenly spread, from which most words are known, and the rows of each.
RUNS, RUN = 32, 512

Portions = Callable[[list[str] | None], Iterator[pl.LazyFrame]]


class TextColumn(NamedTuple):
    """A chunked array of text, and most of the words in it."""

    rows: Any
    words: Any


def text_column(values: Any) -> TextColumn | None:
    """Return a pyarrow array, or what holds one, as a column of few words; None where it is not.

    ``values`` may be a pandas column whose strings lie in Arrow's memory: they are not copied.
    """
    import pyarrow as pa

    array = values if isinstance(values, pa.ChunkedArray) else pa.array(values)
    if not isinstance(array, pa.ChunkedArray):
        array = pa.chunked_array([array])
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return None
    starts = range(0, len(array), max(len(array) // RUNS, RUN))
    runs = [chunk for start in starts for chunk in array.slice(start, RUN).chunks]
    sample = pa.chunked_array(runs, array.type)
    words = sample.unique().drop_null()
    return TextColumn(array, words) if len(words) <= max(RUN, len(sample) // 2) else None


def portions(text: dict[str, TextColumn], others: pl.DataFrame, names: list[str]) -> Portions:
    """Return what yields the columns of a table, those of text as categories of their own.

    Parameters
    ----------
    text : dict of str to TextColumn
        Columns of text, at least one.
    others : polars.DataFrame
        The other columns.
    names : list of str
        All columns, in order.
    """
    rows = len(next(iter(text.values())).rows)

    def read(needed: list[str] | None) -> Iterator[pl.LazyFrame]:
        chosen = names if needed is None else needed
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            waiting: deque[dict[str, Future[pl.Series] | pl.Series]] = deque()
            for start in range(0, max(rows, 1), PORTION):
                waiting.append({
                    name: pool.submit(_categories, text[name], start)
                    if name in text else others[name].slice(start, PORTION)
                    for name in chosen
                })  # fmt: skip
                if len(waiting) > AHEAD:
                    yield _together(waiting.popleft())
            while waiting:
                yield _together(waiting.popleft())

    return read


def _together(columns: dict[str, Future[pl.Series] | pl.Series]) -> pl.LazyFrame:
    """Return the columns of a portion, once all are there."""
    return pl.LazyFrame({k: v.result() if isinstance(v, Future) else v for k, v in columns.items()})


def _categories(column: TextColumn, start: int) -> pl.Series:
    """Return a portion of text as categories: the words, and behind them what else is found."""
    import pyarrow as pa
    import pyarrow.compute

    pc: Any = pyarrow.compute  # its functions are made when it is imported
    text, words = column.rows.slice(start, PORTION), column.words
    if len(text) == 0:
        return pl.Series([], dtype=pl.Enum([]))
    place = _in_one(pc.index_in(text, value_set=words))
    if place.null_count > text.null_count:
        new = pc.and_(place.is_null(), _in_one(text.is_valid()))
        rest = text.filter(new)
        words = pa.concat_arrays([words, rest.unique()])
        found = _in_one(pc.index_in(rest, value_set=words))
        place = pc.replace_with_mask(place, new, found)
    # Unsigned, as polars would make them: gathering takes half the time.
    places = pl.Series(pl.from_arrow(place.view(pa.uint32())))
    known = pl.Series(pl.from_arrow(words), dtype=pl.String)
    return known.cast(pl.Enum(known)).gather(places)


def _in_one(chunked: Any) -> Any:
    """Return a chunked array of at least one chunk as an array."""
    return chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()
