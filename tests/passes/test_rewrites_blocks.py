"""Blocks that can be left out, and widths that change together."""

from __future__ import annotations

import numpy as np
import pytest

from gensynth.backends.reference import run_reference
from gensynth.ir import Builder, Graph, Network, PassError, Value, check_weights, initialize, verify
from gensynth.ir.ops import (
    Add,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv2d,
    Dense,
    GlobalAvgPool,
    HardSigmoid,
    Mul,
    Relu,
    Split,
)
from gensynth.passes import Rule, parse_pipeline, run_pipeline


def rule_of(pipeline: str) -> Rule:
    (rule,) = parse_pipeline(pipeline)
    assert isinstance(rule, Rule)
    return rule


def verdicts(pipeline: str, graph: Graph) -> dict[str, str | None]:
    return {verdict.name: verdict.reason for verdict in rule_of(pipeline).why(Network(graph))}


def conv(builder: Builder, value: Value, channels: int, kernel: int = 3, *, name: str, groups: int = 1) -> Value:
    return builder.emit(Conv2d(channels=channels, kernel=kernel, padding="same", groups=groups), value, name=name)


def residual(builder: Builder, value: Value, *, excited: bool = False) -> Value:
    branch = conv(builder, value, value.type.sizes()[1], name="conv1")
    branch = conv(builder, builder.emit(Relu(), branch, name="act1"), value.type.sizes()[1], name="conv2")
    if excited:
        gate = builder.emit(HardSigmoid(), builder.emit(GlobalAvgPool(keep=True), branch, name="squeeze"), name="gate")
        branch = builder.emit(Mul(), branch, gate, name="scaled")
    return builder.emit(Relu(), builder.emit(Add(), branch, value, name="add"), name="act2")


def ended(builder: Builder, value: Value) -> Graph:
    builder.output(builder.emit(Dense(features=3), builder.emit(GlobalAvgPool(), value), name="logits"))
    return builder.build()


def two_blocks(*, excited: bool = False) -> Graph:
    builder = Builder("blocks")
    value = conv(builder, builder.input("image", (3, 6, 6)), 8, name="stem")
    for index in (1, 2):
        with builder.scope(f"block{index}"):
            value = residual(builder, value, excited=excited)
    return ended(builder, value)


def test_each_residual_block_is_one_spot() -> None:
    assert verdicts("bypass-block", two_blocks()) == {"block1.act2": None, "block2.act2": None}


def test_of_blocks_inside_one_another_the_outermost_is_taken() -> None:
    graph = two_blocks(excited=True)
    assert verdicts("bypass-block", graph) == {"block1.act2": None, "block2.act2": None}
    assert "block1.scaled" in verdicts('bypass-block{where="block1.scaled"}', graph), "a pattern can name the inner one"
    assert verdicts("bypass-block{plain=true,where=block1}", graph) == {"block1.act2": None}


def test_a_block_left_out_passes_its_input_on() -> None:
    graph = two_blocks()
    network = Network(graph, initialize(graph))
    after = rule_of("bypass-block{where=block2}").run(network).network
    assert [node.name for node in after.graph.nodes if node.name.startswith("block2")] == []
    assert after.weights is not None
    check_weights(after.graph, after.weights)
    both = rule_of("bypass-block").run(network).network
    assert [node.op.name for node in both.graph.nodes] == ["conv2d", "global_avg_pool", "dense"]
    verify(both.graph)


def test_a_block_with_a_projection_says_that_its_types_differ() -> None:
    builder = Builder("projection")
    value = conv(builder, builder.input("image", (3, 6, 6)), 8, name="stem")
    branch = conv(builder, value, 16, name="branch")
    value = builder.emit(Add(), branch, conv(builder, value, 16, 1, name="shortcut"), name="add")
    assert verdicts("bypass-block", ended(builder, value)) == {
        "add": "it takes f32[N, 8, 6, 6] and gives f32[N, 16, 6, 6]; only equal types can be passed through"
    }


def test_a_block_that_is_read_inside_stays() -> None:
    builder = Builder("skip")
    stem = conv(builder, builder.input("image", (3, 6, 6)), 8, name="stem")
    inner = conv(builder, stem, 8, name="inner")
    block = builder.emit(Add(), inner, stem, name="block")
    other = builder.emit(Concat(), block, inner, name="both")
    assert verdicts("bypass-block", ended(builder, other))["block"] == "%inner is read by %both too"
    builder = Builder("output")
    stem = conv(builder, builder.input("image", (3, 6, 6)), 8, name="stem")
    inner = conv(builder, stem, 8, name="inner")
    builder.output(inner, builder.emit(Add(), inner, stem, name="block"))
    assert verdicts("bypass-block", builder.build()) == {"block": "%inner is an output of the network"}


def test_a_split_whose_parts_meet_again_is_a_block() -> None:
    builder = Builder("shuffle")
    stem = conv(builder, builder.input("image", (3, 6, 6)), 8, name="stem")
    left, right = builder.emit_all(Split(), stem, names=("left", "right"))
    joined = builder.emit(Concat(), left, conv(builder, right, 4, name="branch"), name="joined")
    graph = ended(builder, builder.emit(ChannelShuffle(groups=2), joined, name="shuffled"))
    assert verdicts("bypass-block", graph) == {"shuffled": None}
    after = rule_of("bypass-block").run(Network(graph)).network.graph
    assert [node.op.name for node in after.nodes] == ["conv2d", "global_avg_pool", "dense"]


