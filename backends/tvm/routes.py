"""The ways to run a network: other libraries, artifacts on this machine and emulated, and the GPU's kernels.

A route takes a `Trial` and returns outputs. Those for the Tegra X2 need no board: QEMU emulates its CPU, the emitted
CUDA C runs on this machine's CPU, and ptxas tells what its kernels take. `gpu-f32` and `gpu-f16` run what ships, on a
GPU of this machine.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gensynth.ir import Array, GenSynthError, Network, UsageError

from .host import host_architecture
from .targets import CudaTarget, Target, load_target

if TYPE_CHECKING:
    from .program import Program

__all__ = [
    "ALL_ROUTES",
    "GPU_ROUTES",
    "ROUTES",
    "KernelUse",
    "RouteSkipped",
    "Trial",
    "assemble_kernels",
    "build_gpu_artifact",
    "emulator",
    "find_gpu",
    "launch_faults",
    "on_this_machine",
    "run_by_program",
    "run_selftest",
]

BOARD_CPU, BOARD_GPU = "tegra-x2-cpu", "tegra-x2-gpu"

BLOCK_REGISTERS = {"sm_53": 32 * 1024, "sm_62": 32 * 1024}
"""Registers that a thread block can have where it is less than 64 K: "Maximum number of 32-bit registers per thread
block" in the CUDA C++ Programming Guide's table of technical specifications; github.com/apache/tvm/pull/7623 is a
kernel that a Tegra X2 refused for it."""

PATIENCE = 900
"""Seconds that an artifact's program may take; emulated, a network of 10^9 MACs takes about a minute."""


@dataclass(frozen=True)
class KernelUse:
    """A kernel for the Tegra X2's GPU: its launch, and what ptxas says that it takes."""

    name: str
    op: str
    template: str
    dtype: str
    blocks: int
    threads: int
    registers: int
    shared: int
    spilled: int


class RouteSkipped(Exception):
    """What a route needs is not installed; the message says how to get it."""


@dataclass(frozen=True)
class Trial:
    """A network, a batch of images for it, and the folder where artifacts go.

    Routes append GPU kernels to `kernels`, and share GPU programs.
    """

    network: Network
    batch: int
    inputs: Mapping[str, Array]
    folder: Path
    kernels: list[KernelUse] = field(default_factory=list)
    _programs: dict[str, tuple[Program, str]] = field(default_factory=dict)

    @cached_property
    def arrays(self) -> list[Array]:
        """The inputs in order."""
        return list(self.inputs.values())

    def gpu_program(self, dtype: str) -> tuple[Program, str]:
        """Returns the program for the Tegra X2's GPU, and the CUDA C of its kernels."""
        from .cuda import cuda_source
        from .lowering import lower

        if dtype not in self._programs:
            target = load_target(BOARD_GPU)
            program = lower(self.network, target, batch=self.batch, dtype=dtype)
            functions = {kernel.name: kernel.emitted.function for kernel in program.kernels}
            self._programs[dtype] = program, cuda_source(functions, target)
        return self._programs[dtype]


Route = Callable[[Trial], Sequence[tuple[Array, ...]]]
"""Runs a network and returns its outputs, once for each way that it was run. Raises where it cannot."""


# The routes through other libraries.


def _need(library: str, extra: str) -> None:
    if find_spec(library) is None:
        raise RouteSkipped(f'{library} is not installed: pip install "gensynth[{extra}]"')


def _by_torch(trial: Trial) -> Sequence[tuple[Array, ...]]:
    _need("torch", "torch")
    import torch

    from gensynth.backends.torch import to_torch

    module = to_torch(trial.network).eval()
    with torch.inference_mode():
        found = module(*(torch.from_numpy(array) for array in trial.arrays))
    return [tuple(item.numpy() for item in (found if isinstance(found, tuple) else (found,)))]


def _by_onnx_runtime(trial: Trial) -> Sequence[tuple[Array, ...]]:
    _need("onnx", "onnx")
    _need("onnxruntime", "onnx")
    from gensynth.backends.onnx import run_onnx, to_onnx

    return [tuple(run_onnx(to_onnx(trial.network), trial.inputs))]


def _by_relax(trial: Trial) -> Sequence[tuple[Array, ...]]:
    from .relax import build_relax, run_vm, to_relax

    vm = build_relax(to_relax(trial.network, batch=trial.batch), load_target("host"))
    return [run_vm(vm, trial.inputs)]


# The routes through artifacts.


def _compile(trial: Trial, target: Target, dtype: str = "f32") -> Path:
    from .deploying import compile_network

    folder = trial.folder / f"{target.name}-{dtype}"
    compile_network(trial.network, target, folder, batch=trial.batch, dtype=dtype, archive=False, force=True)
    return folder


