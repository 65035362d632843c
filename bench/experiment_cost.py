"""What a synthesis costs in trainings of its prototype.

A run keeps seconds, but its trainings lie far apart, beside other work, and some were cut off and went on. So the two
that cost most, those of the prototype and of the shared weights, are timed again in turn, on a few batches each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from harness import measure

from gensynth.backends import Examples
from gensynth.backends.torch import train
from gensynth.backends.torch.data import Data
from gensynth.backends.torch.module import device_of
from gensynth.backends.torch.recipe import Recipe
from gensynth.backends.torch.shared_training import NETWORKS, train_shared
from gensynth.backends.torch.teaching import Teacher
from gensynth.ir import Network
from gensynth.synth.tasks import Task

__all__ = ["cost_of", "time_trainings"]

LONG = 3
"""Epochs of the longer of two timed trainings: the shorter one has a single epoch."""
REPETITIONS = 3
FEW = 16
"""Networks that a timed training of shared weights goes through."""


def time_trainings(
    prototype: Network,
    generator: Network,
    task: Task,
    alone: Recipe,
    shared: Recipe,
    *,
    batches: int = 24,
    device: str = "cpu",
) -> dict[str, Any]:
    """Returns what an image and the start of both trainings take [s], on a CPU by one thread, and how many there are.

    `alone` is the recipe of the prototype, which comes trained, and `shared` that of the shared weights. Each is timed
    with one epoch and with several of so many batches: what differs are images, and what is left is the start. Where
    the prototype leads, most of the start is making networks, which are then kept: a whole training counts as many
    starts as it has times the networks of a timed one. Where the prototype looks at every image once, before the
    training, that is timed by itself.
    """
    images = task.split("train")
    timed = min(batches * alone.batch_size, len(images))

    def one(epochs: int) -> None:
        recipe = replace(alone, epochs=epochs, examples=timed)
        train(Network(prototype.graph), images, None, recipe, task.objective, device=device)

    def together(epochs: int) -> None:
        recipe = replace(shared, epochs=epochs, examples=timed)
        options: dict[str, Any] = {"teacher": prototype, "networks": FEW, "maps": False, "device": device}
        train_shared(generator, images, None, recipe, task.objective, **options)

    def look() -> None:
        few = Data.on(images.sample(timed), device_of(device), shared.layout)
        Teacher(prototype, shared, few).outputs(few.inputs[:1], few.labels.new_zeros(1, dtype=torch.long))

    looks = shared.distillation > 0 and shared.teacher_images == "plain"
    starts = {"prototype": 1, "shared": NETWORKS // FEW if shared.distillation else 1}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        candidates: dict[str, Callable[[], object]] = {
            f"{name} {epochs}": partial(run, epochs)
            for name, run in (("prototype", one), ("shared", together))
            for epochs in (1, LONG)
        }
        taken = measure({**candidates, **({"teacher": look} if looks else {})}, REPETITIONS)
    finally:
        torch.set_num_threads(threads)
    found: dict[str, Any] = {"images": timed, "repetitions": REPETITIONS}
    looking = {"prototype": 0.0, "shared": taken["teacher"].median if looks else 0.0}
    for name, recipe in (("prototype", alone), ("shared", shared)):
        short, long = (taken[f"{name} {epochs}"].median for epochs in (1, LONG))
        image = max(0.0, long - short) / ((LONG - 1) * timed)
        found[name] = {
            "seconds_per_image": image,
            "images": recipe.epochs * _images(recipe, images),
            "start_seconds": max(0.0, short - image * timed - looking[name]),
            "starts": starts[name],
        }
    if looks:
        found["teacher"] = {"seconds_per_image": looking["shared"] / timed, "images": _images(shared, images)}
    return found


def _images(recipe: Recipe, images: Examples) -> int:
    """Returns how many images an epoch has."""
    return min(recipe.examples, len(images)) if recipe.examples else len(images)


def cost_of(spent: Mapping[str, float], timed: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the cost of a synthesis: seconds by what they were spent on, and the ratio to the prototype's training.

    `spent` are the seconds that the run kept, `timed` is what `time_trainings` returned.
    """
    seconds = dict(spent)
    if timed is not None:
        for name in ("prototype", "shared"):
            part = timed[name]
            seconds[name] = part["seconds_per_image"] * part["images"] + part["start_seconds"] * part["starts"]
        if "teacher" in timed:
            seconds["shared"] += timed["teacher"]["seconds_per_image"] * timed["teacher"]["images"]
    total = sum(value for name, value in seconds.items() if name != "prototype")
    return {
        "prototype_seconds": seconds["prototype"],
        "shared_seconds": seconds["shared"],
        "search_seconds": total - seconds["shared"],
        "synthesis_seconds": total,
        "ratio": total / seconds["prototype"],
        "timed": None if timed is None else dict(timed),
    }
