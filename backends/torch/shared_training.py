"""Training of a weight-sharing module by the sandwich rule, with distillation in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gensynth.ir import Network
from gensynth.passes.choices.extremes import extremes

from ..examples import Examples
from .calibration import CALIBRATED, batches_of
from .checkpoint import Checkpoint, State, training_digest
from .module import weights_of
from .objectives import Objective
from .recipe import Recipe
from .sharing import SharedModule, share_weights
from .training import CLASSIFICATION, Data, EpochReport, Evaluation, Run, device_of, examples_of, judge

__all__ = ["SharedTraining", "evaluate_shared", "train_shared"]


@dataclass(frozen=True)
class SharedTraining:
    """A trained weight-sharing module, in inference mode, and what happened epoch by epoch.

    The reports' validation accuracy is that of the largest network.
    """

    module: SharedModule
    history: tuple[EpochReport, ...]

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
    sampled: int = 2,
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
    The module starts from the generator's weights where it has some; `maps` is as for `SharedModule`. What is returned
    is the moving average where the recipe keeps one. `checkpoint` and `checkpoint_every` are as for `train`.

    Raises:
        DataError: the examples do not fit the networks or the objective.
        TrainingError: the loss is not finite.
        UsageError: no choice is open, the recipe asks for `mixup`, `early_stop` or `distillation`, the device does
            not exist, or the checkpoint cannot be written.
    """
    where = device_of(device)
    recipe.check_shared()
    objective.check_recipe(recipe)
    shared = share_weights(generator, seed=seed, maps=maps).to(where)
    largest, smallest = extremes(shared.materializer)
    graph = shared.materializer.build(largest)
    for examples, what in ((training, "training examples"), (validation, "validation examples")):
        if examples is not None:
            objective.check(graph, examples, what)
    file = None
    if checkpoint is not None:
        digest = training_digest(
            "shared", generator, training, validation, recipe, objective, seed, where, sampled, maps
        )
        file = Checkpoint(checkpoint, checkpoint_every, digest)
    devices = [where] if where.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        torch.manual_seed(seed)
        data = Data.on(examples_of(training, recipe, seed), where, recipe.layout)
        run = _Sandwich(shared, recipe, objective, data, seed, (largest, smallest), sampled)
        with run.kept_in(file):
            for epoch in run.epochs():
                loss = run.epoch(epoch)
                found: Evaluation | None = None
                if validation is not None and (on_epoch is not None or epoch == recipe.epochs):
                    found = evaluate_shared(run.judged, largest, training, validation, objective)
                run.report(epoch, loss, found, on_epoch)
    return SharedTraining(run.judged.eval(), tuple(run.history))


def evaluate_shared(
    shared: SharedModule,
    decisions: Mapping[str, int],
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


class _Sandwich(Run[SharedModule]):
    """A training of a weight-sharing module: every step adds the gradients of several networks."""

    def __init__(
        self,
        shared: SharedModule,
        recipe: Recipe,
        objective: Objective,
        data: Data,
        seed: int,
        ends: tuple[Mapping[str, int], Mapping[str, int]],
        sampled: int,
    ) -> None:
        super().__init__(shared, shared.graph.name, recipe, objective, data, seed)
        self._ends = ends
        self._sampled = sampled
        self._next_seed = seed * 1_000_000_000

    def snapshot(self) -> State:
        return {**super().snapshot(), "next_seed": self._next_seed}

    def restore(self, state: State) -> None:
        super().restore(state)
        self._next_seed = state["next_seed"]

    def backward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Adds the gradients of a batch, and returns the loss of the largest network."""
        shared, objective = self.module, self.objective
        largest, smallest = self._ends
        with self.autocast():
            outputs = shared.network(largest)(inputs)
            loss = objective.loss(outputs, labels, self.recipe.label_smoothing)
        torch.autograd.backward(loss)
        taught = outputs.detach() if isinstance(outputs, Tensor) else tuple(output.detach() for output in outputs)
        drawn = [shared.materializer.draw(self._next_seed + index) for index in range(self._sampled)]
        self._next_seed += self._sampled
        for decisions in (smallest, *drawn):
            with self.autocast():
                distance = objective.distillation(shared.network(decisions)(inputs), taught)
            torch.autograd.backward(distance)
        return loss.detach()
