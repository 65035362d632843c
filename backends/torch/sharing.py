"""One module for a whole generator: every network runs in it with its own slices of shared weights.

What a network takes from the shared weights is what it would inherit (`passes.choices.inheritance`): the first channels
of every channel group, the centre of every kernel, the weights of the alternatives it is made of. So any generator
program can be shared, by whichever rules it was opened. A kernel cut from a larger one goes through a learned linear
map (Cai et al., "Once-for-All", arXiv 1908.09791, section 3.3), which starts as the identity.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gensynth.ir import Array, Graph, Network, UsageError, initialize, parameters_of
from gensynth.passes import Materializer
from gensynth.passes.choices.inheritance import inherit_weights

from .calibration import calibrate_statistics
from .lowerings import Scope
from .module import NetworkModule, to_torch

__all__ = ["SharedModule", "SharedNetwork", "share_weights"]

_KEPT = 288
"""Networks that are kept ready to run, more than a training with a teacher goes through by default; those used longest
ago are made anew when they are asked for."""

Indices = npt.NDArray[np.int64]


class _View(NamedTuple):
    """What a weight of a network is of a shared one: an index along each axis, or one for each element."""

    source: str
    axes: tuple[slice | Tensor, ...]
    elements: Tensor | None

    def of(self, shared: Tensor) -> Tensor:
        if self.elements is not None:
            return shared.flatten()[self.elements]
        plain = tuple([axis if isinstance(axis, slice) else slice(None) for axis in self.axes])
        found = shared[plain]
        for number, axis in enumerate(self.axes):
            if isinstance(axis, Tensor):
                found = found.index_select(number, axis)
        return found


class SharedNetwork:
    """One network of a generator, bound to the shared weights: it computes with what these are when it is called."""

    def __init__(self, shared: SharedModule, graph: Graph, numbers: Mapping[str, Indices]) -> None:
        self.graph = graph
        self._shared = shared
        fresh = {name: np.zeros(parameter.shape, np.float32) for name, parameter in parameters_of(graph)}
        self._module = to_torch(Network(graph, fresh)).to(shared.place)
        self._weights: list[tuple[dict[str, Tensor], str, str, _View]] = []
        self._scopes: dict[str, tuple[dict[str, Tensor], str]] = {}
        self.statistics: dict[str, Tensor] = {}
        """Running statistics by name: those of the generator at first, this network's own after `calibrate`."""
        for name, array in numbers.items():
            node, _, local = name.rpartition(".")
            scope = _scope(self._module, node)
            view = shared.view(array)
            if local in scope._parameters:
                self._weights.append((scope.weights, local, name, view))
            else:
                self._scopes[name] = scope.statistics, local
                self.statistics[name] = view.of(shared.state[view.source]).clone()
        self._keep(self.statistics)
        self._let_go()

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yields the network's trainable weights by name, as functions of the shared ones."""
        for _, _, name, view in self._weights:
            yield name, self._shared.transformed(view)

    def _bind(self, training: bool) -> NetworkModule:
        """Returns the module with the weights that the shared ones give now."""
        for scope, local, _, view in self._weights:
            scope[local] = self._shared.transformed(view)
        return self._module.train(training)

    def _let_go(self) -> None:
        """Lets go of the weights, and of what autograd remembers of them."""
        for scope, local, _, _ in self._weights:
            scope.pop(local, None)

    def _keep(self, statistics: Mapping[str, Tensor]) -> None:
        """Lets batch normalization read, and in training move, these running statistics."""
        for name, (scope, local) in self._scopes.items():
            scope[local] = statistics[name]

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Computes; batch normalization follows the shared module's mode, and in training leaves statistics alone."""
        training = self._shared.training
        if training:
            self._keep({name: value.clone() for name, value in self.statistics.items()})
        try:
            return self._bind(training)(*inputs)  # type: ignore[no-any-return]
        finally:
            self._keep(self.statistics)
            self._let_go()

    def calibrate(self, batches: Sequence[Tensor]) -> None:
        """Sets running statistics to their means over some batches, each [n, ...], as this network sees them."""
        calibrate_statistics(self._bind(training=True), batches)
        self._let_go()

    @torch.no_grad()
    def network(self) -> Network:
        """Returns the network by itself, with the weights that it has here now."""
        weights: dict[str, Array] = {}
        tensors = {**dict(self.weights()), **self.statistics}
        for name, _ in parameters_of(self.graph):
            weights[name] = np.array(tensors[name].detach().to("cpu", torch.float32).numpy())
        return Network(self.graph, weights)


