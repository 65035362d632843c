"""Networks: a graph and its weights, in memory and in files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .errors import GenSynthError, UsageError, WeightsError, nearest
from .graph import Graph
from .hashing import architecture_hash
from .op import Parameter
from .parser import parse
from .printer import to_text

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "Array",
    "Network",
    "Weights",
    "check_weights",
    "initialize",
    "load_network",
    "load_weights",
    "parameters_of",
    "save_network",
    "save_weights",
    "write_atomically",
]

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Network:
    """A graph and, where it has been trained or initialized, its weights (parameter name -> float32 array).

    A parameter is called `NODE.PARAMETER`, inside alternatives with the prefix `CHOOSE[LABEL]/`. A generator is a
    network whose graph has open choices; its weights are those of every alternative at its largest.
    """

    graph: Graph
    weights: Weights | None = None

    @property
    def name(self) -> str:
        """The graph's name."""
        return self.graph.name

    @property
    def hash(self) -> str:
        """The canonical architecture hash (networks only)."""
        return architecture_hash(self.graph)

    def with_graph(self, graph: Graph) -> Self:
        """Returns the network with another graph and the same weights."""
        return type(self)(graph, self.weights)

    def __str__(self) -> str:
        return to_text(self.graph)

    def __repr__(self) -> str:
        weights = "no weights" if self.weights is None else f"{len(self.weights)} weights"
        return f"Network(@{self.graph.name}, {len(self.graph.nodes)} nodes, {weights})"


def parameters_of(graph: Graph) -> Iterator[tuple[str, Parameter]]:
    """Yields (full name, parameter) for every weight of a graph; open widths count at their largest."""
    for prefix, node in graph.walk():
        if node.alternatives:
            continue
        if node.choices or any(type.is_open for type in node.operand_types):
            yield from ((f"{prefix}{node.name}.{parameter.name}", parameter) for parameter in _largest(graph, node))
            continue
        for parameter in node.op.parameters(node.operand_types):
            yield f"{prefix}{node.name}.{parameter.name}", parameter


def _largest(graph: Graph, node: object) -> tuple[Parameter, ...]:
    """Returns an open node's parameters with, along each axis, the largest size over the settings of its choices."""
    from .graph import Node
    from .types import OpenDim

    assert isinstance(node, Node)
    counts = {choice.id: len(choice.values) for _, choice in node.choices}
    for type in node.operand_types:
        for dim in type.shape:
            if isinstance(dim, OpenDim):
                counts.update({identifier: len(offsets) for identifier, offsets in dim.terms})
    settings: list[dict[str, int]] = [{}]
    settings += [{identifier: index} for identifier, count in counts.items() for index in range(count)]
    largest_input = {
        identifier: max(range(len(offsets)), key=offsets.__getitem__)
        for type in node.operand_types
        for dim in type.shape
        if isinstance(dim, OpenDim)
        for identifier, offsets in dim.terms
    }
    settings += [{**largest_input, **setting} for setting in settings]
    found: dict[str, Parameter] = {}
    for setting in settings:
        for parameter in node.op_at(setting).parameters([type.at(setting) for type in node.operand_types]):
            known = found.get(parameter.name)
            shape = parameter.shape if known is None else tuple(map(max, known.shape, parameter.shape))
            found[parameter.name] = Parameter(parameter.name, shape, parameter.initial, parameter.trainable)
    return tuple(found.values())


