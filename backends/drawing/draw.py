"""The one function of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from gensynth.ir import Graph, Network, UsageError, nearest
from gensynth.passes.cost import cost, node_cost

from .dot import to_dot
from .labels import shape_text, short_number
from .layout import layout
from .page import to_html
from .scene import build_scene
from .svg import to_svg

__all__ = ["Format", "draw"]

Format = Literal["dot", "svg", "html"]

FORMATS = ("dot", "svg", "html")


def _likely_macs(graph: Graph) -> dict[str, float]:
    """Returns MACs by prefix and name of every node, each open choice at its most likely alternative."""
    decisions = {
        identifier: max(range(len(choice.logits)), key=choice.logits.__getitem__)
        for identifier, choice in graph.choices.items()
    }
    found = {}
    for prefix, node in graph.walk():
        if not node.alternatives:
            operands = tuple(type.at(decisions) for type in node.operand_types)
            results = tuple(value.type.at(decisions) for value in node.results)
            found[prefix + node.name] = float(node_cost(node.op_at(decisions), operands, results).macs)
    return found


def _totals(graph: Graph) -> list[tuple[str, str]]:
    """Returns what the header says of a network, name and value."""
    nodes = sum(not node.alternatives for _, node in graph.walk())
    rows = [("nodes", str(nodes))]
    if graph.is_generator:
        networks = 1
        for choice in graph.choices.values():
            networks *= len(choice.labels)
        rows += [("choices", str(len(graph.choices))), ("networks", f"at most {_count(networks)}")]
    else:
        counted = cost(graph)
        rows += [
            ("parameters", short_number(counted.params)),
            ("MACs", short_number(counted.macs)),
            ("peak memory", f"{short_number(counted.peak_memory)}B"),
        ]
    rows.append(("input", ", ".join(shape_text(value.type) for value in graph.inputs)))
    rows.append(("output", ", ".join(shape_text(value.type) for value in graph.outputs)))
    return rows


def _count(number: int) -> str:
    return str(number) if number < 10**6 else f"10^{len(str(number)) - 1}"


def draw(
    network: Network | Graph,
    format: Format = "svg",
    *,
    values: Mapping[str, float] | None = None,
    title: str | None = None,
    compact: bool = True,
) -> str:
    """Returns a drawing of a network or a generator: Graphviz text, an SVG document, or a page of its own.

    Boxes are nodes (with `compact`, together with the norms and activations that follow), nested by scope; a `choose`
    shows its alternatives side by side with the probabilities of a seed taking them, an open attribute the
    probabilities of its values. Fill colours show `values`, by node name (prefixed `CHOOSE[LABEL]/` in alternatives);
    by default the share of MACs, in a generator with every choice at its likeliest; `{}` shows none.

    Raises:
        UsageError: unknown format, a value for no node, or fast-sugiyama (the extra `draw`) is not installed.
        PassError: an op has no rule for its cost; give `values`.
    """
    graph = network.graph if isinstance(network, Network) else network
    if format not in FORMATS:
        raise UsageError(f"cannot draw as '{format}'", hint=nearest(format, FORMATS, what="formats"))
    if values is None:
        values = _likely_macs(graph)
        heat_title = "share of MACs" + (", choices at their likeliest" if graph.is_generator else "")
    else:
        heat_title = "share of the total"
        names = {prefix + node.name for prefix, node in graph.walk()}
        for name in values:
            if name not in names:
                raise UsageError(
                    f"a value is given for '{name}', which is no node of @{graph.name}",
                    hint=nearest(name, names, what="nodes")[:300],
                )
    title = graph.name if title is None else title
    totals = _totals(graph)
    subtitle = " · ".join(
        f"{value} {name}" if name in ("nodes", "choices") else f"{name} {value}" for name, value in totals
    )
    root = build_scene(graph, values, compact)
    if format == "dot":
        return to_dot(root, title, subtitle)
    layout(root)
    if format == "svg":
        return to_svg(root, title, subtitle, heat_title)
    return to_html(to_svg(root, "", "", heat_title), title, totals)
