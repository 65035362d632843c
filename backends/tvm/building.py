"""Building what runs an artifact: the C executor, linked with a program's kernels and tables."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .generating import network_source, ptx_source
from .program import Program
from .targets import Target
from .toolchain import Toolchain, find_toolchain, glibc_needed

__all__ = ["TOLERANCES", "Build", "build_runtime"]

TOLERANCES = {"f32": 1e-4, "f16": 2e-2}
"""How far outputs may be from the check vectors, relative to the output's range."""

_RUNTIME = Path(__file__).parent / "runtime"
_HEADERS = ("gensynth.h", "program.h", "command.h")
_LIBRARY = ("executor.c", "remote.c")
_KIND = {"cpu": ("cpu.c", "threads.c"), "cuda": ("cuda.c",)}
_KIND_HEADERS = {"cpu": ("calling.h", "threads.h"), "cuda": ()}
_COMMAND = ("main.c", "arrays.c", "selftest.c", "benchmark.c")
_BESIDE = ("gensynth.h", "gensynth_network.py", "gensynth_energy.py")

_EXPORTS = "{ global: gs_close; gs_describe; gs_device; gs_error; gs_input; gs_input_count; gs_open; gs_output; "
_EXPORTS += "gs_output_count; gs_profile; gs_run; gs_step_at; gs_step_count; gs_threads; gs_version; "
_EXPORTS += "__tvm_ffi_gensynth_*; local: *; };\n"
"""The linker's version script: kernels of two networks in one process must not meet."""

_MAKEFILE = """\
# Builds ../run and ../libnetwork.so anew from what lies here, by any C compiler for the board: make, or make CC=clang

CC = gcc
CFLAGS = -O2
FLAGS = -std=c99 -fPIC -fvisibility=hidden -Wall -Wextra
LIBRARIES = -pthread -ldl -lm

LIBRARY = {library}
COMMAND = {command}
HEADERS = {headers}

all: ../run ../libnetwork.so

../run: $(COMMAND) $(LIBRARY) $(HEADERS) Makefile
	$(CC) $(FLAGS) $(CFLAGS) -o $@ $(COMMAND) $(LIBRARY) -Wl,-z,noexecstack $(LIBRARIES)

../libnetwork.so: $(LIBRARY) $(HEADERS) network.map Makefile
	$(CC) $(FLAGS) $(CFLAGS) -shared -o $@ $(LIBRARY) -Wl,--version-script=network.map -Wl,-soname,libnetwork.so \\
		-Wl,-z,noexecstack $(LIBRARIES)

clean:
	rm -f ../run ../libnetwork.so

.PHONY: all clean
"""


@dataclass(frozen=True)
class Build:
    """What was built.

    `files` are the files written, relative to the artifact's directory; `toolchain` says what compiled them; `glibc` is
    the oldest glibc that runs them, such as `2.17`.
    """

    files: tuple[str, ...]
    toolchain: str
    glibc: str


def build_runtime(
    program: Program,
    code: bytes,
    target: Target,
    directory: Path,
    *,
    tolerance: float | None = None,
    toolchain: Toolchain | None = None,
) -> Build:
    """Writes what runs a program into a directory.

    `run`, `libnetwork.so`, `weights.bin`, `gensynth.h`, `gensynth_network.py`, `gensynth_energy.py`, and in `src/` all
    that the first two are built from, with a Makefile. `code` is the kernels' object file, or, where the target has a
    GPU, their PTX.
    `tolerance` is how far outputs may be from the check vectors (`check/input_NAME.bin`, `check/output_NAME.bin`: raw
    little-endian float32 arrays), relative to the output's range; by default 1e-4, for float16 2e-2. `toolchain` is by
    default the one that `find_toolchain` finds for the target's triple.

    Raises:
        UsageError: there is no C compiler for the target, it fails, or the program does not fit the executor.
    """
    if tolerance is None:
        tolerance = TOLERANCES[program.dtype]
    if toolchain is None:
        toolchain = find_toolchain(target.triple)
    source = directory / "src"
    source.mkdir(parents=True, exist_ok=True)
    generated = _write_sources(program, code, tolerance, source)
    shared = [*_LIBRARY, *_KIND[target.kind]]
    with tempfile.TemporaryDirectory(prefix="gensynth-") as folder:
        objects = {}
        for name in (*shared, *_COMMAND):
            objects[name] = Path(folder) / f"{name}.o"
            objects[name].write_bytes(toolchain.compile_cached(_RUNTIME / name))
        for name in generated:
            objects[name] = Path(folder) / f"{name}.o"
            if name.endswith(".c"):
                toolchain.compile(source / name, objects[name])
            else:
                objects[name].write_bytes(code)
        library = [objects[name] for name in (*shared, *generated)]
        run, network = directory / "run", directory / "libnetwork.so"
        toolchain.link([*(objects[name] for name in _COMMAND), *library], run)
        toolchain.link(
            library,
            network,
            "-shared",
            f"-Wl,--version-script={source / 'network.map'}",
            "-Wl,-soname,libnetwork.so",
        )
    run.chmod(0o755)
    needed = [glibc_needed(path.read_bytes()) for path in (run, network)]
    (directory / "weights.bin").write_bytes(program.weights)
    for name in _BESIDE:
        shutil.copyfile(_RUNTIME / name, directory / name)
    files = ["run", "libnetwork.so", "weights.bin", *_BESIDE]
    files += sorted(f"src/{path.name}" for path in source.iterdir())
    return Build(tuple(files), toolchain.version, max(needed, key=_as_numbers))


def _write_sources(program: Program, code: bytes, tolerance: float, source: Path) -> list[str]:
    """Writes `src/` and returns the names of what holds the network: C files, or the kernels' object."""
    kind = program.target.kind
    headers = [*_HEADERS, *_KIND_HEADERS[kind]]
    library = [*_LIBRARY, *_KIND[kind]]
    for name in (*headers, *library, *_COMMAND):
        shutil.copyfile(_RUNTIME / name, source / name)
    (source / "network.c").write_text(network_source(program, tolerance=tolerance))
    generated = ["network.c"]
    if kind == "cuda":
        (source / "kernels.ptx").write_bytes(code)
        (source / "kernels.c").write_text(ptx_source(code))
        generated.append("kernels.c")
    else:
        (source / "kernels.o").write_bytes(code)
        generated.append("kernels.o")
    (source / "network.map").write_text(_EXPORTS)
    (source / "Makefile").write_text(
        _MAKEFILE.format(
            library=" ".join([*library, *generated]), command=" ".join(_COMMAND), headers=" ".join(headers)
        )
    )
    return generated


def _as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)
