"""The drawing as Graphviz text, for those who have `dot`."""

from __future__ import annotations

from .scene import OWN, Box, Cluster, Item
from .style import HEAT

__all__ = ["to_dot"]


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\0", "\ufffd")
    return f'"{escaped}"'


def _label(box: Box) -> str:
    lines = [f"{box.title} {box.detail}".strip(), box.name, box.followers, box.shape]
    lines += [
        f"{bars.attribute}: " + ", ".join(f"{value} {probability:.0%}" for value, probability in bars.values)
        for bars in box.bars
    ]
    return "\n".join(line for line in lines if line)


class _Writer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.clusters = 0
        self.edges: dict[tuple[str, str], None] = {}

    def item(self, item: Item, indent: str) -> None:
        if isinstance(item, Box):
            shape = 'shape=box, style="rounded,filled"' if item.names else 'shape=oval, style="filled"'
            self.lines.append(
                f"{indent}{_quote(item.key)} [label={_quote(_label(item))}, {shape},"
                f' fillcolor="{HEAT[item.heat]}", tooltip={_quote(item.tooltip)}];'
            )
            return
        dashed = ', style="rounded,dashed"' if item.style == "choose" else ', style="rounded"'
        label = item.title if item.probability is None else f"{item.title} {item.probability:.0%}"
        self.lines.append(f"{indent}subgraph cluster_{self.clusters} {{")
        self.clusters += 1
        self.lines.append(f'{indent}  graph [label={_quote(label)}, labeljust=l, color="#b5bcc6"{dashed}];')
        if not item.children:
            self.lines.append(f'{indent}  {_quote(item.key)} [shape=point, label=""];')
        for child in item.children:
            self.item(child, indent + "  ")
        self.lines.append(f"{indent}}}")

    def connect(self, cluster: Cluster, inputs: list[list[str]]) -> list[list[str]]:
        """Writes the edges of a cluster, given the boxes behind its inputs; returns those behind its outputs."""
        behind: dict[tuple[int, int], list[str]] = {(OWN, port): boxes for port, boxes in enumerate(inputs)}
        outputs: list[list[str]] = [[] for _ in cluster.outputs]
        into: dict[int, list[list[str]]] = {}
        for index, child in enumerate(cluster.children):
            into[index] = [[] for _ in child.inputs]
        pending = sorted(cluster.wires, key=lambda wire: (wire.target == OWN, wire.target))
        done = -1
        for wire in pending:
            while done < (wire.target - 1 if wire.target != OWN else len(cluster.children) - 1):
                done += 1
                self._child(cluster.children[done], done, into[done], behind)
            ends = outputs if wire.target == OWN else into[wire.target]
            ends[wire.target_port] += behind[wire.source, wire.source_port]
        while done < len(cluster.children) - 1:
            done += 1
            self._child(cluster.children[done], done, into[done], behind)
        if not cluster.children:
            self.edges.update(((source, cluster.key), None) for boxes in inputs for source in boxes)
            outputs = [[cluster.key] for _ in cluster.outputs]
        return outputs

    def _child(
        self, child: Item, index: int, inputs: list[list[str]], behind: dict[tuple[int, int], list[str]]
    ) -> None:
        if isinstance(child, Cluster):
            for port, boxes in enumerate(self.connect(child, inputs)):
                behind[index, port] = boxes
            return
        self.edges.update(((source, child.key), None) for boxes in inputs for source in boxes)
        for port in range(len(child.outputs)):
            behind[index, port] = [child.key]


def to_dot(root: Cluster, title: str, subtitle: str) -> str:
    """Returns a scene as a Graphviz digraph with a cluster for every scope, `choose` and alternative."""
    writer = _Writer()
    for child in root.children:
        writer.item(child, "  ")
    writer.connect(root, [])
    label = _quote(f"{title}\n{subtitle}")
    lines = [
        f"digraph {_quote(title)} {{",
        f'  graph [label={label}, labelloc=t, fontname="Helvetica", ranksep=0.35];',
        '  node [fontname="Helvetica", fontsize=11, color="#8b95a2"];',
        '  edge [color="#8b95a2", arrowsize=0.7];',
        *writer.lines,
        *(f"  {_quote(source)} -> {_quote(target)};" for source, target in writer.edges),
        "}",
    ]
    return "\n".join(lines) + "\n"
