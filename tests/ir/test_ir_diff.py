"""The structural diff, in words."""

import json
import re

from hypothesis import HealthCheck, given, settings
from random_graphs import random_generator, random_network
from strategies import generators

from gensynth.ir import diff, parse

TEXT = """gensynth 1
network @g(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  require "macs <= 5M"
  %stem = conv2d(%image) {channels=16, kernel=3, padding=same}
  %s1.conv = conv2d(%stem) {channels=8, kernel=3, padding=same}
  %s1.norm = batch_norm(%s1.conv)
  %s1.act = relu(%s1.norm)
  %wide = conv2d(%s1.act) {channels=choice<w>[4: 0.50, 8: 0.00], kernel=1}
  %pick = choose<c>(%wide) {
    one[0.10](%x) { %y = relu(%x) yield %y }
    two[0.20](%x) { %q = silu(%x) %r = leaky_relu(%q) {slope=0.2} yield %r }
  }
  %pool = global_avg_pool(%pick)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""
CHOOSE = TEXT[TEXT.index("%pick") : TEXT.index("  %pool")]


def lines(*changes: tuple[str, str]) -> list[str]:
    """Returns the diff's lines, blanks collapsed, between the text and the text after replacements."""
    text = TEXT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return [re.sub(r"\s+", " ", line).strip() for line in diff(parse(TEXT), parse(text)).text().splitlines()]


def test_equal_graphs_have_no_differences():
    same = diff(parse(TEXT), parse(TEXT))
    assert not same
    assert same.text() == "no differences\n"
    assert same.as_dict() == {"summary": "no differences", "changes": []}


def test_a_changed_attribute_is_told_and_its_consequences_are_counted():
    assert lines(("channels=16", "channels=12")) == [
        "~ %stem channels 16 -> 12",
        "network",
        "~ shapes 1 value downstream changes shape",
        "1 node changed",
    ]
    assert (
        lines(("channels=16, kernel=3", "channels=16, kernel=5, stride=2"))[0] == "~ %stem kernel 3 -> 5, stride 1 -> 2"
    )
    assert "~ shapes 9 values downstream change shape" in lines(
        ("channels=16, kernel=3", "channels=16, kernel=3, stride=2")
    )


def test_a_rename_is_no_removal():
    assert lines(("%pool", "%mean")) == ["~ %mean renamed from pool", "1 node renamed"]
    assert lines(("%s1.", "%first.")) == [
        "first",
        "~ %conv renamed from s1.conv",
        "~ %norm renamed from s1.norm",
        "~ %act renamed from s1.act",
        "3 nodes renamed",
    ]


def test_a_rename_with_another_attribute_is_still_a_rename():
    told = lines(("%s1.conv", "%s1.convolution"), ("channels=8, kernel=3", "channels=8, kernel=5"))
    assert told[:2] == ["s1", "~ %convolution renamed from s1.conv, kernel 3 -> 5"]
    assert told[-1] == "1 node changed, 1 node renamed"


def test_a_removed_and_an_added_node_and_who_reads_otherwise():
    assert lines(("  %s1.norm = batch_norm(%s1.conv)\n", ""), ("relu(%s1.norm)", "relu(%s1.conv)")) == [
        "s1",
        "- %norm batch_norm(%s1.conv)",
        "~ %act reads (%s1.conv) instead of (%s1.norm)",
        "1 node changed, 1 node removed",
    ]
    assert lines(("  %pool = global_avg_pool(%pick)", "  %drop = dropout(%pick)\n  %pool = global_avg_pool(%drop)"))[
        :2
    ] == [
        "+ %drop dropout(%pick)",
        "~ %pool reads (%drop) instead of (%pick)",
    ]


def test_another_op_of_the_same_name_is_a_replacement():
    assert lines(("relu(%s1.norm)", "silu(%s1.norm)"))[:2] == ["s1", "~ %act relu(%s1.norm) -> silu(%s1.norm)"]


def test_moved_logits_come_with_probabilities():
    assert lines(("[4: 0.50", "[4: 0.70"), ("one[0.10]", "one[0.90]")) == [
        "choices",
        "~ w 4: 0.50 -> 0.70 (62% -> 67%)",
        "~ c one: 0.10 -> 0.90 (48% -> 67%)",
        "2 logits moved",
    ]


