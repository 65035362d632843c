"""A synthesis whose requirements and performance function are of a device."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path

import pytest

from gensynth.ir import ParseError, UsageError, load_network
from gensynth.passes import Materializer, run_pipeline
from gensynth.passes.cost import cost_model, load_device, save_device
from gensynth.synth import Generator, LocalExecutor, Result, synthesize
from gensynth.synth.config import load_config, parse_config
from gensynth.synth.prototypes import prototype

PASSES = "sort-channels,open-depth,open-width{ratios=[0.25,0.5,1.0]}"
CONFIG = """
requirements = ["accuracy >= 20%", "energy <= ENERGYmJ @ DEVICE:fp16", "macs <= 400K"]
performance = "inferences_per_joule @ DEVICE"

[task]
name = "digits"

[prototype]
name = "resnet"
depth = 8

[generator]
passes = "PASSES"

[search]
cycles = 1
networks = 2
probes = 4
draws = 8
stimuli = 16

[emit]
seeds = 2
pool = 8

[training]
epochs = 2

[search_training]
epochs = 1
"""


def energy_bound(device: str) -> float:
    """Returns the energy [mJ] that a quarter of the generator's draws keep to without repair."""
    start = prototype("resnet", depth=8, image=(1, 8, 8), classes=10)
    free = Materializer(run_pipeline(start, PASSES.removeprefix("sort-channels,")).graph, ())
    return sorted(cost_model(device).totals(free.materialize(seed).graph)[1] for seed in range(24))[6]


def config_for(device: str) -> str:
    text = CONFIG.replace("PASSES", PASSES).replace("ENERGY", f"{energy_bound(device + ':fp16'):.6g}")
    return text.replace("DEVICE", device)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device file of the user's own."""
    path = tmp_path_factory.mktemp("boards") / "board.toml"
    save_device(dataclasses.replace(load_device("tegra-x2-gpu"), name="my-board"), path)
    return path


