"""``jaxpref fit``: a leaderboard from comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _terminal
from ._options import FileArgument, Fitted, Fitting, JsonOption, Reading, fit_file, grouped

if TYPE_CHECKING:
    from ..fit import FitResult


@grouped
def fit(
    file: FileArgument,
    reading: Reading,
    fitting: Fitting,
    top: Annotated[int, typer.Option(help="Items to list; 0 lists all.", min=0)] = 20,
    elo: Annotated[bool, typer.Option("--elo", help="Add a column on the Elo scale.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the fit to this JSON file.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Rank items from pairwise comparisons, with standard errors, and say whether it converged."""
    from .._checks import InputError
    from ..report import check_target, write_json

    if out is not None:
        check_target("--out", out)
    if elo and fitting.link != "logistic":
        raise InputError(
            f"--elo: expected the logistic link, whose scale it is; got {fitting.link!r}"
        )
    fitted = fit_file(file, reading, fitting)
    content = {"command": "fit", "data": fitted.to_dict(), "fit": _content(fitted.fit, elo)}
    if out is not None:
        write_json(out, content)
    if json:
        _terminal.show_json(content)
        return
    _print(fitted, top, elo)
    if out is not None:
        _terminal.say(f"Written: {out}")


def _content(fit: FitResult, show_elo: bool) -> dict[str, Any]:
    """Return the fit for JSON, with ratings if they are asked for."""
    from ..report.tables import elo

    content = fit.to_dict()
    if show_elo:
        for row in content["leaderboard"]:
            row["elo"] = elo(row["score"])
    return content


def _print(fitted: Fitted, top: int, elo: bool) -> None:
    from ..report import tables

    fit = fitted.fit
    unit = "nats" if fit.link.name == "logistic" else fit.link.name
    _terminal.say(fitted.describe())
    _terminal.show(tables.leaderboard(fit.to_rows(), top=top, show_elo=elo, unit=unit))
    _terminal.say(describe_fit(fit))


def describe_fit(fit: FitResult) -> str:
    """Return how a fit ended, in a sentence."""
    prior = f", ridge {fit.ridge:g}" if fit.ridge else ""
    return (
        f"{fit.status.capitalize()} after {fit.steps} Newton steps ({fit.link.name} link{prior}): "
        f"log-likelihood {fit.log_likelihood:,.3f}, largest gradient {fit.gradient_norm:.1e} "
        "comparisons. Scores sum to zero."
    )
