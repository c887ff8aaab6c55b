"""Which column of a table says what, and which winner labels mean what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxpref._checks import InputError, closest_names

PAIRS = (
    ("item_a", "item_b"),
    ("model_a", "model_b"),
    ("left", "right"),
    ("home_team", "away_team"),
    ("team1", "team2"),
)
SCORES = (("score_a", "score_b"), ("home_score", "away_score"), ("score1", "score2"))
WINNER, LOSER = "winner", "loser"
WEIGHT = ("weight",)
RATERS = ("rater", "worker")
TIES: tuple[str, ...] = ("tie", "draw", "tie (bothbad)", "both_bad")
# Labels that name a side whatever the columns are called.
SIDES = (("a", "b"), ("item_a", "item_b"), ("model_a", "model_b"), ("left", "right"))

HELP = (
    "name them with item_a=, item_b= and winner= (or score_a= and score_b=); "
    "on the command line --item-a, --item-b, --winner, --score-a, --score-b"
)


@dataclass(frozen=True)
class ColumnOptions:
    """What the caller said about the columns and labels of a table; None where nothing."""

    item_a: str | None = None
    item_b: str | None = None
    winner: str | None = None
    score_a: str | None = None
    score_b: str | None = None
    weight: Any = None
    rater: Any = None
    labels_a: Any = None
    labels_b: Any = None
    labels_tie: Any = None
    covariates: Any = ()

    def name_columns(self) -> bool:
        """Whether any column is named, so that the table cannot be a counts matrix."""
        named = (self.item_a, self.item_b, self.winner, self.score_a, self.score_b)
        return any(named) or bool(self.weight) or bool(self.rater) or bool(self.covariates)


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they say, and the labels of the winner column."""

    item_a: str
    item_b: str
    winner: str | None
    score_a: str | None
    score_b: str | None
    weight: str | None
    rater: str | None
    labels: dict[str, int]
    accept_names: bool
    covariates: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def ordered(self) -> bool:
        """Whether the table tells who was shown first: not where the winner always stands first."""
        return self.winner not in (self.item_a, self.item_b)

    def needed(self) -> list[str]:
        """Return each column that is read, once."""
        roles = (
            self.item_a,
            self.item_b,
            self.winner,
            self.score_a,
            self.score_b,
            self.weight,
            self.rater,
            *(name for names in self.covariates.values() for name in names),
        )
        return list(dict.fromkeys(name for name in roles if name is not None))


def resolve_columns(present: Sequence[str], options: ColumnOptions, source: str) -> Columns:
    """Decide which column says what, from the caller's options first, then by name.

    Raises
    ------
    InputError
        If a named column does not exist, or the names fit no layout or several.
    """
    table = _Table(tuple(present), source)
    item_a, item_b, from_outcome = _items(table, options)
    winner, score_a, score_b = _outcome(table, options, from_outcome)
    labels, accept_names = _labels(table, options, item_a, item_b, winner)
    return Columns(
        item_a,
        item_b,
        winner,
        score_a,
        score_b,
        _extra(table, "weight", options.weight, WEIGHT),
        _extra(table, "rater", options.rater, RATERS),
        labels,
        accept_names,
        _covariates(table, options.covariates),
    )


@dataclass(frozen=True)
class _Table:
    """The column names of a table, found by exact name or else by name in any case."""

    present: tuple[str, ...]
    source: str

    def find(self, wanted: str) -> str | None:
        if wanted in self.present:
            return wanted
        alike = [name for name in self.present if name.strip().lower() == wanted.lower()]
        return alike[0] if len(alike) == 1 else None

    def find_pair(self, names: tuple[str, str]) -> tuple[str, str] | None:
        first, second = self.find(names[0]), self.find(names[1])
        return None if first is None or second is None else (first, second)

    def named(self, option: str, name: object) -> str:
        """Return the column that an option names, or raise with the closest ones."""
        if isinstance(name, str):
            found = self.find(name)
            if found is not None:
                return found
            hint = closest_names(name, self.present)
            raise InputError(
                f"{self.source}: no column {name!r} for {option}={hint}; {self.list()}"
            )
        raise InputError(f"{option}: expected the name of a column; got {name!r}")

    def list(self) -> str:
        shown = ", ".join(repr(name) for name in self.present[:30])
        more = f" and {len(self.present) - 30} more" if len(self.present) > 30 else ""
        return f"its columns are {shown or 'none'}{more}"

    def fail(self, problem: str) -> InputError:
        lone = self.present[0] if len(self.present) == 1 else ""
        hint = next((mark for mark in (";", "\t", "|", ",") if mark in lone), None)
        split = f"; it looks separated by {hint!r}, not by the separator expected" if hint else ""
        return InputError(f"{self.source}: {problem}: {self.list()}{split}; {HELP}")


def _items(table: _Table, options: ColumnOptions) -> tuple[str, str, bool]:
    """Return the columns of the two items, and whether they are the winner and the loser."""
    if (options.item_a is None) != (options.item_b is None):
        raise InputError("item_a and item_b: expected both columns to be named, or neither")
    if options.item_a is not None:
        first, second = table.named("item_a", options.item_a), table.named("item_b", options.item_b)
        if first == second:
            raise InputError(f"item_a and item_b: expected two columns; got {first!r} for both")
        return first, second, False
    found = [pair for names in PAIRS if (pair := table.find_pair(names))]
    outcome = None if options.winner or options.score_a else table.find_pair((WINNER, LOSER))
    if outcome:
        found.append(outcome)
    if len(found) > 1:
        shown = " or ".join(f"({a!r}, {b!r})" for a, b in found)
        raise table.fail(f"the two items could be {shown}")
    if not found:
        raise table.fail("cannot tell which columns hold the two items")
    return *found[0], outcome is not None


