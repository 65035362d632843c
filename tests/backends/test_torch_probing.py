"""Probing: what the responses say of networks with known faults."""

import json
import pickle

import numpy as np
import pytest
from op_cases import residual

from gensynth.backends import Examples
from gensynth.backends.torch import probe
from gensynth.ir import Builder, DataError, Network, UsageError, initialize
from gensynth.ir.ops import Add, Conv2d, ConvTranspose2d, Dense, Flatten, GlobalAvgPool, Relu

RANDOM = np.random.default_rng(0)
STIMULI = Examples(RANDOM.standard_normal((32, 1, 8, 8)).astype(np.float32), RANDOM.integers(0, 10, 32))


def plain(width=6):
    builder = Builder("plain")
    x = builder.emit(Conv2d(channels=width, kernel=3, bias=True), builder.input("image", (1, 8, 8)), name="conv")
    x = builder.emit(Relu(), x, name="act")
    builder.output(builder.emit(Dense(features=10), builder.emit(Flatten(), x, name="flat"), name="logits"))
    graph = builder.build()
    return graph, initialize(graph)


def test_every_value_edge_and_weight_responds():
    graph = residual()
    responses = probe(Network(graph), STIMULI)
    assert {response.name for response in responses.values} == set(graph.values)
    edges = [(value.name, node.name, index) for node in graph.nodes for index, value in enumerate(node.operands)]
    assert [(edge.source, edge.target, edge.index) for edge in responses.edges] == edges
    trainable = {name for name in initialize(graph) if not name.endswith((".mean", ".variance"))}
    assert {response.name for response in responses.parameters} == trainable
    assert responses.value("stem.norm").deviation == pytest.approx(1.0, abs=0.01)
    assert responses.value("stem.norm").noise_deviation == pytest.approx(1.0, abs=0.01)
    assert all(np.isfinite(list(vars(responses.scores).values())))


def test_dead_channels_are_counted():
    graph, weights = plain()
    weights["conv.bias"] = np.array([-100, -100, 0, 0, 0, 0], np.float32)
    responses = probe(Network(graph, weights), STIMULI)
    assert responses.value("act").dead == pytest.approx(2 / 6)
    assert responses.value("conv").dead == 0.0
    importance = responses.parameter("conv.weight").importance
    assert importance[:2] == (0.0, 0.0)
    assert min(importance[2:]) > 0


def test_equal_channels_are_redundant_and_of_rank_one():
    graph, weights = plain()
    weights["conv.weight"] = np.repeat(weights["conv.weight"][:1], 6, axis=0)
    same = probe(Network(graph, weights), STIMULI).value("conv")
    assert same.redundancy == pytest.approx(1.0, abs=1e-4)
    assert same.rank == pytest.approx(1.0, abs=0.02)
    various = probe(Network(*plain()), STIMULI).value("conv")
    assert various.redundancy < 0.9
    assert 2.0 < various.rank <= 6.0


def test_a_value_of_two_readers_has_a_gradient_for_each_edge():
    builder = Builder("fork")
    x = builder.emit(Conv2d(channels=4, kernel=3, padding="same"), builder.input("image", (1, 8, 8)), name="conv")
    twice = builder.emit(Add(), x, x, name="twice")
    pooled = builder.emit(GlobalAvgPool(), builder.emit(Add(), twice, x, name="sum"), name="pool")
    builder.output(builder.emit(Dense(features=10), pooled, name="logits"))
    responses = probe(Network(builder.build()), STIMULI)
    edges = {(edge.target, edge.index): edge.gradient for edge in responses.edges if edge.source == "conv"}
    assert set(edges) == {("twice", 0), ("twice", 1), ("sum", 1)}
    assert responses.value("conv").gradient == pytest.approx(sum(edges.values()), rel=1e-4)


def test_importance_is_one_figure_for_each_output_channel_of_any_layer():
    builder = Builder("transposed")
    x = builder.emit(Conv2d(channels=4, kernel=3), builder.input("image", (1, 8, 8)), name="conv")
    x = builder.emit(ConvTranspose2d(channels=6, kernel=2, stride=2, groups=2, bias=True), x, name="up")
    builder.output(builder.emit(Dense(features=10), builder.emit(GlobalAvgPool(), x, name="pool"), name="logits"))
    responses = probe(Network(builder.build()), STIMULI)
    assert {name: len(responses.parameter(name).importance) for name in ("conv.weight", "up.weight", "up.bias")} == {
        "conv.weight": 4,
        "up.weight": 6,
        "up.bias": 6,
    }


def test_scores_rank_a_wide_network_over_a_narrow_one():
    narrow, wide = (probe(Network(plain(width)[0]), STIMULI).scores for width in (2, 32))
    assert wide.naswot > narrow.naswot
    assert wide.synflow > narrow.synflow


def test_synflow_of_two_dense_layers_worked_by_hand():
    builder = Builder("two")
    x = builder.emit(Flatten(), builder.input("image", (1, 8, 8)), name="flat")
    x = builder.emit(Dense(features=2, bias=False), x, name="first")
    builder.output(builder.emit(Dense(features=10, bias=False), x, name="second"))
    graph = builder.build()
    weights = {"first.weight": np.full((2, 64), -0.5, np.float32), "second.weight": np.full((10, 2), 0.25, np.float32)}
    # R = 10 * 2 * 0.25 * 64 * 0.5 = 160, and each of the two layers carries all of it
    assert probe(Network(graph, weights), STIMULI).scores.synflow == pytest.approx(np.log(320.0))


def test_a_probe_repeats_and_can_be_stored():
    network = Network(residual())
    one, again = probe(network, STIMULI, seed=4), probe(network, STIMULI, seed=4)
    assert one == again
    assert pickle.loads(pickle.dumps(one)) == one
    assert json.loads(json.dumps(one.as_dict()))["loss"] == one.loss
    assert probe(network, STIMULI, noise=0).value("logits").noise_mean is None


def test_a_probe_does_not_change_the_weights():
    graph, weights = plain()
    kept = {name: array.copy() for name, array in weights.items()}
    probe(Network(graph, weights), STIMULI)
    assert all(np.array_equal(array, weights[name]) for name, array in kept.items())


def test_stimuli_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="stimuli have shape"):
        probe(Network(residual(size=9)), STIMULI)
    with pytest.raises(DataError, match="one stimulus"):
        probe(Network(residual()), STIMULI.subset([0]))
    builder = Builder("images")
    builder.output(builder.emit(Relu(), builder.input("image", (1, 8, 8)), name="y"))
    with pytest.raises(UsageError, match="no classifier"):
        probe(Network(builder.build()), STIMULI)
