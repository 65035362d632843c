"""The command `devices`: the devices there are, or all that is known of one."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .command import Command
from .files import print_json
from .output import print_table

if TYPE_CHECKING:
    from gensynth.passes.cost import Device, Lowering

__all__ = ["COMMANDS"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="tell all about this one, or about a device file (.toml)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON: a list of objects, or the one asked for")


def _devices(arguments: argparse.Namespace) -> int:
    from gensynth.passes.cost import device_names, load_device

    if arguments.name is not None:
        device = load_device(arguments.name)
        if arguments.json:
            print_json(_as_json(device))
        else:
            _tell(device)
        return 0
    found = [load_device(name) for name in device_names()]
    if arguments.json:
        print_json([_as_json(device) for device in found])
        return 0
    print_table(
        ["device", "kind", "precisions", "power modes", "runtimes", "description"],
        [
            [
                device.name,
                device.kind,
                ",".join(device.precisions),
                ",".join(device.power_modes),
                ",".join(device.runtimes),
                device.description,
            ]
            for device in found
        ],
    )
    return 0


def _as_json(device: Device) -> dict[str, object]:
    evidence: dict[str, dict[str, object]] = {}
    for (runtime, quantity), item in device.evidence.items():
        evidence.setdefault(runtime, {})[quantity] = dataclasses.asdict(item)
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
            key: {
                "description": item.description,
                "lowering": item.lowering.name,
                **dataclasses.asdict(item.lowering),
            }
            for key, item in device.runtimes.items()
        },
        "coefficients": dict(device.coefficients),
        "evidence": evidence,
        "seen": {
            runtime: {kind: dataclasses.asdict(item) for kind, item in ranges.items()}
            for runtime, ranges in device.seen.items()
        },
        "networks_seen": {runtime: list(item) for runtime, item in device.networks_seen.items()},
        "sources": dict(device.sources),
    }


def _place(name: str) -> tuple[int, str]:
    """Orders coefficients: as they are declared, and below each its ratios."""
    from gensynth.passes.cost.device import COEFFICIENTS

    order = [*COEFFICIENTS, "precision", "mode", "runtime"]
    head = name.partition(".")[0]
    return (order.index(head) if head in order else len(order)), name


def _tell(device: Device) -> None:
    from gensynth.passes.cost.device_files import archetype

    print(f"{device.name}\n\n{device.description}\n")
    figures = _figures(device)
    print_table(["figure", "value", "from"], [[name, value, _source(name, device.sources)] for name, value in figures])
    for key, source in device.sources.items():
        if not any(f"{name}.".startswith(f"{key}.") for name, _ in figures):
            print(f"{key}: {source}")
    print()
    print_table(
        ["runtime", "lowering", "description"],
        [
            [name, item.lowering.name or _spelt(item.lowering), item.description]
            for name, item in device.runtimes.items()
        ],
    )
    print()
    prior = archetype(device)
    print_table(
        ["coefficient", ">value", "from", "unit"],
        [
            [name, f"{value:.6g}", "prior" if prior.get(name) == value else "file", _unit(name)]
            for name, value in sorted(device.coefficients.items(), key=lambda item: _place(item[0]))
        ],
    )
    print("prior: what is believed of a device of its kind and peaks; file: what the device says, as a fit gives it")
    _tell_evidence(device)
    _tell_seen(device)


def _figures(device: Device) -> list[tuple[str, str]]:
    """Returns the figures of the hardware as (name as in a device file, value with its unit)."""
    rows = [
        ("kind", device.kind),
        ("peak_bandwidth", f"{device.peak_bandwidth:g} GB/s"),
        ("cache", f"{device.cache:,} bytes"),
    ]
    if device.rails:
        rows.append(("rails", ", ".join(device.rails)))
    for name, precision in device.precisions.items():
        rows.append((f"precisions.{name}.bytes", f"{precision.bytes}"))
        rows.append((f"precisions.{name}.peak", f"{precision.peak:g} GMAC/s"))
    for name, mode in device.power_modes.items():
        rows.append((f"power_modes.{name}.clock", f"{mode.clock:g} GHz"))
        rows.append((f"power_modes.{name}.memory_clock", f"{mode.memory_clock:g} GHz"))
    return rows


def _source(name: str, sources: Mapping[str, str]) -> str:
    """Returns where a figure is from: what is told of it, or else of the table that it stands in."""
    while name:
        if name in sources:
            return sources[name]
        name = name.rpartition(".")[0]
    return ""


def _spelt(lowering: Lowering) -> str:
    parts = [f"joins {', '.join(lowering.joins) or 'nothing'}", f"free {', '.join(lowering.free) or 'nothing'}"]
    parts.append(f"zeros {lowering.zeros}")
    if lowering.equal_pools_merged:
        parts.append("equal pools merged")
    return "; ".join(parts)


def _unit(name: str) -> str:
    from gensynth.passes.cost.device import COEFFICIENTS

    if name in COEFFICIENTS:
        return COEFFICIENTS[name]
    head, *rest = name.split(".")
    where = {"precision": "in", "mode": "in", "runtime": "with"}.get(head)
    if where is None:
        return f"times {head}, for {rest[0]}"
    kind = f", for {rest[2]}" if len(rest) > 2 else ""
    return f"times {rest[1]}, {where} {rest[0]}{kind}"


def _tell_evidence(device: Device) -> None:
    print()
    if not device.evidence:
        print(
            "Nothing was measured: intervals are of about a factor of 2 either way. `gensynth calibrate` fits a device."
        )
        return
    rows = []
    for (runtime, quantity), item in device.evidence.items():
        beyond = "-" if item.beyond is None else f"{100 * item.beyond:.1f}%"
        rows.append(
            [
                runtime,
                quantity,
                f"{item.rows:,}",
                f"{item.networks:,}",
                f"{100 * item.within:.1f}%",
                beyond,
                _factor(item.interval),
                "-" if item.interval_beyond is None else _factor(item.interval_beyond),
                f"{item.at:.3g} {'ms' if quantity == 'latency' else 'mJ'}",
                item.data,
            ]
        )
    columns = ["runtime", "fitted", ">measurements", ">networks", ">error", ">of a new family", ">interval"]
    print_table([*columns, ">of a new family", ">at", "data"], rows)
    print("error: median, of networks held out; interval: 90% of them lie within this factor, if they take so much")


def _factor(half_width: float) -> str:
    return f"x{math.exp(half_width):.2f}"


def _tell_seen(device: Device) -> None:
    def span(pair: tuple[float, float]) -> str:
        return f"{pair[0]:,.0f} - {pair[1]:,.0f}"

    for runtime in dict.fromkeys([*device.seen, *device.networks_seen]):
        seen = device.networks_seen.get(runtime)
        networks = "" if seen is None else f", in networks of {seen[0]:.3g} to {seen[1]:.3g} ms"
        print(f"\nkernels measured with {runtime}{networks}")
        print_table(
            ["kind", ">MACs", ">elements moved", ">outputs"],
            [
                [kind, span(item.macs), span(item.elements), span(item.outputs)]
                for kind, item in device.seen.get(runtime, {}).items()
            ],
        )


COMMANDS = (
    Command(
        "devices",
        "list the devices whose latency and energy are modelled, or tell all about one",
        ("gensynth devices tegra-x2-gpu",),
        _arguments,
        _devices,
        "A device file of your own does as well: `gensynth cost --device FILE.toml`.",
    ),
)
