"""Blocks of branches that become one convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from gensynth.ir import Builder, Graph, Network, Op, Value, check_weights, initialize, parse, to_text, verify
from gensynth.ir.ops import (
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv2d,
    Dense,
    GlobalAvgPool,
    HardSigmoid,
    LeakyRelu,
    MaxPool,
    Mul,
    Relu,
    Relu6,
    Resize,
    Silu,
    Split,
)
from gensynth.passes import Rule, parse_pipeline, run_pipeline
from gensynth.synth.prototypes import prototype

MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")


def rule_of(pipeline: str) -> Rule:
    (rule,) = parse_pipeline(pipeline)
    assert isinstance(rule, Rule)
    return rule


def verdicts(graph: Graph, pipeline: str = "collapse-block") -> dict[str, str | None]:
    return {verdict.name: verdict.reason for verdict in rule_of(pipeline).why(Network(graph))}


def conv(builder: Builder, value: Value, channels: int, kernel: int = 3, *, name: str = "", stride: int = 1) -> Value:
    op = Conv2d(channels=channels, kernel=kernel, stride=stride, padding="same")
    return builder.emit(op, value, name=name or None)


def network(write: Callable[[Builder, Value], Value], shape: Sequence[int] = (8, 8, 8)) -> Graph:
    builder = Builder("case")
    builder.output(builder.emit(Relu(), write(builder, builder.input("image", shape)), name="end"))
    return builder.build()


def branches(*ends: Op | None, after: Op | None = None) -> Graph:
    """Returns a network of convolutions side by side, each with the activation given, and one behind where they meet."""

    def write(builder: Builder, value: Value) -> Value:
        made = [conv(builder, value, 4) for _ in ends]
        made = [branch if op is None else builder.emit(op, branch) for branch, op in zip(made, ends, strict=True)]
        joined = builder.emit(Concat(), *made, name="joined")
        joined = joined if after is None else builder.emit(after, joined, name="after")
        return conv(builder, joined, 4, name="next")

    return network(write)


def collapsed(graph: Graph, pipeline: str = "collapse-block") -> list[str]:
    """Returns the ops that a rule has made."""
    after = rule_of(pipeline).run(Network(graph)).network.graph
    verify(after)
    return [node.op.text() for node in after.nodes if node.origin.startswith("collapse-block")]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_all_nine_inception_modules_of_detectnet_collapse(batch_norm: bool) -> None:
    graph = prototype("detectnet", batch_norm=batch_norm, width=0.1, image=(3, 32, 32)).graph
    assert verdicts(graph) == {f"inception{name}.concat": None for name in MODULES}
    after = rule_of("collapse-block").run(Network(graph)).network.graph
    for name in MODULES:
        inside = [node for node in after.nodes if node.name.startswith(f"inception{name}.")]
        assert [node.op.name for node in inside] == ["conv2d", "batch_norm", "relu"]
        assert inside[-1].result == graph.values[f"inception{name}.concat"]


def test_widths_of_collapsed_modules_open_where_those_of_offered_ones_are_fixed() -> None:
    detectnet = prototype("detectnet", batch_norm=True, width=0.25, image=(3, 32, 32))
    plain = {f"stem.{name}.width" for name in ("conv1", "reduce2", "conv2")}
    outright = run_pipeline(detectnet, "collapse-block,open-width").graph
    assert set(outright.choices) == plain | {f"inception{name}.concat.conv.width" for name in MODULES}
    offered = run_pipeline(detectnet, "offer{rewrite=collapse-block},open-width").graph
    inside = {f"inception{name}.{reduce}.width" for name in MODULES for reduce in ("reduce3", "reduce5")}
    assert set(offered.choices) == plain | inside | {f"inception{name}" for name in MODULES}
    opened_first = run_pipeline(detectnet, "open-width,offer{rewrite=collapse-block}").graph
    assert set(opened_first.choices) == set(offered.choices)


def test_a_strided_block_gives_its_stride_to_the_convolution() -> None:
    graph = prototype("resnet", depth=8, width=4, image=(1, 8, 8)).graph
    assert [text for text in collapsed(graph) if text.startswith("conv2d")] == [
        "conv2d {channels=4, kernel=3, padding=same}",
        "conv2d {channels=8, kernel=3, stride=2, padding=1}",
        "conv2d {channels=16, kernel=3, stride=2, padding=1}",
    ]
    assert collapsed(graph, "collapse-block{kernel=1,where=stage2}")[0] == "conv2d {channels=8, kernel=1, stride=2}"
    assert collapsed(graph, "collapse-block{kernel=5,where=stage2}")[0] == (
        "conv2d {channels=8, kernel=5, stride=2, padding=2}"
    )


@pytest.mark.parametrize(
    ("shape", "stride", "padding", "wanted"),
    [
        ((8, 9, 9), 2, "valid", "stride=2}"),
        ((8, 7, 7), 2, "valid", "stride=2}"),
        ((8, 7, 7), 1, "valid", "kernel=3}"),
        ((8, 3, 3), 2, "valid", "kernel=3}"),
        ((8, 8, 9), (2, 1), "same", "stride=[2, 1], padding=1}"),
        ((8, 12, 12), 3, "same", "stride=3, padding=1}"),
        ((8, 4, 4), 2, "same", "stride=2, padding=1}"),
        ((8, 1, 1), 1, "same", "padding=same}"),
    ],
)
def test_whatever_a_block_does_to_the_size_of_a_map_is_kept(
    shape: tuple[int, ...], stride: int | tuple[int, int], padding: str, wanted: str
) -> None:
    def write(builder: Builder, value: Value) -> Value:
        branch = builder.emit(Conv2d(channels=4, kernel=3, stride=stride, padding=padding), value)
        pool = builder.emit(MaxPool(kernel=3, stride=stride, padding=padding), value)
        return conv(builder, builder.emit(Concat(), builder.emit(Relu(), branch), pool), 4)

    made, *_, activation = collapsed(network(write, shape))
    assert made.startswith("conv2d {channels=12, kernel=3") and made.endswith(wanted)
    assert activation == "relu"


@pytest.mark.parametrize(
    ("graph", "wanted"),
    [
        (branches(Relu(), Relu(), Relu()), "relu"),
        (branches(LeakyRelu(slope=0.2), LeakyRelu(slope=0.2)), "leaky_relu {slope=0.2}"),
        (branches(Relu6(), Silu()), "relu6"),
        (branches(Relu(), None), "batch_norm"),
        (branches(None, None), "batch_norm"),
        (branches(Relu(), HardSigmoid()), "batch_norm"),
        (branches(None, None, after=Silu()), "silu"),
        (branches(Relu(), Relu(), after=ChannelShuffle(groups=2)), "relu"),
        (branches(Relu(), Relu(), after=AvgPool(kernel=3, stride=1, padding="same")), "relu"),
    ],
)
def test_the_activation_is_what_the_branches_end_in(graph: Graph, wanted: str) -> None:
    assert collapsed(graph)[-1] == wanted


def test_a_sum_has_only_the_activation_behind_it() -> None:
    mobilenet = collapsed(prototype("mobilenet", width=0.25, image=(1, 16, 16)).graph)
    assert {text.partition(" ")[0] for text in mobilenet} == {"conv2d", "batch_norm"}

    def write(builder: Builder, value: Value) -> Value:
        branch = builder.emit(Relu(), conv(builder, value, 8))
        return conv(builder, builder.emit(LeakyRelu(), builder.emit(Add(), branch, value)), 4)

    assert collapsed(network(write))[-1].startswith("leaky_relu")


def test_what_a_split_hands_on_has_no_say_and_nested_branches_have() -> None:
    def write(builder: Builder, value: Value) -> Value:
        left, right = builder.emit_all(Split(), value, names=("left", "right"))
        parts = [builder.emit(Relu6(), conv(builder, right, 4)) for _ in range(2)]
        inner = builder.emit(Concat(), *parts, name="inner")
        return conv(builder, builder.emit(Concat(), left, inner, name="outer"), 4)

    graph = network(write)
    assert verdicts(graph) == {"outer": None}
    assert collapsed(graph)[-1] == "relu6"


def test_a_choice_of_activations_counts_as_its_original() -> None:
    graph = run_pipeline(Network(branches(Relu(), Relu())), "offer{rewrite=replace-activation{to=silu}}").graph
    assert graph.is_generator
    assert collapsed(graph)[-1] == "relu"
    after = rule_of("collapse-block").run(Network(graph)).network.graph
    assert set(after.choices) == {"end"}, "the choices went with the block"


def refused(write: Callable[[Builder, Value], Value], shape: Sequence[int] = (8, 16, 16)) -> list[str | None]:
    return list(verdicts(network(write, shape)).values())


def test_a_block_that_is_not_fit_says_why() -> None:
    def gate(builder: Builder, value: Value) -> Value:
        squeezed = builder.emit(GlobalAvgPool(keep=True), value)
        return builder.emit(Mul(), value, builder.emit(HardSigmoid(), conv(builder, squeezed, 8, 1)))

    def pools(builder: Builder, value: Value) -> Value:
        made = [builder.emit(op(kernel=3, stride=1, padding="same"), value) for op in (MaxPool, AvgPool)]
        return builder.emit(Concat(), *made)

    def grown(builder: Builder, value: Value) -> Value:
        return builder.emit(Add(), *[builder.emit(Resize(scale=2), conv(builder, value, 8)) for _ in range(2)])

    def shrunk(builder: Builder, value: Value) -> Value:
        return builder.emit(Add(), *[conv(builder, value, 8, stride=4) for _ in range(2)])

    def vectors(builder: Builder, value: Value) -> Value:
        pooled = [builder.emit(GlobalAvgPool(), conv(builder, value, 8)) for _ in range(2)]
        return builder.emit(Concat(), *pooled)

    def read(builder: Builder, value: Value) -> Value:
        inner = conv(builder, value, 8, name="inner")
        made = builder.emit(Add(), inner, value, name="made")
        return builder.emit(Mul(), made, builder.emit(Dense(features=8), builder.emit(GlobalAvgPool(), inner)))

    assert refused(gate) == ["it only scales what it reads"]
    assert refused(pools) == ["there is no convolution in it"]
    assert refused(grown) == [
        "it takes f32[N, 8, 16, 16] and gives f32[N, 8, 32, 32]: no stride of a 3 x 3 convolution leads there"
    ]
    assert refused(shrunk) == ["it wants a stride of 4 x 4: a 3 x 3 kernel would skip what lies between"]
    assert verdicts(network(shrunk, (8, 16, 16)), "collapse-block{kernel=5}") == {"end": None}
    (vector,) = refused(vectors)
    assert vector is not None and vector.startswith("it takes f32[N, 8, 16, 16] and gives f32[N, 16]: no stride")


def test_a_block_read_inside_stays() -> None:
    def write(builder: Builder, value: Value) -> Value:
        inner = conv(builder, value, 8, name="inner")
        made = conv(builder, builder.emit(Add(), inner, value, name="made"), 8)
        return builder.emit(Add(), made, inner, name="around")

    graph = network(write)
    assert verdicts(graph, "collapse-block{where=made}") == {"made": "%inner is read by %around too"}
    assert verdicts(graph) == {"end": None}


def test_branches_from_different_inputs_are_no_block() -> None:
    builder = Builder("inputs")
    left, right = builder.input("left", (3, 6, 6)), builder.input("right", (3, 6, 6))
    builder.output(builder.emit(Add(), conv(builder, left, 3), conv(builder, right, 3), name="add"))
    assert verdicts(builder.build()) == {}


def nested(stride: int = 1) -> Graph:
    def write(builder: Builder, value: Value) -> Value:
        inner = conv(builder, value, 8)
        inner = builder.emit(Relu(), builder.emit(Add(), conv(builder, inner, 8), inner), name="inner")
        around = builder.emit(Add(), conv(builder, inner, 8, stride=stride), conv(builder, value, 8, stride=stride))
        return conv(builder, builder.emit(Relu(), around, name="outer"), 4)

    return network(write, (8, 16, 16))


def test_of_blocks_inside_one_another_the_outermost_fit_one_is_taken() -> None:
    assert verdicts(nested()) == {"outer": None}
    assert verdicts(nested(), "collapse-block{where=inner}") == {"inner": None}
    unfit = verdicts(nested(stride=4))
    assert unfit.pop("inner") is None
    assert list(unfit) == ["outer"] and unfit["outer"] is not None


def test_open_attributes_want_the_rule_to_be_offered() -> None:
    graph = run_pipeline(Network(nested()), "open-width,open-kernel").graph
    (found,) = verdicts(graph).items()
    assert found[0] == "outer" and found[1] is not None and "has open attributes" in found[1]
    assert not rule_of("collapse-block").run(Network(graph)).changed


def test_an_offer_leaves_open_what_is_open_around_and_inside() -> None:
    resnet = prototype("resnet", depth=8, width=8, image=(1, 8, 8))
    resnet = Network(resnet.graph, initialize(resnet.graph))
    opened = run_pipeline(resnet, "open-kernel,open-width")
    generator = run_pipeline(opened, "offer{rewrite=collapse-block,logit=30}")
    verify(generator.graph)
    assert generator.weights is not None
    check_weights(generator.graph, generator.weights)
    assert set(opened.graph.choices) < set(generator.graph.choices)
    for seed in range(4):
        network = run_pipeline(generator, f"materialize{{seed={seed}}}")
        assert network.weights is not None
        check_weights(network.graph, network.weights)
        assert not [node for node in network.graph.nodes if node.op.name == "add"]


def test_a_collapsed_block_stands_beside_the_one_left_out() -> None:
    resnet = prototype("resnet", depth=8, width=4, image=(1, 8, 8))
    passes = "offer{rewrite=bypass-block},offer{rewrite=collapse-block},offer{rewrite=collapse-block{kernel=1}}"
    generator = run_pipeline(Network(resnet.graph, initialize(resnet.graph)), passes)
    verify(generator.graph)
    assert generator.weights is not None
    check_weights(generator.graph, generator.weights)
    labels = {name: info.labels for name, info in generator.graph.choices.items()}
    assert labels["stage1.block1"] == ("original", "bypass_block", "collapse_block", "collapse_block_kernel_1")
    assert labels["stage2.block1"] == ("original", "collapse_block", "collapse_block_kernel_1")


def test_what_is_made_starts_fresh_and_the_rest_keeps_its_weights() -> None:
    resnet = prototype("resnet", depth=8, width=4, image=(1, 8, 8))
    weights = {name: array + 1 for name, array in initialize(resnet.graph).items()}
    network = Network(resnet.graph, weights)
    after, again = (rule_of("collapse-block").run(network).network for _ in range(2))
    assert after.weights is not None and again.weights is not None
    check_weights(after.graph, after.weights)
    for name, array in after.weights.items():
        assert np.array_equal(array, again.weights[name])
        if not name.startswith("stage"):
            assert np.array_equal(array, weights[name])
    assert after.weights["stage2.block1.act.conv.weight"].std() > 0.05
    assert not after.weights["stage2.block1.act.norm.mean"].any()
    assert (after.weights["stage2.block1.act.norm.variance"] == 1).all()


def test_an_offered_collapse_keeps_the_original_and_trains_by_shared_weights() -> None:
    import torch

    from gensynth.backends import Examples
    from gensynth.backends.torch import Recipe
    from gensynth.backends.torch.shared_training import evaluate_shared, train_shared

    torch.set_num_threads(1)
    resnet = prototype("resnet", depth=8, width=4, classes=2, image=(1, 8, 8))
    resnet = Network(resnet.graph, initialize(resnet.graph))
    generator = run_pipeline(resnet, "offer{rewrite=collapse-block}")
    original = run_pipeline(run_pipeline(resnet, "offer{rewrite=collapse-block,logit=-40}"), "materialize{seed=0}")
    assert original.weights is not None and resnet.weights is not None
    assert original.weights.keys() == resnet.weights.keys()
    assert all(np.array_equal(original.weights[name], array) for name, array in resnet.weights.items())
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 96)
    images = random.normal(size=(96, 1, 8, 8)) + 1.5 * labels[:, None, None, None]
    examples = Examples(images.astype(np.float32), labels)
    trained = train_shared(
        generator, examples, None, Recipe(epochs=4, batch_size=32, optimizer="adamw", learning_rate=0.01)
    )
    decisions = dict.fromkeys(generator.graph.choices, 1)
    assert evaluate_shared(trained.module, decisions, examples, examples).accuracy > 80
    assert generator.weights is not None
    shared = trained.generator()
    assert shared.weights is not None
    check_weights(shared.graph, shared.weights)
    moved = [name for name, array in shared.weights.items() if not np.array_equal(array, generator.weights[name])]
    assert any("[collapse_block]/" in name and name.endswith(".conv.weight") for name in moved)


@pytest.mark.parametrize("rule", ["bypass-block", "collapse-block"])
def test_what_was_found_in_an_equal_graph_is_not_taken_for_this_ones(rule: str) -> None:
    def offered(network: Network) -> str:
        return to_text(run_pipeline(network, f"open-width,offer{{rewrite={rule}}}").graph)

    text = to_text(prototype("resnet", depth=8, width=4, image=(1, 8, 8)).graph)
    wanted = offered(Network(parse(text)))
    network = Network(parse(text))
    rule_of(rule).why(network)
    assert offered(network) == wanted, "closed at its widest the generator equals the network, but for origins"


def test_batch_norm_prototypes_lose_the_norms_inside() -> None:
    graph = prototype("googlenet", batch_norm=True, width=0.1, image=(1, 32, 32)).graph
    after = rule_of("collapse-block{where=inception3a}").run(Network(graph, initialize(graph))).network
    assert after.weights is not None
    check_weights(after.graph, after.weights)
    inside = [node for node in after.graph.nodes if node.name.startswith("inception3a")]
    assert [type(node.op) for node in inside] == [Conv2d, BatchNorm, Relu]