def _outcome(
    table: _Table, options: ColumnOptions, from_outcome: bool
) -> tuple[str | None, str | None, str | None]:
    """Return the winner column, or the two score columns."""
    if (options.score_a is None) != (options.score_b is None):
        raise InputError("score_a and score_b: expected both columns to be named, or neither")
    if options.winner is not None and options.score_a is not None:
        raise InputError("winner and score_a: expected one way to tell the winner; got both")
    if options.winner is not None:
        return table.named("winner", options.winner), None, None
    if options.score_a is not None:
        first = table.named("score_a", options.score_a)
        return None, first, table.named("score_b", options.score_b)
    winner = table.find(WINNER)
    if from_outcome:
        return winner, None, None
    scores = [pair for names in SCORES if (pair := table.find_pair(names))]
    if winner is not None and scores:
        raise table.fail(f"the outcome could be {winner!r} or {scores[0]}")
    if len(scores) > 1:
        raise table.fail(f"the outcome could be {scores[0]} or {scores[1]}")
    if winner is None and not scores:
        raise table.fail("cannot tell which column says who won")
    return (winner, None, None) if winner is not None else (None, *scores[0])


def _extra(table: _Table, option: str, given: Any, known: tuple[str, ...]) -> str | None:
    """Return an optional column: as named, none for False, else the first known one present."""
    if given is False:
        return None
    if given is not None:
        return table.named(option, given)
    return next((found for name in known if (found := table.find(name))), None)


def _covariates(table: _Table, given: Any) -> dict[str, tuple[str, ...]]:
    """Return the columns of each covariate: one, or two whose difference it is."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise InputError(f"covariates: expected a list of columns; got {given!r}")
    found: dict[str, tuple[str, ...]] = {}
    for entry in given:
        pair = isinstance(entry, tuple) and len(entry) == 2
        names = tuple(table.named("covariates", name) for name in (entry if pair else (entry,)))
        found[" - ".join(names)] = names
    return found


def _labels(
    table: _Table, options: ColumnOptions, item_a: str, item_b: str, winner: str | None
) -> tuple[dict[str, int], bool]:
    """Return what each winner label means (1 first, -1 second, 0 tie), lower case.

    Also returns whether the two items' own names are labels too.
    """
    given = (options.labels_a, options.labels_b, options.labels_tie)
    if winner is None:
        if any(labels is not None for labels in given):
            raise InputError("labels_a, labels_b, labels_tie: expected only with a winner column")
        return {}, False
    by_name_only = winner in (item_a, item_b) and not any(g is not None for g in given)
    if by_name_only:
        return {}, True
    names = ("labels_a", "labels_b", "labels_tie")
    defaults = (*_sides(table, item_a, item_b), list(TIES))
    chosen: list[list[str]] = [
        default if labels is None else _texts(name, labels)
        for name, labels, default in zip(names, given, defaults, strict=True)
    ]
    return _merge(chosen, given), options.labels_a is None or options.labels_b is None


def _sides(table: _Table, item_a: str, item_b: str) -> tuple[list[str], list[str]]:
    """Return the default labels of the two sides.

    A pair of side names such as left and right is left out where those are columns of the table
    that hold something else, or the same two columns the other way round.
    """
    side_a, side_b = [item_a.strip().lower()], [item_b.strip().lower()]
    for first, second in SIDES:
        taken = [table.find(name) for name in (first, second)]
        if taken in ([None, None], [item_a, item_b]):
            side_a.append(first)
            side_b.append(second)
    return list(dict.fromkeys(side_a)), list(dict.fromkeys(side_b))


def _texts(option: str, labels: Any) -> list[str]:
    """Return one label or several as lower-case text: 1 and 1.0 are both ``"1"``."""
    several = labels if isinstance(labels, (list, tuple, set, frozenset)) else [labels]
    texts = []
    for label in several:
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        text = str(label).strip().lower()
        if not text or text == "nan":
            raise InputError(f"{option}: expected labels that are not blank; got {label!r}")
        texts.append(text)
    return texts


def _merge(chosen: list[list[str]], given: tuple[Any, ...]) -> dict[str, int]:
    """Join the labels of the three outcomes; one the caller named wins over a default."""
    meaning: dict[str, int] = {}
    ranked = sorted(zip((1, -1, 0), chosen, given, strict=True), key=lambda row: row[2] is None)
    for outcome, labels, named in ranked:
        for label in labels:
            if named is not None and meaning.get(label, outcome) != outcome:
                raise InputError(f"labels: {label!r} is given for two outcomes")
            meaning.setdefault(label, outcome)
    return meaning


def describe_labels(columns: Columns) -> str:
    """List the winner labels that are accepted, for a message."""
    parts = []
    for outcome, meaning in ((1, "the first item"), (-1, "the second"), (0, "a tie")):
        labels = [repr(label) for label, means in columns.labels.items() if means == outcome]
        if labels:
            parts.append(f"{', '.join(labels)} for {meaning}")
    if columns.accept_names:
        parts.append("the name of either item")
    return "; ".join(parts)
