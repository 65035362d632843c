"""Training and evaluation. Deterministic under a seed, bit for bit on the CPU at a fixed number of threads."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gensynth.ir import DataError, GenSynthError, Network, UsageError, WeightsError

from ..examples import Examples
from .augmentation import augment, mixup_of
from .module import NetworkModule, to_torch, weights_of
from .optimizer import FlatState, Optimizer
from .recipe import Recipe

__all__ = ["EpochReport", "Evaluation", "Training", "TrainingError", "check_examples", "evaluate", "train"]

CHUNK_ELEMENTS = 1 << 24
"""Augmentation works on as many batches at once as have about this many elements: 64 MiB."""


class TrainingError(GenSynthError):
    """Training that cannot go on: the loss is not finite."""


@dataclass(frozen=True)
class EpochReport:
    """One epoch: its number from 1, mean training loss, last learning rate, validation accuracy [%] where measured."""

    epoch: int
    loss: float
    learning_rate: float
    validation_accuracy: float | None


@dataclass(frozen=True)
class Training:
    """The trained network, what happened epoch by epoch, and the network's validation accuracy [%]."""

    network: Network
    history: tuple[EpochReport, ...]
    accuracy: float | None


@dataclass(frozen=True)
class Evaluation:
    """Top-1 accuracy [%] and mean cross-entropy [nats] over `count` examples."""

    accuracy: float
    loss: float
    count: int


def evaluate(
    network: Network, examples: Examples, *, device: str | torch.device = "cpu", batch_size: int = 512
) -> Evaluation:
    """Returns how well a network with weights classifies examples.

    Raises:
        WeightsError: the network has no weights.
        DataError: the examples do not fit the network.
    """
    if network.weights is None:
        raise WeightsError(f"@{network.name} has no weights to evaluate", hint="train it, or load its weights")
    where = _device(device)
    check_examples(network, examples, "examples")
    module = to_torch(network).to(where).eval()
    return _evaluate(module, _Data.on(examples, where), batch_size, nullcontext())


