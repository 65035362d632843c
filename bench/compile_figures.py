"""Tables from the figures of compile_speed.py and compile_kernels.py, for the terminal and for docs/results.md."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

__all__ = ["Figure", "kernel_figures", "speed_figures"]

Found = dict[str, Any]
Case = tuple[str, Found, Found]
"""A network's name, its record, and one of its cases."""

MEGABYTE = 1e6
MOST_MEMORY = 5 * MEGABYTE


@dataclass(frozen=True)
class Figure:
    """A table, and what is to be said of it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def claim(holds: bool, text: str) -> str:
    """Returns a claim and whether it holds."""
    return f"{'yes' if holds else 'NO'}: {text}"


def geometric_mean(values: Iterable[float]) -> float:
    """Returns the geometric mean, which is not a number for none."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else math.nan


# Speed.


def ratio(case: Found, name: str, base: str = "onnxruntime") -> float:
    """Returns how many times as long as the base a candidate takes."""
    return float(case["seconds"][name] / case["seconds"][base])


def speed_figures(found: Found) -> list[Figure]:
    """Returns the tables of compile_speed.py."""
    networks: Found = found["networks"]
    cases = [(name, record, case) for name, record in networks.items() for case in record.get("cases", {}).values()]
    if not cases:
        return []
    return [_latency(found, cases), _means(found, cases), *_machines(cases), _memory(networks), _times(found)]


def _latency(found: Found, cases: Sequence[Case]) -> Figure:
    beside = {"eager": "torch", "inductor": "torch.compile", "untuned": "TVM untuned"}
    shown = [name for name in beside if any(name in case["seconds"] for _, _, case in cases)]
    columns = ["network", "batch", "threads", "ONNX Runtime", "static", "ratio", "tuned", "ratio"]
    rows = []
    for name, _, case in cases:
        row = [name, str(case["batch"]), str(case["threads"]), milliseconds(case["seconds"]["onnxruntime"])]
        for mine in ("static", "tuned"):
            row += [milliseconds(case["seconds"][mine]), f"{ratio(case, mine):.2f}"]
        row += [milliseconds(case["seconds"][other]) if other in case["seconds"] else "" for other in shown]
        rows.append(row)
    settings = found["settings"]
    spreads = [
        burst["third_quartile"] / burst["first_quartile"] - 1
        for _, _, case in cases
        for burst in case["bursts"]["onnxruntime"]
    ]
    drifts = [
        max(each["median"] for each in bursts) / min(each["median"] for each in bursts) - 1
        for _, _, case in cases
        for bursts in (case["bursts"]["onnxruntime"], case["bursts"]["static"])
    ]
    notes = [
        (
            f"Milliseconds a run of the whole batch, medians of {settings['rounds']} interleaved bursts of"
            f" {settings['seconds']} s ({max(1, settings['rounds'] // 2)} for torch, 1 for untuned TVM); ratios to ONNX"
            " Runtime, below 1 is faster than it."
        ),
        (
            f"Noise: within a burst of ONNX Runtime the quartiles are {median(spreads):.0%} apart (median over bursts);"
            f" the slowest burst of a case takes {median(drifts):.0%} longer than its fastest (median over cases,"
            f" {max(drifts):.0%} at worst)."
        ),
    ]
    large = any(record["group"] == "224x224" and case["batch"] > 1 for _, record, case in cases)
    if large and settings["large_batch"] != settings["batch"]:
        notes.append(
            f"At 224x224 the larger batch is {settings['large_batch']}, not {settings['batch']}, which would take most"
            " of the benchmark's time."
        )
    failures = sorted({f"{name}: {other} failed, {text}" for name, _, case in cases for other, text in failed(case)})
    if len({record["of"] for _, record, _ in cases}) > 1:
        notes.append("Some networks were measured with other sources or settings than the rest.")
    return Figure("latency", [*columns, *(beside[name] for name in shown)], rows, notes + failures)


def failed(case: Found) -> Iterable[tuple[str, str]]:
    """Returns what could not be measured, and why."""
    return case.get("failures", {}).items()


