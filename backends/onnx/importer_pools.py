"""What ONNX's pools, means, paddings and resizes become in the IR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gensynth.ir import Value
from gensynth.ir.ops import AvgPool, GlobalAvgPool, MaxPool, Pad, Reshape, Resize

from .importer_layers import pair_of, window_padding
from .importer_layout import View, plain
from .importer_translation import Imported, Translation, Translator

__all__ = ["POOLS", "nearest_rows"]


def _pool(t: Translation) -> list[Imported]:
    x = t.image()
    if t.integers("kernel_shape") is None:
        raise t.fail("it has no kernel_shape", "the model is damaged: export it again")
    kernel, stride = pair_of(t, "kernel_shape"), pair_of(t, "strides")
    if pair_of(t, "dilations") != (1, 1):
        raise t.fail("a dilated pool", "the IR's windows have no gaps: use dilations of 1")
    padding = window_padding(t, x, kernel, stride, (1, 1))
    steps = 0 if stride == kernel else stride
    ceil = bool(t.integer("ceil_mode", 0)) and padding != "same"
    if t.current.operator == "MaxPool":
        if t.integer("storage_order", 0) and len(t.current.outputs) > 1:
            raise t.fail("column-major indices", "export the model without the pool's indices")
        pool = t.checked(lambda: MaxPool(kernel=kernel, stride=steps, padding=padding, ceil=ceil))
        return [t.tensor(t.emit(pool, x)[0])]
    counts = bool(t.integer("count_include_pad", 0))
    if not t.model.is_own and (padding == "valid" or (isinstance(padding, tuple) and not any(padding))):
        counts = False
    mean = t.checked(lambda: AvgPool(kernel=kernel, stride=steps, padding=padding, ceil=ceil, count_padding=counts))
    return [t.tensor(t.emit(mean, x)[0])]


def _global_average(t: Translation) -> list[Imported]:
    return [t.tensor(t.emit(GlobalAvgPool(keep=True), t.image())[0])]


def _global_max(t: Translation) -> list[Imported]:
    x = t.image()
    height, width = x.type.sizes()[2:]
    return [t.tensor(t.emit(MaxPool(kernel=(height, width)), x)[0])]


def _mean(t: Translation) -> list[Imported]:
    """Height and width, wherever they stand and however they are joined."""
    view, rank = t.view(), len(t.view().axes)
    given = t.integers_or_input("axes", 1)
    if not given:
        if given is not None and t.integer("noop_with_empty_axes", 0):
            return [view]
        given = tuple(range(rank))
    axes = {t.axis(axis, rank) for axis in given}
    if any(view.shape[axis] is None for axis in axes):
        raise t.fail("a mean over the batch", "the IR has the mean over height and width")
    atoms = [atom for axis in axes for atom in view.axes[axis]]
    keep = bool(t.integer("keepdims", 1))
    base = view.base
    whole = [atom for axis_atoms in plain(base).axes[2:] for atom in axis_atoms]
    if atoms and (base.type.rank != 4 or sorted(atoms) != sorted(whole)):
        raise t.fail(
            f"a mean over axes {sorted(axes)}", "the IR has the mean over the whole height and width of an image"
        )
    if atoms:
        base = t.emit(GlobalAvgPool(keep=True), base)[0]
    elif view.order is not None and {view.order[axis] for axis in axes} == {2, 3}:
        base = t.emit(GlobalAvgPool(keep=True), base)[0]  # of one pixel: keeps the structure at every image size
    left = [() if axis in axes else part for axis, part in enumerate(view.axes) if keep or axis not in axes]
    order = view.order if keep else None
    return [View(base, tuple(left), order, t.current)]


# Padding.


def _pad(t: Translation) -> list[Imported]:
    mode = t.word("mode", "constant")
    pads = t.integers("paddings") if t.integers("pads") is None and not t.has(1) else t.integers_or_input("pads", 1)
    view = t.view()
    rank = len(view.axes)
    axes = tuple(range(rank))
    if t.has(3):
        axes = tuple(t.axis(axis, rank) for axis in t.constant_integers(3, "axes"))
    if pads is None or len(pads) != 2 * len(axes):
        raise t.fail(f"pads are {pads}", "the model is damaged: export it again")
    if not any(pads):
        return [view]
    fill = t.number("value", 0.0)
    if t.has(2):
        fill = t.constant_number(2, "value")
    if mode == "edge" and _is_only_pooled(t, max(pads)):
        mode, fill = "constant", float(np.finfo(np.float32).min)
    if mode != "constant" or min(pads) < 0:
        raise t.fail(f"padding {list(pads)} in mode '{mode}'", "the IR pads height, width and channels with a constant")
    (x,), order = t.arranged(view)
    sides = [(0, 0)] * rank
    for index, axis in enumerate(axes):
        sides[order[axis]] = (pads[index], pads[index + len(axes)])
    if sides[0] != (0, 0) or rank != 4:
        raise t.fail(f"padding {list(pads)}", "the IR pads height, width and channels of an image with a constant")
    value = float(np.clip(fill, np.finfo(np.float32).min, np.finfo(np.float32).max))
    if any(sides[2] + sides[3]):
        x = t.emit(Pad(padding=(*sides[2], *sides[3]), value=value), x)[0]
    if any(sides[1]):
        x = _more_channels(t, x, sides[1], value)
    return [t.tensor(x, order)]


def _is_only_pooled(t: Translation, most: int) -> bool:
    """Returns whether max pools alone read the current node, with windows that reach into the image everywhere.

    Repeated edges, as Keras pads for them, then never decide: whoever sees one sees the edge itself.
    """
    output = t.current.outputs[0]
    readers = t.model.readers().get(output, [])
    if output in t.model.outputs or not readers:
        return False
    for node in readers:
        kernel = node.attributes.get("kernel_shape")
        if node.operator != "MaxPool" or not isinstance(kernel, list) or min(kernel) <= most:
            return False
    return True


def _more_channels(t: Translation, x: Value, sides: tuple[int, int], value: float) -> Value:
    """Pads channels: as rows of an image of one channel."""
    channels, height, width = x.type.sizes()[1:]
    rows = t.emit(Reshape(shape=(1, channels, height * width)), x)[0]
    padded = t.emit(Pad(padding=(*sides, 0, 0), value=value), rows)[0]
    return t.emit(Reshape(shape=(channels + sum(sides), height, width)), padded)[0]


# Resizing.

_RESIZE_HINT = (
    "the IR has nearest at floor(i * H / H'), and bilinear with half-pixel centres or aligned corners; in PyTorch"
    " F.interpolate in the modes nearest and bilinear gives these"
)


def _resize(t: Translation) -> list[Imported]:
    """Upsample as well: by scales, nearest at floor(i / scale), linear from i / scale."""
    is_old = t.model.opset < 11 or t.current.operator == "Upsample"
    mode = t.word("mode", "nearest")
    (x,), order, scales, sizes = _resize_operands(t, is_old)
    if len(order) != 4:
        raise t.fail("a resize of no image", "the IR resizes images, [N, C, H, W]")
    before = x.type.sizes()[2:]
    if mode == "bilinear":
        mode = "linear"
    how = "asymmetric" if is_old else t.word("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if is_old else t.word("nearest_mode", "round_prefer_floor")
    if t.integer("antialias", 0) and any(new < old for new, old in zip(sizes, before, strict=True)):
        raise t.fail("a resize that smooths (antialias)", _RESIZE_HINT)
    if mode not in ("nearest", "linear"):
        raise t.fail(f"a resize in mode '{mode}'", _RESIZE_HINT)
    places = [_places(how, length, size, scale) for length, size, scale in zip(before, sizes, scales, strict=True)]
    if any(place is None for place in places):
        raise t.fail(f"a resize with coordinate_transformation_mode '{how}'", _RESIZE_HINT)
    found = [place for place in places if place is not None]
    align = False
    if mode == "nearest":
        fits = all(
            np.array_equal(np.clip(_rounded(place, rounding), 0, length - 1), np.arange(size) * length // size)
            for place, length, size in zip(found, before, sizes, strict=True)
        )
    else:
        fits = _same(found, [_half_pixel(*item) for item in zip(before, sizes, strict=True)], before)
        align = not fits
        fits = fits or _same(found, [_aligned(*item) for item in zip(before, sizes, strict=True)], before)
    if not fits:
        raise t.fail(
            f"a resize from {list(before)} to {list(sizes)} in mode '{mode}', '{how}'"
            + (f" with nearest_mode '{rounding}'" if mode == "nearest" else ""),
            _RESIZE_HINT,
        )
    kind = "nearest" if mode == "nearest" else "bilinear"
    whole = all(new % old == 0 for new, old in zip(sizes, before, strict=True))
    by_size = t.model.is_own and t.has(3)
    if whole and not by_size:
        scale = (sizes[0] // before[0], sizes[1] // before[1])
        op = Resize(scale=scale, mode=kind, align_corners=align)
    else:
        op = Resize(size=(sizes[0], sizes[1]), mode=kind, align_corners=align)
    return [t.tensor(t.emit(op, x)[0], order)]


def _resize_operands(
    t: Translation, is_old: bool
) -> tuple[tuple[Value, ...], tuple[int, ...], tuple[np.float32, np.float32], tuple[int, int]]:
    """Returns the image, the order of its axes, and for height and width the scale and the size wanted."""
    view = t.view()
    rank = len(view.axes)
    values, order = t.arranged(view)
    axes = t.integers("axes") or tuple(range(rank))
    places = [order[t.axis(axis, rank)] for axis in axes]
    before = values[0].type.sizes()
    given = None
    if t.model.opset < 9 or "scales" in t.current.attributes:
        given = t.numbers("scales")
    elif is_old:
        given = tuple(float(item) for item in t.weight(1, "scales").reshape(-1))
    elif t.has(2) and t.constant(2, "scales").size:
        given = tuple(float(item) for item in t.weight(2, "scales").reshape(-1))
    lengths: dict[int, int] = {}
    factors: dict[int, np.float32] = {}
    if given is not None:
        for place, item in zip(places, given, strict=False):
            factors[place] = np.float32(item)
            lengths[place] = int(np.floor(np.float32(before[place]) * np.float32(item)))
    elif not is_old and t.has(3):
        if t.word("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise t.fail("a resize that keeps the aspect ratio", _RESIZE_HINT)
        lengths = _wanted_sizes(t, places)
        factors = {place: np.float32(size / before[place]) for place, size in lengths.items() if place > 0}
    if len(lengths) != len(places) or min(lengths.values(), default=0) < 1 or rank != 4:
        raise t.fail("a resize without scales or sizes of height and width", "the model is damaged: export it again")
    if any(lengths.get(axis, before[axis]) != before[axis] for axis in (0, 1)):
        raise t.fail("a resize of the batch or the channels", "resize height and width only")
    one = np.float32(1)
    scales = (factors.get(2, one), factors.get(3, one))
    return values, order, scales, (lengths.get(2, before[2]), lengths.get(3, before[3]))


def _wanted_sizes(t: Translation, places: Sequence[int]) -> dict[int, int]:
    """Returns the sizes that a resize asks for; the batch, which they may name, counts as 1."""
    wanted = t.integer_samples(3, "sizes")
    lengths: dict[int, int] = {}
    for index, place in enumerate(places):
        found = [sizes[index] for sizes in wanted if index < len(sizes)]
        if place == 0 and found == list(t.samples[: len(found)]):
            lengths[0] = 1
        elif found and len(set(found)) == 1:
            lengths[place] = found[0]
    return lengths


Places = npt.NDArray[np.float32]


def _places(how: str, length: int, size: int, scale: np.float32) -> Places | None:
    """Returns where in the image each element of the result is, in ONNX's words; None for what it does not say."""
    index = np.arange(size, dtype=np.float32)
    half = np.float32(0.5)
    if how == "asymmetric":
        return np.asarray(index / scale, np.float32)
    if how == "half_pixel" or (how == "pytorch_half_pixel" and size > 1):
        return np.asarray((index + half) / scale - half, np.float32)
    if how == "pytorch_half_pixel":
        return np.zeros(1, np.float32)
    if how == "half_pixel_symmetric":
        adjustment = np.float32(size) / (scale * np.float32(length))
        center = np.float32(length / 2)
        return np.asarray(center * (1 - adjustment) + (index + half) / scale - half, np.float32)
    if how == "tf_half_pixel_for_nn":
        return np.asarray((index + half) / scale, np.float32)
    if how == "align_corners":
        return _aligned(length, size)
    return None


