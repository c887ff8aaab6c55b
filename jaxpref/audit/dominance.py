r"""How dominant the preferences of a data set are, and how transitive.

Table C2 of the paper counts preference probabilities in five bins. If scores are normal with
variance sigma^2, preferences are logit-normal, P(N(0, 2 sigma^2)), with two modes exactly when
sigma^2 > 1 (section C.5.1). Cycles among observed majorities are what no scores explain; a few are
expected by chance, and how many is simulated from the fitted model.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from ..fit.likelihood import predict
from ..fit.result import FitResult
from .records import Bin, CircularTriple, Cycles, Dominance
from .wording import share

EDGES = (0.0, 0.05, 0.10, 0.90, 0.99, 1.0)
LABELS = ("(0.00, 0.05)", "[0.05, 0.10)", "[0.10, 0.90)", "[0.90, 0.99)", "[0.99, 1.00)")
MOST_ITEMS = 600
_LEVEL, _PAIRS = 0.05, 2**20


def describe_dominance(fit: FitResult, *, top: int, simulations: int, seed: int) -> Dominance:
    """Return Table C2's bins, the logit-normal variance and the cycles of a fit."""
    pairs = fit.pairs
    total = pairs.wins_a + pairs.wins_b
    observed = pairs.wins_a / total
    margin = fit.scores[pairs.item_a] - fit.scores[pairs.item_b]
    fitted = predict(fit.link, margin)
    columns = [
        bin_counts(observed, pairs.wins_b / total),
        bin_counts(fitted.probability, fitted.opposite),
        _count_all(fit),
    ]
    bins = tuple(
        Bin(LABELS[n], EDGES[n], EDGES[n + 1], *(float(column[n]) for column in columns))
        for n in range(len(LABELS))
    )
    size = fit.num_items
    variance = float(np.var(fit.scores, ddof=1))
    noise = float(np.mean(fit.standard_errors() ** 2)) * size / (size - 1)
    deviance, degrees = _deviance(fit), len(total) - size + fit.islands.count
    cycles = count_cycles(fit, top=top, simulations=simulations, seed=seed)
    corrected = max(variance - noise, 0.0)
    found = Dominance(
        bins=bins,
        variance=variance,
        corrected_variance=corrected,
        variance_error=variance * float(np.sqrt(2 / (size - 1))),
        bimodal=corrected > 1,
        deviance=deviance,
        degrees_of_freedom=degrees,
        deviance_p_value=_chi_square_tail(deviance, degrees),
        cycles=cycles,
        sentence="",
    )
    return found._replace(sentence=_sentence(found))


def bin_counts(
    probability: Float64[np.ndarray, " pairs"], opposite: Float64[np.ndarray, " pairs"]
) -> Float64[np.ndarray, " bins"]:
    """Return how many pairs fall into each bin of Table C2, half from either side.

    >>> bin_counts(np.array([0.995, 0.5]), np.array([0.005, 0.5])).tolist()
    [0.5, 0.0, 1.0, 0.0, 0.5]
    """
    inner = np.array(EDGES[1:-1])
    counts = np.zeros(len(LABELS))
    for side, other in ((probability, opposite), (opposite, probability)):
        # A probability so near 1 that it prints as 1 is told by its complement.
        place = np.searchsorted(inner, side, side="right")
        place = np.where((side > 0.5) & (other <= 0.01), len(LABELS) - 1, place)
        counts += np.bincount(place, minlength=len(LABELS)) / 2
    return counts


