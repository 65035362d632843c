"""Targets on a grid of cells, and the loss of networks that detect objects there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .base import Outputs
    from .detection import Detection

__all__ = ["Targets", "grid_distance", "grid_loss", "grid_targets"]


class Targets(NamedTuple):
    """What cells should tell.

    `coverage` [n, classes, h, w] is 1 in covered cells; `owner` [n, groups, h, w] is the row of the box that has a
    cell, -1 where none has. There is one group for all classes together, or one for each.
    """

    coverage: Tensor
    owner: Tensor


def grid_targets(objective: Detection, boxes: Tensor, height: int, width: int, groups: int = 1) -> Targets:
    """Returns the targets of boxes [n, boxes, 5] on a grid of `height` x `width` cells; see `Detection`."""
    stride, real = objective.stride, boxes[..., 4] >= 0
    sizes = boxes[..., 2:4] - boxes[..., :2]
    middle = (boxes[..., :2] + boxes[..., 2:4]) / 2
    half = torch.minimum(sizes, (sizes * objective.shrink).clamp(min=objective.least)) / 2
    first, last = ((middle - half) / stride).floor(), ((middle + half) / stride).ceil()
    ys = torch.arange(height, device=boxes.device)[:, None]
    xs = torch.arange(width, device=boxes.device)
    touched = (
        (xs >= first[..., 0, None, None])
        & (xs < last[..., 0, None, None])
        & (ys >= first[..., 1, None, None])
        & (ys < last[..., 1, None, None])
        & real[..., None, None]
    )
    areas = sizes.prod(-1)[..., None, None].expand(touched.shape)
    coverage, owners = [], []
    for number in range(objective.classes):
        mine = touched & (boxes[..., 4] == number)[..., None, None]
        coverage.append(mine.any(1))
        if groups > 1:
            owners.append(_smallest(mine, areas))
    if groups == 1:
        owners.append(_smallest(touched, areas))
    return Targets(torch.stack(coverage, 1).to(boxes.dtype), torch.stack(owners, 1))


def _smallest(touched: Tensor, areas: Tensor) -> Tensor:
    least, row = torch.where(touched, areas, torch.inf).min(1)
    return torch.where(least < torch.inf, row, -1)


def grid_loss(objective: Detection, coverage: Tensor, corners: Tensor, boxes: Tensor) -> Tensor:
    """Returns the loss of a batch; see `Detection`. `corners` are [n, 4 groups, h, w], boxes [n, boxes, 5]."""
    count, rows = boxes.shape[:2]
    height, width = coverage.shape[2:]
    groups = corners.shape[1] // 4
    targets = grid_targets(objective, boxes, height, width, groups)
    errors = (coverage - targets.coverage).square().sum() / targets.coverage.sum().clamp(min=1)
    where = targets.owner >= 0
    image, group, y, x = where.nonzero(as_tuple=True)
    box = boxes[image, targets.owner[where]]
    cell = torch.stack([x, y, x, y], 1) * objective.stride
    size = (box[:, 2:4] - box[:, :2]).clamp(min=objective.stride).repeat(1, 2)
    found = corners.reshape(count, groups, 4, height, width)[image, group, :, y, x] * objective.unit + cell
    distance = ((found - box[:, :4]).abs() / size).sum(1)
    owner = (image * groups + group) * rows + targets.owner[where]
    cells = torch.bincount(owner, minlength=count * groups * rows)
    objects = (cells > 0).sum().clamp(min=1)
    offset: Tensor = (distance / cells[owner]).sum() / objects
    return 0.5 * objective.coverage_weight * errors + objective.box_weight * offset


def grid_distance(objective: Detection, outputs: Outputs, taught: Outputs) -> Tensor:
    """Returns how far coverage and corners are from those of a better network, weighed as the loss weighs them.

    Corners count where the better network sees an object, as much as it does, in units of cells.
    """
    (coverage, corners), (wanted, places) = outputs, taught
    groups = corners.shape[1] // 4
    seen = wanted if groups > 1 else wanted.amax(1, keepdim=True)
    errors = (coverage.float() - wanted).square().sum() / wanted.sum().clamp(min=1)
    apart = (corners.float() - places).unflatten(1, (groups, 4)).abs().sum(2) * objective.unit / objective.stride
    distance: Tensor = (apart * seen).sum() / seen.sum().clamp(min=1)
    return 0.5 * objective.coverage_weight * errors + objective.box_weight * distance
