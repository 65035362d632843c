"""Artifacts: what is in them, that they run, and that whatever is wrong with one is said in one message."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gensynth.backends.reference import run_reference
from gensynth.backends.tvm import Artifact, compile_network, load_artifact, verify
from gensynth.backends.tvm.artifact import archive_of, write_artifact
from gensynth.backends.tvm.checks import make_checks
from gensynth.backends.tvm.host import host_architecture
from gensynth.backends.tvm.manifest import MANIFEST, read_manifest, write_manifest
from gensynth.ir import DataError, GenSynthError, Network, UsageError, initialize, load_network, parse

QEMU = shutil.which("qemu-aarch64-static")
BATCH = 2
ELSEWHERE = "tegra-x2-cpu" if host_architecture() == "x86_64" else "x86-64-v3"

TEXT = """gensynth 1

network @two(%left: f32[N, 3, 8, 8], %right: f32[N, 3, 8, 8]) -> (f32[N, 3, 8, 8], f32[N, 5]) {
  %conv   = conv2d(%left) {channels=3, kernel=3, padding=same}
  %norm   = batch_norm(%conv)
  %sum    = add(%norm, %right)
  %act    = relu(%sum)
  %pool   = global_avg_pool(%act)
  %logits = dense(%pool) {features=5}
  return %act, %logits
}
"""


def network(seed: int = 0) -> Network:
    graph = parse(TEXT)
    return Network(graph, initialize(graph, seed))


def noise(seed: int = 1) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal((BATCH, 3, 8, 8), dtype=np.float32) for name in ("left", "right")}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact for this machine, batch 2; not to be changed."""
    folder = tmp_path_factory.mktemp("compiled") / "two"
    compile_network(network(), "host", folder, batch=BATCH, preprocessing={"mean": [0.5, 0.25, 0.125]})
    return folder


@pytest.fixture
def artifact(compiled: Path, tmp_path: Path) -> Path:
    """A copy of the artifact, to be damaged."""
    shutil.copytree(compiled, tmp_path / "two")
    shutil.copy(archive_of(compiled), tmp_path / "two.tar.gz")
    return tmp_path / "two"


