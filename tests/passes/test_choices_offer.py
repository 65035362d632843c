"""`offer`: rewrite rules as choices."""

from __future__ import annotations

import numpy as np
import pytest

from gensynth.backends.reference import run_reference
from gensynth.ir import Graph, Network, PassError, architecture_hash, check_weights, initialize, parse, to_text, verify
from gensynth.ir.ops import Conv2d
from gensynth.passes import Materializer, run_pipeline
from gensynth.passes.choices.inheritance import inherit_weights
from gensynth.synth.prototypes import prototype

TEXT = """
gensynth 1

network @net(%x: f32[N, 4, 8, 8]) -> f32[N, 8, 8, 8] {
  %a = conv2d(%x) {channels=8, kernel=3, padding=same}
  %b = relu(%a)
  %c = conv2d(%b) {channels=8, kernel=3, padding=same}
  return %c
}
"""
SMALL = {
    "resnet": prototype("resnet", depth=8, width=4, image=(1, 8, 8)).graph,
    "mobilenet": prototype("mobilenet", width=0.1, image=(3, 16, 16)).graph,
    "shufflenet": prototype("shufflenet", width=0.5, image=(1, 16, 16)).graph,
}
"""Residual adds, depthwise convolutions, and splits with shuffles."""


def net(text: str = TEXT, weights: bool = True) -> Network:
    graph = parse(text)
    return Network(graph, initialize(graph) if weights else None)


def emitted(generator: Network, decisions: dict[str, int]) -> Network:
    materializer = Materializer(generator.graph)
    graph = materializer.build(decisions)
    verify(graph)
    return Network(graph, inherit_weights(generator, materializer.inliner, decisions, graph))


def originals(graph: Graph) -> dict[str, int]:
    """The original everywhere, the widest and the kernel in the middle where attributes are open."""
    return {
        identifier: info.labels.index("original") if "original" in info.labels else len(info.labels) - 1
        for identifier, info in graph.choices.items()
    }


def answer(network: Network) -> np.ndarray:
    shape = network.graph.inputs[0].type.sizes(2)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return run_reference(network, x)[0]


def test_a_rule_is_offered_as_a_choose_around_each_spot() -> None:
    generator = run_pipeline(net(weights=False), "offer{rewrite=separate-conv,where=c,logit=-0.5}")
    assert to_text(generator.graph) == (
        "gensynth 1\n\n"
        "network @net(%x: f32[N, 4, 8, 8]) -> f32[N, 8, 8, 8] {\n"
        "  %a = conv2d(%x) {channels=8, kernel=3, padding=same} : f32[N, 8, 8, 8]\n"
        "  %b = relu(%a)                                        : f32[N, 8, 8, 8]\n"
        "  %c = choose<c>(%b) {\n"
        "    original[0.00](%b) {\n"
        "      %c = conv2d(%b) {channels=8, kernel=3, padding=same} : f32[N, 8, 8, 8]\n"
        "      yield %c\n"
        "    }\n"
        "    separate_conv[-0.50](%b) {\n"
        "      %c.depthwise = conv2d(%b) {channels=8, kernel=3, padding=same, groups=8} : f32[N, 8, 8, 8]\n"
        "\n"
        "      %c = conv2d(%c.depthwise) {channels=8, kernel=1} : f32[N, 8, 8, 8]\n"
        "      yield %c\n"
        "    }\n"
        "  } : f32[N, 8, 8, 8]\n"
        "  return %c\n"
        "}\n"
    )


def test_a_second_rule_becomes_one_more_alternative() -> None:
    generator = run_pipeline(
        net(), "offer{rewrite=separate-conv},offer{rewrite=low-rank-conv{ratio=0.25}},offer{rewrite=low-rank-conv}"
    )
    labels = ("original", "separate_conv", "low_rank_conv_ratio_0_25", "low_rank_conv")
    assert {info.labels for info in generator.graph.choices.values()} == {labels}
    assert generator.weights is not None
    check_weights(generator.graph, generator.weights)


