"""What an audit finds, as plain records: fragile pairs, flips, groups, dominance, what to collect.

Every record is a NamedTuple of numbers, names, tuples and NumPy columns; ``plain`` turns any of
them into dictionaries ready for JSON.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32


def plain(value: Any) -> Any:
    """Return nested records as dictionaries and lists; numbers that are not finite become None.

    >>> plain(Cut(1.0, ("a",), "never beat"))
    {'comparisons': 1.0, 'items': ['a'], 'verb': 'never beat'}
    """
    if hasattr(value, "_asdict"):
        return {name: plain(entry) for name, entry in value._asdict().items()}
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


# What is fragile --------------------------------------------------------------------------------


class PairTable(NamedTuple):
    """Every pair of items, compared or not, sorted by (item_a, item_b), item_a < item_b.

    Attributes
    ----------
    item_a, item_b : (pairs,)
        Indices into the items of the fit.
    comparisons : (pairs,)
        How often the two were compared; 0 for an unseen pair.
    probability, low, high : (pairs,)
        Prediction that item_a beats item_b, and its 95% interval, in [0, 1].
    margin, standard_error : (pairs,)
        s_a - s_b and its standard error, in nats (units of the link).
    derivative : (pairs,)
        Derivative of the prediction by the observed fraction it depends on most, with its sign.
        Its size is also the worst case per unit of an L1 budget on the fractions.
    edge : (pairs,)
        That observed pair, as an index into ``fit.pairs``.
    worst_l2, worst_linf : (pairs,)
        Largest first-order move per unit of budget when all fractions move together: the L2 norm
        of the derivatives (root of the sum of squared moves bounded) and their sum of sizes (each
        fraction moving by at most the budget).
    """

    item_a: Int32[np.ndarray, " pairs"]
    item_b: Int32[np.ndarray, " pairs"]
    comparisons: Float64[np.ndarray, " pairs"]
    probability: Float64[np.ndarray, " pairs"]
    low: Float64[np.ndarray, " pairs"]
    high: Float64[np.ndarray, " pairs"]
    margin: Float64[np.ndarray, " pairs"]
    standard_error: Float64[np.ndarray, " pairs"]
    derivative: Float64[np.ndarray, " pairs"]
    edge: Int32[np.ndarray, " pairs"]
    worst_l2: Float64[np.ndarray, " pairs"]
    worst_linf: Float64[np.ndarray, " pairs"]

    @property
    def sensitivity(self) -> Float64[np.ndarray, " pairs"]:
        """Largest absolute derivative by one observed fraction: the worst case of an L1 budget."""
        return np.abs(self.derivative)

    @property
    def seen(self) -> Bool[np.ndarray, " pairs"]:
        """Whether the two were compared."""
        return self.comparisons > 0


class FragilePair(NamedTuple):
    """One row of the pair table by name, with the observed pair it depends on most."""

    item_a: str
    item_b: str
    comparisons: float
    probability: float
    low: float
    high: float
    sensitivity: float
    derivative: float
    edge_a: str
    edge_b: str
    edge_comparisons: float
    worst_l2: float
    worst_linf: float


class EdgeLeverage(NamedTuple):
    """An observed pair and how much the fit rests on it.

    `leverage` is the share of the pair's own fitted margin that its own comparisons decide, in
    [0, 1]: 1 for a bridge, whose removal leaves no fit; over all edges it averages
    (items - 1) / edges without a prior. `studentised` is the pair's residual in standard errors.
    """

    item_a: str
    item_b: str
    comparisons: float
    win_fraction: float
    fitted_probability: float
    leverage: float
    studentised: float


class Group(NamedTuple):
    """What happens when all comparisons of one rater, item or observed pair are left out.

    Attributes
    ----------
    kind : {"rater", "item", "edge"}
        What is left out.
    name : tuple of str
        One name, or the two items of an edge.
    comparisons : float
        How many comparisons go.
    status : {"refitted", "one_step", "no_fit"}
        "refitted": the numbers are those of a refit. "one_step": of one Newton step (not
        confirmed). "no_fit": without the group no finite fit is found; what follows is None.
    item_a, item_b : str or None
        The prediction that moves most, among all pairs that remain.
    before, after : float or None
        That prediction before and after.
    predicted_after : float or None
        What one Newton step said `after` would be, as a check of first-order reasoning.
    winner : str or None
        Best item without the group.
    top_k_entered, top_k_left : tuple of str
        Change of the set of the k best (an item left out itself does not count as having left).
    largest_rank_change : int or None
        Places that some remaining item moves, among the remaining items.
    """

    kind: str
    name: tuple[str, ...]
    comparisons: float
    status: str
    item_a: str | None
    item_b: str | None
    before: float | None
    after: float | None
    predicted_after: float | None
    winner: str | None
    top_k_entered: tuple[str, ...]
    top_k_left: tuple[str, ...]
    largest_rank_change: int | None


def no_fit_without(kind: str, name: tuple[str, ...], comparisons: float) -> Group:
    """Return the record of a group without which there is no finite fit."""
    return Group(
        kind=kind,
        name=name,
        comparisons=comparisons,
        status="no_fit",
        item_a=None,
        item_b=None,
        before=None,
        after=None,
        predicted_after=None,
        winner=None,
        top_k_entered=(),
        top_k_left=(),
        largest_rank_change=None,
    )


class Groups(NamedTuple):
    """Groups left out one at a time, those that move a prediction most first.

    `k` is that of the top k; `changing_winner` and `changing_top_k` count groups whose removal
    changes the best item or the set of the k best, and `changers` names them; `num` is how many
    groups there were, and `num_refitted` how many of them were refitted.
    """

    kind: str
    k: int
    num: int
    num_refitted: int
    changing_winner: int
    changing_top_k: int
    rows: tuple[Group, ...]
    changers: tuple[tuple[str, ...], ...] = ()


# How little would flip it -----------------------------------------------------------------------


class Move(NamedTuple):
    """Comparisons of one kind in a certificate.

    Attributes
    ----------
    action : {"drop", "add", "change"}
        What is done with them.
    item_a, item_b : str
        The two items.
    outcome : {"a", "b", "tie"}
        Who won them (of comparisons to add: who is to win).
    new_outcome : {"a", "b"} or None
        Who is to have won them, where they are changed.
    count : float
        How many. Comparisons of one cell are exchangeable: any `count` of them will do.
    available : float or None
        How many of that kind there are; None for comparisons to add.
    raters : tuple of (str, float)
        Who gave such comparisons, and how many, most first; empty where raters are not known.
    """

    action: str
    item_a: str
    item_b: str
    outcome: str
    new_outcome: str | None
    count: float  # pyright: ignore[reportIncompatibleMethodOverride]
    available: float | None
    raters: tuple[tuple[str, float], ...]


class RankingMove(NamedTuple):
    """A ranking in a certificate: its number (from 0), its text, and how much of its weight."""

    action: str
    ranking: int
    text: str
    count: float  # pyright: ignore[reportIncompatibleMethodOverride]
    available: float
    raters: tuple[tuple[str, float], ...]


class Flip(NamedTuple):
    """The fewest comparisons found that reverse a conclusion, confirmed by refitting.

    Attributes
    ----------
    question : {"pair", "winner", "top_k"}
        What is reversed: the order of two items, the best item, the set of the k best.
    budget : {"drop", "add", "change"}
        What may be done with comparisons.
    k : int or None
        That of the top k.
    ahead, behind : str
        The items whose order is reversed (for the winner and the top k: those that change places).
    comparisons : float or None
        How many comparisons; None where none were found.
    share : float or None
        The same over all comparisons.
    status : {"confirmed", "not_found", "no_fit"}
        "confirmed": after these moves, and with one comparison fewer not, a refit has `behind`
        ahead. "not_found": no set within the limit does. "no_fit": the data run out first: what
        would do it leaves no finite fit.
    margin_before, margin_after : float
        s_ahead - s_behind before, and in the confirming refit (below 0), in nats.
    first_order : float or None
        What linear influences alone say the number is (not confirmed; for comparison).
    refits : int
        How many refits the search took.
    moves : tuple of Move
        The certificate.
    """

    question: str
    budget: str
    k: int | None
    ahead: str
    behind: str
    comparisons: float | None
    share: float | None
    status: str
    margin_before: float
    margin_after: float | None
    first_order: float | None
    refits: int
    moves: tuple[Move | RankingMove, ...]


class Cut(NamedTuple):
    """The fewest comparisons whose loss leaves no finite fit: `items` then `verb` any other."""

    comparisons: float
    items: tuple[str, ...]
    verb: str


# How dominant the data are ----------------------------------------------------------------------


class Bin(NamedTuple):
    """A bin of Table C2 with how many observed pairs fall into it.

    `observed` counts observed win fractions (0 and 1 count in the outer bins), `fitted` the fitted
    probabilities of the observed pairs, `all_pairs` those of every pair. Each pair counts once,
    from the side of its first item and of its second one with weight 1/2, so that the outer bins do
    not depend on the order of the names.
    """

    label: str
    low: float
    high: float
    observed: float
    fitted: float
    all_pairs: float


class CircularTriple(NamedTuple):
    """Three items each of which beat the next more often than not: a over b over c over a.

    `p_value` is of the test that the cycle is real (the largest of the three one-sided binomial
    p-values, valid for the union of the three null hypotheses), `adjusted` after Holm's correction
    over all complete triples. `p_value_model` is of the likelihood-ratio test, one degree of
    freedom, that the three fractions are those of some scores.
    """

    item_a: str
    item_b: str
    item_c: str
    fractions: tuple[float, float, float]
    comparisons: tuple[float, float, float]
    p_value: float
    adjusted: float
    p_value_model: float


class Cycles(NamedTuple):
    """Circular triples among all triples with three observed pairs (Kendall and Smith's count).

    `expected`, `standard_deviation` and `p_value` (of at least so many) are simulated from the
    fitted model; `expected_at_random` is a quarter of the triples.
    """

    complete_triples: int
    circular: int
    expected: float
    standard_deviation: float
    p_value: float
    expected_at_random: float
    simulations: int
    significant: int
    triples: tuple[CircularTriple, ...]


class Dominance(NamedTuple):
    """How dominant the preferences are, and how transitive.

    `variance` is that of the fitted scores (sigma^2 of section C.5.1, in nats^2),
    `corrected_variance` with the sampling noise of the scores taken off, `variance_error` its
    standard error for normal scores. `bimodal` is whether `corrected_variance` exceeds 1: then the
    fitted logit-normal N(0, 2 sigma^2) of preferences has two modes. `deviance` with
    `degrees_of_freedom` tests the fit against free probabilities for all observed pairs.
    """

    bins: tuple[Bin, ...]
    variance: float
    corrected_variance: float
    variance_error: float
    bimodal: bool
    deviance: float
    degrees_of_freedom: int
    deviance_p_value: float
    cycles: Cycles | None
    sentence: str


# What to collect next ---------------------------------------------------------------------------


class Collect(NamedTuple):
    """A pair to compare once more, and what that is expected to be worth.

    `gain` is the expected reduction of the objective (`before` to `before - gain`).
    """

    item_a: str
    item_b: str
    comparisons: float
    probability: float
    gain: float


class Collecting(NamedTuple):
    """Pairs ranked by what one more comparison is expected to be worth.

    Attributes
    ----------
    objective : {"interval", "sensitivity", "flip"}
        "interval": the widest 95% interval of a prediction. "sensitivity": the largest derivative
        of a prediction by one observed fraction. "flip": the expected number of neighbours on the
        leaderboard that are in the wrong order.
    before : float
        The objective now.
    uniform_gain : float
        Mean gain over all pairs: what a comparison of a pair drawn at random is worth.
    worst : tuple of str
        The pair that attains the objective now; empty for "flip".
    rows : tuple of Collect
        The best pairs first.
    """

    objective: str
    before: float
    uniform_gain: float
    worst: tuple[str, ...]
    rows: tuple[Collect, ...]


# Other models -----------------------------------------------------------------------------------


class Range(NamedTuple):
    """What a prediction can be over all models within `loss` nats of the best log-likelihood.

    `low` and `high` are confirmed by constrained refits; `quadratic_low` and `quadratic_high` are
    what the curvature at the best fit says. `reversible` is whether both orders are within reach.
    """

    item_a: str
    item_b: str
    probability: float
    low: float
    high: float
    quadratic_low: float
    quadratic_high: float
    reversible: bool


class Multiplicity(NamedTuple):
    """Predictive multiplicity: how far near-best models disagree.

    `share_reversible` is the share of all pairs whose order some model within the loss reverses
    (by the quadratic approximation), `largest_width` the largest range of a prediction (likewise).
    """

    loss: float
    share_reversible: float
    largest_width: float
    rows: tuple[Range, ...]


class Reversal(NamedTuple):
    """Two items whose order another link reverses, with both probabilities that a beats b."""

    item_a: str
    item_b: str
    probability: float
    other_probability: float


class LinkRow(NamedTuple):
    """The same data under another link.

    `status` is "converged", "local" (a maximum, perhaps not the only one) or what went wrong.
    `log_likelihood` is in nats; `kendall_tau` compares the orders; `largest_change` is that of a
    prediction, between `item_a` and `item_b`.
    """

    link: str
    status: str
    log_likelihood: float | None
    winner: str | None
    same_winner: bool | None
    same_top_k: bool | None
    kendall_tau: float | None
    num_reversed: int | None
    largest_change: float | None
    item_a: str | None
    item_b: str | None
    reversals: tuple[Reversal, ...]


class Links(NamedTuple):
    """The audit across links: which orders survive all of them.

    `share_surviving` is the share of pairs ordered alike under every link that could be fitted.
    """

    base: str
    k: int
    share_surviving: float
    rows: tuple[LinkRow, ...]


# Rankings ---------------------------------------------------------------------------------------


class RankingInfluence(NamedTuple):
    """A ranking and the prediction that dropping it moves most.

    `derivative` is dp_ab / d weight of the ranking; `after` the prediction in a refit without it.
    """

    ranking: int
    text: str
    weight: float
    rater: str | None
    item_a: str
    item_b: str
    probability: float
    derivative: float
    after: float | None


class RankedPair(NamedTuple):
    """A pair of a fit of rankings: prediction, interval, and the ranking it depends on most.

    `derivative` is dp_ab / d weight of that ranking, number `ranking` (from 0), which reads `text`;
    `worst_l2` and `worst_linf` are for all weights moving together, as in PairTable.
    """

    item_a: str
    item_b: str
    probability: float
    low: float
    high: float
    derivative: float
    ranking: int
    text: str
    worst_l2: float
    worst_linf: float
