"""Options that several commands share, in groups, and the data they lead to."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_type_hints

import typer

from . import _terminal

if TYPE_CHECKING:
    from ..data import Comparisons
    from ..fit import FitResult
    from ..links import Link

READING, FITTING = "Reading the file", "Fitting"

FileArgument = Annotated[
    Path,
    typer.Argument(
        help="Comparisons as CSV, TSV, JSONL (each also .gz) or Parquet, or a matrix of counts.",
        show_default=False,
    ),
]
LinkOption = Annotated[
    str,
    typer.Option(help="logistic, probit, cauchit, laplace or student_t:NU.", metavar="NAME"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def _reading(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=READING, show_default=False, metavar="NAME")


@dataclass(frozen=True)
class Reading:
    """How the file is read; what is left out is recognised by name."""

    item_a: Annotated[str | None, _reading("Column of the first item.")] = None
    item_b: Annotated[str | None, _reading("Column of the second item.")] = None
    winner: Annotated[str | None, _reading("Column that says who won.")] = None
    score_a: Annotated[str | None, _reading("Column of the first item's points.")] = None
    score_b: Annotated[str | None, _reading("Column of the second item's points.")] = None
    labels_a: Annotated[
        list[str] | None, _reading("What the winner column says for the first item. Repeatable.")
    ] = None
    labels_b: Annotated[list[str] | None, _reading("The same for the second item.")] = None
    labels_tie: Annotated[list[str] | None, _reading("The same for a tie.")] = None
    weight: Annotated[str | None, _reading("Column of weights.")] = None
    no_weight: Annotated[
        bool,
        typer.Option(
            "--no-weight", help="Count each row once.", rich_help_panel=READING, show_default=False
        ),
    ] = False
    rater: Annotated[str | None, _reading("Column of raters.")] = None
    format: Annotated[
        str | None, _reading("csv, tsv, jsonl, parquet or counts, if the name does not say.")
    ] = None

    def read(self, file: Path) -> Comparisons:
        """Return the comparisons in a file."""
        from .._checks import InputError
        from ..data import read_comparisons

        if self.no_weight and self.weight is not None:
            raise InputError("--weight, --no-weight: expected one of the two; got both")
        options = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        if options.pop("no_weight"):
            options["weight"] = False
        with _terminal.working(f"Reading {file.name}"):
            return read_comparisons(file, **options)


@dataclass(frozen=True)
class Fitting:
    """Which comparisons are fitted, and how."""

    link: Annotated[
        str,
        typer.Option(help="logistic, probit or laplace.", metavar="NAME", rich_help_panel=FITTING),
    ] = "logistic"
    ties: Annotated[
        str,
        typer.Option(
            help="refuse them, or count each as half a win for both.",
            metavar="refuse|half",
            rich_help_panel=FITTING,
        ),
    ] = "refuse"
    ridge: Annotated[
        float,
        typer.Option(
            help="Strength of a prior that pulls scores to 0; above 0 the fit always exists.",
            rich_help_panel=FITTING,
        ),
    ] = 0.0
    drop: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out an item. Repeatable.",
            metavar="ITEM",
            rich_help_panel=FITTING,
            show_default=False,
        ),
    ] = None
    component: Annotated[
        str | None,
        typer.Option(
            help="Fit only the items that are tied to this one by wins in both directions, or "
            "'largest': the largest such group.",
            metavar="ITEM|largest",
            rich_help_panel=FITTING,
            show_default=False,
        ),
    ] = None
    max_steps: Annotated[
        int, typer.Option(help="Newton steps to take at most.", rich_help_panel=FITTING)
    ] = 200

    def check(self) -> Link:
        """Return the link, or raise for an option that no file could make right."""
        from .._checks import check_between, check_count, check_option
        from ..fit.pairwise import TIES
        from ..links import by_name

        check_option("--ties", self.ties, TIES)
        check_between("--ridge", self.ridge, 0.0, 1e300, what="a finite number of at least 0")
        check_count("--max-steps", self.max_steps)
        return by_name(self.link)

    def choose(self, comparisons: Comparisons) -> Comparisons:
        """Return the comparisons left by --drop and --component."""
        from ..data import strong_components

        if self.drop:
            comparisons = comparisons.drop(list(dict.fromkeys(self.drop)))
        if self.component is None:
            return comparisons
        if self.component == "largest":
            label = 0
        else:
            position = comparisons.index(self.component)
            label = int(strong_components(comparisons).labels[position])
        return comparisons.select(strong_components(comparisons).members(comparisons.items)[label])


class Fitted(NamedTuple):
    """A fit, with what was read and what was left out."""

    fit: FitResult
    file: Path
    comparisons: Comparisons
    left_out: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what was read, for JSON."""
        return {
            "file": str(self.file),
            "items": self.comparisons.num_items,
            "comparisons": self.comparisons.num_comparisons,
            "ties": self.comparisons.num_ties,
            "pairs": len(self.comparisons.pairs().item_a),
            "left_out": list(self.left_out),
        }

    def describe(self) -> str:
        """Return what was read, in a sentence."""
        from ..report.numbers import amount

        data = self.comparisons
        ties = f" ({amount(data.num_ties, 'tie')}, half a win for either side)"
        pairs = amount(len(data.pairs().item_a), "pair")
        count = amount(data.num_comparisons, "comparison") + (ties if data.num_ties else "")
        text = f"{self.file.name}: {amount(data.num_items, 'item')}, {count} in {pairs}."
        if self.left_out:
            names = ", ".join(map(repr, self.left_out[:5]))
            more = f" and {len(self.left_out) - 5} more" if len(self.left_out) > 5 else ""
            text += f" Left out: {names}{more}."
        return text


def fit_file(file: Path, reading: Reading, fitting: Fitting) -> Fitted:
    """Read a file and fit it, as the options say."""
    use_float64()
    link = fitting.check()
    comparisons = reading.read(file)
    chosen = fitting.choose(comparisons)
    from ..fit import fit_pairwise

    with _terminal.working(f"Fitting {chosen.num_items:,} items"):
        fit = fit_pairwise(
            chosen, link=link, ties=fitting.ties, ridge=fitting.ridge, max_steps=fitting.max_steps
        )
    kept = set(chosen.items)
    left_out = tuple(name for name in comparisons.items if name not in kept)
    return Fitted(fit, file, chosen, left_out)


def use_float64() -> None:
    """Switch JAX to 64-bit numbers: a command's own choice, never the library's."""
    import jax

    jax.config.update("jax_enable_x64", True)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options, as dataclasses, that typer sees one by one.

    Examples
    --------
    >>> @dataclass
    ... class Size:
    ...     width: int = 80
    >>> @grouped
    ... def draw(name: str, size: Size) -> None:
    ...     print(name, size)
    >>> draw(name="box", width=3)
    box Size(width=3)
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {n: kind for n, kind in hints.items() if is_dataclass(kind)}

    def run(**values: Any) -> None:
        for name, kind in groups.items():
            given = {entry.name for entry in fields(kind)} & set(values)
            values[name] = kind(**{member: values.pop(member) for member in given})
        command(**values)

    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _members(groups[name])
        else:
            only = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(annotation=hints[name], kind=only))
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {entry.name: entry.annotation for entry in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _members(kind: Any) -> list[inspect.Parameter]:
    """Return the fields of a dataclass as keyword parameters."""
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            entry.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=entry.default,
            annotation=hints[entry.name],
        )
        for entry in fields(kind)
    ]
