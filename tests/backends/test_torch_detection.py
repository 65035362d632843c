"""Detection: targets and losses on the grid, clustering, and the figures of COCO's own evaluation."""

import dataclasses

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from toy_scenes import DETECTING, detected

from gensynth.backends.torch import Augmentation, Recipe, evaluate, to_torch, train
from gensynth.backends.torch.objectives import Detection
from gensynth.backends.torch.objectives.boxes import (
    Found,
    average_precision,
    cluster,
    intersection_over_union,
    match,
    operating_point,
)
from gensynth.backends.torch.objectives.grid import grid_loss, grid_targets
from gensynth.ir import Network, parse

DETECTOR = parse(DETECTING)
CPU = torch.device("cpu")


def rows(*boxes, fill=0):
    return torch.tensor([*boxes, *[[-1.0] * 5] * fill])[None]


# The grid.


def test_a_box_covers_the_cells_that_its_centre_part_touches():
    # 96 x 60 around (64, 56): 0.4 of it is 38.4 x 24, so x from 44.8 to 83.2 and y from 44 to 68.
    targets = grid_targets(Detection(1), rows([16, 26, 112, 86, 0], fill=2), 8, 8)
    wanted = torch.zeros(8, 8)
    wanted[2:5, 2:6] = 1
    assert torch.equal(targets.coverage[0, 0], wanted)
    assert torch.equal(targets.owner[0, 0], wanted.long() - 1)


def test_the_centre_part_has_at_least_20_pixels_but_no_more_than_the_box():
    # 0.4 of 40 is 16, so 20 count: 22 to 42. A box of 4 x 4 counts whole.
    targets = grid_targets(Detection(1, stride=8), rows([12, 12, 52, 52, 0], [70, 70, 74, 74, 0]), 12, 12)
    wanted = torch.zeros(12, 12)
    wanted[2:6, 2:6] = 1
    wanted[8:10, 8:10] = 1
    assert torch.equal(targets.coverage[0, 0], wanted)


def test_the_smaller_of_two_boxes_has_a_cell_and_classes_are_covered_apart():
    boxes = rows([0, 0, 128, 128, 0], [48, 48, 80, 80, 1])
    shared = grid_targets(Detection(2), boxes, 8, 8)
    assert shared.owner.shape == (1, 1, 8, 8)
    assert shared.coverage[0, 0].sum() == 16  # 38.4 to 89.6: cells 2 to 5
    assert shared.coverage[0, 1].sum() == 4  # 54 to 74: cells 3 and 4
    assert (shared.owner == 1).sum() == 4
    assert (shared.owner == 0).sum() == 12
    apart = grid_targets(Detection(2), boxes, 8, 8, groups=2)
    assert torch.equal(apart.owner[0, 0] == 0, apart.coverage[0, 0] > 0)
    assert torch.equal(apart.owner[0, 1] == 1, apart.coverage[0, 1] > 0)


def test_the_loss_is_that_of_the_docstring():
    objective = Detection(1, coverage_weight=3.0, box_weight=5.0, unit=4.0)
    boxes = rows([0, 0, 64, 32, 0], [80, 80, 90, 90, 0])
    random = torch.Generator().manual_seed(0)
    coverage, corners = torch.rand((1, 1, 8, 8), generator=random), torch.randn((1, 4, 8, 8), generator=random)
    # 0.4 of 64 x 32 is 25.6 x 20 (at least 20) around (32, 16): cells 1 and 2 of rows 0 and 1. The other: cell (5, 5).
    cells = {0: [(y, x) for y in (0, 1) for x in (1, 2)], 1: [(5, 5)]}
    target = torch.zeros(8, 8)
    means = []
    for number, places in cells.items():
        x1, y1, x2, y2 = boxes[0, number, :4].tolist()
        width, height = max(x2 - x1, 16), max(y2 - y1, 16)
        total = 0.0
        for y, x in places:
            target[y, x] = 1
            found = corners[0, :, y, x] * 4 + torch.tensor([x, y, x, y]) * 16
            total += sum(abs(found - boxes[0, number, :4]) / torch.tensor([width, height, width, height]))
        means.append(total / len(places))
    wanted = 3 / 2 * (coverage[0, 0] - target).square().sum() / 5 + 5 * sum(means) / 2
    assert float(grid_loss(objective, coverage, corners, boxes)) == pytest.approx(float(wanted), rel=1e-5)


