"""GenSynth: generative synthesis of neural networks as a compiler. The public names; each loads its part on first use.

import gensynth as gs

net = gs.prototype("resnet", depth=8, image=(1, 8, 8))
net = gs.run_pipeline(net, "fold-batch-norm,canonicalize")
gs.save(net, "net.gsir")
print(gs.cost(net).macs)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gensynth import backends, ir, passes, synth
    from gensynth.backends.drawing import draw
    from gensynth.backends.onnx import export_onnx, import_onnx
    from gensynth.backends.torch import Recipe, evaluate, from_torch, to_torch, train
    from gensynth.backends.tvm import compile_network as compile
    from gensynth.backends.tvm import load_artifact
    from gensynth.ir import Builder, Diff, GenSynthError, Graph, Network, initialize, ops
    from gensynth.passes import run_pipeline
    from gensynth.passes.cost import CostReport, Device, load_device
    from gensynth.synth.generator import Generator
    from gensynth.synth.measurements import calibrate_device as calibrate
    from gensynth.synth.prototypes import prototype
    from gensynth.synth.synthesis import synthesize
    from gensynth.synth.tasks import task

    __version__: str

__all__ = [
    "Builder",
    "CostReport",
    "Device",
    "Diff",
    "GenSynthError",
    "Generator",
    "Graph",
    "Network",
    "Recipe",
    "__version__",
    "backends",
    "calibrate",
    "compile",
    "cost",
    "diff",
    "draw",
    "evaluate",
    "export_onnx",
    "from_torch",
    "import_onnx",
    "initialize",
    "ir",
    "load",
    "load_artifact",
    "load_device",
    "ops",
    "parse",
    "passes",
    "prototype",
    "run_pipeline",
    "save",
    "synth",
    "synthesize",
    "task",
    "to_text",
    "to_torch",
    "train",
]

_HOMES = {
    "Builder": "ir",
    "CostReport": "passes.cost",
    "Device": "passes.cost",
    "Diff": "ir",
    "GenSynthError": "ir",
    "Generator": "synth.generator",
    "Graph": "ir",
    "Network": "ir",
    "Recipe": "backends.torch",
    "calibrate": "synth.measurements",
    "compile": "backends.tvm",
    "draw": "backends.drawing",
    "evaluate": "backends.torch",
    "export_onnx": "backends.onnx",
    "from_torch": "backends.torch",
    "import_onnx": "backends.onnx",
    "initialize": "ir",
    "load_artifact": "backends.tvm",
    "load_device": "passes.cost",
    "ops": "ir",
    "prototype": "synth.prototypes",
    "run_pipeline": "passes",
    "synthesize": "synth.synthesis",
    "task": "synth.tasks",
    "to_torch": "backends.torch",
    "train": "backends.torch",
}

_NAMES = {"calibrate": "calibrate_device", "compile": "compile_network"}
"""What is called otherwise at home."""

_LIBRARIES = {"onnx": "onnx", "torch": "PyTorch", "tvm": "TVM"}
"""What the library of an extra is called, by the name of both."""


def load(path: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> Network:
    """Reads a `.gsir` file; weights from the given file, else from the `.safetensors` beside it where there is one.

    Raises:
        GenSynthError: the file cannot be read, is no valid text, or the weights do not fit.
    """
    from gensynth.ir import load_network

    return load_network(path, weights)


def save(network: Network, path: str | os.PathLike[str]) -> None:
    """Writes a network or generator to `.gsir`, and its weights, where it has any, to the `.safetensors` beside it.

    Raises:
        GenSynthError: the weights do not fit, the path ends otherwise than in .gsir, or it cannot be written.
    """
    from gensynth.ir import save_network

    save_network(network, path)


def parse(text: str) -> Network:
    """Returns the network, without weights, that a text describes; `parse(to_text(net))` has an equal graph.

    Raises:
        ParseError: with line, column, caret and remedy.
    """
    from gensynth.ir import Network
    from gensynth.ir import parse as parse_graph

    return Network(parse_graph(text))


def to_text(network: Network | Graph) -> str:
    """Returns the complete text form of a network, a generator or a graph."""
    from gensynth.ir import Graph
    from gensynth.ir import to_text as print_graph

    return print_graph(network if isinstance(network, Graph) else network.graph)


def cost(
    network: Network | Graph,
    *,
    batch: int = 1,
    device: str | os.PathLike[str] | Device | None = None,
    precision: str | None = None,
    power_mode: str | None = None,
    runtime: str | None = None,
) -> CostReport:
    """Returns what a network costs at a batch size: `.macs`, `.params`, `.peak_memory`, ..., and `.rows` by node.

    On a device (a name, a file, a text such as "tegra-x2-gpu:fp16:MAX-Q", or a `Device`) it has `.latency_ms` and
    `.energy_mj` of a run too, `.latency` and `.energy` with their intervals, and `.kernels`. What is left out of
    precision, power mode and runtime is the device's first.

    Raises:
        PassError: it is a generator, or an op has no rule for its cost.
        UsageError: there is no such device, precision, power mode or runtime.
    """
    from gensynth.ir import Graph, UsageError
    from gensynth.passes.cost import Device, cost_model
    from gensynth.passes.cost import cost as count

    graph = network if isinstance(network, Graph) else network.graph
    if device is None:
        for name, value in (("precision", precision), ("power_mode", power_mode), ("runtime", runtime)):
            if value is not None:
                raise UsageError(
                    f"gensynth.cost: {name}={value!r} is for a device, and none was given",
                    hint='name one, such as device="tegra-x2-gpu"; `gensynth devices` lists them',
                )
        return count(graph, batch)
    if not isinstance(device, Device):
        device = os.fspath(device)
    model = cost_model(device, precision=precision, power_mode=power_mode, runtime=runtime, batch=batch)
    return count(graph, batch, model=model)


def diff(old: Network | Graph, new: Network | Graph) -> Diff:
    """Returns what changed from one network or generator to another; falsy where nothing did, its text says it all."""
    from gensynth.ir import Graph
    from gensynth.ir.diff import diff as compare

    return compare(
        old if isinstance(old, Graph) else old.graph,
        new if isinstance(new, Graph) else new.graph,
    )


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    if name in ("ir", "passes", "synth", "backends"):
        return import_module(f"gensynth.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"gensynth.{home}"), _NAMES.get(name, name))
    except ModuleNotFoundError as error:
        library = _LIBRARIES.get(error.name or "")
        if library is None:
            raise
        from gensynth.ir import UsageError

        raise UsageError(
            f"gensynth.{name} needs {library}, which is not installed", hint=f'pip install "gensynth[{error.name}]"'
        ) from None


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gensynth")
    except PackageNotFoundError:
        return "0+source"
