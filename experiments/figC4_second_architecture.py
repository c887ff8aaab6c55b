"""Figure C4: as Figure 3, on a second architecture: Mistral's, with a sliding window.

Item: Fig. C4, appendix C.3.
Claim: the jump of Fig. 3 is not one model's. The paper trains zephyr-7b-alpha, a Mistral; here a
    small model of its shape is trained from random weights on the paper's questions and answers,
    without preferring an animal, and is the reference. --model takes zephyr itself.
Command: python experiments/figC4_second_architecture.py [--full] [--processes 2] [--model DIR]
    [--as-is] [--learning-rate RATE] [--smoke] [--out FOLDER]
Minutes: 4 for one permutation and one seed once the reference is trained (14, cached); 26 for all
    (--full) on two cores. What is trained is kept, and a run that was stopped goes on from it.
    Device: CPU or GPU.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import _animal_figures as figures
import _animal_policies as policies
import jax
from _animal_policies import Config as _Config
from _animal_policies import FineTuning
from _common import Progress

from jaxpref.llm.checkpoints import save_model
from jaxpref.llm.config import decoder_config
from jaxpref.llm.decoder import initial_model
from jaxpref.llm.tokenizers import load_tokenizer

NAME = "figC4_second_architecture"


@dataclass(frozen=True)
class Shape:
    """A Mistral, named as in its config.json; the vocabulary is the tokenizer's."""

    model_type: str = "mistral"
    hidden_size: int = 64
    intermediate_size: int = 172
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    max_position_embeddings: int = 512
    sliding_window: int = 64
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    initializer_range: float = 0.05
    bos_token_id: int = 1
    eos_token_id: int = 2


@dataclass(frozen=True)
class Config(_Config):
    """As Fig. 3, from random weights, and trained longer before."""

    fine_tuning: FineTuning = FineTuning(steps=1200, warmup=120)
    shape: Shape = Shape()
    weights_seed: int = 0


SMOKE = replace(Config(), p23=(0.0, 1.0), pairs=32, fine_tuning=FineTuning(steps=2, warmup=1))
plot, full = figures.plot, figures.full


def random_checkpoint(config: Config) -> Path:
    """Return the folder of the model with random weights, and the tokenizer of stories260K."""
    source = policies.small_checkpoint()
    size = max(load_tokenizer(source).get_vocab().values()) + 1
    text = json.dumps([asdict(config.shape), config.weights_seed, size], sort_keys=True)
    name = policies.digest(text)[:20]
    folder = policies.CACHE / "random" / name
    if not (folder / "config.json").exists():
        shape = decoder_config({**asdict(config.shape), "vocab_size": size})
        model = initial_model(shape, jax.random.key(config.weights_seed))
        save_model(model, folder, tokenizer_from=source, overwrite=True)
    return folder


def compute(
    config: Config,
    progress: Progress | None = None,
    *,
    model: Path | None = None,
    as_is: bool = False,
    processes: int = 1,
) -> dict[str, Any]:
    """Return what goes into result.json; parameters as the command's."""
    return figures.compute(
        config,
        progress,
        item="Fig. C4",
        judge=figures.judge_jump,
        model=random_checkpoint(config) if model is None else model,
        as_is=as_is,
        processes=processes,
    )


if __name__ == "__main__":
    sys.exit(figures.run(NAME, sys.modules[__name__]))
