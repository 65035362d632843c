"""Measuring artifacts: on this machine, on a board that is reached by ssh, and over TVM RPC; one line of CSV each.

Energy is measured by `gensynth_energy.py`, which lies in each artifact, so that a board can do it.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from gensynth.ir import DataError, GenSynthError, UsageError, write_atomically

from .artifact import SOURCE, archive_of, missing_features, open_artifact, verify
from .host import host_architecture
from .manifest import Manifest
from .runtime.gensynth_energy import EnergyError, Settings, artifact_load, csv_with
from .runtime.gensynth_energy import measure as measure_energy

__all__ = [
    "COLUMNS",
    "Measurement",
    "Settings",
    "append_csv",
    "board_commands",
    "board_result",
    "check_csv",
    "csv_text",
    "measure_here",
    "measure_over_rpc",
]


@dataclass(frozen=True)
class Measurement:
    """One line of the CSV that `gensynth calibrate` reads; times in milliseconds.

    `network` is the artifact's network.gsir, or the artifact where that was left out. `latency_ms` is the median over
    the repetitions of a whole batch. `precision` is fp32 or fp16, `device` the target.

    Energies are in millijoules for a whole batch and None where they were not measured: `energy_mj` is all that the
    machine took by its `rails`, with its standard error `energy_se_mj`, `energy_above_idle_mj` what it took beyond
    `idle_w`, its power in watts when idle.
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
    energy_se_mj: float | None = None
    energy_above_idle_mj: float | None = None
    idle_w: float | None = None
    rails: str = ""

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Returns the measurement by column."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS = tuple(field.name for field in fields(Measurement))

_WARM_UP = 10
_TIMES = ("p50", "mean", "min", "p90", "p95", "p99", "max")


# Here.


def measure_here(
    path: Path,
    *,
    threads: int = 0,
    repetitions: int = 100,
    power_mode: str = "",
    check: bool = True,
    energy: Settings | None = None,
    tell: Callable[[str], None] | None = None,
) -> Measurement:
    """Runs an artifact on this machine by its own program `run`, and returns the times.

    `threads` of 0 are as many as there are processors. With `check` the artifact's own test comes first. With `energy`
    it is run by its library, as often as these settings say, and its energy is measured as well; `tell` is then told
    what goes on, and what speaks against the figures.

    Raises:
        UsageError: it is no artifact, or one for another machine, or there is no power sensor that can be read.
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
        if energy is not None:
            return _measurement(_with_energy(folder, threads, energy, tell), manifest, path, power_mode, str(path))
        options = ["--bench", str(repetitions), "--json", *(["--threads", str(threads)] if threads else [])]
        source = f"{path}: run --bench"
        return _measurement(_read(_run(folder, *options), source), manifest, path, power_mode, source)


def _with_energy(
    folder: Path, threads: int, settings: Settings, tell: Callable[[str], None] | None
) -> dict[str, object]:
    try:
        found: dict[str, object] = measure_energy(artifact_load(folder, threads), settings, tell=tell)
    except EnergyError as error:
        raise UsageError(error.message, hint=error.hint or "`python3 gensynth_energy.py --list` shows rails") from None
    if tell is not None:
        for note in cast("dict[str, list[str]]", found["energy"])["notes"]:
            tell(f"note: {note}")
    return found


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


_HINT = "it is what `./run --bench N --json` prints, or `gensynth_energy.py --json`"


def _read(text: str, source: str) -> dict[str, object]:
    """Reads what `run --bench N --json` printed, or the sampler of energy.

    Raises:
        DataError: it is something else.
    """
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{source} holds no times: {error!r}", hint=_HINT) from None


def _measurement(found: Mapping[str, Any], manifest: Manifest, path: Path, power_mode: str, source: str) -> Measurement:
    """Returns the measurement that was printed.

    Raises:
        DataError: it holds something else, or is of another artifact.
    """
    try:
        times = [float(found["latency_ms"][name]) for name in _TIMES]
        threads, repetitions, batch = (int(found[name]) for name in ("threads", "repetitions", "batch"))
        architecture, target = str(found["architecture_hash"]), str(found["target"])
        energies = _energies(found["energy"]) if "energy" in found else {}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{source} holds no times: {error!r}", hint=_HINT) from None
    if not all(math.isfinite(time) and time > 0 for time in times):
        raise DataError(f"{source}: a time is not above zero: {times}", hint="measure again")
    if (architecture, target, batch) != (manifest.architecture_hash, manifest.target, manifest.batch):
        raise DataError(
            f"{source} is of architecture {architecture} for {target}, batch {batch}; {path} is"
            f" {manifest.architecture_hash} for {manifest.target}, batch {manifest.batch}",
            hint="give the times of this artifact",
        )
    mode = power_mode or str(found.get("power_mode", ""))
    return replace(_row(manifest, path, mode, threads, repetitions, times), **energies)


def _energies(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the columns that tell of energy.

    Raises:
        KeyError, ValueError, TypeError: one is not there, or no energy.
    """
    values = {name: found[name] for name in ("energy_mj", "energy_se_mj", "energy_above_idle_mj", "idle_w")}
    numbers = {name: None if value is None else float(value) for name, value in values.items()}
    sound = all(value is None or math.isfinite(value) for value in numbers.values())
    if not sound or (numbers["energy_mj"] or 0) <= 0:
        raise ValueError(f"an energy is not above zero: {values}")
    return {**numbers, "rails": str(found["rails"])}


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
    path: Path,
    *,
    board: str = "USER@BOARD",
    threads: int = 0,
    repetitions: int = 100,
    csv_path: str = "measured.csv",
    energy: Settings | None = None,
) -> tuple[str, ...]:
    """Returns the three lines to type in order to measure an artifact on a board that ssh reaches.

    With `energy` the board measures its energy as well, by these settings.
    """
    archive = path if path.is_file() else archive_of(path)
    name = archive.name.removesuffix(".tar.gz")
    result = f"{name}.{'bench' if energy is None else 'energy'}.json"
    bench = f"./run --bench {repetitions}{f' --threads {threads}' if threads else ''} --json"
    if energy is not None:
        bench = shlex.join(["python3", "gensynth_energy.py", ".", *_options(energy, threads), "--json"])
    remote = f"tar xzf {shlex.quote(archive.name)} && cd {shlex.quote(name)} && ./run --selftest >&2 && {bench}"
    return (
        f"scp {shlex.quote(str(archive))} {board}:",
        f"ssh {board} {shlex.quote(remote)} > {shlex.quote(result)}",
        f"gensynth measure {shlex.quote(str(path))} --result {shlex.quote(result)} --csv {shlex.quote(csv_path)}",
    )


