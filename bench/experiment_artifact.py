"""Compiles a trained network for every target, and checks that each artifact computes what PyTorch computes.

    python bench/experiment_artifact.py NET.gsir --out DIR --json experiment_artifact.json
    python bench/experiment_artifact.py NET.gsir --out DIR --task cifar10 --data FOLDER --images 8

The weights are those beside NET.gsir. Inputs are images of the task's validation part, or float32 [n, C, H, W] in a
file (--inputs FILE.npy), otherwise noise. An artifact runs one image at a time. How it was checked depends on the
machine:

    ran natively      this machine ran the artifact; ONNX Runtime did the model
    ran on GPU        a GPU of this machine, named here, ran the board's kernels by the launcher that ships
    emulated          QEMU ran the artifact
    kernels checked   the launcher that ships ran the emitted CUDA C on this machine's CPU, by a stand-in for CUDA's
                      driver, and ptxas made the kernels within the board's limits
    only compiled     what could run it is not installed; the reason says how to get it
    not compiled      the reason says why, as it does for `failed to run`

An output may differ by a share of its range: 1e-4 in float32, 2e-2 in float16. The exit status is 1 where one differs
by more, or something fails, and 2 where nothing can be checked; what is only compiled is no failure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from harness import print_table, write_json

from gensynth.backends.tvm import compile_network, load_target
from gensynth.backends.tvm.artifact import archive_of, missing_features
from gensynth.backends.tvm.building import TOLERANCES
from gensynth.backends.tvm.host import host_architecture
from gensynth.backends.tvm.manifest import read_manifest
from gensynth.backends.tvm.routes import (
    ALL_ROUTES,
    RouteSkipped,
    Trial,
    assemble_kernels,
    build_gpu_artifact,
    emulator,
    find_gpu,
    run_by_program,
    run_selftest,
)
from gensynth.backends.tvm.shim import build_driver
from gensynth.backends.tvm.verifying import largest_error
from gensynth.ir import Array, GenSynthError, Network, UsageError, WeightsError, architecture_hash, load_network
from gensynth.passes.cost import cost

ONNX = "onnxruntime"

TARGETS = ("x86-64-v3", "tegra-x2-cpu", "tegra-x2-gpu", ONNX)
"""An x86 CPU, the Tegra X2's ARM CPU and its CUDA GPU, and ONNX Runtime."""

BOARD_PROCESSOR = "cortex-a57"
"""The Tegra X2's CPU, as QEMU calls it."""

NEEDED = ("libnetwork.so", "weights.bin")
"""What a program needs of an artifact."""

Row = dict[str, Any]


def verify_artifact(
    path: Path,
    out: Path,
    *,
    inputs: np.ndarray[Any, Any] | None = None,
    targets: tuple[str, ...] = TARGETS,
    preprocessing: Mapping[str, object] | None = None,
) -> list[Row]:
    """Writes the artifacts of a trained network to folders below `out`; returns a row for each target and precision.

    `inputs` are images, float32 [n, C, H, W], by default noise. A row has `target`, `dtype`, `how` and whether it is
    `verified`, with a `reason` if not; the largest absolute `difference` from PyTorch, the largest `error` relative to
    the range of its output and the `tolerance` of that, by output as well; `artifact`, and the bytes of all of it, of
    its archive and of what a program needs; `kernels` of a GPU; and seconds. `preprocessing` goes into the manifests.

    Raises:
        GenSynthError: the network cannot be read or has no weights, or inputs that do not fit, or prove nothing.
    """
    network = load_network(path)
    if network.weights is None:
        raise WeightsError(
            f"{path} has no weights to compile", hint=f"put them into {path.with_suffix('.safetensors')}"
        )
    for name in targets:
        if name not in TARGETS:
            raise UsageError(f"there is no target '{name}' here", hint=f"one of {', '.join(TARGETS)}")
    out.mkdir(parents=True, exist_ok=True)
    if find_spec("tvm"):
        import_module("tvm")  # its start is not the first target's
    with tempfile.TemporaryDirectory(prefix="gensynth-") as place:
        checks = Checks(network, _inputs(network, inputs), out, Path(place), preprocessing)
        asked = [
            (name, dtype) for name in targets for dtype in (("f32",) if name == ONNX else load_target(name).dtypes)
        ]
        return [checks.row(name, dtype) for name, dtype in asked]


