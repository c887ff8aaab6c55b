"""What keeps a reward model's preferences from being too strong, and what that costs.

Item: our own question; section 3.1's trade-off.
Claim: label smoothing, a capped margin, a temperature and training on rankings all lower the share
    of dominant preferences and the sensitivity of held-out triples; they differ in the accuracy and
    the calibration that they leave.
Command: JAXPREF_DATA=folder python experiments/ext3_mitigation.py [--smoke] [--out FOLDER]
Minutes: 2 on one core. Device: CPU.

Data, never committed: hh_rlhf and stories260K. The language model is frozen: a head of one hidden
layer is trained on the mean and the last of its hidden states until it is far surer than it is
right, as a large model on few pairs would be. Full training for each strength would take the time
of tabC2_crossfit each. Triples are chosen, rejected and the chosen answer of another record; the
rankings train on the third too, and are held to a head trained on the three pairs of each triple.
The temperature divides the scores when they are read, as calibration by temperature does.
Sensitivity is log dp_ij/dp_ik over ordered triples of held-out records (logistic link, in nats; 0
where the two move alike); its mean is 0, for (i, k, j) and (i, j, k) have opposite signs, so that
of its size is taken.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import _common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _hh_rewards import CACHE, Training, data_folder, read_pairs

from jaxpref.report.figures import save_figure
from jaxpref.rewards import Scores, reward_calibration, reward_dominance, triple_shares

NAME = "ext3_mitigation"
OF_THREE = ("pairs of 3", "rankings of 3")
"""What trains on the foreign response too, which is ranked last."""
ORDERED = tuple(itertools.permutations(range(3)))
MARKS = {
    "label smoothing": ("o", "#0072B2"),
    "capped margin": ("s", "#D55E00"),
    "temperature": ("^", "#009E73"),
    "pairs of 3": ("v", "#56B4E9"),
    "rankings of 3": ("D", "#CC79A7"),
}


@dataclass(frozen=True)
class Config:
    """The data, the head and the strengths."""

    data: Training = Training(rows=None)
    pairs: int = 1500
    held_out: int = 1700
    hidden: int = 64
    steps: int = 300
    learning_rate: float = 1e-2
    seeds: tuple[int, ...] = (0, 1, 2)
    smoothing: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3)
    cap: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    temperature: tuple[float, ...] = (1.5, 2.0, 4.0, 8.0)


SMOKE = Config(
    data=Training(max_length=16, rows=60, folds=2, warmup=0),
    pairs=20,
    held_out=20,
    hidden=8,
    steps=20,
    seeds=(0,),
    smoothing=(0.1,),
    cap=(1.0,),
    temperature=(2.0,),
)


class Features(NamedTuple):
    """Of each record: (3, F) for chosen, rejected and foreign; and who is trained on."""

    train: np.ndarray
    test: np.ndarray


# Features -------------------------------------------------------------------------------------


def features(config: Config) -> Features:
    """Return the frozen model's features, kept below :data:`CACHE`."""
    name = hashlib.sha256(json.dumps(asdict(config.data)).encode()).hexdigest()[:12]
    kept = CACHE / f"features-{name}-{config.pairs}-{config.held_out}.npz"
    if not kept.exists():
        pairs = read_pairs(config.data)
        usable = np.random.default_rng(config.data.seed).permutation(pairs.packed.kept)
        inside = usable[pairs.fold[usable] != 0][: config.pairs]
        outside = usable[pairs.fold[usable] == 0][: config.held_out]
        chosen = np.concatenate([inside, outside])
        found = hidden_features([pairs.records[at] for at in chosen])
        CACHE.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part.npz")
        np.savez(part, train=found[: len(inside)], test=found[len(inside) :])
        part.rename(kept)
    with np.load(kept) as file:
        train, test = file["train"], file["test"]
    centre, scale = train.mean((0, 1)), train.std((0, 1)) + 1e-6
    return Features((train - centre) / scale, (test - centre) / scale)