def _means(found: Found, cases: Sequence[Case]) -> Figure:
    groups: list[tuple[str, Callable[[Case], bool]]] = [("all", lambda case: True)]
    for group in dict.fromkeys(record["group"] for _, record, _ in cases):
        groups.append((group, lambda case, group=group: case[1]["group"] == group))  # type: ignore[misc]
    for threads in sorted({case["threads"] for _, _, case in cases}):
        for many in (False, True):
            label = f"{'larger batch' if many else 'batch 1'}, {threads} thread{'s' * (threads > 1)}"
            groups.append(
                (label, lambda case, t=threads, m=many: case[2]["threads"] == t and (case[2]["batch"] > 1) == m)  # type: ignore[misc]
            )
    rows = []
    for label, belongs in groups:
        some = [case for case in cases if belongs(case)]
        if not some:
            continue
        row = [label, str(len(some))]
        for name in ("static", "tuned"):
            values = [ratio(case, name) for _, _, case in some]
            row += [f"{geometric_mean(values):.3f}", f"{max(values):.2f}"]
        rows.append(row)
    notes = []
    for name, goal in (("static", 1.0), ("tuned", 0.9)):
        mean = geometric_mean(ratio(case, name) for _, _, case in cases)
        slow = sorted(((ratio(case, name), network, case) for network, _, case in cases), key=lambda item: -item[0])
        above = [
            f"{network} ({case['batch']} x {case['threads']}: {value:.2f})"
            for value, network, case in slow
            if value > 1.15
        ]
        zoo = [ratio(case, name) for _, record, case in cases if record["group"] != "FermiNets"]
        told = f"; without the FermiNets {geometric_mean(zoo):.3f}" if 0 < len(zoo) < len(cases) else ""
        notes.append(claim(mean <= goal, f"{name}: geometric mean {mean:.3f}{told}; the goal is {goal:.2f}"))
        told = f": {', '.join(above)}" if above else f"; the largest is {slow[0][0]:.2f}, {slow[0][1]}"
        notes.append(claim(not above, f"{name}: no network, batch and threads above 1.15{told}"))
    spent = [
        sum(item.get("tuning", 0.0) for item in record["compile"].values())
        for record in found["networks"].values()
        if record.get("compile")
    ]
    settings = found["settings"]
    notes.append(
        f"Tuned: up to {settings['trials']} schedules a kernel and {settings['tune_seconds']} s a network, both batches"
        f" together; {median(spent):.0f} s were taken (median), {max(spent):.0f} s at most."
    )
    columns = ("ratio to ONNX Runtime", "cases", "static, mean", "worst", "tuned, mean", "worst")
    return Figure("geometric means", columns, rows, notes)


def _machines(cases: Sequence[Case]) -> list[Figure]:
    both = [case for case in cases if "vm" in case[2]["seconds"]]
    if not both:
        return []
    rows = []
    for name, _, case in both:
        faster = 1 / ratio(case, "static", "vm")
        mine, other = (1e6 * case["seconds"][key] for key in ("static", "vm"))
        rows.append([name, str(case["threads"]), f"{mine:,.1f}", f"{other:,.1f}", f"{faster:.2f}x"])
    notes = []
    for group in dict.fromkeys(record["group"] for _, record, _ in both):
        mean = geometric_mean(1 / ratio(case, "static", "vm") for _, record, case in both if record["group"] == group)
        text = f"{group}: {mean:.2f} times as fast (geometric mean)"
        notes.append(claim(mean >= 1.1, f"{text}, the goal is 1.1" if group == "FermiNets" else text))
    notes.append("The same kernels, batch 1; the virtual machine is timed by TVM itself, the executor from Python.")
    return [
        Figure("the executor against TVM's virtual machine", ("us", "threads", "executor", "VM", "faster"), rows, notes)
    ]


def _memory(networks: Found) -> Figure:
    rows, overheads = [], []
    for name, record in networks.items():
        for batch, facts in record.get("compile", {}).items():
            for threads, most in facts.get("resident_bytes", {}).items():
                lanes = min(int(threads), facts["repeats"]) if facts["repeats"] > 1 else 1
                planned = facts["arena_bytes"] * lanes
                over = most - facts["weights_bytes"] - planned - facts["array_bytes"]
                overheads.append((over, f"{name}, batch {batch}, {threads} threads"))
                sizes = (facts["weights_bytes"], planned, facts["array_bytes"], most, over)
                rows.append([name, batch, threads, *(f"{size / MEGABYTE:.2f}" for size in sizes)])
    worst = max(overheads, default=(0, ""))
    notes = [
        (
            "Megabytes. Most: the most ever resident (VmHWM) of the process `run --bench`, libc and code included;"
            " nothing is subtracted. Beyond: what is left of it after weights, planned activations (an arena a thread"
            " where images of a batch run one by one) and the caller's input and output arrays."
        ),
        claim(
            worst[0] <= MOST_MEMORY,
            "at most 5 MB beyond weights and planned activations; the largest is"
            f" {worst[0] / MEGABYTE:.2f}, {worst[1]}",
        ),
    ]
    columns = ("MB", "batch", "threads", "weights", "activations", "arrays", "most", "beyond")
    return Figure("resident memory", columns, rows, notes)


