"""What ONNX's activations and arithmetic become in the IR."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gensynth.ir import Op, Value
from gensynth.ir.ops import (
    Add,
    BatchNorm,
    Concat,
    Flatten,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Mul,
    Relu,
    Relu6,
    Reshape,
    Sigmoid,
    Silu,
    Softmax,
)

from .importer_layout import View
from .importer_model import AnyArray
from .importer_translation import Constant, Imported, Translation, Translator, shortest

__all__ = ["ARITHMETIC"]

_Numbers = npt.NDArray[np.float64]

_BEYOND = 3.4e38
"""Exporters write a bound that is none as the largest float32."""


def _unary(op: Op) -> Translator:
    return lambda t: t.unary(op)


def _leaky_relu(t: Translation) -> list[Imported]:
    return t.unary(t.checked(lambda: LeakyRelu(slope=t.number("alpha", 0.01))))


def _prelu(t: Translation) -> list[Imported]:
    slopes = t.weight(1, "slope").reshape(-1)
    if not slopes.size or (slopes != slopes[0]).any():
        raise t.fail("a slope for each channel", "the IR's leaky_relu has one slope: use that, or relu")
    return t.unary(t.checked(lambda: LeakyRelu(slope=shortest(slopes[0]))))


def _clip(t: Translation) -> list[Imported]:
    low, high = t.number("min", -math.inf), t.number("max", math.inf)
    if t.has(1):
        low = t.constant_number(1, "min")
    if t.has(2):
        high = t.constant_number(2, "max")
    low, high = (-math.inf if low <= -_BEYOND else low), (math.inf if high >= _BEYOND else high)
    if (low, high) == (-math.inf, math.inf):
        return [t.view()]
    if (low, high) == (0, 6):
        return t.unary(Relu6())
    if (low, high) == (0, math.inf):
        return t.unary(Relu())
    raise t.fail(f"values clipped to [{low:g}, {high:g}]", "the IR clips to [0, 6] (relu6) or from 0 (relu)")


def _hard_sigmoid(t: Translation) -> list[Imported]:
    """ONNX: min(max(alpha x + beta, 0), 1); that of the IR at 6 alpha x + 6 beta - 3."""
    alpha, beta = t.number("alpha", 0.2), t.number("beta", 0.5)
    scale, shift = 6 * alpha, 6 * beta - 3
    scale = 1.0 if abs(scale - 1) < 1e-6 else scale
    view = _affine(t, t.view(), np.array(scale), np.array(shift))
    if view.is_plain or t.lies_well(view):
        return [t.tensor(t.emit(HardSigmoid(), t.value(view))[0])]
    return [View(t.emit(HardSigmoid(), view.base)[0], view.axes, view.order, view.by)]


def _softmax(t: Translation) -> list[Imported]:
    view = t.view()
    rank = len(view.axes)
    is_old = t.model.opset < 13
    axis = t.axis(t.integer("axis", 1 if is_old else -1), rank)
    if is_old:  # over all axes from `axis` on
        rest = [index for index in range(axis, rank) if view.shape[index] != 1]
        if len(rest) > 1:
            if axis != 1:
                raise t.fail(f"a softmax over {rank - axis} axes at once", "use opset 13, where it runs over one axis")
            value = t.value(view)
            flat = t.emit(Softmax(axis=1), t.emit(Flatten(), value)[0])[0]
            return [t.tensor(t.emit(Reshape(shape=value.type.sizes()[1:]), flat)[0])]
        axis = rest[0] if rest else axis
    (value,), order = t.arranged(view)
    if order[axis] == 0:
        raise t.fail("a softmax over the batch", "use axis 1")
    return [t.tensor(t.emit(Softmax(axis=order[axis]), value)[0], order)]


def _concat(t: Translation) -> list[Imported]:
    views = [t.view(index) for index in range(len(t.current.inputs))]
    axis = t.axis(t.integer("axis", 1), len(views[0].axes))
    if len(views) == 1:
        return [views[0]]
    values, order = t.arranged(*views)
    if order[axis] == 0:
        raise t.fail("a concatenation along the batch", "concatenate along the channels, axis 1")
    return [t.tensor(t.emit(Concat(axis=order[axis]), *values)[0], order)]


# Arithmetic: with two computed values, or with a constant.


def _add(t: Translation) -> list[Imported]:
    return [_sum(t, 2)]


def _sums(t: Translation) -> list[Imported]:
    count = len(t.current.inputs)
    found = _sum(t, count)
    return [_affine(t, found, np.array(1 / count), np.array(0.0)) if t.current.operator == "Mean" else found]


def _sum(t: Translation, count: int) -> View:
    """Returns the sum of all inputs: first of those that are computed, of which there are some, or it were folded."""
    items = [t.operand(index) for index in range(count)]
    shifts = [_fixed(t, item) for item in items if isinstance(item, Constant)]
    views = [t.view(index) for index, item in enumerate(items) if not isinstance(item, Constant)]
    found = views[0]
    for view in views[1:]:
        found = _binary(t, Add(), found, view)
    for shift in shifts:
        found = _affine(t, found, np.array(1.0), shift)
    return found


def _subtract(t: Translation) -> list[Imported]:
    left, right = t.operand(0), t.operand(1)
    if isinstance(left, View) and isinstance(right, Constant):
        return [_affine(t, left, np.array(1.0), -_fixed(t, right))]
    minus = _affine(t, t.view(1), np.array(-1.0), np.array(0.0))
    if isinstance(left, Constant):
        return [_affine(t, minus, np.array(1.0), _fixed(t, left))]
    return [_binary(t, Add(), t.view(0), minus)]


def _multiply(t: Translation) -> list[Imported]:
    left, right = t.operand(0), t.operand(1)
    for one, other in ((left, right), (right, left)):
        if isinstance(one, View) and isinstance(other, Constant):
            return [_affine(t, one, _fixed(t, other), np.array(0.0))]
    return [_binary(t, Mul(), t.view(0), t.view(1))]


def _divide(t: Translation) -> list[Imported]:
    left, right = t.operand(0), t.operand(1)
    if not (isinstance(left, View) and isinstance(right, Constant)):
        raise t.fail("a division by a computed value", "the IR adds and multiplies; it divides by constants only")
    divisor = _fixed(t, right)
    if not divisor.all():
        raise t.fail("a division by zero", "mend that constant")
    return [_affine(t, left, 1 / divisor, np.array(0.0))]


def _negate(t: Translation) -> list[Imported]:
    return [_affine(t, t.view(), np.array(-1.0), np.array(0.0))]


def _fixed(t: Translation, item: Constant) -> _Numbers:
    array: AnyArray | None = item.fixed
    if array is None:
        raise t.fail("arithmetic with a number that depends on the batch", "export the model in inference")
    return np.asarray(array, np.float64)


def _binary(t: Translation, op: Op, left: View, right: View) -> View:
    alike = left.axes == right.axes and left.base.type is right.base.type
    if alike and not (left.is_plain or t.lies_well(left)):
        found = t.emit(op, left.base, right.base)[0]
        return View(found, left.axes, left.order, left.by)
    (one, other), order = t.arranged(left, right)
    return t.tensor(t.emit(op, one, other)[0], order)


def _affine(t: Translation, view: View, scale: _Numbers, shift: _Numbers) -> View:
    """Returns scale * view + shift, as a batch norm of fixed statistics that may be folded into what is before it."""
    for array in (scale, shift):
        sizes = view.shape[len(view.shape) - array.ndim :]
        if array.ndim > len(view.shape) or any(
            one not in (1, other) for one, other in zip(array.shape, sizes, strict=True)
        ):
            raise _unlike(t, view, array)
    if (scale == 1).all() and (shift == 0).all():
        return view
    axes = [axis for array in (scale, shift) if (axis := _channel_axis(t, view, array)) is not None]
    if axes:
        (value,), order = t.arranged(view)
        if order[axes[0]] != 1 or axes[0] != axes[-1]:
            raise _unlike(t, view, scale if scale.size > 1 else shift)
        return t.tensor(_scaled(t, value, scale, shift), order)
    if view.is_plain or t.lies_well(view):
        return t.tensor(_scaled(t, t.value(view), scale, shift))
    return View(_scaled(t, view.base, scale, shift), view.axes, view.order, view.by)


def _scaled(t: Translation, value: Value, scale: _Numbers, shift: _Numbers) -> Value:
    if value.type.rank not in (2, 4):
        raise t.fail(
            f"arithmetic with a constant on {value.type}", "the IR has it per channel, on [N, C] and [N, C, H, W]"
        )
    channels = value.type.sizes()[1]
    weights = {
        "scale": np.broadcast_to(scale.reshape(-1), channels),
        "bias": np.broadcast_to(shift.reshape(-1), channels),
        "mean": np.zeros(channels),
        "variance": np.ones(channels),
    }
    return t.emit(BatchNorm(epsilon=0.0), value, weights=weights, affine=True)[0]


def _channel_axis(t: Translation, view: View, array: _Numbers) -> int | None:
    """Returns the axis of a tensor along which a constant varies, None where it is one number."""
    if array.size == 1 and array.ndim <= len(view.axes):
        return None
    rank = len(view.axes)
    axes = [rank - array.ndim + index for index, size in enumerate(array.shape) if size != 1]
    if len(axes) != 1 or axes[0] < 1 or view.shape[axes[0]] != array.size:
        raise _unlike(t, view, array)
    return axes[0]


def _unlike(t: Translation, view: View, array: _Numbers) -> Exception:
    shape = ["N" if size is None else size for size in view.shape]
    return t.fail(
        f"arithmetic of {shape} with a constant of shape {list(array.shape)}",
        "the IR has constants per channel: one number, or [C, 1, 1]",
    )


ARITHMETIC: dict[str, Translator] = {
    "Add": _add,
    "Clip": _clip,
    "Concat": _concat,
    "Div": _divide,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(HardSwish()),
    "LeakyRelu": _leaky_relu,
    "Mean": _sums,
    "Mul": _multiply,
    "Neg": _negate,
    "PRelu": _prelu,
    "Relu": _unary(Relu()),
    "Sigmoid": _unary(Sigmoid()),
    "Softmax": _softmax,
    "Sub": _subtract,
    "Sum": _sums,
    "Swish": _unary(Silu()),
}
