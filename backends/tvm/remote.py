"""The client of a TVM RPC server that measures an artifact: `python -m gensynth.backends.tvm.remote`.

    HOST PORT FOLDER THREADS REPETITIONS WARM-UP

Uploads libnetwork.so and weights.bin, calls the functions of runtime/remote.c, and prints one line of JSON: `threads`
and the `seconds` of each repetition, or a `problem` with a `hint`, and whether the `user` can mend it.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

__all__ = ["main"]

_PATIENCE = 30.0
"""Seconds that a server may take to answer at first; it serves one client at a time."""


class _Module(Protocol):
    def __getitem__(self, name: str) -> Callable[..., float]: ...


class _Session(Protocol):
    def upload(self, data: str) -> None: ...

    def load_module(self, path: str) -> _Module: ...


class _Problem(Exception):
    def __init__(self, problem: str, hint: str, *, user: bool = True) -> None:
        super().__init__(problem)
        self.problem, self.hint, self.user = problem, hint, user


def main(argv: list[str]) -> int:
    """Measures, prints the result and returns the exit code."""
    host, folder = argv[0], argv[2]
    port, threads, repetitions, warm_up = (int(argv[index]) for index in (1, 3, 4, 5))
    try:
        session = _connect(host, port)
        found = _measure(_upload(session, folder), threads, repetitions, warm_up)
    except _Problem as problem:
        print(json.dumps({"problem": problem.problem, "hint": problem.hint, "user": problem.user}))
        return 2
    print(json.dumps(found))
    return 0


def _connect(host: str, port: int) -> _Session:
    start = f"on the board: python -m tvm.exec.rpc_server --host 0.0.0.0 --port {port}"
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        raise _Problem(f"cannot be reached: {error.strerror or error}", start) from None
    try:
        from tvm import rpc
    except ModuleNotFoundError as error:
        raise _Problem(
            f"needs {error.name} on this side, which is not installed", f"pip install {error.name}"
        ) from None
    busy = {"problem": "does not answer", "hint": f"is it busy with another client? Or start one {start}", "user": True}
    watch = threading.Timer(_PATIENCE, lambda: (print(json.dumps(busy), flush=True), os._exit(2)))
    watch.daemon = True
    watch.start()
    try:
        session: _Session = rpc.connect(host, port)
    except (RuntimeError, OSError, ValueError) as error:
        raise _Problem(f"is no RPC server of TVM: {_last_line(error)}", start) from None
    finally:
        watch.cancel()
    return session


def _upload(session: _Session, folder: str) -> _Module:
    for name in ("weights.bin", "libnetwork.so"):
        session.upload(str(Path(folder, name)))
    try:
        return session.load_module("libnetwork.so")
    except (RuntimeError, OSError) as error:
        raise _Problem(
            f"cannot load the network: {_last_line(error)}", "is it such a machine as the artifact is for?"
        ) from None


def _measure(module: _Module, threads: int, repetitions: int, warm_up: int) -> dict[str, object]:
    def call(name: str, *arguments: int) -> float:
        try:
            return module[f"gensynth_{name}"](*arguments)
        except (AttributeError, RuntimeError, OSError) as error:
            raise _Problem(f"failed in {name}: {_last_line(error)}", "see the server's log", user=False) from None

    def check(status: float) -> None:
        if status:
            codes = itertools.takewhile(bool, (int(call("text", index)) for index in itertools.count()))
            raise _Problem(f"says: {''.join(map(chr, codes))}", "see the server's log", user=False)

    check(call("open", threads))
    check(call("run", repetitions, warm_up))
    seconds = [float(call("seconds", index)) for index in range(repetitions)]
    used = int(call("threads"))
    call("close")
    return {"threads": used, "seconds": seconds}


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
