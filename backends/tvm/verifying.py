"""Checking that a network computes the same by every way there is to run it.

    checked = check_network(network)
    print({outcome.route: outcome.error for outcome in checked.outcomes})

Each route (`routes.py`) runs the network on the same inputs; the float64 reference judges the outputs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from gensynth.backends.reference import run_reference
from gensynth.backends.reference.meanings import meaning_of
from gensynth.ir import Array, GenSynthError, Graph, Network, UsageError, architecture_hash, initialize, nearest
from gensynth.ir.ops import BatchNorm
from gensynth.passes.cost import cost

from .building import TOLERANCES
from .routes import ALL_ROUTES, ROUTES, KernelUse, RouteSkipped, Trial

Array64 = npt.NDArray[np.float64]

__all__ = ["Checked", "Outcome", "check_network", "largest_error", "trained_alike"]


@dataclass(frozen=True)
class Outcome:
    """How one route did: its largest error, relative to the output's range, and the most it may be.

    A route is skipped where what it needs is not installed; `reason` then says how to get it. Where it failed, `reason`
    says what is wrong; there is no error where there were no outputs.
    """

    route: str
    status: Literal["ok", "failed", "skipped"]
    error: float | None
    tolerance: float
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class Checked:
    """What came out for a network, run on `batch` images, by route, and its GPU kernels, where they were assembled.

    `macs` are those of one image.
    """

    name: str
    architecture_hash: str
    batch: int
    macs: int
    params: int
    outcomes: tuple[Outcome, ...]
    kernels: tuple[KernelUse, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no route failed."""
        return all(outcome.status != "failed" for outcome in self.outcomes)

    def outcome(self, route: str) -> Outcome | None:
        """Returns how a route did, or None where it was not asked for."""
        return next((outcome for outcome in self.outcomes if outcome.route == route), None)


def trained_alike(graph: Graph, seed: int = 0) -> Network:
    """Returns a network with random weights, none of them neutral, and statistics of what its batch norms get.

    Fresh weights would hide mistakes: a batch norm of mean 0 and variance 1 does nothing, nor does a bias of 0. With
    statistics that are random alone, the values of deep networks grow beyond float16. So each norm gets about those of
    noise that comes in, as after training; the reference runs once for it.
    """
    random = np.random.default_rng(seed)
    weights = dict(initialize(graph, seed))
    norms = {node.name for node in graph.nodes if isinstance(node.op, BatchNorm)}
    for name, array in weights.items():
        if array.ndim == 1 and name.rpartition(".")[0] not in norms:
            weights[name] = (array + 0.1 * random.standard_normal(array.shape)).astype(np.float32)
    values: dict[str, Array64] = {value.name: random.standard_normal(value.type.sizes(1)) for value in graph.inputs}
    for node in graph.nodes:
        operands = tuple(values[value.name] for value in node.operands)
        if node.name in norms:
            weights |= _statistics(node.name, operands[0], random)
        own = {
            parameter.name: weights[f"{node.name}.{parameter.name}"].astype(np.float64)
            for parameter in node.op.parameters(node.operand_types)
        }
        found = meaning_of(node)(node.op, operands, own)
        results = found if isinstance(found, tuple) else (found,)
        values |= {value.name: result for value, result in zip(node.results, results, strict=True)}
    return Network(graph, weights)


def _statistics(name: str, x: Array64, random: np.random.Generator) -> dict[str, Array]:
    """Returns the parameters of a batch norm that gets `x`; by its channels they differ at random."""
    channels = x.shape[1:2]
    spread = float(x.std()) or 1.0
    drawn = {
        "scale": random.uniform(0.7, 1.4, channels),
        "bias": 0.1 * random.standard_normal(channels),
        "mean": float(x.mean()) + 0.1 * spread * random.standard_normal(channels),
        "variance": spread**2 * random.uniform(0.7, 1.4, channels),
    }
    return {f"{name}.{parameter}": array.astype(np.float32) for parameter, array in drawn.items()}


