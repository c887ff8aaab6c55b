"""The audit against what a user would otherwise do: refits, finite differences, dense designs.

Every ratio is of one process and one machine, ours and the other side in turn. Peers are no
dependencies of the package: choix has to be installed. Three questions:

* all pairs' largest sensitivity, 300 items and 4,642 observed pairs, against finite differences of
  warm-started choix.ilsr_pairwise_dense (timed on a stated number of the pairs, times their
  number);
* 5,000 items and a million comparisons: one prediction's derivatives against one refit,
  fit_pairwise of the same Comparisons from nothing (there is no warmer one to be had at this size),
  the first of a fit and a further one, on all cores and on one; the whole audit; and the 1,000 most
  fragile pairs, with the memory they take;
* how many comparisons to drop until each two neighbours of 100 items change places, against the
  published approach of RankAMIP: a dense design matrix with a row for each comparison, influences
  by one Newton step, the shortest prefix predicted to flip, and one refit [1]_.

References
----------
.. [1] J. Y. Huang, Y. Shen, D. Wei, T. Broderick, "Dropping Just a Handful of Preferences Can
   Change Top Large Language Model Rankings", 2025: approximate maximum influence for Bradley-Terry.
   Written anew here from its description.

Usage: ``OPENBLAS_NUM_THREADS=1 python benchmarks/bench_audit.py`` (about 5 minutes); ``--smoke``
for small sizes. One thread for both sides: a threaded solve of a hundred unknowns takes many times
longer where other work shares the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxpref as jp
from jaxpref.audit.conclusions import Conclusions
from jaxpref.audit.large import fragile_pairs
from jaxpref.audit.pairs import scan_pairs
from jaxpref.report.files import write_text

HERE = Path(__file__).parent


class Sizes(NamedTuple):
    """How large the problems are, and how often things are timed."""

    items: int = 300
    edges: int = 4642
    differences: int = 60
    large: int = 5000
    comparisons: int = 1_000_000
    fragile: int = 1000
    ranked: int = 100
    votes: int = 10_000
    amip: int = 8
    rounds: int = 5


SMOKE = Sizes(30, 120, 5, 60, 3000, 20, 12, 400, 3, 2)


def seconds(run: Any) -> tuple[float, Any]:
    """Return how long a call takes, and what it returns."""
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def spread(values: list[float]) -> dict[str, float]:
    """Return median and range."""
    return {
        "median": float(np.median(values)),
        "low": float(np.min(values)),
        "high": float(np.max(values)),
    }


def sparse_data(items: int, edges: int, seed: int = 0) -> jp.Comparisons:
    """Return comparisons of so many random pairs, 2 to 40 each, of normal scores."""
    rng = np.random.default_rng(seed)
    a, b = np.triu_indices(items, 1)
    keep = np.sort(rng.choice(len(a), edges, replace=False))
    a, b = a[keep], b[keep]
    truth = rng.normal(0, 1, items)
    number = rng.integers(2, 41, edges)
    wins = rng.binomial(number, 1 / (1 + np.exp(truth[b] - truth[a])))
    wins = np.clip(wins, 1, number - 1)
    names = tuple(f"item{k}" for k in range(items))
    return jp.Comparisons(names, a, b, wins, number - wins, np.zeros(edges))


def many_votes(items: int, count: int, seed: int = 1) -> jp.Comparisons:
    """Return so many comparisons of random pairs of items with normal scores."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1, items)
    a = rng.integers(0, items, count)
    b = (a + 1 + rng.integers(0, items - 1, count)) % items
    won = rng.random(count) < 1 / (1 + np.exp(truth[b] - truth[a]))
    winner, loser = np.where(won, a, b), np.where(won, b, a)
    return jp.Comparisons.from_arrays(winner, loser, items=tuple(f"item{k}" for k in range(items)))


# All pairs against finite differences ---------------------------------------------------------


