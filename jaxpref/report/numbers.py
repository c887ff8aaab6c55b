"""Numbers as people read them: probabilities near 0 and 1, percentages, counts."""

from __future__ import annotations

import math


def probability(p: float, complement: float | None = None, log_p: float | None = None) -> str:
    """Return a probability with six digits of whichever of p and 1 - p is small.

    Parameters
    ----------
    p : float
        In [0, 1].
    complement : float, optional
        1 - p where it is known better than p can say.
    log_p : float, optional
        Natural logarithm of p, shown where p itself has underflown.

    Examples
    --------
    >>> probability(0.668918918), probability(1.0, complement=3e-131)
    ('0.668919', '1 - 3e-131')
    >>> probability(0.0, complement=1.0, log_p=-1400.0)
    'exp(-1400)'
    """
    q = 1 - p if complement is None else complement
    if p == 0 and log_p is not None and math.isfinite(log_p):
        return f"exp({log_p:.6g})"
    if q == 0 and p == 1:
        return "1"
    return f"1 - {q:.6g}" if q < 1e-4 else f"{p:.6g}"


def percent(p: float) -> str:
    """Return a probability as a percentage that says 0% and 100% only when it is.

    Examples
    --------
    >>> percent(0.6689), percent(0.99512), percent(0.99996), percent(1e-9)
    ('67%', '99.5%', '>99.9%', '<0.1%')
    """
    if 0 < p < 0.001:
        return "<0.1%"
    if 0.999 < p < 1:
        return ">99.9%"
    near_an_end = 0 < min(p, 1 - p) < 0.05
    return f"{100 * p:.1f}".removesuffix(".0") + "%" if near_an_end else f"{100 * p:.0f}%"


def significant(value: float, digits: int = 3) -> str:
    """Return a number with a few significant digits, zeros kept, large ones in full.

    Examples
    --------
    >>> significant(22.3703), significant(0.48), significant(1234567.0), significant(3.2e-9)
    ('22.4', '0.480', '1.23e+06', '3.20e-09')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{decimals}f}"


def amount(value: float | int, noun: str = "") -> str:
    """Return a count, with its noun in the right number.

    Examples
    --------
    >>> amount(1, "vote"), amount(8931.0, "vote"), amount(37.5)
    ('1 vote', '8,931 votes', '37.5')
    """
    text = f"{int(value):,}" if float(value).is_integer() else f"{value:,.6g}"
    return f"{text} {noun}{'' if value == 1 else 's'}".rstrip() if noun else text
