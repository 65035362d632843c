"""The networks of published measurements: their parameters and MACs, their shapes, and what backends make of them."""

from __future__ import annotations

import csv
import gzip
import itertools
import os
import re
from pathlib import Path

import numpy as np
import pytest

from gensynth.backends.reference import run_reference
from gensynth.ir import Graph, Network, UsageError, initialize, parse, to_text, verify
from gensynth.ir.ops import AvgPool, Conv2d, Dense, LocalResponseNorm, MaxPool, Pad, Split
from gensynth.passes import run_pipeline
from gensynth.passes.cost import cost
from gensynth.synth.generator import Generator
from gensynth.synth.prototypes import ArgumentValue, nas_bench_201_generator, parse_arguments, prototype

Arguments = dict[str, ArgumentValue]

TORCHVISION: list[tuple[str, Arguments, int, float]] = [
    ("alexnet", {"towers": 1}, 61_100_840, 0.714),
    ("googlenet", {"batch_norm": True}, 6_624_904, 1.498),
    ("vgg", {"depth": 11}, 132_863_336, 7.609),
    ("vgg", {"depth": 13}, 133_047_848, 11.308),
    ("vgg", {"depth": 16}, 138_357_544, 15.47),
    ("vgg", {"depth": 19}, 143_667_240, 19.632),
    ("vgg", {"depth": 11, "batch_norm": True}, 132_868_840, 7.609),
    ("vgg", {"depth": 13, "batch_norm": True}, 133_053_736, 11.308),
    ("vgg", {"depth": 16, "batch_norm": True}, 138_365_992, 15.47),
    ("vgg", {"depth": 19, "batch_norm": True}, 143_678_248, 19.632),
    ("inception", {"version": 3}, 27_161_264 - 3_326_696, 5.713),  # its auxiliary head takes no part in inference
]
"""Name, arguments, parameters and G MACs that torchvision publishes with its weights (`num_params`, `_ops`)."""

SMALL: list[tuple[str, Arguments]] = [
    ("alexnet", {"width": 0.125, "image": (3, 67, 67)}),
    ("alexnet", {"towers": 1, "width": 0.125, "classes": 7, "image": (1, 64, 64)}),
    ("vgg", {"depth": 11, "width": 0.125, "image": (3, 32, 32)}),
    ("vgg", {"depth": 16, "width": 0.0625, "batch_norm": True, "image": (1, 32, 48)}),
    ("googlenet", {"width": 0.125, "image": (3, 32, 32)}),
    ("googlenet", {"width": 0.125, "batch_norm": True, "image": (1, 40, 33)}),
    ("inception", {"width": 0.1, "image": (3, 75, 75)}),
    ("inception", {"version": 4, "width": 0.1, "classes": 7, "image": (1, 80, 75)}),
    ("nas-bench-201", {"cells": 1, "channels": 4, "image": (1, 8, 8)}),
    ("nas-bench-201", {"arch": "open", "cells": 1, "channels": 4, "image": (1, 8, 8)}),
]

NB201: list[tuple[str, int, int]] = [
    ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", 73_306, 7_783_040),
    ("|skip_connect~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|none~1|none~2|", 73_306, 7_783_040),
    ("|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_1x1~2|", 101_306, 11_715_200),
    ("|none~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|none~2|", 316_346, 43_172_480),
    ("|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|", 129_306, 15_647_360),
    ("|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|", 802_426, 113_951_360),
    ("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|", 1_531_546, 220_119_680),
]  # fmt: skip
"""Architecture, parameters and MACs at CIFAR-10 as the benchmark gives them (arXiv 2001.00326: its params and flops)."""

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
TABLE = "nb201_hw.csv.gz"


def _identify(value: object) -> str | None:
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items()) or "defaults"
    return value if isinstance(value, str) else None


def _text(operations: tuple[str, ...]) -> str:
    texts = iter(operations)
    return "+".join("|" + "".join(f"{next(texts)}~{source}|" for source in range(target)) for target in (1, 2, 3))


def _tiny(arch: str, **arguments: ArgumentValue) -> Graph:
    return prototype("nas-bench-201", arch=arch, cells=2, channels=2, image=(1, 8, 8), **arguments).graph


