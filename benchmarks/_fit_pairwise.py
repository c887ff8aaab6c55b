"""The pairwise sections of bench_fit.py: data, references, and what each peer does with them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _harness import Contender, Row, centred, race

from jaxpref.data import Comparisons
from jaxpref.fit import fit_pairwise


class Problem(NamedTuple):
    """Counts by pair, and the fit to them in 80-bit arithmetic."""

    comparisons: Comparisons
    reference: np.ndarray


def reference_fit(comparisons: Comparisons, start: np.ndarray) -> np.ndarray:
    """Return the maximum likelihood scores to 1e-12 and better, from a start that is close.

    Newton with gradients in 80 bits and a factored information of 64: what is left over at the end
    is the rounding of the scores themselves.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    pairs = comparisons.pairs()
    a, b, size = pairs.item_a, pairs.item_b, comparisons.num_items
    wins_a, wins_b = (x.astype(np.longdouble) for x in (pairs.wins_a, pairs.wins_b))
    scores = start.astype(np.longdouble)
    step = np.inf
    for _ in range(50):
        margin = scores[a] - scores[b]
        chance = 1 / (1 + np.exp(-margin))
        opposite = 1 / (1 + np.exp(margin))
        pull = wins_a * opposite - wins_b * chance
        weight = np.float64((wins_a + wins_b) * chance * opposite)
        gradient = np.zeros(size, np.longdouble)
        np.add.at(gradient, a, pull)
        np.subtract.at(gradient, b, pull)
        # The last item is held, the mean taken out afterwards.
        ends = np.concatenate([a, b, a, b]), np.concatenate([b, a, a, b])
        values = np.concatenate([-weight, -weight, weight, weight])
        matrix: Any = coo_array((values, ends), shape=(size, size)).tocsc()[:-1, :-1]
        change = _solve(matrix, np.float64(gradient[:-1]), splu)
        scores[:-1] += change
        step = np.abs(change).max()
        if step < 1e-14 * max(1.0, float(np.abs(scores).max())):
            break
    if not step < 1e-12 * max(1.0, float(np.abs(scores).max())):
        raise RuntimeError(f"the reference did not converge: last step {step:g}")
    return np.float64(scores - scores.mean())


def _solve(matrix: Any, right: np.ndarray, splu: Any) -> np.ndarray:
    """Solve by sparse factors, or by conjugate gradients where these would fill in."""
    if matrix.nnz < 20 * matrix.shape[0] or matrix.shape[0] <= 1500:
        return splu(matrix).solve(right)
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import cg

    found, failed = cg(matrix, right, rtol=1e-13, M=diags_array(1 / matrix.diagonal()))
    if failed:
        raise RuntimeError("conjugate gradients failed on the reference")
    return found


def problem(comparisons: Comparisons) -> Problem:
    """Return the comparisons with their reference, started from the fit under test."""
    return Problem(comparisons, reference_fit(comparisons, fit_pairwise(comparisons).scores))


def complete_counts(num_items: int, seed: int, games: int = 20) -> np.ndarray:
    """Return wins among items of score sd 1, every pair compared `games` times."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1, num_items)
    chance = 1 / (1 + np.exp(scores[None] - scores[:, None]))
    upper = np.triu(np.ones((num_items, num_items)), 1)
    wins = rng.binomial(games, chance) * upper
    return wins + ((games - wins) * upper).T


def random_rows(num_items: int, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return winners and losers of comparisons between random items of score sd 1."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 1, num_items)
    a = rng.integers(0, num_items, rows)
    b = (a + rng.integers(1, num_items, rows)) % num_items
    first = rng.random(rows) < 1 / (1 + np.exp(scores[b] - scores[a]))
    return np.where(first, a, b), np.where(first, b, a)


def ours_from(comparisons: Any) -> tuple[np.ndarray, str]:
    """Fit what `comparisons()` returns."""
    fit = fit_pairwise(comparisons())
    return fit.scores, fit.status


def counts_rows(quick: bool) -> list[Row]:
    """Return the races on matrices of counts."""
    import choix

    rows = []
    for size, target, rounds, inner in ((100, 2, 31, 5), (300, 2, 15, 3), (1000, 5, 9, 1)):
        wins = complete_counts(size, seed=size)
        data = problem(Comparisons.from_counts(wins))

        def peer(wins: np.ndarray = wins) -> tuple[np.ndarray, str]:
            return choix.ilsr_pairwise_dense(wins), "no status"

        def ours(data: Problem = data) -> tuple[np.ndarray, str]:
            return ours_from(lambda: data.comparisons)

        def whole(wins: np.ndarray = wins) -> tuple[np.ndarray, str]:
            return ours_from(lambda: Comparisons.from_counts(wins))

        for name, run, goal in (("fit", ours, target), ("matrix to fit", whole, np.nan)):
            rows.append(
                race(
                    f"counts, N = {size}, all pairs",
                    Contender(f"jaxpref, {name}", run),
                    Contender("choix.ilsr_pairwise_dense", peer),
                    reference=data.reference,
                    target=goal,
                    rounds=5 if quick else rounds,
                    inner=inner,
                )
            )
    return rows


def sparse_rows(quick: bool) -> list[Row]:
    """Return the race on a million comparisons of 5,000 items, from arrays of integers."""
    import evalica

    winner, loser = random_rows(5000, 300_000 if quick else 1_000_000, seed=5)
    data = problem(Comparisons.from_arrays(winner, loser))
    won = [evalica.Winner.X] * len(winner)

    def peer() -> tuple[np.ndarray, str]:
        return _evalica(winner, loser, won, 5000)

    def ours() -> tuple[np.ndarray, str]:
        return ours_from(lambda: Comparisons.from_arrays(winner, loser))

    row = race(
        f"{len(winner):,} comparisons of N = 5,000",
        Contender("jaxpref, int arrays", ours),
        Contender("evalica, int arrays", peer),
        reference=data.reference,
        target=10,
        rounds=3 if quick else 5,
    )
    return [row]


def _evalica(winner: Any, loser: Any, won: Any, size: int) -> tuple[np.ndarray, str]:
    """Fit with evalica's default solver and tolerance; its scores are strengths, sorted."""
    import evalica

    result = evalica.bradley_terry(winner, loser, won)
    strengths = np.empty(size)
    strengths[np.asarray(result.scores.index, np.int64)] = result.scores.to_numpy()
    return np.log(strengths), f"no status, {result.iterations} iterations"


