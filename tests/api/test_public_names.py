"""The public names of `import gensynth`, and what importing them costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import TINY, Run

import gensynth as gs

HEAVY = ("torch", "onnx", "tvm", "scipy", "sklearn", "matplotlib", "networkx", "igraph", "rich", "PIL")


def heavy_modules_after(code: str, folder: Path) -> list[str]:
    """Returns which heavy libraries a fresh interpreter holds after some code."""
    script = f"import sys\n{code}\nsys.stderr.write(','.join(m for m in {HEAVY} if m in sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return [name for name in found.stderr.split(",") if name]


def test_every_public_name_can_be_had() -> None:
    for name in gs.__all__:
        assert getattr(gs, name) is not None, name
    assert set(gs.__all__) <= set(dir(gs))


def test_an_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        gs.no_such_name  # noqa: B018


def test_importing_gensynth_imports_no_heavy_library_and_not_even_numpy(tmp_path: Path) -> None:
    assert heavy_modules_after("import gensynth", tmp_path) == []
    assert heavy_modules_after("import gensynth; assert 'numpy' not in sys.modules", tmp_path) == []


@pytest.mark.parametrize(
    "command",
    [
        "opt --help",
        "opt tiny.gsir --passes canonicalize --ledger",
        "opt tiny.gsir --why separate-conv",
        "show tiny.gsir",
        "diff tiny.gsir tiny.gsir",
        "cost tiny.gsir",
        "cost tiny.gsir --device tegra-x2-gpu",
        "opt tiny.gsir --passes canonicalize --device tegra-x2-gpu",
        "passes",
        "ops conv2d",
        "prototype lenet",
        "prototypes",
        "tasks",
        "targets",
        "devices",
        "devices tegra-x2-gpu",
        "compile --help",
        "generate open.gsir --seeds 0:2 --out nets",
    ],
)
def test_commands_on_the_ir_import_no_heavy_library(command: str, folder: Path) -> None:
    code = f"from gensynth.cli import main; assert main({command.split()!r}) == 0"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint([m for m in {HEAVY} if m in sys.modules])"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert found.stdout.splitlines()[-1] == "[]"


def test_a_network_survives_text_and_file(folder: Path) -> None:
    network = gs.load("tiny.gsir")
    assert gs.parse(gs.to_text(network)).graph == network.graph
    assert gs.to_text(network.graph) == gs.to_text(network)
    weighted = gs.Network(network.graph, gs.initialize(network.graph, 3))
    gs.save(weighted, folder / "copy.gsir")
    again = gs.load("copy.gsir")
    assert again.weights is not None
    assert set(again.weights) == set(gs.initialize(network.graph))


def test_cost_takes_a_network_or_a_graph() -> None:
    network = gs.parse(TINY)
    by_hand = 8 * 8 * 8 * 9 + 8 * 10
    assert gs.cost(network).macs == gs.cost(network.graph).macs == by_hand
    assert gs.cost(network, batch=4).macs == 4 * by_hand


def test_a_prototype_goes_through_a_pipeline_and_is_compared() -> None:
    network = gs.prototype("resnet", depth=8, image=(1, 8, 8))
    folded = gs.run_pipeline(network, "fold-batch-norm,canonicalize")
    assert gs.cost(folded).nodes < gs.cost(network).nodes
    assert gs.diff(network, folded)
    assert not gs.diff(network, network.graph)


def test_a_generator_is_loaded_and_emits(folder: Path) -> None:
    generator = gs.Generator.load(folder / "open.gsir")
    assert generator.generate(seed=7).graph == generator.generate(seed=7).graph


def test_without_torch_its_names_and_commands_say_which_extra_to_install(folder: Path) -> None:
    script = """
import json, sys
sys.modules["torch"] = None
import gensynth
from gensynth.cli import main
try:
    gensynth.to_torch
except gensynth.GenSynthError as error:
    told = error.hint
codes = [main(argv) for argv in json.loads(sys.argv[1])]
print(json.dumps([told, codes]))
"""
    commands = [
        ["train", "tiny.gsir", "--task", "digits", "--out", "out"],
        ["evaluate", "tiny.gsir", "--task", "digits"],
        ["import", "model.pt2"],
        ["synthesize", "config.toml"],
        ["cost", "tiny.gsir"],
    ]
    found = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)], cwd=folder, capture_output=True, text=True, check=True
    )
    told, codes = json.loads(found.stdout.splitlines()[-1])
    assert told == 'pip install "gensynth[torch]"'
    assert codes == [2, 2, 2, 2, 0]
    assert found.stderr.count('hint: pip install "gensynth[torch]"') == 4


def test_the_version_is_told(gensynth: Run) -> None:
    assert gensynth("--version").out == f"gensynth {gs.__version__}\n"
