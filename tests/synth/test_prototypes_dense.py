"""Prototypes that answer for every place of an image, RefineNet and DetectNet, and the CIFAR forms of the others."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from gensynth.backends.reference import run_reference
from gensynth.ir import Array, Graph, Network, UsageError, initialize, parse, to_text, verify
from gensynth.ir.ops import BatchNorm, Conv2d, Dropout, MaxPool, Resize, Sigmoid
from gensynth.passes import run_pipeline
from gensynth.passes.analyses import channel_groups
from gensynth.passes.cost import cost
from gensynth.synth.generator import Generator
from gensynth.synth.prototypes import ArgumentValue, prototype

Arguments = dict[str, ArgumentValue]

TINY: dict[str, tuple[str, Arguments]] = {
    "refinenet": ("refinenet", {"depth": 18, "width": 8, "features": 4, "classes": 5, "image": (3, 37, 51)}),
    "refinenet of bottlenecks": (
        "refinenet",
        {"depth": 50, "width": 4, "features": 8, "batch_norm": True, "upsample": False, "image": (1, 40, 33)},
    ),
    "detectnet": ("detectnet", {"width": 0.125, "classes": 2, "image": (3, 64, 96)}),
    "detectnet with batch norm": ("detectnet", {"width": 0.125, "batch_norm": True, "image": (1, 61, 99)}),
}
PIPELINES = (
    "open-width{ratios=[0.5,1.0]}",
    "offer{rewrite=separate-conv}",
    "offer{rewrite=bypass-block}",
    "offer{rewrite=separate-conv},offer{rewrite=bypass-block},open-width{ratios=[0.25,0.5,1.0]}",
)
RCU, RCU_512 = (2 * 9 * width * width + width for width in (256, 512))
"""Parameters of a residual convolution unit of 256 and of 512 channels."""


@cache
def tiny(key: str) -> Network:
    name, arguments = TINY[key]
    graph = prototype(name, **arguments).graph
    return Network(graph, initialize(graph))


def images(graph: Graph, count: int = 2) -> Array:
    return np.random.default_rng(0).standard_normal(graph.inputs[0].type.sizes(count)).astype(np.float32)


def shapes(graph: Graph) -> list[str]:
    return [value.type.text for value in graph.outputs]


# RefineNet.


def test_refinenet_101_counts_what_light_weight_refinenet_publishes_of_it() -> None:
    counted = cost(prototype("refinenet", pools=4).graph)  # arXiv 1810.03272, table 1: 118 M and 263 G at 512 x 512
    assert round(counted.params / 1e6) == 118
    assert round(counted.macs / 1e9) == 263


def test_refinenet_is_a_resnet_without_its_classes_and_the_decoder_of_the_paper() -> None:
    graph = prototype("refinenet", classes=11).graph
    dense = 2048 * 1000 + 1000
    adapt = 9 * (2048 * 512 + (1024 + 512 + 256) * 256)
    fuse = 9 * (512 * 256 + 5 * 256 * 256)
    pools = 9 * (2 * 512 * 512 + 3 * 2 * 256 * 256)
    units = (3 + 2) * RCU_512 + (3 + 5 + 5 + 2) * RCU  # of RefineNet-3's five, the deeper path has two of 512
    logits = 9 * 256 * 11 + 11
    backbone = 44_549_160 - dense  # torchvision's ResNet-101
    assert cost(graph).params == backbone + adapt + fuse + pools + units + logits


def test_the_backbone_of_refinenet_takes_the_weights_of_resnet() -> None:
    resnet, refinenet = (
        initialize(prototype(name, depth=34, **more).graph)
        for name, more in (("resnet", {"dataset": "imagenet"}), ("refinenet", {"features": 8}))
    )
    backbone = {name: array.shape for name, array in resnet.items() if not name.startswith("head.")}
    assert {name: refinenet[name].shape for name in backbone} == backbone


def test_refinenet_has_the_widths_and_resolutions_of_the_paper() -> None:
    graph = prototype("refinenet", depth=50, classes=12, image=(3, 360, 480)).graph
    expected = {  # arXiv 1611.06612, figure 2c: 1/4 to 1/32, 512 channels in RefineNet-4 and 256 elsewhere
        "stage4.block3.act": (2048, 12, 15),
        "refine4.out.unit1.add": (512, 12, 15),
        "refine3.deep.unit2.add": (512, 12, 15),
        "refine3.fuse.add": (256, 23, 30),
        "refine2.fuse.add": (256, 45, 60),
        "refine1.out.unit1.add": (256, 90, 120),
        "head.logits": (12, 90, 120),
        "head.resize": (12, 360, 480),
    }
    assert {name: graph.values[name].type.shape[1:] for name in expected} == expected
    resizes = [node.op for node in graph.nodes if isinstance(node.op, Resize)]
    assert [op.size for op in resizes] == [(23, 30), (45, 60), (90, 120), (360, 480)]
    assert {op.mode for op in resizes} == {"bilinear"}
    pools = [node.op for node in graph.nodes if isinstance(node.op, MaxPool) and node.name.startswith("refine")]
    assert pools == [MaxPool(kernel=5, stride=1, padding="same")] * 8
    assert [node.name for node in graph.nodes if isinstance(node.op, Dropout)] == [
        "refine4.dropout",
        "refine3.dropout",
        "head.dropout",
    ]


@pytest.mark.parametrize("image", [(3, 360, 480), (3, 64, 64), (1, 45, 31), (3, 33, 97), (3, 5, 3), (1, 1, 1)])
@pytest.mark.parametrize("upsample", [True, False])
def test_refinenet_takes_images_of_any_size(image: tuple[int, int, int], upsample: bool) -> None:
    graph = prototype("refinenet", depth=18, width=4, features=4, classes=7, image=image, upsample=upsample).graph
    rows, columns = image[1:] if upsample else (-(-image[1] // 4), -(-image[2] // 4))
    assert shapes(graph) == [f"f32[N, 7, {rows}, {columns}]"]


def test_batch_norm_in_refinenet_follows_every_convolution_but_the_last() -> None:
    graph = prototype("refinenet", depth=18, width=4, features=4, batch_norm=True).graph
    for node in graph.nodes:
        if isinstance(node.op, Conv2d) and node.name != "head.logits":
            assert [type(user.op) for user in graph.users[node.name]] == [BatchNorm]
            assert not node.op.bias


# DetectNet.


def test_detectnet_is_googlenet_without_its_dense_layer_and_two_small_heads() -> None:
    googlenet, detectnet = (cost(prototype(name).graph) for name in ("googlenet", "detectnet"))
    heads = (1024 + 1) * (1 + 4)
    assert detectnet.params == googlenet.params - (1024 + 1) * 1000 + heads == 5_978_677
    # Each convolution works on 24 x 78 cells, or 4, 16 or 64 times as many, at 384 x 1248, and on 14 x 14 or 7 x 7, or
    # so many times as many, at 224 x 224.
    grown = sum(
        row.cost.macs * (24 * 78) // (49 if name.startswith("inception5") else 196)
        for name, row in googlenet.by_name.items()
        if not name.startswith("head")
    )
    assert detectnet.macs == grown + (heads - 5) * 24 * 78 == 18_605_223_936


def test_detectnet_answers_for_cells_of_16_pixels() -> None:
    graph = prototype("detectnet", classes=3).graph
    assert [value.name for value in graph.outputs] == ["head.coverage", "head.bboxes"]
    assert shapes(graph) == ["f32[N, 3, 24, 78]", "f32[N, 4, 24, 78]"]  # detectnet_network.prototxt, at 384 x 1248
    coverage = graph.producers["head.coverage"]
    assert isinstance(coverage.op, Sigmoid)
    assert [node.op.rate for node in graph.nodes if isinstance(node.op, Dropout)] == [0.4]
    assert [node.name for node in graph.nodes if isinstance(node.op, MaxPool) and node.op.stride == 2] == [
        "stem.pool1",
        "stem.pool2",
        "stage3.pool",
    ]


@pytest.mark.parametrize(
    ("image", "cells"), [((3, 64, 96), (4, 6)), ((3, 360, 480), (22, 30)), ((1, 61, 99), (3, 6)), ((3, 33, 47), (2, 3))]
)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_rim_of_less_than_a_cell_is_left_out(
    image: tuple[int, int, int], cells: tuple[int, int], batch_norm: bool
) -> None:
    graph = prototype("detectnet", width=0.125, batch_norm=batch_norm, image=image).graph
    assert shapes(graph) == [f"f32[N, {channels}, {cells[0]}, {cells[1]}]" for channels in (1, 4)]


def test_coverage_is_a_share() -> None:
    network = tiny("detectnet")
    coverage, bboxes = run_reference(network, 10 * images(network.graph))
    assert 0 <= coverage.min() < coverage.max() <= 1
    assert bboxes.min() < 0


# Both.


@pytest.mark.parametrize("key", TINY)
def test_every_dense_prototype_verifies_and_round_trips(key: str) -> None:
    graph = tiny(key).graph
    verify(graph)
    text = to_text(graph)
    assert parse(text) == graph
    assert to_text(parse(text)) == text


@pytest.mark.parametrize("key", TINY)
def test_pytorch_computes_what_the_reference_does(key: str) -> None:
    import torch

    from gensynth.backends.torch import to_torch

    network = tiny(key)
    image = images(network.graph)
    with torch.no_grad():
        found = to_torch(network).eval()(torch.from_numpy(image))
    wanted = run_reference(network, image)
    for left, right in zip(found if isinstance(found, tuple) else (found,), wanted, strict=True):
        np.testing.assert_allclose(left.numpy(), right, rtol=1e-3, atol=1e-4 * float(np.abs(right).max()))


@pytest.mark.parametrize("key", TINY)
def test_only_the_image_and_the_outputs_hold_widths_fast(key: str) -> None:
    graph = tiny(key).graph
    held = [group.id for group in channel_groups(graph) if group.fixed is not None]
    outputs = ["head.logits"] if key.startswith("refinenet") else ["head.coverage_logits", "head.bboxes"]
    assert held == ["image", *outputs]


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("key", TINY)
def test_generators_emit_networks_of_the_same_outputs(key: str, pipeline: str) -> None:
    network = tiny(key)
    generator = Generator(run_pipeline(network, pipeline))
    image = images(network.graph, 1)
    emitted = [generator.generate(seed) for seed in range(4)]
    assert len({found.hash for found in emitted}) > 1
    for found in emitted:
        verify(found.graph)
        assert [value.type for value in found.graph.outputs] == [value.type for value in network.graph.outputs]
        assert all(np.isfinite(output).all() for output in run_reference(found, image))


def test_blocks_of_refinenet_can_be_left_out_one_by_one() -> None:
    # Without `where` the outermost block is taken: from the first stage to RefineNet-1, where their widths agree.
    network = prototype("refinenet", depth=50, width=4, features=16, image=(1, 32, 32))
    everywhere, named = (
        run_pipeline(network, f"offer{{rewrite=bypass-block{where}}}").graph.choices
        for where in ("", ",where=[stage*,*.unit*]")
    )
    assert "stage3.block2" not in everywhere
    assert {"stage3.block2", "stage4.block3", "refine3.deep.unit1", "refine1.unit2", "head.unit1"} <= set(named)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("refinenet", {"depth": 20}, "depth=20 is not one of 18, 34, 50, 101, 152"),
        ("refinenet", {"width": 0}, "width must be at least 1"),
        ("refinenet", {"features": 0}, "features must be at least 1"),
        ("refinenet", {"pools": 0}, "pools must be at least 1"),
        ("refinenet", {"classes": 0}, "classes must be at least 1"),
        ("detectnet", {"classes": 0}, "classes must be at least 1"),
        ("detectnet", {"width": 9.0}, "width=9 is not between 0.1 and 4"),
        ("detectnet", {"image": (3, 8, 8)}, "cannot be built with image=3x8x8"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(name: str, arguments: Arguments, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        prototype(name, **arguments)
    assert message in caught.value.message
    assert f"'{name}'" in caught.value.message
    assert caught.value.hint


# The CIFAR forms of the networks that FermiNets are compared with.


@pytest.mark.parametrize(
    ("name", "arguments", "params", "published"),
    [
        ("mobilenet", {"version": 1}, 3_217_226, 3.3),
        ("mobilenet", {"version": 2}, 2_236_682, 2.36),
        ("shufflenet", {"version": 1}, 914_338, 1.0),
        ("shufflenet", {"version": 2}, 1_263_854, 1.3),
    ],
)
def test_cifar_forms_have_the_published_parameters(
    name: str, arguments: Arguments, params: int, published: float
) -> None:
    assert cost(prototype(name, **arguments).graph).params == params
    counted = cost(prototype(name, classes=100, **arguments).graph).params / 1e6
    # weiaicunzai/pytorch-cifar100, cut to the digits shown; the MobileNet 2 there has biases in its convolutions.
    assert published - 0.01 < counted < published + 0.1


def test_a_cifar_mobilenet_2_with_more_shortcuts_counts_what_pytorch_cifar_has() -> None:
    # kuangliu/pytorch-cifar projects shortcuts where only widths change, and expands by 1 in the first block.
    projected = sum(before * after + 2 * after for before, after in ((32, 16), (16, 24), (64, 96), (160, 320)))
    expanded = 32 * 32 + 2 * 32
    assert cost(prototype("mobilenet").graph).params + projected + expanded == 2_296_922


@pytest.mark.parametrize(
    ("name", "arguments", "last"),
    [
        ("mobilenet", {"version": 1}, (1024, 2, 2)),
        ("mobilenet", {"version": 2}, (1280, 4, 4)),
        ("shufflenet", {"version": 1}, (960, 4, 4)),
        ("shufflenet", {"version": 2}, (1024, 4, 4)),
    ],
)
def test_cifar_forms_end_at_the_usual_resolution(name: str, arguments: Arguments, last: tuple[int, int, int]) -> None:
    graph = prototype(name, **arguments).graph
    assert graph.producers["head.pool"].operands[0].type.shape[1:] == last
