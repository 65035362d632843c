"""The task `image-folder`: a user's own images, a folder a class."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

import numpy as np

from gensynth.backends.examples import Examples, Labels
from gensynth.backends.torch.recipe import Augmentation
from gensynth.ir import DataError, UsageError, nearest
from gensynth.passes.base import option

from .base import Task, register_task
from .data import Pixels, Statistics, channel_statistics, data_folder, normalize, preprocessing_of, stratified_split

__all__ = ["ImageFolder"]

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_LAYOUT = "train/CLASS/IMAGE.png"


@dataclass(frozen=True)
class _Part:
    paths: tuple[Path, ...]
    labels: Labels


@register_task("image-folder")
class ImageFolder(Task):
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
        if len(self.size) > 2 or any(length < 1 for length in self.size):
            shown = "x".join(map(str, self.size))
            raise UsageError(
                f"task '{self.name}': size is {shown}", hint="it is height and width in pixels, such as 32x48"
            )
        for share in ("validation", "test"):
            if not 0 < getattr(self, share) < 1:
                raise UsageError(
                    f"task '{self.name}': {share} is {getattr(self, share)}", hint="it is a share between 0 and 1"
                )
        if self.validation + self.test >= 1:
            raise UsageError(
                f"task '{self.name}': validation {self.validation} and test {self.test} leave nothing to train on",
                hint="their sum is less than 1",
            )
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"task '{self.name}': seed is {self.seed}", hint="it is from 0 to 2^63 - 1")

    @cached_property
    def image(self) -> tuple[int, int, int]:
        channels = 1 if self.grayscale else 3
        if self.size:
            return (channels, self.size[0], self.size[-1])
        first = _open(self._parts["train"].paths[0], grayscale=self.grayscale, size=None)
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

    @property
    def preprocessing(self) -> Mapping[str, object]:
        return preprocessing_of(self._statistics)

    def load(self, name: str) -> Examples:
        pixels = self._training if name == "train" else self._pixels(name)
        return Examples(normalize(pixels, self._statistics), self._parts[name].labels)

    @cached_property
    def _parts(self) -> dict[str, _Part]:
        """What lies where, of every part: names of files only, no image is opened."""
        names = self.class_names
        root = data_folder(self.data, task=self.name, holds=_LAYOUT)
        parts = {"train": self._scan(root / "train")}
        found = [root / name for name in ("validation", "val") if (root / name).is_dir()]
        if len(found) > 1:
            raise DataError(f"{root} holds both validation/ and val/", hint="keep one of them")
        if found:
            parts["validation"] = self._scan(found[0])
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
            found = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in _SUFFIXES)
            found = [path for path in found if path.is_file() and not path.name.startswith(".")]
            if not found:
                raise DataError(
                    f"class folder {folder / name} holds no images",
                    hint=f"images end in {', '.join(sorted(_SUFFIXES))}; remove the folder if the class is not wanted",
                )
            paths += found
            labels += [self.class_names.index(name)] * len(found)
        if not paths:
            raise DataError(f"{folder} holds no class folders", hint="it has the same class folders as train/")
        return _Part(tuple(paths), np.array(labels, dtype=np.int64))

    def _pixels(self, name: str) -> Pixels:
        return _read(self._parts[name].paths, self.image, resize=bool(self.size))

    @cached_property
    def _training(self) -> Pixels:
        return self._pixels("train")

    @cached_property
    def _statistics(self) -> Statistics:
        return channel_statistics(self._training)


def _folders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def _read(paths: Sequence[Path], image: tuple[int, int, int], *, resize: bool) -> Pixels:
    pixels = np.empty((len(paths), *image), dtype=np.uint8)
    for index, path in enumerate(paths):
        found = _open(path, grayscale=image[0] == 1, size=image[1:] if resize else None)
        if found.shape != image:
            raise DataError(
                f"{path} is {found.shape[1]}x{found.shape[2]} pixels (height x width), "
                f"the first image of train/ is {image[1]}x{image[2]}",
                hint=f"give the option size, such as size={image[1]}x{image[2]}, to bring all images to one size",
            )
        pixels[index] = found
    return pixels


def _open(path: Path, *, grayscale: bool, size: tuple[int, int] | None) -> Pixels:
    """Returns one image [C, H, W]."""
    pillow, operations = _pillow()
    try:
        with pillow.open(path) as opened:
            if opened.mode.startswith(("I", "F")):
                raise DataError(f"{path} has more than 8 bits a channel", hint="save it as an 8-bit image")
            found = operations.exif_transpose(opened).convert("L" if grayscale else "RGB")
    except (OSError, EOFError, SyntaxError, ValueError, struct.error, pillow.DecompressionBombError) as error:
        raise DataError(f"cannot read image {path}: {error}", hint="replace the file or remove it") from None
    if size is not None and found.size != (size[1], size[0]):
        found = found.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
    pixels = np.asarray(found, dtype=np.uint8)
    return pixels[None] if grayscale else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _pillow() -> tuple[ModuleType, ModuleType]:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise UsageError("task 'image-folder' needs Pillow", hint="pip install pillow") from None
    return Image, ImageOps
