"""Rankings against choix and the bootstrap against evalica: sections of bench_fit.py.

    python benchmarks/_fit_rankings.py [--smoke] [--rounds 5]

Both sides run in one process, in turns. Ours starts from the same integers as the peer and includes
checking them, building the container and the existence check. Compilation is reported apart. The
error of either side is the largest difference of a centred score from a fit to a tolerance of
1e-12.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxpref.data import Comparisons, Rankings
from jaxpref.fit import bootstrap, fit_pairwise, fit_rankings

RESULTS = Path(__file__).parent / "results" / "rankings.json"


def draw(count: int, places: int, size: int) -> np.ndarray:
    """Return rankings of random items under scores of standard deviation 1, best first."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=size)
    item = np.stack([rng.choice(size, places, replace=False) for _ in range(count)])
    luck = truth[item] + rng.gumbel(size=item.shape)
    return np.take_along_axis(item, np.argsort(-luck, axis=1), axis=1)


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def centred(scores: Any) -> np.ndarray:
    """Return scores that sum to zero."""
    return np.asarray(scores) - np.mean(scores)


def in_turns(ours: Callable[[], Any], peer: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Return medians, the spread of the ratio, and the last results."""
    first, _ = timed(ours)
    times: list[tuple[float, float]] = []
    mine = theirs = None
    for _ in range(rounds):
        a, mine = timed(ours)
        b, theirs = timed(peer)
        times.append((a, b))
    own, other = np.array(times).T
    ratio = other / own
    return {
        "first_seconds": round(first, 4),
        "seconds": round(float(np.median(own)), 5),
        "peer_seconds": round(float(np.median(other)), 5),
        "ratio": round(float(np.median(ratio)), 1),
        "ratio_low": round(float(ratio.min()), 1),
        "ratio_high": round(float(ratio.max()), 1),
        "rounds": rounds,
        "results": (mine, theirs),
    }


def rankings_section(count: int, places: int, size: int, rounds: int) -> dict[str, Any]:
    """Compare fits of rankings with choix.ilsr_rankings."""
    import choix

    table = draw(count, places, size)
    lists = table.tolist()
    row = in_turns(
        lambda: fit_rankings(Rankings.from_lists(table)),
        lambda: choix.ilsr_rankings(size, lists),
        rounds,
    )
    fit, scores = row.pop("results")
    exact = fit_rankings(Rankings.from_lists(table), tolerance=1e-12, throw=False)
    return {
        "work": f"rankings, {count:,} x {places} of {size:,}",
        "peer": "choix.ilsr_rankings",
        **row,
        "status": fit.status,
        "gradient_norm": fit.gradient_norm,
        "error": float(np.abs(fit.scores - exact.scores).max()),
        "peer_error": float(np.abs(centred(scores) - exact.scores).max()),
        "reference": exact.status,
    }


def bootstrap_section(resamples: int, rounds: int) -> dict[str, Any]:
    """Compare the bootstrap of 100 items and 100,000 rows with a loop over evalica."""
    import evalica

    rng = np.random.default_rng(1)
    size, rows = 100, 100_000
    truth = rng.normal(size=size)
    a = rng.integers(0, size, rows)
    b = (a + rng.integers(1, size, rows)) % size
    won = rng.random(rows) < 1 / (1 + np.exp(truth[b] - truth[a]))
    winner, loser = np.where(won, a, b), np.where(won, b, a)
    fit = fit_pairwise(Comparisons.from_arrays(winner, loser))
    left, right = winner.tolist(), loser.tolist()
    outcome = [evalica.Winner.X] * rows

    def peer() -> np.ndarray:
        spread, draws = np.random.default_rng(2), []
        for _ in range(resamples):
            weight = np.bincount(spread.integers(0, rows, rows), minlength=rows).astype(float)
            found = evalica.bradley_terry(left, right, outcome, weights=weight.tolist())
            draws.append(centred(np.log(found.scores.sort_index().to_numpy())))
        return np.array(draws)

    key = jax.random.key(0)
    row = in_turns(lambda: bootstrap(fit, key=key, resamples=resamples), peer, rounds)
    ours, theirs = row.pop("results")
    errors = ours.standard_errors()
    return {
        "work": f"bootstrap, {resamples} resamples, N = {size}, {rows:,} rows",
        "peer": "evalica.bradley_terry in a loop",
        **row,
        "status": f"{len(ours.scores)} fitted, {ours.separable} separable",
        "error": resample_error(fit, key),
        "spread_over_information": float(np.mean(errors / fit.standard_errors())),
        "peer_spread_over_information": float(np.mean(theirs.std(axis=0) / fit.standard_errors())),
    }


def resample_error(fit: Any, key: jax.Array) -> float:
    """Return the largest error of a score over a few resamples, refitted to 1e-12."""
    from jaxpref.fit._host import generator
    from jaxpref.fit.bootstrap_draws import draw_wins

    found = bootstrap(fit, key=key, resamples=3).scores
    worst = 0.0
    drawn = draw_wins(fit, None, generator(key), 3, "nonparametric")
    for scores, wins in zip(found, drawn, strict=True):
        exact = fit_pairwise(Comparisons.from_counts(wins), tolerance=1e-12, throw=False)
        worst = max(worst, float(np.abs(scores - exact.scores).max()))
    return worst


def sections(*, smoke: bool = False, rounds: int = 5) -> list[Callable[[], dict[str, Any]]]:
    """Return the measurements, each a function without arguments that returns one row."""
    if smoke:
        return [
            lambda: rankings_section(500, 10, 10, 1),
            lambda: rankings_section(5_000, 10, 1000, 1),
            lambda: bootstrap_section(5, 1),
        ]
    return [
        lambda: rankings_section(5_000, 10, 10, rounds),
        lambda: rankings_section(200_000, 10, 1000, 1),
        lambda: bootstrap_section(100, 3),
    ]


def show(row: dict[str, Any]) -> str:
    """Write a row as a line."""
    peer_error = row.get("peer_error")
    theirs = "" if peer_error is None else f" (peer {peer_error:.0e})"
    return (
        f"{row['work']:<48} {row['seconds']:>9.4f} s  {row['peer']}: {row['peer_seconds']:.3f} s  "
        f"{row['ratio']:.1f}x ({row['ratio_low']:.1f}-{row['ratio_high']:.1f}, "
        f"{row['rounds']} rounds)  first {row['first_seconds']:.1f} s  {row['status']}  "
        f"error {row['error']:.0e}{theirs}"
    )


def main() -> None:
    """Print a line for each section, and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for section in sections(smoke=options.smoke, rounds=options.rounds):
        rows.append(section())
        print(show(rows[-1]), flush=True)
    if not options.smoke:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
