"""The zoo: published parameters and MACs, round trips, and arguments."""

from __future__ import annotations

import pytest

from gensynth.ir import Builder, Graph, UsageError, initialize, parse, to_text, verify
from gensynth.ir.ops import Dense, GlobalAvgPool
from gensynth.passes.cost import cost
from gensynth.synth.prototypes import ArgumentValue, Image, parse_arguments, prototype, prototypes, register_prototype

Arguments = dict[str, ArgumentValue]

TORCHVISION: list[tuple[str, Arguments, int, float]] = [
    ("resnet", {"depth": 18}, 11_689_512, 1.814),
    ("resnet", {"depth": 34}, 21_797_672, 3.664),
    ("resnet", {"depth": 50}, 25_557_032, 4.089),
    ("resnet", {"depth": 101}, 44_549_160, 7.801),
    ("resnet", {"depth": 152}, 60_192_808, 11.514),
    ("mobilenet", {"version": 2}, 3_504_872, 0.301),
    ("shufflenet", {"width": 0.5}, 1_366_792, 0.04),
    ("shufflenet", {"width": 1.0}, 2_278_604, 0.145),
    ("shufflenet", {"width": 1.5}, 3_503_624, 0.296),
    ("shufflenet", {"width": 2.0}, 7_393_996, 0.583),
    ("squeezenet", {"version": 1.0}, 1_248_424, 0.819),
    ("squeezenet", {"version": 1.1}, 1_235_496, 0.349),
]
"""Name, arguments, parameters and G MACs that torchvision 0.28 publishes with its weights (`num_params`, `_ops`)."""

SMALL: list[tuple[str, Arguments]] = [
    ("lenet", {}),
    ("lenet", {"pool": "max", "classes": 3}),
    ("resnet", {"depth": 8, "image": (1, 8, 8)}),
    ("resnet", {"depth": 14, "shortcut": "pad", "width": 4}),
    ("resnet", {"depth": 50, "dataset": "imagenet", "image": (3, 64, 64)}),
    ("mobilenet", {"version": 1, "width": 0.25}),
    ("mobilenet", {"width": 0.5, "image": (1, 28, 28)}),
    ("shufflenet", {"version": 1, "groups": 8}),
    ("shufflenet", {"width": 0.5, "image": (3, 31, 33)}),
    ("squeezenet", {"version": 1.0}),
    ("squeezenet", {"classes": 100}),
    ("nasnet-a", {"cells": 1, "filters": 96}),
]


def _identify(value: object) -> str | None:
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items()) or "defaults"
    return value if isinstance(value, str) else None


@pytest.mark.parametrize(("name", "arguments", "params", "giga_macs"), TORCHVISION, ids=_identify)
def test_imagenet_forms_count_what_torchvision_publishes(
    name: str, arguments: Arguments, params: int, giga_macs: float
) -> None:
    counted = cost(prototype(name, dataset="imagenet", **arguments).graph)
    assert counted.params == params
    assert round(counted.macs / 1e9, 3) == giga_macs


@pytest.mark.parametrize(
    ("groups", "width", "params"),
    [
        (1, 1.0, 1_531_936),
        (2, 1.0, 1_733_848),
        (3, 1.0, 1_865_728),
        (4, 1.0, 1_968_344),
        (8, 1.0, 2_434_768),
        (3, 0.5, 718_324),
        (3, 0.25, 305_902),
    ],
)
def test_shufflenet_version_1_counts_what_imgclsmob_publishes(groups: int, width: float, params: int) -> None:
    graph = prototype("shufflenet", version=1, groups=groups, width=width, dataset="imagenet").graph
    assert cost(graph).params == params


