"""Optimizers on one flat tensor, for networks of many tiny weights, where calls cost more than arithmetic.

All weights and running statistics of a module become views of one vector, all gradients views of another. A step, a
moving average, a snapshot and a gradient norm are then a few operations each, whatever the depth of the network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checkpoint import State
from .lowerings import Scope
from .recipe import Recipe

__all__ = ["FlatState", "Optimizer"]

ALIGNMENT = 16
"""Weights start at multiples of this many elements: 64 bytes, a cache line."""


class FlatState:
    """The state of a module as one float32 vector `values`: trainable weights in front, `trainable` elements of them.

    `gradient` has `trainable` elements, and so has `decayed`: 1 where weight decay holds (weights of more than one
    axis), 0 for biases and batch normalization.
    """

    def __init__(self, module: Scope, *, gradient: bool = True) -> None:
        parameters, buffers = list(module.parameters()), list(module.buffers())
        tensors: list[Tensor] = [*parameters, *buffers]
        starts = [0]
        for tensor in tensors:
            starts.append(starts[-1] + -(-tensor.numel() // ALIGNMENT) * ALIGNMENT)
        self.trainable = starts[len(parameters)]
        self.values = torch.zeros(starts[-1], device=tensors[0].device)
        self.gradient = torch.zeros(self.trainable if gradient else 0, device=tensors[0].device)
        self.decayed = torch.zeros(self.trainable, device=tensors[0].device)
        for tensor, start in zip(tensors, starts, strict=False):
            part = slice(start, start + tensor.numel())
            view = self.values[part].view(tensor.shape)
            view.copy_(tensor.detach())
            tensor.data = view
            if start < self.trainable and tensor.ndim > 1:
                self.decayed[part] = 1.0
            if gradient and start < self.trainable:
                tensor.grad = self.gradient[part].view(tensor.shape)

    @property
    def weights(self) -> Tensor:
        """The trainable part of `values`."""
        return self.values[: self.trainable]


class Optimizer:
    """SGD with Nesterov momentum, or AdamW (arXiv 1711.05101), as the recipe says."""

    def __init__(self, state: FlatState, recipe: Recipe) -> None:
        self._weights = state.weights
        self._gradient = state.gradient
        self._decay = state.decayed * recipe.weight_decay
        self._recipe = recipe
        self._momentum = torch.zeros_like(self._weights)
        self._square = torch.zeros_like(self._weights) if recipe.optimizer == "adamw" else None
        self._step = 0

    def state(self) -> State:
        """Returns what a checkpoint holds: the moments as they are, not copies, and the number of steps."""
        return {"momentum": self._momentum, "square": self._square, "step": self._step}

    def restore(self, state: State) -> None:
        """Goes on from what `state` returned."""
        self._momentum.copy_(state["momentum"])
        if self._square is not None:
            self._square.copy_(state["square"])
        self._step = state["step"]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Moves the weights against the gradient, and sets the gradient to zero."""
        self._step += 1
        recipe, gradient = self._recipe, self._gradient
        if recipe.gradient_clip:
            norm = gradient.norm()
            gradient.mul_((recipe.gradient_clip / (norm + 1e-6)).clamp(max=1.0))
        if self._square is None:
            gradient.addcmul_(self._weights, self._decay)
            self._momentum.mul_(recipe.momentum).add_(gradient)
            gradient.add_(self._momentum, alpha=recipe.momentum)
            self._weights.sub_(gradient, alpha=learning_rate)
        else:
            second = 0.999
            self._weights.addcmul_(self._weights, self._decay, value=-learning_rate)
            self._momentum.lerp_(gradient, 1.0 - recipe.momentum)
            self._square.mul_(second).addcmul_(gradient, gradient, value=1.0 - second)
            scale = (self._square / (1.0 - second**self._step)).sqrt_().add_(1e-8)
            rate = learning_rate / (1.0 - math.pow(recipe.momentum, self._step))
            self._weights.addcdiv_(self._momentum, scale, value=-rate)
        gradient.zero_()
