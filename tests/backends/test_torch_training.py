"""Training and evaluation: it learns, it repeats, it says what is wrong."""

import numpy as np
import pytest
import torch
from op_cases import residual

from gensynth.backends import Examples
from gensynth.backends.reference import run_reference
from gensynth.backends.torch import Augmentation, Recipe, TrainingError, evaluate, train
from gensynth.backends.torch.augmentation import augment
from gensynth.ir import DataError, Network, UsageError, WeightsError, initialize

GRAPH = residual(channels=6, classes=4)


def quadrants(count, seed=0):
    """Images with a bright spot in one of four quadrants, which is the label."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    images = random.normal(0, 0.3, (count, 1, 8, 8)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row + 1 : row + 3, column + 1 : column + 3] += 1.5
    return Examples(images, labels.astype(np.int64))


TRAINING, VALIDATION = quadrants(256), quadrants(128, 1)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=10, batch_size=32, learning_rate=0.1),
        Recipe(epochs=10, batch_size=32, optimizer="adamw", learning_rate=0.01, ema_decay=0.98, gradient_clip=1.0),
        Recipe(epochs=10, batch_size=32, precision="bfloat16", label_smoothing=0.1),
        Recipe(epochs=10, batch_size=32, augmentation=(Augmentation("noise"), Augmentation("mixup"))),
    ],
    ids=["sgd", "adamw-ema-clip", "bfloat16-smoothing", "noise-mixup"],
)
def test_a_small_network_learns_a_simple_task(recipe):
    seen = []
    training = train(Network(GRAPH), TRAINING, VALIDATION, recipe, on_epoch=seen.append)
    assert training.accuracy > 90
    assert training.history == tuple(seen)
    assert [report.epoch for report in training.history] == list(range(1, 11))
    assert training.history[-1].loss < training.history[0].loss
    assert max(report.validation_accuracy for report in seen) == training.accuracy
    if recipe.precision == "float32":
        evaluation = evaluate(training.network, VALIDATION)
        assert evaluation.accuracy == pytest.approx(training.accuracy)
        assert evaluation.count == 128
        scores = run_reference(training.network, VALIDATION.inputs)[0]
        assert 100 * (scores.argmax(1) == VALIDATION.labels).mean() == pytest.approx(evaluation.accuracy)


@pytest.mark.parametrize("units", [{}, {"avx512_bf16": True}, {"bf16": True}], ids=["none", "x86-64", "arm"])
def test_precision_auto_is_that_which_the_device_has_instructions_for(units, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    losses = {
        precision: train(Network(GRAPH), TRAINING, None, Recipe(epochs=1, precision=precision)).history[0].loss
        for precision in ("float32", "bfloat16", "auto")
    }
    assert losses["float32"] != losses["bfloat16"]
    assert losses["auto"] == losses["bfloat16" if units else "float32"]


def test_training_repeats_bit_for_bit_and_leaves_the_global_random_state_alone():
    names = ("shift", "flip", "affine", "noise", "mixup")
    recipe = Recipe(epochs=2, ema_decay=0.9, augmentation=tuple(map(Augmentation, names)))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = train(Network(GRAPH), TRAINING, VALIDATION, recipe, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = train(Network(GRAPH), TRAINING, VALIDATION, recipe, seed=3)
    other = train(Network(GRAPH), TRAINING, VALIDATION, recipe, seed=4)
    assert one.history == again.history
    assert all(np.array_equal(array, again.network.weights[name]) for name, array in one.network.weights.items())
    assert one.history != other.history


def test_training_starts_from_the_weights_that_a_network_has():
    trained = train(Network(GRAPH), TRAINING, VALIDATION, Recipe(epochs=6, batch_size=32)).network
    kept = {name: array.copy() for name, array in trained.weights.items()}
    gentle = Recipe(epochs=1, batch_size=32, learning_rate=1e-6)
    further = train(trained, TRAINING, None, gentle)
    assert further.accuracy is None
    assert further.history[0].validation_accuracy is None
    assert further.history[0].loss < 0.7
    assert all(np.array_equal(array, trained.weights[name]) for name, array in kept.items())
    assert not np.array_equal(further.network.weights["stem.norm.mean"], kept["stem.norm.mean"])


def test_the_learning_rate_rises_and_falls_over_one_cycle():
    recipe = Recipe(epochs=8, batch_size=64, learning_rate=0.1, warmup=0.5)
    rates = [report.learning_rate for report in train(Network(GRAPH), TRAINING, None, recipe).history]
    assert max(rates) <= 0.1
    assert rates[:4] == sorted(rates[:4])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.01


def test_early_stopping_ends_a_training_that_no_longer_gains():
    recipe = Recipe(epochs=50, batch_size=32, early_stop=3)
    training = train(Network(GRAPH), TRAINING, VALIDATION, recipe)
    accuracies = [report.validation_accuracy for report in training.history]
    assert len(accuracies) < 50
    assert max(accuracies[-3:]) <= max(accuracies[:-3])


def test_a_loss_that_is_not_finite_is_an_error_with_a_remedy():
    with pytest.raises(TrainingError, match="became") as raised:
        train(Network(GRAPH), TRAINING, None, Recipe(epochs=3, learning_rate=1e18, warmup=0.0))
    assert "learning_rate" in raised.value.hint


@pytest.mark.parametrize("name", ["shift", "crop", "flip", "affine", "noise"])
def test_an_augmentation_keeps_shapes_and_changes_images_within_reason(name):
    images = torch.from_numpy(TRAINING.inputs[:64])
    changed = augment(images, (Augmentation(name),), torch.Generator().manual_seed(0))
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    assert changed.abs().max() <= images.abs().max() + 0.5


def test_a_shift_moves_by_whole_pixels_and_fills_as_told():
    images = torch.full((50, 1, 4, 4), 2.0)
    random = torch.Generator().manual_seed(0)
    edge = augment(images, (Augmentation("shift", (("pixels", 2), ("fill", "edge"))),), random)
    assert torch.equal(edge, images)
    zero = augment(images, (Augmentation("shift", (("pixels", 2),)),), random)
    assert set(zero.unique().tolist()) == {0.0, 2.0}
    assert (zero == 2.0).sum((1, 2, 3)).min() >= 4


def test_a_last_batch_of_one_example_is_left_out():
    examples = TRAINING.subset(range(33))
    assert len(train(Network(GRAPH), examples, None, Recipe(epochs=1, batch_size=32)).history) == 1


def test_examples_that_do_not_fit_the_network_are_refused():
    recipe = Recipe(epochs=1)
    with pytest.raises(DataError, match="label 7, @residual tells 4 classes apart"):
        train(Network(GRAPH), Examples(TRAINING.inputs, np.full(256, 7)), None, recipe)
    with pytest.raises(DataError, match="validation examples have shape"):
        train(Network(GRAPH), TRAINING, Examples(np.zeros((2, 3, 8, 8), np.float32), np.zeros(2, np.int64)), recipe)
    with pytest.raises(WeightsError, match="no weights"):
        evaluate(Network(GRAPH), VALIDATION)
    with pytest.raises(UsageError, match="no device"):
        evaluate(Network(GRAPH, initialize(GRAPH)), VALIDATION, device="abacus")


def test_a_recipe_is_read_from_a_table():
    recipe = Recipe.from_mapping(
        {"epochs": 5, "learning_rate": 1, "augmentation": ["flip", {"name": "shift", "pixels": 2, "fill": "edge"}]}
    )
    assert recipe.learning_rate == 1.0
    assert recipe.augmentation[0] == Augmentation("flip")
    assert recipe.augmentation[1].number("pixels") == 2
    assert recipe.augmentation[1].word("fill") == "edge"


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({"epoch": 5}, "training: unknown key 'epoch'", "did you mean 'epochs'?"),
        ({"epochs": "5"}, "training: epochs is '5'", "whole number"),
        ({"epochs": True}, "training: epochs is True", "whole number"),
        ({"epochs": 0}, "training: epochs is 0", "at least 1"),
        ({"batch_size": 1}, "training: batch_size is 1", "at least 2"),
        ({"learning_rate": -0.1}, "training: learning_rate is -0.1", "positive"),
        ({"learning_rate": float("nan")}, "training: learning_rate is nan", "positive"),
        ({"optimizer": "adam"}, "training: optimizer is 'adam'", "did you mean 'adamw'?"),
        ({"precision": "half"}, "training: precision is 'half'", "bfloat16"),
        ({"teacher_precision": "half"}, "training: teacher_precision is 'half'", "bfloat16"),
        ({"augmentation": "flip"}, "augmentation is 'flip'", "list"),
        ({"augmentation": ["flop"]}, "augmentation[0]: unknown augmentation 'flop'", "did you mean 'flip'?"),
        ({"augmentation": [{"name": "shift", "pixel": 1}]}, "has no parameter 'pixel'", "did you mean 'pixels'?"),
        ({"augmentation": [{"name": "shift", "pixels": 1.5}]}, "pixels is 1.5", "whole number"),
        ({"augmentation": [{"name": "shift", "fill": "red"}]}, "fill is 'red'", "edge"),
        ({"augmentation": [{"name": "zoom", "least": 2}]}, "least is 2 and most is 1.5", "least is no more than most"),
        ({"augmentation": [3]}, "3 is no augmentation", "flip"),
    ],
)
def test_a_recipe_says_what_is_wrong_and_how_to_mend_it(table, message, hint):
    with pytest.raises(UsageError) as raised:
        Recipe.from_mapping(table)
    assert message in raised.value.message
    assert hint in raised.value.hint
