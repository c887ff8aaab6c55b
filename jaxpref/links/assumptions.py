"""Does a link satisfy what the paper's results rest on? A numerical check of each assumption.

Numbers can refute an assumption and name the margin where it fails; they cannot prove one. A
passing report means that no failure was seen on the margins tried: a dense grid around zero, and
decades out to 1e150.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .base import Link

HostFunction = Callable[[np.ndarray], np.ndarray]

_NEAR = np.round(np.arange(-12.0, 12.0 + 1e-9, 0.01), 10)
_FAR = np.concatenate([10.0 ** np.arange(1.25, 150.1, 0.25), np.arange(1.0, 40.0)])
_JUMP = 1e-3  # relative to the largest density (or to 1, for g): smaller jumps are not reported


class AssumptionCheck(NamedTuple):
    """The verdict on one assumption: whether it held, and the margin where it first did not."""

    assumption: str
    holds: bool
    margin: float | None
    detail: str


class LinkReport(NamedTuple):
    """The verdicts on Assumptions 2 to 5 and on g' -> 0."""

    link: str
    checks: tuple[AssumptionCheck, ...]

    @property
    def holds(self) -> bool:
        """Whether every assumption held wherever it was tried."""
        return all(check.holds for check in self.checks)

    @property
    def failures(self) -> tuple[AssumptionCheck, ...]:
        """The assumptions that failed."""
        return tuple(check for check in self.checks if not check.holds)

    def __str__(self) -> str:
        lines = [f"link {self.link}"]
        for check in self.checks:
            verdict = "holds" if check.holds else "FAILS"
            lines.append(f"  {check.assumption:<42} {verdict}  {check.detail}".rstrip())
        return "\n".join(lines)


def check_link(link: Link) -> LinkReport:
    """Test a link against Assumptions 2-5 of the paper and against g' -> 0.

    Parameters
    ----------
    link : Link
        A shipped link or a user's own.

    Returns
    -------
    LinkReport
        One verdict per assumption; a failed one names the margin where it was seen to fail.

    Notes
    -----
    The paper's Lemma 2 derives g' -> 0 from Assumptions 2-5. It does not follow: a density with
    ever narrower spikes satisfies all four. It is therefore checked on its own, on random and on
    integer margins; a spike that all of those miss is not seen.

    References
    ----------
    Xu and Kankanhalli (ICLR 2025), section 2.2: Assumptions 2-5, Lemma 2.

    Examples
    --------
    >>> from jaxpref.links import laplace
    >>> print(check_link(laplace))
    link laplace
      Assumption 2: strictly increasing          holds
      Assumption 3: limits 0 and 1               holds
      Assumption 4: symmetry                     holds
      Assumption 5: continuously differentiable  holds
      Density vanishes at infinity (Lemma 2)     holds
    """
    with jax.enable_x64(True):
        probability = _on_host(link.probability)
        log_density = _on_host(link.log_density)

        def density(margin: np.ndarray) -> np.ndarray:
            with np.errstate(over="ignore"):
                return np.exp(log_density(margin))

        checks = (
            _check_increasing(probability, density),
            _check_limits(probability),
            _check_symmetry(probability),
            _check_smooth(probability, density),
            _check_vanishing(probability, density),
        )
    return LinkReport(link.name, checks)


def _on_host(function: Callable[..., jax.Array]) -> HostFunction:
    compiled = jax.jit(lambda margin: function(margin))

    def evaluate(margin: np.ndarray) -> np.ndarray:
        return np.asarray(compiled(jnp.asarray(margin, jnp.float64)))

    return evaluate


def _verdict(assumption: str, margin: float | None, detail: str) -> AssumptionCheck:
    return AssumptionCheck(assumption, margin is None, margin, detail if margin is not None else "")


def _first(bad: np.ndarray, margins: np.ndarray) -> float | None:
    """Return the bad margin nearest zero, or None."""
    found = margins[bad]
    return float(found[np.argmin(np.abs(found))]) if found.size else None


def _check_increasing(probability: HostFunction, density: HostFunction) -> AssumptionCheck:
    name = "Assumption 2: strictly increasing"
    values, slopes = probability(_NEAR), density(_NEAR)
    steps = np.diff(values)
    # Near 0 and 1 rounding alone can repeat or swap two values: only a visible fall counts there.
    room = np.minimum(values, 1 - values)
    middle = np.minimum(room[1:], room[:-1]) > 1e-9
    falls = ~(steps > 0) & middle | (steps < -1e-12) | np.isnan(steps)
    flat = (~(slopes > 0) & (room > 1e-9)) | np.isnan(slopes)
    where = _first(np.concatenate([flat[1:] | falls]), _NEAR[1:])
    if where is None:
        return _verdict(name, None, "")
    index = int(np.flatnonzero(_NEAR == where)[0])
    return _verdict(name, where, f"at margin {where:g}: g = {values[index]:g}, slope not above 0")