def _times(found: Found) -> Figure:
    rows, compiles, starts = [], [], []
    for name, record in found["networks"].items():
        start = {how: 1e3 * median(times) for how, times in record.get("start", {}).items()}
        for batch, facts in record.get("compile", {}).items():
            if "cold" in facts:
                compiles.append((facts["cold"], f"{name}, of it {facts['cold_cpu']:.1f} s of the processor's"))
            row = [name, batch, *(str(facts[key]) for key in ("kernels", "steps"))]
            row += [f"{facts[key]:.1f}" if key in facts else "" for key in ("cold", "cold_cpu", "warm")]
            row.append(f"{facts['tuned']:.0f}" if "tuned" in facts else "")
            row += [
                f"{start[how]:.1f}" if batch == "1" and start else "" for how in ("load_artifact", "gs_open", "run")
            ]
            rows.append(row)
        starts += [(start[how], f"{name} by {how}") for how in ("load_artifact", "gs_open", "run") if start]
    slowest, latest = max(compiles), max(starts, default=(math.nan, ""))
    first = found.get("first_compile", {}).get("seconds")
    very_first = "" if first is None else f": the very first compile took {first:.0f} s"
    notes = [
        (
            "Compile, in seconds: `gensynth compile` in a process of its own, from the start of Python to the tested"
            " artifact and its archive (cold, and of that the processor's time, which says more on a busy machine);"
            " again in a process that has compiled before (warm); tuned. The executor's C files, and what the C"
            f" compiler brings along, are compiled once on a machine{very_first}."
        ),
        (
            "Start, in milliseconds, in processes that have not met the artifact (its files in the system's cache):"
            " `load_artifact` with its checksums, `gs_open` alone, and `./run --info` from fork to exit. Medians of"
            f" {found['settings']['starts']} processes, of `run` {3 * found['settings']['starts']}."
        ),
        claim(slowest[0] <= 10, f"untuned compile at most 10 s; the slowest is {slowest[0]:.1f} s, {slowest[1]}"),
        claim(latest[0] <= 20, f"start at most 20 ms; the slowest is {latest[0]:.1f} ms, {latest[1]}"),
    ]
    columns = (
        "s, ms",
        "batch",
        "kernels",
        "steps",
        "cold",
        "of it CPU",
        "warm",
        "tuned",
        "load_artifact",
        "gs_open",
        "run --info",
    )
    return Figure("compile time and start", columns, rows, notes)


def milliseconds(seconds: float) -> str:
    """Returns a time with about 3 digits."""
    value = 1e3 * seconds
    return f"{value:.4f}" if value < 0.1 else f"{value:.3f}" if value < 10 else f"{value:.1f}"


# Kernels.


def kernel_figures(found: Found) -> list[Figure]:
    """Returns the tables of compile_kernels.py."""
    return [*_inner_loops(found["inner_loops"]), _launches(found["launches"])]


GOAL_MULTIPLIES = 2.5
"""Multiply-adds (fmla) for each vector that is loaded, in dense convolutions on a Cortex-A57."""


def _inner_loops(networks: Found) -> list[Figure]:
    if not networks:
        return []
    columns = ("first node", "layer", "schedule", "MACs", "all", "fmla", "loads", "fmla/load", "spills")
    figures = []
    for name, loops in networks.items():
        total = sum(loop["macs"] for loop in loops)
        rows = []
        for loop in loops:
            counts = (str(loop[key]) for key in ("instructions", "multiplies", "loads"))
            row = [loop["node"], _layer(loop), _schedule(loop["schedule"]), f"{loop['macs'] / total:.1%}", *counts]
            rows.append([*row, f"{_each(loop):.2f}", str(loop["spills"])])
        figures.append(Figure(f"inner loops on the Cortex-A57: {name}", columns, rows))
    every = [(loop, f"{name} {loop['node']}") for name, loops in networks.items() for loop in loops]
    notes = [
        (
            "The innermost loop with the most multiply-adds, in LLVM's assembly for tegra-x2-cpu: all instructions,"
            " fmla, vectors loaded (a pair counts as two), and accesses to the stack (spills). A row a kernel; equal"
            " layers share one. Sizes of schedules: convolution rows x columns x vectors; depthwise rows x columns;"
            " winograd as its fields are in `kernels/cpu/winograd.py`."
        ),
        *_dense_claims([item for item in every if item[0]["dense"]]),
        *_depthwise_note([item for item in every if not item[0]["dense"]]),
    ]
    figures[-1] = replace(figures[-1], notes=notes)
    return figures


