"""What a network costs in all that is asked for: exact counts, and latency and energy on the devices named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from gensynth.ir import Graph

from .device import Condition
from .estimating import cost_model, parse_device
from .report import Totals, totals

__all__ = ["Costs", "Meter", "OnDevice", "device_text"]


class OnDevice(NamedTuple):
    """What one inference takes on a device: milliseconds and millijoules."""

    latency_ms: float
    energy_mj: float

    @property
    def inferences_per_second(self) -> float:
        """Inferences a second, one after another."""
        return 1e3 / self.latency_ms

    @property
    def inferences_per_joule(self) -> float:
        """Inferences a joule."""
        return 1e3 / self.energy_mj


class Costs(NamedTuple):
    """What a network costs: its counts, and what it takes on devices, by their texts as `device_text` gives them.

    `figures` are further costs by name, where someone else measured them.
    """

    totals: Totals
    on: Mapping[str, OnDevice] = MappingProxyType({})
    figures: Mapping[str, float] = MappingProxyType({})

    @classmethod
    def of(cls, found: Costs | Totals) -> Costs:
        """Returns counts alone as costs on no device; costs as they are."""
        return cls(found) if isinstance(found, Totals) else found


class Meter:
    """Tells what networks cost: counts alone, as fast as `totals`, where no device is named."""

    def __init__(self, devices: Iterable[str] = ()) -> None:
        """Takes device texts, as `parse_device` reads them.

        Raises:
            UsageError: there is no such device, precision, power mode or runtime.
        """
        models = [(text, cost_model(text)) for text in devices]
        self.models = {_full(text, model.condition): model for text, model in models}

    def __call__(self, graph: Graph) -> Costs:
        """Returns what a network costs.

        Raises:
            PassError: the graph is a generator, or an op has no rule.
        """
        if not self.models:
            return Costs(totals(graph))
        on = {text: OnDevice(*model.totals(graph)) for text, model in self.models.items()}
        return Costs(totals(graph), on)


def device_text(text: str) -> str:
    """Returns a device text with all that it leaves out: the device as it is named, precision, power mode, runtime.

    Raises:
        UsageError: there is no such device, precision, power mode or runtime.
    """
    return _full(text, parse_device(text)[1])


def _full(text: str, condition: Condition) -> str:
    name, _, _ = text.partition(":")
    return f"{name}:{condition.precision}:{condition.power_mode}:{condition.runtime}"
