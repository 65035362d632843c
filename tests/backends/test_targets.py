"""Every way to run a network computes the same, and what does not is told."""

import json
import os
import subprocess
import sys

import check_targets
import numpy as np
import pytest
from check_targets import FORMS, Case, cases
from dying_case import DyingCase

from gensynth.backends.tvm import load_target, routes, verifying
from gensynth.backends.tvm.routes import GPU_ROUTES, ROUTES, KernelUse, Trial, find_gpu, launch_faults
from gensynth.backends.tvm.shim import build_driver
from gensynth.backends.tvm.verifying import check_network, largest_error, trained_alike
from gensynth.ir import Builder, GenSynthError, Network, UsageError, initialize
from gensynth.ir.ops import Dense, Flatten, Relu
from gensynth.synth import prototypes as zoo

CASES = {case.name: case for case in cases(64)}
SMALL = ("lenet pool=max", "seed 0", "seed 1")


def assert_same_everywhere(case):
    checked = check_network(case.network(), name=case.name, batch=case.batch)
    assert {item.route: item.reason for item in checked.outcomes if item.status == "failed"} == {}
    assert all(item.status == "skipped" or item.route == "sm_62" or item.error > 0 for item in checked.outcomes)
    assert [item.route for item in checked.outcomes] == list(ROUTES)


@pytest.mark.parametrize("name", SMALL)
def test_a_network_computes_the_same_by_every_route(name):
    assert_same_everywhere(CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in SMALL])
def test_every_network_computes_the_same_by_every_route(name):
    assert_same_everywhere(CASES[name])


def test_every_family_and_version_of_the_zoo_is_checked():
    families = {found.name for found in zoo.prototypes() if found.name in ("lenet", "nasnet-a")} | {
        name.replace("_", "-") for name in ("mobilenet", "resnet", "shufflenet", "squeezenet")
    }
    assert families == {family for family, _ in FORMS}
    for family in ("mobilenet", "shufflenet", "squeezenet"):
        assert len([arguments for name, arguments in FORMS if name == family and "version" in arguments]) == 2


def test_the_networks_of_the_generator_are_64_architectures_of_many_kinds_of_op():
    networks = [CASES[f"seed {seed}"].network() for seed in range(64)]
    assert len({verifying.architecture_hash(network.graph) for network in networks}) == 64
    assert len({node.op.name for network in networks for node in network.graph.nodes}) >= 10


# What is wrong is told.


@pytest.fixture
def dense():
    """A network of one layer, quick to run."""
    build = Builder("small")
    build.output(build.emit(Dense(features=4), build.emit(Flatten(), build.input("image", (3, 2, 2)))))
    graph = build.build()
    return Network(graph, initialize(graph))


def outcome_of(monkeypatch, network, run):
    monkeypatch.setitem(routes.ALL_ROUTES, "relax", run)
    found = check_network(network, batch=2, routes=("relax", "torch"))
    assert found.outcome("torch").status == "ok"  # whatever happened to the other
    return found.outcome("relax"), found


def right(trial: Trial):
    return verifying.run_reference(trial.network, dict(trial.inputs))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda array: array + 1e-3 * np.ptp(array), "its outputs are off by 0.001 of their range"),
        (lambda array: np.where(array == array.max(), np.nan, array), "its outputs are off by nan"),
        (lambda array: array[:1], "outputs have shapes [(1, 4)], not [(2, 4)]"),
    ],
    ids=["inexact", "not a number", "another shape"],
)
def test_wrong_outputs_fail(monkeypatch, dense, wrong, reason):
    outcome, found = outcome_of(
        monkeypatch, dense, lambda trial: [right(trial), [wrong(array) for array in right(trial)], right(trial)]
    )
    assert (outcome.status, found.ok) == ("failed", False)
    assert reason in outcome.reason


def test_outputs_within_the_tolerance_are_fine(monkeypatch, dense):
    outcome, found = outcome_of(
        monkeypatch, dense, lambda trial: [[array + 5e-5 * np.ptp(array) for array in right(trial)]]
    )
    assert (outcome.status, found.ok) == ("ok", True)
    assert 4e-5 < outcome.error < 6e-5


def test_a_route_that_breaks_fails_with_what_it_said_and_does_not_end_the_others(monkeypatch, dense):
    def broken(trial):
        raise RuntimeError("no such schedule")

    outcome, _ = outcome_of(monkeypatch, dense, broken)
    assert (outcome.status, outcome.error) == ("failed", None)
    assert outcome.reason == "RuntimeError: no such schedule"