def hidden_features(records: list[Any]) -> np.ndarray:
    """Return the mean and the last hidden state of each sequence, and the log of its length."""
    from jaxpref.llm import hidden_states, load_model

    model = load_model(data_folder() / "stories260K")
    sequences = [(*record.prompt, *rest) for record in records for rest in record.completions]
    width = max(map(len, sequences))

    @partial(jax.jit, static_argnames="graphdef")
    def run(params: Any, tokens: jax.Array, lengths: jax.Array, graphdef: Any) -> jax.Array:
        hidden = hidden_states(graphdef, params, tokens)
        inside = (jnp.arange(width) < lengths[:, None])[:, :, None].astype(hidden.dtype)
        count = lengths[:, None].astype(hidden.dtype)
        last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
        return jnp.concatenate([jnp.sum(hidden * inside, 1) / count, last, jnp.log(count)], 1)

    found, rows = [], 64
    for begin in range(0, len(sequences), rows):
        part = sequences[begin : begin + rows]
        tokens, lengths = np.zeros((rows, width), np.int32), np.ones(rows, np.int32)
        for row, ids in enumerate(part):
            tokens[row, : len(ids)], lengths[row] = ids, len(ids)
        out = run(model.params, jnp.asarray(tokens), jnp.asarray(lengths), model.graphdef)
        found.append(np.asarray(out)[: len(part)])
    return np.concatenate(found).reshape(len(records), 3, -1)


# The head -------------------------------------------------------------------------------------


class Strength(NamedTuple):
    """One setting: what is done, how strongly, and the numbers of the loss."""

    what: str
    value: float
    smoothing: float = 0.0
    cap: float = float("inf")
    temperature: float = 1.0
    """Applied when the scores are read, not in training."""


def strengths(config: Config) -> list[Strength]:
    """Return nothing done first, then every way at every strength."""
    found = [Strength("nothing", 0.0)]
    found += [Strength("label smoothing", s, smoothing=s) for s in config.smoothing]
    found += [Strength("capped margin", c, cap=c) for c in config.cap]
    found += [Strength("temperature", t, temperature=t) for t in config.temperature]
    return [*found, Strength("pairs of 3", 3.0), Strength("rankings of 3", 3.0)]


def head_scores(params: dict[str, jax.Array], features: jax.Array) -> jax.Array:
    """Return the head's scores of features (..., F)."""
    inner = jax.nn.gelu(features @ params["in"] + params["bias"])
    return inner @ params["out"]


@partial(jax.jit, static_argnames=("steps", "hidden", "ranked"))
def train_head(
    key: jax.Array,
    features: jax.Array,
    smoothing: jax.Array,
    cap: jax.Array,
    rate: jax.Array,
    *,
    steps: int,
    hidden: int,
    ranked: bool,
) -> dict[str, jax.Array]:
    """Return a head trained on all pairs of the responses at once, or on their rankings."""
    from jaxpref.llm.reward_losses import bradley_terry_loss, plackett_luce_loss

    width = features.shape[-1]
    first, second = jax.random.split(key)
    kind = features.dtype
    params = {
        "in": jax.random.normal(first, (width, hidden), kind) / np.sqrt(width).astype(kind),
        "bias": jnp.zeros(hidden, kind),
        "out": jax.random.normal(second, (hidden,), kind) / np.sqrt(hidden).astype(kind),
    }
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        scores = head_scores(params, features)
        if ranked:
            return jnp.mean(plackett_luce_loss(scores))
        pairs = jnp.stack(
            [scores[:, [a, b]] for a, b in itertools.combinations(range(scores.shape[1]), 2)]
        )
        return jnp.mean(bradley_terry_loss(pairs, label_smoothing=smoothing, margin_cap=cap))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        change, state = adam.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, change), state), None

    return jax.lax.scan(step, (params, adam.init(params)), None, length=steps)[0][0]


# Measures -------------------------------------------------------------------------------------