def _check_limits(probability: HostFunction) -> AssumptionCheck:
    name = "Assumption 3: limits 0 and 1"
    far = np.sort(_FAR)
    values = np.concatenate([probability(-far), probability(far), probability(_NEAR)])
    margins = np.concatenate([-far, far, _NEAR])
    outside = ~((values >= -1e-12) & (values <= 1 + 1e-9))
    where = _first(outside, margins)
    if where is not None:
        value = values[margins == where][0]
        return _verdict(name, where, f"g({where:g}) = {value:g} is not within [0, 1]")
    low, high = values[len(far) - 1], values[2 * len(far) - 1]
    if low > 1e-6:
        return _verdict(name, -far[-1], f"g({-far[-1]:g}) = {low:g}, expected 0")
    if high < 1 - 1e-6:
        return _verdict(name, far[-1], f"g({far[-1]:g}) = {high:g}, expected 1")
    return _verdict(name, None, "")


def _check_symmetry(probability: HostFunction) -> AssumptionCheck:
    name = "Assumption 4: symmetry"
    margins = np.concatenate([np.abs(_NEAR[_NEAR >= 0]), np.sort(_FAR)])
    excess = probability(margins) + probability(-margins) - 1
    where = _first(~(np.abs(excess) < 1e-9), margins)
    if where is None:
        return _verdict(name, None, "")
    total = 1 + excess[margins == where][0]
    return _verdict(name, where, f"g({where:g}) + g(-{where:g}) = {total:.6g}, expected 1")


def _check_smooth(probability: HostFunction, density: HostFunction) -> AssumptionCheck:
    name = "Assumption 5: continuously differentiable"
    jump = _largest_jump(probability, 1.0)
    if jump is not None:
        return _verdict(name, jump[0], f"g jumps by {jump[1]:.3g} at margin {jump[0]:.6g}")
    peak = np.nanmax(density(_NEAR))
    jump = _largest_jump(density, float(peak))
    if jump is not None:
        return _verdict(name, jump[0], f"g' jumps by {jump[1]:.3g} at margin {jump[0]:.6g}")
    return _verdict(name, None, "")


def _largest_jump(function: HostFunction, scale: float) -> tuple[float, float] | None:
    """Return (margin, size) of a jump that survives bisection to 1e-12, or None."""
    values = function(_NEAR)
    steps = np.nan_to_num(np.abs(np.diff(values)), nan=0.0, posinf=0.0)
    candidates = np.argsort(steps)[-8:]
    low, high = _NEAR[candidates], _NEAR[candidates + 1]
    for _ in range(36):
        middle = (low + high) / 2
        left, centre, right = function(low), function(middle), function(high)
        in_left = np.abs(centre - left) >= np.abs(right - centre)
        low, high = np.where(in_left, low, middle), np.where(in_left, middle, high)
    sizes = np.abs(function(high) - function(low))
    sizes = np.where(np.isfinite(sizes), sizes, np.inf)
    worst = int(np.argmax(sizes))
    if sizes[worst] <= _JUMP * scale:
        return None
    return float(np.round(high[worst], 9)), float(sizes[worst])


def _check_vanishing(probability: HostFunction, density: HostFunction) -> AssumptionCheck:
    name = "Density vanishes at infinity (Lemma 2)"
    peak = float(np.nanmax(density(_NEAR)))
    random = np.random.default_rng(0).uniform(1.0, 10.0, size=(12, 400))
    decades = 10.0 ** np.arange(1, 13)[:, None]
    wide = np.concatenate([random, np.arange(1.0, 10.0, 0.01)[None].repeat(12, 0)], axis=1)
    margins = wide * decades
    margins = np.concatenate([margins, np.round(margins)], axis=1)
    margins = np.concatenate([margins, -margins], axis=1)
    values = density(margins.ravel()).reshape(margins.shape)
    # Where g itself has rounded to 0 or 1 a density that is not a number says nothing.
    ends = probability(margins.ravel()).reshape(margins.shape)
    values = np.where(np.isnan(values) & ((ends == 0) | (ends == 1)), 0.0, values)
    bad = ~(values[6:] < 1e-6 * peak)
    where = _first(bad, margins[6:])
    if where is None:
        return _verdict(name, None, "")
    value = density(np.asarray([where]))[0]
    return _verdict(name, where, f"g'({where:g}) = {value:.3g}, the largest near 0 is {peak:.3g}")
