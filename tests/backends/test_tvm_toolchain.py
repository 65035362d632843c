"""Finding a C compiler, and timing kernels by what it makes."""

import os
import shutil
import stat
import sys

import hand_made_programs as hand_made
import pytest
from hand_made_programs import BOARD, HOST, Step

from gensynth.backends.tvm import toolchain as toolchains
from gensynth.backends.tvm.building import build_runtime
from gensynth.backends.tvm.timing import KernelBuffer, KernelCall, time_kernels
from gensynth.backends.tvm.toolchain import Toolchain, cache_directory, find_toolchain, glibc_needed, host_triple
from gensynth.ir import UsageError


@pytest.fixture(autouse=True)
def _no_compiler_named(monkeypatch):
    monkeypatch.delenv(toolchains.COMPILER_VARIABLE, raising=False)


def without_zig(monkeypatch):
    monkeypatch.setattr(toolchains, "_find_zig", lambda triple: None)


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_variable_names_the_compiler_with_its_options(monkeypatch):
    monkeypatch.setenv("GENSYNTH_CC", f"'{sys.executable}' -m something")
    found = find_toolchain(HOST.triple)
    assert found.command == (sys.executable, "-m", "something")


def test_a_variable_that_names_nothing_is_told(monkeypatch):
    monkeypatch.setenv("GENSYNTH_CC", "no-such-compiler -O3")
    with pytest.raises(UsageError, match="there is no program no-such-compiler"):
        find_toolchain(HOST.triple)
    monkeypatch.setenv("GENSYNTH_CC", "'open")
    with pytest.raises(UsageError, match="No closing quotation"):
        find_toolchain(HOST.triple)


def test_zig_goes_first_where_programs_travel_and_last_where_they_stay(monkeypatch):
    def zig(triple):
        return Toolchain(("zig",), "zig 1", triple)

    def system(triple):
        return Toolchain(("cc",), "cc 1", triple)

    monkeypatch.setattr(toolchains, "_find_zig", zig)
    monkeypatch.setattr(toolchains, "_find_system", system)
    assert find_toolchain(HOST.triple).version == "zig 1"
    assert find_toolchain(HOST.triple, portable=False).version == "cc 1"
    without_zig(monkeypatch)
    assert find_toolchain(BOARD.triple) == Toolchain(("cc",), "cc 1", BOARD.triple)


def test_without_any_compiler_the_remedy_is_exact(monkeypatch):
    without_zig(monkeypatch)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(toolchains, "host_triple", lambda: "x86_64-linux-gnu")
    with pytest.raises(UsageError) as caught:
        find_toolchain("aarch64-linux-gnu.2.27")
    assert "there is no C compiler for aarch64-linux-gnu.2.27" in str(caught.value)
    assert "pip install ziglang, or: sudo apt-get install gcc-aarch64-linux-gnu" in str(caught.value)
    with pytest.raises(UsageError, match="sudo apt-get install gcc, or set GENSYNTH_CC"):
        find_toolchain("x86_64-linux-gnu.2.27")


def test_a_cross_compiler_of_the_system_is_found(monkeypatch, tmp_path):
    without_zig(monkeypatch)
    named = script(tmp_path / "aarch64-linux-gnu-gcc", "echo cross 3")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchains, "host_triple", lambda: "x86_64-linux-gnu")
    found = find_toolchain(BOARD.triple)
    assert found.command == (str(named),) and found.architecture == "aarch64"


def test_what_the_compiler_says_is_told(tmp_path):
    (tmp_path / "bad.c").write_text("int main(void) { return nonsense; }\n")
    with pytest.raises(UsageError, match=r"could not compile bad.c for .*\n(?s:.*)nonsense"):
        find_toolchain(HOST.triple).compile(tmp_path / "bad.c", tmp_path / "bad.o")


def test_a_compiler_for_another_architecture_is_refused(monkeypatch, tmp_path):
    code = hand_made.kernels_object(tmp_path)
    made = hand_made.program((Step("copy", ("in",), "out"),), target=BOARD)
    host = find_toolchain(HOST.triple)
    if BOARD.architecture == HOST.architecture:
        pytest.skip("this machine is the board's like")
    wrong = Toolchain(host.command, host.version, BOARD.triple)
    with pytest.raises(UsageError, match="makes programs of another architecture than aarch64"):
        build_runtime(made, code, BOARD, tmp_path / "out", toolchain=wrong)


