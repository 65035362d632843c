"""An op: its types, what it means in NumPy, what it costs, and how channels go through it. PyTorch stays outside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gensynth.backends.reference import Operands, Results, meaning
from gensynth.ir import Op, TensorType, attribute
from gensynth.ir.attributes import FloatKind
from gensynth.passes.analyses import keeps_channels
from gensynth.passes.cost import no_macs, operations_of


class HardTanh(Op, name="hard_tanh"):
    """y = min(max(x, -limit), limit)."""

    limit: float = attribute(FloatKind(0.0, 100.0), default=1.0)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        return (operands[0],)


@meaning(HardTanh)
def _meaning(op: HardTanh, operands: Operands, weights: object) -> Results:
    return np.clip(operands[0], -op.limit, op.limit)


no_macs(HardTanh)
keeps_channels(HardTanh)


@operations_of(HardTanh)
def _operations(op: HardTanh, operands: Sequence[TensorType], results: Sequence[TensorType]) -> int:
    return 2 * results[0].elements()
