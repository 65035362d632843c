"""One module for a whole generator: what a network computes in it is what it would compute by itself."""

import numpy as np
import pytest
import torch

from gensynth.backends.torch import to_torch
from gensynth.backends.torch.sharing import share_weights
from gensynth.ir import Network, UsageError, initialize, parse
from gensynth.passes import run_pipeline
from gensynth.passes.choices.inheritance import inherit_weights
from gensynth.synth.prototypes import prototype

OPENED = {
    "resnet": (
        {"depth": 8},
        "offer{rewrite=bypass-block},offer{rewrite=separate-conv},offer{rewrite=low-rank-conv},open-kernel,open-width",
    ),
    "shufflenet": ({"version": 2, "width": 0.5}, "open-width{ratios=[0.5,1.0]},offer{rewrite=squeeze-excite}"),
    "mobilenet": (
        {"version": 2, "width": 0.35},
        "open-width{ratios=[0.5,1.0]},open-depth,offer{rewrite=replace-activation{to=relu}}",
    ),
}


def opened(name, seed=0):
    arguments, passes = OPENED[name]
    network = prototype(name, image=(3, 16, 16), classes=5, **arguments)
    return run_pipeline(Network(network.graph, initialize(network.graph, seed)), passes)


def images(count=4, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 3, 16, 16)).astype(np.float32))


@pytest.mark.parametrize("name", OPENED)
def test_a_network_computes_in_the_module_what_it_computes_with_inherited_weights(name):
    generator = opened(name)
    shared = share_weights(generator).eval()
    for seed in range(6):
        decisions = shared.materializer.draw(seed)
        network = shared.network(decisions)
        weights = inherit_weights(generator, shared.materializer.inliner, decisions, network.graph)
        alone = to_torch(Network(network.graph, weights)).eval()
        with torch.no_grad():
            assert torch.equal(network(images()), alone(images()))


@pytest.mark.parametrize("name", OPENED)
def test_the_module_holds_the_generators_weights_by_name(name):
    generator = opened(name)
    state = share_weights(generator).state_dict()
    assert generator.weights is not None
    for key, array in generator.weights.items():
        assert np.array_equal(state[key].numpy(), array)
    assert all("@" in key for key in state.keys() - generator.weights.keys())


def test_gradients_reach_the_weights_that_a_network_uses_and_no_others():
    shared = share_weights(opened("resnet"))
    decisions = dict.fromkeys(shared.graph.choices, 0)
    network = shared.network(decisions)
    network(images()).square().sum().backward()
    bias = shared.state["stem.norm.bias"]
    width = network.graph.node("stem.norm").results[0].type.shape[1]
    assert width < len(bias)
    assert (bias.grad[:width] != 0).all() and not bias.grad[width:].any()
    assert shared.state["head.logits[original]/head.logits.bias"].grad is not None
    assert shared.state["head.logits[low_rank_conv]/head.logits.bias"].grad is None


def test_kernels_cut_from_larger_ones_go_through_a_map_that_is_learned():
    graph = parse("""gensynth 1

network @open(%image: f32[N, 1, 8, 8]) -> f32[N, 3] {
  %conv   = conv2d(%image) {channels=4, kernel=choice<kernel>[1, 3, 5], padding=same}
  %pool   = global_avg_pool(%conv)
  %logits = dense(%pool) {features=3}
  return %logits
}
""")
    shared = share_weights(Network(graph, initialize(graph, 0)))
    maps = {name: tensor for name, tensor in shared.named_parameters() if "@" in name}
    assert set(maps) == {"conv.weight@1x1", "conv.weight@3x3"}
    network = shared.network({"kernel": 1})
    x = torch.ones(2, 1, 8, 8)
    before = network(x)
    before.sum().backward()
    assert maps["conv.weight@3x3"].grad.abs().sum() > 0 and maps["conv.weight@1x1"].grad is None
    with torch.no_grad():
        maps["conv.weight@3x3"].mul_(2.0)
    kernel = network.network().weights["conv.weight"]
    assert np.allclose(kernel, 2.0 * shared.state["conv.weight"].detach().numpy()[:, :, 1:4, 1:4])
    assert not torch.allclose(network(x), before)


def test_calibration_gives_a_network_the_statistics_of_what_it_sees():
    shared = share_weights(opened("resnet"))
    network = shared.network(shared.materializer.draw(3))
    batches = [images(32, seed) for seed in range(3)]
    network.calibrate(batches)
    first = next(node for node in network.graph.nodes if node.op.name == "batch_norm")
    conv = network.graph.producers[first.operands[0].name]
    weight = torch.from_numpy(network.network().weights[f"{conv.name}.weight"])
    made = [torch.conv2d(batch, weight, padding=weight.shape[-1] // 2) for batch in batches]
    mean = torch.stack([value.mean((0, 2, 3)) for value in made]).mean(0)
    variance = torch.stack([value.var((0, 2, 3)) for value in made]).mean(0)
    assert torch.allclose(network.statistics[f"{first.name}.mean"], mean, atol=1e-5)
    assert torch.allclose(network.statistics[f"{first.name}.variance"], variance, rtol=1e-4)
    shared.eval()
    with torch.no_grad():
        assert torch.equal(network(images()), to_torch(network.network()).eval()(images()))


def test_training_leaves_statistics_to_calibration():
    shared = share_weights(opened("resnet")).train()
    network = shared.network(shared.materializer.draw(1))
    before = {name: value.clone() for name, value in network.statistics.items()}
    network(images())
    assert all(torch.equal(value, before[name]) for name, value in network.statistics.items())


def test_a_network_sees_what_becomes_of_the_shared_weights():
    shared = share_weights(opened("resnet")).eval()
    decisions = dict.fromkeys(shared.graph.choices, 0)
    network = shared.network(decisions)
    assert shared.network(decisions) is network
    with torch.no_grad():
        before = network(images())
        shared.state["head.logits[original]/head.logits.bias"].add_(1.0)
        assert torch.allclose(network(images()), before + 1.0, atol=1e-5)


def test_a_network_has_nothing_to_share():
    with pytest.raises(UsageError, match="is a network, not a generator") as caught:
        share_weights(prototype("resnet", depth=8, image=(3, 16, 16), classes=5))
    assert "open-width" in caught.value.hint
