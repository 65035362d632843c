"""The builder: how networks are written in Python. Prototypes use nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .errors import VerifyError
from .graph import Graph, Node, Value
from .infer import make_node
from .op import Op
from .types import BATCH, Dim, TensorType
from .verifier import verify

__all__ = ["Builder"]


class Builder:
    """Builds a graph node by node; types are inferred, and errors raised, at each call.

    b = Builder("tiny")
    x = b.input("image", (1, 8, 8))
    with b.scope("stage1"):
        x = b.emit(Conv2d(channels=16, kernel=3, padding="same"), x, name="conv1")
    x = b.emit(GlobalAvgPool(), x, name="pool")
    b.output(b.emit(Dense(features=10), x, name="logits"))
    graph = b.build()
    """

    def __init__(self, name: str, *, origin: str | None = None, values: Sequence[Value] = ()) -> None:
        """Starts a graph called `name`; `values` are inputs that exist already, `origin` is put on every node."""
        self._name = name
        self._origin = origin
        self._scopes: list[str] = []
        self._inputs: list[Value] = list(values)
        self._nodes: list[Node] = []
        self._outputs: list[Value] = []
        self._names: set[str] = {value.name for value in values}
        self._counts: dict[str, int] = {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Puts a scope in front of all names given inside: `with b.scope("stage1"): ...`."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def _qualify(self, name: str | None, default: str) -> str:
        qualified = ".".join([*self._scopes, name or default])
        if name is None:
            count = self._counts.get(qualified, 0)
            candidate = qualified if count == 0 else f"{qualified}_{count}"
            while candidate in self._names:
                count += 1
                candidate = f"{qualified}_{count}"
            self._counts[qualified] = count + 1
            qualified = candidate
        if qualified in self._names:
            raise VerifyError(f"@{self._name}: %{qualified} is defined twice", hint="give the value another name")
        self._names.add(qualified)
        return qualified

    def input(self, name: str, shape: Sequence[Dim], dtype: str = "f32") -> Value:
        """Adds an input of `shape` (the batch left out, e.g. `(3, 32, 32)`) and returns it."""
        value = Value(self._qualify(name, "input"), TensorType(dtype, (BATCH, *shape)))
        self._inputs.append(value)
        return value

    def emit(self, op: Op, *operands: Value, name: str | None = None) -> Value:
        """Adds a node and returns its one result."""
        return self.emit_all(op, *operands, names=None if name is None else (name,), count=1)[0]

    def emit_all(
        self, op: Op, *operands: Value, names: Sequence[str] | None = None, count: int = 2
    ) -> tuple[Value, ...]:
        """Adds a node with `count` results (the number of `names` where given) and returns them."""
        if names is None:
            qualified = tuple(self._qualify(None, op.name) for _ in range(count))
        else:
            qualified = tuple(self._qualify(name, op.name) for name in names)
        origin = self._origin
        if origin is None:
            frame = sys._getframe(1)
            while frame.f_back is not None and frame.f_code.co_filename == __file__:
                frame = frame.f_back
            origin = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        node = make_node(op, tuple(operands), qualified, origin=origin)
        self._nodes.append(node)
        return node.results

    def output(self, *values: Value) -> None:
        """Makes values the outputs of the graph."""
        self._outputs.extend(values)

    def build(self) -> Graph:
        """Returns the verified graph.

        Raises:
            VerifyError: an invariant does not hold.
        """
        graph = Graph(self._name, tuple(self._inputs), tuple(self._nodes), tuple(self._outputs))
        verify(graph)
        return graph
