"""A training that was cut off goes on where it was, and gives what it would have given uninterrupted."""

import dataclasses
import re
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_torch_shared_training import GENERATOR as SHARED_GENERATOR
from test_torch_training import TRAINING, VALIDATION

from gensynth.backends.torch import Augmentation, Recipe, TrainingError, checkpoint, train, train_shared, training
from gensynth.ir import Network, UsageError, initialize, parse, to_text
from gensynth.synth.evaluation import Job, TaskReference, run_job

GRAPH = parse("""gensynth 1

network @small(%image: f32[N, 1, 8, 8]) -> f32[N, 4] {
  %conv   = conv2d(%image) {channels=4, kernel=3, stride=2, padding=same}
  %norm   = batch_norm(%conv)
  %act    = relu(%norm)
  %flat   = flatten(%act)
  %drop   = dropout(%flat) {rate=0.2}
  %logits = dense(%drop) {features=4}
  return %logits
}
""")
# Shared networks take statistics in training mode before they are validated, where dropout draws random numbers too.
GENERATOR = parse(
    re.sub(r"(%\w+ += dense\()%(\w+)", r"%drop = dropout(%\2) {rate=0.2} \1%drop", to_text(SHARED_GENERATOR))
)
AVERAGED = Recipe(epochs=3, batch_size=32, ema_decay=0.9, augmentation=(Augmentation("shift"), Augmentation("mixup")))
STOPPING = Recipe(epochs=20, batch_size=32, optimizer="adamw", learning_rate=0.01, early_stop=2)
SHARED = Recipe(epochs=2, batch_size=32, optimizer="adamw", learning_rate=0.01, ema_decay=0.9)
LED = dataclasses.replace(SHARED, distillation=0.5, teacher_images="plain")
KINDS = ["averaged", "stopping", "distilled", "shared", "led"]


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """An epoch has four chunks of two batches."""
    monkeypatch.setattr(training, "CHUNK_ELEMENTS", 2 * 32 * 64)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights" / "net.checkpoint"


def start(kind, path=None, *, every=0.0, on_epoch=None, seed=3, **changes):
    """Trains in one of the ways that are to be resumed; returns weights and history."""
    recipe = dataclasses.replace({"stopping": STOPPING, "shared": SHARED, "led": LED}.get(kind, AVERAGED), **changes)
    options = {"seed": seed, "on_epoch": on_epoch, "checkpoint": path, "checkpoint_every": every}
    if kind in ("shared", "led"):
        teacher = Network(GRAPH, initialize(GRAPH, 9)) if recipe.distillation else None
        trained = train_shared(Network(GENERATOR), TRAINING, VALIDATION, recipe, teacher=teacher, maps=False, **options)
        return trained.generator().weights, trained.history
    teacher = None
    if kind == "distilled":
        recipe = dataclasses.replace(recipe, distillation=0.5)
        teacher = Network(GRAPH, initialize(GRAPH, 9))
    trained = train(Network(GRAPH), TRAINING, VALIDATION, recipe, teacher=teacher, **options)
    return trained.network.weights, trained.history


def same(one, other):
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    return all(np.array_equal(array, other[0][name]) for name, array in one[0].items())


