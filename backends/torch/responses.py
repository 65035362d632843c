"""What a probe reports: plain figures, no tensors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

__all__ = ["EdgeResponse", "ParameterResponse", "Responses", "Scores", "ValueResponse"]


@dataclass(frozen=True)
class ValueResponse:
    """The response of one vertex (a value of the graph) to the stimuli.

    Channels are axis 1. `dead` is the share of channels that are 0 (below 1e-6) on all stimuli. `rank` is the effective
    rank of the centred channel-by-sample matrix, exp of the entropy of its normalized singular values (Roy and
    Vetterli, "The effective rank", 2007), at most the number of channels. `redundancy` is the mean absolute correlation
    of two different channels. `gradient` is the norm of the loss gradient at the value. `noise_mean` and
    `noise_deviation` are the same moments under noise, None where there was no noise.
    """

    name: str
    mean: float
    deviation: float
    dead: float
    rank: float
    redundancy: float
    gradient: float
    noise_mean: float | None = None
    noise_deviation: float | None = None


@dataclass(frozen=True)
class EdgeResponse:
    """The response of one edge: node `target` reads value `source` as operand `index`.

    `gradient` is the norm of the loss gradient that comes back along this edge alone; `importance` is the sum of
    |activation * gradient|, what removing each element would change to first order (arXiv 1906.10771, equation 8).
    """

    source: str
    target: str
    index: int
    gradient: float
    importance: float


@dataclass(frozen=True)
class ParameterResponse:
    """The response of one weight: the norm of its gradient, and |weight * gradient| summed for each output channel."""

    name: str
    gradient: float
    importance: tuple[float, ...]


@dataclass(frozen=True)
class Scores:
    """Scores of the whole network without training; all grow with what they call good.

    naswot: log-determinant of the kernel of activation patterns (arXiv 2006.04647, section 3; a ridge of 1e-3 on the
    diagonal keeps stimuli of equal pattern finite). synflow: logarithm of the sum of |weight * dR/dweight| with all
    weights positive, batch normalization at identity and an input of ones (arXiv 2006.05467, equation 1).
    gradient_norm: of all trainable weights. jacobian: minus the sum of log(v + k) + 1 / (v + k) over the eigenvalues v
    of the correlation of the stimuli's input gradients, k = 1e-5 (arXiv 2006.04647 version 1; here of the loss).
    """

    naswot: float
    synflow: float
    log_synflow: float
    gradient_norm: float
    jacobian: float


@dataclass(frozen=True)
class Responses:
    """Everything that one probe saw; `loss` is the cross-entropy on the stimuli, in nats."""

    values: tuple[ValueResponse, ...]
    edges: tuple[EdgeResponse, ...]
    parameters: tuple[ParameterResponse, ...]
    scores: Scores
    loss: float

    def value(self, name: str) -> ValueResponse:
        """Returns the response at one value; KeyError where there is none."""
        return {response.name: response for response in self.values}[name]

    def parameter(self, name: str) -> ParameterResponse:
        """Returns the response of one weight; KeyError where there is none."""
        return {response.name: response for response in self.parameters}[name]

    def as_dict(self) -> dict[str, object]:
        """Returns the responses as dictionaries, lists, text and numbers, ready for JSON."""
        return dataclasses.asdict(self)
