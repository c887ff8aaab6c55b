"""``jaxpref reproduce``: the paper's mathematics and trainings recomputed, with verdicts."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

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
TRAINED = {
    "fig3": "fig3_strong_preferences",
    "figC4": "figC4_second_architecture",
    "figC5": "figC5_balanced_preferences",
    "ext1": "ext1_training_sensitivity",
    "ext2": "ext2_rankings_soften",
    "ext5": "ext5_training_choices",
    "ext6": "ext6_two_probes",
}
"""Items that train language models: minutes each, and run only where they are named."""
DATA = {
    "tabC2": "tabC2_dominance",
    "tabC3": "tabC3_fragile_quadruples",
    "ext3": "ext3_mitigation",
    "rewrites": "tabC3_rewrites",
}
"""Items that read data sets from the folder named by JAXPREF_DATA."""
QUICK = ("tabC2", "tabC3")
"""Those of them that take seconds, and run with the rest where the data are at hand."""
KNOWN = {**MODULES, **DATA, **TRAINED}
FOLDER = Path(__file__).resolve().parents[2] / "experiments"
VERDICTS = ("holds", "holds with a stated correction", "differs")
STEPS = 100


def reproduce(
    items: Annotated[
        list[str] | None,
        typer.Argument(
            help="fig1, fig2, claims, gradients, and where JAXPREF_DATA names the data sets tabC2 "
            "and tabC3 (all of these if left out); ext3 and rewrites, which need them too; or of "
            "those that train: fig3, figC4, figC5, ext1, ext2, ext5, ext6.",
            metavar="[ITEM]...",
            show_default=False,
        ),
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="The small form: fewer draws.")] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="The large form of those that train: all orders and seeds, about half an hour "
            "each on two cores.",
        ),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            help="The model that those that train start from; stories260K in the folder named by "
            "JAXPREF_DATA if left out.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(help="Processes of one core each, for those that train.")
    ] = 1,
    out: Annotated[
        Path, typer.Option(help="Folder for the results, one folder an item.", metavar="DIR")
    ] = Path("reproduced"),
    json: JsonOption = False,
) -> None:
    """Recompute the paper's figures and claims, and say of each whether it holds."""
    names, skipped = check_data(check_items(items)) if items else default_items()
    training = Training(full, model, processes)
    check_training(names, training, smoke)
    folder = find_experiments(names)
    from ..report.files import check_folder

    check_folder("--out", out)
    use_float64()
    with (
        _importable(folder),
        _terminal.progress(f"Reproducing {', '.join(names)}", percent=True) as move,
    ):
        found = [
            run_item(name, out, smoke, _part(move, number, len(names)), training)
            for number, name in enumerate(names)
        ]
    if json:
        content = {"command": "reproduce", "smoke": smoke, "items": found, "skipped": skipped}
        _terminal.show_json(content)
    else:
        _print(found)
        if skipped:
            _terminal.say(f"Skipped {', '.join(skipped)}: JAXPREF_DATA is not set.")
    _raise_if_missed(found)


class Training(NamedTuple):
    """What only the items that train take."""

    full: bool = False
    model: Path | None = None
    processes: int = 1


def check_training(names: list[str], training: Training, smoke: bool) -> None:
    """Refuse options that would do nothing, and items whose model is not there.

    Raises
    ------
    InputError
    """
    from .._checks import InputError, check_count

    check_count("--processes", training.processes)
    if training.full and smoke:
        raise InputError("--smoke, --full: expected at most one of the two; got both")
    if not set(names) & set(TRAINED):
        flags = zip(("--full", "--model", "--processes"), training, Training(), strict=True)
        given = [flag for flag, value, default in flags if value != default]
        if given:
            raise InputError(
                f"{', '.join(given)}: expected an item that trains: {', '.join(TRAINED)}"
            )
        return
    if training.model is None and not os.environ.get("JAXPREF_DATA"):
        raise InputError(
            "--model: expected a checkpoint folder, or JAXPREF_DATA set to a folder that holds "
            "stories260K"
        )


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
        if item not in KNOWN:
            hint = closest_names(item.lower(), KNOWN)
            raise InputError(f"ITEM: expected one of {', '.join(KNOWN)}; got {item!r}{hint}")
    return list(dict.fromkeys(items))


def default_items() -> tuple[list[str], list[str]]:
    """Return the items of a run that names none, and those left out for want of data."""
    if os.environ.get("JAXPREF_DATA"):
        return [*MODULES, *QUICK], []
    return list(MODULES), list(QUICK)


def check_data(items: list[str]) -> tuple[list[str], list[str]]:
    """Return the items named, or raise where one needs data that are not at hand.

    Raises
    ------
    InputError
    """
    from .._checks import InputError

    wanting = [item for item in items if item in DATA]
    if wanting and not os.environ.get("JAXPREF_DATA"):
        raise InputError(
            f"{wanting[0]}: expected the folder of the data sets in JAXPREF_DATA; it is not set"
        )
    return items, []


def find_experiments(names: Iterable[str] = tuple(MODULES)) -> Path:
    """Return the folder of the experiments, which a clone has and an installed wheel has not.

    Parameters
    ----------
    names : iterable of str
        The items that will be run.

    Raises
    ------
    InputError
        Where it is not there.
    """
    from .._checks import InputError

    wanted = [KNOWN[name] for name in names]
    if not all((FOLDER / f"{name}.py").is_file() for name in wanted):
        raise InputError(
            "reproduce: the experiments are not part of the installed package; run it from a "
            "clone of the repository: pip install -e '.[report]'"
        )
    from importlib.util import find_spec

    needed = [("matplotlib", "report"), ("mpmath", "test"), ("scipy", "test")]
    if set(wanted) & {*TRAINED.values(), *DATA.values()}:
        needed += [(package, "llm") for package in ("flax", "optax", "orbax", "transformers")]
    for package, extra in needed:
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
    name: str,
    out: Path,
    smoke: bool,
    progress: Callable[[int, int], None] | None,
    training: Training,
) -> dict[str, Any]:
    """Compute one item, write its result and figures, and compare with the record."""
    common = importlib.import_module("_common")
    module = importlib.import_module(KNOWN[name])
    record = common.load(common.RESULTS / module.NAME)
    config = module.SMOKE if smoke else module.Config()
    if name in TRAINED:
        config = module.full(config) if training.full else config
        options = {"model": training.model, "processes": training.processes}
        content = module.compute(config, progress, **options)
        own = training.model is None
        failed = common.missed_alike(config, content, record, own=own)
    else:
        content = module.compute(config, progress)
        failed = common.missed(content, record, partial=smoke)
    folder = out / module.NAME
    files = [common.save(content, folder), *module.plot(folder)]
    rows = content["comparison"]
    return {
        "item": name,
        "files": [str(path) for path in files],
        "verdicts": {kind: sum(row["verdict"] == kind for row in rows) for kind in VERDICTS},
        "failed": failed,
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
