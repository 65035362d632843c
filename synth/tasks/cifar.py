"""The tasks `cifar10` and `cifar100`: data in the binary layout of CIFAR (Krizhevsky, 2009)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from gensynth.backends.examples import Examples, Labels
from gensynth.backends.torch.recipe import Augmentation
from gensynth.ir import DataError, UsageError
from gensynth.passes.base import option

from .base import Task, register_task
from .data import Pixels, Statistics, channel_statistics, data_folder, normalize, preprocessing_of

__all__ = ["Cifar10", "Cifar100"]

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True, eq=False, kw_only=True)
class _Cifar(Task):
    """Records of label bytes (the last one counts) and 3 planes of 32x32 pixels, red, green, blue, row by row."""

    folder: ClassVar[str]
    train_files: ClassVar[tuple[str, ...]]
    test_file: ClassVar[str]
    names_file: ClassVar[str]
    label_bytes: ClassVar[int]

    data: str | None = option(default=None, help="the folder, or the one that holds it; GENSYNTH_DATA by default")
    validation: int = option(default=5000, help="how many images at the end of the training files are for validation")

    def __post_init__(self) -> None:
        if self.validation < 1:
            raise UsageError(f"task '{self.name}': validation is {self.validation}", hint="it is at least 1")

    @property
    def image(self) -> tuple[int, int, int]:
        return (3, 32, 32)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        path = self._folder / self.names_file
        try:
            names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {path}: {error}", hint="it holds a class name a line") from None
        if not names:
            raise DataError(f"{path} names no class", hint="it holds a class name a line")
        return names

    @property
    def augmentation(self) -> tuple[Augmentation, ...]:
        return (Augmentation("crop", (("padding", 4),)), Augmentation("flip"))

    @property
    def preprocessing(self) -> Mapping[str, object]:
        return preprocessing_of(self._statistics)

    def load(self, name: str) -> Examples:
        if name == "test":
            pixels, labels = self._read((self.test_file,))
        else:
            pixels, labels = self._training
            kept = slice(None, -self.validation) if name == "train" else slice(-self.validation, None)
            pixels, labels = pixels[kept], labels[kept]
        return Examples(normalize(pixels, self._statistics), labels)

    @cached_property
    def _folder(self) -> Path:
        """The folder, with all its files there and of a possible size; none of them is read."""
        given = data_folder(self.data, task=self.name, holds=f"{self.folder}/")
        files = (*self.train_files, self.test_file, self.names_file)
        folder = given if any((given / name).is_file() for name in files) else given / self.folder
        if not folder.is_dir():
            raise DataError(
                f"there is no {self.folder}/ in {given}", hint=f"unpack the binary version of {self.name} there"
            )
        record = self.label_bytes + _PIXELS
        for name in files:
            path = folder / name
            if not path.is_file():
                raise DataError(
                    f"{path} is missing", hint=f"unpack the binary version of {self.name} again, it has this file"
                )
            size = path.stat().st_size
            if name != self.names_file and (size == 0 or size % record):
                raise DataError(
                    f"{path} has {size} bytes, no multiple of {record} ({self.label_bytes} label + {_PIXELS} pixels)",
                    hint="the file is cut short or not in the binary layout; fetch it again",
                )
        return folder

    def _read(self, names: tuple[str, ...]) -> tuple[Pixels, Labels]:
        parts = []
        for name in names:
            path = self._folder / name
            try:
                records = np.fromfile(path, dtype=np.uint8).reshape(-1, self.label_bytes + _PIXELS)
            except (OSError, ValueError) as error:
                raise DataError(f"cannot read {path}: {error}", hint="fetch the file again") from None
            labels = records[:, self.label_bytes - 1]
            wrong = np.flatnonzero(labels >= self.classes)
            if len(wrong):
                raise DataError(
                    f"{path}: record {wrong[0]} has label {labels[wrong[0]]}, there are {self.classes} classes",
                    hint=f"labels count from 0; {self.names_file} names the classes",
                )
            parts.append(records)
        joined = np.concatenate(parts)
        pixels = joined[:, self.label_bytes :].reshape(-1, 3, 32, 32)
        return pixels, joined[:, self.label_bytes - 1].astype(np.int64)

    @cached_property
    def _training(self) -> tuple[Pixels, Labels]:
        pixels, labels = self._read(self.train_files)
        if self.validation >= len(labels):
            raise DataError(
                f"task '{self.name}': validation={self.validation} leaves nothing of {len(labels)} training images",
                hint="give a smaller validation",
            )
        return pixels, labels

    @cached_property
    def _statistics(self) -> Statistics:
        return channel_statistics(self._training[0][: -self.validation])


@register_task("cifar10")
class Cifar10(_Cifar):
    """CIFAR-10, or your own data in its binary layout.

    Images are 3x32x32. Files in cifar-10-batches-bin/: data_batch_1.bin to data_batch_5.bin, test_batch.bin,
    batches.meta.txt (a class name a line). Pixels are normalized by mean and deviation of the training part. The
    format: https://www.cs.toronto.edu/~kriz/cifar.html.
    """

    folder = "cifar-10-batches-bin"
    train_files = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
    test_file = "test_batch.bin"
    names_file = "batches.meta.txt"
    label_bytes = 1


@register_task("cifar100")
class Cifar100(_Cifar):
    """CIFAR-100 with its fine labels, or your own data in its binary layout.

    Images are 3x32x32. Files in cifar-100-binary/: train.bin, test.bin, fine_label_names.txt; a record begins with the
    coarse and the fine label. Pixels are normalized by mean and deviation of the training part. The format:
    https://www.cs.toronto.edu/~kriz/cifar.html.
    """

    folder = "cifar-100-binary"
    train_files = ("train.bin",)
    test_file = "test.bin"
    names_file = "fine_label_names.txt"
    label_bytes = 2
