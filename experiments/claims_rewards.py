"""Claims of appendix C.5: reward models. Each function returns rows; see claims.py."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from _common import (
    Correction,
    Row,
    judge,
    judge_exceptions,
    judge_number,
    needed,
    paper_values,
    printed_tolerance,
)

from jaxpref import implied_probability


def _count(text: str) -> int:
    return int(text.replace(",", ""))


def table_c2(seed: int, size: int) -> Iterator[Row]:
    """Add up Table C2's columns, and take the shares of strong preferences."""
    table = paper_values()["table_c2"]
    models = [name for name in table if name not in ("edges", "total")]
    for name in models:
        counts = [_count(text) for text in table[name]]
        yield judge_number(
            f"Table C2, {name}",
            "the frequencies add up to the total",
            table["total"],
            float(sum(counts)),
            "sum of the five rows",
        )
        strong = 1 - counts[2] / sum(counts)
        extreme = counts[4] / sum(counts)
        yield judge(
            f"C.5.1, {name}",
            "strong preferences (outside [0.10, 0.90)) are not uncommon",
            paper="no number",
            ours=strong,
            error=max(0.0, 0.1 - strong),
            tolerance=0,
            evidence=f"share of the table, read as at least one in ten; {extreme:.1%} reach 0.99",
        )


# The logit-normal ---------------------------------------------------------------------------


def modes(variance: float) -> np.ndarray:
    """Return the logits of p's modes, logit p being N(0, 2 variance), by its slope's sign changes.

    In t = logit p the slope of the log density has the sign of (2p - 1) - t / (2 variance). The
    function is odd and concave for t > 0, so a positive root exists or not; bisection finds it.
    """

    def slope(t: np.ndarray | float) -> np.ndarray:
        return np.tanh(np.asarray(t) / 2) - np.asarray(t) / (2 * variance)

    low, high = 1e-7, 2 * variance + 1.0
    if slope(low) <= 0:
        return np.array([0.0])
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return np.array([-low, low])


def bimodality(seed: int, size: int) -> Iterator[Row]:
    """Find the variance at which the logit-normal gets two modes; follow them; check by grid."""
    printed = paper_values()["section_c_5_1"]["sigma_squared"]
    low, high = 0.1, 10.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if len(modes(middle)) == 2 else (middle, high)
    counted = [_modes_on_grid(v) for v in (0.2, 0.5, 0.9, 0.97, 1.03, 1.5, 3.0)]
    agree = counted == [1, 1, 1, 1, 2, 2, 2]
    yield judge(
        "C.5.1, bimodality",
        "one mode, at 0.5, for sigma^2 <= 1; two modes above",
        paper=printed,
        ours=high,
        error=abs(high - float(printed)) if agree else float("inf"),
        tolerance=1e-6,
        evidence="threshold by bisection on the slope of the density; modes counted on a grid for "
        "sigma^2 from 0.2 to 3: " + ", ".join(map(str, counted)),
    )
    upper = np.array([modes(v)[-1] for v in np.linspace(1.01, 30, 200)])
    wrong = int(np.sum(np.diff(upper) <= 0))
    yield judge_exceptions(
        "C.5.1, modes",
        "the two modes move towards 0 and 1 as sigma^2 grows",
        wrong,
        evidence="exceptions among 200 sigma^2 up to 30, followed by their logits",
    )


def _modes_on_grid(variance: float) -> int:
    """Return how many local maxima the density has on a fine grid of p."""
    p = np.linspace(1e-4, 1 - 1e-4, 4001)
    t = np.log(p) - np.log1p(-p)
    log_density = -(t**2) / (4 * variance) - np.log(p) - np.log1p(-p)
    rises = np.diff(log_density) > 0
    return int(np.sum(rises[:-1] & ~rises[1:]))


# The chain ----------------------------------------------------------------------------------


def section_c_5_2(seed: int, size: int) -> Iterator[Row]:
    """Recompute step 4 of C.5.2 from the probabilities of steps 1 to 3."""
    text = paper_values()["section_c_5_2"]
    number = {name: float(value) for name, value in text.items()}
    first, second = (
        float(implied_probability(number[name], number["p_kj"])) for name in ("p_ik", "p_i'k")
    )
    yield judge_number(
        "C.5.2, step 4, p_ij",
        "p_ik >= 0.99 and p_kj <= 0.02 give p_ij of about 0.96",
        text["p_ij"],
        first,
        f"Eq. 1 at ({text['p_ik']}, {text['p_kj']}) is {first:.6f}; {text['p_ij']} needs p_ik = "
        f"{needed(text['p_ij'], text['p_kj']):.5f}",
    )
    smaller = np.random.default_rng(seed).uniform(1e-6, number["p_kj"] - 1e-6, size)
    above = int(np.sum(np.asarray(implied_probability(number["p_i'k"], smaller)) >= 0.5))
    inputs = ", ".join(text[name] for name in ("p_i'k", "p_kj"))
    yield judge(
        "C.5.2, step 4, p_i'j",
        "p_i'k of about 0.98 and p_kj <= 0.02 give p_i'j < 0.5",
        paper="< 0.5",
        ours=second,
        error=0.0 if second < number["p_i'j"] - 1e-12 else 1.0,
        tolerance=0,
        evidence=f"Eq. 1 at ({inputs}) is {second:.6f}, the bound itself",
        correction=Correction(
            f"it is at most 0.5, and below it for p_kj < {text['p_kj']} ({above} exceptions)", above
        ),
    )


def table_c3(seed: int, size: int) -> Iterator[Row]:
    """Recompute Table C3's last two rows from its first three, within their rounding."""
    text = paper_values()["table_c3"]
    number = {name: float(value) for name, value in text.items()}
    for known, unseen in (("p_ik", "p_ij"), ("p_i'k", "p_i'j")):
        half = [printed_tolerance(text[name]) for name in (known, "p_kj", unseen)]
        low, middle, high = (
            float(implied_probability(number[known] + s * half[0], number["p_kj"] + s * half[1]))
            for s in (-1, 0, 1)
        )
        outside = max(0.0, low - number[unseen], number[unseen] - high)
        yield judge(
            f"Table C3, {unseen}",
            f"{unseen} follows from {known} and p_kj by Eq. 1",
            paper=text[unseen],
            ours=middle,
            error=outside,
            tolerance=half[2],
            evidence=f"the printed inputs, within their rounding, give {low:.4f} to {high:.4f}",
        )
    yield judge(
        "C.5.2, conclusion",
        "y_i is preferred to y_j, and y_j to y_i'",
        paper="p_ij > 0.5 > p_i'j",
        ours=float(implied_probability(number["p_i'k"], number["p_kj"])),
        error=_misses(number),
        tolerance=0,
        evidence="Eq. 1 at the printed inputs",
    )


def _misses(number: dict[str, float]) -> int:
    """Return how many of the two unseen preferences fall on the other side of 1/2."""
    ours = [float(implied_probability(number[k], number["p_kj"])) for k in ("p_ik", "p_i'k")]
    return int(ours[0] <= 0.5) + int(ours[1] >= 0.5)


CLAIMS = (table_c2, bimodality, section_c_5_2, table_c3)
