"""Latency and energy on the command line and in Python: `cost --device`, `opt --device`, `devices`, `gs.cost`."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import TINY, Run

import gensynth as gs
from gensynth.ir import UsageError
from gensynth.passes.cost import cost, cost_model, device_names

BOARD = """
description = "a board of the tests"
kind = "cpu"
peak_bandwidth = 12.8
cache = 1048576
precisions.fp32 = { bytes = 4, peak = 57.6 }
precisions.fp16 = { bytes = 2, peak = 115.2 }
power_modes.full = { clock = 1.8, memory_clock = 1.6 }
power_modes.saving = { clock = 0.9, memory_clock = 1.6 }
runtimes.compiled = { lowering = "fused", description = "all in one" }
runtimes.eager = { lowering = { joins = ["norms"], zeros = "kept" } }

[coefficients]
overhead = 0.03
launch.all = 5.0
launch.pool = 2.0
runtime.eager.launch.all = 3.0
runtime.eager.launch.sum = 2.0
mode.saving.static = 0.6

[evidence.compiled.latency]
data = "twenty small networks"
rows = 40
networks = 20
within = 0.031
interval = 0.12
beyond = 0.08
interval_beyond = 0.3

[seen.compiled]
networks = [0.5, 20.0]
conv3x3 = { macs = [1e3, 1e6], elements = [1e2, 1e6], outputs = [1e2, 1e6] }
dense = { macs = [10, 1e6], elements = [10, 1e6], outputs = [1, 1e4] }

