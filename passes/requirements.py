"""Operational requirements: parsed with units, measured as signed margins.

They stand below synthesis because `materialize` repairs networks to meet those that can be computed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from gensynth.ir import ParseError, Source, UsageError, nearest
from gensynth.passes.cost import Costs, Totals, device_names, device_text

__all__ = ["COMPUTABLE", "METRICS", "ON_DEVICE", "Requirement", "parse_requirement", "parse_requirements"]

_COUNT = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1024.0, "MiB": 1024.0**2, "GiB": 1024.0**3}
_TIME = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_ENERGY = {"uJ": 1e-3, "mJ": 1.0, "J": 1e3}
_SHARE = {"": 100.0, "%": 1.0}
_PLAIN = {"": 1.0}

METRICS: Mapping[str, Mapping[str, float]] = {
    "accuracy": _SHARE,
    "macs": _COUNT,
    "params": _COUNT,
    "peak_memory": _BYTES,
    "weight_memory": _BYTES,
    "latency": _TIME,
    "energy": _ENERGY,
    "inferences_per_second": _COUNT,
    "inferences_per_joule": _COUNT,
    "information_density": _PLAIN,
    "netscore": _PLAIN,
}
"""Every metric with its units; a value is kept in percent, counts, bytes, milliseconds, millijoules, or as it is."""

ON_DEVICE = frozenset({"latency", "energy", "inferences_per_second", "inferences_per_joule"})
"""The metrics that a device's cost model gives, for one image at a time."""

COMPUTABLE = frozenset({"macs", "params", "peak_memory", "weight_memory"}) | ON_DEVICE
"""The metrics that follow from the architecture alone, with no training."""

_FIELDS = {"weight_memory": "weight_bytes", "latency": "latency_ms", "energy": "energy_mj"}
"""Where costs keep a metric, if not under its own name."""
_SHOWN = {"accuracy": "%", "peak_memory": " B", "weight_memory": " B", "latency": " ms", "energy": " mJ"}
"""The unit that a value is shown with."""

_PATTERN = re.compile(
    r"\s*(?P<metric>[A-Za-z_]+)\s*(?P<sense><=|>=|==|<|>|=)?\s*(?P<number>[+-]?[0-9.]+(?:[eE][+-]?\d+)?)?\s*"
    r"(?P<unit>%|[A-Za-z]+)?\s*(?P<at>@\s*(?P<device>[\w./:~+-]*))?\s*(?P<rest>.*)",
    re.DOTALL,
)


@dataclass(frozen=True)
class Requirement:
    """One requirement, e.g. `macs <= 5M`: a metric, a sense and a bound in the metric's base unit.

    `device` is the device that it holds on, with precision, power mode and runtime, for a metric of a device.
    """

    metric: str
    sense: str
    bound: float
    text: str
    device: str | None = None

    @property
    def computable(self) -> bool:
        """Whether the architecture alone tells if it holds."""
        return self.metric in COMPUTABLE

    def value(self, found: Costs | Totals) -> float:
        """Returns what a network's costs come to in this metric, which is a computable one.

        Raises:
            UsageError: the costs are not known on the requirement's device.
        """
        if self.device is None:
            source: object = Costs.of(found).totals
        else:
            source = Costs.of(found).on.get(self.device)
            if source is None:
                raise UsageError(
                    f"'{self}': the costs are not known on {self.device}",
                    hint="measure them with a Meter of the device",
                )
        return float(getattr(source, _FIELDS.get(self.metric, self.metric)))

    def margin(self, value: float) -> float:
        """Returns how far `value` (in the base unit) is on the right side, as a share of the bound; >= 0 holds."""
        slack = self.bound - value if self.sense == "<=" else value - self.bound
        return slack / abs(self.bound) if self.bound else slack

    def holds(self, value: float) -> bool:
        """Whether `value` meets the requirement."""
        return value <= self.bound if self.sense == "<=" else value >= self.bound

    def show(self, value: float) -> str:
        """Returns a value of the metric with its unit, `3.21 ms`; counts and bytes in full."""
        whole = self.metric not in ON_DEVICE and self.metric in COMPUTABLE
        decimals = 0 if whole or not value else min(9, max(0, 2 - math.floor(math.log10(abs(value)))))
        return f"{value:,.{decimals}f}{_SHOWN.get(self.metric, '')}"

    def __str__(self) -> str:
        return self.text


