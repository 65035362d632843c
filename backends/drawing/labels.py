"""The words in a drawing: short forms of attributes, shapes and numbers."""

from __future__ import annotations

from dataclasses import dataclass

from gensynth.ir import Choice, Graph, Node, Op, OpenDim, Pair, TensorType
from gensynth.ir.attributes import format_value
from gensynth.ir.ops import Add, AvgPool, Concat, Conv2d, ConvTranspose2d, Dense, GlobalAvgPool, MaxPool, Mul, Split

__all__ = ["Bars", "attributes_text", "bars_of", "family", "shape_text", "short_number"]


@dataclass(frozen=True)
class Bars:
    """One open attribute: its name, its choice, and each value with the probability that a seed takes it."""

    attribute: str
    choice: str
    values: tuple[tuple[str, float], ...]


def bars_of(graph: Graph, attribute: str, choice: Choice) -> Bars:
    """Returns an open attribute's values with their probabilities, the softmax of the choice's logits."""
    probabilities = graph.choices[choice.id].probabilities
    return Bars(attribute, choice.id, tuple(zip(map(format_value, choice.values), probabilities, strict=True)))


def short_number(number: float) -> str:
    """Returns a number with three digits and k, M, G or T: `1.23 M`."""
    for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= power:
            return f"{number / power:.3g} {letter}" if abs(number) < 999.5 * power else f"{number / power:.0f} {letter}"
    return f"{number:.3g}"


def shape_text(type: TensorType) -> str:
    """Returns a shape without its batch: `64×8×8`; open sizes as a range, `8–16×8×8`."""
    sizes = [f"{dim.smallest}–{dim.largest}" if isinstance(dim, OpenDim) else str(dim) for dim in type.shape[1:]]
    return "×".join(sizes)


def _by(value: Pair) -> str:
    height, width = value if isinstance(value, tuple) else (value, value)
    return f"{height}×{width}"


def _stride(value: Pair) -> str:
    return f"/{value}" if isinstance(value, int) else f"/{_by(value)}"


def attributes_text(node: Node) -> str:
    """Returns the attributes that matter at a glance: `3×3 /2 depthwise`. Open ones are left to the bars."""
    op = node.op
    open_names = {name for name, _ in node.choices}
    parts: list[str] = []
    if isinstance(op, (Conv2d, ConvTranspose2d)):
        if "kernel" not in open_names:
            parts.append(_by(op.kernel))
        if op.stride != 1 and "stride" not in open_names:
            parts.append(_stride(op.stride))
        if op.dilation != 1:
            parts.append(f"dilation {op.dilation}")
        if op.groups > 1:
            channels = node.operands[0].type.shape[1]
            parts.append("depthwise" if op.groups == channels == op.channels else f"{op.groups} groups")
    elif isinstance(op, (MaxPool, AvgPool)):
        if "kernel" not in open_names:
            parts += [_by(op.kernel), *([_stride(op.steps)] if op.steps != 1 else [])]
    elif not isinstance(op, Dense):
        parts += [f"{name}={format_value(value)}" for name, value in op.explicit().items() if name not in open_names]
    text = " ".join(parts)
    return text if len(text) <= 28 else text[:27] + "…"


def family(op: Op) -> str:
    """Returns the kind of an op, by which boxes are coloured at their edge."""
    if isinstance(op, (Conv2d, ConvTranspose2d)):
        return "depthwise" if op.groups > 1 else "convolution"
    if isinstance(op, Dense):
        return "dense"
    if isinstance(op, (MaxPool, AvgPool, GlobalAvgPool)):
        return "pool"
    if isinstance(op, (Add, Mul, Concat, Split)):
        return "merge"
    return "other"
