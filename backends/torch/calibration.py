"""Running statistics taken anew, for networks whose weights came from elsewhere.

Statistics of one network do not fit another that has slices of its weights: Yu and Huang, "Universally Slimmable
Networks", arXiv 1903.05134, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gensynth.ir import Network, WeightsError

from ..examples import Examples
from .data import Data
from .lowerings import Scope
from .module import device_of, to_torch, weights_of

__all__ = ["CALIBRATED", "calibrate", "calibrate_statistics"]

CALIBRATED = 512
"""Images that running statistics are taken from."""
_BATCH = 128


def calibrate(network: Network, examples: Examples, *, device: str | torch.device = "cpu") -> Network:
    """Returns a network with weights, its running statistics taken from some examples.

    Raises:
        WeightsError: the network has no weights.
        UsageError: the device does not exist.
    """
    if network.weights is None:
        raise WeightsError(f"@{network.name} has no weights to calibrate for", hint="train it, or load its weights")
    where = device_of(device)
    module = to_torch(network).to(where)
    calibrate_statistics(module, batches_of(examples, where))
    return Network(network.graph, weights_of(module))


def batches_of(examples: Examples, device: torch.device) -> list[Tensor]:
    """Returns the inputs of examples as networks take them, in batches of more than one."""
    data = Data.on(examples, device)
    return [data.normalized(part) for part in torch.split(data.inputs, _BATCH) if len(part) > 1]


@torch.no_grad()
def calibrate_statistics(module: Scope, batches: Sequence[Tensor]) -> None:
    """Sets all running statistics of a module to their means over batches, each [n, ...], as it sees them in training.

    The module is left in training mode.
    """
    module.train()
    homes = [
        (scope.statistics, local, value)
        for scope in module.modules()
        if isinstance(scope, Scope)
        for local, value in scope.statistics.items()
    ]
    if not homes or not batches:
        return

    def moved(start: float, batch: Tensor) -> list[Tensor]:
        found = [torch.full_like(value, start) for _, _, value in homes]
        for (home, local, _), value in zip(homes, found, strict=True):
            home[local] = value
        module(batch)
        return found

    # Statistics go a share of the way from `start` to a batch's: two starts tell the share, and the batch's.
    low, high = moved(0.0, batches[0]), moved(1.0, batches[0])
    sums = [low, *[moved(0.0, batch) for batch in batches[1:]]]
    for number, (home, local, value) in enumerate(homes):
        share = 1.0 - float((high[number] - low[number]).mean())
        if share > 1e-9:
            value.copy_(torch.stack([found[number] for found in sums]).mean(0) / share)
        home[local] = value
