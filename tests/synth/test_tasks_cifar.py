"""The binary layout of CIFAR: what is read from it, and how a damaged copy is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gensynth.ir import DataError, GenSynthError
from gensynth.synth.tasks import task

Records = npt.NDArray[np.uint8]

NAMES = "cat\ndog\nfrog\n"


def records(count: int, seed: int, label_bytes: int = 1, classes: int = 3) -> Records:
    random = np.random.Generator(np.random.Philox(seed))
    pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = random.integers(0, classes, (count, label_bytes), dtype=np.uint8)
    return np.concatenate([labels, pixels], axis=1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with 5 x 4 training and 6 test images in the layout of CIFAR-10, of three classes."""
    monkeypatch.delenv("GENSYNTH_DATA", raising=False)
    inner = tmp_path / "cifar-10-batches-bin"
    inner.mkdir()
    for number in range(1, 6):
        records(4, number).tofile(inner / f"data_batch_{number}.bin")
    records(6, 6).tofile(inner / "test_batch.bin")
    (inner / "batches.meta.txt").write_text(NAMES + "\n")
    return tmp_path


def test_validation_is_the_end_of_the_training_files(folder: Path) -> None:
    found = task("cifar10", data=folder, validation=5)
    every = np.concatenate([records(4, number) for number in range(1, 6)])
    np.testing.assert_array_equal(found.split("train").labels, every[:15, 0])
    np.testing.assert_array_equal(found.split("validation").labels, every[15:, 0])
    np.testing.assert_array_equal(found.split("test").labels, records(6, 6)[:, 0])
    assert found.image == (3, 32, 32)
    assert found.class_names == ("cat", "dog", "frog")


def test_pixels_are_planes_of_rows_normalized_by_the_training_part(folder: Path) -> None:
    found = task("cifar10", data=folder, validation=5)
    every = np.concatenate([records(4, number) for number in range(1, 6)])[:, 1:].reshape(-1, 3, 32, 32)
    training = every[:15].astype(np.float64)
    mean, deviation = training.mean(axis=(0, 2, 3)), training.std(axis=(0, 2, 3))
    for name, pixels in (("train", every[:15]), ("validation", every[15:])):
        expected = (pixels - mean[:, None, None]) / deviation[:, None, None]
        np.testing.assert_allclose(found.split(name).inputs, expected, atol=1e-5)
    test = records(6, 6)[:, 1:].reshape(-1, 3, 32, 32)
    np.testing.assert_allclose(
        found.split("test").inputs[2, 1, 5, 7], (test[2, 1, 5, 7] - mean[1]) / deviation[1], 1e-5
    )


def test_a_channel_that_never_changes_becomes_zero(folder: Path) -> None:
    for path in (folder / "cifar-10-batches-bin").glob("data_batch_*.bin"):
        found = np.fromfile(path, np.uint8).reshape(-1, 3073)
        found[:, 1 : 1 + 1024] = 77
        found.tofile(path)
    inputs = task("cifar10", data=folder, validation=5).split("train").inputs
    assert np.all(inputs[:, 0] == 0)
    assert abs(float(inputs[:, 1].std()) - 1) < 1e-3


def test_the_test_file_is_not_read_until_the_test_part_is_asked_for(folder: Path) -> None:
    test_file = folder / "cifar-10-batches-bin" / "test_batch.bin"
    spoiled = records(6, 6)
    spoiled[3, 0] = 200
    spoiled.tofile(test_file)
    found = task("cifar10", data=folder, validation=5)
    assert (len(found.split("train")), len(found.split("validation")), found.classes) == (15, 5, 3)
    with pytest.raises(DataError, match=r"test_batch.bin: record 3 has label 200, there are 3 classes"):
        found.split("test")


def test_the_folder_itself_may_be_named(folder: Path) -> None:
    assert len(task("cifar10", data=folder / "cifar-10-batches-bin", validation=5).split("train")) == 15


def test_the_environment_names_the_folder_where_no_option_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENSYNTH_DATA", str(folder))
    assert len(task("cifar10", validation=5).split("train")) == 15
    with pytest.raises(DataError, match="elsewhere of task 'cifar10' does not exist"):
        task("cifar10", data=folder / "elsewhere").split("train")


def test_the_fine_label_of_cifar100_counts(tmp_path: Path) -> None:
    inner = tmp_path / "cifar-100-binary"
    inner.mkdir()
    records(10, 1, label_bytes=2).tofile(inner / "train.bin")
    records(4, 2, label_bytes=2).tofile(inner / "test.bin")
    (inner / "fine_label_names.txt").write_text(NAMES)
    found = task("cifar100", data=tmp_path, validation=3)
    np.testing.assert_array_equal(found.split("train").labels, records(10, 1, label_bytes=2)[:7, 1])
    np.testing.assert_array_equal(found.split("test").labels, records(4, 2, label_bytes=2)[:, 1])
    assert found.class_names == ("cat", "dog", "frog")


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda inner: os.truncate(inner / name, size)