class SharedModule(Scope):
    """The weights of a generator as a module; the keys of its `state_dict` are the names of the generator's weights.

    Beside them stand the kernel maps, `NODE.weight@HxW`. `network` binds the network of some decisions to them.
    """

    def __init__(self, generator: Network, *, seed: int = 0, maps: bool = True) -> None:
        """Takes the generator's weights, or fresh ones of `seed` where it has none.

        Without `maps` smaller kernels are the centres of larger ones as they are, as a generator's text has them.

        Raises:
            UsageError: no choice is open in it.
        """
        super().__init__()
        if not generator.graph.is_generator:
            raise UsageError(
                f"@{generator.graph.name} is a network, not a generator: there is nothing to share",
                hint="open choices first: gensynth opt NET.gsir --passes 'open-width,offer{rewrite=separate-conv}'",
            )
        self.graph = generator.graph
        self.materializer = Materializer(generator.graph, requirements=())
        weights = initialize(generator.graph, seed) if generator.weights is None else generator.weights
        self._names: list[str] = []
        self._starts = [0]
        numbers: dict[str, Indices] = {}
        for name, parameter in parameters_of(generator.graph):
            tensor = torch.from_numpy(np.array(weights[name], np.float32))
            if parameter.trainable:
                self._parameters[name] = nn.Parameter(tensor)
            else:
                self._buffers[name] = tensor
            # Every element of every weight has a number: what becomes of numbers tells what becomes of weights.
            numbers[name] = self._starts[-1] + np.arange(tensor.numel()).reshape(tensor.shape)
            self._names.append(name)
            self._starts.append(self._starts[-1] + tensor.numel())
        self._numbered = Network(generator.graph, numbers)  # type: ignore[arg-type]
        if maps:
            self._open_kernels(generator.graph)
        self._networks: OrderedDict[tuple[int, ...], SharedNetwork] = OrderedDict()

    def _open_kernels(self, graph: Graph) -> None:
        sizes: dict[str, set[tuple[int, int]]] = {}
        for prefix, node in graph.walk():
            for attribute, choice in node.choices:
                if attribute == "kernel":
                    found = sizes.setdefault(f"{prefix}{node.name}.weight", set())
                    found |= {(value, value) if isinstance(value, int) else tuple(value) for value in choice.values}  # type: ignore[misc, arg-type]
        for name, found in sizes.items():
            if name not in self._parameters:
                continue
            for height, width in sorted(found):
                if (height, width) != tuple(self.state[name].shape[2:]):
                    self._parameters[f"{name}@{height}x{width}"] = nn.Parameter(torch.eye(height * width))

    @property
    def place(self) -> torch.device:
        """The device that the weights are on."""
        return next(self.parameters()).device

    @property
    def state(self) -> dict[str, Tensor]:
        """Weights and running statistics by name."""
        return {**self._buffers, **self._parameters}  # type: ignore[dict-item]

    def view(self, numbers: Indices) -> _View:
        """Returns which part of which shared weight has these numbers."""
        at = int(np.searchsorted(self._starts, int(numbers.min()), side="right")) - 1
        source = self._names[at]
        shape = tuple(self.state[source].shape)
        local = numbers - self._starts[at]
        if local.ndim == len(shape):
            axes = []
            for axis, coordinates in enumerate(np.unravel_index(local, shape)):
                along = coordinates[tuple(slice(None) if other == axis else 0 for other in range(len(shape)))]
                axes.append(along)
            if len(shape) and np.array_equal(np.ravel_multi_index(np.ix_(*axes), shape), local):
                return _View(source, tuple(_slice(along, self.place) for along in axes), None)
        return _View(source, (), torch.as_tensor(local, device=self.place))

    def transformed(self, view: _View) -> Tensor:
        """Returns what a view shows now; a kernel cut from a larger one goes through its map."""
        found = view.of(self.state[view.source])
        if found.ndim == 4:
            kernel = self._parameters.get(f"{view.source}@{found.shape[2]}x{found.shape[3]}")
            if kernel is not None:
                found = (found.flatten(2) @ kernel).reshape(found.shape)
        return found

    def network(self, decisions: Mapping[str, int]) -> SharedNetwork:
        """Returns the network of some decisions (choice id -> index), bound to the shared weights.

        Raises:
            VerifyError: a choice is not decided.
        """
        key = tuple(decisions.get(identifier, -1) for identifier in self.graph.choices)
        found = self._networks.get(key)
        if found is None:
            graph = self.materializer.build(decisions)
            numbers = inherit_weights(self._numbered, self.materializer.inliner, decisions, graph)
            assert numbers is not None
            found = SharedNetwork(self, graph, numbers)  # type: ignore[arg-type]
            self._networks[key] = found
            if len(self._networks) > _KEPT:
                self._networks.popitem(last=False)
        self._networks.move_to_end(key)
        return found


def share_weights(generator: Network, *, seed: int = 0, maps: bool = True) -> SharedModule:
    """Returns one module for all networks of a generator, in training mode on the CPU; see `SharedModule`.

    Raises:
        UsageError: no choice is open in it.
    """
    return SharedModule(generator, seed=seed, maps=maps)


def _scope(module: NetworkModule, node: str) -> Scope:
    scope: Scope = module
    for part in node.split("."):
        found = scope._modules[part]
        assert isinstance(found, Scope)
        scope = found
    return scope


def _slice(along: Indices, place: torch.device) -> slice | Tensor:
    """Returns positions along an axis as a slice where they follow one another."""
    start = int(along[0])
    if np.array_equal(along, np.arange(start, start + len(along))):
        return slice(start, start + len(along))
    return torch.as_tensor(along, device=place)
