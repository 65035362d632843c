"""`open-kernel`: kernel sizes left open."""

from __future__ import annotations

import numpy as np

from gensynth.ir import AttributeValue, Choice, Network, Node, TensorType, UsageError, pair
from gensynth.ir.ops import Conv2d
from gensynth.ir.ops.windows import resolve_padding

from ..base import Pass, PassResult, option
from ..rewriting import free_name
from ..rules import matches_where
from .opening import open_attributes

__all__ = ["OpenKernel"]


class OpenKernel(Pass, name="open-kernel"):
    """Opens the kernel size of convolutions that keep their map's size whatever the kernel.

        %y = conv2d(%x) {channels=16, kernel=3, padding=same}
        --> %y = conv2d(%x) {channels=16, kernel=choice<y.kernel>[1: 0.00, 3: 0.00, 5: 0.00], padding=same}

    Explicit padding is opened along with the kernel. Weights grow to the largest kernel by zeros around them, which
    keeps the function; smaller kernels are cut out of the centre.
    """

    sizes: tuple[int, ...] = option(default=(1, 3, 5), help="odd sizes; a convolution's own size is always among them")
    where: tuple[str, ...] = option(default=("*",), help="names, globs or scopes of the convolutions")

    def __post_init__(self) -> None:
        if not self.sizes or any(size < 1 or size % 2 == 0 for size in self.sizes):
            raise UsageError("open-kernel: sizes must be odd and positive", hint="write sizes=[1,3,5]")

    def run(self, network: Network) -> PassResult:
        """Opens every kernel that `where` lets through."""
        graph = network.graph
        assignments: dict[str, dict[str, Choice | AttributeValue]] = {}
        logits: dict[str, tuple[float, ...]] = {}
        largest: dict[str, int] = {}
        for prefix, node in graph.walk():
            choices = self.choices(node, free_name(f"{node.name}.kernel", {*graph.choices, *logits}))
            if choices:
                assignments[prefix + node.name] = dict(choices)
                sizes = choices["kernel"].values
                logits[choices["kernel"].id] = (0.0,) * len(sizes)
                largest[prefix + node.name] = max(size for size in sizes if isinstance(size, int))
        if not assignments:
            return PassResult(network, False, ("no kernel to open",))
        weights = None if network.weights is None else dict(network.weights)
        if weights is not None:
            for path, size in largest.items():
                array = weights[f"{path}.weight"]
                around = (size - array.shape[2]) // 2
                weights[f"{path}.weight"] = np.pad(array, ((0, 0), (0, 0), (around, around), (around, around)))
        return PassResult(
            Network(open_attributes(graph, assignments, logits), weights), True, (f"{len(assignments)} kernels opened",)
        )

    def choices(self, node: Node, identifier: str) -> dict[str, Choice]:
        """Returns the open attributes of a node: its kernel, and its padding where that is explicit."""
        op = node.op
        if not isinstance(op, Conv2d) or not matches_where(node.name, self.where):
            return {}
        if any(name in ("kernel", "padding") for name, _ in node.choices):
            return {}
        height, width = pair(op.kernel)
        if height != width or height % 2 == 0 or (height == 1 and op.padding != "same"):
            return {}
        dilation = pair(op.dilation)
        sizes = tuple(sorted({height, *self.sizes}))
        if op.padding == "same":
            sizes = tuple(size for size in sizes if size <= height or _keeps_centre(op, node.operand_types[0], size))
            return {"kernel": Choice(identifier, sizes)} if len(sizes) > 1 else {}
        if sizes == (height,):
            return {}
        keeping = op.padding == (height // 2) * dilation[0] and dilation[0] == dilation[1]
        if not keeping:
            return {}
        padding: tuple[AttributeValue, ...] = tuple(size // 2 * dilation[0] if size > 1 else "valid" for size in sizes)
        return {"kernel": Choice(identifier, sizes), "padding": Choice(identifier, padding)}


def _keeps_centre(op: Conv2d, operand: TensorType, size: int) -> bool:
    """Whether windows of another size, with padding=same, have the centres that they have now.

    They do not where a stride leaves rows or columns unread, for there is no padding to be had from them.
    """
    _, _, height, width = operand.sizes()
    before = resolve_padding("same", (height, width), op.kernel, op.stride, op.dilation)
    after = resolve_padding("same", (height, width), size, op.stride, op.dilation)
    steps = [(size - own) // 2 * step for own, step in zip(pair(op.kernel), pair(op.dilation), strict=True)]
    return after[0] - before[0] == steps[0] and after[2] - before[2] == steps[1]