def _macs_of(graph: Graph, op: type[Conv2d] | type[Dense]) -> int:
    counted = cost(graph).by_name
    return sum(counted[node.name].cost.macs for node in graph.nodes if isinstance(node.op, op))


@pytest.mark.parametrize(("name", "arguments", "params", "giga_macs"), TORCHVISION, ids=_identify)
def test_networks_count_what_torchvision_publishes(
    name: str, arguments: Arguments, params: int, giga_macs: float
) -> None:
    counted = cost(prototype(name, **arguments).graph)
    assert counted.params == params
    assert round(counted.macs / 1e9, 3) == giga_macs


def test_alexnet_counts_what_is_published_of_the_network_of_2012() -> None:
    graph = prototype("alexnet").graph
    assert cost(graph).params == 60_965_224  # 60.965 M: Open Model Zoo (Intel), alexnet, from Caffe's bvlc_alexnet
    assert round(cost(graph).macs / 1e6) == 724  # Sze et al., arXiv 1703.09039, table II
    assert round(_macs_of(graph, Conv2d) / 1e6) == 666  # the same, and Chen et al., ISSCC 2016 (Eyeriss), 14.5
    assert round(_macs_of(graph, Dense) / 1e6, 1) == 58.6


def test_alexnet_keeps_its_two_towers_apart_and_normalizes_before_the_pools() -> None:
    graph = prototype("alexnet").graph
    groups = [node.op.groups for node in graph.nodes if isinstance(node.op, Conv2d)]
    assert groups == [1, 2, 1, 2, 2]
    norms = [node.op for node in graph.nodes if isinstance(node.op, LocalResponseNorm)]
    assert norms == [LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0)] * 2  # alpha / size = 1e-4 (section 3.3)
    expected = {  # NIPS 2012, figure 2, both halves together
        "stage1.conv": (96, 55, 55),
        "stage2.conv": (256, 27, 27),
        "stage5.conv": (256, 13, 13),
        "stage5.pool": (256, 6, 6),
    }
    assert {name: graph.values[name].type.shape[1:] for name in expected} == expected


def test_vgg_convolutions_count_what_is_published() -> None:
    graph = prototype("vgg", depth=16).graph  # Chen et al., ISSCC 2016 (Eyeriss), 14.5: 14.7 M weights, 15.3 G MACs
    assert round(_macs_of(graph, Conv2d) / 1e9, 1) == 15.3
    counted = cost(graph).by_name
    params = sum(counted[node.name].cost.params for node in graph.nodes if isinstance(node.op, Conv2d))
    assert round(params / 1e6, 1) == 14.7


def test_googlenet_counts_what_is_published() -> None:
    counted = cost(prototype("googlenet").graph)
    assert round(counted.params / 1e6, 3) == 6.999  # Open Model Zoo (Intel), googlenet-v1, from Caffe's bvlc_googlenet
    assert counted.operations / 1e9 == pytest.approx(3.266, rel=0.03)  # the same; other counts of norms and pools
    # 5 x 5 convolutions instead of 3 x 3 are all that tells it from torchvision's network in MACs (1.498 G).
    graph = prototype("googlenet").graph
    large = sum(cost(graph).by_name[node.name].cost.macs for node in graph.nodes if node.name.endswith(".conv5"))
    assert round((counted.macs - large * 16 / 25) / 1e9, 3) == 1.498


def test_googlenet_has_the_papers_shapes() -> None:
    graph = prototype("googlenet").graph
    expected = {  # arXiv 1409.4842, table 1
        "stem.conv1": (64, 112, 112),
        "stem.pool1": (64, 56, 56),
        "stem.conv2": (192, 56, 56),
        "stem.pool2": (192, 28, 28),
        "inception3a.concat": (256, 28, 28),
        "inception3b.concat": (480, 28, 28),
        "stage3.pool": (480, 14, 14),
        "inception4e.concat": (832, 14, 14),
        "stage4.pool": (832, 7, 7),
        "inception5b.concat": (1024, 7, 7),
        "head.pool": (1024,),
    }
    assert {name: graph.values[name].type.shape[1:] for name in expected} == expected


