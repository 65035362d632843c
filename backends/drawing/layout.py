"""Where things go: layered layouts, cluster by cluster, from the inside out.

Ranks and lanes come from the graph; the order within ranks and the first coordinates from fast-sugiyama; sizes are then
made room for, and boxes and lanes drawn to their neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

from gensynth.ir import UsageError

from .scene import OWN, Box, Cluster, Item, Point, Route, Wire, connect

__all__ = ["layout", "size_box", "text_width"]

MONO = 6.1
SANS = 7.6
ROW = 15.0
BAR_ROW = 36.0
BOX_PADDING = 8.0
GAP_X = 22.0
GAP_Y = 24.0
LANE = 10.0
PADDING = 14.0
TITLE = 24.0
COLUMN_HEIGHT = 1000.0
ASPECT = 1.7
GUTTER = 56.0
SWEEPS = 48

Edge = tuple[int, int]


def text_width(text: str, size: float = MONO) -> float:
    """Returns about how wide a text is, in pixels."""
    return size * len(text)


def size_box(box: Box) -> None:
    """Gives a box the size of its text."""
    head = text_width(box.title, SANS) + (6 + text_width(box.detail) if box.detail else 0)
    first = head + 14 + text_width(box.name)
    second = text_width(box.followers)
    third = text_width(box.shape) + (18 + text_width(box.amount) if box.amount else 0)
    rows = 1 + bool(box.followers) + bool(box.shape or box.amount)
    bars = [72 + sum(max(26.0, 10 + text_width(value)) for value, _ in bar.values) for bar in box.bars]
    box.width = round(max(first, second, third, *bars, 70.0) + 2 * BOX_PADDING + 4)
    box.height = rows * ROW + BAR_ROW * len(box.bars) + BOX_PADDING


@dataclass
class _Vertex:
    rank: int
    width: float
    height: float
    item: Item | None = None
    lane: int = -1
    x: float = 0.0
    neighbours: list[int] = field(default_factory=list)


def _from_edges() -> Callable[..., list[tuple[list[tuple[int, Point]], float, float, object]]]:
    try:
        from fast_sugiyama import from_edges
    except ImportError:
        raise UsageError(
            "drawing needs the package fast-sugiyama, which is not installed",
            hint="pip install 'gensynth[draw]', or show the network with --format dot or text",
        ) from None
    return cast("Callable[..., list[tuple[list[tuple[int, Point]], float, float, object]]]", from_edges)


def _first_coordinates(count: int, edges: Sequence[Edge]) -> list[float]:
    """Returns an x for every vertex, in units of one vertex: components side by side."""
    x = [math.nan] * count
    offset = 0.0
    layouts = []
    if edges:
        layouts = [sorted(positions) for positions, *_ in _from_edges()(edges, vertex_spacing=1, dummy_vertices=False)]
    for positions in sorted(layouts):
        left = min(point[0] for _, point in positions)
        for vertex, point in positions:
            x[vertex] = point[0] - left + offset
        offset = max(x[vertex] for vertex, _ in positions) + 1
    for vertex in range(count):
        if math.isnan(x[vertex]):
            x[vertex] = offset
            offset += 1
    return x


class _Layered:
    """The layered layout of one cluster: its own ports on the first and last rank, its children between."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.vertices: list[_Vertex] = []
        self.paths: list[tuple[Wire, list[int]]] = []
        children = cluster.children
        ranks = [1] * len(children)
        for wire in sorted((w for w in cluster.wires if OWN not in (w.source, w.target)), key=lambda w: w.target):
            ranks[wire.target] = max(ranks[wire.target], ranks[wire.source] + 1)
        self.last = max(ranks, default=0) + 1
        self._sink(ranks)
        for child, rank in zip(children, ranks, strict=True):
            self.vertices.append(_Vertex(rank, child.width, child.height, child))
        self.inputs = self._ports(len(cluster.inputs), 0)
        self.outputs = self._ports(len(cluster.outputs), self.last)
        for lane, wire in enumerate(cluster.wires):
            source = self.inputs[wire.source_port] if wire.source == OWN else wire.source
            target = self.outputs[wire.target_port] if wire.target == OWN else wire.target
            path = [source]
            for rank in range(self.vertices[source].rank + 1, self.vertices[target].rank):
                self.vertices.append(_Vertex(rank, LANE, 0.0, lane=lane))
                path.append(len(self.vertices) - 1)
            self.paths.append((wire, [*path, target]))
        for _, path in self.paths:
            for source, target in pairwise(path):
                self.vertices[source].neighbours.append(target)
                self.vertices[target].neighbours.append(source)

    def _sink(self, ranks: list[int]) -> None:
        """Moves items down to just above their first reader where that shortens more wires than it lengthens."""
        for index in reversed(range(len(ranks))):
            into = [wire for wire in self.cluster.wires if wire.target == index]
            out = [wire for wire in self.cluster.wires if wire.source == index]
            if out and len(out) > len(into):
                ranks[index] = max(
                    ranks[index], min(self.last if w.target == OWN else ranks[w.target] for w in out) - 1
                )

    def _ports(self, count: int, rank: int) -> list[int]:
        first = len(self.vertices)
        self.vertices += [_Vertex(rank, LANE, 0.0) for _ in range(count)]
        return list(range(first, first + count))

    def place(self) -> None:
        vertices = self.vertices
        edges = list(dict.fromkeys(edge for _, path in self.paths for edge in pairwise(path)))
        first = _first_coordinates(len(vertices), edges)
        self.layers: list[list[int]] = [[] for _ in range(self.last + 1)]
        for index in sorted(range(len(vertices)), key=lambda index: (first[index], index)):
            self.layers[vertices[index].rank].append(index)
        self.position = {index: place for layer in self.layers for place, index in enumerate(layer)}
        for layer in self.layers:
            for left, right in pairwise(layer):
                vertices[right].x = vertices[left].x + self.apart(vertices[left], vertices[right])
        for sweep in range(SWEEPS):
            order = range(len(self.layers)) if sweep % 2 == 0 else reversed(range(len(self.layers)))
            for rank in order:
                self._relax([index for index in self.layers[rank] if vertices[index].lane < 0])
            self._relax_lanes()

    @staticmethod
    def apart(left: _Vertex, right: _Vertex) -> float:
        """Returns the least distance of two neighbours' centres."""
        gap = LANE / 2 if left.item is None and right.item is None else GAP_X
        return (left.width + right.width) / 2 + gap

    def _bounds(self, index: int) -> tuple[float, float]:
        vertex = self.vertices[index]
        layer = self.layers[vertex.rank]
        place = self.position[index]
        low, high = -math.inf, math.inf
        if place > 0:
            before = self.vertices[layer[place - 1]]
            low = before.x + self.apart(before, vertex)
        if place + 1 < len(layer):
            after = self.vertices[layer[place + 1]]
            high = after.x - self.apart(vertex, after)
        return low, high

    def _anchor(self, index: int, towards: int) -> float:
        """Returns the x at which wires meet a vertex: of a cluster, its ports' mean."""
        vertex = self.vertices[index]
        if isinstance(vertex.item, Cluster):
            ports = vertex.item.output_x if self.vertices[towards].rank > vertex.rank else vertex.item.input_x
            if ports:
                return vertex.x + sum(ports) / len(ports) - vertex.width / 2
        return vertex.x

    def _relax(self, indices: Sequence[int]) -> None:
        for index in indices:
            vertex = self.vertices[index]
            total = weight = 0.0
            alike = vertex.item is not None or self.cluster.style == "choose"
            for place, other in enumerate(vertex.neighbours):
                pull = 1.0 if self.vertices[other].lane < 0 and (alike or place == 0) else 0.001
                total += pull * (self._anchor(other, index) - self._anchor(index, other) + vertex.x)
                weight += pull
            if weight:
                low, high = self._bounds(index)
                vertex.x = max(low, min(high, total / weight)) if low <= high else low

    def _relax_lanes(self) -> None:
        for _, path in self.paths:
            inner = path[1:-1]
            if not inner:
                continue
            bounds = [self._bounds(index) for index in inner]
            low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
            wish = (self._anchor(path[0], path[1]) + self._anchor(path[-1], path[-2])) / 2
            if low <= high:
                for index in inner:
                    self.vertices[index].x = max(low, min(high, wish))

    def finish(self) -> None:
        """Turns ranks into heights, shifts everything into the frame, and writes routes and ports."""
        cluster, vertices = self.cluster, self.vertices
        framed = cluster.style in ("scope", "choose", "alternative")
        side = PADDING if framed else 0.0
        top = (TITLE if framed else 0.0) + (10.0 if cluster.style == "alternative" else 0.0)
        left = min((vertex.x - vertex.width / 2 for vertex in vertices), default=0.0) - side
        right = max((vertex.x + vertex.width / 2 for vertex in vertices), default=0.0) + side
        title = text_width(cluster.title, 6.6)
        wanted = max(title + 90, 2 * title + 44) if framed else 0.0
        slack = max(0.0, wanted - (right - left)) / 2
        left -= slack
        cluster.width = right - left + slack
        for vertex in vertices:
            vertex.x -= left
        heights = [max((vertices[index].height for index in layer), default=0.0) for layer in self.layers]
        tops = [0.0] * len(self.layers)
        for rank in range(1, len(self.layers)):
            reach = max(
                (
                    abs(vertices[a].x - vertices[b].x)
                    for _, path in self.paths
                    for a, b in pairwise(path)
                    if vertices[a].rank == rank - 1
                ),
                default=0.0,
            )
            gap = GAP_Y + min(26.0, reach * 0.06)
            if rank == 1:
                gap = top + (min(gap, 16.0) - 6 if framed else 0.0)
                gap = max(gap, GAP_Y) if cluster.inputs and not framed else gap
            if rank == self.last:
                gap = 16.0 if framed else (GAP_Y if cluster.outputs else 0.0)
            tops[rank] = tops[rank - 1] + heights[rank - 1] + gap
        cluster.height = max(tops[-1], top + 20.0)
        tops[-1] = cluster.height
        for vertex in vertices:
            if vertex.item is not None:
                vertex.item.x = vertex.x - vertex.width / 2
                spare = heights[vertex.rank] - vertex.height
                vertex.item.y = tops[vertex.rank] + (0.0 if cluster.style == "choose" else spare / 2)
        cluster.input_x = [vertices[index].x for index in self.inputs]
        cluster.output_x = [vertices[index].x for index in self.outputs]
        exits, entries = self._port_places()
        for number, (_, path) in enumerate(self.paths):
            start, end = vertices[path[0]], vertices[path[-1]]
            points: list[Point] = []
            if start.item is not None:
                points.append((exits[number], start.item.y + start.height))
            points.append((exits[number], tops[start.rank] + heights[start.rank]))
            for index in path[1:-1]:
                lane = vertices[index]
                points += [(lane.x, tops[lane.rank]), (lane.x, tops[lane.rank] + heights[lane.rank])]
            points.append((entries[number], tops[end.rank]))
            if end.item is not None:
                points.append((entries[number], end.item.y))
            cluster.routes.append(Route(points, isinstance(end.item, Box), len(path) > 2))

    def _port_places(self) -> tuple[list[float], list[float]]:
        """Returns the x where each wire leaves and enters: a cluster's own port, or spread along a box's edge."""
        exits, entries = [0.0] * len(self.paths), [0.0] * len(self.paths)
        incoming: dict[int, list[int]] = {}
        for number, (wire, path) in enumerate(self.paths):
            start, end = self.vertices[path[0]], self.vertices[path[-1]]
            exits[number], entries[number] = start.x, end.x
            if isinstance(start.item, Cluster):
                exits[number] = start.item.x + start.item.output_x[wire.source_port]
            elif start.item is not None and len(start.item.outputs) > 1:
                share = (wire.source_port + 1) / (len(start.item.outputs) + 1)
                exits[number] = start.item.x + share * start.width
            if isinstance(end.item, Cluster):
                entries[number] = end.item.x + end.item.input_x[wire.target_port]
            elif end.item is not None:
                incoming.setdefault(path[-1], []).append(number)
        for index, numbers in incoming.items():
            vertex = self.vertices[index]
            numbers.sort(key=lambda number: (self.vertices[self.paths[number][1][-2]].x, number))
            step = min(18.0, vertex.width / (len(numbers) + 1))
            above = [self.vertices[self.paths[number][1][-2]] for number in numbers]
            straight = [place for place, other in enumerate(above) if other.lane < 0 and abs(other.x - vertex.x) < 4]
            centre = straight[0] if len(straight) == 1 and len(numbers) == 2 else (len(numbers) - 1) / 2
            for place, number in enumerate(numbers):
                entries[number] = vertex.x + step * (place - centre)
        return exits, entries


