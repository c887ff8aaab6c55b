"""The options of ``jaxpref fit`` beyond those it shares, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_type_hints

import typer

from . import _terminal
from ._options import FITTING, READING, Fitting, Reading

if TYPE_CHECKING:
    from ..data import Rankings

UNCERTAINTY = "Uncertainty"
RANKING_TIES = ("refuse", "davidson-luce")
RESAMPLES = 200


def _option(help: str, panel: str, metavar: str | None = None, *names: str) -> Any:
    return typer.Option(
        *names, help=help, rich_help_panel=panel, show_default=False, metavar=metavar
    )


@dataclass(frozen=True)
class RankingReading:
    """How a file of rankings is read."""

    rankings: Annotated[
        bool,
        _option("The file holds rankings: JSON lists best first, or a row for each item of each.",
                READING, None, "--rankings"),
    ] = False  # fmt: skip
    ranking: Annotated[str | None, _option("Column that tells rankings apart.", READING,
                                           "NAME")] = None  # fmt: skip
    rank: Annotated[str | None, _option("Column of ranks, 1 the best.", READING, "NAME")] = None
    score: Annotated[str | None, _option("Column of scores instead: the highest is best.", READING,
                                         "NAME")] = None  # fmt: skip
    item: Annotated[str | None, _option("Column of items.", READING, "NAME")] = None
    unlisted: Annotated[
        str | None,
        _option("What rankings say of items they do not list: nothing (ignored, the default), or "
                "that they come last.", READING, "ignored|last"),
    ] = None  # fmt: skip

    def check(self, reading: Reading) -> None:
        """Raise for options that go with the other kind of file."""
        from .._checks import InputError

        if not self.rankings:
            given = _given(self)
            if given:
                raise InputError(
                    f"{given[0]}: expected together with --rankings; got no --rankings"
                )
            return
        alien = [name for name in _given(reading) if name not in
                 ("--weight", "--no-weight", "--rater", "--format")]  # fmt: skip
        if alien:
            raise InputError(f"{alien[0]}: expected for comparisons; got it with --rankings")

    def read(self, file: Path, reading: Reading) -> Rankings:
        """Return the rankings in a file."""
        from ..data import read_rankings

        with _terminal.working(f"Reading {file.name}"):
            return read_rankings(
                file,
                ranking=self.ranking,
                rank=self.rank,
                score=self.score,
                item=self.item,
                weight=False if reading.no_weight else reading.weight,
                rater=reading.rater,
                unlisted=self.unlisted or "ignored",  # type: ignore[arg-type]
                format=reading.format,
            )


@dataclass(frozen=True)
class FullFitting(Fitting):
    """Which data are fitted, and how, with every model of ties."""

    TIES: ClassVar[tuple[str, ...]] = ("refuse", "half", "drop", "davidson", "rao-kupper")

    ties: Annotated[
        str,
        typer.Option(
            help="refuse them; count each as half a win for both; drop them; or model them, by "
            "Davidson or by Rao and Kupper (davidson-luce for rankings).",
            metavar="refuse|half|drop|davidson|rao-kupper|davidson-luce",
            rich_help_panel=FITTING,
        ),
    ] = "refuse"


@dataclass(frozen=True)
class Modelling:
    """What the model has besides scores."""

    order_effect: Annotated[
        bool,
        _option("Estimate the advantage of the item named first (home, left).", FITTING, None,
                "--order-effect"),
    ] = False  # fmt: skip
    covariate: Annotated[
        list[str] | None,
        _option("Column of numbers that adds to the margin of the first item, or two columns "
                "FIRST:SECOND of which the difference does. Repeatable.", FITTING, "COLUMN"),
    ] = None  # fmt: skip
    items: Annotated[
        Path | None,
        _option("Table with a row for each item, for --item-covariate.", FITTING, "FILE"),
    ] = None
    item_covariate: Annotated[
        list[str] | None,
        _option("Column of that table that explains scores; needs --ridge. Repeatable.", FITTING,
                "COLUMN"),
    ] = None  # fmt: skip
    each_component: Annotated[
        bool,
        _option("Fit every group of items tied together by wins in both directions on its own.",
                FITTING, None, "--each-component"),
    ] = False  # fmt: skip

    @property
    def covariates(self) -> list[str | tuple[str, str]]:
        """The columns of comparison covariates, as the reader takes them."""
        found: list[str | tuple[str, str]] = []
        for given in dict.fromkeys(self.covariate or ()):
            first, mark, second = given.partition(":")
            found.append((first, second) if mark else given)
        return found

    def check(self, fitting: Fitting, ranked: RankingReading) -> None:
        """Raise for options that do not go together."""
        from .._checks import InputError, check_option

        if ranked.rankings:
            self._check_rankings(fitting)
        elif fitting.ties.replace("_", "-") == "davidson-luce":
            raise InputError("--ties: expected --rankings with davidson-luce; got comparisons")
        else:
            check_option("--ties", fitting.ties.replace("_", "-"), fitting.TIES)
        if (self.items is None) != (not self.item_covariate):
            given, missing = ("--items", "--item-covariate") if self.items else (
                "--item-covariate", "--items")  # fmt: skip
            raise InputError(f"{given}: expected together with {missing}; got no {missing}")
        if self.item_covariate and fitting.ridge == 0:
            raise InputError(
                "--item-covariate: expected --ridge above 0 (inf: no deviations from the "
                "covariates); got 0, with which scores and covariates explain the same"
            )
        if self.each_component and (fitting.ridge > 0 or fitting.component is not None):
            other = "--ridge" if fitting.ridge > 0 else "--component"
            raise InputError(f"--each-component, {other}: expected one of the two; got both")

    def _check_rankings(self, fitting: Fitting) -> None:
        from .._checks import InputError, check_option

        check_option("--ties", fitting.ties.replace("_", "-"), RANKING_TIES)
        given = _given(self)
        if given:
            raise InputError(f"{given[0]}: expected for comparisons; got it with --rankings")
        if fitting.link != "logistic":
            raise InputError(
                "--link: expected logistic with --rankings (Plackett-Luce has no other); got "
                f"{fitting.link!r}"
            )


@dataclass(frozen=True)
class Uncertainty:
    """How intervals are made."""

    intervals: Annotated[
        str,
        typer.Option(
            help="From the information, from the sandwich (clustered by rater where raters are "
            "known), or from the bootstrap (of raters, likewise): draws of what there is, or of "
            "weights for all of it, under which sparse data keep their fit.",
            metavar="wald|sandwich|bootstrap|weights",
            rich_help_panel=UNCERTAINTY,
        ),
    ] = "wald"
    level: Annotated[
        float, typer.Option(help="Level of the intervals.", rich_help_panel=UNCERTAINTY)
    ] = 0.95
    cluster: Annotated[
        str | None,
        _option("What belongs together in sandwich and bootstrap: all that a rater said, or "
                "nothing.", UNCERTAINTY, "rater|none"),
    ] = None  # fmt: skip
    resamples: Annotated[
        int | None, _option("Resamples of the bootstrap; 200 if left out.", UNCERTAINTY, "N")
    ] = None
    seed: Annotated[
        int, typer.Option(help="Of resamples, and of draws for ranks.", min=0,
                          rich_help_panel=UNCERTAINTY)
    ] = 0  # fmt: skip
    quasi: Annotated[
        bool,
        _option("Add quasi-standard errors: of a margin, the root of the sum of two squares.",
                UNCERTAINTY, None, "--quasi"),
    ] = False  # fmt: skip

    def check(self) -> None:
        """Raise for options that no file could make right."""
        from .._checks import InputError, check_between, check_count, check_option

        check_option("--intervals", self.intervals, ("wald", "sandwich", "bootstrap", "weights"))
        what = "a level above 0 and below 1"
        check_between("--level", self.level, 0.0, 1 - 1e-9, what=what, open_low=True)
        if self.cluster is not None:
            check_option("--cluster", self.cluster, ("rater", "none"))
        if self.cluster is not None and self.intervals == "wald":
            raise InputError("--cluster: expected --intervals sandwich or bootstrap; got wald")
        if self.resamples is not None:
            check_count("--resamples", self.resamples, at_least=2)
            if self.intervals not in ("bootstrap", "weights"):
                raise InputError(
                    f"--resamples: expected --intervals bootstrap or weights; got {self.intervals}"
                )


def _given(group: Any) -> list[str]:
    """Return the options of a group that are not as they are when left out."""
    hints = get_type_hints(type(group), include_extras=True)
    changed = [entry.name for entry in fields(group) if getattr(group, entry.name) != entry.default]
    return [f"--{name.replace('_', '-')}" for name in changed if name in hints]
