"""The executor of GPU artifacts, against a stand-in for NVIDIA's driver library that runs kernels on the CPU."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hand_made_programs as hand_made
import pytest
from hand_made_programs import BOARD, GPU, SIZE, Step

from gensynth.backends.tvm.generating import network_source
from gensynth.backends.tvm.toolchain import find_toolchain
from gensynth.ir import UsageError

HERE = Path(__file__).parent
PTX = b".version 6.5\n.target sm_62\n// add mix scan copy fill weigh\n"

STEPS = (
    Step("copy", ("in",), "s0"),
    Step("add", ("s0", "w1"), "s1"),
    Step("weigh", tuple(["s0", "s1", "w0", "in"] * 3 + ["s0", "s1", "s1"]), "s2"),
    Step("scan", ("s2",), "s3"),
    Step("mix", ("s3", "s0"), "out"),
)


@pytest.fixture(scope="module")
def made():
    return hand_made.program(STEPS, target=GPU)


def build_driver(folder, toolchain):
    """Builds the stand-in; returns its folder."""
    (folder / "kernels.c").write_text(hand_made.KERNELS_C)
    shutil.copy(HERE / "fake_cuda.c", folder)
    toolchain.compile(folder / "fake_cuda.c", folder / "fake.o", "-fvisibility=default", "-ffp-contract=off")
    toolchain.link([folder / "fake.o"], folder / "libcuda.so.1", "-shared", "-Wl,-soname,libcuda.so.1")
    return folder


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The folder of the stand-in."""
    return build_driver(tmp_path_factory.mktemp("driver"), find_toolchain(GPU.triple))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory, made):
    return hand_made.build_checked(tmp_path_factory.mktemp("artifact"), PTX, made)


@pytest.fixture
def run(artifact, driver, tmp_path):
    """Runs the artifact's program with the stand-in; returns the outcome and the log of driver calls."""

    def go(*words, **environment):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        named = {f"FAKE_CUDA_{name.upper()}": value for name, value in environment.items() if name.islower()}
        named |= {name: value for name, value in environment.items() if not name.islower()}
        paths = {"LD_LIBRARY_PATH": str(driver), "FAKE_CUDA_LOG": str(log)}
        done = hand_made.run(artifact, *words, **paths, **named)
        return done, log.read_text().splitlines() if log.exists() else []

    return go


def test_the_launcher_computes_what_the_program_says(run):
    done, _ = run("--selftest")
    assert done.returncode == 0, done
    assert "hand_made on Fake GPU 0: computes what it should" in done.stdout


def test_the_driver_is_called_in_order(run, made):
    _, log = run("--selftest")
    context = "1"
    assert log == [
        "cuInit 0",
        "cuDevicePrimaryCtxRetain 0",
        f"push {context}",
        "cuModuleLoadDataEx .version 6",
        "cuMemAlloc 1",
        f"cuMemcpyHtoD {len(made.weights)}",
        "cuStreamCreate 1",
        "pop ",
        f"push {context}",
        "in 256 1",
        "cuLaunchKernel copy 8x1x1 8x1x1 0 1 0",
        "cuLaunchKernel add 8x1x1 8x1x1 0 1 0",
        "cuLaunchKernel weigh 8x1x1 8x1x1 0 1 0",
        "cuLaunchKernel scan 8x1x1 8x1x1 0 1 0",
        "cuLaunchKernel mix 8x1x1 8x1x1 0 1 0",
        "out 256 1",
        "synchronize 1",
        "pop ",
        f"push {context}",
        "cuStreamDestroy ",
        "cuMemFree ",
        "cuModuleUnload ",
        "pop ",
        "cuDevicePrimaryCtxRelease 0",
    ]


def test_every_run_costs_the_launches_and_one_wait(run):
    _, log = run("--bench", "5", "--warmup", "0")
    assert sum(line.startswith("cuLaunchKernel") for line in log) == 5 * len(STEPS)
    assert sum(line.startswith("synchronize") for line in log) == 5
    assert sum(line.startswith("cuMemAlloc") for line in log) == 1


