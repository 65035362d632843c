"""Probing: the inquisitor's questions. Stimuli go in, responses at every vertex and edge come out."""

from __future__ import annotations

import torch
from torch import Tensor

from gensynth.ir import DataError, Network, Node
from gensynth.ir.ops import ConvTranspose2d, HardSwish, LeakyRelu, Relu, Relu6, Silu

from ..examples import Examples
from .module import NetworkModule, Observer, to_torch
from .objectives import Classification, Objective
from .responses import EdgeResponse, ParameterResponse, Responses, Scores, ValueResponse
from .scores import jacobian_score, naswot_score, synflow_scores
from .statistics import rank_and_redundancy

__all__ = ["probe"]

DEAD = 1e-6
"""A channel whose absolute value stays below this on all stimuli is dead."""

_CLASSIFICATION = Classification()

_GATES = (Relu, Relu6, LeakyRelu, Silu, HardSwish)
"""Activations that are on for positive operands and (nearly) off for others."""


class _Recorder(Observer):
    """Keeps every value, and a view of it for every edge, with their gradients."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self.edges: list[tuple[str, str, int, Tensor]] = []
        self.before_activations: list[Tensor] = []

    def on_value(self, name: str, tensor: Tensor) -> None:
        self.values[name] = tensor
        if tensor.requires_grad:
            tensor.retain_grad()

    def on_operand(self, node: Node, index: int, tensor: Tensor) -> Tensor:
        # a view of its own, so that the gradient of this edge is not summed with those of others
        edge = tensor.view_as(tensor)
        if edge.requires_grad:
            edge.retain_grad()
        self.edges.append((node.operands[index].name, node.name, index, edge))
        if isinstance(node.op, _GATES):
            self.before_activations.append(edge.detach())
        return edge


class _Moments(Observer):
    """Keeps the mean and standard deviation of every value."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def on_value(self, name: str, tensor: Tensor) -> None:
        self.found[name] = _moments(tensor)


def _moments(tensor: Tensor) -> Tensor:
    # torch.std_mean takes several times as long on large tensors
    mean = tensor.mean()
    return torch.stack([mean, (tensor - mean).square().mean().sqrt()])


def probe(
    network: Network, stimuli: Examples, objective: Objective = _CLASSIFICATION, *, noise: int = 32, seed: int = 0
) -> Responses:
    """Returns the responses of a network to labelled stimuli: one forward and one backward pass, on the CPU.

    The gradient is that of the objective's loss. Batch normalization uses the statistics of the stimuli, and dropout is
    off. `noise` further stimuli, normal with the mean and deviation of the real ones, are sent forward too (0: none). A
    network without weights gets fresh ones of `seed`.

    Raises:
        DataError: the stimuli do not fit the network, or there are fewer than two.
        UsageError: the network has open choices or does not fit the objective.
    """
    objective.check(network.graph, stimuli, "stimuli")
    if len(stimuli) < 2 or noise == 1:
        raise DataError(
            "a probe with one stimulus has no variance", hint="give at least two stimuli; noise is 0 or at least 2"
        )
    module = to_torch(network, seed=seed)
    module.use_batch_statistics()
    inputs = torch.tensor(stimuli.normalized(), requires_grad=True)
    noise_moments = _noise_moments(module, inputs.detach(), noise, seed) if noise else {}
    recorder = _Recorder()
    with module.observe(recorder):
        outputs = module(inputs)
    loss = objective.loss(outputs, torch.as_tensor(stimuli.labels))
    torch.autograd.backward(loss)
    parameters, gradient_norm = _parameter_responses(module)
    values = _value_responses(recorder, noise_moments)
    edges = _edge_responses(recorder)
    assert inputs.grad is not None
    naswot = naswot_score(recorder.before_activations)
    synflow, log_synflow = synflow_scores(module)
    scores = Scores(
        naswot=naswot,
        synflow=synflow,
        log_synflow=log_synflow,
        gradient_norm=gradient_norm,
        jacobian=jacobian_score(inputs.grad),
    )
    return Responses(values, edges, parameters, scores, float(loss.detach()))


