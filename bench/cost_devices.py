"""Calibrates the devices that ship, from nothing but their hardware figures, and writes their files anew.

python bench/cost_devices.py --data FOLDER [tegra-x2-gpu raspberry-pi-5 host]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from cost_data import PI_RUNTIMES, jetson, pi_cells, tegra_cells, uncalibrated

import gensynth as gs
from gensynth.passes.cost import Device, load_device, save_device
from gensynth.passes.cost.calibration import Measured, calibrate
from gensynth.passes.cost.errors import errors_by_group

FILES = Path("passes/cost/devices")

OWN_NETWORKS: dict[str, tuple[str, dict[str, object]]] = {
    "ResNet-20": ("resnet", {"depth": 20}),
    "MobileNet v1": ("mobilenet", {"version": 1}),
    "MobileNet v2": ("mobilenet", {"version": 2}),
    "ShuffleNet v2": ("shufflenet", {"version": 2}),
    "SqueezeNet": ("squeezenet", {}),
    "MobileNet v2 at 224": ("mobilenet", {"version": 2, "dataset": "imagenet"}),
    "SqueezeNet at 224": ("squeezenet", {"dataset": "imagenet"}),
}
"""The networks of docs/results/compile_speed.json that are prototypes."""


def tegra(folder: Path) -> tuple[Device, list[Measured], str]:
    """Returns the Tegra X2's GPU, and what was measured on it."""
    start = uncalibrated(load_device("tegra-x2-gpu"))
    _, known = jetson(folder, "Tegra X2")
    data = (
        "Ferraz et al., ICASSP 2023 (github oscarferraz/ICASSP23, dae09e9f): 7 ImageNet networks, fp32 and fp16,"
        " 3 power modes; HW-NAS-Bench: 119 of NAS-Bench-201, fp16 (github AbdeslemHMN/HW-NAS-Memetic, 036e503c)"
    )
    return start, [*known, *tegra_cells(folder, start)], data


def pi(folder: Path) -> tuple[Device, list[Measured], str]:
    """Returns the Raspberry Pi 5, and what was measured on it."""
    measured = [item for runtime in PI_RUNTIMES for item in pi_cells(folder, runtime)[1]]
    data = (
        "HW-NAS-Bench-360 (github roldebijvank, a9b243e0): one network of each class of NAS-Bench-201, CIFAR-100; one"
        " search space, so other networks lie outside"
    )
    return uncalibrated(load_device("raspberry-pi-5")), measured, data


def host(folder: Path) -> tuple[Device, list[Measured], str]:
    """Returns a server, and what GenSynth's own benchmarks measured on one."""
    start = uncalibrated(load_device("host"))
    found = json.loads(Path("docs/results/compile_speed.json").read_text())["networks"]
    measured = []
    for name, (prototype, arguments) in OWN_NETWORKS.items():
        graph = gs.prototype(prototype, **arguments).graph
        for case in found[name]["cases"].values():
            for runtime, key in (("gensynth", "static"), ("onnxruntime", "onnxruntime")):
                if case["threads"] == 2:
                    condition = start.condition(runtime=runtime, batch=case["batch"])
                    measured.append(Measured(graph, condition, 1e3 * case["seconds"][key], None, name, prototype))
    return start, measured, "GenSynth's own (docs/results/compile_speed.json): 2 threads of an AMD EPYC"


DEVICES: dict[str, Callable[[Path], tuple[Device, list[Measured], str]]] = {
    "tegra-x2-gpu": tegra,
    "raspberry-pi-5": pi,
    "host": host,
}


def main() -> None:
    """Writes the device files and prints their errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the measurements")
    parser.add_argument("names", nargs="*", default=list(DEVICES), choices=list(DEVICES), metavar="NAME")
    arguments = parser.parse_args()
    for name in arguments.names:
        start, measured, data = DEVICES[name](arguments.data)
        found = calibrate(start, measured, data=data, on_progress=lambda text: print(text, file=sys.stderr))
        save_device(found.device, FILES / f"{name}.toml")
        for row in errors_by_group(found):
            family = "-" if row.by_family is None else f"{100 * row.by_family:.1f}%"
            errors = f"network {100 * row.by_network:.1f}%, family {family}"
            print(f"{name} {row.group} {row.quantity}: {row.rows} rows, {errors}")


if __name__ == "__main__":
    main()
