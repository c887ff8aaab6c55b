"""Read rankings from a file."""

from __future__ import annotations

import os
from typing import Literal

from jaxpref.data.rankings import Rankings


def read_rankings(
    path: str | os.PathLike[str],
    *,
    ranking: str | None = None,
    rank: str | None = None,
    score: str | None = None,
    item: str | None = None,
    weight: str | Literal[False] | None = None,
    rater: str | Literal[False] | None = None,
    unlisted: Literal["ignored", "last"] = "ignored",
    format: str | None = None,
) -> Rankings:
    """Read rankings: JSON lists, best first, or a long table of ranking, rank and item.

    Parameters
    ----------
    path : str or path
        A file ending in ``.jsonl`` (or ``.ndjson``), ``.csv`` or ``.tsv``, each also with ``.gz``,
        or in ``.parquet``; text in UTF-8. A line of JSON is a list of names, best first, in which
        a list is a group of tied items; or an object whose ``ranking`` is such a list, with an
        optional ``weight`` and ``rater``. A table has one row for each item of each ranking;
        equal ranks are ties, and only the order of ranks counts.
    ranking, rank, score, item : str, optional
        Columns of a table. When left out: ``ranking``, ``ranking_id``, ``prompt_id``, ``ballot`` or
        ``race``; ``rank``, ``place`` or ``position`` (1 is best), or else ``score`` (the highest is
        best); ``item``, ``model`` or ``name``.
    weight, rater : str or False, optional
        Columns of a table that say one thing for the whole of a ranking. When left out:
        ``weight``; ``rater`` or ``worker``, where there are such; False reads none.
    unlisted : {"ignored", "last"}
        What a ranking says about the items that it does not list: nothing (the default), or that
        they all come after those listed (top-k lists).
    format : str, optional
        ``"jsonl"``, ``"csv"``, ``"tsv"`` or ``"parquet"`` for a file whose name does not say.

    Returns
    -------
    Rankings
        Items sorted by name (by size where all are whole numbers), rankings in the order of the
        file.

    Raises
    ------
    InputError
        If there is no such file or column.
    DataError
        If the file is not what its name says, is empty, or a row cannot be used: a missing name, a
        rank that is no number, an item listed twice, one item alone, a negative or NaN weight. The
        message names the first such row and its line, and counts those like it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "votes.jsonl")
    ...     _ = path.write_text('["tea", "milk", "water"]' + chr(10) + '["milk", ["tea", "water"]]')
    ...     read_rankings(path)
    Rankings(3 items, 2 rankings of 3 items, 1 with ties)
    """
    from jaxpref.data._long import LongOptions
    from jaxpref.data._ranking_files import read_ranking_file

    options = LongOptions(ranking, rank, item, weight, rater, unlisted, score)
    return read_ranking_file(path, options, format)
