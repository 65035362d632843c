"""What each aten op becomes in the IR. The names are those of torch.export before and after core decomposition."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from gensynth.ir import Op, Value
from gensynth.ir.ops import (
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    LocalResponseNorm,
    MaxPool,
    Mul,
    Pad,
    Relu,
    Relu6,
    Reshape,
    Resize,
    Sigmoid,
    Silu,
    Softmax,
    Split,
)

from .translation import Arguments, Constant, Deferred, Imported, Translation, Translator, WeightSources

__all__ = ["translators"]

_found: dict[str, Translator] = {}


def _translates(*names: str) -> Callable[[Translator], Translator]:
    def register(function: Translator) -> Translator:
        for name in names:
            _found[name] = function
        return function

    return register


@cache
def translators() -> dict[str, Translator]:
    """Returns the translators by aten name, with the overload where overloads differ."""
    simple: dict[str, Op] = {
        "relu": Relu(),
        "relu6": Relu6(),
        "silu": Silu(),
        "sigmoid": Sigmoid(),
        "hardswish": HardSwish(),
        "hardsigmoid": HardSigmoid(),
    }
    return {**_found, **{name: _elementwise(op) for name, op in simple.items()}}


def _elementwise(op: Op) -> Translator:
    return lambda t, args: t.emit(op, t.value(args[0]))


def _number(t: Translation, argument: object, default: float) -> float:
    if argument is None:
        return default
    if not isinstance(argument, (int, float)):
        raise t.fail(f"{argument} where a number is wanted", "use a plain number")
    return float(argument)


@_translates(
    "alias",
    "clone",
    "contiguous",
    "detach",
    "lift_fresh_copy",
    "_to_copy",
    "to",
    "dropout",
    "feature_dropout",
    "native_dropout",
)
def _same(t: Translation, args: Arguments) -> Imported:
    target = str(t.current.target)
    found = t.imported(args[0])
    if "dropout" in target:
        value, rate = t.value(args[0]), _number(t, args[1], 0.5)
        if "feature" in target:
            if args[2]:
                raise t.fail("channel-wise dropout in training", "export module.eval(), or use torch.nn.Dropout")
            return value
        return t.emit(Dropout(rate=rate), value)
    result = t.current.meta.get("val")
    source = getattr(args[0], "meta", {}).get("val")
    if found is None or result is None or (source is not None and result.dtype != source.dtype):
        raise t.fail("a change of dtype", "keep the whole module in float32")
    return found


@_translates("conv2d", "convolution", "conv_transpose2d")
def _convolution(t: Translation, args: Arguments) -> Imported:
    target = str(t.current.target)
    x, weight, bias = t.value(args[0]), t.constant(args[1]), t.constant(args[2])
    assert weight is not None
    stride, padding = t.pair(args[3], (1, 1)), args[4]
    transposed, extra, dilation, groups = False, (0, 0), args[5], args[6]
    if "convolution" in target:
        transposed, extra, groups = bool(args[6]), t.pair(args[7], (0, 0)), args[8]
    elif "transpose" in target:
        transposed, extra, groups, dilation = True, t.pair(args[5], (0, 0)), args[6], args[7]
    if weight.tensor.ndim != 4:
        raise t.fail(
            f"a convolution with weight {list(weight.tensor.shape)}", "the IR has convolutions over images only"
        )
    group_count = t.integers(groups)[0] if groups is not None else 1
    window = {
        "kernel": tuple(weight.tensor.shape[2:]),
        "stride": stride,
        "padding": padding if isinstance(padding, str) else t.pair(padding, (0, 0)),
        "dilation": t.pair(dilation, (1, 1)),
        "groups": group_count,
        "bias": bias is not None,
    }
    weights: WeightSources = {"weight": weight}
    if bias is not None:
        weights["bias"] = bias
    op: Op
    if transposed:
        op = ConvTranspose2d(channels=weight.tensor.shape[1] * group_count, output_padding=extra, **window)  # type: ignore[arg-type]
    else:
        op = Conv2d(channels=weight.tensor.shape[0], **window)  # type: ignore[arg-type]
    return t.emit(op, x, weights=weights)


@_translates("linear", "addmm", "mm")
def _linear(t: Translation, args: Arguments) -> Imported:
    target = str(t.current.target)
    if "addmm" in target:
        bias, x, weight = t.constant(args[0]), t.value(args[1]), t.constant(args[2])
        if _number(t, args[3], 1.0) != 1 or _number(t, args[4], 1.0) != 1:
            raise t.fail("addmm with alpha or beta", "use torch.nn.Linear")
    else:
        x, weight = t.value(args[0]), t.constant(args[1])
        bias = t.constant(args[2]) if "linear" in target else None
    assert weight is not None
    if "linear" not in target:  # mm takes [in, out]
        weight = Constant(weight.name, weight.tensor, not weight.transposed)
    features = weight.tensor.shape[1 if weight.transposed else 0]
    weights: WeightSources = {"weight": weight}
    if bias is not None:
        weights["bias"] = bias
    return t.emit(Dense(features=features, bias=bias is not None), x, weights=weights)


@_translates("t", "transpose", "permute")
def _permute(t: Translation, args: Arguments) -> Imported:
    found = t.imported(args[0])
    rank = len(t.current.meta["val"].shape)
    order = list(range(rank))
    target = str(t.current.target)
    if "permute" in target:
        order = [axis % rank for axis in t.integers(args[1])]
    else:
        first, second = (0, 1) if target.startswith("aten.t.") else (t.integers(args[1])[0], t.integers(args[2])[0])
        order[first], order[second] = order[second], order[first]
    if isinstance(found, Constant) and order == [1, 0]:
        return Constant(found.name, found.tensor, not found.transposed)
    if isinstance(found, Value) and order == [0, 2, 1, 3, 4]:
        groups, source = found.type.shape[1], t.producer(found)
        if isinstance(groups, int) and source is not None and isinstance(source.op, Reshape):
            image = source.operands[0]
            if image.type.rank == 4 and image.type.shape[2:] == found.type.shape[3:]:
                return Deferred("the middle of a channel shuffle", image, groups)
    raise t.fail(f"a permutation {order} of axes", "the IR keeps NCHW; of permutations it has only channel_shuffle")


@_translates("view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze")
def _reshape(t: Translation, args: Arguments) -> Imported:
    found, shape = t.imported(args[0]), t.shape()
    if isinstance(found, Deferred) and found.kind in (_SQUARES, _MEANS):
        return found
    if isinstance(found, Deferred) and found.number and found.value.type.shape == shape:
        return t.emit(ChannelShuffle(groups=found.number), found.value)
    value = t.value(args[0])
    if value.type.shape == shape:
        return value
    sizes = tuple(dim for dim in shape[1:] if isinstance(dim, int))
    if len(sizes) == 1:
        return t.emit(Flatten(), value)
    return t.emit(Reshape(shape=sizes), value)


@_translates("batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional", "native_batch_norm",
             "_native_batch_norm_legit_no_training", "cudnn_batch_norm")  # fmt: skip
def _batch_norm(t: Translation, args: Arguments) -> Imported:
    x, scale, bias, mean, variance = t.value(args[0]), *(t.constant(item) for item in args[1:5])
    momentum, epsilon = (args[5], args[6]) if "no_training" in str(t.current.target) else (args[6], args[7])
    if mean is None or variance is None:
        raise t.fail("batch normalization without running statistics", "use track_running_stats=True")
    count = len(mean.tensor)
    weights: WeightSources = {
        "scale": np.ones(count, np.float32) if scale is None else scale,
        "bias": np.zeros(count, np.float32) if bias is None else bias,
        "mean": mean,
        "variance": variance,
    }
    op = BatchNorm(epsilon=_number(t, epsilon, 1e-5), momentum=_number(t, momentum, 0.1))
    return t.emit(op, x, weights=weights)


@_translates("hardtanh", "clamp", "clamp_min")
def _clamp(t: Translation, args: Arguments) -> Imported:
    is_hardtanh = "hardtanh" in str(t.current.target)
    low, high = args[1], args[2] if len(args) > 2 else None
    if is_hardtanh:
        low, high = (-1.0 if low is None else low), (1.0 if high is None else high)
    found = t.imported(args[0])
    if isinstance(found, Deferred) and found.kind == "x + 3":
        if (low, high) == (0, 6):
            return Deferred("min(max(x + 3, 0), 6)", found.value)
        if (low, high) == (0, None):
            return Deferred("max(x + 3, 0)", found.value)
    if isinstance(found, Deferred) and found.kind == "max(x + 3, 0)" and (low, high) == (None, 6):
        return Deferred("min(max(x + 3, 0), 6)", found.value)
    if (low, high) == (0, 6):
        return t.emit(Relu6(), t.value(args[0]))
    if (low, high) == (0, None):
        return t.emit(Relu(), t.value(args[0]))
    raise t.fail(f"values clamped to [{low}, {high}]", "the IR clamps to [0, 6] (relu6) or from 0 (relu)")


@_translates("leaky_relu")
def _leaky_relu(t: Translation, args: Arguments) -> Imported:
    return t.emit(LeakyRelu(slope=_number(t, args[1], 0.01)), t.value(args[0]))


@_translates("softmax", "_softmax")
def _softmax(t: Translation, args: Arguments) -> Imported:
    value = t.value(args[0])
    axis = t.integers(args[1])[0] % value.type.rank
    if axis == 0:
        raise t.fail("a softmax over the batch", "use axis 1")
    return t.emit(Softmax(axis=axis), value)


@_translates("add", "mul", "div")
def _arithmetic(t: Translation, args: Arguments) -> Imported:
    kind = str(t.current.target).split(".")[1]
    left, right = t.imported(args[0]), t.imported(args[1])
    if isinstance(left, Deferred) and left.kind == _MEANS and (kind, len(left.settings)) in (("mul", 0), ("add", 1)):
        return Deferred(_MEANS, left.value, left.number, (*left.settings, _number(t, args[1], 1.0)))  # alpha, then k
    if kind == "mul" and isinstance(left, Value) and args[0] is args[1] and _starts_local_norm(t):
        return Deferred(_SQUARES, left)
    if kind == "div" and isinstance(right, Deferred) and right.kind == _POWERS and right.value == left:
        alpha, k, beta = right.settings
        return t.emit(LocalResponseNorm(size=right.number, alpha=alpha, beta=beta, k=k), right.value)
    gate = "min(max(x + 3, 0), 6)"
    if kind == "add" and isinstance(left, Value) and args[1] == 3:
        return Deferred("x + 3", left)
    if kind == "mul":
        for one, other in ((left, right), (right, left)):
            if isinstance(one, Deferred) and one.kind == gate and one.value == other:
                return Deferred("x min(max(x + 3, 0), 6)", one.value)
    if kind == "div" and isinstance(left, Deferred) and args[1] == 6 and left.kind.endswith(gate):
        return t.emit(HardSigmoid() if left.kind == gate else HardSwish(), left.value)
    if kind == "div" or right is None:
        raise t.fail(
            "arithmetic with a constant", "the IR adds and multiplies computed values; put constants in weights"
        )
    if kind == "add" and args[2] not in (None, 1):
        raise t.fail(f"a sum with alpha={args[2]}", "use a + b")
    a, b = t.value(args[0]), t.value(args[1])
    return t.emit(Add() if kind == "add" else Mul(), a, b)


# Local response normalization is x / (k + alpha * mean of squares)^beta in eight steps; these are what they have made.
_SQUARES = "the squares of a local_response_norm"
_MEANS = "the means of a local_response_norm"
_POWERS = "the divisor of a local_response_norm"


def _starts_local_norm(t: Translation) -> bool:
    """Returns whether the current node's squares go through the padding over channels of a local response norm."""
    node = t.current
    for wanted in (("view", "reshape"), ("pad", "constant_pad_nd"), ("avg_pool3d",)):
        users = list(node.users)
        if len(users) != 1 or str(users[0].target).removeprefix("aten.").partition(".")[0] not in wanted:
            return False
        node = users[0]
    return True