def test_an_artifact_of_other_weights_fails(monkeypatch, dense):
    other = trained_alike(dense.graph, 5)

    def mixed(trial):
        return routes._by_host(Trial(other, trial.batch, trial.inputs, trial.folder))

    outcome, _ = outcome_of(monkeypatch, dense, mixed)
    assert outcome.status == "failed"
    assert outcome.error > 0.01


def test_without_an_emulator_the_route_is_skipped_with_the_command_that_installs_one(monkeypatch, dense):
    monkeypatch.setattr(routes, "host_architecture", lambda: "x86_64")
    monkeypatch.setattr(routes.shutil, "which", lambda name: None)
    found = check_network(dense, routes=("aarch64",))
    assert found.ok
    assert found.outcome("aarch64").status == "skipped"
    assert found.outcome("aarch64").reason.endswith("sudo apt-get install qemu-user-static")


def test_outputs_that_are_the_same_for_every_image_prove_nothing():
    build = Builder("dead")
    flat = build.emit(Flatten(), build.input("image", (3, 2, 2)))
    build.output(build.emit(Relu(), build.emit(Dense(features=4), flat)))
    graph = build.build()
    weights = {name: np.full_like(array, -1.0 if array.ndim == 1 else 0.0) for name, array in initialize(graph).items()}
    with pytest.raises(UsageError, match="is the same for every image"):
        check_network(Network(graph, weights), batch=2)


def test_an_unknown_route_is_refused_with_the_nearest(dense):
    with pytest.raises(UsageError) as caught:
        check_network(dense, routes=("tourch",))
    assert "did you mean 'torch'?" in caught.value.hint


def test_errors_are_relative_to_the_range_of_each_output():
    wanted = [np.array([10.0, 30.0]), np.array([-1.0, 1.0])]
    assert largest_error([np.array([10.0, 30.3]), np.array([-1.0, 1.0])], wanted) == pytest.approx(0.01)
    assert largest_error([np.array([10.0, 30.0]), np.array([-1.0, 1.1])], wanted) == pytest.approx(0.05)
    with pytest.raises(GenSynthError, match="outputs have shapes"):
        largest_error(wanted[:1], wanted)


# The limits of the board.


def test_a_kernel_whose_threads_take_more_registers_than_a_block_has_is_told():
    use = KernelUse("k0", "conv2d", "convolution", "f32", 8, 1024, 40, 0, 0)
    cuda = load_target("tegra-x2-gpu").cuda
    assert launch_faults(use, cuda) == ["a block of k0 takes 40960 registers, sm_62 has 32768"]
    assert launch_faults(KernelUse("k0", "conv2d", "convolution", "f32", 8, 768, 40, 0, 0), cuda) == []
    assert "2048 threads" in launch_faults(KernelUse("k0", "add", "pointwise", "f32", 1, 2048, 8, 0, 0), cuda)[0]


@pytest.mark.parametrize("name", ["seed 15", "seed 58"])
def test_kernels_that_tempt_ptxas_to_spill_and_nvrtc_to_rare_instructions_are_assembled(name):
    # 25 weights of one depthwise output, of a batch of 3 in float16; indices that become dp2a, which PTX 5.0 brought
    case = CASES[name]
    checked = check_network(case.network(), batch=case.batch, routes=("sm_62",))
    assert checked.ok, checked.outcomes
    assert {use.dtype for use in checked.kernels} == {"f32", "f16"}
    assert all(use.spilled == 0 for use in checked.kernels)


# The GPU.


def test_without_a_gpu_the_check_of_it_says_so_and_ends_with_2(monkeypatch, capsys):
    try:
        find_gpu()
    except UsageError:
        monkeypatch.setattr(sys, "argv", ["check_targets", "--gpu", "--only", "lenet"])
        assert check_targets.main() == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert "CUDA" in told.err
        assert "make check-targets" in told.err
    else:
        pytest.skip("there is a GPU here")


IN_PROCESS = """
import sys
import numpy as np
from gensynth.backends.tvm import load_artifact
from gensynth.backends.tvm.routes import find_gpu
folder, image, logits = sys.argv[1:]
with load_artifact(folder) as artifact:
    assert artifact.device == find_gpu()
    print(find_gpu())
    np.save(logits, artifact(np.load(image)))
"""


