"""`open-width`, `open-kernel`, `open-depth` and `sort-channels`."""

from __future__ import annotations

import numpy as np
import pytest

from gensynth.backends.reference import run_reference
from gensynth.ir import Network, PassError, UsageError, check_weights, initialize, parse
from gensynth.passes import Materializer, run_pipeline
from gensynth.passes.choices.inheritance import inherit_weights
from gensynth.synth.prototypes import prototype

TEXT = """
gensynth 1

network @net(%x: f32[N, 3, 9, 9]) -> f32[N, 5] {
  %a = conv2d(%x) {channels=10, kernel=3, padding=same}
  %n = batch_norm(%a)
  %r = relu(%n)
  %b = conv2d(%r) {channels=10, kernel=3, padding=1, groups=10}
  %s = add(%b, %r)
  %c = conv2d(%s) {channels=6, kernel=1, stride=2, padding=same}
  %p = global_avg_pool(%c)
  %d = dense(%p) {features=5}
  return %d
}
"""


def net() -> Network:
    graph = parse(TEXT)
    return Network(graph, initialize(graph))


def emit(generator: Network, decisions: dict[str, int]) -> Network:
    materializer = Materializer(generator.graph)
    graph = materializer.build(decisions)
    found = Network(graph, inherit_weights(generator, materializer.inliner, decisions, graph))
    if found.weights is not None:
        check_weights(graph, found.weights)
    return found


def answer(network: Network) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((2, *network.graph.inputs[0].type.sizes()[1:])).astype(np.float32)
    return run_reference(network, x)[0]


def last(generator: Network) -> dict[str, int]:
    return {identifier: len(info.labels) - 1 for identifier, info in generator.graph.choices.items()}


def test_widths_that_must_agree_share_one_choice() -> None:
    generator = run_pipeline(net(), "open-width")
    assert {name: info.labels for name, info in generator.graph.choices.items()} == {
        "a.width": ("2", "5", "8", "10"),
        "c.width": ("2", "3", "4", "6"),
    }
    assert generator.graph.choices["a.width"].nodes == ("a", "b")


def test_the_widest_network_is_the_prototype_and_narrower_ones_are_slices_of_it() -> None:
    generator = run_pipeline(net(), "open-width")
    wide = emit(generator, last(generator))
    np.testing.assert_array_equal(answer(wide), answer(net()))
    narrow = emit(generator, {"a.width": 1, "c.width": 2})
    assert wide.weights is not None and narrow.weights is not None
    np.testing.assert_array_equal(narrow.weights["a.weight"], wide.weights["a.weight"][:5])
    np.testing.assert_array_equal(narrow.weights["b.weight"], wide.weights["b.weight"][:5])
    np.testing.assert_array_equal(narrow.weights["n.scale"], wide.weights["n.scale"][:5])
    np.testing.assert_array_equal(narrow.weights["c.weight"], wide.weights["c.weight"][:4, :5])
    np.testing.assert_array_equal(narrow.weights["d.weight"], wide.weights["d.weight"][:, :4])


@pytest.mark.parametrize("options", ["ratios=[0.25,0.5]", "multiple=4", "ratios=[0.1,0.9]"])
def test_weights_are_cut_where_the_width_itself_is_not_among_those_to_choose_from(options: str) -> None:
    generator = run_pipeline(net(), f"open-width{{{options}}}")
    assert generator.weights is not None
    check_weights(generator.graph, generator.weights)
    emit(generator, last(generator))


def test_widths_may_grow_only_without_weights() -> None:
    bare = Network(net().graph)
    grown = run_pipeline(bare, "open-width{ratios=[1.0,2.0]}")
    assert grown.graph.choices["a.width"].labels == ("10", "20")
    with pytest.raises(UsageError, match="weights cannot grow"):
        run_pipeline(net(), "open-width{ratios=[1.0,2.0]}")


def test_opening_widths_twice_changes_nothing() -> None:
    once = run_pipeline(net(), "open-width")
    assert run_pipeline(once, "open-width").graph == once.graph


