"""Published latencies of MobileNets on the Tegra X2 under older runtimes: what they say of depthwise convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cost_data import jetson, rows

import gensynth as gs
from gensynth.ir import Graph
from gensynth.passes.cost import cost_model
from gensynth.passes.cost.calibration import calibrate

NETWORKS: dict[str, tuple[str, dict[str, object]]] = {
    "inception_v3": ("inception", {"version": 3}),
    "inception_v4": ("inception", {"version": 4}),
    "resnet_v1_50": ("resnet", {"depth": 50, "dataset": "imagenet"}),
    "resnet_v1_152": ("resnet", {"depth": 152, "dataset": "imagenet"}),
    "vgg_16": ("vgg", {"depth": 16}),
    "mobilenet_v1_1p0_224": ("mobilenet", {"version": 1, "dataset": "imagenet"}),
    "mobilenet_v1_0p25_128": (
        "mobilenet",
        {"version": 1, "width": 0.25, "dataset": "imagenet", "image": (3, 128, 128)},
    ),
}
"""The published networks that are prototypes."""


def depthwise(folder: Path) -> dict[str, Any]:
    """Compares published rows of each runtime with a model fitted to other networks of another runtime.

    A factor of the runtime is what networks without depthwise convolutions take over what is predicted for them. What
    MobileNets take over that factor is left to their depthwise convolutions, and told by kernel and by output.
    """
    start, known = jetson(folder, "Tegra X2")
    device = calibrate(start, known, cross_validate=False, choose=False).device
    graphs = {name: gs.prototype(prototype, **arguments).graph for name, (prototype, arguments) in NETWORKS.items()}
    published: dict[str, list[tuple[str, float]]] = {}
    for row in rows(folder, "tx2_published.csv"):
        if row["network"] in NETWORKS and row["metric"] == "latency_ms" and row["batch"] == "1":
            published.setdefault(row["framework_precision"], []).append((row["network"], float(row["value"])))
    return {runtime: _one(device, graphs, found, runtime) for runtime, found in published.items()}


def _one(device: Any, graphs: dict[str, Graph], found: Sequence[tuple[str, float]], runtime: str) -> dict[str, Any]:
    half = "half" in runtime or "16" in runtime
    model = cost_model(device, precision="fp16" if half else "fp32", runtime="tensorrt")
    estimates = {name: model.estimate(graphs[name]) for name, _ in found}
    dense = [(name, value / estimates[name].latency_ms) for name, value in found if not name.startswith("mobilenet")]
    factor = float(np.exp(np.mean(np.log([ratio for _, ratio in dense]))))
    networks = {}
    for name, value in found:
        entry = {"measured": value, "predicted": estimates[name].latency_ms, "over": value / estimates[name].latency_ms}
        if name.startswith("mobilenet"):
            mine = [row for row in estimates[name].kernels if row.kind == "depthwise"]
            rest = factor * (estimates[name].latency_ms - sum(row.latency_ms for row in mine))
            left = max(0.0, value - rest)
            entry |= {
                "depthwise_kernels": len(mine),
                "depthwise_us_each": 1e3 * left / len(mine),
                "depthwise_gmacs": sum(row.macs for row in mine) / left * 1e-6 if left else None,
                "predicted_us_each": 1e3 * sum(row.latency_ms for row in mine) / len(mine),
                "over_factor": entry["over"] / factor,
            }
        networks[name] = entry
    spread = [abs(np.log(ratio / factor)) for _, ratio in dense]
    return {"factor": factor, "spread": float(np.exp(np.max(spread))), "networks": networks}