def raw_rows(quick: bool) -> list[Row]:
    """Return the races on two million raw rows of 300 items."""
    import evalica

    size, length = 300, 200_000 if quick else 2_000_000
    winner, loser = random_rows(size, length, seed=3)
    data = problem(Comparisons.from_arrays(winner, loser))
    lists = winner.tolist(), loser.tolist(), [evalica.Winner.X] * length

    def peer() -> tuple[np.ndarray, str]:
        return _evalica(*lists, size)

    def ours() -> tuple[np.ndarray, str]:
        return ours_from(lambda: Comparisons.from_arrays(winner, loser))

    rows = [
        race(
            f"{length:,} raw rows of N = {size}",
            Contender("jaxpref, int arrays", ours),
            Contender("evalica, lists", peer),
            reference=data.reference,
            target=20,
            rounds=3 if quick else 7,
        )
    ]
    return rows + _frame_rows(size, winner, loser, data, quick)


def _frame_rows(
    size: int, winner: np.ndarray, loser: np.ndarray, data: Problem, quick: bool
) -> list[Row]:
    """Return the race from a data frame of names, against arena-rank."""
    try:
        import jax
        import pandas as pd
        from arena_rank.models.bradley_terry import BradleyTerry
        from arena_rank.utils.data_utils import PairDataset
    except ImportError as error:
        print(f"left out: arena-rank ({error})")
        return []
    names = np.array([f"item {k:03d}" for k in range(size)])
    swap = np.random.default_rng(0).random(len(winner)) < 0.5
    frame = pd.DataFrame(
        {
            "model_a": names[np.where(swap, loser, winner)],
            "model_b": names[np.where(swap, winner, loser)],
            "winner": np.where(swap, "model_b", "model_a"),
        }
    )

    def peer() -> tuple[np.ndarray, str]:
        with jax.enable_x64(True):
            pairs = PairDataset.from_pandas(frame)
            model = BradleyTerry(len(pairs.competitors))
            model.fit(pairs)
            order = np.argsort(np.asarray(pairs.competitors))
            return np.asarray(model.params["ratings"])[order], "no status"

    def ours() -> tuple[np.ndarray, str]:
        return ours_from(lambda: Comparisons.from_frame(frame))

    row = race(
        f"{len(winner):,} raw rows of N = {size}, pandas frame",
        Contender("jaxpref", ours),
        Contender("arena-rank", peer),
        reference=data.reference,
        target=50,
        rounds=2 if quick else 5,
    )
    return [row]


PEER_SCRIPT = """
import sys
import choix
import pandas as pd
frame = pd.read_csv(sys.argv[1])
items = sorted(set(frame["item_a"]) | set(frame["item_b"]))
index = {item: k for k, item in enumerate(items)}
a, b = frame["item_a"].map(index).to_numpy(), frame["item_b"].map(index).to_numpy()
first = (frame["winner"] == "a").to_numpy()
import numpy as np
wins = np.zeros((len(items), len(items)))
np.add.at(wins, (np.where(first, a, b), np.where(first, b, a)), 1)
scores = choix.ilsr_pairwise_dense(wins)
for place in np.argsort(-scores)[:20]:
    print(items[place], scores[place])
"""


