"""Calibration: the truth is found again, errors are those of what was held out, and intervals hold what they should."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from device_cases import TRUTH, board, measurements, networks, true_board

import gensynth as gs
from gensynth.passes.cost import LOWERINGS, CostModel, Device, cost_model
from gensynth.passes.cost.calibration import (
    Measured,
    calibrate,
    conformal_half_width,
    known_devices_prior,
    nearest_device,
)
from gensynth.passes.cost.errors import errors_by_group
from gensynth.passes.cost.fitting import Observation, _evaluate, _free_names, _rows


def off(device: Device, measured: list[Measured], quantity: str = "latency") -> float:
    """Returns the median relative error of a device's predictions."""
    errors = []
    for item in measured:
        found = CostModel(device, item.condition).totals(item.graph)[quantity == "energy"]
        errors.append(abs(found / getattr(item, quantity) - 1))
    return float(np.median(errors))


def test_slopes_of_the_fit_are_those_of_what_it_predicts(tmp_path: Path) -> None:
    device = true_board(board(tmp_path))
    observations = [
        Observation(
            dict.fromkeys([kernel.shape for kernel in _kernels(item, device)], 1),
            item.condition,
            item.latency,
            item.energy,
            item.network,
            item.family,
        )
        for item in measurements(device)[::5]
    ]
    names = {name: place for place, name in enumerate(_free_names(device, observations))}
    groups, measured, _ = _rows(device, observations, names)
    point = np.log([device.coefficient(name) for name in names])
    _, slopes = _evaluate(point, groups, len(measured))
    for name, place in names.items():
        step = np.zeros(len(point))
        step[place] = 1e-5
        above, _ = _evaluate(point + step, groups, len(measured))
        below, _ = _evaluate(point - step, groups, len(measured))
        np.testing.assert_allclose(slopes[:, place], (above - below) / 2e-5, atol=2e-6, err_msg=name)


def _kernels(item: Measured, device: Device) -> list[gs.passes.cost.Kernel]:
    from gensynth.passes.cost import kernels_of

    return kernels_of(item.graph, device.runtimes[item.condition.runtime].lowering)


def test_what_measurements_without_noise_say_is_found(tmp_path: Path) -> None:
    device = board(tmp_path)
    measured = measurements(device)
    assert off(device, measured) > 0.2
    found = calibrate(device, measured, choose=False).device
    assert off(found, measured) < 0.01 and off(found, measured, "energy") < 0.02
    for name in ("mode.slow.clock", "launch", "static"):
        assert found.coefficient(name) == pytest.approx(TRUTH[name], rel=0.25)


def test_a_few_measurements_are_better_than_none(tmp_path: Path) -> None:
    device = board(tmp_path)
    measured = measurements(device, noise=0.02)
    few = measured[::6][:5]
    found = calibrate(device, few).device
    rest = [item for item in measured if item.network not in {one.network for one in few}]
    assert off(found, rest) < 0.5 * off(device, rest)
    assert off(found, rest, "energy") < 0.5 * off(device, rest, "energy")


def test_one_measurement_fits_and_says_that_it_has_no_intervals(tmp_path: Path) -> None:
    device = board(tmp_path)
    found = calibrate(device, measurements(device)[:1])
    assert found.held_out == () and found.device.evidence == {}
    assert errors_by_group(found) == ()


def test_errors_are_those_of_networks_and_families_held_out(tmp_path: Path) -> None:
    device = board(tmp_path)
    found = calibrate(device, measurements(device, noise=0.03), choose=False)
    rows = errors_by_group(found)
    assert {(row.group, row.quantity) for row in rows} == {
        (group, quantity)
        for group in ("engine fp16 fast", "engine fp16 slow", "all")
        for quantity in ("latency", "energy")
    }
    for row in rows:
        assert 0 < row.by_network < 0.08 and row.by_family is not None
        assert row.spearman is not None and row.spearman > 0.95
        assert row.covered >= 0.75
    evidence = found.device.evidence["engine", "latency"]
    assert evidence.networks == len(networks()) and evidence.rows == 2 * len(networks())
    assert evidence.interval_beyond is not None


def test_intervals_hold_what_is_measured_on_networks_that_took_no_part(tmp_path: Path) -> None:
    device = board(tmp_path)
    covered = []
    for seed in range(3):
        measured = [item for item in measurements(device, noise=0.05, seed=seed) if item.condition.power_mode == "fast"]
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(measured))
        found = calibrate(device, [measured[place] for place in order[:11]], choose=False).device
        for item in (measured[place] for place in order[11:]):
            for quantity in ("latency", "energy"):
                interval = getattr(CostModel(found, item.condition).estimate(item.graph), quantity)
                covered.append(interval.low <= getattr(item, quantity) <= interval.high)
    assert np.mean(covered) > 0.8


