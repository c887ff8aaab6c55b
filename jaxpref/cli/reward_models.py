"""``jaxpref rewards score`` and ``train``: reward models asked for scores, and made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _terminal
from ._options import JsonOption, grouped
from ._runs import (
    DATA,
    LOSS,
    OPTIMISER,
    Run,
    check_out,
    check_packages,
    checked,
    ends_of,
    ends_table,
    option,
    say_left_out,
    steps_of,
)
from .rewards import rewards

if TYPE_CHECKING:
    from ..llm.reward_models import RewardModel
    from ..llm.reward_rows import Candidates
    from ..llm.reward_training import RewardOptions, RewardTraining
    from ..llm.rows import EncodedRows, Tokens
    from ..rewards import Calibration

ModelOption = Annotated[
    Path,
    typer.Option(help="Folder of the model: config.json, weights, tokenizer.", metavar="DIR"),
]
DataOption = Annotated[
    Path,
    typer.Option(
        help="File or folder of JSONL or JSON (also .gz): prompt with chosen and rejected, with "
        "responses, or with one response a row; hh-rlhf's dialogues; LLMBar's rows.",
        metavar="PATH",
    ),
]
LengthOption = Annotated[
    int | None,
    typer.Option(
        help="Longest sequence in tokens; longer ones lose tokens from the left.",
        show_default="the model's context",
    ),
]
ChatOption = Annotated[
    bool,
    typer.Option(
        "--as-chat",
        help="Render text prompts with the tokenizer's chat template too, dialogues turn by turn; "
        "conversations always are.",
    ),
]
TokenOption = Annotated[
    int | None,
    typer.Option(
        help="Of a language model without a head for rewards: the token whose logit behind the "
        "conversation is the reward (0 for Llama-3.1-Nemotron-70B-Reward-HF).",
        show_default=False,
    ),
]


@rewards.command()
@grouped
def score(
    model: ModelOption,
    data: DataOption,
    out: Annotated[
        Path, typer.Option(help="Where the scores go, as JSON lines.", metavar="FILE")
    ] = Path("scores.jsonl"),
    dtype: Annotated[
        str, typer.Option(help="Type of the computation.", metavar="float32|bfloat16")
    ] = "float32",
    max_length: LengthOption = None,
    as_chat: ChatOption = False,
    reward_token: TokenOption = None,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a batch, padding included.")] = 4096,
    json: JsonOption = False,
) -> None:
    """Score responses with a reward model, for `rewards dominance` and `rewards quadruples`.

    Each score is kept as it comes: a run that was stopped goes on where it was, and sequences that
    stand in --out already are not computed again.
    """
    check_packages("rewards score")
    from ..llm.reward_models import load_reward_model
    from ..llm.reward_rows import read_candidates
    from ..llm.reward_scoring import ScoreStore, known_scores, score_records, write_scores
    from ..report.files import check_target

    check_target("--out", out)
    known = known_scores(out)
    with _terminal.working(f"Reading {data.name}"):
        candidates = read_candidates(data)
    with _terminal.working(f"Loading {model}"):
        found = load_reward_model(model, dtype=dtype, reward_token=reward_token)
    records, truncated = _encode(found, model, candidates, max_length, as_chat)
    store = ScoreStore(out.with_name(f".{out.name}.scored"), known)
    with _terminal.progress("Scoring") as move:
        result = score_records(
            found, records, store=store, batch_tokens=batch_tokens, progress=move
        )
    paired = write_scores(out, candidates, result)
    store.finish()
    summary = {
        "records": len(candidates),
        "responses": sum(map(len, result.scores)),
        "form": "pairs" if paired else "responses",
        "computed": result.computed,
        "reused": result.reused,
        "truncated": truncated,
        "notes": list(_notes(out, candidates)),
    }
    if json:
        _terminal.show_json({"command": "rewards score", "out": out, **summary})
        return
    _say_scored(summary, out)


def _encode(
    model: RewardModel,
    folder: Path,
    candidates: list[Candidates],
    max_length: int | None,
    as_chat: bool,
) -> tuple[list[Tokens], int]:
    """Return the records as tokens, and how many were cut."""
    from ..llm.reward_rows import encode_candidates
    from ..llm.tokenizers import load_tokenizer

    context = check_length(model, max_length)
    with _terminal.working("Tokenising"):
        encoded = encode_candidates(
            candidates,
            load_tokenizer(folder),
            max_length=context if max_length is None else max_length,
            config=model.config,
            as_chat=as_chat,
        )
    return encoded.records, encoded.truncated


def check_length(model: RewardModel, max_length: int | None) -> int:
    """Return the model's context, or raise for a length beyond it."""
    from .._checks import InputError

    context = model.config.max_position_embeddings
    if max_length is not None and max_length > context:
        raise InputError(
            f"--max-length: expected at most the model's context, {context}; got {max_length}"
        )
    return context


def _notes(out: Path, candidates: list[Candidates]) -> tuple[str, ...]:
    """Return what the user should know of the scores."""
    from .._checks import DataError
    from ..rewards import read_scores

    notes: tuple[str, ...] = ()
    twice = [c.source for c in candidates if len({text for _, text in c.texts}) < len(c.texts)]
    if twice:
        what = "record holds" if len(twice) == 1 else "records hold"
        notes = (f"{len(twice):,} {what} equal responses, the first at {twice[0]}.",)
    try:
        found = read_scores(out, lone="drop").notes
        return (*notes, *(note.replace("Left out:", "For --drop-lone:") for note in found))
    except DataError as error:  # one response each, or one twice: scored, but nothing to compare
        return (*notes, f"Not yet fit for `rewards dominance`: {error}.")


