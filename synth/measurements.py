"""Measurements: a CSV of networks and what they took on a device, and the calibration of the device to them.

`network` is the path of a `.gsir` or `.onnx` file (from the CSV's folder or the current one), an artifact's folder, a
prototype with its arguments (`resnet depth=18 dataset=imagenet`), or the text of a NAS-Bench-201 architecture.
`latency_ms` and `energy_mj` are of one run of the batch; one of them may be empty. `batch` is 1 where it is empty, and
`precision`, `power_mode` and `runtime` are the device's first; a runtime that the device lacks is added. Networks of
one `family` are held out together; where it is empty it is the prototype's name, or the graph's without digits.

Other columns are left alone, so what `gensynth measure --csv` writes is read as it is.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from gensynth.ir import DataError, GenSynthError, Graph, UsageError, load_network, nearest
from gensynth.passes.cost import Condition, Device, Lowering, device_names, load_device
from gensynth.passes.cost.calibration import (
    FRESH,
    Calibration,
    Measured,
    calibrate,
    known_devices_prior,
    nearest_device,
)
from gensynth.passes.cost.fitting import Prior

from .prototypes import parse_arguments, prototype

__all__ = ["COLUMNS", "calibrate_device", "read_measurements"]

COLUMNS = ("network", "latency_ms", "energy_mj", "batch", "precision", "power_mode", "runtime", "family")

UNKNOWN_CLOCKS = "clocks unknown: all alike here, and factors fitted; put yours here"
"""The source of power modes that only measurements name."""

_PRECISIONS = {"float32": "fp32", "f32": "fp32", "single": "fp32", "float16": "fp16", "f16": "fp16", "half": "fp16"}


def calibrate_device(
    path: str | os.PathLike[str],
    device: str,
    *,
    like: str | None = None,
    known: Sequence[str] = (),
    lowering: Lowering | None = None,
    data: str | None = None,
    on_progress: Callable[[str], None] = lambda text: None,
) -> Calibration:
    """Returns a device calibrated to the measurements of a CSV file.

    `device` is a device's name or file; a name that is new becomes a device like `like`, or like that of the known ones
    with which the measurements agree best. From three or more `known` devices (names or files), calibrated before, it
    is learned how coefficients vary from device to device. `data` is what the device file says of the measurements.

    Raises:
        UsageError: a device is not to be had, or the file cannot be read.
        DataError: something in it is wrong; the message says the line and how to mend it.
    """
    if 0 < len(known) < 3:
        raise UsageError(
            f"{len(known)} known device{'s' * (len(known) > 1)} tell nothing of how devices vary",
            hint="name three or more, or leave them out",
        )
    others = [load_device(name) for name in known]
    start, prior, measured = _start(path, device, like, others, on_progress)
    if others:
        prior = known_devices_prior(others, prior or FRESH)
    return calibrate(
        start,
        measured,
        prior=prior,
        lowering=lowering,
        data=data or Path(path).name,
        on_progress=on_progress,
    )


def _start(
    path: str | os.PathLike[str],
    name: str,
    like: str | None,
    others: Sequence[Device],
    on_progress: Callable[[str], None],
) -> tuple[Device, Prior | None, list[Measured]]:
    """Returns the device to start from, what is believed of it, and the measurements."""
    if name.endswith(".toml") or name in device_names():
        if like is not None:
            raise UsageError(f"{name} is a device already, so it starts from itself", hint="leave --like out")
        found = load_device(name)
        return found, None, read_measurements(path, found)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UsageError(f"'{name}' is no name of a device", hint="letters, digits, '-' and '_'; or a .toml file")
    rows = _rows(Path(path))
    modes = list(dict.fromkeys(mode for _, row in rows if (mode := (row.get("power_mode") or "").strip())))
    if like is not None:
        new = _like(load_device(like), name, path, modes)
        return new, _belief(new), read_measurements(path, new)
    fitting: list[Device] = []
    problem: GenSynthError | None = None
    for candidate in [*others, *(load_device(item) for item in device_names())]:
        new = _like(candidate, name, path, modes)
        try:
            for number, row in rows:
                _told(Path(path), number, partial(_condition, row, new))
        except DataError as error:
            problem = error
        else:
            fitting.append(new)
    if not fitting:
        assert problem is not None
        raise problem
    on_progress(f"'{name}' is new: looking for the device it is most like")
    best, _ = nearest_device(fitting, read_measurements(path, fitting[0], at_most=60))
    on_progress(best.description)
    return best, _belief(best), read_measurements(path, best)


def _like(base: Device, name: str, path: str | os.PathLike[str], modes: Sequence[str]) -> Device:
    """Returns a new device that starts from another; with power modes that this one lacks, their clocks are unknown."""
    note = f"as {base.name}'s; put yours here"
    sources = {"peak_bandwidth": note, "cache": note, "precisions": note, "power_modes": note}
    coefficients = base.coefficients
    power_modes = base.power_modes
    if any(_spelled(mode, power_modes) not in power_modes for mode in modes):
        usual = next(iter(power_modes.values()))
        power_modes = dict.fromkeys(modes, usual)
        coefficients = {key: value for key, value in coefficients.items() if not key.startswith("mode.")}
        sources["power_modes"] = UNKNOWN_CLOCKS
    return dataclasses.replace(
        base,
        name=name,
        description=f"calibrated from {Path(path).name}, starting from {base.name}",
        power_modes=power_modes,
        coefficients=coefficients,
        evidence={},
        seen={},
        networks_seen={},
        sources=sources,
    )


def _belief(new: Device) -> Prior:
    """Returns what is believed of a new device: next to nothing of clocks that nobody has told."""
    return dataclasses.replace(FRESH, clocks=0.5) if new.sources["power_modes"] == UNKNOWN_CLOCKS else FRESH


def read_measurements(path: str | os.PathLike[str], device: Device, *, at_most: int | None = None) -> list[Measured]:
    """Returns the measurements of a CSV file under conditions of a device; the first `at_most` of them.

    Raises:
        UsageError: the file cannot be read.
        DataError: something in it is wrong; the message says the line and how to mend it.
    """
    place = Path(path)
    networks = _Networks(place.parent)
    return [_told(place, number, partial(_measured, row, device, networks)) for number, row in _rows(place)[:at_most]]


T = TypeVar("T")


def _told(path: Path, number: int, read: Callable[[], T]) -> T:
    """Returns what is read of a line; a fault is told with the line."""
    try:
        return read()
    except GenSynthError as error:
        raise DataError(f"{path}, line {number}: {error.message}", hint=error.hint) from None


def _rows(path: Path) -> list[tuple[int, dict[str, str | None]]]:
    """Returns the lines of a CSV of measurements by column, with their numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            _check_columns(path, columns)
            rows = [(reader.line_num, dict(row)) for row in reader]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="give the path of a CSV file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text: byte {error.start} is not UTF-8", hint="save it as UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path} is no CSV: {error}", hint="save it with commas between columns") from None
    if not rows:
        raise DataError(f"{path} holds no measurements", hint="write a line for each network measured")
    return rows


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if "network" not in columns:
        raise DataError(
            f"{path} has no column 'network'", hint=nearest("network", columns, what="its columns") if columns else None
        )
    if "latency_ms" not in columns and "energy_mj" not in columns:
        raise DataError(
            f"{path} has neither a column 'latency_ms' nor 'energy_mj'", hint=f"its columns: {', '.join(columns)}"
        )


