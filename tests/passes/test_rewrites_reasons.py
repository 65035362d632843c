"""Why rules do not apply: every reason, and bad options."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from gensynth.ir import Builder, GenSynthError, Graph, Network, Op, UsageError, Value, check_weights, initialize, verify
from gensynth.ir.ops import (
    Add,
    BatchNorm,
    ChannelShuffle,
    Conv2d,
    Dense,
    Flatten,
    GlobalAvgPool,
    HardSigmoid,
    MaxPool,
    Mul,
    Relu,
    Sigmoid,
    Silu,
)
from gensynth.passes import Rule, parse_pipeline, run_pipeline

CONV = Conv2d(channels=4, kernel=3, padding="same")


def rule_of(pipeline: str) -> Rule:
    (rule,) = parse_pipeline(pipeline)
    assert isinstance(rule, Rule)
    return rule


def verdicts(pipeline: str, graph: Graph) -> dict[str, str | None]:
    return {verdict.name: verdict.reason for verdict in rule_of(pipeline).why(Network(graph))}


def network(shape: Sequence[int], write: Callable[[Builder, Value], Value | tuple[Value, ...]]) -> Graph:
    builder = Builder("case")
    written = write(builder, builder.input("image", shape))
    builder.output(*(written if isinstance(written, tuple) else (written,)))
    return builder.build()


def chain(shape: Sequence[int], *ops: Op) -> Graph:
    def write(builder: Builder, value: Value) -> Value:
        for index, op in enumerate(ops):
            value = builder.emit(op, value, name=f"node{index}")
        return value

    return network(shape, write)


STRAIGHT: list[tuple[str, tuple[int, ...], tuple[Op, ...], str]] = [
    ("separate-conv", (3, 8, 8), (Conv2d(channels=8, kernel=1),), "its kernel is 1 x 1: it is pointwise already"),
    ("separate-conv", (4, 8, 8), (Conv2d(channels=4, kernel=3, groups=4),), "it is depthwise already"),
    ("group-conv", (4, 8, 8), (Conv2d(channels=8, kernel=1, groups=4),), "it has 4 groups already"),
    ("group-conv", (3, 8, 8), (CONV,), "2 groups do not divide its 3 input and 4 output channels"),
    ("bottleneck-conv", (3, 8, 8), (Conv2d(channels=8, kernel=1),), "its kernel is 1 x 1: low-rank-conv is the rule"),
    ("bottleneck-conv", (4, 8, 8), (Conv2d(channels=8, kernel=3, groups=2),), "it has 2 groups"),
    ("bottleneck-conv", (1, 8, 8), (Conv2d(channels=1, kernel=3),), "0.25 of its 1 input and 1 output channels is no"),
    ("factorize-conv", (4, 8, 8), (Conv2d(channels=8, kernel=(3, 1)),), "its kernel is 3 x 1: it has no two sides"),
    ("low-rank-conv", (4, 8, 8), (Conv2d(channels=4, kernel=3, groups=4),), "its full rank is 1 already"),
    ("low-rank-conv{rank=5}", (2, 8, 8), (Conv2d(channels=4, kernel=1),), "its full rank is 2, less than 5"),
    ("low-rank-conv{rank=20}", (9,), (Dense(features=12),), "its full rank is 9, less than 20"),
    ("shrink-kernel", (3, 8, 8), (CONV,), "its kernel is 3 x 3: no larger than 3"),
    ("shrink-kernel", (3, 8, 8), (Conv2d(channels=4, kernel=5),), "its padding valid is too small: the map would grow"),
    ("shrink-kernel{size=1}", (3, 8, 8), (CONV.with_attributes({"stride": 2}),), "its padding same is too small"),
    ("replace-activation{to=relu}", (3, 8, 8), (Relu(),), "it is relu already"),
    ("replace-activation{to=sigmoid}", (3, 8, 8), (Sigmoid(),), "it is sigmoid already"),
    ("squeeze-excite", (3, 1, 1), (Conv2d(channels=4, kernel=1),), "its map is 1 x 1: there is nothing to squeeze"),
    ("pool-early", (3, 8, 8), (CONV, MaxPool(kernel=4, stride=2)), "no padding makes the sizes agree"),
    (
        "pool-early",
        (3, 4, 4),
        (Conv2d(channels=4, kernel=3, padding=2), MaxPool(kernel=6, stride=3)),
        "no padding makes",
    ),
    (
        "pool-early",
        (3, 8, 8),
        (CONV.with_attributes({"stride": 2}), Relu(), MaxPool(kernel=2)),
        "%node0 has a stride of 2 x 2 already",
    ),
    ("bypass-block{plain=true}", (3, 8, 8), (CONV,), "it takes f32[N, 3, 8, 8] and gives f32[N, 4, 8, 8]"),
    ("scale-width", (3, 8, 8), (Conv2d(channels=4, kernel=1),), "is an output of the network"),
    (
        "scale-width",
        (4, 8, 8),
        (Conv2d(channels=4, kernel=1), ChannelShuffle(groups=4), CONV),
        "a width of 2 does not fit: channel_shuffle: groups=4 must divide 2 channels",
    ),
    ("scale-width{ratio=0.9}", (3, 8, 8), (Conv2d(channels=2, kernel=1), CONV), "0.9 of 2 is no fewer"),
]


@pytest.mark.parametrize(("pipeline", "shape", "ops", "reason"), STRAIGHT, ids=lambda value: str(value)[:40])
def test_a_dry_run_says_why_not(pipeline: str, shape: tuple[int, ...], ops: tuple[Op, ...], reason: str) -> None:
    found = verdicts(pipeline, chain(shape, *ops))
    assert any(text is not None and reason in text for text in found.values()), found


def test_what_is_not_fit_stays() -> None:
    graph = chain((3, 8, 8), Conv2d(channels=8, kernel=1))
    result = rule_of("separate-conv").run(Network(graph))
    assert not result.changed and result.network.graph is graph and result.notes == ("no spot",)


@pytest.mark.parametrize("write_reader", [True, False], ids=["another reader", "an output"])
def test_a_value_read_twice_stops_folding_and_moving(write_reader: bool) -> None:
    def write(builder: Builder, value: Value) -> tuple[Value, ...]:
        conv = builder.emit(CONV, value, name="conv")
        norm = builder.emit(BatchNorm(), conv, name="norm")
        pool = builder.emit(MaxPool(kernel=2), norm, name="pool")
        return (pool, builder.emit(Relu(), conv, name="other") if write_reader else conv)

    reason = "%conv is read by %other too" if write_reader else "%conv is an output of the network"
    graph = network((3, 8, 8), write)
    assert verdicts("fold-batch-norm", graph) == {"norm": reason}
    assert verdicts("pool-early", graph) == {"pool": reason}


def test_a_batch_norm_after_an_addition_is_no_spot() -> None:
    def write(builder: Builder, value: Value) -> Value:
        return builder.emit(BatchNorm(), builder.emit(Add(), value, builder.emit(Relu(), value)))

    assert verdicts("fold-batch-norm", network((3, 8, 8), write)) == {}


def test_what_is_scaled_is_not_scaled_again() -> None:
    graph = chain((3, 8, 8), CONV, Silu())
    once = rule_of("squeeze-excite").run(Network(graph)).network.graph
    found = verdicts("squeeze-excite", once)
    assert found.pop("node1.features") == "it is scaled already"
    assert set(found.values()) == {"its map is 1 x 1: there is nothing to squeeze"}


def test_only_the_end_of_a_unit_is_scaled() -> None:
    assert list(verdicts("squeeze-excite", chain((3, 8, 8), CONV, BatchNorm(), Silu(), CONV, Flatten()))) == [
        "node2",
        "node3",
    ]


def test_a_gate_is_no_activation_between_layers() -> None:
    graph = chain((3, 8, 8), CONV, Silu(), CONV, HardSigmoid())
    assert list(verdicts("replace-activation{to=relu}", graph)) == ["node1"]
    assert list(verdicts("replace-activation{to=sigmoid}", graph)) == ["node3"]
    assert list(verdicts("replace-activation{to=relu,of=[hard_swish]}", graph)) == []


def test_nothing_reads_a_dead_node_so_no_rule_takes_it() -> None:
    def write(builder: Builder, value: Value) -> Value:
        builder.emit(BatchNorm(), builder.emit(CONV, value, name="dead"), name="dead_norm")
        return builder.emit(CONV, value, name="alive")

    graph = network((3, 8, 8), write)
    assert list(verdicts("fold-batch-norm", graph)) == []
    assert "alive" in verdicts("separate-conv", graph)


def test_where_limits_the_spots() -> None:
    graph = chain((3, 8, 8), CONV, CONV, Relu())
    assert list(verdicts("separate-conv{where=node1}", graph)) == ["node1"]
    assert list(verdicts("scale-width{where=node0}", graph)) == ["node0"]
    assert list(verdicts('pool-early{where=["stage1.*"]}', graph)) == []


def test_open_attributes_stop_rules_that_rewrite_them() -> None:
    network = run_pipeline(
        Network(chain((4, 8, 8), CONV, CONV, Relu(), MaxPool(kernel=2))), "open-width{ratios=[0.5,1.0]}"
    )
    assert network.graph.is_generator
    found = verdicts("separate-conv", network.graph)
    assert found["node0"] is not None and "has open attributes" in found["node0"]
    assert found["node1"] == "%node1 reads %node0, whose size is open; offer the rule instead"
    assert verdicts("scale-width", network.graph)["node0"] == "%node0 has open attributes"


def test_overlapping_spots_go_to_the_first() -> None:
    graph = chain((4, 8, 8), CONV, Relu(), CONV.with_attributes({"stride": 2}), CONV, BatchNorm())
    assert verdicts("pool-early", graph) == {"node2": None}
    halves = chain((4, 9, 9), CONV, *[Conv2d(channels=4, kernel=1, stride=2)] * 2)
    found = verdicts("pool-early", halves)
    assert found["node1"] is None and found["node2"] == "%node1 belongs to another spot"


BAD_OPTIONS = {
    "collapse-block{kernel=2}": "kernel must be odd, got 2",
    "group-conv{groups=1}": "groups must be at least 2",
    "bottleneck-conv{ratio=0}": "ratio must lie above 0 and at most 1",
    "low-rank-conv{ratio=1.5}": "ratio must lie above 0 and at most 1",
    "low-rank-conv{rank=-1}": "rank must be positive",
    "factorize-conv{ratio=17}": "ratio must lie above 0 and at most 16",
    "squeeze-excite{ratio=0}": "ratio must lie above 0 and at most 1",
    "shrink-kernel{size=0}": "size must be at least 1",
    "scale-width{ratio=2}": "ratio must lie above 0 and at most 1",
    "scale-width{multiple=0}": "multiple must be at least 1",
    "replace-activation{to=rellu}": "'rellu' is no activation",
    "replace-activation{to=relu,of=[sigmoid]}": "relu cannot stand for sigmoid",
    "replace-activation": "replace-activation needs the option to",
}


@pytest.mark.parametrize(("pipeline", "message"), BAD_OPTIONS.items())
def test_bad_options_are_named_with_a_remedy(pipeline: str, message: str) -> None:
    with pytest.raises(GenSynthError) as caught:
        parse_pipeline(pipeline)
    assert message in caught.value.message
    assert caught.value.hint


def test_rules_raise_usage_errors_in_python() -> None:
    from gensynth.passes.rewrites import GroupConv

    with pytest.raises(UsageError, match="groups must be at least 2"):
        GroupConv(groups=1)


def test_rules_follow_one_another_in_a_pipeline() -> None:
    graph = chain((4, 8, 8), CONV, BatchNorm(), Relu(), CONV, MaxPool(kernel=2), GlobalAvgPool(), Dense(features=3))
    passes = "pool-early,squeeze-excite{where=node2},low-rank-conv,replace-activation{to=silu},fold-batch-norm"
    result = run_pipeline(Network(graph, initialize(graph)), passes)
    verify(result.graph)
    assert result.weights is not None
    check_weights(result.graph, result.weights)


def test_a_product_of_a_value_with_itself_is_no_block() -> None:
    def write(builder: Builder, value: Value) -> Value:
        return builder.emit(Mul(), value, value)

    assert verdicts("bypass-block", network((3, 8, 8), write)) == {}
