"""How many examples at once a network is best judged on, on a CPU: batches of an evaluation.

    python bench/judging.py [--repetitions 3] [--json docs/results/judging.json]

glibc asks the kernel for every block above 32 MiB (mallopt(3), M_MMAP_THRESHOLD), and the kernel clears its pages each
time, so large batches, whose activations are such blocks, cost page faults beside what they lose in the caches.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from harness import measure, print_table, write_json
from judging_figures import judging_figure

import gensynth as gs
from gensynth.backends.torch import evaluate
from gensynth.ir import GenSynthError, Network, initialize
from gensynth.synth.tasks import task

BATCHES = (512, 256, 128, 64, 32)
"""Batch sizes; the first is what ratios are against."""

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-8 (16)": ("resnet", {"depth": 8, "width": 16}),
    "ResNet-20 (48)": ("resnet", {"depth": 20, "width": 48}),
    "NASNet-A (1 @ 384)": ("nasnet-a", {"cells": 1, "filters": 384}),
    "ShuffleNet v2 (0.5)": ("shufflenet", {"version": 2, "width": 0.5}),
}
"""Prototypes and their arguments."""


def measure_network(name: str, arguments: dict[str, Any], repetitions: int) -> dict[str, Any]:
    """Returns the times of judging a network with each batch size, in turn, and the page faults of the last time."""
    on = task("photographs")
    examples = on.split("train")
    graph = gs.prototype(name, image=on.image, classes=on.classes, **arguments).graph
    network = Network(graph, initialize(graph))
    faults: dict[str, int] = {}

    def judge(size: int) -> Callable[[], None]:
        def run() -> None:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            evaluate(network, examples, on.objective, batch_size=size, layout="nhwc")
            faults[str(size)] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        return run

    found = measure({str(size): judge(size) for size in BATCHES}, repetitions)
    taken = {size: asdict(item) for size, item in found.items()}
    return {"images": len(examples), "batches": taken, "page_faults": faults}


def main() -> int:
    """Prints the table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        networks = {label: measure_network(*case, options.repetitions) for label, case in NETWORKS.items()}
    except GenSynthError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    found = {"repetitions": options.repetitions, "networks": networks}
    write_json(options.json, found)
    figure = judging_figure(found)
    print_table(figure.title, figure.columns, figure.rows)
    print("\n".join(figure.notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