def _by_host(trial: Trial) -> Sequence[tuple[Array, ...]]:
    """Runs the artifact for this machine by its program, on one thread and on several, and within this process."""
    from .loading import load_artifact

    folder = _compile(trial, load_target("host"))
    found = [run_by_program(trial, folder, threads=threads) for threads in (1, 3)]
    with load_artifact(folder, threads=2) as artifact:
        outputs = artifact(trial.inputs)
    return [*found, outputs if isinstance(outputs, tuple) else (outputs,)]


def _by_emulator(trial: Trial) -> Sequence[tuple[Array, ...]]:
    """Runs the artifact for the board's CPU, on its own architecture's QEMU where this machine has another."""
    command = emulator("cortex-a57")
    return [run_by_program(trial, _compile(trial, load_target(BOARD_CPU)), threads=2, command=command)]


def emulator(processor: str) -> tuple[str, ...]:
    """Returns the command that runs programs for aarch64 on this machine; it is empty where there is no need of one.

    Raises:
        RouteSkipped: there is no emulator.
    """
    if host_architecture() == "aarch64":
        return ()
    program = next((path for name in ("qemu-aarch64-static", "qemu-aarch64") if (path := shutil.which(name))), None)
    if program is None:
        raise RouteSkipped("there is no emulator for aarch64: sudo apt-get install qemu-user-static")
    libraries = Path("/usr/aarch64-linux-gnu")
    if not (libraries / "lib/ld-linux-aarch64.so.1").exists():
        raise RouteSkipped("there is no C library for aarch64: sudo apt-get install libc6-arm64-cross")
    return (program, "-cpu", processor, "-L", str(libraries))


def run_by_program(
    trial: Trial,
    folder: Path,
    *,
    threads: int | None = None,
    command: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    selftest: bool = True,
) -> tuple[Array, ...]:
    """Returns what an artifact's program `run` makes of the inputs, after its selftest.

    Raises:
        GenSynthError: it fails.
    """
    options = [] if threads is None else ["--threads", str(threads)]
    if selftest:
        run_selftest(folder, threads=threads, command=command, environment=environment)
    with tempfile.TemporaryDirectory(prefix="gensynth-") as place:
        files = []
        for name, array in trial.inputs.items():
            files.append(Path(place) / f"{name}.bin")
            files[-1].write_bytes(array.astype("<f4").tobytes())
        made = Path(place) / "outputs"
        _run([*command, str(folder / "run"), *map(str, files), "-o", str(made), *options], environment)
        return tuple(
            np.fromfile(made / f"{value.name}.bin", "<f4").reshape(value.type.sizes(trial.batch))
            for value in trial.network.graph.outputs
        )


