"""Toy scenes for tests of segmentation and detection: squares and discs on a noisy ground, and networks for them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gensynth.backends import Examples

SEGMENTING = """gensynth 1

network @segmenting(%image: f32[N, 3, 32, 32]) -> f32[N, 3, 16, 16] {
  %a.conv = conv2d(%image) {channels=12, kernel=3, stride=2, padding=same}
  %a.norm = batch_norm(%a.conv)
  %a.act  = relu(%a.norm)
  %b.conv = conv2d(%a.act) {channels=12, kernel=3, padding=same}
  %b.norm = batch_norm(%b.conv)
  %b.act  = relu(%b.norm)
  %logits = conv2d(%b.act) {channels=3, kernel=1, bias=true}
  return %logits
}
"""
"""Logits half as wide and high as the images."""

DETECTING = """gensynth 1

network @detecting(%image: f32[N, 3, 64, 64]) -> (f32[N, 2, 4, 4], f32[N, 4, 4, 4]) {
  %a.conv = conv2d(%image) {channels=16, kernel=4, stride=4}
  %a.norm = batch_norm(%a.conv)
  %a.act  = relu(%a.norm)
  %b.conv = conv2d(%a.act) {channels=32, kernel=3, stride=2, padding=same}
  %b.norm = batch_norm(%b.conv)
  %b.act  = relu(%b.norm)
  %c.conv = conv2d(%b.act) {channels=48, kernel=3, stride=2, padding=same}
  %c.norm = batch_norm(%c.conv)
  %c.act  = relu(%c.norm)
  %d.conv = conv2d(%c.act) {channels=48, kernel=3, padding=same}
  %d.norm = batch_norm(%d.conv)
  %d.act  = relu(%d.norm)
  %logits   = conv2d(%d.act) {channels=2, kernel=1, bias=true}
  %coverage = sigmoid(%logits)
  %bboxes   = conv2d(%d.act) {channels=4, kernel=1, bias=true}
  return %coverage, %bboxes
}
"""

COLORS = np.array([[90, 90, 90], [220, 60, 60], [60, 60, 220]])
"""The ground, class 0 of masks, and the two kinds of things."""

Pixels = npt.NDArray[np.uint8]


def scenes(count: int, side: int, seed: int) -> tuple[Pixels, Pixels, npt.NDArray[np.float32]]:
    """Returns images [n, 3, side, side], masks [n, side, side] of 0, 1, 2, and boxes [n, 2, 5] of classes 0, 1.

    Each image has one or two rectangles, each a quarter to a half of the side wide and high.
    """
    random = np.random.default_rng(seed)
    masks = np.zeros((count, side, side), np.uint8)
    boxes = np.full((count, 2, 5), -1.0, np.float32)
    for mask, rows in zip(masks, boxes, strict=True):
        for number in range(int(random.integers(1, 3))):
            height, width = random.integers(side // 4, side // 2, 2)
            # the second one keeps to the right half, the first one to the left
            left = number * side // 2 + int(random.integers(0, side // 2 - width + 1))
            top = int(random.integers(0, side - height + 1))
            kind = int(random.integers(0, 2))
            mask[top : top + height, left : left + width] = kind + 1
            rows[number] = left, top, left + width, top + height, kind
    noise = random.normal(0, 12, (count, side, side, 3))
    images = np.clip(COLORS[masks] + noise, 0, 255).astype(np.uint8).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), masks, boxes


def inputs(images: Pixels) -> npt.NDArray[np.float32]:
    """Returns images as float32 of about unit deviation."""
    return ((images.astype(np.float32) - 110) / 60).astype(np.float32)


def segmented(count: int, seed: int = 0) -> Examples:
    images, masks, _ = scenes(count, 32, seed)
    return Examples(inputs(images), masks)


def detected(count: int, seed: int = 0) -> Examples:
    images, _, boxes = scenes(count, 64, seed)
    return Examples(inputs(images), boxes)
