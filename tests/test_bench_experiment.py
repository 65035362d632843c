"""Experiments: the file, the stages, and what they leave."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import experiment
import pytest
from experiment_file import load_experiment
from experiment_found import added

from gensynth.ir import UsageError
from gensynth.synth.store import Store

EXPERIMENTS = Path(__file__).parent.parent / "bench" / "experiments"
SYNTHESIS = """
requirements = ["macs <= 200K", "params <= 8K"]
performance = "accuracy"

[task]
name = "digits"

[prototype]
name = "resnet"
depth = 8
width = 8

[generator]
passes = ["sort-channels", "offer{rewrite=separate-conv}", "open-width{ratios=[0.25,0.5,1.0]}"]

[search]
cycles = 1
networks = 2
draws = 8
probes = 4
stimuli = 8

[training]
epochs = 3
optimizer = "adamw"
distillation = 0.5
learning_rate = 0.01
layout = "nhwc"

[shared_training]
epochs = 1
optimizer = "adamw"
learning_rate = 0.01
distillation = 0.5
teacher_images = "plain"
"""
EXPERIMENT = """
title = "Digits"
synthesis = "digits-synthesis.toml"
prototype = "ResNet-8"
reference = "ResNet-8 (4)"
device = "tegra-x2-gpu:fp16"
judged = 3
finalists = 2
timed_batches = 2
about = "Small."

[sweep]
learning_rates = [0.0001, 0.01]
epochs = 1
examples = 256

[[baselines]]
label = "ResNet-8 (4)"
name = "resnet"
depth = 8
width = 4

[points]
A = ["params <= 6K"]
D = ["params <= 3K"]

[family]
requirements = ["params <= 3K", "energy <= 20mJ @ tegra-x2-gpu:fp16"]
networks = 3
epochs = 1
examples = 128

[sharing]
networks = 3
epochs = 1
examples = 128
seeds = 2
longer = { epochs = 2, seeds = 2 }
ranking_epochs = 1

[goals]
against = "reference"
points.A = { density = 1 }

[forms.quick]
about = "Smaller."
training = { epochs = 1 }
judged = 1
points = { D = ["params <= 3K"] }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "digits-synthesis.toml").write_text(SYNTHESIS)
    path = tmp_path / "digits.toml"
    path.write_text(EXPERIMENT)
    return path


def run(file: Path, *arguments: str) -> int:
    code = pytest.MonkeyPatch()
    try:
        code.setattr(sys, "argv", ["experiment.py", str(file), "--processes", "0", *arguments])
        return experiment.main()
    finally:
        code.undo()


def test_forms_change_what_they_name_and_nothing_else(file: Path) -> None:
    usual, quick = load_experiment(file), load_experiment(file, "quick")
    assert (usual.config.training.epochs, quick.config.training.epochs) == (3, 1)
    assert quick.config.training.learning_rate == usual.config.training.learning_rate
    assert (usual.judged, quick.judged) == (3, 1) and usual.finalists == 2
    assert list(usual.points) == ["A", "D"] and list(quick.points) == ["D"]
    assert quick.about == "Smaller."


@pytest.mark.parametrize("name", ["cifar10", "camvid", "persons"])
@pytest.mark.parametrize("form", ["cpu", "quick", "full"])
def test_the_experiments_that_ship_can_be_read(name: str, form: str) -> None:
    found = load_experiment(EXPERIMENTS / f"{name}.toml", form)
    assert found.family_requirements and found.points
    labels = [found.prototype_label, *(item.label for item in found.baselines)]
    assert found.reference in labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("judged = 3", "jugded = 3"), "unknown key 'jugded'"),
        (("judged = 3", "judged ="), "no TOML"),
        (('title = "Digits"', ""), "'title'"),
        (('about = "Small."', ""), "'about'"),
        (('synthesis = "digits-synthesis.toml"', ""), "'synthesis'"),
        (("judged = 1", "search = { speed = 1 }"), "'speed'"),
        (("[forms.quick]", "[forms.quick]\nspeed = 3"), "'speed'"),
    ],
)
def test_a_wrong_file_is_told(file: Path, change: tuple[str, str], message: str) -> None:
    file.write_text(EXPERIMENT.replace(*change))
    form = "cpu" if "'about'" in message else "quick"
    with pytest.raises(UsageError) as caught:
        load_experiment(file, form)
    assert message in caught.value.message


def test_an_unknown_form_or_stage_is_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file, "--form", "huge") == 2
    assert "its forms are cpu, quick" in capsys.readouterr().err
    assert run(file, "--stages", "bake") == 2
    assert "there is no stage 'bake'" in capsys.readouterr().err


