"""What moves elements in ONNX: views for Reshape and Transpose, splits for slices, constants for shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from gensynth.ir.ops import Flatten, Identity, Reshape, Resize, Split

from .importer_layout import View, regrouped
from .importer_pools import nearest_rows
from .importer_translation import Constant, Imported, Parts, Translation, Translator

__all__ = ["SHAPES"]


# Shapes as constants.


def _shape(t: Translation) -> list[Imported]:
    found = t.operand()
    shapes = [found.arrays[0].shape] if isinstance(found, Constant) else t.shapes(t.view())
    start, stop = t.integer("start", 0), t.current.attributes.get("end")
    stop = stop if isinstance(stop, int) else None
    return [Constant(tuple(np.array(shape[start:stop], np.int64) for shape in shapes))]


def _size(t: Translation) -> list[Imported]:
    return [Constant(tuple(np.array(math.prod(shape), np.int64) for shape in t.shapes(t.view())))]


# Views.


def _transpose(t: Translation) -> list[Imported]:
    view = t.view()
    rank = len(view.axes)
    permutation = t.integers("perm") or tuple(reversed(range(rank)))
    if sorted(permutation) != list(range(rank)):
        raise t.fail(f"perm {list(permutation)} of {rank} axes", "the model is damaged: export it again")
    return [view.transposed(permutation, t.current)]


def _reshape(t: Translation) -> list[Imported]:
    view = t.view()
    shapes = [t.integers("shape") or ()] * len(t.samples) if not t.has(1) else t.integer_samples(1, "shape")
    zeros = not t.integer("allowzero", 0)
    wanted = []
    for before, shape in zip(t.shapes(view), shapes, strict=True):
        sizes = [
            before[axis] if size == 0 and zeros and axis < len(before) else size for axis, size in enumerate(shape)
        ]
        if sizes.count(-1) == 1:
            known = -math.prod(sizes)
            sizes[sizes.index(-1)] = math.prod(before) // known if known > 0 else 0
        if math.prod(sizes) != math.prod(before) or min(sizes, default=0) < 1:
            raise t.fail(f"it cannot bring {list(before)} into {list(shape)}", "the model is damaged: export it again")
        wanted.append(tuple(sizes))
    return [_viewed(t, view, wanted)]


def _flatten(t: Translation) -> list[Imported]:
    view = t.view()
    rank = len(view.axes)
    axis = t.integer("axis", 1)
    axis = axis + rank if axis < 0 else axis
    return [_viewed(t, view, [(math.prod(shape[:axis]), math.prod(shape[axis:])) for shape in t.shapes(view)])]


def _squeeze(t: Translation) -> list[Imported]:
    view = t.view()
    rank = len(view.axes)
    given = t.integers_or_input("axes", 1)
    if given is None:
        if t.batch == 1 and any(name not in t.model.outputs for name in t.current.outputs):
            raise t.fail("it takes the batch of 1 away with all other axes of 1", "name the axes to be squeezed")
        axes = {axis for axis, size in enumerate(view.shape) if size == 1}
    else:
        axes = {t.axis(axis, rank) for axis in given}
    if any(view.shape[axis] is None for axis in axes):
        raise t.fail("it takes the batch away", "the IR keeps the batch in axis 0: squeeze other axes only")
    if any(view.shape[axis] != 1 for axis in axes):
        raise t.fail(
            f"axes {sorted(axes)} of {t.shapes(view)[0]} are not all 1", "the model is damaged: export it again"
        )
    kept = [[size for axis, size in enumerate(shape) if axis not in axes] for shape in t.shapes(view)]
    return [_viewed(t, view, [tuple(shape) for shape in kept])]


def _unsqueeze(t: Translation) -> list[Imported]:
    view = t.view()
    given = t.integers_or_input("axes", 1) or ()
    rank = len(view.axes) + len(given)
    axes = {t.axis(axis, rank) for axis in given}
    wanted = []
    for shape in t.shapes(view):
        sizes = iter(shape)
        wanted.append(tuple(1 if axis in axes else next(sizes) for axis in range(rank)))
    return [_viewed(t, view, wanted)]


def _viewed(t: Translation, view: View, shapes: Sequence[tuple[int, ...]]) -> View:
    """Returns a tensor in another shape, given under each sample batch."""
    wanted: list[int | None] = []
    for axis, size in enumerate(shapes[0]):
        sizes = tuple(shape[axis] for shape in shapes)
        is_batch = sizes == tuple(t.samples) and None not in wanted and math.prod(shapes[0][:axis]) == 1
        if not is_batch and len(set(sizes)) > 1:
            raise t.fail(
                f"it joins the batch with other axes, into {list(shapes[0])} for a batch of {t.samples[0]}",
                "the IR keeps the batch in an axis of its own",
            )
        wanted.append(None if is_batch else size)
    if None not in wanted:
        raise t.fail(f"a result {list(shapes[0])} without the batch", "the IR keeps the batch in axis 0")
    own = t.model.is_own and "/" not in t.current.label
    whole = t.materialized(view) if own and t.current.operator in ("Flatten", "Reshape") else None
    if whole is not None:  # not the end of a channel shuffle
        sizes = tuple(size for size in wanted if size is not None)
        op = Flatten() if t.current.operator == "Flatten" else Reshape(shape=sizes)
        return t.tensor(t.emit(op, whole)[0])
    found = regrouped(view, wanted, t.current)
    if found is None:
        # What lies in another order than it says may still be something that the IR has: a shuffle, most of all.
        value = t.materialized(view)
        found = None if value is None else regrouped(t.tensor(value), wanted, t.current)
    if found is None:
        t.value(view)
        raise t.fail(
            f"a reshape from {['N' if size is None else size for size in view.shape]} to {wanted} that cuts across"
            " axes", "the IR has reshapes that keep the batch",
        )  # fmt: skip
    return _shuffled(t, found)


def _shuffled(t: Translation, view: View) -> View:
    """Returns a tensor that is a whole channel shuffle as what that makes, so that views can go on from there."""
    if view.order is not None or view.is_in_order or len(view.axes) != 4:
        return view
    order = view.sorted_axes()
    moved = view.transposed(order, view.by)
    if not moved.shuffled_groups:
        return view
    value = t.materialized(moved)
    assert value is not None
    return t.tensor(value).transposed([order.index(axis) for axis in range(4)], t.current)


def _same(t: Translation) -> list[Imported]:
    if t.model.is_own and "/" not in t.current.label:
        return t.unary(Identity())
    return [t.operand()]


def _cast(t: Translation) -> list[Imported]:
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
    if t.current.operator == "Cast" and t.integer("to", TensorProto.FLOAT) not in kinds:
        raise t.fail("computed values as integers", "the IR computes in float32: take integers out of the model")
    found = t.operand()
    if isinstance(found, Constant):  # CastLike of a computed value, which is float32
        return [Constant(tuple(array.astype(np.float32) for array in found.arrays))]
    return [t.view()]


def _expand(t: Translation) -> list[Imported]:
    view = t.view()
    for before, shape in zip(t.shapes(view), t.integer_samples(1, "shape"), strict=True):
        if len(shape) > len(before) or any(
            size not in (1, before[len(before) - len(shape) + index]) for index, size in enumerate(shape)
        ):
            raise t.fail(
                f"it repeats elements, {list(before)} to {list(shape)}",
                "the IR's add and mul broadcast by themselves: leave the expansion out",
            )
    return [view]


# Parts.


def _split(t: Translation) -> list[Imported]:
    view, count = t.view(), len(t.current.outputs)
    (value,), order = t.arranged(view)
    axis = order[t.axis(t.integer("axis", 0), len(view.axes))]
    if axis == 0:
        raise t.fail("a split of the batch", "split the channels, axis 1")
    length = value.type.sizes()[axis]
    sizes = t.integers_or_input("split", 1)
    if sizes is None:
        part = -(-length // t.integer("num_outputs", count))
        sizes = tuple(min(part, length - part * index) for index in range(count))
        is_equal = len(set(sizes)) == 1
    else:
        is_equal = len(set(sizes)) == 1 and not t.model.is_own
    if count == 1:
        return [view]
    op = t.checked(lambda: Split(sections=count, axis=axis) if is_equal else Split(sizes=sizes, axis=axis))
    return [t.tensor(part, order) for part in t.emit(op, value)]


def _sequence(t: Translation) -> list[Imported]:
    """A split whose parts are taken out one by one."""
    view = t.view()
    (value,), order = t.arranged(view)
    axis = order[t.axis(t.integer("axis", 0), len(view.axes))]
    if axis == 0 or not t.integer("keepdims", 1):
        raise t.fail("a split of the batch, or into parts of fewer axes", "split the channels, axis 1")
    length = value.type.sizes()[axis]
    given = t.constant_integers(1, "split") if t.has(1) else (1,)
    if not t.has(1) or t.constant(1, "split").ndim == 0:
        part = max(1, given[0])
        given = tuple(min(part, length - start) for start in range(0, length, part))
    if len(given) == 1:
        return [Parts((view,))]
    is_equal = len(set(given)) == 1
    op = t.checked(lambda: Split(sections=len(given), axis=axis) if is_equal else Split(sizes=given, axis=axis))
    return [Parts(tuple(t.tensor(part, order) for part in t.emit(op, value)))]


def _taken(t: Translation) -> list[Imported]:
    parts, index = t.operand(), int(t.constant_number(1, "position"))
    if not isinstance(parts, Parts) or not -len(parts.views) <= index < len(parts.views):
        raise t.fail(f"there is no part {index}", "the model is damaged: export it again")
    return [parts.views[index]]


def _slice(t: Translation) -> list[Imported]:
    view = t.view()
    rank = len(view.axes)
    starts, ends = t.integers_or_input("starts", 1), t.integers_or_input("ends", 2)
    if starts is None or ends is None:
        raise t.fail("no starts or ends", "the model is damaged: export it again")
    axes = t.integers_or_input("axes", 3) or tuple(range(len(starts)))
    steps = (t.constant_integers(4, "steps") if t.has(4) else None) or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise t.fail("as many starts as ends, axes and steps are wanted", "the model is damaged: export it again")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = t.axis(axis, rank)
        length = view.shape[place]
        if length is None:
            if start == 0 and step == 1 and end >= (t.batch or 2**31 - 1):
                continue
            raise t.fail("a slice of the batch", "the IR keeps the batch whole")
        if step != 1:
            raise t.fail(f"a slice with a step of {step}", "the IR has slices without gaps (split)")
        first, last, _ = slice(start, end).indices(length)
        view = _part(t, view, place, first, last)
    return [view]


def _part(t: Translation, view: View, place: int, first: int, last: int) -> View:
    """Returns the elements from `first` to before `last` along an axis of a tensor."""
    if (first, last) == (0, view.shape[place]):
        return view
    if first >= last:
        raise t.fail("a slice of nothing", "the model is damaged: export it again")
    (value,), order = t.arranged(view)
    length = value.type.sizes()[order[place]]
    sizes = tuple(size for size in (first, last - first, length - last) if size)
    found = t.emit(Split(sizes=sizes, axis=order[place]), value)[1 if first else 0]
    t.drafts[-1].cut = (first, last)
    return t.tensor(found, order)


def _gather(t: Translation) -> list[Imported]:
    """Neighbours are a slice; rows or columns that repeat or skip as the nearest ones do are a resize."""
    view = t.view()
    place = t.axis(t.integer("axis", 0), len(view.axes))
    array = t.constant(1, "indices")
    length = view.shape[place]
    if length is None:
        raise t.fail("it picks images of the batch", "the IR keeps the batch whole")
    indices = t.constant_integers(1, "indices") if array.ndim < 2 else ()
    indices = tuple(index + length if index < 0 else index for index in indices)
    if indices and indices == tuple(range(indices[0], indices[0] + len(indices))):
        found = _part(t, view, place, indices[0], indices[0] + len(indices))
        if array.ndim:
            return [found]
        return [_viewed(t, found, [(*shape[:place], *shape[place + 1 :]) for shape in t.shapes(found)])]
    if nearest_rows(indices, length) and len(view.axes) == 4:
        (value,), order = t.arranged(view)
        if order[place] > 1:
            size = [len(indices) if axis == order[place] else value.type.sizes()[axis] for axis in (2, 3)]
            return [t.tensor(t.emit(Resize(size=(size[0], size[1])), value)[0], order)]
    raise t.fail(
        "it picks elements in an order of its own",
        "the IR has neighbours (split), and nearest rows and columns (resize)",
    )


SHAPES: dict[str, Translator] = {
    "Cast": _cast,
    "CastLike": _cast,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _same,
    "Reshape": _reshape,
    "SequenceAt": _taken,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "SplitToSequence": _sequence,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
