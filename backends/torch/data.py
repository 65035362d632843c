"""Examples on the device that trains and judges networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..examples import Examples

__all__ = ["Data"]


@dataclass(frozen=True)
class Data:
    """Examples as two tensors on the device, and how pixels are normalized."""

    inputs: Tensor
    labels: Tensor
    normalization: tuple[Tensor, Tensor] | None
    layout: str = "nchw"

    @classmethod
    def on(cls, examples: Examples, device: torch.device, layout: str = "nchw") -> Data:
        normalization = None
        if examples.normalization is not None:
            shape = (-1,) + (1,) * (examples.inputs.ndim - 2)
            mean, deviation = (
                torch.tensor(values, device=device).reshape(shape)
                for values in (examples.normalization.mean, examples.normalization.deviation)
            )
            normalization = mean, deviation
        inputs, labels = (torch.as_tensor(array, device=device) for array in (examples.inputs, examples.labels))
        return cls(inputs, labels, normalization, layout)

    def normalized(self, inputs: Tensor) -> Tensor:
        """Returns some of the inputs as networks take them, but for their layout."""
        if self.normalization is None:
            return inputs
        mean, deviation = self.normalization
        return inputs.float().sub_(mean).div_(deviation)

    def laid_out(self, inputs: Tensor) -> Tensor:
        """Returns a batch as it is to lie in memory."""
        if self.layout == "nhwc" and inputs.ndim == 4:
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs
