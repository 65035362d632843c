"""The report of a run, made from small run directories written by hand."""

from __future__ import annotations

import dataclasses
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gensynth.ir import DataError, Graph, Network, architecture_hash, parse, save_network, to_text
from gensynth.passes import run_pipeline
from gensynth.passes.cost import cost_model, load_device, save_device, totals
from gensynth.synth.report import write_report
from gensynth.synth.store import Store
from gensynth.synth.summary import summary_row

CONFIG = """requirements = ["accuracy >= 90%", "macs <= 8K"]
[task]
name = "digits"
[prototype]
name = "lenet"
[generator]
passes = ["open-width{ratios=[0.25,0.5,1.0]}"]
"""
PROTOTYPE = """gensynth 1

network @tiny(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %stem.conv = conv2d(%image) {channels=16, kernel=3, padding=same}
  %stem.act = relu(%stem.conv)
  %head.pool = global_avg_pool(%stem.act)
  %head.logits = dense(%head.pool) {features=10}
  return %head.logits
}
"""
VOID = {"meta", "link", "br", "hr", "img", "input"}
HOSTILE = "</script><img src=x onerror=\"alert('1')\">&amp;"
SECTIONS = ["networks", "trade-off", "cycles", "generator", "drawings", "ledger", "use"]


class Page(HTMLParser):
    """Checks that elements nest, and collects ids, links, tags, text and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._take(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._take(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def _take(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")
            if name in ("src", "srcset", "data"):
                self.sources.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    @property
    def text(self) -> str:
        """All text, single spaced."""
        return " ".join(" ".join(self.words).split())


def narrow(channels: int) -> Graph:
    """Returns a network of the tiny family."""
    return parse(PROTOTYPE.replace("channels=16", f"channels={channels}"))


def put(store: Store, kind: str, graph: Graph, accuracy: float, **detail: object) -> None:
    """Writes a training into a store."""
    found = architecture_hash(graph)
    store.put(
        f"{kind}-{found}-{detail}",
        kind=kind,
        network=found,
        text=to_text(graph),
        detail=detail,
        result={"accuracy": accuracy},
        seconds=2.5,
    )


def unfinished(out: Path) -> Path:
    """Writes a run that has opened a generator, trained the prototype, and done one cycle."""
    (out / "cycles").mkdir(parents=True)
    (out / "generators").mkdir()
    (out / "config.toml").write_text(CONFIG)
    start = narrow(16)
    save_network(Network(start), out / "prototype.gsir")
    opened = run_pipeline(Network(start), "open-width{ratios=[0.25,0.5,1.0]}")
    passes = ["update{choice=stem.conv.width,by=[1.5,0.0,0.0]}", "drop{choice=stem.conv.width,alternative=16}"]
    moved = run_pipeline(opened, ",".join(passes))
    (out / "generators" / "000.gsir").write_text(to_text(opened.graph))
    (out / "generators" / "001.gsir").write_text(to_text(moved.graph))
    record = {
        "cycle": 1,
        "passes": passes,
        "reasons": [
            {"action": "update", "choice": "stem.conv.width", "text": "'4' goes from 33% to 69%: it is cheap"},
            {"action": "drop", "choice": "stem.conv.width", "text": "'16' is down to 1%: too dear"},
        ],
        "probed": 3,
        "trained": 1,
        "best": 120.5,
        "entropy": 0.5,
        "choices": 1,
    }
    (out / "cycles" / "001.json").write_text(json.dumps(record))
    store = Store(out / "store.sqlite")
    put(store, "final", start, 99.0, what="prototype")
    put(store, "search", narrow(4), 93.0, cycle=1, seed=5)
    store.close()
    return out


def finished(out: Path, *, task: str = "digits", networks: tuple[int, ...] = (4, 8)) -> Path:
    """Writes a run with two FermiNets, and one network that was trained fully and not emitted."""
    unfinished(out)
    store = Store(out / "store.sqlite")
    rows = []
    for seed, channels in enumerate(networks):
        graph = narrow(channels)
        path = f"networks/seed-{seed:06d}.gsir"
        save_network(Network(graph), out / path)
        put(store, "final", graph, 97.0 + seed, what="emitted", seed=seed)
        rows.append(
            summary_row(graph, 96.5 + seed, seed=seed, feasible=True, path=path, validation_accuracy=97.0 + seed)
        )
    put(store, "final", narrow(2), 60.0, what="emitted", seed=77)
    store.close()
    shutil.copy(out / "generators" / "001.gsir", out / "generator.gsir")
    summary = {
        "task": task,
        "performance": "netscore",
        "requirements": ["accuracy >= 90%", "macs <= 8K"],
        "prototype": summary_row(
            narrow(16), 98.5, seed=None, feasible=False, path="prototype.gsir", validation_accuracy=99.0
        ),
        "networks": rows,
    }
    (out / "summary.json").write_text(json.dumps(summary))
    return out


def three(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def page_of(out: Path) -> Page:
    return Page(write_report(out).read_text(encoding="utf-8"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished(tmp_path / "run")


def test_the_page_is_well_formed_and_has_every_section(run: Path) -> None:
    page = page_of(run)
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    assert len(set(page.ids)) == len(page.ids)
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_the_page_loads_nothing_from_elsewhere(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert page.sources == []
    assert "link" not in page.tags and "iframe" not in page.tags
    assert "url(" not in text and "@import" not in text
    assert len(text) < 2_000_000


def test_the_headline_gives_the_gains_over_the_prototype(run: Path) -> None:
    first, cheap, dear = (totals(narrow(width)) for width in (16, 4, 8))
    densities = [96.5 / cheap.params / (98.5 / first.params), 97.5 / dear.params / (98.5 / first.params)]
    text = page_of(run).text
    assert "2 different FermiNets" in text
    assert f"{min(densities):.1f}–{max(densities):.1f}× the information density" in text
    assert f"{first.macs / dear.macs:.1f}–{first.macs / cheap.macs:.1f}× fewer MACs" in text
    assert "test accuracy within 2.0 points of the prototype’s" in text


def test_equal_architectures_are_not_called_different(tmp_path: Path) -> None:
    text = page_of(finished(tmp_path / "run", networks=(4, 4))).text
    assert "2 FermiNets of 1 different architecture" in text


def test_the_table_shows_every_network_with_its_hash(run: Path) -> None:
    text = page_of(run).text
    for width in (16, 4, 8):
        assert architecture_hash(narrow(width)) in text
    assert "96.50%" in text and "97.50%" in text and "98.50%" in text


def test_the_plot_tells_searched_emitted_and_rejected_networks_apart(run: Path) -> None:
    text = page_of(run).text
    assert "cycle 1: 93.00% on validation data" in text
    assert "seed 0: 97.00% on validation data" in text and "96.50% on test data" in text
    assert "seed 77: 60.00% on validation data" in text and "not emitted" in text
    assert "prototype: 99.00% on validation data" in text


def test_the_reasons_stand_beside_the_passes_that_they_explain(run: Path) -> None:
    text = page_of(run).text
    assert "'4' goes from 33% to 69%" in text and "it is cheap" in text
    assert "drop{choice=stem.conv.width,alternative=16}" in text
    assert "1 of 3 alternatives dropped" in text


def test_the_diff_of_the_generators_is_told(run: Path) -> None:
    text = page_of(run).text
    assert "generators/000.gsir" in text
    assert "1 alternative dropped" in text


def test_the_ledger_counts_the_choices_that_each_pass_opened(run: Path) -> None:
    text = page_of(run).text
    assert "open-width{ratios=[0.25,0.5,1.0]} 4 4 0 1" in text


def test_the_page_is_the_same_bytes_when_made_twice(run: Path, tmp_path: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    elsewhere = finished(tmp_path / "elsewhere")
    assert write_report(elsewhere).read_bytes() == first


def test_a_device_shows_latency_and_energy_with_what_their_model_has_not_seen(run: Path, tmp_path: Path) -> None:
    device = dataclasses.replace(load_device("tegra-x2-gpu"), name="unmeasured", evidence={}, seen={}, networks_seen={})
    save_device(device, tmp_path / "unmeasured.toml")
    model = cost_model(str(tmp_path / "unmeasured.toml"))
    energies = {width: model.estimate(narrow(width)).energy for width in (16, 8, 4)}
    wanted = f"energy <= {energies[8].value!r}mJ @ {tmp_path}/unmeasured.toml"
    config = CONFIG.replace('"macs <= 8K"', f'"macs <= 8K", "{wanted}"')
    (run / "config.toml").write_text(f'device = "{tmp_path}/unmeasured.toml"\n{config}')
    text = page_of(run).text
    for found in energies.values():
        assert f"{three(found.value)} {three(found.low)}–{three(found.high)}" in text
    assert "accuracy against energy [mJ]" in text and "energy saved" in text
    assert "latency was never measured on unmeasured" in text and "(3 networks)" in text
    worst = max(energies[4].value, energies[8].value)
    assert f"{wanted} {three(energies[16].value)} mJ {three(worst)} mJ" in text


def test_a_device_that_is_gone_is_told_and_the_rest_is_shown(run: Path) -> None:
    wanted = "energy <= 5mJ @ gone/board.toml"
    (run / "config.toml").write_text(CONFIG.replace('"macs <= 8K"', f'"macs <= 8K", "{wanted}"'))
    summary = json.loads((run / "summary.json").read_text())
    summary["requirements"].append(wanted)
    (run / "summary.json").write_text(json.dumps(summary))
    text = page_of(run).text
    assert "cannot read gone/board.toml" in text
    assert "96.50%" in text and "macs <= 8K" in text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    out = finished(tmp_path / "run", task=HOSTILE)
    record = json.loads((out / "cycles" / "001.json").read_text())
    record["reasons"][0] = {"action": HOSTILE, "choice": HOSTILE, "text": f"{HOSTILE}: {HOSTILE}"}
    (out / "cycles" / "001.json").write_text(json.dumps(record))
    page = page_of(out)
    assert "img" not in page.tags and page.handlers == []
    assert page.tags.count("script") == 1
    assert HOSTILE in page.text


def test_an_unfinished_run_shows_what_is_there(tmp_path: Path) -> None:
    page = page_of(unfinished(tmp_path / "run"))
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    assert "This run is not finished" in page.text
    assert "No network has been emitted yet." in page.text
    assert "99.00%" in page.text
    assert "it is cheap" in page.text


def test_a_run_cut_off_before_the_test_lists_what_was_trained_fully(tmp_path: Path) -> None:
    out = finished(tmp_path / "run")
    (out / "summary.json").unlink()
    text = page_of(out).text
    assert "2 different FermiNets, not tested yet." in text
    assert "seed 77 " not in text.split("Accuracy against cost")[0]


def test_a_run_with_nothing_but_its_configuration_has_a_page(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.toml").write_text(CONFIG)
    page = page_of(out)
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    assert "No training has been done yet." in page.text
    assert sorted(path.name for path in out.iterdir()) == ["config.toml", "report.html"]


def test_a_damaged_file_is_told_and_the_rest_is_shown(run: Path) -> None:
    (run / "networks" / "seed-000001.gsir").write_text("gensynth 1\nnetwork @")
    text = page_of(run).text
    assert "networks/seed-000001.gsir:" in text
    assert "seed 0" in text


def test_a_damaged_record_is_a_clear_error(run: Path) -> None:
    (run / "summary.json").write_text('{"task": "digits"}')
    with pytest.raises(DataError, match=r"damaged: KeyError 'performance'"):
        write_report(run)


def test_a_missing_directory_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run directory"):
        write_report(tmp_path / "nowhere")


def test_a_page_that_would_grow_too_large_leaves_drawings_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gensynth.synth.report.page._BUDGET", 8_000)
    page = page_of(run)
    assert "seed 1 is left out to keep this page small" in page.text
    assert "gensynth show networks/seed-000001.gsir --format html" in page.text
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_without_the_drawing_package_the_page_says_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fast_sugiyama", None)
    page = page_of(run)
    assert "No drawing: drawing needs the package fast-sugiyama" in page.text
    assert "stem.conv" in page.text
