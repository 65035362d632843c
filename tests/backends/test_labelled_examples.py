"""Labelled examples: what they accept, and what they say of what they refuse."""

import subprocess
import sys

import numpy as np
import pytest

from gensynth.backends import Examples
from gensynth.backends.examples import Normalization
from gensynth.ir import DataError


def test_a_subset_keeps_inputs_and_labels_together():
    examples = Examples(np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3), np.arange(4))
    chosen = examples.subset([2, 0])
    assert len(chosen) == 2
    assert chosen.labels.tolist() == [2, 0]
    assert chosen.inputs[:, 0, 0, 0].tolist() == [6.0, 0.0]


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (np.zeros((2, 3)), np.zeros(2, np.int64), "inputs are float64"),
        (np.zeros((2, 3), np.float32), np.zeros(2, np.int32), "labels are int32"),
        (np.zeros((2, 3), np.float32), np.zeros(3, np.int64), "2 inputs and 3 labels"),
        (np.zeros((0, 3), np.float32), np.zeros(0, np.int64), "no examples"),
        (np.zeros((2, 3), np.float32), np.array([0, -1]), "label -1 at index 1"),
        (np.array([[0.0], [np.nan]], np.float32), np.zeros(2, np.int64), "input 1 holds a NaN"),
        (np.zeros((2, 3), np.float32), np.zeros((2, 1), np.int64), "shape [2, 3] and labels [2, 1]"),
        ([[1.0]], np.zeros(1, np.int64), "inputs are a list"),
    ],
)
def test_examples_that_make_no_sense_are_refused_with_a_remedy(inputs, labels, message):
    with pytest.raises(DataError) as raised:
        Examples(inputs, labels)
    assert message in raised.value.message
    assert raised.value.hint


PIXELS, IMAGES = np.zeros((2, 3, 8, 8), np.uint8), np.zeros((2, 3, 8, 8), np.float32)
BOX = [1.0, 2.0, 5.0, 6.0, 0.0]


def boxes(*rows):
    return np.array([rows] * 2, np.float32)


def test_labels_are_classes_masks_or_boxes():
    normalization = Normalization((1.0, 2.0, 3.0), (2.0, 2.0, 2.0))
    assert Examples(IMAGES, np.zeros(2, np.int64)).kind == "classes"
    for dtype in (np.uint8, np.int64):
        assert Examples(IMAGES, np.zeros((2, 8, 8), dtype)).kind == "masks"
    found = Examples(PIXELS, boxes(BOX, [-1] * 5), normalization)
    assert (found.kind, len(found)) == ("boxes", 2)
    np.testing.assert_allclose(found.normalized()[0, :, 0, 0], [-0.5, -1.0, -1.5])
    assert found.subset([1]).normalization == normalization
    assert found.subset([1, 0]).inputs.dtype == np.uint8


@pytest.mark.parametrize(
    ("inputs", "labels", "normalization", "message"),
    [
        (PIXELS, np.zeros(2, np.int64), None, "inputs are uint8, float32 is wanted"),
        (IMAGES, np.zeros(2, np.int64), ((1.0,) * 3, (1.0,) * 3), "inputs with a normalization are float32"),
        (PIXELS, np.zeros(2, np.int64), ((1.0,), (1.0,)), "the normalization has 1 channels"),
        (PIXELS, np.zeros(2, np.int64), ((1.0, 1.0, 1.0), (1.0, 0.0, 1.0)), "the deviations [1.0, 0.0, 1.0]"),
        (IMAGES, np.zeros((2, 8, 7), np.int64), None, "labels [2, 8, 7]"),
        (IMAGES, np.zeros((2, 8, 8), np.int32), None, "labels are int32, int64 or uint8 is wanted"),
        (IMAGES, np.full((2, 8, 8), -1), None, "label -1 at index [0, 0, 0] is negative"),
        (IMAGES, np.zeros((2, 1, 5)), None, "labels are float64, float32 is wanted"),
        (IMAGES, np.zeros((2, 1, 6), np.float32), None, "labels [2, 1, 6]"),
        (IMAGES, boxes(BOX, [1, 1, 1, 2, 0]), None, "box 1 of example 0 is [1, 1, 1, 2, 0]"),
        (IMAGES, boxes([1, 1, 3, 2, 0.5]), None, "box 0 of example 0 is [1, 1, 3, 2, 0.5]"),
        (IMAGES, boxes([1, 1, np.nan, 2, 0]), None, "box 0 of example 0 is [1, 1, nan, 2, 0]"),
        (IMAGES, boxes(BOX, [0, 0, 0, 0, -1]), None, "box 1 of example 0 is [0, 0, 0, 0, -1]"),
    ],
)
def test_labels_and_pixels_that_make_no_sense_are_refused_with_a_remedy(inputs, labels, normalization, message):
    def make():
        return Examples(inputs, labels, normalization and Normalization(*normalization))

    with pytest.raises(DataError) as raised:
        make()
    assert message in raised.value.message
    assert raised.value.hint


def test_a_subset_out_of_range_is_refused():
    with pytest.raises(DataError, match="there are 2 examples"):
        Examples(np.zeros((2, 3), np.float32), np.zeros(2, np.int64)).subset([0, 2])


def test_backends_and_recipes_load_without_torch():
    code = (
        "import sys, gensynth.backends, gensynth.backends.reference, gensynth.backends.torch.recipe;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
