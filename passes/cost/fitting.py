"""Fitting a device's coefficients to measurements: the most probable ones under log-normal priors.

Minimized is the sum of squares of (log predicted - log measured) / noise, each row weighed down where it lies far off
(iteratively reweighted, for the smooth L1 loss), and of (log coefficient - log prior) / deviation. All that is fitted
is positive, so logs are what is free. Rows of one network under several conditions share the model's error in it, and
count accordingly less.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .device import BY_KIND, Condition, Device
from .model import Effective, Shapes, effective, kernel_times, terms, unfilled
from .workload import KINDS, KernelShape

__all__ = ["Observation", "Prior", "Table", "fit_device", "misfit", "predict"]

Vector = npt.NDArray[np.float64]

_NOISE = {"latency": 0.03, "energy": 0.04}
"""Deviation of a measurement, and of a good model, in log units."""
_REWEIGHTINGS = 4
_ITERATIONS = 40


_ONCE = ("global_pool", "dense", "softmax")
"""Kinds that most networks have once, so that measurements hardly tell their launch from the overhead."""


@dataclass(frozen=True)
class Observation:
    """One measurement: kernels and how many of each, the condition, milliseconds and millijoules a run of the batch.

    `network` says which rows share a network, `family` which share a kind of network.
    """

    kernels: Mapping[KernelShape, int] = field(hash=False)
    condition: Condition
    latency: float | None
    energy: float | None
    network: str
    family: str


@dataclass(frozen=True)
class Prior:
    """What is believed of coefficients before measuring: deviations of their logs, by name.

    `scales` are for those that set the size of everything (launch, rate, bandwidth, ...), `ratios` for how kinds of
    kernels differ, `clocks` for what a power mode is known to do, `runtimes` for how a runtime differs from the first,
    where it is none of `fitted_runtimes`. `covariance`, over `names`, replaces single deviations where devices already
    known tell how coefficients vary together; `centre` are the logs it is centred on.
    """

    scales: float = 1.2
    ratios: float = 0.5
    utilization: float = 1.0
    clocks: float = 0.05
    power: float = 0.5
    runtimes: float = 0.5
    fitted_runtimes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    centre: tuple[float, ...] = ()
    covariance: Vector | None = field(default=None, hash=False, compare=False)

    def deviation(self, name: str) -> float:
        """Returns the deviation of a coefficient's log."""
        parts = name.split(".")
        if parts[0] == "runtime":
            all_kinds = self.ratios if parts[1] in self.fitted_runtimes else self.runtimes
            return 0.5 * all_kinds if len(parts) > 3 else all_kinds
        if parts[0] == "mode":
            return self.clocks if parts[2] in ("clock", "memory") else max(self.clocks, 0.4)
        if parts[0] == "precision":
            return 0.5 * self.ratios
        if len(parts) > 1:
            once = parts[0] == "launch" and parts[1] in _ONCE
            return 0.4 * self.ratios if once else self.ratios
        if parts[0] in ("pixels", "reduction", "channels"):
            return self.utilization
        if parts[0] == "cached":
            return self.ratios
        if parts[0] == "overhead":
            return 1.5 * self.scales
        return self.power if parts[0] in ("static", "mac", "byte", "kernel") else self.scales


class Table:
    """Kernel counts of many workloads over the shapes that occur in them."""

    def __init__(self, workloads: Sequence[Mapping[KernelShape, int]]) -> None:
        """Collects the shapes; `counts` has shape [workloads, shapes]."""
        index: dict[KernelShape, int] = {}
        for workload in workloads:
            for shape in workload:
                index.setdefault(shape, len(index))
        self.shapes = Shapes(index)
        self.counts = np.zeros((len(workloads), len(index)))
        for row, workload in enumerate(workloads):
            for shape, count in workload.items():
                self.counts[row, index[shape]] = count


def predict(device: Device, table: Table, condition: Condition) -> tuple[Vector, Vector]:
    """Returns milliseconds and millijoules of every workload of a table under one condition, shape [workloads] each."""
    from .model import kernel_energy, kernel_times

    given = effective(device, condition)
    times = kernel_times(table.shapes, given)
    energy = table.counts @ kernel_energy(table.shapes, times, given) + given.static * given.overhead
    return given.overhead + table.counts @ times.total, energy


