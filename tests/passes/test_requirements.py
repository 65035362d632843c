"""Requirements: parsed with units, measured as margins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensynth.ir import ParseError, UsageError
from gensynth.passes import parse_requirement, parse_requirements
from gensynth.passes.cost import Totals, load_device, save_device


@pytest.mark.parametrize(
    ("text", "metric", "sense", "bound"),
    [
        ("accuracy >= 0.9", "accuracy", ">=", 90.0),
        ("accuracy>=90%", "accuracy", ">=", 90.0),
        ("macs <= 5M", "macs", "<=", 5e6),
        ("macs <= 5.5 k", "macs", "<=", 5500.0),
        ("params <= 1e5", "params", "<=", 1e5),
        ("peak_memory <= 512KB", "peak_memory", "<=", 512e3),
        ("weight_memory <= 2 MiB", "weight_memory", "<=", 2 * 1024.0**2),
        ("netscore >= -3", "netscore", ">=", -3.0),
        ("  information_density   >=  7 ", "information_density", ">=", 7.0),
        ("latency <= 3ms @ tegra-x2-gpu", "latency", "<=", 3.0),
        ("latency<=0.5s@tegra-x2-gpu", "latency", "<=", 500.0),
        ("latency <= 250 us @tegra-x2-gpu:fp32", "latency", "<=", 0.25),
        ("energy <= 2mJ @ tegra-x2-gpu:fp16:MAX-Q", "energy", "<=", 2.0),
        ("energy <= 1.5e-3 J @ tegra-x2-gpu", "energy", "<=", 1.5),
        ("energy >= 900uJ @ tegra-x2-gpu", "energy", ">=", 0.9),
        ("inferences_per_joule >= 50 @ tegra-x2-gpu", "inferences_per_joule", ">=", 50.0),
        ("inferences_per_second >= 1.2K @ tegra-x2-gpu", "inferences_per_second", ">=", 1200.0),
    ],
)
def test_a_requirement_is_read_with_its_unit(text: str, metric: str, sense: str, bound: float) -> None:
    found = parse_requirement(text)
    assert (found.metric, found.sense, found.bound) == (metric, sense, pytest.approx(bound))
    assert parse_requirement(str(found)) == found


@pytest.mark.parametrize(
    ("text", "message", "under"),
    [
        ("", "expected a requirement", ""),
        ("<= 5M", "expected a requirement", "<="),
        ("mac <= 5M", "unknown metric 'mac'", "mac"),
        ("macs < 5M", "expected <= or >=", "<"),
        ("macs 5M", "expected <= or >=", None),
        ("macs <= many", "expected a number", None),
        ("macs <= 5.5.5", "expected a number", "5.5.5"),
        ("macs <= 5MB", "no unit 'MB'", "MB"),
        ("peak_memory <= 512", "needs a unit", None),
        ("accuracy >= 90", "not between 0 and 1", "90"),
        ("params <= -5", "never negative", "-5"),
        ("macs <= 5M @ board", "does not depend on a device", "board"),
        ("macs <= 5M please", "unexpected", None),
        ("macs <= 5M @", "does not depend on a device", None),
        ("latency <= 3", "latency needs a unit", None),
        ("latency <= 3 @ tegra-x2-gpu", "latency needs a unit", "@"),
        ("latency <= 3mJ @ tegra-x2-gpu", "latency has no unit 'mJ'", "mJ"),
        ("inferences_per_joule >= 5ms @ tegra-x2-gpu", "no unit 'ms'", "ms"),
        ("latency <= 3ms", "latency needs a device", None),
        ("energy <= 2mJ @ ", "energy needs a device", None),
        ("energy <= 2mJ tegra-x2-gpu", "energy needs a device", "tegra"),
        ("energy <= 2mJ @ tegra-x3-gpu", "unknown device 'tegra-x3-gpu'", "tegra-x3-gpu"),
        ("energy <= 2mJ @ tegra-x2-gpu:int3", "no precision, power mode or runtime 'int3'", "tegra-x2-gpu:int3"),
        ("energy <= 2mJ @ tegra-x2-gpu:fp16:fp32", "exclude each other", "tegra-x2-gpu:fp16:fp32"),
        ("energy <= 2mJ @ no/such/board.toml", "cannot read no/such/board.toml", "no/such/board.toml"),
        ("energy <= 2mJ @ tegra-x2-gpu please", "unexpected 'please'", "please"),
        ("energy <= -2mJ @ tegra-x2-gpu", "never negative", "-2"),
    ],
)
def test_a_bad_requirement_is_shown_with_a_caret(text: str, message: str, under: str | None) -> None:
    with pytest.raises(ParseError, match="requirement") as caught:
        parse_requirement(text)
    assert message in str(caught.value)
    assert "^" in str(caught.value) and caught.value.hint
    if under is not None:
        assert text[caught.value.offset :].startswith(under)


@given(st.floats(0, 1e12), st.floats(1, 1e12), st.sampled_from(["<=", ">="]))
def test_a_margin_is_not_negative_exactly_where_the_requirement_holds(value: float, bound: float, sense: str) -> None:
    requirement = parse_requirement(f"params {sense} {bound!r}")
    assert (requirement.margin(value) >= 0.0) == requirement.holds(value)


def test_a_margin_is_a_share_of_the_bound() -> None:
    assert parse_requirement("macs <= 4M").margin(3e6) == pytest.approx(0.25)
    assert parse_requirement("accuracy >= 80%").margin(60.0) == pytest.approx(-0.25)


def test_requirements_that_cannot_both_hold_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot both hold"):
        parse_requirements(["macs <= 1M", "macs >= 2M"])
    assert len(parse_requirements(["macs <= 2M", "macs >= 1M", "params <= 1k"])) == 3


def test_requirements_on_different_devices_do_not_contradict_each_other() -> None:
    both = ["energy <= 1mJ @ tegra-x2-gpu:fp16", "energy >= 2mJ @ tegra-x2-gpu:fp32"]
    assert [item.device for item in parse_requirements(both)] != [None, None]
    first = load_device("tegra-x2-gpu")
    usual = f"{next(iter(first.power_modes))}:{next(iter(first.precisions))}"
    with pytest.raises(UsageError, match="cannot both hold"):
        parse_requirements(["energy <= 1mJ @ tegra-x2-gpu", f"energy >= 2mJ @ tegra-x2-gpu:{usual}"])


def test_a_missing_device_is_answered_with_those_there_are() -> None:
    with pytest.raises(ParseError) as caught:
        parse_requirement("inferences_per_joule >= 50")
    assert "tegra-x2-gpu" in str(caught.value.hint) and "inferences_per_joule >= 50 @ DEVICE" in str(caught.value.hint)
    with pytest.raises(ParseError) as caught:
        parse_requirement("energy <= 2mJ @ tegra-x2-gpuu")
    assert "did you mean 'tegra-x2-gpu'?" in str(caught.value.hint)


def test_a_device_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "boards" / "my-board_2.toml"
    path.parent.mkdir()
    save_device(dataclasses.replace(load_device("tegra-x2-gpu"), name="my-board"), path)
    found = parse_requirement(f"energy <= 2mJ @ {path}:fp32")
    assert found.device is not None and found.device.startswith(f"{path}:fp32:")
    assert parse_requirement(found.text) == found


def test_values_are_shown_with_their_units() -> None:
    for text, value, shown in (
        ("latency <= 3ms @ tegra-x2-gpu", 3.2149, "3.21 ms"),
        ("energy <= 3mJ @ tegra-x2-gpu", 0.053191, "0.0532 mJ"),
        ("energy <= 3mJ @ tegra-x2-gpu", 12345.6, "12,346 mJ"),
        ("inferences_per_joule >= 3 @ tegra-x2-gpu", 48.219, "48.2"),
        ("macs <= 5M", 5_000_001.0, "5,000,001"),
        ("peak_memory <= 5KB", 6144.0, "6,144 B"),
        ("accuracy >= 90%", 87.25, "87.2%"),
    ):
        assert parse_requirement(text).show(value) == shown


def test_costs_without_the_device_of_a_requirement_are_refused_in_words() -> None:
    requirement = parse_requirement("energy <= 2mJ @ tegra-x2-gpu")
    with pytest.raises(UsageError, match="not known on tegra-x2-gpu"):
        requirement.value(Totals(1, 1, 1, 1, 1, 1))


def test_only_what_follows_from_the_architecture_is_computable() -> None:
    assert parse_requirement("weight_memory <= 1MB").computable
    assert parse_requirement("energy <= 1mJ @ tegra-x2-gpu").computable
    assert not parse_requirement("accuracy >= 0.5").computable
