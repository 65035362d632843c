"""Running GPU kernels on a CPU: the emitted CUDA C, compiled by a C++ compiler against a header that stands for CUDA."""

from .running import Launch, Place, Shim, build_shim, run_on_cpu, run_program

__all__ = ["Launch", "Place", "Shim", "build_shim", "run_on_cpu", "run_program"]
