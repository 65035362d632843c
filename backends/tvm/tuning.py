"""Tuning: schedules for a program's kernels, found by measurement on this machine, and the record that keeps them."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gensynth.ir import TensorType, UsageError, write_atomically
from gensynth.ir.ops import BatchNorm, Dense

from .kernels import KernelSpec, View, Weights, templates_of
from .objects import compile_objects
from .program import Program
from .scheduling import Chosen, default_schedule
from .targets import Target
from .timing import KernelBuffer, KernelCall, time_kernels

__all__ = ["Progress", "TuningRecord", "specification_text", "tune"]

FORMAT = 1

SAMPLE = 1e-3
"""Seconds of each sample of a schedule's time; there are up to fifteen."""

GAIN = 0.98
"""The part of the first choice's time that another schedule must stay below to be preferred: clocks are noisy."""

Progress = Callable[[int, int, str], None]
"""Told (kernels done, kernels in all, the one at work)."""


def specification_text(spec: KernelSpec) -> str:
    """Returns a specification in one line: what a record knows a kernel by."""
    views = [*spec.inputs, *(step.view for step in spec.steps if step.view is not None), spec.output]
    shown = "; ".join(
        f"{view.channels}x{view.height}x{view.width}@{view.image},{view.row},{view.pixel},{view.channel}"
        + (f"+{','.join(map(str, view.halo))}" if any(view.halo) else "")
        + (f":{view.dtype}" if view.dtype != "f32" else "")
        for view in views
    )
    steps = " > ".join(step.op.text() for step in spec.steps)
    return f"{spec.op.text()} > {steps} | batch {spec.batch} {spec.dtype} | {shown}"


class TuningRecord:
    """What was measured: for every machine and kernel the best schedule and the time of each that was tried.

    One JSON file, made to be kept and shared. Entries of other machines are left as they are.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Reads the record of a file, if it is there.

        Raises:
            UsageError: it is no tuning record.
        """
        self.path = path
        self._entries: dict[str, dict[str, dict[str, Any]]] = {}
        if path is None or not path.exists():
            return
        try:
            loaded = json.loads(path.read_text())
            if loaded["format"] != FORMAT:
                raise UsageError(
                    f"{path} is a tuning record of format {loaded['format']}, this version reads {FORMAT}",
                    hint="name another file; it will be made",
                )
            self._entries = loaded["machines"]
        except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} is no tuning record: {error}", hint="name another file; it will be made"
            ) from None

    def save(self) -> None:
        """Writes the record to its file."""
        if self.path is not None:
            text = json.dumps({"format": FORMAT, "machines": self._entries}, indent=1, sort_keys=True)
            write_atomically(self.path, text.encode())

    def find(self, spec: KernelSpec, target: Target) -> Chosen | None:
        """Returns the recorded choice for a kernel, None where there is none that this version still knows."""
        entry = self._entries.get(machine_of(target), {}).get(specification_text(spec))
        if entry is None:
            return None
        for template in templates_of(spec, target):
            if template.name == entry["template"]:
                for schedule in template.schedules(spec, target):
                    if schedule.as_dict() == entry["schedule"]:
                        return Chosen(template, schedule)
        return None

    def tried(self, spec: KernelSpec, target: Target) -> int:
        """Returns how many schedules of a kernel were measured."""
        return len(self._entries.get(machine_of(target), {}).get(specification_text(spec), {}).get("tried", {}))

    def add(self, spec: KernelSpec, target: Target, chosen: Chosen, tried: Mapping[str, float]) -> None:
        """Records the best choice for a kernel, and the microseconds of all that were tried."""
        self._entries.setdefault(machine_of(target), {})[specification_text(spec)] = {
            "template": chosen.template.name,
            "schedule": chosen.schedule.as_dict(),
            "tried": {name: round(value, 3) for name, value in tried.items()},
        }


def machine_of(target: Target) -> str:
    """Returns what makes measurements comparable: the target's processor, as a name and a digest of its description."""
    described = json.dumps({"llvm": dict(target.llvm), "cores": target.cores}, sort_keys=True)
    return f"{target.name} {target.llvm.get('mcpu', '')} {hashlib.sha256(described.encode()).hexdigest()[:8]}"


