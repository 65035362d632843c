"""Damaged text gives a graph or a GenSynthError, never another exception, and never takes long."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import random_generator, random_network

from gensynth.ir import GenSynthError, ParseError, parse, to_text

TEXTS = [to_text((random_generator if seed % 2 else random_network)(seed, 8)) for seed in range(40)]
ODD = [
    "²", "٣", "9" * 30, "9" * 5000, "1e999", "-0.0", "-1", "\0", "\r\n", "\r", "\x0b", "\x0c", "\u2028", "\ufeff", "é",
    "%é", '"', '"a', "#", "//", "{", "}", "[", "]", "(", ")", "<", ">", ",", "=", ":", "->", "choice", "choose<x>",
    "yield", "return", "require", "true", "f32[N, 3]", "f32[", "f32[0.5]", "N", "same", "1e400", "%a.", "%a..b", "\ud800",
    " " * 300, "\n" * 300, "nan", "[3, 3]", "[-1]", "groups=true", "bias=1", "choice<w>[1, 2]", "choice<w>", "{}",
]  # fmt: skip

HEADER = "gensynth 1\nnetwork @g(%x: f32[N, 4, 8, 8]) -> f32[N, 4, 8, 8] {\n"


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A valid text after a few cuts, insertions, replacements and repetitions."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 1, 3, 20, len(text)])))
        insertion = draw(
            st.one_of(st.just(""), st.sampled_from(ODD), st.text(max_size=5), st.just(text[start:end] * 2))
        )
        text = text[:start] + insertion + text[end:]
    return text


def read(text: str) -> None:
    try:
        graph = parse(text)
    except GenSynthError as error:
        assert str(error)
        return
    assert parse(to_text(graph)) == graph


@settings(max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(damaged())
def test_damaged_text_gives_a_graph_or_an_error_of_ours(text):
    read(text)


@settings(max_examples=200, deadline=2000)
@given(
    st.one_of(st.text(), st.lists(st.sampled_from(ODD)).map(" ".join), st.binary().map(lambda b: b.decode("latin-1")))
)
def test_arbitrary_text_gives_an_error_of_ours(text):
    with pytest.raises(ParseError):
        parse(text)


def nested(depth: int) -> str:
    opening = "".join(f"%y{i} = choose<c{i}>(%{'a' if i else 'x'}) {{ l(%a) {{ " for i in range(depth))
    closing = "".join(f"}} yield %y{i} }}" for i in range(depth - 1, 0, -1))
    return HEADER + opening + "%z = relu(%a) yield %z }" + closing + "} return %y0 }"


def test_choices_nest_64_deep_and_no_deeper():
    read(nested(64))
    assert len(parse(nested(64)).choices) == 64
    with pytest.raises(ParseError, match="nest deeper"):
        parse(nested(5000))


@pytest.mark.parametrize(
    "text",
    [
        HEADER + " " * 100_000,
        HEADER + "//" * 50_000,
        "#\n" * 100_000,
        HEADER + "%y = relu(%x) {" * 20_000,
        "gensynth 1\n" + '"' * 100_000,
        HEADER + "%y = reshape(%x) {shape=" + "[" * 100_000,
        HEADER + "%y = relu(%" + "a" * 1_000_000 + ") return %x }",
        HEADER + "%" + "a." * 100_000 + " = relu(%x) }",
        HEADER + "%y = add(" + "%x, " * 50_000 + "%x) return %y }",
        HEADER + "%y = split(%x) {sections=1000000000} return %y }",
        HEADER + "%y = conv2d(%x) {channels=100000000, kernel=1} %z = split(%y) {sections=100000000} return %z }",
        HEADER
        + "".join(f"%r{i + 1} = resize(%r{i}) {{scale=1000000000}}" for i in range(50)).replace("%r0)", "%x)")
        + "}",
    ],
    ids=range(12),
)
def test_hostile_text_is_refused_within_a_second(text):
    start = time.perf_counter()
    with pytest.raises(ParseError):
        parse(text)
    assert time.perf_counter() - start < 1.0
