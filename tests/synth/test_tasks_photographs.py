"""The task `photographs`: its parts, its options, and that it is the same every time."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from gensynth.ir import UsageError
from gensynth.synth.tasks import SPLITS, parse_task_options, task


def test_there_are_512_crops_to_train_on_128_to_validate_and_128_to_test() -> None:
    found = task("photographs")
    assert [len(found.split(name)) for name in SPLITS] == [512, 128, 128]
    for name in SPLITS:
        examples = found.split(name)
        assert examples.inputs.shape[1:] == found.image == (3, 32, 32)
        assert examples.inputs.dtype == np.float32
        assert examples.labels[:12].tolist() == [*range(10), 0, 1]
    assert len(np.unique(np.concatenate([found.split(name).inputs for name in SPLITS]), axis=0)) == 768


def test_crops_are_standardized_by_channel_and_vary_within_each() -> None:
    inputs = task("photographs").split("train").inputs
    assert np.abs(inputs.mean(axis=(0, 2, 3))).max() < 1e-3
    assert np.abs(inputs.std(axis=(0, 2, 3)) - 1.0).max() < 1e-3
    assert np.median(inputs.std(axis=(2, 3))) > 0.2


def test_crops_are_the_same_in_every_process() -> None:
    first, second = task("photographs"), task("photographs")
    np.testing.assert_array_equal(first.split("test").inputs, second.split("test").inputs)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 24, 40), (1, 500, 100)])
def test_images_have_the_shape_asked_for(shape: tuple[int, int, int]) -> None:
    options = parse_task_options("photographs", [f"image={'x'.join(map(str, shape))}", "classes=7"])
    found = task("photographs", **options)
    examples = found.split("validation")
    assert examples.inputs.shape == (128, *shape)
    assert int(examples.labels.max()) == 6 and found.classes == 7


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": (2, 8, 8)}, "image is 2x8x8"),
        ({"image": (3, 8)}, "image is 3x8"),
        ({"image": (3, 0, 8)}, "image is 3x0x8"),
        ({"classes": 0}, "classes is 0"),
        ({"classes": 1000}, "classes is 1000"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=f"task 'photographs': {says}"):
        task("photographs", **options)


def test_missing_libraries_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UsageError, match="needs scikit-learn and Pillow") as caught:
        task("photographs").split("train")
    assert caught.value.hint == "pip install scikit-learn pillow"
