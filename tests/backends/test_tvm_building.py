"""Building artifacts: tables, sources, libraries for this machine and for boards."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import hand_made_programs as hand_made
import pytest
from hand_made_programs import HOST, STEPS, image

from gensynth.backends.tvm.building import build_runtime
from gensynth.backends.tvm.generating import network_source, ptx_source
from gensynth.backends.tvm.program import Pointer
from gensynth.backends.tvm.runtime.gensynth_network import Network, NetworkError
from gensynth.backends.tvm.toolchain import find_toolchain
from gensynth.ir import UsageError


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    return hand_made.kernels_object(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def made():
    return hand_made.program(STEPS)


@pytest.fixture
def artifact(tmp_path, code, made):
    (tmp_path / "artifact").mkdir()
    return hand_made.build_checked(tmp_path / "artifact", code, made)


def test_the_library_shows_nothing_but_its_interface(artifact):
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm")
    done = subprocess.run([nm, "-D", "--defined-only", artifact / "libnetwork.so"], capture_output=True, text=True)
    names = {line.split()[-1] for line in done.stdout.splitlines()}
    assert names and all(name.startswith(("gs_", "__tvm_ffi_gensynth_")) for name in names), names
    assert "gs_run" in names and "gs_fail" not in names


def test_names_reach_the_user_as_they_are(code, tmp_path):
    name = 'a "quoted" \\ name ??/ µ %s'
    build_runtime(replace(hand_made.program(STEPS), name=name), code, HOST, tmp_path)
    with Network(tmp_path) as network:
        assert network.name == name
    assert json.loads(hand_made.run(tmp_path, "--bench", "1", "--json").stdout)["network"] == name


def test_the_same_program_gives_the_same_bytes(code, made, tmp_path):
    builds = [build_runtime(made, code, HOST, tmp_path / name) for name in ("one", "two")]
    assert builds[0] == builds[1]
    for name in builds[0].files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert sorted(builds[0].files) == sorted(
        str(path.relative_to(tmp_path / "one")) for path in (tmp_path / "one").rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_make_builds_the_artifact_anew(compiler, artifact):
    if shutil.which(compiler) is None or shutil.which("make") is None:
        pytest.skip(f"no {compiler} or no make")
    for name in ("run", "libnetwork.so"):
        (artifact / name).unlink()
    flags = "CFLAGS=-O2 -Wpedantic -Werror"
    done = subprocess.run(["make", "-C", artifact / "src", f"CC={compiler}", flags], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert hand_made.run(artifact, "--selftest").returncode == 0
    with Network(artifact) as network:
        assert network.name == "hand_made"


def changed(made, **fields):
    step = replace(made.steps[2], **fields)
    return replace(made, steps=(*made.steps[:2], step, *made.steps[3:]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda made: changed(made, arguments=(Pointer("weights", 512), *made.steps[2].arguments[1:])),
            "byte 512 of weights",
        ),
        (
            lambda made: changed(made, arguments=(Pointer("arena", -4), *made.steps[2].arguments[1:])),
            "byte -4 of arena",
        ),
        (
            lambda made: changed(made, arguments=(Pointer("input", 0, 1), *made.steps[2].arguments[1:])),
            "input 1, which has 0",
        ),
        (lambda made: changed(made, arguments=(Pointer("arena", 0),) * 17), "takes 17 pointers"),
        (lambda made: replace(made, kernels=(replace(made.kernels[0], name="2d"), *made.kernels[1:])), "called '2d'"),
        (
            lambda made: replace(made, kernels=(replace(made.kernels[0], name="main"), *made.kernels[1:])),
            "called 'main'",
        ),
        (lambda made: replace(made, inputs=(replace(made.inputs[0], name="a/b"),)), "called 'a/b'"),
        (lambda made: replace(made, inputs=(replace(made.inputs[0], shape=(1,) * 9),)), "has 9 dimensions"),
    ],
)
def test_programs_that_the_executor_cannot_run_are_refused(change, told, made):
    with pytest.raises(UsageError, match=re.escape(told)):
        network_source(change(made), tolerance=1e-4)


def test_arm_programs_run_on_arm_and_need_an_old_glibc_alone(made, tmp_path):
    toolchain = find_toolchain(hand_made.BOARD.triple)
    build = build_runtime(
        replace(made, target=hand_made.BOARD),
        hand_made.kernels_object(tmp_path, toolchain),
        hand_made.BOARD,
        tmp_path / "arm",
    )
    hand_made.write_check(tmp_path / "arm", image(), hand_made.expected(made, image()))
    if toolchain.version.startswith("zig"):
        assert tuple(map(int, build.glibc.split("."))) <= (2, 27)
    emulator = hand_made.emulator()
    if emulator is None:
        pytest.skip("no qemu-aarch64")
    libraries = Path("/usr/aarch64-linux-gnu")
    if not libraries.exists():
        pytest.skip("no libraries for aarch64")
    for words in (
        ["--selftest", "--threads", "1"],
        ["--selftest", "--threads", "3"],
        ["--bench", "50", "--threads", "2"],
    ):
        done = hand_made.run(tmp_path / "arm", *words, emulator=(emulator, "-L", str(libraries)))
        assert done.returncode == 0, done.stderr
    if os.uname().machine != "aarch64":
        with pytest.raises(NetworkError, match="is built for aarch64; this machine is x86_64"):
            Network(tmp_path / "arm")


@pytest.mark.parametrize("text", ["", "a\n", "x" * 9001 + "\n", '"quoted" \\ ??/ line\n' * 1500, "µ\n" * 3000])
def test_ptx_comes_through_c_as_it_is(text, tmp_path):
    (tmp_path / "kernels.c").write_text(ptx_source(text.encode()))
    (tmp_path / "main.c").write_text(
        "#include <stdio.h>\nextern const char *const gs_ptx[];\n"
        "int main(void) { for (int i = 0; gs_ptx[i] != NULL; i++) fputs(gs_ptx[i], stdout); }\n"
    )
    host = find_toolchain(HOST.triple)
    for name in ("kernels", "main"):
        host.compile(tmp_path / f"{name}.c", tmp_path / f"{name}.o", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    host.link([tmp_path / "kernels.o", tmp_path / "main.o"], tmp_path / "main")
    assert subprocess.run([tmp_path / "main"], capture_output=True).stdout == text.encode()
