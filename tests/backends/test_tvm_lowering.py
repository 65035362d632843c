"""Programs: every op, random networks and prototypes compute what the reference means, on one static arena."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import CASES, one_node
from program_runs import run_program
from random_graphs import random_network as random_graph
from test_torch_module import random_inputs, random_network

import gensynth as gs
from gensynth.backends.reference import run_reference
from gensynth.backends.tvm.kernels import ZeroHalo
from gensynth.backends.tvm.lowering import lower
from gensynth.backends.tvm.targets import load_target
from gensynth.ir import Builder, Network, UsageError, WeightsError, initialize
from gensynth.ir.ops import Concat, Conv2d, Identity

HOST = load_target("host")


def assert_equal(network, batch=2, tolerance=2e-5):
    program = lower(network, HOST, batch=batch)
    inputs = random_inputs(network.graph, batch)
    found = run_program(program, list(inputs.values()))
    for one, other in zip(found, run_reference(network, inputs), strict=True):
        assert one.shape == other.shape
        scale = max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=tolerance)
    return program


@pytest.mark.parametrize(("op", "shapes"), CASES, ids=[f"{i}-{op.text()}" for i, (op, _) in enumerate(CASES)])
def test_a_program_of_one_op_computes_what_the_reference_means(op, shapes):
    assert_equal(random_network(one_node(op, shapes)))


@pytest.mark.parametrize("seed", range(24))
def test_a_program_of_a_random_network_computes_what_the_reference_means(seed):
    assert_equal(random_network(random_graph(seed)), tolerance=1e-4)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet", {"depth": 8, "image": (3, 17, 15)}),
        ("mobilenet", {"version": 2, "width": 0.25, "image": (3, 32, 32)}),
        ("shufflenet", {"version": 1, "image": (3, 32, 32), "width": 0.25}),
        ("shufflenet", {"version": 2, "image": (3, 32, 32)}),
        ("squeezenet", {"image": (3, 32, 32)}),
        ("lenet", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_program_of_a_prototype_computes_what_the_reference_means(name, arguments):
    graph = gs.prototype(name, **arguments).graph
    assert_equal(Network(graph, initialize(graph, 0)), batch=1, tolerance=1e-4)


def test_convolution_norm_shortcut_and_activation_are_one_kernel():
    program = assert_equal(random_network(gs.prototype("resnet", depth=20).graph), batch=1)
    computing = [step for step in program.steps if not isinstance(program.kernels[step.kernel].spec.op, ZeroHalo)]
    assert len(computing) == 21 + 3, "21 convolutions, the pool, the dense layer and the input's copy"
    assert len(program.kernels) < len(program.steps), "equal blocks share kernels"


def test_operands_of_a_concatenation_are_made_in_place():
    build = Builder("joined")
    x = build.input("x", (3, 8, 8))
    parts = [build.emit(Conv2d(channels=width, kernel=3, padding="same"), x) for width in (5, 7)]
    joined = build.emit(Concat(), *parts)
    build.output(build.emit(Conv2d(channels=4, kernel=1), joined))
    program = assert_equal(random_network(build.build()), batch=1)
    copies = [step for step in program.steps if isinstance(program.kernels[step.kernel].spec.op, Identity)]
    assert len(copies) == 2, "of the input and of the output"


def test_memory_is_reused_and_never_less_than_what_is_live():
    program = lower(random_network(gs.prototype("resnet", depth=20).graph), HOST)
    assert program.arena < sum(placement.size for placement in program.placements) / 3
    for one in program.placements:
        for other in program.placements:
            if one is not other and one.first <= other.last and other.first <= one.last:
                assert one.offset + one.size <= other.offset or other.offset + other.size <= one.offset


def test_small_networks_run_a_batch_image_by_image():
    network = random_network(gs.prototype("lenet").graph)
    one, many = lower(network, HOST, batch=1), lower(network, HOST, batch=5)
    assert (many.batch, many.repeats, many.images) == (1, 5, 5)
    assert many.arena == one.arena and many.inputs[0].shape[0] == 5


def test_what_cannot_be_compiled_is_told():
    graph = gs.prototype("lenet").graph
    with pytest.raises(WeightsError, match="no weights"):
        lower(Network(graph), HOST)
    with pytest.raises(UsageError, match="f16"):
        lower(random_network(graph), HOST, dtype="f16")
    with pytest.raises(UsageError, match="open choices"):
        lower(gs.run_pipeline(random_network(graph), "open-width"), HOST)