def check_network(
    network: Network,
    *,
    name: str | None = None,
    batch: int = 1,
    seed: int = 0,
    routes: Sequence[str] | None = None,
    folder: Path | None = None,
) -> Checked:
    """Runs a network by every route (or those named) on `batch` random images and compares with the reference.

    `name` is what the result is called, by default the network's name. Artifacts are written to `folder`, by default
    one that is gone afterwards. A route that fails, in whatever way, is an outcome; it does not end the others.

    Raises:
        UsageError: an unknown route, or outputs that do not depend on the images.
        WeightsError: the network has no weights.
    """
    asked = ROUTES if routes is None else tuple(routes)
    for route in asked:
        if route not in ALL_ROUTES:
            raise UsageError(f"there is no route '{route}'", hint=nearest(route, ALL_ROUTES, what="routes"))
    graph = network.graph
    random = np.random.default_rng(seed)
    inputs = {value.name: random.standard_normal(value.type.sizes(batch)).astype(np.float32) for value in graph.inputs}
    wanted = run_reference(network, dict(inputs))
    for value, array in zip(graph.outputs, wanted, strict=True):
        if array.size > 1 and (not np.ptp(array) > 0.0 or (batch > 1 and np.array_equal(array[0], array[1]))):
            raise UsageError(
                f"@{graph.name}: '{value.name}' is the same for every image, so equal outputs would prove nothing",
                hint="draw weights by another seed; some activation lets nothing pass",
            )
    counted = cost(graph)
    with tempfile.TemporaryDirectory(prefix="gensynth-") as place:
        trial = Trial(network, batch, inputs, folder or Path(place))
        outcomes = tuple(_try(route, trial, wanted) for route in asked)
    return Checked(
        name or graph.name,
        architecture_hash(graph),
        batch,
        counted.macs,
        counted.params,
        outcomes,
        tuple(trial.kernels),
    )


def _try(route: str, trial: Trial, wanted: Sequence[Array]) -> Outcome:
    tolerance = TOLERANCES["f16" if route.endswith("f16") else "f32"]
    began = time.perf_counter()
    error: float | None = None
    try:
        for found in ALL_ROUTES[route](trial):
            worst = largest_error(found, wanted)
            error = worst if error is None else max(error, worst, key=_badness)
    except RouteSkipped as skipped:
        return Outcome(route, "skipped", None, tolerance, time.perf_counter() - began, str(skipped))
    except Exception as failure:  # whatever the compiler under test does: it is what is to be reported
        kind = "" if isinstance(failure, GenSynthError) else f"{type(failure).__name__}: "
        return Outcome(route, "failed", error, tolerance, time.perf_counter() - began, f"{kind}{failure}".strip())
    seconds = time.perf_counter() - began
    if error is not None and not error <= tolerance:
        return Outcome(route, "failed", error, tolerance, seconds, f"its outputs are off by {error:.2g} of their range")
    return Outcome(route, "ok", error, tolerance, seconds)


def _badness(error: float) -> float:
    return np.inf if np.isnan(error) else error


def largest_error(found: Sequence[Array], wanted: Sequence[Array]) -> float:
    """Returns the largest error of outputs, relative to the range of each as `run --selftest` has it; NaN for NaNs.

    Raises:
        GenSynthError: another number of outputs, or other shapes.
    """
    shapes, expected = [array.shape for array in found], [array.shape for array in wanted]
    if shapes != expected:
        raise GenSynthError(f"outputs have shapes {shapes}, not {expected}")
    worst = 0.0
    for one, other in zip(found, wanted, strict=True):
        exact = other.astype(np.float64)
        extent = max(float(np.ptp(exact)), float(np.abs(exact).max())) or 1.0
        worst = max(worst, float(np.abs(one.astype(np.float64) - exact).max()) / extent, key=_badness)
    return worst
