"""What a search strategy is, the registry of those that ship, and how one is run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from gensynth.ir import UsageError, nearest
from gensynth.ir.plugins import load_plugins

from .problem import Problem, Session, Trained
from .space import Decisions

__all__ = ["Strategy", "register_strategy", "search", "strategies", "strategy"]

ENTRY_POINTS = "gensynth.strategies"
"""Entry-point group for other packages' strategies; each names a class or function under `@register_strategy`."""


class Strategy(Protocol):
    """Decides which networks of a problem are trained. Made with a `Session`; asked and told in turn.

    `ask` returns up to `count` decisions that hold, none of them trained before while there are others; `tell` is given
    what training them gave.
    """

    def ask(self, count: int) -> Sequence[Decisions]:
        """Returns what to train next, at least one."""

    def tell(self, trained: Sequence[Trained]) -> None:
        """Learns from what was asked for."""


Factory = Callable[[Session], Strategy]
FactoryT = TypeVar("FactoryT", bound=Factory)

_registry: dict[str, Factory] = {}


def register_strategy(name: str) -> Callable[[FactoryT], FactoryT]:
    """Registers a strategy's class, or a function that makes one of a `Session`, under a name."""

    def register(factory: FactoryT) -> FactoryT:
        _registry[name] = factory
        return factory

    return register


def strategies() -> dict[str, Factory]:
    """Returns every strategy by name, plug-ins included."""
    for module in ("baselines", "bayesian", "inquisitive", "tpe"):
        importlib.import_module(f"{__package__}.{module}")
    load_plugins(ENTRY_POINTS)
    return dict(sorted(_registry.items()))


def strategy(name: str) -> Factory:
    """Returns a strategy by its name, or by `module:name` for one of the user's own.

    Raises:
        UsageError: there is none.
    """
    found = strategies()
    if name in found:
        return found[name]
    module, colon, attribute = name.partition(":")
    if colon:
        try:
            own: Factory = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise UsageError(
                f"cannot import the strategy {name}: {error}", hint="write it as package.module:name"
            ) from None
        return own
    raise UsageError(f"unknown strategy '{name}'", hint=nearest(name, found, what="strategies"))


def search(
    problem: Problem,
    factory: Factory,
    budget: int,
    *,
    seed: int = 0,
    probes: int = 400,
    batch: int = 1,
    prior: object | None = None,
) -> tuple[Strategy, list[Trained]]:
    """Runs a strategy until `budget` networks are trained; returns it and what was trained, in order.

    Raises:
        UsageError: the strategy asked for nothing, for a network that does not hold, or for too many probes.
    """
    session = Session(problem, seed=seed, probes=probes, prior=prior)
    chosen = factory(session)
    done: list[Trained] = []
    while len(done) < budget:
        asked = list(chosen.ask(min(batch, budget - len(done))))[: budget - len(done)]
        if not asked:
            raise UsageError(f"{type(chosen).__name__} asked for no network", hint="`ask` returns at least one")
        found = session.train(asked)
        chosen.tell(found)
        done += found
    return chosen, done