def test_the_lowering_is_told_by_the_times(tmp_path: Path) -> None:
    device = board(tmp_path)
    truth = true_board(device)
    archs = (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|none~2|",
        "|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|none~0|none~1|nor_conv_3x3~2|",
        "|avg_pool_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|",
        "|nor_conv_1x1~0|+|none~0|nor_conv_3x3~1|+|nor_conv_3x3~0|none~1|avg_pool_3x3~2|",
        "|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|nor_conv_3x3~1|none~2|",
    )
    measured = []
    for arch in archs:
        for channels in (8, 16):
            graph = gs.prototype("nas-bench-201", arch=arch, channels=channels, cells=2).graph
            time, _ = CostModel(truth, truth.condition(runtime="plain")).totals(graph)
            condition = device.condition(runtime="engine")
            measured.append(Measured(graph, condition, time, None, f"{arch} {channels}", "cells"))
    assert device.runtimes["engine"].lowering == LOWERINGS["fused"]
    found = calibrate(device, measured)
    assert found.device.runtimes["engine"].lowering == LOWERINGS["eager"]
    assert found.lowerings["engine"][0][0] == "eager"
    kept = calibrate(device, measured, lowering=LOWERINGS["fused-cut"])
    assert kept.device.runtimes["engine"].lowering == LOWERINGS["fused-cut"] and kept.lowerings == {}


def test_a_runtime_that_the_device_lacks_is_added(tmp_path: Path) -> None:
    device = board(tmp_path)
    measured = [
        dataclasses.replace(item, condition=dataclasses.replace(item.condition, runtime="other"))
        for item in measurements(device)
    ]
    found = calibrate(device, measured, choose=False).device
    assert "other" in found.runtimes and ("other", "latency") in found.evidence
    assert cost_model(found, runtime="other").estimate(measured[0].graph).outside == ()


def test_devices_known_before_tell_what_a_new_one_is_like(tmp_path: Path) -> None:
    device = board(tmp_path)
    truth = true_board(device)
    dear_pools = dataclasses.replace(truth, coefficients={**truth.coefficients, "launch.pool": 30.0})
    known = []
    for seed in range(4):
        scale = float(np.exp(np.random.Generator(np.random.Philox(seed)).normal()))
        changed = dict(dear_pools.coefficients)
        for name, power in (("launch", 1), ("rate", -1), ("bandwidth", -1)):
            changed[name] *= scale**power
        known.append(dataclasses.replace(truth, name=f"known{seed}", coefficients=changed))
    condition = device.condition("fp16", "fast", "engine")
    measured = [
        Measured(graph, condition, CostModel(dear_pools, condition).totals(graph)[0], None, name, name.split()[0])
        for name, graph in networks().items()
    ]
    no_pools = [item for item in measured if item.family == "resnet"][:4]
    pools = [item for item in measured if item.family != "resnet"]
    plain = calibrate(device, no_pools, cross_validate=False).device
    taught = calibrate(device, no_pools, prior=known_devices_prior(known), cross_validate=False).device
    assert off(taught, pools) < 0.3 * off(plain, pools)
    assert known_devices_prior(known[:2]).covariance is None
    nearest, _ = nearest_device([device, dear_pools], measured)
    assert nearest is dear_pools


def test_measured_again_a_device_moves_less_than_a_new_one(tmp_path: Path) -> None:
    device = board(tmp_path)
    found = calibrate(device, measurements(device), choose=False).device
    slower = [
        dataclasses.replace(item, latency=1.5 * (item.latency or 0), energy=None) for item in measurements(device)[:4]
    ]
    again = calibrate(found, slower, choose=False).device
    fresh = calibrate(device, slower, choose=False).device
    moved = abs(np.log(again.coefficient("launch.conv3x3") / found.coefficient("launch.conv3x3")))
    assert moved < abs(np.log(fresh.coefficient("launch.conv3x3") / device.coefficient("launch.conv3x3"))) + 0.05
    assert off(again, slower) < 0.1


def test_half_widths_are_quantiles_of_what_was_held_out() -> None:
    logs = np.linspace(-1.0, 1.0, 101)
    assert conformal_half_width(logs.tolist(), 101) == pytest.approx(0.92, abs=0.02)
    assert conformal_half_width([0.1, -0.1, 0.1], 3) == pytest.approx(2.92 * 0.1 * (4 / 3) ** 0.5, rel=1e-3)


def test_without_measurements_there_is_nothing_to_calibrate(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no measurements"):
        calibrate(board(tmp_path), [])
