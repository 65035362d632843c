import dataclasses
import json
import sqlite3

import pytest

from gensynth.ir import GenSynthError, ParseError, UsageError, load_network
from gensynth.passes import run_pipeline
from gensynth.synth import Generator, LocalExecutor, synthesize
from gensynth.synth.config import load_config, parse_config

CONFIG = """
requirements = ["accuracy >= 20%", "macs <= 200K", "params <= 20K"]

[task]
name = "digits"

[prototype]
name = "resnet"
depth = 8

[generator]
passes = ["sort-channels", "offer{rewrite=separate-conv,where=stage2}", "open-width{ratios=[0.25,0.5,1.0]}"]

[search]
cycles = 2
networks = 2
probes = 4
draws = 8
stimuli = 16

[inquisitor]
commit = 0.55
drop = 0.2
offers = ["low-rank-conv"]

[emit]
seeds = 2
pool = 8

[training]
epochs = 2

[search_training]
epochs = 1
"""


class Interrupted(Exception):
    """Stands for a kill between two evaluations."""


class Breaking(LocalExecutor):
    """Runs in this process and breaks off after some evaluations."""

    def __init__(self, after):
        super().__init__(0)
        self.left = after

    def map(self, function, items):
        for index, result in super().map(function, items):
            if self.left == 0:
                raise Interrupted
            self.left -= 1
            yield index, result


def evaluations(out):
    connection = sqlite3.connect(out / "store.sqlite")
    rows = connection.execute("SELECT * FROM evaluations ORDER BY key").fetchall()
    connection.close()
    return rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    path = folder / "tiny.toml"
    path.write_text(CONFIG)
    return synthesize(path, folder / "run", executor=LocalExecutor(0)), path


def test_a_run_leaves_everything_that_it_promises(finished):
    result, _ = finished
    for name in ("config.toml", "store.sqlite", "prototype.gsir", "generator.gsir", "summary.json", "report.html"):
        assert (result.out / name).is_file(), name
    assert sorted(path.name for path in (result.out / "generators").glob("*.gsir")) == [
        "000.gsir",
        "001.gsir",
        "002.gsir",
    ]
    summary = json.loads((result.out / "summary.json").read_text())
    assert summary == result.summary
    assert set(summary) == {"task", "performance", "requirements", "prototype", "networks"}
    keys = {
        "seed",
        "architecture_hash",
        "accuracy",
        "params",
        "macs",
        "information_density",
        "netscore",
        "feasible",
        "path",
    }
    for row in [summary["prototype"], *summary["networks"]]:
        assert keys <= set(row)
        network = load_network(result.out / row["path"])
        assert network.hash == row["architecture_hash"]
        assert network.weights is not None
    assert len({row["architecture_hash"] for row in summary["networks"]}) == 2


def test_emitted_networks_are_those_of_their_seeds(finished):
    result, _ = finished
    generator = Generator.load(result.out / "generator.gsir")
    for row in result.summary["networks"]:
        assert generator.generate(row["seed"]).hash == row["architecture_hash"]


def test_unseen_seeds_meet_the_computable_requirements(finished):
    result, _ = finished
    for seed in range(10**9, 10**9 + 100):
        found = result.generator.decide(seed).totals
        assert found.macs <= 200_000
        assert found.params <= 20_000


def test_the_recorded_passes_replay_to_the_same_generators(finished):
    result, _ = finished
    for cycle in (1, 2):
        before = load_network(result.out / "generators" / f"{cycle - 1:03d}.gsir", weights=None)
        text = (result.out / "cycles" / f"{cycle:03d}.passes").read_text()
        after = run_pipeline(dataclasses.replace(before, weights=None), text)
        assert str(after) == (result.out / "generators" / f"{cycle:03d}.gsir").read_text()


def test_every_decision_of_a_cycle_is_recorded_with_its_reason(finished):
    result, _ = finished
    for cycle in (1, 2):
        report = json.loads((result.out / "cycles" / f"{cycle:03d}.json").read_text())
        assert len(report["reasons"]) == len(report["passes"]) > 0
        assert all(reason["text"] for reason in report["reasons"])


