"""Links of the user's own, from g or from its density alone, and links by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._checks import InputError, check_option
from .assumptions import LinkReport, check_link
from .base import Link
from .closed_form import cauchit, laplace, logistic, probit
from .quadrature import DensityLink, ProbabilityLink, student_t

MarginFunction = Callable[[Float[Array, "..."]], Float[Array, "..."]]

SHIPPED = {link.name: link for link in (logistic, probit, cauchit, laplace)}


def from_probability(
    probability: MarginFunction,
    *,
    name: str = "custom",
    allow_asymmetric: bool = False,
    check: bool = True,
) -> Link:
    r"""Return a link from the user's g; its density is found by automatic differentiation.

    Parameters
    ----------
    probability : callable
        g, written with ``jax.numpy`` and mapping arrays elementwise. Tails are read from its
        lower side, so it should be accurate for negative margins (``exp(m)``, not
        ``1 - (1 - exp(m))``).
    name : str
        What messages and tables call the link.
    allow_asymmetric : bool
        Accept a g with g(m) + g(-m) != 1. Then p_ij and p_ji are no longer complements and the
        paper's results do not apply; the derivative of Lemma 1 is still the one returned.
    check : bool
        Whether to test Assumptions 2-5 first (about a second).

    Returns
    -------
    Link
        A differentiable link.

    Raises
    ------
    InputError
        Naming the assumption that fails and the margin where it does, or for a shipped link's
        name.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> link = from_probability(lambda m: 0.5 * (1 + jnp.tanh(m)), name="tanh")
    >>> link
    <link tanh>
    """
    _check_name(name)
    candidate = ProbabilityLink(probability, name, False)
    if not check:
        return candidate if allow_asymmetric else ProbabilityLink(probability, name, True)
    symmetric = _require(check_link(candidate), allow_asymmetric)
    return ProbabilityLink(probability, name, symmetric)


def from_density(
    density: MarginFunction | None = None,
    *,
    log_density: MarginFunction | None = None,
    name: str = "custom",
    allow_asymmetric: bool = False,
    check: bool = True,
) -> Link:
    """Return a link from its density g' alone, given plainly or as its logarithm.

    Parameters
    ----------
    density, log_density : callable
        Exactly one of the two, written with ``jax.numpy`` and mapping arrays elementwise. It
        must integrate to 1. The logarithm reaches further into the tails.
    name, allow_asymmetric, check
        As for :func:`from_probability`.

    Returns
    -------
    Link
        g is integrated from the nearer tail by exp-sinh quadrature, to about 1e-13 relative for
        a density that is smooth on each side of 0 and decays over a length of about 1.

    Raises
    ------
    InputError
        Naming the assumption that fails and the margin where it does, or for a shipped link's
        name.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> link = from_density(log_density=lambda m: -m**2 / 2 - 0.9189385332046727, name="normal")
    >>> round(float(link.probability(-1.0)), 6)
    0.158655
    """
    if (density is None) == (log_density is None):
        raise InputError("density, log_density: expected exactly one of the two")
    _check_name(name)

    def plain(margin: Float[Array, "..."]) -> Float[Array, "..."]:
        assert density is not None
        return jnp.log(density(margin))

    function = plain if log_density is None else log_density
    candidate = DensityLink(function, name, False)
    if not check:
        return candidate if allow_asymmetric else DensityLink(function, name, True)
    _require_unit_mass(candidate)
    symmetric = _require(check_link(candidate), allow_asymmetric)
    return DensityLink(function, name, symmetric)


def _check_name(name: str) -> None:
    """Refuse the name of a shipped link, by which fits and saved results know its closed forms."""
    if not name or name in SHIPPED or name.startswith("student_t"):
        raise InputError(f"name: expected one that no shipped link has; got {name!r}")


def _require_unit_mass(link: DensityLink) -> None:
    """Raise unless the density integrates to 1, by the link's own rule and by small panels."""
    with jax.enable_x64(True):
        zero = jnp.zeros((), jnp.float64)
        mass = sum(float(jnp.exp(link.log_tail(zero, upper=upper))) for upper in (False, True))
        panels = _mass_by_panels(link)
    if abs(mass - 1) < 1e-7:
        return
    if abs(panels - 1) < 1e-7:
        raise InputError(
            f"link {link.name!r}: its density is not smooth enough away from 0 to be integrated "
            f"(small panels give {panels:.8g}, one smooth rule {mass:.8g}); give g itself to "
            "from_probability instead"
        )
    raise InputError(
        f"link {link.name!r} breaks Assumption 3 (limits 0 and 1): "
        f"its density integrates to {panels:.8g}, expected 1"
    )


def _mass_by_panels(link: DensityLink) -> float:
    """Integrate the density over narrow panels out to 1e30, for a second opinion."""
    edges = np.concatenate([np.arange(0, 40, 0.05), 40 * 10.0 ** np.arange(0, 29, 0.02)])
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = np.diff(edges) / 2
    places = (edges[:-1] + half)[:, None] + half[:, None] * nodes
    both = np.concatenate([places, -places], axis=1)
    values = np.asarray(jnp.exp(link.log_density(jnp.asarray(both))))
    return float(np.sum(values * np.tile(weights, 2) * half[:, None]))


def _require(report: LinkReport, allow_asymmetric: bool) -> bool:
    """Raise for the first failed assumption; return whether the link is symmetric."""
    symmetric = True
    for failure in report.failures:
        if failure.assumption.startswith("Assumption 4"):
            symmetric = False
            if allow_asymmetric:
                continue
        hint = (
            "; allow_asymmetric=True takes it all the same"
            if failure.assumption.startswith("Assumption 4")
            else ""
        )
        raise InputError(
            f"link {report.link!r} breaks {failure.assumption}: {failure.detail}{hint}"
        )
    return symmetric


def complementary_log_log(*, allow_asymmetric: bool = False) -> Link:
    """Return g(m) = 1 - exp(-exp(m)), which breaks Assumption 4, on explicit request only.

    Raises
    ------
    InputError
        Unless `allow_asymmetric` is true.

    Examples
    --------
    >>> complementary_log_log()
    Traceback (most recent call last):
        ...
    jaxpref._checks.InputError: link 'complementary_log_log' breaks Assumption 4: symmetry: ...
    """
    return from_probability(
        lambda m: -jnp.expm1(-jnp.exp(m)),
        name="complementary_log_log",
        allow_asymmetric=allow_asymmetric,
    )


def by_name(text: str) -> Link:
    """Return a shipped link by its name: ``logistic``, ``probit``, ..., or ``student_t:NU``.

    Raises
    ------
    InputError
        For an unknown name, degrees of freedom that are not a number above 0, and the
        complementary log-log link, which is not symmetric.

    Examples
    --------
    >>> by_name("student_t:4")
    <link student_t(4)>
    """
    name, _, parameter = text.partition(":")
    if name in ("cloglog", "complementary_log_log"):
        try:
            return complementary_log_log()
        except InputError as refusal:  # what Python can ask for, a name cannot
            raise InputError(str(refusal).partition("; allow_asymmetric")[0]) from None
    if name == "student_t":
        try:
            nu: Any = float(parameter)
        except ValueError:
            raise InputError(
                f"link: expected 'student_t:NU' with NU a number above 0; got {text!r}"
            ) from None
        return student_t(nu)
    check_option("link", text, (*SHIPPED, "student_t:NU"))
    return SHIPPED[name]
