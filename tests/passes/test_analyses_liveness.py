"""Live ranges and the memory of activations."""

from __future__ import annotations

from gensynth.ir import Builder, Graph
from gensynth.ir.ops import Add, Conv2d, Relu, Split
from gensynth.passes.analyses import liveness, peak_memory


def residual() -> Graph:
    b = Builder("residual")
    x = b.input("image", (2, 4, 4))
    a = b.emit(Conv2d(channels=8, kernel=3, padding="same"), x, name="a")
    c = b.emit(Conv2d(channels=8, kernel=3, padding="same"), a, name="c")
    d = b.emit(Relu(), c, name="d")
    b.output(b.emit(Add(), a, d, name="sum"))
    return b.build()


def test_a_value_lives_from_its_node_to_its_last_reader() -> None:
    found = liveness(residual())
    assert found.ranges["image"] == (-1, 0)
    assert found.ranges["a"] == (0, 3)
    assert found.ranges["c"] == (1, 2)
    assert found.ranges["sum"] == (3, 4)


def test_the_peak_is_where_a_skip_connection_waits() -> None:
    found = liveness(residual())
    small, large = 4 * 2 * 16, 4 * 8 * 16
    assert found.live_bytes == (small + large, 2 * large, 3 * large, 3 * large)
    assert (found.peak, found.peak_node) == (3 * large, "d")


def test_a_result_that_nothing_reads_still_takes_its_memory_while_it_is_made() -> None:
    b = Builder("split")
    x = b.input("image", (4, 2, 2))
    first, _ = b.emit_all(Split(sections=2), x, names=("first", "second"))
    b.output(b.emit(Relu(), first, name="out"))
    graph = b.build()
    assert liveness(graph).live_bytes == (4 * 32, 4 * 16)
    assert peak_memory(graph) == 4 * 32


def test_an_input_that_nothing_reads_counts_at_the_start() -> None:
    b = Builder("unused")
    x = b.input("image", (1, 2, 2))
    b.input("mask", (64, 2, 2))
    b.output(b.emit(Relu(), x, name="out"))
    graph = b.build()
    assert liveness(graph).peak == peak_memory(graph) == 4 * (4 + 256)
    assert liveness(graph).peak_node is None


def test_both_ways_of_finding_the_peak_agree_at_any_batch() -> None:
    graph = residual()
    for batch in (1, 3):
        assert peak_memory(graph, batch) == liveness(graph, batch).peak
