"""What a drawing shows, before any coordinates: boxes in nested clusters, and the wires between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gensynth.ir import Graph, Node, TensorType, format_node, scope_of
from gensynth.ir.ops import (
    BatchNorm,
    Choose,
    Dropout,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
)

from .labels import Bars, attributes_text, bars_of, family, shape_text, short_number

__all__ = ["OWN", "Box", "Cluster", "Item", "Point", "Route", "Wire", "build_scene"]

FOLLOWERS = (BatchNorm, Dropout, Identity, Relu, Relu6, LeakyRelu, Silu, Sigmoid, HardSigmoid, HardSwish)
"""Ops of one operand that are drawn inside the box of the node they follow."""

OWN = -1
"""Stands, in a wire, for the ports of the cluster itself."""

Point = tuple[float, float]


@dataclass
class Box:
    """One node, or a chain of nodes drawn as one. Coordinates are relative to the cluster around it."""

    key: str
    """Prefix and name of the first node; unique in the drawing."""
    names: tuple[str, ...]
    title: str
    detail: str
    name: str
    followers: str
    shape: str
    amount: str
    family: str
    tooltip: str
    value: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bars: tuple[Bars, ...] = ()
    heat: int = 0
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


@dataclass(frozen=True)
class Wire:
    """A connection inside a cluster, from an item's output (or the cluster's own input) to an item's input."""

    source: int
    source_port: int
    target: int
    target_port: int


@dataclass
class Route:
    """A wire with its path, relative to the cluster."""

    points: list[Point]
    arrow: bool
    long: bool = False


@dataclass
class Cluster:
    """A frame around items: a scope, a `choose`, one of its alternatives, or a column of the page (without frame)."""

    key: str
    title: str
    style: str
    children: list[Item]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    value: float = 0.0
    probability: float | None = None
    tooltip: str = ""
    wires: list[Wire] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    input_x: list[float] = field(default_factory=list)
    output_x: list[float] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


Item = Box | Cluster


class _Builder:
    """Turns one graph (the network, or the body of an alternative) into items."""

    def __init__(self, graph: Graph, root: Graph, prefix: str, values: Mapping[str, float], compact: bool) -> None:
        self.graph = graph
        self.root = root
        self.prefix = prefix
        self.values = values
        self.compact = compact

    def chains(self) -> list[list[Node]]:
        """Parts the nodes into chains: a node and the norms and activations that alone follow it in its scope."""
        head_of: dict[str, list[Node]] = {}
        chains: list[list[Node]] = []
        for node in self.graph.nodes:
            chain = None
            if self.compact and isinstance(node.op, FOLLOWERS) and not node.is_open:
                before = node.operands[0].name
                chain = head_of.get(before)
                if chain is not None and (
                    len(chain[-1].results) > 1
                    or chain[-1].alternatives
                    or chain[-1].name != before
                    or len(self.graph.users.get(before, ())) > 1
                    or before in self.graph.output_names
                    or scope_of(before) != scope_of(node.name)
                ):
                    chain = None
            if chain is None:
                chain = []
                chains.append(chain)
            chain.append(node)
            head_of[node.name] = chain
        return chains

    def key(self, name: str) -> str:
        return self.prefix + name

    def box(self, chain: Sequence[Node]) -> Box:
        head, tail = chain[0], chain[-1]
        names = tuple(self.key(node.name) for node in chain)
        value = sum(self.values.get(name, 0.0) for name in names)
        kind = family(head.op)
        shape = shape_text(tail.result.type)
        if len(head.results) > 1:
            shape = " + ".join(shape_text(result.type) for result in head.results)
        elif kind not in ("convolution", "depthwise", "dense") and head.operands[0].type == tail.result.type:
            shape = ""
        lines = [format_node(node, self.root) for node in chain]
        if self.values:
            lines.append(f"{short_number(value)} of {short_number(sum(self.values.values()))}")
        return Box(
            key=names[0],
            names=names,
            title=head.op.name,
            detail=attributes_text(head),
            name=head.name.rpartition(".")[2],
            followers=" · ".join(node.op.name for node in chain[1:]),
            shape=shape,
            amount=short_number(value) if value else "",
            family=kind,
            tooltip="\n".join(lines),
            value=value,
            inputs=tuple(self.key(operand.name) for operand in head.operands),
            outputs=tuple(self.key(result.name) for result in tail.results),
            bars=tuple(bars_of(self.root, attribute, choice) for attribute, choice in head.choices),
        )

    def choose(self, node: Node) -> Cluster:
        assert isinstance(node.op, Choose)
        probabilities = self.root.choices[node.op.choice].probabilities
        alternatives: list[Item] = []
        wires = []
        for index, (alternative, probability) in enumerate(zip(node.alternatives, probabilities, strict=True)):
            inner = _Builder(
                alternative.body, self.root, f"{self.key(node.name)}[{alternative.label}]/", self.values, self.compact
            )
            body = alternative.body
            cluster = _cluster(
                key=inner.prefix,
                title=alternative.label,
                style="alternative",
                children=inner.items(),
                inputs=tuple(inner.key(value.name) for value in body.inputs),
                outputs=tuple(inner.key(value.name) for value in body.outputs),
            )
            cluster.probability = probability
            cluster.tooltip = f"{node.op.choice}: {alternative.label}, probability {probability:.1%}"
            alternatives.append(cluster)
            wires += [Wire(OWN, port, index, port) for port in range(len(body.inputs))]
            wires += [Wire(index, port, OWN, port) for port in range(len(body.outputs))]
        return Cluster(
            key=self.key(node.name),
            title=f"choose {node.op.choice}",
            style="choose",
            children=alternatives,
            inputs=tuple(self.key(operand.name) for operand in node.operands),
            outputs=tuple(self.key(result.name) for result in node.results),
            value=sum(child.value for child in alternatives),
            tooltip=format_node(node, self.root),
            wires=wires,
        )

    def items(self) -> list[Item]:
        """Returns the items of the graph, nested by scope."""
        leaves: list[tuple[tuple[str, ...], Item]] = []
        for chain in self.chains():
            scope = scope_of(chain[0].name)
            item: Item = self.choose(chain[0]) if chain[0].alternatives else self.box(chain)
            leaves.append((tuple(scope.split(".")) if scope else (), item))
        outside = {self.key(value.name) for value in self.graph.outputs}
        return self.nest(leaves, 0, outside)

    def nest(self, leaves: Sequence[tuple[tuple[str, ...], Item]], depth: int, outside: set[str]) -> list[Item]:
        """Groups runs of items that share a scope; being intervals of the order, runs make no cycle."""
        items: list[Item] = []
        start = 0
        while start < len(leaves):
            scope, item = leaves[start]
            if len(scope) == depth:
                items.append(item)
                start += 1
                continue
            end = start
            while end < len(leaves) and leaves[end][0][: depth + 1] == scope[: depth + 1]:
                end += 1
            run = leaves[start:end]
            read = outside | {key for _, other in (*leaves[:start], *leaves[end:]) for key in other.inputs}
            children = self.nest(run, depth + 1, read)
            items.append(self.frame(scope[depth], ".".join(scope[: depth + 1]), children, read))
            start = end
        return items

    def frame(self, title: str, scope: str, children: list[Item], read: set[str]) -> Item:
        if len(children) == 1:
            only = children[0]
            if isinstance(only, Box):
                only.name = f"{title}.{only.name}"
                return only
            if only.style == "scope":
                only.title = f"{title}.{only.title}"
                return only
        made = {key for child in children for key in child.outputs}
        inputs = tuple(dict.fromkeys(key for child in children for key in child.inputs if key not in made))
        outputs = tuple(key for child in children for key in child.outputs if key in read)
        return _cluster(self.key(scope), title, "scope", children, inputs, outputs)