@_translates("avg_pool3d")
def _mean_over_channels(t: Translation, args: Arguments) -> Imported:
    found = t.imported(args[0])
    if isinstance(found, Deferred) and found.kind == _SQUARES:
        size, *rest = t.integers(args[1])
        if rest == [1, 1] and size // 2 == found.number and size % 2:
            return Deferred(_MEANS, found.value, size)
        raise t.fail(f"a local response norm over {size} channels", "use torch.nn.LocalResponseNorm of an odd size")
    raise t.fail("a pool over volumes", "the IR has pools over images only")


@_translates("pow")
def _power(t: Translation, args: Arguments) -> Imported:
    found = t.imported(args[0])
    if isinstance(found, Deferred) and found.kind == _MEANS and len(found.settings) == 2:
        return Deferred(_POWERS, found.value, found.number, (*found.settings, _number(t, args[1], 1.0)))
    raise t.fail("a power", "the IR has powers only within local_response_norm")


@_translates("cat", "concat")
def _concat(t: Translation, args: Arguments) -> Imported:
    assert isinstance(args[0], (list, tuple))
    values = [t.value(item) for item in args[0]]
    axis = t.integers(args[1])[0] % values[0].type.rank if args[1] is not None else 0
    if axis == 0:
        raise t.fail("a concatenation along the batch", "concatenate along the channels, axis 1")
    return t.emit(Concat(axis=axis), *values)


