"""Probes for searches: networks are built, freed of what does nothing, and probed once each."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from gensynth.ir import DataError, Graph, Network, architecture_hash
from gensynth.passes import Materializer, Requirement, fold_zeros
from gensynth.passes.cost import Costs, Meter
from gensynth.synth.evaluation import probe_network, stimuli_of
from gensynth.synth.tasks import Task

from .space import Decisions, Space

__all__ = ["Prober"]

SCHEMA = "CREATE TABLE IF NOT EXISTS probes (key TEXT PRIMARY KEY, scores TEXT NOT NULL) WITHOUT ROWID"


class Prober:
    """Builds the networks of a generator program and probes them on real stimuli of a task.

    Zeros are folded away first, so that networks which compute the same are probed once. What was probed is kept in
    `cache`, if a file is given, under a hash of all that it depends on.
    """

    def __init__(
        self, graph: Graph, on: Task | None, *, stimuli: int = 32, seed: int = 0, cache: Path | None = None
    ) -> None:
        """Probes on the first `stimuli` images of a shuffle of the task's training part; without a task, never.

        Raises:
            DataError: the cache is none.
        """
        self.on = on
        self.stimuli = stimuli
        self.seed = seed
        self.space = Space.of(graph)
        self.materializer = Materializer(graph, requirements=())
        self._networks: dict[Decisions, str] = {}
        self._scores: dict[str, Mapping[str, float]] = {}
        self._meters: dict[tuple[str, ...], Meter] = {}
        self._cache = None
        self.computed = 0
        if cache is not None:
            cache.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._cache = sqlite3.connect(cache, isolation_level=None, timeout=60.0)
                self._cache.execute("PRAGMA journal_mode = WAL")
                self._cache.execute(SCHEMA)
            except sqlite3.Error as error:
                raise DataError(f"{cache} is no store of probes: {error}", hint="remove it, or name another") from None

    def build(self, decisions: Decisions) -> Graph:
        """Returns the network of decisions, as the generator has it."""
        return self.materializer.build(self.space.mapping(decisions))

    def costs(self, decisions: Decisions, requirements: Sequence[Requirement], device: str | None) -> Costs:
        """Returns counts, and latency and energy on the devices of the requirements and on `device`."""
        names = tuple(name for name in (*(item.device for item in requirements), device) if name is not None)
        if names not in self._meters:
            self._meters[names] = Meter(names)
        return self._meters[names](self.build(decisions))

    def scores(self, decisions: Decisions) -> Mapping[str, float]:
        """Returns the training-free scores of a network; none without a task."""
        if self.on is None:
            return {}
        name = self.network(decisions)
        if name not in self._scores:
            found = self._look_up(name)
            if found is None:
                found = self._probe(fold_zeros(self.build(decisions)))
                self._keep(name, found)
            self._scores[name] = found
        return self._scores[name]

    def network(self, decisions: Decisions) -> str:
        """Returns the architecture's hash once zeros are folded away."""
        name = self._networks.get(decisions)
        if name is None:
            name = self._networks[decisions] = architecture_hash(fold_zeros(self.build(decisions)))
        return name

    def _probe(self, graph: Graph) -> dict[str, float]:
        assert self.on is not None
        found = probe_network(Network(graph), self.on, stimuli=self.stimuli, seed=self.seed)["scores"]
        assert isinstance(found, dict)
        self.computed += 1
        return found

    def _key(self, name: str) -> str:
        parts = [name, self._stimuli, self.seed]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    @cached_property
    def _stimuli(self) -> str:
        """The hash of the images that networks are probed on."""
        assert self.on is not None
        digest = hashlib.blake2b(digest_size=16)
        chosen = stimuli_of(self.on, self.stimuli, self.seed)
        digest.update(chosen.inputs.tobytes())
        digest.update(chosen.labels.tobytes())
        return digest.hexdigest()

    def _look_up(self, name: str) -> dict[str, float] | None:
        if self._cache is None:
            return None
        row = self._cache.execute("SELECT scores FROM probes WHERE key = ?", (self._key(name),)).fetchone()
        return None if row is None else json.loads(row[0])

    def _keep(self, name: str, scores: Mapping[str, float]) -> None:
        if self._cache is not None:
            self._cache.execute("INSERT OR IGNORE INTO probes VALUES (?, ?)", (self._key(name), json.dumps(scores)))
