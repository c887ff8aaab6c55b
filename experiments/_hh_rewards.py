"""Reward models on hh-rlhf's test pairs: the data, the folds, one training, one scoring.

Each record holds three responses: the chosen, the rejected, and the chosen one of another record of
the same fold, cut to the longer of the two, so that there are triples of responses to one prompt.
Pairs are trained on alone, unless the loss takes rankings: chosen, rejected, the foreign one.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxpref._checks import InputError
from jaxpref.llm import load_model, load_tokenizer
from jaxpref.llm.preferences import HUMAN
from jaxpref.llm.reward_models import RewardModel, reward_model
from jaxpref.llm.reward_rows import Candidates, encode_candidates, read_candidates
from jaxpref.llm.reward_scoring import score_records
from jaxpref.llm.reward_training import RewardOptions, pack_records, train_reward_model
from jaxpref.llm.rows import EncodedRows, Tokens

CACHE = Path("reproduced") / "reward_models"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Training:
    """How one reward model is trained."""

    max_length: int = 160
    epochs: int = 1
    batch_size: int = 16
    micro_batch: int = 4
    learning_rate: float = 1e-3
    warmup: int = 20
    folds: int = 5
    seed: int = 0
    rows: int | None = None

    def options(self, **changes: Any) -> RewardOptions:
        """Return the trainer's options."""
        names = ("batch_size", "micro_batch", "learning_rate", "warmup", "epochs", "seed")
        return RewardOptions(**{name: getattr(self, name) for name in names}, **changes)


class Pairs(NamedTuple):
    """The pairs as tokens, in the order of the files, and what became of them."""

    subset: list[str]
    fold: np.ndarray
    records: list[Tokens]
    packed: EncodedRows
    truncated: int
    longer: np.ndarray
    """1 where chosen has more characters than rejected, 1/2 where as many, else 0."""


def data_folder() -> Path:
    """Return the folder of the data sets."""
    named = os.environ.get("JAXPREF_DATA")
    if not named:
        raise InputError("JAXPREF_DATA: expected the folder of the data sets; it is not set")
    return Path(named)


def read_pairs(training: Training, model: Path | None = None) -> Pairs:
    """Return hh-rlhf's test pairs, in folds that share no first question."""
    folder = data_folder()
    candidates = read_candidates(folder / "hh_rlhf")[: training.rows]
    fold = assign_folds(candidates, training.folds, training.seed)
    triples = with_foreign(candidates, fold, training.seed)
    tokenizer = load_tokenizer(model or folder / "stories260K")
    encoded = encode_candidates(triples, tokenizer, max_length=training.max_length)
    subset = [Path(c.source.partition(": ")[0]).name.partition(".")[0] for c in candidates]
    length = np.array([[len(text) for _, text in c.texts] for c in candidates])
    longer = (np.sign(length[:, 0] - length[:, 1]) + 1) / 2
    packed = pack_records(encoded.records, completions=2)
    return Pairs(subset, fold, encoded.records, packed, encoded.truncated, longer)


def assign_folds(candidates: list[Candidates], folds: int, seed: int) -> np.ndarray:
    """Return the fold of each record; records with the same first question share one."""
    groups: dict[str, list[int]] = defaultdict(list)
    for number, record in enumerate(candidates):
        prompt = str(record.texts[0][0])
        groups[HUMAN.join(prompt.split(HUMAN)[:2])].append(number)
    order = np.random.default_rng(seed).permutation(len(groups))
    listed, fold, sizes = list(groups.values()), np.zeros(len(candidates), int), np.zeros(folds)
    for at in order:
        smallest = int(np.argmin(sizes))
        fold[listed[at]] = smallest
        sizes[smallest] += len(listed[at])
    return fold


def with_foreign(candidates: list[Candidates], fold: np.ndarray, seed: int) -> list[Candidates]:
    """Return records with a third response: the chosen one of another record of the fold."""
    random = np.random.default_rng(seed + 1)
    found = list(candidates)
    for number in np.unique(fold):
        own = random.permutation(np.flatnonzero(fold == number))
        for at, other in zip(own, np.roll(own, 1), strict=True):
            record = candidates[at]
            longest = max(len(text) for _, text in record.texts)
            foreign = candidates[other].texts[0][1][:longest]
            texts = (*record.texts, (record.texts[0][0], foreign))
            found[at] = record._replace(names=(*record.names, "foreign"), texts=texts)
    return found


def train_fold(
    pairs: Pairs,
    held_out: int,
    training: Training,
    *,
    model: Path | None = None,
    progress: Progress | None = None,
) -> tuple[RewardModel, dict[str, Any]]:
    """Train on all folds but one; return the model and how the loss went."""
    start = reward_model(load_model(model or data_folder() / "stories260K"))
    usable = pairs.fold[pairs.packed.kept] != held_out
    result = train_reward_model(
        start,
        pairs.packed.rows.take(np.flatnonzero(usable)),
        options=replace(training, seed=training.seed + held_out).options(),
        progress=progress,
    )
    tenth = max(1, len(result.metrics) // 10)
    loss = [record["loss"] for record in result.metrics]
    about = {
        "steps": result.steps,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "first_loss": float(np.mean(loss[:tenth])),
        "last_loss": float(np.mean(loss[-tenth:])),
    }
    return result.model, about


def cross_fit(
    pairs: Pairs,
    training: Training,
    *,
    model: Path | None = None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return the scores (pairs, 3) that models trained on the other folds give, fold by fold.

    Each finished fold is kept below :data:`CACHE`, so that a stopped run goes on with the next.
    """
    scores = np.zeros((len(pairs.records), 3))
    about = []
    for fold in range(training.folds):
        own = np.flatnonzero(pairs.fold == fold)
        kept = CACHE / f"{training_name(training, model)}-fold{fold}.npz"
        if not kept.exists():
            trained, found = train_fold(pairs, fold, training, model=model)
            values = score_records(trained, [pairs.records[at] for at in own]).scores
            CACHE.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(".part.npz")
            np.savez(part, scores=np.array(values), about=np.array(json.dumps(found)))
            part.rename(kept)
        with np.load(kept) as found:
            scores[own] = found["scores"]
            about.append(json.loads(str(found["about"])))
        if progress is not None:
            progress(fold + 1, training.folds)
    return scores, about


def training_name(training: Training, model: Path | None = None) -> str:
    """Return a hash of what a kept model was trained from, and how."""
    from jaxpref.llm.reference import digest

    return digest(asdict(training), str(model or "stories260K"))[:16]
