"""How ONNX writes the op: a module of its own, which loads when a network that holds the op is exported."""

from __future__ import annotations

from gensynth.backends.onnx import NodeEmission, lowering

from .ops import HardTanh


@lowering(HardTanh)
def _hard_tanh(op: HardTanh, node: NodeEmission) -> None:
    node.emit("Clip", [*node.operands, node.number("min", -op.limit), node.number("max", op.limit)])
