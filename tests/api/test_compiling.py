"""`gensynth compile`, `measure` and `targets`: what they write, what they say, what they refuse."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Run

import gensynth as gs
from gensynth.backends.reference import run_reference
from gensynth.backends.tvm.host import host_architecture

ELSEWHERE = "tegra-x2-cpu" if host_architecture() == "x86_64" else "x86-64-v3"


def test_a_network_is_compiled_measured_and_run(gensynth: Run, folder: Path) -> None:
    found = gensynth("compile", "tiny.gsir", "--out", "board", "--seed", "3", "--task", "digits")
    assert found.code == 0, found.err
    assert "@tiny for host, batch 1, f32: 4,688 MACs" in found.out
    assert "its outputs are those of the reference" in found.out
    assert "board/ (" in found.out and "board.tar.gz (" in found.out
    assert found.out.endswith("next: gensynth measure board\n")
    told = json.loads((folder / "board" / "manifest.json").read_text())
    assert told["preprocessing"]["deviation"] == [6.0] and told["preprocessing"]["classes"] == list("0123456789")

    measured = gensynth("measure", "board", "--repetitions", "20", "--threads", "1", "--csv", "measured.csv")
    assert measured.code == 0, measured.err
    assert measured.out.startswith("board/network.gsir: host, batch 1, fp32, 1 thread\n")
    again = gensynth("measure", "board.tar.gz", "--repetitions", "5", "--csv", "measured.csv", "--json")
    with (folder / "measured.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["repetitions"] for row in rows] == ["20", "5"]
    assert float(rows[1]["latency_ms"]) == pytest.approx(json.loads(again.out)["latency_ms"], rel=1e-5)

    image = np.random.default_rng(0).standard_normal((1, 1, 8, 8), dtype=np.float32)
    network = gs.load("board/network.gsir")
    np.testing.assert_allclose(gs.load_artifact("board")(image), run_reference(network, image)[0], rtol=1e-5, atol=1e-6)


def test_python_compiles_as_the_command_does(gensynth: Run, folder: Path) -> None:
    network = gs.load("tiny.gsir")
    network = gs.Network(network.graph, gs.initialize(network.graph, 3))
    manifest = gs.compile(network, target="host", out="python/board")
    told = json.loads(gensynth("compile", "tiny.gsir", "--out", "shell/board", "--seed", "3", "--json").out)
    assert told == manifest.facts
    assert (folder / "python/board.tar.gz").read_bytes() == (folder / "shell/board.tar.gz").read_bytes()


def test_tuning_keeps_a_record_that_later_compiles_use(gensynth: Run, folder: Path) -> None:
    options = ("--seed", "3", "--no-archive", "--no-source", "--records", "tuned.json")
    found = gensynth("compile", "tiny.gsir", "--out", "board", *options, "--tune", "2", "--seconds", "5")
    assert found.code == 0, found.err
    assert "tuning @tiny for host" in found.err
    record = (folder / "tuned.json").read_bytes()
    again = gensynth("compile", "tiny.gsir", "--out", "board", *options)
    assert again.code == 0 and "tuning" not in again.err
    assert (folder / "tuned.json").read_bytes() == record
    assert not (folder / "board.tar.gz").exists() and not (folder / "board" / "network.gsir").exists()


def test_for_another_machine_measure_says_what_to_type(gensynth: Run, folder: Path) -> None:
    compiled = gensynth("compile", "tiny.gsir", "--out", "board", "--seed", "3", "--target", ELSEWHERE)
    assert compiled.code == 0, compiled.err
    assert "its outputs are to be those of the reference" in compiled.out and "./run --selftest" in compiled.out
    found = gensynth("measure", "board", "--board", "me@board", "--repetitions", "30")
    assert found.code == 0
    lines = [line.strip() for line in found.out.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines] == ["scp", "ssh", "gensynth"]
    assert "me@board" in lines[0] and "--bench 30" in lines[1]
    assert json.loads(gensynth("measure", "board", "--board", "me@board", "--repetitions", "30", "--json").out) == {
        "commands": lines
    }
    (folder / "empty.json").write_text("")
    assert gensynth("measure", "board", "--result", "empty.json").code == 2
    energy = gensynth("measure", "board", "--board", "me@board", "--energy", "--rails", "VDD_IN", "--blocks", "5")
    assert "python3 gensynth_energy.py . --rails VDD_IN --blocks 5 --json' > board.energy.json" in energy.out


def test_energy_is_measured_where_there_is_a_sensor(
    gensynth: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gensynth.backends.tvm.runtime import gensynth_energy

    assert gensynth("compile", "tiny.gsir", "--out", "board", "--seed", "3").code == 0
    monkeypatch.setattr(gensynth_energy, "SYSFS", str(folder / "sys"))
    refused = gensynth("measure", "board", "--energy")
    assert refused.code == 2 and "no power sensor" in refused.err and "hint: run this on the board" in refused.err
    meter = folder / "sys/class/hwmon/hwmon0"
    meter.mkdir(parents=True)
    (meter / "name").write_text("power_meter\n")
    (meter / "power1_average").write_text("30000000\n")
    options = ("--blocks", "2", "--repetitions", "2000", "--idle", "0", "--threads", "1")
    found = gensynth("measure", "board", "--energy", *options, "--csv", "measured.csv")
    assert found.code == 0, found.err
    assert "4,000 repetitions" in found.out.replace("4000", "4,000")
    assert "mJ a run, standard error" in found.out and "power_meter/power1" in found.out
    assert "block 2 of 2, 2000 runs" in found.err
    with (folder / "measured.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert float(line["energy_mj"]) > 0 and (line["idle_w"], line["repetitions"]) == ("", "4000")
    wrong = gensynth("measure", "board", "--energy", *options, "--csv", "tiny.gsir")
    assert wrong.code == 2 and "has other columns" in wrong.err and "block" not in wrong.err


def test_targets_are_listed_and_told_of(gensynth: Run) -> None:
    listed = gensynth("targets")
    assert listed.code == 0
    assert listed.out.splitlines()[1].startswith("host ")
    assert "tegra-x2-gpu" in listed.out
    names = [item["name"] for item in json.loads(gensynth("targets", "--json").out)]
    assert names[0] == "host" and "raspberry-pi-5" in names
    told = gensynth("targets", "tegra-x2-gpu")
    assert "sm_62" in told.out and "Data Sheet" in told.out
    assert json.loads(gensynth("targets", "tegra-x2-gpu", "--json").out)["cuda"]["multiprocessors"] == 2


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["compile", "tiny.gsir", "--out", "board"], "@tiny has no weights"),
        (["compile", "open.gsir", "--out", "board", "--seed", "0"], "@open has open choices"),
        (["compile", "tiny.gsir", "--out", "-", "--seed", "0"], "cannot go to stdout"),
        (["compile", "tiny.gsir", "--out", ".", "--seed", "0"], "is no artifact, so it is not replaced"),
        (["compile", "tiny.gsir", "--out", "board", "--seed", "0", "--dtype", "f16"], "has no f16 kernels"),
        (["compile", "tiny.gsir", "--out", "board", "--seed", "0", "--records", "tiny.gsir"], "no tuning record"),
        (
            ["compile", "tiny.gsir", "--out", "board", "--seed", "0", "--target", ELSEWHERE, "--tune", "2"],
            "this machine",
        ),
    ],
)
def test_what_cannot_be_compiled_ends_with_2_and_a_hint(
    gensynth: Run, folder: Path, argv: list[str], told: str
) -> None:
    found = gensynth(*argv)
    assert found.code == 2
    assert told in found.err
    assert "hint" in found.err
    assert not list(folder.glob("board*"))