def _cluster(
    key: str, title: str, style: str, children: list[Item], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> Cluster:
    cluster = Cluster(key, title, style, children, inputs, outputs, value=sum(child.value for child in children))
    connect(cluster)
    return cluster


def connect(cluster: Cluster) -> None:
    """Makes the wires of a cluster from the values that its children make and read."""
    sources = {key: (OWN, port) for port, key in enumerate(cluster.inputs)}
    for index, child in enumerate(cluster.children):
        for port, key in enumerate(child.outputs):
            sources[key] = (index, port)
    wires = []
    for index, child in enumerate(cluster.children):
        for port, key in enumerate(child.inputs):
            wires.append(Wire(*sources[key], index, port))
    wires += [Wire(*sources[key], OWN, port) for port, key in enumerate(cluster.outputs)]
    cluster.wires = wires


def _terminal(
    key: str, name: str, type: TensorType, title: str, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> Box:
    return Box(
        key=f"{title}:{key}",
        names=(),
        title=title,
        detail="",
        name=name,
        followers="",
        shape=shape_text(type),
        amount="",
        family="terminal",
        tooltip=f"{title} %{name}: {type}",
        value=0.0,
        inputs=inputs,
        outputs=outputs,
    )


HEAT_LEVELS = 8


def build_scene(graph: Graph, values: Mapping[str, float], compact: bool) -> Cluster:
    """Returns the drawing's tree: a root cluster with inputs, items nested by scope, and outputs.

    Boxes get a heat from 0 (no cost) to 8 (the dearest box), by the square root of their share, so that small costs
    can be told apart.
    """
    children: list[Item] = [
        _terminal(value.name, value.name, value.type, "input", (), (value.name,)) for value in graph.inputs
    ]
    children += _Builder(graph, graph, "", values, compact).items()
    children += [
        _terminal(f"{index}.{value.name}", value.name, value.type, "output", (value.name,), ())
        for index, value in enumerate(graph.outputs)
    ]
    root = _cluster("", graph.name, "root", children, (), ())
    boxes = list(_boxes(root))
    top = max((box.value for box in boxes), default=0.0)
    for box in boxes:
        box.heat = 0 if box.value <= 0 or top <= 0 else max(1, round(HEAT_LEVELS * (box.value / top) ** 0.5))
    return root


def _boxes(cluster: Cluster) -> list[Box]:
    found: list[Box] = []
    for child in cluster.children:
        found += [child] if isinstance(child, Box) else _boxes(child)
    return found
