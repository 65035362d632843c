"""Does every network compute the same by every way to run it, and would its kernels run on a Tegra X2?

    python bench/check_targets.py --json check_targets.json        every prototype, and 64 emitted networks
    python bench/check_targets.py --only 'resnet*' --networks 8 --kernels kernels.csv
    python bench/check_targets.py --gpu                            what ships for its GPU, on a GPU of this machine

Each is run by PyTorch, ONNX Runtime, TVM's own build of Relax, the artifact's executor on this machine, that of the
artifact for the Tegra X2's CPU under QEMU, and the CUDA C for its GPU on this machine's CPU: in float32, in float16,
and in float32 by the launcher that ships, on a stand-in for the driver. A column holds the largest error against the
float64 reference, relative to the output's range. `sm_62` says how many kernels, of both precisions, ptxas made for the
GPU within the board's limits. Networks of odd seeds run 3 images at once, the others 1.

The exit status is 1 where an error is above its tolerance, something fails, a kernel spills or is beyond the board's
limits; 2 where there is no GPU for --gpu. Rows are stored as they come; --resume goes on with those that are missing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import astuple, dataclass, fields
from fnmatch import fnmatchcase
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from harness import print_table, write_json

from gensynth.backends.tvm.building import TOLERANCES
from gensynth.backends.tvm.routes import GPU_ROUTES, ROUTES, KernelUse, build_gpu_artifact, find_gpu
from gensynth.backends.tvm.verifying import Checked, Outcome, check_network, trained_alike
from gensynth.ir import GenSynthError, Network
from gensynth.passes import run_pipeline
from gensynth.synth.generator import Generator
from gensynth.synth.prototypes import ArgumentValue, prototype

FORMS: tuple[tuple[str, dict[str, ArgumentValue]], ...] = (
    ("lenet", {}),
    ("lenet", {"pool": "max"}),
    ("resnet", {"depth": 20}),
    ("resnet", {"depth": 20, "shortcut": "pad"}),
    ("resnet", {"depth": 18, "dataset": "imagenet", "image": (3, 64, 64)}),
    ("resnet", {"depth": 50, "dataset": "imagenet", "image": (3, 64, 64)}),
    ("mobilenet", {"version": 1}),
    ("mobilenet", {"version": 2}),
    ("shufflenet", {"version": 1, "groups": 3}),
    ("shufflenet", {"version": 2}),
    ("squeezenet", {"version": 1.0}),
    ("squeezenet", {"version": 1.1}),
    ("nasnet-a", {"cells": 1, "filters": 192}),
)
"""Every family and version of the zoo, as for CIFAR, or for ImageNet on small images where that is another network."""

PASSES = (
    "sort-channels,offer{rewrite=separate-conv,where=[stage2,stage3]},offer{rewrite=low-rank-conv,where=[stage2]},"
    "offer{rewrite=squeeze-excite,where=[stage1,stage3]},offer{rewrite=group-conv,where=[stage3]},"
    "offer{rewrite=factorize-conv,where=[stage1]},offer{rewrite=bottleneck-conv,where=[stage2]},"
    "offer{rewrite=replace-activation{to=hard_swish}},offer{rewrite=bypass-block},open-kernel,"
    "open-width{ratios=[0.25,0.375,0.5,0.75,1.0]}"
)
"""What makes a generator of the prototype of examples/digits.toml: more than there, for more kinds of op."""


COLUMNS = {
    "torch": "torch",
    "onnxruntime": "onnxrt",
    "relax": "TVM",
    "host": "host",
    "aarch64": "aarch64",
    "cuda-f32": "CUDA f32",
    "cuda-f16": "CUDA f16",
    "launcher": "launcher",
    "sm_62": "sm_62",
    "gpu-f32": "GPU f32",
    "gpu-f16": "GPU f16",
}


@dataclass(frozen=True)
class Case:
    """A network to check: a form of the zoo, or what the generator emits for a seed."""

    name: str
    family: str = ""
    arguments: tuple[tuple[str, ArgumentValue], ...] = ()
    seed: int = -1

    @property
    def batch(self) -> int:
        """How many images it takes at once."""
        return 3 if self.seed % 2 == 1 and self.seed > 0 else 1

    def network(self) -> Network:
        """Returns the network, with weights."""
        if self.seed >= 0:
            return emitting().generate(self.seed)
        return trained_alike(prototype(self.family, **dict(self.arguments)).graph)


@cache
def emitting() -> Generator:
    """Returns the generator whose networks are checked."""
    return Generator(run_pipeline(trained_alike(prototype("resnet", depth=8, image=(1, 8, 8)).graph), PASSES))


def cases(networks: int) -> list[Case]:
    """Returns every form of the zoo, and so many networks of the generator; what takes long is not last."""
    found = []
    for family, arguments in FORMS:
        shown = [family]
        for key, value in arguments.items():
            image = isinstance(value, tuple)
            shown.append("x".join(map(str, value)) if isinstance(value, tuple) else f"{key}={value}"[image:])
        found.append(Case(" ".join(shown), family, tuple(arguments.items())))
    return found + [Case(f"seed {seed}", seed=seed) for seed in range(networks)]


# Running them, on processes of which each may die without harm to the others.


def check(case: Case, routes: tuple[str, ...]) -> Checked:
    """Checks one network; run in a worker."""
    return check_network(case.network(), name=case.name, batch=case.batch, routes=routes)


def start_worker(parent: int) -> None:
    """Keeps a worker to one thread of torch, and ends it when its parent is gone."""
    import torch

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    torch.set_num_threads(1)


class Worker(threading.local):
    """A thread's own process, so that it is known whose network was on when a process dies."""

    pool: ProcessPoolExecutor | None = None

    def run(self, case: Case, routes: tuple[str, ...]) -> Checked:
        """Returns what came out; the death of the process is a failure of every route."""
        if self.pool is None:
            self.pool = ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=start_worker, initargs=(os.getpid(),)
            )
        try:
            return self.pool.submit(check, case, routes).result()
        except BrokenProcessPool:
            self.pool = None
            return lost(case, routes, "the process that ran it ended")
        except GenSynthError as error:
            return lost(case, routes, str(error))