def cold_rows(quick: bool) -> list[Row]:
    """Return the race of whole processes: a CSV of 100,000 rows to a printed leaderboard."""
    winner, loser = random_rows(100, 100_000, seed=1)
    names = np.array([f"item {k:03d}" for k in range(100)])
    data = problem(Comparisons.from_arrays(winner, loser))
    with tempfile.TemporaryDirectory() as folder:
        path, script = Path(folder) / "votes.csv", Path(folder) / "peer.py"
        lines = (f"{names[w]},{names[x]},a" for w, x in zip(winner, loser, strict=True))
        path.write_text("item_a,item_b,winner\n" + "\n".join(lines) + "\n")
        script.write_text(PEER_SCRIPT)

        def command(*arguments: str) -> tuple[np.ndarray, str]:
            done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
            return data.reference, f"exit {done.returncode}"

        row = race(
            "cold process, N = 100, CSV of 100,000 rows",
            Contender("jaxpref fit", lambda: command("-m", "jaxpref", "fit", str(path))),
            Contender("pandas and choix", lambda: command(str(script), str(path))),
            reference=data.reference,
            target=1 / 1.5,
            rounds=3 if quick else 7,
        )
    row.ours_error = row.peer_error = np.nan
    return [row]


def banded(size: int, width: int, most: float, seed: int) -> Comparisons:
    """Return counts on a band: item k against the next `width`, up to `most` to one."""
    rng = np.random.default_rng(seed)
    a, b = np.array(
        [(k, k + d) for k in range(size) for d in range(1, width + 1) if k + d < size]
    ).T
    names = tuple(f"item {k}" for k in range(size))
    wins = np.round(10.0 ** rng.uniform(0, np.log10(most), (2, len(a))))
    return Comparisons(names, a, b, wins[0], wins[1], np.zeros(len(a)))


def accuracy() -> list[dict[str, Any]]:
    """Return the largest error of a centred score on chain-like data, ours and the peers'."""
    rows = []
    for name, size, width, most in (
        ("path of 50, up to 30:1", 50, 1, 30),
        ("path of 200, up to 1000:1", 200, 1, 1e3),
        ("path of 200, up to 1,000,000:1", 200, 1, 1e6),
        ("band of 3, 200 items, up to 30:1", 200, 3, 30),
        ("band of 3, 200 items, up to 1,000,000:1", 200, 3, 1e6),
        ("band of 3, 5,000 items, up to 30:1", 5000, 3, 30),
    ):
        data = banded(size, width, most, seed=size + width)
        fit = fit_pairwise(data)
        reference = reference_fit(data, fit.scores)
        row: dict[str, Any] = {"graph": name, "spread": float(np.ptp(reference))}
        row["jaxpref"] = {
            "error": float(np.abs(fit.scores - reference).max()),
            "status": fit.status,
            "gradient_norm": fit.gradient_norm,
        }
        for peer, run in _peers(data).items():
            row[peer] = {"error": _peer_error(run, reference)}
        print(name, {key: value["error"] for key, value in row.items() if isinstance(value, dict)})
        rows.append(row)
    return rows


def _peer_error(run: Any, reference: np.ndarray) -> float | str:
    try:
        return float(np.abs(centred(run()) - reference).max())
    except Exception as error:  # a peer's way of saying no
        return f"{type(error).__name__}: {error}"[:80]


def _peers(data: Comparisons) -> dict[str, Any]:
    """Return what the peers make of the counts, up to 1,000 items."""
    import evalica

    pairs, size = data.pairs(), data.num_items
    winner = np.concatenate([pairs.item_a, pairs.item_b])
    loser = np.concatenate([pairs.item_b, pairs.item_a])
    weight = np.concatenate([pairs.wins_a, pairs.wins_b])

    def from_evalica(solver: Any) -> np.ndarray:
        won = [evalica.Winner.X] * len(winner)
        result = solver(winner.tolist(), loser.tolist(), won, weights=weight.tolist())
        strengths = np.empty(size)
        strengths[np.asarray(result.scores.index, np.int64)] = result.scores.to_numpy()
        return np.log(strengths)

    def from_choix() -> np.ndarray:
        import choix

        return choix.ilsr_pairwise_dense(data.counts_matrix())

    if size > 1000:  # minutes each, in dense matrices
        return {}
    return {
        "evalica": lambda: from_evalica(evalica.bradley_terry),
        "evalica, Newman": lambda: from_evalica(evalica.newman),
        "choix": from_choix,
        "arena-rank": lambda: _arena_rank(data),
    }


def _arena_rank(data: Comparisons) -> np.ndarray:
    import jax
    import jax.numpy as jnp
    from arena_rank.models.bradley_terry import BradleyTerry
    from arena_rank.utils.data_utils import PairDataset

    pairs = data.pairs()
    both = np.concatenate([np.stack([pairs.item_a, pairs.item_b], 1)] * 2)
    outcome = np.repeat([1.0, 0.0], len(pairs.item_a))
    counts = np.concatenate([pairs.wins_a, pairs.wins_b])
    with jax.enable_x64(True):
        weights = jnp.asarray(counts)
        model = BradleyTerry(data.num_items)
        model.fit(
            PairDataset(
                list(data.items),
                jnp.asarray(both),
                jnp.asarray(outcome),
                weights,
                jnp.ones_like(weights),
                weights,
            )
        )
        return np.asarray(model.params["ratings"])


def sections(quick: bool) -> list[Row]:
    """Return all rows of this module."""
    return [*counts_rows(quick), *sparse_rows(quick), *raw_rows(quick), *cold_rows(quick)]
