"""FBNet: published parameters and MACs, a count by hand, and the function that its definition gives."""

from __future__ import annotations

import csv
import gzip
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gensynth.backends.reference import run_reference
from gensynth.ir import Network, UsageError, initialize, parse, to_text, verify
from gensynth.passes.cost import cost
from gensynth.synth.generator import Generator
from gensynth.synth.prototypes import fbnet_generator, parse_arguments, prototype

FBNET_A = "8208872427657356177677"
FBNET_C = "0380076737677777677773"
TABLE = "fbnet_hw.csv.gz"

LABELS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
WIDTHS = [16] + [24] * 4 + [32] * 4 + [64] * 4 + [112] * 4 + [184] * 4 + [352]
DOWN = {"imagenet": (1, 5, 9, 17), "cifar": (5, 9, 17)}
FORMS = {"imagenet": (224, 1000, 1984, 2), "cifar": (32, 100, 1504, 1)}
"""Resolution, classes, width of the last convolution and stride of the stem, as HW-NAS-Bench has them."""


def _arches(count: int, seed: int) -> Iterator[str]:
    source = random.Random(seed)
    for _ in range(count):
        yield "".join(source.choice("012345678") for _ in range(22))


def _parts(digit: str) -> tuple[int, int, int]:
    """Kernel, expansion and groups that a label names."""
    kernel, expansion, *groups = LABELS[int(digit)].split("_")
    return int(kernel[1:]), int(expansion[1:]), int(groups[0][1:]) if groups else 1


