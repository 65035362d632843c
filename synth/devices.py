"""The devices of a run: kept in its directory, and the figures that results give for the first of them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from gensynth.ir import Graph, UsageError, write_atomically
from gensynth.passes.cost import CostModel, parse_device, save_device

__all__ = ["device_figures", "keep_devices"]


def device_figures(graph: Graph, model: CostModel | None) -> dict[str, object]:
    """Returns what results say of a network on a device: milliseconds and millijoules with 90% intervals [low, high].

    It is empty where there is no device.
    """
    if model is None:
        return {}
    found = model.estimate(graph)
    return {
        "latency_ms": found.latency.value,
        "latency_interval_ms": [found.latency.low, found.latency.high],
        "energy_mj": found.energy.value,
        "energy_interval_mj": [found.energy.low, found.energy.high],
    }


def keep_devices(names: Iterable[str], folder: Path) -> None:
    """Writes the device file of each device text into a run's folder, where it is not there yet.

    Raises:
        UsageError: one is there already and differs: the run rests on other coefficients.
    """
    for name in names:
        device, _ = parse_device(name)
        kept = folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', device.name)}.toml"
        with tempfile.TemporaryDirectory() as aside:
            save_device(device, Path(aside) / kept.name)
            content = (Path(aside) / kept.name).read_bytes()
        if not kept.exists():
            write_atomically(kept, content)
        elif kept.read_bytes() != content:
            raise UsageError(
                f"the device '{device.name}' is not what {kept} says, on which this run's figures rest",
                hint="a device file that has changed needs another --out; two devices of one run need two names",
            )