def _arrange(cluster: Cluster) -> None:
    """Lays out a cluster whose children have their sizes."""
    layered = _Layered(cluster)
    layered.place()
    layered.finish()


def _inside_out(item: Item) -> None:
    if isinstance(item, Box):
        size_box(item)
        return
    for child in item.children:
        _inside_out(child)
    _arrange(item)


def layout(root: Cluster) -> None:
    """Gives every item of a drawing its place and size and every wire its path.

    A long network is broken into columns, read from left to right.

    Raises:
        UsageError: fast-sugiyama is not installed.
    """
    for child in root.children:
        _inside_out(child)
    height = sum(child.height + GAP_Y for child in root.children)
    width = max((child.width for child in root.children), default=1.0) + GUTTER
    target = max(COLUMN_HEIGHT, math.sqrt(height * width / ASPECT))
    items = [part for child in root.children for part in _break(child, target)]
    for part in items:
        if isinstance(part, Cluster) and not part.routes:
            _arrange(part)
    groups = _columns(items, target)
    if len(groups) == 1:
        root.children = items
        connect(root)
        _arrange(root)
        return
    read_outside = [
        {key for group in groups if group is not own for item in group for key in item.inputs} for own in groups
    ]
    columns: list[Item] = []
    for index, (group, read) in enumerate(zip(groups, read_outside, strict=True)):
        made = {key for item in group for key in item.outputs}
        inputs = tuple(dict.fromkeys(key for item in group for key in item.inputs if key not in made))
        outputs = tuple(key for item in group for key in item.outputs if key in read)
        column = Cluster(f"column {index}", "", "column", group, inputs, outputs)
        connect(column)
        _arrange(column)
        columns.append(column)
    root.children = columns
    connect(root)
    _side_by_side(root)


