"""Training and evaluation. Deterministic under a seed, bit for bit on the CPU at a fixed number of threads."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from gensynth.ir import GenSynthError, Network, UsageError, WeightsError

from ..examples import Examples
from .augmentation import augment_labelled, mixup_of
from .checkpoint import Checkpoint, State, random_states, restore_random_states, training_digest
from .data import Data
from .lowerings import Scope
from .module import device_of, to_torch, weights_of
from .objectives import Classification, Objective
from .objectives.base import Outputs
from .optimizer import FlatState, Optimizer
from .precision import autocast, precision_on
from .recipe import Recipe
from .teaching import Teacher, teacher_for

__all__ = ["EpochReport", "Evaluation", "Training", "TrainingError", "evaluate", "train"]

CHUNK_ELEMENTS = 1 << 24
"""Augmentation works on as many batches at once as have about this many elements: 64 MiB."""

EVALUATED = 512
"""Examples a batch of an evaluation."""

EVALUATED_ON_CPU = 64
"""The same on a CPU: what a layer gives stays near the caches, and is small enough for memory that was freed to be used
again, where the kernel would give other pages, and clear them (bench/judging.py)."""

EVALUATED_ELEMENTS = 1 << 21
"""Of images with masks or boxes, which are large, a batch of an evaluation has at most about this many elements."""


CLASSIFICATION = Classification()

ModuleT = TypeVar("ModuleT", bound=Scope)


class TrainingError(GenSynthError):
    """Training that cannot go on: the loss is not finite."""


@dataclass(frozen=True)
class EpochReport:
    """One epoch: its number from 1, mean training loss, last learning rate, validation accuracy [%] where measured.

    `validation_metrics` are all metrics of the objective [%], the accuracy among them; empty where not measured.
    """

    epoch: int
    loss: float
    learning_rate: float
    validation_accuracy: float | None
    validation_metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """The trained network, what happened epoch by epoch, and the network's validation accuracy and metrics [%].

    `seconds` are those of all parts of a training that was cut off and went on from a checkpoint.
    """

    network: Network
    history: tuple[EpochReport, ...]
    accuracy: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Evaluation:
    """Accuracy, that is the objective's main metric [%], and mean loss over `count` examples.

    `metrics` are all that the objective measures, by name [%], the main one first.
    """

    accuracy: float
    loss: float
    count: int
    metrics: Mapping[str, float] = field(default_factory=dict)


def evaluate(
    network: Network,
    examples: Examples,
    objective: Objective = CLASSIFICATION,
    *,
    device: str | torch.device = "cpu",
    batch_size: int | None = None,
    layout: str = "nchw",
) -> Evaluation:
    """Returns how well a network with weights does on examples, as the objective judges.

    Where `batch_size` is silent, a batch has 64 examples on a CPU and 512 elsewhere, fewer of large images with masks
    or boxes. `layout` is how they lie in memory, as in a recipe.

    Raises:
        WeightsError: the network has no weights.
        UsageError: the network's inputs or outputs are not what the objective wants.
        DataError: the examples do not fit the network or the objective.
    """
    if network.weights is None:
        raise WeightsError(f"@{network.name} has no weights to evaluate", hint="train it, or load its weights")
    where = device_of(device)
    objective.check(network.graph, examples, "examples")
    module = to_torch(network).to(where).eval()
    return judge(module, Data.on(examples, where, layout), objective, nullcontext(), batch_size)


def train(
    network: Network,
    training: Examples,
    validation: Examples | None,
    recipe: Recipe,
    objective: Objective = CLASSIFICATION,
    *,
    teacher: Network | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_epoch: Callable[[EpochReport], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float = 60.0,
) -> Training:
    """Returns a network trained by a recipe, from its weights where it has some, else from fresh ones of `seed`.

    `objective` is what it is trained for; a task names its own. `teacher` is a trained network with the same outputs,
    which the recipe's `distillation` is about.

    The result is the last epoch; where the recipe stops early, the best by validation accuracy (of equals, the last).
    To pick the best among all epochs of a full run would fit the validation part. Where the recipe keeps a moving
    average, that average is what is validated and returned. Every epoch is validated if somebody listens or the recipe
    stops early, else the last alone.

    With `checkpoint`, a file, the state of the training is kept there, at most once in `checkpoint_every` seconds; the
    same training started again goes on from it and gives what it would have given uninterrupted. A file that cannot be
    read or is of another training is ignored, and replaced. At the end the file is removed. Epochs that were reported
    before are not reported again, but for one that the file does not know of.

    Raises:
        DataError: the examples do not fit the network or the objective.
        TrainingError: the loss is not finite.
        UsageError: the network has open choices or does not fit the objective, the recipe asks for what the objective
            cannot do or for a teacher where there is none, the device does not exist, or the checkpoint cannot be
            written.
    """
    where = device_of(device)
    taught = teacher_for(network, teacher, recipe)
    for examples, what in ((training, "training examples"), (validation, "validation examples")):
        if examples is not None:
            objective.check(network.graph, examples, what)
    objective.check_recipe(recipe)
    training = examples_of(training, recipe, seed)
    file = None
    if checkpoint is not None:
        digest = training_digest("train", network, training, validation, recipe, objective, seed, where, teacher=taught)
        file = Checkpoint(checkpoint, checkpoint_every, digest)
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        torch.manual_seed(seed)
        module = to_torch(network, seed=seed).to(where)
        run = Run(module, network.name, recipe, objective, Data.on(training, where, recipe.layout), seed)
        run.teacher = None if taught is None else Teacher(taught, recipe, run.data)
        held_out = None if validation is None else Data.on(validation, where, recipe.layout)
        with run.kept_in(file):
            for epoch in run.epochs():
                loss = run.epoch(epoch)
                found: Evaluation | None = None
                wanted = on_epoch is not None or recipe.early_stop > 0 or epoch == recipe.epochs
                if held_out is not None and wanted:
                    found = judge(run.judged.eval(), held_out, objective, run.autocast())
                    known = -1.0 if run.best is None else run.best[0].accuracy
                    if found.accuracy > known:
                        run.best_epoch = epoch
                    if found.accuracy >= known or not recipe.early_stop:
                        run.best = found, run.judged_state.values.clone()
                run.report(epoch, loss, found, on_epoch)
                if held_out is not None and recipe.early_stop and epoch - run.best_epoch >= recipe.early_stop:
                    break
        if run.best is not None:
            run.judged_state.values.copy_(run.best[1])
    trained = Network(network.graph, weights_of(run.judged))
    if run.best is None:
        return Training(trained, tuple(run.history), None, seconds=run.seconds())
    return Training(trained, tuple(run.history), run.best[0].accuracy, run.best[0].metrics, run.seconds())


def examples_of(training: Examples, recipe: Recipe, seed: int) -> Examples:
    """Returns the training examples that a recipe trains on."""
    return training.sample(recipe.examples, seed) if 0 < recipe.examples < len(training) else training


@dataclass(frozen=True)
class Batch:
    """Inputs as they were changed and laid out, their labels, and the places of their examples in the data."""

    inputs: Tensor
    labels: Tensor
    which: Tensor


class Run(Generic[ModuleT]):
    """A training under way: the module, its optimizer, its moving average, its random streams, and what it gave so far.

    `history` has the epochs that are over; `best` is the best evaluation, with the state it was of, and `best_epoch`
    the first epoch that was as good.
    """

    def __init__(self, module: ModuleT, name: str, recipe: Recipe, objective: Objective, data: Data, seed: int) -> None:
        """Prepares the training of a module; `name` is what messages call it."""
        self.module = module
        self.name = name
        self.teacher: Teacher | None = None
        self.recipe = recipe
        self.objective = objective
        self.data = data
        self._precision = precision_on(data.inputs.device, recipe.precision)
        self.learning_rate = 0.0
        self.history: list[EpochReport] = []
        self.best: tuple[Evaluation, Tensor] | None = None
        self.best_epoch = 0
        self._file: Checkpoint | None = None
        self._order: Tensor | None = None
        self._total = torch.zeros((), device=data.inputs.device)
        self._done = 0
        self._started = time.perf_counter()
        self._random = torch.Generator().manual_seed(seed)
        self._step = 0
        self._steps = recipe.epochs * len(self._bounds())
        if not any(True for _ in module.parameters()):
            raise UsageError(f"@{name} has no weights to train", hint="evaluate it as it is")
        self.judged = copy.deepcopy(module) if recipe.ema_decay else module
        self.state = FlatState(module)
        self.judged_state = FlatState(self.judged, gradient=False) if recipe.ema_decay else self.state
        self._optimizer = Optimizer(self.state, recipe)
        self._mixup = mixup_of(recipe.augmentation)

    def seconds(self) -> float:
        """Returns the time that this training has taken, parts before it was cut off included."""
        return time.perf_counter() - self._started

    def autocast(self) -> AbstractContextManager[object]:
        """Returns the context that forward passes run in."""
        return autocast(self.data.inputs.device, self._precision)

    def _bounds(self) -> list[tuple[int, int]]:
        """Returns the batches of an epoch; a last one of a single example is left out, as it has no variance."""
        count, size = len(self.data.labels), self.recipe.batch_size
        bounds = [(start, min(start + size, count)) for start in range(0, count, size)]
        return bounds[:-1] if len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] == 1 else bounds

    @contextmanager
    def kept_in(self, file: Checkpoint | None) -> Iterator[None]:
        """Goes on from a checkpoint where there is one, keeps it inside the `with`, and removes it at the end."""
        state = None if file is None else file.load()
        if state is not None:
            self.restore(state)
        self._file = file
        try:
            yield
        except TrainingError:
            if file is not None:
                file.remove()  # what diverged once would diverge again
            raise
        if file is not None:
            file.remove()

    def epochs(self) -> Iterator[int]:
        """Yields the epochs that are not over; one of them may have begun before."""
        for number in range(len(self.history) + 1, self.recipe.epochs + 1):
            self._keep()
            yield number

    def report(
        self, epoch: int, loss: float, found: Evaluation | None, on_epoch: Callable[[EpochReport], None] | None
    ) -> None:
        """Adds an epoch to the history and tells it to who listens."""
        if found is None:
            self.history.append(EpochReport(epoch, loss, self.learning_rate, None))
        else:
            self.history.append(EpochReport(epoch, loss, self.learning_rate, found.accuracy, found.metrics))
        if on_epoch is not None:
            on_epoch(self.history[-1])

    def _keep(self) -> None:
        if self._file is not None and self._step:
            self._file.save(self.snapshot)

    def snapshot(self) -> State:
        """Returns all that a training goes on from, as it is, not copied; between epochs there is no order."""
        return {
            "values": self.state.values,
            "judged": self.judged_state.values,
            "optimizer": self._optimizer.state(),
            "step": self._step,
            "learning_rate": self.learning_rate,
            "order": self._order,
            "total": self._total,
            "done": self._done,
            "random": self._random.get_state(),
            "random_states": random_states(self.data.inputs.device),
            "history": [asdict(report) for report in self.history],
            "best": None if self.best is None else (asdict(self.best[0]), self.best[1]),
            "best_epoch": self.best_epoch,
            "seconds": self.seconds(),
        }

    def restore(self, state: State) -> None:
        """Goes on from what `snapshot` returned."""
        device = self.data.inputs.device
        self.state.values.copy_(state["values"])
        self.judged_state.values.copy_(state["judged"])
        self._optimizer.restore(state["optimizer"])
        self._step, self.learning_rate = state["step"], state["learning_rate"]
        self._order = None if state["order"] is None else state["order"].to(device)
        self._total, self._done = state["total"].to(device), state["done"]
        self._random.set_state(state["random"])
        restore_random_states(state["random_states"], device)
        self.history = [EpochReport(**report) for report in state["history"]]
        if state["best"] is not None:
            evaluation, values = state["best"]
            self.best = Evaluation(**evaluation), values.to(device)
        self.best_epoch = state["best_epoch"]
        self._started -= state["seconds"]

    def _batches(self, order: Tensor) -> Iterator[Batch]:
        """Yields the batches of an epoch that are not done."""
        inputs, labels = self.data.inputs, self.data.labels
        bounds = self._bounds()
        per_example = inputs[0].numel()
        at_once = max(1, CHUNK_ELEMENTS // max(1, per_example * self.recipe.batch_size))
        for first in range(self._done, len(bounds), at_once):
            part = bounds[first : first + at_once]
            start, stop = part[0][0], part[-1][1]
            chosen = order[start:stop]
            images, targets = self.data.normalized(inputs.index_select(0, chosen)), labels.index_select(0, chosen)
            images, targets = augment_labelled(
                images, targets, self.recipe.augmentation, self._random, outside=self.objective.outside
            )
            for begin, end in part:
                part_of = slice(begin - start, end - start)
                yield Batch(self.data.laid_out(images[part_of]), targets[part_of], chosen[part_of])
            # Only here: within a part, batches to come have been augmented, and their random numbers are drawn.
            self._keep()

    def epoch(self, number: int) -> float:
        """Trains for one epoch, or for the rest of one that a checkpoint holds, and returns the mean loss."""
        self.module.train()
        if self._order is None:
            order = torch.randperm(len(self.data.labels), generator=self._random)
            self._order = order.to(self.data.inputs.device)
            self._total.zero_()
            self._done = 0
        for batch in self._batches(self._order):
            self.learning_rate = _one_cycle(self._step, self._steps, self.recipe)
            self._total += self.backward(batch)
            self._optimizer.step(self.learning_rate)
            self._step += 1
            self._average()
            self._done += 1
        self._order = None
        mean = float(self._total) / self._done
        if not math.isfinite(mean):
            raise TrainingError(
                f"the training loss of @{self.name} became {mean} in epoch {number}",
                hint=f"lower learning_rate (it is {self.recipe.learning_rate:g}), or set gradient_clip",
            )
        return mean

    def backward(self, batch: Batch) -> Tensor:
        """Adds the gradient of a batch's loss, and returns the loss."""
        with self.autocast():
            loss = self._loss(batch)
        torch.autograd.backward(loss)
        return loss.detach()

    def _loss(self, batch: Batch) -> Tensor:
        loss, smoothing, labels = self.objective.loss, self.recipe.label_smoothing, batch.labels
        if not self._mixup:
            scores = self.module(batch.inputs)
            return self.distilled(loss(scores, labels, smoothing), scores, self.taught(batch))
        share = float(torch._sample_dirichlet(torch.full((2,), self._mixup), self._random)[0])
        partner = torch.randperm(len(labels), generator=self._random).to(labels.device)
        mixed = replace(batch, inputs=torch.lerp(batch.inputs[partner], batch.inputs, share))
        scores = self.module(mixed.inputs)
        both = share * loss(scores, labels, smoothing) + (1.0 - share) * loss(scores, labels[partner], smoothing)
        return self.distilled(both, scores, self.taught(mixed))

    def taught(self, batch: Batch) -> Outputs | None:
        """Returns what the teacher gives for a batch, None where there is no teacher."""
        return None if self.teacher is None else self.teacher.outputs(batch.inputs, batch.which)

    def distilled(self, loss: Tensor, outputs: Outputs, taught: Outputs | None) -> Tensor:
        """Returns a loss of which the recipe's share is the distance to what the teacher gives."""
        if taught is None:
            return loss
        share = self.recipe.distillation
        return (1.0 - share) * loss + share * self.objective.distillation(outputs, taught)

    @torch.no_grad()
    def _average(self) -> None:
        if self.recipe.ema_decay:
            decay = min(self.recipe.ema_decay, (1 + self._step) / (10 + self._step))
            self.judged_state.values.lerp_(self.state.values, 1.0 - decay)


def _one_cycle(step: int, steps: int, recipe: Recipe) -> float:
    rising = recipe.warmup * steps
    if step < rising:
        return recipe.learning_rate * (step + 1) / (rising + 1)
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))


@torch.inference_mode()
def judge(
    module: Callable[[Tensor], Outputs],
    data: Data,
    objective: Objective,
    autocast: AbstractContextManager[object],
    batch_size: int | None = None,
) -> Evaluation:
    """Returns how well a module in inference mode does on data."""
    meter = objective.meter(data.inputs.device)
    size = batch_size or (EVALUATED_ON_CPU if data.inputs.device.type == "cpu" else EVALUATED)
    if batch_size is None and objective.kind != "classes":
        size = max(1, min(size, EVALUATED_ELEMENTS // max(1, data.inputs[0].numel())))
    with autocast:
        for inputs, labels in zip(torch.split(data.inputs, size), torch.split(data.labels, size), strict=True):
            meter.update(module(data.laid_out(data.normalized(inputs))), labels)
    metrics = {name: float(value) for name, value in meter.metrics().items()}  # a checkpoint takes none of NumPy's
    return Evaluation(metrics[objective.metric], meter.loss, len(data.labels), metrics)