def _say_scored(summary: dict[str, Any], out: Path) -> None:
    from ..report.numbers import amount

    text = (
        f"{amount(summary['records'], 'record')}, {amount(summary['responses'], 'response')}: "
        f"{summary['computed']:,} sequences computed, {summary['reused']:,} known already."
    )
    if summary["truncated"]:
        text += f" Cut from the left: {amount(summary['truncated'], 'record')}."
    _terminal.say(text)
    for note in summary["notes"]:
        _terminal.say(note)
    _terminal.say(f"Written: {out}")


# Training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """What is trained, named as in :class:`jaxpref.llm.reward_training.RewardOptions`."""

    loss: Annotated[
        str, option(LOSS, "Of pairs, or of rankings.", metavar="bradley_terry|plackett_luce")
    ] = "bradley_terry"
    temperature: Annotated[
        float, option(LOSS, "While training, scores count for 1/T of their size.", metavar="T")
    ] = 1.0
    label_smoothing: Annotated[float, option(LOSS, "Share of labels taken to be flipped.")] = 0.0
    margin_cap: Annotated[
        float | None,
        option(LOSS, "Margin beyond which a pair gains nothing, in nats.", show_default=False),
    ] = None
    learning_rate: Annotated[
        float, option(OPTIMISER, "Peak of the learning rate; small models want 1e-3.")
    ] = 1e-5
    seed: Annotated[int, option(OPTIMISER, "Of the order of the data, and of the split.")] = 0


@rewards.command()
@grouped
def train(
    model: ModelOption,
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for what comes of it.", metavar="DIR")],
    training: Training,
    run: Run,
    held_out: Annotated[
        float, option(DATA, "Share of the records kept from training and scored.")
    ] = 0.1,
    max_length: LengthOption = None,
    as_chat: ChatOption = False,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints.", show_default="the end")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train a reward model on preferences, from a language model or another reward model.

    Leaves in --out: model (a sequence classifier that transformers loads), metrics.jsonl,
    checkpoints. A run that was stopped goes on with --resume.
    """
    options = _options(training, run)
    from .._checks import check_between
    from ..llm.reward_models import save_reward_model, starting_model
    from ..llm.reward_rows import read_candidates
    from ..llm.reward_training import check_trainable, pack_records, train_reward_model
    from ..report.files import check_folder

    check_between("--held-out", held_out, 0.0, 0.9, what="a share of at most 0.9")
    check_out(out, resume)
    with _terminal.working(f"Loading {model}"):
        candidates = read_candidates(data)
        start = starting_model(model)
    records, truncated = _encode(start, model, candidates, max_length, as_chat)
    kept, apart = _split(len(records), held_out, options.seed)
    encoded = pack_records([records[at] for at in kept])
    steps_of(encoded.rows, options.train_options())
    check_trainable(start, encoded.completions, options)
    check_folder("--out", out)
    (out / "metrics.jsonl").touch()  # from here on there is a run to go on with
    with _terminal.progress("Training") as move:
        result = train_reward_model(
            start,
            encoded.rows,
            completions=encoded.completions,
            options=options,
            out=out,
            save_every=save_every,
            resume=resume,
            progress=move,
        )
    save_reward_model(result.model, out / "model", tokenizer_from=model, overwrite=resume)
    found = _calibration(result.model, [records[at] for at in apart])
    summary = _summarise(result, encoded, truncated, found)
    if json:
        _terminal.show_json({"command": "rewards train", "out": out, **summary})
        return
    _say_trained(summary, out)


def _options(training: Training, run: Run) -> RewardOptions:
    """Return the options, checked, messages naming the flag."""
    check_packages("rewards train")
    from ..llm.reward_training import RewardOptions

    return checked(RewardOptions, training, run)


def _split(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return which records are trained on, and which are kept apart."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(count)
    apart = round(share * count)
    return sorted(order[apart:].tolist()), sorted(order[:apart].tolist())


def _calibration(model: RewardModel, records: list[Tokens]) -> Calibration | None:
    """Return accuracy and calibration of the best response against the last."""
    from ..llm.reward_scoring import score_records
    from ..rewards import Scores, reward_calibration

    if not records:
        return None
    scores = score_records(model, records).scores
    return reward_calibration(
        Scores.from_pairs([own[0] for own in scores], [own[-1] for own in scores])
    )


NAMES = {
    "loss": "loss (nats)",
    "reward_margin": "margin (nats)",
    "accuracy": "accuracy",
    "grad_norm": "gradient norm",
}


def _summarise(
    result: RewardTraining, encoded: EncodedRows, truncated: int, found: Calibration | None
) -> dict[str, Any]:
    return {
        "steps": result.steps,
        "rows": len(encoded.kept),
        "left_out": encoded.refusals(),
        "truncated": truncated,
        "tokens": result.tokens,
        "seconds": result.seconds,
        **ends_of(result.metrics, NAMES),
        "held_out": None if found is None else found.to_dict(),
    }


def _say_trained(summary: dict[str, Any], out: Path) -> None:
    from ..report.numbers import amount

    text = f"Trained on {amount(summary['rows'], 'record')}." + say_left_out(summary)
    if summary["truncated"]:
        text += f" Cut from the left: {amount(summary['truncated'], 'record')}."
    _terminal.say(text)
    _terminal.show(ends_table(summary, NAMES))
    found = summary["held_out"]
    if found is not None:
        _terminal.say(
            f"Held out: the chosen scores higher in {found['accuracy']:.1%} of "
            f"{amount(found['pairs'], 'pair')} (standard error {found['accuracy_error']:.1%}); "
            f"log-loss {found['log_loss']:.4f}, where no preference has 0.6931; calibration error "
            f"{found['calibration_error']:.3f}, best slope {found['slope']:.2f}."
        )
    _terminal.say(f"Written: {out / 'model'}, {out / 'metrics.jsonl'}.")