def _break(item: Item, target: float) -> list[Item]:
    """Parts a scope that is much taller than a column into several frames of its children."""
    if isinstance(item, Box) or item.style != "scope" or item.height <= 1.3 * target or len(item.children) < 2:
        return [item]
    groups = _columns(item.children, item.height / math.ceil(item.height / target))
    parts: list[Item] = []
    for index, group in enumerate(groups):
        others = {key for other in groups if other is not group for child in other for key in child.inputs}
        read = others | set(item.outputs)
        made = {key for child in group for key in child.outputs}
        inputs = tuple(dict.fromkeys(key for child in group for key in child.inputs if key not in made))
        outputs = tuple(key for child in group for key in child.outputs if key in read)
        title = f"{item.title} ({index + 1} of {len(groups)})"
        part = Cluster(f"{item.key} {index}", title, "scope", group, inputs, outputs)
        part.value = sum(child.value for child in group)
        connect(part)
        parts.append(part)
    return parts


def _columns(items: Sequence[Item], target: float) -> list[list[Item]]:
    """Parts items, in order, into groups of about the target height, the fullest as low as can be."""
    heights = [0.0 if isinstance(item, Box) and not item.names else item.height + GAP_Y for item in items]
    count = max(1, round(sum(heights) / target))
    low, high = max(heights, default=0.0), sum(heights)
    for _ in range(40):
        middle = (low + high) / 2
        if len(_fill(heights, middle)) <= count:
            high = middle
        else:
            low = middle
    groups: list[list[Item]] = []
    start = 0
    for size in _fill(heights, high):
        if groups and sum(heights[start : start + size]) < 0.2 * high and start + size == len(items):
            groups[-1] += items[start:]
        else:
            groups.append(list(items[start : start + size]))
        start += size
    return groups


