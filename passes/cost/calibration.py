"""Calibration: a device's model from measurements, with held-out errors, intervals, and the range that was seen.

The steps: the runtime's lowering is chosen where it is not known, the coefficients are fitted, and the fit is repeated
with networks, and with families of networks, left out. What it says of those is the error that can be expected, and
sets the width of the intervals (conformal prediction over cross-validation residuals: Vovk, Gammerman and Shafer,
"Algorithmic Learning in a Random World", 2005; Barber et al., arXiv 1905.02928, section 2).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph

from .device import Condition, Device, Evidence, Range, Runtime
from .fitting import Observation, Prior, Table, fit_device, misfit, predict
from .workload import LOWERINGS, KernelShape, Lowering, kernels_of

__all__ = [
    "Calibration",
    "HeldOut",
    "Measured",
    "calibrate",
    "conformal_half_width",
    "known_devices_prior",
    "nearest_device",
]

Vector = npt.NDArray[np.float64]

LEVEL = 0.9
"""The share of measurements that an interval is to hold."""
FOLDS = 10
"""Networks are left out so many at a time that there are at most this many fits."""
CHOOSING = 120
"""At most so many rows take part in the choice of a lowering."""
CLEARLY = 0.8
STRONG = 10.0
"""Another lowering than the usual one is taken if its misfit, twice a negative log posterior, is at most this share of
the usual one's and less by at least this: odds above 100 (Kass and Raftery, "Bayes Factors", 1995, section 3.2)."""
ENOUGH = 8
"""With fewer networks than this a lowering is not chosen by their times."""

FRESH = Prior(scales=1.2, ratios=0.5)
"""What is believed of a device that was never measured, from one that is like it."""
AGAIN = Prior(scales=0.3, ratios=0.12, utilization=0.25, clocks=0.03, power=0.2)
"""What is believed of a device whose model was fitted before, to other measurements."""


@dataclass(frozen=True)
class Measured:
    """A network and what one run of it took: `latency` [ms] and `energy` [mJ] of the whole batch, either may be None.

    `network` names the network and `family` its kind: rows of one network, or family, are left out together.
    """

    graph: Graph = field(repr=False)
    condition: Condition
    latency: float | None
    energy: float | None
    network: str
    family: str


@dataclass(frozen=True)
class HeldOut:
    """What a fit says of a row that it did not see. `by` is what was left out: `network` or `family`."""

    row: int
    quantity: str
    by: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """The relative error."""
        return self.predicted / self.measured - 1.0


@dataclass(frozen=True)
class Calibration:
    """A calibrated device, what it was calibrated to, and how it does on what it did not see."""

    device: Device
    measured: tuple[Measured, ...]
    held_out: tuple[HeldOut, ...]
    lowerings: Mapping[str, tuple[tuple[str, float], ...]]
    """By runtime, lowerings and the misfits of fits with them, best first; empty where nothing was to choose."""


