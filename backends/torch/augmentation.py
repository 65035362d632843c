"""Random changes of training images and of what labels them, for whole tensors at once and from one generator."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from gensynth.ir import UsageError

from .recipe import Augmentation

__all__ = ["augment", "augment_labelled", "mixup_of"]

VISIBLE = 0.25
"""A box of which less than this share stays inside the image is dropped."""


def mixup_of(augmentations: tuple[Augmentation, ...]) -> float:
    """Returns the alpha of mixup, 0 where it is not among the augmentations."""
    return max((item.number("alpha") for item in augmentations if item.name == "mixup"), default=0.0)


def augment(images: Tensor, augmentations: tuple[Augmentation, ...], random: Generator) -> Tensor:
    """Returns changed copies of images [n, C, H, W]; `mixup` is left to the loss.

    Raises:
        UsageError: the inputs are no images, and an augmentation wants images.
    """
    for item in augmentations:
        images, _ = _change(images, item, random)
    return images


def augment_labelled(
    images: Tensor, labels: Tensor, augmentations: tuple[Augmentation, ...], random: Generator, *, outside: int = 255
) -> tuple[Tensor, Tensor]:
    """Returns changed copies of images [n, C, H, W] and their labels, moved as the images are; `mixup` is left out.

    Labels are classes [n], which stay; masks [n, H, W], whose pixels from outside of the image get the label `outside`;
    or boxes [n, boxes, 5], each of which becomes the smallest box around its moved corners, cut at the image, or -1
    where less than a quarter of that stays inside.

    Raises:
        UsageError: the inputs are no images, and an augmentation wants images.
    """
    for item in augmentations:
        images, move = _change(images, item, random)
        if move is not None and labels.ndim == 3:
            height, width = images.shape[2:]
            follow = _move_boxes if labels.is_floating_point() else _move_masks
            labels = follow(labels, move.to(labels.device), height, width, outside)
    return images, labels


def _change(images: Tensor, item: Augmentation, random: Generator) -> tuple[Tensor, Tensor | None]:
    """Returns changed images, and how they moved: for each, [2, 3], the old place (x, y) of a new one (x, y, 1).

    Places are in pixels from the top left corner, so that the middle of the first pixel is (0.5, 0.5).
    """
    if item.name == "mixup":
        return images, None
    if item.name == "noise":
        deviation = item.number("deviation")
        return images + deviation * torch.randn(images.shape, generator=random).to(images.device), None
    if images.ndim != 4:
        raise UsageError(
            f"augmentation '{item.name}' wants images [n, C, H, W], the examples are {list(images.shape)}",
            hint="drop it from the recipe",
        )
    if item.name == "flip":
        return _flip(images, item, random)
    if item.name == "affine":
        return _affine(images, item, random)
    if item.name == "zoom":
        return _zoom(images, item, random)
    if item.name == "color":
        return _color(images, item, random), None
    if item.name == "shift":
        return _shift(images, int(item.number("pixels")), item.word("fill"), random)
    return _shift(images, int(item.number("padding")), "zero", random)


def _flip(images: Tensor, item: Augmentation, random: Generator) -> tuple[Tensor, Tensor]:
    mirrored = torch.rand(len(images), generator=random) < item.number("probability")
    flipped = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)
    sign = 1.0 - 2.0 * mirrored.float()
    return flipped, _moves(sign, 0.0, images.shape[3] * mirrored.float(), 0.0, 1.0, 0.0)


def _shift(images: Tensor, pixels: int, fill: str, random: Generator) -> tuple[Tensor, Tensor]:
    count, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4, mode="replicate" if fill == "edge" else "constant")
    starts = torch.randint(0, 2 * pixels + 1, (2, count, 1), generator=random)
    rows = (starts[0] + torch.arange(height)).to(images.device)
    columns = (starts[1] + torch.arange(width)).to(images.device)
    which = torch.arange(count, device=images.device)
    moved = padded.permute(0, 2, 3, 1)[which[:, None, None], rows[:, :, None], columns[:, None, :]]
    down, right = (starts[:, :, 0] - pixels).float()
    return moved.permute(0, 3, 1, 2).contiguous(), _moves(1.0, 0.0, right, 0.0, 1.0, down)


def _affine(images: Tensor, item: Augmentation, random: Generator) -> tuple[Tensor, Tensor]:
    count = len(images)
    uniform = torch.rand((5, count), generator=random) * 2 - 1
    angle = uniform[0] * math.radians(item.number("degrees"))
    size = 1.0 + uniform[1] * item.number("scale")
    shear = uniform[2] * item.number("shear")
    move = uniform[3:] * 2 * item.number("translate")  # grid coordinates run from -1 to 1
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    return _sample(images, [cos, shear * cos - sin, move[0], sin, shear * sin + cos, move[1]])


def _zoom(images: Tensor, item: Augmentation, random: Generator) -> tuple[Tensor, Tensor]:
    uniform = torch.rand((3, len(images)), generator=random)
    least, most = math.log(item.number("least")), math.log(item.number("most"))
    window = torch.exp(-(least + uniform[0] * (most - least)))  # as a share of the image's sides
    x, y = (2 * uniform[1:] - 1) * (1 - window)
    zero = torch.zeros_like(window)
    return _sample(images, [window, zero, x, zero, window, y])


def _color(images: Tensor, item: Augmentation, random: Generator) -> Tensor:
    count, channels = images.shape[:2]
    contrast = torch.rand((count, 1, 1, 1), generator=random) * 2 - 1
    brightness = torch.rand((count, channels, 1, 1), generator=random) * 2 - 1
    scale, offset = 1 + item.number("contrast") * contrast, item.number("brightness") * brightness
    return images * scale.to(images.device) + offset.to(images.device)


def _sample(images: Tensor, entries: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns images sampled where six numbers say, each [n], of 2 x 3 matrices on coordinates from -1 to 1."""
    matrices = torch.stack(entries, 1).reshape(len(images), 2, 3)
    grid = F.affine_grid(matrices.to(images.device), list(images.shape), align_corners=False)
    height, width = images.shape[2:]
    a, b, c, d, e, f = entries
    move = _moves(
        a, b * width / height, width / 2 * (1 + c - a - b), d * height / width, e, height / 2 * (1 + f - d - e)
    )
    return F.grid_sample(images, grid, align_corners=False), move


