"""The commands end to end: files, pipes, JSON, exit codes."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import OPEN, TINY, Run

import gensynth as gs
from gensynth.cli import COMMANDS, main
from gensynth.cli.output import human, print_table, progress


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a shell line in which `gensynth` is this one."""
    program = f'gensynth() {{ {shlex.quote(sys.executable)} -m gensynth "$@"; }}\nset -o pipefail\n{command}'
    return subprocess.run(["bash", "-c", program], cwd=folder, capture_output=True, text=True, timeout=120, check=False)


# Help.


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_every_command_has_an_example_that_it_accepts(name: str, gensynth: Run) -> None:
    found = gensynth(name, "--help")
    assert found.code == 0
    assert found.err == ""
    assert COMMANDS[name].examples
    for example in COMMANDS[name].examples:
        assert example in found.out
        for part in example.split(" | "):
            program, command, *rest = shlex.split(part)
            assert program == "gensynth"
            assert COMMANDS[command].parse(rest) is not None


def test_the_help_names_every_command_and_an_example(gensynth: Run) -> None:
    for argv in ([], ["--help"], ["-h"]):
        found = gensynth(*argv)
        assert found.code == 0
        assert all(f"  {name} " in found.out for name in COMMANDS)
        assert "example" in found.out


def test_the_quick_examples_run_one_after_another(folder: Path) -> None:
    for name in ("prototype", "cost", "show", "opt", "devices", "passes", "ops", "prototypes", "tasks"):
        for example in COMMANDS[name].examples:
            found = shell(example, folder)
            assert found.returncode == 0, (example, found.stderr)
    assert {"resnet8.gsir", "resnet8.svg", "folded.gsir", "generator.gsir"} <= {path.name for path in folder.iterdir()}
    (example,) = COMMANDS["generate"].examples
    assert shell(example, folder).returncode == 0
    assert len(list((folder / "nets").glob("seed-*.gsir"))) == 4


# Pipes.


def test_commands_work_in_a_shell_pipe(folder: Path) -> None:
    found = shell(
        "gensynth prototype resnet depth=8 image=1x8x8 -o - | gensynth opt - --passes canonicalize -o -"
        " | gensynth cost - --json",
        folder,
    )
    assert found.returncode == 0
    assert found.stderr == ""
    assert json.loads(found.stdout)["macs"] == gs.cost(gs.prototype("resnet", depth=8, image=(1, 8, 8))).macs


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    found = shell("gensynth prototype nasnet-a | gensynth show - | head -n 1", folder)
    assert found.stderr == ""
    assert found.stdout == "gensynth 1\n"


def test_an_interrupt_ends_with_130_and_one_line(folder: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gensynth",
            "train",
            "tiny.gsir",
            "--task",
            "digits",
            "--out",
            "out",
            "--epochs",
            "100000",
        ],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background may have them ignore interrupts, and their children with them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert first == "training @tiny on digits\n"
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "gensynth: interrupted"


def test_text_on_stdout_leaves_weights_behind_and_says_so(gensynth: Run) -> None:
    found = gensynth("prototype", "lenet", "--seed", "1")
    assert found.code == 0
    assert found.out.startswith("gensynth 1\n")
    assert "note: stdout takes the text only" in found.err


# Networks.


def test_a_prototype_is_written_with_fresh_weights_for_a_seed(gensynth: Run, folder: Path) -> None:
    assert gensynth("prototype", "resnet", "depth=8", "-o", "net.gsir", "image=1x8x8", "--seed", "5").code == 0
    network = gs.load(folder / "net.gsir")
    assert network.weights is not None
    fresh = gs.initialize(network.graph, 5)
    assert all((network.weights[name] == fresh[name]).all() for name in fresh)


def test_cost_shows_a_row_per_node_and_the_totals(gensynth: Run) -> None:
    found = gensynth("cost", "tiny.gsir")
    lines = found.out.splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["node", "conv", "norm", "act", "pool", "logits"]
    assert "4,688 MACs" in lines[-2]


def test_the_json_of_cost_has_totals_that_are_the_sums_of_its_rows(gensynth: Run) -> None:
    report = json.loads(gensynth("cost", "tiny.gsir", "--json", "--batch", "2").out)
    assert report["batch"] == 2
    for key in ("params", "macs", "operations", "weight_bytes"):
        assert report[key] == sum(row[key] for row in report["rows"])
    assert report["peak_memory_bytes"] >= max(row["output_bytes"] for row in report["rows"])