[sources]
peak_bandwidth = "the board's data sheet"
power_modes = "its manual"
everything = "said by hand"
"""


@pytest.fixture(autouse=True)
def board(folder: Path) -> Path:
    path = folder / "board.toml"
    path.write_text(BOARD, encoding="utf-8")
    return path


def numbers(line: str) -> list[float]:
    return [float(item.replace(",", "")) for item in re.findall(r"\d[\d,]*\.?\d*", line)]


# cost.


def test_the_table_has_a_row_per_kernel_and_the_overhead(gensynth: Run) -> None:
    found = gensynth("cost", "tiny.gsir", "--device", "board.toml")
    assert (found.code, found.err) == (0, "")
    lines = found.out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["kernel", "conv", "pool", "logits", "(overhead)"]
    assert lines[1].split()[1:4] == ["conv3x3", "3", "4,608"]
    shares = [[float(share) for share in re.findall(r"([\d.]+)%", line)] for line in lines[1:5]]
    assert all(math.isclose(sum(column), 100.0, abs_tol=0.3) for column in zip(*shares, strict=True))


def test_the_totals_stand_below_the_table_with_intervals_rates_and_warnings(gensynth: Run) -> None:
    found = gensynth("cost", "tiny.gsir", "--device", "board.toml", "--batch", "4")
    told = found.out.partition("\n\n")[2].splitlines()
    estimate = gs.cost(gs.load("tiny.gsir"), device="board.toml", batch=4)
    assert "18,752 MACs" in told[0] and "batch 4" in told[0]
    assert told[2] == "board, fp32, full, compiled: 3 kernels"
    latency, low, high, energy, *_ = numbers(told[3])
    assert latency == pytest.approx(estimate.latency_ms, rel=0.01) and low < latency < high
    assert energy == pytest.approx(estimate.energy_mj, rel=0.01)
    second, joule = numbers(told[4])
    assert second == pytest.approx(4000 / estimate.latency_ms, rel=0.01)
    assert joule == pytest.approx(4000 / estimate.energy_mj, rel=0.01)
    assert "  warning: no kernel 'global_pool' was measured (1 kernel)" in told
    assert any(line.startswith("  warning: energy was never measured") for line in told)


def test_the_json_adds_latency_and_energy_to_what_it_had(gensynth: Run) -> None:
    before = json.loads(gensynth("cost", "tiny.gsir", "--json").out)
    found = json.loads(gensynth("cost", "tiny.gsir", "--json", "--device", "board.toml").out)
    assert {key: found[key] for key in before} == before
    assert set(found) - set(before) == {
        *("device", "precision", "power_mode", "runtime", "latency_ms", "latency_interval_ms", "energy_mj"),
        *("energy_interval_mj", "power_w", "inferences_per_second", "inferences_per_joule", "overhead_ms"),
        *("outside", "kernels"),
    }
    assert (found["device"], found["precision"], found["runtime"]) == ("board", "fp32", "compiled")
    low, high = found["latency_interval_ms"]
    assert low < found["latency_ms"] < high
    kernels = found["kernels"]
    assert math.isclose(found["overhead_ms"] + sum(item["latency_ms"] for item in kernels), found["latency_ms"])
    assert math.isclose(found["power_w"] * found["latency_ms"], found["energy_mj"])
    assert [item["nodes"] for item in kernels] == [["conv", "norm", "act"], ["pool"], ["logits"]]
    assert all(item["bound"] in ("launch", "compute", "memory") for item in kernels)
    assert len(found["rows"]) == 5 and found["outside"]


def test_a_condition_is_given_by_options_or_along_with_the_device(gensynth: Run) -> None:
    options = ("--precision", "fp16", "--power-mode", "saving", "--runtime", "eager")
    by_options = json.loads(gensynth("cost", "tiny.gsir", "--device", "board.toml", *options, "--json").out)
    by_text = json.loads(gensynth("cost", "tiny.gsir", "--device", "board.toml:saving:eager:fp16", "--json").out)
    assert by_options == by_text
    assert by_text["power_mode"] == "saving" and len(by_text["kernels"]) == 4
    usual = json.loads(gensynth("cost", "tiny.gsir", "--device", "board.toml:eager:fp16", "--json").out)
    assert usual["latency_ms"] < by_text["latency_ms"]


@pytest.mark.parametrize(
    ("options", "told", "hint"),
    [
        (("--device", "tegra-x2-gp"), "unknown device 'tegra-x2-gp'", "did you mean 'tegra-x2-gpu'?"),
        (("--device", "board.tml"), "unknown device 'board.tml'", "or give a device file (.toml)"),
        (("--device", "absent.toml"), "cannot read absent.toml", "device file"),
        (("--device", "board.toml", "--precision", "fp61"), "no precision 'fp61'", "did you mean 'fp16'?"),
        (("--device", "board.toml", "--power-mode", "savings"), "no power mode 'savings'", "did you mean 'saving'?"),
        (("--device", "board.toml", "--runtime", "eagle"), "no runtime 'eagle'", "did you mean 'eager'?"),
        (("--device", "board.toml:savng"), "no precision, power mode or runtime 'savng'", "did you mean 'saving'?"),
        (("--precision", "fp16"), "--precision is for a device, and none is given", "add --device D"),
        (("--power-mode", "full"), "--power-mode is for a device, and none is given", "add --device D"),
        (("--runtime", "eager"), "--runtime is for a device, and none is given", "add --device D"),
        (("--plot", "roof.svg"), "--plot is for a device, and none is given", "add --device D"),
        (("--device", "board.toml", "--plot", "roof.gif"), "cannot plot to 'roof.gif'", "ends in .svg or .png"),
        (("--device", "board.toml", "--plot", "tiny.gsir/roof.svg"), "cannot write", "can be written"),
    ],
)
def test_what_is_wrong_is_told_in_one_error_with_a_hint(
    options: tuple[str, ...], told: str, hint: str, gensynth: Run
) -> None:
    found = gensynth("cost", "tiny.gsir", *options)
    assert (found.code, found.out) == (2, "")
    error, *hints = found.err.splitlines()
    assert error.startswith("gensynth: error: ") and told in error
    assert hint in "\n".join(hints)


def test_a_generator_has_no_latency(gensynth: Run) -> None:
    found = gensynth("cost", "open.gsir", "--device", "board.toml")
    assert found.code == 2 and "open choices" in found.err


def test_plots_are_svg_that_names_the_dearest_kernel_or_png(gensynth: Run, folder: Path) -> None:
    found = gensynth("cost", "tiny.gsir", "--device", "board.toml", "--plot", "roof.svg")
    assert found.out.splitlines()[-1] == "roof.svg"
    words = " ".join(ElementTree.parse(folder / "roof.svg").getroot().itertext())
    dearest = max(gs.cost(gs.load("tiny.gsir"), device="board.toml").kernels, key=lambda kernel: kernel.latency_ms)
    assert dearest.name in words and "@tiny on board" in words
    quiet = gensynth("cost", "tiny.gsir", "--device", "board.toml", "--plot", "roof.png", "--json")
    assert json.loads(quiet.out)["device"] == "board"
    assert (folder / "roof.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_without_matplotlib_only_plots_fail_and_say_which_extra_to_install(folder: Path) -> None:
    script = """
