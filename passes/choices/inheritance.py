"""Weights of an emitted network, taken from its generator's: first channels, centres of kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from gensynth.ir import Array, Choice, Graph, Network, PassError, VerifyError, parameters_of
from gensynth.ir.ops import Choose
from gensynth.passes.analyses import channel_groups, slice_channels

from .inlining import Inliner

__all__ = ["WIDTHS", "centre_of_kernel", "inherit_weights", "widest", "widths_of"]

WIDTHS = ("channels", "features")
"""The attributes that are widths."""


def widths_of(choice: Choice) -> tuple[int, ...]:
    """Returns the values of an open width as the integers they are."""
    assert all(isinstance(value, int) for value in choice.values)
    return cast("tuple[int, ...]", choice.values)


def widest(graph: Graph) -> dict[str, int]:
    """Returns, for every choice of a width, the index of its largest value: the size at which weights are kept."""
    found: dict[str, int] = {}
    for _, node in graph.walk():
        for name, choice in node.choices:
            if name in WIDTHS and choice.id not in found:
                values = widths_of(choice)
                found[choice.id] = values.index(max(values))
    return found


def inherit_weights(
    generator: Network, inliner: Inliner, decisions: Mapping[str, int], graph: Graph
) -> dict[str, Array] | None:
    """Returns the weights of `graph`, the canonical network of `decisions`, or None where the generator has none.

    Alternatives bring their own weights. Kernels are cut from the centre of the largest. Widths keep the first
    channels of each channel group (the passes that open widths on weights put the important ones first).

    Raises:
        PassError: a choice decides a width and an alternative at once, or an open width reaches an output.
        VerifyError: a weight of the network cannot be traced to the generator.
    """
    if generator.weights is None:
        return None
    wide_choices = widest(generator.graph)
    for _, member in generator.graph.walk():
        if isinstance(member.op, Choose) and member.op.choice in wide_choices:
            raise PassError(
                f"@{graph.name}: choice '{member.op.choice}' decides a width and an alternative at once, so what a"
                " network weighs does not follow from the generator's weights",
                hint="give the width a choice of its own",
            )
    sources: dict[str, str] = {}
    wide = inliner.run({**decisions, **wide_choices}, sources=sources)
    weights: dict[str, Array] = {}
    for name, parameter in parameters_of(wide):
        node, _, local = name.rpartition(".")
        array = generator.weights[f"{sources[node]}.{local}"]
        weights[name] = centre_of_kernel(array, parameter.shape)
    narrow = inliner.run(decisions)
    keep: dict[str, list[int]] = {}
    for group in channel_groups(wide).groups:
        target = group.width
        for path, attribute, scale in group.sources:
            target = getattr(narrow.node(path).op, attribute) // scale
        if target != group.width:
            keep[group.id] = list(range(target))
    sliced = slice_channels(Network(wide, weights), keep) if keep else Network(wide, weights)
    assert sliced.weights is not None
    found: dict[str, Array] = {}
    for name, parameter in parameters_of(graph):
        array = sliced.weights[name]
        if tuple(array.shape) != parameter.shape:
            raise VerifyError(
                f"@{graph.name}: weight {name} of shape {parameter.shape} does not follow from the generator's"
                f" {tuple(array.shape)}"
            )
        found[name] = array
    return found


def centre_of_kernel(array: Array, shape: tuple[int, ...]) -> Array:
    """Cuts the centre of a kernel where its height and width are smaller than the stored ones."""
    if array.ndim != 4 or len(shape) != 4 or array.shape[2:] == shape[2:]:
        return array
    top, left = (array.shape[2] - shape[2]) // 2, (array.shape[3] - shape[3]) // 2
    return array[:, :, top : top + shape[2], left : left + shape[3]]
