"""The task `detection`: images and boxes around objects, in the layout of COCO."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gensynth.backends.examples import BOX_COLUMNS, Boxes, Examples
from gensynth.backends.torch.objectives import Detection, Objective
from gensynth.backends.torch.recipe import Augmentation
from gensynth.ir import DataError, UsageError
from gensynth.passes.base import option

from .base import register_task
from .coco import Annotated, read_annotations
from .data import (
    Pixels,
    check_shares,
    data_folder,
    normalization_of,
    random_split,
)
from .images import check_size, read_images, stored_size
from .pixels import PixelTask

__all__ = ["DetectionTask"]

_LAYOUT = "annotations/instances_train.json and train/IMAGE.jpg"
_FILES = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


@dataclass(frozen=True)
class _Part:
    folder: Path
    images: tuple[Annotated, ...]

    def take(self, indices: npt.NDArray[np.int64]) -> _Part:
        return _Part(self.folder, tuple(self.images[index] for index in indices))


@register_task("detection")
class DetectionTask(PixelTask):
    """Boxes around objects, in the layout of COCO: DATA/annotations/instances_train.json and train/IMAGE.jpg.

    Beside instances_train.json there may be instances_val.json (or instances_validation.json) and instances_test.json;
    a part without a file is taken from that of train at random. The images of instances_PART.json lie in DATA/PART/; a
    year may follow PART, as in instances_train2017.json and train2017/. Classes are the file's categories by rising id.
    Boxes are cut at the image, and those without area or marked iscrowd are left out; an image may have none.

    Images are stretched to `size`, whose height and width are multiples of `stride`, and normalized by mean and
    deviation of the training part. Networks tell coverage and corners for each cell of `stride` x `stride` pixels, as
    NVIDIA's DetectNet. Accuracy is the mean average precision at an intersection over union of 0.5 [%]. Images are held
    in memory as bytes.
    """

    data: str | None = option(
        default=None, help="the folder that holds annotations/ and train/; GENSYNTH_DATA by default"
    )
    size: tuple[int, ...] = option(default=(), help="height and width to bring every image to, or one number for both")
    stride: int = option(default=16, help="pixels along a side of a cell")
    unit: float = option(default=1.0, help="pixels that corners are counted in; 1 in NVIDIA's networks")
    grayscale: bool = option(default=False, help="one channel instead of three")
    validation: float = option(default=0.2, help="share of train for validation where there is no file for it")
    test: float = option(default=0.2, help="share of train for testing where there is no file for it")
    seed: int = option(default=0, help="decides which images of train those shares take")

    metric = "map_50"

    def __post_init__(self) -> None:
        check_size(self.name, self.size)
        check_shares(self.name, validation=self.validation, test=self.test, seed=self.seed)
        if self.stride < 1 or not 0 < self.unit < np.inf:
            what = "stride" if self.stride < 1 else "unit"
            raise UsageError(f"task '{self.name}': {what} is {getattr(self, what)}", hint="it is a number of pixels")
        if any(length % self.stride for length in self.size):
            shown = "x".join(map(str, self.size))
            raise UsageError(
                f"task '{self.name}': size is {shown}, no multiple of the stride of {self.stride} pixels",
                hint=f"give {self._rounded(self.size)}",
            )

    @cached_property
    def image(self) -> tuple[int, int, int]:
        channels = 1 if self.grayscale else 3
        if self.size:
            return (channels, self.size[0], self.size[-1])
        part = self._part("train")
        path = part.folder / part.images[0].file
        found = self._stored(path)
        if any(length % self.stride for length in found):
            raise DataError(
                f"{path} is {found[0]}x{found[1]} pixels (height x width), no multiple of the stride of {self.stride}",
                hint=f"give the option size, such as size={self._rounded(found)}, to bring all images to one size",
            )
        return (channels, *found)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._training_part[1]

    @property
    def objective(self) -> Objective:
        return Detection(self.classes, self.stride, self.unit)

    @property
    def augmentation(self) -> tuple[Augmentation, ...]:
        return (Augmentation("flip"), Augmentation("zoom"), Augmentation("color"))

    def load(self, name: str) -> Examples:
        pixels = self._kept_pixels(name)
        return Examples(pixels, self._boxes(name), normalization_of(self._statistics))

    def _rounded(self, size: tuple[int, ...]) -> str:
        return "x".join(str(max(1, round(length / self.stride)) * self.stride) for length in size)

    def _stored(self, path: Path) -> tuple[int, int]:
        if not path.is_file():
            raise DataError(
                f"{path} is missing, and the annotations name it", hint=f"the layout is {_LAYOUT}; fetch it again"
            )
        return stored_size(path, task=self.name)

    @cached_property
    def _files(self) -> dict[str, Path]:
        """The annotation file of each part that has one."""
        root = data_folder(self.data, task=self.name, holds=_LAYOUT)
        folder = root / "annotations"
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}", hint=f"the layout is {_LAYOUT}")
        files: dict[str, Path] = {}
        for part, words in _FILES.items():
            suffixes = [f"{word}{year}" for word in words for year in ("", "[0-9]" * 4)]
            found = sorted(path for suffix in suffixes for path in folder.glob(f"instances_{suffix}.json"))
            if len(found) > 1:
                raise DataError(f"{folder} holds both {found[0].name} and {found[1].name}", hint="keep one of them")
            if found:
                files[part] = found[0]
        if "train" not in files:
            raise DataError(f"there is no {folder / 'instances_train.json'}", hint=f"the layout is {_LAYOUT}")
        return files

    @cached_property
    def _training_part(self) -> tuple[dict[str, _Part], tuple[str, ...]]:
        """The parts that come from the training file, and its categories; no image is opened."""
        path = self._files["train"]
        found = read_annotations(path)
        every = _Part(_images_of(path), found.images)
        shares = {name: getattr(self, name) for name in ("validation", "test") if name not in self._files}
        if not shares:
            return {"train": every}, found.class_names
        chosen = random_split(len(every.images), shares, seed=self.seed, folder=every.folder)
        return {name: every.take(indices) for name, indices in chosen.items()}, found.class_names

    @cached_property
    def _other_parts(self) -> dict[str, _Part]:
        return {}

    def _part(self, name: str) -> _Part:
        """Returns the images of a part and what is in them; a file of its own is read when it is first asked for."""
        parts, class_names = self._training_part
        if name in parts:
            return parts[name]
        if name not in self._other_parts:
            path = self._files[name]
            found = read_annotations(path)
            if found.class_names != class_names:
                raise DataError(
                    f"{path} has the categories {', '.join(found.class_names)},"
                    f" {self._files['train'].name} has {', '.join(class_names)}",
                    hint="all parts have the same categories, by rising id",
                )
            self._other_parts[name] = _Part(_images_of(path), found.images)
        return self._other_parts[name]

    def _pixels(self, name: str) -> Pixels:
        part = self._part(name)
        paths = [part.folder / item.file for item in part.images]
        for path, item in zip(paths, part.images, strict=True):
            found = self._stored(path)
            if item.size not in (None, found):
                assert item.size is not None
                raise DataError(
                    f"{path} is {found[0]}x{found[1]} pixels (height x width), its annotations are for"
                    f" {item.size[0]}x{item.size[1]}",
                    hint="boxes are in pixels of the image as it is stored, whatever its EXIF data say",
                )
        return read_images(
            paths, self.image, task=self.name, grayscale=self.grayscale, resize=bool(self.size), upright=False
        )

    def _boxes(self, name: str) -> Boxes:
        """Returns the boxes of a part, in pixels of the images as they are stretched."""
        part = self._part(name)
        height, width = self.image[1:]
        found = []
        for item in part.images:
            rows, columns = self._stored(part.folder / item.file)
            scale = np.array([width / columns, height / rows] * 2)
            corners = (item.boxes[:, :4] * scale).clip(0, [width, height] * 2).astype(np.float32)
            solid = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
            found.append(np.concatenate([corners, item.boxes[:, 4:].astype(np.float32)], axis=1)[solid])
        boxes = np.full((len(found), max(1, *map(len, found)), BOX_COLUMNS), -1.0, np.float32)
        for index, rows_found in enumerate(found):
            boxes[index, : len(rows_found)] = rows_found
        if not any(map(len, found)):
            raise DataError(
                f"no image of {self._files.get(name, self._files['train'])} has a box, for {name}",
                hint="an image may have none, but not all of a part",
            )
        return boxes


def _images_of(annotations: Path) -> Path:
    """Returns the folder of the images of an annotation file."""
    folder = annotations.parent.with_name(annotations.stem.removeprefix("instances_"))
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", hint=f"it holds the images of {annotations.name}: {_LAYOUT}")
    return folder
