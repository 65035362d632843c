import numpy as np
import pytest

import gensynth as gs
from gensynth.passes import run_pipeline
from gensynth.synth.inquisitor import UNREACHED, Encoding
from gensynth.synth.prototypes import prototype


@pytest.fixture(scope="module")
def cell():
    return Encoding(gs.prototype("nas-bench-201", arch="open").graph)


def labels(*names):
    edges = ("edge0_1", "edge0_2", "edge1_2", "edge0_3", "edge1_3", "edge2_3")
    full = {"0": "none", "s": "skip_connect", "1": "nor_conv_1x1", "3": "nor_conv_3x3", "a": "avg_pool_3x3"}
    return [dict(zip(edges, [full[letter] for letter in name], strict=True)) for name in names]


def distance(encoding, one, other):
    rows = encoding(labels(one, other)).rows
    return float(((rows[0] - rows[1]) ** 2).sum())


def test_networks_that_differ_in_one_choice_differ_in_it_and_in_the_routes_through_it(cell):
    assert distance(cell, "333333", "333333") == 0.0
    # edge0_3 is a route of its own: one choice, one route gone, one route new
    assert distance(cell, "333333", "333133") == pytest.approx(3.0)
    # edge0_1 lies on two routes, and one of the two new ones takes the place of none
    assert distance(cell, "333333", "133333") > distance(cell, "333333", "333133")


def test_an_alternative_that_gives_zeros_cuts_the_routes_through_it(cell):
    # with edge1_3 and edge1_2 cut, what edge0_1 does reaches nothing: only the choice itself differs
    assert distance(cell, "330303", "130303") > 1.0
    assert distance(cell, "330303"[:4] + "03", "130303"[:4] + "03") == pytest.approx(1.0)


def test_a_shortcut_is_a_way_around_all_that_computes(cell):
    shares = cell(labels("333s33", "333333", "s33333", "ss0s0s", "0s3033")).shortcuts
    assert shares[0] == 1.0
    assert shares[1] == shares[2] == 0.0
    assert shares[3] == 0.0, "nothing computes there"


def test_widths_lie_apart_by_their_logarithms():
    network = prototype("resnet", depth=8, image=(1, 8, 8), classes=10)
    graph = run_pipeline(network, "open-width{ratios=[0.25,0.5,1.0]}").graph
    encoding = Encoding(graph)
    choice = next(iter(graph.choices))
    wide = {name: info.labels[-1] for name, info in graph.choices.items()}
    several = [{**wide, choice: label} for label in graph.choices[choice].labels]
    rows = encoding(several).rows
    gaps = ((rows[1:] - rows[:-1]) ** 2).sum(axis=1)
    assert gaps[0] == pytest.approx(gaps[1])
    assert ((rows[0] - rows[-1]) ** 2).sum() == pytest.approx(1.0)


def test_choices_inside_an_alternative_are_reached_only_through_it():
    network = prototype("resnet", depth=8, image=(1, 8, 8), classes=10)
    graph = run_pipeline(network, "offer{rewrite=separate-conv},offer{rewrite=low-rank-conv}").graph
    encoding = Encoding(graph)
    drawn = encoding.draw(np.random.default_rng(0), 40)
    nested = [choice for choice in graph.choices if any(item[choice] == UNREACHED for item in drawn)]
    for choice in nested:
        assert any(item[choice] != UNREACHED for item in drawn)
    assert encoding(drawn).rows.shape[0] == 40
    assert encoding.spread > 0.0


def test_choices_that_the_program_does_not_have_count_on_their_own():
    encoding = Encoding()
    rows = encoding([{"a": "x", "b": "8"}, {"a": "y", "b": "8"}, {"a": "y"}]).rows
    squared = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    assert squared[0, 1] == pytest.approx(1.0)
    assert squared[1, 2] > 0.0
    assert np.allclose(squared, squared.T)
