"""The objective of classifiers: one class for each input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gensynth.ir import DataError, Graph, UsageError

from ...examples import AnyLabels, LabelKind
from .base import Meter, Objective, Outputs, divergence

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Classification"]


@dataclass(frozen=True)
class Classification(Objective):
    """One class for each input: cross-entropy [nats], and `accuracy`, the top-1 accuracy [%].

    The network has one input and gives logits f32[N, classes].
    """

    kind: ClassVar[LabelKind] = "classes"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    mixes: ClassVar[bool] = True
    smooths: ClassVar[bool] = True

    def check_network(self, graph: Graph) -> None:
        if len(graph.inputs) != 1 or len(graph.outputs) != 1 or graph.outputs[0].type.rank != 2:
            raise UsageError(
                f"@{graph.name} is no classifier", hint="a classifier has one input and returns one f32[N, classes]"
            )

    def check_labels(self, graph: Graph, labels: AnyLabels, what: str) -> None:
        classes = graph.outputs[0].type.shape[1]
        if isinstance(classes, int) and labels.max() >= classes:
            raise DataError(
                f"{what} have a label {int(labels.max())}, @{graph.name} tells {classes} classes apart",
                hint=f"labels run from 0 to {classes - 1}",
            )

    def largest_class(self, labels: AnyLabels) -> int:
        return int(labels.max())

    def loss(self, outputs: Outputs, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        import torch.nn.functional as F

        assert not isinstance(outputs, tuple)
        return F.cross_entropy(outputs, targets, label_smoothing=smoothing)

    def distillation(self, outputs: Outputs, taught: Outputs) -> Tensor:
        return divergence(outputs, taught)

    def meter(self, device: torch.device) -> Meter:
        return _Top1(device)


class _Top1(Meter):
    """Counts how often the largest logit is that of the right class."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._count = 0

    def update(self, outputs: Outputs, targets: Tensor) -> None:
        import torch.nn.functional as F

        assert not isinstance(outputs, tuple)
        scores = outputs.float()
        self._correct += (scores.argmax(1) == targets).sum()
        self._loss += F.cross_entropy(scores, targets, reduction="sum")
        self._count += len(targets)

    @property
    def loss(self) -> float:
        return float(self._loss) / self._count

    def metrics(self) -> Mapping[str, float]:
        return {"accuracy": 100.0 * int(self._correct) / self._count}
