"""Boxes in NumPy: overlap, clustering of proposals, and average precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Found", "average_precision", "cluster", "intersection_over_union", "match", "operating_point"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

RECALLS = np.linspace(0.0, 1.0, 101)
"""Where COCO reads precision: at recalls of 0, 0.01, ..., 1."""


@dataclass(frozen=True)
class Found:
    """Detections in one image: corners x1, y1, x2, y2 [m, 4], scores [m], falling, and classes [m]."""

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]


def intersection_over_union(boxes: Floats, others: Floats) -> Floats:
    """Returns the share that each of [m, 4] boxes and each of [k, 4] others have in common, [m, k]; 0 where empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas, others_areas = (np.prod(np.maximum(item[:, 2:] - item[:, :2], 0.0), axis=1) for item in (boxes, others))
    union = areas[:, None] + others_areas[None, :] - common
    shares: Floats = common / np.where(union > 0, union, 1.0)
    return shares


def cluster(boxes: Floats, scores: Floats, overlap: float) -> tuple[Floats, Floats]:
    """Returns one box for each cluster of proposals [m, 4], and its score, falling.

    The best proposal that is left takes all that are left and overlap it by at least `overlap` (intersection over
    union). Its cluster's box is their mean, weighted by score, and its score their sum: what many cells agree on is
    surer. NVIDIA's DetectNet groups with OpenCV's groupRectangles, which drops clusters of few members, and so small
    objects, and gives no score to rank by, as a precision and recall curve needs; suppression of all but the best
    proposal loses what the others say.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    near = intersection_over_union(boxes, boxes) >= overlap
    np.fill_diagonal(near, True)
    left = np.ones(len(boxes), bool)
    merged, kept = [], []
    for index in range(len(boxes)):
        if left[index]:
            members = left & near[index]
            left &= ~members
            merged.append(np.average(boxes[members], axis=0, weights=np.maximum(scores[members], 1e-12)))
            kept.append(float(scores[members].sum()))
    order = np.argsort(-np.array(kept), kind="stable").astype(np.int64)
    return np.array(merged).reshape(-1, 4)[order], np.array(kept, np.float64)[order]


def match(boxes: Floats, truth: Floats, overlap: float) -> Flags:
    """Returns which boxes [m, 4], the best first, are right: each takes the free true box that it overlaps most.

    As COCO's evaluation: at least `overlap`, and of equals the last.
    """
    right = np.zeros(len(boxes), bool)
    if not len(truth):
        return right
    free = np.ones(len(truth), bool)
    for index, shares in enumerate(intersection_over_union(boxes, truth)):
        shares = np.where(free, shares, -1.0)
        best = len(shares) - 1 - int(shares[::-1].argmax())
        if shares[best] >= min(overlap, 1 - 1e-10):
            right[index], free[best] = True, False
    return right


def average_precision(scores: Floats, right: Flags, truths: int) -> float:
    """Returns the average precision of detections of one class in all images, 0 to 1; `truths` true boxes there are.

    Precision, made to fall with recall, read at 101 recalls, 0 where a recall is not reached: COCO's definition, AP at
    the overlap that decided what is right.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    where = np.searchsorted(hits / truths, RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(where, len(precision))].mean())


def operating_point(scores: Floats, right: Flags, truths: int) -> tuple[float, float, float]:
    """Returns precision, recall (0 to 1) and score of the cut where their harmonic mean is largest, 0 where nothing is.

    A cut keeps all detections of a score or none.
    """
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    last = np.append(scores[:-1] != scores[1:], True) if len(scores) else np.zeros(0, bool)
    if not last.any() or not hits[-1]:
        return 0.0, 0.0, 0.0
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / truths
    mean = np.where(last, 2 * precision * recall / np.maximum(precision + recall, 1e-12), -1.0)
    best = int(mean.argmax())
    return float(precision[best]), float(recall[best]), float(scores[best])
