"""What networks cost: exact counts per op and per network, and latency and energy on a device."""

from .counts import WEIGHT_BYTES, NodeCost, has_rules, macs_of, no_macs, node_cost, operations_of
from .device import Condition, Device
from .device_files import device_names, load_device, register_device, save_device
from .estimating import CostModel, Estimate, Interval, KernelEstimate, cost_model, parse_device
from .meter import Costs, Meter, OnDevice, device_text
from .report import CostReport, CostRow, Totals, cost, totals
from .workload import LOWERINGS, Kernel, KernelShape, Lowering, kernels_of

__all__ = [
    "LOWERINGS",
    "WEIGHT_BYTES",
    "Condition",
    "CostModel",
    "CostReport",
    "CostRow",
    "Costs",
    "Device",
    "Estimate",
    "Interval",
    "Kernel",
    "KernelEstimate",
    "KernelShape",
    "Lowering",
    "Meter",
    "NodeCost",
    "OnDevice",
    "Totals",
    "cost",
    "cost_model",
    "device_names",
    "device_text",
    "has_rules",
    "kernels_of",
    "load_device",
    "macs_of",
    "no_macs",
    "node_cost",
    "operations_of",
    "parse_device",
    "register_device",
    "save_device",
    "totals",
]
