"""Targets: the built-in ones, this machine, and those of the user's files."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gensynth.backends.tvm import Target, known_targets, load_target, register_target, target_names
from gensynth.backends.tvm.host import host_architecture, host_features
from gensynth.backends.tvm.targets import code_features
from gensynth.ir import UsageError

BOARD = {"architecture": "aarch64", "cores": 8, "l2_bytes": 1048576, "llvm": {"mcpu": "cortex-a72"}}
TVM = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}


def write(folder: Path, content: object) -> Path:
    path = folder / "board.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_every_target_is_whole_and_says_where_its_figures_are_from() -> None:
    found = {target.name: target for target in known_targets()}
    assert tuple(found) == target_names()
    assert next(iter(found)) == "host"
    assert {"aarch64", "raspberry-pi-5", "tegra-x2-cpu", "tegra-x2-gpu", "x86-64-v3"} <= set(found)
    for name, target in found.items():
        assert target.architecture in target.triple
        assert {"cores", "l1_bytes", "l2_bytes"} <= set(target.sources) or target.cuda is not None, name
        assert set(target.sources) <= {*target.as_dict(), *(f"cuda.{key}" for key in target.as_dict()["cuda"] or ())}
        json.dumps(target.as_dict())
        if name != "host":
            assert load_target(name) == target


def test_the_tegra_x2_has_what_its_data_sheet_says() -> None:
    gpu = load_target("tegra-x2-gpu")
    assert gpu.kind == "cuda" and gpu.dtypes == ("f32", "f16")
    assert gpu.cuda is not None
    assert (gpu.cuda.arch, gpu.cuda.multiprocessors, gpu.cuda.shared_bytes) == ("sm_62", 2, 48 * 1024)
    cpu = load_target("tegra-x2-cpu")
    assert (cpu.lanes, cpu.registers, cpu.cores, cpu.caches) == (4, 32, 4, (32 * 1024, 2 * 1024**2))
    assert cpu.llvm["mcpu"] == "cortex-a57" and cpu.triple.endswith(".2.27") and cpu.multiplies_by_lane


def test_this_machine_can_run_what_is_compiled_for_it() -> None:
    host = load_target("host")
    assert host.architecture == host_architecture()
    assert set(code_features(host)) <= host_features()
    assert host.cores >= 1 and min(host.caches) > 0
    assert host.lanes == (16 if {"avx512f", "avx512vl"} <= host_features() else 8 if "avx2" in host_features() else 4)


def test_listing_targets_loads_no_tvm() -> None:
    code = (
        "import sys; from gensynth.backends.tvm import known_targets; known_targets(); sys.exit('tvm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_target_file_fills_in_what_it_leaves_out(tmp_path: Path) -> None:
    found = load_target(write(tmp_path, BOARD))
    assert (found.name, found.lanes, found.registers, found.cores) == ("board", 4, 32, 8)
    assert found.llvm == {"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}
    assert (found.triple, found.caches, found.kind) == ("aarch64-linux-gnu.2.27", (32768, 1048576), "cpu")
    toml = tmp_path / "wide.toml"
    toml.write_text('architecture = "x86_64"\nlanes = 16\n[cuda]\narch = "sm_75"\nmultiprocessors = 40\n')
    wide = load_target(toml)
    assert (wide.name, wide.registers, wide.kind, wide.multiplies_by_lane) == ("wide", 32, "cuda", False)


@pytest.mark.parametrize(
    ("described", "lanes", "registers", "kind"),
    [
        (TVM, 4, 32, "cpu"),
        ({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "skylake-avx512"}, 16, 32, "cpu"),
        ({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}, 8, 16, "cpu"),
        ({"kind": "llvm", "mtriple": "x86_64-linux-gnu"}, 4, 16, "cpu"),
        ({"kind": "cuda", "arch": "sm_53", "host": TVM}, 4, 32, "cuda"),
    ],
)
def test_a_target_of_tvm_is_enough(
    tmp_path: Path, described: dict[str, object], lanes: int, registers: int, kind: str
) -> None:
    found = load_target(write(tmp_path, described))
    assert (found.lanes, found.registers, found.kind) == (lanes, registers, kind)
    assert found.cuda is None or found.cuda.arch == "sm_53"
    assert "kind" not in found.llvm


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "board.json"),
        ([1], "holds no table"),
        ({}, "'architecture' is missing"),
        ({"architecture": "mips"}, "'architecture' is 'mips'"),
        (BOARD | {"core": 4}, "'core' is no key of a target"),
        (BOARD | {"cores": 0}, "'cores' is 0"),
        (BOARD | {"cores": True}, "'cores' is True"),
        (BOARD | {"cores": "four"}, "'cores' is 'four'"),
        (BOARD | {"lanes": 5}, "'lanes' is 5"),
        ({"architecture": "x86_64"}, "'lanes' is missing"),
        (BOARD | {"multiplies_by_lane": 1}, "'multiplies_by_lane' is 1"),
        (BOARD | {"dtypes": ["f16"]}, r"'dtypes' is \['f16'\]"),
        (BOARD | {"dtypes": []}, r"'dtypes' is \[\]"),
        (BOARD | {"cuda": 62}, "'cuda' is no table"),
        (BOARD | {"cuda": {"arch": "6.2", "multiprocessors": 2}}, "'cuda.arch' is '6.2'"),
        (BOARD | {"cuda": {"arch": "sm_62"}}, "'cuda.multiprocessors' is missing"),
        (BOARD | {"cuda": {"arch": "sm_62", "multiprocessors": 2, "ptx_version": "new"}}, "'cuda.ptx_version'"),
        (BOARD | {"llvm": {"kind": "llvm"}}, "'llvm.kind' goes without saying"),
        (BOARD | {"llvm": {"mcpu": "cortex-a711"}}, "'llvm.mcpu' is 'cortex-a711'"),
        (BOARD | {"llvm": {"speed": 9}}, "TVM does not take the processor: .*speed"),
        (BOARD | {"sources": {"cores": 4}}, "'sources.cores' is 4"),
        ({"kind": "opencl"}, "'kind' is 'opencl'"),
        ({"kind": "llvm"}, "'mtriple' is missing"),
        ({"kind": "llvm", "mtriple": "armv7-linux-gnueabihf"}, "'mtriple' is 'armv7-linux-gnueabihf'"),
        ({"kind": "llvm", "mtriple": "aarch64-apple-darwin"}, "'mtriple' is"),
        (TVM | {"mcpu": "cortex-a711"}, "'mcpu' is 'cortex-a711'"),
        (TVM | {"num-cores": "four"}, "'num-cores' is 'four'|TVM does not take"),
        ({"kind": "cuda", "arch": "sm_62"}, "'host' is missing"),
        ({"kind": "cuda", "host": TVM}, "'arch' is missing"),
    ],
)
def test_a_file_that_is_no_target_is_refused_with_a_hint(tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        load_target(write(tmp_path, content))
    assert "board.json" in caught.value.message
    assert caught.value.hint


def test_an_unknown_name_is_answered_by_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown target 'tegra-x2-gpus'") as caught:
        load_target("tegra-x2-gpus")
    assert "did you mean 'tegra-x2-gpu'?" in str(caught.value.hint)
    with pytest.raises(UsageError, match="cannot read"):
        load_target(tmp_path / "missing.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not UTF-8"):
        load_target(tmp_path / "bytes.toml")


def test_a_registered_target_is_known_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gensynth.backends.tvm.targets._registered", {})
    mine: Target = replace(load_target("aarch64"), name="mine")
    assert register_target(mine) is register_target(mine) is mine
    assert load_target("mine") is mine and "mine" in target_names()
    for taken in (replace(mine, cores=9), replace(mine, name="host"), replace(mine, name="aarch64")):
        with pytest.raises(UsageError, match="already"):
            register_target(taken)
