"""From a network to code: lowering, tuning, and the compilers behind the targets."""

from __future__ import annotations

from dataclasses import dataclass

from gensynth.ir import Network

from .lowering import lower
from .program import Program
from .targets import Target
from .tuning import Progress, TuningRecord, tune

__all__ = ["Compiled", "compile_program"]


@dataclass(frozen=True)
class Compiled:
    """A program and its kernels' code: an object file, or PTX where the target has a GPU.

    `source` is the CUDA C that the PTX was made from. `measured` is how many kernels have a measured schedule.
    """

    program: Program
    code: bytes
    source: str | None = None
    measured: int = 0


def compile_program(
    network: Network,
    target: Target,
    *,
    batch: int = 1,
    dtype: str = "f32",
    trials: int = 0,
    seconds: float = 120.0,
    record: TuningRecord | None = None,
    progress: Progress | None = None,
) -> Compiled:
    """Returns a network as a program with code for its kernels.

    With `trials`, so many schedules of each kernel are measured on this machine, for about `seconds` in all, and
    `record` keeps what was found; without, what the record knows is used.

    Raises:
        UsageError: the network cannot be compiled for the target, kernels cannot be measured here, or a part of the
            toolchain is missing.
        WeightsError: the network has no weights.
    """
    program = lower(network, target, batch=batch, dtype=dtype)
    record = TuningRecord() if record is None else record
    specs = {kernel.spec for kernel in program.kernels}
    found = {spec: known for spec in specs if (known := record.find(spec, target)) is not None}
    if trials:
        found = tune(program, target, trials=trials, record=record, seconds=seconds, progress=progress)
    if found:
        program = lower(network, target, batch=batch, dtype=dtype, schedules=found)
    functions = {kernel.name: kernel.emitted.function for kernel in program.kernels}
    if target.kind == "cuda":
        from .cuda import compile_ptx, cuda_source

        assert target.cuda is not None
        source = cuda_source(functions, target)
        ptx = compile_ptx(source, arch=target.cuda.arch, ptx_version=target.cuda.ptx_version)
        return Compiled(program, ptx, source, len(found))
    from .objects import compile_objects

    return Compiled(program, compile_objects(functions, target), None, len(found))
