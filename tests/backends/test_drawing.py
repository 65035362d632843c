"""Drawings: complete, well-formed, free of overlaps, and the same every time."""

from __future__ import annotations

import builtins
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest

from gensynth.backends.drawing import draw
from gensynth.backends.drawing.layout import layout
from gensynth.backends.drawing.scene import Box, Cluster, build_scene
from gensynth.ir import Builder, Graph, Network, UsageError, parse
from gensynth.ir.ops import Conv2d, Relu, Split
from gensynth.synth.prototypes import prototype

SVG = "{http://www.w3.org/2000/svg}"

GENERATOR = """gensynth 1

network @little(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %stem.conv = conv2d(%image) {channels=choice<stem.width>[8: 0.0, 16: 0.0], kernel=3, padding=same}
  %stem.act = relu(%stem.conv)
  %block.conv = choose<block.conv>(%stem.act) {
    original[1.0](%a) {
      %b = conv2d(%a) {channels=16, kernel=3, padding=same}
      yield %b
    }
    separate[0.0](%a) {
      %d = conv2d(%a) {channels=8, kernel=1}
      %c = conv2d(%d) {channels=16, kernel=1}
      yield %c
    }
  }
  %block.skip = choose<block.skip>(%block.conv) {
    keep[0.0](%a) {
      %b = conv2d(%a) {channels=16, kernel=1}
      yield %b
    }
    bypass[0.0](%a) {
      yield %a
    }
  }
  %head.pool = global_avg_pool(%block.skip)
  %head.logits = dense(%head.pool) {features=10}
  return %head.logits
}
"""


def generator() -> Graph:
    return parse(GENERATOR)


def networks() -> dict[str, Network]:
    return {
        "lenet": prototype("lenet"),
        "resnet8": prototype("resnet", depth=8, image=(1, 8, 8)),
        "squeezenet": prototype("squeezenet"),
        "shufflenet": prototype("shufflenet"),
        "nasnet": prototype("nasnet-a", cells=1, filters=96),
    }


def boxes_of(cluster: Cluster, x: float = 0.0, y: float = 0.0) -> Iterator[tuple[Box, float, float]]:
    for child in cluster.children:
        if isinstance(child, Box):
            yield child, x + child.x, y + child.y
        else:
            yield from boxes_of(child, x + child.x, y + child.y)


