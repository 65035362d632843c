"""Dense layers."""

from __future__ import annotations

from collections.abc import Sequence

from ..attributes import BoolKind, IntKind, attribute
from ..op import Op, Parameter
from ..types import TensorType


class Dense(Op, name="dense"):
    """y[n, f] = sum_c weight[f, c] * x[n, c] + bias[f], for x of shape [N, C]."""

    features: int = attribute(IntKind())
    bias: bool = attribute(BoolKind(), default=True)

    def _inputs(self, operand: TensorType) -> int:
        if operand.rank != 2 or not isinstance(operand.shape[1], int):
            raise self.fail(f"wants [N, C], got {operand}", hint="put flatten or global_avg_pool before it")
        return operand.shape[1]

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self._inputs(operands[0])
        return (TensorType(operands[0].dtype, (operands[0].shape[0], self.features)),)

    def parameters(self, operands: Sequence[TensorType]) -> tuple[Parameter, ...]:
        weight = Parameter("weight", (self.features, self._inputs(operands[0])))
        return (weight, Parameter("bias", (self.features,), "zeros")) if self.bias else (weight,)
