"""The objective of object detection on a grid of cells, as NVIDIA's DetectNet has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gensynth.ir import DataError, Graph, UsageError

from ...examples import AnyLabels, LabelKind
from .base import Meter, Objective, Outputs
from .boxes import Flags, Floats, Found, average_precision, cluster, match, operating_point

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Detection"]

_CORNERS = 4
_PROPOSALS = 500
"""At most so many proposals of a class in an image are clustered, the best."""


@dataclass(frozen=True)
class Detection(Objective):
    """Boxes of objects, told cell by cell on a grid of `stride` pixels.

    The network has one input [N, C, H, W] and two outputs on the grid, h = H / stride and w = W / stride (rounded
    either way): `coverage` f32[N, classes, h, w], 0 to 1 and behind a sigmoid already, and `bboxes` f32[N, 4, h, w] or
    [N, 4 classes, h, w], the corners x1, y1, x2, y2 of the object in a cell, counted from the cell's top left corner,
    in units of `unit` pixels (NVIDIA's networks: 1).

    Targets and losses are those of DetectNet (github.com/NVIDIA/caffe, detectnet_coverage_rectangular.cpp and
    examples/kitti/detectnet_network.prototxt). A box covers the cells that its centre part touches: the box shrunk to
    `shrink` of its width and height, yet at least `least` pixels, and no larger than the box. Where boxes overlap the
    smaller has the cell. The loss is
    coverage_weight / 2 sum over cells of (coverage - target)^2 / number of covered cells
    + box_weight mean over boxes of mean over its cells of sum over corners of |x - target| / size,
    the size being the box's width for x and its height for y, yet at least `stride`. (DetectNet divides both sums by
    the number of images, so that the learning rate must follow the grid's size, and by sizes however small.)

    Cells of a coverage of at least `threshold` propose boxes, which `boxes.cluster` merges where they overlap by
    `overlap`; the best `most` of a class in an image count. `map_50` is the mean over classes of COCO's average
    precision at an intersection over union of 0.5; `precision` and `recall`, over all classes, are those of the cut at
    the score where their harmonic mean is largest.

    Raises:
        UsageError: a value outside its range.
    """

    classes: int = 1
    stride: int = 16
    unit: float = 1.0
    shrink: float = 0.4
    least: float = 20.0
    coverage_weight: float = 1.0
    box_weight: float = 2.0
    threshold: float = 0.05
    overlap: float = 0.5
    most: int = 100

    kind: ClassVar[LabelKind] = "boxes"
    metrics: ClassVar[tuple[str, ...]] = ("map_50", "precision", "recall")

    def __post_init__(self) -> None:
        ranges = {
            "classes": (self.classes >= 1, "at least 1"),
            "stride": (self.stride >= 1, "at least 1"),
            "unit": (0 < self.unit < np.inf, "positive"),
            "shrink": (0 < self.shrink <= 1, "more than 0 and at most 1"),
            "least": (0 <= self.least < np.inf, "at least 0"),
            "coverage_weight": (0 <= self.coverage_weight < np.inf, "at least 0"),
            "box_weight": (0 <= self.box_weight < np.inf, "at least 0"),
            "threshold": (0 < self.threshold < 1, "between 0 and 1"),
            "overlap": (0 < self.overlap <= 1, "more than 0 and at most 1"),
            "most": (self.most >= 1, "at least 1"),
        }
        for name, (sound, text) in ranges.items():
            if not sound:
                raise UsageError(f"detection: {name} is {getattr(self, name)}", hint=f"it is {text}")

    def check_network(self, graph: Graph) -> None:
        types = [value.type for value in (*graph.inputs, *graph.outputs)]
        wanted = f"f32[N, {self.classes}, H/{self.stride}, W/{self.stride}]"
        if len(graph.inputs) != 1 or len(graph.outputs) != 2 or any(item.rank != 4 for item in types):
            raise UsageError(
                f"@{graph.name} does not detect objects",
                hint=f"it has one input f32[N, C, H, W] and returns coverage {wanted} and boxes of 4 channels",
            )
        image, *outputs = types
        cells = [{side // self.stride, -(-side // self.stride)} for side in image.sizes(1)[2:]]
        for what, found, channels in zip(
            ("coverage", "boxes"), outputs, ({self.classes}, {_CORNERS, _CORNERS * self.classes}), strict=True
        ):
            shape = found.sizes(1)
            on_grid = all(side in known for side, known in zip(shape[2:], cells, strict=True))
            if shape[1] not in channels or not on_grid or shape[2:] != outputs[0].sizes(1)[2:]:
                counts = " or ".join(map(str, sorted(channels)))
                raise UsageError(
                    f"@{graph.name} takes {image} and gives {what} {found}",
                    hint=f"{what} is f32[N, {counts}, H/{self.stride}, W/{self.stride}]: one cell for each"
                    f" {self.stride} x {self.stride} pixels, {self.classes} classes",
                )

    def check_labels(self, graph: Graph, labels: AnyLabels, what: str) -> None:
        largest = self.largest_class(labels)
        if largest >= self.classes:
            raise DataError(
                f"{what} have a box of class {largest}, there are {self.classes} classes",
                hint=f"classes run from 0 to {self.classes - 1}",
            )
        if largest < 0:
            raise DataError(f"the {what} have no box", hint="an image may have none, but not all of them")

    def largest_class(self, labels: AnyLabels) -> int:
        return int(labels[..., 4].max(initial=-1))

    def loss(self, outputs: Outputs, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        from .grid import grid_loss

        coverage, corners = outputs
        return grid_loss(self, coverage.float(), corners.float(), targets)

    def distillation(self, outputs: Outputs, taught: Outputs) -> Tensor:
        from .grid import grid_distance

        return grid_distance(self, outputs, taught)

    def detect(self, outputs: Outputs, *, image: tuple[int, int]) -> list[Found]:
        """Returns the detections in each image of a batch, the best first; boxes are cut at height and width."""
        coverage, corners = (tensor.detach().float().cpu().numpy().astype(np.float64) for tensor in outputs)
        return [self._decode(*pair, image) for pair in zip(coverage, corners, strict=True)]

    def _decode(self, coverage: Floats, corners: Floats, image: tuple[int, int]) -> Found:
        corners = corners.reshape(-1, _CORNERS, *corners.shape[1:])
        height, width = image
        parts: list[tuple[Floats, Floats, int]] = []
        for number, scores in enumerate(coverage):
            rows, columns = np.nonzero(scores >= self.threshold)
            found = scores[rows, columns]
            best = np.argsort(-found, kind="stable")[:_PROPOSALS]
            rows, columns, found = rows[best], columns[best], found[best]
            offsets = corners[number if len(corners) > 1 else 0][:, rows, columns].T * self.unit
            boxes = offsets + self.stride * np.stack([columns, rows, columns, rows], axis=1)
            boxes = boxes.clip(0, [width, height, width, height])
            solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
            merged, kept = cluster(boxes[solid], found[solid], self.overlap)
            parts.append((merged[: self.most], kept[: self.most], number))
        scores = np.concatenate([item[1] for item in parts])
        order = np.argsort(-scores, kind="stable")
        classes = np.concatenate([np.full(len(item[1]), item[2], np.int64) for item in parts])
        return Found(np.concatenate([item[0] for item in parts])[order], scores[order], classes[order])

    def meter(self, device: torch.device) -> Meter:
        return DetectionMeter(self)


class DetectionMeter(Meter):
    """Keeps the score of every detection and whether it is right."""

    def __init__(self, objective: Detection) -> None:
        self._objective = objective
        self._loss = 0.0
        self._count = 0
        self._truths = np.zeros(objective.classes, np.int64)
        self._scores: list[list[Floats]] = [[] for _ in range(objective.classes)]
        self._right: list[list[Flags]] = [[] for _ in range(objective.classes)]

    def update(self, outputs: Outputs, targets: Tensor) -> None:
        coverage, _ = outputs
        stride = self._objective.stride
        grid = coverage.shape[2] * stride, coverage.shape[3] * stride
        self._loss += float(self._objective.loss(outputs, targets)) * len(targets)
        self._count += len(targets)
        truth = targets.detach().cpu().numpy().astype(np.float64)
        for found, boxes in zip(self._objective.detect(outputs, image=grid), truth, strict=True):
            self.add(found, boxes)

    def add(self, found: Found, truth: Floats) -> None:
        """Takes in the detections of one image, and its true boxes [boxes, 5] (rows of -1 fill up)."""
        for number in range(self._objective.classes):
            mine = found.classes == number
            boxes = truth[truth[:, 4] == number, :_CORNERS]
            self._truths[number] += len(boxes)
            self._scores[number].append(found.scores[mine])
            self._right[number].append(match(found.boxes[mine], boxes, 0.5))

    @property
    def loss(self) -> float:
        return self._loss / max(1, self._count)

    def metrics(self) -> Mapping[str, float]:
        occur = [number for number, count in enumerate(self._truths) if count]
        pooled = [(np.concatenate(self._scores[number]), np.concatenate(self._right[number])) for number in occur]
        if not pooled:
            return {"map_50": 0.0, "precision": 0.0, "recall": 0.0}
        precisions = [
            average_precision(*pair, int(self._truths[number])) for pair, number in zip(pooled, occur, strict=True)
        ]
        scores, right = (np.concatenate(items) for items in zip(*pooled, strict=True))
        precision, recall, _ = operating_point(scores, right, int(self._truths.sum()))
        return {
            "map_50": 100.0 * float(np.mean(precisions)),
            "precision": 100.0 * precision,
            "recall": 100.0 * recall,
        }