def _each(loop: Found) -> float:
    """Returns the multiply-adds for each vector that is loaded."""
    return float(loop["multiplies"] / max(1, loop["loads"]))


def _layer(loop: Found) -> str:
    """Returns a convolution in short: `3x3 /2, 16 to 32, at 32x32`."""
    attributes = dict(re.findall(r"(\w+)=(\[[^]]*\]|[^,}]+)", loop["op"]))
    sizes = [int(size) for size in re.findall(r"\d+", attributes["kernel"])]
    kernel = "x".join(map(str, sizes * 2 if len(sizes) == 1 else sizes))
    stride = f" /{attributes['stride']}" if "stride" in attributes else ""
    channels, height, width = loop["input"]
    groups = "" if loop["dense"] else f", {attributes['groups']} groups"
    return f"{kernel}{stride}, {channels} to {attributes['channels']}{groups}, {height}x{width}"


def _schedule(text: str) -> str:
    """Returns a schedule in short, its sizes in order: `convolution 1x5x4`."""
    template, _, fields = text.rstrip("}").partition("{")
    values = dict(each.split("=") for each in fields.split(", ") if not each.startswith("lanes="))
    sizes = "x".join(value for value in values.values() if value not in ("True", "False"))
    return " ".join([template, sizes, *(key for key, value in values.items() if value == "True")])


def _dense_claims(loops: Sequence[tuple[Found, str]]) -> list[str]:
    if not loops:
        return []
    total = sum(loop["macs"] for loop, _ in loops)
    mean = sum(loop["macs"] * _each(loop) for loop, _ in loops) / total
    below = [
        f"{where} ({_each(loop):.2f}, {loop['input'][0]} input channels)"
        for loop, where in loops
        if _each(loop) < GOAL_MULTIPLIES
    ]
    spilling = [f"{where} ({loop['spills']})" for loop, where in loops if loop["spills"]]
    return [
        claim(
            not below,
            f"dense convolutions: at least {GOAL_MULTIPLIES} fmla a load; {len(loops) - len(below)} of {len(loops)}"
            f" kernels, mean by MACs {mean:.2f}" + (f"; below: {', '.join(below)}" if below else ""),
        ),
        claim(
            not spilling,
            f"dense convolutions: no access to the stack in the loop; {len(loops) - len(spilling)} of {len(loops)}"
            + (f"; with: {', '.join(spilling)}" if spilling else ""),
        ),
    ]


def _depthwise_note(loops: Sequence[tuple[Found, str]]) -> list[str]:
    if not loops:
        return []
    least, where = min(loops, key=lambda item: _each(item[0]))
    spilling = [loop["spills"] for loop, _ in loops if loop["spills"]]
    most = f", {max(spilling)} accesses at most" if spilling else ""
    return [
        (
            f"Grouped and depthwise, for which there is no goal: at least {_each(least):.2f} fmla a load ({where});"
            f" {len(spilling)} of {len(loops)} kernels spill{most}."
        )
    ]


def _launches(networks: Found) -> Figure:
    rows, over, wrong = [], [], []
    for name, dtypes in networks.items():
        for dtype, facts in dtypes.items():
            kernels = facts["kernels"].values()
            spilling = sum(used["spill_stores"] + used["spill_loads"] > 0 for used in kernels)
            others = ", ".join(f"{count} {op}" for op, count in facts["others"].items())
            rows.append(
                [
                    name,
                    dtype,
                    str(facts["launches"]),
                    str(facts["allowed"]),
                    others,
                    str(len(kernels)),
                    str(max(used["registers"] for used in kernels)),
                    f"{max(used['shared'] for used in kernels):,}",
                    str(spilling),
                ]
            )
            if facts["launches"] > facts["allowed"]:
                over.append(f"{name} {dtype}")
            wrong += [f"{name} {dtype}: {text}" for text in facts["wrong"]]
    told = "".join(f"; {text}" for text in wrong)
    notes = [
        claim(not wrong, f"no kernel spills or goes beyond the limits of sm_62{told}"),
        claim(
            not over,
            "at most convolutions + pools + dense layers + 2 launches a network"
            + (f"; more: {', '.join(over)}" if over else ""),
        ),
        (
            "Launches of one image; `beside` are those that are none of these layers. Registers, bytes of shared memory"
            " and spills by ptxas -arch=sm_62, the most of any kernel."
        ),
    ]
    columns = ("network", "dtype", "launches", "allowed", "beside", "kernels", "registers", "shared", "spilling")
    return Figure("kernels on the Tegra X2's GPU", columns, rows, notes)