def killed_after(monkeypatch, parts, run):
    """Runs until `parts` parts of epochs have been augmented, and kills it in the next."""
    counted, augment = count(), training.augment_labelled

    def dying(*arguments, **options):
        if next(counted) == parts:
            raise Killed
        return augment(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(training, "augment_labelled", dying)
        with pytest.raises(Killed):
            run()


def dies_in(epoch):
    def on_epoch(report):
        if report.epoch == epoch:
            raise Killed

    return on_epoch


@pytest.fixture(scope="module")
def whole():
    """What uninterrupted trainings give, by kind."""
    found = {}

    def of(kind):
        if kind not in found:
            found[kind] = start(kind, on_epoch=lambda report: None)
        return found[kind]

    return of


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [1, 6])
def test_a_training_killed_within_an_epoch_goes_on_bit_for_bit(kind, parts, whole, path, monkeypatch):
    killed_after(monkeypatch, parts, lambda: start(kind, path, on_epoch=lambda report: None))
    assert path.exists()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    reported = []
    resumed = start(kind, path, on_epoch=reported.append)
    assert same(resumed, whole(kind))
    assert tuple(reported) == resumed[1][parts // 4 :]
    assert torch.equal(torch.get_rng_state(), before)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_killed_between_epochs_goes_on_bit_for_bit(kind, whole, path):
    with pytest.raises(Killed):
        start(kind, path, on_epoch=dies_in(1))
    assert same(start(kind, path, on_epoch=lambda report: None), whole(kind))
    assert not path.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_may_be_killed_many_times(kind, whole, path, monkeypatch):
    for _ in range(2):
        killed_after(monkeypatch, 2, lambda: start(kind, path, on_epoch=lambda report: None))
    with pytest.raises(Killed):
        start(kind, path, on_epoch=dies_in(2))
    assert same(start(kind, path, on_epoch=lambda report: None), whole(kind))


def test_the_best_epoch_of_a_training_that_stops_early_survives(whole, path):
    last = len(whole("stopping")[1])
    assert 2 < last < STOPPING.epochs, "it stops early"
    for epoch in (last - 1, last):
        with pytest.raises(Killed):
            start("stopping", path, on_epoch=dies_in(epoch))
    assert same(start("stopping", path), whole("stopping"))


def test_a_resumed_training_does_no_work_again(path, monkeypatch):
    killed_after(monkeypatch, 10, lambda: start("averaged", path))
    counted, augment = [], training.augment_labelled
    monkeypatch.setattr(
        training, "augment_labelled", lambda *given, **options: counted.append(1) or augment(*given, **options)
    )
    start("averaged", path)
    assert len(counted) == 2


@pytest.mark.parametrize(
    "changes", [{"seed": 4}, {"weight_decay": 1e-3}, {"epochs": 4}], ids=lambda changes: next(iter(changes))
)
def test_a_checkpoint_of_another_training_is_ignored(changes, whole, path, monkeypatch):
    killed_after(monkeypatch, 6, lambda: start("averaged", path, **changes))
    assert same(start("averaged", path, on_epoch=lambda report: None), whole("averaged"))
    assert not path.exists()


def test_a_digest_tells_trainings_apart():
    network, device = Network(GRAPH), torch.device("cpu")

    def digest(kind="train", network=network, examples=TRAINING, held_out=VALIDATION, others=(), teacher=None):
        return checkpoint.training_digest(
            kind, network, examples, held_out, AVERAGED, training.CLASSIFICATION, 0, device, *others, teacher=teacher
        )

    weights, inverse = initialize(GRAPH, 1), dataclasses.replace(TRAINING, inputs=-TRAINING.inputs)
    found = [
        digest(),
        digest(kind="shared"),
        digest(others=(2, True)),
        digest(network=Network(GENERATOR)),
        digest(network=Network(GRAPH, weights)),
        digest(network=Network(GRAPH, initialize(GRAPH, 2))),
        digest(teacher=Network(GRAPH, weights)),
        digest(examples=TRAINING.subset(range(255))),
        digest(examples=inverse),
        digest(held_out=TRAINING),
        digest(held_out=None),
    ]
    assert len(set(found)) == len(found)
    assert digest() == found[0]


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"no checkpoint at all"],
    ids=["torn", "empty", "foreign"],
)
def test_a_checkpoint_that_cannot_be_read_is_ignored(damage, whole, path, monkeypatch):
    killed_after(monkeypatch, 6, lambda: start("averaged", path))
    path.write_bytes(damage(path.read_bytes()))
    assert same(start("averaged", path, on_epoch=lambda report: None), whole("averaged"))
    assert not path.exists()


def test_a_checkpoint_of_another_version_is_ignored(whole, path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "VERSION", 0)
        killed_after(monkeypatch, 6, lambda: start("averaged", path))
    assert path.exists()
    assert same(start("averaged", path, on_epoch=lambda report: None), whole("averaged"))


def test_state_is_written_only_so_often(path, monkeypatch):
    killed_after(monkeypatch, 6, lambda: start("averaged", path, every=1000.0))
    assert not path.exists()


def test_a_crash_while_writing_leaves_the_state_before(whole, path, monkeypatch):
    killed_after(monkeypatch, 3, lambda: start("averaged", path))
    before = path.read_bytes()

    def dying(descriptor):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", dying)
        with pytest.raises(Killed):
            start("averaged", path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    leftover = path.with_name(f".{path.name}.12345")
    leftover.write_bytes(b"of a process that was killed while it wrote")
    assert same(start("averaged", path, on_epoch=lambda report: None), whole("averaged"))
    assert list(path.parent.iterdir()) == []


def test_a_training_that_diverges_leaves_no_checkpoint(path):
    with pytest.raises(TrainingError, match="became"):
        start("averaged", path, learning_rate=1e18, warmup=0.0)
    assert list(path.parent.iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_is_told(path):
    path.parent.write_text("a file where a folder should be")
    with pytest.raises(UsageError, match="cannot write .*net.checkpoint"):
        start("averaged", path)


@pytest.mark.parametrize("kind", ["final", "shared"])
def test_a_job_that_saves_weights_is_resumed_beside_them(kind, tmp_path, monkeypatch):
    graph = GENERATOR if kind == "shared" else GRAPH
    text = to_text(graph).replace("f32[N, 4]", "f32[N, 10]").replace("features=4", "features=10")
    reference, recipe = TaskReference.of("digits", {}), Recipe(epochs=1, batch_size=128)

    def run(name):
        return run_job(Job(kind, text, reference, 1, recipe, saved=str(tmp_path / f"{name}.safetensors")))

    expected = run("whole").result
    assert [path.name for path in tmp_path.iterdir()] == ["whole.safetensors"]
    minutes = count(step=60.0)
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: next(minutes)))
    hours = count(step=3600.0)
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: next(hours)))
    killed_after(monkeypatch, 4, lambda: run("killed"))
    before = torch.load(tmp_path / "killed.checkpoint")["state"]["seconds"]
    resumed = run("killed")
    assert resumed.result == expected
    assert resumed.seconds > before >= 3600.0, "what it took before it was killed counts"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.safetensors", "whole.safetensors"]
    whole, killed = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == killed
