"""Experiment files: a synthesis, what it is compared with, its operating points, and what it should reach."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from gensynth.backends.torch.recipe import Recipe
from gensynth.ir import UsageError, nearest
from gensynth.passes.cost import device_text
from gensynth.synth.config import Config, load_config

__all__ = ["Baseline", "Experiment", "Longer", "Sharing", "Short", "Sweep", "load_experiment"]


@dataclass(frozen=True)
class Baseline:
    """A hand-made network: what tables call it, and the prototype it is."""

    label: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Sweep:
    """Learning rates tried for each hand-made network, in trainings of so many epochs of so many images."""

    learning_rates: tuple[float, ...]
    epochs: int
    examples: int = 0


@dataclass(frozen=True)
class Short:
    """Many short trainings: of how many networks, how many epochs, of how many images (0: all)."""

    networks: int
    epochs: int
    examples: int = 0


@dataclass(frozen=True)
class Longer:
    """Trainings by themselves once more: of so many epochs, each network as often as there are `seeds`."""

    epochs: int
    seeds: int = 1


@dataclass(frozen=True)
class Sharing(Short):
    """Trainings by themselves: each network as often as there are `seeds`, whose mean is what it reaches.

    With `ranking_epochs` shared weights are trained once more, so long, for no requirements.
    """

    seeds: int = 1
    longer: Longer | None = None
    ranking_epochs: int = 0


@dataclass(frozen=True)
class Experiment:
    """What an experiment file says, in one of its forms; docs/experiments.md has the keys."""

    name: str
    form: str
    title: str
    about: str
    device: str
    reference: str
    prototype_label: str
    judged: int
    finalists: int
    timed_batches: int
    config: Config
    sweep: Sweep
    family: Short
    family_requirements: tuple[str, ...]
    sharing: Sharing
    baselines: tuple[Baseline, ...]
    points: Mapping[str, tuple[str, ...]]
    goals: Mapping[str, Any]
    published: tuple[Mapping[str, Any], ...]
    source: str


_KEYS = {
    "title",
    "synthesis",
    "prototype",
    "reference",
    "device",
    "judged",
    "finalists",
    "timed_batches",
    "about",
    "sweep",
    "family",
    "sharing",
    "baselines",
    "points",
    "goals",
    "published",
    "forms",
}


_CHANGED = (
    "about",
    "sweep",
    "family",
    "sharing",
    "points",
    "judged",
    "finalists",
    "timed_batches",
    "baselines",
    "reference",
    "prototype",
)
"""What a form may change beside the synthesis."""


def load_experiment(path: Path, form: str = "cpu") -> Experiment:
    """Reads an experiment file and the synthesis it names, changed as `forms.FORM` says.

    Raises:
        UsageError: the file cannot be read, or something in it is wrong or missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", hint="bench/experiments/ has the experiments") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is no TOML: {error}", hint="see https://toml.io") from None
    for key in found:
        if key not in _KEYS:
            raise UsageError(f"{path}: unknown key '{key}'", hint=nearest(key, sorted(_KEYS), what="keys"))
    try:
        return _experiment(path, form, found)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} lacks or misspells a key: {error}", hint="compare bench/experiments/") from None


def _experiment(path: Path, form: str, found: dict[str, Any]) -> Experiment:
    """Returns an experiment from its tables, which are changed as the form says."""
    forms = found.pop("forms", {})
    if form != "cpu" and form not in forms:
        raise UsageError(f"{path} has no form '{form}'", hint=f"its forms are {', '.join(['cpu', *forms])}")
    changes = dict(forms.get(form, {}))
    config = _changed(load_config(path.parent / found["synthesis"]), changes, f"{path}: forms.{form}")
    for key in _CHANGED:
        if key in changes:
            merged = isinstance(changes[key], dict) and key != "points"
            found[key] = {**found[key], **changes.pop(key)} if merged else changes.pop(key)
    if changes:
        raise UsageError(f"{path}: forms.{form} has the unknown key '{next(iter(changes))}'", hint="see its other keys")
    sweep, family = dict(found["sweep"]), dict(found["family"])
    return Experiment(
        name=path.stem,
        form=form,
        title=found["title"],
        about=" ".join(found["about"].split()),
        device=device_text(found["device"]),
        reference=found["reference"],
        prototype_label=found["prototype"],
        judged=found["judged"],
        finalists=found.get("finalists", 1),
        timed_batches=found.get("timed_batches", 24),
        config=config,
        sweep=Sweep(tuple(sweep.pop("learning_rates")), **sweep),
        family_requirements=tuple(family.pop("requirements")),
        family=Short(**family),
        sharing=_sharing(found["sharing"]),
        baselines=tuple(
            Baseline(item["label"], item["name"], {k: v for k, v in item.items() if k not in ("label", "name")})
            for item in found.get("baselines", ())
        ),
        points={name: tuple(lines) for name, lines in found["points"].items()},
        goals=found.get("goals", {}),
        published=tuple(found.get("published", ())),
        source=_source(found, config),
    )


def _sharing(found: Mapping[str, Any]) -> Sharing:
    """Returns the trainings of `[sharing]`."""
    longer = found.get("longer")
    return Sharing(**{**found, "longer": Longer(**longer) if longer else None})


def _source(found: Mapping[str, Any], config: Config) -> str:
    """Returns everything that decides what a run computes, as text."""
    decisive = ("sweep", "family", "sharing", "judged", "finalists", "baselines", "points")
    lines = [f"{key} = {found.get(key)!r}" for key in decisive]
    lines += [f"{field.name} = {getattr(config, field.name)!r}" for field in fields(Config) if field.name != "source"]
    return "\n".join(lines) + "\n"


def _changed(config: Config, changes: dict[str, Any], where: str) -> Config:
    """Returns the synthesis of a form, and takes from `changes` what concerns it."""
    if "task" in changes:
        config = replace(config, task_options={**config.task_options, **changes.pop("task")})
    if "arguments" in changes:
        config = replace(config, prototype_arguments={**config.prototype_arguments, **changes.pop("arguments")})
    if "requirements" in changes:
        config = replace(config, requirements=tuple(changes.pop("requirements")))
    if "search" in changes:
        config = replace(config, search=replace(config.search, **changes.pop("search")))
    for name in ("training", "shared_training"):
        if name in changes:
            recipe = getattr(config, name)
            assert isinstance(recipe, Recipe)
            mapping = {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
            changed = Recipe.from_mapping({**mapping, **changes.pop(name)}, where=f"{where}.{name}")
            config = replace(config, **{name: changed})
    return config
