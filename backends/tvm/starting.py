"""Loading TVM without PyTorch."""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["import_tvm_alone"]


def import_tvm_alone() -> None:
    """Imports TVM, and not PyTorch with it, which it takes in where it finds it and which costs seconds.

    For programs that use TVM alone: it will not take PyTorch's tensors in this process. Does nothing where either is
    loaded already.
    """
    if "torch" in sys.modules or "tvm" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # what makes `import torch` raise ImportError
    try:
        import_module("tvm")
    finally:
        del sys.modules["torch"]
