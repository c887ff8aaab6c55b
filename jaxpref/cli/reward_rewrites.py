"""``jaxpref rewards rewrite``: small rewrites of two responses that flip a preference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _terminal
from ._options import JsonOption, grouped
from ._runs import check_packages
from .reward_models import (
    ChatOption,
    DataOption,
    LengthOption,
    ModelOption,
    TokenOption,
    check_length,
)
from .rewards import checked_rule, rewards

if TYPE_CHECKING:
    from ..llm.rewrites import Flip, FlipSearch
    from ..report import Table
    from ..rewards import QuadrupleRule

SHOWN = 10


@rewards.command()
@grouped
def rewrite(
    model: ModelOption,
    data: DataOption,
    pairs: Annotated[int, typer.Option(help="Pairs to try, the first of the data.", min=1)] = 100,
    strong: Annotated[float, typer.Option(help="p_ik is at least this.")] = 0.99,
    near: Annotated[float, typer.Option(help="p_i'k is about this.")] = 0.98,
    tolerance: Annotated[float, typer.Option(help="And at most so far from it.")] = 0.005,
    weak: Annotated[float, typer.Option(help="p_kj is at most this.")] = 0.02,
    most_edits: Annotated[
        int, typer.Option(help="Words deleted or inserted in a response, at most.", min=1)
    ] = 12,
    insertions: Annotated[
        int, typer.Option(help="Insertions tried a round, besides every deletion.", min=0)
    ] = 32,
    max_length: LengthOption = None,
    as_chat: ChatOption = False,
    reward_token: TokenOption = None,
    dtype: Annotated[
        str, typer.Option(help="Type of the computation.", metavar="float32|bfloat16")
    ] = "float32",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write everything, texts included, as JSON.", show_default=False, metavar="FILE"
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Rewrite responses by a few words until a preference flips, as Table C3 does by hand.

    Of a pair with p_ik of 0.99 or more, words and sentences of y_i are deleted and words inserted
    until p_i'k is about 0.98, and of y_k until p_kj is at most 0.02; the model scores each. A flip
    that is not found may exist.
    """
    check_packages("rewards rewrite")
    from ..links import logistic
    from ..llm import load_tokenizer
    from ..llm.reward_models import load_reward_model
    from ..llm.reward_rows import read_candidates
    from ..llm.rewrites import find_flips
    from ..report import check_target, write_json

    rule = checked_rule(logistic, strong=strong, near=near, tolerance=tolerance, weak=weak)
    if out is not None:
        check_target("--out", out)
    with _terminal.working(f"Reading {data.name}"):
        candidates = [c for c in read_candidates(data) if len({t for _, t in c.texts}) > 1]
    with _terminal.working(f"Loading {model}"):
        loaded = load_reward_model(model, dtype=dtype, reward_token=reward_token)
    check_length(loaded, max_length)
    with _terminal.progress("Rewriting") as move:
        found = find_flips(
            loaded, load_tokenizer(model), candidates[:pairs], rule=rule, most_edits=most_edits,
            insertions=insertions, max_length=max_length, as_chat=as_chat, progress=move,
        )  # fmt: skip
    content = {
        "command": "rewards rewrite", "model": str(model), "data": str(data),
        "rule": rule._asdict(), **found._asdict(),
        "flips": [flip.to_dict(texts=True) for flip in found.flips],
    }  # fmt: skip
    if out is not None:
        write_json(out, content)
    if json:
        _terminal.show_json(content)
        return
    _terminal.say(_finding(found, rule))
    if found.flips:
        _terminal.show(_first(found.flips[0]), _every(found.flips))
    if out is not None:
        _terminal.say(f"Written: {out}")


def _finding(found: FlipSearch, rule: QuadrupleRule) -> str:
    from ..report.numbers import amount

    return (
        f"{amount(found.tried, 'pair')}: {found.strong:,} with p_ik >= {rule.strong:g}; of these "
        f"{found.near:,} with some y_i' within {rule.tolerance:g} of {rule.near:g}; of these "
        f"{amount(len(found.flips), 'flip')}: some y_j with p_kj <= {rule.weak:g} and "
        "p_i'j < 0.5 < p_ij."
    )


def _first(flip: Flip) -> Table:
    """Return the four responses of a flip."""
    from ..report import Column, Table

    rows = tuple(
        (name, " ".join(made.text.split()), f"{made.score:.3f}", str(made.edits))
        for name, made in (("i", flip.i), ("i'", flip.i_prime), ("k", flip.k), ("j", flip.j))
    )
    columns = (
        Column("y"), Column("response", fold=True), Column("score", "right"),
        Column("words changed", "right"),
    )  # fmt: skip
    return Table(f"The first: {flip.source}", columns, rows)


def _every(flips: tuple[Flip, ...]) -> Table:
    from ..report import Column, Table

    heads = ("p_ik", "p_i'k", "p_kj", "p_ij", "p_i'j", "words in i'", "in j")
    columns = (Column("pair", fold=True), *(Column(head, "right") for head in heads))

    def row(flip: Flip) -> tuple[Any, ...]:
        chances = (flip.p_ik, flip.p_i_prime_k, flip.p_kj, flip.p_ij, flip.p_i_prime_j)
        words = str(flip.i_prime.edits), str(flip.j.edits)
        return (flip.source.rpartition("/")[2], *(f"{p:.4f}" for p in chances), *words)

    note = "y_i beats y_j, y_i' loses to it. --json and --out have every flip and its texts."
    title = "As Table C3" if len(flips) <= SHOWN else f"As Table C3: the first {SHOWN}"
    return Table(title, columns, tuple(map(row, flips[:SHOWN])), note)
