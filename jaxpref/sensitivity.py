"""How much one preference moves when another does (Eqs. 2, 4, 8 and 9)."""
from __future__ import annotations
from jaxtyping import Array, ArrayLike, Float
from . import _numerics as nx
from .links import Link, logistic


def log_sensitivity(margin_ik: ArrayLike, margin_kj: ArrayLike, *, link: Link = logistic):
    x, y = nx.as_floats(margin_ik, margin_kj)
    return link.log_density_ratio(x, y), link.log_density_ratio(y, x)