def rewrite(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Changes the manifest as a compiler of another version might have written it: its digest is right."""
    facts = {
        key: value for key, value in json.loads((folder / MANIFEST).read_text()).items() if key != "manifest_sha256"
    }
    change(facts)
    write_manifest(folder, facts)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def test_an_artifact_computes_what_the_reference_does(compiled: Path) -> None:
    with load_artifact(compiled) as run:
        for seed in (1, 2):
            found = run(noise(seed))
            for array, wanted in zip(found, run_reference(network(), noise(seed)), strict=True):
                assert array.shape == wanted.shape and array.dtype == np.float32
                np.testing.assert_allclose(array, wanted, rtol=1e-5, atol=1e-5)


def test_an_archive_runs_like_its_folder_and_leaves_nothing_behind(compiled: Path, tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np, gensynth as gs\n"
        f"with gs.load_artifact({str(archive_of(compiled))!r}) as run:\n"
        f"    x = np.ones(({BATCH}, 3, 8, 8), np.float32)\n"
        "    print(run({'right': x, 'left': x})[1].tolist())\n"
        "sys.exit('tvm' in sys.modules or 'torch' in sys.modules)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], env={"TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    ones = {name: np.ones((BATCH, 3, 8, 8), np.float32) for name in ("left", "right")}
    np.testing.assert_allclose(json.loads(ran.stdout), run_reference(network(), ones)[1], rtol=1e-5, atol=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_tells_of_the_network_its_kernels_memory_and_every_file(compiled: Path) -> None:
    manifest = verify(compiled)
    facts = json.loads((compiled / MANIFEST).read_text())
    assert (manifest.name, manifest.architecture_hash) == ("two", network().hash)
    assert (manifest.target, manifest.kind, manifest.batch, manifest.dtype) == ("host", "cpu", BATCH, "f32")
    assert [(item.name, item.shape) for item in manifest.inputs] == [
        ("left", (BATCH, 3, 8, 8)),
        ("right", (BATCH, 3, 8, 8)),
    ]
    assert [(item.name, item.shape) for item in manifest.outputs] == [("act", (BATCH, 3, 8, 8)), ("logits", (BATCH, 5))]
    assert [item["layout"] for item in facts["outputs"]] == ["NCHW", "NC"]
    assert facts["preprocessing"] == {"mean": [0.5, 0.25, 0.125]}
    assert facts["macs"] == BATCH * (3 * 3 * 9 * 64 + 15)
    kernels = {item["name"]: item for item in facts["kernels"]}
    assert all(item["tasks"] >= 1 and item["bytes"] > 0 and item["predicted_cycles"] > 0 for item in kernels.values())
    assert {node for step in facts["steps"] for node in step["nodes"]} >= {"act", "pool", "logits"}
    assert {step["kernel"] for step in facts["steps"]} == set(kernels)
    memory = facts["memory"]
    assert memory["weights_bytes"] == (compiled / "weights.bin").stat().st_size
    assert all(item["offset"] + item["size"] <= memory["arena_bytes"] for item in memory["values"])
    assert facts["check"]["judge"] == "reference" and facts["check"]["compared"] is True
    assert {"gensynth", "apache-tvm", "llvm", "linker", "glibc"} <= set(facts["toolchain"])
    there = {path.relative_to(compiled).as_posix() for path in compiled.rglob("*") if path.is_file()}
    assert set(facts["files"]) == there - {MANIFEST}
    assert {"run", "libnetwork.so", "weights.bin", "gensynth.h", "gensynth_network.py", "network.gsir"} <= there
    for name, entry in facts["files"].items():
        assert entry["sha256"] == hashlib.sha256((compiled / name).read_bytes()).hexdigest()


def test_the_network_in_an_artifact_is_what_was_compiled(compiled: Path) -> None:
    found = load_network(compiled / "network.gsir")
    assert found.graph == network().graph
    assert found.weights is not None
    assert all(np.array_equal(array, found.weights[name]) for name, array in network().weights.items())


def test_the_same_network_gives_the_same_artifact_byte_for_byte(compiled: Path, tmp_path: Path) -> None:
    compile_network(network(), "host", tmp_path / "two", batch=BATCH, preprocessing={"mean": [0.5, 0.25, 0.125]})
    assert archive_of(tmp_path / "two").read_bytes() == archive_of(compiled).read_bytes()
    with tarfile.open(archive_of(compiled)) as archive:
        entries = archive.getmembers()
    assert entries[0].name == f"two/{MANIFEST}"
    assert {entry.mtime for entry in entries} == {0}
    assert next(entry for entry in entries if entry.name == "two/run").mode == 0o755


def test_without_source_and_archive_neither_is_written(tmp_path: Path) -> None:
    manifest = compile_network(network(), "host", tmp_path / "two", source=False, archive=False)
    assert not {"network.gsir", "network.safetensors"} & set(manifest.files)
    assert [path.name for path in tmp_path.iterdir()] == ["two"]


def test_an_artifact_for_another_architecture_says_so(tmp_path: Path) -> None:
    compile_network(network(), ELSEWHERE, tmp_path / "two")
    with pytest.raises(UsageError, match=rf"built for .* \({ELSEWHERE}\); this machine is {host_architecture()}"):
        load_artifact(tmp_path / "two")
    assert read_manifest(tmp_path / "two").facts["check"]["compared"] is False  # type: ignore[index]


@pytest.mark.skipif(QEMU is None or host_architecture() != "x86_64", reason="needs qemu-aarch64-static on x86-64")
def test_an_artifact_for_a_board_passes_its_own_test_under_qemu(tmp_path: Path) -> None:
    compile_network(network(), "raspberry-pi-5", tmp_path / "two")
    command = [str(QEMU), "-L", "/usr/aarch64-linux-gnu", str(tmp_path / "two" / "run"), "--selftest"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("ok ") == 2


# What is wrong with an artifact.


@pytest.mark.parametrize(
    ("damage", "error", "told"),
    [
        (lambda folder: shutil.rmtree(folder), UsageError, "no such folder"),
        (lambda folder: (folder / MANIFEST).unlink(), UsageError, "it has no manifest.json"),
        (lambda folder: cut(folder / MANIFEST), DataError, "damaged or cut short"),
        (lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"), DataError, "byte 0 is no text"),
        (lambda folder: (folder / MANIFEST).write_text("[1]"), UsageError, "no manifest of an artifact"),
        (
            lambda folder: (folder / MANIFEST).write_text(
                (folder / MANIFEST).read_text().replace('"dtype": "f32"', '"dtype": "f16"')
            ),
            DataError,
            "was changed after it was written",
        ),
        (lambda folder: rewrite(folder, lambda facts: facts.update(inputs=[{}])), DataError, "lacks what"),
        (lambda folder: (folder / "libnetwork.so").unlink(), DataError, "libnetwork.so is missing"),
        (lambda folder: cut(folder / "libnetwork.so"), DataError, "libnetwork.so is cut short"),
        (lambda folder: flip(folder / "libnetwork.so"), DataError, "libnetwork.so is damaged"),
        (lambda folder: flip(folder / "run"), DataError, "run is damaged"),
        (lambda folder: (folder / "weights.bin").unlink(), DataError, "weights.bin is missing"),
        (lambda folder: cut(folder / "weights.bin"), DataError, "weights.bin is cut short"),
        (lambda folder: flip(folder / "weights.bin"), DataError, "weights.bin"),
        (lambda folder: cut(folder / "network.safetensors"), DataError, "network.safetensors is cut short"),
    ],
)
def test_a_damaged_artifact_is_refused_with_a_hint(
    artifact: Path, damage: Callable[[Path], object], error: type[GenSynthError], told: str
) -> None:
    damage(artifact)
    with pytest.raises(error, match=told) as caught:
        load_artifact(artifact)
    assert type(caught.value) is error
    assert caught.value.hint


def test_verify_looks_at_every_byte_of_every_file(artifact: Path) -> None:
    names = sorted(read_manifest(artifact).files)
    assert len(names) > 15
    for name in names:
        whole = (artifact / name).read_bytes()
        flip(artifact / name)
        with pytest.raises(DataError, match=f"{name} is damaged"):
            verify(artifact)
        (artifact / name).write_bytes(whole)
    verify(artifact)


def test_an_artifact_of_a_newer_format_names_the_upgrade(artifact: Path) -> None:
    facts = json.loads((artifact / MANIFEST).read_text()) | {"version": 7}
    (artifact / MANIFEST).write_text(json.dumps(facts))
    with pytest.raises(UsageError, match="artifact of format 7, this version of GenSynth reads 1") as caught:
        load_artifact(artifact)
    assert "--upgrade" in str(caught.value.hint)


def test_a_processor_that_lacks_a_feature_is_told_before_anything_runs(artifact: Path) -> None:
    def demand(facts: dict[str, object]) -> None:
        facts["target"]["features"].append("avx9")  # type: ignore[index]

    rewrite(artifact, demand)
    with pytest.raises(UsageError, match="needs a processor with avx9"):
        load_artifact(artifact)


@pytest.mark.parametrize(
    ("damage", "error", "told"),
    [
        (cut, DataError, "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), DataError, "is damaged"),
        (lambda path: path.write_bytes(b"no archive"), UsageError, "is no .tar.gz"),
        (lambda path: path.write_bytes(b""), UsageError, "is no .tar.gz"),
    ],
)
def test_a_damaged_archive_is_refused(
    artifact: Path, damage: Callable[[Path], object], error: type[GenSynthError], told: str
) -> None:
    damage(archive_of(artifact))
    with pytest.raises(error, match=told):
        load_artifact(archive_of(artifact))


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    with tarfile.open(tmp_path / "notes.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "notes", "notes")
    with pytest.raises(UsageError, match="holds no artifact"):
        load_artifact(tmp_path / "notes.tar.gz")


def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("a")
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "evil", "../../evil-was-here")
    with pytest.raises(DataError, match="is damaged"):
        load_artifact(tmp_path / "evil.tar.gz")


# Running.


@pytest.fixture(scope="module")
def run(compiled: Path) -> Artifact:
    return load_artifact(compiled, threads=1)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (np.zeros((BATCH, 3, 8, 8), np.float32), "has 2 inputs, one array was given"),
        ({"left": noise()["left"]}, "input 'right' of @two is missing"),
        ({**noise(), "middle": noise()["left"]}, "has no input 'middle'"),
        ({**noise(), "left": np.zeros((5, 3, 8, 8), np.float32)}, r"input 'left' is float32 \[5, 3, 8, 8\]"),
        ({**noise(), "left": np.zeros((BATCH, 3, 8, 8))}, "input 'left' is float64"),
        ({**noise(), "left": [0.0]}, "input 'left' is list"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(run: Artifact, inputs: object, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        run(inputs)  # type: ignore[arg-type]
    assert caught.value.hint


def test_inputs_need_not_be_contiguous(run: Artifact) -> None:
    turned = {name: np.asfortranarray(array) for name, array in noise().items()}
    for found, wanted in zip(run(turned), run(noise()), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_closed_artifact_runs_no_more(compiled: Path) -> None:
    opened = load_artifact(compiled, threads=2)
    assert opened.threads <= 2
    opened.close()
    with pytest.raises(UsageError, match="closed"):
        opened(noise())
    with pytest.raises(UsageError, match="threads is -1"):
        load_artifact(compiled, threads=-1)


def test_an_artifact_compiled_anew_is_not_mixed_with_the_one_before(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        compile_network(network(seed), "host", tmp_path / "two", batch=BATCH, archive=False)
        opened = load_artifact(tmp_path / "two")
        found.append(opened)
    for seed, opened in enumerate(found):
        np.testing.assert_allclose(opened(noise())[1], run_reference(network(seed), noise())[1], rtol=1e-5, atol=1e-5)


def test_opening_takes_at_most_20_ms(compiled: Path) -> None:
    times = []
    for _ in range(10):
        before = time.perf_counter()
        load_artifact(compiled).close()
        times.append(time.perf_counter() - before)
    assert min(times) < 0.020


# Writing.


def test_what_is_no_artifact_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("Years of work.")
    (tmp_path / "file").write_text("a")
    (tmp_path / "new.tar.gz").write_text("not ours")
    for name, told in (("thesis", "is no artifact"), ("file", "is a file"), ("new", "new.tar.gz exists and is no")):
        with pytest.raises(UsageError, match=told):
            compile_network(network(), "host", tmp_path / name, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new.tar.gz", "thesis"]
    assert (tmp_path / "new.tar.gz").read_text() == "not ours"


def test_files_that_were_added_to_an_artifact_are_kept_unless_forced(artifact: Path) -> None:
    (artifact / "__pycache__").mkdir()
    (artifact / "__pycache__" / "gensynth_network.pyc").write_bytes(b"")
    compile_network(network(), "host", artifact)
    (artifact / "measured.csv").write_text("hours")
    with pytest.raises(UsageError, match=r"holds files that are not the artifact's: measured.csv"):
        compile_network(network(), "host", artifact)
    assert (artifact / "measured.csv").read_text() == "hours"
    compile_network(network(), "host", artifact, force=True)
    assert not (artifact / "measured.csv").exists()


def test_a_program_that_computes_something_else_is_not_written(tmp_path: Path, compiled: Path) -> None:
    from gensynth.backends.tvm.compiling import compile_program
    from gensynth.backends.tvm.targets import load_target

    made = compile_program(network(), load_target("host"), batch=BATCH)
    checks = make_checks(network(), made.program)
    wrong = replace(checks, outputs=(checks.outputs[0], checks.outputs[1] + 1))
    with pytest.raises(GenSynthError, match="does not compute what it should") as caught:
        write_artifact(made.program, network(), made.code, tmp_path / "two", checks=wrong)
    assert "FAIL logits" in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    with pytest.raises(UsageError, match="cannot write"):
        compile_network(network(), "host", tmp_path / "file" / "two", archive=False)
