"""The other end of bench/workers/serve.py: starts workers, asks them, and waits until they sleep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Worker", "WorkerError"]

SERVE = Path(__file__).with_name("serve.py")


class WorkerError(Exception):
    """A request that failed."""


class Worker:
    """A process that answers requests, its messages in a log file."""

    def __init__(self, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(SERVE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(environment or {})},
            )

    def ask(self, **request: object) -> dict[str, Any]:
        """Returns the answer to a request, once the worker has come to rest.

        Raises:
            WorkerError: it failed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise WorkerError(f"the worker ended with {self._process.wait()}; see {self._log}")
        self._rest()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _rest(self, most: float = 1.0) -> None:
        """Waits until no thread of the worker runs: pools spin for a while after a run."""
        if not Path("/proc/self/task").is_dir():  # not Linux
            time.sleep(0.1)
            return
        end = time.monotonic() + most
        still = 0
        while still < 3 and time.monotonic() < end:
            time.sleep(0.004)
            still = 0 if self._running() else still + 1

    def _running(self) -> bool:
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            try:
                state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue  # the thread has ended
            if state == "R":
                return True
        return False

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
