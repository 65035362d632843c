"""Targets: what a network is compiled for, as data.

A target is a TOML file in `target_files/`, or one of the user's; `load_target` reads it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gensynth.ir import UsageError, nearest
from gensynth.ir.plugins import load_plugins

from .host import FEATURES, cache_bytes, host_architecture, processor_count, processor_name, vector_registers

__all__ = [
    "ARCHITECTURES",
    "CudaTarget",
    "Target",
    "code_features",
    "known_targets",
    "load_target",
    "register_target",
    "target_names",
]

ARCHITECTURES = ("aarch64", "x86_64")
"""What kernels and the executor can be compiled for, as `uname -m` says it."""

DTYPES = ("f32", "f16")

GLIBC = "2.27"
"""What artifacts need at least, where a target does not say: that of Ubuntu 18.04."""

_FILES = Path(__file__).parent / "target_files"
_HOST = "host"


@dataclass(frozen=True)
class CudaTarget:
    """The GPU of a target: its architecture (`sm_62`), multiprocessors and limits of one thread block."""

    arch: str
    multiprocessors: int
    shared_bytes: int = 48 * 1024
    registers: int = 255
    threads: int = 1024
    ptx_version: str = "6.5"


@dataclass(frozen=True)
class Target:
    """A machine to compile for.

    `llvm` is the TVM target of the host code, without a `kind` (`{"mtriple": "aarch64-linux-gnu", "mcpu":
    "cortex-a57"}`). `lanes` are the float32 lanes of a vector register and `registers` how many of them there are.
    `multiplies_by_lane` says that a multiply-add can take one operand from a lane of a register (NEON's fmla by
    element) instead of a broadcast load. `caches` are the bytes of L1 data and L2 cache per core; of a cache that cores
    share, all of it. `triple` is the linker's (`aarch64-linux-gnu.2.27`). With `cuda`, kernels run on the GPU and the
    executor on the CPU. `sources` says where figures are from, by the name they have in a target file.
    """

    name: str
    description: str
    architecture: str
    llvm: Mapping[str, object] = field(hash=False)
    triple: str
    lanes: int
    registers: int
    cores: int
    caches: tuple[int, int] = (32 * 1024, 512 * 1024)
    multiplies_by_lane: bool = False
    cuda: CudaTarget | None = None
    dtypes: tuple[str, ...] = ("f32",)
    sources: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)

    @property
    def kind(self) -> str:
        """Where kernels run: `cpu` or `cuda`."""
        return "cpu" if self.cuda is None else "cuda"

    def as_dict(self) -> dict[str, object]:
        """Returns the target as data: what a target file says, and the kind, ready for JSON."""
        return {
            "name": self.name,
            "description": self.description,
            "kind": self.kind,
            "architecture": self.architecture,
            "triple": self.triple,
            "lanes": self.lanes,
            "registers": self.registers,
            "cores": self.cores,
            "l1_bytes": self.caches[0],
            "l2_bytes": self.caches[1],
            "multiplies_by_lane": self.multiplies_by_lane,
            "dtypes": list(self.dtypes),
            "llvm": dict(self.llvm),
            "cuda": None if self.cuda is None else dataclasses.asdict(self.cuda),
            "sources": dict(self.sources),
        }


_registered: dict[str, Target] = {}


def register_target(target: Target) -> Target:
    """Makes a target known by its name, and returns it; what an entry point of `gensynth.targets` is to do.

    Raises:
        UsageError: the name is taken by another target.
    """
    known = _registered.get(target.name)
    if target.name in (_HOST, *_built_in()) or (known is not None and known != target):
        raise UsageError(f"there is a target '{target.name}' already", hint="choose another name")
    _registered[target.name] = target
    return target


def _built_in() -> dict[str, Path]:
    return {path.stem: path for path in sorted(_FILES.glob("*.toml"))}


def target_names() -> tuple[str, ...]:
    """Returns the names that `load_target` knows, `host` first."""
    load_plugins("gensynth.targets")
    return (_HOST, *sorted({*_built_in(), *_registered}))


def known_targets() -> tuple[Target, ...]:
    """Returns every target known by name, `host` first; loads no TVM, so the host is without its `llvm`."""
    return tuple(_host(compiling=False) if name == _HOST else load_target(name) for name in target_names())


def load_target(name: str | os.PathLike[str]) -> Target:
    """Returns a target by name, or from a file that ends in `.toml` (a target) or `.json` (one, or a TVM target).

    A TVM target needs `kind` (`llvm` or `cuda`) alone; lanes, registers and the linker's triple follow from it. With
    kind `cuda` it has an `arch`, and in `host` the TVM target of the CPU beside the GPU.

    Raises:
        UsageError: there is no such target, or the file is none; the message says which key and why.
    """
    text = os.fspath(name)
    path = Path(text)
    if path.suffix in (".toml", ".json"):
        return _read(path, path.stem)
    if text == _HOST:
        return _host()
    files = _built_in()
    if text in files:
        return _read(files[text], text)
    if text not in target_names():
        known = nearest(text, target_names(), what="targets")
        raise UsageError(
            f"unknown target '{text}'", hint=f"{known}\nor give a file: a target (.toml) or a TVM one (.json)"
        )
    return _registered[text]


# Files.


def _read(path: Path, name: str) -> Target:
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="give the path of a target file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text: byte {error.start} is not UTF-8", hint="give a target file") from None
    try:
        table = tomllib.loads(content) if path.suffix == ".toml" else json.loads(content)
    except ValueError as error:
        raise UsageError(f"{path}: {error}", hint=f"it is no {path.suffix[1:].upper()}; mend it there") from None
    if not isinstance(table, dict):
        raise UsageError(
            f"{path} holds no table", hint='write an object, such as {"kind": "llvm", "mcpu": "cortex-a72"}'
        )
    if "kind" in table and "architecture" not in table:
        return _from_tvm(table, name, str(path))
    return _from_table(_Table(table, str(path), ""), name)


@dataclass(frozen=True)
class _Table:
    """A table of a target file whose values are taken out by type."""

    values: Mapping[str, object]
    path: str
    prefix: str

    def check(self, known: Iterable[str]) -> None:
        known = tuple(known)
        for key in self.values:
            if key not in known:
                raise self.fault(key, "is no key of a target", hint=nearest(key, known, what="keys"))

    def fault(self, key: str, what: str, *, hint: str) -> UsageError:
        return UsageError(f"{self.path}: '{self.prefix}{key}' {what}", hint=hint)

    def missing(self, key: str, expected: str) -> UsageError:
        return self.fault(key, "is missing", hint=f"give {expected}")

    def text(self, key: str, default: str | None = None, pattern: str = r".+", expected: str = "a text") -> str:
        value = self.values.get(key, default)
        if value is None:
            raise self.missing(key, expected)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise self.fault(key, f"is {value!r}", hint=f"give {expected}")
        return value

    def number(self, key: str, default: int | None = None, most: int = 2**40) -> int:
        value = self.values.get(key, default)
        expected = f"a whole number from 1 to {most}"
        if value is None:
            raise self.missing(key, expected)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self.fault(key, f"is {value!r}", hint=f"give {expected}")
        return value

    def truth(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.fault(key, f"is {value!r}", hint="give true or false")
        return value

    def table(self, key: str) -> _Table:
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.fault(key, "is no table", hint=f"write it as [{self.prefix}{key}]")
        return _Table(value, self.path, f"{self.prefix}{key}.")


_LANES = (4, 8, 16)
_CUDA_ARCH = r"sm_[1-9][0-9]{1,2}[a-z]?"
_KEYS = (
    *("name", "description", "kind", "architecture", "triple", "lanes", "registers", "cores", "l1_bytes", "l2_bytes"),
    *("multiplies_by_lane", "dtypes", "llvm", "cuda", "sources"),
)


def _from_table(table: _Table, name: str) -> Target:
    table.check(_KEYS)
    architecture = _architecture(table)
    lanes = table.number("lanes", 4 if architecture == "aarch64" else None)
    if lanes not in _LANES:
        raise table.fault("lanes", f"is {lanes}", hint=f"kernels can have {', '.join(map(str, _LANES))} float32 lanes")
    cuda = None if table.values.get("cuda") is None else _cuda(table.table("cuda"))
    llvm = table.table("llvm").values
    if "kind" in llvm:
        raise table.table("llvm").fault("kind", "goes without saying", hint="leave it out; a GPU is the table [cuda]")
    described = {"mtriple": f"{architecture}-linux-gnu", **llvm}
    if not table.path.startswith(str(_FILES)):
        _features(_Table(described, table.path, "llvm."))
    sources = table.table("sources")
    return Target(
        name=table.text("name", name),
        description=table.text("description", f"{table.path}"),
        architecture=architecture,
        llvm=described,
        triple=table.text("triple", f"{architecture}-linux-gnu.{GLIBC}"),
        lanes=lanes,
        registers=table.number("registers", 32 if architecture == "aarch64" or lanes == 16 else 16, 64),
        cores=table.number("cores", 4, 1024),
        caches=(table.number("l1_bytes", 32 * 1024), table.number("l2_bytes", 512 * 1024)),
        multiplies_by_lane=table.truth("multiplies_by_lane", architecture == "aarch64"),
        cuda=cuda,
        dtypes=_dtypes(table, cuda),
        sources={key: sources.text(key) for key in sources.values},
    )


def _architecture(table: _Table) -> str:
    shown = " or ".join(ARCHITECTURES)
    return table.text(
        "architecture", pattern="|".join(ARCHITECTURES), expected=f"{shown}, as `uname -m` says on the board"
    )


def _cuda(table: _Table) -> CudaTarget:
    table.check(item.name for item in dataclasses.fields(CudaTarget))
    return CudaTarget(
        arch=table.text("arch", pattern=_CUDA_ARCH, expected="an architecture such as sm_62"),
        multiprocessors=table.number("multiprocessors"),
        shared_bytes=table.number("shared_bytes", CudaTarget.shared_bytes),
        registers=table.number("registers", CudaTarget.registers),
        threads=table.number("threads", CudaTarget.threads, 1024),
        ptx_version=table.text("ptx_version", CudaTarget.ptx_version, r"[1-9]\.[0-9]", "a version such as 6.5"),
    )


def _dtypes(table: _Table, cuda: CudaTarget | None) -> tuple[str, ...]:
    known = DTYPES if cuda is not None else DTYPES[:1]
    value = table.values.get("dtypes", [DTYPES[0]])
    if not isinstance(value, list) or not value or not all(item in known for item in value):
        raise table.fault("dtypes", f"is {value!r}", hint=f"there are kernels for {', '.join(known)}")
    return tuple(value)


# TVM's own targets.


def _from_tvm(table: Mapping[str, object], name: str, path: str) -> Target:
    given = _Table(table, path, "")
    kind = given.text("kind", pattern="llvm|cuda", expected="llvm or cuda; TVM's other kinds have no kernels here")
    host = given.table("host") if kind == "cuda" else given
    if kind == "cuda" and "host" not in table:
        raise given.missing("host", 'the CPU beside the GPU, such as {"kind": "llvm", "mtriple": "aarch64-linux-gnu"}')
    host.text("kind", "llvm", "llvm", "llvm")
    triple = host.text("mtriple", expected="the triple of the CPU, such as aarch64-linux-gnu")
    architecture = {"arm64": "aarch64", "amd64": "x86_64"}.get(triple.split("-")[0], triple.split("-")[0])
    if architecture not in ARCHITECTURES or "linux" not in triple:
        shown = " or ".join(f"{item}-linux-gnu" for item in ARCHITECTURES)
        raise host.fault("mtriple", f"is {triple!r}", hint=f"there are kernels for {shown}")
    features = _features(host)
    wide = {"avx512f", "avx512vl"} <= features
    lanes = 16 if wide else 8 if {"avx2", "fma"} <= features else 4
    cuda = None
    if kind == "cuda":
        cuda = CudaTarget(
            arch=given.text("arch", pattern=_CUDA_ARCH, expected="an architecture such as sm_62"),
            multiprocessors=given.number("multiprocessors", 2),
            shared_bytes=given.number("max_shared_memory_per_block", CudaTarget.shared_bytes),
            threads=given.number("max_threads_per_block", CudaTarget.threads, 1024),
        )
    return Target(
        name=name,
        description=f"TVM's {kind} target of {path}",
        architecture=architecture,
        llvm={key: value for key, value in host.values.items() if key not in ("kind", "num-cores")},
        triple=f"{architecture}-linux-gnu.{GLIBC}",
        lanes=lanes,
        registers=32 if architecture == "aarch64" or wide else 16,
        cores=host.number("num-cores", 4, 1024),
        multiplies_by_lane=architecture == "aarch64",
        cuda=cuda,
        dtypes=DTYPES[: 1 if cuda is None else 2],
    )


def _features(host: _Table) -> frozenset[str]:
    """Returns what LLVM knows the processor to have.

    Raises:
        UsageError: TVM does not take the target.
    """
    import tvm
    from tvm.target.codegen import llvm_get_cpu_archlist, llvm_get_cpu_features

    if "mcpu" in host.values:
        # Asked first, since LLVM writes to stderr when it gets a processor that it does not know.
        triple = {"kind": "llvm", "mtriple": host.text("mtriple")}
        known = sorted(map(str, llvm_get_cpu_archlist(tvm.target.Target(triple))))
        if host.text("mcpu") not in known:
            raise host.fault(
                "mcpu", f"is {host.values['mcpu']!r}", hint=nearest(host.text("mcpu"), known, what="processors")
            )
    try:
        target = tvm.target.Target({"kind": "llvm", **host.values})
    except (ValueError, TypeError) as error:
        told = str(error).partition("Known options")[0].strip()
        raise UsageError(
            f"{host.path}: TVM does not take the processor: {told}", hint="it is that of a TVM target of kind llvm"
        ) from None
    return frozenset(map(str, llvm_get_cpu_features(target)))


# This machine.


def _host(*, compiling: bool = True) -> Target:
    """Returns this machine. Only for compiling does it need LLVM, which knows the processor's name."""
    architecture = host_architecture()
    llvm: Mapping[str, object] = {}
    if compiling:
        if architecture not in ARCHITECTURES:
            raise UsageError(
                f"networks cannot be compiled for this machine, {architecture}",
                hint=f"there are kernels for {' and '.join(ARCHITECTURES)}; give another --target",
            )
        from .objects import host_llvm

        llvm = host_llvm()
    lanes, registers = vector_registers()
    return Target(
        name=_HOST,
        description=f"this machine: {processor_name()}",
        architecture=architecture,
        llvm=llvm,
        triple=f"{architecture}-linux-gnu.{GLIBC}",
        lanes=lanes,
        registers=registers,
        cores=processor_count(),
        caches=(cache_bytes(1, 32 * 1024), cache_bytes(2, 512 * 1024)),
        multiplies_by_lane=architecture == "aarch64",
        sources=dict.fromkeys(("lanes", "cores", "l1_bytes", "l2_bytes"), "what the operating system says"),
    )


def code_features(target: Target) -> tuple[str, ...]:
    """Returns the features that code for a target may use, by LLVM's names; a processor without one cannot run it."""
    import tvm
    from tvm.target.codegen import llvm_get_cpu_features

    found = set(map(str, llvm_get_cpu_features(tvm.target.Target({"kind": "llvm", **target.llvm}))))
    return tuple(sorted(found & set(FEATURES.values())))
