"""The geometry of the report's charts."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from gensynth.passes import parse_requirements
from gensynth.synth.report.charts import Spot, scatter, trend


def spots(*pairs: tuple[float, float]) -> list[Spot]:
    return [Spot(accuracy, cost, "search", f"{accuracy} at {cost}") for accuracy, cost in pairs]


def test_nothing_trained_gives_no_chart() -> None:
    assert scatter("accuracy against MACs", "macs", [], ()) is None


def test_dearer_is_further_right_and_more_accurate_is_higher() -> None:
    chart = scatter("accuracy against MACs", "macs", spots((90, 1e4), (99, 1e6)), ())
    assert chart is not None
    low, high = chart.marks
    assert low.x < high.x and low.y > high.y
    assert chart.left <= low.x and high.x <= chart.right
    assert chart.top <= high.y and low.y <= chart.bottom


def test_the_accuracy_axis_gives_equal_room_to_equal_factors_of_error() -> None:
    chart = scatter("accuracy against MACs", "macs", spots((0, 1e4), (90, 1e5), (99, 1e6)), ())
    assert chart is not None
    first, second, third = (mark.y for mark in chart.marks)
    assert first - second == pytest.approx(second - third)


def test_a_perfect_accuracy_can_be_drawn() -> None:
    chart = scatter("accuracy against MACs", "macs", spots((100, 1e4), (100, 1e5)), ())
    assert chart is not None
    assert all(chart.top <= mark.y <= chart.bottom for mark in chart.marks)


def test_the_front_steps_up_only_where_more_cost_buys_more_accuracy() -> None:
    chart = scatter("accuracy against MACs", "macs", spots((90, 1e4), (85, 2e4), (95, 5e4), (94, 1e6)), ())
    assert chart is not None
    by_cost = {mark.spot.cost: mark for mark in chart.marks}
    assert len(re.findall("V", chart.front)) == 1
    assert chart.front.startswith(f"M{by_cost[1e4].x:.1f} {by_cost[1e4].y:.1f}")
    assert f"H{by_cost[5e4].x:.1f}V{by_cost[5e4].y:.1f}" in chart.front


@pytest.mark.parametrize(("low", "high"), [(7.6, 13.4), (0.011, 0.019), (1e4, 3e6)])
def test_a_cost_axis_has_marks_however_narrow_it_is(low: float, high: float) -> None:
    chart = scatter("accuracy against energy [mJ]", "energy", spots((90, low), (95, high)), ())
    assert chart is not None
    assert len(chart.x_ticks) >= 2
    labels = [tick.label for tick in chart.x_ticks]
    assert len(set(labels)) == len(labels)


def test_bounds_shade_what_violates_them_even_outside_of_the_data() -> None:
    requirements = parse_requirements(["accuracy >= 80%", "macs <= 2M", "params <= 7K"])
    chart = scatter("accuracy against MACs", "macs", spots((90, 1e4), (95, 1e5)), requirements)
    assert chart is not None
    cost, accuracy = chart.bounds
    assert cost.vertical and cost.x == cost.at and cost.x + cost.width == pytest.approx(chart.right)
    assert max(mark.x for mark in chart.marks) < cost.at
    assert not accuracy.vertical and accuracy.y == accuracy.at
    assert accuracy.y + accuracy.height == pytest.approx(chart.bottom)


@pytest.mark.parametrize(("least", "most"), [(9.0e3, 1.1e4), (1e3, 1e5), (1e3, 1e9)])
def test_cost_labels_do_not_run_into_each_other(least: float, most: float) -> None:
    chart = scatter("accuracy against MACs", "macs", spots((90, least), (95, most)), ())
    assert chart is not None
    places = [tick.at for tick in chart.x_ticks]
    assert places
    assert all(after - before >= 40 for before, after in pairwise(places))


def test_a_trend_runs_from_the_first_cycle_to_the_last() -> None:
    chart = trend("entropy", "", [(0, 4.0), (1, 2.0), (2, 1.0)], lambda value: f"{value:.1f}")
    assert (chart.first, chart.latest) == ("4.0", "1.0")
    assert [tick.label for tick in chart.x_ticks] == ["0", "1", "2"]
    heights = [y for _, y, _ in chart.marks]
    assert heights == sorted(heights)


def test_a_trend_without_values_has_no_line() -> None:
    chart = trend("best", "", [], str)
    assert chart.line == "" and chart.latest == "–"
