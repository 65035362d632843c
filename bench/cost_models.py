"""What the cost model is compared with: simpler models, fitted to the same rows; and the cost model itself, alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph
from gensynth.passes.cost import Device, totals
from gensynth.passes.cost.calibration import Measured, calibrate
from gensynth.passes.cost.fitting import Prior, Table, predict
from gensynth.passes.cost.workload import LOWERINGS, KernelShape, Lowering, kernels_of

Vector = npt.NDArray[np.float64]
Fitted = Callable[[Sequence[Measured], str], Vector]
"""Predictions of a quantity (`latency` or `energy`) for measurements."""
Fit = Callable[[Sequence[Measured], Sequence[str]], Fitted]
"""Fits quantities to measurements."""


@cache
def kernels(graph: Graph, lowering: Lowering) -> Mapping[KernelShape, int]:
    """Returns how many kernels of each shape a network has."""
    return Counter(kernel.shape for kernel in kernels_of(graph, lowering))


def values(measured: Sequence[Measured], quantity: str) -> Vector:
    """Returns what was measured."""
    return np.array([getattr(item, quantity) for item in measured])


# Simpler models: one fit for each condition, since none of them knows of precisions and power modes.


def _by_condition(columns: Callable[[Graph], Sequence[float]]) -> Fit:
    """Returns a fit of non-negative weights of columns, by relative least squares, one for each condition."""

    def fit(measured: Sequence[Measured], quantities: Sequence[str]) -> Fitted:
        from scipy.optimize import nnls

        weights = {}
        for quantity in quantities:
            for condition in {item.condition for item in measured}:
                mine = [item for item in measured if item.condition == condition]
                matrix = np.array([columns(item.graph) for item in mine], dtype=np.float64)
                target = values(mine, quantity)
                size = np.maximum(matrix.max(axis=0), 1e-12)
                weights[quantity, condition] = nnls(matrix / size / target[:, None], np.ones(len(mine)))[0] / size

        def predicted(items: Sequence[Measured], quantity: str) -> Vector:
            return np.array([np.dot(columns(item.graph), weights[quantity, item.condition]) for item in items])

        return predicted

    return fit


@cache
def _macs(graph: Graph) -> tuple[float, ...]:
    return 1.0, float(totals(graph).macs)


_OPS = (
    "conv3x3",
    "conv1x1",
    "conv",
    "grouped",
    "depthwise",
    "dense",
    "pool",
    "global_pool",
    "sum",
    "activation",
    "copy",
)


@cache
def _op_counts(graph: Graph) -> tuple[float, ...]:
    counts = Counter(kernel.shape.kind.replace("fresh_", "") for kernel in kernels_of(graph, LOWERINGS["eager"]))
    return 1.0, *(float(counts[kind]) for kind in _OPS)


@cache
def _work(graph: Graph) -> tuple[Vector, Vector]:
    found = kernels_of(graph, LOWERINGS["fused"])
    macs = np.array([kernel.shape.macs for kernel in found], dtype=np.float64)
    moved = np.array([kernel.shape.read + kernel.shape.written + kernel.shape.weights for kernel in found])
    return macs, moved.astype(np.float64)


def _roofline(measured: Sequence[Measured], quantities: Sequence[str]) -> Fitted:
    """Fits a rate and a bandwidth for each condition: sum over fused kernels of max(MACs / rate, bytes / bandwidth)."""
    from scipy.optimize import minimize

    found: dict[tuple[str, object], Vector] = {}
    for quantity in quantities:
        for condition in {item.condition for item in measured}:
            mine = [item for item in measured if item.condition == condition]
            target = np.log(values(mine, quantity))

            def loss(logs: Vector, mine: list[Measured] = mine, target: Vector = target) -> float:
                return float(np.abs(np.log([_roof(item.graph, logs) for item in mine]) - target).mean())

            starts = [np.array([-rate, -rate + ridge]) for rate in (16.0, 20.0) for ridge in (1.0, 4.0)]
            results = [minimize(loss, start, method="Nelder-Mead", options={"maxiter": 200}) for start in starts]
            found[quantity, condition] = min(results, key=lambda result: result.fun).x

    def predicted(items: Sequence[Measured], quantity: str) -> Vector:
        return np.array([_roof(item.graph, found[quantity, item.condition]) for item in items])

    return predicted


def _roof(graph: Graph, logs: Vector) -> float:
    macs, moved = _work(graph)
    return float(np.maximum(macs * np.exp(logs[0]), moved * np.exp(logs[1])).sum()) + 1e-12


BASELINES: Mapping[str, Fit] = {
    "MACs line": _by_condition(_macs),
    "op-count linear": _by_condition(_op_counts),
    "plain roofline": _roofline,
}


# The cost model.


def device_model(
    device: Device, *, prior: Prior | None = None, choose: bool = True, extra: Sequence[Measured] = ()
) -> Fit:
    """Returns the fit of a device's cost model; `extra` measurements take part in every fit."""

    def fit(measured: Sequence[Measured], quantities: Sequence[str]) -> Fitted:
        given = [*measured, *extra]
        found = calibrate(device, given, prior=prior, cross_validate=False, choose=choose).device
        return fitted_model(found)

    return fit


def fitted_model(device: Device) -> Fitted:
    """Returns the predictions of a calibrated device."""

    def predicted(items: Sequence[Measured], quantity: str) -> Vector:
        result = np.zeros(len(items))
        for condition in {item.condition for item in items}:
            places = [place for place, item in enumerate(items) if item.condition == condition]
            lowering = device.runtimes[condition.runtime].lowering
            table = Table([kernels(items[place].graph, lowering) for place in places])
            result[places] = predict(device, table, condition)[quantity == "energy"]
        return result

    return predicted
