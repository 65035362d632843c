"""How decisions are told apart: choices on their own, and the routes that data take through them.

A generator program falls into blocks at the values that all data pass. The routes through a block, each a sequence of
choices, come to a set of label sequences once the choices are decided; an alternative that gives zeros cuts its routes.
So two networks are near when the same sequences of operations lie between the same points, wherever the program has
them: path encodings (White, Nolen, Savani, arXiv 2007.04965), made from any program.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph, Node
from gensynth.ir.ops import (
    Add,
    BatchNorm,
    ChannelShuffle,
    Choose,
    Concat,
    Dropout,
    Flatten,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    Relu,
    Relu6,
    Reshape,
    Sigmoid,
    Silu,
    Split,
)
from gensynth.passes import gives_zeros

from .candidate import UNREACHED

__all__ = ["Encoded", "Encoding"]

Rows = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

_TRANSPARENT = (
    *(Add, BatchNorm, ChannelShuffle, Concat, Dropout, Flatten, HardSigmoid, HardSwish),
    *(Identity, LeakyRelu, Relu, Relu6, Reshape, Sigmoid, Silu, Split),
)
"""Ops that hand on what they read, element by element: a route of these alone is a shortcut."""

_ROUTES = 64
"""A block of more routes than this is taken choice by choice."""
_LENGTH = 8
"""So is a route of more choices than this."""
_SAMPLE = 128
"""Networks drawn to see how far apart two of a program are."""


class _Route(NamedTuple):
    """The choices that data meet on one way through a block, and whether anything else there computes."""

    choices: tuple[str, ...]
    computes: bool


class Encoded(NamedTuple):
    """Networks by their decisions.

    `rows`, shape [n, columns]: squared distances between them are distances between decisions, one for each choice
    that differs and one for each route. `shortcuts`, shape [n]: the share of blocks with a way around everything that
    computes in them.
    """

    rows: Rows
    shortcuts: Rows


@dataclass(frozen=True)
class _Table:
    """The alternatives of a choice: their labels, which of them give zeros, and which hand on what they read."""

    labels: tuple[str, ...]
    cuts: frozenset[str] = frozenset()
    transparent: frozenset[str] = frozenset()


class Encoding:
    """Encodes the decisions of a generator program, and of the programs it came from.

    Choices that the program does not have (others had them before, or another prototype has) count each on its own.
    """

    def __init__(self, graph: Graph | None = None) -> None:
        """Reads the routes of a program; without one, all choices count each on its own."""
        self._tables: dict[str, _Table] = {}
        self._inside: dict[str, tuple[tuple[str, str], ...]] = {}
        self._blocks: list[tuple[_Route, ...]] = []
        self._numbers: dict[str, int] = {UNREACHED: 0}
        self._codes: dict[int, tuple[Mapping[str, str], Codes]] = {}
        self._choices: list[str] = []
        self._positions: dict[str, int] = {}
        self._seen: list[set[int]] = []
        if graph is not None:
            self._labels = {choice: info.labels for choice, info in graph.choices.items()}
            self._inside = {choice: info.inside for choice, info in graph.choices.items() if info.inside}
            self._read(graph)

    # Reading a program.

    def _read(self, graph: Graph) -> None:
        for node in graph.nodes:
            for _, choice in node.choices:
                self._know(choice.id, _Table(self._labels[choice.id]))
            if isinstance(node.op, Choose):
                self._know(node.op.choice, _table(node))
                for alternative in node.alternatives:
                    self._read(alternative.body)
        for routes in _blocks(graph):
            kept = tuple(
                sorted(
                    {
                        _Route(tuple(c for c in route.choices if not self._numeric(c)), route.computes)
                        for route in routes
                    }
                )
            )
            worth = any(len(route.choices) > 0 for route in kept) and len(kept) <= _ROUTES
            if worth and all(len(route.choices) <= _LENGTH for route in kept) and kept not in self._blocks:
                self._blocks.append(kept)

    def _know(self, choice: str, table: _Table) -> None:
        self._tables.setdefault(choice, table)
        self._position(choice)

    def _numeric(self, choice: str) -> bool:
        return all(number(label) is not None for label in self._tables[choice].labels)

    def _position(self, choice: str) -> int:
        if choice not in self._positions:
            self._positions[choice] = len(self._choices)
            self._choices.append(choice)
            self._seen.append(set())
        return self._positions[choice]

    # Decisions.

    def reached(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Returns labels with those of choices inside alternatives that are not taken replaced by `UNREACHED`."""
        found = dict(labels)
        for choice, around in self._inside.items():
            for outer, label in around:
                if found.get(outer) == label:
                    break
            else:
                found[choice] = UNREACHED
        return found

    def _coded(self, labels: Mapping[str, str]) -> Codes:
        """Returns the number of each known choice's label, kept as long as the mapping lives here."""
        known = self._codes.get(id(labels))
        if known is not None and len(known[1]) == len(self._choices):
            return known[1]
        for choice in labels:
            if choice not in self._positions:
                self._position(choice)
        named = [labels.get(choice, "original") for choice in self._choices]
        for label in named:
            if label not in self._numbers:
                self._numbers[label] = len(self._numbers)
        codes = np.array([self._numbers[label] for label in named], np.int64)
        self._codes[id(labels)] = labels, codes
        return codes

    def __call__(self, labels: Sequence[Mapping[str, str]]) -> Encoded:
        """Encodes networks by what every choice came to; a choice that is not named counts as `original`.

        Columns keep their meaning within one call only.
        """
        if not labels:
            return Encoded(np.zeros((0, 1)), np.zeros(0))
        known = -1
        while known < len(self._choices):  # a choice that is new is one for all
            known = len(self._choices)
            coded = [self._coded(item) for item in labels]
        codes = np.stack(coded)
        names = list(self._numbers)
        columns = [
            column for choice, at in self._positions.items() for column in self._own(choice, codes[:, at], names)
        ]
        shortcuts = []
        for block in self._blocks:
            found, shortcut = self._along(block, codes)
            columns += found
            if shortcut is not None:
                shortcuts.append(shortcut)
        rows = np.stack(columns, axis=1) if columns else np.zeros((len(labels), 1))
        return Encoded(rows, np.mean(shortcuts, axis=0) if shortcuts else np.zeros(len(labels)))

    def _own(self, choice: str, codes: Codes, names: Sequence[str]) -> list[Rows]:
        """Returns the columns of a choice on its own.

        Among numbers (widths, kernels): the logarithm scaled to [0, 1] over the numbers there are. Otherwise a column
        for each label. Not being reached is a label of its own.
        """
        seen = np.unique(codes)
        if len(seen) < 2:
            return []
        numbers = {code: number(names[code]) for code in seen if code != 0}
        if len(numbers) > 1 and all(found is not None for found in numbers.values()):
            table = self._tables.get(choice)
            known = [number(label) for label in table.labels] if table is not None else []
            logs = {code: math.log(found) for code, found in numbers.items() if found is not None}
            ends = [*logs.values(), *[math.log(found) for found in known if found is not None]]
            low, high = min(ends), max(ends)
            scaled = np.full(len(self._numbers), 0.5)
            for code, found in logs.items():
                scaled[code] = (found - low) / (high - low)
            columns = [scaled[codes]]
            if 0 in seen:
                columns.append((codes == 0).astype(np.float64))
            return columns
        return [math.sqrt(0.5) * (codes == code) for code in seen]

    def _along(self, block: tuple[_Route, ...], codes: Codes) -> tuple[list[Rows], Rows | None]:
        """Returns a column for each label sequence between the ends of a block, and whether there is a shortcut."""
        base = len(self._numbers)
        found: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}
        shortcut = np.zeros(len(codes), bool)
        computing = np.zeros(len(codes), bool)
        for route in block:
            sequence = np.zeros(len(codes), np.int64)
            alive = np.ones(len(codes), bool)
            plain = np.full(len(codes), not route.computes)
            for choice in route.choices:
                own = codes[:, self._positions[choice]]
                cuts, transparent = self._kinds(choice)
                sequence = sequence * base + own
                alive &= ~cuts[own]
                plain &= transparent[own]
            shortcut |= alive & plain
            computing |= alive & ~plain
            if not route.choices:
                continue
            for code in np.unique(sequence[alive]):
                key = len(route.choices), int(code)
                here = alive & (sequence == code)
                found[key] = found[key] | here if key in found else here
        columns = [here.astype(np.float64) for here in found.values() if not here.all()]
        decided = shortcut & computing
        return columns, None if decided.all() or not shortcut.any() else decided.astype(np.float64)

    def _kinds(self, choice: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Returns by label number whether an alternative cuts its routes, and whether it hands on what it reads."""
        table = self._tables[choice]
        cuts, transparent = np.zeros(len(self._numbers), bool), np.zeros(len(self._numbers), bool)
        cuts[0] = True
        for labels, into in ((table.cuts, cuts), (table.transparent, transparent)):
            for label in labels:
                if label in self._numbers:
                    into[self._numbers[label]] = True
        return cuts, transparent

    def draw(self, random: np.random.Generator, count: int) -> list[dict[str, str]]:
        """Returns decisions of the program drawn uniformly, one choice apart from the others."""
        drawn = []
        for _ in range(count):
            labels = {
                choice: table.labels[int(random.integers(len(table.labels)))] for choice, table in self._tables.items()
            }
            drawn.append(self.reached(labels))
        return drawn

    @cached_property
    def population(self) -> list[dict[str, str]]:
        """Networks of the program drawn uniformly, the same ones each time: what scores are ranked against."""
        return self.draw(np.random.Generator(np.random.Philox(key=0)), 4 * _SAMPLE) if self._tables else []

    @cached_property
    def spread(self) -> float:
        """The mean squared distance of two networks of the program drawn uniformly; 0 without a program."""
        drawn = self.population[:_SAMPLE]
        if len(drawn) < 2:
            return 0.0
        rows = self(drawn).rows
        centred = rows - rows.mean(axis=0)
        return float(2.0 * (centred**2).sum() / (len(rows) - 1))


def number(label: str) -> float | None:
    """Returns the positive number that a label is, or None."""
    try:
        value = float(label)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _table(node: Node) -> _Table:
    cuts, transparent = set(), set()
    for alternative in node.alternatives:
        if gives_zeros(alternative.body):
            cuts.add(alternative.label)
        elif all(isinstance(inner.op, _TRANSPARENT) for inner in alternative.body.nodes):
            transparent.add(alternative.label)
    labels = tuple(alternative.label for alternative in node.alternatives)
    return _Table(labels, frozenset(cuts), frozenset(transparent))


def _blocks(graph: Graph) -> list[frozenset[_Route]]:
    """Returns the routes through each part of a graph between two values that all data pass."""
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        for value in node.operands:
            last[value.name] = index
    for value in graph.outputs:
        last[value.name] = len(graph.nodes)
    start = frozenset({_Route((), False)})
    routes: dict[str, frozenset[_Route]] = {value.name: start for value in graph.inputs}
    blocks = []
    # All values made before a node, up to which node they are read.
    reach = 0 if len(graph.inputs) == 1 else len(graph.nodes)
    reach = max([reach, *[last.get(value.name, 0) for value in graph.inputs]])
    for index, node in enumerate(graph.nodes):
        through = frozenset().union(*[routes[value.name] for value in node.operands]) if node.operands else start
        identifiers = tuple(dict.fromkeys([choice.id for _, choice in node.choices]))
        if isinstance(node.op, Choose):
            identifiers = (node.op.choice,)
        computes = not isinstance(node.op, (*_TRANSPARENT, Choose))
        made = frozenset(_Route(r.choices + identifiers, r.computes or computes) for r in through)
        if len(made) > 4 * _ROUTES:
            made = frozenset({_Route((), True)})
        if reach <= index and len(node.results) == 1:
            blocks.append(made)
            made = start
        for value in node.results:
            routes[value.name] = made
            reach = max(reach, last.get(value.name, 0))
    return blocks
