"""Images in files: where they lie, and how they become arrays."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gensynth.ir import DataError, UsageError

from .data import Pixels

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "MASK_SUFFIXES",
    "SUFFIXES",
    "another_size",
    "check_size",
    "image_files",
    "open_image",
    "open_mask",
    "read_images",
    "resize_mask",
    "stored_size",
    "validation_folder",
]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
MASK_SUFFIXES = frozenset({".bmp", ".gif", ".pgm", ".png", ".tif", ".tiff"})
"""Formats that keep the values of pixels."""


def check_size(task: str, size: tuple[int, ...]) -> None:
    """Raises UsageError unless the option `size` of a task is empty, one length, or height and width."""
    if len(size) > 2 or any(length < 1 for length in size):
        shown = "x".join(map(str, size))
        raise UsageError(f"task '{task}': size is {shown}", hint="it is height and width in pixels, such as 32x48")


def image_files(folder: Path, suffixes: frozenset[str] = SUFFIXES) -> list[Path]:
    """Returns the images of a folder by name; hidden files and those of other suffixes are passed over."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def validation_folder(root: Path) -> Path | None:
    """Returns the folder validation/ or val/ of a data folder, None where there is neither.

    Raises:
        DataError: there are both.
    """
    found = [root / name for name in ("validation", "val") if (root / name).is_dir()]
    if len(found) > 1:
        raise DataError(f"{root} holds both validation/ and val/", hint="keep one of them")
    return found[0] if found else None


def read_images(
    paths: Sequence[Path],
    image: tuple[int, int, int],
    *,
    task: str,
    grayscale: bool,
    resize: bool,
    upright: bool = True,
) -> Pixels:
    """Returns images [n, C, H, W] of the size `image`, [C, H, W], to which they are stretched if `resize`.

    Raises:
        DataError: an image cannot be read, or has another size.
    """
    pixels = np.empty((len(paths), *image), dtype=np.uint8)
    for index, path in enumerate(paths):
        size = image[1:] if resize else None
        found = open_image(path, task=task, grayscale=grayscale, size=size, upright=upright)
        if found.shape != image:
            raise another_size(path, found.shape[1:], image)
        pixels[index] = found
    return pixels


def another_size(path: Path, found: tuple[int, ...], image: tuple[int, int, int]) -> DataError:
    """Returns what is wrong with an image of `found` pixels (height, width) where all have the size `image`."""
    return DataError(
        f"{path} is {found[0]}x{found[1]} pixels (height x width), the first image of train/ is {image[1]}x{image[2]}",
        hint=f"give the option size, such as size={image[1]}x{image[2]}, to bring all images to one size",
    )


def open_image(
    path: Path, *, task: str, grayscale: bool = False, size: tuple[int, int] | None = None, upright: bool = True
) -> Pixels:
    """Returns one image [C, H, W], stretched bilinearly to `size`, and turned as its EXIF data say if `upright`.

    Raises:
        DataError: it cannot be read, or has more than 8 bits a channel.
        UsageError: there is no Pillow.
    """
    pillow, operations = _pillow(task)
    try:
        with pillow.open(path) as opened:
            _check_bits(path, opened)
            turned = operations.exif_transpose(opened) if upright else opened
            found = turned.convert("L" if grayscale else "RGB")
    except _unreadable(pillow) as error:
        raise DataError(f"cannot read image {path}: {error}", hint="replace the file or remove it") from None
    if size is not None and found.size != (size[1], size[0]):
        found = found.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
    pixels = np.asarray(found, dtype=np.uint8)
    return pixels[None] if grayscale else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def open_mask(path: Path, *, task: str) -> npt.NDArray[np.uint8]:
    """Returns a mask [H, W]: the gray value of each pixel, or its index where the image has a palette.

    Raises:
        DataError: it cannot be read, or is in color.
        UsageError: there is no Pillow.
    """
    pillow, _ = _pillow(task)
    try:
        with pillow.open(path) as opened:
            _check_bits(path, opened)
            if opened.mode not in ("1", "L", "P"):
                raise DataError(
                    f"mask {path} is in color ({opened.mode})",
                    hint="a mask is a gray or palette image; the value of a pixel is the number of its class",
                )
            return np.array(opened, dtype=np.uint8)
    except _unreadable(pillow) as error:
        raise DataError(f"cannot read mask {path}: {error}", hint="replace the file or remove it") from None


def resize_mask(mask: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Returns a mask [H, W] stretched to `size`: each pixel is the one that lies at its middle."""
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, mask.shape, strict=True))
    stretched: npt.NDArray[np.uint8] = mask[rows[:, None], columns]
    return stretched


def stored_size(path: Path, *, task: str) -> tuple[int, int]:
    """Returns height and width of an image as it is stored, without reading its pixels.

    Raises:
        DataError: it cannot be read.
        UsageError: there is no Pillow.
    """
    pillow, _ = _pillow(task)
    try:
        with pillow.open(path) as opened:
            return opened.height, opened.width
    except _unreadable(pillow) as error:
        raise DataError(f"cannot read image {path}: {error}", hint="replace the file or remove it") from None


def _check_bits(path: Path, opened: Image.Image) -> None:
    if opened.mode.startswith(("I", "F")):
        raise DataError(f"{path} has more than 8 bits a channel", hint="save it as an 8-bit image")


def _unreadable(pillow: ModuleType) -> tuple[type[Exception], ...]:
    return OSError, EOFError, SyntaxError, ValueError, struct.error, pillow.DecompressionBombError


def _pillow(task: str) -> tuple[ModuleType, ModuleType]:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise UsageError(f"task '{task}' needs Pillow", hint="pip install pillow") from None
    return Image, ImageOps
