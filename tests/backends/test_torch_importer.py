"""Importing exported programs: the same function, the same names, and a clear word where it cannot be done."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from op_cases import CASES, one_node, residual
from test_torch_module import random_inputs, random_network
from torch import nn

from gensynth.backends.torch import from_torch, to_torch
from gensynth.ir import Network, UsageError
from gensynth.ir.ops import AvgPool, MaxPool, Resize

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Block(nn.Module):
    """In-place ops, a channel shuffle by hand, chunks, and names that only the module tree knows."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.bn1 = nn.BatchNorm2d(8, eps=1e-3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y += x
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        a, b = y.chunk(2, 1)
        return self.relu(torch.cat([F.relu6(a), F.hardswish(b) * F.hardsigmoid(b)], 1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding="same"), nn.SiLU())
        self.layer1 = nn.Sequential(Block(), Block())
        self.up = nn.ConvTranspose2d(8, 8, 3, 2, padding=1, output_padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.up(self.pool(self.layer1(self.stem(x))))
        x = F.interpolate(x, scale_factor=2, mode="bilinear") + F.interpolate(x, size=(20, 20))
        x = F.leaky_relu(F.avg_pool2d(F.pad(x, (1, 0, 2, 0)), 3, 2, 1), 0.1)
        x = F.adaptive_avg_pool2d(x, 1) * torch.sigmoid(x.mean((2, 3), keepdim=True))
        return F.softmax(self.fc(self.drop(torch.flatten(x, 1))), -1)


def export(module, *inputs, dynamic=False):
    shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs) if dynamic else None
    return torch.export.export(module, inputs, dynamic_shapes=shapes)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(("dynamic", "decompose"), [(True, None), (False, "functional"), (False, "core")])
def test_an_imported_module_computes_the_same(net, training, dynamic, decompose):
    program = export(net.train(training), torch.randn(2, 1, 9, 9), dynamic=dynamic)
    if decompose is not None:
        program = program.run_decompositions({} if decompose == "functional" else None)
    network = from_torch(program, name="net")
    assert network.name == "net"
    assert network.graph.inputs[0].type.shape == ("N", 1, 9, 9)
    x = torch.randn(3, 1, 9, 9)
    with torch.no_grad():
        assert torch.allclose(to_torch(network).eval()(x), net.eval()(x), atol=1e-6)


def test_values_are_called_after_modules(net):
    graph = from_torch(export(net.eval(), torch.randn(2, 1, 9, 9))).graph
    names = {node.name for node in graph.nodes}
    assert {"stem.0", "stem.1", "layer1.0.conv1", "layer1.1.bn1", "layer1.0.channel_shuffle", "fc"} <= names
    assert {"layer1.0.relu", "layer1.0.relu_1"} <= names
    assert not any(node.op.name == "reshape" for node in graph.nodes)
    assert "test_torch_importer.py" in graph.node("layer1.0.add").origin


def test_a_local_response_norm_is_found_in_the_eight_steps_that_torch_makes_of_it():
    layers = nn.Sequential(nn.Conv2d(1, 8, 1), nn.LocalResponseNorm(5, 0.5, 0.6, 2.0), nn.ReLU()).eval()
    for program in (export(layers, torch.randn(2, 1, 4, 4)), export(layers, torch.randn(2, 1, 4, 4), dynamic=True)):
        for form in (program, program.run_decompositions(None)):
            nodes = from_torch(form).graph.nodes
            assert [(node.name, node.op.text()) for node in nodes][1:] == [
                ("layer1", "local_response_norm {size=5, alpha=0.5, beta=0.6, k=2.0}"),
                ("layer2", "relu"),
            ]
    even = nn.Sequential(nn.Conv2d(1, 8, 1), nn.LocalResponseNorm(4)).eval()
    with pytest.raises(UsageError, match="local response norm over 4 channels"):
        from_torch(export(even, torch.randn(2, 1, 4, 4)))