def _counted_by_hand(arch: str, dataset: str) -> tuple[int, int]:
    """Parameters and MACs from the tables of the definition: a conv with batch norm is one term."""
    size, classes, last, stem = FORMS[dataset]
    pixels, before = (size // stem) ** 2, 16
    params, macs = 27 * 16 + 2 * 16, 27 * 16 * pixels
    for layer, (digit, width) in enumerate(zip(arch, WIDTHS, strict=True)):
        down = layer in DOWN[dataset]
        smaller = pixels // 4 if down else pixels
        if digit == "8":
            if down or width != before:
                params += before * width + 2 * width
                macs += before * width * smaller
        else:
            kernel, expansion, groups = _parts(digit)
            hidden = before * expansion
            params += before * hidden // groups + kernel**2 * hidden + hidden * width // groups + 4 * hidden + 2 * width
            macs += before * hidden // groups * pixels + (kernel**2 * hidden + hidden * width // groups) * smaller
        pixels, before = smaller, width
    params += 352 * last + 2 * last + (last + 1) * classes
    macs += 352 * last * pixels + last * classes
    return params, macs


def test_fbnet_c_counts_what_is_published() -> None:
    counted = cost(prototype("fbnet", arch=FBNET_C, dataset="imagenet").graph)
    assert counted.params == 5_572_200  # osmr/imgclsmob, from timm's fbnetc_100
    # facebookresearch/mobile-vision, README: 383.0 M, those of the dense layer left out
    assert round((counted.macs - 1984 * 1000) / 1e6, 1) == 383.0


def test_fbnet_a_counts_about_what_is_published() -> None:
    counted = cost(prototype("fbnet", arch=FBNET_A, dataset="imagenet").graph)
    # facebookresearch/mobile-vision: 249.4 M and 4.3 M, with 1504 channels at the end and biases in the blocks
    macs = counted.macs - 1984 * 1000 - 480 * 352 * 7 * 7
    assert macs / 1e6 == pytest.approx(249.4, rel=0.005)
    assert round((counted.params - 480 * (352 + 2 + 1000)) / 1e6, 1) == 4.3


@pytest.mark.parametrize("dataset", ["cifar", "imagenet"])
def test_networks_count_what_the_definition_gives_by_hand(dataset: str) -> None:
    same = [str(digit) * 22 for digit in range(9)]
    for arch in (*same, FBNET_A, FBNET_C, *_arches(40, seed=1)):
        counted = cost(prototype("fbnet", arch=arch, dataset=dataset).graph)
        assert (counted.params, counted.macs) == _counted_by_hand(arch, dataset), arch


def test_the_resolutions_are_those_of_the_papers_table() -> None:
    graph = prototype("fbnet", arch="7" * 22, dataset="imagenet").graph
    expected = {  # arXiv 1812.03443, table 1
        "stem.act": (16, 112, 112),
        "stage1.layer1": (16, 112, 112),
        "stage2.layer4": (24, 56, 56),
        "stage3.layer4": (32, 28, 28),
        "stage4.layer4": (64, 14, 14),
        "stage5.layer4": (112, 14, 14),
        "stage6.layer4": (184, 7, 7),
        "stage7.layer1": (352, 7, 7),
        "last.act": (1984, 7, 7),
        "head.logits": (1000,),
    }
    assert {name: graph.values[name].type.shape[1:] for name in expected} == expected


def test_the_generator_has_22_choices_of_nine_operations() -> None:
    graph = fbnet_generator()
    layers = zip((1, 4, 4, 4, 4, 4, 1), range(1, 8), strict=True)
    names = [f"stage{stage}.layer{layer}" for count, stage in layers for layer in range(1, count + 1)]
    assert {name: info.labels for name, info in graph.choices.items()} == dict.fromkeys(names, LABELS)
    assert fbnet_generator() is graph
    assert prototype("fbnet", arch="open").graph == graph
    verify(graph)
    assert parse(to_text(graph)) == graph


def test_every_network_that_the_generator_emits_is_that_of_its_digits() -> None:
    generator = Generator(Network(fbnet_generator(dataset="imagenet", image=(3, 64, 64))))
    for seed in range(12):
        decided = generator.decide(seed)
        arch = "".join(str(decided.decisions[choice]) for choice in generator.graph.choices)
        assert prototype("fbnet", arch=arch, dataset="imagenet", image=(3, 64, 64)).graph == decided.graph


def test_digits_give_different_networks() -> None:
    arches = {*_arches(50, seed=2), *(FBNET_C[:layer] + "4" + FBNET_C[layer + 1 :] for layer in range(22))}
    assert len({to_text(prototype("fbnet", arch=arch).graph) for arch in arches}) == len(arches)


def test_a_skip_that_changes_nothing_is_nothing() -> None:
    graph = prototype("fbnet", arch="8" * 22).graph
    changed = {f"stage{stage}.layer1" for stage in range(2, 8)}  # no stride in stage 5 and 7, but another width
    assert {node.name.rpartition(".")[0] for node in graph.nodes if "skip" in node.name} == changed
    assert not any(node.name.startswith("stage1") for node in graph.nodes)


@pytest.mark.parametrize("arch", ["0376276183245518010454", "1555832674118040510480", "8888888888888888888888"])
@pytest.mark.parametrize("dataset", ["cifar", "imagenet"])
def test_a_network_computes_what_the_definition_says(arch: str, dataset: str) -> None:
    import torch
    from torch.nn import functional

    sizes = (3, 16, 18) if dataset == "cifar" else (3, 32, 36)
    graph = prototype("fbnet", arch=arch, dataset=dataset, classes=7, image=sizes).graph
    noise = np.random.default_rng(4)
    weights = {
        name: (np.abs(noise.standard_normal(array.shape)) + 0.5).astype(np.float32)
        if name.endswith(".variance")
        else array + 0.1 * noise.standard_normal(array.shape).astype(np.float32)
        for name, array in initialize(graph).items()
    }
    image = noise.standard_normal((2, *sizes)).astype(np.float32)
    left = iter(weights.items())  # in the order of the nodes

    def take(part: str) -> torch.Tensor:
        name, array = next(left)
        assert name.endswith(f".{part}"), name
        return torch.from_numpy(array)

    def conv_norm(x: torch.Tensor, kernel: int, stride: int = 1, groups: int = 1) -> torch.Tensor:
        x = functional.conv2d(x, take("weight"), stride=stride, padding=kernel // 2, groups=groups)
        scale, bias, mean, variance = (take(part) for part in ("scale", "bias", "mean", "variance"))
        return functional.batch_norm(x, mean, variance, scale, bias)

    def layer(x: torch.Tensor, digit: str, width: int, stride: int) -> torch.Tensor:
        same = stride == 1 and width == x.shape[1]
        if digit == "8":
            return x if same else conv_norm(x, 1, stride).relu()
        kernel, _, groups = _parts(digit)
        y = conv_norm(x, 1, groups=groups).relu()
        n, c, h, w = y.shape
        if groups > 1:
            y = y.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        y = conv_norm(conv_norm(y, kernel, stride, groups=c).relu(), 1, groups=groups)
        return x + y if same else y

    x = conv_norm(torch.from_numpy(image), 3, FORMS[dataset][3]).relu()
    for index, (digit, width) in enumerate(zip(arch, WIDTHS, strict=True)):
        x = layer(x, digit, width, 2 if index in DOWN[dataset] else 1)
    x = conv_norm(x, 1).relu().mean(dim=(2, 3))
    expected = functional.linear(x, take("weight"), take("bias")).numpy()
    assert next(left, None) is None
    (found,) = run_reference(Network(graph, weights), image)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.data
def test_every_network_of_the_table_is_one_of_the_space() -> None:
    folder = os.environ.get("GENSYNTH_DATA")
    path = Path(folder or ".") / TABLE
    if folder is None or not path.exists():
        pytest.skip(f"GENSYNTH_DATA names no folder with {TABLE}")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        arches = [row["arch"] for row in csv.DictReader(stream)]
    counted = [cost(prototype("fbnet", arch=arch).graph) for arch in arches[::20]]
    assert [(found.params, found.macs) for found in counted] == [
        _counted_by_hand(arch, "cifar") for arch in arches[::20]
    ]


def test_digits_can_be_given_on_the_command_line() -> None:
    assert parse_arguments("fbnet", ["arch=0" + "1" * 21]) == {"arch": "0" + "1" * 21}


@pytest.mark.parametrize("arch", ["0" * 21, "0" * 23, "9" + "0" * 21, "", "k3_e1", "OPEN"])
def test_a_text_that_is_no_architecture_is_refused_with_the_digits(arch: str) -> None:
    with pytest.raises(UsageError) as caught:
        prototype("fbnet", arch=arch)
    assert f"arch '{arch}' is not 22 digits from 0 to 8" in caught.value.message
    assert "0 k3_e1, 1 k3_e1_g2" in (caught.value.hint or "")
    assert "8 skip; or open" in (caught.value.hint or "")
