"""The pass manager: runs a pipeline, verifies after every pass, and lets instruments watch."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from gensynth.ir import (
    GenSynthError,
    Graph,
    Network,
    PassError,
    VerifyError,
    check_weights,
    save_weights,
    to_text,
    verify,
    write_atomically,
)
from gensynth.passes.cost import CostModel, Estimate, Totals, totals

from .base import Pass, PassResult
from .pipeline import parse_pipeline

__all__ = ["DumpIR", "Instrument", "Ledger", "LedgerRow", "PassManager", "PrintIR", "run_pipeline"]


class Instrument(Protocol):
    """What may watch a pipeline. Passes know nothing of it."""

    def before(self, position: int, item: Pass, network: Network) -> None:
        """Is called before a pass."""

    def after(self, position: int, item: Pass, before: Network, result: PassResult, seconds: float) -> None:
        """Is called after a pass that succeeded."""


@dataclass(frozen=True)
class LedgerRow:
    """What one pass did: nodes and totals before and after (totals are None while choices are open), and its time.

    Where the ledger has a device, the estimates are of latency and energy there, None while choices are open.
    """

    item: str
    changed: bool
    notes: tuple[str, ...]
    nodes_before: int
    nodes_after: int
    choices_after: int
    before: Totals | None
    after: Totals | None
    seconds: float
    estimate_before: Estimate | None = None
    estimate_after: Estimate | None = None

    def as_dict(self) -> dict[str, object]:
        """Returns the row for JSON; latency and energy, with their intervals, where they are known."""
        found: dict[str, object] = {
            "pass": self.item,
            "changed": self.changed,
            "notes": list(self.notes),
            "nodes": [self.nodes_before, self.nodes_after],
            "choices": self.choices_after,
            "before": None if self.before is None else self.before._asdict(),
            "after": None if self.after is None else self.after._asdict(),
            "seconds": self.seconds,
        }
        estimates = (self.estimate_before, self.estimate_after)
        if estimates != (None, None):
            latencies = [None if item is None else item.latency for item in estimates]
            energies = [None if item is None else item.energy for item in estimates]
            for name, unit, values in (("latency", "ms", latencies), ("energy", "mj", energies)):
                found[f"{name}_{unit}"] = [None if item is None else item.value for item in values]
                found[f"{name}_interval_{unit}"] = [None if item is None else [item.low, item.high] for item in values]
        return found


@dataclass
class Ledger:
    """An instrument that keeps, per pass, what the network cost before and after; with a model also on its device."""

    device: CostModel | None = None
    rows: list[LedgerRow] = field(default_factory=list)

    def before(self, position: int, item: Pass, network: Network) -> None:
        """Does nothing: costs are read off when the pass is done."""

    def after(self, position: int, item: Pass, before: Network, result: PassResult, seconds: float) -> None:
        """Adds a row."""
        old, new = before.graph, result.network.graph
        self.rows.append(
            LedgerRow(
                item.text(),
                result.changed,
                result.notes,
                sum(1 for _ in old.walk()),
                sum(1 for _ in new.walk()),
                len(new.choices),
                None if old.is_generator else totals(old),
                None if new.is_generator else totals(new),
                seconds,
                self._estimate(old),
                self._estimate(new),
            )
        )

    def _estimate(self, graph: Graph) -> Estimate | None:
        return None if self.device is None or graph.is_generator else self.device.estimate(graph)


@dataclass
class PrintIR:
    """An instrument that prints the IR before or after passes (all of them, or those named)."""

    stream: TextIO
    when: str = "after"
    names: frozenset[str] | None = None

    def before(self, position: int, item: Pass, network: Network) -> None:
        """Prints when `when` is "before"."""
        if self.when == "before" and (self.names is None or item.name in self.names):
            self.stream.write(f"// IR before {item.text()}\n{to_text(network.graph)}\n")

    def after(self, position: int, item: Pass, before: Network, result: PassResult, seconds: float) -> None:
        """Prints when `when` is "after"."""
        if self.when == "after" and (self.names is None or item.name in self.names):
            unchanged = "" if result.changed else " (no change)"
            self.stream.write(f"// IR after {item.text()}{unchanged}\n{to_text(result.network.graph)}\n")


@dataclass
class DumpIR:
    """An instrument that writes `NNN_pass.gsir` after every pass, and `000_input.gsir` at the start."""

    folder: Path

    def before(self, position: int, item: Pass, network: Network) -> None:
        """Writes the input of the first pass."""
        if position == 0:
            write_atomically(self.folder / "000_input.gsir", to_text(network.graph).encode())

    def after(self, position: int, item: Pass, before: Network, result: PassResult, seconds: float) -> None:
        """Writes the result."""
        name = f"{position + 1:03d}_{re.sub(r'[^A-Za-z0-9-]', '_', item.name)}.gsir"
        write_atomically(self.folder / name, to_text(result.network.graph).encode())


class PassManager:
    """Runs passes one after another."""

    def __init__(
        self,
        passes: Sequence[Pass] | str,
        *,
        instruments: Sequence[Instrument] = (),
        verify: bool = True,
        reproducers: Path | None = None,
    ) -> None:
        """Takes passes or their textual pipeline.

        With `verify` (the default) the graph and the weights are checked after every pass. A pass that crashes leaves
        a reproducer (the IR before it, weights, and the command to run) in `reproducers`, else in a temporary folder.
        """
        self.passes = parse_pipeline(passes) if isinstance(passes, str) else tuple(passes)
        self.instruments = tuple(instruments)
        self.verify = verify
        self.reproducers = reproducers

    def run(self, network: Network) -> Network:
        """Returns the network after all passes.

        Raises:
            PassError: a pass refuses the network, breaks an invariant, or crashes (with the path of the reproducer).
        """
        for position, item in enumerate(self.passes):
            for instrument in self.instruments:
                instrument.before(position, item, network)
            started = time.perf_counter()
            result = self._run_one(item, network)
            seconds = time.perf_counter() - started
            for instrument in self.instruments:
                instrument.after(position, item, network, result, seconds)
            network = result.network
        return network

    def _run_one(self, item: Pass, network: Network) -> PassResult:
        try:
            result = item.run(network)
        except GenSynthError as error:
            if isinstance(error, VerifyError):
                raise self._crash(item, network, f"broke an invariant: {error}") from error
            raise
        except RecursionError as error:
            raise self._crash(item, network, "recursed too deeply") from error
        except Exception as error:
            raise self._crash(item, network, f"crashed: {type(error).__name__}: {error}") from error
        if self.verify:
            try:
                verify(result.network.graph)
                if result.network.weights is not None:
                    check_weights(result.network.graph, result.network.weights)
            except GenSynthError as error:
                raise self._crash(item, network, f"gave an invalid network: {error.message}") from error
        return result

    def _crash(self, item: Pass, network: Network, what: str) -> PassError:
        folder = self.reproducers or Path(tempfile.mkdtemp(prefix="gensynth-crash-"))
        path = folder / f"{network.graph.name}-before-{item.name}.gsir"
        write_atomically(path, to_text(network.graph).encode())
        if network.weights is not None:
            save_weights(network.weights, path.with_suffix(".safetensors"))
        return PassError(
            f"pass {item.text()} {what}",
            hint=f"this is a defect of the pass; to see it again: gensynth opt {path} --passes '{item.text()}'",
        )


def run_pipeline(network: Network, passes: Sequence[Pass] | str, *, instruments: Sequence[Instrument] = ()) -> Network:
    """Returns the network after a pipeline, e.g. `run_pipeline(net, "fold-batch-norm,canonicalize")`.

    Raises:
        ParseError: the pipeline text cannot be read.
        PassError: a pass refuses or fails.
    """
    return PassManager(passes, instruments=instruments).run(network)
