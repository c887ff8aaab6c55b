"""AdamW in bytes against AdamW in float32, on the paper's animals: what is learned.

    JAXPREF_DATA=DIR python benchmarks/bench_adam8bit.py
    JAXPREF_DATA=DIR python benchmarks/bench_adam8bit.py --quick    # 4 steps, writes nothing

Trainings of Figure 3 (stories260K, fine-tuned as in the experiments; 64 steps of 16 pairs, p12 =
.99) with the same seeds, three ways: float32; bytes, as ``--optimizer adamw8bit`` has them; and
bytes with a linear code of the second moment. ``--reference`` names a reference that is fine-tuned
already. The yardstick is the spread of float32 from seed to seed: a way is within it if its mean is
within one standard deviation of float32's, for the log-odds of each learned preference (two of the
probabilities are 0 and 1 to four digits) and for the loss.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import optax

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "experiments"))
NAMES = ("logit12", "logit23", "logit13", "loss")
P23 = 0.2


def ways() -> dict[str, Callable[[], optax.GradientTransformation]]:
    """Return what makes each optimiser, float32 first."""
    from jaxpref.llm.adam8bit import scale_by_adam_8bit

    return {
        "float32": optax.scale_by_adam,
        "8 bit": scale_by_adam_8bit,
        "8 bit, linear second moment": partial(scale_by_adam_8bit, code="linear"),
    }


def trained(seeds: int, pairs: int, reference: Path | None) -> dict[str, Any]:
    """Return what each way learned: values by name and seed, seconds and share quantised."""
    from _animal_policies import Config, reference_folder

    from jaxpref.llm import training
    from jaxpref.llm.adam8bit import Adam8bitState, share_quantised
    from jaxpref.llm.population import train_member
    from jaxpref.llm.sweep import (
        ProbeEvaluation,
        SweepOptions,
        learned,
        member_batches,
        prepare,
        sweep_grid,
    )

    options = replace(Config().options(), pairs=pairs)
    assert isinstance(options, SweepOptions)
    setting = prepare(reference or reference_folder(Config()), options)
    members = sweep_grid(
        omegas=[("dog", "cat", "bird")],
        p12=[0.99],
        p23=[P23],
        seeds=range(seeds),
        learning_rates=[Config().learning_rate],
    )
    probe = setting.probe
    evaluation = ProbeEvaluation(setting.model.graphdef, probe.answers_per_row, probe.width)
    arrays = jax.tree.map(jnp.asarray, (setting.rows, setting.reference_logps, probe.rows))
    stacked = jax.tree.map(jnp.asarray, member_batches(members, options))
    found = {}
    for name, make in ways().items():
        with patch.object(training, "adam", lambda recipe, make=make: make()):
            start = time.process_time()
            runs = _train(setting, stacked, arrays, evaluation, train_member)
            seconds = time.process_time() - start
        probed = [learned(m, np.asarray(runs.evaluation[k])) for k, m in enumerate(members)]
        tail = slice(-max(1, options.steps // 10), None)
        state = make().init(setting.model.params)
        found[name] = {
            **{p: [record[p] for record in probed] for p in NAMES[:3]},
            "loss": np.mean(np.asarray(runs.metrics.loss)[:, tail], axis=1).tolist(),
            "format_mass": [record["format_mass13"] for record in probed],
            "share_quantised": (
                share_quantised(state) if isinstance(state, Adam8bitState) else 0.0
            ),
            "cpu_seconds_with_compiling": seconds,
        }
        print(name, {key: np.round(found[name][key], 4).tolist() for key in NAMES}, flush=True)
    rate = members[0].learning_rate
    return {
        "seeds": seeds,
        "learning_rate": rate,
        "steps": options.steps,
        "p23": P23,
        "ways": found,
    }


def _train(setting: Any, members: Any, arrays: Any, evaluation: Any, train_member: Any) -> Any:
    rows, logps, probe = arrays
    recipe = setting.recipe

    @jax.jit
    def run(members: Any) -> Any:
        return jax.lax.map(
            lambda member: train_member(
                setting.model.graphdef,
                setting.model.params,
                rows,
                logps,
                member,
                probe,
                recipe=recipe,
                evaluation=evaluation,
            ),
            members,
        )

    return jax.block_until_ready(run(members))


def judged(found: dict[str, Any]) -> dict[str, Any]:
    """Return how far each way's mean is from float32's, in its spreads from seed to seed."""
    exact = found["ways"]["float32"]
    spread = {name: float(np.std(exact[name], ddof=1)) for name in NAMES}
    rows = {}
    for way, values in found["ways"].items():
        apart = {
            name: abs(float(np.mean(values[name]) - np.mean(exact[name]))) / spread[name]
            for name in NAMES
        }
        rows[way] = {"apart": apart, "within": bool(all(one <= 1 for one in apart.values()))}
    return {"spread": spread, "rows": rows}


def report(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    verdict = judged(found)
    head = "AdamW's moments | quantised | " + " | ".join(f"{n} (apart)" for n in NAMES)
    lines = [f"| {head} | within the spread |", "|" + "---|" * 7]
    for way, values in found["ways"].items():
        row = verdict["rows"][way]
        cells = [way, f"{values['share_quantised']:.0%}"]
        cells += [f"{np.mean(values[n]):.4f} ({row['apart'][n]:.2f})" for n in NAMES]
        lines.append("| " + " | ".join([*cells, "yes" if row["within"] else "no"]) + " |")
    spread = ", ".join(f"{name} {verdict['spread'][name]:.4f}" for name in NAMES)
    lines += [
        "",
        f"Means over {found['seeds']} seeds of {found['steps']} steps, data p12 = .99 and p23 = "
        f"{found['p23']:g}. Spread of float32 from seed to seed (standard deviation): {spread}. "
        "Apart: between the means, in spreads. Quantised: share of the parameters whose moments "
        "are in bytes; the others are under 4,096 elements a layer, or the embedding.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train all ways and write results/bench_adam8bit.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--reference", type=Path)
    arguments = parser.parse_args()
    seeds, pairs = (2, 64) if arguments.quick else (arguments.seeds, 1024)
    found = trained(seeds, pairs, arguments.reference)
    print(report(found), flush=True)
    if arguments.quick:
        return
    found["judged"] = judged(found)
    found["environment"] = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        **{name: version(name) for name in ("jax", "flax", "optax")},
    }
    target = HERE / "results"
    target.mkdir(exist_ok=True)
    (target / "bench_adam8bit.json").write_text(json.dumps(found, indent=1) + "\n")
    (target / "bench_adam8bit.md").write_text(report(found))


if __name__ == "__main__":
    main()