class _Workloads:
    """Kernel counts of graphs by lowering, each computed once."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, Lowering], Mapping[KernelShape, int]] = {}
        self._kept: list[Graph] = []

    def of(self, graph: Graph, lowering: Lowering) -> Mapping[KernelShape, int]:
        key = id(graph), lowering
        found = self._found.get(key)
        if found is None:
            self._kept.append(graph)
            found = self._found[key] = Counter(kernel.shape for kernel in kernels_of(graph, lowering))
        return found


def calibrate(
    device: Device,
    measured: Sequence[Measured],
    *,
    prior: Prior | None = None,
    lowering: Lowering | None = None,
    data: str = "measurements",
    cross_validate: bool = True,
    choose: bool = True,
    on_progress: Callable[[str], None] = lambda text: None,
) -> Calibration:
    """Returns the device calibrated to measurements.

    `device` is where the coefficients start: itself fitted before, or one that is like it. Runtimes that the
    measurements name and the device lacks are added. `lowering`, where given, is that of all runtimes measured; else,
    with `choose`, it is chosen among `LOWERINGS`, the device's own unless another is clearly better. `data` says in the
    device file where the measurements are from. Without `cross_validate` the device has no evidence, and no intervals.

    Raises:
        ValueError: there are no measurements.
        PassError: an op of a network has no rule.
    """
    if not measured:
        raise ValueError("no measurements")
    if prior is None:
        fitted_before = tuple({runtime for runtime, _ in device.evidence})
        prior = dataclasses.replace(AGAIN, fitted_runtimes=fitted_before) if fitted_before else FRESH
    workloads = _Workloads()
    device = _with_runtimes(device, measured, lowering)
    tried: dict[str, tuple[tuple[str, float], ...]] = {}
    if lowering is None and choose:
        for runtime in dict.fromkeys(item.condition.runtime for item in measured):
            mine = [item for item in measured if item.condition.runtime == runtime]
            chosen, tried[runtime] = _choose_lowering(device, runtime, mine, prior, workloads, on_progress)
            device = _with_lowering(device, runtime, chosen)
    observations = _observations(device, measured, workloads)
    on_progress(f"fitting {len(measured)} measurements")
    fitted = fit_device(device, observations, prior)
    held_out: list[HeldOut] = []
    if cross_validate:
        for by in ("network", "family"):
            held_out += _leave_out(device, observations, prior, by, on_progress, fitted)
    fitted = _with_evidence(fitted, observations, held_out, data)
    return Calibration(fitted, tuple(measured), tuple(held_out), tried)


def _with_runtimes(device: Device, measured: Sequence[Measured], lowering: Lowering | None) -> Device:
    runtimes = dict(device.runtimes)
    for item in measured:
        name = item.condition.runtime
        if name not in runtimes:
            first = next(iter(runtimes.values()))
            runtimes[name] = Runtime(first.lowering, "added by a calibration")
        if lowering is not None:
            runtimes[name] = dataclasses.replace(runtimes[name], lowering=lowering)
    return dataclasses.replace(device, runtimes=runtimes)


def _with_lowering(device: Device, runtime: str, lowering: Lowering) -> Device:
    changed = dataclasses.replace(device.runtimes[runtime], lowering=lowering)
    return dataclasses.replace(device, runtimes={**device.runtimes, runtime: changed})


def _observations(device: Device, measured: Sequence[Measured], workloads: _Workloads) -> list[Observation]:
    return [
        Observation(
            workloads.of(item.graph, device.runtimes[item.condition.runtime].lowering),
            item.condition,
            item.latency,
            item.energy,
            item.network,
            item.family,
        )
        for item in measured
    ]


# The lowering.


def _choose_lowering(
    device: Device,
    runtime: str,
    measured: Sequence[Measured],
    prior: Prior,
    workloads: _Workloads,
    on_progress: Callable[[str], None],
) -> tuple[Lowering, tuple[tuple[str, float], ...]]:
    """Returns the lowering of a runtime, and the misfits of all that were tried."""
    usual = device.runtimes[runtime].lowering
    if len({item.network for item in measured}) < ENOUGH:
        return usual, ()
    if len(measured) > CHOOSING:
        order = np.random.Generator(np.random.Philox(key=0)).permutation(len(measured))
        measured = [measured[index] for index in sorted(order[:CHOOSING])]
    candidates = {name: item for name, item in LOWERINGS.items() if item != usual}
    candidates = {usual.name or "its own": usual, **candidates}
    misfits: dict[str, float] = {}
    tried: dict[str, list[Mapping[KernelShape, int]]] = {}
    for name, candidate in candidates.items():
        tried[name] = [workloads.of(item.graph, candidate) for item in measured]
        same = next((other for other in misfits if tried[other] == tried[name]), None)
        if same is not None:
            misfits[name] = misfits[same]
            continue
        on_progress(f"{runtime}: trying the lowering {name}")
        trial = _with_lowering(device, runtime, candidate)
        observations = _observations(trial, measured, workloads)
        misfits[name] = misfit(trial, fit_device(trial, observations, prior), observations, prior)
    ranked = tuple(sorted(misfits.items(), key=lambda pair: pair[1]))
    first, (best, least) = next(iter(candidates)), ranked[0]
    clearly = least <= CLEARLY * misfits[first] and misfits[first] - least > STRONG
    return candidates[best if clearly else first], ranked


# Cross-validation.


def _leave_out(
    device: Device,
    observations: Sequence[Observation],
    prior: Prior,
    by: str,
    on_progress: Callable[[str], None],
    near: Device,
) -> list[HeldOut]:
    """Returns what fits say of the networks (or families) that they did not see; nothing where there is but one.

    Each fit starts near that to all observations, which saves most of its steps; where it ends does not depend on it.
    """
    groups = sorted({getattr(item, by) for item in observations})
    if len(groups) < 2:
        return []
    if len(groups) > FOLDS:
        order = np.random.Generator(np.random.Philox(key=1)).permutation(len(groups))
        parts = [[groups[index] for index in order[start::FOLDS]] for start in range(FOLDS)]
    else:
        parts = [[group] for group in groups]
    found: list[HeldOut] = []
    for number, part in enumerate(parts, 1):
        on_progress(f"held out by {by}: {number} of {len(parts)}")
        out = set(part)
        rest = [item for item in observations if getattr(item, by) not in out]
        rows = [row for row, item in enumerate(observations) if getattr(item, by) in out]
        fitted = fit_device(device, rest, prior, near=near)
        found += _held_out(fitted, observations, rows, by)
    return found


def _held_out(device: Device, observations: Sequence[Observation], rows: Sequence[int], by: str) -> list[HeldOut]:
    by_condition: dict[Condition, list[int]] = {}
    for row in rows:
        by_condition.setdefault(observations[row].condition, []).append(row)
    found = []
    for condition, mine in by_condition.items():
        table = Table([observations[row].kernels for row in mine])
        latency, energy = predict(device, table, condition)
        for row, milliseconds, millijoules in zip(mine, latency.tolist(), energy.tolist(), strict=True):
            item = observations[row]
            if item.latency is not None:
                found.append(HeldOut(row, "latency", by, item.latency, milliseconds))
            if item.energy is not None:
                found.append(HeldOut(row, "energy", by, item.energy, millijoules))
    return found


def conformal_half_width(logs: Sequence[float], groups: int, level: float = LEVEL) -> float:
    """Returns the half-width, in log units, of an interval that holds a share `level` of what is measured next.

    `logs` are log(predicted / measured) of held-out rows, of `groups` different networks. It is the quantile of their
    magnitudes at (groups + 1) level / groups; with so few groups that this is above 1, that of Student's t with
    groups - 1 degrees of freedom instead, on their root mean square.
    """
    magnitudes = np.abs(np.asarray(logs, dtype=np.float64))
    share = (groups + 1) * level / groups
    if share <= 1.0:
        return float(np.quantile(magnitudes, share))
    from scipy.stats import t

    spread = math.sqrt(float(np.mean(magnitudes**2)) * (1.0 + 1.0 / groups))
    return float(t.ppf((1.0 + level) / 2.0, max(1, groups - 1))) * spread


def _with_evidence(
    device: Device, observations: Sequence[Observation], held_out: Sequence[HeldOut], data: str
) -> Device:
    evidence, seen, networks = dict(device.evidence), dict(device.seen), dict(device.networks_seen)
    for runtime in dict.fromkeys(item.condition.runtime for item in observations):
        mine = [item for item in observations if item.condition.runtime == runtime]
        seen[runtime] = _ranges(mine)
        times = [item.latency for item in mine if item.latency is not None]
        if times:
            networks[runtime] = min(times), max(times)
        for quantity in ("latency", "energy"):
            found = _evidence(observations, held_out, runtime, quantity, data)
            if found is None:
                evidence.pop((runtime, quantity), None)
            else:
                evidence[runtime, quantity] = found
    return dataclasses.replace(device, evidence=evidence, seen=seen, networks_seen=networks)


def _evidence(
    observations: Sequence[Observation], held_out: Sequence[HeldOut], runtime: str, quantity: str, data: str
) -> Evidence | None:
    by_group: dict[str, tuple[float, float]] = {}
    rows: set[int] = set()
    at = slope = 0.0
    for by in ("network", "family"):
        mine = [
            item
            for item in held_out
            if item.by == by and item.quantity == quantity and observations[item.row].condition.runtime == runtime
        ]
        groups = len({getattr(observations[item.row], by) for item in mine})
        if not groups:
            continue
        rows |= {item.row for item in mine}
        logs = np.array([math.log(item.predicted / item.measured) for item in mine])
        sizes = np.array([item.predicted for item in mine])
        if by == "network":
            at, slope = float(np.exp(np.log(sizes).mean())), _slope(logs, sizes, groups)
        scaled = logs / np.clip((at / sizes) ** slope, 0.5, 3.0)
        median = float(np.median([abs(item.error) for item in mine]))
        by_group[by] = max(median, 1e-6), max(conformal_half_width(scaled.tolist(), groups), 1e-6)
    if "network" not in by_group:
        return None
    beyond, interval_beyond = by_group.get("family", (None, None))
    return Evidence(
        data=data,
        rows=len(rows),
        networks=len({observations[row].network for row in rows}),
        within=by_group["network"][0],
        interval=by_group["network"][1],
        beyond=beyond,
        interval_beyond=interval_beyond,
        at=at,
        slope=slope,
    )


def _slope(logs: Vector, sizes: Vector, groups: int) -> float:
    """Returns s where errors go as size^-s: from 0 to 1.5, shrunk to 0 where networks are few."""
    spread = np.log(sizes) - np.log(sizes).mean()
    if groups < 10 or not (spread**2).sum():
        return 1e-9
    magnitudes = np.log(np.abs(logs) + 0.005)
    fitted = float((spread * magnitudes).sum() / (spread**2).sum())
    return min(1.5, max(1e-9, -fitted * groups / (groups + 20.0)))


def _ranges(observations: Sequence[Observation]) -> dict[str, Range]:
    sizes: dict[str, list[tuple[int, int, int]]] = {}
    for item in observations:
        batch = item.condition.batch
        for shape in item.kernels:
            found = shape.macs * batch, shape.read + shape.written + shape.weights, shape.outputs * batch
            sizes.setdefault(shape.kind, []).append(found)
    return {
        kind: Range(*[(float(min(column)), float(max(column))) for column in zip(*found, strict=True)])
        for kind, found in sizes.items()
    }


# Devices that are known.


def known_devices_prior(devices: Sequence[Device], base: Prior = FRESH) -> Prior:
    """Returns a prior from devices already calibrated: their coefficients' mean logs, and how these vary together.

    A common factor of all times is left as free as it is without knowledge of other devices. With two devices or fewer
    there is nothing to learn of how they vary: `base` it is.
    """
    if len(devices) < 3:
        return base
    names = sorted(set.intersection(*[set(item.coefficients) for item in devices]) - _NEVER_SHARED)
    logs = np.log(np.array([[item.coefficient(name) for name in names] for item in devices]))
    covariance = np.cov(logs.T)
    scale = np.array([_SIZE.get(name, 0.0) for name in names])
    variances = np.diag(covariance)
    covariance = covariance + np.diag(np.maximum(0.1 * variances, 0.05**2)) + np.outer(scale, scale)
    return dataclasses.replace(base, names=tuple(names), centre=tuple(logs.mean(axis=0)), covariance=covariance)


_NEVER_SHARED = frozenset({"static", "mac", "byte", "kernel"})
_SIZE = {"launch": 1.0, "overhead": 1.0, "rate": -1.0, "bandwidth": -1.0}


def nearest_device(
    devices: Sequence[Device], measured: Sequence[Measured], prior: Prior = FRESH
) -> tuple[Device, float]:
    """Returns the device whose coefficients, as a prior, the measurements agree with best, and its misfit.

    Raises:
        ValueError: there are no devices, or no measurements.
    """
    if not devices:
        raise ValueError("no devices")
    best: tuple[Device, float] | None = None
    for device in devices:
        workloads = _Workloads()
        trial = _with_runtimes(device, measured, None)
        observations = _observations(trial, measured, workloads)
        found = misfit(trial, fit_device(trial, observations, prior), observations, prior)
        if best is None or found < best[1]:
            best = device, found
    assert best is not None
    return best