def test_show_prints_text_and_draws_by_suffix(gensynth: Run, folder: Path) -> None:
    assert gs.parse(gensynth("show", "tiny.gsir").out).graph == gs.parse(TINY).graph
    assert gensynth("show", "tiny.gsir", "--format", "dot").out.startswith("digraph")
    for suffix, start in (("svg", "<svg"), ("html", "<!doctype html>"), ("dot", "digraph"), ("gsir", "gensynth 1")):
        assert gensynth("show", "open.gsir", "-o", f"drawn.{suffix}").code == 0
        assert (folder / f"drawn.{suffix}").read_text().lower().startswith(start)


def test_diff_tells_what_changed_and_exits_with_1(gensynth: Run, folder: Path) -> None:
    (folder / "wide.gsir").write_text(TINY.replace("channels=8", "channels=12"))
    found = gensynth("diff", "tiny.gsir", "wide.gsir")
    assert found.code == 1
    assert "conv" in found.out and "8" in found.out and "12" in found.out
    told = gensynth("diff", "tiny.gsir", "-", "--json", stdin=(folder / "wide.gsir").read_bytes())
    assert told.code == 1
    assert json.loads(told.out)["changes"]


def test_equal_networks_have_no_diff_and_exit_with_0(gensynth: Run) -> None:
    found = gensynth("diff", "tiny.gsir", "tiny.gsir", "--json")
    assert found.code == 0
    assert json.loads(found.out)["changes"] == []


