"""A population of 16 trainings in one program against a Python loop of 16: one core, same rounds.

    taskset -c 0 python benchmarks/bench_population.py --model DIR
    python benchmarks/bench_population.py --model DIR --quick    # one round, writes nothing

The model given by ``--model`` (a Llama of 260,000 weights here), the paper's pairs, 16 to a step.
Times are of the processor, what is compiled first is apart; the order of the sides is drawn anew in
each round, and ratios are taken within it. Two questions:

What does the runner gain over a loop of runs? Sixteen calls of ``train_preferences`` in one
process, from the checkpoint and the texts to the losses, against the sweep's preparation and
population: it writes the rows and scores the reference once for all, and cuts the rows of each part
of a step to a width they fill.

What does the runner gain over a loop of its own arithmetic, the same cut rows and the reference
given? The population in its three ways, one member after the other (map), all at once (vmap) and
four at a time (chunks), against a call a step, as a training loop is written, and a call a member.
Nothing: a step's arithmetic takes so much longer than its call that members in turn save only the
compilation, and members side by side lose what the caches held and cannot cut their rows. Hence
"map" is the default on a processor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
MEMBERS, TARGET = 16, 1.2
MODES = ("map", "vmap", "chunks")
LOOPS = ("loop, a call a step", "loop, a call a member")
SOLO, WHOLE = "loop of train_preferences", "map, with the reference"


def sides(folder: Path, steps: int, whole: int) -> dict[str, Callable[[], np.ndarray]]:
    """Return every way of training the members: each returns the losses, (members, steps)."""
    import jax
    import jax.numpy as jnp

    from jaxpref.llm.population import Members, train_member, train_population
    from jaxpref.llm.sweep import SweepOptions, member_batches, prepare, sweep_grid
    from jaxpref.llm.training import dpo_step, init_state

    options = SweepOptions(pairs=16 * steps)
    grid = sweep_grid(omegas=[("dog", "cat", "bird")], p12=[0.99], p23=np.linspace(0, 1, MEMBERS))
    with TemporaryDirectory() as cache:
        setting = prepare(folder, options, cache=Path(cache))
    members: Members = jax.tree.map(jnp.asarray, member_batches(grid, options))
    rows = jax.tree.map(jnp.asarray, setting.rows)
    logps = jnp.asarray(setting.reference_logps)
    graphdef, start, recipe = setting.model.graphdef, setting.model.params, setting.recipe

    def population(mode: str) -> np.ndarray:
        blocks = train_population(
            graphdef,
            start,
            rows,
            logps,
            members,
            recipe=recipe,
            evaluation=_sum,
            mode=mode,
            block=MEMBERS,
        )
        return np.concatenate([trained.metrics.loss for _, trained in blocks])

    member_of = partial(train_member, graphdef, recipe=recipe, evaluation=_sum)
    run = jax.jit(lambda member: member_of(start, rows, logps, member, None))
    step = jax.jit(partial(dpo_step, graphdef, recipe=recipe), donate_argnums=0)

    def by_member() -> np.ndarray:
        found = [run(_at(members, number)) for number in range(MEMBERS)]
        return np.stack([np.asarray(trained.metrics.loss) for trained in found])

    def by_step() -> np.ndarray:
        losses = np.zeros((MEMBERS, steps), np.float32)
        for number in range(MEMBERS):
            member, state = _at(members, number), init_state(start, recipe)
            for at in range(steps):
                batch = _at(member.batches, at)
                state, metrics = step(state, rows, logps, batch, member.settings)
                losses[number, at] = metrics.loss
            float(_sum(state.params, None))
        return losses

    loops = dict(zip(LOOPS, (by_step, by_member), strict=True))
    longer = SweepOptions(pairs=16 * whole)
    apart = dict(zip((WHOLE, SOLO), whole_sides(folder, grid, longer), strict=True))
    return {**loops, **{mode: partial(population, mode) for mode in MODES}, **apart}


def whole_sides(folder: Path, grid: list[Any], options: Any) -> list[Callable[[], np.ndarray]]:
    """Return the runner and a loop of whole runs, each from the checkpoint to the losses."""
    from jaxpref.llm import load_model, load_tokenizer
    from jaxpref.llm.animals import support_records
    from jaxpref.llm.batches import Plan
    from jaxpref.llm.population import train_population
    from jaxpref.llm.rows import encode_rows
    from jaxpref.llm.sweep import member_batches, prepare
    from jaxpref.llm.train_options import TrainOptions
    from jaxpref.llm.trainer import train_preferences, trim_rows

    tokenizer, records = load_tokenizer(folder), support_records(nouns=options.nouns)
    members = member_batches(grid, options)

    def together() -> np.ndarray:
        with TemporaryDirectory() as cache:
            setting = prepare(folder, options, cache=Path(cache))
        given = (setting.model.graphdef, setting.model.params, setting.rows)
        blocks = train_population(
            *given,
            setting.reference_logps,
            members,
            recipe=setting.recipe,
            evaluation=_sum,
            mode="map",
            block=MEMBERS,
        )
        return np.concatenate([trained.metrics.loss for _, trained in blocks])

    def own_rows(number: int) -> Any:
        batches = _at(members.batches, number)
        order = zip(batches.rows.ravel(), batches.reversed.ravel(), strict=True)
        chosen = [
            records[row]._replace(responses=records[row].responses[:: -1 if turned else 1])
            for row, turned in order
        ]
        return trim_rows(encode_rows(chosen, tokenizer, max_length=512).rows)

    def one_by_one() -> np.ndarray:
        model, losses = load_model(folder), []
        for number, member in enumerate(grid):
            steps = np.arange(options.steps, dtype=np.int32)
            order = np.arange(options.pairs, dtype=np.int32).reshape(len(steps), -1)
            plan = Plan(0 * steps, order, np.ones(order.shape, np.float32), 0 * steps)
            chosen = TrainOptions(
                beta=member.beta, learning_rate=member.learning_rate, steps=len(steps)
            )
            found = train_preferences(model, own_rows(number), options=chosen, plan=plan)
            losses.append([step["loss"] for step in found.metrics])
        return np.asarray(losses)

    return [together, one_by_one]


def _at(tree: Any, number: int) -> Any:
    import jax

    return jax.tree.map(lambda leaf: leaf[number], tree)


def _sum(params: Any, data: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))


def race(folder: Path, steps: int, whole: int, rounds: int) -> dict[str, Any]:
    """Return each side's times, and how far its losses are from the first loop's."""
    ways = sides(folder, steps, whole)
    first, losses = {}, {}
    for name, run in ways.items():
        start = time.process_time()
        losses[name] = run()
        first[name] = time.process_time() - start
        print(f"{name}: first call {first[name]:.1f} s", flush=True)
    random = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name in random.permutation(list(ways)).tolist():
            start = time.process_time()
            ways[name]()
            times[name].append(time.process_time() - start)
    peers = {name: SOLO if name in (WHOLE, SOLO) else LOOPS[0] for name in ways}
    apart = {name: float(np.abs(losses[name] - losses[peers[name]]).max()) for name in ways}
    return {
        "members": MEMBERS,
        "steps": {name: whole if name in (WHOLE, SOLO) else steps for name in ways},
        "rounds": rounds,
        "first_call_s": first,
        "losses_apart": apart,
        "finite": bool(all(np.isfinite(value).all() for value in losses.values())),
        "times": times,
    }


def ratios(found: dict[str, Any], name: str, peer: str) -> np.ndarray:
    """Return peer over ours in each round: above 1, ours is faster."""
    return np.array(found["times"][peer]) / np.array(found["times"][name])


def report(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    head = "population | against | ratio (quartiles) | at least | a step | theirs | losses apart"
    head += " | first call | theirs"
    lines = [f"| {head} |", "|" + "---|" * 9]
    pairs = [(WHOLE, SOLO)]
    pairs += [(name, peer) for name in found["times"] if name in MODES for peer in LOOPS]
    for name, peer in pairs:
        low, middle, high = np.quantile(ratios(found, name, peer), [0.25, 0.5, 0.75])
        taken = found["members"] * found["steps"][name]
        medians = [np.median(found["times"][side]) / taken for side in (name, peer)]
        cells = (
            name,
            peer,
            f"{middle:.2f} ({low:.2f}-{high:.2f})",
            f"{TARGET:g}" if peer != LOOPS[1] else "-",
            *(f"{1e3 * value:.0f} ms" for value in medians),
            f"{max(found['losses_apart'][side] for side in (name, peer)):.0e}",
            *(f"{found['first_call_s'][side]:.1f} s" for side in (name, peer)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"{found['members']} members of {found['steps'][LOOPS[0]]} steps of 16 pairs, whole runs "
        f"of {found['steps'][SOLO]} (the sweeps' own are of 64), {found['rounds']} rounds. Losses "
        f"apart: at most, of the two sides' or from those of the loop with a call a step. All "
        f"{'finite' if found['finite'] else 'NOT finite'}. First call: compiling and one round.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the race and write results/bench_population.*."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--whole-steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    found = race(arguments.model, arguments.steps, arguments.whole_steps, rounds)
    print(report(found), flush=True)
    if arguments.quick:
        return
    found["environment"] = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        **{name: version(name) for name in ("jax", "flax", "optax")},
    }
    target = HERE / "results"
    target.mkdir(exist_ok=True)
    (target / "bench_population.json").write_text(json.dumps(found, indent=1) + "\n")
    (target / "bench_population.md").write_text(report(found))


if __name__ == "__main__":
    main()