@pytest.mark.parametrize("ratios", ["[]", "[0.0,1.0]", "[9.0]"])
def test_senseless_ratios_are_refused(ratios: str) -> None:
    with pytest.raises(Exception, match="ratios must lie"):
        run_pipeline(net(), f"open-width{{ratios={ratios}}}")


def test_kernels_grown_by_zeros_keep_the_function() -> None:
    generator = run_pipeline(net(), "open-kernel{sizes=[1,3,5,7]}")
    assert generator.graph.choices["a.kernel"].labels == ("1", "3", "5", "7")
    assert {name for name, _ in generator.graph.node("b").choices} == {"kernel", "padding"}
    for index in (1, 2, 3):
        decisions = {**last(generator), "a.kernel": index, "b.kernel": index}
        np.testing.assert_allclose(answer(emit(generator, decisions)), answer(net()), rtol=1e-5, atol=1e-6)
    small = emit(generator, {**last(generator), "a.kernel": 0, "b.kernel": 0})
    before = net().weights
    assert small.weights is not None and before is not None
    np.testing.assert_array_equal(small.weights["a.weight"], before["a.weight"][:, :, 1:2, 1:2])


@pytest.mark.parametrize(("size", "grows"), [(9, True), (8, False)])
def test_a_kernel_does_not_grow_where_its_windows_would_move(size: int, grows: bool) -> None:
    text = TEXT.replace("f32[N, 3, 9, 9]", f"f32[N, 3, {size}, {size}]")
    graph = parse(text)
    network = Network(graph, initialize(graph))
    generator = run_pipeline(network, "open-kernel{where=c}")
    assert generator.graph.is_generator == grows
    if grows:
        np.testing.assert_allclose(answer(emit(generator, last(generator))), answer(network), rtol=1e-5, atol=1e-6)


def test_nodes_of_one_name_in_two_alternatives_get_kernel_choices_of_their_own() -> None:
    graph = parse("""
    gensynth 1
    network @net(%x: f32[N, 3, 9, 9]) -> f32[N, 3, 9, 9] {
      %y = choose<y>(%x) {
        small[0.00](%x) { %y = conv2d(%x) {channels=3, kernel=3, padding=same} yield %y }
        large[0.00](%x) { %y = conv2d(%x) {channels=3, kernel=7, padding=same} yield %y }
      }
      return %y
    }
    """)
    generator = run_pipeline(Network(graph, initialize(graph)), "open-kernel")
    found = {name: info.labels for name, info in generator.graph.choices.items() if name != "y"}
    assert found == {"y.kernel": ("1", "3", "5"), "y.kernel_2": ("1", "3", "5", "7")}


def test_depth_is_opened_one_choice_a_block() -> None:
    network = prototype("resnet", depth=14, width=4, image=(1, 8, 8))
    generator = run_pipeline(network, "open-depth{logit=-1.0}")
    infos = generator.graph.choices.values()
    assert {info.labels for info in infos} == {("original", "bypass_block")}
    assert {info.logits for info in infos} == {(0.0, -1.0)}
    none = Materializer(generator.graph).build(dict.fromkeys(generator.graph.choices, 1))
    assert len(none.nodes) < len(network.graph.nodes) / 2


def test_sorting_channels_keeps_the_function_and_puts_the_largest_filters_first() -> None:
    sorted_net = run_pipeline(net(), "sort-channels")
    np.testing.assert_allclose(answer(sorted_net), answer(net()), rtol=1e-5, atol=1e-6)
    assert sorted_net.weights is not None
    norms = np.linalg.norm(sorted_net.weights["c.weight"].reshape(6, -1), axis=1)
    assert (np.diff(norms) <= 1e-6).all()
    assert run_pipeline(sorted_net, "sort-channels").weights == sorted_net.weights


def test_sorting_channels_needs_weights() -> None:
    with pytest.raises(PassError, match="needs weights"):
        run_pipeline(Network(net().graph), "sort-channels")
