"""How fast do compiled networks run, start and compile, against ONNX Runtime, PyTorch and TVM?

    make demo && python bench/compile_speed.py --demo runs/demo --json docs/results/compile_speed.json
    python bench/compile_speed.py --quick --only resnet-20 squeezenet

Every runtime is a process of its own (bench/workers/serve.py) that has the network ready and its arrays bound, so that
only a call is timed. The processes take turns: in each round each runs a burst, after a few runs to warm up, and the
next begins when no thread of the last one runs any more, since pools of threads spin for a while after a run. A figure
is the median over the rounds of the bursts' medians; a ratio is one of two such figures. ONNX Runtime runs the exported
network with its batch fixed and everything else as it is by default. `vm` is TVM's virtual machine on the very kernels
of the untuned artifact.

Outputs of all runtimes are compared before the clock starts. Figures are stored as they come: a run that was cut off
goes on where it was, and what was measured with other settings, sources or libraries is measured again. Artifacts and
tuning records are kept in --work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from compile_figures import speed_figures
from compile_networks import Entry, choose
from harness import machine, print_table, processor
from workers.client import Worker, WorkerError

from gensynth.ir import write_atomically

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("apache-tvm", "onnxruntime", "torch", "numpy")
MOST_ERROR = 1e-3
"""How far outputs of two runtimes may be apart, relative to their range."""

Found = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What figures depend on, besides sources and libraries."""

    rounds: int = 5
    seconds: float = 0.15
    trials: int = 24
    tune_seconds: int = 60
    batch: int = 32
    large_batch: int = 8
    threads: tuple[int, ...] = (1, 2)
    beside: bool = True
    starts: int = 3

    def batches(self, entry: Entry) -> tuple[int, int]:
        """Returns the batch sizes of a network."""
        return 1, self.large_batch if entry.group == "224x224" else self.batch


@dataclass
class Bench:
    """One run of the benchmark: where things lie, the processes, and the figures so far."""

    settings: Settings
    work: Path
    store: Path | None
    found: Found
    of: str
    workers: dict[tuple[str, int], Worker] = field(default_factory=dict)
    warm: bool = False

    def worker(self, runtime: str, threads: int = 1) -> Worker:
        """Returns the process of a runtime."""
        key = runtime, threads
        if key not in self.workers:
            environment = {"TVM_NUM_THREADS": str(threads), "TORCHINDUCTOR_CACHE_DIR": str(self.work / "inductor")}
            self.workers[key] = Worker(self.work / "workers.log", environment)
        return self.workers[key]

    def save(self) -> None:
        """Writes the figures so far."""
        if self.store is not None:
            self.store.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.store, (json.dumps(self.found, indent=1) + "\n").encode())

    def record(self, name: str) -> Found:
        """Returns the figures of a network; those of other settings or sources are gone."""
        networks: Found = self.found["networks"]
        if networks.get(name, {}).get("of") != self.of:
            networks[name] = {"of": self.of, "measured": time.strftime("%Y-%m-%d")}
        kept: Found = networks[name]
        return kept


def digest(settings: Settings) -> str:
    """Returns a digest of all that figures depend on."""
    made = hashlib.sha256(repr((asdict(settings), processor(), [(name, version(name)) for name in LIBRARIES])).encode())
    paths = [
        path for folder in ("ir", "passes", "backends/tvm", "backends/onnx") for path in (ROOT / folder).rglob("*")
    ]
    for path in sorted(paths):
        if path.suffix in (".py", ".c", ".h", ".toml"):
            made.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return made.hexdigest()[:16]


# Compiling and starting.


