"""A user's own images: layouts, splits, sizes, and every way in which a folder can be wrong."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gensynth.ir import DataError, UsageError
from gensynth.synth.tasks import task


def save(path: Path, value: int, height: int = 6, width: int = 8) -> None:
    """Writes an image whose pixels hold `value`, but for a brighter corner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), value, dtype=np.uint8)
    pixels[0, 0] = 250
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with train/ alone: 10 cats and 15 dogs, 6 x 8 pixels, each with its own brightness."""
    monkeypatch.delenv("GENSYNTH_DATA", raising=False)
    for number in range(10):
        save(tmp_path / "train" / "cat" / f"{number:02}.png", number)
    for number in range(15):
        save(tmp_path / "train" / "dog" / f"{number:02}.png", 100 + number)
    return tmp_path


def brightnesses(folder: Path, name: str, **options: object) -> list[float]:
    inputs = task("image-folder", data=folder, **options).split(name).inputs
    return [round(float(value), 4) for value in inputs[:, 0, -1, -1]]


def test_parts_without_a_folder_are_stratified_disjoint_shares_of_train(folder: Path) -> None:
    found = task("image-folder", data=folder)
    counts = {name: np.bincount(found.split(name).labels).tolist() for name in ("train", "validation", "test")}
    assert counts == {"train": [6, 9], "validation": [2, 3], "test": [2, 3]}
    seen = [value for name in counts for value in brightnesses(folder, name)]
    assert len(set(seen)) == 25
    assert found.class_names == ("cat", "dog")
    assert found.image == (3, 6, 8)


def test_the_shares_are_the_same_each_time_and_another_seed_takes_others(folder: Path) -> None:
    save(folder / "test" / "cat" / "a.png", 1)  # so that other images for validation mean others for training
    assert brightnesses(folder, "validation") == brightnesses(folder, "validation", seed=0)
    assert brightnesses(folder, "validation") != brightnesses(folder, "validation", seed=1)


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_folders_for_validation_and_test_are_used_where_they_are(folder: Path, validation: str) -> None:
    save(folder / validation / "dog" / "a.jpg", 30)
    save(folder / "test" / "cat" / "a.bmp", 40)
    save(folder / "test" / "cat" / "b.webp", 50)
    found = task("image-folder", data=folder)
    assert found.split("train").labels.tolist() == [0] * 10 + [1] * 15
    assert found.split("validation").labels.tolist() == [1]
    assert found.split("test").labels.tolist() == [0, 0]


def test_images_are_normalized_by_the_training_part(folder: Path) -> None:
    found = task("image-folder", data=folder)
    inputs = found.split("train").inputs
    np.testing.assert_allclose(inputs.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(axis=(0, 2, 3)), 1, atol=1e-5)
    assert abs(float(found.split("test").inputs.mean())) > 1e-4


def test_grayscale_gives_one_channel(folder: Path) -> None:
    found = task("image-folder", data=folder, grayscale=True)
    assert found.image == (1, 6, 8)
    assert found.split("train").inputs.shape == (15, 1, 6, 8)


@pytest.mark.parametrize(("size", "image"), [((4, 5), (3, 4, 5)), (7, (3, 7, 7))])
def test_size_brings_images_of_any_size_to_one(folder: Path, size: object, image: tuple[int, int, int]) -> None:
    save(folder / "train" / "cat" / "large.png", 3, height=20, width=9)
    found = task("image-folder", data=folder, size=size)
    assert found.image == image
    assert found.split("train").inputs.shape[1:] == image


def test_files_that_are_no_images_and_hidden_ones_are_passed_over(folder: Path) -> None:
    (folder / "train" / "cat" / "notes.txt").write_text("indoors")
    (folder / "train" / "cat" / "._00.png").write_text("left by a file manager")
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "README").write_text("photos")
    assert task("image-folder", data=folder).split("train").labels.tolist() == [0] * 6 + [1] * 9


def test_images_are_turned_upright_by_their_exif_data(folder: Path) -> None:
    lying = Image.new("RGB", (6, 8))
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(folder / "train" / "cat" / "photo.jpg", exif=exif)
    save(folder / "validation" / "cat" / "a.png", 1)
    save(folder / "test" / "cat" / "a.png", 1)
    assert task("image-folder", data=folder).split("train").inputs.shape == (26, 3, 6, 8)


def test_test_images_are_not_opened_until_the_test_part_is_asked_for(folder: Path) -> None:
    (folder / "test" / "cat").mkdir(parents=True)
    (folder / "test" / "cat" / "a.png").write_bytes(b"no image")
    found = task("image-folder", data=folder)
    assert len(found.split("train")) + len(found.split("validation")) == 25
    with pytest.raises(DataError, match=r"cannot read image .*test/cat/a\.png"):
        found.split("test")


def test_the_default_augmentation_moves_by_an_eighth_and_does_not_mirror(folder: Path) -> None:
    (item,) = task("image-folder", data=folder, size=(32, 48)).augmentation
    assert (item.name, item.number("pixels"), item.word("fill")) == ("shift", 4, "edge")


def test_without_a_folder_both_ways_to_name_one_are_told(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    with pytest.raises(DataError, match="task 'image-folder' does not know where its data are") as caught:
        task("image-folder").split("train")
    assert caught.value.hint == (
        "give the option data=FOLDER or set GENSYNTH_DATA; the folder holds train/CLASS/IMAGE.png"
    )
    monkeypatch.setenv("GENSYNTH_DATA", str(folder))
    assert task("image-folder").classes == 2


def test_a_missing_pillow_is_named_with_the_command_that_installs_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UsageError, match="task 'image-folder' needs Pillow") as caught:
        task("image-folder", data=folder).split("train")
    assert caught.value.hint == "pip install pillow"


def without_train(folder: Path) -> None:
    shutil.rmtree(folder / "train")


def without_classes(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    save(folder / "train" / "a.png", 1)


def with_an_empty_class(folder: Path) -> None:
    (folder / "train" / "bird").mkdir()


def with_an_empty_test(folder: Path) -> None:
    (folder / "test").mkdir()


def with_an_unreadable_image(folder: Path) -> None:
    for path in (folder / "train" / "dog").iterdir():
        path.write_bytes(b"\x89PNG no more")


def with_a_truncated_image(folder: Path) -> None:
    for path in (folder / "train" / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:60])


def with_another_size(folder: Path) -> None:
    for path in (folder / "train" / "dog").iterdir():
        save(path, 9, height=5, width=7)


def with_16_bits(folder: Path) -> None:
    for path in (folder / "train" / "dog").iterdir():
        Image.fromarray(np.full((6, 8), 40_000, np.uint16)).save(path)


def with_an_unknown_class_in_test(folder: Path) -> None:
    save(folder / "test" / "cats" / "a.png", 1)


def with_two_validation_folders(folder: Path) -> None:
    save(folder / "val" / "cat" / "a.png", 1)
    save(folder / "validation" / "cat" / "a.png", 1)


def with_a_class_of_two(folder: Path) -> None:
    save(folder / "train" / "bird" / "a.png", 1)
    save(folder / "train" / "bird" / "b.png", 1)


WRONG: list[tuple[Callable[[Path], None], str, str]] = [
    (without_train, "there is no folder FOLDER/train", "the layout is train/CLASS/IMAGE.png"),
    (without_classes, "FOLDER/train holds no class folders", "the layout is train/CLASS/IMAGE.png"),
    (with_an_empty_class, "class folder FOLDER/train/bird holds no images", "images end in .bmp, .gif"),
    (with_an_empty_test, "FOLDER/test holds no class folders", "it has the same class folders as train/"),
    (with_an_unreadable_image, "cannot read image FOLDER/train/dog/", "replace the file or remove it"),
    (with_a_truncated_image, "cannot read image FOLDER/train/dog/", "replace the file or remove it"),
    (with_another_size, "5x7 pixels (height x width), the first image of train/ is 6x8", "give the option size"),
    (with_16_bits, "has more than 8 bits a channel", "save it as an 8-bit image"),
    (with_an_unknown_class_in_test, "FOLDER/test/cats is a class that train/ lacks", "did you mean 'cat'?"),
    (with_two_validation_folders, "FOLDER holds both validation/ and val/", "keep one of them"),
    (
        with_a_class_of_two,
        "class 'bird' has 2 examples, too few to take validation and test from them",
        "add examples, or lower those shares",
    ),
]


@pytest.mark.parametrize(("spoil", "message", "hint"), WRONG)
def test_a_wrong_folder_is_refused_with_the_place_and_a_remedy(
    folder: Path, spoil: Callable[[Path], None], message: str, hint: str
) -> None:
    spoil(folder)
    with pytest.raises(DataError) as caught:
        task("image-folder", data=folder).split("train")
    assert message.replace("FOLDER", str(folder)) in caught.value.message
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint)
