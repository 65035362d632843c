"""Random changes of training images, for whole tensors at once and from one generator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from gensynth.ir import UsageError

from .recipe import Augmentation

__all__ = ["augment", "mixup_of"]


def mixup_of(augmentations: tuple[Augmentation, ...]) -> float:
    """Returns the alpha of mixup, 0 where it is not among the augmentations."""
    return max((item.number("alpha") for item in augmentations if item.name == "mixup"), default=0.0)


def augment(images: Tensor, augmentations: tuple[Augmentation, ...], random: Generator) -> Tensor:
    """Returns changed copies of images [n, C, H, W]; `mixup` is left to the loss.

    Raises:
        UsageError: the inputs are no images, and an augmentation wants images.
    """
    for item in augmentations:
        if item.name == "mixup":
            continue
        if item.name == "noise":
            deviation = item.number("deviation")
            images = images + deviation * torch.randn(images.shape, generator=random).to(images.device)
            continue
        if images.ndim != 4:
            raise UsageError(
                f"augmentation '{item.name}' wants images [n, C, H, W], the examples are {list(images.shape)}",
                hint="drop it from the recipe",
            )
        if item.name == "flip":
            mirrored = torch.rand(len(images), generator=random) < item.number("probability")
            images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)
        elif item.name == "affine":
            images = _affine(images, item, random)
        elif item.name == "shift":
            images = _shift(images, int(item.number("pixels")), item.word("fill"), random)
        else:
            images = _shift(images, int(item.number("padding")), "zero", random)
    return images


def _shift(images: Tensor, pixels: int, fill: str, random: Generator) -> Tensor:
    count, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4, mode="replicate" if fill == "edge" else "constant")
    starts = torch.randint(0, 2 * pixels + 1, (2, count, 1), generator=random)
    rows = (starts[0] + torch.arange(height)).to(images.device)
    columns = (starts[1] + torch.arange(width)).to(images.device)
    which = torch.arange(count, device=images.device)
    moved = padded.permute(0, 2, 3, 1)[which[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def _affine(images: Tensor, item: Augmentation, random: Generator) -> Tensor:
    count = len(images)
    uniform = torch.rand((5, count), generator=random) * 2 - 1
    angle = uniform[0] * math.radians(item.number("degrees"))
    size = 1.0 + uniform[1] * item.number("scale")
    shear = uniform[2] * item.number("shear")
    move = uniform[3:] * 2 * item.number("translate")  # grid coordinates run from -1 to 1
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    matrices = torch.stack([cos, shear * cos - sin, move[0], sin, shear * sin + cos, move[1]], 1).reshape(count, 2, 3)
    grid = F.affine_grid(matrices.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
