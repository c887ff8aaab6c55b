"""``jaxpref dpo``: a language model trained on preferences."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _terminal
from ._adapters import Adapters
from ._devices import Devices, plan
from ._options import JsonOption, grouped
from ._preferences import PreferenceFiles, ReadPreferences, encode, read_files
from ._runs import (
    DATA,
    LOSS,
    OPTIMISER,
    Passes,
    PolicyLoss,
    Run,
    as_flag,
    check_out,
    check_packages,
    checked,
    ends_of,
    ends_table,
    option,
    say_left_out,
    steps_of,
)

if TYPE_CHECKING:
    from ..llm.decoder import LanguageModel
    from ..llm.lora import LoraOptions
    from ..llm.plan import Workload
    from ..llm.rows import EncodedRows
    from ..llm.trainer import TrainOptions, TrainResult


@dataclass(frozen=True)
class PreferenceData(PreferenceFiles):
    """Where the preferences come from: files, or the paper's animals."""

    animals: Annotated[
        str | None,
        option(
            DATA,
            "The paper's synthetic data instead: the animals in order, as dog,cat,bird.",
            show_default=False,
            metavar="A,B,C",
        ),
    ] = None
    p12: Annotated[
        float | None,
        option(DATA, "Probability that the first beats the second.", show_default="0.99"),
    ] = None
    p23: Annotated[
        float | None,
        option(DATA, "Probability that the second beats the third.", show_default="0.5"),
    ] = None
    pairs: Annotated[
        int | None, option(DATA, "Pairs of animals to sample.", show_default="1024")
    ] = None
    rejected_template: Annotated[
        str | None,
        option(
            DATA,
            "Whether the rejected answer has the chosen one's template, or one of its own.",
            metavar="same|random",
            show_default="same",
        ),
    ] = None
    slots: Annotated[
        str | None,
        option(
            DATA,
            "Whether a question names its two animals in random order, or in that of --animals.",
            metavar="random|fixed",
            show_default="random",
        ),
    ] = None
    data_seed: Annotated[
        int | None, option(DATA, "Seed of the sampled pairs.", show_default="0")
    ] = None
    nouns: Annotated[
        str | None,
        option(
            DATA,
            "How the animals are written: a dog, dog, dogs.",
            metavar="article|bare|plural",
            show_default="article",
        ),
    ] = None

    def check(self, *, needed: bool = True) -> None:
        """Raise for options of one kind of data given with the other, or with neither."""
        from .._checks import InputError

        both = self.data is not None and self.animals is not None
        if both or (needed and self.data is None and self.animals is None):
            given = "both" if both else "neither"
            raise InputError(f"--data, --animals: expected one of the two; got {given}")
        for other, names in (("animals", SAMPLING), ("data", ("unusable",))):
            alien = next((name for name in names if getattr(self, name) is not None), None)
            if alien is not None and getattr(self, other) is None:
                flag = as_flag(f"{alien}: expected together with", names)
                raise InputError(f"{flag} --{other}; got no --{other}")


SAMPLING = {
    "p12": 0.99,
    "p23": 0.5,
    "pairs": 1024,
    "rejected_template": "same",
    "slots": "random",
    "data_seed": 0,
    "nouns": "article",
}
"""Options of the sampled animals, and what they are when left out."""


@dataclass(frozen=True)
class Training:
    """What is trained, named as in :class:`jaxpref.llm.trainer.TrainOptions`."""

    loss: PolicyLoss = "dpo"
    beta: Annotated[float, option(LOSS, "Strength of the pull towards the reference.")] = 0.1
    label_smoothing: Annotated[
        float, option(LOSS, "Share of labels taken to be flipped (dpo, robust_dpo).")
    ] = 0.0
    target_margin: Annotated[float, option(LOSS, "Margin aimed at (simpo), in nats.")] = 1.0
    sft_weight: Annotated[float, option(LOSS, "Weight of the likelihood (rpo).")] = 1.0
    learning_rate: Annotated[
        float, option(OPTIMISER, "Peak of the learning rate; small models want 1e-4.")
    ] = 5e-6
    seed: Annotated[int, option(OPTIMISER, "Of the order of the data.")] = 0


