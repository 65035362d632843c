"""Check vectors: inputs, and the outputs that another backend than the compiling one computes for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gensynth.ir import Array, GenSynthError, Network
from gensynth.passes.cost import cost

if TYPE_CHECKING:
    from .program import Program

__all__ = ["FOLDER", "CheckVectors", "make_checks", "read_vector", "vector_path"]

FOLDER = "check"

_MOST_MACS = 20_000_000
"""The float64 reference takes about 10 ns a MAC; more goes to a faster judge where there is one."""


@dataclass(frozen=True)
class CheckVectors:
    """Inputs drawn from a seed, the outputs for them, and the judge that computed these.

    The arrays are float32, in the order and shapes of the program's inputs and outputs. `tolerance` is a share of an
    output's range.
    """

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    seed: int
    judge: str
    tolerance: float

    def write(self, program: Program, folder: Path) -> None:
        """Writes the arrays, raw and little-endian, to `check/` in the folder of an artifact."""
        (folder / FOLDER).mkdir()
        for kind, tensors, arrays in (
            ("input", program.inputs, self.inputs),
            ("output", program.outputs, self.outputs),
        ):
            for tensor, array in zip(tensors, arrays, strict=True):
                vector_path(folder, kind, tensor.name).write_bytes(array.astype("<f4").tobytes())


def vector_path(folder: Path, kind: str, name: str) -> Path:
    """Returns where the check vector of an input or output (`kind`) lies in the folder of an artifact."""
    return folder / FOLDER / f"{kind}_{name}.bin"


def read_vector(folder: Path, kind: str, name: str, shape: tuple[int, ...]) -> Array:
    """Returns the check vector of an input or output (`kind`)."""
    return np.fromfile(vector_path(folder, kind, name), "<f4").astype(np.float32).reshape(shape)


def make_checks(network: Network, program: Program, *, seed: int = 0) -> CheckVectors:
    """Returns check vectors for a program: normal noise from the seed, and what the network makes of it.

    The judge is the float64 reference, for larger networks ONNX Runtime or PyTorch where installed.
    """
    from .building import TOLERANCES

    random = np.random.default_rng(seed)
    inputs = {item.name: random.standard_normal(item.shape, dtype=np.float32) for item in program.inputs}
    judge, outputs = _judge(network, program.images, inputs)
    return CheckVectors(
        tuple(inputs.values()),
        tuple(np.ascontiguousarray(array, np.float32) for array in outputs),
        seed,
        judge,
        TOLERANCES[program.dtype],
    )


def _judge(network: Network, batch: int, inputs: Mapping[str, Array]) -> tuple[str, tuple[Array, ...]]:
    faster: tuple[tuple[str, tuple[str, ...], Callable[[Network, Mapping[str, Array]], tuple[Array, ...]]], ...] = (
        ("onnxruntime", ("onnx", "onnxruntime"), _by_onnx_runtime),
        ("torch", ("torch",), _by_torch),
    )
    if cost(network.graph, batch).macs > _MOST_MACS:
        for name, libraries, run in faster:
            if all(find_spec(library) is not None for library in libraries):
                try:
                    return name, run(network, inputs)
                except GenSynthError:
                    continue  # an op that this backend does not have; the next may
    from gensynth.backends.reference import run_reference

    return "reference", tuple(run_reference(network, dict(inputs)))


def _by_onnx_runtime(network: Network, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
    from gensynth.backends.onnx import run_onnx, to_onnx

    return run_onnx(to_onnx(network), inputs)


def _by_torch(network: Network, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
    import torch

    from gensynth.backends.torch import to_torch

    with torch.inference_mode():
        found = to_torch(network).eval()(*(torch.from_numpy(array) for array in inputs.values()))
    return tuple(item.numpy() for item in (found if isinstance(found, tuple) else (found,)))
