"""Commands that write networks for other runtimes: `export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from gensynth.ir import GenSynthError, UsageError

from .command import Command, positive, require_onnx
from .files import STREAM, add_weights, print_json, read_network
from .output import human

__all__ = ["COMMANDS"]

_MOST_DIFFERENCE = 1e-3
"""Beyond this share of the largest output it is no longer rounding, even in a deep network."""


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NET.gsir", help="the network; - for stdin")
    parser.add_argument("-o", "--output", required=True, metavar="MODEL.onnx", help="where to write the model")
    add_weights(parser, fresh="where there are no weights, fresh ones drawn from this seed")
    parser.add_argument("--opset", type=positive, metavar="N", help="the version of ONNX's operators (default 21)")
    parser.add_argument(
        "--batch", type=positive, metavar="N", help="fix the number of images at once; symbolic by default"
    )
    parser.add_argument(
        "--external-data",
        action="store_true",
        help="weights into MODEL.onnx.data beside the model, as always above 2 GB",
    )
    parser.add_argument(
        "--check", action="store_true", help="run the model by ONNX Runtime and compare it with the reference"
    )
    parser.add_argument("--json", action="store_true", help="what was written as one JSON object")


def _export(arguments: argparse.Namespace) -> int:
    require_onnx("gensynth export")
    from gensynth.backends.onnx import DEFAULT_OPSET, difference_from_reference, export_onnx

    if arguments.output == STREAM:
        raise UsageError("a model cannot go to stdout", hint="give -o a file such as model.onnx")
    network = read_network(arguments.network, arguments.weights, seed=arguments.seed)
    opset = DEFAULT_OPSET if arguments.opset is None else arguments.opset
    path = Path(arguments.output)
    files = export_onnx(network, path, opset=opset, batch=arguments.batch, external_data=arguments.external_data)
    difference = None
    if arguments.check:
        difference = difference_from_reference(network, path)
        if not difference <= _MOST_DIFFERENCE:
            raise GenSynthError(
                f"{path}: ONNX Runtime differs from the reference by {difference:.1e} of the largest output",
                hint=f"up to {_MOST_DIFFERENCE} is rounding; try another opset, and keep the file for a report",
            )
    sizes = {str(file): file.stat().st_size for file in files}
    written = {
        "network": network.name,
        "architecture_hash": network.hash,
        "opset": opset,
        "batch": arguments.batch,
        "files": sizes,
        "difference": difference,
        "path": str(path),
    }
    if arguments.json:
        print_json(written)
        return 0
    batch = "any batch" if arguments.batch is None else f"batch {arguments.batch}"
    shown = ", ".join(f"{file} ({human(size)}B)" for file, size in sizes.items())
    print(f"{shown}: @{network.name}, opset {opset}, {batch}")
    if difference is not None:
        print(f"ONNX Runtime differs from the reference by at most {difference:.1e} of the largest output")
    return 0


COMMANDS = (
    Command(
        "export",
        "write a network as an ONNX model",
        (
            "gensynth export resnet8.gsir -o resnet8.onnx --seed 0",
            "gensynth export resnet8.gsir -o resnet8.onnx --seed 0 --opset 17 --batch 1 --check",
        ),
        _export_arguments,
        _export,
        "Nodes, values and weights keep their names. The model is for inference, and onnx checks it.",
    ),
)
