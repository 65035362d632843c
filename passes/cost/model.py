"""The device model: what a kernel takes, in milliseconds and millijoules, from a few physical coefficients.

A kernel takes

    t = launch + (compute^3 + memory^3)^(1/3)
    compute = MACs / rate * (1 + pixels / outputs) * (1 + reduction / products) * (1 + channels / width)
    memory = (weights + activations * (1 - hit + hit / cached)) / bandwidth,   hit = 1 / (1 + (2 activations / cache)^2)

The cube root is a smooth maximum of compute and memory (a roofline: Williams, Waterman and Patterson, "Roofline", CACM
52(4), 2009) whose corner is rounded. The three factors of `compute` say how far a convolution fills the device: by its
outputs (blocks of threads), by the products summed for one, and by the channels that share a load. Dense layers have
none of them, since their weights bound them; depthwise and grouped convolutions have the first alone. `hit` is the
share of activations that the cache serves. A network takes an overhead and its kernels' times. Its energy is

    E = static * t + sum of (mac * MACs + byte * bytes + kernel)

static power over the time, dynamic energy a MAC, a byte and a kernel. All coefficients are positive, so both are
positive, and grow with MACs, bytes and kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .device import BY_KIND, OF_PRECISION, Condition, Device
from .workload import KINDS, KernelShape

__all__ = ["FILLING", "SHARING", "Effective", "Shapes", "Times", "effective", "kernel_energy", "kernel_times", "terms"]

Vector = npt.NDArray[np.float64]

FILLING = frozenset({"conv3x3", "conv1x1", "conv", "conv_transpose", "grouped", "depthwise", "other"})
"""Kinds of kernels whose rate depends on how many outputs they have."""
SHARING = FILLING - {"grouped", "depthwise"}
"""Kinds whose rate depends on their products an output and channels too; others have few of these by their nature."""

_CLOCKS = {"launch": ("clock", -1), "rate": ("clock", 1), "bandwidth": ("memory", 1), "static": ("static", 1)}
_CLOCKS |= dict.fromkeys(("mac", "byte", "kernel"), ("dynamic", 1))
_BY_KIND = frozenset(BY_KIND)
_BY_PRECISION = frozenset(OF_PRECISION)


def terms(quantity: str, kind: str | None, condition: Condition) -> list[tuple[str, int]]:
    """Returns the coefficients whose product, each to a power of 1 or -1, is a quantity under a condition.

    `quantity` is one of `COEFFICIENTS`; `kind` matters to launch, rate, bandwidth and mac.
    """
    found = [(quantity, 1)]
    by_kind = kind is not None and quantity in _BY_KIND
    if by_kind:
        found.append((f"{quantity}.{kind}", 1))
    if quantity in _BY_PRECISION:
        found.append((f"precision.{condition.precision}.{quantity}", 1))
    if quantity in _CLOCKS:
        name, power = _CLOCKS[quantity]
        found.append((f"mode.{condition.power_mode}.{name}", power))
    found.append((f"runtime.{condition.runtime}.{quantity}", 1))
    if by_kind:
        found.append((f"runtime.{condition.runtime}.{quantity}.{kind}", 1))
    return found


class Effective(NamedTuple):
    """A device's quantities under one condition; launch, rate, bandwidth and mac by kind of kernel, shape [KINDS]."""

    overhead: float
    launch: Vector
    rate: Vector
    bandwidth: Vector
    cached: float
    pixels: float
    reduction: float
    channels: float
    static: float
    mac: Vector
    byte: float
    kernel: float
    cache: int
    element: int
    batch: int


def effective(device: Device, condition: Condition) -> Effective:
    """Returns what a device's coefficients come to under a condition."""

    def value(quantity: str, kind: str | None = None) -> float:
        product = 1.0
        for name, power in terms(quantity, kind, condition):
            product *= device.coefficient(name) ** power
        return product

    def by_kind(quantity: str) -> Vector:
        return np.array([value(quantity, kind) for kind in KINDS])

    return Effective(
        overhead=value("overhead"),
        launch=by_kind("launch"),
        rate=by_kind("rate"),
        bandwidth=by_kind("bandwidth"),
        cached=value("cached"),
        pixels=value("pixels"),
        reduction=value("reduction"),
        channels=value("channels"),
        static=value("static"),
        mac=by_kind("mac"),
        byte=value("byte"),
        kernel=value("kernel"),
        cache=device.cache,
        element=device.precisions[condition.precision].bytes,
        batch=condition.batch,
    )


class Shapes:
    """Kernel shapes as arrays, one element a shape."""

    def __init__(self, shapes: Iterable[KernelShape]) -> None:
        """Takes the shapes in order."""
        self.shapes: Sequence[KernelShape] = tuple(shapes)
        self.kind = np.array([KINDS.index(shape.kind) for shape in self.shapes], dtype=np.int64)
        columns = np.array([shape[1:] for shape in self.shapes], dtype=np.float64).reshape(len(self.shapes), 8)
        self.macs, self.outputs, self.reduction, self.channels, self.read, self.written, self.weights, _ = columns.T
        self.fills = np.array([shape.kind in FILLING for shape in self.shapes], dtype=np.float64)
        self.shares = np.array([shape.kind in SHARING for shape in self.shapes], dtype=np.float64)


class Times(NamedTuple):
    """What kernels take [ms], shape [kernels], and the parts it is made of; `moved` are effective bytes."""

    total: Vector
    launch: Vector
    compute: Vector
    memory: Vector
    moved: Vector


def kernel_times(shapes: Shapes, given: Effective) -> Times:
    """Returns the time of every kernel, in milliseconds."""
    launch = given.launch[shapes.kind] * 1e-3
    by_pixels, by_reduction, by_channels = unfilled(shapes, given)
    filling = (1.0 + by_pixels) * (1.0 + by_reduction) * (1.0 + by_channels)
    compute = shapes.macs * given.batch * filling / given.rate[shapes.kind] * 1e-6
    moved = bytes_moved(shapes, given)
    memory = moved / given.bandwidth[shapes.kind] * 1e-6
    return Times(launch + np.cbrt(compute**3 + memory**3), launch, compute, memory, moved)


def unfilled(shapes: Shapes, given: Effective) -> tuple[Vector, Vector, Vector]:
    """Returns pixels / outputs, reduction / products and channels / width of every kernel, 0 where one has no part."""
    return (
        shapes.fills * given.pixels / np.maximum(shapes.outputs * given.batch, 1.0),
        shapes.shares * given.reduction / np.maximum(shapes.reduction, 1.0),
        shapes.shares * given.channels / shapes.channels,
    )


def bytes_moved(shapes: Shapes, given: Effective) -> Vector:
    """Returns the bytes that each kernel moves, those that the cache serves counted by the time they take."""
    activations = (shapes.read + shapes.written) * given.batch * given.element
    hit = 1.0 / (1.0 + (2.0 * activations / given.cache) ** 2)
    return shapes.weights * given.element + activations * (1.0 - hit + hit / given.cached)


def kernel_energy(shapes: Shapes, times: Times, given: Effective) -> Vector:
    """Returns the energy of every kernel, in millijoules, static power over its time included."""
    dynamic = given.mac[shapes.kind] * shapes.macs * given.batch * 1e-9 + given.byte * times.moved * 1e-9
    return given.static * times.total + dynamic + given.kernel * 1e-3
