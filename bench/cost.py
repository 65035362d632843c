"""How well latency and energy are predicted, on published measurements that the fits did not see.

python bench/cost.py --data FOLDER [--json OUT] [--sections jetson,tegra-cells,pi,many,intervals,depthwise,speed]

FOLDER holds jetson_icassp23.csv, tx2_nb201_latency.csv, tx2_published.csv, nb201_hw.csv.gz and fbnet_hw.csv.gz.
Whatever is held out is so by network or by family, never by row. Devices start as they are before calibration: hardware
figures, and what is believed of their kind.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cost_data import (
    PI_RUNTIMES,
    SHEETS,
    jetson,
    many_devices,
    on_device,
    pi_cells,
    tegra_cells,
)
from cost_models import BASELINES, Fit, device_model, fitted_model, values
from cost_published import depthwise
from cost_speed import speed
from harness import machine, print_table, write_json

from gensynth.passes.cost import cost_model
from gensynth.passes.cost.calibration import Measured, calibrate, known_devices_prior
from gensynth.passes.cost.errors import group_of, spearman

Vector = npt.NDArray[np.float64]
OURS = "cost model"


def shuffled(count: int, draw: int) -> list[int]:
    """Returns a permutation that depends on the draw alone."""
    return np.random.Generator(np.random.Philox(key=draw)).permutation(count).tolist()


def score(measured: Sequence[Measured], predicted: Vector, quantity: str) -> dict[str, float]:
    """Returns the median relative error [%] and the mean over conditions of Spearman's correlation."""
    truth = values(measured, quantity)
    ranks = []
    for group in dict.fromkeys(map(group_of, measured)):
        mine = [place for place, item in enumerate(measured) if group_of(item) == group]
        found = spearman(truth[mine].tolist(), predicted[mine].tolist())
        ranks.append(0.0 if found is None else found)
    return {"error": float(100 * np.median(np.abs(predicted / truth - 1))), "spearman": float(np.mean(ranks))}


