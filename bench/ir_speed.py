"""Times parse, print and verify of ResNet-50's graph against as many ops in xdsl, with onnx's C++ text parser beside.

    python bench/ir_speed.py [--repetitions 15] [--json ir_speed.json]

The same network stands in all three. xdsl reads its generic form: registered `test.op`s, with the same operands,
result types and attributes (integers, strings, arrays) as the nodes of ours, a tensor type for every value written
out, as xdsl's parser wants it. Its context is loaded before the clock starts, its printer writes generic form into a
string. Our figures are given twice: cold, with every memo emptied before each run (ops by text, inferred types,
interned types), and warm, as when a process handles many networks; xdsl keeps no such memos. Our parser also infers
all types and verifies, which xdsl's parse does not. onnx parses the nodes of the graph and infers no types.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable

from harness import Measurement, measure, print_table, write_json

from gensynth.ir import AttributeValue, Graph, TensorType, infer, op, parse, parser, to_text, verifier, verify
from gensynth.synth.prototypes import prototype


def forget_inferences() -> None:
    """Empties the memos that verification uses."""
    op._inferred.clear()
    infer._inferred.clear()
    verifier._known_names.clear()


def forget_all() -> None:
    """Empties every memo of ours: ops by text, inferred types, interned types, known names."""
    forget_inferences()
    parser._ops.clear()
    parser._input_types.clear()
    TensorType._interned.clear()


def mlir_attribute(value: AttributeValue) -> str:
    """Returns an attribute in MLIR's syntax."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value} : i64"
    if isinstance(value, float):
        return f"{value:e} : f32"
    if isinstance(value, tuple):
        return f"[{', '.join(f'{item} : i64' for item in value)}]"
    return f'"{value}"'


def mlir_type(type: TensorType) -> str:
    """Returns a type in MLIR's syntax, the batch as a dynamic dimension."""
    return f"tensor<{'x'.join('?' if isinstance(dim, str) else str(dim) for dim in type.shape)}x{type.dtype}>"


def as_mlir(graph: Graph) -> str:
    """Returns the graph in MLIR's generic form, a `test.op` for every node and every input."""
    names = {value.name: f"%{value.name.replace('.', '_')}" for value in graph.values.values()}
    lines = ['"builtin.module"() ({']
    lines += [f'  {names[value.name]} = "test.op"() : () -> {mlir_type(value.type)}' for value in graph.inputs]
    for node in graph.nodes:
        attributes: dict[str, AttributeValue] = {"kind": node.op.name, **node.op.explicit()}
        shown = ", ".join(f"{name} = {mlir_attribute(value)}" for name, value in attributes.items())
        lines.append(
            f'  {names[node.name]} = "test.op"({", ".join(names[value.name] for value in node.operands)}) {{{shown}}}'
            f" : ({', '.join(map(mlir_type, node.operand_types))}) -> {mlir_type(node.result.type)}"
        )
    return "\n".join([*lines, "}) : () -> ()", ""])


def as_onnx(graph: Graph) -> str:
    """Returns the graph in ONNX's text form, our op names and attributes on it."""

    def declared(name: str, type: TensorType) -> str:
        return f"float[{','.join(map(str, type.shape))}] {name.replace('.', '_')}"

    def shown(value: AttributeValue) -> str:
        if isinstance(value, (bool, int, float)):
            return str(int(value) if isinstance(value, bool) else value)
        return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else f'"{value}"'

    inputs = ", ".join(declared(value.name, value.type) for value in graph.inputs)
    outputs = ", ".join(declared(value.name, value.type) for value in graph.outputs)
    lines = [f"{graph.name} ({inputs}) => ({outputs}) {{"]
    for node in graph.nodes:
        attributes = ", ".join(f"{name}={shown(value)}" for name, value in node.op.explicit().items())
        operands = ", ".join(value.name.replace(".", "_") for value in node.operands)
        head = f"{node.op.name} <{attributes}>" if attributes else node.op.name
        lines.append(f"  {node.name.replace('.', '_')} = {head} ({operands})")
    return "\n".join([*lines, "}"])


def main() -> int:
    """Times the three and returns 0."""
    arguments = argparse.ArgumentParser(description="Parse, print and verify of ResNet-50's graph, beside xdsl.")
    arguments.add_argument("--repetitions", type=int, default=15)
    arguments.add_argument("--json", metavar="OUT")
    options = arguments.parse_args()
    from xdsl.context import Context
    from xdsl.dialects.builtin import Builtin
    from xdsl.dialects.test import Test
    from xdsl.parser import Parser
    from xdsl.printer import Printer

    graph = prototype("resnet", depth=50, dataset="imagenet").graph
    text, mlir = to_text(graph), as_mlir(graph)
    context = Context()
    context.load_dialect(Builtin)
    context.load_dialect(Test)
    module = Parser(context, mlir).parse_module()
    ops_in_xdsl = sum(1 for _ in module.walk()) - 1
    fresh = [graph]

    def print_with_xdsl() -> str:
        stream = io.StringIO()
        Printer(stream, print_generic_format=True).print_op(module)
        return stream.getvalue()

    def parse_afresh() -> None:
        forget_all()
        fresh[0] = parse(text)

    def parse_and_forget() -> None:
        parse_afresh()
        forget_inferences()

    parsers: dict[str, Callable[[], object]] = {
        "gensynth, cold": lambda: parse(text),
        "gensynth, warm": lambda: parse(text),
        "xdsl": lambda: Parser(context, mlir).parse_module(),
    }
    try:
        import onnx.parser

        onnx_text = as_onnx(graph)
        parsers["onnx (C++)"] = lambda: onnx.parser.parse_graph(onnx_text)
    except ImportError:
        print("onnx is not installed; its parser is left out", file=sys.stderr)
    results: dict[str, dict[str, Measurement]] = {
        "parse": measure(parsers, options.repetitions, {"gensynth, cold": forget_all, "gensynth, warm": lambda: None}),
        "print": measure(
            {
                "gensynth, cold": lambda: to_text(fresh[0]),
                "gensynth, warm": lambda: to_text(fresh[0]),
                "xdsl": print_with_xdsl,
            },
            options.repetitions,
            {"gensynth, cold": parse_afresh},
        ),
        "verify": measure(
            {
                "gensynth, cold": lambda: verify(fresh[0]),
                "gensynth, warm": lambda: verify(fresh[0]),
                "xdsl": module.verify,
            },
            options.repetitions,
            {"gensynth, cold": parse_and_forget},
        ),
    }
    rows = [
        [
            task,
            candidate,
            f"{taken.median * 1e3:.2f}",
            f"{taken.fastest * 1e3:.2f}",
            f"{by_candidate['xdsl'].median / taken.median:.2f}x",
        ]
        for task, by_candidate in results.items()
        for candidate, taken in by_candidate.items()
    ]
    title = f"{graph.name}: {len(graph.nodes)} nodes; xdsl: {ops_in_xdsl} ops"
    columns = ["task", "candidate", "median ms", "fastest ms", "faster than xdsl"]
    print_table(title, columns, rows, f"median of {options.repetitions} interleaved runs; cold: memos emptied first")
    speedups = {
        task: {name: taken["xdsl"].median / taken[name].median for name in taken} for task, taken in results.items()
    }
    write_json(
        options.json, {"nodes": len(graph.nodes), "xdsl_ops": ops_in_xdsl, "speedups": speedups, "runs": results}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
