"""Measuring artifacts: here, by what a board printed, over TVM RPC; and the CSV that comes of it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from energy_boards import TX2, iio_board

from gensynth.backends.tvm import (
    Measurement,
    append_csv,
    board_commands,
    board_result,
    compile_network,
    measure_here,
    measure_over_rpc,
)
from gensynth.backends.tvm.artifact import archive_of
from gensynth.backends.tvm.host import host_architecture
from gensynth.backends.tvm.measuring import COLUMNS, Settings
from gensynth.backends.tvm.runtime import gensynth_energy
from gensynth.ir import DataError, GenSynthError, Network, UsageError, initialize, parse

ELSEWHERE = "raspberry-pi-5" if host_architecture() == "x86_64" else "x86-64-v3"

TEXT = """gensynth 1

network @small(%image: f32[N, 3, 8, 8]) -> f32[N, 8, 8, 8] {
  %conv = conv2d(%image) {channels=8, kernel=3, padding=same}
  %act  = relu(%conv)
  return %act
}
"""


def artifact(folder: Path, target: str) -> Path:
    graph = parse(TEXT)
    compile_network(Network(graph, initialize(graph)), target, folder)
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact(tmp_path_factory.mktemp("here") / "small", "host")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return artifact(tmp_path_factory.mktemp("elsewhere") / "small", ELSEWHERE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an RPC server as TVM ships it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--port-end", str(port + 1)]
    with log.open("w") as stream:
        started = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True)
    try:
        end = time.monotonic() + 60
        while "bind to" not in log.read_text():
            assert started.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield port
    finally:
        os.killpg(started.pid, signal.SIGKILL)  # it has children, which it leaves behind
        started.wait()


def assert_sound(found: Measurement, path: Path) -> None:
    assert found.min_ms <= found.latency_ms <= found.p90_ms <= found.p95_ms <= found.p99_ms <= found.max_ms
    assert 0 < found.min_ms <= found.mean_ms <= found.max_ms < 1000
    assert (found.network, found.batch, found.precision) == (str(path / "network.gsir"), 1, "fp32")
    assert (found.runtime, found.device, found.energy_mj) == ("gensynth", "host", None)


def test_an_artifact_is_measured_here_by_its_own_program(here: Path) -> None:
    found = measure_here(here, threads=1, repetitions=25, power_mode="quiet")
    assert_sound(found, here)
    assert (found.threads, found.repetitions, found.power_mode) == (1, 25, "quiet")
    assert measure_here(archive_of(here), repetitions=3).network == str(archive_of(here))


def test_one_that_computes_something_else_is_not_measured(here: Path, tmp_path: Path) -> None:
    from gensynth.backends.tvm.manifest import read_manifest, write_manifest

    wrong = Path(shutil.copytree(here, tmp_path / "small"))
    output = wrong / "check" / "output_act.bin"
    output.write_bytes(bytes(output.stat().st_size))
    facts = dict(read_manifest(wrong).facts)
    del facts["manifest_sha256"]
    write_manifest(wrong, facts)
    with pytest.raises(GenSynthError, match="FAIL act"):
        measure_here(wrong)


def test_one_for_another_machine_is_measured_on_its_board(here: Path, elsewhere: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"is for .* \\({ELSEWHERE}\\), this machine is {host_architecture()}"):
        measure_here(elsewhere)
    copy, run, back = board_commands(elsewhere, board="me@board", threads=4, repetitions=7, csv_path="m.csv")
    assert copy == f"scp {archive_of(elsewhere)} me@board:"
    assert back == f"gensynth measure {elsewhere} --result small.bench.json --csv m.csv"
    # The second line as a board would run it: ssh is a shell that has got the archive of an artifact for this machine.
    (tmp_path / "ssh").write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    (tmp_path / "ssh").chmod(0o755)
    shutil.copy(archive_of(here), tmp_path)
    ran = subprocess.run(
        ["sh", "-c", f"PATH={tmp_path}:$PATH; {run}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "computes what it should" in ran.stderr and ran.stdout == ""
    found = board_result(here, tmp_path / "small.bench.json", power_mode="MAX-N")
    assert_sound(found, here)
    assert (found.threads, found.repetitions, found.power_mode) == (min(4, found.threads), 7, "MAX-N")
    with pytest.raises(DataError, match=r"is of architecture .* for host, batch 1; .* for " + ELSEWHERE):
        board_result(elsewhere, tmp_path / "small.bench.json")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds no times"),
        (b"[]", "holds no times"),
        (b"{}", "holds no times"),
        (b"run: weights.bin is cut short", "holds no times"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_a_file_without_times_is_refused(here: Path, tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "times.json").write_bytes(content)
    with pytest.raises(DataError, match=told):
        board_result(here, tmp_path / "times.json")
    with pytest.raises(UsageError, match="cannot read"):
        board_result(here, tmp_path / "none.json")


def test_times_that_are_none_are_refused(here: Path, tmp_path: Path) -> None:
    printed = subprocess.run(
        [here / "run", "--bench", "3", "--json"], capture_output=True, text=True, check=True
    ).stdout
    for value in (0.0, -1.0, float("nan")):
        facts = json.loads(printed)
        facts["latency_ms"]["p50"] = value
        (tmp_path / "times.json").write_text(json.dumps(facts))
        with pytest.raises(DataError, match="a time is not above zero"):
            board_result(here, tmp_path / "times.json")


def test_an_artifact_is_measured_over_rpc_by_the_server_that_tvm_ships(here: Path, server: int) -> None:
    found = measure_over_rpc(here, "127.0.0.1", server, threads=2, repetitions=12)
    assert_sound(found, here)
    assert (found.threads, found.repetitions) == (min(2, found.threads), 12)


def test_what_goes_wrong_on_a_server_is_told(here: Path, elsewhere: Path, server: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot load") as caught:
        measure_over_rpc(elsewhere, "127.0.0.1", server)
    assert "such a machine" in str(caught.value.hint)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(UsageError, match=f"127.0.0.1:{port} cannot be reached") as caught:
        measure_over_rpc(here, "127.0.0.1", port)
    assert "tvm.exec.rpc_server" in str(caught.value.hint)


def test_a_server_tells_why_a_network_cannot_be_opened(here: Path, server: int, tmp_path: Path) -> None:
    from gensynth.backends.tvm.manifest import read_manifest, write_manifest

    other = Path(shutil.copytree(here, tmp_path / "small"))
    (other / "weights.bin").write_bytes(bytes((other / "weights.bin").stat().st_size))
    facts = dict(read_manifest(other).facts)
    del facts["manifest_sha256"]
    write_manifest(other, facts)
    with pytest.raises(GenSynthError, match=rf"127.0.0.1:{server} says: .*weights.bin"):
        measure_over_rpc(other, "127.0.0.1", server)


def measurement() -> Measurement:
    return Measurement(
        network="net.gsir",
        latency_ms=1.25,
        energy_mj=None,
        batch=1,
        precision="fp32",
        power_mode="",
        runtime="gensynth",
        device="host",
        threads=2,
        repetitions=100,
        mean_ms=1.5,
        min_ms=1.0,
        p90_ms=2.0,
        p95_ms=2.5,
        p99_ms=3.0,
        max_ms=4.0,
        architecture_hash="0123456789abcdef",
    )


def test_measurements_are_added_to_a_csv_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "measured.csv"
    append_csv(path, [measurement()])
    append_csv(path, [replace(measurement(), network='a "strange", name.gsir'), measurement()])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["network"] for row in rows] == ["net.gsir", 'a "strange", name.gsir', "net.gsir"]
    assert (rows[0]["latency_ms"], rows[0]["energy_mj"], rows[0]["batch"]) == ("1.25", "", "1")


def test_a_csv_from_before_there_was_energy_gets_the_new_columns(tmp_path: Path) -> None:
    path = tmp_path / "measured.csv"
    append_csv(path, [measurement()])
    added = ",energy_se_mj,energy_above_idle_mj,idle_w,rails"
    path.write_text(path.read_text().replace(added, "").replace(",,,,\n", "\n"))
    assert path.read_text().count(",") == 2 * 16
    append_csv(path, [replace(measurement(), energy_mj=2.5, energy_se_mj=0.125, idle_w=1.5, rails="VDD_IN")])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["max_ms"] for row in rows] == ["4", "4"]
    assert [(row["energy_mj"], row["rails"]) for row in rows] == [("", ""), ("2.5", "VDD_IN")]


def test_a_csv_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("year,income\n")
    with pytest.raises(UsageError, match="has other columns"):
        append_csv(path, [measurement()])
    assert path.read_text() == "year,income\n"
    with pytest.raises(UsageError, match="cannot read"):
        append_csv(tmp_path, [measurement()])


# Energy.

QUICK = Settings(blocks=3, seconds=0.2, idle=0.2, warm_up=0.05, settle=0.0)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes this machine look like one whose VDD_IN draws 4 W, whatever it does; returns what stands for /sys."""
    iio_board(tmp_path / "sys", TX2)
    monkeypatch.setattr(gensynth_energy, "SYSFS", str(tmp_path / "sys"))
    return tmp_path / "sys"


