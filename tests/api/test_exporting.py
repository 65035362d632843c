"""`gensynth export`: what it writes, what it says, what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import Run

import gensynth as gs
from gensynth.backends.onnx import DEFAULT_OPSET, OnnxSession
from gensynth.cli import COMMANDS


def test_a_model_is_written_and_checked_by_onnx_runtime(gensynth: Run, folder: Path) -> None:
    found = gensynth("export", "tiny.gsir", "-o", "tiny.onnx", "--seed", "3", "--check")
    assert found.code == 0, found.err
    assert found.out.startswith("tiny.onnx (")
    assert f"@tiny, opset {DEFAULT_OPSET}, any batch" in found.out
    assert "differs from the reference by at most" in found.out
    weights = {
        item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(folder / "tiny.onnx").graph.initializer
    }
    for name, array in gs.initialize(gs.load("tiny.gsir").graph, 3).items():
        assert np.array_equal(weights[name], array)


def test_opset_batch_and_external_data_are_what_was_asked_for(gensynth: Run, folder: Path) -> None:
    options = ("--opset", "13", "--batch", "4", "--external-data", "--json")
    found = gensynth("export", "tiny.gsir", "-o", "tiny.onnx", "--seed", "0", *options)
    told = json.loads(found.out)
    assert (told["opset"], told["batch"], told["difference"]) == (13, 4, None)
    assert told["architecture_hash"] == gs.load("tiny.gsir").hash
    assert told["files"] == {name: (folder / name).stat().st_size for name in ("tiny.onnx", "tiny.onnx.data")}
    assert OnnxSession("tiny.onnx").inputs == {"image": (4, 1, 8, 8)}


def test_weights_beside_the_network_are_used(gensynth: Run, folder: Path) -> None:
    network = gs.load("tiny.gsir")
    gs.save(gs.Network(network.graph, gs.initialize(network.graph, 5)), "tiny.gsir")
    assert gensynth("export", "tiny.gsir", "-o", "beside.onnx").code == 0
    gs.export_onnx(gs.load("tiny.gsir"), "again.onnx")
    assert (folder / "beside.onnx").read_bytes() == (folder / "again.onnx").read_bytes()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["tiny.gsir", "-o", "x.onnx"], "@tiny has no weights to export"),
        (["open.gsir", "-o", "x.onnx", "--seed", "0"], "@open has open choices"),
        (["tiny.gsir", "-o", "-", "--seed", "0"], "cannot go to stdout"),
        (["tiny.gsir", "-o", "x.pb", "--seed", "0"], "does not end in .onnx"),
        (["tiny.gsir", "-o", "x.onnx", "--seed", "0", "--opset", "7"], "opset 7 cannot be written"),
        (["tiny.gsir", "-o", "x.onnx", "--seed", "0", "--batch", "0"], "at least 1"),
        (["tiny.gsir", "--seed", "0"], "-o/--output"),
    ],
)
def test_what_cannot_be_exported_ends_with_2_and_a_hint(
    gensynth: Run, folder: Path, argv: list[str], told: str
) -> None:
    found = gensynth("export", *argv)
    assert found.code == 2
    assert told in found.err
    assert "hint" in found.err
    assert not list(folder.glob("x.*"))


def test_the_help_names_the_opset_that_is_the_default() -> None:
    assert f"(default {DEFAULT_OPSET})" in COMMANDS["export"].parser().format_help()


def test_without_onnx_the_extra_to_install_is_told(folder: Path) -> None:
    script = """
import sys
sys.modules["onnx"] = None
import gensynth
from gensynth.cli import main
try:
    gensynth.export_onnx
except gensynth.GenSynthError as error:
    print(error.message, error.hint)
print(main(["export", "tiny.gsir", "-o", "tiny.onnx", "--seed", "0"]))
"""
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == 'gensynth.export_onnx needs onnx, which is not installed pip install "gensynth[onnx]"\n2\n'
    assert "gensynth export needs onnx" in found.stderr
    assert not (folder / "tiny.onnx").exists()
