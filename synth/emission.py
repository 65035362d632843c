"""Emission: which seeds of the learned generator become FermiNets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gensynth.ir import Network

from .evaluation import Prepared
from .exploration import Explorer
from .generator import Generator
from .inquisitor import Candidate

if TYPE_CHECKING:
    from .synthesis import Synthesis

__all__ = ["Emission", "Emitted"]

_PROBED = 48
"""At most so many networks are probed to choose among them."""
_TRIES = 3
"""At most so many times the seeds asked for are trained before giving up on requirements."""


@dataclass(frozen=True)
class Emitted:
    """A FermiNet: seed, network, file of the trained weights, validation accuracy [percent], feasibility."""

    seed: int
    network: Network
    saved: str
    accuracy: float
    feasible: bool


class Emission:
    """Draws many seeds, ranks their networks by what the inquisitor believes, and trains the best fully.

    A network that misses a requirement on validation data after its full training gives its place to the next.
    """

    def __init__(self, synthesis: Synthesis, generator: Generator) -> None:
        """Emits from a learned generator within a synthesis."""
        self.synthesis = synthesis
        self.generator = generator
        self.settings = synthesis.config.emit

    def run(self) -> list[Emitted]:
        """Returns as many networks as were asked for, different ones, in the order of their seeds."""
        explorer, ranked = self._ranked()
        wanted = self.settings.seeds
        accepted: list[Emitted] = []
        rejected: list[Emitted] = []
        tries = min(len(ranked), _TRIES * wanted)
        at = 0
        while len(accepted) < wanted and at < tries:
            batch = ranked[at : min(at + wanted - len(accepted), tries)]
            at += len(batch)
            for item in self._train(explorer, batch):
                (accepted if item.feasible else rejected).append(item)
        if len(accepted) < wanted:
            self.synthesis.progress.line(
                f"only {len(accepted)} of {wanted} networks meet the requirements after full training"
            )
            rejected.sort(key=lambda item: -item.accuracy)
            accepted += rejected[: wanted - len(accepted)]
        return sorted(accepted, key=lambda item: item.seed)

    def _ranked(self) -> tuple[Explorer, list[Candidate]]:
        """Returns the candidates of the seed pool, each architecture once at its first seed, the best first."""
        synthesis = self.synthesis
        explorer = Explorer(synthesis.inquisitor, synthesis.config.search)
        likely = explorer.ranked(self.generator, range(self.settings.pool))[: max(_PROBED, self.settings.seeds)]
        fresh = [item for item in likely if item.scores is None]
        jobs = [synthesis.probe_job(explorer.origin(item), cycle=0) for item in fresh]
        explorer.take_probes(fresh, synthesis.evaluate(jobs, "probe"))
        return explorer, synthesis.inquisitor.rank([synthesis.inquisitor.candidates[item.hash] for item in likely])

    def _train(self, explorer: Explorer, batch: list[Candidate]) -> list[Emitted]:
        synthesis = self.synthesis
        jobs: list[Prepared] = []
        networks = []
        for item in batch:
            origin = explorer.origin(item)
            network = Network(origin.decided.graph, origin.weights())
            networks.append((origin.decided.seed, network))
            seed = origin.decided.seed
            jobs.append(synthesis.train_fully(network, f"seed-{seed:06d}", {"what": "emitted", "seed": seed}))
        emitted = []
        for (seed, network), (job, _, _), item, result in zip(
            networks, jobs, batch, synthesis.evaluate(jobs, "full training"), strict=True
        ):
            if "error" in result:
                continue
            accuracy = float(result["accuracy"])  # type: ignore[arg-type]
            feasible = synthesis.inquisitor.holds(item.known_costs, accuracy)
            assert job.saved is not None
            emitted.append(Emitted(seed, Network(network.graph), job.saved, accuracy, feasible))
        return emitted