def remove(name: str) -> Callable[[Path], None]:
    return lambda inner: (inner / name).unlink()


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def change(inner: Path) -> None:
        (inner / name).write_bytes(content)

    return change


@pytest.mark.parametrize("missing", ["batches.meta.txt", "data_batch_1.bin"])
def test_a_file_missing_from_the_named_folder_itself_is_named(folder: Path, missing: str) -> None:
    inner = folder / "cifar-10-batches-bin"
    (inner / missing).unlink()
    with pytest.raises(DataError) as caught:
        task("cifar10", data=inner).split("train")
    assert caught.value.message == f"{inner / missing} is missing"


DAMAGES: list[tuple[Callable[[Path], None], str, str]] = [
    (remove("data_batch_3.bin"), "data_batch_3.bin is missing", "unpack the binary version of cifar10 again"),
    (remove("test_batch.bin"), "test_batch.bin is missing", "unpack the binary version of cifar10 again"),
    (remove("batches.meta.txt"), "batches.meta.txt is missing", "unpack the binary version of cifar10 again"),
    (
        cut("data_batch_2.bin", 4 * 3073 - 1),
        "data_batch_2.bin has 12291 bytes, no multiple of 3073 (1 label + 3072 pixels)",
        "the file is cut short or not in the binary layout; fetch it again",
    ),
    (cut("test_batch.bin", 0), "test_batch.bin has 0 bytes, no multiple of 3073", "the file is cut short"),
    (
        write("data_batch_5.bin", b"\x03" + bytes(3072)),
        "data_batch_5.bin: record 0 has label 3, there are 3 classes",
        "labels count from 0; batches.meta.txt names the classes",
    ),
    (write("batches.meta.txt", b"\n\n"), "batches.meta.txt names no class", "it holds a class name a line"),
    (write("batches.meta.txt", b"\xff\xfe"), "batches.meta.txt: 'utf-8' codec", "it holds a class name a line"),
]


@pytest.mark.parametrize(("damage", "message", "hint"), DAMAGES)
def test_a_damaged_copy_is_refused_with_the_file_and_a_remedy(
    folder: Path, damage: Callable[[Path], None], message: str, hint: str
) -> None:
    damage(folder / "cifar-10-batches-bin")
    with pytest.raises(DataError) as caught:
        task("cifar10", data=folder, validation=5).split("train")
    assert message in caught.value.message
    assert str(folder) in caught.value.message
    assert caught.value.hint is not None
    assert hint in caught.value.hint


def test_a_validation_part_as_large_as_the_training_files_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="validation=20 leaves nothing of 20 training images") as caught:
        task("cifar10", data=folder, validation=20).split("train")
    assert caught.value.hint == "give a smaller validation"


def test_without_a_folder_both_ways_to_name_one_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENSYNTH_DATA", raising=False)
    with pytest.raises(DataError, match="task 'cifar10' does not know where its data are") as caught:
        task("cifar10").split("train")
    assert caught.value.hint is not None
    assert "option data=FOLDER" in caught.value.hint
    assert "GENSYNTH_DATA" in caught.value.hint
    assert "cifar-10-batches-bin/" in caught.value.hint


def test_a_folder_without_the_layout_or_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no cifar-10-batches-bin/ in") as caught:
        task("cifar10", data=tmp_path).split("train")
    assert caught.value.hint == "unpack the binary version of cifar10 there"
    (tmp_path / "file").write_text("")
    with pytest.raises(GenSynthError, match="file of task 'cifar10' is no folder"):
        task("cifar10", data=tmp_path / "file").split("train")


@pytest.mark.data
def test_real_cifar10_has_45000_5000_and_10000_images_and_its_published_mean() -> None:
    root = Path(os.environ.get("GENSYNTH_DATA", "."))
    if not (root / "cifar-10-batches-bin").is_dir():
        pytest.skip("GENSYNTH_DATA names no folder with cifar-10-batches-bin/")
    found = task("cifar10")
    assert [len(found.split(name)) for name in ("train", "validation", "test")] == [45000, 5000, 10000]
    assert found.class_names[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(found.split("test").labels).tolist() == [1000] * 10
    assert np.abs(found.split("validation").inputs.mean(axis=(0, 2, 3))).max() < 0.02
    assert np.abs(found.split("train").inputs.std(axis=(0, 2, 3)) - 1).max() < 1e-3
