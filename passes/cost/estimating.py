"""Latency and energy of a network on a device, with the uncertainty of both."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gensynth.ir import Graph, UsageError, nearest

from .device import Condition, Device, Evidence, Range
from .device_files import load_device
from .model import Effective, Shapes, effective, kernel_energy, kernel_times
from .workload import Kernel, KernelShape, kernel_shapes, kernels_of

__all__ = ["CostModel", "Estimate", "Interval", "KernelEstimate", "cost_model", "parse_device"]

UNKNOWN = 0.7
"""Half-width, in log units, of the interval of a quantity that was never measured on a device: about a factor of 2."""
STRANGE = 0.7
"""By how much a half-width grows, in log units, for a network all of whose time lies outside what was measured."""
MARGIN = 2.0
"""A kernel lies within what was measured if its sizes are within those of the fit, times or over this."""


@dataclass(frozen=True)
class Interval:
    """A value, and the interval that holds what would be measured with a probability of 90%."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval, as a share of the value."""
        return (self.high - self.low) / (2.0 * self.value) if self.value else 0.0


class KernelEstimate(NamedTuple):
    """What one kernel takes. `bound` is what its time is mostly made of: `launch`, `compute` or `memory`.

    `macs` and `operations` are of the whole batch, `moved` are the bytes read and written, those that the cache serves
    counted by the time they take. `launch_ms`, `compute_ms` and `memory_ms` are what it would take by each alone.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    latency_ms: float
    energy_mj: float
    bound: str
    launch_ms: float
    compute_ms: float
    memory_ms: float
    macs: int
    operations: int
    moved: float


@dataclass(frozen=True)
class Estimate:
    """Latency [ms] and energy [mJ] of one run of a network, a whole batch, on a device.

    `outside` says, in words, in what the network lies outside what the model was fitted to; the intervals are wider for
    it. Its energy is of everything that the device's total power rail feeds, static power included.
    """

    device: str
    condition: Condition
    latency: Interval
    energy: Interval
    overhead_ms: float
    kernels: tuple[KernelEstimate, ...]
    outside: tuple[str, ...]

    @property
    def latency_ms(self) -> float:
        """Milliseconds of a run."""
        return self.latency.value

    @property
    def energy_mj(self) -> float:
        """Millijoules of a run."""
        return self.energy.value

    @property
    def power_w(self) -> float:
        """Watts drawn meanwhile."""
        return self.energy.value / self.latency.value

    @property
    def inferences_per_second(self) -> float:
        """Samples a second, one run after another."""
        return 1e3 * self.condition.batch / self.latency.value

    @property
    def inferences_per_joule(self) -> float:
        """Samples a joule."""
        return 1e3 * self.condition.batch / self.energy.value


class _Cost(NamedTuple):
    latency: float
    energy: float
    launch: float
    compute: float
    memory: float
    moved: float
    strange: str


class CostModel:
    """A device under one condition, made ready to estimate many networks; what each kernel shape costs is kept."""

    def __init__(self, device: Device, condition: Condition) -> None:
        """Takes a device and a condition of it, as `Device.condition` gives."""
        self.device = device
        self.condition = condition
        self.lowering = device.runtimes[condition.runtime].lowering
        self._given: Effective = effective(device, condition)
        self._overhead = self._given.overhead
        self._static = self._given.static
        self._seen = device.seen.get(condition.runtime, {})
        self._costs: dict[KernelShape, _Cost] = {}

    @property
    def text(self) -> str:
        """The device and the condition, as `parse_device` reads them."""
        condition = self.condition
        return f"{self.device.name}:{condition.precision}:{condition.power_mode}:{condition.runtime}"

    def totals(self, graph: Graph) -> tuple[float, float]:
        """Returns milliseconds and millijoules of a run, and nothing more: for the inner loop of synthesis.

        Raises:
            PassError: the graph is a generator, or an op has no rule.
        """
        latency, energy = self._overhead, self._static * self._overhead
        costs = self._costs
        for shape in kernel_shapes(graph, self.lowering):
            found = costs.get(shape)
            if found is None:
                found = self._cost(shape)
            latency += found.latency
            energy += found.energy
        return latency, energy

    def estimate(self, graph: Graph) -> Estimate:
        """Returns what a run takes, kernel by kernel, with intervals.

        Raises:
            PassError: the graph is a generator, or an op has no rule.
        """
        kernels = kernels_of(graph, self.lowering)
        rows = tuple([self._row(kernel) for kernel in kernels])
        latency = self._overhead + math.fsum(row.latency_ms for row in rows)
        energy = self._static * self._overhead + math.fsum(row.energy_mj for row in rows)
        strange, outside = self._strange(kernels, latency)
        return Estimate(
            self.device.name,
            self.condition,
            self._interval("latency", latency, strange),
            self._interval("energy", energy, strange),
            self._overhead,
            rows,
            outside,
        )

    def _cost(self, shape: KernelShape) -> _Cost:
        one = Shapes((shape,))
        times = kernel_times(one, self._given)
        energy = kernel_energy(one, times, self._given)
        found = _Cost(
            latency=float(times.total[0]),
            energy=float(energy[0]),
            launch=float(times.launch[0]),
            compute=float(times.compute[0]),
            memory=float(times.memory[0]),
            moved=float(times.moved[0]),
            strange=self._strangeness(shape),
        )
        self._costs[shape] = found
        return found

    def _row(self, kernel: Kernel) -> KernelEstimate:
        shape = kernel.shape
        cost = self._costs.get(shape) or self._cost(shape)
        parts = {"launch": cost.launch, "compute": cost.compute, "memory": cost.memory}
        return KernelEstimate(
            kernel.name,
            shape.kind,
            tuple([node.name for node in kernel.nodes]),
            cost.latency,
            cost.energy,
            max(parts, key=lambda name: parts[name]),
            cost.launch,
            cost.compute,
            cost.memory,
            shape.macs * self.condition.batch,
            shape.operations * self.condition.batch,
            cost.moved,
        )

    # Uncertainty.

    def _interval(self, quantity: str, value: float, strange: float) -> Interval:
        evidence = self._evidence(quantity)
        if evidence is None:
            half = UNKNOWN
        else:
            half = evidence.half_width(value, strange) + STRANGE * strange
        return Interval(value, value * math.exp(-half), value * math.exp(half))

    def _evidence(self, quantity: str) -> Evidence | None:
        return self.device.evidence.get((self.condition.runtime, quantity))

    def _strangeness(self, shape: KernelShape) -> str:
        """Returns in what a kernel differs from those of the fit, or the empty string."""
        if not self._seen:
            return ""
        known: Range | None = self._seen.get(shape.kind)
        if known is None:
            return f"no kernel '{shape.kind}' was measured"
        sizes = (
            ("MACs", shape.macs * self.condition.batch, known.macs),
            ("elements moved", shape.read + shape.written + shape.weights, known.elements),
            ("outputs", shape.outputs * self.condition.batch, known.outputs),
        )
        for what, value, (least, most) in sizes:
            if not least / MARGIN <= value <= most * MARGIN:
                side = "fewer" if value < least else "more"
                return f"'{shape.kind}' with {side} {what} than measured"
        return ""

    def _strange(self, kernels: Sequence[Kernel], latency: float) -> tuple[float, tuple[str, ...]]:
        """Returns the share of the time that lies outside what was measured, and what does, in words."""
        reasons: Counter[str] = Counter()
        time = 0.0
        for kernel in kernels:
            cost = self._costs[kernel.shape]
            if cost.strange:
                reasons[cost.strange] += 1
                time += cost.latency
        told = [f"{reason} ({count} kernel{'s' * (count > 1)})" for reason, count in reasons.most_common()]
        if self._evidence("latency") is None:
            return 0.0, (f"latency was never measured on {self.device.name} with {self.condition.runtime}",)
        if self._evidence("energy") is None:
            told.append(f"energy was never measured on {self.device.name} with {self.condition.runtime}")
        return (time / latency if latency else 0.0), tuple(told)


def parse_device(text: str) -> tuple[Device, Condition]:
    """Returns the device and the condition of `NAME[:PRECISION][:POWER MODE][:RUNTIME]`, the parts in any order.

    NAME may be the path of a device file. What is left out is the device's first.

    Raises:
        UsageError: there is no such device, or it has no such precision, power mode or runtime.
    """
    name, *parts = text.split(":")
    device = load_device(name)
    chosen: dict[str, str] = {}
    choices = {"precision": device.precisions, "power_mode": device.power_modes, "runtime": device.runtimes}
    for part in parts:
        kind = next((kind for kind, known in choices.items() if part in known), None)
        words = [word for known in choices.values() for word in known]
        if kind is None:
            raise UsageError(
                f"{text}: {device.name} has no precision, power mode or runtime '{part}'",
                hint=nearest(part, words, what=f"words of {device.name}"),
            )
        if kind in chosen:
            raise UsageError(f"{text}: '{chosen[kind]}' and '{part}' exclude each other", hint="leave one out")
        chosen[kind] = part
    return device, device.condition(chosen.get("precision"), chosen.get("power_mode"), chosen.get("runtime"))


_models: dict[tuple[int, Condition], CostModel] = {}


def cost_model(
    device: str | Device,
    *,
    precision: str | None = None,
    power_mode: str | None = None,
    runtime: str | None = None,
    batch: int = 1,
) -> CostModel:
    """Returns the model of a device under a condition; the same object for the same device object and condition.

    `device` is a name, a path, a text that `parse_device` reads, or a device.

    Raises:
        UsageError: there is no such device, precision, power mode or runtime.
    """
    if isinstance(device, str):
        device, given = parse_device(device)
        precision = precision or given.precision
        power_mode = power_mode or given.power_mode
        runtime = runtime or given.runtime
    condition = device.condition(precision, power_mode, runtime, batch)
    found = _models.get((id(device), condition))
    if found is None or found.device is not device:
        found = _models[id(device), condition] = CostModel(device, condition)
    return found
