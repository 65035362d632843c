"""`choose`: the one op with regions. It stands where a generator has not decided yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..attributes import Kind, attribute
from ..op import Op
from ..types import TensorType


@dataclass(frozen=True)
class _IdentifierKind(Kind[str]):
    expected: str = "a choice id"

    def normalize(self, value: object) -> str:
        if not isinstance(value, str) or not value:
            raise self.refuse(value)
        return value


class Choose(Op, name="choose"):
    """y = alternative_k(x), k decided later. Written `choose<id>(%x) { label[logit](%a) { ... yield %b } }`.

    The alternatives are held by the node; all of them take the node's operands and yield its result types.
    """

    arity: ClassVar[int | None] = None
    choice: str = attribute(_IdentifierKind())

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        raise self.fail("has the result types of its alternatives; build it with `choose_node`")