def test_a_committed_width_is_told_with_its_value():
    told = lines(("choice<w>[4: 0.50, 8: 0.00]", "8"))
    assert told[-3:] == ["choices", "- w committed to 8 at %wide", "1 choice committed"]
    assert told[:2] == ["network", "~ shapes 6 values downstream change shape"]


def test_a_committed_choose_is_told_with_what_it_inlines():
    inlined = "%inner = silu(%wide)\n  %pick = leaky_relu(%inner) {slope=0.2}\n"
    assert lines((CHOOSE, inlined)) == [
        "choices",
        "- c committed to two at %pick, inlining %inner",
        "1 choice committed",
    ]
    assert "- c committed to one at %pick" in lines((CHOOSE, "%pick = relu(%wide)\n"))


def test_an_opened_choose_is_told_with_what_it_wraps():
    offered = (
        "  %s1.act = choose<n>(%s1.conv) { o(%a) { %b = batch_norm(%a) %c = relu(%b) yield %c } e[0](%a) { yield %a } }"
    )
    offered = offered.replace("o(%a)", "o[1](%a)")
    told = lines(("  %s1.norm = batch_norm(%s1.conv)\n  %s1.act = relu(%s1.norm)", offered))
    assert told == ["choices", "+ n opened at %s1.act: [o: 1.00, e: 0.00], wrapping %s1.norm", "1 choice opened"]


def test_an_opened_width_is_told_with_its_alternatives():
    told = lines(("channels=8, kernel=3", "channels=choice<v>[4: 0.25, 8: 0.00], kernel=3"))
    assert "+ v opened at %s1.conv: [4: 0.25, 8: 0.00]" in told


def test_alternatives_come_and_go():
    assert "+ w alternative 6 added" in lines(("[4: 0.50, 8: 0.00]", "[4: 0.50, 6: 0.00, 8: 0.00]"))
    assert "- c alternative one dropped" in lines(("    one[0.10](%x) { %y = relu(%x) yield %y }\n", ""))


def test_bodies_of_alternatives_are_compared_too():
    assert lines(("slope=0.2", "slope=0.3")) == ["pick[two]/", "~ %r slope 0.2 -> 0.3", "1 node changed"]


def test_requirements_names_inputs_and_outputs():
    assert lines(("5M", "4M")) == [
        "requirements",
        '- "macs <= 5M" no longer required',
        '+ "macs <= 4M" required',
        "1 requirement removed, 1 requirement added",
    ]
    assert "~ @h renamed from @g" in lines(("@g", "@h"))
    assert "~ inputs (%image: f32[N, 1, 8, 8]) -> (%picture: f32[N, 1, 8, 8])" in lines(("%image", "%picture"))
    assert "~ returns (%again) instead of (%logits)" in lines(
        ("  return %logits", "  %again = relu(%logits)\n  return %again")
    )


def test_independent_nodes_in_another_order_are_a_difference_too():
    text = (
        "gensynth 1 network @g(%x: f32[N, 4]) -> f32[N, 4] { %a = relu(%x) %b = silu(%x) %c = add(%a, %b) return %c }"
    )
    other = text.replace("%a = relu(%x) %b = silu(%x)", "%b = silu(%x) %a = relu(%x)")
    assert diff(parse(text), parse(other)).text() == "network\n  ~ nodes  in another order\n1 change\n"


def test_color_and_json_say_the_same():
    changed = diff(parse(TEXT), parse(TEXT.replace("channels=16", "channels=12").replace("%pool", "%mean")))
    assert re.sub(r"\x1b\[\d+m", "", changed.text(color=True)) == changed.text()
    told = json.loads(json.dumps(changed.as_dict()))
    assert {
        "change": "AttributeChanged", "scope": "", "subject": "%stem", "attribute": "channels", "old": "16", "new": "12",
    } in told["changes"]  # fmt: skip
    assert len(told["changes"]) == len(changed.changes)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(generators(), generators())
def test_a_diff_is_empty_exactly_where_graphs_are_equal(a, b):
    assert bool(diff(a, b)) == (a != b)
    assert not diff(a, a)
    assert diff(a, b).text().endswith("\n")
    json.dumps(diff(a, b).as_dict())


def test_any_two_random_graphs_can_be_compared():
    for seed in range(60):
        for make in (random_network, random_generator):
            a, b = make(seed), make(seed + 1)
            assert bool(diff(a, b)) == (a != b)
            assert diff(a, b).text()
