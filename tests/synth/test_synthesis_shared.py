"""A synthesis whose networks are trained together, and finished by distillation from the prototype."""

import json
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from gensynth.ir import ParseError, load_network
from gensynth.synth import LocalExecutor, synthesize
from gensynth.synth.config import parse_config
from gensynth.synth.evaluation import Job, TaskReference, run_job
from gensynth.synth.synthesis import Synthesis

CONFIG = """
requirements = ["macs <= 400K"]

[task]
name = "digits"

[prototype]
name = "resnet"
depth = 8

[generator]
passes = ["sort-channels", "offer{rewrite=bypass-block}", "open-width{ratios=[0.5,1.0]}"]

[search]
cycles = 2
networks = 3
probes = 4
draws = 8
stimuli = 16

[emit]
seeds = 2
pool = 8

[training]
epochs = 3
optimizer = "adamw"
learning_rate = 0.01
distillation = 0.5

[shared_training]
epochs = 3
optimizer = "adamw"
learning_rate = 0.01
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    path = folder / "shared.toml"
    path.write_text(CONFIG)
    return synthesize(path, folder / "run", executor=LocalExecutor(0)), path


def rows(out, kind):
    with sqlite3.connect(out / "store.sqlite") as connection:
        found = connection.execute("SELECT result FROM evaluations WHERE kind = ?", (kind,)).fetchall()
    return [json.loads(result) for (result,) in found]


def test_networks_are_judged_with_shared_weights_and_not_trained_before_they_are_emitted(finished):
    result, _ = finished
    (shared,) = rows(result.out, "shared")
    assert shared["epochs"] == 3 and shared["accuracy"] > 50.0
    searched = rows(result.out, "search")
    assert len(searched) == 6
    assert all("epochs" not in row for row in searched)
    assert np.mean([row["accuracy"] for row in searched]) > 20.0, "slices of trained weights do better than chance"
    assert len(rows(result.out, "final")) >= 3


def test_the_generator_carries_the_shared_weights(finished):
    result, _ = finished
    first = load_network(result.out / "generators" / "000.gsir")
    trained = load_network(result.out / "prototype.gsir")
    assert first.weights is not None and trained.weights is not None
    assert any(not np.array_equal(first.weights[name], trained.weights.get(name)) for name in first.weights)


def test_a_finished_run_is_resumed_without_another_training(finished):
    result, path = finished
    before = (result.out / "weights" / "shared.safetensors").stat().st_mtime_ns
    again = synthesize(path, result.out, resume=True, executor=LocalExecutor(0))
    assert again.summary == result.summary
    assert (result.out / "weights" / "shared.safetensors").stat().st_mtime_ns == before


def test_a_recipe_for_short_trainings_still_trains_them():
    assert parse_config(CONFIG).search_training is None
    both = parse_config(f"{CONFIG}\n[search_training]\nepochs = 1\n")
    assert both.search_training is not None and both.shared_training is not None
    neither = parse_config(CONFIG.partition("[shared_training]")[0])
    assert neither.search_training == neither.training and neither.shared_training is None


def test_a_mistake_in_the_recipe_of_shared_training_is_told_before_anything_runs():
    with pytest.raises(ParseError, match=r"\[shared_training\]: epochs is 0"):
        parse_config(CONFIG.replace("[shared_training]\nepochs = 3", "[shared_training]\nepochs = 0"))


@pytest.mark.parametrize("line", ["early_stop = 2", 'augmentation = ["mixup"]'])
def test_what_shared_training_does_not_do_is_told_with_its_line(line):
    with pytest.raises(ParseError, match=r"\[shared_training\]: networks are not trained together with") as caught:
        parse_config(f"{CONFIG}{line}\n")
    assert line in str(caught.value)


def test_the_prototype_leads_the_training_of_all_networks_where_its_recipe_distils(finished, tmp_path):
    path = tmp_path / "led.toml"
    path.write_text(f"{CONFIG}distillation = 0.5\n")
    led = synthesize(path, tmp_path / "run", executor=LocalExecutor(0))
    (shared,) = rows(led.out, "shared")
    assert shared["epochs"] == 3 and shared["accuracy"] > 50.0
    weights = [load_network(run.out / "generators" / "000.gsir").weights for run in (led, finished[0])]
    assert any(not np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_keys_of_trainings_without_a_teacher_do_not_depend_on_distillation(finished):
    result, _ = finished
    text = (result.out / "prototype.gsir").read_text()
    recipe = parse_config(CONFIG).training
    plain = Job("final", text, TaskReference("digits"), 0, parse_config(CONFIG).shared_training)
    taught = Job("final", text, TaskReference("digits"), 0, recipe, teacher=str(result.out / "prototype.gsir"))
    assert len({plain.key, taught.key}) == 2
    for changes in ({"teacher_precision": "bfloat16"}, {"teacher_images": "plain"}):
        alone = replace(parse_config(CONFIG).shared_training, **changes)
        assert replace(plain, recipe=alone).key == plain.key, "nobody teaches"
        assert replace(taught, recipe=replace(recipe, **changes)).key != taught.key
    assert run_job(taught).result["accuracy"] > 50.0


def test_equal_jobs_of_one_batch_are_run_once_unless_they_save_to_different_files(finished, tmp_path):
    class Counting(LocalExecutor):
        def map(self, function, items):
            ran.extend(items)
            return super().map(function, items)

    ran: list[Job] = []
    text = (finished[0].out / "prototype.gsir").read_text()
    short = Job("search", text, TaskReference("digits"), 0, replace(parse_config(CONFIG).training, distillation=0.0))
    files = [str(tmp_path / name) for name in ("one.safetensors", "two.safetensors")]
    jobs = [short, short, *(replace(short, saved=saved) for saved in files)]
    synthesis = Synthesis(parse_config(CONFIG), tmp_path, executor=Counting(0))
    results = synthesis.evaluate([(job, "x", {}) for job in jobs], "training")
    assert ran == [jobs[0], jobs[2], jobs[3]]
    assert len(results) == 4 and all(result == results[0] for result in results)
    assert synthesis.evaluate([(job, "x", {}) for job in jobs], "training") == results and len(ran) == 3