def parse_requirement(text: str, name: str = "<requirement>") -> Requirement:
    """Returns the requirement that a line such as `accuracy >= 0.90` or `energy <= 2mJ @ tegra-x2-gpu` states.

    Accuracy is a share (`0.9`) or a percentage (`90%`); counts take K, M, G; memory B, KB, MB, KiB, MiB; latency us,
    ms, s; energy uJ, mJ, J. What depends on a device names it as `parse_device` reads it.

    Raises:
        ParseError: with position, caret and remedy.
    """
    source = Source(text, name)
    match = _PATTERN.match(text)
    example = "write it as METRIC <= NUMBER or METRIC >= NUMBER, such as 'macs <= 5M'"

    def fail(message: str, group: str | int, hint: str = example) -> ParseError:
        assert match is not None
        start, end = match.span(group)
        at = start if start >= 0 else len(text)
        return ParseError(message, source=source, offset=at, length=max(1, end - start), hint=hint)

    if match is None:
        raise ParseError("expected a requirement", source=source, offset=0, hint=example)
    metric = match["metric"]
    if metric not in METRICS:
        raise fail(f"unknown metric '{metric}'", "metric", nearest(metric, METRICS, what="metrics"))
    if match["sense"] not in ("<=", ">="):
        found = f"'{match['sense']}'" if match["sense"] else "none"
        raise fail(f"expected <= or >= after '{metric}', found {found}", "sense" if match["sense"] else "rest")
    try:
        number = float(match["number"] or "")
    except ValueError:
        raise fail(f"expected a number after '{match['sense']}'", "number" if match["number"] else "rest") from None
    units = METRICS[metric]
    unit = match["unit"] or ""
    if unit not in units:
        words = ", ".join(repr(known) if known else "no unit" for known in units)
        raise fail(
            f"{metric} has no unit '{unit}'" if unit else f"{metric} needs a unit",
            "unit" if unit else "at" if match["at"] else "rest",
            f"its units: {words}",
        )
    device = None
    if metric in ON_DEVICE:
        if not match["device"]:
            raise fail(
                f"{metric} needs a device",
                "rest",
                f"write it after an @: '{' '.join(text.split()).rstrip(' @')} @ DEVICE';"
                f" devices: {', '.join(device_names())}, or the path of a device file",
            )
        try:
            device = device_text(match["device"])
        except UsageError as error:
            raise fail(error.message, "device", error.hint or "") from None
    elif match["at"]:
        raise fail(f"{metric} does not depend on a device", "device", "leave out the '@' and what follows")
    if match["rest"]:
        raise fail(f"unexpected '{match['rest'].strip()}'", "rest")
    bound = number * units[unit]
    if metric == "accuracy" and not 0.0 <= bound <= 100.0:
        raise fail(
            f"an accuracy of {number:g}{unit} is not between 0 and 1 (or 0% and 100%)", "number", "write 0.9 or 90%"
        )
    if bound < 0 and metric != "netscore":
        raise fail(f"{metric} is never negative", "number")
    return Requirement(metric, match["sense"], bound, " ".join(text.split()), device)


def parse_requirements(texts: tuple[str, ...] | list[str], name: str = "<requirements>") -> tuple[Requirement, ...]:
    """Returns the requirements of several lines.

    Raises:
        ParseError: one of them cannot be read.
        UsageError: two of them contradict each other.
    """
    found = tuple(parse_requirement(text, name) for text in texts)
    for first in found:
        for second in found:
            same = (first.metric, first.device) == (second.metric, second.device)
            if same and first.sense == "<=" and second.sense == ">=" and first.bound < second.bound:
                raise UsageError(
                    f"'{first}' and '{second}' cannot both hold", hint="raise the upper bound or lower the lower one"
                )
    return found
