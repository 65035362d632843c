"""What activations and elementwise arithmetic mean."""

from __future__ import annotations

import numpy as np

from gensynth.ir.ops import (
    Add,
    Dropout,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Mul,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    Softmax,
)

from .meanings import Operands, Tensor, Weights64, meaning

__all__: list[str] = []


def _logistic(x: Tensor) -> Tensor:
    # exp of a negative number only, so that nothing overflows
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


@meaning(Relu)
def relu(op: Relu, operands: Operands, weights: Weights64) -> Tensor:
    return np.maximum(operands[0], 0.0)


@meaning(Relu6)
def relu6(op: Relu6, operands: Operands, weights: Weights64) -> Tensor:
    return np.clip(operands[0], 0.0, 6.0)


@meaning(LeakyRelu)
def leaky_relu(op: LeakyRelu, operands: Operands, weights: Weights64) -> Tensor:
    return np.where(operands[0] >= 0, operands[0], op.slope * operands[0])


@meaning(Silu)
def silu(op: Silu, operands: Operands, weights: Weights64) -> Tensor:
    return operands[0] * _logistic(operands[0])


@meaning(Sigmoid)
def sigmoid(op: Sigmoid, operands: Operands, weights: Weights64) -> Tensor:
    return _logistic(operands[0])


@meaning(HardSigmoid)
def hard_sigmoid(op: HardSigmoid, operands: Operands, weights: Weights64) -> Tensor:
    return np.clip(operands[0] + 3.0, 0.0, 6.0) / 6.0


@meaning(HardSwish)
def hard_swish(op: HardSwish, operands: Operands, weights: Weights64) -> Tensor:
    return operands[0] * np.clip(operands[0] + 3.0, 0.0, 6.0) / 6.0


@meaning(Softmax)
def softmax(op: Softmax, operands: Operands, weights: Weights64) -> Tensor:
    powers = np.exp(operands[0] - operands[0].max(axis=op.axis, keepdims=True))
    result: Tensor = powers / powers.sum(axis=op.axis, keepdims=True)
    return result


@meaning(Add)
def add(op: Add, operands: Operands, weights: Weights64) -> Tensor:
    return operands[0] + operands[1]


@meaning(Mul)
def mul(op: Mul, operands: Operands, weights: Weights64) -> Tensor:
    return operands[0] * operands[1]


@meaning(Dropout)
def dropout(op: Dropout, operands: Operands, weights: Weights64) -> Tensor:
    return operands[0]


@meaning(Identity)
def identity(op: Identity, operands: Operands, weights: Weights64) -> Tensor:
    return operands[0]
