"""Augmentation: masks and boxes go where their pixels go, and colors change alone."""

import numpy as np
import pytest
import torch
from toy_scenes import scenes

from gensynth.backends.torch import Augmentation
from gensynth.backends.torch.augmentation import augment, augment_labelled

ZEROS = (Augmentation("shift", (("pixels", 5),)), Augmentation("crop", (("padding", 6),)))
"""These pad with zeros."""
EDGE = Augmentation("shift", (("pixels", 3), ("fill", "edge")))
MOVES = (
    Augmentation("flip"),
    *ZEROS,
    EDGE,
    Augmentation("affine", (("degrees", 20.0), ("scale", 0.3), ("shear", 0.2), ("translate", 0.2))),
    Augmentation("zoom", (("least", 0.5), ("most", 2.0))),
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


WHOLE = ("flip", "shift", "crop")
"""These move by whole pixels."""


@pytest.mark.parametrize("item", MOVES, ids=lambda item: item.name)
@pytest.mark.parametrize("size", [(24, 24), (16, 40)])
def test_a_mask_moves_as_its_image_does(item, size):
    random = np.random.default_rng(0)
    # blocks of 4 x 4 pixels, so that bilinear sampling leaves most pixels as they are
    blocks = random.integers(1, 5, (32, size[0] // 4, size[1] // 4)).repeat(4, axis=1).repeat(4, axis=2)
    masks = torch.from_numpy(blocks)
    images, moved = augment_labelled(masks[:, None].float(), masks, (item,), generator(), outside=255)
    assert moved.dtype == masks.dtype
    assert moved.shape == masks.shape
    assert torch.equal(images, augment(masks[:, None].float(), (item,), generator()))
    inside = moved != 255
    agree = float((images[:, 0].round() == moved)[inside].float().mean())
    outside = float((~inside).float().mean())
    if item.name in WHOLE:
        assert agree == 1.0
        assert outside < 0.6
    else:
        assert agree > 0.75
        assert 0.05 < outside < 0.6
    if item in ZEROS:
        assert torch.equal(images[:, 0] == 0, ~inside)


@pytest.mark.parametrize("item", MOVES, ids=lambda item: item.name)
def test_a_box_moves_as_its_pixels_do(item):
    _, _, boxes = scenes(64, 48, 0)
    for number in range(2):
        # one image for each box alone, holding ones where the box is
        chosen = np.flatnonzero(boxes[:, number, 4] >= 0)
        alone = np.zeros((len(chosen), 1, 48, 48), np.float32)
        for image, (x1, y1, x2, y2, _) in zip(alone, boxes[chosen, number].astype(int), strict=True):
            image[0, y1:y2, x1:x2] = 1
        images, moved = augment_labelled(
            torch.from_numpy(alone), torch.from_numpy(boxes[chosen, number : number + 1]), (item,), generator()
        )
        share = images.sum((1, 2, 3)).numpy() / alone.sum((1, 2, 3))
        for image, row, left, kind in zip(images[:, 0], moved[:, 0], share, boxes[chosen, number, 4], strict=True):
            if row[4] < 0:
                assert (row == -1).all()
                assert left < 0.5 or item.name == "zoom"
            elif item != EDGE:
                assert row[4] == kind
                ys, xs = np.nonzero(image.numpy() > 0.5)
                around = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
                slack = {"affine": 3.0, "zoom": 1.0}.get(item.name, 0.0)
                assert np.abs(row[:4].numpy() - around).max() <= slack


def test_a_box_that_leaves_the_image_is_dropped_and_one_that_half_leaves_is_cut():
    boxes = torch.tensor([[[0.0, 0, 8, 8, 0], [20, 4, 28, 12, 1], [28, 4, 32, 12, 0], [-1, -1, -1, -1, -1]]])
    shift = Augmentation("shift", (("pixels", 6),))
    seen = set()
    for seed in range(200):
        _, moved = augment_labelled(torch.zeros(1, 1, 32, 32), boxes, (shift,), generator(seed))
        assert (moved[0, 3] == -1).all()
        assert torch.equal(moved[..., 4] >= 0, (moved[..., :4] >= 0).all(-1))
        assert (moved[..., :4] <= 32).all()
        width = float(moved[0, 2, 2] - moved[0, 2, 0])
        seen.add(width if moved[0, 2, 4] >= 0 else -1.0)
    assert seen == {-1.0, 1.0, 2.0, 3.0, 4.0}


def test_classes_stay_and_colors_change_images_alone():
    images = torch.randn((40, 3, 8, 8), generator=generator(1))
    classes = torch.arange(40)
    _, kept = augment_labelled(images, classes, MOVES, generator())
    assert kept is classes
    masks = torch.ones((40, 8, 8), dtype=torch.uint8)
    colors = (Augmentation("color"), Augmentation("noise"))
    changed, same = augment_labelled(images, masks, colors, generator())
    assert same is masks
    assert not torch.equal(changed, images)


def test_color_scales_an_image_and_shifts_its_channels():
    images = torch.randn((200, 3, 8, 8), generator=generator(1))
    item = Augmentation("color", (("brightness", 0.3), ("contrast", 0.5)))
    changed = augment(images, (item,), generator())
    flat, new = images.flatten(2), changed.flatten(2)
    scale = (new[..., 1:] - new[..., :1]) / (flat[..., 1:] - flat[..., :1])
    middle = scale.median(2).values
    assert torch.allclose(middle, middle[:, :1].expand_as(middle), atol=1e-3)
    assert 0.5 <= float(middle.min()) < 0.6
    assert 1.4 < float(middle.max()) <= 1.5
    offsets = new.mean(2) - middle * flat.mean(2)
    assert 0.25 < float(offsets.abs().max()) <= 0.3 + 1e-3
    assert float((offsets[:, 0] - offsets[:, 1]).abs().max()) > 0.1


def test_a_zoom_of_one_factor_is_that_factor():
    image = torch.zeros(20, 1, 40, 40)
    image[:, :, 18:22, 18:22] = 1
    for factor in (0.5, 2.0):
        item = Augmentation("zoom", (("least", factor), ("most", factor)))
        changed = augment(image, (item,), generator())
        whole = changed.sum((1, 2, 3))[changed[:, 0, 1:-1, 1:-1].sum((1, 2)) == changed.sum((1, 2, 3))]
        assert float(whole.median()) == pytest.approx(16 * factor**2, rel=0.1)
