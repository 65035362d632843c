"""The NumPy reference: known values, and what it refuses."""

import numpy as np
import pytest
from op_cases import one_node, residual

from gensynth.backends.reference import meaning, reference_values, run_reference
from gensynth.ir import Builder, Network, Op, UsageError, WeightsError, initialize, parse
from gensynth.ir.ops import AvgPool, BatchNorm, ChannelShuffle, Conv2d, LocalResponseNorm, MaxPool, Resize


def run(op, x, weights=None):
    graph = one_node(op, (x.shape[1:],))
    return run_reference(Network(graph, weights or {}), x.astype(np.float32))[0]


def test_a_convolution_worked_by_hand():
    x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    weights = {
        "stage1.y0.weight": np.array([[[[1, 0], [0, 2]]]], np.float32),
        "stage1.y0.bias": np.array([0.5], np.float32),
    }
    assert run(Conv2d(channels=1, kernel=2, bias=True), x, weights).tolist() == [[[[8.5, 11.5], [17.5, 20.5]]]]


def test_same_padding_puts_the_odd_row_and_column_last():
    x = np.ones((1, 1, 2, 2), np.float32)
    weights = {"stage1.y0.weight": np.ones((1, 1, 2, 2), np.float32)}
    assert run(Conv2d(channels=1, kernel=2, padding="same"), x, weights).tolist() == [[[[4, 2], [2, 1]]]]


def test_padding_never_wins_a_max_pool_and_counts_in_a_mean_only_when_told():
    x = -np.ones((1, 1, 2, 2), np.float32)
    assert (run(MaxPool(kernel=3, stride=1, padding=1), x) == -1).all()
    assert (run(AvgPool(kernel=3, stride=1, padding=1), x) == -1).all()
    assert np.allclose(run(AvgPool(kernel=3, stride=1, padding=1, count_padding=True), x), -4 / 9)


def test_batch_norm_uses_the_running_statistics():
    x = np.array([[3.0]], np.float32)
    named = {"scale": 2.0, "bias": 1.0, "mean": 1.0, "variance": 4.0}
    weights = {f"stage1.y0.{name}": np.array([value], np.float32) for name, value in named.items()}
    assert run(BatchNorm(epsilon=0.0), x, weights).tolist() == [[3.0]]


def test_local_response_norm_divides_by_a_power_of_the_mean_square_of_neighbours():
    x = np.array([1, 2, 3, 4], np.float32).reshape(1, 4, 1, 1)
    sums = np.array([1 + 4, 1 + 4 + 9, 4 + 9 + 16, 9 + 16])
    found = run(LocalResponseNorm(size=3, alpha=6.0, beta=0.5, k=2.0), x).ravel()
    np.testing.assert_allclose(found, [1, 2, 3, 4] / np.sqrt(2 + 2 * sums), rtol=1e-6)


def test_a_channel_shuffle_interleaves_the_groups():
    x = np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1)
    assert run(ChannelShuffle(groups=2), x).ravel().tolist() == [0, 3, 1, 4, 2, 5]


def test_a_bilinear_resize_samples_at_half_pixel_centres():
    x = np.array([[[[0.0, 1.0]]]], np.float32)
    assert run(Resize(size=(1, 4), mode="bilinear"), x).ravel().tolist() == [0.0, 0.25, 0.75, 1.0]
    corners = run(Resize(size=(1, 3), mode="bilinear", align_corners=True), x)
    assert corners.ravel().tolist() == [0.0, 0.5, 1.0]


def test_every_value_can_be_had_by_name():
    graph = residual()
    values = reference_values(Network(graph, initialize(graph)), np.zeros((2, 1, 8, 8), np.float32))
    assert set(values) == set(graph.values)
    assert values["block1.sum"].shape == (2, 16, 4, 4)
    assert values["logits"].dtype == np.float32


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 1, 8, 8)), "input 'image' is float64"),
        (np.zeros((2, 1, 8, 7), np.float32), "shape [2, 1, 8, 7]"),
        ({"imag": np.zeros((2, 1, 8, 8), np.float32)}, "no input 'imag'"),
        ({}, "input 'image' of @residual is missing"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, message):
    graph = residual()
    with pytest.raises(UsageError) as raised:
        run_reference(Network(graph, initialize(graph)), inputs)
    assert message in raised.value.message
    assert raised.value.hint


def test_a_network_without_weights_is_refused():
    with pytest.raises(WeightsError, match="no weights"):
        run_reference(Network(residual()), np.zeros((1, 1, 8, 8), np.float32))


def test_a_generator_is_refused():
    text = """gensynth 1
    network @open(%x: f32[N, 1, 4, 4]) -> f32[N, 2|4, 4, 4] {
      %y = conv2d(%x) {channels=choice<w>[2: 0.0, 4: 0.0], kernel=1} : f32[N, 2|4, 4, 4]
      return %y
    }
    """
    graph = parse(text)
    with pytest.raises(UsageError, match="open choices") as raised:
        run_reference(Network(graph, initialize(graph)), np.zeros((1, 1, 4, 4), np.float32))
    assert "materialize" in (raised.value.hint or "")


def test_an_op_of_a_third_party_needs_a_meaning_and_can_bring_one():
    class Negate(Op, name="negate_for_a_test"):
        """y = -x."""

        def infer(self, operands):
            return (operands[0],)

    try:
        builder = Builder("negative")
        builder.output(builder.emit(Negate(), builder.input("x", (2,)), name="y"))
        network = Network(builder.build(), {})
        x = np.ones((1, 2), np.float32)
        with pytest.raises(UsageError, match="%y: the reference does not know what negate_for_a_test means"):
            run_reference(network, x)
        meaning(Negate)(lambda op, operands, weights: -operands[0])
        assert run_reference(network, x)[0].tolist() == [[-1.0, -1.0]]
    finally:
        Op._registry.pop("negate_for_a_test")