def test_the_profile_takes_the_times_of_the_gpu(run):
    done, log = run("--profile", "--json", "--bench", "3", "--warmup", "0")
    rows = json.loads(done.stdout)
    assert [row["kernel"] for row in rows] == [step.kernel for step in STEPS]
    assert [row["microseconds"] for row in rows] == [250.0] * len(STEPS)
    events = [line for line in log if line.startswith("cuEventCreate")]
    assert len(events) == len(STEPS) + 1 == sum(line.startswith("cuEventDestroy") for line in log)


def test_where_there_is_no_driver_the_message_says_so(artifact):
    done = hand_made.run(artifact, "--selftest", LD_LIBRARY_PATH="/nowhere")
    if done.returncode == 0:
        pytest.skip("this machine has a driver")
    assert (done.returncode, done.stdout) == (2, "")
    assert "NVIDIA's driver library cannot be loaded" in done.stderr and "(gpu)" in done.stderr


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"count": "0"}, "no CUDA-capable device is detected (CUDA_ERROR_NO_DEVICE, error 100)"),
        ({"version": "9020"}, "driver is too old: it is of CUDA 9.2, the network's kernels need 10.2 or newer"),
        ({"capability": "53"}, "Fake GPU 0 has compute capability 5.3, the network's kernels need 6.2"),
        ({"fail": "cuModuleLoadDataEx"}, "ptxas application ptx input, line 1; fatal: broken"),
        ({"fail": "cuMemAlloc"}, "Fake GPU 0 has no"),
        ({"fail": "cuMemcpyHtoD"}, "the GPU failed at copying the weights: unspecified launch failure"),
        ({"fail": "cuLaunchKernel"}, "the GPU failed at starting kernel copy: unspecified launch failure"),
        ({"fail": "in"}, "the GPU failed at copying an input"),
        ({"fail": "out"}, "the GPU failed at copying an output"),
        ({"fail": "synchronize"}, "the GPU failed at running the kernels"),
        ({"fail": "push"}, "the GPU failed at entering the context"),
        ({"GENSYNTH_CUDA_DEVICE": "1"}, "GENSYNTH_CUDA_DEVICE is '1'; there are GPUs 0 to 0"),
        ({"GENSYNTH_CUDA_DEVICE": "first"}, "GENSYNTH_CUDA_DEVICE is 'first'"),
    ],
)
def test_what_fails_on_the_gpu_is_told(environment, told, run):
    done, log = run("--selftest", **environment)
    assert (done.returncode, done.stdout) == (2, "") and told in done.stderr, done
    names = [line.split()[0] for line in log]
    assert names.count("cuDevicePrimaryCtxRetain") == names.count("cuDevicePrimaryCtxRelease") or "in" in names
    if environment.get("fail") != "push":
        assert names.count("push") == names.count("pop")


def test_a_newer_gpu_and_driver_are_fine(run):
    done, _ = run("--selftest", version="13000", capability="90")
    assert done.returncode == 0


def test_the_environment_chooses_among_gpus(run):
    done, log = run("--selftest", count="3", GENSYNTH_CUDA_DEVICE="2")
    assert "Fake GPU 2" in done.stdout and "cuDevicePrimaryCtxRetain 2" in log


def test_a_driver_without_a_function_is_too_old(artifact, tmp_path):
    (tmp_path / "empty.c").write_text("int cuInit(unsigned flags) { return (int)flags; }\n")
    host = find_toolchain(GPU.triple)
    host.compile(tmp_path / "empty.c", tmp_path / "empty.o", "-fvisibility=default")
    host.link([tmp_path / "empty.o"], tmp_path / "libcuda.so.1", "-shared")
    done = hand_made.run(artifact, "--selftest", LD_LIBRARY_PATH=str(tmp_path))
    assert done.returncode == 2 and "has no cuDriverGetVersion: install a newer driver" in done.stderr