def test_offering_twice_changes_nothing() -> None:
    once = run_pipeline(net(), "offer{rewrite=separate-conv},offer{rewrite=low-rank-conv}")
    assert to_text(run_pipeline(once, "offer{rewrite=separate-conv}").graph) == to_text(once.graph)
    assert to_text(run_pipeline(once, "offer{rewrite=low-rank-conv}").graph) == to_text(once.graph)


def test_a_small_spot_is_offered_inside_the_original_of_a_larger_one() -> None:
    text = TEXT.replace("relu(%a)", "batch_norm(%a)")
    generator = run_pipeline(net(text), "offer{rewrite=fold-batch-norm},offer{rewrite=separate-conv}")
    assert set(generator.graph.choices) == {"b", "a", "c"}
    assert generator.graph.choices["a"].nodes == ("b[original]/a",)
    everything = [emitted(generator, {"a": a, "b": b, "c": c}) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    assert len({network.hash for network in everything}) == 6


def test_a_spot_of_several_nodes_may_hold_choices() -> None:
    network = Network(SMALL["resnet"], initialize(SMALL["resnet"]))
    generator = run_pipeline(network, "offer{rewrite=separate-conv},open-depth")
    nested = [info for info in generator.graph.choices.values() if "[original]/" in info.nodes[0]]
    assert nested
    for seed in range(8):
        decided = Materializer(generator.graph).materialize(seed)
        verify(decided.graph)


def test_a_choice_that_decides_more_than_one_node_gets_no_further_alternative() -> None:
    text = """
    gensynth 1
    network @net(%x: f32[N, 4, 8, 8]) -> f32[N, 4, 8, 8] {
      %a = choose<both>(%x) {
        original[0.00](%x) { %a = conv2d(%x) {channels=4, kernel=3, padding=same} yield %a }
        none[0.00](%x) { yield %x }
      }
      %b = conv2d(%a) {channels=4, kernel=choice<both>[1, 3], padding=same}
      return %b
    }
    """
    generator = run_pipeline(net(text), "offer{rewrite=separate-conv,where=a}")
    assert generator.graph.choices["both"].labels == ("original", "none")
    assert generator.graph.choices["a"].labels == ("original", "separate_conv")
    verify(generator.graph)


def test_new_names_are_free_in_the_whole_generator() -> None:
    text = TEXT.replace("%b = relu(%a)", "%c.depthwise = relu(%a)").replace("conv2d(%b)", "conv2d(%c.depthwise)")
    generator = run_pipeline(net(text), "offer{rewrite=separate-conv}")
    network = emitted(generator, {"a": 1, "c": 1})
    assert [node.name for node in network.graph.nodes] == ["a.depthwise", "a", "c.depthwise", "c.depthwise_2", "c"]


@pytest.mark.parametrize("opened", ["open-width", "open-kernel", "open-width,open-kernel"])
def test_a_rule_is_offered_under_open_attributes(opened: str) -> None:
    generator = run_pipeline(net(), f"{opened},offer{{rewrite=separate-conv}}")
    before = run_pipeline(net(), opened)
    assert set(before.graph.choices) < set(generator.graph.choices)
    for identifier, info in before.graph.choices.items():
        assert generator.graph.choices[identifier].labels == info.labels
    for seed in range(12):
        materializer = Materializer(generator.graph)
        emitted(generator, materializer.draw(seed))


def test_widths_that_a_rule_ties_together_are_decided_by_one_choice() -> None:
    text = """
    gensynth 1
    network @net(%x: f32[N, 4, 8, 8]) -> f32[N, 4, 8, 8] {
      %a = conv2d(%x) {channels=8, kernel=1}
      %b = conv2d(%a) {channels=8, kernel=3, padding=same}
      %c = relu(%b)
      %d = conv2d(%c) {channels=4, kernel=1}
      return %d
    }
    """
    generator = run_pipeline(net(text), "open-width,offer{rewrite=bypass-block{plain=true},where=c}")
    assert set(generator.graph.choices) == {"a.width", "c"}
    for seed in range(16):
        emitted(generator, Materializer(generator.graph).draw(seed))


def test_nothing_to_offer_changes_nothing() -> None:
    network = net()
    assert run_pipeline(network, "offer{rewrite=fold-batch-norm}").graph == network.graph


def test_a_rule_run_as_a_pass_may_take_choices_away() -> None:
    network = Network(SMALL["resnet"], initialize(SMALL["resnet"]))
    generator = run_pipeline(network, "offer{rewrite=separate-conv,where=stage1},bypass-block")
    assert generator.weights is not None
    verify(generator.graph)
    assert not any(identifier.startswith("stage1") for identifier in generator.graph.choices)


def test_where_is_given_once() -> None:
    with pytest.raises(Exception, match="`where` is given twice"):
        run_pipeline(net(), 'offer{rewrite="separate-conv{where=a}",where=c}')


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize(
    "pipeline",
    [
        "offer{rewrite=separate-conv},offer{rewrite=low-rank-conv},open-width,open-depth",
        "sort-channels,open-width,offer{rewrite=group-conv},offer{rewrite=squeeze-excite}",
        "open-depth,offer{rewrite=fold-batch-norm},offer{rewrite=factorize-conv},open-kernel{sizes=[1,3]}",
    ],
)
def test_choosing_the_original_everywhere_gives_back_the_prototype(name: str, pipeline: str) -> None:
    graph = SMALL[name]
    weights = initialize(graph)
    random = np.random.default_rng(1)
    for key in weights:
        if key.endswith((".variance", ".scale", ".mean", ".bias")):
            weights[key] = (0.5 + random.random(weights[key].shape)).astype(np.float32)
    network = Network(graph, weights)
    generator = run_pipeline(network, pipeline)
    decisions = originals(generator.graph)
    for node in graph.nodes:  # a kernel's own size
        info = generator.graph.choices.get(f"{node.name}.kernel")
        if isinstance(node.op, Conv2d) and info is not None:
            decisions[info.id] = info.labels.index(str(node.op.kernel))
    found = emitted(generator, decisions)
    assert found.hash == architecture_hash(graph)
    assert [node.name for node in found.graph.nodes] == [node.name for node in graph.nodes]
    np.testing.assert_allclose(answer(found), answer(network), rtol=1e-4, atol=1e-4)
    materializer = Materializer(generator.graph)
    for seed in range(4):
        emitted(generator, materializer.draw(seed))


def test_a_rule_that_changes_a_type_is_named() -> None:
    from gensynth.ir import Node, Value
    from gensynth.ir.ops import Conv2d, Relu
    from gensynth.passes import Carry, Match, Rewriter, RewriteRule

    class Wrong(RewriteRule, name="test-wrong-rule"):
        """Halves the channels, which no rule may."""

        carries = Carry.FRESH

        def match(self, graph: Graph, node: Node) -> Match | None:
            return Match.of(graph, (node,)) if isinstance(node.op, Relu) else None

        def rewrite(self, match: Match, build: Rewriter) -> Value:
            return build.emit(Conv2d(channels=4, kernel=1), *match.inputs)

    with pytest.raises(PassError, match=r"test-wrong-rule at %b gives f32\[N, 4, 8, 8\] for f32\[N, 8, 8, 8\]"):
        run_pipeline(net(), "offer{rewrite=test-wrong-rule}")
    verdicts = Wrong().why(net())
    assert [(verdict.name, verdict.reason) for verdict in verdicts] == [("b", None)]


def test_why_says_what_stopped_a_rule() -> None:
    from gensynth.passes import parse_pipeline

    (rule,) = parse_pipeline("separate-conv")
    generator = run_pipeline(net(), "open-width{where=a}")
    reasons = {verdict.name: verdict.reason for verdict in rule.why(generator)}  # type: ignore[attr-defined]
    assert "open attributes (channels)" in str(reasons["a"])
    assert "reads %b, whose size is open" in str(reasons["c"])
