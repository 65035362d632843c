"""Kernels of a network under lowerings: what joins, what is free, what goes with zeros."""

from __future__ import annotations

from collections import Counter

import pytest

import gensynth as gs
from gensynth.backends.reference import run_reference
from gensynth.ir import Graph, Network, UsageError, initialize, parse
from gensynth.passes import run_pipeline
from gensynth.passes.cost import LOWERINGS, Lowering, cost, kernels_of
from gensynth.passes.cost.workload import kernel_shapes
from gensynth.passes.fold_zeros import cut_zeros

BLOCK = parse("""gensynth 1

network @block(%image: f32[N, 8, 8, 8]) -> f32[N, 8, 8, 8] {
  %a    = conv2d(%image) {channels=8, kernel=3, padding=same}
  %an   = batch_norm(%a)
  %act  = relu(%an)
  %b    = conv2d(%act) {channels=8, kernel=1}
  %bn   = batch_norm(%b)
  %sum  = add(%image, %bn)
  %out  = relu(%sum)
  return %out
}
""")


def cell(arch: str) -> Graph:
    return gs.prototype("nas-bench-201", arch=arch, cells=1, channels=8).graph


def kinds(graph: Graph, lowering: str) -> Counter[str]:
    return Counter(kernel.shape.kind for kernel in kernels_of(graph, LOWERINGS[lowering]))


@pytest.mark.parametrize(
    ("lowering", "expected"),
    [
        ("fused", [["a", "an", "act"], ["b", "bn", "sum", "out"]]),
        ("folded", [["a", "an", "act"], ["b", "bn"], ["sum", "out"]]),
        ("eager", [["a", "an"], ["act"], ["b", "bn"], ["sum"], ["out"]]),
    ],
)
def test_a_residual_block_has_the_kernels_of_its_lowering(lowering: str, expected: list[list[str]]) -> None:
    found = kernels_of(BLOCK, LOWERINGS[lowering])
    assert [[node.name for node in kernel.nodes] for kernel in found] == expected


def test_a_kernel_has_the_work_of_all_its_nodes() -> None:
    first, second = kernels_of(BLOCK, LOWERINGS["fused"])
    plane = 8 * 8 * 8
    assert first.shape[:5] == ("conv3x3", plane * 8 * 9, plane, 72, 8)
    assert (first.shape.read, first.shape.written, first.shape.weights) == (plane, plane, 8 * 8 * 9)
    assert (second.shape.read, second.shape.written) == (2 * plane, plane)
    assert second.shape.operations == 2 * plane * 8 + 2 * plane


def test_a_sum_of_what_a_convolution_has_just_made_is_told_from_others() -> None:
    assert kinds(BLOCK, "folded") == {"conv3x3": 1, "conv1x1": 1, "fresh_sum": 1}
    skips = cell("|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|")
    assert kinds(skips, "folded")["sum"] == 9


@pytest.mark.parametrize("name", ["alexnet", "googlenet", "mobilenet", "nasnet-a", "resnet", "shufflenet", "vgg"])
@pytest.mark.parametrize("lowering", sorted(LOWERINGS))
def test_no_macs_are_lost_and_none_counted_twice(name: str, lowering: str) -> None:
    graph = gs.prototype(name).graph
    found = kernels_of(graph, LOWERINGS[lowering])
    assert sum(kernel.shape.macs for kernel in found) == cost(graph).macs
    assert [kernel.shape for kernel in found] == kernel_shapes(graph, LOWERINGS[lowering])


@pytest.mark.parametrize(
    ("prototype", "arguments", "kind", "count"),
    [
        ("mobilenet", {"version": 1}, "depthwise", 13),
        ("alexnet", {}, "conv", 2),
        ("resnet", {"depth": 20}, "conv3x3", 19),
        ("shufflenet", {}, "shuffle", 16),
        ("vgg", {}, "dense", 3),
    ],
)
def test_kernels_are_told_apart_by_kind(prototype: str, arguments: dict[str, object], kind: str, count: int) -> None:
    assert kinds(gs.prototype(prototype, **arguments).graph, "fused")[kind] == count


LIVE = "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"
CUT_OFF = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|"
FED_BY_ZEROS = "|none~0|+|skip_connect~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|"
DEAD = "|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|none~0|none~1|none~2|"


def test_zeros_that_are_kept_are_kernels() -> None:
    assert kinds(cell(LIVE), "eager")["copy"] == 6
    assert kinds(cell(LIVE), "folded-cut")["copy"] == 3  # those that begin a sum


def test_what_only_feeds_zeros_is_cut() -> None:
    kept, cut = kinds(cell(CUT_OFF), "folded-kept"), kinds(cell(CUT_OFF), "folded-cut")
    assert kept["conv1x1"] - cut["conv1x1"] == 6 and kept["conv3x3"] - cut["conv3x3"] == 3
    assert cut == kinds(cell(CUT_OFF), "folded")


def test_what_zeros_feed_stays_where_they_are_cut_only() -> None:
    assert kinds(cell(FED_BY_ZEROS), "folded-cut")["conv3x3"] == kinds(cell(FED_BY_ZEROS), "folded-kept")["conv3x3"]


def test_a_network_that_does_not_depend_on_its_input_takes_no_kernel() -> None:
    assert kernels_of(cell(DEAD), LOWERINGS["folded-cut"]) == []
    assert kernels_of(cell(DEAD), LOWERINGS["folded-kept"])


def test_padding_that_is_read_as_such_is_not_taken_for_zeros() -> None:
    graph = gs.prototype("resnet", depth=20, shortcut="pad").graph
    assert cut_zeros(graph) is graph or len(cut_zeros(graph).nodes) == len(graph.nodes)
    assert kinds(graph, "folded-cut") == kinds(graph, "folded")


def test_equal_pools_of_one_value_are_merged_where_the_runtime_does_so() -> None:
    pools = cell("|avg_pool_3x3~0|+|avg_pool_3x3~0|none~1|+|avg_pool_3x3~0|none~1|none~2|")
    assert kinds(pools, "folded-kept")["pool"] < kinds(pools, "eager")["pool"]


@pytest.mark.parametrize("arch", [LIVE, CUT_OFF, FED_BY_ZEROS])
def test_folding_zeros_leaves_the_function_as_it_is(arch: str) -> None:
    import numpy as np

    graph = cell(arch)
    network = Network(graph, initialize(graph, 0))
    folded = run_pipeline(network, "fold-zeros")
    assert len(folded.graph.nodes) < len(graph.nodes)
    assert folded.weights is not None and network.weights is not None
    assert set(folded.weights) <= set(network.weights)
    image = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    np.testing.assert_array_equal(run_reference(network, image)[0], run_reference(folded, image)[0])


def test_folding_zeros_changes_nothing_where_there_are_none() -> None:
    network = Network(BLOCK)
    assert run_pipeline(network, "fold-zeros").graph is BLOCK


@pytest.mark.parametrize(("field", "value"), [("joins", ("norm",)), ("free", ("sums",)), ("zeros", "gone")])
def test_a_lowering_knows_its_words(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"a lowering's {field}"):
        Lowering(**{field: value})  # type: ignore[arg-type]
