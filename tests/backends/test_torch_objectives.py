"""Objectives: losses and metrics are the published ones, networks and examples that do not fit are refused."""

import dataclasses
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, jaccard_score, recall_score
from toy_scenes import DETECTING, SEGMENTING, detected, segmented

from gensynth.backends import Examples
from gensynth.backends.examples import Normalization
from gensynth.backends.torch import Augmentation, Recipe, evaluate, probe, train
from gensynth.backends.torch.objectives import Classification, Detection, Objective, Segmentation
from gensynth.backends.torch.objectives.segmentation import median_frequency_weights
from gensynth.ir import DataError, Network, UsageError, initialize, parse

SEGMENTER, DETECTOR = parse(SEGMENTING), parse(DETECTING)
SCENES, BOXED = segmented(24), detected(24)


def random_scenes(classes=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn((6, classes, 8, 9), generator=random)
    targets = torch.randint(0, classes - 1, (6, 8, 9), generator=random)  # the last class does not occur
    targets[torch.rand(targets.shape, generator=random) < 0.2] = 255
    return logits, targets


# Segmentation.


def test_segmentation_metrics_are_those_of_scikit_learn_over_pixels_that_count():
    logits, targets = random_scenes()
    objective = Segmentation(5)
    meter = objective.meter(torch.device("cpu"))
    for start in (0, 4):  # batches of 4 and 2
        meter.update(logits[start : start + 4], targets[start : start + 4].byte())
    kept = targets != 255
    truth, found = targets[kept].numpy(), logits.argmax(1)[kept].numpy()
    metrics = meter.metrics()
    assert list(metrics) == list(objective.metrics) == ["pixel_accuracy", "class_accuracy", "mean_iou"]
    assert metrics["pixel_accuracy"] == pytest.approx(100 * accuracy_score(truth, found))
    assert metrics["class_accuracy"] == pytest.approx(
        100 * recall_score(truth, found, average="macro", labels=range(4))
    )
    assert metrics["mean_iou"] == pytest.approx(100 * jaccard_score(truth, found, average="macro", labels=range(5)))
    assert meter.loss == pytest.approx(float(F.cross_entropy(logits, targets, ignore_index=255)), rel=1e-6)


def test_segmentation_metrics_by_hand():
    targets = torch.tensor([[[0, 0, 0, 1], [1, 9, 9, 9]]])
    found = torch.tensor([[[0, 0, 1, 1], [1, 0, 1, 2]]])
    meter = Segmentation(4, ignore=9).meter(torch.device("cpu"))
    meter.update(F.one_hot(found, 4).movedim(3, 1).float(), targets)
    assert meter.metrics() == pytest.approx(
        # 4 of 5; (2/3 + 1) / 2; (2/3 + 2/3) / 2: classes 2 and 3 neither occur nor are predicted where pixels count
        {"pixel_accuracy": 80.0, "class_accuracy": 250 / 3, "mean_iou": 200 / 3}
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [(), (0.5, 1.0, 2.0, 3.0, 0.1)])
def test_the_segmentation_loss_is_the_weighted_cross_entropy(smoothing, weights):
    logits, targets = random_scenes()
    objective = Segmentation(5, class_weights=weights)
    wanted = F.cross_entropy(
        logits,
        targets,
        weight=torch.tensor(weights) if weights else None,
        ignore_index=255,
        label_smoothing=smoothing,
    )
    assert float(objective.loss(logits, targets.byte(), smoothing)) == pytest.approx(float(wanted), rel=1e-5)
    meter = objective.meter(torch.device("cpu"))
    meter.update(logits[:1], targets[:1])
    meter.update(logits[1:], targets[1:])
    assert meter.loss == pytest.approx(float(objective.loss(logits, targets)), rel=1e-5)


def test_small_logits_are_upsampled_bilinearly_before_loss_and_metrics():
    random = torch.Generator().manual_seed(0)
    small, targets = torch.randn((2, 3, 4, 5), generator=random), torch.randint(0, 3, (2, 8, 10), generator=random)
    large = F.interpolate(small, size=(8, 10), mode="bilinear", align_corners=False)
    objective = Segmentation(3)
    assert torch.equal(objective.loss(small, targets), objective.loss(large, targets))
    meters = [objective.meter(torch.device("cpu")) for _ in range(2)]
    meters[0].update(small, targets)
    meters[1].update(large, targets)
    assert meters[0].metrics() == meters[1].metrics()


def test_a_batch_whose_pixels_are_all_ignored_has_no_loss_and_a_finite_gradient():
    logits = torch.randn((2, 3, 4, 4), requires_grad=True)
    loss = Segmentation(3).loss(logits, torch.full((2, 4, 4), 255))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_class_weights_balance_by_median_frequency():
    # Class 0: 12 of 16 pixels in image 0, 8 of 16 in image 1. Class 1: 4 of 16. Class 2: 4 of 12 that count. 3: never.
    masks = np.zeros((2, 4, 4), np.uint8)
    masks[0, 0] = 1
    masks[1, :1] = 2
    masks[1, 1] = 255
    frequencies = [20 / 28, 4 / 16, 4 / 12]
    wanted = [1 / 3 / frequency for frequency in frequencies]
    assert median_frequency_weights(masks, 4) == pytest.approx([*wanted, 1.0], rel=1e-5)


def test_a_small_network_learns_to_segment_to_more_than_90_percent():
    training, validation = segmented(96), segmented(32, 1)
    objective = Segmentation(3, class_weights=median_frequency_weights(training.labels, 3))
    recipe = Recipe(
        epochs=8,
        batch_size=16,
        optimizer="adamw",
        learning_rate=0.02,
        augmentation=(Augmentation("flip"), Augmentation("zoom"), Augmentation("color"), Augmentation("shift")),
    )
    trained = train(Network(SEGMENTER), training, validation, recipe, objective)
    assert trained.accuracy > 90
    assert trained.metrics["mean_iou"] > 70
    assert trained.metrics["pixel_accuracy"] == trained.accuracy
    assert trained.history[-1].validation_metrics == trained.metrics
    found = evaluate(trained.network, validation, objective, batch_size=5)
    assert found.metrics == pytest.approx(trained.metrics)
    assert (found.accuracy, found.count) == (found.metrics["pixel_accuracy"], 32)
    again = train(Network(SEGMENTER), training, validation, recipe, objective)
    assert again.history == trained.history


# Pixels.


def test_pixels_with_a_normalization_train_as_the_normalized_inputs_do():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    masks = random.integers(0, 3, (40, 32, 32)).astype(np.uint8)
    normalization = Normalization((100.0, 120.0, 140.0), (50.0, 60.0, 70.0))
    stored = Examples(pixels, masks, normalization)
    floats = Examples(stored.normalized(), masks.astype(np.int64))
    assert floats.inputs.dtype == np.float32
    recipe = Recipe(epochs=2, batch_size=8, augmentation=(Augmentation("flip"),))
    one, other = (train(Network(SEGMENTER), given, given, recipe, Segmentation(3)) for given in (stored, floats))
    assert one.history == other.history
    assert probe(Network(SEGMENTER), stored, Segmentation(3)) == probe(Network(SEGMENTER), floats, Segmentation(3))


# Networks, examples and recipes that do not fit.


@pytest.mark.parametrize(
    ("objective", "text", "message", "hint"),
    [
        (Classification(), SEGMENTING, "@segmenting is no classifier", "returns one f32[N, classes]"),
        (Segmentation(3), DETECTING, "@detecting does not segment images", "returns one f32[N, 3, h, w]"),
        (Segmentation(4), SEGMENTING, "@segmenting gives f32[N, 3, 16, 16], and there are 4 classes", "4 classes"),
        (
            Segmentation(3),
            "gensynth 1 network @large(%x: f32[N, 3, 4, 4]) -> f32[N, 3, 8, 8] { %y = resize(%x) {scale=2} return %y }",
            "takes f32[N, 3, 4, 4] and gives f32[N, 3, 8, 8], more pixels than the image has",
            "as large as the image or smaller",
        ),
        (Detection(2), SEGMENTING, "@segmenting does not detect objects", "coverage f32[N, 2, H/16, W/16]"),
        (Detection(3), DETECTING, "gives coverage f32[N, 2, 4, 4]", "coverage is f32[N, 3, H/16, W/16]"),
        (Detection(2, stride=8), DETECTING, "gives coverage f32[N, 2, 4, 4]", "one cell for each 8 x 8 pixels"),
        (
            Detection(2),
            DETECTING.replace("bboxes   = conv2d(%d.act) {channels=4", "bboxes   = conv2d(%d.act) {channels=5").replace(
                "f32[N, 4, 4, 4])", "f32[N, 5, 4, 4])"
            ),
            "gives boxes f32[N, 5, 4, 4]",
            "boxes is f32[N, 4 or 8, H/16, W/16]",
        ),
    ],
)
def test_a_network_of_other_outputs_is_refused_with_what_is_wanted(objective, text, message, hint):
    with pytest.raises(UsageError) as raised:
        objective.check_network(parse(text))
    assert message in raised.value.message
    assert hint in raised.value.hint


def test_boxes_may_be_told_for_each_class():
    text = DETECTING.replace("conv2d(%d.act) {channels=4,", "conv2d(%d.act) {channels=8,")
    graph = parse(text.replace("f32[N, 4, 4, 4])", "f32[N, 8, 4, 4])"))
    Detection(2).check_network(graph)
    recipe = Recipe(epochs=2, batch_size=8, optimizer="adamw", learning_rate=0.01)
    trained = train(Network(graph), BOXED, BOXED, recipe, Detection(2))
    assert trained.history[1].loss < trained.history[0].loss


@pytest.mark.parametrize(
    ("objective", "graph", "examples", "message"),
    [
        (Classification(), None, SCENES, "examples are labelled with masks, Classification wants classes"),
        (Segmentation(3), SEGMENTER, BOXED, "examples are labelled with boxes, Segmentation wants masks"),
        (Segmentation(3), SEGMENTER, Examples(SCENES.inputs, SCENES.labels + np.uint8(1)), "a pixel of label 3"),
        (
            Segmentation(3),
            SEGMENTER,
            Examples(SCENES.inputs, np.full_like(SCENES.labels, 255)),
            "every pixel of the examples is ignored",
        ),
        (Segmentation(3), SEGMENTER, Examples(SCENES.inputs[:, :, ::2], SCENES.labels[:, ::2]), "examples have shape"),
        (Detection(2), DETECTOR, Examples(BOXED.inputs, np.full((24, 1, 5), -1, np.float32)), "have no box"),
        (
            Detection(2),
            DETECTOR,
            Examples(BOXED.inputs, np.tile(np.array([1, 1, 5, 5, 2], np.float32), (24, 1, 1))),
            "a box of class 2, there are 2 classes",
        ),
    ],
)
def test_examples_that_do_not_fit_the_objective_are_refused_with_a_remedy(objective, graph, examples, message):
    graph = graph or parse(
        "gensynth 1 network @c(%x: f32[N, 3, 32, 32]) -> f32[N, 3] {"
        " %p = global_avg_pool(%x) %y = dense(%p) {features=3} return %y }"
    )
    with pytest.raises(DataError) as raised:
        evaluate(Network(graph, initialize(graph)), examples, objective)
    assert message in raised.value.message
    assert raised.value.hint


def test_mixup_and_smoothing_are_refused_where_labels_cannot_take_them():
    recipe = Recipe(augmentation=(Augmentation("flip"), Augmentation("mixup")))
    with pytest.raises(UsageError, match="'mixup' cannot be used with Segmentation: .* labelled with masks") as raised:
        train(Network(SEGMENTER), SCENES, None, recipe, Segmentation(3))
    assert "drop it from augmentation" in raised.value.hint
    with pytest.raises(UsageError, match="'mixup' cannot be used with Detection"):
        train(Network(DETECTOR), BOXED, None, Recipe(augmentation=(Augmentation("mixup"),)), Detection(2))
    with pytest.raises(UsageError, match="label_smoothing is 0.1, Detection has no smoothed labels"):
        train(Network(DETECTOR), BOXED, None, Recipe(label_smoothing=0.1), Detection(2))


def test_a_teacher_of_plain_images_is_refused_where_what_it_gives_would_not_fit():
    plain = Recipe(distillation=0.5, teacher_images="plain")
    Classification().check_recipe(plain)
    for objective, kind in ((Segmentation(3), "masks"), (Detection(2), "boxes")):
        with pytest.raises(UsageError, match=f"teacher_images is 'plain': .* {kind} move with their images") as raised:
            objective.check_recipe(plain)
        assert 'teacher_images = "same"' in raised.value.hint
    with pytest.raises(UsageError, match="'mixup' blends images"):
        Classification().check_recipe(dataclasses.replace(plain, augmentation=(Augmentation("mixup"),)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Segmentation(1), "segmentation into 1 classes"),
        (lambda: Segmentation(12, ignore=11), "ignores the label 11, which is one of its 12 classes"),
        (lambda: Segmentation(3, class_weights=(1.0, 2.0)), "has the class weights [1.0, 2.0]"),
        (lambda: Segmentation(2, class_weights=(1.0, float("nan"))), "has the class weights [1.0, nan]"),
        (lambda: Detection(0), "detection: classes is 0"),
        (lambda: Detection(unit=0.0), "detection: unit is 0.0"),
        (lambda: Detection(threshold=1.0), "detection: threshold is 1.0"),
    ],
)
def test_an_objective_out_of_range_is_refused(make, message):
    with pytest.raises(UsageError) as raised:
        make()
    assert message in raised.value.message
    assert raised.value.hint


