"""Performance functions U: what a network is worth, from its accuracy and its costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points

import numpy as np

from gensynth.ir import UsageError, nearest
from gensynth.passes.cost import Costs, Totals, device_names, device_text

__all__ = [
    "ON_DEVICE",
    "PERFORMANCE",
    "Outcome",
    "Performance",
    "information_density",
    "netscore",
    "parse_performance",
    "performance_function",
]


@dataclass(frozen=True)
class Outcome:
    """What is known of a network when it is judged: accuracy in percent, trainable weights, MACs.

    `latency_ms` and `energy_mj` are of one inference on the device that the performance function is given with; None
    where it is given with none.
    """

    accuracy: float
    params: int
    macs: int
    latency_ms: float | None = None
    energy_mj: float | None = None

    @classmethod
    def of(cls, accuracy: float, found: Costs | Totals, device: str | None = None) -> Outcome:
        """Returns what is known of a network of an accuracy [percent] and of these costs, on `device` where given."""
        costs = Costs.of(found)
        if device is None:
            return cls(accuracy, costs.totals.params, costs.totals.macs)
        return cls(accuracy, costs.totals.params, costs.totals.macs, *costs.on[device])


def information_density(outcome: Outcome) -> float:
    """Accuracy [percent] per million parameters."""
    return outcome.accuracy / (outcome.params / 1e6)


def netscore(outcome: Outcome) -> float:
    """NetScore = 20 log10(a^2 / (p^0.5 m^0.5)): a percent, p millions of parameters, m billions of MACs.

    Wong, "NetScore", arXiv 1806.05512, equation 2 with alpha = 2, beta = gamma = 0.5; an accuracy of zero counts as
    0.01 percent.
    """
    return _score(outcome, outcome.params / 1e6 * outcome.macs / 1e9)


def _score(outcome: Outcome, costs: float) -> float:
    score: float = 20.0 * np.log10(np.maximum(outcome.accuracy, 0.01) ** 2 / np.sqrt(costs))
    return score


def accuracy(outcome: Outcome) -> float:
    """Accuracy [percent] alone."""
    return outcome.accuracy


def energy_score(outcome: Outcome) -> float:
    """20 log10(a^2 / (p^0.5 e^0.5)): a percent, p millions of parameters, e millijoules an inference.

    NetScore with energy in the place of MACs; ours, not from a paper.
    """
    return _score(outcome, outcome.params / 1e6 * _known(outcome.energy_mj))


def inferences_per_joule(outcome: Outcome) -> float:
    """Inferences a joule. Accuracy does not count: meant to go with a requirement on it."""
    return 1e3 / _known(outcome.energy_mj)


def inferences_per_second(outcome: Outcome) -> float:
    """Inferences a second, one after another. Accuracy does not count: meant to go with a requirement on it."""
    return 1e3 / _known(outcome.latency_ms)


def correct_per_joule(outcome: Outcome) -> float:
    """Correct inferences a joule: inferences a joule times the share that is right."""
    return outcome.accuracy / 100.0 * inferences_per_joule(outcome)


def _known(figure: float | None) -> float:
    if figure is None:
        raise UsageError("this performance function judges on a device, and none is given", hint=_EXAMPLE)
    return figure


_EXAMPLE = 'name one after an @, as in performance = "inferences_per_joule @ tegra-x2-gpu"'

PERFORMANCE: Mapping[str, Callable[[Outcome], float]] = {
    "netscore": netscore,
    "information_density": information_density,
    "accuracy": accuracy,
    "energy_score": energy_score,
    "correct_per_joule": correct_per_joule,
    "inferences_per_joule": inferences_per_joule,
    "inferences_per_second": inferences_per_second,
}
"""The built-in performance functions, which take outcomes of arrays as well.

More come from the entry-point group `gensynth.performance`.
"""

ON_DEVICE = frozenset({"energy_score", "correct_per_joule", "inferences_per_joule", "inferences_per_second"})
"""The built-in performance functions that judge on a device."""


@dataclass(frozen=True)
class Performance:
    """A performance function and, where it judges on one, the device whose latency and energy it is given."""

    text: str
    function: Callable[[Outcome], float]
    device: str | None = None

    def __call__(self, outcome: Outcome) -> float:
        """Returns U, the larger the better."""
        return self.function(outcome)


def parse_performance(text: str) -> Performance:
    """Returns what `NAME` or `NAME @ DEVICE` states, such as `netscore` or `energy_score @ tegra-x2-gpu:fp16`.

    NAME is what `performance_function` takes, DEVICE what `parse_device` reads. A function of the user's own may have a
    device or not.

    Raises:
        UsageError: there is no such function or device, or a built-in function lacks a device or has one too many.
    """
    name, at, place = (part.strip() for part in text.partition("@"))
    function = performance_function(name)
    if name in ON_DEVICE and not place:
        raise UsageError(
            f"{name} needs a device",
            hint=f"write '{name} @ DEVICE'; devices: {', '.join(device_names())}, or the path of a device file",
        )
    if name in PERFORMANCE and name not in ON_DEVICE and at:
        raise UsageError(f"{name} does not depend on a device", hint="leave out the '@' and what follows")
    return Performance(text, function, device_text(place) if at else None)


def performance_function(name: str) -> Callable[[Outcome], float]:
    """Returns a performance function by name, or by `module:function` for one of the user's own.

    Raises:
        UsageError: there is none, or it cannot be imported.
    """
    if name in PERFORMANCE:
        return PERFORMANCE[name]
    if ":" in name:
        import importlib

        module, _, attribute = name.partition(":")
        try:
            found: Callable[[Outcome], float] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"cannot import the performance function {name}: {error}", hint="write it as package.module:function"
            ) from None
        return found
    plugins = {entry.name: entry for entry in entry_points(group="gensynth.performance")}
    if name in plugins:
        loaded: Callable[[Outcome], float] = plugins[name].load()
        return loaded
    raise UsageError(
        f"unknown performance function '{name}'",
        hint=nearest(name, [*PERFORMANCE, *plugins], what="performance functions"),
    )
