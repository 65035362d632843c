"""The text form: round trips, comments, loose formatting, the design's examples, goldens, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from random_graphs import random_generator, random_network
from strategies import generators, networks

from gensynth.ir import Graph, ParseError, content_hash, format_node, parse, to_text, verify

GOLDENS = Path(__file__).parent / "goldens"

TINY = """\
gensynth 1

network @tiny(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %stem   = conv2d(%image) {channels=16, kernel=3, padding=same}   : f32[N, 16, 8, 8]
  %norm   = batch_norm(%stem)                                      : f32[N, 16, 8, 8]
  %act    = relu(%norm)                                            : f32[N, 16, 8, 8]
  %pool   = global_avg_pool(%act)                                  : f32[N, 16]
  %logits = dense(%pool) {features=10}                             : f32[N, 10]
  return %logits
}
"""

GENERATOR = """\
gensynth 1
network @generator(%image: f32[N, 1, 8, 8]) -> f32[N, 16, 8, 8] {
  %stem = conv2d(%image) {channels=choice<stem.width>[8: -0.20, 12: 0.10, 16: 0.75], kernel=3, padding=same}
  %x    = conv2d(%stem) {channels=16, kernel=1}
  %y    = choose<stage1.block1.conv1>(%x) {
    original[0.31](%a)      { %b = conv2d(%a) {channels=16, kernel=3, padding=same}  yield %b }
    separate_conv[0.88](%a) { %b = conv2d(%a) {channels=16, kernel=3, padding=same, groups=16}
                              %c = conv2d(%b) {channels=16, kernel=1}  yield %c }
  }
  return %y
}
"""

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def assert_round_trip(graph: Graph) -> None:
    text = to_text(graph)
    again = parse(text)
    assert again == graph
    assert to_text(again) == text
    assert content_hash(again) == content_hash(graph)
    verify(again)


@QUICK
@given(networks())
def test_a_network_comes_back_equal_and_prints_the_same_bytes(graph):
    assert_round_trip(graph)


@QUICK
@given(generators())
def test_a_generator_comes_back_equal_and_prints_the_same_bytes(graph):
    assert_round_trip(graph)


def test_hundreds_of_larger_graphs_come_back_equal():
    for seed in range(150):
        assert_round_trip(random_network(seed, 30))
        assert_round_trip(random_generator(seed, 20))


def test_the_first_example_of_the_design_parses_as_written():
    graph = parse(TINY)
    assert graph.name == "tiny"
    assert [node.op.name for node in graph.nodes] == ["conv2d", "batch_norm", "relu", "global_avg_pool", "dense"]
    assert str(graph.outputs[0].type) == "f32[N, 10]"
    assert graph == parse(to_text(graph))


def test_the_second_example_of_the_design_parses_as_written():
    graph = parse(GENERATOR)
    assert graph.choices["stem.width"].labels == ("8", "12", "16")
    assert graph.choices["stem.width"].logits == (-0.2, 0.1, 0.75)
    assert graph.choices["stage1.block1.conv1"].labels == ("original", "separate_conv")
    assert graph.choices["stage1.block1.conv1"].logits == (0.31, 0.88)
    assert str(graph.node("stem").result.type) == "f32[N, 8|12|16, 8, 8]"
    assert sum(graph.choices["stem.width"].probabilities) == pytest.approx(1.0)
    assert_round_trip(graph)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("tiny", lambda: parse(TINY)),
        ("generator", lambda: parse(GENERATOR)),
        ("network_7", lambda: random_network(7, 25)),
        ("generator_9", lambda: random_generator(9, 14)),
        ("generator_11", lambda: random_generator(11, 14)),
    ],
)
def test_the_print_is_as_in_its_golden(golden, name, make):
    golden(GOLDENS / f"{name}.gsir", to_text(make()))


@pytest.mark.parametrize("path", sorted(GOLDENS.glob("*.gsir")), ids=lambda path: path.stem)
def test_a_golden_parses_and_prints_byte_for_byte(path):
    text = path.read_text(encoding="utf-8")
    assert to_text(parse(text, str(path))) == text


def test_comments_blanks_and_line_ends_are_without_meaning():
    graph = parse(TINY)
    loose = TINY.replace("\n", "\r\n").replace("  %act", "  # a comment } with %tokens\r\n\t// another\r\n  %act")
    assert parse(loose) == graph
    assert parse(" ".join(TINY.split())) == graph
    assert parse("# first\n" + TINY + "// the last line, without an end") == graph
    assert parse(TINY + " \n" * 20_000) == graph


def test_types_may_be_left_out_and_attributes_come_in_any_order_and_spelling():
    graph = parse(TINY)
    bare = "\n".join(line.rsplit(" : ", 1)[0] if line.startswith("  %") else line for line in TINY.splitlines())
    assert parse(bare) == graph
    spelled = TINY.replace("{channels=16, kernel=3, padding=same}", "{padding=same,kernel=[3,3],stride=1,channels=16}")
    assert parse(spelled) == graph


def test_values_may_share_a_line_and_be_called_like_words_of_the_language():
    text = (
        "gensynth 1 network @return(%network: f32[N, 4, 2, 2]) -> (f32[N,2,2,2], f32[N,2,2,2]) {"
        " %yield, %choice = split(%network) %f32 = choose<true>(%yield) { f32[0.50](%choose) { yield %choose } }"
        " return %f32, %choice }"
    )
    graph = parse(text)
    assert [value.name for value in graph.outputs] == ["f32", "choice"]
    assert_round_trip(graph)


def test_a_requirement_keeps_what_looks_like_a_comment():
    text = TINY.replace("  %stem  ", '  require "macs <= 5M # not // a comment"\n  %stem  ', 1)
    assert parse(text).requirements == ("macs <= 5M # not // a comment",)
    assert_round_trip(parse(text))


def test_a_reading_does_not_depend_on_what_was_read_before():
    good = TINY.replace("features=10", "features=10, bias=true")
    parse(good)
    with pytest.raises(ParseError, match="expected true or false"):
        parse(good.replace("bias=true", "bias=1"))


def test_an_attribute_of_minus_zero_is_zero():
    text = TINY.replace("relu(%norm)", "leaky_relu(%norm) {slope=-0.0}")
    assert "slope=0.0" in to_text(parse(text))


def test_a_graph_without_logits_equals_one_whose_logits_are_all_zero():
    graph = parse(
        GENERATOR.replace("[8: -0.20, 12: 0.10, 16: 0.75]", "[8, 12, 16]").replace("[0.31]", "").replace("[0.88]", "")
    )
    assert graph == graph.replace(logits={})
    assert graph != graph.replace(logits={"stem.width": (0.0, 0.1, 0.0)})
    assert_round_trip(graph.replace(logits={}))


def test_a_bare_choice_stands_for_the_values_of_its_first_use():
    text = GENERATOR.replace(
        "%x    = conv2d(%stem) {channels=16, kernel=1}",
        "%d = conv2d(%stem) {channels=choice<stem.width>, kernel=3, groups=choice<stem.width>}\n"
        "%x = conv2d(%d) {channels=16, kernel=1, padding=1}",
    )
    graph = parse(text)
    assert dict(graph.node("d").choices)["groups"].values == (8, 12, 16)
    assert "groups=choice<stem.width>}" in to_text(graph)


def test_one_node_prints_as_a_line():
    graph = parse(GENERATOR)
    assert format_node(graph.node("x")) == "%x = conv2d(%stem) {channels=16, kernel=1} : f32[N, 16, 8, 8]"
    assert format_node(graph.node("y"), graph) == (
        "%y = choose<stage1.block1.conv1>(%x) { original | separate_conv } : f32[N, 16, 8, 8]"
    )
    assert "choice<stem.width>[8: -0.20, 12: 0.10, 16: 0.75]" in format_node(graph.node("stem"), graph)


MALFORMED = [
    ("", "expected 'gensynth 1' on the first line", 1),
    ("gensynth ²", "expected a format version", 1),
    ("gensynth 2\n", "format version 2", 1),
    (TINY.replace("@tiny", "tiny"), "a network name", 3),
    (TINY.replace("f32[N, 1, 8, 8]", "f32[N, 1, 0, 8]", 1), "'0' is no dimension", 3),
    (TINY.replace("f32[N, 1, 8, 8]", f"f32[N, 1, {'9' * 5000}, 8]", 1), "is no dimension", 3),
    (TINY.replace("f32[N, 1, 8, 8]", "f64[N, 1, 8, 8]", 1), "expected a type", 3),
    (TINY.replace("-> f32[N, 10]", "-> f32[N, 11]"), "is declared to give f32[N,11]", 3),
    (TINY.replace("conv2d(", "conv2(", 1), "did you mean 'conv2d'?", 4),
    (TINY.replace("kernel=3", "kernal=3"), "did you mean 'kernel'?", 4),
    (TINY.replace("channels=16, ", ""), "conv2d needs channels", 4),
    (TINY.replace("kernel=3", "kernel=0"), "expected an integer of at least 1", 4),
    (TINY.replace("kernel=3", "kernel=3, kernel=3"), "given twice", 4),
    (TINY.replace("kernel=3", f"kernel={'9' * 5000}"), "too large", 4),
    (TINY.replace("kernel=3", "kernel=٣"), "expected a value", 4),
    (TINY.replace("kernel=3", "kernel=[3 1]"), "expected ',' or ']'", 4),
    (TINY.replace("relu(%norm)", "relu(%nrm)"), "did you mean 'norm'?", 6),
    (TINY.replace("relu(%norm)", "add(%norm)"), "wants 2 operands, got 1", 6),
    (TINY.replace("%act    =", "%norm   ="), "%norm is defined twice", 6),
    (TINY.replace("relu(%norm)                                            : f32[N, 16", "relu(%norm) : f32[N, 12"), "gives f32", 6),
    (TINY.replace("  return %logits\n", ""), "'return'", 9),
    (TINY[:-2], "the end of the text", None),
    (TINY + "network", "a file holds one network", 11),
    (TINY.replace("relu", "re\0lu"), "expected '('", 6),
    (TINY.replace("%stem ", 'require "a\n%stem ', 1), "quoted requirement", 4),
    (GENERATOR.replace("[8: -0.20, 12: 0.10, 16: 0.75]", ""), "has no values yet", 3),
    (GENERATOR.replace("8: -0.20", "8"), "3 values, 2 logits", 3),
    (GENERATOR.replace("-0.20", "1e999"), "finite", 3),
    (GENERATOR.replace("separate_conv[", "original["), "two alternatives 'original'", 7),
    (GENERATOR.replace("[0.88]", ""), "2 alternatives, 1 logits", 5),
    (GENERATOR.replace("yield %c", "yield %missing"), "not defined before its use", 8),
    (GENERATOR.replace("%c = conv2d(%b) {channels=16", "%c = conv2d(%b) {channels=12"), "yields (f32[N, 12", 5),
    (GENERATOR.replace("choose<stage1.block1.conv1>", "choose<stem.width>"), "has 3 alternatives elsewhere, 2 here", 5),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message", "line"), MALFORMED)
def test_malformed_text_gets_file_line_caret_and_remedy(text, message, line):
    with pytest.raises(ParseError) as caught:
        parse(text, "net.gsir")
    shown = str(caught.value)
    assert message in shown
    assert line is None or caught.value.line == line
    assert shown.startswith(f"net.gsir:{caught.value.line}:{caught.value.column}: ")
    assert "^" in shown
    assert caught.value.hint


def test_the_caret_stands_under_the_culprit():
    with pytest.raises(ParseError) as caught:
        parse(TINY.replace("kernel=3", "kernel=99, dilation=1").replace("padding=same", "padding=valid"))
    lines = str(caught.value).splitlines()
    assert lines[1][lines[2].index("^") :].startswith("kernel=99")
