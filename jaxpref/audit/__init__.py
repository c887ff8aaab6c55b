"""Which predictions of a fit are fragile, on which observations they rest, and how much."""

from .auditing import audit
from .network import NetworkSensitivity, network_sensitivity
from .regime import Regime
from .report import AuditReport, AuditRow, Edge
from .triples import Triple, TripleCounts
from .unseen import UnseenPairs

__all__ = [
    "AuditReport",
    "AuditRow",
    "Edge",
    "NetworkSensitivity",
    "Regime",
    "Triple",
    "TripleCounts",
    "UnseenPairs",
    "audit",
    "network_sensitivity",
]
