r"""Table C2 for any scores: how many preferences are strong, and how wide the scores lie.

If scores are normal with variance sigma^2, margins are N(0, 2 sigma^2) and preferences
logit-normal, with two modes exactly when sigma^2 > 1 (section C.5.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from .._checks import InputError
from ..audit.dominance import EDGES, LABELS
from ..links import Link, logistic
from ._sorted import at_distance, log_densities, margins_of, sort_scores
from .scores import Scores
from .triples import THRESHOLDS, TripleShares, triple_shares

PUBLISHED = {
    "Llama-3.1-Nemotron-70B-Reward-HF": (1184, 363, 3636, 1574, 1795),
    "reward-model-deberta-v3-large-v2": (22, 62, 7037, 1264, 167),
}
"""Table C2 as printed: 8,552 pairs of hh-rlhf, chosen against rejected."""

_STEP = 1e-3


class RewardBin(NamedTuple):
    """A row of Table C2: pairs, their share, and the share under the fitted normal scores."""

    label: str
    low: float
    high: float
    pairs: float
    share: float
    fitted: float


class RewardDominance(NamedTuple):
    """How dominant the preferences of a reward model are.

    Attributes
    ----------
    bins : tuple of RewardBin
        Table C2. Pairs of chosen and rejected count once, as p(chosen over rejected); pairs of
        responses that no one has ordered count half from either side.
    pairs : int
        How many pairs there are.
    directed : bool
        Whether the pairs are of chosen and rejected.
    variance, variance_error : float
        sigma^2, half the mean squared margin (nats^2 for the logistic link), and its standard
        error over prompts; None for one prompt.
    critical_variance : float
        Above it the fitted preferences dip at 1/2: 1 for the logistic link (section C.5.1).
    bimodal : bool
        Whether `variance` exceeds it.
    agreement : float or None
        Share of pairs in which chosen scores higher, ties half; None where not directed.
    triples : TripleShares
        Triples of responses to one prompt in each M-sensitive region.
    link : str
        Name of the link.
    sentence : str
        The finding in words.
    """

    bins: tuple[RewardBin, ...]
    pairs: int
    directed: bool
    variance: float
    variance_error: float | None
    critical_variance: float
    bimodal: bool
    agreement: float | None
    triples: TripleShares
    link: str
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON, with the paper's two printed columns."""
        content = self._asdict()
        content["bins"] = [row._asdict() for row in self.bins]
        content["triples"] = self.triples.to_dict()
        content["published"] = {name: list(column) for name, column in PUBLISHED.items()}
        return content


def reward_dominance(
    scores: Scores,
    *,
    link: Link = logistic,
    thresholds: Sequence[float] = THRESHOLDS,
    most_first: int = 2000,
    seed: int = 0,
) -> RewardDominance:
    """Return Table C2 of some scores, the fitted variance, and the M-regions' shares.

    Parameters
    ----------
    scores : Scores
        Scores in units of the link; every pair of responses to one prompt is taken.
    link : Link
        Symmetric; the paper's is the logistic one.
    thresholds, most_first, seed
        As for :func:`triple_shares`.

    Returns
    -------
    RewardDominance

    Raises
    ------
    InputError
        For a threshold that is not a finite number above 0, or none, or an asymmetric link.

    Notes
    -----
    The variance is fitted to margins, so that what is common to a prompt does not count. Pairs
    are counted by binary search in sorted scores, exactly.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), section C.5.1 and Table C2.

    Examples
    --------
    >>> found = reward_dominance(Scores.from_pairs([5.0, 0.0, 1.0], [0.0, 0.5, -2.0]))
    >>> [row.pairs for row in found.bins], found.bimodal
    ([0.0, 0.0, 1.0, 1.0, 1.0], True)
    """
    if not link.symmetric:
        raise InputError(f"link: expected a symmetric link; got {link!r}")
    inner = margins_of(link, EDGES[1:-1])
    counts = _directed(scores, inner) if scores.paired else _undirected(scores, inner)
    variance, error = _variance(scores)
    fitted = _normal_shares(inner, variance)
    pairs = scores.num_pairs
    bins = tuple(
        RewardBin(LABELS[n], EDGES[n], EDGES[n + 1], counts[n], counts[n] / pairs, fitted[n])
        for n in range(len(LABELS))
    )
    critical = _critical_variance(link)
    shares = triple_shares(
        scores, link=link, thresholds=thresholds, most_first=most_first, seed=seed
    )
    found = RewardDominance(
        bins=bins,
        pairs=pairs,
        directed=scores.paired,
        variance=variance,
        variance_error=error,
        critical_variance=critical,
        bimodal=variance > critical,
        agreement=_agreement(scores),
        triples=shares,
        link=link.name,
        sentence="",
    )
    return found._replace(sentence=_sentence(found))


