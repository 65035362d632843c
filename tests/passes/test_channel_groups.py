"""Channel groups: which widths must change together, and why some must stay."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from channel_networks import NETWORKS, inverted_residual, local_norm, residual, shuffle_v1, shuffle_v2

from gensynth.ir import Builder, Graph, Op, PassError, TensorType, parse
from gensynth.ir.ops import Add, Conv2d, Dense, Flatten, GlobalAvgPool, Relu, Reshape, Softmax, Split
from gensynth.passes.analyses import ChannelGroup, ChannelGroups, channel_groups, keeps_channels


def group(graph: Graph, identifier: str) -> ChannelGroup:
    return channel_groups(graph).by_id[identifier]


def test_a_residual_add_puts_both_its_operands_into_one_group() -> None:
    found = group(residual(), "stem")
    assert found.width == 8
    assert found.sources == (("stem", "channels", 1), ("block.conv2", "channels", 1))
    assert found.fixed is None and found.exact


def test_a_width_inside_a_block_is_a_group_of_its_own() -> None:
    found = group(residual(), "block.conv1")
    assert (found.width, found.sources) == (6, (("block.conv1", "channels", 1),))
    assert found.consumers == ("block.conv2",)


def test_a_depthwise_convolution_follows_its_input_in_channels_and_groups() -> None:
    found = group(inverted_residual(), "expand")
    assert found.sources == (
        ("expand", "channels", 1),
        ("depthwise", "channels", 2),
        ("depthwise", "groups", 1),
        ("excite", "channels", 2),
    )


def test_a_group_is_named_after_its_first_node_and_groups_stand_in_order_of_the_text() -> None:
    assert [found.id for found in channel_groups(residual())] == ["image", "stem", "block.conv1", "logits"]


def test_inputs_and_outputs_keep_their_widths_for_a_reason_in_words() -> None:
    assert group(residual(), "image").fixed == "%image is an input"
    assert group(residual(), "logits").fixed == "%logits is an output of the network"


def test_reshape_and_a_softmax_over_channels_keep_widths() -> None:
    b = Builder("kept")
    x = b.input("image", (3, 4, 4))
    a = b.emit(Conv2d(channels=4, kernel=1), x, name="a")
    a = b.emit(Reshape(shape=(8, 8)), a, name="shaped")
    c = b.emit(Conv2d(channels=4, kernel=1), x, name="c")
    c = b.emit(Softmax(), c, name="attention")
    d = b.emit(Dense(features=4), b.emit(Flatten(), c), name="d")
    b.output(a, d)
    graph = b.build()
    assert "reshape at %shaped" in (group(graph, "a").fixed or "")
    assert "softmax at %attention" in (group(graph, "c").fixed or "")


def test_grouped_convolutions_keep_the_same_positions_in_each_of_their_groups() -> None:
    graph = shuffle_v1(channels=16)
    assert group(graph, "squeeze").sources == (
        ("squeeze", "channels", 2),
        ("depthwise", "channels", 2),
        ("depthwise", "groups", 2),
    )
    assert group(graph, "stem").sources == (("stem", "channels", 2), ("expand", "channels", 2))


def test_a_shuffle_between_grouped_convolutions_is_exact_only_for_whole_blocks() -> None:
    found = group(shuffle_v1(channels=16), "squeeze")
    assert found.width == 8
    assert not found.exact
    assert found.blocks == ((0, 4), (1, 5), (2, 6), (3, 7))


def test_a_local_response_norm_leaves_the_width_open_but_no_channel_can_go_exactly() -> None:
    found = group(local_norm(), "stem")
    assert found.fixed is None
    assert found.blocks == (tuple(range(8)),)
    assert found.consumers == ("second",)
    assert group(local_norm(), "second").exact


def test_shuffled_units_in_a_row_stay_free_to_change_their_width() -> None:
    one, three = group(shuffle_v2(units=1), "stem"), group(shuffle_v2(units=3), "stem")
    assert one.width == three.width == 8
    assert one.exact and not three.exact
    assert ("unit2.last", "channels", 1) in three.sources


def test_a_split_into_unequal_sizes_keeps_its_width_because_sizes_are_written_out() -> None:
    b = Builder("sizes")
    x = b.input("image", (3, 4, 4))
    x = b.emit(Conv2d(channels=8, kernel=1), x, name="a")
    first, second = b.emit_all(Split(sizes=(2, 6)), x, names=("first", "second"))
    b.output(b.emit(Dense(features=2), b.emit(GlobalAvgPool(), second)), b.emit(Conv2d(channels=2, kernel=1), first))
    assert "sizes of %first" in (group(b.build(), "a").fixed or "")


def test_a_depthwise_convolution_over_two_groups_keeps_both_widths() -> None:
    graph = NETWORKS["concat"]()
    assert group(graph, "left").fixed is None
    assert "channels of %mixed" in (group(graph, "one").fixed or "")
    assert "channels of %mixed" in (group(graph, "two").fixed or "")


def test_alternatives_of_a_choice_share_the_groups_of_what_they_yield() -> None:
    graph = parse(
        """gensynth 1

