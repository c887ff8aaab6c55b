r"""Fragile quadruples: Table C3's procedure on the scores of responses that exist.

In (i, i', k, j) the responses i and i' beat k nearly equally, 0.99 or more against about 0.98; k
loses to j, 0.02 or less; and yet i beats j while j beats i' (section C.5.2).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .._checks import InputError, check_between, check_count, check_option
from ..fit.likelihood import predict
from ..links import Link, logistic
from ._counting import Bounds, count_by_k, windows
from ._ranking import Lattice, Place, by_closeness, by_sensitivity
from ._sorted import Sorted, margins_of, sort_scores
from .scores import Scores

RANKS = ("sensitivity", "closeness")


class QuadrupleRule(NamedTuple):
    """What the preferences of a quadruple must be.

    p_ik >= strong; p_i'k within `tolerance` of near; p_kj <= weak; p_i'j < 1/2 < p_ij. The paper's
    "about 0.98" is read as what rounds to it.
    """

    strong: float = 0.99
    near: float = 0.98
    tolerance: float = 0.005
    weak: float = 0.02


PAPER_RULE = QuadrupleRule()
"""The paper's numbers."""


class Quadruple(NamedTuple):
    """One quadruple: names, scores, and the five preferences of Table C3.

    `log_sensitivity` is log dp_ij/dp_ik at (p_ik, p_kj); `amplification` how many times further
    apart p_ij and p_i'j are than p_ik and p_i'k; `gap` is s_i - s_i'.
    """

    prompt: str
    response_i: str
    response_i_prime: str
    response_k: str
    response_j: str
    score_i: float
    score_i_prime: float
    score_k: float
    score_j: float
    p_ik: float
    p_i_prime_k: float
    p_kj: float
    p_ij: float
    p_i_prime_j: float
    log_sensitivity: float
    amplification: float
    gap: float


