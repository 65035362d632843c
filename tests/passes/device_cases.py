"""Devices and measurements made up for tests: the truth is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gensynth as gs
from gensynth.ir import Graph
from gensynth.passes.cost import CostModel, Device, load_device
from gensynth.passes.cost.calibration import Measured

DEVICE = """description = "a board of tests"
kind = "gpu"
peak_bandwidth = 60.0
cache = 500000

[precisions.fp16]
bytes = 2
peak = 600.0

[precisions.fp32]
bytes = 4
peak = 300.0

[power_modes.fast]
clock = 1.2
memory_clock = 1.8

[power_modes.slow]
clock = 0.6
memory_clock = 0.9

[runtimes.engine]
lowering = "fused"

[runtimes.plain]
lowering = "eager"
"""

TRUTH = {
    "overhead": 0.4,
    "launch": 20.0,
    "launch.pool": 2.0,
    "rate": 300.0,
    "rate.conv3x3": 1.4,
    "bandwidth": 25.0,
    "static": 5.0,
    "mac": 12.0,
    "byte": 150.0,
    "mode.slow.clock": 0.52,
    "mode.slow.static": 0.6,
}
"""Coefficients of the device on which `measurements` are taken."""


def board(folder: Path, text: str = DEVICE) -> Device:
    """Writes a device file and reads it."""
    path = folder / "board.toml"
    path.write_text(text)
    return load_device(path)


def true_board(device: Device) -> Device:
    """Returns the board as it is in truth."""
    return dataclasses.replace(device, coefficients={**device.coefficients, **TRUTH})


def networks() -> dict[str, Graph]:
    """Returns some networks of several families, by name."""
    found = {}
    for depth in (8, 14, 20, 32):
        for width in (8, 16, 32):
            found[f"resnet depth={depth} width={width}"] = gs.prototype("resnet", depth=depth, width=width).graph
    for width in (0.25, 0.5, 1.0):
        found[f"vgg depth=11 width={width} image=3x32x32"] = gs.prototype(
            "vgg", depth=11, width=width, image=(3, 32, 32)
        ).graph
    for version in (1.0, 1.1):
        found[f"squeezenet version={version}"] = gs.prototype("squeezenet", version=version).graph
    return found


def measurements(device: Device, *, noise: float = 0.0, seed: int = 0, runtime: str = "engine") -> list[Measured]:
    """Returns what networks take on the true board, both power modes, with log-normal noise."""
    import numpy as np

    random = np.random.Generator(np.random.Philox(seed))
    truth = true_board(device)
    found = []
    for name, graph in networks().items():
        for mode in ("fast", "slow"):
            model = CostModel(truth, truth.condition("fp16", mode, runtime))
            latency, energy = (value * float(np.exp(noise * random.normal())) for value in model.totals(graph))
            condition = device.condition("fp16", mode, runtime)
            found.append(Measured(graph, condition, latency, energy, name, name.split()[0]))
    return found
