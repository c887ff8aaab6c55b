"""Timing two ways of doing one thing, side by side in one process, with the error of each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np


@dataclass
class Contender:
    """One way of doing a piece of work.

    `run` returns the centred scores and a word on how it ended; `error` is filled in by
    :func:`race`, as is `first_s`, the time of the first call, with whatever it compiles.
    """

    name: str
    run: Callable[[], tuple[np.ndarray, str]]
    error: float = np.nan
    status: str = ""
    first_s: float = np.nan
    times_s: list[float] = field(default_factory=list)


@dataclass
class Row:
    """A line of the report: ours against a peer."""

    work: str
    ours: str
    peer: str
    target: float
    ours_s: float
    peer_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    ours_error: float
    peer_error: float
    ours_status: str
    peer_status: str
    ours_first_s: float
    peer_first_s: float

    def to_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return asdict(self)


def centred(scores: Any) -> np.ndarray:
    """Return scores in the gauge where they sum to zero."""
    values = np.asarray(scores, np.float64)
    return values - values.mean()


def _once(contender: Contender) -> float:
    start = time.perf_counter()
    contender.run()
    return time.perf_counter() - start


def _first(contender: Contender, reference: np.ndarray) -> None:
    start = time.perf_counter()
    scores, contender.status = contender.run()
    contender.first_s = time.perf_counter() - start
    contender.error = float(np.abs(centred(scores) - centred(reference)).max())


def race(
    work: str,
    ours: Contender,
    peer: Contender,
    *,
    reference: np.ndarray,
    target: float,
    rounds: int,
    inner: int = 1,
    peer_once: bool = False,
) -> Row:
    """Return the row of a race: rounds of ours and the peer in turn, the ratio taken in each.

    Of `inner` calls within a round the fastest counts, on both sides, for work of a few
    milliseconds. The first call of either is kept apart, unless `peer_once` says that the peer
    takes minutes and compiles nothing: its one call then is what every round is compared with.
    Ratios are peer over ours: above 1, ours is faster.
    """
    for contender in (ours, peer):
        _first(contender, reference)
    for _ in range(rounds):
        ours.times_s.append(min(_once(ours) for _ in range(inner)))
        peer.times_s.append(peer.first_s if peer_once else min(_once(peer) for _ in range(inner)))
    ratios = np.array(peer.times_s) / np.array(ours.times_s)
    row = Row(
        work=work,
        ours=ours.name,
        peer=peer.name,
        target=target,
        ours_s=float(np.median(ours.times_s)),
        peer_s=float(np.median(peer.times_s)),
        ratio=float(np.median(ratios)),
        ratio_low=float(np.quantile(ratios, 0.25)),
        ratio_high=float(np.quantile(ratios, 0.75)),
        rounds=rounds,
        ours_error=ours.error,
        peer_error=peer.error,
        ours_status=ours.status,
        peer_status=peer.status,
        ours_first_s=ours.first_s,
        peer_first_s=peer.first_s,
    )
    print(f"{work}: {row.ratio:.1f}x, {row.ours_s:.3g} s, {row.peer_s:.3g} s", flush=True)
    return row


def number(value: float) -> str:
    """Write a number for the table."""
    return "-" if not np.isfinite(value) else f"{value:.2g}"


def seconds(value: float) -> str:
    """Write a time for the table."""
    if not np.isfinite(value):
        return "-"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    head = "work | ours | peer | ratio (quartiles) | at least | time | peer's | error | peer's"
    head += " | status | first call"
    lines = [f"| {head} |", "|" + "---|" * 11]
    for row in rows:
        ratio = f"{row['ratio']:.1f} ({row['ratio_low']:.1f}-{row['ratio_high']:.1f})"
        cells = [
            row["work"],
            row["ours"],
            row["peer"],
            ratio,
            f"{row['target']:g}" if np.isfinite(row["target"]) else "-",
            seconds(row["ours_s"]),
            seconds(row["peer_s"]),
            number(row["ours_error"]),
            number(row["peer_error"]),
            f"{row['ours_status']} / {row['peer_status']}",
            f"{seconds(row['ours_first_s'])} / {seconds(row['peer_first_s'])}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
