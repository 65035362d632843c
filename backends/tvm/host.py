"""This machine as a target sees it: what the operating system says of its processor. Loads no library."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "FEATURES",
    "cache_bytes",
    "host_architecture",
    "host_features",
    "processor_count",
    "processor_name",
    "vector_registers",
]


def host_architecture() -> str:
    """Returns this machine's architecture as artifacts name it: `x86_64`, `aarch64`, or what the system says."""
    import platform

    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


@functools.cache
def _cpuinfo() -> Mapping[str, str]:
    """Returns what the system says of the first processor; empty where it does not."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _host_flags() -> frozenset[str]:
    facts = _cpuinfo()
    return frozenset((facts.get("flags") or facts.get("Features", "")).split())


FEATURES = {
    "sse4_2": "sse4.2",
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "bmi1": "bmi",
    "bmi2": "bmi2",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "asimd": "neon",
    "asimdhp": "fullfp16",
    "asimddp": "dotprod",
}
"""LLVM's names of what float kernels may use, by the operating system's."""


def host_features() -> frozenset[str]:
    """Returns which of the features that kernels may use this machine has, by LLVM's names."""
    flags = _host_flags()
    return frozenset(feature for flag, feature in FEATURES.items() if flag in flags)


def processor_count() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def vector_registers() -> tuple[int, int]:
    """Returns the float32 lanes of this machine's vector registers, and how many of them there are."""
    if host_architecture() != "x86_64":
        return 4, 32
    features = host_features()
    if {"avx512f", "avx512vl"} <= features:
        return 16, 32
    return (8 if {"avx2", "fma"} <= features else 4), 16


def processor_name() -> str:
    """Returns the processor's name, or the architecture where the system does not say."""
    return _cpuinfo().get("model name") or host_architecture()


def cache_bytes(level: int, default: int) -> int:
    """Returns the bytes of a data cache of this machine's first core, or the default where the system does not say."""
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            facts = {name: (folder / name).read_text(encoding="ascii").strip() for name in ("level", "type", "size")}
        except OSError:
            continue
        size = re.fullmatch(r"(\d+)([KM]?)", facts["size"])
        if facts["level"] == str(level) and facts["type"] in ("Data", "Unified") and size:
            return int(size[1]) * {"": 1, "K": 1024, "M": 1024**2}[size[2]]
    return default