_ALIKE = ("overhead", "cached", "pixels", "reduction", "channels", "static", "byte", "kernel")


class _Group:
    """The rows measured under one condition, and how its quantities depend on what is free.

    Logs of quantities are linear in logs of coefficients: `slopes` has a matrix [KINDS, names] for those that depend on
    the kind of kernel and a vector [names] for the others, `bases` what does not depend on what is free.
    """

    def __init__(self, device: Device, condition: Condition, table: Table, names: Mapping[str, int]) -> None:
        self.condition = condition
        self.table = table
        self.usual = effective(device, condition)
        self.slopes: dict[str, Vector] = {}
        for quantity in BY_KIND:
            rows = [_powers(terms(quantity, kind, condition), names) for kind in KINDS]
            self.slopes[quantity] = np.array(rows)
        for quantity in _ALIKE:
            self.slopes[quantity] = _powers(terms(quantity, None, condition), names)
        point = np.log([device.coefficient(name) for name in names])
        self.bases = {name: np.log(getattr(self.usual, name)) - slope @ point for name, slope in self.slopes.items()}
        self.by_kind = {quantity: self.slopes[quantity][table.shapes.kind] for quantity in BY_KIND}

    def given(self, point: Vector) -> Effective:
        """Returns the quantities at the logs of what is free."""
        found = {name: np.exp(self.bases[name] + slope @ point) for name, slope in self.slopes.items()}
        return self.usual._replace(**found)

    def evaluate(self, given: Effective, want_energy: bool) -> tuple[Vector, Vector, Vector, Vector]:
        """Returns milliseconds and their derivatives by free logs, millijoules and theirs."""
        shapes, counts = self.table.shapes, self.table.counts
        times = kernel_times(shapes, given)
        by_pixels, by_reduction, by_channels = unfilled(shapes, given)
        launch, compute, memory, moved = times.launch, times.compute, times.memory, times.moved
        busy = times.total - launch
        safe = np.maximum(busy, 1e-300)
        of_compute, of_memory = compute * (compute / safe) ** 2, memory * (memory / safe) ** 2
        saved = -self._cached_bytes(given) / np.maximum(moved, 1e-300)
        slope = (
            self.by_kind["launch"] * launch[:, None]
            - self.by_kind["rate"] * of_compute[:, None]
            - self.by_kind["bandwidth"] * of_memory[:, None]
            + np.outer(of_memory * saved, self.slopes["cached"])
            + np.outer(of_compute * by_pixels / (1.0 + by_pixels), self.slopes["pixels"])
            + np.outer(of_compute * by_reduction / (1.0 + by_reduction), self.slopes["reduction"])
            + np.outer(of_compute * by_channels / (1.0 + by_channels), self.slopes["channels"])
        )
        time = given.overhead + counts @ times.total
        time_slope = counts @ slope + given.overhead * self.slopes["overhead"]
        if not want_energy:
            return time, time_slope, time, time_slope
        mac = given.mac[shapes.kind] * shapes.macs * given.batch * 1e-9
        byte = given.byte * moved * 1e-9
        kernel = given.kernel * 1e-3
        energy = given.static * time + counts @ (mac + byte + kernel)
        energy_slope = given.static * (time_slope + np.outer(time, self.slopes["static"])) + counts @ (
            self.by_kind["mac"] * mac[:, None]
            + np.outer(byte, self.slopes["byte"])
            + np.outer(byte * saved, self.slopes["cached"])
            + kernel * self.slopes["kernel"]
        )
        return time, time_slope, energy, energy_slope

    def _cached_bytes(self, given: Effective) -> Vector:
        shapes = self.table.shapes
        activations = (shapes.read + shapes.written) * given.batch * given.element
        return activations / (1.0 + (2.0 * activations / given.cache) ** 2) / given.cached


def _powers(found: Sequence[tuple[str, int]], names: Mapping[str, int]) -> Vector:
    """Returns to what power each free coefficient enters a product."""
    powers = np.zeros(len(names))
    for name, power in found:
        if name in names:
            powers[names[name]] += power
    return powers


