"""All networks of a generator trained together: slices do well, and the statistics are their own."""

import dataclasses

import numpy as np
import pytest
import torch
from test_torch_training import TRAINING, VALIDATION

from gensynth.backends.torch import Augmentation, Recipe, evaluate, train
from gensynth.backends.torch.calibration import calibrate
from gensynth.backends.torch.objectives import Classification, Detection, Objective, Segmentation
from gensynth.backends.torch.shared_training import evaluate_shared, train_shared
from gensynth.backends.torch.sharing import SharedModule
from gensynth.ir import Network, UsageError, WeightsError, parse
from gensynth.passes import Materializer
from gensynth.passes.choices.inheritance import inherit_weights
from gensynth.passes.cost import totals

GENERATOR = parse("""gensynth 1

network @open(%image: f32[N, 1, 8, 8]) -> f32[N, 4] {
  %conv1  = conv2d(%image) {channels=choice<width>[2, 4, 8], kernel=choice<kernel>[1, 3], padding=same}
  %norm1  = batch_norm(%conv1)
  %act1   = relu(%norm1)
  %body = choose<way>(%act1) {
    deep[0.00](%x) {
      %conv2 = conv2d(%x) {channels=8, kernel=3, stride=2, padding=same}
      %norm2 = batch_norm(%conv2)
      %act2  = relu(%norm2)
      yield %act2
    }
    flat[0.00](%x) {
      %conv3 = conv2d(%x) {channels=8, kernel=2, stride=2}
      %act3  = relu(%conv3)
      yield %act3
    }
  }
  %flat   = flatten(%body)
  %logits = dense(%flat) {features=4}
  return %logits
}
""")
LARGEST = Materializer(GENERATOR).build({"width": 2, "kernel": 1, "way": 0})
RECIPE = Recipe(epochs=8, batch_size=32, optimizer="adamw", learning_rate=0.01)


@pytest.fixture(scope="module")
def trained():
    return train_shared(Network(GENERATOR), TRAINING, VALIDATION, RECIPE)


def every(module):
    return [
        {"width": width, "kernel": kernel, "way": way} for width in range(3) for kernel in range(2) for way in range(2)
    ]


def test_every_network_does_well_with_its_slices(trained):
    found = [evaluate_shared(trained.module, decisions, TRAINING, VALIDATION).accuracy for decisions in every(trained)]
    assert min(found) > 60.0 and np.mean(found) > 85.0
    assert trained.history[-1].validation_accuracy > 90.0


def test_networks_that_were_not_trained_together_do_worse(trained):
    one = train(Network(trained.module.materializer.build(every(trained)[-1])), TRAINING, VALIDATION, RECIPE)
    assert one.accuracy is not None and one.accuracy > 90.0
    untrained = train_shared(
        Network(GENERATOR), TRAINING, None, dataclasses.replace(RECIPE, epochs=1, learning_rate=1e-9)
    )
    assert untrained.history[-1].validation_accuracy is None
    assert evaluate_shared(untrained.module, every(trained)[0], TRAINING, VALIDATION).accuracy < 60.0