def train(
    network: Network,
    training: Examples,
    validation: Examples | None,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> Training:
    """Returns a network trained by a recipe, from its weights where it has some, else from fresh ones of `seed`.

    The result is the last epoch; where the recipe stops early, the best by validation accuracy (of equals, the last).
    To pick the best among all epochs of a full run would fit the validation part. Where the recipe keeps a moving
    average, that average is what is validated and returned. Every epoch is validated if somebody listens or the recipe
    stops early, else the last alone.

    Raises:
        DataError: the examples do not fit the network.
        TrainingError: the loss is not finite.
        UsageError: the network has open choices, or the device does not exist.
    """
    where = _device(device)
    for examples, what in ((training, "training examples"), (validation, "validation examples")):
        if examples is not None:
            check_examples(network, examples, what)
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        torch.manual_seed(seed)
        run = _Run(to_torch(network, seed=seed).to(where), recipe, _Data.on(training, where), seed)
        held_out = None if validation is None else _Data.on(validation, where)
        history: list[EpochReport] = []
        best: tuple[float, Tensor] | None = None
        best_epoch = 0
        for epoch in range(1, recipe.epochs + 1):
            loss = run.epoch(epoch)
            accuracy = None
            wanted = on_epoch is not None or recipe.early_stop > 0 or epoch == recipe.epochs
            if held_out is not None and wanted:
                accuracy = _evaluate(run.judged.eval(), held_out, 512, run.autocast()).accuracy
                known = -1.0 if best is None else best[0]
                if accuracy > known:
                    best_epoch = epoch
                if accuracy >= known or not recipe.early_stop:
                    best = accuracy, run.judged_state.values.clone()
            history.append(EpochReport(epoch, loss, run.learning_rate, accuracy))
            if on_epoch is not None:
                on_epoch(history[-1])
            if held_out is not None and recipe.early_stop and epoch - best_epoch >= recipe.early_stop:
                break
        if best is not None:
            run.judged_state.values.copy_(best[1])
    trained = Network(network.graph, weights_of(run.judged))
    return Training(trained, tuple(history), None if best is None else best[0])


@dataclass(frozen=True)
class _Data:
    """Examples as two tensors on the device."""

    inputs: Tensor
    labels: Tensor

    @classmethod
    def on(cls, examples: Examples, device: torch.device) -> _Data:
        return cls(torch.as_tensor(examples.inputs, device=device), torch.as_tensor(examples.labels, device=device))


class _Run:
    """A training under way: the module, its optimizer, its moving average, and its random streams."""

    def __init__(self, module: NetworkModule, recipe: Recipe, data: _Data, seed: int) -> None:
        self.module = module
        self.recipe = recipe
        self.data = data
        self.learning_rate = 0.0
        self._random = torch.Generator().manual_seed(seed)
        self._step = 0
        self._steps = recipe.epochs * len(self._bounds())
        if not any(True for _ in module.parameters()):
            raise UsageError(f"@{module.graph.name} has no weights to train", hint="evaluate it as it is")
        self.judged = copy.deepcopy(module) if recipe.ema_decay else module
        self.state = FlatState(module)
        self.judged_state = FlatState(self.judged, gradient=False) if recipe.ema_decay else self.state
        self._optimizer = Optimizer(self.state, recipe)
        self._mixup = mixup_of(recipe.augmentation)

    def autocast(self) -> AbstractContextManager[object]:
        """Returns the context that forward passes run in."""
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(self.data.inputs.device.type, torch.bfloat16)

    def _bounds(self) -> list[tuple[int, int]]:
        """Returns the batches of an epoch; a last one of a single example is left out, as it has no variance."""
        count, size = len(self.data.labels), self.recipe.batch_size
        bounds = [(start, min(start + size, count)) for start in range(0, count, size)]
        return bounds[:-1] if len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] == 1 else bounds

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, labels = self.data.inputs, self.data.labels
        order = torch.randperm(len(labels), generator=self._random).to(labels.device)
        bounds = self._bounds()
        per_example = inputs[0].numel()
        at_once = max(1, CHUNK_ELEMENTS // max(1, per_example * self.recipe.batch_size))
        for first in range(0, len(bounds), at_once):
            part = bounds[first : first + at_once]
            start, stop = part[0][0], part[-1][1]
            chosen = order[start:stop]
            images, classes = inputs.index_select(0, chosen), labels.index_select(0, chosen)
            images = augment(images, self.recipe.augmentation, self._random)
            for begin, end in part:
                yield images[begin - start : end - start], classes[begin - start : end - start]

    def epoch(self, number: int) -> float:
        """Trains for one epoch and returns the mean loss."""
        self.module.train()
        total = torch.zeros((), device=self.data.inputs.device)
        batches = 0
        for inputs, labels in self._batches():
            self.learning_rate = _one_cycle(self._step, self._steps, self.recipe)
            with self.autocast():
                loss = self._loss(inputs, labels)
            torch.autograd.backward(loss)
            self._optimizer.step(self.learning_rate)
            self._step += 1
            self._average()
            total += loss.detach()
            batches += 1
        mean = float(total) / batches
        if not math.isfinite(mean):
            raise TrainingError(
                f"the training loss of @{self.module.graph.name} became {mean} in epoch {number}",
                hint=f"lower learning_rate (it is {self.recipe.learning_rate:g}), or set gradient_clip",
            )
        return mean

    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        if not self._mixup:
            return F.cross_entropy(self.module(inputs), labels, label_smoothing=smoothing)
        share = float(torch._sample_dirichlet(torch.full((2,), self._mixup), self._random)[0])
        partner = torch.randperm(len(labels), generator=self._random).to(labels.device)
        scores = self.module(torch.lerp(inputs[partner], inputs, share))
        own = F.cross_entropy(scores, labels, label_smoothing=smoothing)
        return share * own + (1.0 - share) * F.cross_entropy(scores, labels[partner], label_smoothing=smoothing)

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
def _evaluate(
    module: NetworkModule, data: _Data, batch_size: int, autocast: AbstractContextManager[object]
) -> Evaluation:
    correct = torch.zeros((), dtype=torch.int64, device=data.labels.device)
    loss = torch.zeros((), dtype=torch.float64, device=data.labels.device)
    with autocast:
        for inputs, labels in zip(
            torch.split(data.inputs, batch_size), torch.split(data.labels, batch_size), strict=True
        ):
            scores = module(inputs).float()
            correct += (scores.argmax(1) == labels).sum()
            loss += F.cross_entropy(scores, labels, reduction="sum")
    count = len(data.labels)
    return Evaluation(100.0 * int(correct) / count, float(loss) / count, count)


def _device(device: str | torch.device) -> torch.device:
    try:
        where = torch.device(device)
    except RuntimeError:
        raise UsageError(f"'{device}' is no device", hint="write cpu, cuda or cuda:0") from None
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no device '{device}'", hint=f"{torch.cuda.device_count()} CUDA devices were found")
    return torch.device("cuda", where.index or 0) if where.type == "cuda" else where


def check_examples(network: Network, examples: Examples, what: str) -> None:
    """Raises DataError unless the examples fit the network's one input and its classes."""
    graph = network.graph
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or graph.outputs[0].type.rank != 2:
        raise UsageError(
            f"@{graph.name} is no classifier", hint="a classifier has one input and returns one f32[N, classes]"
        )
    wanted, classes = graph.inputs[0].type, graph.outputs[0].type.shape[1]
    if examples.inputs.shape[1:] != wanted.shape[1:]:
        raise DataError(
            f"{what} have shape {list(examples.inputs.shape)}, @{graph.name} takes {wanted}",
            hint="use the task that the network was made for, or a network of that input",
        )
    if isinstance(classes, int) and examples.labels.max() >= classes:
        raise DataError(
            f"{what} have a label {int(examples.labels.max())}, @{graph.name} tells {classes} classes apart",
            hint=f"labels run from 0 to {classes - 1}",
        )
