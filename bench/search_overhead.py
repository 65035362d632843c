"""What a decision of the inquisitor takes in a large space: 200 choices, 500 trainings observed, probes apart.

python bench/search_overhead.py [--choices 200] [--trainings 500] [--json OUT]

The program is a ResNet whose convolutions are offered as separable and low-rank ones and whose widths are open; scores
and accuracies are made up, so that only the strategy takes time. Seconds are of one `ask`, of `tell`, which moves the
generator, and of the same again where costs must be forecast for NetScore.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean, median

import numpy as np
from harness import print_table, write_json

import gensynth as gs
from gensynth.ir import Graph
from gensynth.passes import run_pipeline
from gensynth.passes.cost import Costs, Totals
from gensynth.synth.performance import parse_performance
from gensynth.synth.search.inquisitive import InquisitiveSearch
from gensynth.synth.search.problem import Problem, Session
from gensynth.synth.search.space import Decisions

DEPTHS = (8, 20, 32, 44, 56, 68, 80, 92, 110)


class Additive(Problem):
    """Every alternative adds something of its own, to accuracy, to scores and to costs."""

    def __init__(self, graph: Graph, performance: str) -> None:
        super().__init__(graph, parse_performance(performance))
        random = np.random.default_rng(0)
        self._worth = [random.normal(size=size) for size in self.space.sizes]

    def _sum(self, decisions: Decisions) -> float:
        total = sum(float(worth[index]) for worth, index in zip(self._worth, decisions, strict=True))
        return total / len(decisions) ** 0.5

    def exists(self, decisions: Decisions) -> bool:
        return True

    def costs(self, decisions: Decisions) -> Costs:
        size = round(1e6 * np.exp(-0.2 * self._sum(decisions)))
        return Costs(Totals(10 * size, size, 4 * size, 20 * size, size, size))

    def scores(self, decisions: Decisions) -> dict[str, float]:
        return {"naswot": self._sum(decisions)}

    def accuracy(self, decisions: Decisions) -> float:
        return float(100.0 / (1.0 + np.exp(-2.0 - self._sum(decisions))))


def program(choices: int) -> Graph:
    """Returns a ResNet's program of at least so many choices, or of the most there are."""
    graph = None
    for depth in DEPTHS:
        network = gs.prototype("resnet", depth=depth)
        graph = run_pipeline(network, "offer{rewrite=separate-conv},offer{rewrite=low-rank-conv},open-width").graph
        if len(graph.choices) >= choices:
            break
    assert graph is not None
    return graph


def measure(graph: Graph, performance: str, trainings: int, repetitions: int) -> dict[str, float]:
    """Returns the median seconds of `ask` and the mean of `tell`, every fifth of which moves the generator."""
    session = Session(Additive(graph, performance), seed=0, probes=trainings + 400)
    strategy = InquisitiveSearch(session)
    asked = list(strategy.ask(1))
    drawn = [session.draw_new() for _ in range(trainings - 1)]
    session.probe(drawn)
    strategy.tell(session.train([*asked, *drawn]))
    asking, telling = [], []
    for _ in range(5 * repetitions):
        start = time.perf_counter()
        asked = list(strategy.ask(1))
        asking.append(time.perf_counter() - start)
        found = session.train(asked)
        start = time.perf_counter()
        strategy.tell(found)
        telling.append(time.perf_counter() - start)
    return {"ask": median(asking), "tell": mean(telling), "evaluation": median(asking) + mean(telling)}


def main() -> None:
    """Prints the table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choices", type=int, default=200)
    parser.add_argument("--trainings", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    graph = program(options.choices)
    found = {name: measure(graph, name, options.trainings, options.repetitions) for name in ("accuracy", "netscore")}
    print_table(
        f"{len(graph.choices)} choices, {options.trainings} trainings observed: seconds a training",
        ("U", "ask", "tell", "together"),
        [(name, *[f"{row[key]:.2f}" for key in ("ask", "tell", "evaluation")]) for name, row in found.items()],
    )
    write_json(options.json, {"choices": len(graph.choices), "trainings": options.trainings, "seconds": found})


if __name__ == "__main__":
    main()
