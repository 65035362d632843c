"""The device model: positive, growing with what costs, sane far outside what was measured, with honest intervals."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from device_cases import board, networks, true_board
from hypothesis import given, settings
from hypothesis import strategies as st

import gensynth as gs
from gensynth.ir import PassError
from gensynth.passes.cost import CostModel, KernelShape, cost_model, load_device
from gensynth.passes.cost.device import Evidence
from gensynth.passes.cost.fitting import Table, predict
from gensynth.passes.cost.model import Shapes, effective, kernel_energy, kernel_times
from gensynth.passes.cost.workload import KINDS

DEVICES = ("host", "raspberry-pi-5", "tegra-x2-cpu", "tegra-x2-gpu")
SIZES = st.integers(1, 10**8)


@st.composite
def shapes(draw: st.DrawFn) -> KernelShape:
    outputs = draw(SIZES)
    reduction = draw(st.integers(1, 10**5))
    return KernelShape(
        draw(st.sampled_from(KINDS)),
        outputs * reduction,
        outputs,
        reduction,
        draw(st.integers(1, 4096)),
        draw(SIZES),
        outputs,
        draw(SIZES),
        2 * outputs * reduction,
    )


def take(shape: KernelShape, name: str) -> tuple[float, float]:
    device = load_device(name)
    found = effective(device, device.condition())
    one = Shapes([shape])
    times = kernel_times(one, found)
    return float(times.total[0]), float(kernel_energy(one, times, found)[0])


@given(shapes(), st.sampled_from(DEVICES))
@settings(max_examples=150, deadline=None)
def test_a_kernel_takes_time_and_energy_and_more_of_both_when_there_is_more_of_it(
    shape: KernelShape, name: str
) -> None:
    latency, energy = take(shape, name)
    assert 0 < latency < math.inf and 0 < energy < math.inf
    grown = [shape._replace(macs=2 * shape.macs), shape._replace(read=2 * shape.read)]
    grown += [shape._replace(weights=2 * shape.weights)]
    grown += [shape._replace(macs=2 * shape.macs, outputs=2 * shape.outputs, written=2 * shape.written)]
    grown += [shape._replace(macs=2 * shape.macs, reduction=2 * shape.reduction, weights=2 * shape.weights)]
    for more in grown:
        more_latency, more_energy = take(more, name)
        assert more_latency >= latency * (1 - 1e-9)
        assert more_energy >= energy * (1 - 1e-9)


@pytest.mark.parametrize("name", DEVICES)
def test_networks_a_hundred_times_larger_or_smaller_take_sane_times(name: str) -> None:
    model = cost_model(name)
    device = load_device(name)
    peak = next(iter(device.precisions.values())).peak
    tiny = gs.prototype("resnet", depth=8, width=2, image=(1, 8, 8)).graph
    for graph in (tiny, gs.prototype("resnet", depth=152, dataset="imagenet", image=(3, 896, 896)).graph):
        estimate = model.estimate(graph)
        macs = gs.cost(graph).macs
        # Winograd's convolutions count up to 2.25 MACs for each that they do.
        assert estimate.latency_ms > macs / (2.25 * peak) * 1e-6
        assert estimate.latency_ms < 30.0 + 100.0 * macs / peak * 1e-6
        assert 0.2 < estimate.power_w < 60


def test_one_network_at_a_time_and_many_at_once_are_estimated_alike(tmp_path: Path) -> None:
    device = true_board(board(tmp_path))
    graphs = list(networks().values())
    for runtime in device.runtimes:
        for batch in (1, 8):
            condition = device.condition("fp32", "slow", runtime, batch)
            model = CostModel(device, condition)
            found = [model.estimate(graph) for graph in graphs]
            table = Table([_counted(graph, model) for graph in graphs])
            latency, energy = predict(device, table, condition)
            np.testing.assert_allclose([item.latency_ms for item in found], latency, rtol=1e-9)
            np.testing.assert_allclose([item.energy_mj for item in found], energy, rtol=1e-9)
            np.testing.assert_allclose([model.totals(graph)[0] for graph in graphs], latency, rtol=1e-9)


def _counted(graph: gs.Graph, model: CostModel) -> dict[KernelShape, int]:
    from gensynth.passes.cost import kernels_of

    found: dict[KernelShape, int] = {}
    for kernel in kernels_of(graph, model.lowering):
        found[kernel.shape] = found.get(kernel.shape, 0) + 1
    return found


def test_the_parts_of_an_estimate_make_the_whole(tmp_path: Path) -> None:
    device = true_board(board(tmp_path))
    estimate = cost_model(device).estimate(networks()["resnet depth=20 width=16"])
    assert math.fsum(row.latency_ms for row in estimate.kernels) + estimate.overhead_ms == pytest.approx(
        estimate.latency_ms
    )
    assert sum(row.macs for row in estimate.kernels) == gs.cost(networks()["resnet depth=20 width=16"]).macs
    assert estimate.inferences_per_second == pytest.approx(1e3 / estimate.latency_ms)
    assert estimate.inferences_per_joule == pytest.approx(1e3 / estimate.energy_mj)
    assert estimate.power_w == pytest.approx(estimate.energy_mj / estimate.latency_ms)
    assert {row.bound for row in estimate.kernels} <= {"launch", "compute", "memory"}


def test_a_kernel_is_bound_by_what_takes_most_of_its_time(tmp_path: Path) -> None:
    device = true_board(board(tmp_path))
    large = cost_model(device).estimate(gs.prototype("vgg", depth=16).graph)
    bound = {row.name: row.bound for row in large.kernels}
    assert bound["stage3.conv2"] == "compute" and bound["head.dense1"] == "memory"
    tiny = cost_model(device).estimate(gs.prototype("resnet", depth=8, width=2, image=(1, 8, 8)).graph)
    assert {row.bound for row in tiny.kernels} == {"launch"}


def test_lower_clocks_take_longer_and_half_precision_takes_less(tmp_path: Path) -> None:
    device = true_board(board(tmp_path))
    graph = gs.prototype("vgg", depth=16).graph
    fast, slow = (cost_model(device, power_mode=mode).totals(graph) for mode in ("fast", "slow"))
    assert slow[0] > 1.5 * fast[0] and slow[1] / slow[0] < fast[1] / fast[0]
    single = cost_model(device, precision="fp32").totals(graph)
    assert single[0] > 1.2 * fast[0] and single[1] > 1.2 * fast[1]


def test_a_larger_batch_takes_longer_but_less_for_each_sample(tmp_path: Path) -> None:
    device = true_board(board(tmp_path))
    graph = networks()["resnet depth=20 width=16"]
    one, many = (cost_model(device, batch=batch).estimate(graph) for batch in (1, 32))
    assert one.latency_ms < many.latency_ms < 32 * one.latency_ms
    assert many.inferences_per_joule > one.inferences_per_joule


def test_a_device_that_was_never_measured_says_so_and_has_wide_intervals(tmp_path: Path) -> None:
    estimate = cost_model(board(tmp_path)).estimate(networks()["resnet depth=8 width=8"])
    assert "never measured" in estimate.outside[0]
    assert estimate.latency.high / estimate.latency.low > 3


def test_a_network_unlike_those_measured_is_told_and_has_a_wider_interval() -> None:
    model = cost_model("tegra-x2-gpu", precision="fp16")
    inside = model.estimate(gs.prototype("resnet", depth=34, dataset="imagenet").graph)
    assert inside.outside == ()
    depthwise = model.estimate(gs.prototype("mobilenet", version=1, dataset="imagenet").graph)
    assert any("depthwise" in reason for reason in depthwise.outside)
    assert depthwise.latency.half_width > 1.5 * inside.latency.half_width
    huge = model.estimate(gs.prototype("resnet", depth=34, dataset="imagenet", image=(3, 1792, 1792)).graph)
    assert any("more" in reason for reason in huge.outside)


def test_an_interval_narrows_with_size_where_errors_do(tmp_path: Path) -> None:
    evidence = Evidence("tests", 20, 20, 0.05, 0.2, 0.1, 0.3, at=4.0, slope=1.0)
    assert evidence.half_width(4.0) == pytest.approx(0.2)
    assert evidence.half_width(6.0) == pytest.approx(0.2 * 4 / 6)
    assert evidence.half_width(4e9) == pytest.approx(0.1) and evidence.half_width(4e-9) == pytest.approx(0.6)
    assert evidence.half_width(4.0, strange=1.0) == pytest.approx(0.3)


def test_a_generator_has_no_latency(tmp_path: Path) -> None:
    generator = gs.run_pipeline(gs.prototype("resnet", depth=8), "open-width")
    with pytest.raises(PassError, match="open choices"):
        cost_model(board(tmp_path)).totals(generator.graph)


def test_a_model_is_made_once_for_a_device_and_a_condition(tmp_path: Path) -> None:
    device = board(tmp_path)
    assert cost_model(device) is cost_model(device, precision="fp16")
    assert cost_model(device) is not cost_model(dataclasses.replace(device, cache=1))
