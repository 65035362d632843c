"""Plots: what they show, that names do not hide one another, and that equal plots are equal files."""

from __future__ import annotations

import itertools
import random
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import gensynth as gs
from gensynth.backends.drawing.figures import Spot, align_title, label_spots, new_figure
from gensynth.backends.drawing.plots import Point, calibration_plot, roofline_plot
from gensynth.ir import UsageError
from gensynth.passes.cost import cost_model

pytest.importorskip("matplotlib")


def words(path: Path) -> list[str]:
    """The texts of an SVG."""
    texts = ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()) for text in texts]


def draw_roofline(path: Path, name: str = "tegra-x2-gpu", **arguments: object) -> list[str]:
    model = cost_model(name)
    graph = gs.prototype("resnet", **{"depth": 20, **arguments}).graph
    roofline_plot(model.estimate(graph), model, path, title=graph.name)
    return words(path)


def test_a_roofline_tells_network_condition_latency_energy_and_roofs(tmp_path: Path) -> None:
    model = cost_model("tegra-x2-gpu")
    estimate = model.estimate(gs.prototype("resnet", depth=20).graph)
    told = draw_roofline(tmp_path / "roof.svg")
    assert "@resnet20 on tegra-x2-gpu" in told
    condition = estimate.condition
    assert f"{condition.precision}, {condition.power_mode}, {condition.runtime}, batch 1" in told
    line = next(text for text in told if text.startswith("latency "))
    assert f"{estimate.latency_ms:,.3g} ms" in line and f"{estimate.energy_mj:,.3g} mJ" in line
    device = model.device
    peak = 2 * device.precisions[condition.precision].peak
    assert f"hardware: {peak:,.4g} GOP/s, {device.peak_bandwidth:.3g} GB/s" in told
    assert sum(text.startswith("fitted: ") for text in told) == 1
    assert {"operations a byte moved", "GOP/s"} <= set(told)


def test_the_dearest_kernels_are_named_and_kernels_alike_share_a_dot(tmp_path: Path) -> None:
    told = draw_roofline(tmp_path / "roof.svg")
    model = cost_model("tegra-x2-gpu")
    kernels = model.estimate(gs.prototype("resnet", depth=20).graph).kernels
    dearest = max(kernels, key=lambda kernel: kernel.latency_ms)
    assert any(text.startswith(dearest.name) for text in told)
    assert sum(re.search(r" ×\d+  [\d.]+%$", text) is not None for text in told) >= 3


def test_a_slower_mode_lowers_the_roof_of_the_hardware(tmp_path: Path) -> None:
    full = draw_roofline(tmp_path / "full.svg", "tegra-x2-gpu:MAX-N")
    slow = draw_roofline(tmp_path / "slow.svg", "tegra-x2-gpu:MAX-Q")

    def peak(told: list[str]) -> float:
        line = next(text for text in told if text.startswith("hardware: "))
        return float(line.split()[1].replace(",", ""))

    modes = cost_model("tegra-x2-gpu").device.power_modes
    assert peak(slow) / peak(full) == pytest.approx(modes["MAX-Q"].clock / modes["MAX-N"].clock, rel=0.01)


def test_kernels_without_arithmetic_are_counted_in_the_caption(tmp_path: Path) -> None:
    model = cost_model("tegra-x2-gpu:fp16")
    graph = gs.prototype("shufflenet").graph
    roofline_plot(model.estimate(graph), model, tmp_path / "roof.svg", title=graph.name)
    assert any("kernels without arithmetic" in text for text in words(tmp_path / "roof.svg"))


def test_equal_plots_are_equal_files_and_hold_no_date(tmp_path: Path) -> None:
    for suffix in (".svg", ".png"):
        draw = [tmp_path / f"{number}{suffix}" for number in range(2)]
        for path in draw:
            calibration_plot([Point("latency", "fp16", 2.0, 2.1)], path, "a board")
        assert draw[0].read_bytes() == draw[1].read_bytes()
    assert "<dc:date>" not in (tmp_path / "0.svg").read_text(encoding="utf-8")
    assert (tmp_path / "0.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_no_state_of_pyplot_is_touched(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    had = "matplotlib.pyplot" in sys.modules
    calibration_plot([Point("energy", "fp16", 2.0, 2.1)], tmp_path / "one.png", "a board")
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == had


@pytest.mark.parametrize("seed", range(4))
def test_labels_hide_neither_one_another_nor_dots(seed: int, tmp_path: Path) -> None:
    drawn = random.Random(seed)
    spots = [
        Spot(10 ** drawn.uniform(0.3, 1.7), 10 ** drawn.uniform(0.3, 1.7), 40.0, f"stage{n}.conv ×2") for n in range(6)
    ]
    spots += [Spot(10 ** drawn.uniform(0, 2), 10 ** drawn.uniform(0, 2), 25.0) for _ in range(15)]
    with new_figure(tmp_path / "labels.png", 8.0, 6.0) as figure:
        axes = figure.add_subplot()
        axes.set(xscale="log", yscale="log", xlim=(1, 100), ylim=(1, 100))
        align_title(figure, figure.suptitle("labels"))
        label_spots(axes, spots, [[(1.0, 1.0), (100.0, 100.0)]])
        boxes = [text.get_window_extent() for text in axes.texts]
        dots = [axes.transData.transform((spot.x, spot.y)) for spot in spots]
    assert len(boxes) == 6
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


def test_a_calibration_plot_has_a_panel_per_quantity_and_a_colour_per_group(tmp_path: Path) -> None:
    points = [
        Point(quantity, group, value, 1.05 * value)
        for quantity in ("energy", "latency")
        for group in ("fp16, MAX-N", "fp32, MAX-N")
        for value in (1.0, 3.0, 20.0)
    ]
    calibration_plot([*points, Point("latency", "fp16, MAX-N", 1.0, 2.0)], tmp_path / "fit.svg", "a board: held out")
    told = words(tmp_path / "fit.svg")
    assert {"a board: held out", "fp16, MAX-N", "fp32, MAX-N", "measured latency [ms]", "predicted energy [mJ]"} <= set(
        told
    )
    assert told.index("measured latency [ms]") < told.index("measured energy [mJ]")
    assert "6 measurements" in told and "7 measurements" in told
    assert "median error 5.0%, 86% within 10%" in told and "10% more or less" in told


@pytest.mark.parametrize(
    ("points", "path", "told"),
    [
        ([], "fit.svg", "nothing to plot"),
        ([Point("latency", "all", 0.0, 1.0)], "fit.svg", "above zero"),
        ([Point("latency", "all", 1.0, float("nan"))], "fit.svg", "above zero"),
        ([Point("latency", "all", 1.0, 1.0)], "fit.pdf", "ends in .svg or .png"),
    ],
)
def test_what_cannot_be_plotted_is_refused(points: list[Point], path: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        calibration_plot(points, tmp_path / path, "a board")
    assert told in str(error.value)