@pytest.fixture(scope="module")
def finished(board: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("runs")
    path = folder / "tiny.toml"
    path.write_text(config_for(str(board)))
    return synthesize(path, folder / "run", executor=LocalExecutor(0)), path


def test_emitted_networks_meet_the_requirement_on_the_device_and_say_their_figures(
    finished: tuple[Result, Path], board: Path
) -> None:
    result, _ = finished
    model, bound = cost_model(f"{board}:fp16"), energy_bound(f"{board}:fp16")
    summary = json.loads((result.out / "summary.json").read_text())
    assert summary["device"].startswith(f"{board}:fp16:")
    for row in [summary["prototype"], *summary["networks"]]:
        found = model.estimate(load_network(result.out / row["path"]).graph)
        assert row["energy_mj"] == pytest.approx(found.energy_mj) and row["latency_ms"] == pytest.approx(
            found.latency_ms
        )
        assert row["energy_interval_mj"] == pytest.approx([found.energy.low, found.energy.high])
        assert row["latency_interval_ms"] == pytest.approx([found.latency.low, found.latency.high])
    assert all(row["energy_mj"] <= bound * (1 + 1e-5) for row in summary["networks"])
    assert all(row["macs"] <= 400_000 for row in summary["networks"])


def test_unseen_seeds_of_the_learned_generator_keep_to_the_energy(finished: tuple[Result, Path], board: Path) -> None:
    result, _ = finished
    model, bound = cost_model(f"{board}:fp16"), energy_bound(f"{board}:fp16")
    generator = Generator.load(result.out / "generator.gsir")
    for seed in range(10**9, 10**9 + 40):
        assert model.totals(generator.decide(seed).graph)[1] <= bound * (1 + 1e-5)


def test_the_performance_function_is_given_the_energy(finished: tuple[Result, Path], board: Path) -> None:
    result, _ = finished
    (record,) = [json.loads(path.read_text()) for path in (result.out / "cycles").glob("*.json")]
    connection = sqlite3.connect(result.out / "store.sqlite")
    rows = connection.execute("SELECT detail, result FROM evaluations WHERE kind = 'search'").fetchall()
    connection.close()
    searched = [(json.loads(detail), json.loads(found)) for detail, found in rows]
    assert len(searched) == 2
    feasible = [1e3 / detail["energy_mj"] for detail, found in searched if found["accuracy"] >= 20.0]
    assert record["best"] == (pytest.approx(max(feasible), rel=1e-4) if feasible else None)
    assert any(" mJ" in reason["text"] for reason in record["reasons"])


def test_the_report_shows_the_device_with_intervals(finished: tuple[Result, Path], board: Path) -> None:
    result, _ = finished
    page = result.report.read_text()
    assert f"<dt>Device</dt><dd><code>{board}:fp16:" in page
    for heading in ("latency [ms]", "energy [mJ]", "energy saved", "accuracy against energy [mJ]"):
        assert heading in page


def test_a_run_resumes_with_the_same_device_file_and_is_refused_with_another(
    finished: tuple[Result, Path], board: Path
) -> None:
    result, path = finished
    assert (result.out / "devices" / "my-board.toml").is_file()
    again = synthesize(path, result.out, resume=True, executor=LocalExecutor(0))
    assert again.summary == result.summary
    kept = board.read_text()
    changed = load_device(board)
    more = {**changed.coefficients, "static": 2 * changed.coefficients.get("static", 1.0)}
    try:
        save_device(dataclasses.replace(changed, coefficients=more), board)
        with pytest.raises(UsageError, match=r"device 'my-board' is not what .*my-board\.toml says"):
            synthesize(path, result.out, resume=True, executor=LocalExecutor(0))
    finally:
        board.write_text(kept)


def test_figures_are_given_for_the_device_of_the_configuration_before_those_of_requirements() -> None:
    text = config_for("tegra-x2-gpu")
    named = parse_config(text).cost_devices
    assert named[0].startswith("tegra-x2-gpu:fp16:")
    first = parse_config(f'device = "tegra-x2-gpu:fp32"\n{text}').cost_devices
    assert first[0].startswith("tegra-x2-gpu:fp32:") and first[1:] == named
    _, _, rest = text.split("\n", 2)
    assert parse_config(f'performance = "netscore"\n{rest.partition(chr(10))[2]}').cost_devices == ()


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("mJ @ tegra-x2-gpu:fp16", "mJ", 2, "energy needs a device"),
        ("mJ @ tegra-x2-gpu:fp16", "ms @ tegra-x2-gpu:fp16", 2, "energy has no unit 'ms'"),
        ("tegra-x2-gpu:fp16", "tegra-x2-gpu:fp61", 2, "no precision, power mode or runtime 'fp61'"),
        ("inferences_per_joule @ tegra-x2-gpu", "inferences_per_joule", 3, "needs a device"),
        ("inferences_per_joule @ tegra-x2-gpu", "netscore @ tegra-x2-gpu", 3, "does not depend on a device"),
        ("[task]", 'device = "tegra-x3-gpu"\n[task]', 5, "did you mean 'tegra-x2-gpu'"),
        ("[task]", "device = 3\n[task]", 5, "'device' is no word"),
    ],
)
def test_a_fault_with_a_device_is_told_with_its_line(old: str, new: str, line: int, words: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_config(config_for("tegra-x2-gpu").replace(old, new, 1), "c.toml")
    assert f"c.toml:{line}:" in str(caught.value)
    assert words in str(caught.value)


def test_the_example_on_a_device_reads_and_its_energy_is_within_reach() -> None:
    config = load_config("examples/digits-energy.toml")
    arguments = {**config.prototype_arguments, "image": (1, 8, 8), "classes": 10}
    start = prototype(str(config.prototype), **arguments)  # type: ignore[arg-type]
    opened = run_pipeline(start, config.passes.removeprefix("sort-channels,"))
    computable = tuple(text for text in config.requirements if not text.startswith("accuracy"))
    generator = Generator(opened.with_graph(opened.graph.replace(requirements=computable)))
    assert len(generator.distinct(range(32))) >= config.emit.seeds
    (device,) = config.cost_devices
    energies = [cost_model(device).totals(generator.decide(seed).graph)[1] for seed in range(32)]
    assert max(energies) < cost_model(device).totals(start.graph)[1], "the requirement asks for something"
