"""Preference training on one GPU: 8 billion weights, 63 adapters, a population of small models.

    python benchmarks/gpu_dpo.py                 # at most 10 minutes; writes results/gpu_dpo.*
    python benchmarks/gpu_dpo.py --smoke         # tiny shapes, anywhere; writes nothing
    python benchmarks/gpu_dpo.py --part full     # one part: full, torch, adapters, population

Every part runs in a process of its own, which leaves the device empty for the next, and is stopped
when its share of the time is up: what it printed is kept.

full        Llama-3-8B's shape with random weights: every parameter trained by DPO, 8-bit AdamW,
            bfloat16 weights rounded at random, rows of 1,024 tokens (a prompt of 512, two answers
            of 256 that share it), everything in a layer computed again.
torch       The same pairs by PyTorch and transformers, as TRL does it: two sequences a pair,
            bfloat16, gradient checkpoints, SDPA, fused AdamW. Seconds a pair are compared.
adapters    63 adapters of rank 8 on one frozen base of that shape, in one program, by vmap and in
            chunks, against one adapter's program, which 63 sequential runs would call in turn.
population  All of Fig. 3: 378 trainings of a model of 260,000 weights, 64 steps of 16 pairs, in
            the fastest of map, vmap and chunks, compiling included.

To be reached on an H200: 45% of the peak by 6 N a token and 1.3 times PyTorch; 1.4 times the
sequential adapters, in 139 GiB; Fig. 3 in 3 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _gpu import FORMULA, environment, heading, matmul_peak, peak_memory, rate, spread, timed, write

HERE = Path(__file__).resolve().parent
PARTS = {"full": 150, "torch": 90, "adapters": 180, "population": 140}
"""Seconds that each part may take."""
LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
}
TINY = {
    **LLAMA_8B,
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
STORIES = {
    **TINY,
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
}


def random_params(config: Any, dtype: str) -> tuple[Any, Any]:
    """Return a graphdef and random weights, made leaf by leaf on the device."""
    import jax
    import jax.numpy as jnp

    from jaxpref.llm.decoder import abstract_model

    graphdef, shapes = abstract_model(config, dtype)
    leaves, structure = jax.tree.flatten(shapes)
    made = []
    for number, leaf in enumerate(leaves):
        key = jax.random.key(number)
        normal = jax.jit(
            lambda key, leaf=leaf: (
                jax.random.normal(key, leaf.shape, leaf.dtype) * jnp.asarray(0.02, leaf.dtype)
            )
        )
        ones = jax.jit(lambda key, leaf=leaf: jnp.ones(leaf.shape, leaf.dtype))
        made.append((normal if len(leaf.shape) > 1 and leaf.shape[-1] > 1 else ones)(key))
    return graphdef, jax.tree.unflatten(structure, made)


def random_rows(config: Any, count: int, prompt: int, answer: int) -> Any:
    """Return shared rows of one prompt and two answers, of random tokens."""
    import numpy as np

    from jaxpref.llm.rows import Tokens, pack_rows

    random = np.random.default_rng(0)

    def some(size: int) -> tuple[int, ...]:
        return tuple(random.integers(3, config.vocab_size, size).tolist())

    records = [Tokens(some(prompt), (some(answer), some(answer))) for _ in range(count)]
    return pack_rows(records, max_length=prompt + answer, width=prompt + 2 * answer).rows


def batch_of(rows: int, steps: int | None = None, members: int | None = None) -> Any:
    """Return batches of the first rows, for one step, or many, or many of several members."""
    import numpy as np

    from jaxpref.llm.training import Batches

    lead = tuple(size for size in (members, steps) if size is not None)
    number = np.broadcast_to(np.arange(rows, dtype=np.int32), (*lead, rows))
    return Batches(number, np.ones(number.shape, np.float32), None, np.full(lead, 5e-6, "f4"))


def settings_of(beta: Any = 0.1) -> Any:
    """Return the numbers of the loss; members have betas of their own."""
    import numpy as np

    from jaxpref.llm.losses import LossSettings

    values = (np.asarray(beta, np.float32), 0.0, 1.0, 1.0)
    return LossSettings(*(np.full(np.shape(beta), value, np.float32) for value in values))


# --- every parameter ----------------------------------------------------------------------------


def full(smoke: bool, peak: float) -> dict[str, Any]:
    """Return the step of full-parameter DPO: rate, spread, compile time, memory."""
    from functools import partial

    import jax
    import jax.numpy as jnp

    from jaxpref.llm.config import decoder_config
    from jaxpref.llm.plan import Workload, plan_training
    from jaxpref.llm.reference import reference_logps
    from jaxpref.llm.trainer import TrainOptions
    from jaxpref.llm.training import dpo_step, init_state

    config = decoder_config(TINY if smoke else LLAMA_8B)
    pairs, prompt, answer, rounds = (2, 16, 8, 3) if smoke else (16, 512, 256, 12)
    options = TrainOptions(
        batch_size=pairs,
        micro_batch=pairs,
        remat="full",
        logit_chunk=answer // 2,
        optimizer="adamw8bit",
        precision="bfloat16-stochastic",
    )
    workload = Workload(prompt + 2 * answer, 2 * answer, rows=pairs)
    plan = plan_training(config, options, workload)
    graphdef, params = random_params(config, "bfloat16")
    rows = jax.tree.map(jnp.asarray, random_rows(config, pairs, prompt, answer))
    recipe = plan.recipe
    begin = time.perf_counter()
    reference = jnp.asarray(
        reference_logps(graphdef, params, rows, recipe=recipe, batch_size=pairs)
    )
    reference_s = time.perf_counter() - begin
    state = jax.jit(partial(init_state, recipe=recipe), donate_argnums=0)(params)
    del params
    batch, settings = batch_of(pairs), settings_of()
    step = jax.jit(partial(dpo_step, graphdef, recipe=recipe), donate_argnums=0)
    begin = time.perf_counter()
    step = step.lower(state, rows, reference, batch, settings).compile()
    compile_s = time.perf_counter() - begin
    losses: list[float] = []

    def one() -> None:
        nonlocal state
        state, metrics = step(state, rows, reference, batch, settings)
        losses.append(float(metrics.loss))

    times = [timed(one) for _ in range(rounds + 2)][2:]
    found = spread(times)
    tokens = pairs * rows.width
    measured = peak_memory()
    return {
        "parameters": plan.parameters,
        "pairs": pairs,
        "tokens_per_step": tokens,
        "attention": recipe.attention,
        "remat": recipe.remat,
        "losses": losses,
        "steps": found,
        "seconds_per_pair": found["median_s"] / pairs,
        **rate(tokens, found["median_s"], plan.parameters, peak),
        "attention_flops": plan.attention_flops,
        "compile_s": compile_s,
        "reference_first_call_s": reference_s,
        "planned_bytes": plan.total,
        "peak_memory_bytes": measured,
        "plan_error": None if measured is None else plan.total / measured - 1,
    }


def torch(smoke: bool, peak: float) -> dict[str, Any]:
    """Return PyTorch's step of the same pairs; why there is none, where there is none."""
    try:
        import torch as pt
        import torch.nn.functional as functional
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        return {"skipped": str(error)}
    cuda = pt.cuda.is_available()
    if not cuda and not smoke:
        return {"skipped": "PyTorch has no GPU"}
    shape = {k: v for k, v in (TINY if smoke else LLAMA_8B).items() if k != "model_type"}
    pairs, prompt, answer, rounds = (2, 16, 8, 3) if smoke else (16, 512, 256, 6)
    device = "cuda" if cuda else "cpu"
    pt.manual_seed(0)
    pt.set_default_dtype(pt.bfloat16)
    with pt.device(device):
        model = LlamaForCausalLM(LlamaConfig(**shape, attn_implementation="sdpa"))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False
    model.train()
    optimizer = pt.optim.AdamW(model.parameters(), lr=5e-6, weight_decay=0.0, fused=cuda)
    tokens = pt.randint(3, shape["vocab_size"], (2 * pairs, prompt + answer), device=device)
    tokens[pairs:, :prompt] = tokens[:pairs, :prompt]
    reference = pt.zeros(pairs, device=device, dtype=pt.float32)
    at_once = max(1, pairs // 4)  # of pairs: logits of all would not fit

    def logps(part: Any) -> Any:
        logits = model(part, logits_to_keep=answer + 1).logits[:, :-1].float()
        target = part[:, -answer:]
        each = -functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
        return each.sum(1)

    def one() -> None:
        for start in range(0, pairs, at_once):
            index = pt.arange(start, start + at_once, device=device)
            found = logps(pt.cat([tokens[index], tokens[pairs + index]]))
            margin = found[:at_once] - found[at_once:] - reference[index]
            (-functional.logsigmoid(0.1 * margin).sum() / pairs).backward()
        pt.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if cuda:
            pt.cuda.synchronize()

    times = [timed(one) for _ in range(rounds + 1)][1:]
    found = spread(times)
    count = sum(p.numel() for p in model.parameters())
    seen = tokens.numel()
    return {
        "parameters": count,
        "pairs": pairs,
        "tokens_per_step": seen,
        "steps": found,
        "seconds_per_pair": found["median_s"] / pairs,
        **rate(seen, found["median_s"], count, peak),
        "peak_memory_bytes": pt.cuda.max_memory_allocated() if cuda else None,
    }


# --- adapters -----------------------------------------------------------------------------------


def adapters(smoke: bool, peak: float) -> dict[str, Any]:
    """Return 63 adapters in one program against one adapter's program, by tokens a second."""
    from dataclasses import replace

    import jax
    import numpy as np

    from jaxpref.llm.attention import best_attention
    from jaxpref.llm.config import decoder_config
    from jaxpref.llm.lora import LoraOptions, adapted_graphdef, initial_adapters
    from jaxpref.llm.population import Members, train_population
    from jaxpref.llm.trainer import TrainOptions

    config = decoder_config(TINY if smoke else LLAMA_8B)
    count, rank = (3, 2) if smoke else (63, 8)
    pairs, prompt, answer, steps, rounds = (1, 16, 8, 2, 2) if smoke else (1, 512, 256, 1, 3)
    lora = LoraOptions(rank=rank)
    _, params = random_params(config, "bfloat16")
    graphdef = adapted_graphdef(config, lora, dtype="bfloat16")
    options = TrainOptions(batch_size=pairs, precision="bfloat16", lora=lora, remat="full")
    rows = random_rows(config, pairs, prompt, answer)
    recipe = replace(
        options.recipe(2),
        logit_width=2 * answer,
        logit_chunk=answer // 2,
        micro_batch=None,
        attention=best_attention("bfloat16", config.head_dim),
    )
    one = jax.tree.map(np.asarray, initial_adapters(config, lora, jax.random.key(0)))

    def members(number: int) -> Any:
        stacked = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (number, *leaf.shape)), one)
        return Members(batch_of(pairs, steps, number), settings_of(np.full(number, 0.1)), stacked)

    reference = np.zeros((pairs, 2), np.float32)
    found: dict[str, Any] = {"members": count, "rank": rank, "steps": steps}
    tokens = pairs * steps * (prompt + 2 * answer)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    for name, number, mode, chunk in (
        ("sequential", 1, "map", 1),
        ("chunks of 9", count, "chunks", min(9, count)),
        ("vmap", count, "vmap", 1),
    ):

        def run(number: int = number, mode: str = mode, chunk: int = chunk) -> None:
            blocks = train_population(
                graphdef,
                params,
                rows,
                reference,
                members(number),
                recipe=recipe,
                evaluation=nothing,
                mode=mode,
                block=number,
                chunk=chunk,
            )
            for _, trained in blocks:
                assert np.isfinite(trained.metrics.loss).all()

        try:
            first = timed(run)
            times = spread([timed(run) for _ in range(rounds)])
        except jax.errors.JaxRuntimeError as error:  # does not fit: said, and the next is tried
            found[name] = {"failed": str(error).split("\n")[0][:200]}
            continue
        speed = rate(number * tokens, times["median_s"], parameters, peak)
        found[name] = {
            "calls": times,
            "first_call_s": first,
            **speed,
            "mfu_4n": speed["mfu_6n"] * 4 / 6,  # no gradients of the frozen weights
            "peak_memory_bytes": peak_memory(),
        }
        if name != "sequential":
            alone = found["sequential"]["tokens_per_second"]
            found[name]["times_sequential"] = speed["tokens_per_second"] / alone
        print(json.dumps(found), flush=True)  # kept, should the time be up before the next
    return found


