"""What networks cost: exact counts per op and per network."""

from .counts import WEIGHT_BYTES, NodeCost, has_rules, macs_of, no_macs, node_cost, operations_of
from .report import CostReport, CostRow, Totals, cost, totals

__all__ = [
    "WEIGHT_BYTES",
    "CostReport",
    "CostRow",
    "NodeCost",
    "Totals",
    "cost",
    "has_rules",
    "macs_of",
    "no_macs",
    "node_cost",
    "operations_of",
    "totals",
]
