"""What tasks share whose images are read from files: the training part is read once, and standardizes all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property

from .base import Task
from .data import Pixels, Statistics, channel_statistics, preprocessing_of

__all__ = ["PixelTask"]


class PixelTask(Task):
    """A task of pixels in files, each channel standardized by its mean and deviation over the training part."""

    @abstractmethod
    def _pixels(self, name: str) -> Pixels:
        """Reads the images of a part, uint8 [n, C, H, W]."""

    def _kept_pixels(self, name: str) -> Pixels:
        """Returns the images of a part; those of the training part are read once."""
        return self._training if name == "train" else self._pixels(name)

    @property
    def preprocessing(self) -> Mapping[str, object]:
        return preprocessing_of(self._statistics)

    @cached_property
    def _training(self) -> Pixels:
        return self._pixels("train")

    @cached_property
    def _statistics(self) -> Statistics:
        return channel_statistics(self._training)