def _options(settings: Settings, threads: int) -> list[str]:
    """Returns the options of gensynth_energy.py for these settings."""
    found = []
    for name, value in settings._asdict().items():
        if value != Settings._field_defaults[name]:
            shown = ",".join(value) if name == "rails" else f"{value:g}"
            found += [f"--{name.replace('_', '-')}", shown]
    return [*found, *(["--threads", str(threads)] if threads else [])]


def board_result(path: Path, result: Path, *, power_mode: str = "", energy: bool = False) -> Measurement:
    """Returns what was measured of an artifact on a board, from a file.

    The file is what its `run --bench N --json` printed there, or `gensynth_energy.py --json`; with `energy` it must be
    the latter.

    Raises:
        UsageError: the path is no artifact, the file cannot be read, or lacks the energy.
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
    found = _read(text, str(result))
    with open_artifact(path) as folder:
        measured = _measurement(found, verify(folder, all_files=False), path, power_mode, str(result))
    if energy and measured.energy_mj is None:
        raise UsageError(f"{result} holds no energy", hint="`gensynth measure DIR --board USER@HOST --energy` says how")
    return measured


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


def csv_text(measurements: Sequence[Measurement]) -> str:
    """Returns measurements as CSV."""
    return csv_with("", [item.as_dict() for item in measurements])


def append_csv(path: str | os.PathLike[str], measurements: Sequence[Measurement]) -> None:
    """Adds measurements to a CSV file, which is made where it is not there.

    A file from before there was energy gets the new columns.

    Raises:
        UsageError: the file has other columns, or cannot be read or written.
    """
    write_atomically(Path(path), _added(path, measurements).encode())


def check_csv(path: str | os.PathLike[str]) -> None:
    """Looks whether measurements can be added to a file, before they are made.

    Raises:
        UsageError: the file has other columns, or cannot be read.
    """
    _added(path, [])


def _added(path: str | os.PathLike[str], measurements: Sequence[Measurement]) -> str:
    target = Path(path)
    try:
        before = target.read_bytes().decode("utf-8") if target.exists() else ""
        return csv_with(before, [item.as_dict() for item in measurements])
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", hint="give a CSV file that `gensynth measure` wrote") from None
    except EnergyError:
        raise UsageError(
            f"{path} has other columns than measurements",
            hint="give a file that `gensynth measure` wrote, or a new one",
        ) from None
