"""Channel groups: which widths of a network must change together, found from the graph alone.

A group is a set of positions that can be kept or dropped one by one. A residual add, a depthwise convolution or a
squeeze-and-excitation makes several nodes share a group; each has `scale` channels for every position (1 mostly; the
multiplier of a depthwise convolution; g for a convolution of g groups, which must keep the same channels in each).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from gensynth.ir import Graph, PassError, nearest

from .channel_flow import ChannelFlow, Indices, Labels

__all__ = ["ChannelGroup", "ChannelGroups", "channel_groups"]


@dataclass(frozen=True)
class ChannelGroup:
    """Widths that change together.

    `id` is the path of the first node that makes the group's channels, `width` how many positions it has. `sources`
    are (node path, attribute, scale): the attribute is scale times the number of positions kept. `consumers` are the
    paths of the nodes that mix the group's channels by weights. `fixed` says in words why the width must stay, and is
    None where it may change.

    `blocks` parts the positions: keeping whole blocks slices exactly (the network computes what it would with the
    other channels removed). They are single positions but where the channels run through shuffles and splits in a
    row, or a local response normalization; there, other kept sets give valid networks whose weights fit less well.
    """

    id: str
    width: int
    fixed: str | None
    sources: tuple[tuple[str, str, int], ...]
    consumers: tuple[str, ...]
    blocks: tuple[tuple[int, ...], ...]

    @property
    def exact(self) -> bool:
        """Whether any kept set slices exactly, and any order of the positions leaves the function as it is."""
        return len(self.blocks) == self.width


class ChannelGroups:
    """The channel groups of one graph, in order of the text, and where each of them lies in each value."""

    groups: tuple[ChannelGroup, ...]

    def __init__(self, graph: Graph) -> None:
        self._name = graph.name
        self._flow = flow = ChannelFlow(graph)
        count = flow.count
        made = [(atoms, np.full_like(atoms, atoms[0])) for _, atoms in flow.producers]
        nominal = _components(count, flow.nominal_pairs)
        everything = np.arange(count)
        if flow.linked:
            true = _components(count, flow.true_pairs)
            both = _components(count, [*flow.true_pairs, *flow.nominal_pairs])
            links = [(atoms, np.full_like(atoms, atoms[0])) for atoms in flow.linked]
            self._region = _components(count, [(everything, both), *made, *links])
            # Where demanding exactness costs no freedom, the true reading of shuffles is the one to follow.
            self._exact_regions = _roots_per(self._region, true) >= _roots_per(self._region, nominal)
            follows_true = self._exact_regions[self._region]
            classes, blocks = np.where(follows_true, true, nominal), np.where(follows_true, true, both)
        else:
            classes = blocks = nominal
            self._region, self._exact_regions = np.zeros(count, np.int64), np.ones(max(1, count), np.bool_)
        family = _components(count, [(everything, classes), *made])
        roots, self._group = np.unique(family, return_inverse=True)
        self._block = blocks
        self._position = _ranks(classes, self._group)
        self._widths = np.bincount(self._group[classes == everything], minlength=len(roots))
        self.groups = self._describe(roots)

    def _describe(self, roots: Indices) -> tuple[ChannelGroup, ...]:
        flow = self._flow
        makers = np.repeat(np.arange(len(flow.producers)), [len(atoms) for _, atoms in flow.producers])
        fixed: dict[int, str] = {}
        for atoms, reason in flow.fixed:
            for group in np.unique(self._group[atoms]).tolist():
                fixed.setdefault(group, reason)
        sources: list[list[tuple[str, str, int]]] = [[] for _ in roots]
        for width in flow.widths:
            groups, scale = self._scale(width.labels)
            if scale is None or width.attribute == "sizes":
                for group in groups:
                    fixed.setdefault(
                        group,
                        f"{width.attribute} of %{width.path} counts only a part of these channels, or others with them",
                    )
            else:
                sources[groups[0]].append((width.path, width.attribute, scale))
        consumers: list[dict[str, None]] = [{} for _ in roots]
        for path, labels in flow.consumers:
            for group in self._groups_in(labels):
                consumers[group][path] = None
        blocks = self._blocks()
        return tuple(
            ChannelGroup(
                flow.producers[int(makers[root])][0],
                int(self._widths[index]),
                fixed.get(index),
                tuple(sources[index]),
                tuple(consumers[index]),
                blocks[index],
            )
            for index, root in enumerate(roots)
        )

    def _groups_in(self, labels: Labels) -> list[int]:
        found = self._group[self._read(labels, self._exact_regions)]
        _, first = np.unique(found, return_index=True)
        return [int(group) for group in found[np.sort(first)]]

    def _scale(self, labels: Labels) -> tuple[list[int], int | None]:
        """Returns the groups in some channels and, for one group only, how often each position occurs, if equal."""
        groups = self._groups_in(labels)
        if len(groups) != 1:
            return groups, None
        positions = self._position[self._read(labels, self._exact_regions)]
        counts = np.bincount(positions, minlength=self._widths[groups[0]])
        return groups, int(counts[0]) if counts.min() == counts.max() else None

    def _blocks(self) -> list[tuple[tuple[int, ...], ...]]:
        own = np.flatnonzero(self._block == np.arange(len(self._block)))
        counts = np.bincount(self._group[own], minlength=len(self._widths))
        result: list[tuple[tuple[int, ...], ...]] = []
        for index, (count, width) in enumerate(zip(counts.tolist(), self._widths.tolist(), strict=True)):
            if count == width:
                result.append(tuple((position,) for position in range(width)))
                continue
            members = np.flatnonzero(self._group == index)
            blocks: dict[int, dict[int, None]] = {}
            for block, position in zip(self._block[members].tolist(), self._position[members].tolist(), strict=True):
                blocks.setdefault(block, {})[position] = None
            result.append(tuple(tuple(positions) for positions in blocks.values()))
        return result

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    @cached_property
    def by_id(self) -> Mapping[str, ChannelGroup]:
        """The groups by id."""
        return {group.id: group for group in self.groups}

    @cached_property
    def counted(self) -> frozenset[tuple[str, str]]:
        """The attributes that count channels, as (node path, attribute), those of no group alone included."""
        return frozenset((width.path, width.attribute) for width in self._flow.widths)

    def of(self, path: str) -> tuple[ChannelGroup, ...]:
        """Returns the groups on the channel axis of a value, in order; `path` is its name behind any prefix.

        Raises:
            PassError: the graph has no such value.
        """
        labels = self._flow.values.get(path)
        if labels is None:
            raise PassError(
                f"@{self._name} has no value '{path}'", hint=nearest(path, self._flow.values, what="values")[:200]
            )
        return tuple(self.groups[index] for index in self._groups_in(labels))

    def positions(self, path: str, group: ChannelGroup) -> Indices:
        """Returns, for each channel of a value, its position in `group`, or -1 where it belongs to another."""
        atoms = self._read(self._flow.values[path], self._exact_regions)
        return np.where(self._group[atoms] == self._index(group.id), self._position[atoms], -1)

    def selections(self, keep: Mapping[str, Sequence[int]]) -> dict[str, Indices]:
        """Returns the channels kept of every value that loses some, by path, for kept positions by group id.

        Raises:
            PassError: no such group, a fixed one, or positions that are none, out of range or not ascending.
        """
        kept = np.ones(len(self._group), np.bool_)
        exact = np.ones_like(self._exact_regions)
        for identifier, positions in keep.items():
            index = self._index(identifier)
            chosen = self._check(identifier, positions)
            if np.any(np.diff(chosen) <= 0):
                raise PassError(
                    f"the positions to keep of group '{identifier}' are not in ascending order",
                    hint="sort them; to reorder channels use permute_channels",
                )
            members = np.flatnonzero(self._group == index)
            kept[members] = np.isin(self._position[members], chosen)
            whole = np.bincount(self._block[members[~kept[members]]], minlength=len(kept)) > 0
            broken = members[kept[members] & whole[self._block[members]]]
            exact[self._region[broken]] = False
        exact |= self._exact_regions
        result = {}
        for path, labels in self._flow.values.items():
            mask = kept[self._read(labels, exact)]
            if not mask.all():
                result[path] = np.flatnonzero(mask)
        return result

    def permutations(self, orders: Mapping[str, Sequence[int]]) -> dict[str, Indices]:
        """Returns the new order of the channels of every value that gets one, by path, for orders by group id.

        Raises:
            PassError: no such group, a fixed one, one whose channels no order keeps exact, or no permutation.
        """
        wanted: dict[int, Indices] = {}
        for identifier, positions in orders.items():
            index = self._index(identifier)
            order = self._check(identifier, positions)
            if len(order) != self._widths[index] or len(np.unique(order)) != len(order):
                raise PassError(
                    f"the order given for group '{identifier}' is no permutation of its {self._widths[index]} positions"
                )
            if not self.groups[index].exact:
                raise PassError(
                    f"group '{identifier}' runs through shuffles, splits or local response norms, so its channels"
                    " cannot be reordered",
                    hint="leave out groups that are not exact",
                )
            wanted[index] = order
        result = {}
        for path, labels in self._flow.values.items():
            groups = self._group[labels.true]
            moved = np.arange(len(labels))
            for index, order in wanted.items():
                channels = np.flatnonzero(groups == index)
                if len(channels):
                    by_position = channels[np.argsort(self._position[labels.true[channels]], kind="stable")]
                    table = by_position.reshape(len(order), -1)
                    moved[table] = table[order]
            if np.any(moved != np.arange(len(labels))):
                result[path] = moved
        return result

    def width(self, path: str) -> int:
        """Returns how many channels a value has (open widths at their largest)."""
        return len(self._flow.values[path])

    def _read(self, labels: Labels, exact: npt.NDArray[np.bool_]) -> Indices:
        if labels.nominal is labels.true:
            return labels.true
        return np.where(exact[self._region[labels.true]], labels.true, labels.nominal)

    @cached_property
    def _indices(self) -> Mapping[str, int]:
        return {group.id: index for index, group in enumerate(self.groups)}

    def _index(self, identifier: str) -> int:
        index = self._indices.get(identifier)
        if index is None:
            raise PassError(
                f"@{self._name} has no channel group '{identifier}'",
                hint=nearest(identifier, self._indices, what="groups")[:200],
            )
        return index

    def _check(self, identifier: str, positions: Sequence[int]) -> Indices:
        group = self.by_id[identifier]
        if group.fixed is not None:
            raise PassError(f"the width of group '{identifier}' must stay: {group.fixed}", hint="leave this group out")
        chosen = np.asarray(positions, dtype=np.int64)
        if not len(chosen) or chosen.min() < 0 or chosen.max() >= group.width:
            raise PassError(
                f"positions of group '{identifier}' must be some of 0 to {group.width - 1}",
                hint="keep at least one channel",
            )
        return chosen


def _components(count: int, pairs: Iterable[tuple[Indices, Indices]]) -> Indices:
    """Returns, for each atom, the least atom that pairs connect it with."""
    root = np.arange(count)
    known = list(pairs)
    if not known:
        return root
    left, right = (np.concatenate(side) for side in zip(*known, strict=True))
    apart = left != right
    left, right = left[apart], right[apart]
    while True:
        a, b = root[left], root[right]
        if np.array_equal(a, b):
            return root
        least = np.minimum(a, b)
        np.minimum.at(root, a, least)
        np.minimum.at(root, b, least)
        while not np.array_equal(root, root[root]):
            root = root[root]


def _roots_per(region: Indices, classes: Indices) -> Indices:
    own = np.flatnonzero(classes == np.arange(len(classes)))
    return np.bincount(region[own], minlength=len(region))


def _ranks(classes: Indices, group: Indices) -> Indices:
    """Returns the position of each atom: the rank of its class within its group, by first atom."""
    roots = np.flatnonzero(classes == np.arange(len(classes)))
    order = roots[np.argsort(group[roots], kind="stable")]
    starts = np.searchsorted(group[order], group[order])
    rank = np.zeros(len(classes), np.int64)
    rank[order] = np.arange(len(order)) - starts
    return rank[classes]


_memo: WeakKeyDictionary[Graph, ChannelGroups] = WeakKeyDictionary()


def channel_groups(graph: Graph) -> ChannelGroups:
    """Returns the channel groups of a network or generator (open widths at their largest). Memoized."""
    found = _memo.get(graph)
    if found is None:
        found = _memo[graph] = ChannelGroups(graph)
    return found
