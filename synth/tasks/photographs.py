"""The task `photographs`: crops of the two photographs that scikit-learn brings along."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from gensynth.backends.examples import Examples
from gensynth.ir import UsageError
from gensynth.passes.base import option

from .base import SPLITS, Task, register_task
from .data import Pixels, Statistics, channel_statistics, normalize, preprocessing_of

__all__ = ["Photographs"]

_SIZES = {"train": 512, "validation": 128, "test": 128}
_LEAST = 0.1
"""The smallest crop, as a share of the largest."""


@register_task("photographs")
class Photographs(Task):
    """Crops of scikit-learn's two sample photographs, for probes where no data are at hand: no download.

    Crops have random places and scales, 512 to train on, 128 for validation and 128 to test, and are normalized by mean
    and deviation of the training part. Labels go round and mean nothing: networks can be probed on them, but learn
    nothing of use.
    """

    image: tuple[int, int, int] = option(default=(3, 32, 32), help="channels (3, or 1 for gray), height and width")
    classes: int = option(default=10, help="how many classes there are labels of")

    def __post_init__(self) -> None:
        given: tuple[int, ...] = self.image
        if len(given) != 3 or given[0] not in (1, 3) or min(given) < 1:
            shown = "x".join(map(str, given))
            raise UsageError(
                f"task '{self.name}': image is {shown}", hint="it is channels, 1 or 3, height and width, as in 3x32x32"
            )
        if not 1 <= self.classes <= min(_SIZES.values()):
            raise UsageError(
                f"task '{self.name}': classes is {self.classes}", hint=f"it is from 1 to {min(_SIZES.values())}"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.classes)))

    @property
    def preprocessing(self) -> Mapping[str, object]:
        return preprocessing_of(self._statistics)

    def load(self, name: str) -> Examples:
        pixels = self._training if name == "train" else self._crops(name)
        return Examples(normalize(pixels, self._statistics), np.arange(len(pixels), dtype=np.int64) % self.classes)

    @cached_property
    def _training(self) -> Pixels:
        return self._crops("train")

    @cached_property
    def _statistics(self) -> Statistics:
        return channel_statistics(self._training)

    def _crops(self, name: str) -> Pixels:
        """Returns crops [n, C, H, W] as tall and wide as asked for."""
        try:
            from PIL import Image
            from sklearn.datasets import load_sample_images
        except ImportError:
            raise UsageError(
                f"task '{self.name}' needs scikit-learn and Pillow", hint="pip install scikit-learn pillow"
            ) from None
        channels, height, width = self.image
        photographs = [
            Image.fromarray(found).convert("RGB" if channels == 3 else "L") for found in load_sample_images().images
        ]
        random = np.random.Generator(np.random.Philox(key=SPLITS.index(name)))
        crops = np.empty((_SIZES[name], *self.image), np.uint8)
        for crop in crops:
            photograph = photographs[int(random.integers(len(photographs)))]
            largest = min(photograph.width / width, photograph.height / height)
            scale = largest * _LEAST ** random.random()
            left = random.random() * (photograph.width - scale * width)
            top = random.random() * (photograph.height - scale * height)
            box = (left, top, min(left + scale * width, photograph.width), min(top + scale * height, photograph.height))
            found = np.asarray(photograph.resize((width, height), Image.Resampling.BILINEAR, box=box))
            crop[...] = found.transpose(2, 0, 1) if channels == 3 else found
        return crops
