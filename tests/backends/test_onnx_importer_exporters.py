"""Importing what exporters write: PyTorch's two, and our own, whose models come back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import assert_imported_alike, ops_of
from op_cases import residual
from strategies import networks
from test_torch_module import random_inputs, random_network
from torch import nn

from gensynth.backends.onnx import DEFAULT_OPSET, NEWEST_OPSET, OLDEST_OPSET, export_onnx, import_onnx
from gensynth.backends.reference import run_reference
from gensynth.ir import Builder, Graph, Network, initialize, to_text
from gensynth.ir.ops import AvgPool, Conv2d, HardSigmoid, Identity, Mul, Pad, Relu, Relu6, Reshape, Resize, Sigmoid
from gensynth.synth.prototypes import prototype


class Block(nn.Module):
    """A grouped convolution, a residual sum, a channel shuffle by hand, chunks, and gates."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.bn1 = nn.BatchNorm2d(8, eps=1e-3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x))) + x
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
        a, b = y.chunk(2, 1)
        return self.relu(torch.cat([F.relu6(a), F.hardswish(b) * F.hardsigmoid(b)], 1))


class Net(nn.Module):
    """Every kind of layer that the IR has, in the words of PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.SiLU())
        self.layer1 = nn.Sequential(Block(), Block())
        self.up = nn.ConvTranspose2d(8, 8, 3, 2, padding=1, output_padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.lrn = nn.LocalResponseNorm(3, 0.5, 0.6, 2.0)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.lrn(self.up(self.pool(self.layer1(self.stem(x)))))
        x = F.interpolate(x, scale_factor=2, mode="bilinear") + F.interpolate(x, size=(20, 20))
        x = F.leaky_relu(F.avg_pool2d(F.pad(x, (1, 0, 2, 0)), 3, 2, 1), 0.1)
        x = torch.cat([x[:, :3], x[:, 3:]], 1)
        x = F.adaptive_avg_pool2d(x, 1) * torch.sigmoid(x.mean((2, 3), keepdim=True))
        return F.softmax(self.fc(self.drop(torch.flatten(x, 1))), -1)


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(0)
    module = Net().eval()
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return module


OPS = {
    "conv2d", "silu", "relu", "add", "channel_shuffle", "split", "relu6", "hard_swish", "hard_sigmoid", "mul", "concat",
    "max_pool", "conv_transpose2d", "local_response_norm", "resize", "pad", "avg_pool", "leaky_relu", "global_avg_pool",
    "sigmoid", "flatten", "dense", "softmax",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("opset", [11, 13, 17, 20])
def test_models_of_the_torchscript_exporter(net: Net, opset: int, dynamic: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    torch.onnx.export(
        net, (torch.randn(2, 1, 9, 9),), path, dynamo=False, opset_version=opset, input_names=["image"],
        dynamic_axes={"image": {0: "batch"}} if dynamic else None,
    )  # fmt: skip
    network = assert_imported_alike(path)
    assert {node.op.name for node in network.graph.nodes} == OPS
    names = {node.name for node in network.graph.nodes}
    assert {"stem.0", "stem.1", "layer1.0.conv1", "layer1.0.channel_shuffle", "layer1.1.relu_1", "lrn", "fc"} <= names


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimize", [False, True], ids=["plain", "optimized"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
def test_models_of_the_newer_exporter(net: Net, dynamic: bool, optimize: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="PyTorch's newer exporter needs onnxscript")
    path = tmp_path / "net.onnx"
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.onnx.export(
        net, (torch.randn(2, 1, 9, 9),), path, dynamo=True, dynamic_shapes=shapes, optimize=optimize, verbose=False
    )
    network = assert_imported_alike(path)
    assert {node.op.name for node in network.graph.nodes} <= OPS | {"batch_norm", "dropout", "reshape"}
    names = {node.name for node in network.graph.nodes}
    assert {"stem.0", "stem.1", "layer1.0.conv1", "layer1.0.relu", "lrn", "fc"} <= names


# Our own.


PROTOTYPES: list[tuple[str, dict[str, object]]] = [
    ("lenet", {}),
    ("lenet", {"pool": "max", "classes": 3}),
    ("resnet", {"depth": 20}),
    ("resnet", {"depth": 14, "shortcut": "pad", "width": 4}),
    ("resnet", {"depth": 50, "dataset": "imagenet", "image": (3, 64, 64)}),
    ("mobilenet", {"version": 1, "width": 0.25}),
    ("mobilenet", {"version": 2, "width": 0.5, "image": (1, 28, 28)}),
    ("shufflenet", {"version": 1, "groups": 8}),
    ("shufflenet", {"version": 2, "width": 0.5, "image": (3, 31, 33)}),
    ("squeezenet", {}),
    ("squeezenet", {"version": 1.0}),
    ("nasnet-a", {"cells": 1, "filters": 96, "image": (3, 16, 16)}),
]


def assert_comes_back(network: Network, path: Path, **options: object) -> None:
    """Exports a network and imports it: names, structure and weights are to be the same."""
    export_onnx(network, path, **options)  # type: ignore[arg-type]
    back = import_onnx(path)
    assert to_text(back.graph) == to_text(network.graph)
    assert back.hash == network.hash
    assert back.weights is not None
    assert network.weights is not None
    assert back.weights.keys() == network.weights.keys()
    assert all(np.array_equal(array, network.weights[name]) for name, array in back.weights.items())


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 13, 18, DEFAULT_OPSET, NEWEST_OPSET])
@pytest.mark.parametrize(
    ("name", "arguments"), PROTOTYPES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(PROTOTYPES)]
)
def test_prototypes_come_back_as_they_were(name: str, arguments: dict[str, object], opset: int, tmp_path: Path) -> None:
    graph = prototype(name, **arguments).graph
    network = Network(graph, initialize(graph, 0))
    assert_comes_back(
        network, tmp_path / "net.onnx", opset=opset, external_data=opset == 13, batch=1 if opset == 18 else None
    )


def test_what_looks_like_a_pattern_stays_apart_in_our_own_models(tmp_path: Path) -> None:
    builder = Builder("apart")
    image = builder.input("image", (4, 8, 8))
    x = builder.emit(Mul(), image, builder.emit(Sigmoid(), image, name="a"), name="b")
    x = builder.emit(Mul(), x, builder.emit(HardSigmoid(), x, name="c"), name="d")
    x = builder.emit(Relu6(), builder.emit(Relu(), x, name="e"), name="f")
    x = builder.emit(Conv2d(channels=4, kernel=3), builder.emit(Pad(padding=1), x, name="g"), name="h")
    x = builder.emit(Reshape(shape=(8, 32)), builder.emit(Reshape(shape=(32, 8)), x, name="i"), name="j")
    x = builder.emit(Identity(), builder.emit(Reshape(shape=(4, 8, 8)), x, name="k"), name="scope.l")
    x = builder.emit(Resize(size=(5, 5)), builder.emit(Resize(size=(5, 8)), x, name="m"), name="n")
    builder.output(builder.emit(AvgPool(kernel=5), x, name="o"), image)
    for opset in (OLDEST_OPSET, DEFAULT_OPSET):
        assert_comes_back(random_network(builder.build()), tmp_path / "apart.onnx", opset=opset)


@settings(max_examples=60)
@given(networks(), st.sampled_from([OLDEST_OPSET, 13, 18, DEFAULT_OPSET, NEWEST_OPSET]), st.sampled_from([None, 3]))
def test_random_networks_compute_the_same_when_they_come_back(
    tmp_path_factory: pytest.TempPathFactory, graph: Graph, opset: int, batch: int | None
) -> None:
    path = tmp_path_factory.mktemp("random") / "net.onnx"
    network = random_network(graph)
    export_onnx(network, path, opset=opset, batch=batch)
    back = import_onnx(path)
    inputs = random_inputs(graph)
    for one, other in zip(run_reference(back, inputs), run_reference(network, inputs), strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


def test_an_imported_network_is_a_prototype(tmp_path: Path) -> None:
    from gensynth.passes import run_pipeline
    from gensynth.synth.generator import Generator

    export_onnx(random_network(residual()), tmp_path / "net.onnx")
    network = import_onnx(tmp_path / "net.onnx")
    assert "hard_sigmoid" in ops_of(network)
    opened = run_pipeline(network, "sort-channels,offer{rewrite=separate-conv},open-width{ratios=[0.5,1.0]}")
    generator = Generator(opened)
    found = {generator.generate(seed=seed).hash for seed in range(4)}
    assert len(found) > 1