def test_stages_leave_what_the_page_shows_and_go_on_where_they_were(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, stored = tmp_path / "run", tmp_path / "found.json"
    common = ("--out", str(out), "--json", str(stored))
    assert run(file, *common, "--stages", "points") == 2
    assert "run the stage 'synthesis' first" in capsys.readouterr().err

    assert run(file, *common, "--stages", "baselines,synthesis") == 0
    partial = json.loads(stored.read_text())
    assert {row["learning_rate"] for row in partial["sweep"]["found"]} == {0.0001, 0.01}
    assert partial["cost"]["ratio"] > 0 and "rows" not in partial
    for stage, needed in (("family", "points"), ("control", "points"), ("sharing", "control"), ("artifact", "points")):
        assert run(file, *common, "--stages", stage) == 2
        assert f"run the stage '{needed}' first" in capsys.readouterr().err

    stages = "baselines,synthesis,points,control,family,sharing,alone,ranking,cost,test"
    assert run(file, *common, "--stages", stages) == 0
    found = json.loads(stored.read_text())
    assert (found["metric"], found["image"]) == ("accuracy", [1, 8, 8])
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["ResNet-8 (4)", "ResNet-8", "FermiNet A", "FermiNet D", "A from fresh weights"]
    control = rows["A from fresh weights"]
    assert control["params"] == rows["FermiNet A"]["params"] and control["kind"] == "control"
    assert rows["FermiNet D"]["params"] <= 3_000 < 6_000
    assert rows["FermiNet A"]["params"] <= 6_000
    for row in rows.values():
        assert row["netscore"] > 0 and row["energy_mj"] > 0 and 0 < row["accuracy"] <= 100
    for swept, trained in (
        ("ResNet-8", ("ResNet-8",)),
        ("FermiNet A", ("FermiNet A", "FermiNet D")),
        (control["name"], (control["name"],)),
    ):
        tried = [row for row in found["sweep"]["found"] if row["name"] == swept]
        best = max(tried, key=lambda row: row["accuracy"])
        assert len(tried) == 2 and {rows[name]["learning_rate"] for name in trained} == {best["learning_rate"]}
    family = found["family"]["networks"]
    assert len(family) == 3 and all(item["feasible"] and item["params"] <= 3_000 for item in family)
    sharing = found["sharing"]
    assert {"tau", "low", "high"} <= sharing["tau"].keys() and len(sharing["networks"]) == 3
    for item in sharing["networks"]:
        first, second = item["alone_each"]
        assert item["alone"] == pytest.approx((first + second) / 2)
    assert any(len(set(item["alone_each"])) == 2 for item in sharing["networks"]), "other weights of each seed"
    assert -1 <= sharing["tau_alone"] <= 1
    alone = found["alone"]
    assert (sharing["recipe"], alone["recipe"]) == ("1 epoch of 128 images", "2 epochs of 128 images")
    for item, longer in zip(sharing["networks"], alone["networks"], strict=True):
        assert longer["architecture_hash"] == item["architecture_hash"] and longer["shared"] == item["shared"]
        assert longer["shorter"] == item["alone"] and longer["alone_each"] != item["alone_each"]

    ranking = found["ranking"]
    for item, other in zip(sharing["networks"], ranking["networks"], strict=True):
        assert other["architecture_hash"] == item["architecture_hash"] and other["alone"] == item["alone"]
    judged = [[item["shared"] for item in part["networks"]] for part in (sharing, ranking)]
    assert judged[0] != judged[1], "these weights were trained for no requirements"
    for part in (ranking, ranking["longer"]):
        assert {"tau", "low", "high"} == part["tau"].keys() == part["tau_loss"].keys()

    timed, cost = found["cost"]["timed"], found["cost"]
    part = timed["prototype"]
    assert cost["prototype_seconds"] == part["seconds_per_image"] * part["images"] + part["start_seconds"]
    assert timed["prototype"]["images"] == 3 * timed["shared"]["images"], "3 epochs, and 1 for the shared weights"
    assert timed["teacher"]["images"] == timed["shared"]["images"], "one epoch, and each image was looked at once"
    assert timed["teacher"]["seconds_per_image"] > 0 and found["shared_recipe"]["teacher_images"] == "plain"
    part = timed["shared"]
    spent = part["seconds_per_image"] * part["images"] + part["start_seconds"] * part["starts"]
    looking = timed["teacher"]["seconds_per_image"] * timed["teacher"]["images"]
    assert cost["shared_seconds"] == pytest.approx(spent + looking)
    assert cost["ratio"] == pytest.approx(cost["synthesis_seconds"] / cost["prototype_seconds"])

    again = tmp_path / "again.json"
    assert run(file, "--out", str(out), "--json", str(again), "--stages", stages.replace(",cost", "")) == 0
    assert json.loads(again.read_text()) == found, "everything was found in the stores"

    for stage in ("sharing", "points"):
        assert run(file, "--out", str(tmp_path / "other"), "--stages", stage, "--json", str(again), "--add") == 2
        assert "run the stage 'synthesis' first" in capsys.readouterr().err
    del found["alone"], found["ranking"]
    again.write_text(json.dumps(found))
    assert run(file, "--out", str(tmp_path / "other"), "--stages", "alone,ranking", "--json", str(again), "--add") == 0
    both = json.loads(again.read_text())
    assert both.pop("alone") == alone, "by figures of the stage 'sharing' alone, without any of its files"
    assert both.pop("ranking") == ranking, "it trains the prototype by the rate that is known, and then its own weights"
    assert both == found

    file.write_text(EXPERIMENT.replace("params <= 3K", "params <= 4K"))
    assert run(file, *common, "--stages", "test") == 2
    assert "another experiment" in capsys.readouterr().err


def test_the_cost_of_a_synthesis_counts_its_own_trainings_only(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(file, "--out", str(out), "--stages", "synthesis") == 0
    (out / "experiment.txt").unlink()
    (tmp_path / "digits-synthesis.toml").write_text(SYNTHESIS.replace("epochs = 3", "epochs = 2"))
    assert run(file, "--out", str(out), "--stages", "synthesis") == 0
    store = Store(out / "synthesis" / "store.sqlite")
    taken = [store.time(key) for key, _, _, detail, _ in store.rows() if detail.get("what") == "prototype"]
    store.close()
    found = json.loads((out / "figures" / "synthesis.json").read_text())
    assert len(taken) == 2 and found["seconds"]["prototype"] in taken


def test_figures_are_added_to_those_of_the_same_experiment_only(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "found.json"
    common = ("--out", str(tmp_path / "run"), "--json", str(stored))
    adding = (*common, "--stages", "alone", "--add")
    assert run(file, "--stages", "alone", "--add") == 2
    assert "--add needs --json" in capsys.readouterr().err
    assert run(file, *adding) == 2
    assert f"--add finds nothing to add to in {stored}" in capsys.readouterr().err
    stored.write_text("{")
    assert run(file, *adding) == 2
    assert f"cannot read {stored}" in capsys.readouterr().err
    assert run(file, *common, "--stages", "baselines") == 0
    found = json.loads(stored.read_text())
    networks = [{"seed": 10_000, "architecture_hash": "0" * 16, "params": 1, "macs": 1, "shared": 1.0, "alone": 1.0}]
    found |= {"sharing": {"networks": networks}, "rows": [{"kind": "control", "learning_rate": 0.01}]}
    stored.write_text(json.dumps(found))
    assert run(file, *adding) == 2
    assert "seed 10000 is another network than the one that was judged" in capsys.readouterr().err
    found["recipe"]["epochs"] = 7
    stored.write_text(json.dumps(found))
    assert run(file, *adding) == 2
    assert "has recipe {'epochs': 7," in capsys.readouterr().err
    assert json.loads(stored.read_text()) == found, "nothing is lost"


def test_adding_keeps_every_network_that_was_not_measured_again() -> None:
    def rows(**found: float) -> list[dict[str, object]]:
        return [{"name": name, "accuracy": accuracy} for name, accuracy in found.items()]

    earlier = {
        "machine": 1,
        "rows": rows(a=1, b=2),
        "sweep": {"found": rows(a=3, b=4)},
        "sharing": 5,
        "alone": 6,
        "ranking": 7,
    }
    later = {"machine": 2, "rows": rows(b=7), "sweep": {"found": rows(b=8)}}
    kept = {"machine": 1, "rows": rows(a=1, b=7), "sweep": {"found": rows(a=3, b=8)}}
    assert added(earlier, later) == {**kept, "sharing": 5, "alone": 6, "ranking": 7}
    other = {**kept, "sharing": 9}
    assert added(earlier, {**later, "sharing": 9}) == other, "they were compared with other accuracies"
    assert added(earlier, {**later, "sharing": 9, "alone": 10}) == {**other, "alone": 10}
    assert added({}, later) == later
