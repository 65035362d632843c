"""ONNX: models from networks, networks from models, and running models. Loads onnx and ONNX Runtime on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .emission import NodeEmission
    from .export import DEFAULT_OPSET, HASH_KEY, NEWEST_OPSET, OLDEST_OPSET, export_onnx, to_onnx
    from .importer import import_onnx
    from .lowerings import lowering
    from .runtime import OnnxSession, difference_from_reference, run_onnx

__all__ = [
    "DEFAULT_OPSET",
    "HASH_KEY",
    "NEWEST_OPSET",
    "OLDEST_OPSET",
    "NodeEmission",
    "OnnxSession",
    "difference_from_reference",
    "export_onnx",
    "import_onnx",
    "lowering",
    "run_onnx",
    "to_onnx",
]

_MODULES = {
    "emission": ("NodeEmission",),
    "export": ("DEFAULT_OPSET", "HASH_KEY", "NEWEST_OPSET", "OLDEST_OPSET", "export_onnx", "to_onnx"),
    "importer": ("import_onnx",),
    "lowerings": ("lowering",),
    "runtime": ("OnnxSession", "difference_from_reference", "run_onnx"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
