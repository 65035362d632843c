"""How many networks a second a device's latency and energy are estimated for."""

from __future__ import annotations

import statistics
from typing import Any

from harness import measure

import gensynth as gs
from gensynth.passes.cost import cost_model, totals


def speed(networks: int = 400) -> dict[str, Any]:
    """Times estimates of networks of about 60 kernels that a generator has emitted, one core, nothing vectorized.

    Beside them: exact counts, and the full report with a row a kernel and intervals. Networks differ from each other
    and are seen for the first time in every run.
    """
    model = cost_model("tegra-x2-gpu", precision="fp16")
    program = gs.run_pipeline(gs.prototype("resnet", depth=56), "open-width{ratios=[0.25,0.5,0.75,1.0]}")
    generator = gs.Generator(program)
    fresh: list[Any] = []
    seed = 0

    def emit() -> None:
        nonlocal seed
        fresh.clear()
        for _ in range(networks):
            fresh.append(generator.materializer.build(generator.materializer.draw(seed)))
            seed += 1

    runs = {
        "latency and energy": lambda: [model.totals(graph) for graph in fresh],
        "exact counts": lambda: [totals(graph) for graph in fresh],
        "report with intervals": lambda: [model.estimate(graph) for graph in fresh],
    }
    timed = measure(runs, repetitions=7, prepare=dict.fromkeys(runs, emit))
    emit()
    kernels = statistics.mean(len(model.estimate(graph).kernels) for graph in fresh[:50])
    return {
        "networks": networks,
        "kernels": kernels,
        "runs": {name: {"median": run.median, "per_second": networks / run.median} for name, run in timed.items()},
    }
