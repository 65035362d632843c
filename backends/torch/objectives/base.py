"""What an objective is: plain data that says what networks give, what they are trained for, and how they are judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from gensynth.ir import DataError, Graph, UsageError

from ...examples import AnyLabels, Examples, LabelKind
from ..recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Meter", "Objective", "Outputs", "divergence"]

Outputs: TypeAlias = "Tensor | tuple[Tensor, ...]"
"""What a network gives for a batch: one tensor, or a tuple where its graph has several outputs."""


class Meter(ABC):
    """What an evaluation adds up, batch by batch."""

    @abstractmethod
    def update(self, outputs: Outputs, targets: Tensor) -> None:
        """Takes in what the network gave for a batch, and the batch's labels."""

    @property
    @abstractmethod
    def loss(self) -> float:
        """The mean loss of all that was taken in, without label smoothing."""

    @abstractmethod
    def metrics(self) -> Mapping[str, float]:
        """Returns the objective's `metrics` of all that was taken in, each in percent."""


class Objective(ABC):
    """What networks are trained for and judged by. A subclass is a frozen dataclass of plain data.

    So it travels to any process. A task names one (`Task.objective`); `train`, `evaluate` and `probe` take one. Yours
    says `kind` and `metrics`, checks networks and labels, and gives the loss and a meter; or it changes one of these in
    a subclass of a known objective. It imports torch inside its methods, since tasks are listed without it.
    """

    kind: ClassVar[LabelKind]
    """The kind of labels."""
    metrics: ClassVar[tuple[str, ...]]
    """What is measured, in percent; the first is the figure that is called accuracy throughout."""
    mixes: ClassVar[bool] = False
    """Whether losses of two labels may be blended, as `mixup` does."""
    smooths: ClassVar[bool] = False
    """Whether `loss` takes label smoothing."""

    @property
    def metric(self) -> str:
        """The main metric: the figure that is called accuracy throughout."""
        return self.metrics[0]

    @property
    def outside(self) -> int:
        """The label of pixels that augmentation brings in from outside of a mask."""
        return 255

    @abstractmethod
    def check_network(self, graph: Graph) -> None:
        """Raises UsageError unless a network has the inputs and outputs that the objective wants."""

    @abstractmethod
    def check_labels(self, graph: Graph, labels: AnyLabels, what: str) -> None:
        """Raises DataError unless labels, called `what`, fit a network that `check_network` let pass."""

    @abstractmethod
    def largest_class(self, labels: AnyLabels) -> int:
        """Returns the largest class that occurs in labels, -1 where none does."""

    @abstractmethod
    def loss(self, outputs: Outputs, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Returns the mean loss of a batch; `smoothing` is the share of the target spread over all classes."""

    def distillation(self, outputs: Outputs, taught: Outputs) -> Tensor:
        """Returns how far what a network gives is from what a better one gives for the same batch: the mean square."""
        import torch

        pairs = zip(_several(outputs), _several(taught), strict=True)
        return torch.stack([(found - wanted).square().mean() for found, wanted in pairs]).sum()

    @abstractmethod
    def meter(self, device: torch.device) -> Meter:
        """Returns a meter that has taken in nothing; batches will be on `device`."""

    def check(self, graph: Graph, examples: Examples, what: str) -> None:
        """Raises unless a network, examples (called `what`) and the objective fit each other.

        Raises:
            UsageError: the network's inputs or outputs are not what the objective wants.
            DataError: the examples are of another kind or shape, or have labels that the network has no class for.
        """
        self.check_network(graph)
        self.check_kind(examples, what)
        wanted = graph.inputs[0].type
        if examples.inputs.shape[1:] != wanted.shape[1:]:
            raise DataError(
                f"{what} have shape {list(examples.inputs.shape)}, @{graph.name} takes {wanted}",
                hint="use the task that the network was made for, or a network of that input",
            )
        self.check_labels(graph, examples.labels, what)

    def check_kind(self, examples: Examples, what: str) -> None:
        """Raises DataError unless the labels of examples, called `what`, are of the objective's kind."""
        if examples.kind != self.kind:
            raise DataError(
                f"{what} are labelled with {examples.kind}, {type(self).__name__} wants {self.kind}",
                hint="use the objective of the task that the examples are from",
            )

    def check_recipe(self, recipe: Recipe) -> None:
        """Raises UsageError where a recipe asks for what the objective's labels cannot take."""
        mixed = any(item.name == "mixup" for item in recipe.augmentation)
        if mixed and not self.mixes:
            raise UsageError(
                f"augmentation 'mixup' cannot be used with {type(self).__name__}: it blends whole images and their"
                f" losses, and these are labelled with {self.kind}",
                hint='drop it from augmentation; "flip", "zoom", "affine" and "color" keep labels and images together',
            )
        if not self.smooths and recipe.label_smoothing > 0:
            raise UsageError(
                f"label_smoothing is {recipe.label_smoothing:g}, {type(self).__name__} has no smoothed labels",
                hint="set label_smoothing = 0",
            )
        if recipe.distillation and recipe.teacher_images == "plain" and (mixed or self.kind != "classes"):
            what = "augmentation 'mixup' blends images" if mixed else f"{self.kind} move with their images"
            raise UsageError(
                f"teacher_images is 'plain': what the teacher gives for them would not fit, as {what}",
                hint='set teacher_images = "same"',
            )


def divergence(outputs: Outputs, taught: Outputs) -> Tensor:
    """Returns the Kullback-Leibler divergence [nats] of the classes along axis 1 from those taught, both as logits.

    It is the mean over everything but the classes: Hinton et al., "Distilling the knowledge in a neural network", arXiv
    1503.02531, at temperature 1.
    """
    import torch.nn.functional as F

    assert not isinstance(outputs, tuple) and not isinstance(taught, tuple)
    wanted = F.log_softmax(taught.float(), 1)
    terms = F.kl_div(F.log_softmax(outputs.float(), 1), wanted, reduction="none", log_target=True)
    return terms.sum(1).mean()


def _several(outputs: Outputs) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
