"""Labelled examples: what networks are trained, evaluated and probed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gensynth.ir import Array, DataError

__all__ = ["Examples", "Labels"]

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs, float32 [n, ...] (images: [n, C, H, W]), and their class labels, int64 [n].

    Raises:
        DataError: another dtype, lengths that differ, no example at all, a negative label or a non-finite input.
    """

    inputs: Array
    labels: Labels

    def __post_init__(self) -> None:
        for what, array, dtype in (("inputs", self.inputs, np.float32), ("labels", self.labels, np.int64)):
            if not isinstance(array, np.ndarray):
                raise DataError(f"{what} are a {type(array).__name__}", hint=f"give a NumPy array of {np.dtype(dtype)}")
            if array.dtype != dtype:
                raise DataError(
                    f"{what} are {array.dtype}, {np.dtype(dtype)} is wanted",
                    hint=f"convert them: {what}.astype(numpy.{np.dtype(dtype)})",
                )
        if self.labels.ndim != 1 or self.inputs.ndim < 2:
            raise DataError(
                f"inputs have shape {list(self.inputs.shape)} and labels {list(self.labels.shape)}",
                hint="inputs are [n, ...], an example a row; labels are [n], a class index an example",
            )
        if len(self.inputs) != len(self.labels):
            raise DataError(
                f"there are {len(self.inputs)} inputs and {len(self.labels)} labels", hint="every input has one label"
            )
        if not len(self.labels):
            raise DataError("there are no examples", hint="at least one is needed")
        if self.labels.min() < 0:
            raise DataError(
                f"label {int(self.labels.min())} at index {int(self.labels.argmin())} is negative",
                hint="labels count from 0",
            )
        if not np.isfinite(self.inputs).all():
            first = int(np.flatnonzero(~np.isfinite(self.inputs).reshape(len(self.inputs), -1).all(axis=1))[0])
            raise DataError(f"input {first} holds a NaN or an infinity", hint="clean the data or mask that example out")

    def __len__(self) -> int:
        return len(self.labels)

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
        return Examples(self.inputs[chosen], self.labels[chosen])