def _free_names(device: Device, observations: Sequence[Observation]) -> list[str]:
    """Returns the coefficients on which the observations depend, but for what is 1 by definition."""
    first = {
        f"precision.{next(iter(device.precisions))}.",
        f"mode.{next(iter(device.power_modes))}.",
        f"runtime.{next(iter(device.runtimes))}.",
    }
    kinds: dict[Condition, set[str]] = {}
    for item in observations:
        kinds.setdefault(item.condition, set()).update(shape.kind for shape in item.kernels)
    energy = any(item.energy is not None for item in observations)
    quantities = ["overhead", "launch", "rate", "bandwidth", "cached", "pixels", "reduction", "channels"]
    if energy:
        quantities += ["static", "mac", "byte", "kernel"]
    found: dict[str, None] = {}
    for condition, present in kinds.items():
        for quantity in quantities:
            for kind in [*sorted(present, key=KINDS.index)]:
                if quantity in ("rate", "mac") and kind not in _WITH_MACS:
                    continue
                for name, _ in terms(quantity, kind, condition):
                    if not any(name.startswith(prefix) for prefix in first):
                        found.setdefault(name)
    return list(found)


_WITH_MACS = frozenset({"conv3x3", "conv1x1", "conv", "conv_transpose", "grouped", "depthwise", "dense", "other"})


def fit_device(
    device: Device, observations: Sequence[Observation], prior: Prior, *, near: Device | None = None
) -> Device:
    """Returns the device with the most probable coefficients given measurements.

    The device's own coefficients are the centre of the prior, unless the prior has a centre of its own. `near` is a
    device whose coefficients are near those sought, from which the search then starts.

    Raises:
        ValueError: there are no observations.
    """
    if not observations:
        raise ValueError("no observations")
    # What other devices tell of, and these measurements do not, moves along with what they do tell of.
    told = [name for name in prior.names if name.split(".")[0] not in ("runtime", "mode", "precision")]
    free = dict.fromkeys([*_free_names(device, observations), *told])
    names = {name: position for position, name in enumerate(free)}
    centre, precision = _belief(prior, names, device)
    groups, measured, weight = _rows(device, observations, names)
    logs = np.log(measured)
    reweights = np.ones(len(logs))
    if near is None:
        at = centre + _starting_shift(device, observations, names)
    else:
        at = np.log([near.coefficient(name) for name in names])

    def evaluate(point: Vector) -> tuple[Vector, Vector]:
        predicted, slope = _evaluate(point, groups, len(logs))
        return predicted - logs, slope

    for _ in range(_REWEIGHTINGS):
        at, off = _minimize(evaluate, at, (weight * reweights) ** 2, centre, precision)
        reweights = (1.0 + (off * weight) ** 2) ** -0.25
    return with_coefficients(device, names, at)


def _minimize(
    evaluate: Callable[[Vector], tuple[Vector, Vector]], at: Vector, weight: Vector, centre: Vector, precision: Vector
) -> tuple[Vector, Vector]:
    """Returns where sum(weight off^2) + (x - centre)' precision (x - centre) is least, and `off` there.

    Levenberg and Marquardt's method (Nocedal and Wright, "Numerical Optimization", 2006, section 10.3) by the normal
    equations, which the prior keeps well-conditioned: measurements may be ten thousand, coefficients are a hundred.
    `evaluate` gives `off` and its derivatives.
    """

    def cost(off: Vector, point: Vector) -> float:
        return float(weight @ off**2 + (point - centre) @ precision @ (point - centre))

    off, slope = evaluate(at)
    least, damping = cost(off, at), 1e-3
    for _ in range(_ITERATIONS):
        gradient = slope.T @ (weight * off) + precision @ (at - centre)
        curvature = (slope * weight[:, None]).T @ slope + precision
        step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), -gradient)
        trial = at + np.clip(step, -2.0, 2.0)
        trial_off, trial_slope = evaluate(trial)
        found = cost(trial_off, trial)
        if found < least:
            gained = least - found
            at, off, slope, least, damping = trial, trial_off, trial_slope, found, max(damping / 5.0, 1e-9)
            if gained < 1e-4 * least + 1e-9:
                break
        elif damping > 1e8:
            break
        else:
            damping *= 8.0
    return at, off


