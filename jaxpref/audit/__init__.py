"""Which predictions of a fit are fragile, what would flip its conclusions, what to collect next."""

from .auditing import audit
from .collect import what_to_collect
from .conclusions import Conclusions
from .large import fragile_pairs
from .network import NetworkSensitivity, network_sensitivity
from .ranked import RankingAudit
from .records import (
    Collecting,
    Cycles,
    Dominance,
    EdgeLeverage,
    Flip,
    FragilePair,
    Groups,
    Links,
    Move,
    Multiplicity,
    PairTable,
)
from .regime import Regime
from .report import AuditReport, AuditRow, Edge
from .triples import Triple, TripleCounts
from .unseen import UnseenPairs

__all__ = [
    "AuditReport",
    "AuditRow",
    "Collecting",
    "Conclusions",
    "Cycles",
    "Dominance",
    "Edge",
    "EdgeLeverage",
    "Flip",
    "FragilePair",
    "Groups",
    "Links",
    "Move",
    "Multiplicity",
    "NetworkSensitivity",
    "PairTable",
    "RankingAudit",
    "Regime",
    "Triple",
    "TripleCounts",
    "UnseenPairs",
    "audit",
    "fragile_pairs",
    "network_sensitivity",
    "what_to_collect",
]
