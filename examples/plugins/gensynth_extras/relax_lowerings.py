"""How TVM's Relax writes the op: a module of its own, which loads when a network with the op is written in Relax."""

from __future__ import annotations

from tvm import relax

from gensynth.backends.tvm.relax_lowerings import Expression, RelaxNode, lowering

from .ops import HardTanh


@lowering(HardTanh)
def _hard_tanh(op: HardTanh, node: RelaxNode) -> Expression:
    return relax.op.clip(node.operands[0], -op.limit, op.limit)
