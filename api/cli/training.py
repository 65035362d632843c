"""Commands that need data: `train`, `evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gensynth.ir import UsageError, save_network, write_atomically

from .command import Command, positive, require_torch
from .files import STREAM, add_weights, print_json, read_network
from .output import human, print_table, progress

if TYPE_CHECKING:
    from gensynth.backends.torch import EpochReport, Recipe, Training
    from gensynth.synth.tasks import Task

__all__ = ["COMMANDS"]


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", required=True, metavar="T", help="one of `gensynth tasks`")
    parser.add_argument("--data", metavar="DIR", help="the task's data folder; $GENSYNTH_DATA by default")
    parser.add_argument(
        "--option", action="append", default=[], metavar="key=value", help="an option of the task, such as size=32x32"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")


def _task(arguments: argparse.Namespace) -> Task:
    from gensynth.synth.tasks import parse_task_options, task

    stated = [] if arguments.data is None else [f"data={arguments.data}"]
    return task(arguments.task, **parse_task_options(arguments.task, [*stated, *arguments.option]))


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NET.gsir", help="the network; - for stdin")
    _add_task(parser)
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="where to write the trained network and its history"
    )
    parser.add_argument("--recipe", metavar="FILE.toml", help="take the recipe from the table [training] of this file")
    parser.add_argument("--epochs", type=positive, metavar="N", help="short for --set epochs=N")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="a field of the recipe, such as learning_rate=0.05",
    )
    add_weights(parser, fresh="decides fresh weights, the order of examples and augmentation (default 0)")
    parser.add_argument("--force", action="store_true", help="write into DIR even when it holds this network")
    parser.add_argument("--json", action="store_true", help="print the history as one JSON object")


def _train(arguments: argparse.Namespace) -> int:
    require_torch("gensynth train")
    from gensynth.backends.torch import train

    if arguments.out == STREAM:
        raise UsageError("a trained network cannot go to stdout", hint="give --out a folder")
    seed = arguments.seed or 0
    network = read_network(arguments.network, arguments.weights)
    chosen = _task(arguments)
    recipe = _recipe(arguments, chosen)
    path = Path(arguments.out) / f"{network.name}.gsir"
    if path.exists() and not arguments.force:
        raise UsageError(f"{path} exists", hint="choose another --out, or replace it with --force")
    training, validation = chosen.split("train"), chosen.split("validation")
    with progress() as listener:
        listener.stage(f"training @{network.name} on {chosen.name}")

        def on_epoch(report: EpochReport) -> None:
            shown = _figures(report.validation_metrics)
            listener.advance(report.epoch, recipe.epochs, f"loss {report.loss:.4f}" + (shown and f", {shown}"))

        trained = train(
            network,
            training,
            validation,
            recipe,
            chosen.objective,
            seed=seed,
            device=arguments.device,
            on_epoch=on_epoch,
        )
    save_network(trained.network, path)
    history = _history(trained, recipe, chosen, seed, path)
    write_atomically(path.with_name("training.json"), (json.dumps(history, indent=2) + "\n").encode())
    if arguments.json:
        print_json(history)
    else:
        print(f"@{network.name}: {_figures(trained.metrics)} after {len(trained.history)} epochs\n{path}")
    return 0


def _figures(metrics: Mapping[str, float]) -> str:
    """Returns metrics of the validation part in one line, as in `validation accuracy 97.12%`; nothing of none."""
    shown = ", ".join(f"{name} {value:.2f}%" for name, value in metrics.items())
    return shown and f"validation {shown}"


def _recipe(arguments: argparse.Namespace, chosen: Task) -> Recipe:
    """Returns the recipe of the file with what --epochs and --set change; the task's augmentation by default."""
    from gensynth.backends.torch import Recipe
    from gensynth.synth.config import load_training

    values: dict[str, object] = {} if arguments.recipe is None else load_training(arguments.recipe)
    for text in arguments.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: cannot read it", hint="write --set key=value, such as --set epochs=10")
        values[key] = _toml_value(value)
    if arguments.epochs is not None:
        values["epochs"] = arguments.epochs
    values.setdefault("augmentation", chosen.augmentation)
    return Recipe.from_mapping(values, where="training recipe")


