"""The measurements that the cost models are measured against: published ones, in a folder that the user names."""

from __future__ import annotations

import csv
import dataclasses
import gzip
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import gensynth as gs
from gensynth.ir import Graph
from gensynth.passes.cost import Device, load_device
from gensynth.passes.cost.calibration import Measured
from gensynth.passes.cost.device import PowerMode, Runtime
from gensynth.passes.cost.device_files import archetype
from gensynth.passes.cost.workload import LOWERINGS

IMAGENET = {
    "AlexNet": ("alexnet", {}),
    "SqueezeNet": ("squeezenet", {"version": 1.0, "dataset": "imagenet"}),
    "VGG-16": ("vgg", {"depth": 16}),
    "VGG-19": ("vgg", {"depth": 19}),
    **{f"ResNet-{depth}": ("resnet", {"depth": depth, "dataset": "imagenet"}) for depth in (18, 50, 101, 152)},
}
"""The networks of jetson_icassp23.csv; SqueezeNet's version is not stated there, and 1.0 fits."""

SHEETS = {
    "Tegra X2": {
        "TX2": ("MAX-N", 1.3, 1.866),
        "TX2_MAX-P": ("MAX-P", 1.12, 1.6),
        "TX2_MAX-Q": ("MAX-Q", 0.85, 1.331),
    },
    "Xavier": {
        "Xavier": ("MAXN", 1.377, 2.133),
        "Xavier_30W": ("30W", 0.9, 1.6),
        "Xavier_15W": ("15W", 0.67, 1.333),
        "Xavier_15W_Desktop": ("15W-desktop", 0.67, 1.333),
        "Xavier_10W": ("10W", 0.52, 1.066),
    },
    "Nano": {"Nano": ("MAXN", 0.9216, 1.6), "Nano_5W": ("5W", 0.64, 1.6)},
}
"""By device: the sheets of jetson_icassp23.csv, and the power mode, GPU clock and memory clock [GHz] of each."""

PI_RUNTIMES = {"litert": "litert", "onnxruntime": "onnx", "torch": "torchmobile"}
CPUS = ("essential", "gold", "pixel", "raspi", "samsung", "silver", "eyeriss", "fpga")
"""What the names of devices begin with, among the 27 of HELP, that are no GPUs."""


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    """Returns the rows of a CSV file, packed or not."""
    path = folder / name
    with gzip.open(path, "rt", newline="") if name.endswith(".gz") else path.open(newline="") as file:
        return list(csv.DictReader(file))


def uncalibrated(device: Device) -> Device:
    """Returns a device as it is before anything is measured on it: its hardware, and what is believed of its kind."""
    return dataclasses.replace(device, coefficients=archetype(device), evidence={}, seen={}, networks_seen={})


@cache
def imagenet_network(name: str) -> Graph:
    """Returns a network of jetson_icassp23.csv."""
    prototype, arguments = IMAGENET[name]
    return gs.prototype(prototype, **arguments).graph


@cache
def cell_network(arch: str, classes: int = 10) -> Graph:
    """Returns a network of NAS-Bench-201."""
    return gs.prototype("nas-bench-201", arch=arch, classes=classes).graph


@cache
def layer_network(arch: str) -> Graph:
    """Returns a network of the FBNet space."""
    return gs.prototype("fbnet", arch=arch).graph


def jetson(folder: Path, name: str) -> tuple[Device, list[Measured]]:
    """Returns a Jetson before calibration, and the study's measurements on its GPU."""
    sheets = SHEETS[name]
    modes = {mode: PowerMode(clock, memory) for mode, clock, memory in sheets.values()}
    start = uncalibrated(dataclasses.replace(load_device("tegra-x2-gpu"), name=name, power_modes=modes))
    found = []
    for row in rows(folder, "jetson_icassp23.csv"):
        if row["sheet"] in sheets and row["engine"] == "GPU":
            network = _spelled(row["network"])
            condition = start.condition(row["precision"].lower(), sheets[row["sheet"]][0], "tensorrt")
            latency, energy = 1e3 / float(row["fps"]), float(row["mJ_per_image"])
            family = network.split("-")[0]
            found.append(Measured(imagenet_network(network), condition, latency, energy, network, family))
    return start, found


def _spelled(name: str) -> str:
    for prefix in ("ResNet", "VGG"):
        if name.startswith(prefix) and "-" not in name:
            return f"{prefix}-{name.removeprefix(prefix)}"
    return name


def tegra_cells(folder: Path, device: Device) -> list[Measured]:
    """Returns the latencies of NAS-Bench-201 networks on the Tegra X2."""
    condition = device.condition("fp16", "MAX-N", "torch2trt")
    return [
        Measured(cell_network(row["arch"]), condition, float(row["tx2_latency_ms_cifar10"]), None, row["arch"], "cells")
        for row in rows(folder, "tx2_nb201_latency.csv")
    ]


def pi_cells(folder: Path, runtime: str) -> tuple[Device, list[Measured]]:
    """Returns a Raspberry Pi 5 before calibration, and what one network of each class took there under a runtime."""
    start = uncalibrated(load_device("raspberry-pi-5"))
    condition = start.condition("fp32", None, runtime)
    column = PI_RUNTIMES[runtime]
    found = []
    for row in rows(folder, "nb201_hw.csv.gz"):
        latency, energy = row[f"pi5_{column}_lat_ms_c100"], row[f"pi5_{column}_energy_mJ_c100"]
        if latency and row["index"] == row["iso_rep_index"]:
            graph = cell_network(row["arch"], 100)
            found.append(Measured(graph, condition, float(latency), float(energy), row["arch"], "cells"))
    return start, found


def many_devices(folder: Path, space: str) -> Iterator[tuple[str, Device, list[tuple[str, float]]]]:
    """Yields each of HELP's devices: its name, the device before calibration, and (architecture, milliseconds)."""
    table = rows(folder, "nb201_hw.csv.gz" if space == "cells" else "fbnet_hw.csv.gz")
    for column in table[0]:
        if column.startswith("lat_ms_"):
            name = column.removeprefix("lat_ms_")
            yield name, _plain(name), [(row["arch"], float(row[column])) for row in table if row[column]]


def _plain(name: str) -> Device:
    """Returns what is believed of a device of which only its kind is known."""
    like = uncalibrated(load_device("raspberry-pi-5" if name.startswith(CPUS) else "tegra-x2-gpu"))
    one = dataclasses.replace(
        like,
        name=name,
        precisions={"fp32": like.precisions["fp32"]},
        power_modes=dict([next(iter(like.power_modes.items()))]),
        runtimes={"measured": Runtime(LOWERINGS["eager"])},
    )
    return uncalibrated(one)


def on_device(name: str, device: Device, space: str, taken: Sequence[tuple[str, float]]) -> list[Measured]:
    """Returns measurements of some architectures on one of HELP's devices."""
    batch = 1 if name.startswith(CPUS) else int(name.rsplit("_", 1)[1])
    condition = device.condition(batch=batch)
    build = cell_network if space == "cells" else layer_network
    return [Measured(build(arch), condition, latency, None, arch, space) for arch, latency in taken]
