"""Performance functions: built in, of the user's own, and on a device."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gensynth.ir import UsageError
from gensynth.passes.cost import Meter, cost_model
from gensynth.synth.performance import (
    ON_DEVICE,
    PERFORMANCE,
    Outcome,
    information_density,
    netscore,
    parse_performance,
    performance_function,
)
from gensynth.synth.prototypes import prototype

DEVICE = "tegra-x2-gpu"


def test_netscore_and_information_density_are_as_published() -> None:
    outcome = Outcome(90.0, 500_000, 40_000_000)
    assert netscore(outcome) == pytest.approx(20 * math.log10(90.0**2 / (0.5**0.5 * 0.04**0.5)))
    assert information_density(outcome) == 180.0


def test_functions_on_a_device_read_milliseconds_and_millijoules() -> None:
    outcome = Outcome(80.0, 500_000, 40_000_000, latency_ms=4.0, energy_mj=20.0)
    assert PERFORMANCE["inferences_per_joule"](outcome) == 50.0
    assert PERFORMANCE["inferences_per_second"](outcome) == 250.0
    assert PERFORMANCE["correct_per_joule"](outcome) == 40.0
    assert PERFORMANCE["energy_score"](outcome) == pytest.approx(20 * math.log10(80.0**2 / (0.5 * 20.0) ** 0.5))


def test_an_outcome_has_the_figures_of_the_device_that_is_asked_for() -> None:
    graph = prototype("resnet", depth=8, image=(1, 8, 8)).graph
    stated = parse_performance(f"inferences_per_joule @ {DEVICE}:fp32")
    assert stated.device is not None and stated.device.startswith(f"{DEVICE}:fp32:")
    costs = Meter([DEVICE, stated.device])(graph)
    latency, energy = cost_model(stated.device).totals(graph)
    outcome = Outcome.of(97.0, costs, stated.device)
    assert (outcome.latency_ms, outcome.energy_mj) == (latency, energy)
    assert stated(outcome) == pytest.approx(1e3 / energy)
    assert Outcome.of(97.0, costs) == Outcome(97.0, costs.totals.params, costs.totals.macs)


@pytest.mark.parametrize("name", sorted(ON_DEVICE))
def test_a_function_on_a_device_needs_one(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} needs a device") as caught:
        parse_performance(name)
    assert f"'{name} @ DEVICE'" in str(caught.value.hint) and DEVICE in str(caught.value.hint)
    with pytest.raises(UsageError, match="judges on a device"):
        performance_function(name)(Outcome(90.0, 1000, 1000))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"netscore @ {DEVICE}", "does not depend on a device"),
        ("netscore @", "does not depend on a device"),
        ("energy_score @", "needs a device"),
        ("energy_score @ tegra-x3-gpu", "unknown device 'tegra-x3-gpu'"),
        (f"energy_score @ {DEVICE}:int3", "no precision, power mode or runtime 'int3'"),
        (f"energi_score @ {DEVICE}", "unknown performance function 'energi_score'"),
    ],
)
def test_a_bad_performance_function_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_performance(text)
    assert caught.value.hint


def test_a_function_of_the_users_own_may_judge_on_a_device_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_on_device.py").write_text(
        "def plain(outcome):\n    return outcome.accuracy - outcome.macs / 1e4\n"
        "def frugal(outcome):\n    return outcome.accuracy - outcome.energy_mj\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert parse_performance("mine_on_device:plain")(Outcome(90.0, 1000, 20_000)) == 88.0
    frugal = parse_performance(f"mine_on_device:frugal @ {DEVICE}:fp16")
    assert frugal.device is not None
    assert frugal(Outcome(90.0, 1000, 20_000, 1.0, 5.0)) == 85.0