def test_what_ships_for_the_gpu_computes_the_same_in_a_process_and_is_found_where_its_driver_is(tmp_path):
    network = CASES["seed 2"].network()
    image = np.random.default_rng(0).standard_normal((1, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    source = Trial(network, 1, {}, tmp_path).gpu_program("f32")[1]
    driver = build_driver(source, load_target("tegra-x2-gpu").cuda, tmp_path / "driver")
    routes.build_gpu_artifact(network, tmp_path / "artifact")
    words = [str(tmp_path / name) for name in ("artifact", "image.npy", "logits.npy")]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver.parent)}
    done = subprocess.run([sys.executable, "-c", IN_PROCESS, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a CPU in the place of a GPU\n"
    assert largest_error([np.load(words[2])], verifying.run_reference(network, image)) < 1e-5


def test_a_driver_without_the_kernels_fails_the_check(tmp_path, dense):
    source = Trial(dense, 1, {}, tmp_path).gpu_program("f32")[1]
    driver = build_driver(source, load_target("tegra-x2-gpu").cuda, tmp_path / "driver")
    folder = tmp_path / "artifact"
    routes.build_gpu_artifact(CASES["seed 0"].network(), folder)
    done = subprocess.run(
        [folder / "run", "--selftest"], capture_output=True, text=True, env={"LD_LIBRARY_PATH": str(driver.parent)}
    )
    assert done.returncode == 2
    assert "the GPU failed at" in done.stderr


# The script.


def test_results_are_stored_and_a_second_run_keeps_those_that_are_fine(monkeypatch, capsys, tmp_path):
    def check_all(chosen, routes, processes):
        for case in chosen:
            yield case, check_targets.check(case, routes), 0.5

    monkeypatch.setattr(check_targets, "check_all", check_all)  # in this process, to be quick
    path = tmp_path / "found.json"
    words = [
        "check_targets",
        "--only",
        "seed [01]",
        "--routes",
        "torch",
        "sm_62",
        "--processes",
        "1",
        "--json",
        str(path),
    ]
    monkeypatch.setattr(sys, "argv", words)
    assert check_targets.main() == 0
    first = capsys.readouterr().out
    assert "2 of 2 networks compute the same by torch, sm_62" in first
    stored = json.loads(path.read_text())
    assert [row["name"] for row in stored["networks"]] == ["seed 0", "seed 1"]
    kernels = sum(item["kernels"] for item in stored["templates"])
    assert kernels == sum(len(text.split("; ")) for text in stored["kernels"].values())
    assert all(item["spilled"] == 0 for item in stored["templates"])
    stored["networks"][0]["failed"] = {"torch": "made up"}
    path.write_text(json.dumps(stored))
    monkeypatch.setattr(sys, "argv", [*words, "--resume"])
    assert check_targets.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[1] for line in lines if line.endswith("(stored)")] == ["1"]
    again = json.loads(path.read_text())
    assert again["templates"] == stored["templates"]
    assert again["networks"][0]["failed"] == {}


def test_a_network_that_kills_its_process_fails_and_the_others_go_on():
    rows = {
        case.name: checked
        for case, checked, _ in check_targets.check_all([DyingCase("fatal"), CASES["seed 0"]], ("torch",), 1)
    }
    assert rows["seed 0"].ok
    assert rows["fatal"].outcome("torch").reason == "the process that ran it ended"


def test_a_failure_is_in_the_table_below_it_and_in_the_exit_status(monkeypatch, capsys, tmp_path):
    failed = check_targets.lost(Case("seed 0", seed=0), ("torch",), "off by a mile")
    monkeypatch.setattr(check_targets, "check_all", lambda chosen, *_: [(chosen[0], failed, 1.0)])
    monkeypatch.setattr(sys, "argv", ["check_targets", "--only", "seed 0", "--routes", "torch"])
    assert check_targets.main() == 1
    told = capsys.readouterr().out
    assert "FAILED" in told
    assert "failed: torch: off by a mile" in told
    assert "0 of 1 networks" in told


def test_gpu_routes_are_not_among_those_that_need_no_gpu():
    assert not set(GPU_ROUTES) & set(ROUTES)
    assert set(check_targets.COLUMNS) == {*GPU_ROUTES, *ROUTES}


def test_gpu_artifacts_are_built_without_a_gpu_to_be_run_by_a_script_where_one_is(monkeypatch, capsys, tmp_path):
    place = tmp_path / "built"
    monkeypatch.setattr(sys, "argv", ["check_targets", "--build", str(place), "--only", "seed 0"])
    assert check_targets.main() == 0
    assert f"sh {place / 'check.sh'}" in capsys.readouterr().out
    source = Trial(CASES["seed 0"].network(), 1, {}, tmp_path).gpu_program("f16")[1]
    driver = build_driver(source, load_target("tegra-x2-gpu").cuda, tmp_path / "driver")
    environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(driver.parent)}
    done = subprocess.run(["sh", place / "check.sh"], capture_output=True, text=True, env=environment)
    assert "== seed_0-f16\nok   head.logits" in done.stdout
    assert "== seed_0-f32\n" in done.stdout  # the stand-in has kernels of float16 alone
    assert done.returncode == 1
