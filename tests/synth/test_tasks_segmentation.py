"""Images and masks in the layout of CamVid: what is read, and every way in which a folder can be wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scene_folders import save_image, write_camvid
from toy_scenes import scenes

from gensynth.backends.torch.objectives import Segmentation
from gensynth.backends.torch.objectives.segmentation import median_frequency_weights
from gensynth.ir import DataError, UsageError
from gensynth.synth.tasks import Task, parse_task_options, task


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12 images for training, 4 for validation and 5 to test, 32 x 32, of classes 0 to 2; 11 is unlabelled."""
    monkeypatch.delenv("GENSYNTH_DATA", raising=False)
    write_camvid(tmp_path, {"train": 12, "val": 4, "test": 5})
    return tmp_path


def camvid(folder: Path, **options: object) -> Task:
    return task("segmentation", **{"data": folder, "ignore": 11, **options})


def test_parts_are_read_with_their_masks_and_unlabelled_pixels_ignored(folder: Path) -> None:
    found = camvid(folder)
    assert (found.image, found.classes, found.class_names) == ((3, 32, 32), 3, ("0", "1", "2"))
    for seed, (name, count) in enumerate({"train": 12, "validation": 4, "test": 5}.items()):
        images, masks, _ = scenes(count, 32, seed)
        masks[:, :, -1] = 255
        examples = found.split(name)
        np.testing.assert_array_equal(examples.inputs, images)
        np.testing.assert_array_equal(examples.labels, masks)
        assert examples.kind == "masks"
    inputs = found.split("train").normalized()
    np.testing.assert_allclose(inputs.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(axis=(0, 2, 3)), 1, atol=1e-5)
    assert found.preprocessing["order"] == "RGB"


def test_the_objective_balances_classes_by_median_frequency_unless_told_otherwise(folder: Path) -> None:
    found = camvid(folder)
    weights = median_frequency_weights(found.split("train").labels, 3)  # type: ignore[arg-type]
    assert found.objective == Segmentation(3, 255, weights)
    assert weights[0] < 1 <= max(weights[1:])
    assert camvid(folder, balance=False).objective == Segmentation(3, 255, ())
    assert found.metric == found.objective.metric == "pixel_accuracy"
    assert [item.name for item in found.augmentation] == ["flip", "zoom"]


def test_images_are_stretched_bilinearly_and_masks_by_nearest_neighbor(folder: Path) -> None:
    found = camvid(folder, size=(16, 64))
    assert found.image == (3, 16, 64)
    examples = found.split("validation")
    for number in range(4):
        mask = Image.open(folder / "valannot" / f"{number:03}.png").resize((64, 16), Image.Resampling.NEAREST)
        image = Image.open(folder / "val" / f"{number:03}.png").resize((64, 16), Image.Resampling.BILINEAR)
        wanted = np.asarray(mask)
        np.testing.assert_array_equal(examples.labels[number], np.where(wanted == 11, 255, wanted))
        np.testing.assert_array_equal(examples.inputs[number], np.asarray(image).transpose(2, 0, 1))


def test_images_of_several_sizes_are_brought_to_one(folder: Path) -> None:
    images, masks, _ = scenes(1, 48, 9)
    save_image(folder / "train" / "large.png", images[0])
    save_image(folder / "trainannot" / "large.png", masks[0])
    assert camvid(folder, size=32).split("train").inputs.shape == (13, 3, 32, 32)
    with pytest.raises(DataError, match=r"large\.png is 48x48 pixels .* the first image of train/ is 32x32") as caught:
        camvid(folder).split("train")
    assert caught.value.hint == "give the option size, such as size=32x32, to bring all images to one size"


