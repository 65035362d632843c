"""Syntheses for segmentation and for detection: the same loop, other objectives."""

import pytest
from scene_folders import write_camvid, write_coco
from toy_scenes import DETECTING, SEGMENTING

from gensynth.ir import UsageError
from gensynth.synth import LocalExecutor, synthesize

CONFIG = """
requirements = ["macs <= {macs}"]

[task]
name = "{task}"
data = "{data}"
{options}

[prototype]
path = "{prototype}"

[generator]
passes = ["open-width{{ratios=[0.5,1.0]}}", "offer{{rewrite=separate-conv}}"]

[search]
cycles = 1
networks = 2
probes = 3
draws = 8
stimuli = 8

[emit]
seeds = 2
pool = 8

[training]
epochs = {epochs}
batch_size = 16
optimizer = "adamw"
learning_rate = 0.02

[shared_training]
epochs = 2
batch_size = 16
optimizer = "adamw"
learning_rate = 0.02
"""


def run(folder, text, **values):
    prototype = folder / "prototype.gsir"
    prototype.write_text(text)
    path = folder / "dense.toml"
    path.write_text(CONFIG.format(data=folder / "data", prototype=prototype, **values))
    return synthesize(path, folder / "run", executor=LocalExecutor(0))


def test_a_synthesis_for_segmentation_emits_networks_that_segment(tmp_path):
    write_camvid(tmp_path / "data", {"train": 48, "val": 16, "test": 16})
    options = 'names = ["ground", "red", "blue"]\nsize = [32, 32]\nignore = [11]'
    result = run(tmp_path, SEGMENTING, task="segmentation", options=options, macs="1M", epochs=6)
    rows = [result.summary["prototype"], *result.summary["networks"]]
    assert len(rows) == 3
    assert all(row["accuracy"] > 60.0 for row in rows), "pixel accuracy above that of the ground alone"
    assert all(row["feasible"] and row["macs"] <= 1_000_000 for row in rows[1:])
    assert result.report.is_file()


def test_a_synthesis_for_detection_emits_networks_that_detect(tmp_path):
    write_coco(tmp_path / "data", {"train": 48, "val": 16, "test": 16})
    result = run(tmp_path, DETECTING, task="detection", options="size = [64, 64]", macs="5M", epochs=8)
    assert len(result.summary["networks"]) == 2
    assert all(0.0 <= row["accuracy"] <= 100.0 for row in result.summary["networks"])
    assert result.report.is_file()


def test_a_prototype_that_does_not_segment_is_refused_before_anything_is_trained(tmp_path):
    write_camvid(tmp_path / "data", {"train": 4, "val": 2, "test": 2}, side=64)
    options = 'names = ["ground", "red", "blue"]\nsize = [64, 64]\nignore = [11]'
    with pytest.raises(UsageError, match="@detecting does not segment images"):
        run(tmp_path, DETECTING, task="segmentation", options=options, macs="1M", epochs=1)