def test_the_executor_is_compiled_once(monkeypatch, tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no cc")
    log = tmp_path / "log"
    named = script(tmp_path / "logging-cc", f'echo "$@" >> "{log}"; exec {compiler} "$@"')
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GENSYNTH_CC", str(named))
    code = hand_made.kernels_object(tmp_path)
    made = hand_made.program((Step("copy", ("in",), "out"),))
    counts = []
    for name in ("one", "two"):
        log.write_text("")
        build_runtime(made, code, HOST, tmp_path / name)
        counts.append(sum(" -c " in f" {line} " for line in log.read_text().splitlines()))
    assert counts[0] > 5 and counts[1] == 1
    assert cache_directory() == tmp_path / "cache/gensynth" and list(cache_directory().glob("objects/executor-*.o"))


def test_a_cache_that_cannot_be_written_is_no_obstacle(monkeypatch, tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no cc")
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GENSYNTH_CC", compiler)
    (tmp_path / "fine.c").write_text("int fine;\n")
    assert find_toolchain(HOST.triple).compile_cached(tmp_path / "fine.c").startswith(b"\x7fELF")


def test_glibc_is_read_from_a_binary():
    assert glibc_needed(b"..\0GLIBC_2.2.5\0\0GLIBC_2.17\0GLIBC_2.9\0GLIBC_PRIVATE\0") == "2.17"
    assert glibc_needed(b"nothing") == ""


TIMED_C = """
void quick(const float *a, float *o, int begin, int end) {
    for (int i = begin * 64; i < end * 64; i++) o[i] = a[i];
}
void slow(const float *a, float *o, int begin, int end) {
    for (int k = 0; k < 20; k++)
        for (int i = begin * 64; i < end * 64; i++) ((volatile float *)o)[i] = a[i] * (float)k;
}
void counting(const float *a, float *o, int begin, int end) {
    (void)a;
    for (int i = begin; i < end; i++) ((volatile float *)o)[i] += 1.0f;
}
"""


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timed")
    (folder / "timed.c").write_text(TIMED_C)
    find_toolchain(host_triple()).compile(folder / "timed.c", folder / "timed.o", "-fvisibility=default")
    return (folder / "timed.o").read_bytes()


def call(name, tasks=16, **fields):
    return KernelCall(name, (KernelBuffer(256 * tasks, 64), KernelBuffer(256 * tasks)), tasks, **fields)


def test_slower_kernels_take_longer(timed):
    quick, slow, again = time_kernels(timed, [call("quick"), call("slow"), call("quick")])
    assert 5 < quick < 20_000 and slow > 4 * quick and again < 3 * quick


def test_hopeless_kernels_are_timed_roughly_but_still(timed):
    times = time_kernels(timed, [call("quick", group=1), call("slow", group=1), call("slow", group=2)])
    assert times[1] > 4 * times[0] and times[2] > 4 * times[0]


def test_more_tasks_take_longer(timed):
    few, many = time_kernels(timed, [call("slow", 8), call("slow", 128)])
    assert many > 6 * few


def test_kernels_are_timed_with_several_threads(timed):
    (alone, shared) = time_kernels(timed, [call("slow", 4096), call("slow", 4096, threads=2)])
    assert 0 < shared < 3 * alone
    if len(os.sched_getaffinity(0)) > 1 and os.getloadavg()[0] < 0.5:
        assert shared < 0.8 * alone


def test_cold_memory_takes_longer(timed):
    size = 256 * 512
    warm = KernelCall("quick", (KernelBuffer(size), KernelBuffer(size)), 512)
    cold = KernelCall("quick", (KernelBuffer(size, cold=True), KernelBuffer(size, cold=True)), 512)
    (quick,) = time_kernels(timed, [warm])
    (slow,) = time_kernels(timed, [cold], evict=64 << 20)
    assert slow > 1.2 * quick


def test_what_cannot_be_timed_is_refused(timed):
    with pytest.raises(UsageError, match="the object has no kernel missing"):
        time_kernels(timed, [call("missing")])
    with pytest.raises(UsageError, match="cannot be timed with 0 pointers"):
        time_kernels(timed, [KernelCall("quick", (), 1)])
    with pytest.raises(UsageError, match="cannot be timed with 2 pointers, 0 tasks and 1 threads"):
        time_kernels(timed, [call("quick", 0)])