def lost(case: Case, routes: tuple[str, ...], reason: str) -> Checked:
    """Returns a network of which nothing is known but why."""
    return Checked(case.name, "", case.batch, 0, 0, tuple(Outcome(r, "failed", None, 0.0, 0.0, reason) for r in routes))


def check_all(chosen: Sequence[Case], routes: tuple[str, ...], processes: int) -> Iterator[tuple[Case, Checked, float]]:
    """Yields what came out for each network, and the seconds it took, as they are done."""
    worker = Worker()

    def run(case: Case) -> tuple[Case, Checked, float]:
        began = time.perf_counter()
        checked = worker.run(case, routes)
        return case, checked, time.perf_counter() - began

    with ThreadPoolExecutor(processes) as threads:
        running = [threads.submit(run, case) for case in chosen]
        try:
            for done in as_completed(running):
                yield done.result()
        finally:
            for future in running:
                future.cancel()


# Rows and tables.


def row_of(checked: Checked, seconds: float) -> dict[str, Any]:
    """Returns what is stored of a network: errors by route, what failed or was skipped and why, kernels in brief."""
    kernels: dict[str, dict[str, int]] = {}
    for dtype in sorted({use.dtype for use in checked.kernels}, reverse=True):
        mine = [use for use in checked.kernels if use.dtype == dtype]
        kernels[dtype] = {
            "count": len(mine),
            "registers": max(use.registers for use in mine),
            "shared": max(use.shared for use in mine),
            "spilled": sum(use.spilled for use in mine),
        }
    return {
        "name": checked.name,
        "architecture_hash": checked.architecture_hash,
        "batch": checked.batch,
        "macs": checked.macs,
        "params": checked.params,
        "seconds": round(seconds, 1),
        "errors": {item.route: item.error for item in checked.outcomes if item.error is not None},
        "failed": {item.route: item.reason for item in checked.outcomes if item.status == "failed"},
        "skipped": {item.route: item.reason for item in checked.outcomes if item.status == "skipped"},
        "kernels": kernels,
    }