def nothing(params: Any, data: Any) -> Any:
    """Keep nothing but a number of a trained policy."""
    import jax
    import jax.numpy as jnp

    return jnp.sum(jax.tree.leaves(params)[0].astype(jnp.float32))


# --- a population of small models ---------------------------------------------------------------


def population(smoke: bool, peak: float) -> dict[str, Any]:
    """Return the time of all of Fig. 3, in the fastest way of a few steps' trial."""
    import jax
    import numpy as np

    from jaxpref.llm.config import decoder_config
    from jaxpref.llm.population import MODES, Members, measure_modes, train_population
    from jaxpref.llm.training import Batches, Recipe

    config = decoder_config(TINY if smoke else STORIES)
    count, steps, pairs, table = (3, 2, 4, 16) if smoke else (378, 64, 16, 3600)
    prompt, answer = (16, 8) if smoke else (24, 24)
    graphdef, params = random_params(config, "float32")
    rows = random_rows(config, table, prompt, answer)
    recipe = Recipe(clip_norm=1.0, logit_width=2 * answer)
    random = np.random.default_rng(0)
    number = random.integers(0, table, (count, steps, pairs)).astype(np.int32)
    turned = random.integers(0, 2, number.shape).astype(np.float32)
    rates = np.full((count, steps), 1e-4, np.float32)
    batches = Batches(number, np.ones(number.shape, np.float32), turned, rates)
    members = Members(batches, settings_of(np.full(count, 0.1)))
    reference = np.full((table, 2), -50.0, np.float32)
    given = (graphdef, params, rows, reference, members)
    block = min(count, 63)
    begin = time.perf_counter()
    trials = measure_modes(*given, recipe=recipe, steps=2, block=block, chunk=9, modes=MODES)
    trial_s = time.perf_counter() - begin
    jax.clear_caches()
    begin = time.perf_counter()
    losses = [
        trained.metrics.loss
        for _, trained in train_population(
            *given,
            recipe=recipe,
            evaluation=nothing,
            mode=trials[0].mode,
            block=block,
            chunk=9,
        )
    ]
    seconds = time.perf_counter() - begin
    tokens = count * steps * pairs * (prompt + 2 * answer)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {
        "members": count,
        "steps": steps,
        "pairs": pairs,
        "mode": trials[0].mode,
        "trials": [trial._asdict() for trial in trials],
        "trials_s": trial_s,
        "seconds_with_compiling": seconds,
        "all_finite": bool(all(np.isfinite(loss).all() for loss in losses)),
        **rate(tokens, seconds, parameters, peak),
        "peak_memory_bytes": peak_memory(),
    }


