"""How PyTorch computes the op: a module of its own, which loads when a network that holds the op goes to PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gensynth.backends.torch import Scope, lowering
from gensynth.backends.torch.lowerings import Run
from gensynth.ir import TensorType

from .ops import HardTanh


@lowering(HardTanh)
def _hard_tanh(op: HardTanh, operands: Sequence[TensorType]) -> Run:
    def run(scope: Scope, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(-op.limit, op.limit)

    return run
