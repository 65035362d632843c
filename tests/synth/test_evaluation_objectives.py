"""Jobs of a synthesis on tasks that do not classify: they train for the task's objective and tell all its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from scene_folders import write_camvid, write_coco
from toy_scenes import DETECTING, SEGMENTING

import gensynth as gs
from gensynth.backends.torch import Augmentation, Recipe
from gensynth.ir import UsageError
from gensynth.synth.evaluation import Job, TaskReference, run_job
from gensynth.synth.executor import LocalExecutor

RECIPE = Recipe(epochs=2, batch_size=8, optimizer="adamw", learning_rate=0.01, augmentation=(Augmentation("flip"),))
METRICS = {
    "segmentation": ["pixel_accuracy", "class_accuracy", "mean_iou"],
    "detection": ["map_50", "precision", "recall"],
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[TaskReference, str]]:
    """A task of each kind and a network for it."""
    root = tmp_path_factory.mktemp("scenes")
    write_camvid(root / "CamVid", {"train": 24, "val": 8, "test": 8})
    write_coco(root / "persons", {"train": 24, "val": 8, "test": 8})
    camvid = TaskReference("segmentation", (("data", str(root / "CamVid")), ("ignore", (11,))))
    persons = TaskReference("detection", (("data", str(root / "persons")),))
    return {"segmentation": (camvid, SEGMENTING), "detection": (persons, DETECTING)}


def metrics_of(result: Mapping[str, object]) -> dict[str, float]:
    found = result["metrics"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", METRICS)
def test_trainings_and_tests_tell_the_objectives_metrics(
    name: str, tasks: dict[str, tuple[TaskReference, str]], tmp_path: Path
) -> None:
    reference, text = tasks[name]
    saved = str(tmp_path / "weights.safetensors")
    for kind in ("search", "final", "test"):
        recipe = None if kind == "test" else RECIPE
        result = run_job(Job(kind, text, reference, 1, recipe, saved=saved)).result
        assert list(metrics_of(result)) == METRICS[name]
        assert result["accuracy"] == metrics_of(result)[METRICS[name][0]]
        assert isinstance(result["loss"], float)
        assert all(0 <= value <= 100 for value in metrics_of(result).values())


@pytest.mark.parametrize("name", METRICS)
def test_a_probe_sends_back_the_gradient_of_the_objective(
    name: str, tasks: dict[str, tuple[TaskReference, str]]
) -> None:
    reference, text = tasks[name]
    result = run_job(Job("probe", text, reference, 1, stimuli=8)).result
    scores, edges = result["scores"], result["edges"]
    assert isinstance(scores, dict) and isinstance(edges, dict)
    assert np.isfinite(list(scores.values())).all()
    assert scores["gradient_norm"] > 0
    assert edges["b.act -> logits.0" if name == "segmentation" else "d.act -> bboxes.0"] > 0


def test_another_process_trains_for_the_same_objective(tasks: dict[str, tuple[TaskReference, str]]) -> None:
    jobs = [Job("search", text, reference, 1, RECIPE) for reference, text in tasks.values()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as worker processes have
    try:
        here = [run_job(job).result for job in jobs]
    finally:
        torch.set_num_threads(threads)
    there = dict(LocalExecutor(2).map(run_job, jobs))
    assert [there[index].result for index in range(2)] == here


def test_a_classifier_has_the_keys_that_it_always_had_and_its_metrics_beside() -> None:
    network = gs.prototype("resnet", depth=8, image=(1, 8, 8))
    job = Job("search", gs.to_text(network.graph), TaskReference("digits"), 1, Recipe(epochs=1))
    result = run_job(job).result
    assert list(result) == ["accuracy", "loss", "epochs", "metrics"]
    assert result["metrics"] == {"accuracy": result["accuracy"]}


def test_mixup_is_refused_before_anything_is_trained(tasks: dict[str, tuple[TaskReference, str]]) -> None:
    reference, text = tasks["segmentation"]
    recipe = Recipe(**{**asdict(RECIPE), "augmentation": (Augmentation("mixup"),)})
    with pytest.raises(UsageError, match="augmentation 'mixup' cannot be used with Segmentation"):
        run_job(Job("search", text, reference, 1, recipe))
