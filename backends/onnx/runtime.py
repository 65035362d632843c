"""Running ONNX models by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gensynth.backends.reference import run_reference
from gensynth.ir import Array, Network, UsageError, nearest

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["OnnxSession", "difference_from_reference", "run_onnx"]


class OnnxSession:
    """A model that ONNX Runtime has loaded, on the CPU, for one run after another.

    `inputs` maps the name of each input to its shape, and `outputs` names the outputs, in the model's order; an axis
    without a fixed size is its symbol in the model, or None.
    """

    inputs: Mapping[str, tuple[int | str | None, ...]]
    outputs: tuple[str, ...]

    def __init__(self, model: ModelProto | bytes | str | os.PathLike[str], *, threads: int = 0) -> None:
        """Loads a model, its serialized bytes, or the file at a path; `threads` of 0 are as many as there are cores.

        Raises:
            UsageError: ONNX Runtime is not installed, or cannot read or run the model.
        """
        if find_spec("onnxruntime") is None:
            raise UsageError(
                "running ONNX models needs ONNX Runtime, which is not installed", hint='pip install "gensynth[onnx]"'
            )
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors are raised; the log would say them twice
        if isinstance(model, (str, os.PathLike)):
            self.name = str(model)
            source: str | bytes = self._existing(Path(model))
        else:
            self.name = "the model"
            source = model if isinstance(model, bytes) else model.SerializeToString()
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the classes of its errors are many, and private
            raise self._failed("load", error) from None
        self.inputs = {item.name: tuple(item.shape) for item in self._session.get_inputs()}
        self.outputs = tuple(item.name for item in self._session.get_outputs())

    def _existing(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", hint="give the path of an .onnx file") from None
        return str(path)

    def _failed(self, what: str, error: Exception) -> UsageError:
        import onnxruntime

        told = str(error).strip().partition("\n")[0]
        return UsageError(
            f"ONNX Runtime {onnxruntime.__version__} cannot {what} {self.name}: {told[:400]}",
            hint="check the model with onnx.checker, or export it again for an older opset",
        )

    def run(self, inputs: Array | Mapping[str, Array]) -> tuple[Array, ...]:
        """Returns the outputs of one run, in the model's order.

        `inputs` is one array for a model of one input, else a mapping by input name; shapes as `self.inputs` says.

        Raises:
            UsageError: inputs that are missing, unknown or of another shape, or a run that fails.
        """
        if isinstance(inputs, np.ndarray):
            if len(self.inputs) != 1:
                raise UsageError(
                    f"{self.name} has {len(self.inputs)} inputs, one array was given",
                    hint=f"give a mapping with {', '.join(self.inputs)}",
                )
            inputs = {next(iter(self.inputs)): inputs}
        for name in inputs:
            if name not in self.inputs:
                raise UsageError(f"{self.name} has no input '{name}'", hint=nearest(name, self.inputs, what="inputs"))
        for name, shape in self.inputs.items():
            array = inputs.get(name)
            wanted = ", ".join("?" if dim is None else str(dim) for dim in shape)
            if array is None:
                raise UsageError(f"input '{name}' of {self.name} is missing", hint=f"its shape is [{wanted}]")
            fits = array.ndim == len(shape) and all(
                size == dim for size, dim in zip(array.shape, shape, strict=True) if isinstance(dim, int)
            )
            if not fits:
                raise UsageError(
                    f"input '{name}' has shape {list(array.shape)}, {self.name} wants [{wanted}]",
                    hint="letters stand for sizes that are free",
                )
        try:
            return tuple(self._session.run(list(self.outputs), dict(inputs)))
        except Exception as error:  # as above
            raise self._failed("run", error) from None


def run_onnx(
    model: ModelProto | bytes | str | os.PathLike[str], inputs: Array | Mapping[str, Array], *, threads: int = 0
) -> tuple[Array, ...]:
    """Returns the outputs of a model, its bytes, or the file at a path, in the model's order; see `OnnxSession`.

    Raises:
        UsageError: ONNX Runtime is not installed, the model cannot be run, or the inputs do not fit.
    """
    return OnnxSession(model, threads=threads).run(inputs)


def difference_from_reference(
    network: Network, model: ModelProto | bytes | str | os.PathLike[str], *, seed: int = 0
) -> float:
    """Returns how far a network's model is from the reference on normal noise, as a share of the largest output.

    That is, of all outputs, the most that max |model - reference| / max |reference| comes to. Runs two inputs at once,
    or as many as the model's batch is fixed to.

    Raises:
        UsageError: ONNX Runtime is not installed or cannot run the model, or the network cannot be run.
        WeightsError: the network has no weights.
    """
    session = OnnxSession(model)
    random = np.random.default_rng(seed)
    inputs = {}
    for value in network.graph.inputs:
        batch = session.inputs.get(value.name, (None,))[0]
        sizes = value.type.sizes(batch if isinstance(batch, int) else 2)
        inputs[value.name] = random.standard_normal(sizes).astype(np.float32)
    largest = 0.0
    for found, wanted in zip(session.run(inputs), run_reference(network, inputs), strict=True):
        scale = max(float(np.abs(wanted).max()), float(np.finfo(np.float32).tiny))
        largest = max(largest, float(np.abs(found - wanted).max()) / scale)
    return largest