def test_python_loads_gpu_artifacts_and_frees_what_they_hold(artifact, driver, made, tmp_path):
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(artifact)!r})\n"
        "import numpy as np\n"
        "from gensynth_network import Network, NetworkError\n"
        f"image = np.fromfile({str(artifact / 'check/input_image.bin')!r}, np.float32).reshape(1, {SIZE})\n"
        f"logits = np.fromfile({str(artifact / 'check/output_logits.bin')!r}, np.float32)\n"
        "for _ in range(3):\n"
        f"    with Network({str(artifact)!r}) as network:\n"
        "        assert network.device == 'Fake GPU 0' and network.kind == 'cuda'\n"
        "        assert abs(network.run(image) - logits).max() < 1e-5\n"
        "        assert [step.seconds for step in network.profile(image)] == [0.25e-3] * 5\n"
        "print('fine')\n"
    )
    environment = {"LD_LIBRARY_PATH": str(driver), "FAKE_CUDA_LOG": str(tmp_path / "log"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout == "fine\n", done.stderr
    names = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    for made_name, freed in (("cuMemAlloc", "cuMemFree"), ("cuStreamCreate", "cuStreamDestroy"), ("push", "pop")):
        assert names.count(made_name) == names.count(freed) >= 3


def test_what_the_ptx_asks_for_is_in_the_tables(made):
    def needs(arch, version):
        gpu = replace(GPU.cuda, arch=arch, ptx_version=version)
        text = network_source(replace(made, target=replace(GPU, cuda=gpu)), tolerance=1e-4)
        lines = {line.strip().rstrip(",") for line in text.splitlines()}
        (capability,) = (int(line.split()[-1]) for line in lines if line.startswith(".capability"))
        (cuda,) = (int(line.split()[-1]) for line in lines if line.startswith(".cuda_version"))
        return capability, cuda

    assert needs("sm_62", "6.5") == (62, 10020)
    assert needs("sm_70", "6.0") == (70, 9000)
    assert needs("sm_62", "7.8") == (62, 11080)
    assert needs("sm_90a", "8.8") == (90, 12090)
    assert needs("compute_100", "9.0") == (100, 13000)
    with pytest.raises(UsageError, match="write them like 'sm_62' and '6.5'"):
        needs("pascal", "6.5")


def test_make_builds_gpu_artifacts_anew(artifact, driver, tmp_path):
    if shutil.which("gcc") is None or shutil.which("make") is None:
        pytest.skip("no gcc or no make")
    copy = Path(shutil.copytree(artifact, tmp_path / "copy"))
    for name in ("run", "libnetwork.so"):
        (copy / name).unlink()
    flags = "CFLAGS=-O2 -Wpedantic -Werror"
    done = subprocess.run(["make", "-C", copy / "src", "CC=gcc", flags], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert hand_made.run(copy, "--selftest", LD_LIBRARY_PATH=str(driver)).returncode == 0


def test_the_launcher_runs_on_a_board(made, tmp_path):
    board = replace(BOARD, cuda=GPU.cuda)
    toolchain = find_toolchain(board.triple)
    artifact = hand_made.build_checked(tmp_path, PTX, replace(made, target=board))
    (tmp_path / "driver").mkdir()
    driver = build_driver(tmp_path / "driver", toolchain)
    emulator = hand_made.emulator()
    libraries = Path("/usr/aarch64-linux-gnu")
    if emulator is None or not libraries.exists():
        pytest.skip("no qemu-aarch64 or no libraries for aarch64")
    command = (emulator, "-L", str(libraries), "-E", f"LD_LIBRARY_PATH={driver}")
    done = hand_made.run(artifact, "--selftest", emulator=command)
    assert done.returncode == 0 and "Fake GPU 0" in done.stdout, done
