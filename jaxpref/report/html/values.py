"""Numbers as the page shows them: probabilities never rounded to certainty, counts, signs."""

from __future__ import annotations

import math

from .. import numbers

MINUS = "\u2212"


def chance(p: float | int | None) -> str:
    """Return a probability: a percentage, or its distance from 0 or 1 where that is tiny.

    Examples
    --------
    >>> [chance(p) for p in (0.6689, 0.985, 0.99974, 1 - 3e-9, 4.2e-11)]
    ['66.9%', '98.5%', '99.97%', '1 − 3e-9', '4.2e-11']
    >>> chance(1.0), chance(0.0), chance(None)
    ('1 − less than 1e-16', 'less than 1e-300', '–')
    """
    if p is None or math.isnan(p):
        return "–"
    if p == 1:
        return f"1 {MINUS} less than 1e-16"
    if p == 0:
        return "less than 1e-300"
    small = min(p, 1 - p)
    if small >= 1e-4:
        decimals = 1 if small >= 0.005 else 2
        return f"{100 * p:.{decimals}f}%"
    tiny = _short_exponent(f"{small:.2g}")
    return tiny if p < 0.5 else f"1 {MINUS} {tiny}"


def _short_exponent(text: str) -> str:
    mantissa, mark, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if mark else text


def interval(low: float, high: float) -> str:
    """Return the ends of an interval of probabilities.

    >>> interval(0.25, 0.75)
    '25.0% to 75.0%'
    """
    return f"{chance(low)} to {chance(high)}"


def observed(wins: float | int, total: float | int) -> str:
    """Return a count of wins: here 0% and 100% are facts.

    >>> observed(37.5, 52), observed(3, 3)
    ('37.5 of 52', '3 of 3')
    """
    return f"{numbers.amount(_tidy(wins))} of {numbers.amount(_tidy(total))}"


def _tidy(value: float | int) -> float | int:
    """Return a count without the rounding error of having been a fraction."""
    return round(2 * value) / 2 if abs(2 * value - round(2 * value)) < 1e-6 else value


def count(value: float | int | None) -> str:
    """Return a count, or a dash.

    >>> count(4300.0), count(None)
    ('4,300', '–')
    """
    return "–" if value is None else numbers.amount(_tidy(value))


def signed(value: float | int, decimals: int = 2) -> str:
    """Return a number with its sign.

    >>> signed(-0.5), signed(1.234)
    ('−0.50', '+1.23')
    """
    return f"{value:+.{decimals}f}".replace("-", MINUS)


def plain(value: float | int | None, digits: int = 3) -> str:
    """Return a number with a few significant digits, or a dash.

    >>> plain(22.3703), plain(None)
    ('22.4', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    text = numbers.significant(value, digits).replace("e-0", "e-")
    return MINUS + text[1:] if text.startswith("-") else text


def p_value(value: float) -> str:
    """Return the p-value of a test.

    >>> p_value(0.0312), p_value(3e-9)
    ('0.031', '< 0.0001')
    """
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def share(value: float | int | None) -> str:
    """Return a share of things counted, as a percentage.

    >>> share(0.0004), share(0.5), share(1.0)
    ('<0.1%', '50%', '100%')
    """
    return "–" if value is None else numbers.percent(value)