network @generator(%image: f32[N, 3, 8, 8]) -> f32[N, 4] {
  %stem = conv2d(%image) {channels=choice<stem.width>[8: 0.0, 16: 0.0], kernel=3, padding=same}
  %y = choose<block>(%stem) {
    original[0.0](%a) { %b = conv2d(%a) {channels=12, kernel=3, padding=same}  yield %b }
    separate[0.0](%a) {
      %c = conv2d(%a) {channels=6, kernel=1}
      %d = conv2d(%c) {channels=12, kernel=3, padding=same}
      yield %d
    }
  }
  %pool = global_avg_pool(%y)
  %logits = dense(%pool) {features=4}
  return %logits
}
"""
    )
    groups = channel_groups(graph)
    assert groups.by_id["stem"].width == 16
    assert groups.by_id["stem"].consumers == ("y[original]/b", "y[separate]/c")
    assert groups.by_id["y[original]/b"].sources == (("y[original]/b", "channels", 1), ("y[separate]/d", "channels", 1))
    assert groups.of("pool") == groups.of("y[separate]/d") == (groups.by_id["y[original]/b"],)
    assert groups.by_id["y[separate]/c"].width == 6


def test_a_value_may_hold_several_groups_and_an_unknown_value_is_an_error() -> None:
    groups = channel_groups(NETWORKS["concat"]())
    assert [found.id for found in groups.of("joined")] == ["left", "right"]
    with pytest.raises(PassError, match="did you mean 'joined'"):
        groups.of("joind")


def test_an_operand_of_one_channel_ties_nothing() -> None:
    b = Builder("gate")
    x = b.input("image", (3, 4, 4))
    a = b.emit(Conv2d(channels=8, kernel=1), x, name="a")
    gate = b.emit(Conv2d(channels=1, kernel=1), x, name="gate")
    y = b.emit(Relu(), b.emit(Add(), gate, a), name="y")
    b.output(b.emit(Conv2d(channels=2, kernel=1), y, name="out"))
    groups = channel_groups(b.build())
    assert groups.by_id["a"].sources == (("a", "channels", 1),)
    assert groups.by_id["gate"].width == 1


def test_the_analysis_is_done_once_for_a_graph() -> None:
    graph = residual()
    assert channel_groups(graph) is channel_groups(graph)


def test_an_op_from_elsewhere_holds_widths_until_it_is_said_to_keep_channels_apart() -> None:
    class Cube(Op, name="cube_for_channel_tests"):
        def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
            return (operands[0],)

    def network() -> Graph:
        b = Builder("cubed")
        x = b.emit(Conv2d(channels=8, kernel=1), b.input("image", (3, 4, 4)), name="a")
        b.output(b.emit(Conv2d(channels=2, kernel=1), b.emit(Cube(), x, name="cube"), name="out"))
        return b.build()

    try:
        assert "cube_for_channel_tests at %cube" in (ChannelGroups(network()).by_id["a"].fixed or "")
        keeps_channels(Cube)
        assert ChannelGroups(network()).by_id["a"].fixed is None
    finally:
        del Op._registry["cube_for_channel_tests"]