# Objectives as data, and one's own.


@pytest.mark.parametrize("objective", [Classification(), Segmentation(3, 7, (1.0, 2.0, 3.0)), Detection(4, 8, 16.0)])
def test_an_objective_is_data_that_travels(objective):
    assert pickle.loads(pickle.dumps(objective)) == objective
    assert hash(objective) == hash(pickle.loads(pickle.dumps(objective)))
    assert objective.metric == objective.metrics[0]


@dataclass(frozen=True)
class Focal(Classification):
    """Cross-entropy that counts what is known well for less (arXiv 1708.02002, equation 4)."""

    gamma: float = 2.0

    def loss(self, outputs, targets, smoothing=0.0):
        each = F.cross_entropy(outputs, targets, reduction="none", label_smoothing=smoothing)
        return ((1 - (-each).exp()) ** self.gamma * each).mean()


def test_an_objective_of_ones_own_trains():
    objective: Objective = Focal()
    graph = parse("gensynth 1 network @c(%x: f32[N, 4]) -> f32[N, 2] { %y = dense(%x) {features=2} return %y }")
    random = np.random.default_rng(0)
    inputs = random.normal(size=(64, 4)).astype(np.float32)
    examples = Examples(inputs, (inputs[:, 0] > 0).astype(np.int64))
    trained = train(Network(graph), examples, examples, Recipe(epochs=20, batch_size=16), objective)
    assert trained.accuracy > 90
    assert trained.metrics == {"accuracy": trained.accuracy}


@pytest.mark.parametrize(
    ("graph", "examples", "objective"), [(SEGMENTER, SCENES, Segmentation(3)), (DETECTOR, BOXED, Detection(2))]
)
def test_a_probe_answers_for_every_objective(graph, examples, objective):
    found = probe(Network(graph), examples, objective)
    assert found.loss == pytest.approx(probe(Network(graph), examples, objective).loss)
    assert np.isfinite(list(vars(found.scores).values())).all()
    assert all(item.gradient > 0 for item in found.parameters if item.name.endswith("conv.weight"))