def test_perfect_outputs_have_no_loss_and_are_found_again():
    objective = Detection(2)
    boxes = torch.from_numpy(detected(8).labels)
    targets = grid_targets(objective, boxes, 4, 4)
    owners = targets.owner[:, 0].clamp(min=0)
    cells = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="xy")).repeat(2, 1, 1) * 16
    corners = boxes[torch.arange(8)[:, None, None], owners][..., :4].movedim(3, 1) - cells
    outputs = targets.coverage, corners
    assert float(objective.loss(outputs, boxes)) == pytest.approx(0, abs=1e-5)
    meter = objective.meter(CPU)
    meter.update(outputs, boxes)
    assert meter.metrics() == pytest.approx({"map_50": 100.0, "precision": 100.0, "recall": 100.0})
    for found, truth in zip(objective.detect(outputs, image=(64, 64)), boxes.numpy(), strict=True):
        kept = truth[truth[:, 4] >= 0]
        assert len(found.boxes) == len(kept)
        order = np.lexsort(found.boxes.T), np.lexsort(kept[:, :4].T)
        np.testing.assert_allclose(found.boxes[order[0]], kept[order[1], :4], atol=1e-4)
        np.testing.assert_array_equal(found.classes[order[0]], kept[order[1], 4])


def test_a_batch_without_boxes_has_a_loss_and_a_finite_gradient():
    coverage = torch.full((2, 1, 4, 4), 0.5, requires_grad=True)
    loss = Detection(1).loss((coverage, torch.zeros(2, 4, 4, 4)), torch.full((2, 3, 5), -1.0))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == pytest.approx(0.5 * 0.25 * 32)
    assert torch.isfinite(coverage.grad).all()


def test_detections_are_cut_at_the_image_and_those_outside_are_dropped():
    coverage = torch.zeros(1, 1, 2, 2)
    coverage[0, 0, 0, 0], coverage[0, 0, 1, 1] = 0.9, 0.8
    corners = torch.zeros(1, 4, 2, 2)
    corners[0, :, 0, 0] = torch.tensor([-5.0, -7.0, 20.0, 300.0])
    corners[0, :, 1, 1] = torch.tensor([40.0, 40.0, 50.0, 50.0])
    (found,) = Detection(1).detect((coverage, corners), image=(32, 32))
    np.testing.assert_allclose(found.boxes, [[0, 0, 20, 32]])
    np.testing.assert_allclose(found.scores, [0.9])


# Boxes.


def test_intersection_over_union_by_hand():
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [20, 20, 30, 40], [3, 3, 3, 9]], float)
    found = intersection_over_union(boxes, boxes[:3])
    wanted = [[1, 25 / 175, 0], [25 / 175, 1, 0], [0, 0, 1], [0, 0, 0]]
    np.testing.assert_allclose(found, wanted)


def test_a_cluster_is_the_weighted_mean_of_its_members_and_scores_their_sum():
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [1, 0, 11, 10], [0, 0, 10, 12]], float)
    merged, scores = cluster(boxes, np.array([0.6, 0.9, 0.3, 0.1]), 0.5)
    np.testing.assert_allclose(scores, [1.0, 0.9])
    np.testing.assert_allclose(merged, [[0.3, 0, 10.3, 10.2], [50, 50, 60, 60]])
    empty, none = cluster(np.zeros((0, 4)), np.zeros(0), 0.5)
    assert (empty.shape, none.shape) == ((0, 4), (0,))


def test_a_true_box_is_found_once_and_by_the_best_detection_that_overlaps_it():
    truth = np.array([[0, 0, 10, 10], [8, 0, 18, 10]], float)
    boxes = np.array([[1, 0, 11, 10], [0, 0, 10, 10], [9, 0, 19, 10], [30, 30, 40, 40]], float)
    assert match(boxes, truth, 0.5).tolist() == [True, False, True, False]
    assert not match(boxes, np.zeros((0, 4)), 0.5).any()


def test_average_precision_by_hand():
    # Precisions 1, 1/2, 2/3 at recalls 1/4, 1/4, 2/4: made falling 1, 2/3, 2/3; 26 recalls up to 0.25, 25 up to 0.5.
    scores, right = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    assert average_precision(scores, right, 4) == pytest.approx((26 + 25 * 2 / 3) / 101)
    assert average_precision(np.zeros(0), np.zeros(0, bool), 4) == 0.0
    assert average_precision(scores[::-1], np.array([True, True, True]), 3) == pytest.approx(1.0)


def test_the_operating_point_has_the_largest_harmonic_mean_and_cuts_no_tie():
    scores = np.array([0.9, 0.8, 0.8, 0.1])
    right = np.array([True, True, False, False])
    assert operating_point(scores, right, 2) == pytest.approx((2 / 3, 1.0, 0.8))
    assert operating_point(scores, np.zeros(4, bool), 2) == (0.0, 0.0, 0.0)
    assert operating_point(np.zeros(0), np.zeros(0, bool), 2) == (0.0, 0.0, 0.0)


# COCO's figures.


