"""Leaderboards: scores and ranks with their intervals, and the coefficients beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..fit import FitResult, Interval, RankingFit
from . import numbers
from .tables import Column, Table, elo

TIE_WORDS = {
    "davidson": "Davidson: log nu; a tie of two equals is nu times as likely as either's win",
    "rao_kupper": "Rao-Kupper: log theta; a margin within it tends to be a tie",
    "davidson_luce": "Davidson-Luce: log delta; relative to one item as strong standing first",
}


class Standing(NamedTuple):
    """One line of a leaderboard: the score and the rank, each with an interval.

    `quasi_error` is the quasi-standard error, None where none was asked for.
    """

    rank: int
    item: str
    score: float
    standard_error: float
    low: float
    high: float
    rank_low: int
    rank_high: int
    quasi_error: float | None
    wins: float
    comparisons: float

    def to_dict(self, *, show_elo: bool = False) -> dict[str, Any]:
        """Return the line for JSON."""
        content = self._asdict()
        if self.quasi_error is None:
            del content["quasi_error"]
        if show_elo:
            content["elo"] = elo(self.score)
        return content


def standings(
    fit: FitResult | RankingFit,
    scores: Mapping[str, Interval],
    ranks: Mapping[str, Interval],
    quasi_errors: Mapping[str, float] | None = None,
) -> list[Standing]:
    """Return the leaderboard of a fit, best first.

    Parameters
    ----------
    fit : FitResult or RankingFit
        The fit.
    scores, ranks : mapping of str to Interval
        Of every item.
    quasi_errors : mapping of str to float, optional
        Quasi-standard errors.

    >>> from jaxpref.data import Comparisons
    >>> from jaxpref.fit import fit_pairwise, score_intervals
    >>> fit = fit_pairwise(Comparisons.from_counts([[0, 3], [1, 0]], items=("a", "b")))
    >>> sure = {name: Interval(k, k, k, 0.0) for k, name in enumerate("ab", start=1)}
    >>> [(row.item, row.rank_high) for row in standings(fit, score_intervals(fit), sure)]
    [('a', 1), ('b', 2)]
    """
    found = []
    for row in fit.to_rows():
        score, rank = scores[row.item], ranks[row.item]
        found.append(
            Standing(
                row.rank,
                row.item,
                row.score,
                score.standard_error,
                score.low,
                score.high,
                int(rank.low),
                int(rank.high),
                None if quasi_errors is None else quasi_errors[row.item],
                row.wins,
                row.comparisons,
            )
        )
    return found


def leaderboard(
    rows: Sequence[Standing],
    *,
    top: int = 0,
    show_elo: bool = False,
    level: float = 0.95,
    title: str = "",
    note: str = "",
) -> Table:
    """Return the leaderboard as a table; the first `top` rows, all for 0."""
    shown = rows[:top] if top else rows
    quasi = any(row.quasi_error is not None for row in rows)
    columns = [Column("rank", "right"), Column("item", fold=True), Column("score", "right")]
    columns += [Column("s.e.", "right"), Column(f"{_percent(level)} interval", "right")]
    columns += [Column("ranks", "right")]
    columns += [Column("q.s.e.", "right")] if quasi else []
    columns += [Column("Elo", "right")] if show_elo else []
    counts = not (quasi and show_elo)  # a window of 80 characters has no room for all
    columns += [Column("wins", "right"), Column("of", "right")] if counts else []
    cells = tuple(_cells(row, show_elo, counts) for row in shown)
    hidden = len(rows) - len(shown)
    more = f"and {hidden:,} more; --top 0 shows all. " if hidden else ""
    return Table(title, tuple(columns), cells, more + note)


def _percent(level: float) -> str:
    return f"{100 * level:.6g}%"


def _cells(row: Standing, show_elo: bool, counts: bool) -> tuple[str, ...]:
    ranks = (
        str(row.rank_low) if row.rank_low == row.rank_high else f"{row.rank_low}-{row.rank_high}"
    )
    quasi = () if row.quasi_error is None else (f"{row.quasi_error:.3f}",)
    return (
        str(row.rank),
        row.item,
        f"{row.score:+.3f}",
        f"{row.standard_error:.3f}",
        f"{row.low:+.3f} {row.high:+.3f}",
        ranks,
        *quasi,
        *((f"{elo(row.score):.0f}",) if show_elo else ()),
        *((numbers.amount(row.wins), numbers.amount(row.comparisons)) if counts else ()),
    )


def effects_table(
    fit: FitResult | RankingFit, intervals: Mapping[str, Interval], *, level: float = 0.95
) -> Table | None:
    """Return the coefficients beside the scores as a table, None where there are none."""
    if not intervals:
        return None
    columns = (Column("effect", fold=True), Column("estimate", "right"), Column("s.e.", "right"),
               Column(f"{_percent(level)} interval", "right"))  # fmt: skip
    rows = tuple(
        (name, f"{at:+.3f}", f"{error:.3f}", f"{low:+.3f} {high:+.3f}")
        for name, (at, low, high, error) in intervals.items()
    )
    said = []
    kinds = {effect.kind for effect in fit.effects}
    if "order" in kinds:
        said.append("order: added to the margin of the item named first.")
    if "comparison_covariate" in kinds:
        said.append("Covariates: added to that margin, per unit.")
    if "item_covariate" in kinds:
        said.append("Item covariates: added to an item's score, per unit.")
    if "tie" in kinds:
        said.append(f"tie: {TIE_WORDS[fit.ties]}.")
    return Table("Beside the scores", columns, rows, " ".join(said))
