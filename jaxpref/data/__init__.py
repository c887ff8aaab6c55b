"""Comparisons and rankings: containers, readers, the comparison graph, and a few published tables.

Importing this package loads neither polars nor pandas: the readers do, when they are called.
"""

from jaxpref.data.bundled import bundled_citation, bundled_names, bundled_path, load_bundled
from jaxpref.data.comparisons import Comparisons, PairCounts
from jaxpref.data.graph import (
    Components,
    describe_separation,
    strong_components,
    weak_components,
)
from jaxpref.data.rankings import Rankings
from jaxpref.data.read_rankings import read_rankings
from jaxpref.data.readers import read_comparisons

__all__ = [
    "Comparisons",
    "Components",
    "PairCounts",
    "Rankings",
    "bundled_citation",
    "bundled_names",
    "bundled_path",
    "describe_separation",
    "load_bundled",
    "read_comparisons",
    "read_rankings",
    "strong_components",
    "weak_components",
]
