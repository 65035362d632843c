"""Executors: where evaluations run. This machine's processes here; anything with the same two methods will do."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from typing import Protocol, TypeVar

from gensynth.ir import GenSynthError, UsageError

__all__ = ["Executor", "LocalExecutor"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Executor(Protocol):
    """Runs a function of one picklable argument on many items."""

    def map(self, function: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> Iterator[tuple[int, ResultT]]:
        """Yields (index of the item, result) as results come in, in any order."""

    def close(self) -> None:
        """Ends the workers."""


def _start_worker(parent: int) -> None:
    """Prepares a worker, which keeps to one thread of torch, for equal results, and ends when its parent is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _one_thread()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


class LocalExecutor:
    """Runs on processes of this machine, each with one thread; `processes=0` runs in this process."""

    def __init__(self, processes: int | None = None) -> None:
        """Uses as many processes as this one may use CPUs unless told otherwise."""
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.processes = available if processes is None else processes
        if self.processes < 0:
            raise UsageError(f"processes must be 0 or more, got {self.processes}", hint="0 runs in this process")
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> Iterator[tuple[int, ResultT]]:
        """Yields results as they come in.

        Raises:
            GenSynthError: an evaluation failed, or a worker died.
        """
        if self.processes == 0:
            import torch

            threads = torch.get_num_threads()
            _one_thread()
            try:
                for index, item in enumerate(items):
                    yield index, function(item)
            finally:
                torch.set_num_threads(threads)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(os.getpid(),),
            )
        pending: dict[Future[ResultT], int] = {
            self._pool.submit(function, item): index for index, item in enumerate(items)
        }
        try:
            while pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=pending.__getitem__):
                    yield pending.pop(future), future.result()
        except BrokenExecutor as error:
            raise GenSynthError(
                f"a worker process ended unexpectedly: {error}",
                hint="it may have run out of memory: use fewer processes and --resume; a script must start a synthesis"
                " below `if __name__ == '__main__':`, since workers import it",
            ) from error
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """Ends the worker processes; what has not started is given up."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
