"""Requirements: parsed with units, measured as margins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensynth.ir import ParseError, UsageError
from gensynth.passes import parse_requirement, parse_requirements


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
        ("latency <= 3ms", "device cost model", "latency"),
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


def test_only_what_follows_from_the_architecture_is_computable() -> None:
    assert parse_requirement("weight_memory <= 1MB").computable
    assert not parse_requirement("accuracy >= 0.5").computable