def test_the_energy_of_an_artifact_is_measured_here(here: Path, board: Path) -> None:
    told: list[str] = []
    found = measure_here(here, threads=1, power_mode="quiet", energy=QUICK, tell=told.append)
    assert_sound(replace(found, energy_mj=None), here)
    assert (found.threads, found.power_mode, found.rails) == (1, "quiet", "VDD_IN")
    assert found.idle_w == pytest.approx(4.0) and found.energy_above_idle_mj == pytest.approx(0.0, abs=1e-6)
    # The energy is also that of what is between the runs, of which each takes microseconds.
    assert found.energy_mj is not None and 4.0 * found.mean_ms <= found.energy_mj < 16.0 * found.mean_ms
    assert any(text.startswith("block 3 of 3") for text in told) and any("note: the sensor changed" in t for t in told)


def test_without_a_sensor_energy_is_refused(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gensynth_energy, "SYSFS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no power sensor: there is nothing at") as caught:
        measure_here(here, energy=QUICK)
    assert "on the board itself" in str(caught.value.hint)


def test_energy_is_measured_on_a_board_and_read_back(here: Path, elsewhere: Path, board: Path, tmp_path: Path) -> None:
    settings = QUICK._replace(rails=("VDD_IN", "VDD_SYS_CPU"))
    copy, run, back = board_commands(elsewhere, board="me@board", threads=2, energy=settings)
    assert copy == f"scp {archive_of(elsewhere)} me@board:"
    assert back == f"gensynth measure {elsewhere} --result small.energy.json --csv measured.csv"
    assert "./run --selftest >&2 && python3 gensynth_energy.py . --rails VDD_IN,VDD_SYS_CPU --blocks 3 " in run
    (tmp_path / "ssh").write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@" --sysfs {board}\n')
    for name in ("ssh", "python3"):
        (tmp_path / name).chmod(0o755)
    shutil.copy(archive_of(here), tmp_path)
    subprocess.run(["sh", "-c", f"PATH={tmp_path}:$PATH; {run}"], cwd=tmp_path, capture_output=True, check=True)
    result = tmp_path / "small.energy.json"
    found = board_result(here, result, energy=True)
    assert (found.rails, found.threads, found.idle_w) == ("VDD_IN", min(2, found.threads), pytest.approx(4.0))
    assert found.energy_mj is not None and found.energy_mj > 0
    facts = json.loads(result.read_text())
    facts["power_mode"] = "MAXQ"
    result.write_text(json.dumps(facts))
    assert board_result(here, result).power_mode == "MAXQ"
    assert board_result(here, result, power_mode="MAX-N").power_mode == "MAX-N"
    for wrong in (0.0, -1.0, None, float("nan")):
        facts["energy"]["energy_mj"] = wrong
        result.write_text(json.dumps(facts))
        with pytest.raises(DataError, match="an energy is not above zero"):
            board_result(here, result)
    del facts["energy"]
    result.write_text(json.dumps(facts))
    assert board_result(here, result).energy_mj is None
    with pytest.raises(UsageError, match="holds no energy"):
        board_result(here, result, energy=True)
