"""Statistics of activations, for many tensors in few operations."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rank_and_redundancy"]

SAMPLES = 256
"""At most so many samples (stimuli times pixels) of each tensor enter its covariance."""

CHANNELS = 96
"""At most so many channels of each tensor enter its covariance."""


def _channels_by_samples(tensor: Tensor) -> Tensor:
    """Returns [channels, samples] of a value [n, C, ...], both evenly thinned out."""
    channels = tensor.shape[1]
    if channels > CHANNELS:
        tensor = tensor[:, torch.linspace(0, channels - 1, CHANNELS, device=tensor.device).long()]
    flat = tensor.flatten(2).movedim(1, 2) if tensor.ndim > 2 else tensor[:, None]
    pixels = flat.shape[1]
    keep = max(1, SAMPLES // len(flat))
    step = -(-pixels // keep) | 1  # an odd step through maps of even width does not stay in one column
    thinned = flat[:, (step // 2) % pixels :: step][:, :keep]
    return thinned.reshape(-1, flat.shape[2]).T


def rank_and_redundancy(tensors: list[Tensor]) -> list[tuple[float, float]]:
    """Returns for each tensor [n, C, ...] its effective rank and its mean absolute correlation of two channels.

    Tensors of equal width go through one batched eigenvalue decomposition.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    matrices = [_channels_by_samples(tensor) for tensor in tensors]
    for index, matrix in enumerate(matrices):
        groups.setdefault((matrix.shape[0], matrix.shape[1]), []).append(index)
    results: list[tuple[float, float]] = [(0.0, 0.0)] * len(tensors)
    for (channels, samples), members in groups.items():
        stacked = torch.stack([matrices[index] for index in members]).float()
        stacked = stacked - stacked.mean(2, keepdim=True)
        covariance = stacked @ stacked.transpose(1, 2)
        power = covariance.diagonal(dim1=1, dim2=2)
        scale = power.clamp(min=1e-20).rsqrt()
        correlation = covariance * scale[:, :, None] * scale[:, None, :]
        pairs = max(1, channels * (channels - 1))
        # the diagonal is left out exactly: it is 1 only for channels that vary
        own = correlation.diagonal(dim1=1, dim2=2).abs().sum(1)
        redundancy = ((correlation.abs().sum((1, 2)) - own) / pairs).tolist()
        gram = covariance if channels <= samples else stacked.transpose(1, 2) @ stacked
        singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
        total = singular.sum(1, keepdim=True)
        shares = singular / total.clamp(min=1e-20)
        entropy = -(shares * shares.clamp(min=1e-20).log()).sum(1)
        ranks = torch.where(total[:, 0] > 1e-10, entropy.exp(), torch.zeros_like(entropy)).tolist()
        for index, rank, redundant in zip(members, ranks, redundancy, strict=True):
            results[index] = (rank, redundant)
    return results
