"""What can be chosen about a run of training."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from .._checks import (
    InputError,
    check_between,
    check_count,
    check_option,
    check_positive,
)
from .batches import SCHEDULES
from .lora import LoraOptions
from .losses import WHOLE_BATCH, LossSettings
from .precision import precision_of
from .training import OPTIMIZERS, Recipe

CACHE_SIZED = 2
"""Rows whose gradient is taken at once on a CPU: their activations stay in its cache."""
LARGEST = float(jnp.finfo(jnp.float32).max)


@dataclass(frozen=True)
class TrainOptions:
    """How a run trains.

    Attributes
    ----------
    loss : str
        A name in :data:`jaxpref.llm.losses.LOSSES`; of no part in fine-tuning.
    beta, label_smoothing, target_margin, sft_weight : float
        As in :class:`jaxpref.llm.losses.LossSettings`.
    learning_rate : float
        Its peak. The default is the paper's (appendix C.1), for models of billions of weights;
        small ones want 1e-4 and more.
    schedule : {"linear", "cosine", "constant"}
    warmup : int
        Steps over which the learning rate rises; fewer than the run has.
    steps, epochs : int, optional
        Length of the run: one of the two; one epoch when both are left out.
    batch_size, accumulate : int
        A step takes ``batch_size * accumulate`` rows, `batch_size` at most at once.
    micro_batch : int, optional
        Rows at once; by default 2 on a CPU, where that is faster, and `batch_size` elsewhere.
    clip_norm : float, optional
    weight_decay, b1, b2, eps, eps_root : float
        Of AdamW.
    optimizer : {"adamw", "adamw8bit"}
        The second keeps its moments in a byte each (:mod:`jaxpref.llm.adam8bit`).
    precision : {"float32", "bfloat16", "bfloat16-stochastic"}
        Passes and weights in float32; passes in bfloat16 and weights in float32; or both in
        bfloat16, with updates rounded at random (:mod:`jaxpref.llm.precision`).
    lora : LoraOptions, optional
        Train adapters on the model instead of the model (:mod:`jaxpref.llm.lora`).
    logit_chunk : int, optional
        Positions projected to the vocabulary at once, for large vocabularies.
    attention : {"direct", "xla", "cudnn"}, optional
        How attention is computed; by default "cudnn" where it can
        (:func:`jaxpref.llm.attention.best_attention`), else "direct".
    remat : {"none", "dots", "full"}
        What the backward pass computes again instead of keeping.
    seed : int
        Of the order of the data, of random rounding and of the adapters' start.
    """

    loss: str = "dpo"
    beta: float = 0.1
    label_smoothing: float = 0.0
    target_margin: float = 1.0
    sft_weight: float = 1.0
    learning_rate: float = 5e-6
    schedule: str = "linear"
    warmup: int = 0
    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 16
    accumulate: int = 1
    micro_batch: int | None = None
    clip_norm: float | None = 1.0
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0
    optimizer: str = "adamw"
    precision: str = "float32"
    lora: LoraOptions | None = None
    logit_chunk: int | None = None
    attention: str | None = None
    remat: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive("beta", self.beta)
        check_positive("learning_rate", self.learning_rate)
        check_between(
            "label_smoothing", self.label_smoothing, 0.0, 0.4999999, what="a number in [0, 0.5)"
        )
        check_between("target_margin", self.target_margin, 0.0, what="a number of at least 0")
        for name in ("sft_weight", "weight_decay"):
            check_between(name, getattr(self, name), 0.0, LARGEST, what="a finite number >= 0")
        check_option("schedule", self.schedule, SCHEDULES)
        check_option("optimizer", self.optimizer, OPTIMIZERS)
        precision_of(self.precision)
        check_count("batch_size", self.batch_size)
        check_count("accumulate", self.accumulate)
        for name in ("seed", "warmup"):
            check_count(name, getattr(self, name), at_least=0)
        for name in ("steps", "epochs", "micro_batch", "logit_chunk"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        if self.steps is not None and self.epochs is not None:
            raise InputError(
                f"steps, epochs: expected one of the two; got {self.steps} and {self.epochs}"
            )
        if self.warmup and self.steps is not None and self.warmup >= self.steps:
            raise InputError(
                f"warmup: expected fewer than the {self.steps} steps; got {self.warmup}"
            )
        if self.loss in WHOLE_BATCH and self.accumulate > 1:
            raise InputError(
                f"accumulate: {self.loss!r} needs the whole batch at once, expected 1; got "
                f"{self.accumulate}"
            )
        if self.clip_norm is not None:
            check_positive("clip_norm", self.clip_norm)

    @property
    def compute_dtype(self) -> str | None:
        """Type of the passes, where it is not that of the weights."""
        return precision_of(self.precision).compute_dtype

    def settings(self) -> LossSettings:
        """Return the numbers of the loss as leaves."""
        values = (self.beta, self.label_smoothing, self.target_margin, self.sft_weight)
        return LossSettings(*(jnp.float32(value) for value in values))

    def recipe(
        self, completions: int, sliding_window: int | None = None, *, devices: int = 1
    ) -> Recipe:
        """Return what fixes the compiled program, on so many devices that share a batch's rows."""
        names = ("clip_norm", "weight_decay", "b1", "b2", "eps", "eps_root")
        return Recipe(
            self.loss,
            completions,
            self._rows_at_once(devices),
            compute_dtype=self.compute_dtype,
            logit_chunk=self.logit_chunk,
            sliding_window=sliding_window,
            attention=self.attention or "direct",
            remat=self.remat,
            optimizer=self.optimizer,
            stochastic=precision_of(self.precision).stochastic,
            **{name: getattr(self, name) for name in names},
        )

    def _rows_at_once(self, devices: int) -> int | None:
        """Return the micro-batch, or None for a step's whole batch."""
        total = self.batch_size * self.accumulate
        if self.loss in WHOLE_BATCH and self.micro_batch is None:
            return None
        cpu = jax.default_backend() == "cpu"
        most = self.micro_batch or (CACHE_SIZED * devices if cpu else total)
        most = min(most, self.batch_size)
        fitting = [size for size in range(1, most + 1) if total % size == 0]
        return max(size for size in fitting if size % devices == 0 or size == fitting[-1])