def _fill(heights: Sequence[float], limit: float) -> list[int]:
    sizes, filled = [0], 0.0
    for height in heights:
        if sizes[-1] and filled + height > limit + 1e-6:
            sizes.append(0)
            filled = 0.0
        sizes[-1] += 1
        filled += height
    return sizes


def _side_by_side(root: Cluster) -> None:
    """Puts columns next to each other; wires between them run below, up the gutter and in from above."""
    top = 12.0 + 7.0 * len(root.wires)
    x = 0.0
    for index, column in enumerate(root.children):
        lanes = sum(wire.source == index for wire in root.wires)
        column.x, column.y = x, top
        x += column.width + (GUTTER + 7.0 * max(0, lanes - 1) if index + 1 < len(root.children) else 0.0)
    root.width = x
    bottom = 0.0
    used = [0] * len(root.children)
    for number, wire in enumerate(root.wires):
        source, target = root.children[wire.source], root.children[wire.target]
        assert isinstance(source, Cluster)
        assert isinstance(target, Cluster)
        lane = used[wire.source]
        used[wire.source] += 1
        start = source.x + source.output_x[wire.source_port]
        end = target.x + target.input_x[wire.target_port]
        below = source.y + source.height + 12 + 7 * lane
        gutter = source.x + source.width + GUTTER / 2 + 7 * lane
        above = 6.0 + 7.0 * number
        bottom = max(bottom, below)
        points = [(start, source.y + source.height), (start, below), (gutter, below), (gutter, above), (end, above)]
        root.routes.append(Route([*points, (end, target.y)], False, long=True))
    root.height = max([bottom + 8, *(column.y + column.height for column in root.children)])
