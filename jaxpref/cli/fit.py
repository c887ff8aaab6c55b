"""``jaxpref fit``: a leaderboard from comparisons or rankings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from . import _terminal
from ._intervals import Board, make_board
from ._modelling import FullFitting, Modelling, RankingReading, Uncertainty
from ._options import FileArgument, Fitted, JsonOption, Reading, grouped, use_float64

if TYPE_CHECKING:
    from ..data import Comparisons
    from ..fit import FitResult, RankingFit


class Targets(NamedTuple):
    """The files to write."""

    out: Path | None
    save: Path | None
    plot: Path | None

    def check(self, each: bool) -> None:
        """Raise for a file that cannot be written, while nothing has been done yet."""
        from .._checks import InputError
        from ..report import check_target

        if self.out is not None:
            check_target("--out", self.out)
        if self.save is not None:
            if self.save.suffix not in ("", ".json"):
                raise InputError(
                    f"--save: expected a name without ending, or with .json; got {self.save.name!r}"
                )
            check_target("--save", self.save.with_suffix(".json"))
            if self.out is not None and self.out == self.save.with_suffix(".json"):
                raise InputError(f"--out, --save: expected two files; got {self.out} for both")
        if self.plot is not None:
            from ..report.figures import check_figure

            check_target("--plot", check_figure("--plot", self.plot))
            if each:
                raise InputError(
                    "--plot, --each-component: expected one of the two, for a figure shows one "
                    "leaderboard (--component ITEM); got both"
                )


@grouped
def fit(
    file: FileArgument,
    reading: Reading,
    ranked: RankingReading,
    fitting: FullFitting,
    modelling: Modelling,
    uncertainty: Uncertainty,
    top: Annotated[int, typer.Option(help="Items to list; 0 lists all.", min=0)] = 20,
    elo: Annotated[bool, typer.Option("--elo", help="Add a column on the Elo scale.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the result to this JSON file.", show_default=False)
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Save the fit for Python: PREFIX.json and PREFIX.npz.",
            metavar="PREFIX",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the leaderboard: .png, .pdf or .svg.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Rank items from comparisons or rankings, with intervals, and say whether it converged."""
    from .._checks import InputError

    targets = Targets(out, save, plot)
    targets.check(modelling.each_component)
    ranked.check(reading)
    modelling.check(fitting, ranked)
    uncertainty.check()
    if elo and fitting.link != "logistic":
        raise InputError(
            f"--elo: expected the logistic link, whose scale it is; got {fitting.link!r}"
        )
    use_float64()
    if ranked.rankings:
        fits = [fit_rankings_file(file, reading, ranked, fitting)]
    else:
        fits = fit_comparisons_file(file, reading, fitting, modelling)
    boards = [make_board(fitted.fit, fitted.data, uncertainty) for fitted in fits]
    content = _content(fits, boards, uncertainty, elo, modelling.each_component)
    written = _write(targets, fits, boards, uncertainty, content, elo)
    if json:
        _terminal.show_json(content)
        return
    for fitted, board in zip(fits, boards, strict=True):
        _print(fitted, board, uncertainty, top, elo)
    for path in written:
        _terminal.say(f"Written: {path}")


def fit_rankings_file(
    file: Path, reading: Reading, ranked: RankingReading, fitting: FullFitting
) -> Fitted:
    """Read a file of rankings and fit it, as the options say."""
    from ..fit import fit_rankings

    fitting.check()
    rankings = ranked.read(file, reading)
    chosen = fitting.choose(rankings)
    with _terminal.working(f"Fitting {chosen.num_items:,} items"):
        found = fit_rankings(
            chosen,
            ties=fitting.ties.replace("-", "_"),
            ridge=fitting.ridge,
            max_steps=fitting.max_steps,
        )
    return Fitted(found, file, chosen, _left_out(rankings.items, chosen.items))


def fit_comparisons_file(
    file: Path, reading: Reading, fitting: FullFitting, modelling: Modelling
) -> list[Fitted]:
    """Read a file of comparisons and fit it, or each of its components, as the options say."""
    from ..fit import fit_components, fit_pairwise

    link = fitting.check()
    ties = fitting.ties.replace("-", "_")
    comparisons = reading.read(file, modelling.covariates)
    if modelling.order_effect and (comparisons.item_a < comparisons.item_b).all():
        from .._checks import InputError

        raise InputError(
            "--order-effect: expected data that say who was shown first; a matrix of counts, or "
            "columns of winner and loser, do not"
        )
    chosen = fitting.choose(comparisons)
    names = tuple(chosen.covariates)
    options: dict[str, Any] = {
        "link": link,
        "ties": ties,
        "order_effect": modelling.order_effect,
        "comparison_covariates": names,
        "max_steps": fitting.max_steps,
    }
    with _terminal.working(f"Fitting {chosen.num_items:,} items"):
        if modelling.each_component:
            fits = fit_components(chosen, **options)
        else:
            per_item = _item_covariates(modelling, chosen)
            fits = [fit_pairwise(chosen, ridge=fitting.ridge, item_covariates=per_item, **options)]
    return [_fitted(file, comparisons, chosen, found) for found in fits]


