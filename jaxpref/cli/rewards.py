"""``jaxpref rewards``: how dominant a reward model's scores are, and which quadruples flip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _terminal
from ._options import READING, JsonOption, LinkOption, grouped, use_float64
from ._runs import as_flag

if TYPE_CHECKING:
    from ..links import Link
    from ..report import Table
    from ..rewards import Quadruple, QuadrupleRule, Quadruples, RewardDominance, Scores

rewards = typer.Typer(
    help="Scores of reward models: Tables C2 and C3 of the paper for a file of scores.",
    no_args_is_help=True,
)

ScoresArgument = Annotated[
    Path,
    typer.Argument(
        help="Scores as CSV, TSV, JSONL (each also .gz) or Parquet: a row for each response "
        "(prompt, response, score), or for each pair (chosen_score, rejected_score).",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        help="Write JSON and Markdown: a folder, or a name ending in .json or .md.",
        show_default=False,
    ),
]


def _reading(help: str, metavar: str = "COLUMN") -> Any:
    return typer.Option(help=help, rich_help_panel=READING, show_default=False, metavar=metavar)


@dataclass(frozen=True)
class ScoreReading:
    """How the file is read; what is left out is recognised by name."""

    prompt: Annotated[
        list[str] | None,
        _reading("Column that tells prompts apart; repeatable, where it takes several."),
    ] = None
    response: Annotated[str | None, _reading("Column of the response's name.")] = None
    score: Annotated[str | None, _reading("Column of its score.")] = None
    chosen_score: Annotated[str | None, _reading("Column of the chosen response's score.")] = None
    rejected_score: Annotated[str | None, _reading("Column of the rejected one's.")] = None
    where: Annotated[
        list[str] | None,
        _reading("Only rows whose column says so. Repeatable.", "COLUMN=VALUE"),
    ] = None
    drop_lone: Annotated[
        bool,
        typer.Option(
            "--drop-lone",
            help="Leave out prompts with one response.",
            rich_help_panel=READING,
            show_default=False,
        ),
    ] = False
    format: Annotated[
        str | None, _reading("csv, tsv, jsonl or parquet, if the name does not say.", "NAME")
    ] = None

    def read(self, file: Path) -> Scores:
        """Return the scores in a file."""
        from ..rewards import read_scores

        where = dict(_condition(text) for text in self.where or ())
        with _terminal.working(f"Reading {file.name}"):
            return read_scores(
                file,
                prompt=self.prompt,
                response=self.response,
                score=self.score,
                chosen_score=self.chosen_score,
                rejected_score=self.rejected_score,
                where=where,
                lone="drop" if self.drop_lone else "refuse",
                format=self.format,
            )


def _condition(text: str) -> tuple[str, str]:
    from .._checks import InputError

    column, equals, value = text.partition("=")
    if not equals or not column:
        raise InputError(f"--where: expected COLUMN=VALUE; got {text!r}")
    return column, value


@rewards.command()
@grouped
def dominance(
    file: ScoresArgument,
    reading: ScoreReading,
    link: LinkOption = "logistic",
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            help="M of a region to count triples in. Repeatable. 1.01, 2, 3, 5, 10 if left out.",
            show_default=False,
            metavar="M",
        ),
    ] = None,
    most_first: Annotated[
        int,
        typer.Option(help="Prompts with more responses are sampled to count triples.", min=2),
    ] = 2000,
    seed: Annotated[int, typer.Option(help="Of that sample.", min=0)] = 0,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Print Table C2 of the scores: how many preferences are strong, beside the paper's models."""
    use_float64()
    from ..links import by_name
    from ..rewards import reward_dominance
    from ..rewards.triples import THRESHOLDS

    chosen, targets = by_name(link), _targets(out, "dominance")
    scores = reading.read(file)
    with _terminal.working("Counting"):
        found = reward_dominance(
            scores, link=chosen, thresholds=threshold or THRESHOLDS,
            most_first=most_first, seed=seed,
        )  # fmt: skip
    content = {"command": "rewards dominance", "file": str(file), "scores": scores.to_dict()}
    content["dominance"] = found.to_dict()
    tables = (_bin_table(found), _triple_table(found))
    _end(file, scores, found.sentence, content, tables, targets, json)


