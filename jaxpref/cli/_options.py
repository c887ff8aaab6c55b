"""Options that several commands share, in groups, and the data they lead to."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, TypeVar, get_type_hints

import typer

from . import _terminal

if TYPE_CHECKING:
    from ..data import Comparisons, Rankings
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

    def read(self, file: Path, covariates: Sequence[str | tuple[str, str]] = ()) -> Comparisons:
        """Return the comparisons in a file, with columns of covariates."""
        from .._checks import InputError
        from ..data import read_comparisons

        if self.no_weight and self.weight is not None:
            raise InputError("--weight, --no-weight: expected one of the two; got both")
        options = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        if options.pop("no_weight"):
            options["weight"] = False
        with _terminal.progress(f"Reading {file.name}") as move:
            return read_comparisons(file, covariates=tuple(covariates), progress=move, **options)


@dataclass(frozen=True)
class Fitting:
    """Which data are fitted, and how."""

    TIES: ClassVar[tuple[str, ...]] = ("refuse", "half", "drop")

    link: Annotated[
        str,
        typer.Option(help="logistic, probit or laplace.", metavar="NAME", rich_help_panel=FITTING),
    ] = "logistic"
    ties: Annotated[
        str,
        typer.Option(
            help="refuse them, count each as half a win for both, or drop them.",
            metavar="refuse|half|drop",
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
        from .._checks import check_between, check_count
        from ..links import by_name

        if self.ridge != math.inf:  # refused by the fit where it has no meaning
            check_between("--ridge", self.ridge, 0.0, 1e300, what="a finite number of at least 0")
        check_count("--max-steps", self.max_steps)
        return by_name(self.link)

    def choose(self, data: Data) -> Data:
        """Return the comparisons or rankings left by --drop and --component."""
        from ..data import Comparisons, strong_components

        if self.drop:
            data = data.drop(list(dict.fromkeys(self.drop)))
        if self.component is None:
            return data
        if isinstance(data, Comparisons):
            graph = data.without_ties() if self.ties == "drop" else data
        else:
            graph = data.adjacent()
        found = strong_components(graph)
        label = 0 if self.component == "largest" else int(found.labels[data.index(self.component)])
        return data.select(found.members(data.items)[label])


class Fitted(NamedTuple):
    """A fit, with what was read and what was left out."""

    fit: Any
    file: Path
    data: Comparisons | Rankings
    left_out: tuple[str, ...]

    @property
    def comparisons(self) -> Comparisons:
        """The data, where they are comparisons."""
        from ..data import Comparisons

        if not isinstance(self.data, Comparisons):
            raise TypeError(f"expected comparisons; got {type(self.data).__name__}")
        return self.data

    def to_dict(self) -> dict[str, Any]:
        """Return what was read, for JSON."""
        from ..data import Rankings

        content: dict[str, Any] = {"file": str(self.file), "items": self.data.num_items}
        if isinstance(self.data, Rankings):
            content["rankings"] = self.data.num_rankings
        else:
            content["comparisons"] = self.data.num_comparisons
            content["ties"] = self.data.num_ties
            content["pairs"] = len(self.data.pairs().item_a)
        return {**content, "raters": len(self.data.raters), "left_out": list(self.left_out)}

    def describe(self) -> str:
        """Return what was read, in a sentence."""
        text = f"{self.file.name}: {self._amounts()}."
        if self.left_out:
            names = ", ".join(map(repr, self.left_out[:5]))
            more = f" and {len(self.left_out) - 5} more" if len(self.left_out) > 5 else ""
            text += f" Left out: {names}{more}."
        return text

    def _amounts(self) -> str:
        """Return how many items and comparisons, or rankings, there are."""
        from ..data import Rankings
        from ..report.numbers import amount

        data = self.data
        if isinstance(data, Rankings):
            return repr(data).removeprefix("Rankings(").removesuffix(")")
        ties = f" ({amount(data.num_ties, 'tie')}{TIE_WORDS.get(self.fit.ties, '')})"
        count = amount(data.num_comparisons, "comparison") + (ties if data.num_ties else "")
        pairs = amount(len(data.pairs().item_a), "pair")
        raters = f" by {amount(len(data.raters), 'rater')}" if data.raters else ""
        return f"{amount(data.num_items, 'item')}, {count} in {pairs}{raters}"


Data = TypeVar("Data", "Comparisons", "Rankings")
TIE_WORDS = {"half": ", half a win for either side", "drop": ", left out"}


def fit_file(file: Path, reading: Reading, fitting: Fitting) -> Fitted:
    """Read a file and fit it, as the options say."""
    use_float64()
    from .._checks import check_option

    check_option("--ties", fitting.ties, fitting.TIES)
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

    A parameter called `given` gets the names of the options that stand on the command line.

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
        if "given" in hints:
            values["given"] = _on_the_line(values["given"])
        command(**values)

    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _members(groups[name])
        else:
            only = inspect.Parameter.KEYWORD_ONLY
            hint = typer.Context if name == "given" else hints[name]
            parameters.append(parameter.replace(annotation=hint, kind=only))
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {entry.name: entry.annotation for entry in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _on_the_line(context: Any) -> tuple[str, ...]:
    """Return the names of the options that were given, in the order of the command's own."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return tuple(name for name, source in sources.items() if source.name == "COMMANDLINE")


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