def _aligned(length: int, size: int) -> Places:
    return np.asarray(np.arange(size) * ((length - 1) / max(1, size - 1)), np.float32)


def _half_pixel(length: int, size: int) -> Places:
    return np.asarray((np.arange(size) + 0.5) * (length / size) - 0.5, np.float32)


def _same(found: Sequence[Places], wanted: Sequence[Places], lengths: Sequence[int]) -> bool:
    """Returns whether places are the same up to rounding, once they are clamped to the image."""
    return all(
        np.abs(np.clip(one, 0, length - 1) - np.clip(other, 0, length - 1)).max() <= 1e-6 * max(length, 8)
        for one, other, length in zip(found, wanted, lengths, strict=True)
    )


def _rounded(places: Places, rounding: str) -> npt.NDArray[np.int64]:
    if rounding == "floor":
        return np.floor(places).astype(np.int64)
    if rounding == "ceil":
        return np.ceil(places).astype(np.int64)
    if rounding == "round_prefer_ceil":
        return np.asarray(np.floor(places + np.float32(0.5)), np.int64)
    return np.asarray(np.ceil(places - np.float32(0.5)), np.int64)


def nearest_rows(indices: Sequence[int], length: int) -> bool:
    """Returns whether picking these of `length` rows is a resize by the nearest row."""
    size = len(indices)
    return size > 0 and list(indices) == [index * length // size for index in range(size)]


POOLS: dict[str, Translator] = {
    "AveragePool": _pool,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "MaxPool": _pool,
    "Pad": _pad,
    "ReduceMean": _mean,
    "Resize": _resize,
    "Upsample": _resize,
}