import sys
sys.modules["matplotlib"] = None
from gensynth.cli import main
codes = [main(["cost", "tiny.gsir", "--device", "board.toml", *more]) for more in ([], ["--plot", "roof.svg"])]
print(codes)
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "[0, 2]", ran.stderr
    assert 'pip install "gensynth[plot]"' in ran.stderr


# opt.


def test_a_ledger_with_a_device_tells_latency_and_energy_before_and_after(gensynth: Run) -> None:
    told = gensynth("opt", "tiny.gsir", "--passes", "fold-batch-norm,separate-conv", "--device", "board.toml:eager")
    assert told.code == 0 and gs.parse(told.out).name == "tiny"
    head, *rows, foot = told.err.splitlines()
    for column in ("nodes", "params", "MACs", "weights [B]", "activations [B]", "peak memory [B]"):
        assert column in head
    assert "latency [ms]" in head and "energy [mJ]" in head
    assert foot.startswith("on board:fp32:full:eager;")
    number = r"[\d,.]+"
    change = rf"{number} -> {number} \({number}-{number}\)"
    assert len(re.findall(change, rows[1])) == 2
    # Batch norms are folded anyway on the device: nothing changes, and only the intervals are shown.
    assert not re.search(change, rows[0]) and re.search(rf"{number} \({number}-{number}\)", rows[0])
    assert "5 -> 4" in rows[0]


def test_a_ledger_without_a_device_says_nothing_of_latency(gensynth: Run) -> None:
    told = gensynth("opt", "tiny.gsir", "--passes", "fold-batch-norm", "--ledger", "-o", "out.gsir")
    assert "latency" not in told.out and "weights [B]" in told.out and "activations [B]" in told.out


def test_latency_is_open_while_choices_are(gensynth: Run) -> None:
    told = gensynth("opt", "tiny.gsir", "--passes", "open-width", "--device", "board.toml", "-o", "out.gsir")
    assert re.search(r"open +open +open +open +open +open +open ", told.out)


def test_the_json_of_opt_has_latency_and_energy_on_the_device(gensynth: Run) -> None:
    argv = ("opt", "tiny.gsir", "--passes", "separate-conv", "--device", "board.toml", "--json")
    (row,) = json.loads(gensynth(*argv).out)["ledger"]
    before, after = row["latency_ms"]
    assert before == pytest.approx(gs.cost(gs.load("tiny.gsir"), device="board.toml").latency_ms)
    assert after > before
    assert len(row["energy_mj"]) == 2


def test_opt_refuses_an_unknown_device_before_it_starts(gensynth: Run) -> None:
    found = gensynth("opt", "absent.gsir", "--passes", "canonicalize", "--device", "bord")
    assert found.code == 2 and "unknown device 'bord'" in found.err


# devices.


def test_devices_lists_what_there_is(gensynth: Run) -> None:
    lines = gensynth("devices").out.splitlines()
    assert lines[0].split()[:3] == ["device", "kind", "precisions"]
    assert [line.split()[0] for line in lines[1:]] == list(device_names())
    listed = json.loads(gensynth("devices", "--json").out)
    assert [item["name"] for item in listed] == list(device_names())


@pytest.mark.parametrize("name", device_names())
def test_every_device_is_told_about_and_estimates(name: str, gensynth: Run) -> None:
    found = gensynth("devices", name)
    assert found.code == 0 and found.out.startswith(f"{name}\n")
    for heading in ("peak_bandwidth", "lowering", "coefficient", "us to start a kernel"):
        assert heading in found.out
    estimate = gs.cost(gs.load("tiny.gsir"), device=name)
    assert 0.0 < estimate.latency.low < estimate.latency_ms and 0.0 < estimate.energy.low < estimate.energy_mj


def test_a_device_file_is_told_with_sources_units_evidence_and_what_was_seen(gensynth: Run) -> None:
    told = gensynth("devices", "board.toml").out
    for pattern in (
        r"^peak_bandwidth +12\.8 GB/s +the board's data sheet$",
        r"^power_modes\.saving\.clock +0\.9 GHz +its manual$",
        r"^everything: said by hand$",
        r"^compiled +fused +all in one$",
        r"^eager +joins norms; free identities, reshapes, splits, concats; zeros kept; equal pools merged$",
        r"^overhead +0\.03 +file +ms an inference",
        r"^launch\.pool +2 +file +times launch, for pool$",
        r"^runtime\.eager\.launch\.sum +2 +file +times launch, with eager, for sum$",
        r"^mode\.saving\.static +0\.6 +file +times static, in saving$",
        r"^rate +[\d.]+ +prior +GMAC/s",
        r"^compiled +latency +40 +20 +3\.1% +8\.0% +x1\.13 +x1\.35 .*twenty small networks$",
        r"^kernels measured with compiled, in networks of 0\.5 to 20 ms$",
        r"^conv3x3 +1,000 - 1,000,000 ",
    ):
        assert re.search(pattern, told, re.MULTILINE), pattern