@_translates("chunk", "split", "split_with_sizes")
def _split(t: Translation, args: Arguments) -> Imported:
    value = t.value(args[0])
    axis = t.integers(args[2])[0] % value.type.rank if args[2] is not None else 0
    if axis == 0:
        raise t.fail("a split of the batch", "split the channels, axis 1")
    sizes = tuple(int(tensor.shape[axis]) for tensor in t.current.meta["val"])
    if len(sizes) == 1:
        return (value,)
    op = Split(sections=len(sizes), axis=axis) if len(set(sizes)) == 1 else Split(sizes=sizes, axis=axis)
    return t.emit(op, value, results=len(sizes))


@_translates("slice")
def _slice(t: Translation, args: Arguments) -> Imported:
    value, shape = t.value(args[0]), t.shape()
    axis = t.integers(args[1])[0] % value.type.rank if args[1] is not None else 0
    if value.type.shape == shape:
        return value
    if axis == 0 or args[4] not in (None, 1):
        raise t.fail("a slice of the batch or with a step", "slice channels, height or width without a step")
    before, after = value.type.sizes()[axis], shape[axis]
    assert isinstance(after, int)
    start = t.integers(args[2])[0] if args[2] is not None else 0
    start = max(0, start + before) if start < 0 else start
    sizes = tuple(size for size in (start, after, before - start - after) if size)
    parts = t.emit(Split(sizes=sizes, axis=axis), value, results=len(sizes))
    assert isinstance(parts, tuple)
    return parts[1 if start else 0]


