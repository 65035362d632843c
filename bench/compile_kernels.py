"""What is in the kernels of compiled networks: inner loops on a Cortex-A57, registers and launches on a Tegra X2's GPU.

    python bench/compile_kernels.py --demo runs/demo --json docs/results/compile_kernels.json

No board is needed: instructions are counted in the assembly that LLVM writes for `tegra-x2-cpu`, and ptxas assembles
the PTX of `tegra-x2-gpu` for sm_62. Both are untuned, as `gensynth compile` makes them without --tune.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compile_figures import kernel_figures
from compile_networks import Entry, choose
from harness import machine, print_table

from gensynth.backends.tvm.compiling import compile_program
from gensynth.backends.tvm.cuda import assemble, check_resources, nvrtc_version, ptxas_version
from gensynth.backends.tvm.inspecting import functions_of, hot_loop
from gensynth.backends.tvm.lowering import lower, prepare
from gensynth.backends.tvm.objects import assembly
from gensynth.backends.tvm.targets import load_target
from gensynth.ir import Network
from gensynth.ir.ops import Conv2d, ConvTranspose2d

ARM, GPU = "tegra-x2-cpu", "tegra-x2-gpu"
INNER_LOOPS = ("ResNet-20", "MobileNet v2", "SqueezeNet")
"""The networks whose inner loops are listed, with the first FermiNet."""

EXTRA_LAUNCHES = 2
"""Launches that are allowed beside one for each convolution, pool and dense layer."""

Found = dict[str, Any]


def inner_loops(network: Network) -> list[Found]:
    """Returns the hot loop of every convolution's kernel on the Cortex-A57, in the order of the network."""
    target = load_target(ARM)
    program = lower(network, target)
    functions = functions_of(assembly({kernel.name: kernel.emitted.function for kernel in program.kernels}, target))
    calls = Counter(step.kernel for step in program.steps)
    nodes = {step.kernel: step.nodes for step in reversed(program.steps)}
    rows: list[Found] = []
    for number, kernel in enumerate(program.kernels):
        op = kernel.spec.op
        if not isinstance(op, (Conv2d, ConvTranspose2d)):
            continue
        loop = hot_loop(functions[kernel.name], target.architecture)
        if loop is None:
            raise SystemExit(f"{kernel.name} ({op.text()}) has no loop that multiplies")
        view = kernel.spec.inputs[0]
        rows.append(
            {
                "node": nodes[number][0],
                "op": op.text(),
                "dense": op.groups == 1,
                "input": [view.channels, view.height, view.width],
                "schedule": str(kernel.schedule),
                "calls": calls[number],
                "macs": kernel.macs * calls[number],
                **asdict(loop),
            }
        )
    return rows


def launches(network: Network, dtype: str) -> Found:
    """Returns how many kernels the GPU launches for a network, and what ptxas says of each kernel."""
    target = load_target(GPU)
    assert target.cuda is not None
    compiled = compile_program(network, target, dtype=dtype)
    assembled = assemble(compiled.code, target.cuda.arch)
    ops = Counter(node.op.name for node in prepare(network).graph.nodes)
    layers = {
        "convolutions": ops["conv2d"] + ops["conv_transpose2d"],
        "pools": sum(ops[name] for name in ("avg_pool", "max_pool", "global_avg_pool")),
        "dense": ops["dense"],
    }
    others = Counter(compiled.program.kernels[step.kernel].spec.op.name for step in compiled.program.steps)
    counted = ("conv2d", "conv_transpose2d", "avg_pool", "max_pool", "global_avg_pool", "dense")
    return {
        "launches": len(compiled.program.steps),
        "allowed": sum(layers.values()) + EXTRA_LAUNCHES,
        "layers": layers,
        "others": {name: count for name, count in others.items() if name not in counted},
        "kernels": {name: asdict(used) for name, used in assembled.kernels.items()},
        "wrong": list(check_resources(assembled, target)),
    }


def chosen(arguments: argparse.Namespace) -> tuple[Entry, ...]:
    """Returns the networks: those at 32x32 and one FermiNet, or those that are named, or all."""
    entries = choose(arguments.only, arguments.demo)
    if arguments.all or arguments.only:
        return entries
    ferminets = [entry for entry in entries if entry.group == "FermiNets"][:1]
    return (*(entry for entry in entries if entry.group == "32x32"), *ferminets)


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="run directory of the FermiNets")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="networks whose names contain one of these")
    parser.add_argument("--all", action="store_true", help="all FermiNets, and the networks at 224x224")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here as well")
    arguments = parser.parse_args()
    found: Found = {
        "machine": machine(),
        "toolchain": {"nvrtc": nvrtc_version(), "ptxas": ptxas_version()},
        "inner_loops": {},
        "launches": {},
    }
    for entry in chosen(arguments):
        print(f"{entry.name} ...", flush=True)
        network = entry.build()
        if entry.name in INNER_LOOPS or entry.group == "FermiNets" or arguments.only:
            found["inner_loops"][entry.name] = inner_loops(network)
        found["launches"][entry.name] = {dtype: launches(network, dtype) for dtype in load_target(GPU).dtypes}
    for figure in kernel_figures(found):
        print_table(figure.title, figure.columns, figure.rows, "\n".join(figure.notes))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