def _moves(*entries: Tensor | float) -> Tensor:
    """Returns [n, 2, 3] of six numbers, each [n] or one for all."""
    tensors = [torch.as_tensor(entry) for entry in entries]
    count = max(tensor.numel() for tensor in tensors)
    return torch.stack([tensor.expand(count) for tensor in tensors], 1).reshape(count, 2, 3)


def _move_masks(masks: Tensor, move: Tensor, height: int, width: int, outside: int) -> Tensor:
    ys = torch.arange(height, device=masks.device)[:, None] + 0.5
    xs = torch.arange(width, device=masks.device) + 0.5
    entries = move[..., None, None].unbind(2)
    old = (entries[0] * xs + entries[1] * ys + entries[2]).floor().long().unbind(1)
    inside = (old[0] >= 0) & (old[0] < width) & (old[1] >= 0) & (old[1] < height)
    flat = old[1].clamp(0, height - 1) * width + old[0].clamp(0, width - 1)
    moved = masks.flatten(1).gather(1, flat.flatten(1)).view_as(masks)
    return torch.where(inside, moved, torch.tensor(outside, dtype=masks.dtype, device=masks.device))


def _move_boxes(boxes: Tensor, move: Tensor, height: int, width: int, outside: int) -> Tensor:
    forward = torch.linalg.inv(torch.cat([move, move.new_tensor([[[0.0, 0.0, 1.0]]]).expand(len(move), 1, 3)], 1))
    xs, ys = boxes[..., [0, 2, 0, 2]], boxes[..., [1, 1, 3, 3]]
    corners = torch.einsum("nij,njbk->nibk", forward[:, :2], torch.stack([xs, ys, torch.ones_like(xs)], 1))
    low, high = corners.amin(3), corners.amax(3)  # each [n, 2, boxes]
    sides = torch.tensor([width, height], dtype=boxes.dtype, device=boxes.device)[None, :, None]
    first, last = torch.minimum(low.clamp(min=0), sides), torch.minimum(high.clamp(min=0), sides)
    kept = (last - first).prod(1) >= VISIBLE * (high - low).prod(1)
    kept &= ((last - first) > 0).all(1) & (boxes[..., 4] >= 0)
    moved = torch.cat([first, last], 1).transpose(1, 2)
    return torch.where(kept[..., None], torch.cat([moved, boxes[..., 4:]], 2), -1.0)
