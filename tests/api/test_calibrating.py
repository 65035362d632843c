"""`gensynth calibrate`, from the CSV to the device file that other commands read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Run

import gensynth as gs
from gensynth.passes.cost import cost_model, load_device

NETWORKS = ("resnet depth=8", "resnet depth=14", "resnet depth=20 width=32", "squeezenet", "lenet", "mobilenet")


@pytest.fixture
def measured(folder: Path) -> Path:
    """A CSV of what networks take on a Tegra X2 that is slower than its file says."""
    lines = ["network,latency_ms,energy_mj,precision,runtime"]
    for precision in ("fp16", "fp32"):
        model = cost_model("tegra-x2-gpu", precision=precision)
        for name in NETWORKS:
            words = name.split()
            arguments = {key: int(value) for key, value in (word.split("=") for word in words[1:])}
            latency, energy = model.totals(gs.prototype(words[0], **arguments).graph)
            lines.append(f"{name},{1.3 * latency:.4f},{1.2 * energy:.4f},{precision},tensorrt")
    path = folder / "measured.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_calibration_prints_errors_and_writes_the_device(gensynth: Run, measured: Path) -> None:
    found = gensynth("calibrate", "measured.csv", "--device", "tegra-x2-gpu", "--out", "mine.toml", "--no-plot")
    assert found.code == 0
    assert "12 measurements of 6 networks in 4 families" in found.out
    assert "tensorrt fp16 MAX-N" in found.out and "energy" in found.out
    assert "held out by network: 6 of 6" in found.err
    assert load_device("mine.toml").evidence["tensorrt", "latency"].data == "measured.csv"
    (measured.parent / "net.gsir").write_text(gs.to_text(gs.prototype("resnet", depth=20)))
    old = json.loads(gensynth("cost", "net.gsir", "--device", "tegra-x2-gpu:tensorrt", "--json").out)
    new = json.loads(gensynth("cost", "net.gsir", "--device", "mine.toml:tensorrt", "--json").out)
    assert 1.15 < new["latency_ms"] / old["latency_ms"] < 1.45
    assert 1.1 < new["energy_mj"] / old["energy_mj"] < 1.35


def test_a_calibration_is_told_as_json_and_drawn(gensynth: Run, measured: Path) -> None:
    pytest.importorskip("matplotlib")
    found = gensynth("calibrate", "measured.csv", "--device", "board", "--like", "tegra-x2-gpu", "--json")
    assert found.code == 0
    told = json.loads(found.out)
    assert told["device"] == "board" and told["rows"] == 12
    assert {item["quantity"] for item in told["errors"]} == {"latency", "energy"}
    assert Path(told["path"]).exists() and Path(told["plot"]).read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--device", "board", "--like", "nothing"), "unknown device 'nothing'"),
        (("--device", "tegra-x2-gpu", "--lowering", "fusd"), "unknown lowering 'fusd'"),
        (("--device", "tegra-x2-gpu", "--plot", "a.svg", "--no-plot"), "exclude each other"),
        (("--device", "tegra-x2-gpu", "--out", "mine.json"), "ends in .toml"),
        ((), "--device"),
    ],
)
def test_what_calibrate_cannot_do_is_told_in_one_message(
    gensynth: Run, measured: Path, arguments: tuple[str, ...], says: str
) -> None:
    found = gensynth("calibrate", "measured.csv", *arguments)
    assert found.code == 2 and says in found.err and "Traceback" not in found.err
    assert not (measured.parent / "mine.json").exists()