def test_a_program_of_torch_export_is_imported_with_its_weights(gensynth: Run, folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    torch.export.save(torch.export.export(model.eval(), (torch.zeros(2, 1, 8, 8),)), folder / "2nd-model.pt2")
    assert gensynth("import", "2nd-model.pt2", "-o", "net.gsir").code == 0
    network = gs.load(folder / "net.gsir")
    assert network.name == "network_2nd_model"
    images = torch.rand(3, 1, 8, 8)
    assert torch.allclose(gs.to_torch(network).eval()(images), model(images), atol=1e-5)


def test_an_onnx_model_is_imported_with_its_weights_and_notes(gensynth: Run, folder: Path) -> None:
    assert gensynth("export", "tiny.gsir", "-o", "tiny.onnx", "--seed", "0", "--batch", "4").code == 0
    found = gensynth("import", "tiny.onnx", "-o", "net.gsir")
    assert (found.code, found.out) == (0, "")
    assert found.err == "gensynth: note: the model is fixed to a batch of 4; the network takes any\n"
    network = gs.load(folder / "net.gsir")
    assert str(network.graph) == str(gs.load(folder / "tiny.gsir").graph)
    assert network.weights is not None
    shaped = gensynth("import", "tiny.onnx", "-o", "other.gsir", "--shape", "1x8x8", "--name", "other")
    assert shaped.code == 0
    assert gs.load(folder / "other.gsir").name == "other"
    wrong = gensynth("import", "tiny.onnx", "-o", "net.gsir", "--shape", "image=3x8x8")
    assert wrong.code == 2
    assert "[3, 8, 8] does not fit" in wrong.err


# Passes.


def test_opt_runs_passes_and_carries_weights(gensynth: Run, folder: Path) -> None:
    found = gensynth("opt", "tiny.gsir", "--passes", "fold-batch-norm", "--seed", "1", "-o", "folded.gsir", "--ledger")
    assert found.code == 0
    assert "fold-batch-norm" in found.out and "nodes" in found.out
    folded = gs.load(folder / "folded.gsir")
    assert [node.op.name for node in folded.graph.nodes] == ["conv2d", "relu", "global_avg_pool", "dense"]
    assert folded.weights is not None


def test_opt_reads_passes_from_a_file_with_comments(gensynth: Run, folder: Path) -> None:
    (folder / "my.passes").write_text("canonicalize,  # first\nopen-width\n")
    found = gensynth("opt", "tiny.gsir", "--passes", "@my.passes")
    assert found.code == 0
    assert gs.parse(found.out).graph.is_generator


def test_opt_prints_the_ir_around_passes_to_stderr(gensynth: Run) -> None:
    pipeline = ("opt", "tiny.gsir", "--passes", "canonicalize,open-width")
    assert gensynth(*pipeline, "--print-ir-after-all").err.count("// IR after") == 2
    assert gensynth(*pipeline, "--print-ir-before-all").err.count("// IR before") == 2
    assert gensynth(*pipeline, "--print-ir-before=open-width").err.count("// IR before open-width") == 1
    both = gensynth(*pipeline, "--print-ir-after=open-width,canonicalize")
    assert both.err.count("// IR after") == 2
    assert gs.parse(both.out).graph.is_generator


def test_opt_dumps_the_ir_after_every_pass(gensynth: Run, folder: Path) -> None:
    assert gensynth("opt", "tiny.gsir", "--passes", "canonicalize,open-width", "--dump-ir", "dumps").code == 0
    names = sorted(path.name for path in (folder / "dumps").iterdir())
    assert names == ["000_input.gsir", "001_canonicalize.gsir", "002_open-width.gsir"]


def test_the_json_of_opt_is_its_ledger(gensynth: Run, folder: Path) -> None:
    found = json.loads(gensynth("opt", "tiny.gsir", "--passes", "fold-batch-norm", "--json", "-o", "out.gsir").out)
    assert found["path"] == "out.gsir"
    (row,) = found["ledger"]
    assert row["changed"] and row["nodes"] == [5, 4]
    assert (folder / "out.gsir").exists()


def test_why_tells_where_a_rule_applies_and_what_stops_it_elsewhere(gensynth: Run, folder: Path) -> None:
    (folder / "two.gsir").write_text(TINY.replace("batch_norm(%conv)", "conv2d(%conv) {channels=8, kernel=1}"))
    found = gensynth("opt", "two.gsir", "--why", "separate-conv")
    assert found.code == 0
    assert "applies at 1 of 2 spots" in found.out
    told = json.loads(gensynth("opt", "two.gsir", "--why", "separate-conv", "--json").out)["why"]
    verdicts = {item["name"]: item for item in told}
    assert verdicts["conv"]["applies"] and verdicts["conv"]["reason"] is None
    assert not verdicts["norm"]["applies"] and "pointwise" in verdicts["norm"]["reason"]


# Generators.


def test_generate_writes_a_network_per_seed_and_a_json_line_for_each(gensynth: Run, folder: Path) -> None:
    found = gensynth("generate", "open.gsir", "--seeds", "0:3,7", "--out", "nets", "--json")
    assert found.code == 0
    rows = [json.loads(line) for line in found.out.splitlines()]
    assert [row["seed"] for row in rows] == [0, 1, 2, 7]
    for row in rows:
        network = gs.load(folder / row["path"])
        assert row["architecture_hash"] == network.hash
        assert (row["params"], row["macs"]) == (gs.cost(network).params, gs.cost(network).macs)
        assert row["feasible"] is True
        assert row["information_density"] is None and row["netscore"] is None
    assert (folder / "nets" / "seed-000007.gsir").exists()


def test_generated_networks_meet_computable_requirements_unless_repair_is_off(gensynth: Run, folder: Path) -> None:
    (folder / "strict.gsir").write_text(OPEN.replace("{\n", '{\n  require "macs <= 3K"\n', 1))
    repaired = gensynth("generate", "strict.gsir", "--seeds", "0:20", "--out", "repaired", "--json").out
    drawn = gensynth("generate", "strict.gsir", "--seeds", "0:20", "--out", "drawn", "--json", "--no-repair").out
    assert all(json.loads(line)["macs"] <= 3000 and json.loads(line)["feasible"] for line in repaired.splitlines())
    rows = [json.loads(line) for line in drawn.splitlines()]
    assert {row["feasible"] for row in rows} == {True, False}
    assert all(row["feasible"] == (row["macs"] <= 3000) for row in rows)


def test_generate_tells_latency_and_energy_where_a_requirement_names_a_device(gensynth: Run, folder: Path) -> None:
    (folder / "green.gsir").write_text(OPEN.replace("{\n", '{\n  require "energy <= 1J @ tegra-x2-gpu:fp16"\n', 1))
    found = gensynth("generate", "green.gsir", "--seeds", "0:3", "--out", "nets", "--json")
    assert found.code == 0
    for row in map(json.loads, found.out.splitlines()):
        report = gs.cost(gs.load(folder / row["path"]), device="tegra-x2-gpu:fp16")
        assert row["latency_ms"] == report.latency_ms and row["energy_mj"] == report.energy_mj
        assert row["energy_interval_mj"] == [report.energy.low, report.energy.high]
        assert row["feasible"] is True


def test_generate_says_which_device_of_a_requirement_is_unknown(gensynth: Run, folder: Path) -> None:
    (folder / "green.gsir").write_text(OPEN.replace("{\n", '{\n  require "energy <= 1J @ tegra-x9-gpu"\n', 1))
    found = gensynth("generate", "green.gsir", "--seeds", "0", "--out", "nets")
    assert found.code == 2 and "unknown device 'tegra-x9-gpu'" in found.err and "^" in found.err


def test_generated_networks_inherit_the_generators_weights(gensynth: Run, folder: Path) -> None:
    assert gensynth("opt", "tiny.gsir", "--passes", "open-width", "--seed", "0", "-o", "g.gsir").code == 0
    assert gensynth("generate", "g.gsir", "--seeds", "3", "--out", "nets").code == 0
    assert gs.load(folder / "nets" / "seed-000003.gsir").weights is not None


def test_generate_writes_into_a_folder_that_holds_something_only_with_force(gensynth: Run) -> None:
    assert gensynth("generate", "open.gsir", "--seeds", "1", "--out", "nets").code == 0
    assert gensynth("generate", "open.gsir", "--seeds", "1", "--out", "nets").code == 2
    assert gensynth("generate", "open.gsir", "--seeds", "1", "--out", "nets", "--force").code == 0


# Training.


def test_a_network_is_trained_and_evaluated(gensynth: Run, folder: Path) -> None:
    options = ("--epochs", "2", "--set", "learning_rate=0.05", "--set", "optimizer=sgd", "--seed", "3", "--json")
    found = gensynth("train", "tiny.gsir", "--task", "digits", "--out", "trained", *options)
    assert found.code == 0, found.err
    history = json.loads(found.out)
    assert history == json.loads((folder / "trained" / "training.json").read_text())
    assert history["recipe"]["learning_rate"] == 0.05
    assert history["recipe"]["augmentation"][0]["name"] == "shift"
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2]
    assert "2/2" in found.err
    row = json.loads(gensynth("evaluate", "trained/tiny.gsir", "--task", "digits", "--json").out)
    assert row["accuracy"] == pytest.approx(history["validation_accuracy"])
    assert row["count"] == 359
    table = gensynth("evaluate", "tiny.gsir", "--weights", "trained/tiny.safetensors", "--task", "digits")
    assert f"{row['accuracy']:.2f}" in table.out


