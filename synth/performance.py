"""Performance functions U: what a network is worth, from its accuracy and its costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points

from gensynth.ir import UsageError, nearest

__all__ = ["PERFORMANCE", "Outcome", "information_density", "netscore", "performance_function"]


@dataclass(frozen=True)
class Outcome:
    """What is known of a network when it is judged: accuracy in percent, trainable weights, MACs."""

    accuracy: float
    params: int
    macs: int


def information_density(outcome: Outcome) -> float:
    """Accuracy [percent] per million parameters."""
    return outcome.accuracy / (outcome.params / 1e6)


def netscore(outcome: Outcome) -> float:
    """NetScore = 20 log10(a^2 / (p^0.5 m^0.5)): a percent, p millions of parameters, m billions of MACs.

    Wong, "NetScore", arXiv 1806.05512, equation 2 with alpha = 2, beta = gamma = 0.5; an accuracy of zero counts as
    0.01 percent.
    """
    accuracy = max(outcome.accuracy, 0.01)
    return 20.0 * math.log10(accuracy**2 / math.sqrt(outcome.params / 1e6 * outcome.macs / 1e9))


def accuracy(outcome: Outcome) -> float:
    """Accuracy [percent] alone."""
    return outcome.accuracy


PERFORMANCE: Mapping[str, Callable[[Outcome], float]] = {
    "netscore": netscore,
    "information_density": information_density,
    "accuracy": accuracy,
}
"""The built-in performance functions; more come from the entry-point group `gensynth.performance`."""


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