def test_inception_version_4_counts_what_is_published() -> None:
    counted = cost(prototype("inception", version=4).graph)
    assert counted.params == 42_679_816  # osmr/imgclsmob, from Cadene's
    assert round(counted.macs / 1e9, 1) == 12.3  # timm, inception_v4.tf_in1k
    assert counted.operations / 1e9 == pytest.approx(24.584, rel=0.001)  # Open Model Zoo (Intel), googlenet-v4-tf


@pytest.mark.parametrize(
    ("version", "expected"),
    [  # tensorflow/models, slim/nets/inception_v3_test.py and inception_v4_test.py
        (3, {1: (64, 147, 147), 2: (64, 73, 73), 3: (192, 71, 71), 4: (192, 35, 35), 5: (256, 35, 35), 6: (288, 35, 35)}),
        (3, {7: (288, 35, 35), 8: (768, 17, 17), 12: (768, 17, 17), 13: (1280, 8, 8), 15: (2048, 8, 8)}),
        (4, {2: (160, 73, 73), 3: (192, 71, 71), 4: (384, 35, 35), 8: (384, 35, 35), 9: (1024, 17, 17)}),
        (4, {16: (1024, 17, 17), 17: (1536, 8, 8), 20: (1536, 8, 8)}),
    ],
)  # fmt: skip
def test_inception_modules_have_the_reference_shapes(version: int, expected: dict[int, tuple[int, ...]]) -> None:
    graph = prototype("inception", version=version).graph
    last = {node.name.partition(".")[0]: node.results[0].type.shape[1:] for node in graph.nodes}
    assert {number: last[f"module{number}"] for number in expected} == expected


@pytest.mark.parametrize(
    ("width", "resolution", "mega_macs", "mega_params"),
    [  # arXiv 1704.04861, tables 6 and 7; the last one tensorflow/models, slim/nets/mobilenet_v1.md
        (1.0, 224, 569, 4.2),
        (0.75, 224, 325, 2.6),
        (0.5, 224, 149, 1.3),
        (0.25, 224, 41, 0.5),
        (1.0, 192, 418, 4.2),
        (1.0, 160, 290, 4.2),
        (1.0, 128, 186, 4.2),
        (0.25, 128, 14, 0.5),
    ],
)
def test_mobilenet_version_1_has_the_papers_figures_at_every_width_and_resolution(
    width: float, resolution: int, mega_macs: int, mega_params: float
) -> None:
    image = (3, resolution, resolution)
    counted = cost(prototype("mobilenet", version=1, width=width, dataset="imagenet", image=image).graph)
    assert abs(counted.macs / 1e6 - mega_macs) < 1
    assert round(counted.params / 1e6, 1) == mega_params


@pytest.mark.parametrize(("arch", "params", "macs"), NB201, ids=_identify)
def test_nas_bench_201_networks_count_what_the_benchmark_does(arch: str, params: int, macs: int) -> None:
    counted = cost(prototype("nas-bench-201", arch=arch).graph)
    assert (counted.params, counted.macs) == (params, macs)