def leave_out(
    fit: Fit, measured: Sequence[Measured], by: str, quantities: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Returns scores with each network, or family, predicted by a fit to all others."""
    predicted = {quantity: np.zeros(len(measured)) for quantity in quantities}
    for group in dict.fromkeys(getattr(item, by) for item in measured):
        out = [place for place, item in enumerate(measured) if getattr(item, by) == group]
        model = fit([item for item in measured if getattr(item, by) != group], quantities)
        for quantity in quantities:
            predicted[quantity][out] = model([measured[place] for place in out], quantity)
    return {quantity: score(measured, predicted[quantity], quantity) for quantity in quantities}


def from_few(
    fit: Fit, measured: Sequence[Measured], count: int, draws: int, quantities: Sequence[str], test: int = 1000
) -> dict[str, dict[str, float]]:
    """Returns mean scores of fits to `count` random networks on up to `test` others."""
    found: dict[str, list[dict[str, float]]] = {quantity: [] for quantity in quantities}
    for draw in range(draws):
        order = shuffled(len(measured), draw)
        model = fit([measured[place] for place in order[:count]], quantities)
        rest = [measured[place] for place in order[count : count + test]]
        for quantity in quantities:
            found[quantity].append(score(rest, model(rest, quantity), quantity))
    return {quantity: mean(scores) for quantity, scores in found.items()}


def mean(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of each score."""
    return {name: float(np.mean([item[name] for item in scores])) for name in scores[0]}


def folds(fit: Fit, measured: Sequence[Measured], count: int, draws: int) -> dict[str, float]:
    """Returns mean scores of latency by cross-validation, over several ways of cutting into folds."""
    found = []
    for draw in range(draws):
        order = shuffled(len(measured), draw)
        predicted = np.zeros(len(measured))
        for fold in range(count):
            out = order[fold::count]
            inside = set(out)
            model = fit([measured[place] for place in order if place not in inside], ["latency"])
            predicted[out] = model([measured[place] for place in out], "latency")
        found.append(score(measured, predicted, "latency"))
    return mean(found)


# The sections.


def jetson_section(folder: Path) -> dict[str, Any]:
    """Known ImageNet networks on three Jetsons, fp32 and fp16, in all power modes."""
    result: dict[str, Any] = {}
    for name in SHEETS:
        start, measured = jetson(folder, name)
        models = {**BASELINES, OURS: device_model(start, choose=False)}
        if name == "Tegra X2":
            cells = tegra_cells(folder, start)
            models[f"{OURS}, small networks added"] = device_model(start, choose=False, extra=cells)
        result[name] = {
            "rows": len(measured),
            "networks": len({item.network for item in measured}),
            "models": {
                label: {by: leave_out(fit, measured, by, ("latency", "energy")) for by in ("network", "family")}
                for label, fit in models.items()
            },
        }
    return result


def tegra_cells_section(folder: Path) -> dict[str, Any]:
    """NAS-Bench-201 on the Tegra X2."""
    start, known = jetson(folder, "Tegra X2")
    measured = tegra_cells(folder, start)
    models = {**BASELINES, OURS: device_model(start)}
    result: dict[str, Any] = {"networks": len(measured), "5 folds": {}, "from 20": {}, "from ImageNet networks": {}}
    for label, fit in models.items():
        result["5 folds"][label] = folds(fit, measured, 5, 5)
        result["from 20"][label] = from_few(fit, measured, 20, 30, ["latency"])["latency"]
    calibrated = fitted_model(calibrate(start, known, cross_validate=False, choose=False).device)
    result["from ImageNet networks"][OURS] = score(measured, calibrated(measured, "latency"), "latency")
    both = device_model(start, extra=known, choose=False)
    result["5 folds"][f"{OURS}, ImageNet networks added"] = folds(both, measured, 5, 2)
    return result


def pi_section(folder: Path) -> dict[str, Any]:
    """NAS-Bench-201 on a Raspberry Pi 5, from 50 networks."""
    result: dict[str, Any] = {}
    for runtime in PI_RUNTIMES:
        start, measured = pi_cells(folder, runtime)
        models = {**BASELINES, OURS: device_model(start)}
        result[runtime] = {
            "networks": len(measured),
            "models": {
                label: from_few(fit, measured, 50, 10, ("latency", "energy"), test=2000)
                for label, fit in models.items()
            },
        }
    return result


def many_section(folder: Path) -> dict[str, Any]:
    """All 27 devices, 20 networks each, with and without what the other devices tell."""
    return {space: _many(folder, space) for space in ("cells", "layers")}


def _many(folder: Path, space: str) -> dict[str, Any]:
    count, pool, test, draws = 20, 1500, 1000, 5
    devices: dict[str, tuple[Any, list[Measured]]] = {}
    for name, start, taken in many_devices(folder, space):
        order = shuffled(len(taken), 100)[:pool]
        devices[name] = start, on_device(name, start, space, [taken[place] for place in order])
    full = {}
    for name, (start, measured) in devices.items():
        lowering = calibrate(start, measured[:120], cross_validate=False).device.runtimes
        full[name] = calibrate(
            start, measured[:300], lowering=lowering["measured"].lowering, cross_validate=False
        ).device
    result: dict[str, Any] = {}
    for name, (start, measured) in devices.items():
        root = name.rsplit("_", 1)[0]
        others = [item for other, item in full.items() if item.kind == start.kind and other.rsplit("_", 1)[0] != root]
        models = {**BASELINES, OURS: device_model(start), f"{OURS}, devices known": _with_known(start, others)}
        result[name] = {
            label: from_few(fit, measured, count, draws, ["latency"], test)["latency"] for label, fit in models.items()
        }
        told = ", ".join(f"{label} {found['spearman']:.3f}" for label, found in result[name].items())
        print(f"{space} {name}: {told}", file=sys.stderr, flush=True)
    labels = next(iter(result.values()))
    return {"devices": result, "mean": {label: mean([row[label] for row in result.values()]) for label in labels}}


def _with_known(start: Any, others: Sequence[Any]) -> Fit:
    return device_model(start, prior=known_devices_prior(others))


def intervals_section(folder: Path) -> dict[str, Any]:
    """Whether intervals of nominally 90% hold 90% of what is measured."""
    start, _ = jetson(folder, "Tegra X2")
    sets: dict[str, tuple[Any, list[Measured], str]] = {
        "Tegra X2, torch2trt, latency": (start, tegra_cells(folder, start), "latency")
    }
    for runtime in PI_RUNTIMES:
        pi, measured = pi_cells(folder, runtime)
        for quantity in ("latency", "energy"):
            sets[f"Raspberry Pi 5, {runtime}, {quantity}"] = pi, measured, quantity
    result: dict[str, Any] = {}
    for label, (device, measured, quantity) in sets.items():
        result[label] = {}
        for count in (20, 50, 95):
            covered, widths = [], []
            for draw in range(30):
                order = shuffled(len(measured), draw)
                taken = [measured[place] for place in order[:count]]
                lowering = device.runtimes[taken[0].condition.runtime].lowering
                fitted = calibrate(device, taken, lowering=lowering).device
                model = cost_model(
                    fitted,
                    precision=taken[0].condition.precision,
                    power_mode=taken[0].condition.power_mode,
                    runtime=taken[0].condition.runtime,
                )
                rest = [measured[place] for place in order[count : count + 200]]
                found = [getattr(model.estimate(item.graph), quantity) for item in rest]
                truth = values(rest, quantity)
                covered.append(
                    np.mean([item.low <= value <= item.high for item, value in zip(found, truth, strict=True)])
                )
                widths.append([item.half_width for item in found])
            every = np.concatenate(widths)
            result[label][str(count)] = {
                "covered": float(np.mean(covered)),
                "half_width_mean": float(every.mean()),
                "half_width_median": float(np.median(every)),
            }
        print(label, result[label], file=sys.stderr, flush=True)
    return result


SECTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "jetson": jetson_section,
    "tegra-cells": tegra_cells_section,
    "pi": pi_section,
    "many": many_section,
    "intervals": intervals_section,
    "depthwise": depthwise,
    "speed": lambda folder: speed(),
}


def main() -> None:
    """Runs the sections; figures of sections not run are kept as they are in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the measurements")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="which to run (all)")
    arguments = parser.parse_args()
    wanted = arguments.sections.split(",")
    for name in wanted:
        if name not in SECTIONS:
            parser.error(f"no section '{name}'; there are {', '.join(SECTIONS)}")
    if not (arguments.data / "jetson_icassp23.csv").exists():
        parser.error(f"{arguments.data} does not hold jetson_icassp23.csv and the other measurements")
    results: dict[str, Any] = {}
    if arguments.json is not None and arguments.json.exists():
        results = json.loads(arguments.json.read_text())
    for name in wanted:
        started = time.perf_counter()
        results[name] = SECTIONS[name](arguments.data)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        results["machine"] = machine()
        write_json(arguments.json, results)
    from cost_figures import cost_figures

    for figure in cost_figures(results):
        print_table(
            figure.title, figure.columns, [[str(cell) for cell in row] for row in figure.rows], "\n".join(figure.notes)
        )


if __name__ == "__main__":
    main()
