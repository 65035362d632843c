"""What an experiment has measured, as JSON keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiment_cost import cost_of
from experiment_file import Experiment
from harness import machine

from gensynth.backends.torch.module import device_of
from gensynth.backends.torch.precision import precision_on
from gensynth.backends.torch.recipe import Recipe
from gensynth.ir import Graph, UsageError, architecture_hash
from gensynth.passes.cost import totals
from gensynth.synth.config import Config

__all__ = ["added", "counts", "earlier_stages", "found_by", "load_earlier", "words"]

Row = dict[str, Any]


def found_by(experiment: Experiment, config: Config, kept: Callable[[str], Any]) -> Row:
    """Returns everything measured so far, for JSON; `kept` returns what a stage found, None where it has not been run.

    `config` is that of the run, with its device.
    """
    training, shared = config.training, config.shared_training
    result: Row = {
        "task": experiment.name,
        "title": experiment.title,
        "form": experiment.form,
        "about": experiment.about,
        "machine": {**machine(), "device": config.device},
        "recipe": _told(training, config.device),
        "shared_recipe": None
        if shared is None
        else _told(shared, config.device) | {"learning_rate": shared.learning_rate},
        "device": experiment.device,
        "reference": experiment.reference,
        "baselines": len(experiment.baselines),
        "published": list(experiment.published),
        "goals": experiment.goals,
    }
    sweeps = [kept(name) for name in ("sweep-baselines", "sweep-sweep", "sweep-synthesis", "sweep-control")]
    if any(sweeps):
        settings = experiment.sweep
        result["sweep"] = {
            "learning_rates": list(settings.learning_rates),
            "epochs": settings.epochs,
            "examples": settings.examples,
            "found": [row for rows in sweeps if rows for row in rows],
        }
    tested = kept("test")
    if tested:
        result |= tested
    learned = kept("synthesis")
    if learned:
        result["cost"] = cost_of(learned["seconds"], kept("cost"))
    for name in ("family", "sharing", "alone", "ranking", "artifact"):
        if kept(name):
            result[name] = kept(name)
    return result


def load_earlier(path: Path | None, experiment: Experiment) -> Row:
    """Returns the figures of an earlier run of the same experiment, for another run to add to.

    Raises:
        UsageError: there are none, or they are of another experiment.
    """
    hint = "--json names the figures of an earlier run"
    if path is None:
        raise UsageError("--add needs --json, whose figures it adds to", hint=hint)
    if not path.exists():
        raise UsageError(f"--add finds nothing to add to in {path}", hint=hint)
    try:
        found: Row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}", hint=hint) from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} has no figures of an experiment", hint=hint)
    ours = found_by(experiment, experiment.config, lambda _: None)
    for key in _SAME:
        if found.get(key) != ours[key]:
            raise UsageError(
                f"{path} has {key.replace('_', ' ')} {found.get(key)!r}, the experiment {ours[key]!r}",
                hint="figures of two experiments do not go together: leave out --add",
            )
    return found


_SAME = ("task", "form", "recipe", "shared_recipe", "device", "reference")
"""What tells experiments apart that may not be added to each other."""


def added(earlier: Row, found: Row) -> Row:
    """Returns the figures of an earlier run and those of a later one, which count where both have something.

    Networks and learning rates go by their names. What else was found of the networks of the stage `sharing` belongs to
    what that stage found of them, and goes with it.
    """
    if not earlier:
        return found
    both = {**earlier, **found, "machine": earlier["machine"]}
    if "rows" in earlier and "rows" in found:
        both["rows"] = _by_name(earlier["rows"], found["rows"])
    if "sweep" in earlier and "sweep" in found:
        both["sweep"] = {**found["sweep"], "found": _by_name(earlier["sweep"]["found"], found["sweep"]["found"])}
    if found.get("sharing", earlier.get("sharing")) != earlier.get("sharing"):
        for name in {"alone", "ranking"} - found.keys():
            both.pop(name, None)
    return both


def _by_name(earlier: list[Row], later: list[Row]) -> list[Row]:
    """Returns the rows of both, without the earlier ones of a network that has later ones."""
    renewed = {row["name"] for row in later}
    return [row for row in earlier if row["name"] not in renewed] + later


def earlier_stages(earlier: Row) -> Row:
    """Returns what stages found of which a later one needs figures only, not files."""
    kept: Row = {name: earlier[name] for name in ("sharing", "alone") if name in earlier}
    for kind in ("control", "prototype"):
        rows = [row for row in earlier.get("rows", ()) if row["kind"] == kind]
        if rows:
            kept[kind] = {"rows": rows}
    return kept


def counts(graph: Graph) -> Row:
    """Returns what tells a network apart, and its size."""
    counted = totals(graph)
    return {"architecture_hash": architecture_hash(graph), "params": counted.params, "macs": counted.macs}


def _told(recipe: Recipe, device: str) -> Row:
    """Returns what pages tell of a recipe, for JSON."""
    told = ("epochs", "batch_size", "optimizer", "weight_decay", "warmup", "label_smoothing")
    return {
        **{key: getattr(recipe, key) for key in told},
        "precision": precision_on(device_of(device), recipe.precision),
        "augmentation": [item.name for item in recipe.augmentation],
        "distillation": recipe.distillation,
        **({"teacher_images": "plain"} if recipe.distillation and recipe.teacher_images == "plain" else {}),
        "examples": recipe.examples,
    }


def words(recipe: Recipe) -> str:
    """Returns the length of a short training in words."""
    images = "all images" if not recipe.examples else f"{recipe.examples:,} images"
    return f"{recipe.epochs} epoch{'s' if recipe.epochs > 1 else ''} of {images}"