@pytest.mark.parametrize("after", [0, 3, 7])
def test_an_interrupted_run_resumes_to_the_same_result(finished, tmp_path, after):
    whole, path = finished
    with pytest.raises(Interrupted):
        synthesize(path, tmp_path / "run", executor=Breaking(after))
    assert len(evaluations(tmp_path / "run")) == after
    resumed = synthesize(path, tmp_path / "run", resume=True, executor=LocalExecutor(0))
    assert resumed.summary == whole.summary
    assert evaluations(tmp_path / "run") == evaluations(whole.out)
    assert (resumed.out / "generator.gsir").read_text() == (whole.out / "generator.gsir").read_text()


def test_a_finished_run_resumes_without_any_evaluation(finished):
    result, path = finished
    again = synthesize(path, result.out, resume=True, executor=Breaking(0))
    assert again.summary == result.summary


def test_the_test_part_is_read_by_no_search(finished):
    result, _ = finished
    kinds = [row[1] for row in evaluations(result.out)]
    assert kinds.count("test") == 3
    assert set(kinds) == {"probe", "search", "final", "test"}


def test_a_directory_with_a_run_is_not_overwritten(finished):
    result, path = finished
    with pytest.raises(UsageError, match="not empty"):
        synthesize(path, result.out)


def test_a_run_of_another_configuration_is_not_resumed(finished, tmp_path):
    result, _ = finished
    other = tmp_path / "other.toml"
    other.write_text(CONFIG.replace("cycles = 2", "cycles = 3"))
    with pytest.raises(UsageError, match="another configuration"):
        synthesize(other, result.out, resume=True)


def test_a_prototype_that_does_not_fit_the_task_is_refused(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(CONFIG.replace("depth = 8", "depth = 8\nclasses = 7"))
    with pytest.raises(UsageError, match="7"):
        synthesize(path, tmp_path / "run", executor=LocalExecutor(0))


def test_a_prototype_that_does_not_train_is_told_with_the_reason(tmp_path):
    path = tmp_path / "wild.toml"
    path.write_text(CONFIG.replace("[training]\nepochs = 2", "[training]\nepochs = 2\nlearning_rate = 1e30"))
    with pytest.raises(GenSynthError, match="prototype's training failed") as caught:
        synthesize(path, tmp_path / "run", executor=LocalExecutor(0))
    assert "learning_rate" in str(caught.value.hint)


def test_requirements_that_no_network_meets_are_found_before_any_search(tmp_path):
    path = tmp_path / "tight.toml"
    path.write_text(CONFIG.replace("macs <= 200K", "macs <= 100"))
    from gensynth.ir import PassError

    with pytest.raises(PassError, match="macs <= 100"):
        synthesize(path, tmp_path / "run", executor=LocalExecutor(0))


def test_a_requirement_on_a_device_holds_from_the_first_cycle_on(tmp_path):
    path = tmp_path / "energy.toml"
    asked = 'requirements = ["params <= 20K", "energy <= 8mJ @ tegra-x2-gpu:fp16"]\nperformance = "accuracy"'
    text = CONFIG.replace(CONFIG.strip().splitlines()[0], asked)
    path.write_text(text.replace("draws = 8", "draws = 48"))  # more than are probed without a look
    found = synthesize(path, tmp_path / "run", executor=LocalExecutor(0))
    assert all(row["feasible"] and row["energy_mj"] <= 8.0 for row in found.summary["networks"])


def test_the_demo_configuration_reads():
    config = load_config("examples/digits.toml")
    assert config.task == "digits"
    assert config.emit.seeds >= 8


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('name = "digits"', 'nme = "digits"', 4, "no name"),
        ("cycles = 2", "cycels = 2", 15, "did you mean 'cycles'"),
        ("cycles = 2", 'cycles = "two"', 15, "whole number"),
        ("[emit]", "[emti]", 26, "did you mean 'emit'"),
        ("macs <= 200K", "macs <= 200X", 2, "no unit 'X'"),
        ("epochs = 2", "epochs = 0", 31, "at least 1"),
        ("sort-channels", "sort-chanels", 12, "sort-channels"),
    ],
)
def test_a_fault_in_a_configuration_is_told_with_its_line(old, new, line, words):
    with pytest.raises(ParseError) as caught:
        parse_config(CONFIG.replace(old, new, 1), "c.toml")
    assert f"c.toml:{line}:" in str(caught.value)
    assert words in str(caught.value)
