"""A step of DPO against TRL and against a bare PyTorch loop: processor time, one core, same rounds.

    taskset -c 0 python benchmarks/bench_dpo_step.py --peer-python PEERS/bin/python
    python benchmarks/bench_dpo_step.py --quick ...     # fewer rounds, writes nothing

PEERS is an environment with torch, transformers and TRL 1.16; it may be this one. Two models in
turn: a real one given by ``--model DIR`` (a Llama of 260,000 weights, hidden 64), and one of hidden
size 128 and 4 layers with random weights and the same tokenizer. The data are the paper's pairs,
16 to a step, as the same token ids on all sides; the reference is precomputed on all sides. Each
side is a process, and within a round each takes its steps in turn. Times are of the processor, the
optimiser's update included; what is compiled or started first is apart. TRL runs without its
gradient checkpointing and in float32, its fastest settings here; the optimiser of both PyTorch
sides is the fused AdamW. Losses are compared step by step from the same parameters and batches.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
PEERS = {"trl": ("TRL 1.16", 1.2), "torch": ("bare PyTorch", 1.05)}
BATCHES, BATCH, RATE, BETA = 8, 16, 1e-4, 0.1
HIDDEN_128 = {
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
}


def make_job(folder: Path, steps: int) -> dict[str, Any]:
    """Return the model's folder and the paper's pairs as token ids, in batches."""
    from jaxpref.llm.animals import sample_pairs
    from jaxpref.llm.tokenizers import encode_completion, encode_prompt, load_tokenizer

    tokenizer = load_tokenizer(folder)
    records = sample_pairs(("dog", "cat", "bird"), 0.99, 0.3, key=0, count=BATCHES * BATCH)
    pairs = [
        {
            "prompt": list(encode_prompt(tokenizer, record.prompt)),
            "chosen": list(encode_completion(tokenizer, record.chosen)),
            "rejected": list(encode_completion(tokenizer, record.rejected)),
        }
        for record in records.records(nouns="bare")  # as recorded
    ]
    batches = [pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH)]
    return {
        "model": str(folder),
        "batches": batches,
        "steps": steps,
        "learning_rate": RATE,
        "beta": BETA,
    }


def widen(source: Path, folder: Path) -> Path:
    """Write a model of hidden size 128 with random weights and the tokenizer of `source`."""
    import jax

    from jaxpref.llm.checkpoints import save_model
    from jaxpref.llm.config import decoder_config
    from jaxpref.llm.decoder import initial_model

    config = json.loads((source / "config.json").read_text(encoding="utf-8")) | HIDDEN_128
    model = initial_model(decoder_config(config), jax.random.key(0))
    return save_model(model, folder / "hidden128", tokenizer_from=source)


class Ours:
    """Our side: the steps of a round are one call, as the trainer makes it."""

    name = "jaxpref"

    def __init__(self, job: dict[str, Any], micro_batch: int) -> None:
        import jax
        import jax.numpy as jnp

        from jaxpref.llm.checkpoints import load_model
        from jaxpref.llm.reference import reference_logps
        from jaxpref.llm.rows import Rows, Tokens, completion_width, pack_rows
        from jaxpref.llm.trainer import TrainOptions, trim_rows
        from jaxpref.llm.training import Batches, init_state

        records = [
            Tokens(tuple(pair["prompt"]), (tuple(pair["chosen"]), tuple(pair["rejected"])))
            for pairs in job["batches"]
            for pair in pairs
        ]
        packed = pack_rows(records, max_length=512)
        packed = packed._replace(rows=trim_rows(packed.rows))
        options = TrainOptions(
            beta=job["beta"], batch_size=BATCH, micro_batch=micro_batch, clip_norm=None
        )
        recipe = replace(options.recipe(2), logit_width=completion_width(packed.rows))
        model = load_model(job["model"])
        start = time.process_time()
        reference = reference_logps(
            model.graphdef, model.params, packed.rows, recipe=recipe, batch_size=BATCH
        )
        self.reference_s = time.process_time() - start
        self.rows = Rows(*(jnp.asarray(field) for field in packed.rows))
        self.data = (self.rows, jnp.asarray(reference))
        self.graphdef, self.recipe, self.settings = model.graphdef, recipe, options.settings()
        self.state = init_state(model.params, recipe)
        order = jnp.arange(BATCHES * BATCH, dtype=jnp.int32).reshape(BATCHES, BATCH)
        ones = jnp.ones((BATCHES, BATCH), jnp.float32)
        self.batches = Batches(order, ones, None, jnp.full(BATCHES, RATE, jnp.float32))
        self.tokens = int(np.sum(packed.rows.segments > 0)) / BATCHES
        self.jax = jax
        start = time.process_time()
        keep = jax.tree.map(jnp.array, self.state)
        self.round(BATCHES)
        self.first_s = time.process_time() - start
        self.state = keep

    def round(self, steps: int) -> tuple[list[float], list[float]]:
        """Take the steps of a round; return the mean time of a step, and the losses."""
        from jaxpref.llm.trainer import _advance

        assert steps == BATCHES
        start = time.process_time()
        self.state, metrics = _advance(
            self.state,
            self.data,
            self.batches,
            self.settings,
            np.int32(steps),
            kind="dpo",
            graphdef=self.graphdef,
            recipe=self.recipe,
        )
        losses = np.asarray(metrics.loss).tolist()
        self.jax.block_until_ready(self.state)
        return [(time.process_time() - start) / steps] * steps, losses


class Peer:
    """The other side, a process of its own."""

    def __init__(self, name: str, python: str, job: Path) -> None:
        self.name, self.label, self.target = name, *PEERS[name]
        command = [python, str(HERE / "_dpo_peer.py"), name, str(job)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.versions = {k: v for k, v in self._read().items() if k != "ready"}
        self.peak = float("nan")

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise SystemExit(
            f"{self.name} ended without an answer; run _dpo_peer.py by hand to see why"
        )

    def round(self, steps: int) -> tuple[list[float], list[float]]:
        """Let it take steps; return their times and losses."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self._read()
        self.peak = answer["peak_mib"]
        return answer["times"], answer["losses"]

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.write("0\n")
        self.process.stdin.close()
        self.process.wait(timeout=60)


