"""The pass manager: verification, instruments, reproducers, plug-ins."""

from __future__ import annotations

import io
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from gensynth.ir import Graph, Network, ParseError, PassError, VerifyError, initialize, load_network, parse, to_text
from gensynth.passes import DumpIR, Ledger, Pass, PassManager, PassResult, PrintIR, parse_pipeline, run_pipeline
from gensynth.passes.cost import cost_model, totals

TEXT = """
gensynth 1

network @tiny(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %stem   = conv2d(%image) {channels=16, kernel=3, padding=same}
  %same   = identity(%stem)
  %act    = relu(%same)
  %pool   = global_avg_pool(%act)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""


@pytest.fixture
def tiny() -> Network:
    graph = parse(TEXT)
    return Network(graph, initialize(graph))


class Crash(Pass, name="test-crash"):
    """Raises an error of its own."""

    def run(self, network: Network) -> PassResult:
        raise ZeroDivisionError("one by nought")


class Deep(Pass, name="test-deep"):
    """Never comes back."""

    def run(self, network: Network) -> PassResult:
        return self.run(network)


class LoseNode(Pass, name="test-lose-node"):
    """Gives a graph that reads what nothing defines."""

    def run(self, network: Network) -> PassResult:
        return PassResult(network.with_graph(network.graph.replace(nodes=network.graph.nodes[1:])), True)


class LoseWeight(Pass, name="test-lose-weight"):
    """Gives weights that lack one."""

    def run(self, network: Network) -> PassResult:
        assert network.weights is not None
        return PassResult(Network(network.graph, dict(list(network.weights.items())[1:])), True)


class Refuse(Pass, name="test-refuse"):
    """Refuses every network."""

    def run(self, network: Network) -> PassResult:
        raise PassError("not this one", hint="take another")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test-crash", "ZeroDivisionError: one by nought"),
        ("test-deep", "recursed too deeply"),
        ("test-lose-node", "gave an invalid network"),
        ("test-lose-weight", "gave an invalid network"),
    ],
)
def test_a_defective_pass_leaves_a_reproducer_that_shows_the_defect_again(
    tiny: Network, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(PassError, match=message) as caught:
        PassManager(f"canonicalize,{name}", reproducers=tmp_path).run(tiny)
    found = re.search(r"gensynth opt (\S+) --passes '([^']*)'", str(caught.value))
    assert found is not None
    again = load_network(found[1])
    assert again.graph == run_pipeline(tiny, "canonicalize").graph
    assert again.weights is not None
    with pytest.raises(PassError, match=message):
        PassManager(found[2], reproducers=tmp_path).run(again)


def test_a_reproducer_goes_to_a_temporary_folder_when_none_is_named(tiny: Network) -> None:
    with pytest.raises(PassError) as caught:
        run_pipeline(tiny, (Crash(),))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    found = re.search(r"opt (\S+) --passes", str(caught.value))
    assert found is not None and parse(Path(found[1]).read_text()) == tiny.graph


def test_a_pass_that_refuses_is_not_taken_for_a_crash(tiny: Network) -> None:
    with pytest.raises(PassError, match="not this one") as caught:
        run_pipeline(tiny, "test-refuse")
    assert caught.value.hint == "take another"


def test_without_verification_an_invalid_network_goes_on(tiny: Network) -> None:
    result = PassManager("test-lose-node", verify=False).run(tiny)
    assert len(result.graph.nodes) == 4


def test_the_ledger_keeps_costs_before_and_after_every_pass(tiny: Network) -> None:
    ledger = Ledger()
    result = run_pipeline(tiny, "canonicalize,canonicalize,open-width", instruments=[ledger])
    first, second, third = ledger.rows
    assert (first.nodes_before, first.nodes_after, first.changed) == (5, 4, True)
    assert not second.changed
    assert first.before == totals(tiny.graph) and first.after == third.before
    assert third.after is None and third.choices_after == len(result.graph.choices) == 1
    assert [row.item for row in ledger.rows] == ["canonicalize", "canonicalize", "open-width"]
    row = third.as_dict()
    assert row["pass"] == "open-width" and row["after"] is None and row["nodes"] == [4, 4]


def test_the_ledger_of_a_device_keeps_latency_and_energy_with_their_intervals(tiny: Network) -> None:
    model = cost_model("tegra-x2-gpu")
    ledger = Ledger(device=model)
    run_pipeline(tiny, "canonicalize,open-width", instruments=[ledger])
    first, second = ledger.rows
    assert first.estimate_before == model.estimate(tiny.graph)
    assert first.estimate_after == second.estimate_before
    assert second.estimate_after is None, "it has open choices"
    row = first.as_dict()
    for key, interval, index in (("latency_ms", "latency_interval_ms", 0), ("energy_mj", "energy_interval_mj", 1)):
        before, after = row[key]  # type: ignore[misc]
        assert before == pytest.approx(model.totals(tiny.graph)[index])
        low, high = row[interval][1]  # type: ignore[index]
        assert low < after < high
    assert second.as_dict()["energy_interval_mj"][1] is None  # type: ignore[index]
    plain = Ledger()
    run_pipeline(tiny, "canonicalize", instruments=[plain])
    assert plain.rows[0].estimate_after is None and "energy_mj" not in plain.rows[0].as_dict()


def test_the_ir_is_printed_before_or_after_the_passes_named(tiny: Network) -> None:
    after, before = io.StringIO(), io.StringIO()
    instruments = [PrintIR(after), PrintIR(before, "before", frozenset({"open-width"}))]
    result = run_pipeline(tiny, "canonicalize,open-width,canonicalize", instruments=instruments)
    assert after.getvalue().count("// IR after") == 3
    assert "// IR after canonicalize (no change)" in after.getvalue()
    assert after.getvalue().endswith(to_text(result.graph) + "\n")
    printed = before.getvalue()
    assert printed == f"// IR before open-width\n{to_text(run_pipeline(tiny, 'canonicalize').graph)}\n"


def test_every_step_is_dumped_to_a_numbered_file(tiny: Network, tmp_path: Path) -> None:
    run_pipeline(tiny, "canonicalize,open-width", instruments=[DumpIR(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000_input.gsir",
        "001_canonicalize.gsir",
        "002_open-width.gsir",
    ]
    assert parse((tmp_path / "000_input.gsir").read_text()) == tiny.graph


def test_an_empty_pipeline_gives_back_the_network(tiny: Network) -> None:
    assert run_pipeline(tiny, "") is tiny


def test_a_pass_of_another_package_is_found_by_its_entry_point(
    tiny: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "foreign_passes.py").write_text(
        "from gensynth.passes import Pass, PassResult, option\n"
        "class Rename(Pass, name='test-rename'):\n"
        "    '''Renames the network.'''\n"
        "    to: str = option(help='the name')\n"
        "    def run(self, network):\n"
        "        return PassResult(network.with_graph(network.graph.replace(name=self.to)), True)\n"
    )
    entries = {
        "gensynth.passes": [
            EntryPoint("rename", "foreign_passes:Rename", "gensynth.passes"),
            EntryPoint("broken", "no_such_module", "gensynth.passes"),
        ]
    }
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: entries.get(group, []))
    monkeypatch.setattr("gensynth.ir.plugins._loaded", set())
    assert run_pipeline(tiny, "test-rename{to=other}").name == "other"
    assert "plug-in 'broken'" in capsys.readouterr().err
    with pytest.raises(ParseError, match="unknown pass 'test-nothing'"):
        parse_pipeline("test-nothing")


def test_two_passes_of_one_name_are_refused() -> None:
    from gensynth.ir import UsageError

    with pytest.raises(UsageError, match="registered already"):

        class Other(Pass, name="canonicalize"):
            """Takes a name that is taken."""


def test_an_invalid_graph_that_a_pass_meets_inside_is_a_defect_too(tiny: Network, tmp_path: Path) -> None:
    class Inside(Pass, name="test-inside"):
        """Trips over its own graph."""

        def run(self, network: Network) -> PassResult:
            raise VerifyError("%x is not defined")

    with pytest.raises(PassError, match="broke an invariant"):
        PassManager((Inside(),), reproducers=tmp_path).run(tiny)
    assert isinstance(tiny.graph, Graph)
