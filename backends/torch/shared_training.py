"""Training of a weight-sharing module by the sandwich rule, with distillation in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from gensynth.ir import Network, PassError
from gensynth.passes import Materializer
from gensynth.passes.choices.extremes import extremes
from gensynth.passes.choices.materialize import Decided

from ..examples import Examples
from .calibration import CALIBRATED, batches_of
from .checkpoint import Checkpoint, State, training_digest
from .data import Data
from .module import device_of, weights_of
from .objectives import Objective
from .recipe import Recipe
from .sharing import SharedModule, share_weights
from .teaching import Teacher, teacher_for
from .training import CLASSIFICATION, Batch, EpochReport, Evaluation, Run, examples_of, judge

__all__ = ["SharedTraining", "evaluate_shared", "train_shared"]

Decisions = Mapping[str, int]

NETWORKS = 256
"""With a teacher the networks of so many seeds are trained, unless another number is given."""


@dataclass(frozen=True)
class SharedTraining:
    """A trained weight-sharing module, in inference mode, and what happened epoch by epoch.

    The reports' loss and validation accuracy are those of the largest network; with a teacher the loss is the mean of
    the networks drawn, and the accuracy that of the likeliest network that meets the requirements. `seconds` are those
    of all parts of a training that was cut off and went on from a checkpoint.
    """

    module: SharedModule
    history: tuple[EpochReport, ...]
    seconds: float = field(default=0.0, compare=False)

    def generator(self) -> Network:
        """Returns the generator with the shared weights. Maps of kernels have no place there: train without them."""
        state = weights_of(self.module)
        return Network(self.module.graph, {name: array for name, array in state.items() if "@" not in name})


def train_shared(
    generator: Network,
    training: Examples,
    validation: Examples | None,
    recipe: Recipe,
    objective: Objective = CLASSIFICATION,
    *,
    teacher: Network | None = None,
    sampled: int = 2,
    networks: int = NETWORKS,
    maps: bool = True,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_epoch: Callable[[EpochReport], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: float = 60.0,
) -> SharedTraining:
    """Returns the weights of a generator, trained so that its networks do well with their slices of them.

    Each step trains the largest network by the labels, and the smallest and `sampled` drawn by the generator to give
    what the largest gives: the sandwich rule and inplace distillation of Yu and Huang (arXiv 1903.05134, section 3).

    Where the recipe distils, `teacher`, a trained network with the same outputs, has the place of the largest, as in
    Cai et al. (arXiv 1908.09791, section 3.3). Only the `sampled` networks are trained, by the labels and, by the
    recipe's share, by what the teacher gives; every other one of them is walked to the generator's requirements, as
    when networks are emitted. So a step costs networks of the size that is wanted, and one forward pass of the teacher.
    They are those of `networks` seeds, over and over: to make a network anew takes a good part of a step.

    The module starts from the generator's weights where it has some; `maps` is as for `SharedModule`. What is returned
    is the moving average where the recipe keeps one. `checkpoint` and `checkpoint_every` are as for `train`.

    Raises:
        DataError: the examples do not fit the networks or the objective.
        TrainingError: the loss is not finite.
        UsageError: no choice is open, the recipe asks for `mixup` or `early_stop`, or to distil where there is no
            teacher that fits, the device does not exist, or the checkpoint cannot be written.
    """
    where = device_of(device)
    recipe.check_shared()
    taught = teacher_for(generator, teacher, recipe)
    objective.check_recipe(recipe)
    shared = share_weights(generator, seed=seed, maps=maps).to(where)
    graph = shared.materializer.build(shared.materializer.most_likely())
    for examples, what in ((training, "training examples"), (validation, "validation examples")):
        if examples is not None:
            objective.check(graph, examples, what)
    file = None
    if checkpoint is not None:
        others = sampled, networks, maps
        digest = training_digest(
            "shared", generator, training, validation, recipe, objective, seed, where, *others, teacher=taught
        )
        file = Checkpoint(checkpoint, checkpoint_every, digest)
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        torch.manual_seed(seed)
        data = Data.on(examples_of(training, recipe, seed), where, recipe.layout)
        run: _Together
        if taught is None:
            run = _Sandwich(shared, recipe, objective, data, seed, sampled)
        else:
            run = _Led(shared, recipe, objective, data, seed, sampled, Teacher(taught, recipe, data), networks)
        with run.kept_in(file):
            for epoch in run.epochs():
                loss = run.epoch(epoch)
                found: Evaluation | None = None
                if validation is not None and (on_epoch is not None or epoch == recipe.epochs):
                    found = evaluate_shared(run.judged, run.reported, training, validation, objective)
                run.report(epoch, loss, found, on_epoch)
    return SharedTraining(run.judged.eval(), tuple(run.history), run.seconds())


def evaluate_shared(
    shared: SharedModule,
    decisions: Decisions,
    training: Examples,
    examples: Examples,
    objective: Objective = CLASSIFICATION,
    *,
    calibrated: int = CALIBRATED,
) -> Evaluation:
    """Returns how well the network of some decisions does with its slices of the shared weights.

    Its running statistics are first taken from `calibrated` of the training examples. The module is left in inference
    mode.
    """
    network = shared.eval().network(decisions)
    network.calibrate(batches_of(training.sample(calibrated), shared.place))
    return judge(network, Data.on(examples, shared.place), objective, nullcontext())


class _Together(Run[SharedModule]):
    """A training of a weight-sharing module: every step adds the gradients of several networks.

    `reported` are the decisions of the network that reports are about.
    """

    reported: Decisions

    def __init__(
        self, shared: SharedModule, recipe: Recipe, objective: Objective, data: Data, seed: int, sampled: int
    ) -> None:
        super().__init__(shared, shared.graph.name, recipe, objective, data, seed)
        self._sampled = sampled
        self._next_seed = seed * 1_000_000_000

    def snapshot(self) -> State:
        return {**super().snapshot(), "next_seed": self._next_seed}

    def restore(self, state: State) -> None:
        super().restore(state)
        self._next_seed = state["next_seed"]

    def next_seeds(self) -> range:
        """Returns the seeds of the networks to be trained in this step."""
        self._next_seed += self._sampled
        return range(self._next_seed - self._sampled, self._next_seed)


class _Sandwich(_Together):
    """The largest network learns from the labels, the smallest and some drawn from what the largest gives."""

    def __init__(
        self, shared: SharedModule, recipe: Recipe, objective: Objective, data: Data, seed: int, sampled: int
    ) -> None:
        super().__init__(shared, recipe, objective, data, seed, sampled)
        self.reported, self._smallest = extremes(shared.materializer)

    def backward(self, batch: Batch) -> Tensor:
        """Adds the gradients of a batch, and returns the loss of the largest network."""
        shared, objective, inputs = self.module, self.objective, batch.inputs
        drawn = [shared.materializer.draw(seed) for seed in self.next_seeds()]
        with self.autocast():
            outputs = shared.network(self.reported)(inputs)
            loss = objective.loss(outputs, batch.labels, self.recipe.label_smoothing)
        torch.autograd.backward(loss)
        taught = outputs.detach() if isinstance(outputs, Tensor) else tuple(output.detach() for output in outputs)
        for decisions in (self._smallest, *drawn):
            with self.autocast():
                distance = objective.distillation(shared.network(decisions)(inputs), taught)
            torch.autograd.backward(distance)
        return loss.detach()


class _Led(_Together):
    """Networks learn from labels and a teacher; those of even seeds meet the requirements, the others are as drawn."""

    def __init__(
        self,
        shared: SharedModule,
        recipe: Recipe,
        objective: Objective,
        data: Data,
        seed: int,
        sampled: int,
        teacher: Teacher,
        networks: int,
    ) -> None:
        super().__init__(shared, recipe, objective, data, seed, sampled)
        self.teacher = teacher
        self._networks = networks
        self._emitting = Materializer(shared.graph)
        self._decisions: dict[int, Decisions] = {}
        likeliest = self._emitting.most_likely()
        self.reported = _within(lambda: self._emitting.from_decisions(likeliest), likeliest)

    def backward(self, batch: Batch) -> Tensor:
        """Adds the gradients of a batch, and returns the mean loss of the networks."""
        total = torch.zeros((), device=batch.inputs.device)
        taught = self.taught(batch)
        for seed in self.next_seeds():
            with self.autocast():
                outputs = self.module.network(self._decided(seed % self._networks))(batch.inputs)
                loss = self.objective.loss(outputs, batch.labels, self.recipe.label_smoothing)
                loss = self.distilled(loss, outputs, taught)
            torch.autograd.backward(loss)
            total += loss.detach()
        return total / self._sampled

    def _decided(self, seed: int) -> Decisions:
        if seed not in self._decisions:
            drawn = self.module.materializer.draw(seed)
            walked = _within(lambda: self._emitting.materialize(seed), drawn) if seed % 2 == 0 else drawn
            self._decisions[seed] = walked
        return self._decisions[seed]


def _within(decide: Callable[[], Decided], otherwise: Decisions) -> Decisions:
    """Returns decisions that meet the requirements; `otherwise` where none are found."""
    try:
        return decide().decisions
    except PassError:
        return otherwise
