"""What the experiments on trained policies share: the reference model, the sweep, the judgement.

The reference is a small real checkpoint, fine-tuned until it answers the paper's questions in the
paper's answers without preferring an animal; a chat model needs none of that (``--as-is``), and is
asked in its own chat template. A model of more than a billion weights is always taken as it is;
adapters of rank 8 are trained on it, and passes are in bfloat16.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import _common
import jax
import numpy as np
from numpy.typing import ArrayLike

import jaxpref.llm
from jaxpref._checks import InputError
from jaxpref.llm.animals import (
    ANIMALS,
    PERMUTATIONS,
    SUPPORT,
    Nouns,
    support_records,
    support_row,
    templates,
)
from jaxpref.llm.batches import Plan
from jaxpref.llm.checkpoints import load_model, save_model
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import abstract_model
from jaxpref.llm.lora import LoraOptions
from jaxpref.llm.probe import exact_probe
from jaxpref.llm.reference import digest
from jaxpref.llm.rows import encode_rows
from jaxpref.llm.sweep import (
    Member,
    SweepOptions,
    model_digest,
    speaks_chat,
    sweep,
    sweep_grid,
)
from jaxpref.llm.tokenizers import load_tokenizer
from jaxpref.llm.trainer import TrainOptions, supervised_fine_tune, trim_rows
from jaxpref.report.files import write_json

CACHE = Path(os.environ.get("JAXPREF_CACHE", Path.home() / ".cache" / "jaxpref"))
GRID = tuple(round(0.05 * step, 2) for step in range(21))
LARGE, ADAPTERS = 10**9, LoraOptions(rank=8)
"""Weights beyond which adapters are trained instead of all of them, and which."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FineTuning:
    """Supervised fine-tuning on the templates: both winners of every row at equal weight."""

    steps: int = 600
    rows: int = 48
    learning_rate: float = 4e-3
    warmup: int = 60
    seed: int = 0
    nouns: Nouns = "article"


@dataclass(frozen=True)
class Config:
    """One figure: which data sets, how often, and how each policy is trained."""

    p12: float = 0.99
    p23: tuple[float, ...] = GRID
    omegas: tuple[tuple[str, ...], ...] = (PERMUTATIONS[0],)
    seeds: tuple[int, ...] = (0,)
    pairs: int = 1024
    batch_size: int = 16
    beta: float = 0.1
    learning_rate: float = 7e-5
    fine_tuning: FineTuning = FineTuning()

    def members(self) -> list[Member]:
        """Return the trainings."""
        return sweep_grid(
            omegas=self.omegas,
            p12=[self.p12],
            p23=self.p23,
            seeds=self.seeds,
            betas=[self.beta],
            learning_rates=[self.learning_rate],
        )

    def options(self) -> SweepOptions:
        """Return what they share."""
        return SweepOptions(
            pairs=self.pairs, batch_size=self.batch_size, nouns=self.fine_tuning.nouns
        )


def small_checkpoint() -> Path:
    """Return the folder of stories260K, below the one that the environment names."""
    named = os.environ.get("JAXPREF_DATA")
    if not named:
        raise InputError(
            "--model: expected a checkpoint folder (or JAXPREF_DATA set to a folder that holds "
            "stories260K)"
        )
    return Path(named) / "stories260K"