def _count_all(fit: FitResult) -> Float64[np.ndarray, " bins"]:
    """Return how many of all pairs of items fall into each bin, about a million at a time."""
    size, counts = fit.num_items, np.zeros(len(LABELS))
    before = np.arange(size) * (2 * size - 1 - np.arange(size)) // 2  # pairs of earlier rows
    cuts = np.searchsorted(before, np.arange(0, size * (size - 1) // 2, _PAIRS))
    cuts = np.unique(np.append(cuts, size)).tolist()
    for first, last in zip(cuts[:-1], cuts[1:], strict=True):
        row, column = np.triu_indices(last - first, 1, size - first)
        every = predict(fit.link, fit.scores[first + row] - fit.scores[first + column])
        counts += bin_counts(every.probability, every.opposite)
    return counts


def _deviance(fit: FitResult) -> float:
    """Return twice the log-likelihood that free probabilities gain over the fit."""
    up, down = fit.pairs.wins_a, fit.pairs.wins_b
    total = up + down
    free = np.zeros_like(up)
    for wins in (up, down):
        free += np.where(wins > 0, wins * np.log(np.where(wins > 0, wins, 1.0) / total), 0.0)
    return max(2 * (float(free.sum()) - fit.log_likelihood), 0.0)


def _chi_square_tail(value: float, degrees: int) -> float:
    from scipy.special import gammaincc

    return float(gammaincc(degrees / 2, value / 2)) if degrees > 0 else 1.0


def count_cycles(fit: FitResult, *, top: int, simulations: int, seed: int) -> Cycles | None:
    """Return the circular triples of a fit's counts, None above 600 items.

    Notes
    -----
    With D the matrix of majorities (1 where the row beat the column more often than not) there are
    trace(D^3)/3 circular triples, and trace(A^3)/6 complete ones with A the adjacency.
    """
    size, pairs = fit.num_items, fit.pairs
    if size > MOST_ITEMS:
        return None
    ahead = _majorities(size, pairs.item_a, pairs.item_b, pairs.wins_a, pairs.wins_b)
    adjacent = np.zeros((size, size))
    adjacent[pairs.item_a, pairs.item_b] = adjacent[pairs.item_b, pairs.item_a] = 1.0
    complete = round(float(np.sum((adjacent @ adjacent) * adjacent)) / 6)
    if complete == 0:
        return None
    drawn = _simulate(fit, simulations, np.random.default_rng(seed))
    triples = _significant_first(fit, ahead, complete)
    circular = _circular(ahead)
    return Cycles(
        complete_triples=complete,
        circular=circular,
        expected=float(np.mean(drawn)),
        standard_deviation=float(np.std(drawn, ddof=1)),
        p_value=float((1 + np.sum(drawn >= circular)) / (1 + len(drawn))),
        expected_at_random=complete / 4,
        simulations=simulations,
        significant=sum(triple.adjusted <= _LEVEL for triple in triples),
        triples=tuple(triples[:top]),
    )


def _majorities(
    size: int, a: np.ndarray, b: np.ndarray, up: np.ndarray, down: np.ndarray
) -> Float64[np.ndarray, "items items"]:
    ahead = np.zeros((size, size))
    ahead[a, b], ahead[b, a] = up > down, down > up
    return ahead


def _circular(ahead: np.ndarray) -> int:
    return round(float(np.sum((ahead @ ahead) * ahead.T)) / 3)


def _simulate(
    fit: FitResult, simulations: int, rng: np.random.Generator
) -> Float64[np.ndarray, " simulations"]:
    """Return counts of circular triples in data drawn from the fitted model."""
    pairs = fit.pairs
    number = np.maximum(np.rint(pairs.wins_a + pairs.wins_b), 1).astype(np.int64)
    margin = fit.scores[pairs.item_a] - fit.scores[pairs.item_b]
    chance = predict(fit.link, margin).probability
    drawn = np.empty(simulations)
    for n in range(simulations):
        wins = rng.binomial(number, chance)
        ahead = _majorities(fit.num_items, pairs.item_a, pairs.item_b, wins, number - wins)
        drawn[n] = _circular(ahead)
    return drawn


def _significant_first(fit: FitResult, ahead: np.ndarray, complete: int) -> list[CircularTriple]:
    """Return the circular triples, the least likely by chance first."""
    wins = np.zeros((fit.num_items,) * 2)
    wins[fit.pairs.item_a, fit.pairs.item_b] = fit.pairs.wins_a
    wins[fit.pairs.item_b, fit.pairs.item_a] = fit.pairs.wins_b
    tail = _binomial_tails(wins)
    found = _list_circular(ahead, tail)
    rows, adjusted = [], 0.0
    for rank, (p_value, (a, b, c)) in enumerate(found):
        sides = ((a, b), (b, c), (c, a))
        number = [float(wins[x, y] + wins[y, x]) for x, y in sides]
        shares = [float(wins[x, y]) / n for (x, y), n in zip(sides, number, strict=True)]
        # Holm over all complete triples: those that are not circular have the larger p-values.
        adjusted = max(adjusted, min((complete - rank) * p_value, 1.0))
        rows.append(
            CircularTriple(
                item_a=fit.items[a],
                item_b=fit.items[b],
                item_c=fit.items[c],
                fractions=(shares[0], shares[1], shares[2]),
                comparisons=(number[0], number[1], number[2]),
                p_value=p_value,
                adjusted=adjusted,
                p_value_model=_model_test(wins, (a, b, c)),
            )
        )
    return rows


def _binomial_tails(wins: np.ndarray) -> np.ndarray:
    """Return P(at least so many wins) in fair comparisons, entry by entry; 1 where none."""
    from scipy.special import betainc

    number = wins + wins.T
    played, won = number > 0, wins > 0
    some = played & won
    tail = np.ones_like(wins)
    tail[some] = betainc(wins[some], number[some] - wins[some] + 1, 0.5)
    return tail


_MOST_LISTED = 1000


def _list_circular(ahead: np.ndarray, tail: np.ndarray) -> list[tuple[float, tuple[int, int, int]]]:
    """Return circular triples with their p-values, smallest first, each triple once."""
    found: list[tuple[float, tuple[int, int, int]]] = []
    for a in range(len(ahead)):
        # a is the smallest index of its triple: a beat b, b beat c, c beat a
        b, c = np.nonzero(np.outer(ahead[a], ahead[:, a]) * ahead)
        later = (b > a) & (c > a)
        b, c = b[later], c[later]
        value = np.maximum(np.maximum(tail[a, b], tail[b, c]), tail[c, a])
        found += [(float(v), (a, int(x), int(y))) for v, x, y in zip(value, b, c, strict=True)]
        if len(found) > 8 * _MOST_LISTED:
            found = sorted(found)[:_MOST_LISTED]
    return sorted(found)[:_MOST_LISTED]


def _model_test(wins: np.ndarray, triple: tuple[int, int, int]) -> float:
    """Return the p-value of the likelihood-ratio test of Bradley-Terry scores on three items.

    A cycle of wins always ties the three together, so the fit of the three exists.
    """
    from ..links import logistic
    from .engine import Engine
    from .terms import Counts

    a, b, c = triple
    sides = ((a, b, 0, 1), (b, c, 1, 2), (a, c, 0, 2))
    up = np.array([wins[x, y] for x, y, _, _ in sides])
    down = np.array([wins[y, x] for x, y, _, _ in sides])
    first, second = np.array([0, 1, 0]), np.array([1, 2, 2])
    scores = Engine(logistic, 0.0, 3).refit(Counts(first, second, up, down), np.zeros(3))
    if scores is None:
        return 1.0
    chance = predict(logistic, scores[first] - scores[second])
    value = 0.0
    for won, p in ((up, chance.probability), (down, chance.opposite)):
        share = np.where(won > 0, won / (up + down), 1.0)
        value += 2 * float(np.sum(won * np.log(share / np.where(won > 0, p, 1.0))))
    return _chi_square_tail(max(value, 0.0), 1)


def _sentence(found: Dominance) -> str:
    """Return the dominance of the data in words."""
    total = sum(row.all_pairs for row in found.bins) or 1.0
    outer = total - found.bins[2].all_pairs
    modes = "two modes, near 0 and 1" if found.bimodal else "one mode, at 1/2"
    parts = [
        f"{share(outer / total).capitalize()} of all pairs are dominant (below 0.1 or at least 0.9 "
        f"one way). The scores' variance is {found.variance:.2f} nats^2 "
        f"({found.corrected_variance:.2f} without sampling noise), at which preferences have "
        f"{modes}."
    ]
    cycles = found.cycles
    if cycles is not None:
        verdict = (
            "more than the model's own noise makes"
            if cycles.p_value <= _LEVEL
            else "no more than the model's own noise makes"
        )
        parts.append(
            f"{cycles.circular:,} of {cycles.complete_triples:,} triples are circular, {verdict} "
            f"({cycles.expected:.0f} expected); {cycles.significant} of them significant alone."
        )
    return " ".join(parts)