@rewards.command()
@grouped
def quadruples(
    file: ScoresArgument,
    reading: ScoreReading,
    link: LinkOption = "logistic",
    strong: Annotated[float, typer.Option(help="p_ik is at least this.")] = 0.99,
    near: Annotated[float, typer.Option(help="p_i'k is about this.")] = 0.98,
    tolerance: Annotated[float, typer.Option(help="And at most so far from it.")] = 0.005,
    weak: Annotated[float, typer.Option(help="p_kj is at most this.")] = 0.02,
    rank: Annotated[
        str,
        typer.Option(
            help="List the most sensitive first, or those with i and i' closest in score.",
            metavar="sensitivity|closeness",
        ),
    ] = "sensitivity",
    top: Annotated[int, typer.Option(help="Quadruples to list.", min=0)] = 10,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Count the fragile quadruples of Table C3: i and i' beat k alike, but only i beats j."""
    use_float64()
    from ..links import by_name
    from ..rewards import fragile_quadruples

    chosen, targets = by_name(link), _targets(out, "quadruples")
    rule = checked_rule(chosen, strong=strong, near=near, tolerance=tolerance, weak=weak)
    scores = reading.read(file)
    with _terminal.working("Searching"):
        found = fragile_quadruples(scores, link=chosen, rule=rule, top=top, rank=rank)
    content = {"command": "rewards quadruples", "file": str(file), "scores": scores.to_dict()}
    content["quadruples"] = found.to_dict()
    tables = (_first_table(found.top[0]), _top_table(found)) if found.top else ()
    _end(file, scores, _finding(found), content, tables, targets, json)


# Printing -----------------------------------------------------------------------------------


def _targets(out: Path | None, name: str) -> tuple[Path, Path] | None:
    """Return the JSON and the Markdown file to write, or raise while nothing is done yet."""
    from ..report import check_folder, check_target

    if out is None:
        return None
    named = out.suffix.lower() in (".json", ".md") and not out.is_dir()
    stem = out if named else check_folder("--out", out) / f"{name}.json"
    return (
        check_target("--out", stem.with_suffix(".json")),
        check_target("--out", stem.with_suffix(".md")),
    )


def _end(
    file: Path,
    scores: Scores,
    sentence: str,
    content: dict[str, Any],
    tables: tuple[Table, ...],
    targets: tuple[Path, Path] | None,
    json: bool,
) -> None:
    """Write the files and print the finding."""
    lines = [f"{file.name}: {_amounts(scores)}.", *scores.notes, sentence]
    if targets is not None:
        from ..report import write_json, write_text
        from ..report.tables import escape_markdown

        write_json(targets[0], content)
        prose = [escape_markdown(line) for line in lines]
        text = "\n\n".join([*prose, *(table.to_markdown() for table in tables)])
        write_text(targets[1], text + "\n")
    if json:
        _terminal.show_json(content)
        return
    for line in lines:
        _terminal.say(line)
    _terminal.show(*tables)
    if targets is not None:
        _terminal.say(f"Written: {targets[0]}, {targets[1]}")


def _amounts(scores: Scores) -> str:
    from ..report.numbers import amount

    if scores.paired:
        return f"{amount(scores.num_prompts, 'pair')} of chosen and rejected"
    return (
        f"{amount(scores.num_prompts, 'prompt')}, {amount(scores.num_entries, 'response')}, "
        f"{amount(scores.num_pairs, 'pair')}"
    )


def _bin_table(found: RewardDominance) -> Table:
    from ..report import Column, Table
    from ..report.numbers import amount
    from ..rewards import PUBLISHED

    heads = ("pairs", "share", "normal", "Nemotron-70B", "DeBERTa-v3")
    columns = (Column("p"), *(Column(head, "right") for head in heads))
    totals = [sum(column) for column in PUBLISHED.values()]
    rows = tuple(
        (
            row.label,
            amount(row.pairs),
            f"{row.share:.2%}",
            f"{row.fitted:.2%}",
            *(
                f"{column[n] / total:.2%}"
                for column, total in zip(PUBLISHED.values(), totals, strict=True)
            ),
        )
        for n, row in enumerate(found.bins)
    )
    counted = (
        "p(chosen over rejected)."
        if found.directed
        else "Each pair counts half from either side; the paper's columns are p(chosen over "
        "rejected)."
    )
    note = (
        f"{counted} Normal: what normal scores of variance {found.variance:.3g} would give. The "
        "last two: the paper's reward models on 8,552 pairs of hh-rlhf, as printed."
    )
    return Table("Table C2: preferences by strength", columns, rows, note)


def _triple_table(found: RewardDominance) -> Table:
    from ..report import Column, Table
    from ..report.numbers import amount

    shares = found.triples
    if not shares.total:
        note = "No prompt has three responses, so there are no triples."
        return Table("Triples in M-sensitive regions", (Column("M", "right"),), (), note)
    columns = (Column("M", "right"), Column("triples", "right"), Column("share", "right"))
    sampled = shares.method == "sampled"
    columns += (Column("error", "right"),) if sampled else ()
    rows = tuple(
        (
            f"{level:g}",
            amount(round(count)),
            f"{count / shares.total:.3%}",
            *((f"{error / shares.total:.3%}",) if sampled else ()),
        )
        for level, count, error in zip(shares.thresholds, shares.inside, shares.errors, strict=True)
    )
    how = "estimated from a sample, with its standard error" if sampled else "counted exactly"
    note = (
        f"Of {shares.total:,} ordered triples (i, k, j) of a prompt, those in which p_ij moves "
        f"more than M times as fast as p_ik; {how}."
    )
    return Table("Triples in M-sensitive regions", columns, rows, note)


def _finding(found: Quadruples) -> str:
    rule = found.rule
    text = (
        f"{found.total:,} fragile quadruples in {found.prompts_with:,} of {found.prompts:,} "
        f"prompts: p_ik >= {rule.strong:g}, p_i'k within {rule.tolerance:g} of {rule.near:g}, "
        f"p_kj <= {rule.weak:g}, and p_i'j < 0.5 < p_ij."
    )
    return text if found.total else f"No fragile quadruple: {text}"


def _first_table(row: Quadruple) -> Table:
    from ..report import Column, Table
    from ..report.numbers import probability

    names = {
        "i": row.response_i, "i'": row.response_i_prime, "k": row.response_k, "j": row.response_j,
    }  # fmt: skip
    chances = (
        ("i", "k", row.p_ik),
        ("i'", "k", row.p_i_prime_k),
        ("k", "j", row.p_kj),
        ("i", "j", row.p_ij),
        ("i'", "j", row.p_i_prime_j),
    )
    columns = (
        Column("preference"),
        Column("first", fold=True),
        Column("second", fold=True),
        Column("p", "right"),
    )
    rows = tuple(
        (f"{a} over {b}", _short(names[a]), _short(names[b]), probability(p)) for a, b, p in chances
    )
    note = (
        f"p_ij and p_i'j are {row.amplification:.3g} times further apart than p_ik and p_i'k; "
        f"i and i' are {row.gap:.3g} nats apart."
    )
    return Table(f"The first, as in Table C3: prompt {_short(row.prompt)}", columns, rows, note)


def _top_table(found: Quadruples) -> Table:
    import math

    from ..report import Column, Table
    from ..report.numbers import significant

    heads = ("p_ik", "p_i'k", "p_kj", "p_ij", "p_i'j", "dp_ij/dp_ik", "gap")
    columns = (Column("prompt"), *(Column(head, "right") for head in heads))
    rows = tuple(
        (
            _short(row.prompt, 24),
            *(f"{p:.4f}" for p in (row.p_ik, row.p_i_prime_k, row.p_kj, row.p_ij, row.p_i_prime_j)),
            significant(math.exp(min(row.log_sensitivity, 700))),
            significant(row.gap),
        )
        for row in found.top
    )
    order = "most sensitive" if found.rank == "sensitivity" else "closest i and i'"
    note = "gap: the scores of i and i' apart, in nats. --json has every name."
    return Table(f"The {order} first", columns, rows, note)


def _short(text: str, most: int = 48) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."


def checked_rule(link: Link, **numbers: float) -> QuadrupleRule:
    """Return the rule of a quadruple, or raise for one that nothing can meet, naming the flag."""
    from .._checks import InputError
    from ..rewards.quadruples import QuadrupleRule, rule_bounds

    rule = QuadrupleRule(**numbers)
    try:
        rule_bounds(link, rule)
    except InputError as error:
        raise InputError(as_flag(str(error), numbers)) from None
    return rule