def peak_mib() -> float:
    """Return the largest resident memory so far, in MiB (Linux; NaN elsewhere)."""
    try:
        text = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if "VmHWM" in line)


def race(folder: Path, label: str, python: str, rounds: int, micro_batch: int) -> dict[str, Any]:
    """Return the times of all sides over the rounds, and how far their losses are apart."""
    with tempfile.TemporaryDirectory() as temporary:
        job = make_job(folder, (rounds + 1) * BATCHES + 1)
        path = Path(temporary) / "job.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        ours = Ours(job, micro_batch)
        peers = [Peer(name, python, path) for name in PEERS]
        sides = [ours, *peers]
        first = {side.name: side.round(BATCHES) for side in sides}  # warms the peers up
        times: dict[str, list[float]] = {side.name: [] for side in sides}
        for _ in range(rounds):
            for side in sides:
                times[side.name].append(float(np.mean(side.round(BATCHES)[0])))
        for peer in peers:
            peer.close()
    medians = {name: float(np.median(values)) for name, values in times.items()}
    rows = []
    for peer in peers:
        ratios = np.array(times[peer.name]) / np.array(times["jaxpref"])
        rows.append(
            {
                "model": label,
                "peer": peer.label,
                "target": peer.target,
                "ratio": float(np.median(ratios)),
                "ratio_low": float(np.quantile(ratios, 0.25)),
                "ratio_high": float(np.quantile(ratios, 0.75)),
                "ours_s": medians["jaxpref"],
                "peer_s": medians[peer.name],
                "loss_apart": [
                    abs(a - b)
                    for a, b in zip(first["jaxpref"][1], first[peer.name][1], strict=True)
                ],
                "peer_peak_mib": peer.peak,
                "versions": peer.versions,
            }
        )
    return {
        "model": label,
        "rows": rows,
        "rounds": rounds,
        "steps_per_round": BATCHES,
        "row_width": ours.rows.width,
        "tokens_per_step": ours.tokens,
        "tokens_per_s": ours.tokens / medians["jaxpref"],
        "first_call_s": ours.first_s,
        "reference_s": ours.reference_s,
        "peak_mib": peak_mib(),
        "times": times,
    }


def report(results: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    head = "model | against | ratio (quartiles) | at least | our step | theirs | losses apart"
    lines = [f"| {head} |", "|" + "---|" * 7]
    for result in results:
        for row in result["rows"]:
            ratio = f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
            ours, theirs = (f"{1e3 * row[side]:.0f} ms" for side in ("ours_s", "peer_s"))
            apart = f"{row['loss_apart'][0]:.0e} at first, {max(row['loss_apart']):.0e} in 8 steps"
            cells = (row["model"], row["peer"], ratio, f"{row['target']:g}", ours, theirs, apart)
            lines.append("| " + " | ".join(cells) + " |")
    for result in results:
        peers = ", ".join(f"{row['peer']} {row['peer_peak_mib']:.0f}" for row in result["rows"])
        lines += [
            "",
            f"{result['model']}: {result['tokens_per_s']:,.0f} tokens a second (prompts counted "
            f"once, {result['tokens_per_step']:.0f} a step of {BATCH} pairs); first call "
            f"{result['first_call_s']:.1f} s with compiling and {BATCHES} steps, reference "
            f"{result['reference_s']:.1f} s; largest resident memory {result['peak_mib']:.0f} MiB "
            f"({peers}).",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the races and write results/bench_dpo_step.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=("real", "hidden128"))
    parser.add_argument("--micro-batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    rounds = 2 if arguments.quick else arguments.rounds
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        cases = {"real": ("stories260K", arguments.model)}
        if arguments.only != "real":
            cases["hidden128"] = ("hidden 128", widen(arguments.model, Path(temporary)))
        for case, (label, folder) in cases.items():
            if arguments.only in (None, case):
                found = race(folder, label, arguments.peer_python, rounds, arguments.micro_batch)
                results.append(found)
                print(report([found]), flush=True)
    if arguments.quick:
        return
    content = {
        "results": results,
        "environment": {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)),
            **{name: version(name) for name in ("jax", "flax", "optax")},
        },
    }
    target = HERE / "results"
    target.mkdir(exist_ok=True)
    (target / "bench_dpo_step.json").write_text(json.dumps(content, indent=1) + "\n")
    (target / "bench_dpo_step.md").write_text(report(results))


if __name__ == "__main__":
    main()
