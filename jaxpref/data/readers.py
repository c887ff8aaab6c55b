"""Read comparisons from a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

from jaxpref._checks import InputError
from jaxpref.data._columns import ColumnOptions
from jaxpref.data.comparisons import Comparisons


def read_comparisons(
    path: str | os.PathLike[str],
    *,
    item_a: str | None = None,
    item_b: str | None = None,
    winner: str | None = None,
    score_a: str | None = None,
    score_b: str | None = None,
    weight: str | Literal[False] | None = None,
    rater: str | Literal[False] | None = None,
    labels_a: Any = None,
    labels_b: Any = None,
    labels_tie: Any = None,
    covariates: Sequence[str | tuple[str, str]] = (),
    format: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparisons:
    """Read pairwise comparisons, one a row, or a square matrix of counts.

    Parameters
    ----------
    path : str or path
        A file ending in ``.csv``, ``.tsv``, ``.jsonl`` (or ``.ndjson``), each also with ``.gz``,
        or in ``.parquet``; text in UTF-8. A CSV or TSV whose header row and first column hold the
        same names is a matrix of counts, wins of the row over the column.
    item_a, item_b : str, optional
        Columns of the two items, in the order they were shown. When left out, these names are
        recognised: ``item_a, item_b``; ``model_a, model_b``; ``left, right``; ``home_team,
        away_team``; ``team1, team2``; and ``winner, loser``, which do not tell the order.
    winner : str, optional
        Column that says who won. When left out: ``winner``.
    score_a, score_b : str, optional
        Columns of scores in place of a winner: the higher wins, equal scores tie. When left out:
        ``score_a, score_b``; ``home_score, away_score``; ``score1, score2``.
    weight : str or False, optional
        Column of weights, finite and at least 0. When left out: ``weight``, where there is one;
        False reads none.
    rater : str or False, optional
        Column of raters. When left out: ``rater`` or ``worker``, where there is one; False reads
        none.
    labels_a, labels_b, labels_tie : label or sequence of labels, optional
        What the winner column says for either item and for a tie, in any case. When left out:
        ``a`` and ``b``, the names of the two columns, ``left`` and ``right``, ``model_a`` and
        ``model_b``, ``item_a`` and ``item_b``, the row's two names; ``tie``, ``draw``,
        ``tie (bothbad)``, ``both_bad``. The row's names are no labels once both labels_a and
        labels_b are given. Anything else is refused: never a tie.
    covariates : sequence of str or (str, str), optional
        Columns of numbers to keep with the comparisons, true and false as 1 and 0; a pair of
        columns stands for the first minus the second, as for a length of either answer. Rows of
        different numbers are different cells. Where the winner stands first, they are turned
        around with the two items.
    format : str, optional
        ``"csv"``, ``"tsv"``, ``"jsonl"``, ``"parquet"`` or ``"counts"`` for a file whose name
        does not say.
    progress : callable, optional
        Called with how much is read, and how much there is: bytes of text, rows of Parquet.

    Returns
    -------
    Comparisons
        Items sorted by name (by size where all are whole numbers), cells sorted, so that the order
        of the rows makes no difference. A matrix of counts keeps the order of its rows.

    Raises
    ------
    InputError
        If there is no such file or column, or the columns cannot be told apart.
    DataError
        If the file is not what its name says, is empty, or a row cannot be used: a missing name, an
        item against itself, an unknown label, a score that is no number, a negative or NaN weight.
        The message names the first such row and its line, and counts those like it.

    Notes
    -----
    Spaces around names and labels do not count; a name of NaN is missing. Files are read a
    few megabytes (Parquet: a million rows) at a time, and rows grouped as they are read, so that
    memory follows the number of cells and not of rows. The columns of JSON lines are those of the
    first 10,000 lines, or of the first 16 MiB.

    Examples
    --------
    >>> from jaxpref.data import bundled_path, read_comparisons
    >>> read_comparisons(bundled_path("baseball"))
    Comparisons(7 items, 273 comparisons in 21 pairs)
    """
    from jaxpref.data._files import read_file

    if format == "counts" and covariates:
        raise InputError(
            "covariates: expected none with a matrix of counts, which holds no columns"
        )
    options = ColumnOptions(
        item_a, item_b, winner, score_a, score_b, weight, rater, labels_a, labels_b, labels_tie,
        covariates,
    )  # fmt: skip
    return read_file(path, options, format, progress)
