"""Searches whose evaluations are trainings: a generator program on a task, each network trained by a short recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gensynth.backends.torch.recipe import Recipe
from gensynth.ir import Graph, architecture_hash, to_text
from gensynth.passes import Requirement
from gensynth.passes.cost import Costs
from gensynth.synth.evaluation import Job, Prepared, TaskReference, evaluate_all
from gensynth.synth.executor import Executor
from gensynth.synth.performance import Performance
from gensynth.synth.store import Store

from .probing import Prober
from .problem import Problem
from .space import Decisions

__all__ = ["TrainingProblem"]


class TrainingProblem(Problem):
    """A generator program whose networks are trained from fresh weights, each once: the store remembers."""

    def __init__(
        self,
        graph: Graph,
        task: TaskReference,
        recipe: Recipe,
        performance: Performance,
        *,
        requirements: Sequence[Requirement] = (),
        executor: Executor,
        store: Store,
        stimuli: int = 32,
        seed: int = 0,
        probes: Path | None = None,
    ) -> None:
        """Trains by `recipe` on the task's training part, from weights of `seed`; accuracy is of its validation part.

        `probes` is the file in which scores are kept, if any.
        """
        super().__init__(graph, performance, [item for item in requirements if item.computable])
        self.task, self.recipe, self.executor, self.store, self.seed = task, recipe, executor, store, seed
        loaded = task.load()
        self.validation_size = len(loaded.split("validation"))
        self.prober = Prober(graph, loaded, stimuli=stimuli, seed=seed, cache=probes)
        self._costs: dict[Decisions, Costs] = {}

    def exists(self, decisions: Decisions) -> bool:
        """Every network of the program can be trained."""
        return True

    def costs(self, decisions: Decisions) -> Costs:
        """Returns counts, and latency and energy on the devices that are asked for."""
        if decisions not in self._costs:
            self._costs[decisions] = self.prober.costs(decisions, self.requirements, self.performance.device)
        return self._costs[decisions]

    def scores(self, decisions: Decisions) -> Mapping[str, float]:
        """Returns the scores of a probe."""
        return self.prober.scores(decisions)

    def network(self, decisions: Decisions) -> str:
        """Returns the hash of what computes in the network."""
        return self.prober.network(decisions)

    def accuracy(self, decisions: Decisions) -> float:
        """Returns the accuracy [percent] on the validation part."""
        return self.train([decisions])[0]

    def train(self, asked: Sequence[Decisions]) -> list[float]:
        """Trains networks side by side; those that the store has are not trained again."""
        graphs = [self.prober.build(decisions) for decisions in asked]
        jobs: list[Prepared] = [
            (Job("search", to_text(graph), self.task, self.seed, self.recipe), architecture_hash(graph), {})
            for graph in graphs
        ]
        results = evaluate_all(jobs, self.executor, self.store)
        return [float(result["accuracy"]) for result in results]  # type: ignore[arg-type]
