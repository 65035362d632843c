"""The file that a training under way is kept in, from which it goes on when it was cut off."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gensynth.ir import Network, to_text, write_atomically

from ..examples import Examples
from .objectives import Objective
from .recipe import Recipe

__all__ = ["Checkpoint", "State", "random_states", "restore_random_states", "training_digest"]

VERSION = 2
"""Goes up with every change of what a state holds or of how trainings compute: older files are not gone on from."""

_SEEN = 256
"""So many examples, evenly spaced, tell data sets apart: to read all of a large one takes too long."""

State = dict[str, Any]
"""Tensors and plain values: what `torch.load` reads with `weights_only`."""


class Checkpoint:
    """A file with the state of one training, replaced whole, at most once in `every` seconds.

    `digest` tells what the training is. A file of another training, or one that cannot be read, counts as none.
    """

    def __init__(self, path: Path, every: float, digest: str) -> None:
        self._path = path
        self._every = every
        self._digest = digest
        self._last = time.monotonic()

    def load(self) -> State | None:
        """Returns the state that the file holds, its tensors on the CPU; None where it holds none of this training."""
        try:
            found = torch.load(self._path, map_location="cpu", weights_only=True)
            return found["state"] if found["digest"] == self._digest else None
        except Exception:  # a torn or foreign file fails in many ways, and all mean the same: start anew
            return None

    def save(self, state: Callable[[], State]) -> None:
        """Writes the state, if it is time.

        Raises:
            UsageError: the file cannot be written.
        """
        if time.monotonic() - self._last < self._every:
            return
        content = io.BytesIO()
        torch.save({"digest": self._digest, "state": state()}, content)
        write_atomically(self._path, content.getvalue())
        self._last = time.monotonic()

    def remove(self) -> None:
        """Removes the file, and those that were being written when a process was killed."""
        for path in (self._path, *self._path.parent.glob(f".{escape(self._path.name)}.*")):
            path.unlink(missing_ok=True)


def training_digest(
    kind: str,
    network: Network,
    training: Examples,
    validation: Examples | None,
    recipe: Recipe,
    objective: Objective,
    seed: int,
    device: torch.device,
    *others: object,
    teacher: Network | None = None,
) -> str:
    """Returns a hash of all that decides what a training computes; of large data sets it sees a part.

    `others` are settings of the kind of training that JSON can write.
    """
    plain = [VERSION, torch.__version__, kind, asdict(recipe), repr(objective), seed, device.type, others]
    digest = hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16)
    for item in (network, teacher):
        digest.update(b"none" if item is None else to_text(item.graph).encode())
        for name, array in sorted({} if item is None else (item.weights or {}).items(), key=lambda pair: pair[0]):
            digest.update(name.encode())
            _take(digest, array)
    for examples in (training, validation):
        if examples is None:
            digest.update(b"none")
            continue
        digest.update(f"{len(examples)} {examples.normalization}".encode())
        for part in (examples.inputs, examples.labels):
            _take(digest, part[:: -(-len(examples) // _SEEN)])
    return digest.hexdigest()


def _take(digest: hashlib.blake2b, array: npt.NDArray[np.generic]) -> None:
    digest.update(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())


def random_states(device: torch.device) -> State:
    """Returns the states of PyTorch's own random streams that a training on a device draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random_states(states: State, device: torch.device) -> None:
    """Sets the random streams to what `random_states` returned."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
