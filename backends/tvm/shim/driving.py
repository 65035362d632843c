"""A stand-in for CUDA's driver whose device is the CPU: the launcher that ships runs on it, and the emitted CUDA C."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..targets import CudaTarget
from ..toolchain import find_toolchain, host_triple
from .running import compile_shim

__all__ = ["build_driver"]

_SOURCE = Path(__file__).with_name("driver.c")


def build_driver(source: str, cuda: CudaTarget, folder: Path) -> Path:
    """Writes a `libcuda.so.1` to a folder that runs the kernels of this CUDA C, and them alone; returns it.

    With the folder in LD_LIBRARY_PATH an artifact of these kernels whose executor is for this machine finds it in the
    place of NVIDIA's.

    Raises:
        UsageError: there is no C or C++ compiler, or the CUDA C does not compile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kernels = folder / "kernels.so"
    pointers = compile_shim(source, kernels)
    entries = ", ".join(f'{{"{name}", {count}}}' for name, count in pointers.items())
    text = [
        f"#define KERNELS {json.dumps(str(kernels.resolve()))}",
        f"#define CAPABILITY {re.sub('[^0-9]', '', cuda.arch)}",
        f"static const struct {{ const char *name; int pointers; }} kernels[] = {{{entries}}};",
        _SOURCE.read_text(encoding="utf-8"),
    ]
    (folder / "driver.c").write_text("\n".join(text), encoding="utf-8")
    host = find_toolchain(host_triple(), portable=False)
    host.compile(folder / "driver.c", folder / "driver.o", "-fvisibility=default")
    library = folder / "libcuda.so.1"
    host.link([folder / "driver.o"], library, "-shared", "-Wl,-soname,libcuda.so.1")
    return library