def all_pairs(sizes: Sizes) -> dict[str, Any]:
    """Return the largest sensitivity of all pairs, against choix's finite differences."""
    fit = jp.fit_pairwise(sparse_data(sizes.items, sizes.edges))
    first, table = seconds(lambda: scan_pairs(fit, 2**13, None))
    peer = FiniteDifferences(fit)
    ours, theirs, ratios = [], [], []
    chosen = np.random.default_rng(0).choice(sizes.edges, sizes.differences, replace=False)
    for part in np.array_split(chosen, sizes.rounds):
        mine, table = seconds(lambda: scan_pairs(fit, 2**13, None))
        each, _ = seconds(lambda part=part: [peer.add(int(edge)) for edge in part])
        ours.append(mine)
        theirs.append(each / len(part) * sizes.edges)
        ratios.append(theirs[-1] / mine)
    return {
        "items": sizes.items,
        "observed_pairs": sizes.edges,
        "pairs": len(table.item_a),
        "differences_timed": sizes.differences,
        "ours_s": spread(ours),
        "ours_first_call_s": first,
        "choix_s_extrapolated": spread(theirs),
        "ratio": spread(ratios),
        "target": 10,
        "choix_error": peer.error,
        "memory": memory("scan", sizes),
        "jacobian_gib": len(table.item_a) * sizes.edges * 8 / 2**30,
    }


class FiniteDifferences:
    """Forward differences of choix's fit, each from the fit before, the largest kept per pair."""

    def __init__(self, fit: jp.FitResult) -> None:
        import choix  # pyright: ignore[reportMissingImports]

        self._choix, self._fit, pairs = choix, fit, fit.pairs
        self._wins = np.zeros((fit.num_items,) * 2)
        self._wins[pairs.item_a, pairs.item_b] = pairs.wins_a
        self._wins[pairs.item_b, pairs.item_a] = pairs.wins_b
        self._base = choix.ilsr_pairwise_dense(self._wins, tol=1e-12)
        self._chance = self._chances(self._base)
        self.largest = np.zeros_like(self._chance)
        self.error = 0.0

    def _chances(self, scores: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(scores - scores[:, None]))

    def add(self, edge: int, step: float = 1e-4) -> None:
        """Take one observed pair into account."""
        pairs = self._fit.pairs
        a, b = int(pairs.item_a[edge]), int(pairs.item_b[edge])
        by = step * (pairs.wins_a[edge] + pairs.wins_b[edge])
        self._wins[a, b] += by
        self._wins[b, a] -= by
        moved = self._choix.ilsr_pairwise_dense(self._wins, initial_params=self._base, tol=1e-8)
        self._wins[a, b] -= by
        self._wins[b, a] += by
        slope = (self._chances(moved) - self._chance) / step
        np.maximum(self.largest, np.abs(slope), out=self.largest)
        if self.error == 0.0:  # the first one is checked, all are timed
            names = self._fit.items[0], self._fit.items[1]
            exact = jp.network_sensitivity(self._fit, *names).derivative[edge]
            self.error = float(abs(slope[0, 1] - exact))


# Large fits -----------------------------------------------------------------------------------


