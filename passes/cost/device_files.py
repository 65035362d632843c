"""Device files: a device is a TOML file in `devices/`, or one of the user's; and the devices known by name."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gensynth.ir import UsageError, nearest, write_atomically
from gensynth.ir.plugins import load_plugins

from .device import (
    BY_KIND,
    COEFFICIENTS,
    OF_MODE,
    OF_PRECISION,
    Device,
    Evidence,
    PowerMode,
    Precision,
    Range,
    Runtime,
)
from .workload import KINDS, LOWERINGS, Lowering

__all__ = ["archetype", "device_names", "load_device", "register_device", "save_device"]

NEGLIGIBLE = 5e-4
"""A factor that differs from what is believed by less than this share is not written."""
_FILES = Path(__file__).parent / "devices"
_registered: dict[str, Device] = {}


def register_device(device: Device) -> Device:
    """Makes a device known by its name, and returns it; what an entry point of `gensynth.devices` is to do.

    Raises:
        UsageError: the name is taken by another device.
    """
    known = _registered.get(device.name)
    if device.name in _built_in() or (known is not None and known != device):
        raise UsageError(f"there is a device '{device.name}' already", hint="choose another name")
    _registered[device.name] = device
    return device


def _built_in() -> dict[str, Path]:
    return {path.stem: path for path in sorted(_FILES.glob("*.toml"))}


def device_names() -> tuple[str, ...]:
    """Returns the names that `load_device` knows."""
    load_plugins("gensynth.devices")
    return tuple(sorted({*_built_in(), *_registered}))


_read_before: dict[Path, tuple[str, Device]] = {}
"""What device files held when they were last read, and the devices that this made."""


def load_device(name: str | os.PathLike[str]) -> Device:
    """Returns a device by name, or from a file that ends in `.toml`; the same object while the file stays as it is.

    Raises:
        UsageError: there is no such device, or the file is none; the message says which key and why.
    """
    text = os.fspath(name)
    if text.endswith(".toml"):
        return _read(Path(text))
    files = _built_in()
    if text in files:
        return _read(files[text])
    if text not in device_names():
        known = nearest(text, device_names(), what="devices")
        raise UsageError(f"unknown device '{text}'", hint=f"{known}\nor give a device file (.toml)")
    return _registered[text]


# Reading.


def _read(path: Path) -> Device:
    try:
        text = path.read_text(encoding="utf-8")
        before = _read_before.get(path)
        if before is not None and before[0] == text:
            return before[1]
        table = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="give the path of a device file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text: byte {error.start} is not UTF-8", hint="give a device file") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}", hint="it is no TOML; mend it there") from None
    found = _device(_Table(table, str(path)), path.stem)
    _read_before[path] = text, found
    return found


@dataclass(frozen=True)
class _Table:
    """A table of a device file whose values are taken out by type."""

    values: Mapping[str, object]
    path: str
    prefix: str = ""

    def fault(self, key: str, what: str, hint: str) -> UsageError:
        return UsageError(f"{self.path}: '{self.prefix}{key}' {what}", hint=hint)

    def check(self, known: Iterable[str]) -> None:
        known = tuple(known)
        for key in self.values:
            if key not in known:
                raise self.fault(key, "is no key of a device", nearest(key, known, what="keys"))

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key, default)
        if value is None:
            raise self.fault(key, "is missing", "give a number above zero")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise self.fault(key, f"is {value!r}", "give a number above zero")
        return float(value)

    def optional(self, key: str) -> float | None:
        return self.number(key) if key in self.values else None

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.fault(key, "is missing" if value is None else f"is {value!r}", "give a text")
        return value

    def words(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self.values.get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.fault(key, f"is {value!r}", "give a list of words")
        return tuple(value)

    def truth(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.fault(key, f"is {value!r}", "give true or false")
        return value

    def pair(self, key: str) -> tuple[float, float]:
        value = self.values.get(key)
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in value)
        ):
            raise self.fault(key, f"is {value!r}", "give the least and the most, [1, 2]")
        return float(value[0]), float(value[1])

    def table(self, key: str) -> _Table:
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.fault(key, "is no table", f"write it as [{self.prefix}{key}]")
        return _Table(value, self.path, f"{self.prefix}{key}.")

    def tables(self, key: str) -> dict[str, _Table]:
        inside = self.table(key)
        for name in inside.values:
            if not re.fullmatch(r"[\w-]+", name):
                raise inside.fault(name, "is no name", "write letters, digits, '-' and '_'")
        return {name: inside.table(name) for name in inside.values}


_KEYS = (
    *("name", "description", "kind", "peak_bandwidth", "cache", "rails", "precisions", "power_modes", "runtimes"),
    *("coefficients", "evidence", "seen", "sources"),
)
_KIND_WORDS = ("gpu", "cpu", "accelerator")


def _device(table: _Table, name: str) -> Device:
    table.check(_KEYS)
    kind = table.text("kind")
    if kind not in _KIND_WORDS:
        raise table.fault("kind", f"is '{kind}'", f"write one of {', '.join(_KIND_WORDS)}")
    precisions, modes, runtimes = (table.tables(key) for key in ("precisions", "power_modes", "runtimes"))
    for key, found in (("precisions", precisions), ("power_modes", modes), ("runtimes", runtimes)):
        if not found:
            raise table.fault(key, "is missing", f"a device has at least one: write [{key}.NAME]")
    sources = table.table("sources")
    device = Device(
        name=table.text("name", name),
        description=table.text("description"),
        kind=kind,
        precisions={key: _precision(item) for key, item in precisions.items()},
        power_modes={key: _mode(item) for key, item in modes.items()},
        runtimes={key: _runtime(item) for key, item in runtimes.items()},
        peak_bandwidth=table.number("peak_bandwidth"),
        cache=int(table.number("cache")),
        coefficients={},
        rails=table.words("rails", ()),
        evidence=_evidence(table),
        seen={key: _ranges(item) for key, item in table.tables("seen").items()},
        networks_seen={
            key: item.pair("networks") for key, item in table.tables("seen").items() if "networks" in item.values
        },
        sources={key: sources.text(key) for key in sources.values},
    )
    given = _flat(table.table("coefficients"))
    _check_coefficients(device, given, table)
    return dataclasses.replace(device, coefficients={**archetype(device), **given})


def archetype(device: Device) -> dict[str, float]:
    """Returns the coefficients that are believed of a device of its kind and peaks before anything is measured.

    The rate of another precision than the first follows the peaks, the energy of a MAC the bytes of a number.
    """
    table = _Table(_archetypes(), "archetypes.toml").table(device.kind)
    found = _flat(table.table("coefficients"))
    name, first = next(iter(device.precisions.items()))
    found["rate"] = table.number("rate_share") * first.peak
    found["bandwidth"] = table.number("bandwidth_share") * device.peak_bandwidth
    for other, precision in device.precisions.items():
        if other != name:
            found[f"precision.{other}.rate"] = (precision.peak / first.peak) ** 0.85
            found[f"precision.{other}.mac"] = precision.bytes / first.bytes
    return found


@cache
def _archetypes() -> dict[str, object]:
    return tomllib.loads((Path(__file__).parent / "archetypes.toml").read_text(encoding="utf-8"))


def _precision(table: _Table) -> Precision:
    table.check(item.name for item in dataclasses.fields(Precision))
    return Precision(int(table.number("bytes")), table.number("peak"))


def _mode(table: _Table) -> PowerMode:
    table.check(item.name for item in dataclasses.fields(PowerMode))
    return PowerMode(table.number("clock"), table.number("memory_clock"))


def _runtime(table: _Table) -> Runtime:
    table.check(("lowering", "description"))
    value = table.values.get("lowering")
    if isinstance(value, str):
        if value not in LOWERINGS:
            raise table.fault("lowering", f"is '{value}'", nearest(value, LOWERINGS, what="lowerings"))
        return Runtime(LOWERINGS[value], table.text("description", ""))
    inside = table.table("lowering")
    inside.check(item.name for item in dataclasses.fields(Lowering))
    usual = Lowering()
    try:
        lowering = Lowering(
            inside.words("joins", usual.joins),
            inside.words("free", usual.free),
            inside.text("zeros", usual.zeros),
            inside.truth("equal_pools_merged", usual.equal_pools_merged),
        )
    except UsageError as error:
        raise table.fault("lowering", error.message, error.hint or "") from None
    return Runtime(lowering, table.text("description", ""))


def _flat(table: _Table) -> dict[str, float]:
    """Returns nested tables as dotted names; `all` stands for the table itself: `launch.all` is `launch`."""
    found: dict[str, float] = {}
    for key, value in table.values.items():
        if isinstance(value, dict):
            for name, number in _flat(table.table(key)).items():
                found[key if name == "all" else f"{key}.{name}"] = number
        else:
            found[key] = table.number(key)
    return found


def _evidence(table: _Table) -> dict[tuple[str, str], Evidence]:
    found = {}
    for runtime, inside in table.tables("evidence").items():
        inside.check(("latency", "energy"))
        for quantity in inside.values:
            item = inside.table(quantity)
            item.check(field.name for field in dataclasses.fields(Evidence))
            found[runtime, quantity] = Evidence(
                item.text("data"),
                int(item.number("rows")),
                int(item.number("networks")),
                item.number("within"),
                item.number("interval"),
                item.optional("beyond"),
                item.optional("interval_beyond"),
                item.number("at", 1.0),
                item.number("slope", 1e-9),
            )
    return found


def _ranges(table: _Table) -> dict[str, Range]:
    found = {}
    for kind in table.values:
        if kind == "networks":
            continue
        if kind not in KINDS:
            raise table.fault(kind, "is no kind of kernel", nearest(kind, KINDS, what="kinds"))
        item = table.table(kind)
        item.check(field.name for field in dataclasses.fields(Range))
        found[kind] = Range(item.pair("macs"), item.pair("elements"), item.pair("outputs"))
    return found


def _check_coefficients(device: Device, given: Iterable[str], table: _Table) -> None:
    for name in given:
        reason = _unknown(device, name.split("."))
        if reason is not None:
            raise table.table("coefficients").fault(name, "is no coefficient", reason)


def _unknown(device: Device, parts: list[str]) -> str | None:
    """Returns what is wrong with the name of a coefficient, or None."""
    head, rest = parts[0], parts[1:]
    if head in ("precision", "mode", "runtime") and len(rest) >= 2:
        known = {"precision": device.precisions, "mode": device.power_modes, "runtime": device.runtimes}[head]
        if rest[0] not in known:
            return nearest(rest[0], known, what=f"{head}s of the device")
        if head == "runtime":
            return _unknown(device, rest[1:])
        words = OF_PRECISION if head == "precision" else OF_MODE
        return None if len(rest) == 2 and rest[1] in words else f"a {head} has {', '.join(words)}"
    if head not in COEFFICIENTS:
        return nearest(head, [*COEFFICIENTS, "precision", "mode", "runtime"], what="coefficients")
    if not rest:
        return None
    if head not in BY_KIND or len(rest) != 1:
        return f"{head} does not depend on the kind of kernel"
    return None if rest[0] in KINDS else nearest(rest[0], KINDS, what="kinds of kernels")


# Writing.


def save_device(device: Device, path: str | os.PathLike[str]) -> None:
    """Writes a device file, which `load_device` reads back as an equal device, figures rounded to 6 digits.

    Coefficients that are, to `NEGLIGIBLE`, what is believed without them are left out.

    Raises:
        UsageError: it cannot be written.
    """
    import tomli_w

    try:
        write_atomically(Path(path), tomli_w.dumps(_as_table(device)).encode())
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", hint="give a path that can be written") from None


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _as_table(device: Device) -> dict[str, object]:
    coefficients: dict[str, object] = {}
    believed = archetype(device)
    told = {
        name: value
        for name, value in device.coefficients.items()
        if name in COEFFICIENTS or abs(value / believed.get(name, 1.0) - 1.0) > NEGLIGIBLE or name.startswith("mode.")
    }
    for name, value in told.items():
        at: dict[str, object] = coefficients
        *path, last = name.split(".")
        if any(other.startswith(f"{name}.") for other in told):
            path, last = [*path, last], "all"
        for part in path:
            inner = at.setdefault(part, {})
            assert isinstance(inner, dict)
            at = inner
        at[last] = _rounded(value)
    evidence: dict[str, dict[str, object]] = {}
    for (runtime, quantity), item in device.evidence.items():
        evidence.setdefault(runtime, {})[quantity] = {
            key: _rounded(value) if isinstance(value, float) else value
            for key, value in dataclasses.asdict(item).items()
            if value is not None
        }
    seen: dict[str, object] = {}
    for runtime, ranges in device.seen.items():
        inside: dict[str, object] = {}
        if runtime in device.networks_seen:
            inside["networks"] = [_rounded(value) for value in device.networks_seen[runtime]]
        for kind, sizes in ranges.items():
            inside[kind] = {key: [_rounded(value) for value in pair] for key, pair in dataclasses.asdict(sizes).items()}
        seen[runtime] = inside
    return {
        "name": device.name,
        "description": device.description,
        "kind": device.kind,
        "peak_bandwidth": device.peak_bandwidth,
        "cache": device.cache,
        "rails": list(device.rails),
        "precisions": {key: dataclasses.asdict(item) for key, item in device.precisions.items()},
        "power_modes": {key: dataclasses.asdict(item) for key, item in device.power_modes.items()},
        "runtimes": {
            key: {"lowering": item.lowering.name or _lowering_table(item.lowering), "description": item.description}
            for key, item in device.runtimes.items()
        },
        "coefficients": coefficients,
        "evidence": evidence,
        "seen": seen,
        "sources": dict(device.sources),
    }


def _lowering_table(lowering: Lowering) -> dict[str, object]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(lowering).items()}
