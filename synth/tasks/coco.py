"""Annotations of boxes in COCO's JSON files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gensynth.ir import DataError

__all__ = ["Annotated", "Annotations", "read_annotations"]

_FORMAT = 'it is {"images": [...], "annotations": [...], "categories": [...]}, see cocodataset.org/#format-data'


@dataclass(frozen=True)
class Annotated:
    """One image: its file's name, its size (height, width) where the file says so, and its boxes.

    Boxes are float64 [boxes, 5]: x1, y1, x2, y2 in pixels, and the index of the class.
    """

    file: str
    size: tuple[int, int] | None
    boxes: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Annotations:
    """The images of a file, and the names of its categories by rising id."""

    images: tuple[Annotated, ...]
    class_names: tuple[str, ...]


def read_annotations(path: Path) -> Annotations:
    """Returns what an annotation file says; boxes marked `iscrowd` are left out, as they stand for many objects.

    Raises:
        DataError: the file cannot be read, or is not in COCO's format.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}", hint=_FORMAT) from None
    images, annotations, categories = (_table(path, content, key) for key in ("images", "annotations", "categories"))
    names = {_whole(path, "category", item, "id"): _text(path, "category", item, "name") for item in categories}
    if not names or len(set(names.values())) < len(categories):
        problem = "two categories of an id or name" if names else "no category"
        raise DataError(f"{path} has {problem}", hint="each category has an id and a name of its own")
    index = {identifier: number for number, identifier in enumerate(sorted(names))}
    boxes: dict[int, list[list[float]]] = {_whole(path, "image", item, "id"): [] for item in images}
    if len(boxes) < len(images):
        raise DataError(f"{path} has two images of an id", hint="each image has an id of its own")
    for item in annotations:
        image, category = (_whole(path, "annotation", item, key) for key in ("image_id", "category_id"))
        if image not in boxes or category not in index:
            what = f"image {image}" if image not in boxes else f"category {category}"
            raise DataError(f"{path}: an annotation is of {what}, which the file does not have", hint=_FORMAT)
        if not item.get("iscrowd"):
            x, y, width, height = _corners(path, item)
            boxes[image].append([x, y, x + width, y + height, index[category]])
    found = [
        Annotated(
            _text(path, "image", item, "file_name"),
            _size(path, item),
            np.array(boxes[_whole(path, "image", item, "id")], np.float64).reshape(-1, 5),
        )
        for item in images
    ]
    if not found:
        raise DataError(f"{path} has no image", hint=_FORMAT)
    return Annotations(tuple(found), tuple(names[identifier] for identifier in sorted(names)))


def _table(path: Path, content: object, key: str) -> list[Mapping[str, object]]:
    found = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(item, Mapping) for item in found):
        raise DataError(f"{path} has no list of {key}", hint=_FORMAT)
    return found


def _shown(item: Mapping[str, object]) -> str:
    text = json.dumps(item)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _whole(path: Path, what: str, item: Mapping[str, object], key: str) -> int:
    value = item.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{path}: {what} {_shown(item)} has no whole number {key}", hint=_FORMAT)
    return value


def _text(path: Path, what: str, item: Mapping[str, object], key: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{path}: {what} {_shown(item)} has no {key}", hint=_FORMAT)
    return value


def _size(path: Path, item: Mapping[str, object]) -> tuple[int, int] | None:
    if "width" not in item and "height" not in item:
        return None
    return _whole(path, "image", item, "height"), _whole(path, "image", item, "width")


def _corners(path: Path, item: Mapping[str, object]) -> tuple[float, float, float, float]:
    box = item.get("bbox")
    values = [float(value) for value in box if isinstance(value, (int, float))] if isinstance(box, list) else []
    if len(values) != 4 or not all(map(math.isfinite, values)) or min(values[2:]) < 0:
        raise DataError(
            f"{path}: annotation {_shown(item)} has no sound bbox",
            hint="it is [x, y, width, height] in pixels, from the top left corner",
        )
    return values[0], values[1], values[2], values[3]