def test_a_block_starts_where_its_type_is_that_of_its_end() -> None:
    builder = Builder("fire")
    stem = conv(builder, builder.input("image", (3, 6, 6)), 8, name="stem")
    squeezed = builder.emit(Relu(), conv(builder, stem, 2, 1, name="squeeze"), name="squeezed")
    ones, threes = conv(builder, squeezed, 4, 1, name="ones"), conv(builder, squeezed, 4, name="threes")
    graph = ended(builder, builder.emit(Concat(), ones, threes, name="expanded"))
    assert verdicts("bypass-block", graph) == {"expanded": None}
    after = rule_of("bypass-block").run(Network(graph)).network.graph
    assert [node.name for node in after.nodes][:1] == ["stem"] and len(after.nodes) == 3


def test_branches_from_different_inputs_are_no_block() -> None:
    builder = Builder("inputs")
    left, right = builder.input("left", (3, 6, 6)), builder.input("right", (3, 6, 6))
    builder.output(builder.emit(Add(), builder.emit(Relu(), left), right, name="add"))
    assert verdicts("bypass-block", builder.build()) == {}


def test_a_choice_inside_a_block_is_one_node_of_it() -> None:
    graph = two_blocks()
    generator = run_pipeline(
        Network(graph, initialize(graph)), "offer{rewrite=separate-conv},offer{rewrite=bypass-block}"
    )
    verify(generator.graph)
    assert generator.weights is not None
    check_weights(generator.graph, generator.weights)
    (choose,) = [node for node in generator.graph.nodes if node.name == "block1.act2"]
    assert [item.label for item in choose.alternatives] == ["original", "bypass_block"]
    original, bypassed = (item.body for item in choose.alternatives)
    assert bypassed.nodes == () and original.is_generator


def test_a_plain_unit_is_a_block_when_asked_for() -> None:
    builder = Builder("plain")
    stem = conv(builder, builder.input("image", (3, 6, 6)), 8, name="stem")
    value = builder.emit(
        Relu(), builder.emit(BatchNorm(), conv(builder, stem, 8, name="conv"), name="norm"), name="act"
    )
    graph = ended(builder, value)
    assert verdicts("bypass-block", graph) == {}
    found = verdicts("bypass-block{plain=true}", graph)
    assert found["act"] is None and found["stem"] is not None


def mobile() -> Graph:
    builder = Builder("mobile")
    stem = conv(builder, builder.input("image", (3, 6, 6)), 8, name="stem")
    value = conv(builder, conv(builder, stem, 12, 1, name="expand"), 12, name="depthwise", groups=12)
    value = conv(builder, builder.emit(BatchNorm(), value, name="norm"), 8, 1, name="project")
    return ended(builder, builder.emit(Add(), value, stem, name="add"))


def test_widths_that_must_agree_are_one_spot() -> None:
    found = verdicts("scale-width", mobile())
    assert {name for name, reason in found.items() if reason is None} == {"stem", "expand"}
    assert found["image"] == "%image is an input"
    after = rule_of("scale-width{ratio=0.5}").run(Network(mobile())).network.graph
    assert [after.node(name).result.type.shape[1] for name in ("stem", "expand", "depthwise", "project")] == [
        4,
        6,
        6,
        4,
    ]


def test_the_channels_of_greatest_norm_stay() -> None:
    graph = mobile()
    weights = initialize(graph)
    for name in ("stem.weight", "project.weight"):
        weights[name][[1, 2, 5, 6]] *= 10
    after = rule_of("scale-width{where=stem}").run(Network(graph, weights)).network
    assert after.weights is not None
    check_weights(after.graph, after.weights)
    assert np.array_equal(after.weights["stem.weight"], weights["stem.weight"][[1, 2, 5, 6]])
    assert np.array_equal(after.weights["project.weight"], weights["project.weight"][[1, 2, 5, 6]])


def test_without_weights_the_structure_is_cut_alike() -> None:
    graph = mobile()
    cut = rule_of("scale-width{ratio=0.3,multiple=2}")
    assert cut.run(Network(graph)).network.graph == cut.run(Network(graph, initialize(graph))).network.graph


def test_a_generator_is_not_cut() -> None:
    generator = run_pipeline(Network(mobile()), "offer{rewrite=separate-conv}")
    with pytest.raises(PassError, match="open choices"):
        rule_of("scale-width").run(generator)


def test_an_offered_width_keeps_the_function_and_may_be_taken() -> None:
    graph = mobile()
    network = Network(graph, initialize(graph))
    generator = run_pipeline(network, "offer{rewrite=scale-width,logit=30}")
    assert set(generator.graph.choices) == {"stem.width", "expand.width"}
    assert [info.labels for info in generator.graph.choices.values()] == [("4", "8"), ("6", "12")]
    narrow = run_pipeline(generator, "materialize{seed=0}")
    cut = rule_of("scale-width").run(network).network
    assert narrow.hash == cut.hash
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(run_reference(narrow, x)[0], run_reference(cut, x)[0], rtol=1e-4, atol=1e-5)