def test_parts_without_a_folder_are_disjoint_shares_of_train(folder: Path) -> None:
    for name in ("val", "valannot", "test", "testannot"):
        shutil.rmtree(folder / name)
    found = camvid(folder, validation=0.25)
    parts = [found.split(name) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [7, 3, 2]
    images, _, _ = scenes(12, 32, 0)
    seen = {part.inputs[index].tobytes() for part in parts for index in range(len(part))}
    assert seen == {image.tobytes() for image in images}
    again, other = camvid(folder, validation=0.25), camvid(folder, validation=0.25, seed=1)
    np.testing.assert_array_equal(again.split("validation").labels, parts[1].labels)
    assert not np.array_equal(other.split("validation").labels, parts[1].labels)


def test_classes_are_named_by_the_option_or_by_a_file(folder: Path) -> None:
    assert camvid(folder, names=("ground", "red", "blue", "none")).class_names == ("ground", "red", "blue", "none")
    (folder / "classes.txt").write_text("ground\nred\n\nblue\n")
    assert camvid(folder).class_names == ("ground", "red", "blue")
    (folder / "classes.txt").write_text("ground\nred\n")
    with pytest.raises(DataError, match=r"mask .*trainannot/0\d\d\.png has a pixel of label 2, there are 2 classes"):
        camvid(folder).split("train")


def test_palette_masks_keep_their_indices(folder: Path) -> None:
    for path in (folder / "trainannot").iterdir():
        with Image.open(path) as gray:
            mask = gray.copy()
        mask.putpalette([value for color in range(256) for value in (color, 0, 255 - color)])
        assert mask.mode == "P"
        mask.save(path)
    _, masks, _ = scenes(12, 32, 0)
    masks[:, :, -1] = 255
    np.testing.assert_array_equal(camvid(folder).split("train").labels, masks)


def test_grayscale_gives_one_channel(folder: Path) -> None:
    assert camvid(folder, grayscale=True).split("train").inputs.shape == (12, 1, 32, 32)


def test_images_of_the_test_part_are_not_opened_until_it_is_asked_for(folder: Path) -> None:
    for path in (folder / "test").iterdir():
        path.write_bytes(b"no image")
    found = camvid(folder)
    assert len(found.split("train")) + len(found.split("validation")) == 16
    with pytest.raises(DataError, match=r"cannot read image .*test/000\.png"):
        found.split("test")


def test_options_are_read_from_the_command_line() -> None:
    parsed = parse_task_options(
        "segmentation", ["names=road, sky,car", "ignore=11,12", "size=120x160", "balance=false"]
    )
    assert parsed == {"names": ("road", "sky", "car"), "ignore": (11, 12), "size": (120, 160), "balance": False}
    assert parse_task_options("segmentation", ["ignore=11"]) == {"ignore": (11,)}


def without_train(folder: Path) -> None:
    shutil.rmtree(folder / "train")


def without_masks(folder: Path) -> None:
    shutil.rmtree(folder / "valannot")


def without_images(folder: Path) -> None:
    shutil.rmtree(folder / "train")
    (folder / "train").mkdir()


def with_lossy_masks(folder: Path) -> None:
    for path in (folder / "trainannot").iterdir():
        with Image.open(path) as mask:
            mask.save(path.with_suffix(".jpg"))
        path.unlink()


def without_a_mask(folder: Path) -> None:
    (folder / "trainannot" / "003.png").unlink()


def without_an_image(folder: Path) -> None:
    (folder / "train" / "003.png").unlink()
    (folder / "train" / "004.png").unlink()


def with_two_of_a_name(folder: Path) -> None:
    shutil.copy(folder / "train" / "003.png", folder / "train" / "003.bmp")


def with_a_colored_mask(folder: Path) -> None:
    save_image(folder / "trainannot" / "003.png", np.zeros((3, 32, 32), np.uint8))


def with_a_mask_of_16_bits(folder: Path) -> None:
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(folder / "trainannot" / "003.png")


def with_a_mask_of_another_size(folder: Path) -> None:
    save_image(folder / "trainannot" / "003.png", np.zeros((31, 32), np.uint8))


def with_a_damaged_mask(folder: Path) -> None:
    (folder / "trainannot" / "003.png").write_bytes(b"\x89PNG no more")


def with_a_damaged_image(folder: Path) -> None:
    path = folder / "train" / "003.png"
    path.write_bytes(path.read_bytes()[:60])


def with_one_class(folder: Path) -> None:
    for path in (folder / "trainannot").iterdir():
        save_image(path, np.zeros((32, 32), np.uint8))


def with_a_new_label_in_validation(folder: Path) -> None:
    save_image(folder / "valannot" / "001.png", np.full((32, 32), 7, np.uint8))


def with_two_validation_folders(folder: Path) -> None:
    shutil.copytree(folder / "val", folder / "validation")


def with_too_few_images(folder: Path) -> None:
    for name in ("val", "valannot", "test", "testannot"):
        shutil.rmtree(folder / name)
    for number in range(2, 12):
        (folder / "train" / f"{number:03}.png").unlink()
        (folder / "trainannot" / f"{number:03}.png").unlink()


def with_a_class_named_twice(folder: Path) -> None:
    (folder / "classes.txt").write_text("road\nsky\nroad\n")


WRONG: list[tuple[Callable[[Path], None], str, str]] = [
    (without_train, "there is no folder FOLDER/train", "the layout is train/IMAGE.jpg and trainannot/IMAGE.png"),
    (without_masks, "there is no folder FOLDER/valannot", "it holds the masks of val/"),
    (without_images, "FOLDER/train holds no images", "they end in .bmp, .gif, .jpeg"),
    (with_lossy_masks, "FOLDER/trainannot holds no images", "they end in .bmp, .gif, .pgm, .png"),
    (without_a_mask, "FOLDER/train/003.png has no mask in FOLDER/trainannot", "an image and its mask"),
    (without_an_image, "FOLDER/trainannot/003.png has no image in FOLDER/train, and 1 more have none", "an image and"),
    (with_two_of_a_name, "FOLDER/train holds both 003.bmp and 003.png", "keep one image of a name"),
    (with_a_colored_mask, "mask FOLDER/trainannot/003.png is in color (RGB)", "a mask is a gray or palette image"),
    (with_a_mask_of_16_bits, "FOLDER/trainannot/003.png has more than 8 bits a channel", "save it as an 8-bit image"),
    (
        with_a_mask_of_another_size,
        "mask FOLDER/trainannot/003.png is 31x32 pixels (height x width), its image 003.png is 32x32",
        "a mask is as large as its image",
    ),
    (with_a_damaged_mask, "cannot read mask FOLDER/trainannot/003.png", "replace the file or remove it"),
    (with_a_damaged_image, "cannot read image FOLDER/train/003.png", "replace the file or remove it"),
    (with_one_class, "the masks of FOLDER/trainannot tell no two classes apart", "the value of a pixel"),
    (
        with_a_new_label_in_validation,
        "mask FOLDER/valannot/001.png has a pixel of label 7, there are 3 classes",
        "labels count from 0; if 7 stands for no class, give ignore=7",
    ),
    (with_two_validation_folders, "FOLDER holds both validation/ and val/", "keep one of them"),
    (
        with_too_few_images,
        "FOLDER/train holds 2 images, too few to take validation and test from them",
        "add images, or give those parts folders of their own",
    ),
    (with_a_class_named_twice, "FOLDER/classes.txt names a class twice", "name from 2 to 255 classes, each once"),
]


@pytest.mark.parametrize(("spoil", "message", "hint"), WRONG)
def test_a_wrong_folder_is_refused_with_the_place_and_a_remedy(
    folder: Path, spoil: Callable[[Path], None], message: str, hint: str
) -> None:
    spoil(folder)
    found = camvid(folder)
    with pytest.raises(DataError) as caught:
        [found.split(name) for name in ("train", "validation")]
    assert message.replace("FOLDER", str(folder)) in caught.value.message
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (8, 8, 8)}, "size is 8x8x8"),
        ({"ignore": (11, 256)}, "ignore is 11, 256"),
        ({"names": ("road",)}, "the option names names 1 classes"),
        ({"names": ("road", "road")}, "the option names names a class twice"),
        ({"validation": 0.0}, "validation is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"balance": 1}, "balance: expected true or false, got 1"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        task("segmentation", **options)
    assert caught.value.message == f"task 'segmentation': {message}"
    assert caught.value.hint


def test_without_a_folder_both_ways_to_name_one_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENSYNTH_DATA", raising=False)
    with pytest.raises(DataError, match="task 'segmentation' does not know where its data are") as caught:
        task("segmentation").split("train")
    assert caught.value.hint is not None
    assert "trainannot/IMAGE.png" in caught.value.hint


@pytest.mark.data
def test_real_camvid_has_367_101_and_233_images_of_11_classes() -> None:
    root = Path(os.environ.get("GENSYNTH_DATA", ".")) / "CamVid"
    if not root.is_dir():
        pytest.skip("GENSYNTH_DATA names no folder with CamVid/")
    found = task("segmentation", data=root, size=(120, 160), ignore=11)
    assert [len(found.split(name)) for name in ("train", "validation", "test")] == [367, 101, 233]
    assert (found.image, found.classes) == ((3, 120, 160), 11)
    objective = found.objective
    assert isinstance(objective, Segmentation)
    # those that SegNet's own prototxt has, but for signs: [0.2595, 0.1826, 4.5640, 0.1417, 0.9051, 0.3826, 9.6446, ...]
    assert objective.class_weights[:6] == pytest.approx([0.2595, 0.1826, 4.564, 0.1417, 0.9051, 0.3826], rel=0.12)
