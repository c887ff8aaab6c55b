"""The further tables of ``jaxpref audit``: flips, groups, what to compare next, other models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..audit.wording import nats
from ..report.numbers import amount, percent, significant
from ..report.tables import Column, Table

if TYPE_CHECKING:
    from ..audit import AuditReport, RankingAudit
    from ..audit.records import Collecting, Flip, Groups, Links, Move, Multiplicity, RankingMove

_MOVES_SHOWN, _BUDGETS = 3, ("drop", "add", "change")


def finding_tables(report: AuditReport, top: int) -> list[Table]:
    """Return the tables of an audit that have rows, at most `top` rows each."""
    found = [
        _flips(report.flips),
        *(_collecting(each, top) for each in report.collect if each.objective == "flip"),
        *(_groups(each, top) for each in report.groups if each.kind != "edge"),
    ]
    if report.multiplicity is not None:
        found.append(_ranges(report.multiplicity))
    if report.links is not None:
        found.append(_links(report.links))
    return [table for table in found if table.rows]


def ranking_tables(report: RankingAudit, top: int) -> list[Table]:
    """Return the tables of an audit of rankings that have rows, at most `top` rows each."""
    columns = (
        Column("ranking", fold=True),
        Column("moves most", fold=True),
        Column("chance", "right"),
        Column("without it", "right"),
    )
    rows = tuple(
        (
            row.text,
            f"{row.item_a} over {row.item_b}",
            percent(row.probability),
            "no fit left" if row.after is None else percent(row.after),
        )
        for row in report.influences[:top]
    )
    found = [
        _flips(report.flips, "rankings to drop"),
        Table("The rankings that move most", columns, rows),
    ]
    found += [_groups(each, top) for each in report.groups]
    if report.multiplicity is not None:
        found.append(_ranges(report.multiplicity))
    return [table for table in found if table.rows]


def _flips(flips: tuple[Flip, ...], said: str = "comparisons to drop, add or change") -> Table:
    """Return one row for each conclusion, with its budgets side by side."""
    grouped: dict[tuple[str, str], dict[str, Flip]] = {}
    for flip in flips:
        name = {"winner": "best item", "top_k": f"top {flip.k}"}.get(
            flip.question, f"{flip.ahead} over {flip.behind}"
        )
        grouped.setdefault((flip.question, name), {})[flip.budget] = flip
    asked = [budget for budget in _BUDGETS if any(flip.budget == budget for flip in flips)]
    rows = []
    for (_, name), budgets in grouped.items():
        cells = [_amount(budgets.get(budget)) for budget in asked]
        done = [flip for flip in budgets.values() if flip.comparisons is not None]
        cheapest = min(done, key=lambda flip: flip.comparisons or 0.0, default=None)
        rows.append((name, *cells, _certificate(cheapest)))
    return Table(
        "How little would flip it",
        (
            Column("conclusion", fold=True),
            *(Column(budget, "right") for budget in asked),
            Column("the cheapest way", fold=True),
        ),
        tuple(rows),
        f"{said} until a refit says otherwise, each confirmed by one.",
    )


def _amount(flip: Flip | None) -> str:
    if flip is None:
        return ""
    if flip.comparisons is None:
        return "no fit left" if flip.status == "no_fit" else "none found"
    return amount(flip.comparisons)


def _certificate(flip: Flip | None) -> str:
    if flip is None:
        return ""
    shown = "; ".join(_move(move) for move in flip.moves[:_MOVES_SHOWN])
    more = len(flip.moves) - _MOVES_SHOWN
    return f"{shown}; {more} more" if more > 0 else shown


def _move(move: Move | RankingMove) -> str:
    if not hasattr(move, "outcome"):
        return f"{move.action} {amount(move.count)} of {move.text}"  # type: ignore[union-attr]
    winner, loser = move.item_a, move.item_b  # type: ignore[union-attr]
    if move.outcome == "b" or (move.outcome == "tie" and move.new_outcome == "b"):  # type: ignore[union-attr]
        winner, loser = loser, winner
    if move.action == "change" and move.outcome != "tie":  # type: ignore[union-attr]
        return f"turn {amount(move.count)} of {winner} over {loser}"
    if move.outcome == "tie":  # type: ignore[union-attr]
        what = "turn into wins" if move.action == "change" else "drop"
        return f"{what} {amount(move.count)} of the ties of {winner} with {loser}"
    return f"{move.action} {amount(move.count)} of {winner} over {loser}"


def _collecting(found: Collecting, top: int) -> Table:
    return Table(
        "What to compare next",
        (
            Column("pair", fold=True),
            Column("compared", "right"),
            Column("chance", "right"),
            Column("worth", "right"),
        ),
        tuple(
            (
                f"{row.item_a} with {row.item_b}",
                amount(row.comparisons),
                percent(row.probability),
                f"{max(row.gain, 0.0) / found.uniform_gain:.1f}x"
                if found.uniform_gain > 0
                else "-",
            )
            for row in found.rows[:top]
        ),
        "worth: how many times as much as a comparison of a random pair it is expected to lower "
        "the number of neighbours in the wrong order.",
    )


def _times(gain: float, uniform: float) -> str:
    return f"{max(gain, 0.0) / uniform:.1f}x" if uniform > 0 else "-"


def _groups(groups: Groups, top: int) -> Table:
    rows = []
    for row in groups.rows[:top]:
        if row.before is None or row.after is None:
            rows.append((row.name[0], amount(row.comparisons), "no finite fit is left", "", ""))
            continue
        if row.before == row.after:
            rows.append((row.name[0], amount(row.comparisons), "nothing moves", "", "same"))
            continue
        change = ", ".join(f"-{name}" for name in row.top_k_left)
        rows.append(
            (
                row.name[0],
                amount(row.comparisons),
                f"{row.item_a} over {row.item_b}",
                f"{percent(row.before)} to {percent(row.after)}",
                change or "same",
            )
        )
    return Table(
        f"Without one {groups.kind}",
        (
            Column(groups.kind, fold=True),
            Column("comparisons", "right"),
            Column("moves most", fold=True),
            Column("chance", "right"),
            Column(f"top {groups.k}", fold=True),
        ),
        tuple(rows),
        f"{groups.num} left out one at a time, each confirmed by a refit: the best item changes "
        f"{groups.changing_winner} times, the top {groups.k} {groups.changing_top_k} times.",
    )


def _ranges(found: Multiplicity) -> Table:
    return Table(
        f"What models within {nats(found.loss)} of the best predict",
        (
            Column("prediction", fold=True),
            Column("chance", "right"),
            Column("from", "right"),
            Column("to", "right"),
            Column("order", "left"),
        ),
        tuple(
            (
                f"{row.item_a} over {row.item_b}",
                percent(row.probability),
                percent(row.low),
                percent(row.high),
                "either" if row.reversible else "certain",
            )
            for row in found.rows
        ),
    )


def _links(found: Links) -> Table:
    rows = []
    for row in found.rows:
        if row.kendall_tau is None or row.log_likelihood is None:
            rows.append((row.link, row.status, "", "", "", ""))
            continue
        rows.append(
            (
                row.link,
                f"{row.log_likelihood:,.1f}",
                "same" if row.same_winner else str(row.winner),
                "same" if row.same_top_k else "other",
                amount(row.num_reversed or 0),
                significant(row.kendall_tau),
            )
        )
    return Table(
        f"Other links than {found.base}",
        (
            Column("link"),
            Column("log-likelihood", "right"),
            Column("best item", fold=True),
            Column(f"top {found.k}"),
            Column("orders reversed", "right"),
            Column("Kendall tau", "right"),
        ),
        tuple(rows),
    )