def random_detections(images, classes, seed, ties=False):
    """Returns true boxes [n, 6, 5] and detections near some of them, beside them, and anywhere."""
    random = np.random.default_rng(seed)
    truths, everything = [], []
    for _ in range(images):
        count = int(random.integers(0, 7))
        corner, size = random.uniform(0, 200, (count, 2)), random.uniform(8, 100, (count, 2))
        kinds = random.integers(0, classes, (count, 1))
        truth = np.full((6, 5), -1.0)
        truth[:count] = np.concatenate([corner, corner + size, kinds], axis=1)
        truths.append(truth)
        near = np.repeat(truth[:count], 2, axis=0)
        near[:, :4] += random.normal(0, 0.12, (len(near), 4)).clip(-0.3, 0.3) * np.tile(np.repeat(size, 2, axis=0), 2)
        far = int(random.integers(0, 6))
        other = np.concatenate([random.uniform(0, 150, (far, 2)), random.uniform(151, 300, (far, 2))], axis=1)
        boxes = np.concatenate([near[:, :4], other])
        labels = np.concatenate([near[:, 4], random.integers(0, classes, far)]).astype(np.int64)
        labels = np.where(random.random(len(labels)) < 0.1, random.integers(0, classes, len(labels)), labels)
        scores = random.uniform(0.05, 1, len(boxes)) + 0.3 * (np.arange(len(boxes)) < len(near))
        scores = scores.round(1) if ties else scores
        order = np.argsort(-scores, kind="stable")
        everything.append(Found(boxes[order], scores[order], labels[order]))
    return truths, everything


def coco_figures(truths, everything, classes):
    """Returns COCO's mean average precision [%] at an overlap of 0.5, and the recall that all detections reach."""
    dataset = {
        "info": {},
        "images": [{"id": index + 1} for index in range(len(truths))],
        "categories": [{"id": number, "name": str(number)} for number in range(classes)],
        "annotations": [],
    }
    for index, truth in enumerate(truths):
        for x1, y1, x2, y2, kind in truth[truth[:, 4] >= 0].tolist():
            box = [x1, y1, x2 - x1, y2 - y1]
            number = len(dataset["annotations"]) + 1
            dataset["annotations"].append(
                {
                    "id": number,
                    "image_id": index + 1,
                    "category_id": int(kind),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    ground = COCO()
    ground.dataset = dataset
    ground.createIndex()
    results = [
        {"image_id": index + 1, "category_id": int(kind), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for index, found in enumerate(everything)
        for (x1, y1, x2, y2), kind, score in zip(
            found.boxes.tolist(), found.classes, found.scores.tolist(), strict=True
        )
    ]
    evaluation = COCOeval(ground, ground.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, 2]  # overlap 0.5, all areas, 100 detections
    recall = evaluation.eval["recall"][0, :, 0, 2]
    return 100 * precision[precision > -1].mean(), 100 * recall[recall > -1].mean()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("images", "classes", "seed"), [(40, 1, 0), (60, 3, 1), (25, 5, 2), (2, 4, 3)])
def test_mean_average_precision_is_that_of_pycocotools(images, classes, seed, ties):
    truths, everything = random_detections(images, classes, seed, ties)
    meter = Detection(classes).meter(CPU)
    for truth, found in zip(truths, everything, strict=True):
        meter.add(found, truth)
    wanted, _ = coco_figures(truths, everything, classes)
    assert 1 < wanted < 99
    assert meter.metrics()["map_50"] == pytest.approx(wanted, abs=1e-9)


def test_the_figures_of_a_networks_own_detections_are_those_of_pycocotools():
    examples, objective = detected(48, 2), Detection(2, threshold=0.3)
    trained = train(
        Network(DETECTOR),
        examples,
        None,
        Recipe(epochs=6, batch_size=16, optimizer="adamw", learning_rate=0.01),
        objective,
    ).network
    found = evaluate(trained, examples, objective)
    with torch.inference_mode():
        outputs = to_torch(trained).eval()(torch.from_numpy(examples.inputs))
    detections = objective.detect(outputs, image=(64, 64))
    wanted, _ = coco_figures(list(examples.labels.astype(float)), detections, 2)
    assert wanted > 1
    assert found.metrics["map_50"] == pytest.approx(wanted, abs=1e-6)
    at_most = [len(item.boxes) for item in dataclasses.replace(objective, most=1).detect(outputs, image=(64, 64))]
    assert max(at_most) <= 2  # one of each class


# Learning.


@pytest.mark.parametrize("unit", [1.0, 16.0])
def test_a_small_network_learns_to_detect_to_a_mean_average_precision_of_more_than_50(unit):
    training, validation = detected(256), detected(64, 1)
    objective = Detection(2, unit=unit)
    recipe = Recipe(
        epochs=15,
        batch_size=16,
        optimizer="adamw",
        learning_rate=0.01,
        augmentation=(Augmentation("flip"), Augmentation("color"), Augmentation("shift", (("pixels", 4),))),
    )
    trained = train(Network(DETECTOR), training, validation, recipe, objective)
    assert trained.accuracy > 50
    assert trained.metrics["map_50"] == trained.accuracy
    assert min(trained.metrics["precision"], trained.metrics["recall"]) > 50
    assert evaluate(trained.network, validation, objective).metrics == pytest.approx(trained.metrics)