def test_the_json_of_a_device_has_all_of_it(gensynth: Run) -> None:
    told = json.loads(gensynth("devices", "board.toml", "--json").out)
    assert told["name"] == "board" and told["precisions"]["fp16"] == {"bytes": 2, "peak": 115.2}
    assert told["runtimes"]["compiled"]["lowering"] == "fused" and told["runtimes"]["eager"]["lowering"] is None
    assert told["coefficients"]["runtime.eager.launch"] == 3.0
    assert told["evidence"]["compiled"]["latency"]["networks"] == 20
    assert told["seen"]["compiled"]["dense"]["outputs"] == [1.0, 1e4]
    assert told["networks_seen"]["compiled"] == [0.5, 20.0]


def test_a_device_without_evidence_says_so(gensynth: Run, board: Path) -> None:
    text = BOARD.replace("[evidence.compiled.latency]", "[ignored]")
    board.write_text(re.sub(r"\[ignored\].*?(?=\[seen)", "", text, flags=re.DOTALL), encoding="utf-8")
    assert "Nothing was measured" in gensynth("devices", "board.toml").out


def test_an_unknown_device_or_a_faulty_file_is_one_error(gensynth: Run, folder: Path) -> None:
    found = gensynth("devices", "tegra-x2-gp")
    assert found.code == 2 and "did you mean 'tegra-x2-gpu'?" in found.err
    (folder / "bad.toml").write_text(BOARD.replace("cache =", "cash ="), encoding="utf-8")
    found = gensynth("devices", "bad.toml")
    assert found.code == 2 and "'cash' is no key of a device" in found.err and "did you mean 'cache'?" in found.err


# In Python.


def test_gs_cost_takes_a_device_by_name_file_text_or_itself(board: Path) -> None:
    network = gs.parse(TINY)
    device = gs.load_device(board)
    assert isinstance(device, gs.Device)
    found = [
        gs.cost(network, device=device, power_mode="saving"),
        gs.cost(network.graph, device=board, power_mode="saving"),
        gs.cost(network, device="board.toml:saving"),
        gs.cost(network, device="board.toml:full", power_mode="saving"),
    ]
    assert len({report.latency_ms for report in found}) == 1
    report = found[0]
    assert report.macs == gs.cost(network).macs
    assert report.latency.low < report.latency.value == report.latency_ms < report.latency.high
    assert report.energy.value == report.energy_mj == pytest.approx(report.power_w * report.latency_ms)
    assert report.inferences_per_second == pytest.approx(1e3 / report.latency_ms)
    assert report.inferences_per_joule == pytest.approx(1e3 / report.energy_mj)
    assert [kernel.name for kernel in report.kernels] == ["conv", "pool", "logits"]
    assert report.outside


def test_without_a_device_latency_is_an_error_that_says_what_to_do() -> None:
    report = gs.cost(gs.parse(TINY))
    assert report.estimate is None
    for name in ("latency", "latency_ms", "energy", "energy_mj", "power_w", "kernels", "outside"):
        with pytest.raises(UsageError, match=rf"@tiny: '{name}' is known on a device only") as error:
            getattr(report, name)
        assert error.value.hint is not None and "device=" in error.value.hint
    for name in ("inferences_per_second", "inferences_per_joule"):
        with pytest.raises(UsageError, match=name):
            getattr(report, name)


def test_a_condition_without_a_device_is_refused() -> None:
    with pytest.raises(UsageError, match="precision='fp16' is for a device"):
        gs.cost(gs.parse(TINY), precision="fp16")


def test_a_model_of_another_batch_is_refused(board: Path) -> None:
    with pytest.raises(UsageError, match="a batch of 1, the model of board for 2"):
        cost(gs.parse(TINY).graph, model=cost_model(str(board), batch=2))
    assert gs.cost(gs.parse(TINY), device=board, batch=2).latency_ms > gs.cost(gs.parse(TINY), device=board).latency_ms