def test_shufflenet_version_1_stays_near_140_million_macs() -> None:
    for groups in (1, 2, 3, 4, 8):  # arXiv 1707.01083, table 1: 143, 140, 137, 133, 137
        assert 133e6 < cost(prototype("shufflenet", version=1, groups=groups, dataset="imagenet").graph).macs < 144e6


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_resnets_have_the_papers_parameters(depth: int, millions: float) -> None:
    counted = cost(prototype("resnet", depth=depth, shortcut="pad").graph)  # arXiv 1512.03385, table 6
    assert round(counted.params / 1e6, 1 if depth == 110 else 2) == millions


def test_mobilenet_version_1_has_the_papers_macs_and_keras_parameters() -> None:
    counted = cost(prototype("mobilenet", version=1, dataset="imagenet").graph)
    assert counted.params == 4_231_976
    assert round(counted.macs / 1e6) == 569


def test_lenet_has_the_parameters_of_the_textbook() -> None:
    counted = cost(prototype("lenet").graph)
    assert (counted.params, counted.macs) == (61_706, 416_520)


def test_nasnet_6_at_768_has_the_papers_parameters_and_the_reference_shapes() -> None:
    graph = prototype("nasnet-a").graph
    assert round(cost(graph).params / 1e6, 1) == 3.3
    expected = {  # tensorflow/models, slim/nets/nasnet/nasnet_test.py
        "stem.norm": (96, 32, 32),
        "stack1.cell1.concat": (192, 32, 32),
        "stack1.cell6.concat": (192, 32, 32),
        "reduction1.concat": (256, 16, 16),
        "stack2.cell1.concat": (384, 16, 16),
        "reduction2.concat": (512, 8, 8),
        "stack3.cell6.concat": (768, 8, 8),
    }
    assert {name: graph.values[name].type.shape[1:] for name in expected} == expected


@pytest.mark.parametrize(("name", "arguments"), SMALL, ids=_identify)
def test_every_prototype_verifies_and_round_trips(name: str, arguments: Arguments) -> None:
    graph = prototype(name, **arguments).graph
    verify(graph)
    text = to_text(graph)
    assert parse(text) == graph
    assert to_text(parse(text)) == text
    classes = arguments.get("classes", 1000 if arguments.get("dataset") == "imagenet" else 10)
    assert [value.type.text for value in graph.outputs] == [f"f32[N, {classes}]"]


def test_a_prototype_has_no_weights_and_takes_fresh_ones() -> None:
    network = prototype("resnet", depth=8, image=(1, 8, 8))
    assert network.weights is None
    assert initialize(network.graph)["stem.conv.weight"].shape == (16, 1, 3, 3)


def test_zero_padded_shortcuts_need_no_parameters() -> None:
    padded, projected = (prototype("resnet", depth=8, shortcut=kind).graph for kind in ("pad", "projection"))
    assert cost(projected).params - cost(padded).params == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert padded.values["stage2.block1.shortcut"].type == projected.values["stage2.block1.shortcut_norm"].type


def test_the_list_names_every_family_with_its_arguments() -> None:
    listed = {found.name: found for found in prototypes()}
    assert {"lenet", "resnet", "mobilenet", "shufflenet", "squeezenet", "nasnet-a"} <= set(listed)
    for found in listed.values():
        assert found.description.endswith(".")
        assert {"classes", "image"} <= set(found.arguments)
    assert listed["resnet"].usage.startswith("depth=20 dataset=cifar width=...")
    assert listed["lenet"].usage == "classes=10 image=1x32x32 pool=average"


def test_command_line_arguments_are_read_by_their_annotations() -> None:
    assert parse_arguments("resnet", ["depth=8", "image=1x8x8", "shortcut=pad"]) == {
        "depth": 8,
        "image": (1, 8, 8),
        "shortcut": "pad",
    }
    assert parse_arguments("mobilenet", ["width=1"]) == {"width": 1.0}
    assert parse_arguments("lenet", []) == {}


