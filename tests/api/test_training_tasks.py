"""`gensynth train` and `gensynth evaluate` on tasks that do not classify."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Run
from scene_folders import write_camvid, write_coco
from toy_scenes import DETECTING, SEGMENTING

OPTIONS = {
    "segmentation": ("--task", "segmentation", "--data", "CamVid", "--option", "ignore=11"),
    "detection": ("--task", "detection", "--data", "persons"),
}
NETWORKS = {"segmentation": "segmenting", "detection": "detecting"}
METRICS = {
    "segmentation": ["pixel_accuracy", "class_accuracy", "mean_iou"],
    "detection": ["map_50", "precision", "recall"],
}
RECIPE = ("--epochs", "2", "--set", "optimizer=adamw", "--set", "learning_rate=0.01", "--set", "batch_size=8")


@pytest.fixture
def scenes(folder: Path) -> Path:
    write_camvid(folder / "CamVid", {"train": 16, "val": 8, "test": 8})
    write_coco(folder / "persons", {"train": 16, "val": 8, "test": 8})
    (folder / "segmenting.gsir").write_text(SEGMENTING)
    (folder / "detecting.gsir").write_text(DETECTING)
    return folder


@pytest.mark.parametrize("name", OPTIONS)
def test_a_network_is_trained_and_evaluated_with_all_metrics(name: str, gensynth: Run, scenes: Path) -> None:
    network, metrics = NETWORKS[name], METRICS[name]
    found = gensynth("train", f"{network}.gsir", *OPTIONS[name], "--out", "out", *RECIPE, "--json")
    assert found.code == 0, found.err
    history = json.loads(found.out)
    assert history == json.loads((scenes / "out" / "training.json").read_text())
    assert history["metric"] == metrics[0]
    assert list(history["validation_metrics"]) == metrics
    assert history["validation_accuracy"] == history["validation_metrics"][metrics[0]]
    assert history["recipe"]["augmentation"][0]["name"] == "flip"
    for metric in metrics:
        assert f"{metric} {history['validation_metrics'][metric]:.2f}%" in found.err
    row = json.loads(gensynth("evaluate", f"out/{network}.gsir", *OPTIONS[name], "--json").out)
    assert row["metrics"] == pytest.approx(history["validation_metrics"])
    assert (row["metric"], row["count"]) == (metrics[0], 8)
    assert row["accuracy"] == row["metrics"][metrics[0]]
    table = gensynth("evaluate", f"out/{network}.gsir", *OPTIONS[name])
    heads, figures = table.out.splitlines()
    for metric in metrics:
        assert f"{metric} [%]" in heads
        assert f"{row['metrics'][metric]:.2f}" in figures


def test_a_training_ends_with_all_metrics(gensynth: Run, scenes: Path) -> None:
    found = gensynth("train", "segmenting.gsir", *OPTIONS["segmentation"], "--out", "out", *RECIPE)
    line = found.out.splitlines()[0]
    assert line.startswith("@segmenting: validation pixel_accuracy ")
    assert "mean_iou" in line
    assert line.endswith("% after 2 epochs")


def test_the_tasks_are_listed_with_their_metric(gensynth: Run) -> None:
    listed = {item["name"]: item for item in json.loads(gensynth("tasks", "--json").out)}
    assert {name: listed[name]["metric"] for name in OPTIONS} == {name: METRICS[name][0] for name in OPTIONS}
    assert listed["digits"]["metric"] == "accuracy"
    told = gensynth("tasks", "segmentation").out
    assert "metric: pixel_accuracy" in told
    assert "trainannot/" in told


def test_what_does_not_fit_is_told_in_one_message(gensynth: Run, scenes: Path) -> None:
    segmentation, detection = OPTIONS["segmentation"], OPTIONS["detection"]
    for command, message, hint in (
        (("tiny.gsir", *segmentation), "@tiny does not segment images", "f32[N, 3, h, w]"),
        (("segmenting.gsir", *detection), "@segmenting does not detect objects", "coverage f32[N, 2, H/16, W/16]"),
        (
            ("segmenting.gsir", *segmentation, "--set", 'augmentation=["mixup"]'),
            "augmentation 'mixup' cannot",
            "drop it",
        ),
        (("detecting.gsir", *detection, "--set", "label_smoothing=0.1"), "Detection has no smoothed labels", "= 0"),
        (("segmenting.gsir", *segmentation, "--option", "size=16"), "training examples have shape [16, 3, 16", "task"),
        (("segmenting.gsir", "--task", "segmentation", "--data", "CamVid"), "there are 12 classes", "12 classes"),
        (
            ("detecting.gsir", "--task", "detection", "--data", "CamVid"),
            "there is no folder CamVid/annotations",
            "layout",
        ),
    ):
        found = gensynth("train", *command, "--out", "out", "--epochs", "1")
        assert found.code == 2, command
        assert message in found.err
        assert hint in found.err
        assert "Traceback" not in found.err
