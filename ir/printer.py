"""The printer: a graph as text that parses back to the same graph, byte for byte the same when printed again."""

from __future__ import annotations

from collections.abc import Sequence

from .attributes import format_value
from .graph import Choice, Graph, Node, scope_of
from .ops.choose import Choose

__all__ = ["FORMAT_VERSION", "format_logit", "format_node", "to_text"]

FORMAT_VERSION = 1
_WIDEST = 96
"""Types are aligned in a column unless a line would pass this."""


def format_logit(logit: float) -> str:
    """Returns a logit with two decimals, or up to four where it needs them: `-0.20`, `0.1234`."""
    text = f"{logit:.4f}"
    while text.endswith("0") and len(text) - text.index(".") > 3:
        text = text[:-1]
    return text


class _Printer:
    def __init__(self, graph: Graph) -> None:
        self.logits = graph.logits
        self.printed: dict[str, list[str] | None] = {}
        """Choices written so far, with the values a bare reference stands for."""

    def logits_of(self, identifier: str, count: int) -> Sequence[float]:
        return self.logits.get(identifier, (0.0,) * count)

    def choice(self, choice: Choice) -> str:
        head = f"choice<{choice.id}>"
        values = [format_value(value) for value in choice.values]
        if choice.id not in self.printed:
            self.printed[choice.id] = values
            logits = self.logits_of(choice.id, len(values))
            shown = [f"{value}: {format_logit(logit)}" for value, logit in zip(values, logits, strict=True)]
            return f"{head}[{', '.join(shown)}]"
        if self.printed[choice.id] is None:
            self.printed[choice.id] = values
        elif self.printed[choice.id] == values:
            return head
        return f"{head}[{', '.join(values)}]"

    def call(self, node: Node) -> str:
        operands = ", ".join([f"%{value.name}" for value in node.operands])
        op = node.op
        if not node.choices:
            text = op.text()
            head, brace, attributes = text.partition(" {")
            return f"{head}({operands}){brace}{attributes}"
        open_attributes = dict(node.choices)
        explicit = op.explicit()
        shown = [
            f"{name}={self.choice(open_attributes[name]) if name in open_attributes else format_value(explicit[name])}"
            for name in op.attributes
            if name in open_attributes or name in explicit
        ]
        return f"{op.name}({operands}) {{{', '.join(shown)}}}"

    def body(self, graph: Graph, indent: str) -> list[str]:
        """Returns the lines of the nodes: a blank line between scopes, columns aligned within each."""
        lines: list[str] = []
        run: list[tuple[str, str, str]] = []
        scope: str | None = None

        def flush() -> None:
            if not run:
                return
            names = max([len(names) for names, _, _ in run])
            calls = max([len(call) for _, call, _ in run if len(call) <= _WIDEST], default=0)
            for left, call, types in run:
                lines.append(f"{indent}{left:<{names}} = {call:<{calls}} : {types}")
            run.clear()

        for node in graph.nodes:
            here = scope_of(node.name)
            if scope is not None and here != scope:
                flush()
                lines.append("")
            scope = here
            names = ", ".join([f"%{value.name}" for value in node.results])
            types = ", ".join([value.type.text for value in node.results])
            if node.alternatives:
                flush()
                lines.extend(self.choose(node, names, types, indent))
            else:
                run.append((names, self.call(node), types))
        flush()
        return lines

    def choose(self, node: Node, names: str, types: str, indent: str) -> list[str]:
        assert isinstance(node.op, Choose)
        identifier = node.op.choice
        operands = ", ".join([f"%{value.name}" for value in node.operands])
        lines = [f"{indent}{names} = choose<{identifier}>({operands}) {{"]
        logits: Sequence[float] | None = None
        if identifier not in self.printed:
            self.printed[identifier] = None
            logits = self.logits_of(identifier, len(node.alternatives))
        for index, alternative in enumerate(node.alternatives):
            body = alternative.body
            arguments = ", ".join([f"%{value.name}" for value in body.inputs])
            weight = "" if logits is None else f"[{format_logit(logits[index])}]"
            lines.append(f"{indent}  {alternative.label}{weight}({arguments}) {{")
            lines.extend(self.body(body, indent + "    "))
            lines.append(f"{indent}    yield {', '.join([f'%{value.name}' for value in body.outputs])}")
            lines.append(f"{indent}  }}")
        lines.append(f"{indent}}} : {types}")
        return lines


def to_text(graph: Graph) -> str:
    """Returns the complete text form of a graph, ending in a newline."""
    inputs = ", ".join([f"%{value.name}: {value.type.text}" for value in graph.inputs])
    outputs = ", ".join([value.type.text for value in graph.outputs])
    if len(graph.outputs) != 1:
        outputs = f"({outputs})"
    lines = [f"gensynth {FORMAT_VERSION}", "", f"network @{graph.name}({inputs}) -> {outputs} {{"]
    if graph.requirements:
        lines.extend([f'  require "{requirement}"' for requirement in graph.requirements])
        lines.append("")
    lines.extend(_Printer(graph).body(graph, "  "))
    lines.append(f"  return {', '.join([f'%{value.name}' for value in graph.outputs])}")
    lines.append("}")
    lines.append("")
    return "\n".join(lines)


def format_node(node: Node, graph: Graph | None = None) -> str:
    """Returns one node as a line of the text form (alternatives shortened to their labels)."""
    names = ", ".join(f"%{value.name}" for value in node.results)
    types = ", ".join(value.type.text for value in node.results)
    if isinstance(node.op, Choose):
        operands = ", ".join(f"%{value.name}" for value in node.operands)
        labels = " | ".join(alternative.label for alternative in node.alternatives)
        return f"{names} = choose<{node.op.choice}>({operands}) {{ {labels} }} : {types}"
    printer = _Printer(graph if graph is not None else Graph("node", (), (node,), ()))
    return f"{names} = {printer.call(node)} : {types}"
