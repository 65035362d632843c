"""Pipelines as text."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensynth.ir import Network, ParseError
from gensynth.passes import (
    Canonicalize,
    Commit,
    Drop,
    Materialize,
    Offer,
    OpenKernel,
    OpenWidth,
    Pass,
    PassResult,
    Update,
    all_passes,
    option,
    parse_pipeline,
    pipeline_text,
)


class Everything(Pass, name="test-everything"):
    """A pass with an option of every type."""

    word: str = option(default="plain")
    words: tuple[str, ...] = option(default=())
    count: int = option(default=0)
    share: float = option(default=0.0)
    shares: tuple[float, ...] = option(default=())
    counts: tuple[int, ...] = option(default=())
    switch: bool = option(default=False)
    maybe: str | None = option(default=None)

    def run(self, network: Network) -> PassResult:
        return PassResult(network, False)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY_OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "word": st.text(),
    "words": st.lists(st.text(), max_size=3).map(tuple),
    "count": st.integers(),
    "share": FINITE,
    "shares": st.lists(FINITE, max_size=3).map(tuple),
    "counts": st.lists(st.integers(), max_size=3).map(tuple),
    "switch": st.booleans(),
    "maybe": st.text(),
}


@given(st.fixed_dictionaries({}, optional=ANY_OPTIONS))
def test_any_options_survive_the_text(options: dict[str, Any]) -> None:
    item = Everything(**options)
    assert parse_pipeline(item.text()) == (item,)


@given(st.lists(st.fixed_dictionaries({}, optional=ANY_OPTIONS), max_size=4))
def test_any_pipeline_survives_the_text(lines: list[dict[str, Any]]) -> None:
    passes = tuple(Everything(**options) for options in lines)
    assert parse_pipeline(pipeline_text(passes)) == passes


@pytest.mark.parametrize("cls", [cls for cls in all_passes() if cls.__module__.startswith("gensynth.")])
def test_every_pass_with_its_defaults_survives_the_text(cls: type[Pass]) -> None:
    examples: dict[str, Any] = {
        "choice": "a",
        "to": "relu6" if cls.name == "replace-activation" else "8",
        "alternative": "8",
        "seed": 3,
        "rewrite": "separate-conv",
    }
    required = {item.field: examples[item.field] for item in cls.options().values() if item.required}
    if cls is Update:
        required = {"choice": "a", "by": (0.5, -0.5)}
    item = cls(**required)
    assert parse_pipeline(item.text()) == (item,)
    assert cls.description(), "the first line of the docstring describes the pass"


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (Canonicalize(), "canonicalize"),
        (Offer(rewrite="separate-conv"), "offer{rewrite=separate-conv}"),
        (Offer(rewrite="low-rank-conv{ratio=0.25}", logit=-1.0), "offer{rewrite=low-rank-conv{ratio=0.25},logit=-1.0}"),
        (OpenWidth(ratios=(0.5, 1.0), where=("stage1",)), "open-width{ratios=[0.5,1.0],where=[stage1]}"),
        (OpenKernel(sizes=(3, 5)), "open-kernel{sizes=[3,5]}"),
        (Commit(choice="a.width", to="8"), "commit{choice=a.width,to=8}"),
        (Drop(choice="a", alternative="[3, 1]"), 'drop{choice=a,alternative="[3, 1]"}'),
        (Update(choice="a", by=(0.1, -0.1)), "update{choice=a,by=[0.1,-0.1]}"),
        (Materialize(seed=7, repair=False), "materialize{seed=7,repair=false}"),
    ],
)
def test_passes_are_written_as_people_write_them(item: Pass, text: str) -> None:
    assert item.text() == text
    assert parse_pipeline(text) == (item,)


def test_white_space_and_comments_are_free() -> None:
    text = """
      offer { rewrite = low-rank-conv{ratio=0.5} , logit = .5 },   # the cheap one
      # and then
      materialize{ seed=1 }
    """
    assert parse_pipeline(text) == (Offer(rewrite="low-rank-conv{ratio=0.5}", logit=0.5), Materialize(seed=1))
    assert parse_pipeline("  # nothing\n") == ()


def test_one_value_stands_for_a_list_of_one() -> None:
    assert parse_pipeline("open-depth{where=stage1}") == parse_pipeline("open-depth{where=[stage1]}")


def test_underscores_and_dashes_in_option_names_are_the_same() -> None:
    class Dashed(Pass, name="test-dashed"):
        """Has an option of two words."""

        two_words: int = option(default=1)

        def run(self, network: Network) -> PassResult:
            return PassResult(network, False)

    assert parse_pipeline("test-dashed{two-words=3}") == parse_pipeline("test-dashed{two_words=3}")
    assert Dashed(two_words=3).text() == "test-dashed{two-words=3}"


@pytest.mark.parametrize(
    ("text", "message", "under"),
    [
        ("canonicalise", "unknown pass 'canonicalise'", "canonicalise"),
        ("canonicalize,,", "expected a pass", ","),
        ("canonicalize,", "expected a pass after ','", None),
        ("canonicalize materialize", "expected ','", "m"),
        ("materialize", "needs the option seed", "materialize"),
        ("materialize{seed=x}", "seed: expected an integer, got x", "x"),
        ("materialize{seed=true}", "seed: expected an integer", "true"),
        ("materialize{sead=1}", "no option 'sead'", "sead"),
        ("materialize{seed=1,seed=2}", "given twice", "seed"),
        ("materialize{seed 1}", "expected '='", "1"),
        ("materialize{seed=1", "expected ',' or '}'", None),
        ("materialize{seed=}", "expected a value", "}"),
        ("offer{rewrite=", "expected a value", None),
        ("offer{rewrite=low-rank-conv{ratio=0.5}", "expected ',' or '}'", None),
        ("offer{rewrite=low-rank-conv{ratio=0.5", "never closed", "{"),
        ('offer{rewrite="low-rank', "never closed", '"'),
        ("offer{rewrite=canonicalize}", "no rewrite rule", None),
        ("offer{rewrite=low-rank-conv{ratio=2}}", "ratio", None),
        ("open-kernel{sizes=[2]}", "odd", "open-kernel"),
        ("open-width{ratios=[[1]]}", "holds no lists", None),
        ("update{choice=a}", "either `by` or `to`", "update"),
    ],
)
def test_bad_text_is_shown_with_a_caret(text: str, message: str, under: str | None) -> None:
    with pytest.raises(ParseError) as caught:
        parse_pipeline(text)
    error = caught.value
    assert message in str(error)
    assert error.hint
    if under is not None:
        assert text[error.offset :].startswith(under)
    assert re.search(r"<passes>:1:\d+", str(error)) and "^" in str(error)


def test_a_typo_is_met_with_the_nearest_name() -> None:
    with pytest.raises(ParseError, match=r"did you mean 'canonicalize'\?"):
        parse_pipeline("canonicalise")
    with pytest.raises(ParseError, match=r"did you mean 'logit'\?"):
        parse_pipeline("offer{rewrite=separate-conv,logits=1}")
