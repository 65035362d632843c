"""The folder of a run: which may be taken, and by one process at a time. What lies in it: docs/run-directory.md."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gensynth.ir import UsageError

__all__ = ["CONFIG", "check_folder", "locked"]

CONFIG = "config.toml"
"""The configuration of a run, as it was given."""


def check_folder(folder: Path, source: str, *, resume: bool) -> None:
    """Checks that a folder may hold the run of a configuration, given as its text: a new one, or one to resume.

    Raises:
        UsageError: it is a file, not empty, or holds no run or one of another configuration.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file", hint="choose another --out")
    kept = folder / CONFIG
    if folder.exists() and any(item.name != ".lock" for item in folder.iterdir()):
        if not resume:
            raise UsageError(f"{folder} is not empty", hint="go on with --resume, or choose another --out")
        if not kept.exists():
            raise UsageError(f"{folder} holds no run to resume", hint="choose another --out")
        if kept.read_text(encoding="utf-8") != source:
            raise UsageError(
                f"{folder} holds a run of another configuration", hint=f"compare with {kept}, or choose another --out"
            )


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Holds the run directory for this process alone."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}", hint="choose a folder that can be written") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"another process is working in {out}", hint="wait for it, or choose another --out"
            ) from None
        yield
    finally:
        os.close(descriptor)
