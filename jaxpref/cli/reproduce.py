"""``jaxpref reproduce``: the paper's mathematics recomputed, each claim with a verdict."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _terminal
from ._options import JsonOption, use_float64

if TYPE_CHECKING:
    from ..report import Table

MODULES = {
    "fig1": "fig1_bradley_terry_regions",
    "fig2": "fig2_plackett_luce_regions",
    "claims": "claims",
    "gradients": "verify_gradients",
}
FOLDER = Path(__file__).resolve().parents[2] / "experiments"
VERDICTS = ("holds", "holds with a stated correction", "differs")
STEPS = 100


def reproduce(
    items: Annotated[
        list[str] | None,
        typer.Argument(
            help="fig1, fig2, claims, gradients; all if left out.",
            metavar="[ITEM]...",
            show_default=False,
        ),
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="The small form: fewer draws.")] = False,
    out: Annotated[
        Path, typer.Option(help="Folder for the results, one folder an item.", metavar="DIR")
    ] = Path("reproduced"),
    json: JsonOption = False,
) -> None:
    """Recompute the paper's figures and claims, and say of each whether it holds."""
    names = check_items(items or list(MODULES))
    folder = find_experiments()
    from ..report.files import check_folder

    check_folder("--out", out)
    use_float64()
    with (
        _importable(folder),
        _terminal.progress(f"Reproducing {', '.join(names)}", percent=True) as move,
    ):
        found = [
            run_item(name, out, smoke, _part(move, number, len(names)))
            for number, name in enumerate(names)
        ]
    if json:
        _terminal.show_json({"command": "reproduce", "smoke": smoke, "items": found})
    else:
        _print(found)
    _raise_if_missed(found)


def check_items(items: list[str]) -> list[str]:
    """Return the items once each, or raise for a name that is none, with the closest.

    Examples
    --------
    >>> check_items(["claim"])
    Traceback (most recent call last):
        ...
    jaxpref._checks.InputError: ITEM: expected one of fig1, ...; got 'claim' (closest: 'claims')
    """
    from .._checks import InputError, closest_names

    for item in items:
        if item not in MODULES:
            hint = closest_names(item.lower(), MODULES)
            raise InputError(f"ITEM: expected one of {', '.join(MODULES)}; got {item!r}{hint}")
    return list(dict.fromkeys(items))


def find_experiments() -> Path:
    """Return the folder of the experiments, which a clone has and an installed wheel has not.

    Raises
    ------
    InputError
        Where it is not there.
    """
    from .._checks import InputError

    missing = [name for name in MODULES.values() if not (FOLDER / f"{name}.py").is_file()]
    if missing:
        raise InputError(
            "reproduce: the experiments are not part of the installed package; run it from a "
            "clone of the repository: pip install -e '.[report]'"
        )
    from importlib.util import find_spec

    for package, extra in (("matplotlib", "report"), ("mpmath", "test"), ("scipy", "test")):
        if find_spec(package) is None:
            raise InputError(f"reproduce: needs {package}: pip install -e '.[{extra}]'")
    return FOLDER


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the scripts be imported, and import each other, by name."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _part(
    move: _terminal.Progress | None, number: int, count: int
) -> Callable[[int, int], None] | None:
    """Return what moves one display along an item's own part of it."""
    if move is None:
        return None
    return lambda done, total: move(number * STEPS + STEPS * done // total, count * STEPS)


def run_item(
    name: str, out: Path, smoke: bool, progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    """Compute one item, write its result and figures, and compare with the record."""
    common = importlib.import_module("_common")
    module = importlib.import_module(MODULES[name])
    record = common.load(common.RESULTS / module.NAME)
    content = module.compute(module.SMOKE if smoke else module.Config(), progress)
    folder = out / module.NAME
    files = [common.save(content, folder), *module.plot(folder)]
    rows = content["comparison"]
    return {
        "item": name,
        "files": [str(path) for path in files],
        "verdicts": {kind: sum(row["verdict"] == kind for row in rows) for kind in VERDICTS},
        "failed": common.missed(content, record, partial=smoke),
        "comparison": rows,
    }


def _raise_if_missed(found: list[dict[str, Any]]) -> None:
    """End with exit code 3 where a check failed."""
    failed = [failure for item in found for failure in item["failed"]]
    if failed:
        from .._checks import ConvergenceError

        more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise ConvergenceError(f"reproduce: a check failed: {failed[0]}{more}")


# Printing -----------------------------------------------------------------------------------


def _print(found: list[dict[str, Any]]) -> None:
    _terminal.show(_tally(found))
    notable = [row for item in found for row in item["comparison"] if row["verdict"] != VERDICTS[0]]
    for row in notable:
        ours = f"{row['ours']:.6g}" if isinstance(row["ours"], float) else row["ours"]
        _terminal.say(f"{row['item']}: {row['verdict']}", style="bold")
        _terminal.say(f"  Paper: {row['paper']}. Ours: {ours}. {row['why']}.")
    for item in found:
        _terminal.say(f"Wrote {', '.join(item['files'])}", style="dim")


def _tally(found: list[dict[str, Any]]) -> Table:
    from ..report import Column, Table

    columns = (Column("item"), *(Column(kind, "right") for kind in VERDICTS), Column("checks"))
    rows = tuple(
        (
            item["item"],
            *(str(item["verdicts"][kind]) for kind in VERDICTS),
            f"{len(item['failed'])} failed" if item["failed"] else "passed",
        )
        for item in found
    )
    note = "A check fails where a verdict is not the recorded one; that the paper differs is none."
    return Table("What the paper says, recomputed", columns, rows, note)
