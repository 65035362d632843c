"""The command `calibrate`: a device's cost model from measurements."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gensynth.ir import UsageError, nearest

from .command import Command
from .files import print_json
from .output import print_table

if TYPE_CHECKING:
    from gensynth.passes.cost import Device
    from gensynth.passes.cost.calibration import Calibration
    from gensynth.passes.cost.errors import GroupError

__all__ = ["COMMANDS"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("measurements", metavar="MEASUREMENTS.csv", help="networks and what they took; see below")
    parser.add_argument(
        "--device", required=True, metavar="D", help="the device measured: a known one, a device file, or a new name"
    )
    parser.add_argument("-o", "--out", metavar="FILE.toml", help="the device file to write; NAME.toml by default")
    parser.add_argument("--like", metavar="D", help="for a new name: the device to start from; by default the nearest")
    parser.add_argument(
        "--known",
        nargs="+",
        default=[],
        metavar="D",
        help="devices calibrated before, three or more: how they differ tells what to expect of this one",
    )
    parser.add_argument("--lowering", metavar="L", help="how the runtime lowers, where you know: see docs/costs.md")
    parser.add_argument("--plot", metavar="FILE", help="predicted against measured (.svg or .png); NAME.svg by default")
    parser.add_argument("--no-plot", action="store_true", help="draw nothing")
    parser.add_argument("--data", metavar="TEXT", help="where the measurements are from, for the device file")
    parser.add_argument("--json", action="store_true", help="errors by group as one JSON object")


def _calibrate(arguments: argparse.Namespace) -> int:
    # A fit multiplies many small matrices, which several threads of BLAS take longer for than one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from gensynth.backends.drawing.figures import check_plot
    from gensynth.passes.cost import LOWERINGS, save_device
    from gensynth.passes.cost.errors import errors_by_group
    from gensynth.synth.measurements import calibrate_device

    if arguments.lowering is not None and arguments.lowering not in LOWERINGS:
        raise UsageError(
            f"unknown lowering '{arguments.lowering}'",
            hint=nearest(arguments.lowering, LOWERINGS, what="lowerings"),
        )
    if arguments.no_plot and arguments.plot is not None:
        raise UsageError("--plot and --no-plot exclude each other", hint="give one of them")

    if arguments.out is not None and Path(arguments.out).suffix != ".toml":
        raise UsageError(
            f"--out {arguments.out}: a device file ends in .toml", hint=f"write --out {arguments.out}.toml"
        )

    drawn = not arguments.no_plot
    if arguments.plot is not None:
        check_plot(arguments.plot)
    elif drawn and find_spec("matplotlib") is None:
        print('gensynth: note: no plot without matplotlib: pip install "gensynth[plot]"', file=sys.stderr)
        drawn = False

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    found = calibrate_device(
        arguments.measurements,
        arguments.device,
        like=arguments.like,
        known=arguments.known,
        lowering=None if arguments.lowering is None else LOWERINGS[arguments.lowering],
        data=arguments.data,
        on_progress=tell,
    )
    device = found.device
    out = Path(arguments.out or f"{device.name}.toml")
    groups = errors_by_group(found)
    save_device(device, out)
    plot = _plot(found, Path(arguments.plot or out.with_suffix(".svg"))) if drawn else None
    if arguments.json:
        print_json(
            {
                "device": device.name,
                "path": str(out),
                "plot": None if plot is None else str(plot),
                "rows": len(found.measured),
                "lowerings": {name: _lowering_of(device, name) for name in found.lowerings},
                "tried": {name: dict(tried) for name, tried in found.lowerings.items()},
                "errors": [group.as_dict() for group in groups],
            }
        )
        return 0
    _tell(found, groups)
    print(f"\n{out}" + ("" if plot is None else f"\n{plot}"))
    return 0


def _lowering_of(device: Device, runtime: str) -> str:
    return device.runtimes[runtime].lowering.name or "its own"


def _plot(found: Calibration, path: Path) -> Path | None:
    """Draws predicted against measured, as it came out in cross-validation."""
    from gensynth.backends.drawing.plots import Point, calibration_plot
    from gensynth.passes.cost.errors import group_of

    points = [
        Point(item.quantity, group_of(found.measured[item.row]), item.measured, item.predicted)
        for item in found.held_out
        if item.by == "network"
    ]
    if not points:
        print("gensynth: note: no plot, since one network alone cannot be held out", file=sys.stderr)
        return None
    calibration_plot(points, path, title=f"{found.device.name}: networks held out")
    return path


def _tell(found: Calibration, groups: Sequence[GroupError]) -> None:
    device = found.device
    networks = len({item.network for item in found.measured})
    families = len({item.family for item in found.measured})
    print(
        f"{device.name}: {len(found.measured)} measurements of {networks} network{'s' * (networks != 1)} in"
        f" {families} famil{'ies' if families != 1 else 'y'}"
    )
    for runtime, tried in found.lowerings.items():
        print(f"{runtime}: lowering {_lowering_of(device, runtime)}{_alternatives(dict(tried))}")
    if not groups:
        print("one network alone says nothing of the error on others: no intervals; measure at least 5")
        return
    print("\nerrors of what was held out, median of |predicted - measured| / measured")
    rows = [
        [
            group.group,
            group.quantity,
            f"{group.rows}",
            _percent(group.by_network),
            "-" if group.by_family is None else _percent(group.by_family),
            "-" if group.spearman is None else f"{group.spearman:.3f}",
            f"{100 * group.covered:.0f}%",
        ]
        for group in groups
    ]
    columns = ["group", "quantity", ">rows", ">network", ">family", ">Spearman", ">in the 90% interval"]
    print_table(columns, rows)
    print("\nnetwork, family: what was left out of the fit; an interval holds 90% of measurements of other networks")


def _alternatives(tried: Mapping[str, float]) -> str:
    if not tried:
        return " (too few networks to choose by)"
    return ", misfit " + ", ".join(f"{name} {value:,.0f}" for name, value in list(tried.items())[:4])


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


COMMANDS = (
    Command(
        "calibrate",
        "fit a device's cost model to measurements",
        (
            "gensynth calibrate measured.csv --device tegra-x2-gpu",
            "gensynth calibrate measured.csv --device my-board --like raspberry-pi-5 --out my-board.toml",
        ),
        _arguments,
        _calibrate,
        "The CSV has a column network (a .gsir or .onnx file, a prototype such as 'resnet depth=18 dataset=imagenet',"
        "\nor a NAS-Bench-201 architecture), latency_ms or energy_mj or both, of a whole batch, and, where they differ"
        "\nfrom the device's first: batch, precision, power_mode, runtime. `gensynth measure --csv` writes such files."
        "\nFrom 5 measurements on; docs/costs.md tells more.",
    ),
)
