import gzip
import math

import numpy as np
import pytest

from gensynth.ir import DataError, GenSynthError, UsageError, parse
from gensynth.passes import parse_requirements
from gensynth.passes.cost import Costs, Totals
from gensynth.synth.performance import parse_performance
from gensynth.synth.search.probing import Prober
from gensynth.synth.search.space import Space
from gensynth.synth.search.tables import Ceiling, Table, TableProblem

SPACE = Space(("first", "second"), (("skip", "conv_3x3"), ("none", "conv_3x3", "conv_3x3_wide")))

PROGRAM = """gensynth 1

network @open(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %conv1  = conv2d(%image) {channels=choice<width>[2, 4, 8], kernel=choice<kernel>[1, 3], padding=same}
  %act1   = relu(%conv1)
  %conv2  = conv2d(%act1) {channels=choice<wide>[4, 6, 8, 10], kernel=3, padding=same}
  %act2   = relu(%conv2)
  %pool   = global_avg_pool(%act2)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""


@pytest.fixture
def table_of(tmp_path):
    """Reads lines as a CSV file: `table_of("net,accuracy", "...", key=["net"])`."""

    def read(*lines, space=SPACE, **arguments):
        path = tmp_path / "table.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Table.read(space, [path], **arguments)

    return read


@pytest.fixture(scope="module")
def open_program():
    return parse(PROGRAM)


def whole(graph, **columns):
    """A table of all networks of a program; each column is a function of the decisions."""
    space = Space.of(graph)
    rows = {
        decisions: {name: float(of(decisions)) for name, of in columns.items()}
        for decisions in np.ndindex(*space.sizes)
    }
    return Table(space, tuple(columns), rows)


def problem_of(graph, table, performance="accuracy", **arguments):
    return TableProblem(graph, table, "accuracy", parse_performance(performance), Prober(graph, None), **arguments)


def accuracy(decisions):
    return 50 + 10 * decisions[0] + 5 * decisions[1] + decisions[2]


# Reading.


@pytest.mark.parametrize(
    ("text", "decisions"),
    [
        ("|skip~0|+|conv_3x3~0|none~1|", None),
        ("|skip~0|+|conv_3x3_wide~1|", (0, 2)),
        ("conv_3x3:conv_3x3", (1, 1)),
        ('["conv_3x3", "none"]', (1, 0)),
        ("first=conv_3x3 second=conv_3x3_wide", (1, 2)),
        ("second=none; first=skip", (0, 0)),
        ("12", (1, 2)),
        ("  00 ", (0, 0)),
    ],
)
def test_one_key_column_is_read_as_labels_pairs_or_digits(table_of, text, decisions):
    quoted = '"' + text.replace('"', '""') + '"'
    if decisions is None:
        with pytest.raises(DataError, match="line 2: 3 labels in .*, and 2 choices"):
            table_of("net,accuracy", f"{quoted},90", key=["net"])
    else:
        assert table_of("net,accuracy", f"{quoted},90", key=["net"]).rows == {decisions: {"accuracy": 90.0}}


def test_numbers_are_labels_where_they_stand_between_other_characters(table_of):
    space = Space(("width", "ratio"), (("8", "16"), ("0.25", "1.0", "0.5")))
    found = table_of("net,accuracy", "16:0.5,90", "8-1.0,80", space=space, key=["net"])
    assert list(found.rows) == [(1, 2), (0, 1)]


def test_several_key_columns_hold_a_label_or_an_index_each(table_of):
    found = table_of("op2,accuracy,op1", "none,90,conv_3x3", "2,80,0", key=["op1", "op2"])
    assert found.rows == {(1, 0): {"accuracy": 90.0}, (0, 2): {"accuracy": 80.0}}


def test_without_a_key_columns_are_named_by_choice(table_of):
    found = table_of("second,loss,first", "none,0.5,conv_3x3")
    assert found.rows == {(1, 0): {"loss": 0.5}} and found.columns == ("loss",)


def test_two_files_are_joined_on_their_keys_and_the_second_may_be_zipped(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv.gz"
    one.write_text("net,accuracy\n00,90\n01,80\n", encoding="utf-8")
    two.write_bytes(gzip.compress(b"net,energy\n01,2.5\n12,1.5\n", mtime=0))
    found = Table.read(SPACE, [one, two], key=["net"])
    assert found.columns == ("accuracy", "energy")
    assert found.rows == {
        (0, 0): {"accuracy": 90.0},
        (0, 1): {"accuracy": 80.0, "energy": 2.5},
        (1, 2): {"energy": 1.5},
    }
    assert list(found.known(["accuracy", "energy"])) == [(0, 1)]


def test_empty_cells_are_not_known_and_columns_of_words_are_left_out(table_of):
    found = table_of("net,accuracy,note", "00,,good", "01,80,fair", key=["net"])
    assert found.columns == ("accuracy",)
    assert math.isnan(found.rows[0, 0]["accuracy"])
    assert list(found.known(["accuracy"])) == [(0, 1)]


def test_empty_cells_are_those_of_the_row_that_computes_alike(table_of):
    found = table_of("net,accuracy,loss,row", "00,,0.5,2", "01,,,", "02,80,0.1,0", key=["net"], alike="row")
    assert found.rows[0, 0]["accuracy"] == 80.0 and found.rows[0, 0]["loss"] == 0.5
    assert math.isnan(found.rows[0, 1]["accuracy"])


def test_of_rows_that_differ_in_what_does_not_matter_the_first_counts(table_of):
    space = Space(("way", "inner"), (("plain", "deep"), ("a", "b")), ((), (("way", "deep"),)))
    found = table_of("net,accuracy", "00,90", "01,80", "11,70", space=space, key=["net"])
    assert found.rows == {(0, 0): {"accuracy": 90.0}, (1, 1): {"accuracy": 70.0}}


@pytest.mark.parametrize(
    ("lines", "arguments", "error", "says", "hint"),
    [
        (["nett,accuracy"], {"key": ["net"]}, UsageError, "no column 'net'", "did you mean 'nett'?"),
        (["first,seconds"], {}, UsageError, "no column 'second'", "did you mean 'seconds'?"),
        ([""], {"key": ["net"]}, UsageError, "no column 'net'", "there are no columns"),
        (["a,b,c"], {"key": ["a", "b", "c"]}, UsageError, "3 key columns for 2 choices", "one for each choice"),
        (["a,b", "skip,conv"], {"key": ["a", "b"]}, DataError, "line 2: choice 'second'", "did you mean 'conv_3x3'?"),
        (["net", "00", "first=skap second=none"], {"key": ["net"]}, DataError, "line 3: choice 'first'", "'skip'?"),
        (
            ["net", "09"],
            {"key": ["net"]},
            DataError,
            "choice 'second' has no alternative '9'",
            "alternatives: conv_3x3",
        ),
        (["net", "00", "|skip|"], {"key": ["net"]}, DataError, "line 3: 1 labels in '|skip|'", "in the order"),
        (["net", "00", "01", "skip none"], {"key": ["net"]}, DataError, "line 4: these choices stood", "one line"),
    ],
)
def test_a_table_that_does_not_fit_is_told_with_the_line_and_a_hint(table_of, lines, arguments, error, says, hint):
    with pytest.raises(error) as caught:
        table_of(*lines, **arguments)
    assert (says in caught.value.message and "table.csv" in caught.value.message) or "key columns" in says
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.csv", None, "No such file"),
        ("broken.csv.gz", b"net,accuracy\n00,90\n", "gzip"),
        ("cut.csv.gz", gzip.compress(b"net,accuracy\n00,90\n" * 50, mtime=0)[:-20], "is no CSV file"),
        ("image.csv", b"\x89PNG\xff\xfe,\n", "is no CSV file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(GenSynthError) as caught:
        Table.read(SPACE, [tmp_path / name], key=["net"])
    assert name in caught.value.message and says in caught.value.message and caught.value.hint


def test_a_zipped_file_with_a_flipped_bit_is_no_csv_file(tmp_path):
    content = bytearray(gzip.compress(b"net,accuracy\n" + bytes(range(256)) * 50, mtime=0))
    content[20] ^= 0xFF
    (tmp_path / "table.csv.gz").write_bytes(bytes(content))
    with pytest.raises(DataError, match="is no CSV file"):
        Table.read(SPACE, [tmp_path / "table.csv.gz"], key=["net"])


def test_a_line_that_ends_before_its_key_columns_is_told(table_of):
    with pytest.raises(DataError, match="line 2"):
        table_of("a,b,accuracy", "skip", key=["a", "b"])


def test_digits_are_indices_also_where_labels_are_digits(table_of):
    space = Space(("width", "kernel"), (("2", "1", "0"), ("1", "3")))
    assert list(table_of("net,accuracy", "01,90", space=space, key=["net"]).rows) == [(0, 1)]


def test_a_column_that_is_not_there_is_told_with_the_nearest(table_of):
    with pytest.raises(UsageError, match="no column 'acuracy'") as caught:
        table_of("net,accuracy", "00,1", key=["net"]).known(["acuracy"])
    assert caught.value.hint == "did you mean 'accuracy'?"


# Problems.


def test_networks_hold_under_a_ceiling_on_a_column(open_program):
    table = whole(open_program, accuracy=accuracy, energy=lambda decisions: sum(decisions))
    problem = problem_of(open_program, table, ceilings=[Ceiling.of("energy", 2.0)])
    for decisions in table.rows:
        assert problem.exists(decisions)
        assert problem.holds(decisions) == (sum(decisions) <= 2)
    assert str(problem.requirements[0]) == "energy <= 2"
    assert problem.costs((1, 0, 1)).figures == {"energy": 2.0}


def test_networks_hold_under_a_requirement_that_is_counted(open_program):
    problem = problem_of(
        open_program, whole(open_program, accuracy=accuracy), ceilings=parse_requirements(["macs <= 20K"])
    )
    counted = {decisions: problem.prober.costs(decisions, (), None).totals.macs for decisions in problem.rows}
    assert {problem.holds(decisions) for decisions in counted} == {True, False}
    assert all(problem.holds(decisions) == (macs <= 20_000) for decisions, macs in counted.items())


def test_a_ceiling_on_costs_without_its_column_is_told():
    with pytest.raises(UsageError, match="'energy <= 2': the costs have no energy"):
        Ceiling.of("energy", 2.0).value(Costs(Totals(0, 0, 0, 0, 0, 0)))


def test_rows_without_an_accuracy_or_a_ceiling_do_not_exist(open_program):
    table = whole(
        open_program,
        accuracy=lambda decisions: math.nan if decisions[0] == 0 else accuracy(decisions),
        energy=lambda decisions: math.nan if decisions[1] == 0 else 1.0,
    )
    assert {decisions[0] for decisions in problem_of(open_program, table).rows} == {1, 2}
    problem = problem_of(open_program, table, ceilings=[Ceiling.of("energy", 2.0)])
    assert set(problem.rows) == {decisions for decisions in table.rows if decisions[0] > 0 and decisions[1] > 0}
    assert not problem.holds((0, 1, 1))


def test_a_table_of_which_no_row_is_complete_is_refused(open_program):
    table = whole(open_program, accuracy=accuracy, energy=lambda _: math.nan)
    with pytest.raises(UsageError, match="no row of the table has all of accuracy, energy"):
        problem_of(open_program, table, ceilings=[Ceiling.of("energy", 2.0)])


def test_draws_from_a_sparse_table_are_its_rows_all_alike(open_program):
    table = whole(open_program, accuracy=accuracy)
    few = Table(table.space, table.columns, {key: table.rows[key] for key in ((0, 0, 0), (1, 1, 3), (2, 0, 1))})
    problem = problem_of(open_program, few)
    random = np.random.default_rng(0)
    drawn = [problem.draw(random) for _ in range(300)]
    assert set(drawn) == set(few.rows)
    assert all(70 < drawn.count(key) < 130 for key in few.rows)


def test_draws_under_a_ceiling_that_few_meet_are_the_rows_that_do(open_program):
    table = whole(open_program, accuracy=accuracy, energy=lambda decisions: sum(decisions))
    problem = problem_of(open_program, table, ceilings=[Ceiling.of("energy", 0.0)])
    random = np.random.default_rng(0)
    assert {problem.draw(random) for _ in range(20)} == {(0, 0, 0)}


def test_a_ceiling_that_no_row_meets_is_told(open_program):
    table = whole(open_program, accuracy=accuracy, energy=lambda _: 5.0)
    with pytest.raises(UsageError, match="no row of the table meets energy <= 1") as caught:
        problem_of(open_program, table, ceilings=[Ceiling.of("energy", 1.0)]).draw(np.random.default_rng(0))
    assert caught.value.hint == "raise the ceilings"


def test_costs_are_known_where_nobody_has_to_count(open_program):
    table = whole(open_program, accuracy=accuracy, p=lambda _: 2.0, m=lambda _: 300.0, energy=lambda _: 1.0)
    ceiling, counted = [Ceiling.of("energy", 2.0)], parse_requirements(["macs <= 20K"])
    columns = {"params": "p", "macs": "m"}
    for known, performance, arguments in (
        (True, "accuracy", {}),
        (True, "accuracy", {"ceilings": ceiling}),
        (True, "netscore", columns),
        (False, "netscore", {}),
        (True, "netscore", {"ceilings": counted}),
    ):
        problem = problem_of(open_program, table, performance, **arguments)
        assert (problem.known_costs((0, 0, 0)) is not None) is known, (performance, arguments)


def test_columns_of_params_and_macs_in_millions_give_netscore(open_program):
    table = whole(open_program, accuracy=lambda _: 90.0, p=lambda _: 2.0, m=lambda _: 300.0)
    problem = problem_of(open_program, table, "netscore", params="p", macs="m")
    assert problem.costs((0, 0, 0)).totals[:2] == (300_000_000, 2_000_000)
    expected = 20 * math.log10(90.0**2 / math.sqrt(2.0 * 0.3))
    assert problem.value((0, 0, 0), problem.accuracy((0, 0, 0))) == pytest.approx(expected)
    assert problem.train([(0, 0, 0), (1, 1, 1)]) == [90.0, 90.0]


def test_netscore_without_columns_is_counted(open_program):
    problem = problem_of(open_program, whole(open_program, accuracy=lambda _: 90.0), "netscore")
    totals = problem.prober.costs((1, 1, 1), (), None).totals
    expected = 20 * math.log10(90.0**2 / math.sqrt(totals.params / 1e6 * totals.macs / 1e9))
    assert problem.value((1, 1, 1), 90.0) == pytest.approx(expected)


def test_a_requirement_that_no_column_tells_is_counted_beside_columns_of_params_and_macs(open_program):
    table = whole(open_program, accuracy=accuracy, p=lambda _: 2.0, m=lambda _: 300.0)
    requirements = parse_requirements(["peak_memory <= 1B"])
    problem = problem_of(open_program, table, ceilings=requirements, params="p", macs="m")
    assert not problem.holds((2, 1, 3))


def test_latency_is_counted_on_its_device_beside_columns_of_params_and_macs(open_program):
    table = whole(open_program, accuracy=accuracy, p=lambda _: 2.0, m=lambda _: 300.0)
    problem = problem_of(open_program, table, "energy_score @ tegra-x2-gpu", params="p", macs="m")
    assert math.isfinite(problem.value((0, 0, 0), 90.0))
