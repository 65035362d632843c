"""Running GPU kernels on a CPU: the emitted CUDA C, compiled as C++ against a header that stands for CUDA."""

from .driving import build_driver
from .running import Launch, Place, Shim, build_shim, compile_shim, run_on_cpu, run_program

__all__ = ["Launch", "Place", "Shim", "build_driver", "build_shim", "compile_shim", "run_on_cpu", "run_program"]
