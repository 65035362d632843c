"""Searches where every evaluation is a training: a ResNet on digits, its choices opened by offered rewrites.

python bench/search_digits.py [--repetitions 5] [--budgets 20,40,80] [--methods NAMES] [--json OUT]

Every method trains by the same short recipe from fresh weights. At each budget stands the best NetScore (validation
accuracy) trained so far, and those of a family of 16: for a strategy with a generator the networks of 16 fresh seeds;
for any other the 16 best different ones it has trained. Families are trained anew, from other weights than those that
the search saw, so that none is helped by the luck of the trainings it was picked by. What was trained is kept in
--store, so a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from harness import print_table, write_json
from search import numbers, words
from search_figures import OURS, digits_figure
from search_runs import factory_of
from search_statistics import interval, paired

import gensynth as gs
from gensynth.ir import GenSynthError, UsageError
from gensynth.passes import run_pipeline
from gensynth.synth.config import Config, load_config
from gensynth.synth.evaluation import TaskReference
from gensynth.synth.executor import LocalExecutor
from gensynth.synth.performance import parse_performance
from gensynth.synth.search.problem import Session, Trained
from gensynth.synth.search.training import TrainingProblem
from gensynth.synth.store import Store

METHODS = (
    "inquisitor,random,evolution,evolution-scored,local-search,local-search-scored,local-search-guided,tpe,tpe-scored,"
    "bananas,direct-ei,inquisitor-without-surrogate"
)
FAMILY = 16


def make_problem(config: Config, executor: LocalExecutor, store: Path, seed: int = 0) -> TrainingProblem:
    """Returns the problem of a configuration, its networks trained from weights of `seed`."""
    reference = TaskReference.of(config.task, config.task_options)
    on = reference.load()
    if config.prototype is None or config.search_training is None:
        raise UsageError(
            "the configuration lacks a prototype's name or [search_training]", hint="see bench/search-digits.toml"
        )
    arguments: dict[str, Any] = {"image": on.image, "classes": on.classes, **config.prototype_arguments}
    graph = run_pipeline(gs.prototype(config.prototype, **arguments), config.passes).graph
    return TrainingProblem(
        graph,
        reference,
        config.search_training,
        parse_performance(config.performance),
        executor=executor,
        store=Store(store),
        seed=seed,
        probes=store.with_suffix(".probes.sqlite"),
    )


def run(
    problem: TrainingProblem,
    anew: TrainingProblem,
    method: str,
    seed: int,
    budgets: Sequence[int],
    probes: int,
    batch: int,
) -> list[dict[str, float]]:
    """Returns the figures of one search at every budget; families are trained as the problem `anew` does."""
    session = Session(problem, seed=seed, probes=probes)
    chosen = factory_of(method)(session)
    trained: list[Trained] = []
    figures = []
    for budget in budgets:
        while len(trained) < budget:
            found = session.train(chosen.ask(min(batch, budget - len(trained))))
            chosen.tell(found)
            trained += found
        best: dict[Hashable, Trained] = {}
        for item in sorted(trained, key=lambda item: -item.value):
            best.setdefault(problem.network(item.decisions), item)
        family = getattr(chosen, "family", None)
        keys = [item.decisions for item in best.values()][:FAMILY] if family is None else family(FAMILY, draw=1024)
        members = [anew.value(key, accuracy) for key, accuracy in zip(keys, anew.train(keys), strict=True)]
        figures.append(
            {
                "best": max(item.value for item in trained),
                "family_best": max(members),
                "family_mean": mean(members),
            }
        )
    return figures


def main() -> int:
    """Prints the table and writes JSON after every repetition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("search-digits.toml"))
    parser.add_argument("--methods", type=words, default=words(METHODS), help="the inquisitor among them")
    parser.add_argument("--budgets", type=numbers, default=(20, 40, 80))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--probes", type=int, default=200)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--store", type=Path, default=Path("runs/search-digits/store.sqlite"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    budgets, methods = options.budgets, options.methods
    if OURS not in methods:
        parser.error(f"--methods: the others are compared with {OURS}, which is not among them")
    try:
        for method in methods:
            factory_of(method)
    except GenSynthError as error:
        parser.error(f"--methods: {error.message}; {error.hint}")
    options.store.parent.mkdir(parents=True, exist_ok=True)
    executor = LocalExecutor(options.processes)
    try:
        config = load_config(options.config)
        problem, anew = (make_problem(config, executor, options.store, seed) for seed in (0, 1))
        print(f"{len(problem.space.choices)} choices, {problem.space.size:.1e} decisions", flush=True)
        found: dict[str, list[list[dict[str, float]]]] = {method: [] for method in methods}
        for repetition in range(options.repetitions):
            for method in methods:
                found[method].append(run(problem, anew, method, repetition, budgets, options.probes, options.batch))
                last = found[method][-1][-1]
                print(f"{repetition}: {method} {last['best']:.2f}, family {last['family_mean']:.2f}", flush=True)
            write_json(
                options.json,
                {
                    "choices": len(problem.space.choices),
                    "decisions": problem.space.size,
                    "budgets": budgets,
                    "probes": options.probes,
                    "batch": options.batch,
                    "methods": found,
                    "compared": compare(found, budgets),
                },
            )
    except GenSynthError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    finally:
        executor.close()
    figure = digits_figure({"choices": len(problem.space.choices), "compared": compare(found, budgets), "probes": 0})
    print_table(figure.title, figure.columns, figure.rows)
    return 0


def compare(found: dict[str, list[list[dict[str, float]]]], budgets: Sequence[int]) -> dict[str, Any]:
    """Returns means, their 95% intervals, and how ours compare, by method, budget, and figure."""
    compared: dict[str, Any] = {}
    for method, repetitions in found.items():
        compared[method] = {}
        for at, budget in enumerate(budgets):
            row: dict[str, Any] = {}
            for key in ("best", "family_best", "family_mean"):
                theirs = [figures[at][key] for figures in repetitions]
                ours = [figures[at][key] for figures in found[OURS]][: len(theirs)]
                row[key] = interval(theirs) | ({} if method == OURS else paired(ours, theirs))
            compared[method][str(budget)] = row
    return compared


if __name__ == "__main__":
    sys.exit(main())