def _inputs(network: Network, given: np.ndarray[Any, Any] | None, count: int = 4, seed: int = 0) -> dict[str, Array]:
    """Returns a few images for every input of a network."""
    wanted = network.graph.inputs
    if given is None:
        random = np.random.default_rng(seed)
        return {value.name: random.standard_normal(value.type.sizes(count), np.float32) for value in wanted}
    count = given.shape[0] if given.ndim else 0
    shapes = [value.type.sizes(count) for value in wanted]
    if count == 0 or shapes != [given.shape]:
        raise UsageError(
            f"the images are {list(given.shape)}, @{network.name} takes {[list(shape) for shape in shapes]}",
            hint="give at least one image, of the size that the network was trained on",
        )
    return {wanted[0].name: np.ascontiguousarray(given, np.float32)}


@dataclass(frozen=True)
class Way:
    """How this machine runs what was compiled."""

    how: str
    folder: Path
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Checks:
    """A network, images for it, and what PyTorch makes of them."""

    network: Network
    inputs: Mapping[str, Array]
    out: Path
    place: Path
    preprocessing: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        count = len(next(iter(self.inputs.values())))
        self.trials = [
            Trial(self.network, 1, {name: array[i : i + 1] for name, array in self.inputs.items()}, self.place)
            for i in range(count)
        ]
        self.wanted = ALL_ROUTES["torch"](Trial(self.network, count, self.inputs, self.place))[0]
        for value, array in zip(self.network.graph.outputs, self.wanted, strict=True):
            if not np.isfinite(array).all():
                raise UsageError(f"by PyTorch '{value.name}' is not finite", hint="the weights are no good")
            if array.size > 1 and (not np.ptp(array) > 0.0 or (count > 1 and (array == array[:1]).all())):
                raise UsageError(
                    f"'{value.name}' is the same for every image, so equal outputs would prove nothing",
                    hint="give images that the network tells apart",
                )

    def row(self, target: str, dtype: str) -> Row:
        """Compiles for a target and checks the artifact; whatever fails is in the row."""
        row: Row = {
            "target": target,
            "dtype": dtype,
            "how": "not compiled",
            "verified": False,
            "reason": "",
            "images": len(self.trials),
            "difference": None,
            "error": None,
            "tolerance": TOLERANCES[dtype],
        }
        began = time.perf_counter()
        try:
            made = self._export(row) if target == ONNX else self._compile(target, dtype, row)
            row["compile_seconds"] = round(time.perf_counter() - began, 2)
            row["how"] = "only compiled"
            began = time.perf_counter()
            if target == ONNX:
                self._run_onnx(made, row)
            else:
                self._run(self._gpu_way(dtype) if load_target(target).cuda else self._cpu_way(made), row)
                if load_target(target).cuda:
                    self._assemble(row)
        except RouteSkipped as skipped:
            row["reason"] = str(skipped)
        except Exception as failure:  # whatever a compiler does is what is to be told
            kind = "" if isinstance(failure, GenSynthError) else f"{type(failure).__name__}: "
            row |= {"verified": False, "reason": f"{kind}{failure}"}
            if row["how"] == "only compiled":
                row["how"] = "failed to run"
        took = "compile_seconds" if row["how"] == "not compiled" else "check_seconds"
        return row | {took: round(time.perf_counter() - began, 2)}

    # Compiling.

    def _export(self, row: Row) -> Path:
        if not (find_spec("onnx") and find_spec("onnxruntime")):
            raise UsageError("ONNX Runtime is not installed", hint='pip install "gensynth[onnx]"')
        from gensynth.backends.onnx import export_onnx

        files = export_onnx(self.network, self.out / f"{self.network.graph.name}.onnx")
        row |= {"artifact": str(files[0]), "artifact_bytes": _bytes(files), "needed_bytes": _bytes(files)}
        return files[0]

    def _compile(self, target: str, dtype: str, row: Row) -> Path:
        made = self.out / f"{target}-{dtype}"
        compile_network(self.network, target, made, dtype=dtype, preprocessing=self.preprocessing)
        row |= {
            "artifact": str(made),
            "artifact_bytes": _bytes([path for path in made.rglob("*") if path.is_file()]),
            "archive_bytes": _bytes([archive_of(made)]),
            "needed_bytes": _bytes([made / name for name in NEEDED]),
        }
        return made

    # Running.

    def _run_onnx(self, model: Path, row: Row) -> None:
        from gensynth.backends.onnx import run_onnx

        row["how"] = "ran natively"
        self._compare(run_onnx(model, self.inputs), row)

    def _run(self, way: Way, row: Row) -> None:
        row["how"] = way.how
        found = [
            run_by_program(trial, way.folder, command=way.command, environment=way.environment, selftest=False)
            for trial in self.trials
        ]
        self._compare([np.concatenate(parts) for parts in zip(*found, strict=True)], row)
        if row["verified"]:  # what is wrong on images needs no other proof
            run_selftest(way.folder, command=way.command, environment=way.environment)

    def _cpu_way(self, made: Path) -> Way:
        """Returns how this machine runs an artifact for a CPU."""
        manifest = read_manifest(made)
        if manifest.architecture == host_architecture():
            lacking = missing_features(manifest)
            if lacking:
                raise RouteSkipped(f"this machine's processor has no {', '.join(lacking)}")
            return Way("ran natively", made)
        if manifest.architecture != "aarch64":
            raise RouteSkipped(f"it is for {manifest.architecture}, this machine is {host_architecture()}")
        return Way("emulated", made, emulator(BOARD_PROCESSOR))

    def _gpu_way(self, dtype: str) -> Way:
        """Returns how this machine runs the board's GPU code, by the same launcher, compiled for its own CPU."""
        folder = self.place / f"gpu-{dtype}"
        build_gpu_artifact(self.network, folder, dtype=dtype)
        try:
            return Way(f"ran on {find_gpu()}", folder)
        except UsageError:
            program, source = self.trials[0].gpu_program(dtype)
        assert program.target.cuda is not None
        driver = build_driver(source, program.target.cuda, self.place / f"driver-{dtype}")
        return Way("kernels checked", folder, environment={"LD_LIBRARY_PATH": str(driver.parent)})

    # Judging.

    def _compare(self, found: Sequence[Array], row: Row) -> None:
        """Tells in a row how far outputs are from PyTorch's."""
        error = largest_error(found, self.wanted)
        if not np.isfinite(error):
            raise GenSynthError("its outputs are not finite")
        outputs = {
            value.name: {
                "difference": float(np.abs(one.astype(np.float64) - other).max()),
                "error": largest_error([one], [other]),
                "least": float(other.min()),
                "most": float(other.max()),
            }
            for value, one, other in zip(self.network.graph.outputs, found, self.wanted, strict=True)
        }
        row |= {
            "outputs": outputs,
            "difference": max(item["difference"] for item in outputs.values()),
            "error": error,
            "verified": error <= row["tolerance"],
        }
        if not row["verified"]:
            row["reason"] = f"its outputs are off by {error:.2g} of their range"

    def _assemble(self, row: Row) -> None:
        """Tells in a row what ptxas makes of its kernels."""
        trial = self.trials[0]
        try:
            faults = assemble_kernels(trial, row["dtype"])
        except RouteSkipped as skipped:
            row["reason"] = "; ".join(filter(None, (row["reason"], f"the kernels were not assembled: {skipped}")))
            return
        mine = [use for use in trial.kernels if use.dtype == row["dtype"]]
        row["kernels"] = {
            "count": len(mine),
            "registers": max(use.registers for use in mine),
            "shared": max(use.shared for use in mine),
            "spilled": sum(use.spilled for use in mine),
        }
        if faults:
            row |= {"verified": False, "reason": "; ".join(filter(None, (row["reason"], *faults)))}


