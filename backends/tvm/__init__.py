"""TVM: networks compiled for a target, as artifacts that run without TVM. Loads TVM on first use, if at all."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .artifact import verify
    from .deploying import compile_network
    from .loading import Artifact, load_artifact
    from .manifest import Manifest
    from .measuring import (
        Measurement,
        append_csv,
        board_commands,
        board_result,
        check_csv,
        measure_here,
        measure_over_rpc,
    )
    from .relax import build_relax, relax_of_program, run_vm, time_vm, to_relax
    from .targets import CudaTarget, Target, known_targets, load_target, register_target, target_names

__all__ = [
    "Artifact",
    "CudaTarget",
    "Manifest",
    "Measurement",
    "Target",
    "append_csv",
    "board_commands",
    "board_result",
    "build_relax",
    "check_csv",
    "compile_network",
    "known_targets",
    "load_artifact",
    "load_target",
    "measure_here",
    "measure_over_rpc",
    "register_target",
    "relax_of_program",
    "run_vm",
    "target_names",
    "time_vm",
    "to_relax",
    "verify",
]

_MODULES = {
    "artifact": ("verify",),
    "deploying": ("compile_network",),
    "loading": ("Artifact", "load_artifact"),
    "manifest": ("Manifest",),
    "measuring": (
        "Measurement",
        "append_csv",
        "board_commands",
        "board_result",
        "check_csv",
        "measure_here",
        "measure_over_rpc",
    ),
    "relax": ("build_relax", "relax_of_program", "run_vm", "time_vm", "to_relax"),
    "targets": ("CudaTarget", "Target", "known_targets", "load_target", "register_target", "target_names"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
