"""Building a shared library from CUDA C and launching its kernels on arrays.

shim = build_shim(source)
shim.launch([Launch("k0_conv2d", grid, block, (Place("arena"), Place("weights", 64), Place("arena", 4096)))], buffers)
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gensynth.ir import UsageError

from ..cuda import cuda_source
from ..program import Program

__all__ = ["Launch", "Place", "Shim", "build_shim", "compile_shim", "run_on_cpu", "run_program"]

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
OPTIONS = ("-std=c++17", "-O2", "-march=native", "-ffp-contract=fast", "-fno-strict-aliasing", "-fno-math-errno")

_KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(([^)]*)\) \{')
_PARAMETER = re.compile(r"^(?:const )?(\w+)\* (?:__restrict__ )?\w+$")


@dataclass(frozen=True)
class Place:
    """Where a kernel's argument points: a buffer by name, and bytes from its start."""

    buffer: str
    offset: int = 0


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel, in blocks and threads."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    arguments: tuple[Place, ...]


class Shim:
    """Kernels compiled for this machine."""

    def __init__(self, library: Any, parameters: Mapping[str, int]) -> None:
        self._library, self._parameters = library, dict(parameters)

    def launch(
        self, launches: Sequence[Launch], buffers: Mapping[str, npt.NDArray[Any]], *, backward: bool = False
    ) -> None:
        """Runs kernels one after another on these buffers, which they change in place.

        Between barriers the threads of a block run in order of their numbers, or `backward`: kernels whose threads race
        give other results then.

        Raises:
            UsageError: an unknown kernel or buffer, a wrong number of arguments, or a barrier that some threads missed.
        """
        self._library.run_backward(int(backward))
        for item in launches:
            count = self._parameters.get(item.kernel)
            if count is None:
                raise UsageError(f"there is no kernel {item.kernel}", hint=f"there are {', '.join(self._parameters)}")
            if count != len(item.arguments):
                raise UsageError(f"{item.kernel} takes {count} pointers, not {len(item.arguments)}")
            pointers = (ctypes.c_void_p * count)(*(self._address(place, buffers) for place in item.arguments))
            function = self._library[f"launch_{item.kernel}"]
            if function((ctypes.c_uint * 3)(*item.grid), (ctypes.c_uint * 3)(*item.block), pointers):
                raise UsageError(
                    f"{item.kernel}: some threads of a block ended while others waited for them",
                    hint="every thread has to reach every barrier",
                )

    @staticmethod
    def _address(place: Place, buffers: Mapping[str, npt.NDArray[Any]]) -> int:
        array = buffers.get(place.buffer)
        if array is None:
            raise UsageError(f"there is no buffer '{place.buffer}'", hint=f"there are {', '.join(buffers)}")
        if not 0 <= place.offset <= array.nbytes or not array.flags.c_contiguous:
            raise UsageError(f"byte {place.offset} is not in buffer '{place.buffer}' of {array.nbytes} bytes")
        return int(array.ctypes.data) + place.offset


def build_shim(source: str, options: Sequence[str] = ()) -> Shim:
    """Returns the kernels of CUDA C as `cuda_source` writes it, compiled for this machine with more compiler `options`.

    Raises:
        UsageError: there is no C++ compiler, or the source does not compile.
    """
    # a library that is loaded needs its file no longer
    with tempfile.TemporaryDirectory(prefix="gensynth-") as folder:
        library = Path(folder) / "kernels.so"
        parameters = compile_shim(source, library, options)
        return Shim(ctypes.CDLL(str(library)), parameters)


