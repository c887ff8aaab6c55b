"""Scoring sequences with a reward model, here and by transformers in PyTorch, in turns.

One model (stories260K with a random head, where JAXPREF_DATA names the folder that holds it, else
random weights of its shape), one set of sequences, whose lengths are those of real dialogues (a
log-normal of median 110 tokens, cut at the context of 512). Both sides take rows in batches of
4,096 tokens, padding included, on all cores. Padded: each batch to the longest of all, in the given
order. Bucketed: sorted by length, to few widths. Tokenising is not part of it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH_TOKENS = 4096
SHAPE = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


def make_model() -> Any:
    """Return the reward model."""
    import jax

    from jaxpref.llm import decoder_config, initial_model, load_model
    from jaxpref.llm.reward_models import reward_model

    folder = os.environ.get("JAXPREF_DATA")
    if folder:
        plain = load_model(Path(folder) / "stories260K")
    else:
        plain = initial_model(decoder_config(SHAPE), jax.random.key(0))
    made = reward_model(plain, np.random.default_rng(0).normal(size=plain.config.hidden_size))
    return made._replace(pad_token_id=0)


def make_sequences(count: int, seed: int = 0) -> list[list[int]]:
    """Return sequences of random tokens."""
    random = np.random.default_rng(seed)
    lengths = np.clip(np.exp(random.normal(np.log(110), 0.8, count)), 8, 512).astype(int)
    lengths[0] = 512
    return [random.integers(3, 512, size=n).tolist() for n in lengths]


def torch_scorer(folder: Path) -> Callable[[list[list[int]], bool], np.ndarray]:
    """Return what scores sequences with transformers, padded or in our buckets."""
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import AutoModelForSequenceClassification

    from jaxpref.llm.rows import round_up_width

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def run(sequences: list[list[int]], bucket: bool) -> np.ndarray:
        longest = max(map(len, sequences))
        widths = np.array([round_up_width(len(s)) if bucket else longest for s in sequences])
        order = np.argsort([len(s) for s in sequences], kind="stable")
        order = order if bucket else np.arange(len(sequences))
        scores = np.zeros(len(sequences))
        for width in np.unique(widths):
            which = order[widths[order] == width]
            rows = max(BATCH_TOKENS // int(width), 1)
            for begin in range(0, len(which), rows):
                index = which[begin : begin + rows]
                ids = torch.zeros((len(index), int(width)), dtype=torch.long)
                for row, at in enumerate(index):
                    ids[row, : len(sequences[at])] = torch.tensor(sequences[at])
                with torch.inference_mode():
                    logits = model(ids, attention_mask=(ids != 0).long()).logits
                scores[index] = logits[:, 0].numpy()
        return scores

    return run


def measure_scoring(count: int, rounds: int) -> dict[str, Any]:
    """Return times, ratios and differences of both sides."""
    from jaxpref.llm.reward_models import save_reward_model
    from jaxpref.llm.reward_scoring import score_sequences

    model, sequences = make_model(), make_sequences(count)
    with tempfile.TemporaryDirectory() as folder:
        theirs = torch_scorer(save_reward_model(model, Path(folder) / "model"))

    def ours(sequences: list[list[int]], bucket: bool) -> np.ndarray:
        return score_sequences(model, sequences, batch_tokens=BATCH_TOKENS, bucket=bucket)

    sides = {
        "ours_padded": lambda: ours(sequences, False),
        "ours_bucketed": lambda: ours(sequences, True),
        "torch_padded": lambda: theirs(sequences, False),
        "torch_bucketed": lambda: theirs(sequences, True),
    }
    first, scores = {}, {}
    for name, run in sides.items():
        first[name], scores[name] = _seconds(run)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            times[name].append(_seconds(run)[0])
    tokens = sum(map(len, sequences))
    races = (
        ("ours_padded", "torch_padded", 1.0),
        ("ours_bucketed", "torch_padded", 1.3),
        ("ours_bucketed", "torch_bucketed", None),
    )
    return {
        "sequences": count,
        "tokens": tokens,
        "padded_tokens": 512 * count,
        "rounds": rounds,
        "threads": len(os.sched_getaffinity(0)),
        "first_call_s": first,
        "seconds": {name: _spread(values) for name, values in times.items()},
        "largest_difference": float(
            max(np.abs(scores[name] - scores["torch_padded"]).max() for name in sides)
        ),
        "races": [
            {
                "ours": one,
                "peer": other,
                "at_least": target,
                "ratio": _spread(list(np.array(times[other]) / np.array(times[one]))),
            }
            for one, other, target in races
        ],
    }


def _seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": float(np.median(values)),
        "low": float(np.min(values)),
        "high": float(np.max(values)),
    }


def scoring_lines(found: dict[str, Any]) -> list[str]:
    """Return the result as lines of Markdown."""
    lines = ["", "# Scoring with a reward model, against transformers in PyTorch", ""]
    lines += ["| ours | peer | ratio | at least | time | peer's |", "|---|---|---|---|---|---|"]
    for race in found["races"]:
        ratio, seconds = race["ratio"], found["seconds"]
        target = "-" if race["at_least"] is None else f"{race['at_least']:g}"
        lines.append(
            f"| {race['ours'].partition('_')[2]} | {race['peer'].replace('_', ', ')} | "
            f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f}) | {target} | "
            f"{seconds[race['ours']]['median']:.3g} s | {seconds[race['peer']]['median']:.3g} s |"
        )
    first = found["first_call_s"]
    return [
        *lines,
        "",
        f"{found['sequences']} sequences of {found['tokens']:,} tokens in all "
        f"({found['padded_tokens']:,} padded), float32, {found['rounds']} rounds in turns, "
        f"{found['threads']} threads on either side; scores differ by at most "
        f"{found['largest_difference']:.1e}. First calls, compiling included: "
        f"{first['ours_padded']:.3g} s padded, {first['ours_bucketed']:.3g} s bucketed; "
        f"{first['torch_padded']:.3g} s for PyTorch.",
    ]
