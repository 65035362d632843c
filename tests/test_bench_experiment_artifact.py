"""The command bench/experiment_artifact.py: artifacts of trained networks, checked against PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import experiment_artifact
import numpy as np
import pytest
from experiment_artifact import ONNX, main, verify_artifact

from gensynth.backends.tvm import load_target, routes
from gensynth.backends.tvm.compiling import compile_program
from gensynth.backends.tvm.verifying import trained_alike
from gensynth.ir import Builder, Graph, Network, UsageError, WeightsError, load_network, save_network
from gensynth.ir.ops import Conv2d, Dense, Flatten, Relu, Resize
from gensynth.passes import run_pipeline
from gensynth.synth.generator import Generator
from gensynth.synth.prototypes import prototype

WAYS = {
    ("x86-64-v3", "f32"): "ran natively",
    ("tegra-x2-cpu", "f32"): "emulated",
    ("tegra-x2-gpu", "f32"): "kernels checked",
    ("tegra-x2-gpu", "f16"): "kernels checked",
    (ONNX, "f32"): "ran natively",
}


def two_headed() -> Graph:
    """A network with an output for each pixel of a larger image, and one for the image."""
    build = Builder("two")
    trunk = build.emit(
        Relu(), build.emit(Conv2d(channels=4, kernel=3, padding="same"), build.input("image", (3, 6, 6)))
    )
    build.output(build.emit(Resize(size=(9, 12), mode="bilinear", align_corners=True), trunk, name="pixels"))
    build.output(build.emit(Dense(features=5), build.emit(Flatten(), trunk), name="logits"))
    return build.build()


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """The path of a tiny network with weights."""
    save_network(trained_alike(two_headed()), tmp_path / "two.gsir")
    return tmp_path / "two.gsir"


def assert_verified(rows: list[dict[str, Any]]) -> None:
    """Checks that every target was verified, in the best way that this machine has."""
    assert [(row["target"], row["dtype"]) for row in rows] == list(WAYS)
    for row in rows:
        if row["how"] == "only compiled":  # elsewhere there may be no emulator, or another processor
            assert not row["verified"] and row["reason"]
            continue
        assert row["verified"], row["reason"]
        assert row["how"] == WAYS[row["target"], row["dtype"]] or row["how"].startswith("ran on ")
        assert 0 < row["error"] <= row["tolerance"] and row["difference"] > 0
    assert rows[-1]["verified"]


def test_every_target_is_compiled_and_checked_on_the_images_given(given, tmp_path):
    images = np.random.default_rng(1).uniform(0, 1, (2, 3, 6, 6)).astype(np.float32)
    rows = verify_artifact(given, tmp_path / "artifacts", inputs=images, preprocessing={"range": [0, 1]})
    assert_verified(rows)
    assert {row["images"] for row in rows} == {2}
    assert all(set(row["outputs"]) == {"pixels", "logits"} for row in rows if row["how"] != "only compiled")
    for row in rows:
        made = Path(row["artifact"])
        assert made.exists()
        assert 0 < row["needed_bytes"] <= row["artifact_bytes"]
        if row["target"] == ONNX:
            assert row["artifact_bytes"] == made.stat().st_size
            continue
        facts = json.loads((made / "manifest.json").read_text())
        assert (facts["target"]["name"], facts["dtype"]) == (row["target"], row["dtype"])
        assert facts["preprocessing"] == {"range": [0, 1]}
        assert row["artifact_bytes"] > sum(entry["bytes"] for entry in facts["files"].values())  # and the manifest
        assert row["archive_bytes"] == made.with_name(f"{made.name}.tar.gz").stat().st_size


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_what_is_checked_of_the_gpu_are_the_kernels_and_weights_that_ship(given, tmp_path, dtype):
    network, board = load_network(given), load_target("tegra-x2-gpu")
    ships = compile_program(network, board, dtype=dtype)
    checked = compile_program(network, routes.on_this_machine(board), dtype=dtype)
    source = routes.Trial(network, 1, {}, tmp_path).gpu_program(dtype)[1]
    assert ships.source == checked.source == source  # NVRTC numbers the registers of PTX by chance
    assert ships.program.weights == checked.program.weights


def compiling_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the compiler confuse weights."""
    compile_network = experiment_artifact.compile_network

    def confused(network: Network, *arguments: Any, **options: Any) -> object:
        return compile_network(trained_alike(network.graph, 5), *arguments, **options)

    monkeypatch.setattr(experiment_artifact, "compile_network", confused)


def test_an_artifact_that_computes_something_else_is_not_verified(given, tmp_path, monkeypatch, capsys):
    compiling_others(monkeypatch)
    words = [str(given), "--out", str(tmp_path / "out"), "--targets", "x86-64-v3", ONNX]
    assert main([*words, "--json", str(tmp_path / "found.json")]) == 1
    wrong, right = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert (wrong["how"], wrong["verified"], right["verified"]) == ("ran natively", False, True)
    assert wrong["error"] > 0.01
    assert "of their range" in wrong["reason"]
    told = capsys.readouterr().out
    assert "@two" in told
    assert "4 images (noise)" in told
    assert f"x86-64-v3 f32: {wrong['reason']}" in told


