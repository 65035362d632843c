"""Images and boxes in the layout of COCO: what is read, and every way in which a folder can be wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scene_folders import save_image, write_coco
from toy_scenes import scenes

from gensynth.backends.torch.objectives import Detection
from gensynth.ir import DataError, UsageError
from gensynth.synth.tasks import parse_task_options, task


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12 images for training, 4 for validation and 5 to test, 64 x 64, with boxes of two classes."""
    monkeypatch.delenv("GENSYNTH_DATA", raising=False)
    write_coco(tmp_path, {"train": 12, "val": 4, "test": 5})
    return tmp_path


def change(folder: Path, edit: Callable[[dict[str, Any]], object], part: str = "train") -> None:
    path = folder / "annotations" / f"instances_{part}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_parts_are_read_with_their_boxes(folder: Path) -> None:
    found = task("detection", data=folder)
    assert (found.image, found.class_names) == ((3, 64, 64), ("red", "blue"))
    for seed, (name, count) in enumerate({"train": 12, "validation": 4, "test": 5}.items()):
        images, _, boxes = scenes(count, 64, seed)
        examples = found.split(name)
        np.testing.assert_array_equal(examples.inputs, images)
        np.testing.assert_allclose(examples.labels, boxes)
        assert examples.kind == "boxes"
    inputs = found.split("train").normalized()
    np.testing.assert_allclose(inputs.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    assert found.objective == Detection(2)
    assert found.metric == found.objective.metric == "map_50"
    assert [item.name for item in found.augmentation] == ["flip", "zoom", "color"]


def test_boxes_are_stretched_with_their_images(folder: Path) -> None:
    found = task("detection", data=folder, size=(32, 128), stride=8, unit=8.0)
    assert found.image == (3, 32, 128)
    assert found.objective == Detection(2, 8, 8.0)
    _, _, boxes = scenes(4, 64, 1)
    wanted = np.where(boxes >= 0, boxes * np.array([2, 0.5, 2, 0.5, 1]), -1)
    np.testing.assert_allclose(found.split("validation").labels, wanted)


def test_images_of_several_sizes_are_brought_to_one(folder: Path) -> None:
    save_image(folder / "train" / "wide.png", np.zeros((3, 32, 96), np.uint8))

    def add(content: dict[str, Any]) -> None:
        content["images"].append({"id": 99, "file_name": "wide.png"})
        content["annotations"].append({"image_id": 99, "category_id": 3, "bbox": [24, 8, 48, 16]})

    change(folder, add)
    examples = task("detection", data=folder, size=64).split("train")
    np.testing.assert_allclose(examples.labels[-1, 0], [16, 16, 48, 48, 0])
    with pytest.raises(DataError, match=r"wide\.png is 32x96 pixels .* the first image of train/ is 64x64"):
        task("detection", data=folder).split("train")


def test_boxes_are_cut_at_the_image_and_those_without_area_or_of_crowds_are_left_out(folder: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["annotations"] = [
            {"image_id": 10, "category_id": 7, "bbox": [-5, 50, 20.5, 30]},
            {"image_id": 10, "category_id": 7, "bbox": [10, 10, 0, 5]},
            {"image_id": 10, "category_id": 7, "bbox": [70, 10, 5, 5]},
            {"image_id": 11, "category_id": 3, "bbox": [0, 0, 64, 64], "iscrowd": 1},
        ]

    change(folder, edit)
    labels = task("detection", data=folder).split("train").labels
    assert labels.shape == (12, 1, 5)
    np.testing.assert_allclose(labels[0, 0], [0, 50, 15.5, 64, 1])
    assert (labels[1:] == -1).all()


def test_a_year_may_follow_the_name_of_a_part(folder: Path) -> None:
    shutil.rmtree(folder / "annotations")
    write_coco(folder, {"train": 6, "val": 3}, year="2017")
    found = task("detection", data=folder, test=0.4)
    assert [len(found.split(name)) for name in ("train", "validation", "test")] == [4, 3, 2]


def test_parts_without_a_file_are_disjoint_shares_of_train(folder: Path) -> None:
    for name in ("val", "test"):
        (folder / "annotations" / f"instances_{name}.json").unlink()
    found = task("detection", data=folder)
    parts = [found.split(name) for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [8, 2, 2]
    images, _, _ = scenes(12, 64, 0)
    assert {item.tobytes() for part in parts for item in part.inputs} == {image.tobytes() for image in images}
    other = task("detection", data=folder, seed=1).split("test")
    assert not np.array_equal(other.inputs, parts[2].inputs)


def test_the_test_part_is_not_read_until_it_is_asked_for(folder: Path) -> None:
    (folder / "annotations" / "instances_test.json").write_text("{")
    found = task("detection", data=folder)
    assert len(found.split("train")) + len(found.split("validation")) == 16
    with pytest.raises(DataError, match=r"cannot read .*instances_test\.json"):
        found.split("test")


def test_options_are_read_from_the_command_line() -> None:
    parsed = parse_task_options("detection", ["size=160x320", "stride=8", "unit=16"])
    assert parsed == {"size": (160, 320), "stride": 8, "unit": 16.0}


def annotations_file(folder: Path) -> Path:
    return folder / "annotations" / "instances_train.json"


WRONG: list[tuple[Callable[[Path], object], str, str]] = [
    (lambda folder: shutil.rmtree(folder / "annotations"), "there is no folder FOLDER/annotations", "the layout is"),
    (
        lambda folder: annotations_file(folder).unlink(),
        "there is no FOLDER/annotations/instances_train.json",
        "the layout is annotations/instances_train.json and train/IMAGE.jpg",
    ),
    (lambda folder: shutil.rmtree(folder / "train"), "there is no folder FOLDER/train", "it holds the images of"),
    (
        lambda folder: shutil.copy(annotations_file(folder), folder / "annotations" / "instances_train2014.json"),
        "FOLDER/annotations holds both instances_train.json and instances_train2014.json",
        "keep one of them",
    ),
    (
        lambda folder: annotations_file(folder).write_text("{"),
        "cannot read FOLDER/annotations/instances_train",
        "it is",
    ),
    (lambda folder: annotations_file(folder).write_text("[]"), "instances_train.json has no list of images", "it is {"),
    (lambda folder: change(folder, lambda it: it.pop("categories")), "has no list of categories", "it is {"),
    (lambda folder: change(folder, lambda it: it["categories"].clear()), "has no category", "each category has"),
    (
        lambda folder: change(folder, lambda it: it["categories"].append({"id": 3, "name": "green"})),
        "has two categories of an id or name",
        "each category has an id and a name of its own",
    ),
    (
        lambda folder: change(folder, lambda it: it["images"].append(it["images"][0])),
        "has two images of an id",
        "each image has an id of its own",
    ),
    (
        lambda folder: change(folder, lambda it: it["annotations"][0].update(image_id=77)),
        "an annotation is of image 77, which the file does not have",
        "it is {",
    ),
    (
        lambda folder: change(folder, lambda it: it["annotations"][0].update(category_id=5)),
        "an annotation is of category 5, which the file does not have",
        "it is {",
    ),
    (
        lambda folder: change(folder, lambda it: it["annotations"][0].update(bbox=[1, 2, -3, 4])),
        "has no sound bbox",
        "it is [x, y, width, height] in pixels",
    ),
    (
        lambda folder: change(folder, lambda it: it["annotations"][0].update(bbox="all")),
        "has no sound bbox",
        "it is [x, y, width, height] in pixels",
    ),
    (
        lambda folder: change(folder, lambda it: it["images"][0].pop("file_name")),
        'image {"id": 10, "height": 64, "width": 64} has no file_name',
        "it is {",
    ),
    (lambda folder: change(folder, lambda it: it["images"][0].update(id="a")), "has no whole number id", "it is {"),
    (
        lambda folder: change(folder, lambda it: it["annotations"].clear()),
        "no image of FOLDER/annotations/instances_train.json has a box",
        "an image may",
    ),
    (lambda folder: (folder / "train" / "003.png").unlink(), "FOLDER/train/003.png is missing", "the layout is"),
    (
        lambda folder: save_image(folder / "train" / "003.png", np.zeros((3, 32, 64), np.uint8)),
        "FOLDER/train/003.png is 32x64 pixels (height x width), its annotations are for 64x64",
        "boxes are in pixels of the image as it is stored",
    ),
    (
        lambda folder: (folder / "train" / "003.png").write_bytes(b"no image"),
        "cannot read image FOLDER/train/003.png",
        "replace the file or remove it",
    ),
    (
        lambda folder: change(folder, lambda it: it["categories"].append({"id": 9, "name": "green"}), "val"),
        "instances_val.json has the categories red, blue, green, instances_train.json has red, blue",
        "all parts have the same categories",
    ),
]


@pytest.mark.parametrize(("spoil", "message", "hint"), WRONG)
def test_a_wrong_folder_is_refused_with_the_place_and_a_remedy(
    folder: Path, spoil: Callable[[Path], object], message: str, hint: str
) -> None:
    spoil(folder)
    found = task("detection", data=folder)
    with pytest.raises(DataError) as caught:
        [found.split(name) for name in ("train", "validation")]
    assert message.replace("FOLDER", str(folder)) in caught.value.message
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint)


def test_images_whose_sides_are_no_multiples_of_the_stride_want_a_size(folder: Path) -> None:
    with pytest.raises(DataError, match=r"000\.png is 64x64 pixels .* no multiple of the stride of 24") as caught:
        _ = task("detection", data=folder, stride=24).image
    assert caught.value.hint == "give the option size, such as size=72x72, to bring all images to one size"


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"size": (64, 60)}, "size is 64x60, no multiple of the stride of 16 pixels", "give 64x64"),
        ({"size": 100}, "size is 100, no multiple of the stride of 16 pixels", "give 96"),
        ({"stride": 0}, "stride is 0", "it is a number of pixels"),
        ({"unit": 0.0}, "unit is 0.0", "it is a number of pixels"),
        ({"test": 1.5}, "test is 1.5", "it is a share between 0 and 1"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        task("detection", **options)
    assert caught.value.message == f"task 'detection': {message}"
    assert caught.value.hint == hint


def test_exif_data_turn_no_image_since_boxes_are_of_the_image_as_it_is_stored(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    with Image.open(folder / "train" / "000.png") as stored:
        stored.save(folder / "train" / "000.png", exif=exif)
    images, _, _ = scenes(12, 64, 0)
    np.testing.assert_array_equal(task("detection", data=folder).split("train").inputs[0], images[0])


@pytest.mark.data
def test_real_persons_have_1612_and_367_images() -> None:
    root = Path(os.environ.get("GENSYNTH_DATA", ".")) / "persons"
    if not root.is_dir():
        pytest.skip("GENSYNTH_DATA names no folder with persons/")
    found = task("detection", data=root, size=160)
    counts = [len(found.split(name)) for name in ("train", "validation", "test")]
    assert counts == [1290, 322, 367]
    assert found.class_names == ("person",)
    assert int((found.split("test").labels[..., 4] >= 0).sum()) == 1123