def run_selftest(
    folder: Path,
    *,
    threads: int | None = None,
    command: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs the selftest of an artifact's program `run`.

    Raises:
        GenSynthError: it fails.
    """
    options = [] if threads is None else ["--threads", str(threads)]
    _run([*command, str(folder / "run"), "--selftest", *options], environment)


def _run(command: Sequence[str], environment: Mapping[str, str] | None) -> None:
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=variables)
    if done.returncode:
        told = (done.stdout + done.stderr).strip() or "it said nothing"
        raise GenSynthError(f"`{' '.join(command)}` ended with {done.returncode}: {told}")


# The routes of the GPU's kernels.


def _by_shim(dtype: str) -> Route:
    def run(trial: Trial) -> Sequence[tuple[Array, ...]]:
        from .shim import run_program

        program, source = trial.gpu_program(dtype)
        return [run_program(program, trial.arrays, source)]

    return run


def _by_launcher(trial: Trial) -> Sequence[tuple[Array, ...]]:
    """Runs the artifact by the launcher that ships, on a stand-in for CUDA's driver whose kernels are the CUDA C."""
    from .shim import build_driver

    cuda = load_target(BOARD_GPU).cuda
    assert cuda is not None
    folder = trial.folder / "launcher"
    build_gpu_artifact(trial.network, folder, batch=trial.batch)
    driver = build_driver(trial.gpu_program("f32")[1], cuda, trial.folder / "driver")
    return [run_by_program(trial, folder, environment={"LD_LIBRARY_PATH": str(driver.parent)})]


def _assembled(trial: Trial) -> Sequence[tuple[Array, ...]]:
    """Assembles the kernels of both precisions. It has no outputs, and fails where the board could not run a kernel."""
    faults = [fault for dtype in load_target(BOARD_GPU).dtypes for fault in assemble_kernels(trial, dtype)]
    if faults:
        raise GenSynthError("; ".join(faults))
    return []


def assemble_kernels(trial: Trial, dtype: str) -> list[str]:
    """Assembles the kernels for the Tegra X2's GPU; returns what would keep it from running them, in words.

    Raises:
        RouteSkipped: NVRTC or ptxas is not installed.
    """
    from .cuda import assemble, check_resources, compile_ptx, nvrtc_version, ptxas_path

    try:
        nvrtc_version()
        ptxas_path()
    except UsageError as missing:
        raise RouteSkipped(f"{missing.message}: {missing.hint}") from None
    target = load_target(BOARD_GPU)
    cuda = target.cuda
    assert cuda is not None
    program, source = trial.gpu_program(dtype)
    assembly = assemble(compile_ptx(source, arch=cuda.arch, ptx_version=cuda.ptx_version), cuda.arch)
    faults = list(check_resources(assembly, target))
    for kernel in program.kernels:
        used = assembly.kernels.get(kernel.name)
        if used is None:
            faults.append(f"ptxas made no {kernel.name} of {dtype}")
            continue
        use = KernelUse(
            kernel.name,
            kernel.spec.op.name,
            kernel.template,
            dtype,
            int(np.prod(kernel.emitted.grid)),
            int(np.prod(kernel.emitted.block)),
            used.registers,
            used.shared,
            used.spill_stores + used.spill_loads,
        )
        trial.kernels.append(use)
        faults += launch_faults(use, cuda)
    return faults


def launch_faults(use: KernelUse, cuda: CudaTarget) -> list[str]:
    """Returns what would keep a GPU from launching a kernel, in words: too many threads, or registers in all."""
    found = []
    if use.threads > cuda.threads:
        found.append(f"{use.name} has {use.threads} threads in a block, {cuda.arch} takes {cuda.threads}")
    # registers are given to warps of 32 threads, to each thread a multiple of 8
    registers = -(-use.registers // 8) * 8 * -(-use.threads // 32) * 32
    most = BLOCK_REGISTERS.get(cuda.arch, 64 * 1024)
    if registers > most:
        found.append(f"a block of {use.name} takes {registers} registers, {cuda.arch} has {most}")
    return found


def find_gpu() -> str:
    """Returns the name of the first GPU that CUDA's driver finds on this machine.

    Raises:
        UsageError: there is no driver, or it finds no GPU.
    """
    hint = "run this where a CUDA GPU and NVIDIA's driver are; without, the CUDA C runs on the CPU: make check-targets"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise UsageError(f"there is no CUDA driver on this machine: {error}", hint=hint) from None
    status = driver.cuInit(0)
    if status:
        raise UsageError(f"CUDA's driver does not start (cuInit gives {status}), so there is no GPU to use", hint=hint)
    count, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    if driver.cuDeviceGetCount(ctypes.byref(count)) or count.value == 0:
        raise UsageError("CUDA's driver finds no GPU on this machine", hint=hint)
    if driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceGetName(name, len(name), device):
        raise UsageError("CUDA's driver does not tell its GPU's name", hint=hint)
    return name.value.decode(errors="replace")


def on_this_machine(target: Target) -> Target:
    """Returns a target with this machine's CPU in the place of its own, so that its GPU code runs on a GPU here."""
    host = load_target("host")
    return replace(
        host,
        name=f"{target.name}-on-{host.architecture}",
        description=f"the GPU code of {target.name}, on this machine",
        cuda=target.cuda,
        dtypes=target.dtypes,
        sources={},
    )


def build_gpu_artifact(network: Network, folder: Path, *, batch: int = 1, dtype: str = "f32") -> None:
    """Writes the artifact of the Tegra X2's GPU code with an executor for this architecture to a folder.

    `./run --selftest` there needs a CUDA GPU of capability 6.2 or newer; writing it needs none.

    Raises:
        UsageError: as `compile_network`.
    """
    from .deploying import compile_network

    target = on_this_machine(load_target(BOARD_GPU))
    compile_network(network, target, folder, batch=batch, dtype=dtype, archive=False, force=True)


def _by_gpu(dtype: str) -> Route:
    def run(trial: Trial) -> Sequence[tuple[Array, ...]]:
        from .loading import load_artifact

        folder = trial.folder / f"gpu-{dtype}"
        build_gpu_artifact(trial.network, folder, batch=trial.batch, dtype=dtype)
        found = run_by_program(trial, folder)
        with load_artifact(folder) as artifact:
            outputs = artifact(trial.inputs)
        return [found, outputs if isinstance(outputs, tuple) else (outputs,)]

    return run


ALL_ROUTES: dict[str, Route] = {
    "torch": _by_torch,
    "onnxruntime": _by_onnx_runtime,
    "relax": _by_relax,
    "host": _by_host,
    "aarch64": _by_emulator,
    "cuda-f32": _by_shim("f32"),
    "cuda-f16": _by_shim("f16"),
    "launcher": _by_launcher,
    "sm_62": _assembled,
    "gpu-f32": _by_gpu("f32"),
    "gpu-f16": _by_gpu("f16"),
}

GPU_ROUTES = ("gpu-f32", "gpu-f16")
"""The routes that need a GPU."""

ROUTES = tuple(route for route in ALL_ROUTES if route not in GPU_ROUTES)
"""PyTorch; ONNX Runtime; TVM's own build of Relax; the artifact on this machine; that for the Tegra X2's CPU, emulated;
the CUDA C for its GPU, on this machine's CPU, in both precisions, and by the launcher that ships; and, without outputs,
ptxas on these kernels."""