def misfit(start: Device, fitted: Device, observations: Sequence[Observation], prior: Prior) -> float:
    """Returns what a fit from `start` has minimized: twice the negative log posterior, but for a constant."""
    names = {name: position for position, name in enumerate(_free_names(start, observations))}
    centre, precision = _belief(prior, names, start)
    groups, measured, weight = _rows(fitted, observations, names)
    point = np.log([fitted.coefficient(name) for name in names])
    logs, _ = _evaluate(point, groups, len(measured))
    off = (logs - np.log(measured)) * weight
    return float(np.sum(2.0 * (np.sqrt(1.0 + off**2) - 1.0)) + (point - centre) @ precision @ (point - centre))


def with_coefficients(device: Device, names: Iterable[str], logs: Vector) -> Device:
    """Returns a device with some coefficients replaced, given by their logs."""
    found = dict(zip(names, np.exp(logs).tolist(), strict=True))
    return dataclasses.replace(device, coefficients={**device.coefficients, **found})


def _belief(prior: Prior, names: Mapping[str, int], device: Device) -> tuple[Vector, Vector]:
    """Returns the centre of the logs of free coefficients, and the inverse of their covariance."""
    centre = np.log([device.coefficient(name) for name in names])
    covariance = np.diag([prior.deviation(name) ** 2 for name in names])
    if prior.covariance is not None:
        known = [position for position, name in enumerate(prior.names) if name in names]
        where = [names[prior.names[position]] for position in known]
        covariance[np.ix_(where, where)] = prior.covariance[np.ix_(known, known)]
        centre[where] = np.array(prior.centre)[known]
    return centre, np.asarray(np.linalg.inv(covariance), dtype=np.float64)


def _rows(
    device: Device, observations: Sequence[Observation], names: Mapping[str, int]
) -> tuple[list[tuple[_Group, Vector, Vector]], Vector, Vector]:
    """Returns groups of rows by condition, with where their latencies and energies stand among all measured values."""
    by_condition: dict[Condition, list[Observation]] = {}
    repeats: dict[tuple[str, str], int] = {}
    for item in observations:
        by_condition.setdefault(item.condition, []).append(item)
        for quantity in ("latency", "energy"):
            if getattr(item, quantity) is not None:
                repeats[item.network, quantity] = repeats.get((item.network, quantity), 0) + 1
    groups: list[tuple[_Group, Vector, Vector]] = []
    measured: list[float] = []
    weight: list[float] = []
    for condition, items in by_condition.items():
        table = Table([item.kernels for item in items])
        places: dict[str, Vector] = {}
        for quantity in ("latency", "energy"):
            place = np.full(len(items), -1)
            for row, item in enumerate(items):
                value = getattr(item, quantity)
                if value is not None:
                    place[row] = len(measured)
                    measured.append(value)
                    weight.append(1.0 / (_NOISE[quantity] * repeats[item.network, quantity] ** 0.25))
            places[quantity] = place
        groups.append((_Group(device, condition, table, names), places["latency"], places["energy"]))
    return groups, np.array(measured), np.array(weight)


def _evaluate(point: Vector, groups: Sequence[tuple[_Group, Vector, Vector]], count: int) -> tuple[Vector, Vector]:
    """Returns the logs of all predicted values and their derivatives, shape [count] and [count, names]."""
    logs = np.zeros(count)
    slopes = np.zeros((count, len(point)))
    point = np.clip(point, -60.0, 60.0)
    for group, latency, energy in groups:
        want_energy = bool((energy >= 0).any())
        time, time_slope, joules, joules_slope = group.evaluate(group.given(point), want_energy)
        for place, value, slope in ((latency, time, time_slope), (energy, joules, joules_slope)):
            rows = np.flatnonzero(place >= 0)
            logs[place[rows]] = np.log(value[rows])
            slopes[place[rows]] = slope[rows] / value[rows, None]
    return logs, slopes


def _starting_shift(device: Device, observations: Sequence[Observation], names: Mapping[str, int]) -> Vector:
    """Returns by how much to move scales, so that the fit starts with predictions of about the right size."""
    shift = np.zeros(len(names))
    groups, measured, _ = _rows(device, [dataclasses.replace(item, energy=None) for item in observations], names)
    if not len(measured):
        return shift
    point = np.log([device.coefficient(name) for name in names])
    predicted, _ = _evaluate(point, groups, len(measured))
    off = float(np.median(np.log(measured) - predicted))
    for name, sign in (("launch", 1.0), ("rate", -1.0), ("bandwidth", -1.0)):
        if name in names:
            shift[names[name]] = sign * off
    return shift