# --- the report ---------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = heading(found)
    lines += [
        f"Peak {found['peak_flops'] / 1e12:.3g} TFLOP/s of bfloat16 products, measured in this "
        f"run. {FORMULA}",
        "",
    ]
    for name in PARTS:
        part = found["parts"].get(name)
        if part is not None:
            lines += [f"## {name}", "", *_lines(part), ""]
    ours, theirs = (found["parts"].get(name, {}) for name in ("full", "torch"))
    if "seconds_per_pair" in ours and "seconds_per_pair" in theirs:
        ratio = theirs["seconds_per_pair"] / ours["seconds_per_pair"]
        lines.append(f"A pair takes PyTorch {ratio:.2f} times as long.")
    return "\n".join(lines) + "\n"


def _lines(part: dict[str, Any], above: str = "") -> list[str]:
    found = []
    for name, value in part.items():
        if isinstance(value, dict):
            found += _lines(value, f"{above}{name}: ")
        else:
            found.append(f"- {above}{name.replace('_', ' ')}: {_shown(name, value)}")
    return found


def _shown(name: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_shown("", one) for one in value)
    if name.endswith("bytes") and value is not None:
        return f"{value / 2**30:.2f} GiB"
    if name.startswith(("mfu", "plan_error")) and value is not None:
        return f"{value:.1%}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run_part(name: str, smoke: bool, peak: float) -> dict[str, Any]:
    """Run a part in a process of its own, and return what it found or why it found nothing."""
    command = [sys.executable, str(Path(__file__).resolve()), "--part", name, "--inside"]
    command += ["--smoke"] * smoke + ["--peak", repr(peak)]
    env = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95", **os.environ}
    env.pop("XLA_PYTHON_CLIENT_PREALLOCATE", None)
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, env=env, timeout=PARTS[name]
        )
        written, failed = done.stdout, {"failed": f"exit code {done.returncode}"}
        failed = failed if done.returncode else {}
    except subprocess.TimeoutExpired as error:
        written = error.stdout or ""
        if isinstance(written, bytes):  # as it is, although text was asked for
            written = written.decode()
        failed = {"failed": f"not done in {PARTS[name]} s"}
    lines = [line for line in written.split("\n") if line.startswith("{") and line.endswith("}")]
    return {**(json.loads(lines[-1]) if lines else {}), **failed}


def main() -> None:
    """Run the parts, and write the results of a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--peak", type=float, help="FLOP/s to measure against, if known")
    arguments = parser.parse_args()
    parts = arguments.part or list(PARTS)
    if arguments.inside:
        print(json.dumps(globals()[parts[0]](arguments.smoke, arguments.peak)))
        return
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the parts need the memory
    found: dict[str, Any] = {
        "environment": environment(),
        "peak_flops": arguments.peak or matmul_peak(256 if arguments.smoke else 8192),
        "parts": {},
    }
    for name in parts:
        if arguments.smoke:
            found["parts"][name] = globals()[name](True, found["peak_flops"])
        else:
            found["parts"][name] = run_part(name, False, found["peak_flops"])
        print(name, json.dumps(found["parts"][name]), file=sys.stderr, flush=True)
    write("gpu_dpo", found, report(found), smoke=arguments.smoke or parts != list(PARTS))


if __name__ == "__main__":
    main()
