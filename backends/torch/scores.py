"""Scores of a network without training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gensynth.ir.ops import BatchNorm

from .module import NetworkModule

__all__ = ["jacobian_score", "naswot_score", "synflow_scores"]

STIMULI = 64
"""At most so many stimuli enter the kernels of naswot and jacobian."""


def naswot_score(before_activations: list[Tensor]) -> float:
    """Returns log |K + 1e-3|, K_ij being how many units are in the same state (on or off) for stimuli i and j."""
    if not before_activations:
        return 0.0
    count = min(STIMULI, len(before_activations[0]))
    on, units = torch.zeros((count, count), dtype=torch.float64, device=before_activations[0].device), 0
    for tensor in before_activations:
        states = (tensor[:count] > 0).flatten(1).float()
        on += states @ states.T
        units += states.shape[1]
    each = on.diagonal()
    # on + on = c c', off + off = (1 - c)(1 - c)' = units - c_i - c_j + c c'
    kernel = units + 2 * on - each[:, None] - each[None, :]
    ridge = 1e-3 * torch.eye(count, dtype=torch.float64, device=kernel.device)
    return float(torch.linalg.slogdet(kernel + ridge).logabsdet)


def jacobian_score(input_gradients: Tensor) -> float:
    """Returns the score of the correlation matrix of gradients [n, ...]; see `Scores`."""
    gradients = input_gradients[:STIMULI].flatten(1).double()
    gradients = gradients - gradients.mean(1, keepdim=True)
    lengths = gradients.norm(dim=1, keepdim=True).clamp(min=1e-30)
    directions = gradients / lengths
    correlation = directions @ directions.T
    correlation.fill_diagonal_(1.0)
    shifted = torch.linalg.eigvalsh(correlation).clamp(min=0) + 1e-5
    return float(-(shifted.log() + 1.0 / shifted).sum())


def synflow_scores(module: NetworkModule) -> tuple[float, float]:
    """Returns synflow and log_synflow; see `Scores`. Changes the module for good: positive weights in float64.

    The flow grows exponentially with depth; -700 (about the least logarithm of a float64) stands for none at all.
    """
    module.double().eval()
    norms = {node.name: node.op for node in module.graph.nodes if isinstance(node.op, BatchNorm)}
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            owner, _, local = name.rpartition(".")
            if owner not in norms:
                tensor.abs_()
            elif local == "variance":
                tensor.fill_(1.0 - norms[owner].epsilon)
            else:
                tensor.fill_(1.0 if local == "scale" else 0.0)
    weights = [tensor for tensor in module.parameters() if tensor.ndim > 1]
    if not weights:
        return -700.0, 0.0
    device = weights[0].device
    ones = [torch.ones(value.type.sizes(1), dtype=torch.float64, device=device) for value in module.graph.inputs]
    found = module(*ones)
    flow = sum((output.sum() for output in (found if isinstance(found, tuple) else (found,))), torch.zeros(()))
    gradients = torch.autograd.grad(flow, weights, allow_unused=True)
    total, logarithmic = 0.0, 0.0
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            total += float((weight.detach() * gradient).abs().sum())
            logarithmic += float((weight.detach().abs() * gradient.abs().log1p()).sum())
    flow_score = math.log(min(max(total, 1e-304), 1e304)) if not math.isnan(total) else -700.0
    return flow_score, logarithmic if math.isfinite(logarithmic) else 0.0