def _text(row: Mapping[str, str | None], column: str) -> str:
    return (row.get(column) or "").strip()


def _condition(row: Mapping[str, str | None], device: Device) -> Condition:
    batch = _text(row, "batch") or "1"
    if not batch.isdecimal() or int(batch) < 1:
        raise UsageError(f"batch is '{batch}'", hint="give a whole number of at least 1")
    precision = _text(row, "precision").lower()
    mode = _spelled(_text(row, "power_mode"), device.power_modes)
    if mode is not None and mode not in device.power_modes:
        raise UsageError(
            f"{device.name} has no power mode '{mode}'",
            hint=f"it has {', '.join(device.power_modes)}; or add [power_modes.{mode}], with its clocks, to its file",
        )
    found = device.condition(_spelled(_PRECISIONS.get(precision, precision), device.precisions), mode, None, int(batch))
    runtime = _spelled(_text(row, "runtime"), device.runtimes) or found.runtime
    if not re.fullmatch(r"[\w-]+", runtime):
        raise UsageError(f"runtime is '{runtime}'", hint="letters, digits, '-' and '_'")
    return dataclasses.replace(found, runtime=runtime)


def _measured(row: Mapping[str, str | None], device: Device, networks: _Networks) -> Measured:
    latency, energy = (_positive(column, _text(row, column)) for column in ("latency_ms", "energy_mj"))
    if latency is None and energy is None:
        raise UsageError("neither latency_ms nor energy_mj is there", hint="give at least one of the two")
    network = _text(row, "network")
    if not network:
        raise UsageError("the network is missing", hint=_FORMS)
    condition = _condition(row, device)
    graph, family = networks.find(network)
    return Measured(graph, condition, latency, energy, network, _text(row, "family") or family)


def _spelled(text: str, known: Iterable[str]) -> str | None:
    """Returns a word as the device file spells it, whatever its case and hyphens; None for the empty text."""

    def plain(word: str) -> str:
        return re.sub(r"[^a-z0-9]", "", word.lower())

    return next((word for word in known if plain(word) == plain(text)), text) if text else None


_FORMS = (
    "a .gsir or .onnx file, a prototype such as 'resnet depth=18 dataset=imagenet', or a NAS-Bench-201 architecture"
)


def _positive(column: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{column} is '{text}'", hint="give a number, or leave it empty") from None
    if not math.isfinite(value) or value <= 0:
        raise UsageError(f"{column} is {text}", hint="give a number above zero, or leave it empty")
    return value


class _Networks:
    """Networks by what a CSV calls them, each read or built once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[str, tuple[Graph, str]] = {}

    def find(self, text: str) -> tuple[Graph, str]:
        """Returns a network and its family."""
        known = self.found.get(text)
        if known is None:
            known = self.found[text] = self._find(text)
        return known

    def _find(self, text: str) -> tuple[Graph, str]:
        if text.startswith("|"):
            return prototype("nas-bench-201", arch=text).graph, "nas-bench-201"
        if text.endswith((".gsir", ".onnx")) or (self._path(text) / "network.gsir").exists():
            graph = self._read(self._path(text))
            return graph, re.sub(r"[\d_]+$", "", graph.name) or graph.name
        try:
            name, *arguments = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"cannot read the network '{text}': {error}", hint=_FORMS) from None
        return prototype(name, **parse_arguments(name, arguments)).graph, name

    def _path(self, text: str) -> Path:
        beside = self.folder / text
        return beside if beside.exists() else Path(text)

    def _read(self, path: Path) -> Graph:
        if path.is_dir():
            path = path / "network.gsir"
        if path.suffix == ".onnx":
            from gensynth.backends.onnx import import_onnx

            return import_onnx(path).graph
        return load_network(path).graph