def test_training_repeats_itself_by_seed_but_for_rounding(trained):
    again = train_shared(Network(GENERATOR), TRAINING, VALIDATION, RECIPE)
    other = train_shared(Network(GENERATOR), TRAINING, None, RECIPE, seed=1)
    losses = [[report.loss for report in run.history] for run in (trained, again, other)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[2] != pytest.approx(losses[0], rel=1e-3)


def test_the_generator_takes_the_shared_weights_and_an_inherited_network_needs_only_statistics(trained):
    generator = trained.generator()
    # With every kernel at its largest, no map stands between shared and inherited weights.
    decisions = {"width": 1, "kernel": 1, "way": 0}
    shared = evaluate_shared(trained.module, decisions, TRAINING, VALIDATION)
    materializer = trained.module.materializer
    graph = materializer.build(decisions)
    weights = inherit_weights(generator, materializer.inliner, decisions, graph)
    alone = evaluate(calibrate(Network(graph, weights), TRAINING.sample(len(TRAINING))), VALIDATION)
    assert alone.accuracy == shared.accuracy
    assert alone.loss == pytest.approx(shared.loss, rel=1e-5)


def test_without_maps_every_inherited_network_is_what_was_trained():
    run = train_shared(Network(GENERATOR), TRAINING, None, dataclasses.replace(RECIPE, epochs=2), maps=False)
    generator, materializer = run.generator(), run.module.materializer
    assert not any("@" in name for name in run.module.state_dict())
    decisions = {"width": 0, "kernel": 0, "way": 1}
    graph = materializer.build(decisions)
    weights = inherit_weights(generator, materializer.inliner, decisions, graph)
    shared = run.module.network(decisions).network().weights
    assert all(np.array_equal(array, shared[name]) for name, array in weights.items())


def test_calibration_wants_weights():
    with pytest.raises(WeightsError, match="has no weights to calibrate for"):
        calibrate(Network(GENERATOR), TRAINING)


def test_what_shared_training_cannot_do_is_told():
    with pytest.raises(UsageError, match="not trained together with early_stop"):
        train_shared(Network(GENERATOR), TRAINING, VALIDATION, dataclasses.replace(RECIPE, early_stop=2))
    with pytest.raises(UsageError, match="distillation is 0.5, and @open has no trained teacher"):
        train_shared(Network(GENERATOR), TRAINING, VALIDATION, dataclasses.replace(RECIPE, distillation=0.5))


# With a teacher.

SHUFFLED = dataclasses.replace(TRAINING, labels=np.random.default_rng(0).permutation(TRAINING.labels))
TAUGHT = dataclasses.replace(RECIPE, distillation=1.0)


@pytest.fixture(scope="module")
def teacher():
    return train(Network(LARGEST), TRAINING, VALIDATION, RECIPE).network


def test_every_network_learns_from_a_teacher_where_labels_say_nothing(teacher):
    run = train_shared(Network(GENERATOR), SHUFFLED, VALIDATION, TAUGHT, teacher=teacher)
    found = [evaluate_shared(run.module, decisions, TRAINING, VALIDATION).accuracy for decisions in every(run)]
    assert min(found) > 50.0 and np.mean(found) > 80.0


def test_with_a_teacher_every_other_network_meets_the_requirements(teacher, monkeypatch):
    limited = GENERATOR.replace(requirements=("macs <= 12K",))
    materializer, trained, network = Materializer(limited), [], SharedModule.network

    def recorded(shared, decisions):
        if shared.training:
            trained.append(materializer.violation(totals(materializer.build(decisions))) == 0.0)
        return network(shared, decisions)

    monkeypatch.setattr(SharedModule, "network", recorded)
    recipe = dataclasses.replace(TAUGHT, epochs=1)
    run = train_shared(Network(limited), TRAINING, VALIDATION, recipe, teacher=teacher)
    steps = -(-len(TRAINING) // recipe.batch_size)
    assert len(trained) == 2 * steps, "two networks a step, without largest and smallest"
    assert all(trained[::2]) and not all(trained[1::2])
    likeliest = materializer.from_decisions(materializer.most_likely()).decisions
    assert run.history[-1].validation_accuracy == evaluate_shared(run.module, likeliest, TRAINING, VALIDATION).accuracy


def test_requirements_that_nothing_meets_leave_draws_as_they_are(teacher):
    hopeless = GENERATOR.replace(requirements=("macs <= 1",))
    run = train_shared(Network(hopeless), TRAINING, VALIDATION, dataclasses.replace(TAUGHT, epochs=1), teacher=teacher)
    assert run.history[-1].validation_accuracy is not None


# Distillation.


def outputs_of(objective, seed):
    random = torch.Generator().manual_seed(seed)
    if isinstance(objective, Classification):
        return torch.randn(3, 5, generator=random)
    if isinstance(objective, Segmentation):
        return torch.randn(3, 4, 6, 6, generator=random)
    return torch.rand(2, 1, 4, 4, generator=random), 8 * torch.randn(2, 4, 4, 4, generator=random)


class Plain(Classification):
    distillation = Objective.distillation


@pytest.mark.parametrize("objective", [Classification(), Segmentation(4), Detection(), Plain()], ids=lambda o: str(o))
def test_distillation_is_nothing_between_equals_and_falls_on_the_way_there(objective):
    taught, start = outputs_of(objective, 0), outputs_of(objective, 1)

    def towards(share):
        if isinstance(taught, tuple):
            return tuple(torch.lerp(a, b, share) for a, b in zip(start, taught, strict=True))
        return torch.lerp(start, taught, share)

    found = [float(objective.distillation(towards(share), taught)) for share in (0.0, 0.5, 0.9, 1.0)]
    assert found == sorted(found, reverse=True) and found[0] > 0.05 and found[-1] == pytest.approx(0.0, abs=1e-6)


def test_a_teacher_helps_where_labels_say_nothing(teacher):
    taught = train(Network(LARGEST), SHUFFLED, VALIDATION, TAUGHT, teacher=teacher, seed=1)
    assert taught.accuracy > 85.0
    rounded = dataclasses.replace(TAUGHT, teacher_precision="bfloat16")
    other = train(Network(LARGEST), SHUFFLED, VALIDATION, rounded, teacher=teacher, seed=1)
    assert other.accuracy > 85.0 and other.history[0].loss != taught.history[0].loss
    assert other.history[0].loss == pytest.approx(taught.history[0].loss, rel=0.05)
    with pytest.raises(UsageError, match="has no trained teacher"):
        train(Network(LARGEST), TRAINING, None, dataclasses.replace(RECIPE, distillation=0.5))
    other = parse("gensynth 1\n\nnetwork @other(%x: f32[N, 4]) -> f32[N, 4] {\n  %y = relu(%x)\n  return %y\n}\n")
    half = dataclasses.replace(RECIPE, distillation=0.5)
    with pytest.raises(UsageError, match="cannot learn from"):
        train(Network(LARGEST), TRAINING, None, half, teacher=Network(other, {}))


def test_a_teacher_of_plain_images_gives_what_one_of_the_same_images_does_where_nothing_changes_them(teacher):
    plain = dataclasses.replace(TAUGHT, epochs=2, teacher_images="plain")
    for recipe in (plain, dataclasses.replace(plain, examples=100)):
        seen = dataclasses.replace(recipe, teacher_images="same")
        for run in (
            lambda chosen: train(Network(LARGEST), SHUFFLED, None, chosen, teacher=teacher),
            lambda chosen: train_shared(Network(GENERATOR), SHUFFLED, None, chosen, teacher=teacher),
        ):
            losses = [[report.loss for report in run(chosen).history] for chosen in (recipe, seen)]
            assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_teacher_of_plain_images_does_not_see_what_augmentation_spoils(teacher):
    glare = Augmentation("color", (("brightness", 10.0), ("contrast", 1.0)))
    recipe = dataclasses.replace(TAUGHT, augmentation=(glare,))
    found = {
        images: train(
            Network(LARGEST),
            SHUFFLED,
            VALIDATION,
            dataclasses.replace(recipe, teacher_images=images),
            teacher=teacher,
        ).accuracy
        for images in ("same", "plain")
    }
    assert found["plain"] > 85.0 > 60.0 > found["same"], found
