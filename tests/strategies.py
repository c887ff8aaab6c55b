"""Hypothesis strategies: comparisons as rows, good ones and ones with a fault in a known row."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

Row = dict[str, Any]

# Names that try the readers: separators, quotes, line breaks, digits, labels of other layouts.
NAMES = ["x", "Y", "a,b", 'say "hi"', "two\nlines", "007", "7", "GPT-4", "Åland", "left", "it's"]

# A value for each column that no reader may accept.
FAULTS: dict[str, list[str | None]] = {
    "item_a": [None, " ", "nan"],
    "item_b": [None, "", "NaN"],
    "winner": [None, "1", "0", "NaN", "wins", "tied"],
    "weight": [None, "-1", "nan", "inf", "heavy"],
}


@st.composite
def rows(draw: st.DrawFn, *, min_size: int = 1, max_size: int = 30) -> list[Row]:
    """Draw good rows: item_a, item_b, winner in {a, b, tie}, weight in quarters, rater."""
    items = draw(st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=True))
    return draw(st.lists(_row(items), min_size=min_size, max_size=max_size))


@st.composite
def _row(draw: st.DrawFn, items: list[str]) -> Row:
    first = draw(st.sampled_from(items))
    return {
        "item_a": first,
        "item_b": draw(st.sampled_from([name for name in items if name != first])),
        "winner": draw(st.sampled_from(["a", "b", "tie"])),
        # Sums of quarters are exact in float64, in any order.
        "weight": draw(st.integers(0, 8)) / 4,
        "rater": draw(st.sampled_from(["ann", "bob", "12"])),
    }


@st.composite
def faulty_rows(draw: st.DrawFn) -> tuple[list[Row], int, int]:
    """Draw rows with one kind of fault: the rows, the index of the first fault, and how many."""
    good = [{**row, "weight": str(row["weight"])} for row in draw(rows(min_size=2))]
    where = draw(st.sets(st.integers(0, len(good) - 1), min_size=1))
    column = draw(st.sampled_from([*FAULTS, "self"]))
    for index in where:
        if column == "self":
            good[index]["item_b"] = good[index]["item_a"]
        else:
            good[index][column] = draw(st.sampled_from(FAULTS[column]))
    return good, min(where), len(where)


@st.composite
def counts(draw: st.DrawFn, *, max_items: int = 7) -> np.ndarray:
    """Draw a square matrix of wins, many of them zero."""
    size = draw(st.integers(1, max_items))
    entry = st.sampled_from([0, 0, 0, 1, 5])
    wins = np.array(draw(st.lists(entry, min_size=size**2, max_size=size**2)), float)
    return wins.reshape(size, size) * (1 - np.eye(size))


@st.composite
def comparison_fields(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the fields of `Comparisons`: ties, both orders of presentation, repeated cells, raters.

    The container itself is built in the test, for runtime type checks draw random numbers of their
    own, which hypothesis does not allow inside a strategy.
    """
    size = draw(st.integers(2, 6))
    index, weight = st.integers(0, size - 1), st.integers(0, 3)
    cell = st.tuples(index, index, weight, weight, weight, st.integers(0, 1))
    drawn = draw(st.lists(cell.filter(lambda values: values[0] != values[1]), max_size=12))
    columns = np.array(drawn, np.int64).reshape(-1, 6).T
    names = tuple(f"item {k}" for k in range(size))
    fields = ("item_a", "item_b", "wins_a", "wins_b", "ties", "rater")
    return {"items": names, "raters": ("ann", "bob"), **dict(zip(fields, columns, strict=True))}
