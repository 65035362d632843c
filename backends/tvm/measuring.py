"""Measuring artifacts: on this machine, on a board that is reached by ssh, and over TVM RPC; one line of CSV each."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from gensynth.ir import DataError, GenSynthError, UsageError, write_atomically

from .artifact import SOURCE, archive_of, missing_features, open_artifact, verify
from .host import host_architecture
from .manifest import Manifest

__all__ = [
    "COLUMNS",
    "Measurement",
    "append_csv",
    "board_commands",
    "board_result",
    "csv_text",
    "measure_here",
    "measure_over_rpc",
]


@dataclass(frozen=True)
class Measurement:
    """One line of the CSV that `gensynth calibrate` reads; times in milliseconds.

    `network` is the artifact's network.gsir, or the artifact where that was left out. `latency_ms` is the median over
    the repetitions of a whole batch. `precision` is fp32 or fp16, `device` the target. `energy_mj` stays empty.
    """

    network: str
    latency_ms: float
    energy_mj: float | None
    batch: int
    precision: str
    power_mode: str
    runtime: str
    device: str
    threads: int
    repetitions: int
    mean_ms: float
    min_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    architecture_hash: str

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Returns the measurement by column."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS = tuple(field.name for field in fields(Measurement))

_WARM_UP = 10
_TIMES = ("p50", "mean", "min", "p90", "p95", "p99", "max")


# Here.


def measure_here(
    path: Path, *, threads: int = 0, repetitions: int = 100, power_mode: str = "", check: bool = True
) -> Measurement:
    """Runs an artifact on this machine by its own program `run`, and returns the times.

    `threads` of 0 are as many as there are processors. With `check` the artifact's own test comes first.

    Raises:
        UsageError: it is no artifact, or one for another machine.
        DataError: it is damaged.
        GenSynthError: it does not compute what it should, or cannot run.
    """
    with open_artifact(path) as folder:
        manifest = verify(folder)
        if manifest.architecture != host_architecture():
            raise UsageError(
                f"{path} is for {manifest.architecture} ({manifest.target}), this machine is {host_architecture()}",
                hint="without options, `gensynth measure` says what to type to measure it on its board",
            )
        lacking = missing_features(manifest)
        if lacking:
            raise UsageError(
                f"{path} needs a processor with {', '.join(lacking)}, which this machine has not",
                hint="compile for this machine: --target host",
            )
        if check:
            _run(folder, "--selftest")
        options = ["--bench", str(repetitions), "--json", *(["--threads", str(threads)] if threads else [])]
        return _measurement(_run(folder, *options), manifest, path, power_mode, f"{path}: run --bench")


def _run(folder: Path, *options: str) -> str:
    command = str((folder / "run").absolute())
    try:
        ran = subprocess.run([command, *options], capture_output=True, text=True, check=False)
    except OSError as error:
        raise GenSynthError(
            f"{folder}/run cannot be started: {error.strerror}", hint="is the folder mounted noexec?"
        ) from None
    if ran.returncode:
        told = (ran.stderr + ran.stdout).strip() or f"exit code {ran.returncode}"
        differs = ran.returncode == 1
        hint = (
            "this is a fault of GenSynth; report it with the network" if differs else "mend what it says, and try again"
        )
        raise GenSynthError(f"{folder}/run {options[0]} failed: {told}", hint=hint)
    return ran.stdout


def _measurement(text: str, manifest: Manifest, path: Path, power_mode: str, source: str) -> Measurement:
    """Reads what `run --bench N --json` printed.

    Raises:
        DataError: it is something else, or of another artifact.
    """
    hint = "it is what `./run --bench N --json` prints"
    try:
        found = json.loads(text)
        times = [float(found["latency_ms"][name]) for name in _TIMES]
        threads, repetitions, batch = (int(found[name]) for name in ("threads", "repetitions", "batch"))
        architecture, target = str(found["architecture_hash"]), str(found["target"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{source} holds no times: {error!r}", hint=hint) from None
    if not all(math.isfinite(time) and time > 0 for time in times):
        raise DataError(f"{source}: a time is not above zero: {times}", hint="measure again")
    if (architecture, target, batch) != (manifest.architecture_hash, manifest.target, manifest.batch):
        raise DataError(
            f"{source} is of architecture {architecture} for {target}, batch {batch}; {path} is"
            f" {manifest.architecture_hash} for {manifest.target}, batch {manifest.batch}",
            hint="give the times of this artifact",
        )
    return _row(manifest, path, power_mode, threads, repetitions, times)


def _row(
    manifest: Manifest, path: Path, power_mode: str, threads: int, repetitions: int, times: Sequence[float]
) -> Measurement:
    p50, mean, least, p90, p95, p99, most = times
    has_source = SOURCE in manifest.files and path.is_dir()
    return Measurement(
        network=str(path / SOURCE if has_source else path),
        latency_ms=p50,
        energy_mj=None,
        batch=manifest.batch,
        precision={"f32": "fp32", "f16": "fp16"}[manifest.dtype],
        power_mode=power_mode,
        runtime="gensynth",
        device=manifest.target,
        threads=threads,
        repetitions=repetitions,
        mean_ms=mean,
        min_ms=least,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        max_ms=most,
        architecture_hash=manifest.architecture_hash,
    )


# On a board, by ssh.


def board_commands(
    path: Path, *, board: str = "USER@BOARD", threads: int = 0, repetitions: int = 100, csv_path: str = "measured.csv"
) -> tuple[str, ...]:
    """Returns the three lines to type in order to measure an artifact on a board that ssh reaches."""
    archive = path if path.is_file() else archive_of(path)
    name = archive.name.removesuffix(".tar.gz")
    result = f"{name}.bench.json"
    bench = f"./run --bench {repetitions}{f' --threads {threads}' if threads else ''} --json"
    remote = f"tar xzf {shlex.quote(archive.name)} && cd {shlex.quote(name)} && ./run --selftest >&2 && {bench}"
    return (
        f"scp {shlex.quote(str(archive))} {board}:",
        f"ssh {board} {shlex.quote(remote)} > {shlex.quote(result)}",
        f"gensynth measure {shlex.quote(str(path))} --result {shlex.quote(result)} --csv {shlex.quote(csv_path)}",
    )


def board_result(path: Path, result: Path, *, power_mode: str = "") -> Measurement:
    """Returns the times of an artifact that its `run --bench N --json` printed on a board, from a file.

    Raises:
        UsageError: the path is no artifact, or the file cannot be read.
        DataError: the file holds no times, or those of another artifact.
    """
    try:
        text = result.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot read {result}: {error.strerror}", hint="`gensynth measure DIR` says how to get it from the board"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{result} is no text: byte {error.start} is not UTF-8", hint="measure again") from None
    with open_artifact(path) as folder:
        return _measurement(text, verify(folder, all_files=False), path, power_mode, str(result))


# Over TVM RPC.


def measure_over_rpc(
    path: Path, host: str, port: int, *, threads: int = 0, repetitions: int = 100, power_mode: str = ""
) -> Measurement:
    """Uploads an artifact to a TVM RPC server, runs it there, and returns the times.

    The server is TVM's own (`python -m tvm.exec.rpc_server`); libnetwork.so has functions that it can call.

    Raises:
        UsageError: there is no such server, it is another machine than the artifact's, or the path is no artifact.
        DataError: the artifact is damaged.
        GenSynthError: the network cannot run there.
    """
    with open_artifact(path) as folder:
        manifest = verify(folder)
        command = [sys.executable, "-m", "gensynth.backends.tvm.remote", host, str(port)]
        command += [str(folder), str(threads), str(repetitions), str(_WARM_UP)]
        # A process of its own: TVM's client cannot be told to give up waiting, nor to leave a server.
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    told = ran.stdout.splitlines()[-1:] or ["{}"]
    found = json.loads(told[0])
    if "problem" in found:
        error = UsageError if found["user"] else GenSynthError
        raise error(f"{host}:{port} {found['problem']}", hint=found["hint"])
    if ran.returncode:
        raise GenSynthError(f"the RPC client failed: {ran.stderr.strip()[-2000:]}", hint="see the server's log")
    times = _statistics(sorted(1e3 * seconds for seconds in found["seconds"]))
    return _row(manifest, path, power_mode, int(found["threads"]), repetitions, times)


def _statistics(ordered: Sequence[float]) -> list[float]:
    """Returns `_TIMES` of sorted times; a percentile is the least time that so many do not exceed, as in `run`."""

    def percentile(share: float) -> float:
        return ordered[max(1, math.ceil(share * len(ordered))) - 1]

    mean = math.fsum(ordered) / len(ordered)
    return [percentile(0.5), mean, ordered[0], percentile(0.9), percentile(0.95), percentile(0.99), ordered[-1]]


# CSV.


def csv_text(measurements: Sequence[Measurement], *, header: bool = True) -> str:
    """Returns measurements as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    for item in measurements:
        writer.writerow(["" if value is None else _shown(value) for value in item.as_dict().values()])
    return stream.getvalue()


def _shown(value: str | int | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def append_csv(path: str | os.PathLike[str], measurements: Sequence[Measurement]) -> None:
    """Adds measurements to a CSV file, which is made where it is not there.

    Raises:
        UsageError: the file has other columns, or cannot be read or written.
    """
    target = Path(path)
    try:
        before = target.read_text(encoding="utf-8") if target.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", hint="give a CSV file that `gensynth measure` wrote") from None
    if before and before.splitlines()[0] != ",".join(COLUMNS):
        raise UsageError(
            f"{path} has other columns than measurements",
            hint="give a file that `gensynth measure` wrote, or a new one",
        )
    if before and not before.endswith("\n"):
        before += "\n"
    write_atomically(target, (before + csv_text(measurements, header=not before)).encode())