def large(sizes: Sizes) -> dict[str, Any]:
    """Return one prediction's derivatives against a refit, and the most fragile pairs."""
    data = many_votes(sizes.large, sizes.comparisons)
    fit = jp.fit_pairwise(data)
    names = fit.items[3], fit.items[sizes.large // 2]
    compiled, row = seconds(lambda: jp.network_sensitivity(fit, *names))
    every = against_refits(data, fit, names, 3 * sizes.rounds)
    one_core = on_one_core(lambda: against_refits(data, fit, names, 3 * sizes.rounds))
    whole, _ = seconds(lambda: jp.audit(replace(fit), comparisons=data))
    worst, table = seconds(lambda: fragile_pairs(fit, sizes.fragile))
    return {
        "items": sizes.large,
        "comparisons": sizes.comparisons,
        "observed_pairs": len(fit.pairs.item_a),
        "first_call_of_the_process_s": compiled,
        "predictions": every,
        "predictions_on_one_core": one_core,
        "target": 5,
        "audit_s": whole,
        "audit_refits": whole / every["refit_s"]["median"],
        "derivative_error": _difference_error(data, fit, names, row),
        "fragile_pairs": len(table.item_a),
        "fragile_s": worst,
        "fragile_target_s": 60,
        "largest_sensitivity": float(table.sensitivity[0]),
        "memory": memory("fragile", sizes),
        "memory_of_twice_as_many": memory("fragile_twice", sizes),
        "memory_of_the_audit": memory("audit", sizes),
    }


def against_refits(
    data: jp.Comparisons, fit: jp.FitResult, names: tuple[str, str], rounds: int
) -> dict[str, Any]:
    """Return the time of the first prediction of a fit, of a further one, and of a refit."""
    times: dict[str, list[float]] = {"first": [], "further": [], "refit": []}
    for _ in range(rounds):
        fresh = replace(fit)  # of which nothing is kept yet
        times["first"].append(seconds(lambda fresh=fresh: jp.network_sensitivity(fresh, *names))[0])
        back = names[::-1]
        times["further"].append(
            seconds(lambda fresh=fresh, back=back: jp.network_sensitivity(fresh, *back))[0]
        )
        times["refit"].append(seconds(lambda: jp.fit_pairwise(data))[0])
    refits = np.array(times["refit"])
    found = {f"{name}_s": spread(values) for name, values in times.items()}
    for name in ("first", "further"):
        found[f"{name}_ratio"] = spread((refits / np.array(times[name])).tolist())
    return found


def on_one_core(run: Any) -> Any:
    """Return what a function returns with one core to itself; None where cores cannot be chosen."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        return run()
    finally:
        os.sched_setaffinity(0, before)


def _difference_error(
    data: jp.Comparisons, fit: jp.FitResult, names: tuple[str, str], row: Any
) -> float:
    """Return how far derivatives are from central differences of refits, at three edges."""
    pairs, errors = fit.pairs, []
    movable = np.minimum(pairs.wins_a, pairs.wins_b) > 0  # fractions that can move both ways
    largest = np.argsort(-np.abs(row.derivative) * movable, kind="stable")[[0, 5, 10]]
    for edge in largest:
        slopes = []
        for step in (1e-3, 2e-3):
            ends = []
            for by in (step, -step):
                move = np.zeros(len(pairs.item_a))
                move[edge] = by * (pairs.wins_a[edge] + pairs.wins_b[edge])
                up, down = pairs.wins_a + move, pairs.wins_b - move
                if min(up[edge], down[edge]) < 0:
                    break
                again = jp.Comparisons(fit.items, pairs.item_a, pairs.item_b, up, down, 0 * up)
                ends.append(jp.fit_pairwise(again, tolerance=1e-13).probability(*names))
            if len(ends) == 2:
                slopes.append((ends[0] - ends[1]) / (2 * step))
        if len(slopes) == 2:
            errors.append(abs((4 * slopes[0] - slopes[1]) / 3 - row.derivative[edge]))
    return float(max(errors, default=np.nan))


# Flips ----------------------------------------------------------------------------------------


class DenseDesign:
    """RankAMIP's approach: logistic regression on a row for each comparison, item 0 at zero."""

    def __init__(self, data: jp.Comparisons) -> None:
        pairs = data.pairs()
        winner = np.concatenate([np.repeat(pairs.item_a, pairs.wins_a.astype(int)),
                                 np.repeat(pairs.item_b, pairs.wins_b.astype(int))])  # fmt: skip
        loser = np.concatenate([np.repeat(pairs.item_b, pairs.wins_a.astype(int)),
                                np.repeat(pairs.item_a, pairs.wins_b.astype(int))])  # fmt: skip
        rows = np.arange(len(winner))
        design = np.zeros((len(winner), data.num_items))
        design[rows, winner], design[rows, loser] = 1.0, -1.0
        self.design = design[:, 1:]
        self.scores = self.fit(np.ones(len(winner)))

    def fit(self, keep: np.ndarray) -> np.ndarray:
        """Return the scores from nothing, by Newton steps with weights of the rows; NaN if none."""
        scores = np.zeros(self.design.shape[1])
        for _ in range(50):
            chance = 1 / (1 + np.exp(-self.design @ scores))
            weight = keep * chance * (1 - chance)
            hessian = self.design.T @ (weight[:, None] * self.design)
            try:
                step = np.linalg.solve(hessian, self.design.T @ (keep * (1 - chance)))
            except np.linalg.LinAlgError:  # the rows left no longer hold the items together
                return np.full_like(scores, np.nan)
            scores += step
            if np.abs(step).max() < 1e-10:
                break
        return scores

    def flip(self, ahead: int, behind: int) -> tuple[int, bool]:
        """Return how many rows are predicted to reverse two items, and whether a refit agrees."""
        unit = np.zeros(self.design.shape[1] + 1)
        unit[ahead], unit[behind] = 1.0, -1.0
        unit = unit[1:]
        chance = 1 / (1 + np.exp(-self.design @ self.scores))
        weight = chance * (1 - chance)
        inverse = np.linalg.inv(self.design.T @ (weight[:, None] * self.design))
        through = self.design @ inverse
        lever = weight * np.sum(through * self.design, axis=1)
        influence = (through @ unit) * (1 - chance) / (1 - lever)  # lost with the row
        order = np.argsort(-influence)
        lost = np.cumsum(influence[order])
        count = int(np.searchsorted(lost, float(unit @ self.scores))) + 1
        keep = np.ones(len(chance))
        keep[order[:count]] = 0.0
        return count, bool(unit @ self.fit(keep) < 0)


def flips(sizes: Sizes) -> dict[str, Any]:
    """Return how many comparisons reverse neighbours, ours and RankAMIP's."""
    data = many_votes(sizes.ranked, sizes.votes, seed=2)
    fit = jp.fit_pairwise(data)
    ranked = fit.rank()
    neighbours = list(zip(ranked[:-1], ranked[1:], strict=True))
    dense = DenseDesign(data)
    wide = [(ranked[k], ranked[k + len(ranked) // 10]) for k in range(0, len(ranked) // 2, 10)]
    result: dict[str, Any] = {"items": sizes.ranked, "comparisons": sizes.votes}
    for name, pairs in (("neighbours", neighbours), ("further_apart", wide)):
        timed = [
            pairs[k]
            for k in np.linspace(0, len(pairs) - 1, min(sizes.amip, len(pairs))).astype(int)
        ]

        def reverse_all(pairs: list[tuple[str, str]] = pairs) -> list[Any]:
            conclusions = Conclusions(fit, None)
            return [conclusions.pair(a, b, "drop") for a, b in pairs]

        whole, found = seconds(reverse_all)
        rows, ratios = [], []
        for pair in timed:
            mine, flip = seconds(
                lambda pair=pair: Conclusions(fit, None).pair(pair[0], pair[1], "drop")
            )
            indices = fit.index(pair[0]), fit.index(pair[1])
            other, (count, agreed) = seconds(lambda indices=indices: dense.flip(*indices))
            rows.append((mine, other, flip.comparisons, count, agreed))
            ratios.append(other / mine)
        result[name] = {
            "pairs": len(pairs),
            "ours_all_s": whole,
            "ours_per_pair_s": whole / len(pairs),
            "confirmed": sum(flip.status == "confirmed" for flip in found),
            "budgets": spread([float(flip.comparisons or np.nan) for flip in found]),
            "timed": len(timed),
            "ours_s": spread([row[0] for row in rows]),
            "rank_amip_s": spread([row[1] for row in rows]),
            "ratio": spread(ratios),
            "rank_amip_refit_disagrees": sum(not row[4] for row in rows),
            "ours_fewer": sum(row[2] is not None and row[2] < row[3] for row in rows),
            "ours_more": sum(row[2] is not None and row[2] > row[3] and row[4] for row in rows),
            "target": 20,
        }
    return result


# Memory ---------------------------------------------------------------------------------------


def memory(what: str, sizes: Sizes) -> dict[str, float]:
    """Return the peak memory of a part in a process of its own, above that of its fit, in MiB."""
    command = [sys.executable, __file__, "--memory", what]
    if sizes.items == SMOKE.items:
        command.append("--smoke")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_memory(what: str, sizes: Sizes) -> None:
    """Print peak memory before and after a part."""

    def peak() -> float:
        # Not getrusage, whose maximum a new process takes over from the one that started it.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    if what == "scan":
        fit = jp.fit_pairwise(sparse_data(sizes.items, sizes.edges))
        before = peak()
        scan_pairs(fit, 2**13, None)
    else:
        fit = jp.fit_pairwise(many_votes(sizes.large, sizes.comparisons))
        before = peak()
        if what == "audit":
            jp.audit(fit)
        else:
            fragile_pairs(fit, sizes.fragile * (2 if what == "fragile_twice" else 1))
    print(json.dumps({"before_mib": before, "peak_mib": peak(), "rise_mib": peak() - before}))


# The report -----------------------------------------------------------------------------------


def ratio(row: dict[str, float]) -> str:
    """Write a ratio with its range."""
    return f"{row['median']:.1f} ({row['low']:.1f} to {row['high']:.1f})"


def prediction_row(big: dict[str, Any], name: str) -> str:
    """Return the line of one prediction's derivatives, with the ratio on one core beside it."""
    every, one = big["predictions"], big["predictions_on_one_core"]
    alone = "" if one is None else f"; on one core {ratio(one[f'{name}_ratio'])}"
    what = {"first": "the first prediction of a fit", "further": "a further one"}[name]
    return (
        f"| {what}: {big['observed_pairs']:,} derivatives, {big['items']:,} items | "
        f"{1e3 * every[f'{name}_s']['median']:.0f} ms | one refit, "
        f"{1e3 * every['refit_s']['median']:.0f} ms | {ratio(every[f'{name}_ratio'])}{alone} | "
        f"{big['target']} |"
    )


def markdown(result: dict[str, Any]) -> str:
    """Return the result as a table with notes."""
    pairs, big, flip = result["all_pairs"], result["large"], result["flips"]
    near, wide = flip["neighbours"], flip["further_apart"]
    lines = [
        "# The audit, side by side",
        "",
        "| work | ours | the other side | ratio (range) | wanted |",
        "|---|---|---|---|---|",
        f"| largest sensitivity of {pairs['pairs']:,} pairs, {pairs['items']} items, "
        f"{pairs['observed_pairs']:,} observed | {pairs['ours_s']['median']:.2f} s | finite "
        f"differences of warm choix, {pairs['choix_s_extrapolated']['median']:.0f} s | "
        f"{ratio(pairs['ratio'])} | {pairs['target']} |",
        *(prediction_row(big, name) for name in ("first", "further")),
        f"| drops that reverse {near['pairs']} neighbours, {flip['items']} items, "
        f"{flip['comparisons']:,} comparisons | {1e3 * near['ours_per_pair_s']:.0f} ms a pair, "
        f"{near['confirmed']} confirmed | RankAMIP's approach, "
        f"{near['rank_amip_s']['median']:.2f} s a pair | {ratio(near['ratio'])} | "
        f"{near['target']} |",
        f"| the same, {wide['pairs']} pairs further apart | {1e3 * wide['ours_per_pair_s']:.0f} ms "
        f"a pair, {wide['confirmed']} confirmed | {wide['rank_amip_s']['median']:.2f} s a pair | "
        f"{ratio(wide['ratio'])} | {wide['target']} |",
        "",
        f"* Finite differences: {pairs['differences_timed']} of the {pairs['observed_pairs']:,} "
        "were timed; their time is that of all by proportion. The one compared is off by "
        f"{pairs['choix_error']:.1e}.",
        f"* All pairs: peak memory rises by {pairs['memory']['rise_mib']:.0f} MiB over the fit's; "
        f"the Jacobian would take {pairs['jacobian_gib']:.2f} GiB. First call, with compilation: "
        f"{pairs['ours_first_call_s']:.1f} s.",
        f"* {big['fragile_pairs']:,} most fragile of {big['items'] * (big['items'] - 1) // 2:,} "
        f"pairs: {big['fragile_s']:.1f} s (wanted: under {big['fragile_target_s']}); peak memory "
        f"rises by {big['memory']['rise_mib']:.0f} MiB, and by "
        f"{big['memory_of_twice_as_many']['rise_mib']:.0f} MiB for twice as many.",
        f"* The whole audit of these {big['comparisons']:,} comparisons takes as long as "
        f"{big['audit_refits']:.0f} refits ({big['audit_s']:.1f} s), and memory rises by "
        f"{big['memory_of_the_audit']['rise_mib']:.0f} MiB.",
        f"* Derivatives against extrapolated differences of refits, {big['items']:,} items: within "
        f"{big['derivative_error']:.1e}.",
        f"* RankAMIP's approach: {near['timed']} and {wide['timed']} pairs timed; its own refit "
        f"disagrees with its prediction in {near['rank_amip_refit_disagrees']} and "
        f"{wide['rank_amip_refit_disagrees']} of them; ours needs fewer comparisons in "
        f"{near['ours_fewer']} and {wide['ours_fewer']}, more in {near['ours_more']} and "
        f"{wide['ours_more']}. Every number of ours is that of a refit.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every part, print the table, write JSON and Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--memory", choices=("scan", "fragile", "fragile_twice", "audit"))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    sizes = SMOKE if options.smoke else Sizes()
    if options.memory:
        measure_memory(options.memory, sizes)
        return
    result = {
        "flips": flips(sizes),
        "all_pairs": all_pairs(sizes),
        "large": large(sizes),
        "environment": {
            "cores": os.cpu_count(),
            "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
            "machine": platform.machine(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "numpy", "scipy", "choix")},
        },
    }
    print(markdown(result))
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "bench_audit.json", json.dumps(result, indent=1) + "\n")
    write_text(options.out / "bench_audit.md", markdown(result))


if __name__ == "__main__":
    main()
