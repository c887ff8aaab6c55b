"""The sections of bench_fit.py on rankings, against choix, and on the bootstrap, against evalica.

Ours starts from the same integers as the peer and includes checking them, building the container
and the existence check. The error of a fit to rankings is the largest difference of a centred score
from a fit to a tolerance of 1e-12; that of the bootstrap, over a few resamples fitted so.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from _fit_pairwise import random_rows
from _harness import Contender, Row, centred, race

from jaxpref.data import Comparisons, Rankings
from jaxpref.fit import bootstrap, fit_pairwise, fit_rankings


def draw(count: int, places: int, size: int) -> np.ndarray:
    """Return rankings of random items under scores of standard deviation 1, best first."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=size)
    item = np.stack([rng.choice(size, places, replace=False) for _ in range(count)])
    luck = truth[item] + rng.gumbel(size=item.shape)
    return np.take_along_axis(item, np.argsort(-luck, axis=1), axis=1)


def rankings_row(count: int, places: int, size: int, target: float, rounds: int) -> Row:
    """Return the race of fits to rankings of indices."""
    import choix

    table = draw(count, places, size)
    lists = table.tolist()
    exact = fit_rankings(Rankings.from_lists(table), tolerance=1e-12, throw=False)

    def ours() -> tuple[np.ndarray, str]:
        fit = fit_rankings(Rankings.from_lists(table))
        return fit.scores, fit.status

    def peer() -> tuple[np.ndarray, str]:
        return choix.ilsr_rankings(size, lists), "no status"

    return race(
        f"rankings, {count:,} x {places} of {size:,}",
        Contender("jaxpref, int array", ours),
        Contender("choix.ilsr_rankings", peer),
        reference=exact.scores,
        target=target,
        rounds=rounds,
        peer_once=count > 50_000,
    )


def bootstrap_row(resamples: int, rounds: int) -> Row:
    """Return the race of bootstraps: 100 items, 100,000 rows, the peer in a loop of its own."""
    import evalica

    size, rows = 100, 100_000
    winner, loser = random_rows(size, rows, seed=1)
    fit = fit_pairwise(Comparisons.from_arrays(winner, loser))
    left, right = winner.tolist(), loser.tolist()
    outcome = [evalica.Winner.X] * rows
    key = jax.random.key(0)

    def peer() -> tuple[np.ndarray, str]:
        random, draws = np.random.default_rng(2), []
        for _ in range(resamples):
            weight = np.bincount(random.integers(0, rows, rows), minlength=rows).astype(float)
            found = evalica.bradley_terry(left, right, outcome, weights=weight.tolist())
            draws.append(centred(np.log(found.scores.sort_index().to_numpy())))
        return np.std(draws, axis=0), "no status"

    def ours() -> tuple[np.ndarray, str]:
        found = bootstrap(fit, key=key, resamples=resamples)
        status = f"{len(found.scores)} fitted, {found.separable} separable"
        return found.standard_errors(), status

    row = race(
        f"bootstrap, {resamples} resamples, N = {size}, {rows:,} rows",
        Contender("jaxpref.fit.bootstrap", ours),
        Contender("evalica.bradley_terry in a loop", peer),
        reference=np.zeros(size),
        target=25,
        rounds=rounds,
    )
    row.ours_error, row.peer_error = resample_error(fit, key), np.nan
    return row


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


def sections(quick: bool) -> list[Row]:
    """Return all rows of this module."""
    if quick:
        return [
            rankings_row(500, 10, 10, np.nan, 1),
            rankings_row(5_000, 10, 1000, np.nan, 1),
            bootstrap_row(5, 1),
        ]
    return [
        rankings_row(5_000, 10, 10, 35, 7),
        bootstrap_row(100, 5),
        rankings_row(200_000, 10, 1000, 50, 5),
    ]