def test_without_an_emulator_an_artifact_is_only_compiled_which_is_no_failure(given, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(routes, "host_architecture", lambda: "x86_64")
    monkeypatch.setattr(experiment_artifact, "host_architecture", lambda: "x86_64")
    monkeypatch.setattr(routes.shutil, "which", lambda name: None)
    images = tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).standard_normal((1, 3, 6, 6), np.float32))
    words = [str(given), "--out", str(tmp_path / "out"), "--targets", "tegra-x2-cpu", "--inputs", str(images)]
    assert main([*words, "--json", str(tmp_path / "found.json")]) == 0
    row = json.loads((tmp_path / "found.json").read_text())["rows"][0]
    assert (row["how"], row["verified"], row["error"]) == ("only compiled", False, None)
    assert "qemu-user-static" in row["reason"]
    assert (tmp_path / "out/tegra-x2-cpu-f32/run").exists()
    assert "only compiled" in capsys.readouterr().out


def test_values_beyond_float16_are_told_by_the_float16_artifact_alone(tmp_path):
    build = Builder("large")
    flat = build.emit(Flatten(), build.input("image", (3, 2, 2)))
    build.output(build.emit(Dense(features=4), flat))
    graph = build.build()
    weights = {name: np.float32(1e5) * array for name, array in (trained_alike(graph).weights or {}).items()}
    save_network(Network(graph, weights), tmp_path / "large.gsir")
    wide, narrow = verify_artifact(tmp_path / "large.gsir", tmp_path, targets=("tegra-x2-gpu",))
    assert wide["verified"], wide["reason"]
    assert (narrow["how"], narrow["verified"]) == ("not compiled", False)
    assert "beyond float16" in narrow["reason"]


def test_a_fault_that_the_assembler_finds_is_told(given, tmp_path, monkeypatch):
    monkeypatch.setitem(routes.BLOCK_REGISTERS, "sm_62", 256)
    for row in verify_artifact(given, tmp_path, targets=("tegra-x2-gpu",)):
        assert not row["verified"]
        assert row["error"] <= row["tolerance"]
        assert "registers, sm_62 has 256" in row["reason"]


def test_without_ptxas_what_was_run_is_verified_and_the_reason_says_what_was_not_done(given, tmp_path, monkeypatch):
    def skipped(*_: object) -> None:
        raise routes.RouteSkipped("there is no ptxas")

    monkeypatch.setattr(experiment_artifact, "assemble_kernels", skipped)
    for row in verify_artifact(given, tmp_path, targets=("tegra-x2-gpu",)):
        assert row["verified"]
        assert row["reason"] == "the kernels were not assembled: there is no ptxas"


def test_a_compiler_that_breaks_is_told_and_does_not_end_the_others(given, tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such schedule")

    monkeypatch.setattr(experiment_artifact, "compile_network", broken)
    rows = verify_artifact(given, tmp_path, targets=("tegra-x2-cpu", ONNX))
    assert (rows[0]["how"], rows[0]["reason"]) == ("not compiled", "RuntimeError: no such schedule")
    assert rows[1]["verified"]


def test_images_and_networks_that_do_not_do_are_refused(given, tmp_path, capsys):
    with pytest.raises(UsageError, match="takes"):
        verify_artifact(given, tmp_path, inputs=np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(UsageError, match="same for every image"):
        verify_artifact(given, tmp_path, inputs=np.zeros((2, 3, 6, 6), np.float32))
    with pytest.raises(UsageError, match="no target 'tpu'"):
        verify_artifact(given, tmp_path, targets=("tpu",))
    given.with_suffix(".safetensors").unlink()
    with pytest.raises(WeightsError):
        verify_artifact(given, tmp_path)
    assert main([str(given), "--out", str(tmp_path / "out")]) == 2
    assert "no weights" in capsys.readouterr().err


def test_images_of_a_task_are_its_validation_part_and_manifests_tell_of_the_task(tmp_path, capsys):
    path = tmp_path / "lenet.gsir"
    save_network(trained_alike(prototype("resnet", depth=8, image=(1, 8, 8)).graph), path)
    words = [str(path), "--out", str(tmp_path / "out"), "--targets", "x86-64-v3", "--task", "digits", "--images", "3"]
    assert main(words) == 0
    assert "3 images (digits)" in capsys.readouterr().out
    facts = json.loads((tmp_path / "out/x86-64-v3-f32/manifest.json").read_text())
    assert facts["preprocessing"]["task"] == "digits"


def ferminet() -> Network:
    """What a generator of a CIFAR ResNet emits."""
    start = trained_alike(prototype("resnet", depth=20).graph)
    passes = "offer{rewrite=separate-conv},open-width{ratios=[0.25,0.5,1.0]}"
    return Generator(run_pipeline(start, passes)).generate(7)


SEGMENTS = {"depth": 18, "width": 16, "features": 32, "batch_norm": True, "classes": 11, "image": (3, 90, 120)}
DETECTS = {"batch_norm": True, "width": 0.25, "classes": 1, "image": (3, 160, 160)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet", "ferminet", "refinenet", "detectnet"])
def test_networks_of_every_kind_of_task_compile_for_every_target(tmp_path, kind):
    networks = {
        "resnet": lambda: trained_alike(prototype("resnet", depth=20).graph),
        "ferminet": ferminet,
        "refinenet": lambda: trained_alike(prototype("refinenet", **SEGMENTS).graph),
        "detectnet": lambda: trained_alike(prototype("detectnet", **DETECTS).graph),
    }
    save_network(networks[kind](), tmp_path / f"{kind}.gsir")
    assert_verified(verify_artifact(tmp_path / f"{kind}.gsir", tmp_path / "artifacts"))
