"""The same data under other links: which conclusions survive, and which were the link's own.

Links with a concave log-probability have one maximum. The Cauchy link does not: it is fitted by
Fisher scoring from several starts, and what is found is called a local maximum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from ..data.comparisons import Comparisons
from ..fit.likelihood import predict
from ..fit.pairwise import fit_pairwise
from ..fit.result import FitResult
from ..links import Link, by_name
from .pairs import Progress
from .records import LinkRow, Links, Reversal
from .terms import counts_of, laplacian

LINKS = ("logistic", "probit", "cauchit", "laplace")
_CONCAVE = ("logistic", "probit", "laplace")
_STEPS, _SHOWN = 500, 20


class _Other(NamedTuple):
    link: Link
    status: str
    scores: Float64[np.ndarray, " items"] | None
    log_likelihood: float | None


def across_links(
    fit: FitResult,
    *,
    k: int,
    links: Sequence[str] = LINKS,
    progress: Progress | None = None,
) -> Links:
    """Return how the order of the items fares under other links."""
    names = [name for name in links if name != fit.link.name]
    found = []
    for done, name in enumerate(names):
        found.append(_fit(fit, by_name(name)))
        if progress is not None:
            progress(done + 1, len(names))
    a, b = np.triu_indices(fit.num_items, 1)
    base = np.sign(fit.scores[a] - fit.scores[b])
    alike = np.ones(len(a), bool)
    for other in found:
        if other.scores is not None:
            alike &= np.sign(other.scores[a] - other.scores[b]) == base
    rows = tuple(_compare(fit, other, k) for other in found)
    return Links(fit.link.name, k, float(np.mean(alike)), rows)


def _fit(fit: FitResult, link: Link) -> _Other:
    if link.name in _CONCAVE:
        pairs = fit.pairs
        ties = np.zeros(len(pairs.item_a))
        data = Comparisons(fit.items, *pairs[:4], ties)
        again = fit_pairwise(data, link=link, ridge=fit.ridge, throw=False)
        return _Other(link, again.status, again.scores, again.log_likelihood)
    best: _Other | None = None
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 1.0, (2, fit.num_items))
    for start in (0.5 * fit.scores, fit.scores, 0.0 * fit.scores, *noise):
        found = _score(fit, link, start - start.mean())
        if found is None:
            continue
        if best is None or best.log_likelihood is None or found[1] > best.log_likelihood:
            best = _Other(link, "local", *found)
    return best or _Other(link, "not converged", None, None)


def _score(
    fit: FitResult, link: Link, scores: np.ndarray
) -> tuple[Float64[np.ndarray, " items"], float] | None:
    """Return a maximum by Fisher scoring, whose information is definite however bent the log is."""
    counts, size = counts_of(fit), fit.num_items
    a, b = counts.item_a, counts.item_b
    total = counts.wins_a + counts.wins_b

    def look(at: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        p, q, density = predict(link, at[a] - at[b])
        pull = density * (counts.wins_a / p - counts.wins_b / q)
        gradient = np.bincount(a, pull, size) - np.bincount(b, pull, size) - fit.ridge * at
        value = float(np.sum(counts.wins_a * np.log(p) + counts.wins_b * np.log(q)))
        matrix = laplacian(a, b, total * density**2 / (p * q), size)
        return value - fit.ridge * float(at @ at) / 2, gradient, matrix

    value, gradient, matrix = look(scores)
    for _ in range(_STEPS):
        shift = float(np.min(np.diagonal(matrix))) / size
        matrix += shift
        matrix[np.diag_indices(size)] += fit.ridge
        direction = np.linalg.solve(matrix, gradient)
        direction -= direction.mean()
        if np.abs(direction).max() <= 1e-9 * max(1.0, np.abs(scores).max()):
            return scores, value + fit.ridge * float(scores @ scores) / 2
        length, slope = 1.0, float(gradient @ direction)
        while True:
            trial = look(scores + length * direction)
            if trial[0] >= value + 1e-4 * length * slope or length < 1e-10:
                break
            length /= 2
        if length < 1e-10:  # the value is all rounding: at its maximum
            near = np.abs(direction).max() <= 1e-6 * max(1.0, np.abs(scores).max())
            return (scores, value + fit.ridge * float(scores @ scores) / 2) if near else None
        scores = scores + length * direction
        value, gradient, matrix = trial
    return None


def _compare(fit: FitResult, other: _Other, k: int) -> LinkRow:
    scores = other.scores
    if scores is None:
        return LinkRow(
            link=other.link.name,
            status=other.status,
            log_likelihood=None,
            winner=None,
            same_winner=None,
            same_top_k=None,
            kendall_tau=None,
            num_reversed=None,
            largest_change=None,
            item_a=None,
            item_b=None,
            reversals=(),
        )
    a, b = np.triu_indices(fit.num_items, 1)
    before, after = fit.scores[a] - fit.scores[b], scores[a] - scores[b]
    reversed_ = np.flatnonzero(np.sign(before) * np.sign(after) < 0)
    old = predict(fit.link, before).probability
    new = predict(other.link, after).probability
    changed = int(np.argmax(np.abs(new - old)))
    gap = np.abs(old - new)[reversed_]
    shown = reversed_[np.argsort(-gap, kind="stable")][:_SHOWN]
    best, new_best = (int(np.argmax(values)) for values in (fit.scores, scores))
    top = [set(np.argsort(-values, kind="stable")[:k].tolist()) for values in (fit.scores, scores)]
    names = fit.items
    return LinkRow(
        link=other.link.name,
        status=other.status,
        log_likelihood=other.log_likelihood,
        winner=names[new_best],
        same_winner=best == new_best,
        same_top_k=top[0] == top[1],
        kendall_tau=float(np.mean(np.sign(before) * np.sign(after))),
        num_reversed=len(reversed_),
        largest_change=float(abs(new[changed] - old[changed])),
        item_a=names[a[changed]],
        item_b=names[b[changed]],
        reversals=tuple(
            Reversal(names[a[n]], names[b[n]], float(old[n]), float(new[n])) for n in shown
        ),
    )