def test_the_recipe_comes_from_the_training_table_of_a_file(gensynth: Run, folder: Path) -> None:
    (folder / "recipe.toml").write_text('[training]\nepochs = 9\nbatch_size = 128\naugmentation = ["noise"]\n')
    options = ("--recipe", "recipe.toml", "--set", "epochs=1", "--json")
    recipe = json.loads(gensynth("train", "tiny.gsir", "--task", "digits", "--out", "trained", *options).out)["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], recipe["augmentation"][0]["name"]) == (1, 128, "noise")


def test_a_network_without_weights_is_evaluated_with_fresh_ones_of_the_seed(gensynth: Run) -> None:
    rows = [
        json.loads(gensynth("evaluate", "tiny.gsir", "--task", "digits", "--seed", seed, "--json").out)
        for seed in ("1", "1", "2")
    ]
    assert rows[0] == rows[1] != rows[2]


# Lists.


@pytest.mark.parametrize(
    ("command", "name"),
    [("passes", "separate-conv"), ("ops", "conv2d"), ("prototypes", "resnet"), ("tasks", "image-folder")],
)
def test_lists_name_every_item_and_tell_all_about_one(command: str, name: str, gensynth: Run) -> None:
    entries = json.loads(gensynth(command, "--json").out)
    shown = gensynth(command).out
    assert all(f"{entry['name']}" in shown and entry["description"] for entry in entries)
    entry = json.loads(gensynth(command, name, "--json").out)
    assert entry in entries
    told = gensynth(command, name).out
    assert all(option["name"] in told for option in entry["options"])


def test_passes_say_how_a_rule_carries_weights(gensynth: Run) -> None:
    assert "weights: carried exactly" in gensynth("passes", "fold-batch-norm").out
    assert "weights:" not in gensynth("passes", "canonicalize").out


# Synthesis.


def test_synthesize_prints_the_family_and_where_the_report_lies(
    gensynth: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gensynth.synth import synthesis

    def row(seed: int | None, accuracy: float, params: int, macs: int) -> dict[str, object]:
        density, score = accuracy / params * 1e6, 100.0
        return {
            "seed": seed,
            "architecture_hash": f"hash{seed}",
            "accuracy": accuracy,
            "params": params,
            "macs": macs,
            "information_density": density,
            "netscore": score,
            "feasible": True,
            "path": "x.gsir",
        }

    summary: dict[str, object] = {
        "task": "digits",
        "performance": "netscore",
        "requirements": [],
        "prototype": row(None, 98.0, 80_000, 800_000),
        "networks": [row(4, 97.5, 8_000, 100_000)],
    }
    seen: dict[str, object] = {}

    def synthesize(config: str, **options: object) -> synthesis.Result:
        seen.update(options, config=config)
        return synthesis.Result(Path("runs/x"), gs.Generator.load("open.gsir"), summary)

    monkeypatch.setattr(synthesis, "synthesize", synthesize)
    found = gensynth("synthesize", "c.toml", "--out", "runs/x", "--resume", "--processes", "0")
    assert found.code == 0
    assert (seen["config"], seen["out"], seen["resume"]) == ("c.toml", "runs/x", True)
    prototype, network = found.out.splitlines()[1:3]
    assert prototype.startswith("prototype") and "98.00" in prototype and "1.0x" in prototype
    assert network.startswith("seed 4") and "9.9x" in network and "8.0x" in network and "10.0x" in network
    assert found.out.splitlines()[-2:] == ["run directory: runs/x", "report: runs/x/report.html"]
    assert json.loads(gensynth("synthesize", "c.toml", "--json").out) == summary


def test_an_interrupted_synthesis_says_how_to_go_on(gensynth: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from gensynth.synth import synthesis

    def synthesize(config: str, **options: object) -> synthesis.Result:
        raise KeyboardInterrupt

    monkeypatch.setattr(synthesis, "synthesize", synthesize)
    found = gensynth("synthesize", "c.toml", "--out", "runs/x")
    assert found.code == 130
    assert found.err == "gensynth: interrupted; go on with: gensynth synthesize c.toml --out runs/x --resume\n"


# What is printed.


class Terminal:
    """A stream that says it is a terminal and keeps what is written."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_progress_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with progress(terminal) as listener:  # type: ignore[arg-type]
        listener.stage("cycle 1")
        listener.advance(1, 4, "97.5%")
        listener.line("best [so far]")
    assert "cycle 1" in terminal.text and "1/4" in terminal.text and "best [so far]" in terminal.text
    assert "\x1b[" in terminal.text


def test_progress_elsewhere_is_plain_lines_and_few_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as listener:
        listener.stage("generating")
        for done in range(1, 1001):
            listener.advance(done, 1000, "")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "generating"
    assert lines[-1] == "  1000/1000"
    assert len(lines) == 11


def test_tables_are_drawn_on_a_terminal_and_aligned_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    print_table(["name", ">MACs"], [["a[b]", "1"], ["long", "1,000"]], stream=terminal)  # type: ignore[arg-type]
    assert "a[b]" in terminal.text and "─" in terminal.text
    print_table(["name", ">MACs"], [["a", "1"], ["long", "1,000"]])
    assert capsys.readouterr().out == "name   MACs\na         1\nlong  1,000\n"


def test_numbers_are_shortened_as_people_do() -> None:
    shown = [human(number) for number in (None, 0, 9_999, 12_345, 999_900, 1_234_567, 7_890_000_000)]
    assert shown == ["-", "0", "9,999", "12.3k", "1,000k", "1.23M", "7.89G"]


def test_main_takes_the_arguments_of_the_process_by_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gensynth", "ops", "relu"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("relu\n")