def children_seconds() -> float:
    """Returns the processor's time that ended children of this process have taken."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def compiled(bench: Bench, entry: Entry, network: Path, batch: int) -> None:
    """Compiles a network, untuned and then tuned, and notes how long it took.

    For one image the command does it in a process of its own first, and a process that has compiled before once more.
    """
    folder, record = network.parent, bench.record(entry.name)
    kept: Found = record.setdefault("compile", {}).setdefault(str(batch), {})
    static, tuned = folder / f"static-{batch}", folder / f"tuned-{batch}"
    worker = bench.worker("compile")
    if "warm" not in kept or not static.exists():
        if batch == 1:
            command = [sys.executable, "-m", "gensynth", "compile", str(network), "--out", str(static)]
            began, used = time.perf_counter(), children_seconds()
            done = subprocess.run(command, capture_output=True, text=True)
            kept["cold"], kept["cold_cpu"] = time.perf_counter() - began, children_seconds() - used
            if done.returncode:
                raise SystemExit(f"{entry.name}: {done.stderr.strip() or done.stdout.strip()}")
        if not bench.warm:
            worker.ask(do="compile", network=network, out=folder / "again", batch=batch)
            bench.warm = True
        out = folder / "again" if batch == 1 else static
        kept["warm"] = worker.ask(do="compile", network=network, out=out, batch=batch)["seconds"]
        manifest = json.loads((static / "manifest.json").read_text())
        arrays = (*manifest["inputs"], *manifest["outputs"])
        kept |= {
            "kernels": len(manifest["kernels"]),
            "steps": len(manifest["steps"]),
            "repeats": manifest["repeats"],
            "weights_bytes": manifest["memory"]["weights_bytes"],
            "arena_bytes": manifest["memory"]["arena_bytes"],
            "array_bytes": sum(4 * int(np.prod(item["shape"])) for item in arrays),
        }
        bench.save()
    if "tuned" not in kept or not tuned.exists():
        spent = sum(item.get("tuning", 0.0) for item in record["compile"].values() if item is not kept)
        began = time.perf_counter()
        left = bench.settings.tune_seconds - spent
        trials = bench.settings.trials if left >= 1 else 0
        done = worker.ask(
            do="compile",
            network=network,
            out=tuned,
            batch=batch,
            trials=trials,
            seconds=max(0, left),
            records=folder / "records.json",
            archive=False,
        )
        kept["tuned"] = done["seconds"]
        kept["tuning"] = max(0.0, time.perf_counter() - began - kept["warm"])
        bench.save()


def started(bench: Bench, entry: Entry, network: Path) -> None:
    """Measures how long an artifact takes from nothing to ready, in processes that have not met it."""
    record, artifact = bench.record(entry.name), network.parent / "static-1"
    if "start" in record:
        return
    times: dict[str, list[float]] = {"load_artifact": [], "gs_open": [], "run": []}
    for _ in range(bench.settings.starts):
        for how in ("load_artifact", "gs_open"):
            with Worker(bench.work / "workers.log") as fresh:
                times[how].append(fresh.ask(do="start", how=how, artifact=artifact)["seconds"])
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([artifact / "run", "--info"], check=True, capture_output=True)
            times["run"].append(time.perf_counter() - began)
    record["start"] = times
    bench.save()


def resident(bench: Bench, entry: Entry, network: Path, batch: int) -> None:
    """Measures the most memory that `./run --bench` of an artifact ever had resident."""
    kept = bench.record(entry.name)["compile"][str(batch)].setdefault("resident_bytes", {})
    for threads in bench.settings.threads:
        if str(threads) not in kept:
            command = [network.parent / f"static-{batch}" / "run", "--bench", "3", "--warmup", "1", "--memory"]
            done = subprocess.run([*command, "--threads", str(threads)], check=True, capture_output=True, text=True)
            found = re.search(r"most ever resident (\d+) kB", done.stdout)
            if found is None:
                raise SystemExit(f"run --memory printed {done.stdout!r}")
            kept[str(threads)] = 1024 * int(found[1])
    bench.save()


# Latency.


def candidates(bench: Bench, entry: Entry, batch: int, threads: int) -> dict[str, tuple[str, int]]:
    """Returns what is compared: the runtime of each, and in how many of the rounds it takes part."""
    settings = bench.settings
    few = max(1, settings.rounds // 2)
    found = {
        "onnxruntime": ("onnxruntime", settings.rounds),
        "static": ("gensynth", settings.rounds),
        "tuned": ("gensynth", settings.rounds),
    }
    if batch == 1 and entry.group != "224x224":
        found["vm"] = ("relax_vm", settings.rounds)
    if settings.beside:
        found["eager"] = ("torch_eager", few)
        if batch == 1:
            if entry.inductor:
                found["inductor"] = ("torch_compile", few)
            if threads == 1:
                found["untuned"] = ("tvm_untuned", 1)
    return found


def latency(bench: Bench, entry: Entry, network: Path, batch: int, threads: int) -> None:
    """Measures a network at a batch size and a number of threads in all runtimes."""
    kept: Found = bench.record(entry.name).setdefault("cases", {})
    key = f"batch {batch}, {threads} thread{'s' * (threads > 1)}"
    if key in kept:
        return
    compared = candidates(bench, entry, batch, threads)
    opened: dict[str, Worker] = {}
    failures: dict[str, str] = {}
    base: list[np.ndarray] | None = None
    for name, (runtime, _) in compared.items():
        worker = bench.worker(f"{runtime} {name}" if runtime == "gensynth" else runtime, threads)
        artifact = network.parent / f"{'tuned' if name == 'tuned' else 'static'}-{batch}"
        outputs = bench.work / "outputs.npz"
        try:
            worker.ask(
                do="open",
                runtime=runtime,
                network=network,
                artifact=artifact,
                batch=batch,
                threads=threads,
                outputs=outputs,
            )
        except WorkerError as error:
            if runtime in ("onnxruntime", "gensynth"):
                raise SystemExit(f"{entry.name}, {key}, {name}: {error}") from None
            failures[name] = str(error).partition("\n")[0][:300]
            continue
        with np.load(outputs) as loaded:
            arrays = list(loaded.values())
        base = base or arrays
        error = max(
            float(np.abs(one - other).max() / np.abs(other).max()) for one, other in zip(arrays, base, strict=True)
        )
        if not error < MOST_ERROR:
            raise SystemExit(f"{entry.name}, {key}: {name} differs from ONNX Runtime by {error:.1e} of the range")
        opened[name] = worker
    bursts: dict[str, list[Found]] = {name: [] for name in opened}
    for number in range(bench.settings.rounds):
        for name, worker in opened.items():
            if number < compared[name][1]:
                bursts[name].append(worker.ask(do="burst", seconds=bench.settings.seconds, least=3))
    kept[key] = {
        "batch": batch,
        "threads": threads,
        "seconds": {name: median(burst["median"] for burst in each) for name, each in bursts.items()},
        "bursts": bursts,
        "failures": failures,
    }
    bench.save()
    told = kept[key]["seconds"]
    line = ", ".join(f"{name} {1e3 * value:.3f}" for name, value in told.items())
    ratios = " and ".join(f"{told[name] / told['onnxruntime']:.2f}" for name in ("static", "tuned"))
    print(f"{entry.name}, {key} [ms]: {line}; to ONNX Runtime {ratios}", flush=True)
    for name, text in failures.items():
        print(f"  {name} failed: {text}", flush=True)


# The whole.


@contextmanager
def running(bench: Bench) -> Iterator[Bench]:
    """Ends the workers at last."""
    try:
        yield bench
    finally:
        for worker in bench.workers.values():
            worker.close()


def folder_of(work: Path, entry: Entry) -> Path:
    """Returns where a network and its artifacts lie."""
    return work / entry.name.replace(" ", "-")


def loaded(store: Path | None) -> Found:
    """Returns the figures that are stored."""
    if store is not None and store.exists():
        found: Found = json.loads(store.read_text())
        return found
    return {"networks": {}}


def first_compile(bench: Bench, network: Path) -> None:
    """Measures what the first compile on a machine takes: that of the executor's C files is in no cache yet."""
    if bench.found.get("first_compile", {}).get("of") == bench.of:
        return
    with tempfile.TemporaryDirectory(dir=bench.work) as place:
        command = [sys.executable, "-m", "gensynth", "compile", str(network), "--out", f"{place}/artifact"]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "XDG_CACHE_HOME": place})
        bench.found["first_compile"] = {"of": bench.of, "seconds": time.perf_counter() - began}
    bench.save()


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Returns the settings that the options ask for."""
    if arguments.quick:
        return Settings(rounds=3, seconds=0.05, trials=6, tune_seconds=8, beside=False, starts=1)
    given: Mapping[str, Any] = {
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "trials": arguments.trials,
        "tune_seconds": arguments.tune_seconds,
        "large_batch": arguments.large_batch,
        "beside": not arguments.no_beside,
    }
    return Settings(**{key: value for key, value in given.items() if value is not None})


def measure(bench: Bench, entries: Sequence[Entry]) -> None:
    """Measures all networks."""
    for number, entry in enumerate(entries):
        network, facts = entry.write(folder_of(bench.work, entry))
        bench.record(entry.name).update(facts)
        if number == 0 and bench.settings.beside:
            first_compile(bench, network)
        for batch in bench.settings.batches(entry):
            compiled(bench, entry, network, batch)
            resident(bench, entry, network, batch)
        started(bench, entry, network)
        for batch in bench.settings.batches(entry):
            for threads in bench.settings.threads:
                latency(bench, entry, network, batch, threads)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="run directory of the FermiNets")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="networks whose names contain one of these")
    parser.add_argument("--quick", action="store_true", help="three networks, short bursts, little tuning: a look")
    parser.add_argument("--rounds", type=int, help="rounds of bursts (default 5)")
    parser.add_argument("--seconds", type=float, help="length of a burst (default 0.15)")
    parser.add_argument("--trials", type=int, help="schedules tried for each kernel (default 24)")
    parser.add_argument("--tune-seconds", type=int, help="tuning of a network at most, all batches (default 60)")
    parser.add_argument("--large-batch", type=int, help="the larger batch at 224x224 (default 8)")
    parser.add_argument("--no-beside", action="store_true", help="leave PyTorch and untuned TVM out")
    parser.add_argument("--again", action="store_true", help="measure what is stored anew")
    parser.add_argument("--print", action="store_true", dest="only_print", help="only print what is stored")
    parser.add_argument("--work", type=Path, default=Path("build/bench-compile"), help="for artifacts and records")
    parser.add_argument("--json", type=Path, metavar="OUT", help="stores the figures (default: in --work)")
    arguments = parser.parse_args()
    settings = settings_of(arguments)
    of = digest(settings)
    work = (arguments.work / of).resolve()
    work.mkdir(parents=True, exist_ok=True)
    store: Path = arguments.json or arguments.work / ("quick.json" if arguments.quick else "compile_speed.json")
    found = loaded(store)
    if not arguments.only_print:
        only = arguments.only or (["ResNet-20", "SqueezeNet", "MobileNet v2"] if arguments.quick else None)
        entries = choose(only, arguments.demo)
        if arguments.quick and arguments.only is None:
            entries = tuple(entry for entry in entries if entry.group == "32x32")
        if arguments.again:
            for entry in entries:
                found["networks"].pop(entry.name, None)
                shutil.rmtree(folder_of(work, entry), ignore_errors=True)
        found |= {
            "machine": machine(),
            "versions": {name: version(name) for name in LIBRARIES},
            "settings": asdict(settings),
        }
        with running(Bench(settings, work, store, found, of)) as bench:
            measure(bench, entries)
        if arguments.only is None:  # what is no longer measured
            names = {entry.name for entry in entries}
            found["networks"] = {name: each for name, each in found["networks"].items() if name in names}
            bench.save()
    for figure in speed_figures(found):
        print_table(figure.title, figure.columns, figure.rows, "\n".join(figure.notes))
    print(f"figures: {store}")


if __name__ == "__main__":
    main()
