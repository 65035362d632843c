"""Labelled examples: what networks are trained, evaluated and probed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gensynth.ir import Array, DataError

__all__ = ["BOX_COLUMNS", "AnyLabels", "Boxes", "Examples", "LabelKind", "Labels", "Masks", "Normalization"]

Labels = npt.NDArray[np.int64]
"""A class for each example, [n]."""

Masks = npt.NDArray[np.uint8] | npt.NDArray[np.int64]
"""A class for each pixel, [n, H, W]."""

Boxes = npt.NDArray[np.float32]
"""Boxes of each example, [n, boxes, 5]: x1, y1, x2, y2 in pixels from the top left corner, and the class."""

AnyLabels = npt.NDArray[np.int64] | npt.NDArray[np.uint8] | npt.NDArray[np.float32]

LabelKind = Literal["classes", "masks", "boxes"]

BOX_COLUMNS = 5


@dataclass(frozen=True)
class Normalization:
    """How inputs are made from pixels: (pixel - mean) / deviation, each with a number for every channel."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        sound = len(self.mean) == len(self.deviation) > 0 and np.isfinite([*self.mean, *self.deviation]).all()
        if not sound or min(self.deviation) <= 0:
            raise DataError(
                f"a normalization has the means {list(self.mean)} and the deviations {list(self.deviation)}",
                hint="both have a number for each channel; deviations are positive",
            )

    def apply(self, pixels: npt.NDArray[np.uint8] | Array) -> Array:
        """Returns pixels [n, C, ...] as normalized float32."""
        shape = (len(self.mean),) + (1,) * (pixels.ndim - 2)
        scaled = pixels.astype(np.float32)
        scaled -= np.array(self.mean, np.float32).reshape(shape)
        scaled /= np.array(self.deviation, np.float32).reshape(shape)
        return scaled


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs and their labels, of one of three kinds.

    Inputs are float32 [n, ...] (images: [n, C, H, W]), or images as uint8 pixels with a `normalization`, by which they
    become float32 a batch at a time: a quarter of the memory.

    | kind | labels |
    | --- | --- |
    | classes | int64 [n], the class of each example |
    | masks | uint8 or int64 [n, H, W], the class of each pixel; objectives name one label that they ignore |
    | boxes | float32 [n, boxes, 5]: x1, y1, x2, y2 in pixels, and the class; rows of -1 fill up |

    Raises:
        DataError: another dtype or shape, lengths that differ, no example at all, a negative label, a box without area
            or a non-finite input.
    """

    inputs: Array | npt.NDArray[np.uint8]
    labels: AnyLabels
    normalization: Normalization | None = None

    def __post_init__(self) -> None:
        self._check_types()
        if len(self.inputs) != len(self.labels):
            raise DataError(
                f"there are {len(self.inputs)} inputs and {len(self.labels)} labels", hint="every input has one label"
            )
        if not len(self.labels):
            raise DataError("there are no examples", hint="at least one is needed")
        if self.kind == "boxes":
            _check_boxes(self.labels)
        elif self.labels.size and self.labels.min() < 0:
            first = np.unravel_index(int(self.labels.argmin()), self.labels.shape)
            where = int(first[0]) if len(first) == 1 else [int(index) for index in first]
            raise DataError(f"label {int(self.labels.min())} at index {where} is negative", hint="labels count from 0")
        if self.inputs.dtype == np.float32 and not np.isfinite(self.inputs).all():
            first_bad = int(np.flatnonzero(~np.isfinite(self.inputs).reshape(len(self.inputs), -1).all(axis=1))[0])
            raise DataError(
                f"input {first_bad} holds a NaN or an infinity", hint="clean the data or mask that example out"
            )

    def _check_types(self) -> None:
        given: tuple[tuple[str, object], ...] = (("inputs", self.inputs), ("labels", self.labels))
        for what, array in given:
            if not isinstance(array, np.ndarray):
                wanted = "float32" if what == "inputs" else "int64"
                raise DataError(f"{what} are a {type(array).__name__}", hint=f"give a NumPy array of {wanted}")
        inputs, labels = self.inputs, self.labels
        pixels = self.normalization is not None
        accepted: tuple[type[np.generic], ...] = (np.uint8,) if pixels else (np.float32,)
        _check_dtype("inputs with a normalization" if pixels else "inputs", inputs, accepted)
        boxes = labels.ndim == 3 and np.issubdtype(labels.dtype, np.floating)
        _check_dtype("labels", labels, (np.float32,) if boxes else (np.int64, np.uint8)[: 2 if labels.ndim == 3 else 1])
        fits = {1: True, 3: labels.shape[-1:] == (BOX_COLUMNS,) if boxes else inputs.shape[2:] == labels.shape[1:]}
        if inputs.ndim < 2 or not fits.get(labels.ndim, False) or (labels.ndim == 3 and inputs.ndim != 4):
            raise DataError(
                f"inputs have shape {list(inputs.shape)} and labels {list(labels.shape)}",
                hint="inputs are [n, ...], an example a row; labels are [n], a class an example, or for images"
                " [n, C, H, W] masks [n, H, W] or float32 boxes [n, boxes, 5]",
            )
        channels = inputs.shape[1] if self.normalization is None else len(self.normalization.mean)
        if inputs.shape[1] != channels:
            raise DataError(
                f"inputs have shape {list(inputs.shape)}, the normalization has {channels} channels",
                hint="it has a mean and a deviation for each channel",
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def kind(self) -> LabelKind:
        """What the labels are."""
        if self.labels.ndim == 1:
            return "classes"
        return "boxes" if self.labels.dtype == np.float32 else "masks"

    def normalized(self) -> Array:
        """Returns all inputs as float32, as networks take them; of pixels this makes an array four times as large."""
        if self.normalization is None:
            return self.inputs.astype(np.float32, copy=False)
        return self.normalization.apply(self.inputs)

    def sample(self, count: int, seed: int = 0) -> Examples:
        """Returns the first `count` examples of a shuffle fixed by `seed`, all of them where there are no more."""
        return self.subset(np.random.Generator(np.random.Philox(key=seed)).permutation(len(self))[:count])

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Examples:
        """Returns the examples at `indices`, in that order.

        Raises:
            DataError: an index is out of range, or there are none.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size and not (-len(self) <= chosen.min() and chosen.max() < len(self)):
            raise DataError(
                f"indices run from {int(chosen.min())} to {int(chosen.max())}, there are {len(self)} examples",
                hint=f"use 0 to {len(self) - 1}",
            )
        return Examples(self.inputs[chosen], self.labels[chosen], self.normalization)


def _check_dtype(what: str, array: npt.NDArray[np.generic], accepted: tuple[type[np.generic], ...]) -> None:
    if array.dtype not in accepted:
        names = [str(np.dtype(item)) for item in accepted]
        raise DataError(
            f"{what} are {array.dtype}, {' or '.join(names)} is wanted",
            hint=f"convert them: {what.split()[0]}.astype(numpy.{names[0]})",
        )


def _check_boxes(boxes: AnyLabels) -> None:
    """Raises DataError unless rows are boxes with an area and a whole class, or -1 throughout."""
    filled = boxes[..., 4] >= 0
    sound = np.isfinite(boxes).all(axis=-1) & (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    sound &= boxes[..., 4] == np.floor(boxes[..., 4])
    wrong = np.argwhere(np.where(filled, ~sound, (boxes != -1).any(axis=-1)))
    if len(wrong):
        example, row = map(int, wrong[0])
        shown = ", ".join(f"{value:g}" for value in boxes[example, row])
        raise DataError(
            f"box {row} of example {example} is [{shown}]",
            hint="a row is x1, y1, x2, y2 with x1 < x2 and y1 < y2, and a class from 0; rows of -1 fill up",
        )
