"""Object code of CPU kernels: scheduled functions, through TVM's lowering passes and LLVM."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tvm
from tvm.target.codegen import llvm_get_system_cpu
from tvm.tirx import PrimFunc, transform

from gensynth.ir import UsageError

from .host import FEATURES, host_architecture, host_features
from .targets import Target

__all__ = ["assembly", "compile_objects", "host_llvm", "link_shared", "llvm_target", "lower_functions"]


def host_llvm() -> dict[str, object]:
    """Returns the `llvm` of a target for this machine: its CPU, without features that it is not allowed to use."""
    cpu = llvm_get_system_cpu()
    if host_architecture() != "x86_64":
        return {"mcpu": cpu}
    absent = sorted(feature for feature in FEATURES.values() if "avx" in feature and feature not in host_features())
    return {"mcpu": cpu, "mattr": [f"-{feature}" for feature in absent]} if absent else {"mcpu": cpu}


_LLVM_OPTIONS = ("-unroll-threshold-aggressive:uint=40", "-unroll-threshold-default:uint=40")
"""Templates unroll what is to be unrolled. More would bring more values into a loop than there are registers."""


def llvm_target(target: Target) -> Any:
    """Returns TVM's target for the host code of a target."""
    return tvm.target.Target({"kind": "llvm", "cl-opt": list(_LLVM_OPTIONS), **target.llvm})


def lower_functions(functions: Mapping[str, PrimFunc], target: Target) -> Any:
    """Returns TVM's runtime module of scheduled functions, each under its name, with a plain C interface."""
    llvm = llvm_target(target)
    module = tvm.IRModule(
        {
            name: function.with_attr("global_symbol", name).with_attr("target", llvm)
            for name, function in functions.items()
        }
    )
    for each in (
        transform.StmtSimplify(),
        transform.FlattenBuffer(),
        transform.NarrowDataType(32),
        transform.VectorizeLoop(True),
        transform.UnrollLoop(),
        transform.StmtSimplify(),
        transform.CommonSubexprElim(),
        transform.LowerIntrin(),
    ):
        module = each(module)
    return tvm.get_global_func("target.build.llvm")(module, llvm)


def compile_objects(functions: Mapping[str, PrimFunc], target: Target) -> bytes:
    """Returns an ELF object with these functions: position independent, and needing at most memset and memcpy."""
    module = lower_functions(functions, target)
    with tempfile.TemporaryDirectory(prefix="gensynth-") as folder:
        path = Path(folder) / "kernels.o"
        module.write_to_file(str(path), "o")
        return path.read_bytes()


def assembly(functions: Mapping[str, PrimFunc], target: Target) -> str:
    """Returns these functions in the target's assembly language."""
    return str(lower_functions(functions, target).inspect_source("asm"))


def link_shared(object_code: bytes, path: Path) -> None:
    """Writes a shared library for this machine from an object.

    Raises:
        UsageError: there is no C compiler to link with.
    """
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is not None:
        command = [compiler]
    elif find_spec("ziglang") is not None:
        command = [sys.executable, "-m", "ziglang", "cc"]
    else:
        raise UsageError(
            "there is no C compiler to link kernels with", hint="install one: apt install gcc, or pip install ziglang"
        )
    source = path.with_suffix(".o")
    source.write_bytes(object_code)
    done = subprocess.run([*command, "-shared", "-o", str(path), str(source)], capture_output=True, text=True)
    if done.returncode:
        raise UsageError(f"{command[0]} could not link the kernels: {done.stderr.strip()}", hint="see its message")
