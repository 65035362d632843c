"""Kernels: specifications and the templates that write them for a target."""

from .specification import (
    Emitted,
    KernelSpec,
    Schedule,
    Step,
    Template,
    View,
    Weights,
    ZeroHalo,
    template,
    templates_of,
)

__all__ = [
    "Emitted",
    "KernelSpec",
    "Schedule",
    "Step",
    "Template",
    "View",
    "Weights",
    "ZeroHalo",
    "template",
    "templates_of",
]
