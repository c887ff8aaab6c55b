"""Small published tables that come with the package, to try things on."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path

from jaxpref._checks import check_option
from jaxpref.data.comparisons import Comparisons
from jaxpref.data.readers import read_comparisons


@cache
def _citations() -> dict[str, dict[str, str]]:
    """Read the list of tables."""
    return json.loads((_folder() / "citations.json").read_text(encoding="utf-8"))


def _folder() -> Path:
    """Return the folder of the tables."""
    return Path(str(files("jaxpref.data"))) / "bundled"


def bundled_names() -> tuple[str, ...]:
    """Return the names of the bundled tables.

    Examples
    --------
    >>> bundled_names()
    ('baseball', 'baseball_path', 'journals', 'journals_path', 'example1')
    """
    return tuple(_citations())


def bundled_path(name: str) -> Path:
    """Return the file of a bundled table, a square matrix of counts as CSV.

    Parameters
    ----------
    name : str
        One of :func:`bundled_names`.

    Raises
    ------
    InputError
        If there is no such table.

    Examples
    --------
    >>> bundled_path("example1").name
    'example1.csv'
    """
    return _folder() / f"{check_option('name', name, bundled_names())}.csv"


def bundled_citation(name: str) -> str:
    """Return what a bundled table is, and where it was published.

    Parameters
    ----------
    name : str
        One of :func:`bundled_names`.

    Raises
    ------
    InputError
        If there is no such table.

    Examples
    --------
    >>> print(bundled_citation("baseball"))
    1987 American League baseball, Eastern Division: 13 games a pair, wins of the row over the
    column. A. Agresti, Categorical Data Analysis, Wiley, 1990, section 10.6.
    """
    entry = _citations()[check_option("name", name, bundled_names())]
    return f"{entry['title']}. {entry['citation']}."


def load_bundled(name: str) -> Comparisons:
    """Load a bundled table.

    Parameters
    ----------
    name : str
        ``"baseball"`` and ``"journals"`` hold every pair. In ``"baseball_path"`` and
        ``"journals_path"`` only the pairs that stand next to each other in the table are left, so
        that each prediction for the others hangs on a chain. ``"example1"`` is Example 1 of the
        paper: options i, k, j with ``p_ik = 0.99`` and ``p_kj = 0.02``.

    Returns
    -------
    Comparisons
        Items in the order of the table.

    Raises
    ------
    InputError
        If there is no such table.

    Examples
    --------
    >>> load_bundled("example1").pairs().wins_a
    array([99.,  2.])
    """
    return read_comparisons(bundled_path(name), format="counts")