def test_names_that_start_with_a_digit_get_a_word_in_front():
    program = export(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()).eval(), torch.randn(1, 1, 4, 4))
    assert [node.name for node in from_torch(program).graph.nodes] == ["layer0", "layer1"]


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
def test_a_network_survives_the_way_to_torch_and_back(dynamic):
    graph = residual()
    network = random_network(graph)
    shapes = (({0: torch.export.Dim("batch")},),) if dynamic else None  # a tuple of inputs, as forward takes *inputs
    program = torch.export.export(to_torch(network).eval(), (torch.randn(2, 1, 8, 8),), dynamic_shapes=shapes)
    back = from_torch(program)
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(to_torch(back).eval()(x), to_torch(network).eval()(x))
    assert set(network.weights) == set(back.weights)


def _survives(op):
    if isinstance(op, (MaxPool, AvgPool)):
        asymmetric = isinstance(op.padding, tuple) and len(op.padding) == 4
        return not (asymmetric or op.padding in ("same", 2))
    return not (isinstance(op, Resize) and op.size == (49, 61))


IMPORTED = [(op, shapes) for op, shapes in CASES if _survives(op)]


@pytest.mark.parametrize(("op", "shapes"), IMPORTED[::2] + IMPORTED[1::2], ids=lambda item: str(item)[:60])
def test_every_op_survives_the_way_to_torch_and_back(op, shapes):
    graph = one_node(op, shapes)
    network, inputs = random_network(graph), [torch.from_numpy(x) for x in random_inputs(graph).values()]
    module = to_torch(network).eval()
    with torch.no_grad():
        wanted = module(*inputs)
        found = to_torch(from_torch(export(module, *inputs))).eval()(*inputs)
    for one, other in zip(
        found if isinstance(found, tuple) else (found,), wanted if isinstance(wanted, tuple) else (wanted,), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-6)


def _module(function):
    class Wrapped(nn.Module):
        def forward(self, x):
            return function(x)

    return Wrapped()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: torch.cumsum(x, 1), "aten.cumsum.default"),
        (lambda x: x + 1.0, "arithmetic with a constant"),
        (lambda x: x.permute(0, 2, 3, 1), "a permutation [0, 2, 3, 1] of axes"),
        (lambda x: x.clamp(-1, 1), "values clamped to [-1, 1]"),
        (lambda x: torch.cat([x, x], 0), "along the batch"),
        (lambda x: x.mean(1), "a mean over axes [1]"),
        (lambda x: F.max_pool2d(x, 2, dilation=2), "a dilated pool"),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "in mode 'reflect'"),
        (lambda x: F.adaptive_avg_pool2d(x, 3), "an adaptive pool from [8, 8] to [3, 3]"),
        (lambda x: F.interpolate(x, scale_factor=1.3), "a resize by [1.3, 1.3]"),
        (lambda x: x.reshape(-1), "whose first axis is no batch"),
        (lambda x: (x + 3).relu(), "half of a pattern"),
        (lambda x: x[:, ::2], "with a step"),
    ],
)
def test_what_cannot_be_imported_is_named_with_place_and_remedy(function, message):
    with pytest.raises(UsageError) as raised:
        from_torch(export(_module(function), torch.randn(2, 2, 8, 8)))
    assert message in raised.value.message
    assert "test_torch_importer.py:" in raised.value.message
    assert raised.value.hint


def test_slices_of_channels_height_and_width_become_splits():
    module = _module(lambda x: torch.cat([x[:, 1:3, :, -3:], x[:, 3:, :, :3], x[:, :1, :, 5:8]], 1))
    x = torch.randn(2, 4, 8, 8)
    network = from_torch(export(module, x))
    assert {node.op.name for node in network.graph.nodes} == {"split", "concat"}
    assert torch.equal(to_torch(network)(x), module(x))


def test_a_module_that_was_not_exported_is_refused():
    with pytest.raises(UsageError, match="got Linear") as raised:
        from_torch(nn.Linear(2, 2))
    assert "torch.export.export" in raised.value.hint


def test_a_batch_norm_without_weights_gets_ones_and_zeros():
    module = nn.BatchNorm2d(3, affine=False).eval()
    network = from_torch(export(module, torch.randn(2, 3, 4, 4)))
    assert isinstance(network, Network)
    (scale,) = (array for name, array in network.weights.items() if name.endswith(".scale"))
    assert np.array_equal(scale, np.ones(3, np.float32))
