"""What networks compute in while they are trained."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

__all__ = ["autocast", "precision_on"]

_CPU_UNITS = ("amx_bf16", "avx512_bf16", "bf16")
"""What torch.cpu.get_capabilities calls instructions for bfloat16: two of x86-64, one of ARM."""


def precision_on(device: torch.device, precision: str) -> str:
    """Returns what a recipe's precision is on a device: for `auto`, `bfloat16` if it has instructions for that."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    capabilities = torch.cpu.get_capabilities()
    return "bfloat16" if any(capabilities.get(name, False) for name in _CPU_UNITS) else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns the context in which forward passes on a device compute in `float32` or `bfloat16`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
