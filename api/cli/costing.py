"""The command `cost`: what a network counts, and on a device what it takes, kernel by kernel."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from gensynth.ir import UsageError

from .command import Command, positive
from .files import print_json, read_network
from .output import human, print_table

if TYPE_CHECKING:
    from gensynth.passes.cost import CostModel, CostReport, Estimate, Interval

__all__ = ["COMMANDS", "DEVICE_HELP", "interval_text", "number_text"]

DEVICE_HELP = "NAME or FILE.toml, after which may follow :PRECISION, :POWER-MODE and :RUNTIME; see `gensynth devices`"
"""What may be given as a device."""

_OF_DEVICE = ("precision", "power_mode", "runtime", "plot")


def interval_text(interval: Interval) -> str:
    """Returns a value and its interval as people read them, such as `1.80 (1.60-2.02)`."""
    digits = _digits(interval.value)
    return f"{interval.value:,.{digits}f} ({interval.low:,.{digits}f}-{interval.high:,.{digits}f})"


def number_text(value: float) -> str:
    """Returns a number with at least three digits that count, and never an exponent."""
    return f"{value:,.{_digits(value)}f}"


def _digits(value: float) -> int:
    return max(0, 2 - math.floor(math.log10(value))) if value > 0.0 else 0


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="IN.gsir", help="the network; - for stdin")
    parser.add_argument("--device", metavar="D", help=f"also latency and energy on a device: {DEVICE_HELP}")
    parser.add_argument("--precision", metavar="P", help="such as fp16; by default the device's first")
    parser.add_argument("--power-mode", metavar="M", help="such as MAX-Q; by default the device's first")
    parser.add_argument("--runtime", metavar="R", help="what executes the network; by default the device's first")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images at once (default 1)")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the network's kernels under the device's roofline (.svg or .png)"
    )
    parser.add_argument("--json", action="store_true", help="totals and rows as one JSON object")


def _cost(arguments: argparse.Namespace) -> int:
    from gensynth.passes.cost import cost

    model = _model(arguments)
    if arguments.plot is not None:
        from gensynth.backends.drawing.figures import check_plot

        check_plot(arguments.plot)
    report = cost(read_network(arguments.network).graph, arguments.batch, model=model)
    estimate = report.estimate
    if model is not None and estimate is not None and arguments.plot is not None:
        from gensynth.backends.drawing.plots import roofline_plot

        roofline_plot(estimate, model, arguments.plot, title=report.graph.name)
    if arguments.json:
        print_json(_as_json(report))
        return 0
    if estimate is None:
        _print_nodes(report)
    else:
        _print_kernels(estimate)
    print(
        f"\n@{report.graph.name}, batch {report.batch}: {report.macs:,} MACs ({human(report.macs)}),"
        f" {report.params:,} params ({human(report.params)}),"
        f"\n  {report.weight_bytes:,} bytes of weights, {report.activation_bytes:,} bytes of activations,"
        f" {report.peak_memory:,} bytes of them live at the peak"
    )
    if estimate is not None:
        _print_estimate(estimate)
    if arguments.plot is not None:
        print(arguments.plot)
    return 0


def _model(arguments: argparse.Namespace) -> CostModel | None:
    if arguments.device is None:
        for name in _OF_DEVICE:
            if getattr(arguments, name) is not None:
                raise UsageError(
                    f"gensynth cost: --{name.replace('_', '-')} is for a device, and none is given",
                    hint="add --device D; `gensynth devices` lists them",
                )
        return None
    from gensynth.passes.cost import cost_model

    return cost_model(
        arguments.device,
        precision=arguments.precision,
        power_mode=arguments.power_mode,
        runtime=arguments.runtime,
        batch=arguments.batch,
    )


def _as_json(report: CostReport) -> dict[str, object]:
    found: dict[str, object] = {
        "network": report.graph.name,
        "batch": report.batch,
        "nodes": report.nodes,
        "params": report.params,
        "macs": report.macs,
        "operations": report.operations,
        "weight_bytes": report.weight_bytes,
        "activation_bytes": report.activation_bytes,
        "peak_memory_bytes": report.peak_memory,
    }
    if report.estimate is not None:
        found |= _estimate_as_json(report.estimate)
    found["rows"] = [
        {
            "name": row.name,
            "op": row.op,
            "type": str(row.type),
            "macs": row.cost.macs,
            "params": row.cost.params,
            "weight_bytes": row.cost.weight_bytes,
            "input_bytes": row.cost.input_bytes,
            "output_bytes": row.cost.output_bytes,
            "operations": row.cost.operations,
        }
        for row in report.rows
    ]
    return found


def _estimate_as_json(estimate: Estimate) -> dict[str, object]:
    condition = estimate.condition
    return {
        "device": estimate.device,
        "precision": condition.precision,
        "power_mode": condition.power_mode,
        "runtime": condition.runtime,
        "latency_ms": estimate.latency_ms,
        "latency_interval_ms": [estimate.latency.low, estimate.latency.high],
        "energy_mj": estimate.energy_mj,
        "energy_interval_mj": [estimate.energy.low, estimate.energy.high],
        "power_w": estimate.power_w,
        "inferences_per_second": estimate.inferences_per_second,
        "inferences_per_joule": estimate.inferences_per_joule,
        "overhead_ms": estimate.overhead_ms,
        "outside": list(estimate.outside),
        "kernels": [
            {
                "name": kernel.name,
                "kind": kernel.kind,
                "nodes": list(kernel.nodes),
                "macs": kernel.macs,
                "operations": kernel.operations,
                "moved_bytes": kernel.moved,
                "latency_ms": kernel.latency_ms,
                "launch_ms": kernel.launch_ms,
                "compute_ms": kernel.compute_ms,
                "memory_ms": kernel.memory_ms,
                "bound": kernel.bound,
                "energy_mj": kernel.energy_mj,
            }
            for kernel in estimate.kernels
        ],
    }


def _print_nodes(report: CostReport) -> None:
    print_table(
        ["node", "op", "result", ">MACs", ">share", ">params", ">weights [B]", ">output [B]"],
        [
            [
                row.name,
                row.op,
                str(row.type),
                f"{row.cost.macs:,}",
                f"{100 * row.cost.macs / report.macs:.1f}%" if report.macs else "-",
                f"{row.cost.params:,}",
                f"{row.cost.weight_bytes:,}",
                f"{row.cost.output_bytes:,}",
            ]
            for row in report.rows
        ],
    )


def _print_kernels(estimate: Estimate) -> None:
    latency, energy = estimate.latency_ms, estimate.energy_mj
    rows = [
        [
            kernel.name,
            kernel.kind,
            str(len(kernel.nodes)),
            f"{kernel.macs:,}",
            f"{kernel.moved:,.0f}",
            f"{kernel.latency_ms:.4f}",
            f"{100 * kernel.latency_ms / latency:.1f}%",
            kernel.bound,
            f"{kernel.energy_mj:.4f}",
            f"{100 * kernel.energy_mj / energy:.1f}%",
        ]
        for kernel in estimate.kernels
    ]
    rest = energy - sum(kernel.energy_mj for kernel in estimate.kernels)
    overhead = [f"{estimate.overhead_ms:.4f}", f"{100 * estimate.overhead_ms / latency:.1f}%"]
    rows.append(["(overhead)", "", "", "", "", *overhead, "", f"{rest:.4f}", f"{100 * rest / energy:.1f}%"])
    columns = ["kernel", "kind", ">nodes", ">MACs", ">moved [B]", ">latency [ms]", ">share"]
    print_table([*columns, "bound", ">energy [mJ]", ">share"], rows)


def _print_estimate(estimate: Estimate) -> None:
    condition = estimate.condition
    kernels = len(estimate.kernels)
    print(
        f"{estimate.device}, {condition.precision}, {condition.power_mode}, {condition.runtime}:"
        f" {kernels} kernel{'s' * (kernels != 1)}"
        f"\n  latency {interval_text(estimate.latency)} ms, energy {interval_text(estimate.energy)} mJ (90% intervals),"
        f" {estimate.power_w:.3g} W"
        f"\n  {number_text(estimate.inferences_per_second)} inferences a second,"
        f" {number_text(estimate.inferences_per_joule)} a joule"
    )
    for reason in estimate.outside:
        print(f"  warning: {reason}")


COMMANDS = (
    Command(
        "cost",
        "count MACs, parameters and memory; on a device, estimate latency and energy",
        (
            "gensynth cost resnet8.gsir",
            "gensynth cost resnet8.gsir --batch 16 --json",
            "gensynth cost resnet8.gsir --device tegra-x2-gpu --precision fp16 --plot roofline.svg",
        ),
        _arguments,
        _cost,
        "1 MAC is one multiply-accumulate and 2 operations; weights are float32.",
    ),
)
