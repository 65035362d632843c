"""Kendall's tau, by which bench/sharing.py and the experiments say what shared weights are worth."""

from __future__ import annotations

import math
import warnings

import pytest
from sharing import tau, tau_of_repeats


def rows(shared: list[float], alone: list[float]) -> list[dict[str, float]]:
    return [{"shared": first, "alone": second} for first, second in zip(shared, alone, strict=True)]


def test_tau_counts_pairs_in_order_and_out_of_order() -> None:
    found = tau(rows([1, 2, 3, 4], [10, 20, 40, 30]), "shared")
    assert found["tau"] == pytest.approx((5 - 1) / 6)
    assert -1 <= found["low"] <= found["tau"] <= found["high"] <= 1


def test_tau_of_one_order_is_1_and_of_the_opposite_minus_1() -> None:
    up, down = [1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 3.0, 2.0, 1.0]
    assert tau(rows(up, up), "shared") == pytest.approx({"tau": 1, "low": 1, "high": 1})
    assert tau(rows(up, down), "shared") == pytest.approx({"tau": -1, "low": -1, "high": -1})


def test_tau_of_networks_that_are_all_equal_is_nan_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = tau(rows([10.0, 10.0, 10.0], [1.0, 2.0, 3.0]), "shared")
    assert all(math.isnan(value) for value in found.values())


def test_tau_of_repeats_is_the_mean_of_all_pairs_of_trainings() -> None:
    # Trainings 1 and 2 agree, and each disagrees with training 3 in one pair of three.
    repeats = [[1.0, 10.0, 2.0], [2.0, 20.0, 1.0], [3.0, 30.0, 3.0]]
    assert tau_of_repeats(repeats) == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert tau_of_repeats([[1.0], [2.0]]) is None