def measure(scores: np.ndarray) -> dict[str, float]:
    """Return accuracy, calibration, dominance and sensitivity of held-out scores (records, 3)."""
    pairs = Scores.from_pairs(scores[:, 0], scores[:, 1])
    right = reward_calibration(pairs)
    dominance = reward_dominance(pairs)
    names = [str(n) for n in range(3)] * len(scores)
    prompts = [str(n) for n in np.repeat(np.arange(len(scores)), 3)]
    triples = triple_shares(
        Scores.from_arrays(prompts, names, scores.reshape(-1)), thresholds=(2.0,)
    )
    return {
        "accuracy": right.accuracy,
        "log_loss": right.log_loss,
        "calibration_error": right.calibration_error,
        "slope": right.slope,
        "over_foreign": float(np.mean(scores[:, 0] > scores[:, 2])),
        "dominant": 1 - dominance.bins[2].share,
        "variance": dominance.variance,
        "sensitive": triples.inside[0] / triples.total,
        "log_sensitivity": float(np.abs(log_sensitivities(scores)).mean()),
    }


def log_sensitivities(scores: np.ndarray) -> np.ndarray:
    """Return log dp_ij/dp_ik of every ordered triple, shape (records, 6)."""

    def log_density(margin: np.ndarray) -> np.ndarray:
        return -np.abs(margin) - 2 * np.log1p(np.exp(-np.abs(margin)))

    columns = [
        log_density(scores[:, i] - scores[:, j]) - log_density(scores[:, i] - scores[:, k])
        for i, k, j in ORDERED
    ]
    return np.stack(columns, axis=1)


