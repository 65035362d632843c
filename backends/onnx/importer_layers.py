"""What ONNX's layers with weights become in the IR: convolutions, dense layers and norms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gensynth.ir import Array, Value
from gensynth.ir.ops import BatchNorm, Conv2d, ConvTranspose2d, Dense, Dropout, LocalResponseNorm
from gensynth.ir.ops.windows import resolve_padding

from .importer_layout import View, plain, regrouped
from .importer_model import AnyArray
from .importer_translation import Constant, Imported, Translation, Translator, shortest

__all__ = ["LAYERS", "explicit_padding", "window_padding"]

Sides = tuple[int, int, int, int]
"""Elements at the top, bottom, left and right."""


def explicit_padding(t: Translation) -> Sides:
    """Returns the attribute `pads` of an image, zeros where it is not given."""
    pads = t.integers("pads") or (0, 0, 0, 0)
    if len(pads) != 4:
        raise t.fail(f"it pads {len(pads) // 2} axes", "the IR has this over height and width only")
    if min(pads) < 0:
        raise t.fail(f"pads {list(pads)} are negative", "cut the image before it")
    top, left, bottom, right = pads
    return top, bottom, left, right


def window_padding(
    t: Translation, x: Value, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> str | Sides:
    """Returns the padding of a convolution's or pool's windows from `auto_pad` or `pads`."""
    auto = t.word("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return explicit_padding(t)
    if auto == "VALID":
        return "valid"
    if auto == "SAME_UPPER":
        return "same"
    if auto != "SAME_LOWER":
        raise t.fail(f"auto_pad is '{auto}'", "it is NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    height, width = x.type.sizes()[2:]
    top, bottom, left, right = resolve_padding(
        "same", (height, width), _two(kernel), _two(stride), _two(dilation)
    )  # the odd element at the end: SAME_LOWER has it at the beginning
    return "same" if top == bottom and left == right else (bottom, top, right, left)


def _two(sizes: Sequence[int]) -> tuple[int, int]:
    return sizes[0], sizes[1]


def pair_of(t: Translation, name: str, default: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Returns an attribute of height and width."""
    found = t.integers(name)
    if found is None:
        return default
    if len(found) != 2:
        raise t.fail(f"{name} is {list(found)}", "the IR has this over height and width only")
    return found[0], found[1]


def _convolution(t: Translation) -> list[Imported]:
    x, weight = t.image(), t.weight(1, "weight", rank=4)
    weights = {"weight": weight}
    if t.has(2):
        weights["bias"] = t.weight(2, "bias", rank=1)
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    if pair_of(t, "kernel_shape", kernel) != kernel:
        raise t.fail(f"its weight is for a kernel of {list(kernel)}", "the model is damaged: export it again")
    stride, dilation = pair_of(t, "strides"), pair_of(t, "dilations")
    op = t.checked(
        lambda: Conv2d(
            channels=weight.shape[0],
            kernel=kernel,
            stride=stride,
            padding=window_padding(t, x, kernel, stride, dilation),
            dilation=dilation,
            groups=t.integer("group", 1),
            bias="bias" in weights,
        )
    )
    return [t.tensor(t.emit(op, x, weights=weights)[0])]


def _transposed_convolution(t: Translation) -> list[Imported]:
    x, weight = t.image(), t.weight(1, "weight", rank=4)
    weights = {"weight": weight}
    if t.has(2):
        weights["bias"] = t.weight(2, "bias", rank=1)
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    stride, dilation = pair_of(t, "strides"), pair_of(t, "dilations")
    extra = pair_of(t, "output_padding", (0, 0))
    groups = t.integer("group", 1)
    padding, extra = _transposed_padding(t, x, kernel, stride, dilation, extra)
    op = t.checked(
        lambda: ConvTranspose2d(
            channels=weight.shape[1] * groups,
            kernel=kernel,
            stride=stride,
            padding=padding,
            output_padding=extra,
            dilation=dilation,
            groups=groups,
            bias="bias" in weights,
        )
    )
    return [t.tensor(t.emit(op, x, weights=weights)[0])]