class Quadruples(NamedTuple):
    """All fragile quadruples counted, and the first of them.

    Attributes
    ----------
    total : int
        How many there are, exactly.
    prompts, prompts_with : int
        How many prompts there are, and how many have one.
    by_prompt : tuple of int
        How many each prompt has, in the order of `Scores.prompts`.
    rule : QuadrupleRule
        What was looked for.
    link, rank : str
        Name of the link, and the order of `top`.
    top : tuple of Quadruple
        The first in that order.
    """

    total: int
    prompts: int
    prompts_with: int
    by_prompt: tuple[int, ...]
    rule: QuadrupleRule
    link: str
    rank: str
    top: tuple[Quadruple, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON but the counts of each prompt."""
        content = self._asdict()
        del content["by_prompt"]
        content["rule"] = self.rule._asdict()
        content["top"] = [row._asdict() for row in self.top]
        return content


def fragile_quadruples(
    scores: Scores,
    *,
    link: Link = logistic,
    rule: QuadrupleRule = PAPER_RULE,
    top: int = 10,
    rank: str = "sensitivity",
) -> Quadruples:
    """Count the fragile quadruples of each prompt, and list the first of them.

    Parameters
    ----------
    scores : Scores
        Scores in units of the link; some prompt must have four responses.
    link : Link
        Symmetric, with a density that falls on either side of 0.
    rule : QuadrupleRule
        The preferences looked for.
    top : int
        How many to list.
    rank : {"sensitivity", "closeness"}
        List those of largest dp_ij/dp_ik first, or those with i and i' closest in score.

    Returns
    -------
    Quadruples

    Raises
    ------
    InputError
        For probabilities out of order or range, an asymmetric link, or prompts too small.

    Notes
    -----
    n log n for a prompt of n responses, although the number of quadruples grows with n^4; it is
    exact at any size. Probabilities are compared as margins.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), section C.5.2 and Table C3.

    Examples
    --------
    >>> scores = Scores.from_arrays(
    ...     ["x"] * 4, ["i", "i'", "k", "j"], [7.264, 4.0, 0.0, 4.2475]
    ... )
    >>> found = fragile_quadruples(scores)
    >>> row = found.top[0]
    >>> found.total, round(row.p_ij, 4), round(row.p_i_prime_j, 4)
    (1, 0.9533, 0.4384)
    """
    bounds = rule_bounds(link, rule)
    check_option("rank", rank, RANKS)
    number = check_count("top", top, at_least=0)
    largest = int(scores.sizes.max(initial=0))
    if largest < 4:
        raise InputError(
            f"scores: expected a prompt with at least 4 responses; the largest has {largest}"
        )
    found = sort_scores(scores)
    where = windows(found, bounds)
    counts = count_by_k(found, where)
    lattice = Lattice(found, where, link)
    places: list[Place] = []
    if number and counts.any():
        places = (
            by_sensitivity(lattice, number)
            if rank == "sensitivity"
            else by_closeness(lattice, bounds, number)
        )
    by_prompt = _by_prompt(scores, counts)
    return Quadruples(
        total=sum(by_prompt),
        prompts=scores.num_prompts,
        prompts_with=sum(count > 0 for count in by_prompt),
        by_prompt=by_prompt,
        rule=rule,
        link=link.name,
        rank=rank,
        top=_describe(scores, found, lattice, places),
    )


def rule_bounds(link: Link, rule: QuadrupleRule) -> Bounds:
    """Return the margins that a rule asks for; InputError for one that nothing can meet."""
    if not link.symmetric:
        raise InputError(f"link: expected a symmetric link; got {link!r}")
    inside = "a probability strictly between 0 and 1"
    for name in ("strong", "near", "weak"):
        below_one = math.nextafter(1.0, 0.0)
        check_between(name, getattr(rule, name), 0.0, below_one, what=inside, open_low=True)
    low, high = rule.near - rule.tolerance, rule.near + rule.tolerance
    if not 0.5 < low < high < 1:
        raise InputError(
            f"near, tolerance: expected p_i'k to stay between 1/2 and 1; got {rule.near:g} and "
            f"{rule.tolerance:g}"
        )
    if not rule.weak < 0.5 < rule.strong:
        raise InputError(
            f"weak, strong: expected below and above 1/2; got {rule.weak:g}, {rule.strong:g}"
        )
    strong, low, high, weak = margins_of(link, (rule.strong, low, high, rule.weak))
    return Bounds(strong, low, high, -weak)


def _by_prompt(scores: Scores, counts: np.ndarray) -> tuple[int, ...]:
    """Return the counts of each prompt, summed without overflow."""
    high = np.add.reduceat(counts >> 32, scores.start[:-1])
    low = np.add.reduceat(counts & 0xFFFFFFFF, scores.start[:-1])
    return tuple((h << 32) + w for h, w in zip(high.tolist(), low.tolist(), strict=True))


def _describe(
    scores: Scores, found: Sorted, lattice: Lattice, places: list[Place]
) -> tuple[Quadruple, ...]:
    """Return the named records of quadruples."""
    if not places:
        return ()
    i, prime, k, j = (np.array(column) for column in zip(*places, strict=True))
    s, link = found.score, lattice.link
    pairs = {"ik": (i, k), "pk": (prime, k), "kj": (k, j), "ij": (i, j), "pj": (prime, j)}
    chance = {name: predict(link, s[a] - s[b]) for name, (a, b) in pairs.items()}
    known = chance["pk"].opposite - chance["ik"].opposite
    unseen = chance["ij"].probability - chance["pj"].probability
    logs = lattice.log_sensitivity(i, k, j)

    def name(at: int) -> str:
        return scores.responses[scores.response[found.order[at]]]

    return tuple(
        Quadruple(
            scores.prompts[found.owner[place.i]],
            *(name(place.i), name(place.prime), name(place.k), name(place.j)),
            *(float(s[place.i]), float(s[place.prime]), float(s[place.k]), float(s[place.j])),
            p_ik=float(chance["ik"].probability[n]),
            p_i_prime_k=float(chance["pk"].probability[n]),
            p_kj=float(chance["kj"].probability[n]),
            p_ij=float(chance["ij"].probability[n]),
            p_i_prime_j=float(chance["pj"].probability[n]),
            log_sensitivity=float(logs[n]),
            amplification=float(unseen[n] / known[n]),
            gap=float(s[place.i] - s[place.prime]),
        )
        for n, place in enumerate(places)
    )