def line_of(row: dict[str, Any], routes: Sequence[str]) -> str:
    """Returns a row of the table that is printed as results come in."""
    cells = []
    for route in routes:
        if route in row["failed"]:
            cell = "FAILED"
        elif route in row["skipped"]:
            cell = "skipped"
        elif route in row["errors"]:
            cell = f"{row['errors'][route]:.1e}"
        else:
            cell = f"{sum(item['count'] for item in row['kernels'].values())} ok"
        cells.append(f"{cell:>9}")
    verdict = "FAILED" if row["failed"] else "OK"
    macs = f"{row['macs'] / 1e6:.2f}M"
    return f"{row['name'][:40]:40} {row['batch']:2} {macs:>9} {''.join(cells)}  {verdict:6} {row['seconds']:5.0f} s"


def heading(routes: Sequence[str]) -> str:
    """Returns the first line of that table."""
    return f"{'network':40} {'N':>2} {'MACs':>9} {''.join(f'{COLUMNS[route]:>9}' for route in routes)}"


def by_template(uses: Sequence[KernelUse]) -> list[dict[str, Any]]:
    """Returns what kernels take, by template and precision."""
    found = []
    for template, dtype in sorted({(use.template, use.dtype) for use in uses}):
        mine = [use for use in uses if (use.template, use.dtype) == (template, dtype)]
        registers = sorted(use.registers for use in mine)
        found.append(
            {
                "template": template,
                "dtype": dtype,
                "kernels": len(mine),
                "threads": max(use.threads for use in mine),
                "registers": [registers[0], registers[len(registers) // 2], registers[-1]],
                "shared": max(use.shared for use in mine),
                "spilled": sum(use.spilled for use in mine),
            }
        )
    return found


def print_kernels(templates: Sequence[dict[str, Any]]) -> None:
    """Prints what ptxas says."""
    print_table(
        "Kernels for the Tegra X2's GPU (sm_62), by ptxas",
        ("template", "dtype", "kernels", "threads <=", "registers: least, median, most", "shared bytes <=", "spilled"),
        [
            (
                item["template"],
                item["dtype"],
                str(item["kernels"]),
                str(item["threads"]),
                ", ".join(map(str, item["registers"])),
                str(item["shared"]),
                str(item["spilled"]),
            )
            for item in templates
        ],
        "limits: 1024 threads, 255 registers, 49152 bytes of shared memory, 32768 registers of a block; spilled: bytes",
    )


def stored(path: str | None) -> dict[str, Any]:
    """Returns the results that are stored already."""
    return json.loads(Path(path).read_text()) if path is not None and Path(path).exists() else {}


SCRIPT = """#!/bin/sh
# Runs the selftest of every artifact beside this script; the exit status is 1 where one fails.
cd "$(dirname "$0")" || exit 2
status=0
for run in */run; do
  echo "== ${run%/run}"
  "./$run" --selftest || status=1
done
exit $status
"""


def build(chosen: Sequence[Case], place: Path) -> None:
    """Writes the artifacts of the GPU's code, to be run where there is a GPU and no Python: `sh PLACE/check.sh`."""
    place.mkdir(parents=True, exist_ok=True)
    for case in chosen:
        for dtype in ("f32", "f16"):
            folder = place / f"{case.name.replace(' ', '_')}-{dtype}"
            build_gpu_artifact(case.network(), folder, batch=case.batch, dtype=dtype)
            print(folder)
    (place / "check.sh").write_text(SCRIPT)
    print(f"run them where the GPU is: sh {place / 'check.sh'}")


def main() -> int:
    """Checks what was asked for and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="names of networks, such as 'resnet*' or 'seed 7'")
    parser.add_argument("--networks", type=int, default=64, help="how many the generator emits (64)")
    parser.add_argument("--routes", nargs="+", choices=(*ROUTES, *GPU_ROUTES), metavar="ROUTE", help=", ".join(ROUTES))
    parser.add_argument("--gpu", action="store_true", help="run the shipped GPU code on this machine's GPU")
    parser.add_argument("--build", type=Path, metavar="DIR", help="only write what --gpu would run to DIR")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", metavar="OUT", help="where results are stored")
    parser.add_argument("--resume", action="store_true", help="keep the rows of --json that are fine")
    parser.add_argument("--kernels", metavar="OUT.csv", help="a line for each GPU kernel")
    options = parser.parse_args()
    chosen = [
        case
        for case in cases(options.networks)
        if not options.only or any(fnmatchcase(case.name, pattern) for pattern in options.only)
    ]
    if not chosen:
        parser.error(
            f"no network is called {' or '.join(options.only)}; there are {cases(1)[0].name}, ..., seed 0, ..."
        )
    if options.build:
        build(chosen, options.build)
        return 0
    routes = tuple(options.routes or (GPU_ROUTES if options.gpu else ROUTES))
    device = ""
    if set(routes) & set(GPU_ROUTES):
        try:
            device = find_gpu()
        except GenSynthError as error:
            print(f"check_targets: {error}", file=sys.stderr)
            return 2
        print(f"GPU: {device}")
    return run(chosen, routes, options, device)


def run(chosen: Sequence[Case], routes: tuple[str, ...], options: argparse.Namespace, device: str) -> int:
    """Checks networks, prints and stores what comes out, and returns the exit status."""
    began = time.perf_counter()
    kept = stored(options.json) if options.resume else {}
    asked = {case.name: number for number, case in enumerate(chosen)}
    rows = {
        row["name"]: row
        for row in kept.get("networks", [])
        if row["name"] in asked and not row["failed"] and {*row["errors"], *row["skipped"]} >= {*routes} - {"sm_62"}
    }
    uses: dict[str, list[KernelUse]] = {
        name: [read_use(text) for text in kept["kernels"].get(name, "").split("; ") if text] for name in rows
    }
    left = [case for case in chosen if case.name not in rows]
    print(heading(routes))
    for row in rows.values():
        print(f"{line_of(row, routes)} (stored)")
    for case, checked, seconds in check_all(left, routes, options.processes):
        row = rows[case.name] = row_of(checked, seconds)
        uses[case.name] = list(checked.kernels)
        print(line_of(row, routes), flush=True)
        for kind in ("failed", "skipped"):
            for route, reason in row[kind].items():
                if kind == "failed" or len(rows) == 1:
                    print(f"    {kind}: {route}: {reason}")
        store(options.json, rows, uses, asked, device)
    flat = [(name, use) for name in sorted(uses, key=asked.__getitem__) for use in uses[name]]
    if flat:
        print_kernels(by_template([use for _, use in flat]))
    if options.kernels:
        with Path(options.kernels).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["network", *(item.name for item in fields(KernelUse))])
            writer.writerows([name, *astuple(use)] for name, use in flat)
    failed = sum(bool(row["failed"]) for row in rows.values())
    skipped = sorted({route for row in rows.values() for route in row["skipped"]})
    print(
        f"{len(rows) - failed} of {len(rows)} networks compute the same by {', '.join(set_in_order(routes, skipped))}"
        f" ({time.perf_counter() - began:.0f} s)"
    )
    for route in skipped:
        print(f"skipped: {route}: {next(row['skipped'][route] for row in rows.values() if route in row['skipped'])}")
    return 1 if failed else 0


def set_in_order(routes: Sequence[str], without: Sequence[str]) -> list[str]:
    """Returns routes but for some."""
    return [route for route in routes if route not in without]


def store(
    path: str | None,
    rows: dict[str, dict[str, Any]],
    uses: dict[str, list[KernelUse]],
    order: dict[str, int],
    device: str,
) -> None:
    """Writes what there is so far; a kernel is a text, its fields in order."""
    names = sorted(rows, key=order.__getitem__)
    write_json(
        path,
        {
            "device": device,
            "tolerances": TOLERANCES,
            "networks": [rows[name] for name in names],
            "templates": by_template([use for name in names for use in uses[name]]),
            "fields": [item.name for item in fields(KernelUse)],
            "kernels": {name: "; ".join(" ".join(map(str, astuple(use))) for use in uses[name]) for name in names},
        },
    )


def read_use(text: str) -> KernelUse:
    """Returns a kernel that was stored as text."""
    words = text.split()
    return KernelUse(*words[:4], *map(int, words[4:]))  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