@grouped
def dpo(
    model: Annotated[
        Path,
        typer.Option(help="Folder of the model: config.json, weights, tokenizer.", metavar="DIR"),
    ],
    data: PreferenceData,
    training: Training,
    run: Run,
    passes: Passes,
    adapters: Adapters,
    devices: Devices,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for what comes of it.", metavar="DIR", show_default="needed but for --plan"
        ),
    ] = None,
    save_every: Annotated[
        int | None,
        typer.Option(help="Steps between checkpoints.", show_default="a tenth of the run"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train a language model on preferences (DPO and its kin), with itself as the reference.

    Leaves in --out: model (what transformers loads), metrics.jsonl (a line a step), checkpoints;
    with --lora also adapter (what PEFT loads), and model is the one with it merged.
    A run that was stopped goes on with --resume, and ends in the same bits on a CPU.
    """
    devices.join()
    options = _options(training, run, passes)
    from .._checks import InputError, check_count
    from ..llm._folders import is_folder
    from ..llm.checkpoints import load_model, save_model
    from ..llm.config import decoder_config
    from ..llm.distributed import is_first, wait
    from ..llm.tokenizers import load_tokenizer
    from ..llm.trainer import train_preferences
    from ..report.files import check_folder

    if not is_folder(model):
        raise InputError(f"--model: expected a folder with a model; there is no {model}")
    shape = decoder_config(model)  # before the data are read, and its weights after
    options = replace(options, lora=adapters.options(model))
    if devices.plan:
        plan(model, options, _workload(data, model, shape), devices, json=json)
        return
    if out is None:
        raise InputError("--out: expected a folder for what comes of it, or --plan")
    if save_every is not None:
        check_count("--save-every", save_every)
    if is_first():
        check_out(out, resume)
    mesh = devices.build()
    read = _read(data)
    with _terminal.working(f"Loading {model}"):
        start = load_model(model, dtype=_kept_in(options), mesh=mesh)
        tokenizer = load_tokenizer(model, config=start.config)
        encoded = encode(read, data, tokenizer, start.config.max_position_embeddings)
    _check_run(start, encoded, options, {**vars(training), **vars(passes)}, mesh)
    steps = steps_of(encoded.rows, options)
    if is_first():
        check_folder("--out", out)
        _begin(out / "metrics.jsonl")
    wait("folder made")
    with _terminal.progress("Training") as move:
        result = train_preferences(
            start,
            encoded.rows,
            completions=encoded.completions,
            options=options,
            out=out,
            save_every=save_every or max(1, steps // 10),
            resume=resume,
            mesh=mesh,
            progress=move,
        )
    save_model(result.model, out / "model", tokenizer_from=model, overwrite=resume)
    if not is_first():
        return
    if options.lora is not None:
        _save_adapters(result, options.lora, out / "adapter", model, overwrite=resume)
    summary = summarise(result, encoded, read.left_out(encoded))
    if json:
        _terminal.show_json({"command": "dpo", "out": out, **summary})
    else:
        _print(summary, read.name, out)


def _kept_in(options: TrainOptions) -> str:
    """Return the type that the weights are loaded in: that in which they stay."""
    stays = options.precision == "bfloat16-stochastic"
    return "bfloat16" if stays or (options.lora and options.precision != "float32") else "float32"


def _save_adapters(
    result: TrainResult, lora: LoraOptions, folder: Path, base: Path, *, overwrite: bool
) -> None:
    """Write the adapters for PEFT, where its layout has a place for them."""
    from ..llm.lora_files import save_adapters

    config = result.model.config
    if config.rope is not None:
        save_adapters(
            result.adapters, lora, config, folder, base=str(base.resolve()), overwrite=overwrite
        )


def _options(training: Training, run: Run, passes: Passes) -> TrainOptions:
    """Return the options, checked, messages naming the flag."""
    check_packages("dpo")
    from ..llm.trainer import TrainOptions

    def fitting(**values: Any) -> TrainOptions:
        options = TrainOptions(**values)
        options.recipe(2)  # raises where rows and memory do not go together
        return options

    return checked(fitting, training, run, passes)


def _read(data: PreferenceData) -> ReadPreferences:
    """Return the preference records as text."""
    from .._checks import InputError, check_option

    data.check()
    if data.data is not None:
        return read_files(data)
    from ..llm.animals import NOUNS, sample_pairs

    assert data.animals is not None
    order = tuple(name.strip() for name in data.animals.split(","))
    given = {name: getattr(data, name) for name in SAMPLING if getattr(data, name) is not None}
    chosen: dict[str, Any] = {**SAMPLING, **given}
    check_option("--nouns", chosen["nouns"], NOUNS)
    try:
        pairs = sample_pairs(
            order,
            chosen["p12"],
            chosen["p23"],
            key=chosen["data_seed"],
            count=chosen["pairs"],
            rejected_template=chosen["rejected_template"],
            slots=chosen["slots"],
        )
    except InputError as error:
        message = re.sub(r"^(omega|count|key):", lambda m: _SAMPLED[m[1]] + ":", str(error))
        raise InputError(as_flag(message, SAMPLING)) from None
    name = f"D(({', '.join(order)}), {chosen['p12']:g}, {chosen['p23']:g})"
    return ReadPreferences(name, pairs.records(nouns=chosen["nouns"]), {})


_SAMPLED = {"omega": "--animals", "count": "--pairs", "key": "--data-seed"}


def _begin(log: Path) -> None:
    """Make the log of metrics: from here on there is a run to go on with."""
    from .._checks import InputError, reason_of

    try:
        log.touch()
    except OSError as error:
        raise InputError(f"--out: cannot write {log}: {reason_of(error)}") from None


def _check_run(
    start: LanguageModel,
    encoded: EncodedRows,
    options: TrainOptions,
    names: Collection[str],
    mesh: Any,
) -> None:
    """Raise where the model cannot take such a run, before there is a folder for it."""
    from .._checks import InputError
    from ..llm.trainer import fitting_recipe

    try:
        fitting_recipe(start, encoded.completions, options, mesh)
    except InputError as error:
        raise InputError(as_flag(str(error), names)) from None


def _workload(data: PreferenceData, model: Path, shape: Any) -> Workload:
    """Return the rows to plan for: those of the data, or as long as may be."""
    from ..llm.plan import Workload
    from ..llm.rows import completion_width
    from ..llm.tokenizers import load_tokenizer
    from ..llm.trainer import trim_rows

    data.check(needed=False)
    if data.data is None and data.animals is None:
        return Workload(data.max_length or shape.max_position_embeddings)
    tokenizer = load_tokenizer(model, config=shape)
    encoded = encode(_read(data), data, tokenizer, shape.max_position_embeddings)
    rows = trim_rows(encoded.rows)
    return Workload(rows.width, completion_width(rows), encoded.completions, rows=len(encoded.kept))


NAMES = {
    "loss": "loss (nats)",
    "chosen_logps": "log-probability of the chosen (nats)",
    "rejected_logps": "log-probability of the rejected (nats)",
    "chosen_rewards": "reward of the chosen (nats)",
    "rejected_rewards": "reward of the rejected (nats)",
    "reward_margin": "reward margin (nats)",
    "accuracy": "accuracy",
    "grad_norm": "gradient norm",
}
BEFORE = (
    ", before each step's update. Both log-probabilities may fall while the margin grows: the loss "
    "sees only the difference"
)


def summarise(
    result: TrainResult, encoded: EncodedRows, left_out: dict[str, int]
) -> dict[str, Any]:
    """Return what a run did: rows, time, and metrics over its first and last tenth."""
    return {
        "steps": result.steps,
        "rows": len(encoded.kept),
        "left_out": left_out,
        "truncated": encoded.truncated,
        "tokens": result.tokens,
        "seconds": result.seconds,
        **ends_of(result.metrics, NAMES),
    }


def _print(summary: dict[str, Any], name: str, out: Path) -> None:
    from ..report.numbers import amount

    text = f"{name}: {amount(summary['rows'], 'row')}." + say_left_out(summary)
    if summary["truncated"]:
        text += f" Cut at the end: {amount(summary['truncated'], 'row')}."
    _terminal.say(text)
    _terminal.show(ends_table(summary, NAMES, BEFORE))
    rate = summary["tokens"] / max(summary["seconds"], 1e-9)
    _terminal.say(
        f"{amount(summary['steps'], 'step')} in {summary['seconds']:,.0f} s "
        f"({rate:,.0f} tokens a second, compiling included). Written: {out / 'model'}, "
        f"{out / 'metrics.jsonl'}."
    )