def _transposed_padding(
    t: Translation,
    x: Value,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    extra: tuple[int, int],
) -> tuple[Sides | str, tuple[int, int]]:
    """Returns what is cut from the full result, and the output padding, which a wanted size may add to."""
    auto, sizes = t.word("auto_pad", "NOTSET"), t.integers("output_shape")
    if sizes is None and auto == "VALID":
        return "valid", extra
    if sizes is None and auto in ("NOTSET", ""):
        return explicit_padding(t), extra
    before = x.type.sizes()[2:]
    wanted = tuple(sizes[-2:]) if sizes is not None else tuple(map(math.prod, zip(before, stride, strict=True)))
    if len(wanted) != 2:
        raise t.fail(f"output_shape is {list(wanted)}", "it is height and width")
    sides: list[int] = []
    added = list(extra)
    for axis in range(2):
        full = (before[axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1 + extra[axis]
        total = full - wanted[axis]
        if total < 0:
            added[axis] -= total
            total = 0
        first = total // 2 if auto == "SAME_UPPER" else total - total // 2
        sides += [first, total - first]
    return (sides[0], sides[1], sides[2], sides[3]), (added[0], added[1])


# Dense layers.


def _gemm(t: Translation) -> list[Imported]:
    if t.integer("transA", 0):
        raise t.fail("transA: its operand is transposed", "the IR's dense takes [N, C]: leave transA out")
    weight = t.weight(1, "weight", rank=2)
    if not t.integer("transB", 0):
        weight = weight.T
    alpha, beta = t.number("alpha", 1.0), t.number("beta", 1.0)
    weights: dict[str, AnyArray] = {"weight": weight if alpha == 1 else weight * np.float32(alpha)}
    if t.has(2):
        bias = t.weight(2, "bias")
        features = weight.shape[0]
        if bias.size not in (1, features) or bias.shape[-1:] not in ((), (1,), (features,)):
            raise t.fail(f"its bias has shape {list(bias.shape)}", f"the IR's dense adds {features} numbers")
        weights["bias"] = np.broadcast_to(bias.reshape(-1), (features,)) * np.float32(beta)
    return [dense(t, t.view(), weights)]


def _matmul(t: Translation) -> list[Imported]:
    if isinstance(t.operand(0), Constant):
        raise t.fail("a constant times a computed value", "the IR's dense takes the computed value first")
    view, weight = t.view(), t.weight(1, "weight")
    if weight.ndim != 2:
        raise t.fail(f"its weight has shape {list(weight.shape)}", "the IR's dense takes [C, features]")
    if len(view.axes) == 4 and view.order == (0, 2, 3, 1):
        kernel = np.ascontiguousarray(weight.T)[:, :, None, None]
        made = t.emit(Conv2d(channels=weight.shape[1], kernel=1), view.base, weights={"weight": kernel})[0]
        return [t.tensor(made, view.order)]
    return [dense(t, view, {"weight": weight.T})]


def dense(t: Translation, view: View, weights: dict[str, AnyArray]) -> View:
    """Emits a dense layer; where its operand is flattened with the channels last, its weight is ordered anew."""
    if len(view.axes) != 2:
        raise t.fail(
            f"a dense layer on {len(view.axes)} axes", "the IR's dense takes [N, C]: flatten, or pool, before it"
        )
    value, weight = t.materialized(view), np.asarray(weights["weight"], np.float32)
    if value is None and view.shape[0] is None:
        positions = view.flat_positions(1)
        if len(positions) == weight.shape[1]:
            ordered = np.empty_like(weight)
            ordered[:, positions] = weight
            weight = ordered
        flat = regrouped(plain(view.base), view.shape, view.by)
        value = None if flat is None else t.value(flat)
    op = Dense(features=weight.shape[0], bias="bias" in weights)
    return plain(t.emit(op, value or t.value(view), weights={**weights, "weight": weight})[0])


# Norms.


def _batch_norm(t: Translation) -> list[Imported]:
    if t.integer("training_mode", 0) or len([name for name in t.current.outputs if name]) > 1:
        raise t.fail(
            "batch normalization in training: with the statistics of the batch",
            "export the model in inference (model.eval() in PyTorch, training=False in Keras)",
        )
    names = ("scale", "bias", "mean", "variance")
    weights: dict[str, Array] = {}
    for index, name in enumerate(names):
        array = t.weight(index + 1, name)
        if array.ndim != 1:
            raise t.fail(f"its {name} has shape {list(array.shape)}", "the IR normalizes per channel (spatial=1)")
        weights[name] = array
    # ONNX's momentum is the share of the old statistics.
    momentum = min(1.0, max(0.0, round(1.0 - t.number("momentum", 0.9), 6)))
    op = t.checked(lambda: BatchNorm(epsilon=t.number("epsilon", 1e-5), momentum=momentum))
    return [t.tensor(t.emit(op, t.value(t.view()), weights=weights)[0])]


def _local_response_norm(t: Translation) -> list[Imported]:
    op = t.checked(
        lambda: LocalResponseNorm(
            size=t.integer("size", 0),
            alpha=t.number("alpha", 1e-4),
            beta=t.number("beta", 0.75),
            k=t.number("bias", 1.0),
        )
    )
    return [t.tensor(t.emit(op, t.image())[0])]


def _dropout(t: Translation) -> list[Imported]:
    if t.has(2) and bool(t.constant(2, "training mode").reshape(-1)[:1].any()):
        raise t.fail("dropout in training", "export the model in inference (model.eval() in PyTorch)")
    rate = t.constant_number(1, "ratio") if t.has(1) else t.number("ratio", 0.5)
    return t.unary(t.checked(lambda: Dropout(rate=shortest(rate))))


LAYERS: dict[str, Translator] = {
    "BatchNormalization": _batch_norm,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Dropout": _dropout,
    "Gemm": _gemm,
    "LRN": _local_response_norm,
    "MatMul": _matmul,
}