@torch.no_grad()
def _noise_moments(module: NetworkModule, inputs: Tensor, count: int, seed: int) -> dict[str, tuple[float, float]]:
    random = torch.Generator().manual_seed(seed)
    deviation, mean = torch.std_mean(inputs)
    stimuli = torch.randn((count, *inputs.shape[1:]), generator=random) * deviation + mean
    observer = _Moments()
    with module.observe(observer):
        module(stimuli)
    listed = torch.stack(list(observer.found.values())).tolist()
    return {name: (pair[0], pair[1]) for name, pair in zip(observer.found, listed, strict=True)}


@torch.no_grad()
def _value_responses(recorder: _Recorder, noise_moments: dict[str, tuple[float, float]]) -> tuple[ValueResponse, ...]:
    tensors = {name: tensor.detach() for name, tensor in recorder.values.items()}
    moments = torch.stack([_moments(tensor) for tensor in tensors.values()]).tolist()
    gradients = _norms([recorder.values[name].grad for name in tensors])
    spectra = rank_and_redundancy(list(tensors.values()))
    responses = []
    for (name, tensor), (mean, deviation), (rank, redundancy), gradient in zip(
        tensors.items(), moments, spectra, gradients, strict=True
    ):
        largest = tensor.abs().flatten(2).amax(2).amax(0) if tensor.ndim > 2 else tensor.abs().amax(0)
        dead = float((largest <= DEAD).float().mean())
        noise_mean, noise_deviation = noise_moments.get(name, (None, None))
        responses.append(
            ValueResponse(name, mean, deviation, dead, rank, redundancy, gradient, noise_mean, noise_deviation)
        )
    return tuple(responses)


@torch.no_grad()
def _edge_responses(recorder: _Recorder) -> tuple[EdgeResponse, ...]:
    gradients = [edge.grad for _, _, _, edge in recorder.edges]
    importances = torch.stack(
        [
            torch.zeros(()) if gradient is None else (edge * gradient).abs().sum()
            for (_, _, _, edge), gradient in zip(recorder.edges, gradients, strict=True)
        ]
        or [torch.zeros(())]
    ).tolist()
    return tuple(
        EdgeResponse(source, target, index, norm, importance)
        for (source, target, index, _), norm, importance in zip(
            recorder.edges, _norms(gradients), importances, strict=False
        )
    )


@torch.no_grad()
def _parameter_responses(module: NetworkModule) -> tuple[tuple[ParameterResponse, ...], float]:
    transposed = {node.name: node.op for node in module.graph.nodes if isinstance(node.op, ConvTranspose2d)}
    named = list(module.named_parameters())
    norms = _norms([tensor.grad for _, tensor in named])
    responses = []
    for (name, tensor), norm in zip(named, norms, strict=True):
        if tensor.grad is None:
            responses.append(ParameterResponse(name, 0.0, (0.0,) * len(tensor)))
            continue
        influence = (tensor * tensor.grad).abs()
        op = transposed.get(name.rpartition(".")[0])
        if op is not None and tensor.ndim == 4:  # [C, channels / groups, ...]: the groups lie along the first axis
            influence = influence.reshape(op.groups, -1, *influence.shape[1:]).sum((1, 3, 4)).flatten()
        elif tensor.ndim > 1:
            influence = influence.flatten(1).sum(1)
        responses.append(ParameterResponse(name, norm, tuple(influence.tolist())))
    return tuple(responses), sum(norm * norm for norm in norms) ** 0.5


def _norms(gradients: list[Tensor | None]) -> list[float]:
    """Returns the norm of each gradient, 0 where none came back."""
    known = [gradient for gradient in gradients if gradient is not None]
    norms = iter(torch.stack(torch._foreach_norm(known)).tolist() if known else ())
    return [0.0 if gradient is None else next(norms) for gradient in gradients]