def clusters_of(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    for child in cluster.children:
        if isinstance(child, Cluster):
            yield from clusters_of(child)


def texts_of(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", networks())
def test_an_svg_is_well_formed_and_shows_every_node(name: str) -> None:
    network = networks()[name]
    root = ElementTree.fromstring(draw(network, "svg"))
    tooltips = "\n".join(element.text or "" for element in root.iter(f"{SVG}title"))
    for node in network.graph.nodes:
        assert f"%{node.name} = " in tooltips or f"%{node.name}, " in tooltips
    assert network.graph.name in texts_of(draw(network, "svg"))


@pytest.mark.parametrize("name", networks())
def test_boxes_stay_inside_their_frames_and_never_overlap(name: str) -> None:
    scene = build_scene(networks()[name].graph, {}, compact=True)
    layout(scene)
    for cluster in clusters_of(scene):
        for child in cluster.children:
            assert child.x >= -0.1
            assert child.y >= -0.1
            assert child.x + child.width <= cluster.width + 0.1
            assert child.y + child.height <= cluster.height + 0.1
        for index, one in enumerate(cluster.children):
            for other in cluster.children[:index]:
                apart = (
                    one.x >= other.x + other.width
                    or other.x >= one.x + one.width
                    or one.y >= other.y + other.height
                    or other.y >= one.y + one.height
                )
                assert apart, f"{one.key} lies on {other.key}"


def test_wires_run_downwards_between_layers_and_around_boxes() -> None:
    scene = build_scene(prototype("resnet", depth=8, image=(1, 8, 8)).graph, {}, compact=True)
    layout(scene)
    for cluster in clusters_of(scene):
        for route in cluster.routes:
            heights = [y for _, y in route.points]
            assert heights == sorted(heights)
            for (x0, y0), (x1, y1) in zip(route.points, route.points[1:], strict=False):
                if x0 != x1:
                    continue
                for child in cluster.children:
                    if isinstance(child, Box) and child.x < x0 < child.x + child.width:
                        assert y1 <= child.y + 0.1 or y0 >= child.y + child.height - 0.1


@pytest.mark.parametrize("format", ["svg", "html", "dot"])
def test_the_same_network_gives_the_same_bytes(format: str) -> None:
    code = (
        "import sys; from gensynth.backends.drawing import draw; from gensynth.synth.prototypes import prototype;"
        f"sys.stdout.buffer.write(draw(prototype('squeezenet'), {format!r}).encode())"
    )
    drawn = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert drawn.decode() == draw(prototype("squeezenet"), format)  # type: ignore[arg-type]


def test_chains_share_a_box_unless_asked_otherwise() -> None:
    graph = prototype("lenet").graph
    together = {box.names for box, _, _ in boxes_of(build_scene(graph, {}, compact=True))}
    assert ("stage1.conv", "stage1.act") in together
    alone = {box.names for box, _, _ in boxes_of(build_scene(graph, {}, compact=False))}
    assert {("stage1.conv",), ("stage1.act",)} <= alone


def test_a_value_that_is_read_twice_ends_its_chain() -> None:
    graph = prototype("resnet", depth=14, width=4).graph
    for box, _, _ in boxes_of(build_scene(graph, {}, compact=True)):
        assert all(len(graph.users[name]) == 1 for name in box.names[:-1])


def test_scopes_nest_and_scopes_of_one_box_have_no_frame() -> None:
    scene = build_scene(prototype("squeezenet").graph, {}, compact=True)
    titles = [cluster.title for cluster in clusters_of(scene)]
    assert titles.count("fire1") == 3
    assert {"stage1", "stage2", "stage3", "head"} <= set(titles)
    assert "stem" not in titles
    assert "stem.conv" in {box.name for box, _, _ in boxes_of(scene)}


def test_heat_follows_the_share_of_macs_and_can_be_given() -> None:
    network = prototype("lenet")
    svg = draw(network, "svg")
    assert "57.6% · 240 k" in texts_of(svg)
    given = draw(network, "svg", values={"head.logits": 3.0, "stage1.conv": 1.0})
    assert "75.0% · 3" in texts_of(given)
    assert "share of the total" in texts_of(given)
    assert not any("share of" in text for text in texts_of(draw(network, "svg", values={})))


def test_a_generator_shows_alternatives_open_attributes_and_their_probabilities() -> None:
    svg = draw(generator(), "svg")
    texts = texts_of(svg)
    assert {"choose block.conv", "original", "separate", "73%", "27%", "bypass", "50%", "channels"} <= set(texts)
    assert {"8", "16", "8–16×8×8"} <= set(texts)
    assert "stem.width: 16, probability 50.0%" in svg
    assert "share of MACs, choices at their likeliest" in texts


def test_nodes_of_alternatives_take_values_by_their_prefixed_name() -> None:
    name = "block.conv[separate]/d"
    assert "100.0% · 7" in texts_of(draw(generator(), "svg", values={name: 7.0}))


@pytest.mark.parametrize("format", ["svg", "html", "dot"])
def test_hostile_names_are_escaped(format: str) -> None:
    hostile = '</svg><script>"alert(1)"</script>&\\'
    drawn = draw(prototype("lenet"), format, title=hostile)  # type: ignore[arg-type]
    if format == "svg":
        ElementTree.fromstring(drawn)
        assert hostile in texts_of(drawn)
    if format != "dot":
        assert "<script>&quot;" not in drawn
        assert '<script>"alert' not in drawn
    else:
        assert drawn.startswith('digraph "</svg><script>\\"alert(1)\\"</script>&\\\\" {')


def test_control_characters_leave_the_svg_well_formed() -> None:
    ElementTree.fromstring(draw(prototype("lenet"), "svg", title="a\x00b\x1b"))


def test_a_page_needs_nothing_from_elsewhere() -> None:
    page = draw(prototype("resnet", depth=8, image=(1, 8, 8)), "html", title="My network")
    assert "<title>My network</title>" in page
    assert "prefers-color-scheme: dark" in page
    assert "77.8 k" in page
    assert not re.search(r"""(src|href)\s*=|url\(|@import""", page)
    assert set(re.findall(r"https?://[^\"'\s<]+", page)) == {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("name", [*networks(), "generator"])
def test_graphviz_text_has_every_box_and_balanced_clusters(name: str) -> None:
    graph = generator() if name == "generator" else networks()[name].graph
    text = draw(graph, "dot")
    assert text.count("{") == text.count("}")
    for box, _, _ in boxes_of(build_scene(graph, {}, compact=True)):
        assert f'"{box.key}" [label=' in text
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=text.encode(), capture_output=True, check=True)


def test_graphviz_edges_join_what_the_graph_joins() -> None:
    text = draw(prototype("resnet", depth=8, image=(1, 8, 8)), "dot")
    assert '"stem.conv" -> "stage1.block1.conv1";' in text
    assert '"stem.conv" -> "stage1.block1.add";' in text
    drawn = draw(generator(), "dot")
    assert '"stem.conv" -> "block.conv[original]/b";' in drawn
    assert '"block.conv[separate]/c" -> "block.skip[bypass]/";' in drawn
    assert '"block.skip[bypass]/" -> "head.pool";' in drawn


def test_long_networks_are_drawn_in_columns_within_seconds() -> None:
    network = prototype("nasnet-a")
    start = time.perf_counter()
    svg = draw(network, "svg")
    assert time.perf_counter() - start < 3.0
    root = ElementTree.fromstring(svg)
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    assert 0.4 < width / height < 3.0


def test_unused_results_and_unframed_graphs_are_drawn() -> None:
    builder = Builder("halves")
    value = builder.input("x", (4, 8, 8))
    left, _ = builder.emit_all(Split(), value, names=("left", "right"))
    left = builder.emit(Conv2d(channels=2, kernel=1), left, name="conv")
    builder.output(left, builder.emit(Relu(), left, name="act"))
    ElementTree.fromstring(draw(builder.build(), "svg"))


def test_unknown_formats_and_nodes_are_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError, match="cannot draw as 'svgg'") as caught:
        draw(prototype("lenet"), "svgg")  # type: ignore[arg-type]
    assert caught.value.hint == "did you mean 'svg'?"
    with pytest.raises(UsageError, match="no node of @lenet") as caught:
        draw(prototype("lenet"), values={"stage1.con": 1.0})
    assert caught.value.hint == "did you mean 'stage1.conv'?"


def test_without_the_layout_library_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: object, **keywords: object) -> object:
        if name == "fast_sugiyama":
            raise ImportError(name)
        return real(name, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match="fast-sugiyama") as caught:
        draw(prototype("lenet"), "svg")
    assert "pip install 'gensynth[draw]'" in (caught.value.hint or "")
    assert draw(prototype("lenet"), "dot").startswith("digraph")