def initialize(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Returns fresh weights: each drawn from (seed, its own name), so that other parts of the graph do not move it.

    "he" is the normal distribution of variance 2 / fan-in (arXiv 1502.01852, equation 10).
    """
    return {name: fresh_parameter(name, parameter, seed) for name, parameter in parameters_of(graph)}


def fresh_parameter(name: str, parameter: Parameter, seed: int) -> Array:
    """Returns the starting value of one weight, drawn from (seed, name)."""
    if parameter.initial == "zeros":
        return np.zeros(parameter.shape, np.float32)
    if parameter.initial == "ones":
        return np.ones(parameter.shape, np.float32)
    key = np.frombuffer(name.encode(), np.uint8)
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key.tolist()])))
    fan_in = max(1, parameter.size // parameter.shape[0])
    values: Array = (random.standard_normal(parameter.shape) * np.sqrt(2.0 / fan_in)).astype(np.float32)
    return values


def check_weights(graph: Graph, weights: Weights, source: str = "weights") -> None:
    """Checks weights against a graph by name, shape and dtype.

    Raises:
        WeightsError: names the first few that are missing, left over, misshapen or of another dtype.
    """
    wanted = dict(parameters_of(graph))
    faults = []
    for name, parameter in wanted.items():
        array = weights.get(name)
        if array is None:
            faults.append(f"{name} is missing")
        elif tuple(array.shape) != parameter.shape:
            faults.append(f"{name} has shape {list(array.shape)}, the graph wants {list(parameter.shape)}")
        elif array.dtype != np.float32:
            faults.append(f"{name} is {array.dtype}, the graph wants float32")
    for name in weights:
        if name not in wanted:
            faults.append(f"{name} is no weight of @{graph.name} ({nearest(name, wanted, what='its weights')[:200]})")
    if faults:
        shown = "\n    ".join(faults[:5]) + (f"\n    and {len(faults) - 5} more" if len(faults) > 5 else "")
        raise WeightsError(
            f"{source} does not fit @{graph.name}:\n    {shown}",
            hint="use the .safetensors file that was saved beside the network",
        )


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never a part."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(
            f"cannot write {target}: {error.strerror}", hint="choose a folder that can be written"
        ) from None


def save_weights(weights: Weights, path: str | os.PathLike[str]) -> None:
    """Writes weights as safetensors."""
    from safetensors.numpy import save

    write_atomically(path, save({name: np.ascontiguousarray(array) for name, array in weights.items()}))


def load_weights(path: str | os.PathLike[str], graph: Graph) -> dict[str, Array]:
    """Reads a safetensors file and checks it against the graph.

    Raises:
        WeightsError: the file is missing, damaged, or does not fit.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise WeightsError(
            f"cannot read weights {path}: {error.strerror}", hint="train the network, or give --weights another file"
        ) from None
    try:
        weights: dict[str, Array] = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path} is no safetensors file: {error}", hint="it may be cut short; write it again from its source"
        ) from None
    check_weights(graph, weights, str(path))
    return weights


def load_network(path: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> Network:
    """Reads a `.gsir` file; weights from the given file, else from the `.safetensors` beside it where there is one.

    Raises:
        UsageError: the file cannot be read.
        ParseError: it is no valid text.
        WeightsError: the weights do not fit.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="give the path of a .gsir file") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is no text: byte {error.start} is not UTF-8",
            hint="a .gsir file is plain text; weights go beside it",
        ) from None
    graph = parse(text, str(path))
    beside = Path(path).with_suffix(".safetensors")
    chosen = weights if weights is not None else beside if beside.exists() else None
    return Network(graph, None if chosen is None else load_weights(chosen, graph))


def save_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Writes the text to `path` and the weights, where there are any, to the `.safetensors` beside it.

    Raises:
        WeightsError: the weights do not fit the graph.
        GenSynthError: the path has another suffix than .gsir.
    """
    target = Path(path)
    if target.suffix != ".gsir":
        raise UsageError(f"{path} does not end in .gsir", hint=f"write {target.with_suffix('.gsir')}")
    beside = target.with_suffix(".safetensors")
    if network.weights is not None:
        check_weights(network.graph, network.weights)
        save_weights(network.weights, beside)
    elif beside.exists():
        raise GenSynthError(
            f"{beside} holds weights of another network than the one to be saved without weights",
            hint="remove that file, or save under another name",
        )
    write_atomically(target, to_text(network.graph).encode())