def compile_shim(source: str, library: Path, options: Sequence[str] = ()) -> dict[str, int]:
    """Writes a shared library with a function `launch_NAME` for each kernel; returns how many pointers each takes.

    Raises:
        UsageError: as `build_shim`.
    """
    text = [f'#include "{HEADER}"\n', source]
    parameters: dict[str, int] = {}
    ends = [*[match.start() for match in _KERNEL.finditer(source)][1:], len(source)]
    for match, end in zip(_KERNEL.finditer(source), ends, strict=True):
        name = match[1]
        types = [_pointer_type(parameter.strip(), name) for parameter in match[2].split(",")]
        parameters[name] = len(types)
        arguments = ", ".join(f"({dtype} *)arguments[{number}]" for number, dtype in enumerate(types))
        barriers = "true" if "__syncthreads()" in source[match.end() : end] else "false"
        text.append(f"static void call_{name}(void **arguments) {{ {name}({arguments}); }}\n")
        text.append(
            f'extern "C" int launch_{name}(const uint *grid, const uint *block, void **arguments) '
            f"{{ return launch_kernel(call_{name}, {barriers}, grid, block, arguments); }}\n"
        )
    path = library.with_suffix(".cpp")
    path.write_text("".join(text))
    command = [*_compiler(), *OPTIONS, *options, "-w", "-shared", "-fPIC", "-o", str(library), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UsageError(
            f"{command[0]} cannot compile the kernels: {done.stderr.strip()[:2000]}", hint="see its message"
        )
    return parameters


def _pointer_type(parameter: str, kernel: str) -> str:
    match = _PARAMETER.match(parameter)
    if match is None:
        raise UsageError(f"{kernel}: '{parameter}' is no pointer", hint="kernels take pointers alone")
    return match[1]


def _compiler() -> list[str]:
    found = next((path for name in ("g++", "clang++", "c++") if (path := shutil.which(name))), None)
    if found is not None:
        return [found]
    if find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "c++"]
    raise UsageError("there is no C++ compiler", hint="install one: apt install g++, or pip install ziglang")


def run_on_cpu(source: str, launches: Sequence[Launch], buffers: Mapping[str, npt.NDArray[Any]]) -> None:
    """Compiles CUDA C for this machine and runs launches one after another; the buffers are changed in place.

    Raises:
        UsageError: as `build_shim` and `Shim.launch`.
    """
    build_shim(source).launch(launches, buffers)


def run_program(
    program: Program, inputs: Sequence[npt.NDArray[np.float32]], source: str | None = None
) -> tuple[npt.NDArray[np.float32], ...]:
    """Runs a GPU program on the CPU, on inputs of its shapes, and returns the outputs.

    `source` is the CUDA C of its kernels, where it is at hand.

    Raises:
        UsageError: inputs of other shapes, or as `run_on_cpu`.
    """
    if [array.shape for array in inputs] != [tensor.shape for tensor in program.inputs]:
        raise UsageError(
            f"inputs have shapes {[array.shape for array in inputs]}",
            hint=f"the program wants {[tensor.shape for tensor in program.inputs]}",
        )
    if source is None:
        functions = {kernel.name: kernel.emitted.function for kernel in program.kernels}
        source = cuda_source(functions, program.target)
    margin = 64
    # NaNs, so that a read of what no kernel wrote shows
    arena = np.full(program.arena + 2 * margin + 64, 0xFF, np.uint8)
    start = margin + -(arena.ctypes.data + margin) % 64
    weights = np.zeros(len(program.weights) + 64, np.uint8)
    first = -weights.ctypes.data % 64
    weights[first : first + len(program.weights)] = np.frombuffer(program.weights, np.uint8)
    outputs = tuple(np.zeros(tensor.shape, np.float32) for tensor in program.outputs)
    buffers: dict[str, npt.NDArray[Any]] = {"arena": arena, "weights": weights}
    buffers |= {f"input{number}": np.ascontiguousarray(array, np.float32) for number, array in enumerate(inputs)}
    buffers |= {f"output{number}": array for number, array in enumerate(outputs)}
    offsets = {"arena": start, "weights": first}
    launches = []
    for step in program.steps:
        kernel = program.kernels[step.kernel]
        places = tuple(
            Place(
                pointer.space if pointer.space in offsets else f"{pointer.space}{pointer.index}",
                pointer.offset + offsets.get(pointer.space, 0),
            )
            for pointer in step.arguments
        )
        launches.append(Launch(kernel.name, kernel.emitted.grid, kernel.emitted.block, places))
    run_on_cpu(source, launches, buffers)
    return outputs