def _toml_value(text: str) -> object:
    """Returns a value as a configuration file writes it; a word needs no quotes here."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _history(trained: Training, recipe: Recipe, chosen: Task, seed: int, path: Path) -> dict[str, object]:
    return {
        "network": trained.network.name,
        "architecture_hash": trained.network.hash,
        "task": chosen.name,
        "task_options": chosen.options,
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "metric": chosen.objective.metric,
        "validation_accuracy": trained.accuracy,
        "validation_metrics": dict(trained.metrics),
        "epochs": [dataclasses.asdict(report) for report in trained.history],
        "path": str(path),
    }


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    from gensynth.synth.tasks.base import SPLITS

    parser.add_argument("network", metavar="NET.gsir", help="the network; - for stdin")
    _add_task(parser)
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="validation",
        help="the part of the data (default validation); keep test for last",
    )
    add_weights(parser, fresh="where there are no weights, evaluate fresh ones drawn from this seed (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _evaluate(arguments: argparse.Namespace) -> int:
    require_torch("gensynth evaluate")
    from gensynth.backends.torch import evaluate
    from gensynth.passes.cost import totals
    from gensynth.synth.performance import Outcome, information_density, netscore

    network = read_network(arguments.network, arguments.weights, seed=arguments.seed or 0)
    counted = totals(network.graph)
    chosen = _task(arguments)
    found = evaluate(network, chosen.split(arguments.split), chosen.objective, device=arguments.device)
    outcome = Outcome(found.accuracy, counted.params, counted.macs)
    has_cost = counted.params > 0 and counted.macs > 0
    row: Mapping[str, object] = {
        "network": network.name,
        "architecture_hash": network.hash,
        "task": chosen.name,
        "split": arguments.split,
        "metric": chosen.objective.metric,
        "accuracy": found.accuracy,
        "metrics": dict(found.metrics),
        "loss": found.loss,
        "count": found.count,
        "params": counted.params,
        "macs": counted.macs,
        "information_density": information_density(outcome) if has_cost else None,
        "netscore": netscore(outcome) if has_cost else None,
    }
    if arguments.json:
        print_json(row)
        return 0
    measured = [f">{name} [%]" for name in found.metrics]
    print_table(
        ["network", "part", ">images", *measured, ">loss", ">params", ">MACs", ">density [%/M]", ">NetScore"],
        [
            [
                f"@{network.name}",
                f"{chosen.name}, {arguments.split}",
                str(found.count),
                *[f"{value:.2f}" for value in found.metrics.values()],
                f"{found.loss:.4f}",
                human(counted.params),
                human(counted.macs),
                f"{information_density(outcome):,.0f}" if has_cost else "-",
                f"{netscore(outcome):.1f}" if has_cost else "-",
            ]
        ],
    )
    return 0


COMMANDS = (
    Command(
        "train",
        "train a network on a task",
        (
            "gensynth train resnet8.gsir --task digits --out trained --epochs 20",
            'gensynth train n.gsir --task image-folder --data pics --option size=32x32 --set optimizer="adamw" --out d',
            "gensynth train n.gsir --task segmentation --data CamVid --option size=120x160 --option ignore=11 --out d",
        ),
        _train_arguments,
        _train,
        "Writes DIR/NAME.gsir with weights beside it and DIR/training.json. The result is the last epoch, or,\n"
        "where the recipe stops early, the best by validation accuracy; the test part of the data is not read.\n"
        "Accuracy is the first metric of the task's objective, as `gensynth tasks NAME` tells.",
    ),
    Command(
        "evaluate",
        "measure how well a network with weights does on a task",
        ("gensynth evaluate trained/resnet8.gsir --task digits --split test --json",),
        _evaluate_arguments,
        _evaluate,
    ),
)
