"""From a network to an artifact: compile, compute check vectors, build, write."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gensynth.ir import Network, UsageError

from .manifest import Manifest
from .targets import Target, code_features, load_target

if TYPE_CHECKING:
    from .compiling import Compiled
    from .tuning import Progress

__all__ = ["compile_network"]


def compile_network(
    network: Network,
    target: str | os.PathLike[str] | Target,
    out: str | os.PathLike[str],
    *,
    batch: int = 1,
    dtype: str = "f32",
    trials: int = 0,
    seconds: float = 120.0,
    records: str | os.PathLike[str] | None = None,
    preprocessing: Mapping[str, object] | None = None,
    source: bool = True,
    archive: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Compiles a network for a target and writes the artifact to the folder `out`; returns its manifest.

    `target` is a name of `target_names()`, the path of a target file, or a target. The artifact runs `batch` images at
    once, float32 [batch, C, H, W] whatever `dtype`, which is that of weights and activations inside. With `trials` so
    many schedules of each kernel are measured on this machine, for about `seconds` in all; the file `records` keeps
    what was found, and what it holds is used without trials as well. `preprocessing` goes into the manifest as it is.
    `source` puts the network itself into the artifact, `archive` writes `OUT.tar.gz` beside it. `force` replaces an
    artifact to which files were added.

    Raises:
        UsageError: the network cannot be compiled for the target, a part of the toolchain is missing, or `out` holds
            something else than an artifact.
        WeightsError: the network has no weights.
        GenSynthError: where the code can run on this machine, its outputs differ from the check vectors.
    """
    from .artifact import check_replaceable, write_artifact
    from .checks import make_checks
    from .compiling import compile_program
    from .tuning import TuningRecord

    folder = Path(out).resolve() if Path(out).name in ("", "..") else Path(out)
    check_replaceable(folder, archive=archive, force=force)
    chosen = target if isinstance(target, Target) else load_target(target)
    record = TuningRecord(None if records is None else Path(records))
    compiled = compile_program(
        network, chosen, batch=batch, dtype=dtype, trials=trials, seconds=seconds, record=record, progress=progress
    )
    return write_artifact(
        compiled.program,
        network,
        compiled.code,
        folder,
        checks=make_checks(network, compiled.program),
        preprocessing=preprocessing,
        resources=_resources(compiled, chosen),
        features=code_features(chosen),
        toolchain=_toolchain(chosen),
        source=source,
        archive=archive,
        force=force,
    )


def _resources(compiled: Compiled, target: Target) -> dict[str, dict[str, int]]:
    """Returns what ptxas says of a GPU's kernels; nothing where it is not installed, since nothing rests on it."""
    if target.cuda is None:
        return {}
    from .cuda import assemble, ptxas_path

    try:
        ptxas_path()
    except UsageError:
        return {}
    found = assemble(compiled.code, target.cuda.arch).kernels
    return {
        name: {
            "registers": used.registers,
            "shared_bytes": used.shared,
            "spill_bytes": used.spill_stores + used.spill_loads,
        }
        for name, used in found.items()
    }


def _toolchain(target: Target) -> dict[str, str]:
    """Returns the versions of the compilers behind the kernels."""
    from tvm.target.codegen import llvm_version_major

    found = {"llvm": str(llvm_version_major())}
    if target.cuda is not None:
        from .cuda import nvrtc_version

        found["nvrtc"] = nvrtc_version()
    return found
