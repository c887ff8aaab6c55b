"""Reward models trained on preferences: Bradley-Terry on pairs, Plackett-Luce on rankings.

The runs are those of :mod:`jaxpref.llm.trainer`, with scores in place of log-probabilities: shared
rows, micro-batches, checkpoints, and a stopped run that goes on bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .._checks import DataError, InputError, check_option, check_positive
from .batches import Plan
from .config import DecoderConfig
from .decoder import LanguageModel
from .reward_losses import REWARD_LOSSES
from .reward_models import RewardModel
from .rows import EncodedRows, Rows, Tokens, pack_rows
from .trainer import Progress, TrainOptions, train_preferences


@dataclass(frozen=True)
class RewardOptions:
    """How a reward model trains.

    Attributes
    ----------
    loss : {"bradley_terry", "plackett_luce"}
        Of pairs, or of rankings (the same on pairs).
    temperature : float
        While training, scores count for 1 / temperature of their size.
    label_smoothing : float
        Share of labels taken to be the other way round; bradley_terry only.
    margin_cap : float, optional
        Nats beyond which a pair gains nothing from being pulled apart; bradley_terry only.
    learning_rate, schedule, warmup, steps, epochs, batch_size, micro_batch, clip_norm : optional
        As in :class:`jaxpref.llm.trainer.TrainOptions`, as are the rest.
    """

    loss: str = "bradley_terry"
    temperature: float = 1.0
    label_smoothing: float = 0.0
    margin_cap: float | None = None
    learning_rate: float = 1e-5
    schedule: str = "linear"
    warmup: int = 0
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 16
    micro_batch: int | None = None
    clip_norm: float | None = 1.0
    weight_decay: float = 0.0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_option("loss", self.loss, REWARD_LOSSES)
        check_positive("temperature", self.temperature)
        if self.margin_cap is not None:
            check_positive("margin_cap", self.margin_cap)
        for name in ("label_smoothing", "margin_cap"):
            if self.loss != "bradley_terry" and getattr(self, name):
                raise InputError(f"{name}: expected none for {self.loss}; it is for bradley_terry")
        self.train_options()

    def train_options(self) -> TrainOptions:
        """Return the trainer's options."""
        values = asdict(self)
        cap = values.pop("margin_cap")
        values["beta"] = 1 / values.pop("temperature")
        return TrainOptions(target_margin=math.inf if cap is None else cap, **values)


class RewardTraining(NamedTuple):
    """A trained reward model, and the run: a record a step, the steps, tokens and seconds."""

    model: RewardModel
    metrics: list[dict[str, Any]]
    steps: int
    tokens: int
    seconds: float


def pack_records(records: Iterable[Tokens], *, completions: int | None = None) -> EncodedRows:
    """Return records as shared rows for training; those with equal responses are left out.

    Parameters
    ----------
    records : iterable of Tokens
        From :func:`jaxpref.llm.reward_rows.encode_candidates`, the best response first.
    completions : int, optional
        Keep only so many responses of each.

    Raises
    ------
    DataError
        If no record is left, or one has a single response or another number of them.
    """
    records = [record._replace(completions=record.completions[:completions]) for record in records]
    for number, record in enumerate(records):
        if len(record.completions) < 2:
            place = record.source or f"record {number + 1}"
            raise DataError(
                f"{place}: expected two responses or more to compare; got {len(record.completions)}"
            )
    longest = max((len(r.prompt) + max(map(len, r.completions)) for r in records), default=2)
    return pack_rows(records, max_length=max(longest, 2))


def check_trainable(model: RewardModel, completions: int, options: RewardOptions) -> DecoderConfig:
    """Return the shape of a model that can be trained here, on rows of so many responses.

    Raises
    ------
    InputError
        For a model on DeBERTa, and for rankings under bradley_terry.
    """
    if not isinstance(model.config, DecoderConfig):
        raise InputError("model: expected a reward model on a decoder; got one on DeBERTa")
    if options.loss == "bradley_terry" and completions > 2:
        raise InputError(
            f"loss: bradley_terry compares two responses, the rows hold {completions}; expected "
            "plackett_luce"
        )
    return model.config


def train_reward_model(
    model: RewardModel,
    rows: Rows,
    *,
    completions: int = 2,
    options: RewardOptions | None = None,
    plan: Plan | None = None,
    out: Path | None = None,
    save_every: int | None = None,
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> RewardTraining:
    """Train a reward model, all of its weights, on preferences.

    Parameters
    ----------
    model : RewardModel
        Where it starts: :func:`jaxpref.llm.reward_models.reward_model` of a language model, or
        another reward model on a decoder.
    rows : Rows
        Shared rows of `completions` responses, best first.
    completions : int
    options : RewardOptions, optional
    plan, out, save_every, resume, identity, progress
        As for :func:`jaxpref.llm.train_preferences`.

    Returns
    -------
    RewardTraining

    Raises
    ------
    InputError
        For a model on DeBERTa, which is read and not trained here, and for rankings under
        bradley_terry. What training raises besides.
    """
    options = options or RewardOptions()
    config = check_trainable(model, completions, options)
    # The trainer asks of a model no more than these three.
    start = LanguageModel(config, model.graphdef, model.params)
    result = train_preferences(
        start,
        rows,
        completions=completions,
        options=options.train_options(),
        plan=plan,
        out=out,
        save_every=save_every,
        resume=resume,
        identity=identity,
        progress=progress,
    )
    trained = model._replace(params=result.model.params)
    return RewardTraining(trained, result.metrics, result.steps, result.tokens, result.seconds)
