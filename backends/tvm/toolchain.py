"""C compilers for targets: which one, and what to do where there is none."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from gensynth.ir import UsageError, write_atomically

from .host import host_architecture

__all__ = ["COMPILER_VARIABLE", "Toolchain", "cache_directory", "find_toolchain", "glibc_needed", "host_triple"]

COMPILER_VARIABLE = "GENSYNTH_CC"
"""The environment variable that names the compiler, with its options: `GENSYNTH_CC="clang-15 --target=..."`."""

COMPILE_FLAGS = ("-std=c99", "-O2", "-g0", "-fPIC", "-fvisibility=hidden")
LINK_FLAGS = ("-Wl,-z,noexecstack", "-pthread", "-ldl", "-lm")

_MACHINES = {"x86_64": 62, "aarch64": 183}
"""ELF's e_machine of an architecture."""


@dataclass(frozen=True)
class Toolchain:
    """A C compiler that also links, for one target triple.

    `command` are its first words, `version` its name and version. Zig's takes the glibc to link against from the triple
    (`aarch64-linux-gnu.2.27`); others take that of the system they run on.
    """

    command: tuple[str, ...]
    version: str
    triple: str

    @property
    def architecture(self) -> str:
        """The first part of the triple."""
        return self.triple.partition("-")[0]

    def compile(self, source: Path, to: Path, *flags: str) -> None:
        """Compiles a C file to an object.

        Raises:
            UsageError: the compiler fails.
        """
        self._run([*COMPILE_FLAGS, *flags, "-c", str(source), "-o", str(to)], f"compile {source.name}")

    def compile_cached(self, source: Path, *flags: str) -> bytes:
        """Returns the object of a C file, from the cache if it is there.

        What counts is the content of the file and of all headers in its folder, the flags and the compiler.
        """
        digest = hashlib.sha256(repr((self.command, self.version, self.triple, COMPILE_FLAGS, flags)).encode())
        for path in (source, *sorted(source.parent.glob("*.h"))):
            digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
        kept = cache_directory() / "objects" / f"{source.stem}-{digest.hexdigest()[:32]}.o"
        if kept.is_file():
            return kept.read_bytes()
        with tempfile.TemporaryDirectory(prefix="gensynth-") as folder:
            made = Path(folder) / "object.o"
            self.compile(source, made, *flags)
            code = made.read_bytes()
        with suppress(UsageError):  # a cache that cannot be written only costs time
            write_atomically(kept, code)
        return code

    def link(self, objects: Sequence[Path], to: Path, *flags: str) -> None:
        """Links objects to an executable, or with `-shared` to a library, and checks that it is for the target.

        Raises:
            UsageError: the linker fails, or makes what another architecture runs.
        """
        self._run([*map(str, objects), "-o", str(to), *flags, *LINK_FLAGS], f"link {to.name}")
        machine = int.from_bytes(to.read_bytes()[18:20], "little")
        wanted = _MACHINES.get(self.architecture)
        if wanted is not None and machine != wanted:
            raise UsageError(
                f"{shlex.join(self.command)} makes programs of another architecture than {self.architecture}",
                hint=f"set {COMPILER_VARIABLE} to a compiler for {self.triple}, or unset it",
            )

    def _run(self, arguments: Sequence[str], doing: str) -> None:
        command = [*self.command, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise UsageError(
                f"{self.command[0]} cannot be started to {doing}: {error.strerror}",
                hint=f"set {COMPILER_VARIABLE} to another C compiler",
            ) from None
        if done.returncode:
            raise UsageError(
                f"{self.version} could not {doing} for {self.triple}:\n{done.stderr.strip()}",
                hint=f"set {COMPILER_VARIABLE} to use another compiler; the command was: {shlex.join(command)}",
            )


def host_triple() -> str:
    """Returns this machine's triple, such as `x86_64-linux-gnu`."""
    return f"{host_architecture()}-linux-gnu"


def find_toolchain(triple: str, *, portable: bool = True) -> Toolchain:
    """Returns the C compiler for a triple: that of GENSYNTH_CC, otherwise Zig's, otherwise the system's.

    Zig's comes as the package `ziglang`, compiles for every target and links against the glibc that the triple names,
    so that the result runs on systems older than this one. Where that does not matter (`portable=False`: what is made
    runs here and now), a system compiler goes first.

    Raises:
        UsageError: there is none.
    """
    named = os.environ.get(COMPILER_VARIABLE, "").strip()
    if named:
        try:
            words = tuple(shlex.split(named))
        except ValueError as error:
            raise UsageError(f"{COMPILER_VARIABLE} is {named!r}: {error}", hint="write it like a command") from None
        if shutil.which(words[0]) is None:
            raise UsageError(
                f"{COMPILER_VARIABLE} is {named!r}, and there is no program {words[0]}", hint="name one, or unset it"
            )
        return Toolchain(words, _version_of(words), triple)
    finders = (_find_zig, _find_system) if portable else (_find_system, _find_zig)
    for find in finders:
        found = find(triple)
        if found is not None:
            return found
    raise UsageError(f"there is no C compiler for {triple}", hint=_remedy(triple))


def cache_directory() -> Path:
    """Returns where compiled objects are kept: `gensynth` in XDG_CACHE_HOME, which by default is `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gensynth"


def glibc_needed(binary: bytes) -> str:
    """Returns the newest glibc version that a program or library asks for, such as `2.17`; "" if it asks for none."""
    found = {tuple(map(int, match.split(b"."))) for match in re.findall(rb"\0GLIBC_(\d+(?:\.\d+)+)(?=\0)", binary)}
    return ".".join(map(str, max(found))) if found else ""


def _find_zig(triple: str) -> Toolchain | None:
    spec = find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "zig"
    # The package's own module starts the same program; without it each call is faster by a start of Python.
    first = (str(program),) if program.exists() else (sys.executable, "-m", "ziglang")
    try:
        name = f"zig {version('ziglang')}"
    except PackageNotFoundError:
        name = "zig"
    return Toolchain((*first, "cc", "-target", triple), name, triple)


def _find_system(triple: str) -> Toolchain | None:
    plain = _without_glibc(triple)
    names = ("cc", "gcc", "clang") if plain == host_triple() else (f"{plain}-gcc", f"{plain}-clang")
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return Toolchain((path,), _version_of((path,)), triple)
    return None


def _without_glibc(triple: str) -> str:
    return re.sub(r"\.\d+(\.\d+)*$", "", triple)


@cache
def _version_of(command: tuple[str, ...]) -> str:
    name = Path(command[0]).name
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return name
    first = done.stdout.strip().splitlines()
    return first[0] if done.returncode == 0 and first else name


def _remedy(triple: str) -> str:
    packages: Mapping[str, str] = {"aarch64": "gcc-aarch64-linux-gnu", "x86_64": "gcc-x86-64-linux-gnu"}
    architecture = triple.partition("-")[0]
    package = "gcc" if _without_glibc(triple) == host_triple() else packages.get(architecture)
    other = f", or: sudo apt-get install {package}" if package else ""
    return f"pip install ziglang{other}, or set {COMPILER_VARIABLE} to a compiler"
