"""Counts, shares and units as the sentences of an audit write them."""

from __future__ import annotations


def count(number: float | int, noun: str = "comparison") -> str:
    """Write a count with its noun.

    >>> count(1.0), count(1234.0)
    ('1 comparison', '1,234 comparisons')
    """
    text = f"{number:,.0f}" if float(number).is_integer() else f"{number:,.6g}"
    return f"{text} {noun}{'' if number == 1 else 's'}"


def nats(value: float | int) -> str:
    """Write a difference of log-likelihoods with its unit.

    >>> nats(1.0), nats(2.5)
    ('1 nat', '2.5 nats')
    """
    return f"{value:g} nat{'' if value == 1 else 's'}"


def share(value: float | int) -> str:
    """Write a share, none and all of something only where it is so.

    >>> share(0.0), share(0.003), share(0.25), share(0.998), share(1.0)
    ('0%', 'under 1%', '25%', 'over 99%', '100%')
    """
    if 0 < value < 0.005:
        return "under 1%"
    return "over 99%" if 0.995 <= value < 1 else f"{value:.0%}"
