"""Tables: what is in them, apart from how they are shown (terminal or Markdown)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..audit import AuditReport, AuditRow
from . import numbers
from .one_vote import OneVote

if TYPE_CHECKING:
    from rich.table import Table as RichTable

ELO_PER_NAT = 400 / math.log(10)
ELO_MEAN = 1500.0


class Column(NamedTuple):
    """A column: its header, and which side its cells lean to; `fold` lets long names wrap."""

    header: str
    justify: Literal["left", "right"] = "left"
    fold: bool = False


class Table(NamedTuple):
    """A table of text, with a title above and a note below."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def to_markdown(self) -> str:
        r"""Return the table as Markdown; characters with a meaning there are escaped.

        >>> columns = (Column("item"), Column("wins", "right"))
        >>> print(Table("", columns, (("a|b", "3"),)).to_markdown())
        | item | wins |
        |:--|--:|
        | a\|b | 3 |
        """
        sides = {"left": ":--", "right": "--:"}
        lines = [
            _markdown_row(column.header for column in self.columns),
            "|" + "|".join(sides[column.justify] for column in self.columns) + "|",
            *(_markdown_row(row) for row in self.rows),
        ]
        title = [f"### {escape_markdown(self.title)}", ""] if self.title else []
        note = ["", escape_markdown(self.note)] if self.note else []
        return "\n".join([*title, *lines, *note])

    def to_rich(self) -> RichTable:
        """Return the cells for a terminal, without title and note; markup is not read."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        for column in self.columns:
            table.add_column(
                Text(column.header),
                justify=column.justify,
                overflow="fold",
                no_wrap=not column.fold,
            )
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table


def escape_markdown(text: str) -> str:
    r"""Return text with the characters that Markdown or HTML would read escaped.

    >>> print(escape_markdown("[bold]*<b>_x_"))
    \[bold\]\*&lt;b>\_x\_
    """
    for mark in "\\`*_[]|#":
        text = text.replace(mark, "\\" + mark)
    return text.replace("<", "&lt;").replace("\n", " ")


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"


# Fits ---------------------------------------------------------------------------------------


def elo(score: float) -> float:
    """Return a score in nats on the Elo scale, 400/ln 10 points a nat around a mean of 1500.

    >>> round(elo(0.0)), round(elo(1.0))
    (1500, 1674)
    """
    return ELO_MEAN + ELO_PER_NAT * score


# Audits -------------------------------------------------------------------------------------


def fragile_predictions(report: AuditReport, votes: Sequence[OneVote] = ()) -> Table:
    """Return the most sensitive unseen predictions, each with the observed pair behind it.

    With `votes`, one for each row of the report, also what the prediction becomes when one vote
    turns.
    """
    columns = [
        Column("prediction", fold=True),
        Column("chance", "right"),
        Column("sensitivity", "right"),
        Column("rests on", fold=True),
        Column("wins", "right"),
    ]
    note = (
        "sensitivity: points the prediction moves when the observed share beside it moves one "
        "point, while that is small."
    )
    if votes:
        columns.append(Column("1 vote turned", "right"))
        note += (
            " 1 vote turned: the prediction, fitted again, after one vote there went from the "
            "side with more to the other."
        )
        if any(math.isnan(vote.after) for vote in votes):
            note += " no fit: an item would then only win, or only lose."
    after = [(_after(vote),) for vote in votes] or [()] * len(report.top)
    rows = tuple(
        (*_fragile_cells(row), *extra) for row, extra in zip(report.top, after, strict=True)
    )
    return Table("Most fragile predictions", tuple(columns), rows, note)


def _after(vote: OneVote) -> str:
    return "no fit" if math.isnan(vote.after) else numbers.percent(vote.after)


def _fragile_cells(row: AuditRow) -> tuple[str, ...]:
    edge = row.edge
    return (
        f"{row.item_a} over {row.item_b}",
        numbers.percent(row.probability),
        numbers.significant(row.sensitivity),
        f"{edge.item_a} over {edge.item_b}",
        f"{numbers.amount(wins_of(row))} of {numbers.amount(edge.comparisons)}",
    )


def wins_of(row: AuditRow) -> float:
    """Return how many comparisons the first item of the row's observed pair won."""
    wins = row.edge.win_fraction * row.edge.comparisons
    return round(2 * wins) / 2 if abs(2 * wins - round(2 * wins)) < 1e-6 else wins


def triple_view(report: AuditReport) -> Table:
    """Return the paper's view of the same predictions: through an item compared with both."""
    columns = (
        Column("i over j", fold=True),
        Column("through k", fold=True),
        Column("p_ik", "right"),
        Column("p_kj", "right"),
        Column("to p_ik", "right"),
        Column("to p_kj", "right"),
        Column("M", "right"),
    )
    rows = tuple(cells for row in report.top if (cells := _triple_cells(row)) is not None)
    missing = len(report.top) - len(rows)
    note = (
        "to p_ik, to p_kj: how many times as fast p_ij moves. M: the largest threshold whose "
        "M-sensitive region holds the point."
    )
    if missing:
        note += f" {numbers.amount(missing, 'prediction')} above: no item was compared with both."
    return Table(
        "The same through one item compared with both (Lemma 1, Eq. 4)", columns, rows, note
    )


def _triple_cells(row: AuditRow) -> tuple[str, ...] | None:
    triple = row.triple
    if triple is None:
        return None
    return (
        f"{row.item_a} over {row.item_b}",
        triple.item_k,
        numbers.percent(triple.probability_ik),
        numbers.percent(triple.probability_kj),
        numbers.significant(math.exp(min(triple.log_sensitivity_ik, 700.0))),
        numbers.significant(math.exp(min(triple.log_sensitivity_kj, 700.0))),
        "-" if triple.region is None else f"{triple.region:g}",
    )


def triple_counts(report: AuditReport) -> Table:
    """Return how many triples of the data lie in each M-sensitive region."""
    columns = (Column("M", "right"), Column("triples inside", "right"), Column("share", "right"))
    total = report.triples.total
    pairs = zip(report.triples.thresholds, report.triples.inside, strict=True)
    rows = tuple((f"{m:g}", f"{n:,}", numbers.percent(n / total)) for m, n in pairs if total)
    title = f"M-sensitive regions: of {numbers.amount(total, 'triple')} with an unseen pair"
    return Table(title, columns, rows)