def _fitted(file: Path, everything: Comparisons, chosen: Comparisons, found: FitResult) -> Fitted:
    data = chosen if found.items == chosen.items else chosen.select(found.items)
    return Fitted(found, file, data, _left_out(everything.items, found.items))


def _item_covariates(modelling: Modelling, chosen: Comparisons) -> dict[str, Any] | None:
    if modelling.items is None:
        return None
    from ..data.item_covariates import read_item_covariates

    columns = list(dict.fromkeys(modelling.item_covariate or ()))
    return read_item_covariates(modelling.items, columns, chosen.items)


def _left_out(items: tuple[str, ...], kept: tuple[str, ...]) -> tuple[str, ...]:
    known = set(kept)
    return tuple(name for name in items if name not in known)


def _content(
    fits: list[Fitted], boards: list[Board], uncertainty: Uncertainty, elo: bool, each: bool
) -> dict[str, Any]:
    """Return the result for JSON: one fit, or with `each` a list of them."""
    parts = []
    for fitted, board in zip(fits, boards, strict=True):
        content = fitted.fit.to_dict()
        content["intervals"] = board.to_dict(uncertainty)
        content["effects"] = [
            {"name": effect.name, "kind": effect.kind, **board.effects[effect.name]._asdict()}
            for effect in fitted.fit.effects
        ]
        content["leaderboard"] = [row.to_dict(show_elo=elo) for row in board.rows]
        parts.append({"data": fitted.to_dict(), "fit": content})
    return {"command": "fit", "fits": parts} if each else {"command": "fit", **parts[0]}


def _write(
    targets: Targets,
    fits: list[Fitted],
    boards: list[Board],
    uncertainty: Uncertainty,
    content: dict[str, Any],
    elo: bool,
) -> list[Path]:
    """Write what was asked for, and return the files."""
    from ..report import write_json

    written = []
    if targets.save is not None:
        base = targets.save.with_suffix("")
        for number, fitted in enumerate(fits, start=1):
            path = base if len(fits) == 1 else base.with_name(f"{base.name}-{number}")
            fitted.fit.save(path.with_name(f"{path.name}.json"))
            written += [path.with_name(f"{path.name}{ending}") for ending in (".json", ".npz")]
    if targets.plot is not None:
        from ..report.figures import save_figure
        from ..report.leaderboard_figure import leaderboard_figure

        figure = leaderboard_figure(
            boards[0].rows,
            title=f"Leaderboard of {fits[0].file.name}",
            unit=unit_of(fits[0].fit),
            level=uncertainty.level,
            how=boards[0].describe(uncertainty.level),
            show_elo=elo,
        )
        written.append(save_figure(figure, targets.plot))
    if targets.out is not None:
        written.append(write_json(targets.out, content))
    return written


def _print(fitted: Fitted, board: Board, uncertainty: Uncertainty, top: int, elo: bool) -> None:
    from ..report.leaderboard import effects_table, leaderboard

    level = uncertainty.level
    note = f"score in {unit_of(fitted.fit)}; intervals of score and rank {board.describe(level)}."
    _terminal.say(fitted.describe())
    _terminal.show(leaderboard(board.rows, top=top, show_elo=elo, level=level, note=note))
    beside = effects_table(fitted.fit, board.effects, level=level)
    if beside is not None:
        _terminal.show(beside)
    _terminal.say(describe_fit(fitted.fit))


def unit_of(fit: FitResult | RankingFit) -> str:
    """Return the unit of a fit's scores."""
    return "nats" if fit.link.name == "logistic" else f"{fit.link.name} units"


def describe_fit(fit: FitResult | RankingFit) -> str:
    """Return how a fit ended, in a sentence."""
    prior = f", ridge {fit.ridge:g}" if fit.ridge else ""
    return (
        f"{fit.status.capitalize()} after {fit.steps} Newton steps ({fit.link.name} link{prior}): "
        f"log-likelihood {fit.log_likelihood:,.3f}, largest gradient {fit.gradient_norm:.1e}. "
        "Scores sum to zero."
    )
