"""The task `digits`: the handwritten digits that scikit-learn brings along."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from gensynth.backends.examples import Examples, Labels
from gensynth.backends.torch.recipe import Augmentation
from gensynth.ir import Array, UsageError

from .base import Task, register_task
from .data import Indices, stratified_split

__all__ = ["Digits"]

_MEAN, _DEVIATION = 4.9, 6.0
"""Of the training part's pixels (0 to 16), rounded."""

_SEED = 0


@register_task("digits")
class Digits(Task):
    """1,797 handwritten digits, 8x8, from scikit-learn: no download.

    They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI Machine Learning
    Repository, 1998, doi:10.24432/C50P49), written by 13 people; pixels count the ink in 4x4 blocks of a 32x32 scan, 0
    to 16. The split is fixed, 1,079 train, 359 validation and 359 test, stratified by class as `stratified_split`
    says. It mixes the writers, so accuracy is that on known hands. Pixels are given as (pixel - 4.9) / 6.
    """

    @property
    def image(self) -> tuple[int, int, int]:
        return (1, 8, 8)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple("0123456789")

    @property
    def augmentation(self) -> tuple[Augmentation, ...]:
        return (Augmentation("shift", (("pixels", 1), ("fill", "edge"))),)

    @property
    def preprocessing(self) -> Mapping[str, object]:
        return {"order": "gray", "range": [0, 16], "mean": [_MEAN], "deviation": [_DEVIATION]}

    def indices(self, name: str) -> Indices:
        """Returns where the examples of a part stand among the 1,797."""
        return self._indices[name]

    def load(self, name: str) -> Examples:
        images, labels = self._images
        chosen = self.indices(name)
        return Examples(images[chosen], labels[chosen])

    @cached_property
    def _images(self) -> tuple[Array, Labels]:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise UsageError("task 'digits' needs scikit-learn", hint="pip install scikit-learn") from None
        found = load_digits()
        images = np.asarray(found.images, dtype=np.float32).reshape(-1, 1, 8, 8)
        return (images - np.float32(_MEAN)) / np.float32(_DEVIATION), np.asarray(found.target, dtype=np.int64)

    @cached_property
    def _indices(self) -> dict[str, Indices]:
        shares = {"validation": 0.2, "test": 0.2}
        return stratified_split(self._images[1], shares, seed=_SEED, class_names=self.class_names)
