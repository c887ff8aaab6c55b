"""The derivative dp_ij/dp_ik by four independent routes, for every link and float type.

Item: Eqs. 2 and 4, the derivatives everything else rests on.
Claim: automatic differentiation, the closed form g'(z)/g'(x), central differences and the complex
    step agree, down to 1 - p = 1e-12.
Command: python experiments/verify_gradients.py [--smoke] [--out FOLDER]; exit code 3 on a miss.
Minutes: 0.5. Device: CPU.

The truth is g'(z)/g'(x) in 40-digit arithmetic at the very inputs each float type holds. The grid
pairs tails of p_ik and p_kj, on both sides of 1/2, that are never equal, so that z is not 0. Points
where g(-|z|) leaves the float type's normal range belong to the closed form alone. "autodiff" takes
p_ij as it stands, near 1 too; "smaller side" takes p_ij or p_ji, whichever is below 1/2: the
derivative of p_ji with respect to p_ki is the same number.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _common
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np

from jaxpref import implied_probability, sensitivity
from jaxpref.links import Link, by_name

NAME = "verify_gradients"
LINKS = ("logistic", "probit", "cauchit", "laplace", "student_t:3")
ROUTES = ("closed form", "autodiff", "smaller side", "finite difference", "complex step")
TOLERANCES = {
    ("closed form", "float64"): (1e-13, "a few hundred rounding errors, none amplified"),
    ("closed form", "float32"): (5e-6, "about 40 rounding errors"),
    ("autodiff", "float64"): (1e-12, "x + y and the inverse link are rounded, times |x| or x^2"),
    ("autodiff", "float32"): (1e-4, "the same: |x| up to 28 (or x^2 up to 50), some roundings"),
    ("smaller side", "float64"): (1e-12, "as autodiff"),
    ("smaller side", "float32"): (1e-4, "as autodiff"),
    ("finite difference", "float64"): (1e-8, "step eps^(1/3): eps^(2/3) = 4e-11, times 100"),
    ("finite difference", "float32"): (5e-3, "step eps^(1/3): eps^(2/3) = 2e-5, times 200"),
    ("complex step", "float64"): (1e-12, "x + y is rounded, times |x|; no difference is taken"),
    ("complex step", "float32"): (1e-4, "the same: |x| up to 28, some roundings"),
}


@dataclass(frozen=True)
class Config:
    """The links, and the tails min(p, 1 - p) of p_ik; those of p_kj are 1.7 times as large."""

    links: tuple[str, ...] = LINKS
    tails: tuple[float, ...] = (0.27, 0.1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12)
    ratio: float = 1.7


SMOKE = Config(tails=(0.1, 1e-6, 1e-12))


def grid(config: Config, dtype: str) -> tuple[np.ndarray, ...]:
    """Return p_ik, 1 - p_ik, p_kj, 1 - p_kj, each held in `dtype`, on both sides of 1/2."""
    tails = np.asarray(config.tails, np.float64)
    sides = []
    for tail in (tails, tails * config.ratio):
        small = tail.astype(dtype)
        large = (1 - tail).astype(dtype)
        sides.append((np.concatenate([large, small]), np.concatenate([small, large])))
    (p, p_rest), (q, q_rest) = sides
    first, second = (a.ravel() for a in np.meshgrid(np.arange(p.size), np.arange(q.size)))
    return p[first], p_rest[first], q[second], q_rest[second]


def truth(link: Link, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return g'(x + y) / g'(x) in 40-digit arithmetic, at margins as they are held."""
    log_density = _log_density(link.name)
    with mp.workdps(40):
        pairs = [(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(x, y, strict=True)]
        return np.array([float(mp.exp(log_density(a + b) - log_density(a))) for a, b in pairs])


def _log_density(name: str) -> Callable[[Any], Any]:
    """Return log g' up to a constant, of an mpmath number."""
    if name.startswith("student_t("):
        nu = mp.mpf(name[len("student_t(") : -1])
        return lambda m: -(nu + 1) / 2 * mp.log1p(m * m / nu)
    return {
        "logistic": lambda m: -abs(m) - 2 * mp.log1p(mp.exp(-abs(m))),
        "probit": lambda m: -m * m / 2,
        "cauchit": lambda m: -mp.log1p(m * m),
        "laplace": lambda m: -abs(m),
    }[name]


# The routes ---------------------------------------------------------------------------------


def closed_form(link: Link, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the package's own sensitivity at margins."""
    return np.asarray(sensitivity(jnp.asarray(x), jnp.asarray(y), link=link)[0])


def autodiff(link: Link, *inputs: np.ndarray) -> np.ndarray:
    """Return jax.grad of p_ij (Eq. 1) with respect to p_ik, its complement moving against it."""

    def p_ij(p: jax.Array, rest: jax.Array, q: jax.Array, q_rest: jax.Array) -> jax.Array:
        return implied_probability(p, q, complement_ik=rest, complement_kj=q_rest, link=link)

    slopes = jax.jit(jax.vmap(jax.grad(p_ij, argnums=(0, 1))))
    by_p, by_rest = slopes(*map(jnp.asarray, inputs))
    return np.asarray(by_p - by_rest)


def finite_difference(link: Link, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the ratio of central differences of g at x + y and at x, each taken in its tail."""
    return _slope_by_difference(link, x + y) / _slope_by_difference(link, x)


def _slope_by_difference(link: Link, margin: np.ndarray) -> np.ndarray:
    """Return g'(-|m|), which is g'(m), with a step suited to how g bends there."""
    tail = -np.abs(margin)
    size = np.maximum(1, -tail)
    bend = {"probit": 1 / size, "logistic": 1.0, "laplace": 1.0}.get(link.name, size)
    step = (np.finfo(margin.dtype).eps ** (1 / 3) * bend).astype(margin.dtype)
    high, low = tail + step, tail - step
    rise = link.probability(jnp.asarray(high)) - link.probability(jnp.asarray(low))
    return np.asarray(rise) / (high - low)


def complex_step(link: Link, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Return the ratio of imaginary parts of g at x + y + ih and x + ih; None where g is unknown.

    Laplace's g is analytic on either side of 0, where the grid never lies.
    """
    analytic = ANALYTIC.get(link.name)
    if analytic is None:
        return None
    # float32 has no room below e^-54 for a step of 1e-20; 1e-6 costs 1e-12.
    step = np.asarray(1e-20 if x.dtype == np.float64 else 1e-6, x.dtype)
    above, below = (np.imag(analytic(-np.abs(m) + 1j * step)) for m in (x + y, x))
    return above / below


ANALYTIC: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "logistic": lambda m: np.exp(m) / (1 + np.exp(m)),
    "cauchit": lambda m: np.arctan(-1 / m) / np.pi,
    "laplace": lambda m: np.exp(m) / 2,
}


# Together -----------------------------------------------------------------------------------


def errors(link: Link, config: Config, dtype: str) -> dict[str, float | None]:
    """Return the largest relative error of each route over the grid."""
    inputs = grid(config, dtype)
    p, rest, q, q_rest = (a.astype(np.float64) for a in inputs)
    x, y = (np.asarray(link.margin(a, b)) for a, b in ((p, rest), (q, q_rest)))
    short_x, short_y = x.astype(dtype), y.astype(dtype)
    at_margins, at_inputs = truth(link, short_x, short_y), truth(link, x, y)
    found = {
        "closed form": (closed_form(link, short_x, short_y), at_margins),
        "autodiff": (autodiff(link, *inputs), at_inputs),
        "smaller side": (autodiff(link, *_lower_side(inputs, x + y)), at_inputs),
        "finite difference": (finite_difference(link, short_x, short_y), at_margins),
        "complex step": (complex_step(link, short_x, short_y), at_margins),
    }
    held = np.asarray(link.probability(-np.abs(x + y))) > 1e6 * np.finfo(dtype).tiny
    return {
        route: None if got is None else _largest(got, exact, held | (route == "closed form"))
        for route, (got, exact) in found.items()
    }


def _lower_side(inputs: tuple[np.ndarray, ...], margin: np.ndarray) -> list[np.ndarray]:
    """Return the inputs with p and 1 - p exchanged where p_ij exceeds 1/2."""
    p, rest, q, q_rest = inputs
    swap = margin > 0
    pairs = ((p, rest), (rest, p), (q, q_rest), (q_rest, q))
    return [np.where(swap, other, own) for own, other in pairs]


def _largest(got: np.ndarray, exact: np.ndarray, counted: np.ndarray) -> float:
    return float(np.max(np.abs(got[counted] / exact[counted] - 1)))


def compute(config: Config, progress: _common.Progress | None = None) -> dict[str, Any]:
    """Return the errors of every route, and whether each keeps its tolerance."""
    values, rows = [], []
    jobs = [(name, dtype) for name in config.links for dtype in ("float64", "float32")]
    for done, (name, dtype) in enumerate(jobs):
        found = errors(by_name(name), config, dtype)
        values.append({"link": name, "dtype": dtype, **found})
        rows += [_row(name, dtype, route, found[route]) for route in ROUTES]
        if progress is not None:
            progress(done + 1, len(jobs))
    return _common.result(config, values, [row for row in rows if row is not None])


def _row(name: str, dtype: str, route: str, error: float | None) -> _common.Row | None:
    """Return the comparison of a route with the truth; None where it does not apply."""
    if error is None:
        return None
    tolerance, reason = TOLERANCES[route, dtype]
    return _common.judge(
        f"Eq. 2, {name}, {dtype}, {route}",
        "dp_ij/dp_ik = g'(z)/g'(x)",
        paper="0",
        ours=error,
        error=error,
        tolerance=tolerance,
        evidence=f"largest relative error; allowed {tolerance:g}: {reason}",
    )


def table(values: list[dict[str, Any]]) -> str:
    """Return the errors as a table of plain text."""
    lines = [f"{'link':<12} {'type':<8}" + "".join(f"{route:>19}" for route in ROUTES)]
    for row in values:
        cells = ("not applicable" if row[r] is None else f"{row[r]:.1e}" for r in ROUTES)
        lines.append(f"{row['link']:<12} {row['dtype']:<8}" + "".join(f"{c:>19}" for c in cells))
    return "\n".join(lines)


def plot(folder: Path) -> list[Path]:
    """Draw nothing: the table says it all."""
    return []


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment as a program."""
    return _common.run_script(NAME, sys.modules[__name__], arguments)


if __name__ == "__main__":
    sys.exit(main())