def _bytes(files: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """Prints what came out, and the reasons below."""

    def cell(row: Row, key: str, form: str) -> str:
        return "" if row.get(key) is None else format(row[key], form)

    print_table(
        title,
        ("target", "how", "verified", "difference", "error", "tolerance", "bytes", "compile s", "check s"),
        [
            (
                f"{row['target']} {row['dtype']}",
                row["how"],
                "yes" if row["verified"] else "no",
                cell(row, "difference", ".1e"),
                cell(row, "error", ".1e"),
                cell(row, "tolerance", ".0e"),
                cell(row, "needed_bytes", ",d"),
                cell(row, "compile_seconds", ".1f"),
                cell(row, "check_seconds", ".1f"),
            )
            for row in rows
        ],
        "difference: the largest from PyTorch; error: relative to the output's range; bytes: what a program needs",
    )
    for row in rows:
        if row["reason"]:
            print(f"{row['target']} {row['dtype']}: {row['reason']}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the network that was asked for and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path, metavar="NET.gsir")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where artifacts are written")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS, metavar="T", help=", ".join(TARGETS))
    parser.add_argument("--inputs", type=Path, metavar="FILE.npy", help="images: float32 [n, C, H, W]")
    parser.add_argument("--task", metavar="T", help="take images, and what manifests tell of them, from this task")
    parser.add_argument("--data", metavar="DIR", help="the task's data folder; $GENSYNTH_DATA by default")
    parser.add_argument("--option", action="append", default=[], metavar="key=value", help="an option of the task")
    parser.add_argument("--images", type=int, default=4, metavar="N", help="how many images of the task (4)")
    parser.add_argument("--json", metavar="OUT", help="where results are stored")
    options = parser.parse_args(arguments)
    try:
        inputs, preprocessing = _given(options)
        rows = verify_artifact(
            options.network, options.out, inputs=inputs, targets=tuple(options.targets), preprocessing=preprocessing
        )
        graph = load_network(options.network).graph
    except (GenSynthError, RouteSkipped) as error:
        print(f"experiment_artifact: {error}", file=sys.stderr)
        return 2
    macs, of = cost(graph).macs, options.task or options.inputs or "noise"
    print_rows(f"@{graph.name}: {macs / 1e6:.1f}M MACs, {rows[0]['images']} images ({of})", rows)
    facts = {"network": graph.name, "architecture_hash": architecture_hash(graph), "macs": macs, "inputs": str(of)}
    write_json(options.json, {**facts, "rows": rows})
    return int(any(not row["verified"] and row["how"] != "only compiled" for row in rows))


def _given(options: argparse.Namespace) -> tuple[np.ndarray[Any, Any] | None, Mapping[str, object] | None]:
    """Returns the images that were asked for, if any, and what manifests are to tell of them."""
    if options.task is None:
        return None if options.inputs is None else np.load(options.inputs), None
    from gensynth.synth.tasks import parse_task_options, task

    stated = [] if options.data is None else [f"data={options.data}"]
    chosen = task(options.task, **parse_task_options(options.task, [*stated, *options.option]))
    preprocessing = {"task": chosen.name, **chosen.preprocessing, "classes": list(chosen.class_names)}
    if options.inputs is not None:
        return np.load(options.inputs), preprocessing
    return chosen.split("validation").sample(options.images).normalized(), preprocessing


if __name__ == "__main__":
    sys.exit(main())