@_translates("max_pool2d", "max_pool2d_with_indices", "avg_pool2d")
def _pool(t: Translation, args: Arguments) -> Imported:
    is_max = "max" in str(t.current.target)
    kernel = t.pair(args[1], (1, 1))
    stride, padding = t.pair(args[2], kernel), t.pair(args[3], (0, 0))
    window = {"kernel": kernel, "stride": stride if stride != kernel else 0, "padding": padding}
    if is_max:
        if t.pair(args[4], (1, 1)) != (1, 1):
            raise t.fail("a dilated pool", "use dilation=1")
        return t.emit(MaxPool(ceil=bool(args[5]), **window), t.value(args[0]))
    if args[6] is not None:
        raise t.fail("an average pool with a divisor of its own", "leave divisor_override out")
    count = (args[5] is None or bool(args[5])) and padding != (0, 0)
    return t.emit(AvgPool(ceil=bool(args[4]), count_padding=count, **window), t.value(args[0]))


@_translates("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_pool(t: Translation, args: Arguments) -> Imported:
    value, shape = t.value(args[0]), t.shape()
    before, after = value.type.sizes()[2:], shape[2:]
    if after == (1, 1):
        return t.emit(GlobalAvgPool(keep=True), value)
    if after == before:
        return value
    if any(old % new for old, new in zip(before, after, strict=True)):  # type: ignore[operator]
        raise t.fail(f"an adaptive pool from {list(before)} to {list(after)}", "use sizes that divide the input's")
    kernel = (before[0] // after[0], before[1] // after[1])  # type: ignore[operator]
    return t.emit(AvgPool(kernel=kernel), value)


@_translates("mean")
def _mean(t: Translation, args: Arguments) -> Imported:
    value = t.value(args[0])
    axes = sorted(axis % value.type.rank for axis in t.integers(args[1])) if args[1] is not None else []
    if value.type.rank != 4 or axes != [2, 3]:
        raise t.fail(f"a mean over axes {axes}", "the IR has the mean over height and width: mean(dim=(2, 3))")
    return t.emit(GlobalAvgPool(keep=bool(args[2])), value)


@_translates("upsample_nearest2d", "upsample_bilinear2d")
def _resize(t: Translation, args: Arguments) -> Imported:
    value, shape = t.value(args[0]), t.shape()
    before, after = value.type.sizes()[2:], tuple(dim for dim in shape[2:] if isinstance(dim, int))
    is_bilinear = "bilinear" in str(t.current.target)
    factors = args[3] if is_bilinear else args[2]
    if not str(t.current.target).endswith(".vec") or not isinstance(factors, (list, tuple)):
        factors = ()
    if any(old * factor != new for old, factor, new in zip(before, factors, after, strict=False)):
        raise t.fail(f"a resize by {list(factors)}", "give size=, or a factor that hits a whole number of pixels")
    align = is_bilinear and bool(args[2])
    mode = "bilinear" if is_bilinear else "nearest"
    if all(new % old == 0 for old, new in zip(before, after, strict=True)):
        scale = (after[0] // before[0], after[1] // before[1])
        return t.emit(Resize(scale=scale, mode=mode, align_corners=align), value)
    return t.emit(Resize(size=(after[0], after[1]), mode=mode, align_corners=align), value)


@_translates("pad", "constant_pad_nd")
def _pad(t: Translation, args: Arguments) -> Imported:
    found, amounts = t.imported(args[0]), list(t.integers(args[1]))
    if isinstance(found, Deferred) and found.kind == _SQUARES and len(amounts) == 6:
        return Deferred(_SQUARES, found.value, amounts[4])
    value = t.value(args[0])
    is_constant = "constant" in str(t.current.target)
    mode, fill = ("constant", args[2]) if is_constant else (args[2] or "constant", args[3])
    amounts += [0] * (4 - len(amounts))
    if mode != "constant" or min(amounts) < 0 or any(amounts[4:]):
        raise t.fail(f"padding {amounts} in mode '{mode}'", "pad height and width with a constant")
    left, right, top, bottom = amounts[:4]
    return t.emit(Pad(padding=(top, bottom, left, right), value=_number(t, fill, 0.0)), value)
