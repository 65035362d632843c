"""The registry of meanings: op class -> NumPy function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gensynth.ir import Node, Op, UsageError

__all__ = ["Meaning", "Operands", "Results", "Tensor", "Weights64", "has_meaning", "meaning", "meaning_of"]

Tensor = npt.NDArray[np.float64]
Operands = Sequence[Tensor]
Results = Tensor | tuple[Tensor, ...]
Weights64 = Mapping[str, Tensor]
"""The node's own weights by local name (`weight`, `bias`)."""

Meaning = Callable[[Any, Operands, Weights64], Results]
"""A function of (op, operands, weights); the registry pairs it with the class of op that it takes."""

OpT = TypeVar("OpT", bound=Op)

_meanings: dict[type[Op], Meaning] = {}


def meaning(
    op: type[OpT],
) -> Callable[[Callable[[OpT, Operands, Weights64], Results]], Callable[[OpT, Operands, Weights64], Results]]:
    """Registers the function below it as what `op` does in inference.

    The function takes (op, operands, weights), all arrays float64, and returns one array, or a tuple where the op has
    several results. A module that declares an op of its own registers its meaning beside it.
    """

    def register(function: Callable[[OpT, Operands, Weights64], Results]) -> Callable[..., Results]:
        _meanings[op] = function
        return function

    return register


def has_meaning(op: type[Op]) -> bool:
    """Returns whether the reference knows an op."""
    return op in _meanings


def meaning_of(node: Node) -> Meaning:
    """Returns what a node computes.

    Raises:
        UsageError: nobody registered a meaning for its op.
    """
    function = _meanings.get(type(node.op))
    if function is None:
        raise UsageError(
            f"%{node.name}: the reference does not know what {node.op.name} means",
            hint=f"register it: @gensynth.backends.reference.meaning({type(node.op).__name__})",
        )
    return function
