"""What shared weights tell of networks: the stages of an experiment that judge random ones twice.

`judge_sharing` has the weights that networks share and short trainings of each by itself. `train_alone` trains the same
networks by themselves for longer; it needs no shared weights, only what was found with them. `rank_again` trains other
shared weights, for no requirements, and judges the same networks with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from experiment_found import counts, words
from harness import machine
from sharing import tau, tau_of_repeats

from gensynth.backends.torch.recipe import Recipe
from gensynth.ir import Graph, Network, UsageError, architecture_hash, initialize
from gensynth.passes import run_pipeline
from gensynth.passes.choices.materialize import Decided
from gensynth.synth.generator import Generator
from gensynth.synth.synthesis import Synthesis

if TYPE_CHECKING:
    from experiment import Run

__all__ = ["judge_sharing", "rank_again", "train_alone"]

Row = dict[str, Any]

SEEDS = 10_000
"""Networks whose shared and stand-alone accuracies are compared have seeds from here on."""

_KNOWN = ("seed", "architecture_hash", "params", "macs")
"""What tells these networks apart, and their size."""


def judge_sharing(run: Run, synthesis: Synthesis, recipe: Recipe) -> Row:
    """Judges random networks twice: with their slices of shared weights, and trained by themselves by a recipe.

    Where each network is trained with several seeds, their mean is what it reaches by itself.
    """
    short = run.experiment.sharing
    opened = Generator.load(synthesis.out / "generators" / "000.gsir")
    seeds = range(SEEDS, SEEDS + short.networks)
    decided = [opened.decide(seed, repair=False) for seed in seeds]
    judged = _judged(run, synthesis, opened, decided)
    rows = [
        {"seed": seed, **counts(item.graph), **found} for seed, item, found in zip(seeds, decided, judged, strict=True)
    ]
    return _trained_alone(run, synthesis, [item.graph for item in decided], rows, recipe, short.seeds)


def train_alone(run: Run, synthesis: Synthesis, recipe: Recipe, seeds: int, sharing: Mapping[str, Any]) -> Row:
    """Trains the networks of `judge_sharing`, which found `sharing`, by themselves once more, by another recipe.

    Raises:
        UsageError: the generator of the experiment makes other networks than those that were judged.
    """
    config = run.config
    assert config.prototype is not None
    start = synthesis.start(config.prototype, config.prototype_arguments).graph
    opened = Generator(run_pipeline(Network(start, initialize(start)), config.passes))
    decided = _decided_again(opened, sharing)
    rows = [{key: row[key] for key in (*_KNOWN, "shared")} | {"shorter": row["alone"]} for row in sharing["networks"]]
    found = _trained_alone(run, synthesis, [item.graph for item in decided], rows, recipe, seeds)
    return {**found, "tau_shorter": tau(found["networks"], "shorter"), "machine": machine()}


def rank_again(
    run: Run, synthesis: Synthesis, recipe: Recipe, sharing: Mapping[str, Any], longer: Mapping[str, Any] | None
) -> Row:
    """Judges the networks of `judge_sharing` with other shared weights: trained by a recipe, for no requirements.

    The weights of the synthesis favour networks that meet its requirements, as it draws more of them. These know of
    none, so that all networks that the generator can make are trained alike. `sharing` and `longer` are what was found
    of the networks trained by themselves.

    Raises:
        UsageError: the generator of the experiment makes other networks than those that were judged.
    """
    trained, _ = synthesis.prepare()
    opened = run_pipeline(trained, run.config.passes)
    generator = Generator(opened.with_graph(opened.graph.replace(requirements=())))
    decided = _decided_again(generator, sharing)
    judged = _judged(run, synthesis, synthesis.share(generator, recipe, "ranking"), decided)
    rows = [
        {key: row[key] for key in (*_KNOWN, "alone")} | found
        for row, found in zip(sharing["networks"], judged, strict=True)
    ]
    ranked: Row = {"epochs": recipe.epochs, "networks": rows, "machine": machine(), **_taus(rows)}
    if longer is not None:
        reached = {row["seed"]: row["alone"] for row in longer["networks"]}
        ranked["longer"] = _taus([{**row, "alone": reached[row["seed"]]} for row in rows])
    return ranked


def _taus(rows: Sequence[Row]) -> Row:
    """Returns Kendall's tau of what networks reach by themselves and their accuracy, or loss, with shared weights."""
    by_loss = tau([{**row, "gain": -row["shared_loss"]} for row in rows], "gain")
    return {"tau": tau(rows, "shared"), "tau_loss": by_loss}


def _judged(run: Run, synthesis: Synthesis, opened: Generator, decided: Sequence[Decided]) -> list[Row]:
    """Returns the accuracy and the loss of networks of a generator with their slices of its weights."""
    inherited = [Network(item.graph, opened.weights_for(item)) for item in decided]
    jobs = [run.job(synthesis, network, None, {"what": "shared weights"}) for network in inherited]
    results = synthesis.evaluate(jobs, "shared weights")
    return [{"shared": result["accuracy"], "shared_loss": result["loss"]} for result in results]


def _decided_again(opened: Generator, sharing: Mapping[str, Any]) -> list[Decided]:
    """Returns the networks of `judge_sharing`, which found `sharing`, as a generator makes them once more.

    Raises:
        UsageError: it makes others.
    """
    decided = [opened.decide(row["seed"], repair=False) for row in sharing["networks"]]
    for row, item in zip(sharing["networks"], decided, strict=True):
        if architecture_hash(item.graph) != row["architecture_hash"]:
            raise UsageError(
                f"seed {row['seed']} is another network than the one that was judged with shared weights",
                hint="the stage 'sharing' was of another generator: run it again",
            )
    return decided


def _trained_alone(
    run: Run, synthesis: Synthesis, graphs: Sequence[Graph], rows: Sequence[Row], recipe: Recipe, seeds: int
) -> Row:
    """Returns what is known of networks, with what they reach by themselves, from fresh weights, by labels alone."""
    recipe = replace(recipe, distillation=0.0)
    jobs = [
        run.job(synthesis, Network(graph), recipe, {"what": "alone"}, seed=seed)
        for seed in range(seeds)
        for graph in graphs
    ]
    accuracies = [float(result["accuracy"]) for result in synthesis.evaluate(jobs, "alone")]  # type: ignore[arg-type]
    networks = []
    for index, row in enumerate(rows):
        each = accuracies[index :: len(graphs)]
        networks.append({**row, "alone": mean(each), "alone_each": each})
    return {
        "recipe": words(recipe),
        "seeds": seeds,
        "networks": networks,
        "tau": tau(networks, "shared"),
        "tau_macs": tau(networks, "macs"),
        "tau_alone": tau_of_repeats([row["alone_each"] for row in networks]),
    }