def stratified_plan(settings: FineTuning) -> Plan:
    """Return which rows each step of fine-tuning sees: every ordered pair equally often.

    An epoch is all 3,600 rows; within each ordered pair the order is drawn anew, so every question
    and every answer comes equally often with every pair.
    """
    questions, pairs, answers = SUPPORT
    if settings.rows % pairs or (questions * answers) % (settings.rows // pairs):
        raise InputError(f"rows: expected a multiple of {pairs} that divides the support")
    each = settings.rows // pairs
    per_epoch = questions * answers // each
    random = np.random.default_rng(settings.seed)
    steps: list[np.ndarray] = []
    for _ in range(-(-settings.steps // per_epoch)):
        drawn = []
        for pair in range(pairs):
            picked = random.permutation(questions * answers).reshape(per_epoch, each)
            drawn.append(support_row(picked // answers, pair, picked % answers))
        steps.append(np.concatenate(drawn, axis=1))
    rows = np.concatenate(steps)[: settings.steps].astype(np.int32)
    none = np.zeros(settings.steps, np.int32)
    epoch = (np.arange(settings.steps) // per_epoch).astype(np.int32)
    return Plan(none, rows, np.ones(rows.shape, np.float32), epoch)


def fine_tuned(
    source: Path,
    settings: FineTuning,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the folder of the fine-tuned reference model, trained at the first call.

    It starts from the source's weights. The folder's name is a hash of those and the settings;
    beside the checkpoint lies ``balance.json``, what the model prefers and how much of it is in
    format.
    """
    model = load_model(source)
    name = digest(model.params, model.config, settings)[:20]
    folder = (cache or CACHE) / "fine-tuned" / name
    if (folder / "balance.json").exists():
        return folder
    tokenizer = load_tokenizer(source, config=model.config)
    encoded = encode_rows(
        support_records(nouns=settings.nouns),
        tokenizer,
        max_length=model.config.max_position_embeddings,
        too_long="error",
    )
    options = TrainOptions(
        learning_rate=settings.learning_rate,
        schedule="cosine",
        warmup=settings.warmup,
        steps=settings.steps,
        batch_size=settings.rows,
    )
    found = supervised_fine_tune(
        model,
        trim_rows(encoded.rows),
        options=options,
        plan=stratified_plan(settings),
        progress=progress,
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_model(found.model, folder, tokenizer_from=source, overwrite=True)
    write_json(folder / "balance.json", balance(found.model, tokenizer, settings.nouns))
    return folder


def balance(model: Any, tokenizer: Any, nouns: Nouns) -> dict[str, Any]:
    """Return what a model prefers, asked by the 20 templates and by the probe."""
    found = {}
    for name, questions in (("templates", templates().questions), ("probe", (templates().probe,))):
        probe = exact_probe(model, tokenizer, questions=questions, nouns=nouns, batch=4)
        found[name] = {
            "p": {f"{a} over {b}": float(probe.probability(a, b)) for a, b in _pairs()},
            "format_mass": np.asarray(probe.format_mass).tolist(),
        }
    return found


def _pairs() -> list[tuple[str, str]]:
    return list(combinations(ANIMALS, 2))


def reference_folder(
    config: Config,
    *,
    model: Path | None = None,
    as_is: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the folder of the policy that every training starts from, and is compared with."""
    source = small_checkpoint() if model is None else model
    if as_is:
        return source
    return fine_tuned(source, config.fine_tuning, cache=cache, progress=progress)


def weights_of(folder: Path) -> int:
    """Return how many weights a checkpoint's config asks for; none is read."""
    _, params = abstract_model(decoder_config(folder), "bfloat16")
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def code_digest() -> str:
    """Return a hash of the code that trains: what other code trained is not taken for its own."""
    folder = Path(jaxpref.llm.__file__).parent
    return digest(*(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))))


def trained(
    config: Config,
    *,
    model: Path | None = None,
    as_is: bool = False,
    cache: Path | None = None,
    processes: int = 1,
    progress: Progress | None = None,
) -> tuple[Path, list[dict[str, Any]]]:
    """Return the reference model's folder and a record per training of a figure.

    What was trained before with the same reference, options and code is read, not trained again. A
    large model is left as it is, and adapters are trained on it in bfloat16.
    """
    large = model is not None and weights_of(model) > LARGE
    as_is = as_is or large
    reference = reference_folder(
        config, model=model, as_is=as_is, cache=cache, progress=_common.part(progress, 0, 2)
    )
    options = replace(
        config.options(),
        chat=as_is and speaks_chat(reference),
        compute_dtype="bfloat16" if large else None,
    )
    lora = ADAPTERS if large else None
    kind = digest(model_digest(reference), options, lora, code_digest())
    out = (cache or CACHE) / "sweeps" / kind[:20]
    records = sweep(
        reference,
        config.members(),
        out=out,
        options=options,
        lora=lora,
        processes=processes,
        resume=out.exists(),
        progress=_common.part(progress, 1, 2),
    )
    return reference, records


# --- what the records say -----------------------------------------------------------------------


def curves(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each permutation, the learned probabilities over p23: seeds in rows.

    Each has ``omega``, ``p23_data`` (n,) and ``p12``, ``p23``, ``p13``, ``format_mass`` (seeds, n).
    """
    found = []
    for omega in dict.fromkeys(tuple(r["member"]["omega"]) for r in records):
        own = [r for r in records if tuple(r["member"]["omega"]) == omega]
        seeds = sorted({r["member"]["seed"] for r in own})
        grid = sorted({r["member"]["p23"] for r in own})
        at = {(r["member"]["seed"], r["member"]["p23"]): r["learned"] for r in own}

        def table(name: str, at=at, seeds=seeds, grid=grid) -> list[list[float]]:
            return [[at[seed, p][name] for p in grid] for seed in seeds]

        mass = np.mean([table(f"format_mass{pair}") for pair in ("12", "23", "13")], axis=0)
        found.append(
            {
                "omega": list(omega),
                "p12_data": own[0]["member"]["p12"],
                "p23_data": grid,
                **{name: table(name) for name in ("p12", "p23", "p13")},
                **{name: table(name) for name in ("logit12", "logit23", "logit13")},
                "format_mass": mass.tolist(),
            }
        )
    return found


def crossing(p23: ArrayLike, p13: ArrayLike, low: float, high: float) -> float:
    """Return the least change of p23 over which p13 goes from below `low` to above `high`.

    Any two models count, so that noise between neighbours does not hide a jump; infinity where
    p13 is never below the one or never above the other.

    >>> round(crossing([0.0, 0.1, 0.5], [0.1, 0.9, 0.95], 0.2, 0.8), 3)
    0.1
    """
    x, y = np.asarray(p23), np.asarray(p13)
    below, above = x[y < low], x[y > high]
    if not (below.size and above.size):
        return float("inf")
    return float(np.min(np.abs(above[:, None] - below)))


def alike_but_apart(same: ArrayLike, other: ArrayLike, within: float) -> float:
    """Return the largest gap in `other` between two models that differ by at most `within`.

    >>> alike_but_apart([0.5, 0.505, 0.9], [0.1, 0.8, 0.9], 0.01)
    0.7...
    """
    x, y = np.asarray(same), np.asarray(other)
    near = np.abs(x[:, None] - x) <= within
    return float(np.max(np.where(near, np.abs(y[:, None] - y), 0.0)))


def composition(curve: dict[str, Any]) -> np.ndarray:
    """Return the p13 that Bradley-Terry composes of the learned p12 and p23 (Eq. 1)."""
    margin = np.asarray(curve["logit12"]) + np.asarray(curve["logit23"])
    return 0.5 * (1 + np.tanh(margin / 2))


def tabular(curve: dict[str, Any], beta: float) -> list[float]:
    """Return the p13 composed of what a policy free in every answer would learn by DPO.

    Its log-odds are the data's, divided by beta, on top of those of a balanced reference; p13
    itself is then left open by the data, and composed by Eq. 1. NaN where both are sure and
    opposed.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        p = np.asarray([curve["p12_data"], *curve["p23_data"]])
        logit = (np.log(p) - np.log1p(-p)) / beta
        return (1 / (1 + np.exp(-(logit[0] + logit[1:])))).tolist()


def named(curve: dict[str, Any]) -> str:
    """Return a permutation in a word."""
    return "-".join(curve["omega"])


def means(curve: dict[str, Any], name: str) -> np.ndarray:
    """Return the mean over the seeds."""
    return np.mean(np.asarray(curve[name]), axis=0)
