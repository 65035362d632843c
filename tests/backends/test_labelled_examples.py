"""Labelled examples: what they accept, and what they say of what they refuse."""

import subprocess
import sys

import numpy as np
import pytest

from gensynth.backends import Examples
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


def test_a_subset_out_of_range_is_refused():
    with pytest.raises(DataError, match="there are 2 examples"):
        Examples(np.zeros((2, 3), np.float32), np.zeros(2, np.int64)).subset([0, 2])


def test_backends_and_recipes_load_without_torch():
    code = (
        "import sys, gensynth.backends, gensynth.backends.reference, gensynth.backends.torch.recipe;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
