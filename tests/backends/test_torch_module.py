"""PyTorch modules: equal to the reference, named as the weights are, observable."""

import copy

import numpy as np
import pytest
import torch
from op_cases import CASES, one_node, residual
from torch.utils.flop_counter import FlopCounterMode

from gensynth.backends.reference import has_meaning, reference_values, run_reference
from gensynth.backends.torch import Observer, to_torch, weights_of
from gensynth.backends.torch.lowerings import has_lowering
from gensynth.ir import Builder, Network, UsageError, all_ops, initialize
from gensynth.ir.ops import Choose, Conv2d, Dense, Dropout


def random_network(graph, seed=0):
    """Weights that are nowhere at their neutral start: statistics and biases too."""
    random = np.random.default_rng(seed)
    weights = {
        name: (array + random.uniform(0.1, 0.5, array.shape)).astype(np.float32)
        for name, array in initialize(graph, seed).items()
    }
    return Network(graph, weights)


def random_inputs(graph, batch=3):
    random = np.random.default_rng(1)
    return {
        value.name: (4 * random.standard_normal(value.type.sizes(batch))).astype(np.float32) for value in graph.inputs
    }


def test_every_op_has_a_meaning_a_lowering_and_a_case():
    covered = {type(op) for op, _ in CASES}
    for op in all_ops():
        if op is not Choose:
            assert has_meaning(op), f"{op.name} has no meaning in backends/reference"
            assert has_lowering(op), f"{op.name} has no lowering in backends/torch"
            assert op in covered, f"{op.name} has no case in tests/backends/op_cases.py"


@pytest.mark.parametrize(("op", "shapes"), CASES, ids=[f"{i}-{op.text()}" for i, (op, _) in enumerate(CASES)])
def test_torch_computes_what_the_reference_means(op, shapes):
    graph = one_node(op, shapes)
    network, inputs = random_network(graph), random_inputs(graph)
    wanted = run_reference(network, inputs)
    with torch.no_grad():
        found = to_torch(network).eval()(*map(torch.from_numpy, inputs.values()))
    for one, other in zip(found if isinstance(found, tuple) else (found,), wanted, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one.numpy(), other, rtol=2e-5, atol=2e-5)


def test_a_whole_network_agrees_with_the_reference_at_every_value():
    graph = residual()
    network, inputs = random_network(graph), random_inputs(graph)
    wanted = reference_values(network, inputs)
    seen = {}

    class Keep(Observer):
        def on_value(self, name, tensor):
            seen[name] = tensor

    module = to_torch(network).eval()
    with torch.no_grad(), module.observe(Keep()):
        module(torch.from_numpy(inputs["image"]))
    assert set(seen) == set(wanted)
    for name, tensor in seen.items():
        np.testing.assert_allclose(tensor.numpy(), wanted[name], rtol=1e-4, atol=1e-4 * abs(wanted[name]).max())


def test_the_state_dict_has_the_names_of_the_weights():
    graph = residual()
    network = random_network(graph)
    module = to_torch(network)
    assert set(module.state_dict()) == set(network.weights)
    back = weights_of(module)
    assert all(np.array_equal(back[name], array) for name, array in network.weights.items())
    assert {name for name, _ in module.named_buffers()} == {
        name for name in network.weights if name.endswith((".mean", ".variance"))
    }


def test_a_scope_may_be_named_as_a_node_or_as_a_method_of_modules():
    builder = Builder("names")
    x = builder.input("x", (2, 4, 4))
    for name in ("a", "a.weight", "a.weight.c", "half", "type.forward", "training.eval"):
        x = builder.emit(Conv2d(channels=2, kernel=1, bias=True), x, name=name)
    builder.output(x)
    network = random_network(builder.build())
    module = copy.deepcopy(to_torch(network)).eval()
    assert set(module.state_dict()) == set(network.weights)
    x = np.ones((1, 2, 4, 4), np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), run_reference(network, x)[0], rtol=1e-5)


def test_a_copied_module_has_weights_of_its_own():
    module = to_torch(Network(residual())).eval()
    twin = copy.deepcopy(module)
    x = torch.randn(2, 1, 8, 8)
    before = module(x)
    with torch.no_grad():
        for tensor in twin.parameters():
            tensor.zero_()
    assert torch.equal(module(x), before)
    assert not twin(x).any()


def test_fresh_weights_depend_on_the_seed_alone():
    graph = residual()
    one, again, other = (weights_of(to_torch(Network(graph), seed=seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["logits.weight"], other["logits.weight"])


def test_training_mode_moves_statistics_and_drops_elements():
    graph = residual()
    module = to_torch(Network(graph)).train()
    x = torch.randn(8, 1, 8, 8)
    module(x)
    assert module.state_dict()["stem.norm.mean"].abs().sum() > 0
    builder = Builder("drop")
    builder.output(builder.emit(Dropout(rate=0.5), builder.input("x", (1000,)), name="y"))
    dropped = to_torch(Network(builder.build())).train()(torch.ones(1, 1000))
    assert 300 < int((dropped == 0).sum()) < 700
    assert set(dropped.unique().tolist()) == {0.0, 2.0}


def test_the_flop_counter_sees_convolutions_and_dense_layers():
    builder = Builder("counted")
    x = builder.emit(Conv2d(channels=5, kernel=3, padding="same"), builder.input("x", (2, 6, 6)), name="conv")
    builder.output(x)
    with FlopCounterMode(display=False) as counter:
        to_torch(Network(builder.build()))(torch.zeros(1, 2, 6, 6))
    assert counter.get_total_flops() == 2 * 5 * 2 * 9 * 36


def test_wrong_inputs_are_refused_and_a_failing_node_is_named():
    builder = Builder("plain")
    builder.output(builder.emit(Dense(features=2), builder.input("x", (3,)), name="out"))
    module = to_torch(Network(builder.build()))
    with pytest.raises(UsageError, match=r"input 'x' has shape \[1, 4\]"):
        module(torch.zeros(1, 4))
    with pytest.raises(UsageError, match="has 1 inputs, got 2"):
        module(torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(RuntimeError) as raised:
        module(torch.zeros(1, 3, dtype=torch.float64))
    assert any("%out" in note for note in raised.value.__notes__)
