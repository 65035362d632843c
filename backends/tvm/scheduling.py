"""Choosing a template and a schedule for each kernel."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from gensynth.ir import UsageError
from gensynth.ir.plugins import load_plugins

from .kernels import KernelSpec, Schedule, Template, templates_of
from .targets import Target

__all__ = ["Chosen", "Schedules", "default_schedule", "load_templates"]

PLUGINS = "gensynth.kernels"
"""Entry-point group of modules that register kernel templates for ops of others."""


@dataclass(frozen=True)
class Chosen:
    """A template and the schedule it is to use."""

    template: Template
    schedule: Schedule


Schedules = Mapping[KernelSpec, Chosen]
"""What tuning found, by specification."""


def load_templates(target: Target) -> None:
    """Loads the templates for a target's kind: the built-in ones, and those of plug-ins."""
    importlib.import_module(f".kernels.{target.kind}", __package__)
    load_plugins(PLUGINS)


def default_schedule(spec: KernelSpec, target: Target) -> Chosen:
    """Returns the template and schedule that are best by the templates' own estimates.

    Raises:
        UsageError: no template takes the specification.
    """
    best: tuple[float, Chosen] | None = None
    for template in templates_of(spec, target):
        for schedule in template.schedules(spec, target)[:1]:
            cost = template.cost(spec, schedule, target)
            if best is None or cost < best[0]:
                best = cost, Chosen(template, schedule)
    if best is None:
        raise UsageError(
            f"no {target.kind} kernel takes {spec.op.text()} with {len(spec.steps)} steps after it",
            hint="rewrite the network with other ops there",
        )
    return best[1]