@pytest.mark.parametrize(
    ("name", "arguments", "message", "hint"),
    [
        ("resnett", [], "unknown prototype 'resnett'", "did you mean 'resnet'?"),
        ("resnet", ["dept=8"], "'resnet' has no argument 'dept'", "did you mean 'depth'?"),
        ("resnet", ["dept=8"], "'resnet' has no argument 'dept'", "depth=20"),
        ("resnet", ["depth"], "cannot read 'depth'", "write key=value"),
        ("resnet", ["depth=8", "depth=20"], "'depth' is given twice", "give it once"),
        ("resnet", ["depth=many"], "depth: expected a whole number, got many", "arguments: depth=20"),
        ("resnet", ["image=8x8"], "image: expected channels x height x width", "arguments"),
        ("resnet", ["image=0x8x8"], "image: expected channels x height x width", "arguments"),
        ("resnet", ["dataset=cifar10"], "dataset: expected one of cifar, imagenet", "did you mean 'cifar'?"),
        ("mobilenet", ["width=wide"], "width: expected a number, got wide", "arguments"),
    ],
)
def test_bad_argument_texts_are_refused_with_a_remedy(name: str, arguments: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arguments(name, arguments)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet", {"depth": 9}, "depth=9 is not 6n + 2"),
        ("resnet", {"depth": 20, "dataset": "imagenet"}, "depth=20 is not one of 18, 34, 50"),
        ("resnet", {"width": 0}, "width must be at least 1"),
        ("resnet", {"classes": 0}, "classes must be at least 1"),
        ("resnet", {"depth": "20"}, "depth: expected a whole number"),
        ("resnet", {"image": (3, 32)}, "image: expected channels x height x width"),
        ("resnet", {"layers": 3}, "has no argument 'layers'"),
        ("lenet", {"image": (1, 8, 8)}, "cannot be built with image=1x8x8"),
        ("mobilenet", {"version": 3}, "version=3 is not 1 or 2"),
        ("mobilenet", {"width": 0.0}, "width=0 is not between"),
        ("shufflenet", {"groups": 3}, "groups goes with version=1"),
        ("shufflenet", {"version": 1, "groups": 5}, "groups=5 is not one of"),
        ("shufflenet", {"version": 1, "width": 0.3}, "width=0.3 leaves widths"),
        ("shufflenet", {"width": 0.7}, "width=0.7 is not one of"),
        ("squeezenet", {"version": 2}, "version=2 is not 1.0 or 1.1"),
        ("nasnet-a", {"filters": 100}, "filters=100 is not a multiple of 48"),
        ("nasnet-a", {"cells": 0}, "cells must be at least 1"),
        ("nasnet-a", {"image": (3, 30, 30)}, "cannot be halved"),
    ],
    ids=_identify,
)
def test_arguments_that_do_not_go_together_are_refused(name: str, arguments: Arguments, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        prototype(name, **arguments)
    assert message in caught.value.message
    assert f"'{name}'" in caught.value.message
    assert caught.value.hint


def test_another_package_can_register_a_prototype(monkeypatch: pytest.MonkeyPatch) -> None:
    from gensynth.synth.prototypes import registry

    monkeypatch.setattr(registry, "_registry", dict(registry._registry))

    @register_prototype("linear")
    def linear(*, classes: int = 10, image: Image = (3, 32, 32)) -> Graph:
        """A linear classifier of mean colours."""
        builder = Builder("linear")
        value = builder.emit(GlobalAvgPool(), builder.input("image", image), name="pool")
        builder.output(builder.emit(Dense(features=classes), value, name="logits"))
        return builder.build()

    assert cost(prototype("linear", **parse_arguments("linear", ["classes=2"])).graph).params == 8
    with pytest.raises(UsageError, match="registered already"):
        register_prototype("resnet")(linear)


def test_an_argument_that_no_text_can_give_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from gensynth.synth.prototypes import registry

    monkeypatch.setattr(registry, "_registry", dict(registry._registry))

    @register_prototype("strange")
    def strange(*, widths: list[int]) -> Graph:
        """A function whose argument has no text form."""
        raise NotImplementedError

    with pytest.raises(UsageError, match="cannot read argument 'widths'"):
        prototype("strange", widths=3)