def compute(config: Config, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Return result.json's content: a point of every curve, mean and spread over seeds."""
    found = features(config)
    train, test = (jnp.asarray(part, jnp.float32) for part in found)
    settings = strengths(config)
    points = []
    with jax.numpy_dtype_promotion("standard"):
        for number, setting in enumerate(settings):
            each = [_run(config, setting, seed, train, test) for seed in config.seeds]
            points.append({**setting._asdict(), "seeds": each, **_means(each)})
            if progress is not None:
                progress(number + 1, len(settings))
    values = {"records": {"train": len(train), "held_out": len(test)}, "points": points}
    judged = (
        rows(points, len(test)) if config.pairs >= 1000 else ()
    )  # a smoke run says nothing of the claim
    return _common.result(config, values, judged)


def _run(
    config: Config, setting: Strength, seed: int, train: jax.Array, test: jax.Array
) -> dict[str, float]:
    foreign = setting.what in OF_THREE
    params = train_head(
        jax.random.key(seed),
        train if foreign else train[:, :2],
        jnp.float32(setting.smoothing),
        jnp.float32(setting.cap),
        jnp.float32(config.learning_rate),
        steps=config.steps,
        hidden=config.hidden,
        ranked=setting.what == "rankings of 3",
    )
    own = np.asarray(head_scores(params, train[:, :2]), np.float64) / setting.temperature
    scores = np.asarray(head_scores(params, test), np.float64) / setting.temperature
    fit = {"train_accuracy": float(np.mean(own[:, 0] > own[:, 1]))}
    return {**measure(scores), **fit}


def _means(each: list[dict[str, float]]) -> dict[str, Any]:
    table = {name: np.array([one[name] for one in each]) for name in each[0]}
    return {
        "mean": {name: float(values.mean()) for name, values in table.items()},
        "spread": {name: float(np.ptp(values)) for name, values in table.items()},
    }


def rows(points: list[dict[str, Any]], held_out: int) -> Iterator[_common.Row]:
    """Judge for each way whether its strongest form tames the model, and what it costs.

    Rankings are held to their own pairs: the same responses, told apart two by two.
    """
    of_three = next(point for point in points if point["what"] == "pairs of 3")
    for what in (name for name in MARKS if name != "pairs of 3"):
        start = of_three if what == "rankings of 3" else points[0]
        yield _judged(what, start, [point for point in points if point["what"] == what], held_out)
    means = [point["mean"]["accuracy"] for point in points if point["what"] not in OF_THREE]
    chance = (means[0] * (1 - means[0]) / held_out) ** 0.5
    yield _common.judge(
        "Mitigation, accuracy",
        "what lowers dominance costs no accuracy that can be measured here",
        paper="no number",
        ours=means[0] - min(means),
        error=means[0] - min(means),
        tolerance=2 * chance,
        evidence=f"largest loss among the settings on pairs, from {means[0]:.3f}; two standard "
        f"errors of {held_out:,} held-out pairs are {2 * chance:.3f}. The model is hardly better "
        "than chance on pairs that it has not seen, so that this says little",
    )


def _judged(
    what: str, start: dict[str, Any], own: list[dict[str, Any]], held_out: int
) -> _common.Row:
    base, chosen = start["mean"], min(own, key=lambda point: point["mean"]["dominant"])
    noisy = (base["accuracy"] * (1 - base["accuracy"]) / held_out) ** 0.5
    mean, spread = chosen["mean"], chosen["spread"]
    noise = max(spread["dominant"], start["spread"]["dominant"])
    return _common.judge(
        f"Mitigation, {what}",
        "it lowers the share of dominant preferences",
        paper="no number",
        ours=mean["dominant"],
        error=max(0.0, mean["dominant"] - (base["dominant"] - noise)),
        tolerance=0,
        evidence=f"from {base['dominant']:.3f} to {mean['dominant']:.3f} at its strongest "
        f"({chosen['value']:g}), more than seeds differ ({noise:.3f}); mean log-sensitivity "
        f"from {base['log_sensitivity']:.3f} to {mean['log_sensitivity']:.3f}, triples "
        f"above M = 2 from {base['sensitive']:.3f} to {mean['sensitive']:.3f}; accuracy from "
        f"{base['accuracy']:.3f} to {mean['accuracy']:.3f} (standard error {noisy:.3f}), "
        f"calibration error from {base['calibration_error']:.3f} to "
        f"{mean['calibration_error']:.3f}",
    )


# The figure -----------------------------------------------------------------------------------


def plot(folder: Path) -> list[Path]:
    """Draw accuracy and calibration against dominance and sensitivity, from result.json alone."""
    from matplotlib.figure import Figure

    values = json.loads((folder / "result.json").read_text(encoding="utf-8"))["values"]
    points = values["points"]
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    grid = figure.subplots(2, 2, sharey="row", sharex="col")
    across = {
        "dominant": "share of dominant pairs",
        "log_sensitivity": "mean of |log dp_ij/dp_ik|, nats",
    }
    up = {"accuracy": "accuracy", "calibration_error": "calibration error"}
    for row, (y, y_words) in zip(grid, up.items(), strict=True):
        for axes, x in zip(row, across, strict=True):
            _curves(axes, points, x, y)
        row[0].set_ylabel(y_words)
    right, held_out = points[0]["mean"]["accuracy"], values["records"]["held_out"]
    error = 2 * (right * (1 - right) / held_out) ** 0.5
    for axes in grid[0]:
        axes.axhspan(right - error, right + error, color="0.9", label="two standard errors")
        axes.axhline(0.5, color="0.5", linewidth=0.8, linestyle=":")
        axes.set_ylim(0.48, max(0.6, right + 2 * error))
    for axes, words in zip(grid[1], across.values(), strict=True):
        axes.set_xlabel(words)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, ncols=4, loc="outside upper center", frameon=False, fontsize="small"
    )
    return [save_figure(figure, folder / "curve.png")]


def _curves(axes: Any, points: list[dict[str, Any]], x: str, y: str) -> None:
    start = points[0]["mean"]
    for what, (mark, colour) in MARKS.items():
        own = [start, *(point["mean"] for point in points if point["what"] == what)]
        own.sort(key=lambda mean: mean[x])
        axes.plot(
            [mean[x] for mean in own], [mean[y] for mean in own], marker=mark, color=colour,
            markersize=4, linewidth=1, label=what,
        )  # fmt: skip
    axes.plot(start[x], start[y], "k*", markersize=10, label="nothing", zorder=5)


if __name__ == "__main__":
    sys.exit(_common.run_script(NAME, sys.modules[__name__]))
