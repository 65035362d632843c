"""Running a program's steps one after another in this process: what the C executor does, without it."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path

import numpy as np

from gensynth.backends.tvm.objects import compile_objects, link_shared
from gensynth.backends.tvm.program import Program


def run_program(program: Program, inputs: list[np.ndarray], *, fill: float = float("nan")) -> list[np.ndarray]:
    """Returns a program's outputs; the arena starts as `fill`, so that what is read before it is written shows."""
    code = compile_objects({kernel.name: kernel.emitted.function for kernel in program.kernels}, program.target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.so"
        link_shared(code, path)
        library = ctypes.CDLL(str(path))
    arena = _aligned(np.full(program.arena // 4, fill, np.float32).tobytes())
    weights = _aligned(program.weights)
    inputs = [np.ascontiguousarray(array, np.float32) for array in inputs]
    outputs = [np.full(tensor.shape, fill, np.float32) for tensor in program.outputs]
    for repeat in range(program.repeats):
        bases = {
            "arena": [arena.ctypes.data],
            "weights": [weights.ctypes.data],
            "input": [array[repeat * program.batch :].ctypes.data for array in inputs],
            "output": [array[repeat * program.batch :].ctypes.data for array in outputs],
        }
        for step in program.steps:
            kernel = program.kernels[step.kernel]
            function = library[kernel.name]
            function.restype = None
            pointers = [ctypes.c_void_p(bases[item.space][item.index] + item.offset) for item in step.arguments]
            middle, end = kernel.emitted.tasks // 2, kernel.emitted.tasks
            function(*pointers, ctypes.c_int32(middle), ctypes.c_int32(end))
            function(*pointers, ctypes.c_int32(0), ctypes.c_int32(middle))
    return outputs


def _aligned(content: bytes) -> np.ndarray:
    """Returns the bytes at a multiple of 64, with 64 more on both sides."""
    raw = np.zeros(len(content) + 256, np.uint8)
    start = -raw.ctypes.data % 64 + 64
    raw[start : start + len(content)] = np.frombuffer(content, np.uint8)
    return raw[start : start + len(content)]