@pytest.mark.data
def test_nas_bench_201_networks_count_what_the_table_says() -> None:
    folder = os.environ.get("GENSYNTH_DATA")
    path = Path(folder or ".") / TABLE
    if folder is None or not path.exists():
        pytest.skip(f"GENSYNTH_DATA names no folder with {TABLE}")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    strata: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in rows:
        strata.setdefault((row["macs_c10_M"], row["params_c10_M"]), []).append(row)
    chosen = [row for stratum in strata.values() for row in stratum[:: -(-len(stratum) // 16)]]
    assert len(strata) == 28  # as many pairs as there are ways to have k 1 x 1 and l 3 x 3 convolutions on six edges
    assert len(chosen) > 300
    for row in chosen:
        counted = cost(prototype("nas-bench-201", arch=row["arch"]).graph)
        assert counted.macs / 1e6 == pytest.approx(float(row["macs_c10_M"]), abs=1e-9), row["arch"]
        assert counted.params / 1e6 == pytest.approx(float(row["params_c10_M"]), abs=1e-9), row["arch"]


def test_the_nas_bench_201_generator_has_six_choices_of_five_operations() -> None:
    graph = nas_bench_201_generator()
    assert {name: info.labels for name, info in graph.choices.items()} == {
        f"edge{source}_{target}": OPERATIONS for source, target in ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    }
    assert all(len(info.nodes) == 15 for info in graph.choices.values())
    assert nas_bench_201_generator() is graph
    assert prototype("nas-bench-201", arch="open").graph == graph


def test_every_network_the_nas_bench_201_generator_emits_is_that_of_its_text() -> None:
    generator = Generator(Network(nas_bench_201_generator(cells=2, channels=2, image=(1, 8, 8))))
    edges = list(generator.graph.choices)
    for seed in range(12):
        decided = generator.decide(seed)
        order = ["edge0_1", "edge0_2", "edge1_2", "edge0_3", "edge1_3", "edge2_3"]
        arch = _text(tuple(OPERATIONS[decided.decisions[edge]] for edge in order))
        assert sorted(order) == sorted(edges)
        assert _tiny(arch) == decided.graph


def test_nas_bench_201_texts_read_back_give_different_networks() -> None:
    arches = {
        _text(operations) for operations in itertools.islice(itertools.product(OPERATIONS, repeat=6), 0, None, 311)
    }
    assert len({to_text(_tiny(arch)) for arch in arches}) == len(arches) == 51


def _run(graph: Graph, weights: dict[str, np.ndarray]) -> np.ndarray:
    image = np.random.default_rng(5).standard_normal(graph.inputs[0].type.sizes(2)).astype(np.float32)
    kept = {name: weights[name] for name in initialize(graph)}
    return run_reference(Network(graph, kept), image)[0]


def _weights(graph: Graph) -> dict[str, np.ndarray]:
    """Weights under which batch norms shift, so that a convolution of zeros does not give zeros."""
    noise = np.random.default_rng(4)
    return {
        name: np.abs(noise.standard_normal(array.shape)).astype(np.float32) + 0.1
        if name.endswith(".variance")
        else noise.standard_normal(array.shape).astype(np.float32) * 0.5
        for name, array in initialize(graph).items()
    }


def test_a_nas_bench_201_cell_computes_what_the_benchmark_defines() -> None:
    graph = _tiny("|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|")
    weights = _weights(graph)
    image = np.random.default_rng(5).standard_normal((2, 1, 8, 8)).astype(np.float32)

    def conv_norm(x: np.ndarray, prefix: str, norm: str, stride: int = 1) -> np.ndarray:
        weight = weights[f"{prefix}.weight"]
        pad = weight.shape[2] // 2
        x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
        y = np.einsum("ncijuv,ocuv->noij", windows, weight)
        scale, bias, mean, variance = (
            weights[f"{norm}.{part}"][:, None, None] for part in ("scale", "bias", "mean", "variance")
        )
        return (y - mean) / np.sqrt(variance + 1e-5) * scale + bias

    def average(x: np.ndarray) -> np.ndarray:
        def total(values: np.ndarray) -> np.ndarray:
            padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
            return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3)).sum(axis=(4, 5))

        return total(x) / total(np.ones_like(x))

    def cell(x: np.ndarray, scope: str) -> np.ndarray:
        first = conv_norm(np.maximum(x, 0), f"{scope}.edge0_1.conv", f"{scope}.edge0_1")
        second = 0.0 * x + average(first)
        return x + 0.0 * first + conv_norm(np.maximum(second, 0), f"{scope}.edge2_3.conv", f"{scope}.edge2_3")

    def reduction(x: np.ndarray, scope: str) -> np.ndarray:
        y = conv_norm(np.maximum(x, 0), f"{scope}.first_conv", f"{scope}.first_norm", stride=2)
        y = conv_norm(np.maximum(y, 0), f"{scope}.second_conv", f"{scope}.second_norm")
        pooled = (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
        return y + np.einsum("ncij,oc->noij", pooled, weights[f"{scope}.shortcut_conv.weight"][:, :, 0, 0])

    x = conv_norm(image, "stem.conv", "stem.norm")
    for stage in (1, 2, 3):
        if stage > 1:
            x = reduction(x, f"reduction{stage - 1}")
        for index in (1, 2):
            x = cell(x, f"stage{stage}.cell{index}")
    scale, bias, mean, variance = (
        weights[f"last.norm.{part}"][:, None, None] for part in ("scale", "bias", "mean", "variance")
    )
    x = np.maximum((x - mean) / np.sqrt(variance + 1e-5) * scale + bias, 0).mean(axis=(2, 3))
    expected = x @ weights["head.logits.weight"].T + weights["head.logits.bias"]
    found = _run(graph, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


ZEROS = [
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|",
    "|none~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|",
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|none~1|none~2|",
    "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|",
    "|none~0|+|skip_connect~0|nor_conv_3x3~1|+|none~0|nor_conv_1x1~1|avg_pool_3x3~2|",
]


@pytest.mark.parametrize("arch", ZEROS)
def test_removing_what_is_dead_changes_no_bit_of_the_result(arch: str) -> None:
    kept, removed = _tiny(arch), _tiny(arch, dead="removed")
    assert len(removed.nodes) < len(kept.nodes)
    assert set(initialize(removed)) <= set(initialize(kept))
    weights = _weights(kept)
    assert np.array_equal(_run(kept, weights), _run(removed, weights))


def test_removing_what_is_dead_leaves_nothing_that_only_feeds_zeros() -> None:
    kept = _tiny("|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|none~1|none~2|")
    removed = _tiny("|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|none~1|none~2|", dead="removed")
    assert sum(isinstance(node.op, Conv2d) for node in kept.nodes) == 1 + 6 * 2 + 6
    assert sum(isinstance(node.op, Conv2d) for node in removed.nodes) == 1 + 6
    assert not any(isinstance(node.op, (Pad, Split)) for node in removed.nodes)


def test_removing_what_is_dead_keeps_convolutions_of_zeros_whose_norms_shift() -> None:
    removed = _tiny("|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|", dead="removed")
    names = {node.name for node in removed.nodes}
    assert {f"stage{stage}.cell2.edge2_3.conv" for stage in (1, 2, 3)} <= names
    assert not any(name.startswith(f"stage{stage}.cell1.edge2_3") for stage in (1, 2, 3) for name in names)


def test_a_network_without_zeros_is_left_as_it_is() -> None:
    arch = _text(("nor_conv_3x3", "avg_pool_3x3", "skip_connect", "nor_conv_1x1", "skip_connect", "avg_pool_3x3"))
    assert _tiny(arch, dead="removed") == _tiny(arch)


@pytest.mark.parametrize(("name", "arguments"), SMALL, ids=_identify)
def test_every_prototype_verifies_and_round_trips(name: str, arguments: Arguments) -> None:
    graph = prototype(name, **arguments).graph
    verify(graph)
    text = to_text(graph)
    assert parse(text) == graph
    assert to_text(parse(text)) == text
    classes = arguments.get("classes", 10 if name == "nas-bench-201" else 1000)
    assert [value.type.text for value in graph.outputs] == [f"f32[N, {classes}]"]


@pytest.mark.parametrize(
    ("name", "arguments"), [(n, a) for n, a in SMALL if a.get("arch") != "open"] + [("squeezenet", {})], ids=_identify
)
def test_pytorch_computes_what_the_reference_does(name: str, arguments: Arguments) -> None:
    import torch

    from gensynth.backends.torch import to_torch

    network = prototype(name, **arguments)
    network = Network(network.graph, initialize(network.graph))
    image = np.random.default_rng(0).standard_normal(network.graph.inputs[0].type.sizes(2)).astype(np.float32)
    with torch.no_grad():
        found = to_torch(network).eval()(torch.from_numpy(image)).numpy()
    (wanted,) = run_reference(network, image)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(np.abs(wanted).max()))


def test_the_page_of_prototypes_states_what_they_count() -> None:
    page = (Path(__file__).parents[2] / "docs" / "prototypes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| ([\d,]+) \| ([\d,]+) \|", page, re.MULTILINE)
    assert len(rows) > 20
    for text, params, macs in rows:
        name, *arguments = text.split()
        counted = cost(prototype(name, **parse_arguments(name, arguments)).graph)
        assert (f"{counted.params:,}", f"{counted.macs:,}") == (params, macs), text


def test_widths_scale_parameters_and_stay_multiples_of_8() -> None:
    for name in ("alexnet", "vgg", "googlenet"):
        full, half = (cost(prototype(name, width=width).graph) for width in (1.0, 0.5))
        assert 0.2 < half.params / full.params < 0.35
        graph = prototype(name, width=0.3).graph
        assert all(node.op.channels % 8 == 0 for node in graph.nodes if isinstance(node.op, Conv2d))


def test_a_generator_of_nas_bench_201_can_be_materialized_by_a_pass() -> None:
    network = Network(nas_bench_201_generator(cells=1, channels=4, image=(3, 8, 8)))
    emitted = run_pipeline(network, "materialize{seed=3}")
    assert not emitted.graph.is_generator
    assert emitted.graph == Generator(network).decide(3).graph


def test_pools_of_googlenet_round_up() -> None:
    pools = [node.op for node in prototype("googlenet").graph.nodes if isinstance(node.op, MaxPool)]
    assert [pool.kernel for pool in pools if pool.stride == 2] == [3, 3, 3, 3]
    assert all(pool.ceil for pool in pools if pool.stride == 2)
    bent = prototype("googlenet", batch_norm=True).graph
    assert [n.op.kernel for n in bent.nodes if isinstance(n.op, MaxPool) and n.op.stride == 2] == [3, 3, 3, 2]
    assert not any(isinstance(node.op, (LocalResponseNorm, AvgPool)) for node in bent.nodes)


def test_an_architecture_can_be_given_on_the_command_line() -> None:
    text = NB201[4][0]
    assert parse_arguments("nas-bench-201", [f"arch={text}", "dead=removed"]) == {"arch": text, "dead": "removed"}


@pytest.mark.parametrize(
    ("name", "arguments", "message", "hint"),
    [
        ("alexnet", {"towers": 3}, "towers=3 is not 1 or 2", "1 that of torchvision"),
        ("alexnet", {"width": 0.0}, "width=0 is not between", "published width"),
        ("alexnet", {"image": (3, 32, 32)}, "cannot be built with image=3x32x32", "larger image"),
        ("vgg", {"depth": 17}, "depth=17 is not one of 11, 13, 16, 19", "16 and 19"),
        ("vgg", {"classes": 0}, "classes must be at least 1", "number of classes"),
        ("vgg", {"image": (3, 16, 16)}, "cannot be built with image=3x16x16", "larger image"),
        ("googlenet", {"width": 9.0}, "width=9 is not between", "published width"),
        ("inception", {"version": 1}, "version=1 is not 3 or 4", "1 is googlenet"),
        ("inception", {"image": (3, 64, 64)}, "cannot be built with image=3x64x64", "larger image"),
        ("nas-bench-201", {"arch": "|none~0|"}, "has 1 nodes, not 3", "write |OP~0|+"),
        ("nas-bench-201", {"arch": "|none~0|+|none~0|+|none~0|none~1|none~2|"}, "for each of the nodes 0 to 1", "|OP"),
        ("nas-bench-201", {"arch": "|none~0|+|none~1|none~0|+|none~0|none~1|none~2|"}, "nodes 0 to 1", "|OP~0|OP~1|"),
        ("nas-bench-201", {"arch": "none~0+|none~0|none~1|+|none~0|none~1|none~2|"}, "nodes 0 to 0", "|OP~0|"),
        (
            "nas-bench-201",
            {"arch": "|none~0|+|none~0|nor_conv_3x4~1|+|none~0|none~1|none~2|"},
            "unknown operation 'nor_conv_3x4'",
            "did you mean 'nor_conv_3x3'?",
        ),
        ("nas-bench-201", {"arch": "open", "dead": "removed"}, "dead=removed goes with an architecture", "leave it"),
        ("nas-bench-201", {"image": (3, 30, 32)}, "30 x 32 cannot be halved twice", "multiples of 4"),
        ("nas-bench-201", {"cells": 0}, "cells must be at least 1", "5 is the published"),
        ("nas-bench-201", {"channels": 0}, "channels must be at least 1", "16 is the published"),
    ],
    ids=_identify,
)
def test_arguments_that_do_not_go_together_are_refused(
    name: str, arguments: Arguments, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        prototype(name, **arguments)
    assert message in caught.value.message
    assert f"'{name}'" in caught.value.message
    assert hint in (caught.value.hint or "")
