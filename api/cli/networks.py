"""Commands on one network or two: `prototype`, `show`, `diff`, `import`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gensynth.ir import GenSynthError, Network, UsageError, to_text

from .command import Command, require_onnx, require_torch
from .files import STREAM, print_json, read_network, seed, write_network, write_text

__all__ = ["COMMANDS"]


def _add_output(parser: argparse.ArgumentParser, what: str = "the network (.gsir)") -> None:
    parser.add_argument(
        "-o", "--output", default=STREAM, metavar="FILE", help=f"where to write {what}; stdout by default"
    )


def _prototype_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="one of `gensynth prototypes`")
    parser.add_argument(
        "arguments", metavar="key=value", nargs="*", help="its arguments, such as depth=20 image=3x32x32"
    )
    _add_output(parser)
    parser.add_argument("--seed", type=seed, metavar="N", help="also write fresh weights, drawn from this seed")


def _prototype(arguments: argparse.Namespace) -> int:
    from gensynth.ir import initialize
    from gensynth.synth.prototypes import parse_arguments, prototype

    network = prototype(arguments.name, **parse_arguments(arguments.name, arguments.arguments))
    if arguments.seed is not None:
        network = Network(network.graph, initialize(network.graph, arguments.seed))
    write_network(network, arguments.output)
    return 0


_FORMATS = ("text", "dot", "svg", "html")


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="IN.gsir", help="the network or generator; - for stdin")
    parser.add_argument("--format", choices=_FORMATS, help="by default what the suffix of -o says, else text")
    _add_output(parser, "it")


def _show(arguments: argparse.Namespace) -> int:
    graph = read_network(arguments.network).graph
    format = arguments.format
    if format is None:
        suffix = Path(arguments.output).suffix.removeprefix(".")
        format = suffix if suffix in _FORMATS else "text"
    if format == "text":
        text = to_text(graph)
    else:
        from gensynth.backends.drawing import draw

        text = draw(graph, format)
    write_text(text, arguments.output)
    return 0


def _diff_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="A.gsir", help="the old network or generator; - for stdin")
    parser.add_argument("new", metavar="B.gsir", help="the new one; - for stdin")
    parser.add_argument("--json", action="store_true", help="the changes as one JSON object")


def _diff(arguments: argparse.Namespace) -> int:
    from gensynth.ir.diff import diff

    if arguments.old == STREAM and arguments.new == STREAM:
        raise UsageError("both networks are to come from stdin", hint="give one of them as a file")
    found = diff(read_network(arguments.old).graph, read_network(arguments.new).graph)
    if arguments.json:
        print_json(found.as_dict())
    else:
        sys.stdout.write(found.text(color=sys.stdout.isatty()))
    return 1 if found else 0


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="an ONNX model (.onnx), or a program saved by torch.export.save (.pt2)"
    )
    _add_output(parser)
    parser.add_argument("--name", help="the network's name; by default the file's")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="[INPUT=]CxHxW",
        help="the size of an ONNX model's input that the model leaves open, such as 3x224x224; once for each input",
    )


def _import(arguments: argparse.Namespace) -> int:
    import re

    path = Path(arguments.model)
    if path.suffix == ".onnx":
        write_network(_from_onnx(path, arguments.name, arguments.shape), arguments.output)
        return 0
    if arguments.shape:
        raise UsageError("--shape is for ONNX models", hint="a program of torch.export has its sizes")
    require_torch("gensynth import")
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="give a file of torch.export.save") from None
    name = arguments.name or re.sub(r"\W", "_", path.stem)
    write_network(_from_program(path, name if re.match(r"[A-Za-z_]", name) else f"network_{name}"), arguments.output)
    return 0


def _from_onnx(path: Path, name: str | None, shapes: list[str]) -> Network:
    require_onnx("gensynth import")
    from gensynth.backends.onnx import import_onnx

    def tell(note: str) -> None:
        print(f"gensynth: note: {note}", file=sys.stderr)

    return import_onnx(path, name=name, shapes=dict(map(_shape, shapes)), on_note=tell)


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Reads `image=3x224x224`, or `3x224x224` for a model of one input."""
    name, _, sizes = text.rpartition("=")
    parts = sizes.split("x")
    if not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--shape {text}: '{sizes}' is no shape", hint="write 3x224x224, or INPUT=3x224x224")
    return name, tuple(map(int, parts))


def _from_program(path: Path, name: str) -> Network:
    import logging

    import torch

    from gensynth.backends.torch import from_torch

    logging.getLogger("torch.export").setLevel(logging.CRITICAL)
    try:
        program = torch.export.load(path)
    except Exception as error:
        told = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"{path} is no program that this PyTorch can load: {type(error).__name__}: {told[:200]}",
            hint="write it with torch.export.save(torch.export.export(model.eval(), (example,)), PATH)",
        ) from None
    try:
        return from_torch(program, name=name)
    except GenSynthError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from None


COMMANDS = (
    Command(
        "prototype",
        "write a network of the zoo",
        (
            "gensynth prototype resnet depth=8 image=1x8x8 -o resnet8.gsir",
            "gensynth prototype mobilenet version=2 -o - | gensynth cost -",
        ),
        _prototype_arguments,
        _prototype,
    ),
    Command(
        "show",
        "print or draw a network or a generator",
        ("gensynth show resnet8.gsir", "gensynth show resnet8.gsir --format svg -o resnet8.svg"),
        _show_arguments,
        _show,
        "Drawings group nodes by scope and colour them by their share of MACs.",
    ),
    Command(
        "diff",
        "tell what changed between two networks or two generators",
        ("gensynth diff resnet8.gsir smaller.gsir",),
        _diff_arguments,
        _diff,
        "The exit code is 0 when they are equal and 1 when they differ.",
    ),
    Command(
        "import",
        "turn an ONNX model or a PyTorch program into a network with weights",
        (
            "gensynth import model.onnx -o model.gsir",
            "gensynth import model.onnx --shape 3x224x224 -o model.gsir",
            "gensynth import model.pt2 -o model.gsir",
        ),
        _import_arguments,
        _import,
        "The model is of ONNX's opset 7 or later; the program is one that torch.export.save wrote.",
    ),
)
