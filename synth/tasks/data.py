"""What tasks share: the data folder, splits that depend on no library's version, and normalization."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gensynth.backends.examples import Labels, Normalization
from gensynth.ir import Array, DataError, UsageError

__all__ = [
    "Indices",
    "Pixels",
    "Statistics",
    "channel_statistics",
    "check_shares",
    "data_folder",
    "normalization_of",
    "normalize",
    "preprocessing_of",
    "random_split",
    "stratified_split",
]

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]
"""Images [n, C, H, W] as they lie in files, 0 to 255."""

Statistics = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Mean and standard deviation of every channel, each [C]."""

ENVIRONMENT = "GENSYNTH_DATA"

_BLOCK = 1 << 22
"""Pixels are summed up so many at a time."""


def data_folder(option: str | None, *, task: str, holds: str) -> Path:
    """Returns the folder of a task's data: the option, else the environment variable GENSYNTH_DATA.

    Raises:
        DataError: neither is given, or there is no such folder; `holds` says what should lie in it.
    """
    given = option or os.environ.get(ENVIRONMENT)
    if not given:
        raise DataError(
            f"task '{task}' does not know where its data are",
            hint=f"give the option data=FOLDER or set {ENVIRONMENT}; the folder holds {holds}",
        )
    folder = Path(given).expanduser()
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        source = "the option data" if option else ENVIRONMENT
        raise DataError(f"data folder {folder} of task '{task}' {what}", hint=f"{source} names it; it holds {holds}")
    return folder


def stratified_split(
    labels: Labels, shares: Mapping[str, float], *, seed: int, class_names: Sequence[str]
) -> dict[str, Indices]:
    """Returns the indices of every part, ascending: those of `shares`, and `train` with what they leave.

    Of n examples of a class a part with share s > 0 takes floor(s n + 1/2), at least one. Which ones: the examples are
    ordered by the raw 64-bit output of Philox (Salmon et al., SC 2011) keyed by (seed, class). The raw stream is fixed
    by the algorithm, where a library's shuffle may change between versions.

    Raises:
        DataError: a class has too few examples for every part.
    """
    chosen: dict[str, list[Indices]] = {part: [] for part in ("train", *shares)}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        random = np.random.Philox(key=np.array([seed, label], dtype=np.uint64))
        order = members[np.argsort(random.random_raw(len(members)), kind="stable")]
        start = 0
        for part, share in shares.items():
            stop = start + (max(1, int(share * len(members) + 0.5)) if share > 0 else 0)
            chosen[part].append(order[start:stop])
            start = stop
        if start >= len(members):
            parts = " and ".join(part for part, share in shares.items() if share > 0)
            raise DataError(
                f"class '{class_names[label]}' has {len(members)} examples, too few to take {parts} from them",
                hint="add examples, or lower those shares",
            )
        chosen["train"].append(order[start:])
    return {part: np.sort(np.concatenate(found)) for part, found in chosen.items()}


def random_split(count: int, shares: Mapping[str, float], *, seed: int, folder: Path) -> dict[str, Indices]:
    """Returns the indices of every part of `count` images, as `stratified_split` does where all are of one class.

    Raises:
        DataError: `folder`, where they lie, has too few for every part.
    """
    try:
        return stratified_split(np.zeros(count, np.int64), shares, seed=seed, class_names=("image",))
    except DataError:
        raise DataError(
            f"{folder} holds {count} images, too few to take {' and '.join(shares)} from them",
            hint="add images, or give those parts folders of their own",
        ) from None


def check_shares(task: str, *, validation: float, test: float, seed: int) -> None:
    """Raises UsageError unless the shares of a task's training images, and the seed that picks them, are possible."""
    for what, share in (("validation", validation), ("test", test)):
        if not 0 < share < 1:
            raise UsageError(f"task '{task}': {what} is {share}", hint="it is a share between 0 and 1")
    if validation + test >= 1:
        raise UsageError(
            f"task '{task}': validation {validation} and test {test} leave nothing to train on",
            hint="their sum is less than 1",
        )
    if not 0 <= seed < 2**63:
        raise UsageError(f"task '{task}': seed is {seed}", hint="it is from 0 to 2^63 - 1")


def channel_statistics(pixels: Pixels) -> Statistics:
    """Returns mean and standard deviation of every channel, summed in whole numbers; a constant channel counts as 1."""
    channels = pixels.shape[1]
    total, squares = np.zeros(channels, np.uint64), np.zeros(channels, np.uint64)
    images = max(1, _BLOCK // max(1, pixels[0].size))
    for start in range(0, len(pixels), images):
        block = pixels[start : start + images].astype(np.uint32)
        total += block.sum(axis=(0, 2, 3), dtype=np.uint64)
        squares += (block * block).sum(axis=(0, 2, 3), dtype=np.uint64)
    count = pixels.size // channels
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean * mean, 0.0))
    return mean, np.where(deviation > 1e-6, deviation, 1.0)


def normalization_of(statistics: Statistics) -> Normalization:
    """Returns the normalization by means and deviations, for examples that keep their pixels."""
    mean, deviation = (tuple(values.tolist()) for values in statistics)
    return Normalization(mean, deviation)


def preprocessing_of(statistics: Statistics) -> dict[str, object]:
    """Returns, for `Task.preprocessing`, how pixels from 0 to 255 are normalized."""
    mean, deviation = (values.tolist() for values in statistics)
    return {"order": "RGB" if len(mean) == 3 else "gray", "range": [0, 255], "mean": mean, "deviation": deviation}


def normalize(pixels: Pixels, statistics: Statistics) -> Array:
    """Returns (pixels - mean) / deviation, channel by channel, as float32 [n, C, H, W]."""
    mean, deviation = (values.astype(np.float32)[:, None, None] for values in statistics)
    scaled = pixels.astype(np.float32)
    scaled -= mean
    scaled /= deviation
    return scaled
