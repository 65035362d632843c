"""Devices: what a network runs on, as data.

A device has figures of the hardware, each with its source, and *coefficients*, which a fit to measurements gives
(`gensynth calibrate`). Coefficients multiply: the rate of a 3 x 3 convolution in fp16 is `rate` times `rate.conv3x3`
times `precision.fp16.rate` times the clock of the power mode. One that is not there counts as 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gensynth.ir import UsageError, nearest

from .workload import Lowering

__all__ = [
    "BY_KIND",
    "COEFFICIENTS",
    "OF_MODE",
    "OF_PRECISION",
    "Condition",
    "Device",
    "Evidence",
    "PowerMode",
    "Precision",
    "Range",
    "Runtime",
]

COEFFICIENTS: Mapping[str, str] = {
    "overhead": "ms an inference, whatever it computes",
    "launch": "us to start a kernel",
    "rate": "GMAC/s of a convolution that fills the device",
    "bandwidth": "GB/s to and from memory",
    "cached": "how many times as fast activations are moved that stay in the cache",
    "pixels": "outputs of a convolution at which half the rate is reached",
    "reduction": "products an output at which half the rate is reached",
    "channels": "output channels a group at which half the rate is reached",
    "static": "W drawn while an inference runs, whatever it computes",
    "mac": "pJ a MAC",
    "byte": "pJ a byte moved",
    "kernel": "uJ a kernel",
}
"""The coefficients that are not ratios, with their units."""

BY_KIND = ("launch", "rate", "bandwidth", "mac")
OF_PRECISION = ("rate", "bandwidth", "static", "mac")
OF_MODE = ("clock", "memory", "static", "dynamic")
"""What depends on the kind of kernel, and the factors that precisions and power modes have."""


@dataclass(frozen=True)
class Precision:
    """How numbers are stored: bytes of one, and the most MACs a second [GMAC/s] the hardware can do at full clock."""

    bytes: int
    peak: float


@dataclass(frozen=True)
class PowerMode:
    """Clocks [GHz] of the processor that runs kernels, and of the memory."""

    clock: float
    memory_clock: float


@dataclass(frozen=True)
class Runtime:
    """What executes networks on a device, and how it lowers them."""

    lowering: Lowering
    description: str = ""


@dataclass(frozen=True)
class Condition:
    """Under what a network runs: precision, power mode, runtime, and samples at once."""

    precision: str
    power_mode: str
    runtime: str
    batch: int = 1


@dataclass(frozen=True)
class Evidence:
    """What one quantity (`latency` or `energy`) of one runtime was fitted to, and how far off it is.

    `within` is the median relative error when networks are held out, `beyond` when whole families are (None where there
    is one family). `interval` and `interval_beyond` are the half-widths, in log units, of an interval that holds 90%
    of held-out measurements, for a network that takes `at`; one that takes v has interval * (at / v)^slope, within half
    and three times of it, since what a model misses is often so many milliseconds rather than so many percent.
    """

    data: str
    rows: int
    networks: int
    within: float
    interval: float
    beyond: float | None = None
    interval_beyond: float | None = None
    at: float = 1.0
    slope: float = 0.0

    def half_width(self, value: float, strange: float = 0.0) -> float:
        """Returns the half-width, in log units, for a value of which a share `strange` is beyond what was measured."""
        scale = min(3.0, max(0.5, (self.at / value) ** self.slope)) if value > 0 else 3.0
        beyond = max(self.interval, self.interval_beyond or 2.0 * self.interval)
        return scale * (self.interval + strange * (beyond - self.interval))


@dataclass(frozen=True)
class Range:
    """The kernels of one kind that a model was fitted to: least and most MACs, bytes and outputs of one."""

    macs: tuple[float, float]
    elements: tuple[float, float]
    outputs: tuple[float, float]


@dataclass(frozen=True)
class Device:
    """A device and its cost model.

    `peak_bandwidth` [GB/s] and `cache` [bytes] are the hardware's. `rails` are the power rails that energy was or is
    to be measured on, the total first. `evidence` is keyed by (runtime, `latency` or `energy`), `seen` by runtime and
    kind of kernel, `networks_seen` by runtime: least and most milliseconds that a network in the fit takes.
    """

    name: str
    description: str
    kind: str
    precisions: Mapping[str, Precision] = field(hash=False)
    power_modes: Mapping[str, PowerMode] = field(hash=False)
    runtimes: Mapping[str, Runtime] = field(hash=False)
    peak_bandwidth: float
    cache: int
    coefficients: Mapping[str, float] = field(hash=False)
    rails: tuple[str, ...] = ()
    evidence: Mapping[tuple[str, str], Evidence] = field(default_factory=dict, hash=False)
    seen: Mapping[str, Mapping[str, Range]] = field(default_factory=dict, hash=False)
    networks_seen: Mapping[str, tuple[float, float]] = field(default_factory=dict, hash=False)
    sources: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)

    def condition(
        self, precision: str | None = None, power_mode: str | None = None, runtime: str | None = None, batch: int = 1
    ) -> Condition:
        """Returns a condition of this device, the first of each kind by default.

        Raises:
            UsageError: the device has no such precision, power mode or runtime, or the batch is not positive.
        """

        def choose(what: str, given: str | None, known: Mapping[str, object]) -> str:
            if given is None:
                return next(iter(known))
            if given not in known:
                raise UsageError(
                    f"{self.name} has no {what} '{given}'", hint=nearest(given, known, what=f"{what}s of {self.name}")
                )
            return given

        if batch < 1:
            raise UsageError(f"a batch of {batch} is none", hint="give at least 1")
        return Condition(
            choose("precision", precision, self.precisions),
            choose("power mode", power_mode, self.power_modes),
            choose("runtime", runtime, self.runtimes),
            batch,
        )

    def coefficient(self, name: str) -> float:
        """Returns a coefficient; a ratio that the file leaves out is 1, a clock the datasheet's ratio.

        Clocks are relative to the first power mode's; where a mode's power is not known, static power follows the clock
        and dynamic energy its 0.8th power (voltage falls with the clock; Jetson TX2's own three modes).
        """
        found = self.coefficients.get(name)
        if found is not None:
            return found
        parts = name.split(".")
        if parts[0] == "mode" and parts[1] in self.power_modes:
            mode, first = self.power_modes[parts[1]], next(iter(self.power_modes.values()))
            clock = mode.clock / first.clock
            memory = mode.memory_clock / first.memory_clock
            factors: dict[str, float] = {"clock": clock, "memory": memory, "static": clock, "dynamic": clock**0.8}
            return factors[parts[2]]
        return 1.0
