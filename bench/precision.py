"""What a training takes in bfloat16 and in float32, and which of them `auto` is on this machine.

    python bench/precision.py [--repetitions 3] [--device cpu] [--json docs/results/precision.json]

PyTorch computes in bfloat16 everywhere, but fast only where the device has instructions for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from harness import machine, measure, print_table, write_json
from precision_figures import precision_figure

import gensynth as gs
from gensynth.backends.torch import Recipe, train
from gensynth.backends.torch.module import device_of
from gensynth.backends.torch.precision import precision_on
from gensynth.ir import GenSynthError, Network
from gensynth.synth.tasks import task

PRECISIONS = ("float32", "bfloat16")
"""The first is what ratios are against."""

LAYOUTS = ("nchw", "nhwc")
IMAGES = 64
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNet-20 (48)": ("resnet", {"depth": 20, "width": 48}),
    "ShuffleNet v2 (0.5)": ("shufflenet", {"version": 2, "width": 0.5}),
}
"""Prototypes and their arguments."""


def measure_network(name: str, arguments: dict[str, Any], layout: str, device: str, repetitions: int) -> dict[str, Any]:
    """Returns the times of training a network for an epoch of few images in each precision, in turn."""
    on = task("photographs")
    examples = on.split("train").sample(IMAGES)
    graph = gs.prototype(name, image=on.image, classes=on.classes, **arguments).graph

    def trained(precision: str) -> Callable[[], None]:
        recipe = Recipe(epochs=1, batch_size=32, precision=precision, layout=layout)

        def run() -> None:
            train(Network(graph), examples, None, recipe, on.objective, device=device)

        return run

    found = measure({precision: trained(precision) for precision in PRECISIONS}, repetitions)
    return {precision: asdict(item) for precision, item in found.items()}


def main() -> int:
    """Prints the table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        auto = precision_on(device_of(options.device), "auto")
        trainings = [
            {"network": label, "layout": layout, **measure_network(*case, layout, options.device, options.repetitions)}
            for label, case in NETWORKS.items()
            for layout in LAYOUTS
        ]
    except GenSynthError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    found = {
        "machine": machine(),
        "device": options.device,
        "auto": auto,
        "images": IMAGES,
        "repetitions": options.repetitions,
        "trainings": trainings,
    }
    write_json(options.json, found)
    figure = precision_figure(found)
    print_table(figure.title, figure.columns, figure.rows, "\n".join(figure.notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
