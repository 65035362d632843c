"""Receptive fields, by hand and against what the reference shows."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from gensynth.backends.reference import reference_values
from gensynth.ir import Builder, Graph, Network, Op, parse
from gensynth.ir.ops import Add, AvgPool, Conv2d, ConvTranspose2d, GlobalAvgPool, MaxPool, Pad, Resize
from gensynth.passes.analyses import Field, receptive_fields


def chain(*ops: Op, size: int = 16) -> Graph:
    b = Builder("chain")
    x = b.input("image", (1, size, size))
    for index, op in enumerate(ops):
        x = b.emit(op, x, name=f"layer{index}")
    b.output(x)
    return b.build()


def test_windows_grow_the_field_by_their_span_times_the_jump() -> None:
    fields = receptive_fields(
        chain(
            Conv2d(channels=1, kernel=(3, 1), stride=2, padding=(1, 0)),
            Conv2d(channels=1, kernel=3, dilation=2, padding=2),
            MaxPool(kernel=2),
        )
    )
    last = fields["layer2"]
    assert last is not None
    assert last.height == Field(Fraction(3 + 4 * 2 + 1 * 2), Fraction(4), Fraction(-1 - 2 * 2))
    assert last.width == Field(Fraction(1 + 4 * 2 + 1 * 2), Fraction(4), Fraction(-2 * 2))


def test_an_add_sees_what_either_operand_sees() -> None:
    b = Builder("skip")
    x = b.input("image", (1, 8, 8))
    y = b.emit(Conv2d(channels=1, kernel=5, padding=2), x)
    b.output(b.emit(Add(), x, y, name="sum"))
    found = receptive_fields(b.build())["sum"]
    assert found is not None
    assert found.height == Field(Fraction(5), Fraction(1), Fraction(-2))


def test_behind_a_global_pool_there_is_no_field() -> None:
    fields = receptive_fields(chain(Conv2d(channels=1, kernel=3), GlobalAvgPool(keep=True), Resize(size=4)))
    assert fields["layer0"] is not None
    assert fields["layer1"] is None and fields["layer2"] is None


@pytest.mark.parametrize(
    "ops",
    [
        (Conv2d(channels=1, kernel=3, stride=2, padding="same"), AvgPool(kernel=3, stride=2, padding=1)),
        (Pad(padding=2), Conv2d(channels=1, kernel=3)),
        (Conv2d(channels=1, kernel=2, stride=2), ConvTranspose2d(channels=1, kernel=3, stride=2)),
        (ConvTranspose2d(channels=1, kernel=2, stride=2), Conv2d(channels=1, kernel=3, padding="same")),
        (AvgPool(kernel=2), Resize(scale=3), Conv2d(channels=1, kernel=3)),
        (Resize(size=10),),
        (AvgPool(kernel=2), Resize(scale=2, mode="bilinear")),
        (Resize(size=11, mode="bilinear", align_corners=True), Conv2d(channels=1, kernel=3)),
    ],
)
def test_no_pixel_outside_the_field_moves_an_element(ops: tuple[Op, ...]) -> None:
    graph = chain(*ops)
    name = f"layer{len(ops) - 1}"
    field = receptive_fields(graph)[name]
    assert field is not None
    ones = {
        f"layer{i}.weight": np.ones(p.shape, np.float32)
        for i, op in enumerate(ops)
        for p in op.parameters(graph.nodes[i].operand_types)
        if p.name == "weight"
    }
    network = Network(graph, ones)
    columns = np.eye(16, dtype=np.float32)[:, None, None, :].repeat(16, axis=2)
    moved = np.abs(reference_values(network, columns)[name]).sum(axis=(1, 2))
    widest = 0
    for element in range(moved.shape[1]):
        seen = np.flatnonzero(moved[:, element])
        if len(seen):
            start = field.width.start + element * field.width.jump
            assert start <= seen[0] and seen[-1] < start + field.width.size
            widest = max(widest, int(seen[-1] - seen[0]) + 1)
    assert widest > field.width.size - 3


def test_inputs_that_are_no_images_have_no_field() -> None:
    graph = parse("gensynth 1\n\nnetwork @n(%x: f32[N, 8]) -> f32[N, 8] {\n  %y = relu(%x)\n  return %y\n}\n")
    assert receptive_fields(graph) == {"x": None, "y": None}