def _directed(scores: Scores, inner: tuple[float, ...]) -> list[float]:
    margin = _margins(scores)
    place = np.searchsorted(np.array(inner), margin, side="right")
    return np.bincount(place, minlength=len(LABELS)).astype(float).tolist()


def _margins(scores: Scores) -> Float64[np.ndarray, " pairs"]:
    return scores.score[0::2] - scores.score[1::2]


def _undirected(scores: Scores, inner: tuple[float, ...]) -> list[float]:
    """Return the bins of all pairs of a prompt, half from either side."""
    found = sort_scores(scores)

    def beyond(bound: float, *, strict: bool) -> int:
        return int(np.sum(found.last - at_distance(found, bound, strict=strict)))

    # How many ordered pairs lie below each edge; those below a negative one are counted reversed.
    total = 2 * scores.num_pairs
    below = [
        beyond(-edge, strict=True) if edge < 0 else total - beyond(edge, strict=False)
        for edge in inner
    ]
    return [float(count) / 2 for count in np.diff([0, *below, total])]


def _variance(scores: Scores) -> tuple[float, float | None]:
    """Return half the mean squared margin over all pairs, and its error over prompts."""
    sizes = scores.sizes.astype(np.float64)
    sums = np.add.reduceat(scores.score, scores.start[:-1])
    centred = scores.score - np.repeat(sums / sizes, scores.sizes)
    # The squared margins of a prompt's pairs add up to n times its sum of squares.
    with np.errstate(over="ignore"):  # a variance beyond all floats is shown as infinite
        squares = sizes * np.add.reduceat(centred**2, scores.start[:-1])
    weight = sizes * (sizes - 1)
    ratio = float(squares.sum() / weight.sum())
    count = len(sizes)
    if count < 2:
        return ratio, None
    spread = float(np.sum((squares - ratio * weight) ** 2)) * count / (count - 1)
    return ratio, float(np.sqrt(spread) / weight.sum())


def _normal_shares(inner: tuple[float, ...], variance: float) -> list[float]:
    """Return the share of each bin when margins are N(0, 2 variance)."""
    from scipy.special import ndtr

    if variance == 0:
        return [float(label == LABELS[2]) for label in LABELS]
    below = ndtr(np.array(inner) / np.sqrt(2 * variance))
    return np.diff([0.0, *below, 1.0]).tolist()


def _critical_variance(link: Link) -> float:
    """Return the sigma^2 above which the density of p dips at 1/2.

    In the margin t it is exp(-t^2 / (4 sigma^2)) / g'(t) up to a constant, and has a dip at 0 when
    log g' falls faster there than t^2 / (4 sigma^2). 1 for the logistic link; 0 for a link with a
    corner at 0, as Laplace's.
    """
    if link.name == "logistic":
        return 1.0
    at = log_densities(link, np.array([0.0, _STEP]))
    return round(float(_STEP**2 / (4 * (at[0] - at[1]))), 3)


def _agreement(scores: Scores) -> float | None:
    if not scores.paired:
        return None
    margin = _margins(scores)
    return float(np.mean((margin > 0) + 0.5 * (margin == 0)))


def _sentence(found: RewardDominance) -> str:
    outer = 1 - found.bins[2].share
    modes = "two modes, near 0 and 1" if found.bimodal else "one mode, at 1/2"
    error = "" if found.variance_error is None else f" (standard error {found.variance_error:.2g})"
    text = (
        f"{outer:.1%} of {found.pairs:,} pairs are dominant (below 0.1 or at least 0.9 one way). "
        f"The scores' variance within a prompt is {found.variance:.3g}{error}, at which "
        f"preferences of normal scores have {modes}."
    )
    if found.agreement is not None:
        text += f" Chosen scores higher in {found.agreement:.1%} of pairs."
    return text
