"""The objective of semantic segmentation: one class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gensynth.ir import DataError, Graph, UsageError

from ...examples import AnyLabels, LabelKind, Masks
from .base import Meter, Objective, Outputs, divergence

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Segmentation", "median_frequency_weights"]


@dataclass(frozen=True)
class Segmentation(Objective):
    """One class for each pixel, but for those labelled `ignore`: cross-entropy [nats], weighted by class.

    The network has one input [N, C, H, W] and gives logits f32[N, classes, h, w]; where they are smaller than the masks
    they are upsampled bilinearly (align_corners=False) before loss and metrics. `class_weights` (none: all 1) weigh the
    loss of each pixel by its class, and the mean over a batch is the weighted one.

    Metrics, over the pixels that are not ignored (Long et al., arXiv 1411.4038, section 5): `pixel_accuracy`, the share
    of right pixels; `class_accuracy`, the mean over the classes that occur of the share of their pixels that is right;
    `mean_iou`, the mean over the classes that occur or are predicted of intersection over union.

    Raises:
        UsageError: fewer than two classes, an `ignore` that is a class, or weights that do not fit.
    """

    classes: int
    ignore: int = 255
    class_weights: tuple[float, ...] = ()

    kind: ClassVar[LabelKind] = "masks"
    metrics: ClassVar[tuple[str, ...]] = ("pixel_accuracy", "class_accuracy", "mean_iou")
    smooths: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise UsageError(f"segmentation into {self.classes} classes", hint="there are at least 2")
        if 0 <= self.ignore < self.classes:
            raise UsageError(
                f"segmentation ignores the label {self.ignore}, which is one of its {self.classes} classes",
                hint=f"classes are 0 to {self.classes - 1}; ignore another label, such as 255",
            )
        weights = self.class_weights
        if weights and (len(weights) != self.classes or not all(0 <= weight < np.inf for weight in weights)):
            raise UsageError(
                f"segmentation into {self.classes} classes has the class weights {list(weights)}",
                hint="give a weight of at least 0 for each class, or none",
            )

    @property
    def outside(self) -> int:
        return self.ignore

    def check_network(self, graph: Graph) -> None:
        types = [value.type for value in (*graph.inputs, *graph.outputs)]
        if len(graph.inputs) != 1 or len(graph.outputs) != 1 or any(item.rank != 4 for item in types):
            raise UsageError(
                f"@{graph.name} does not segment images",
                hint=f"it has one input f32[N, C, H, W] and returns one f32[N, {self.classes}, h, w]",
            )
        image, logits = types
        if logits.shape[1] != self.classes:
            raise UsageError(
                f"@{graph.name} gives {logits}, and there are {self.classes} classes",
                hint=f"make the network for {self.classes} classes",
            )
        if any(ours > whole for ours, whole in zip(logits.sizes(1)[2:], image.sizes(1)[2:], strict=True)):
            raise UsageError(
                f"@{graph.name} takes {image} and gives {logits}, more pixels than the image has",
                hint="logits are as large as the image or smaller; they are upsampled to its size",
            )

    def check_labels(self, graph: Graph, labels: AnyLabels, what: str) -> None:
        largest = self.largest_class(labels)
        if largest >= self.classes:
            raise DataError(
                f"{what} have a pixel of label {largest}, there are {self.classes} classes",
                hint=f"labels run from 0 to {self.classes - 1}, and {self.ignore} is ignored",
            )
        if largest < 0:
            raise DataError(f"every pixel of the {what} is ignored", hint=f"{self.ignore} is the label that is ignored")

    def largest_class(self, labels: AnyLabels) -> int:
        signed = (mask.astype(np.int64) for mask in labels)  # one by one, which keeps the copies small
        return max((int(np.max(mask, where=mask != self.ignore, initial=-1)) for mask in signed), default=-1)

    def loss(self, outputs: Outputs, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        total, weight = self.total_loss(self.logits(outputs, targets), targets, smoothing)
        return total / weight.clamp(min=1e-12)

    def logits(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Returns the logits [n, classes, H, W] as large as the masks, in float32."""
        import torch.nn.functional as F

        assert not isinstance(outputs, tuple)
        scores = outputs.float()
        if scores.shape[2:] != targets.shape[1:]:
            scores = F.interpolate(scores, size=targets.shape[1:], mode="bilinear", align_corners=False)
        return scores

    def total_loss(self, logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Returns the weighted sum of the pixels' losses, and the sum of their weights."""
        import torch
        import torch.nn.functional as F

        weights = torch.tensor(self.class_weights or (1.0,) * self.classes, device=logits.device)
        targets = targets.long()
        total = F.cross_entropy(
            logits,
            targets,
            weight=weights if self.class_weights else None,
            ignore_index=self.ignore,
            label_smoothing=smoothing,
            reduction="sum",
        )
        kept = targets != self.ignore
        if not self.class_weights:
            return total, kept.sum().to(total.dtype)
        return total, (weights[torch.where(kept, targets, 0)] * kept).sum()

    def distillation(self, outputs: Outputs, taught: Outputs) -> Tensor:
        return divergence(outputs, taught)

    def meter(self, device: torch.device) -> Meter:
        return _Confusion(self, device)


class _Confusion(Meter):
    """Counts pixels by their class and the class that the network gives them."""

    def __init__(self, objective: Segmentation, device: torch.device) -> None:
        import torch

        self._objective = objective
        self._counts = torch.zeros(objective.classes**2, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._weight = torch.zeros((), dtype=torch.float64, device=device)

    def update(self, outputs: Outputs, targets: Tensor) -> None:
        import torch

        classes = self._objective.classes
        logits = self._objective.logits(outputs, targets)
        total, weight = self._objective.total_loss(logits, targets)
        self._loss += total
        self._weight += weight
        kept = targets != self._objective.ignore
        pairs = targets[kept].long() * classes + logits.argmax(1)[kept]
        self._counts += torch.bincount(pairs, minlength=classes**2)

    @property
    def loss(self) -> float:
        return float(self._loss) / max(float(self._weight), 1e-12)

    def metrics(self) -> Mapping[str, float]:
        counts = self._counts.cpu().numpy().reshape(self._objective.classes, -1).astype(np.float64)
        right, occur, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        union = occur + predicted - right
        known, seen = occur > 0, union > 0
        return {
            "pixel_accuracy": 100.0 * float(right.sum() / max(counts.sum(), 1.0)),
            "class_accuracy": 100.0 * float((right[known] / occur[known]).mean()) if known.any() else 0.0,
            "mean_iou": 100.0 * float((right[seen] / union[seen]).mean()) if seen.any() else 0.0,
        }


def median_frequency_weights(masks: Masks, classes: int, ignore: int = 255) -> tuple[float, ...]:
    """Returns a weight for each class: the median of all frequencies over its own; 1 for classes that do not occur.

    The frequency of a class is its number of pixels over the number of pixels that are not ignored in the images where
    it occurs (Eigen and Fergus, arXiv 1411.4734, on semantic labels). Rounded to six digits.
    """
    pixels, present = np.zeros(classes), np.zeros(classes)
    for mask in masks:
        counts = np.bincount(mask[mask != ignore].astype(np.int64), minlength=classes)[:classes]
        pixels += counts
        present += np.where(counts > 0, counts.sum(), 0)
    occur = pixels > 0
    frequencies = pixels[occur] / present[occur]
    weights = np.ones(classes)
    if occur.any():
        weights[occur] = np.median(frequencies) / frequencies
    return tuple(float(f"{weight:.6g}") for weight in weights)