def tune(
    program: Program,
    target: Target,
    *,
    trials: int,
    record: TuningRecord,
    seconds: float = 120.0,
    progress: Progress | None = None,
) -> dict[KernelSpec, Chosen]:
    """Returns the best schedule found for every kernel of a program, by measuring up to `trials` of each.

    Kernels that take long come first; after `seconds` no new one is begun. What the record knows with as many trials is
    taken from it; what is measured is added to it, and the record is saved after every kernel.

    Raises:
        UsageError: the target's kernels do not run on this machine.
    """
    if target.kind != "cpu" or target.architecture != platform.machine():
        raise UsageError(
            f"kernels for {target.name} ({target.architecture}, {target.kind}) cannot be measured on this machine"
            f" ({platform.machine()})",
            hint="leave --tune out, or tune on the machine itself and give its record with --records",
        )
    found: dict[KernelSpec, Chosen] = {}
    uses: dict[KernelSpec, int] = {}
    for step in program.steps:
        spec = program.kernels[step.kernel].spec
        uses[spec] = uses.get(spec, 0) + 1
    waiting: list[tuple[float, KernelSpec, list[Chosen]]] = []
    for spec in uses:
        known = record.find(spec, target)
        candidates = list(_candidates(spec, target, trials))
        if known is not None:
            found[spec] = known
        if len(candidates) > 1 and (known is None or record.tried(spec, target) < len(candidates)):
            first = candidates[0]
            waiting.append((uses[spec] * first.template.cost(spec, first.schedule, target), spec, candidates))
    waiting.sort(key=lambda item: -item[0])
    end = time.monotonic() + seconds
    for number, (_, spec, candidates) in enumerate(waiting):
        if time.monotonic() > end:
            break
        if progress is not None:
            progress(number, len(waiting), specification_text(spec))
        times = _measure(spec, candidates, target)
        best = min(range(len(times)), key=times.__getitem__)
        if times[best] > GAIN * times[0]:
            best = 0
        found[spec] = candidates[best]
        record.add(
            spec,
            target,
            candidates[best],
            {str(item.schedule): value for item, value in zip(candidates, times, strict=True)},
        )
        record.save()
    if progress is not None:
        progress(len(waiting), len(waiting), "")
    return found


def _candidates(spec: KernelSpec, target: Target, trials: int) -> Iterator[Chosen]:
    """Yields the schedules to try, cheapest by the templates' estimates first, the default among them."""
    default = default_schedule(spec, target)
    every = [
        Chosen(template, schedule)
        for template in templates_of(spec, target)
        for schedule in template.schedules(spec, target)
    ]
    every.sort(key=lambda item: item.template.cost(spec, item.schedule, target))
    ordered = [default, *(item for item in every if item != default)]
    yield from ordered[: max(1, trials)]


def _measure(spec: KernelSpec, candidates: list[Chosen], target: Target) -> list[float]:
    """Returns microseconds of each candidate on one core, measured in turns."""
    functions, calls = {}, []
    weights = _weights(spec)
    views = [*spec.inputs, *(step.view for step in spec.steps if step.view is not None)]
    for number, chosen in enumerate(candidates):
        name = f"trial{number}"
        emitted = chosen.template.emit(spec, chosen.schedule, target, name)
        functions[name] = emitted.function
        packed = chosen.template.pack(spec, chosen.schedule, weights, target)
        buffers = [_buffer(view, spec.batch) for view in views]
        buffers += [KernelBuffer(array.nbytes) for array in packed]
        buffers.append(_buffer(spec.output, spec.batch))
        calls.append(KernelCall(name, tuple(buffers), emitted.tasks, group=0))
    return [value / 1e3 for value in time_kernels(compile_objects(functions, target), calls, sample=SAMPLE)]


def _buffer(view: View, batch: int) -> KernelBuffer:
    """Returns the memory of a view: what lies before its first element in a halo, and all from there on."""
    top, bottom, left, right = view.halo
    last = (
        (batch - 1) * view.image
        + (view.height - 1 + bottom) * view.row
        + (view.width - 1 + right) * view.pixel
        + (view.channels - 1) * view.channel
    )
    return KernelBuffer(4 * (last + 1), before=4 * (top * view.row + left * view.pixel))


def _weights(spec: KernelSpec) -> Weights:
    """Returns weights of the right shapes; their values do not matter to the clock."""
    generator = np.random.default_rng(0)
    flat = isinstance(spec.op, Dense)
    shapes = [("N", view.channels) if flat else ("N", view.channels, view.height, view.width) for view in spec.inputs]
    weights = {
        parameter.name: generator.standard_normal(parameter.shape).astype(np.float32)
        for parameter in spec.op.parameters([TensorType("f32", shape) for shape in shapes])
    }
    for number, step in enumerate(spec.steps):
        if isinstance(step.op, BatchNorm):
            weights[f"{number}.scale"] = np.ones(spec.output.channels, np.float32)
            weights[f"{number}.shift"] = np.zeros(spec.output.channels, np.float32)
    return weights
