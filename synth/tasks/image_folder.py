"""The task `image-folder`: a user's own images, a folder a class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gensynth.backends.examples import Examples, Labels
from gensynth.backends.torch.recipe import Augmentation
from gensynth.ir import DataError, nearest
from gensynth.passes.base import option

from .base import register_task
from .data import (
    Pixels,
    check_shares,
    data_folder,
    normalize,
    stratified_split,
)
from .images import SUFFIXES, check_size, image_files, open_image, read_images, validation_folder
from .pixels import PixelTask

__all__ = ["ImageFolder"]

_LAYOUT = "train/CLASS/IMAGE.png"


@dataclass(frozen=True)
class _Part:
    paths: tuple[Path, ...]
    labels: Labels


@register_task("image-folder")
class ImageFolder(PixelTask):
    """Your own images, a folder a class: DATA/train/CLASS/IMAGE.png.

    Beside train/ there may be validation/ (or val/) and test/; a part without a folder is taken from train/, stratified
    by class as `stratified_split` says. Files are PNG, JPEG, BMP, GIF (first frame), TIFF, WebP, PPM or PGM with 8 bits
    a channel; other files are passed over. Images are turned upright by their EXIF data, made RGB or gray, stretched to
    `size` where it is given, and normalized by mean and deviation of the training part. All images of a part are held
    in memory. The default augmentation moves images but does not mirror them, because letters and digits change their
    meaning; add "flip" to the recipe where yours do not.
    """

    data: str | None = option(default=None, help="the folder that holds train/; GENSYNTH_DATA by default")
    size: tuple[int, ...] = option(default=(), help="height and width to bring every image to, or one number for both")
    grayscale: bool = option(default=False, help="one channel instead of three")
    validation: float = option(default=0.2, help="share of train/ for validation where there is no folder for it")
    test: float = option(default=0.2, help="share of train/ for testing where there is no folder for it")
    seed: int = option(default=0, help="decides which images of train/ those shares take")

    def __post_init__(self) -> None:
        check_size(self.name, self.size)
        check_shares(self.name, validation=self.validation, test=self.test, seed=self.seed)

    @cached_property
    def image(self) -> tuple[int, int, int]:
        channels = 1 if self.grayscale else 3
        if self.size:
            return (channels, self.size[0], self.size[-1])
        first = open_image(self._parts["train"].paths[0], task=self.name, grayscale=self.grayscale)
        return (channels, *first.shape[1:])

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        folder = data_folder(self.data, task=self.name, holds=_LAYOUT) / "train"
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}", hint=f"the layout is {_LAYOUT}")
        names = _folders(folder)
        if not names:
            raise DataError(f"{folder} holds no class folders", hint=f"the layout is {_LAYOUT}")
        return names

    @property
    def augmentation(self) -> tuple[Augmentation, ...]:
        pixels = max(1, min(self.image[1:]) // 8)
        return (Augmentation("shift", (("pixels", pixels), ("fill", "edge"))),)

    def load(self, name: str) -> Examples:
        pixels = self._kept_pixels(name)
        return Examples(normalize(pixels, self._statistics), self._parts[name].labels)

    @cached_property
    def _parts(self) -> dict[str, _Part]:
        """What lies where, of every part: names of files only, no image is opened."""
        names = self.class_names
        root = data_folder(self.data, task=self.name, holds=_LAYOUT)
        parts = {"train": self._scan(root / "train")}
        validation = validation_folder(root)
        if validation is not None:
            parts["validation"] = self._scan(validation)
        if (root / "test").is_dir():
            parts["test"] = self._scan(root / "test")
        shares = {name: getattr(self, name) for name in ("validation", "test") if name not in parts}
        every = parts["train"]
        for name, chosen in stratified_split(every.labels, shares, seed=self.seed, class_names=names).items():
            parts[name] = _Part(tuple(every.paths[index] for index in chosen), every.labels[chosen])
        return parts

    def _scan(self, folder: Path) -> _Part:
        paths: list[Path] = []
        labels: list[int] = []
        for name in _folders(folder):
            if name not in self.class_names:
                raise DataError(
                    f"{folder / name} is a class that train/ lacks",
                    hint=nearest(name, self.class_names, what="classes of train/"),
                )
            found = image_files(folder / name)
            if not found:
                raise DataError(
                    f"class folder {folder / name} holds no images",
                    hint=f"images end in {', '.join(sorted(SUFFIXES))}; remove the folder if the class is not wanted",
                )
            paths += found
            labels += [self.class_names.index(name)] * len(found)
        if not paths:
            raise DataError(f"{folder} holds no class folders", hint="it has the same class folders as train/")
        return _Part(tuple(paths), np.array(labels, dtype=np.int64))

    def _pixels(self, name: str) -> Pixels:
        return read_images(
            self._parts[name].paths, self.image, task=self.name, grayscale=self.grayscale, resize=bool(self.size)
        )


def _folders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
