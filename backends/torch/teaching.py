"""The teacher of a distillation (arXiv 1503.02531): what it gives for the images that others learn from."""

from __future__ import annotations

import torch
from torch import Tensor

from gensynth.ir import Network, UsageError

from .data import Data
from .module import to_torch
from .objectives.base import Outputs
from .precision import autocast, precision_on
from .recipe import Recipe

__all__ = ["Teacher", "teacher_for"]

BATCH = 256
"""Images a batch, where the teacher looks at all of them before the training."""


class Teacher:
    """A trained network in inference mode, which others learn from as a recipe says.

    Where the recipe wants plain images, it looks at each of the data once, when first asked, and keeps what it gave.
    """

    def __init__(self, network: Network, recipe: Recipe, data: Data) -> None:
        """Prepares a network to teach networks that are trained on some data by a recipe."""
        self._module = to_torch(network).to(data.inputs.device).eval()
        precision = recipe.precision if recipe.teacher_precision == "same" else recipe.teacher_precision
        self._precision = precision_on(data.inputs.device, precision)
        self._plain = recipe.teacher_images == "plain"
        self._data = data
        self._kept: Tensor | None = None

    @torch.no_grad()
    def outputs(self, inputs: Tensor, which: Tensor) -> Outputs:
        """Returns what the teacher gives for a batch: its inputs as they were changed, and their places in the data."""
        if not self._plain:
            return self._given(inputs)
        if self._kept is None:
            batches = torch.split(self._data.inputs, BATCH)
            given = [self._given(self._data.laid_out(self._data.normalized(batch))) for batch in batches]
            self._kept = torch.cat([item for item in given if isinstance(item, Tensor)])
        return self._kept.index_select(0, which)

    def _given(self, inputs: Tensor) -> Outputs:
        with autocast(inputs.device, self._precision):
            return self._module(inputs)  # type: ignore[no-any-return]


def teacher_for(network: Network, teacher: Network | None, recipe: Recipe) -> Network | None:
    """Returns the teacher that a recipe asks for, None where it does not distil.

    Raises:
        UsageError: it asks for one, and there is none, or none that takes and gives what `network` does.
    """
    if not recipe.distillation:
        return None
    if teacher is None or teacher.weights is None:
        raise UsageError(
            f"distillation is {recipe.distillation:g}, and @{network.name} has no trained teacher",
            hint="give a teacher with weights, or set distillation = 0",
        )
    ours, theirs = ([value.type for value in graph.inputs + graph.outputs] for graph in (network.graph, teacher.graph))
    if ours != theirs:
        raise UsageError(
            f"@{network.name} cannot learn from @{teacher.name}: {', '.join(map(str, theirs))} are its inputs and"
            f" outputs, not {', '.join(map(str, ours))}",
            hint="a teacher takes and gives what the network does",
        )
    return teacher
