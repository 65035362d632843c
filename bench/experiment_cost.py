"""What a synthesis costs in trainings of its prototype.

A run keeps seconds, but its trainings lie far apart, beside other work, and some were cut off and went on. So the two
that cost most, those of the prototype and of the shared weights, are timed again in turn, on a few batches each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from harness import measure

from gensynth.backends.torch import train
from gensynth.backends.torch.recipe import Recipe
from gensynth.backends.torch.shared_training import train_shared
from gensynth.ir import Network
from gensynth.synth.tasks import Task

__all__ = ["cost_of", "time_trainings"]

BATCHES = 24
REPETITIONS = 3
NETWORKS = 16
"""A long training makes each of its networks once and then keeps it: so a short one is to have few."""


def time_trainings(
    prototype: Network, generator: Network, task: Task, alone: Recipe, shared: Recipe, device: str = "cpu"
) -> dict[str, Any]:
    """Returns how long an image takes in both trainings [s], on a CPU by one thread, and how many each takes in all.

    `alone` is the recipe of the prototype, which comes trained, and `shared` that of the shared weights.
    """
    images = task.split("train")
    timed = min(BATCHES * alone.batch_size, len(images))
    first, second = (replace(recipe, epochs=1, examples=timed) for recipe in (alone, shared))

    def one() -> None:
        train(Network(prototype.graph), images, None, first, task.objective, device=device)

    def together() -> None:
        train_shared(
            generator,
            images,
            None,
            second,
            task.objective,
            teacher=prototype,
            networks=NETWORKS,
            maps=False,
            device=device,
        )

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken = measure({"prototype": one, "shared": together}, REPETITIONS)
    finally:
        torch.set_num_threads(threads)
    found: dict[str, Any] = {"images": timed, "repetitions": REPETITIONS}
    for name, recipe in (("prototype", alone), ("shared", shared)):
        whole = recipe.epochs * (min(recipe.examples, len(images)) if recipe.examples else len(images))
        found[name] = {"seconds_per_image": taken[name].median / timed, "images": whole}
    return found


def cost_of(spent: Mapping[str, float], timed: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns the cost of a synthesis: seconds by what they were spent on, and the ratio to the prototype's training.

    `spent` are the seconds that the run kept, `timed` is what `time_trainings` returned.
    """
    seconds = dict(spent)
    if timed is not None:
        seconds |= {name: timed[name]["seconds_per_image"] * timed[name]["images"] for name in ("prototype", "shared")}
    total = sum(value for name, value in seconds.items() if name != "prototype")
    return {
        "prototype_seconds": seconds["prototype"],
        "shared_seconds": seconds["shared"],
        "search_seconds": total - seconds["shared"],
        "synthesis_seconds": total,
        "ratio": total / seconds["prototype"],
        "timed": None if timed is None else dict(timed),
    }
