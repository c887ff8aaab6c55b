"""What an area estimate is, and how two rules of one family turn into an error."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array, Float


class AreaEstimate(NamedTuple):
    """An area with its error.

    Attributes
    ----------
    area : array
        In [0, 1] for pairs, in [0, 1/2] for rankings; one entry per threshold.
    error : array
        A bound on the rounding error for a closed form, the difference to a coarser rule for
        quadrature, one standard error for lattices and Monte Carlo.
    method : str
        "closed_form", "quadrature", "lattice" or "monte_carlo".
    status : str
        "converged"; "error_large" where a deterministic rule's error exceeds 1e-6 of the area
        (1e-3 in float32); "sampled" for the random methods; "unknown" under ``jit``.
    """

    area: Float[Array, "..."]
    error: Float[Array, "..."]
    method: str
    status: str
