"""Device files: what they say, what is believed where they are silent, and how faults are told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from device_cases import DEVICE, board, true_board

from gensynth.ir import UsageError
from gensynth.passes.cost import device_files, device_names, load_device, parse_device, register_device, save_device
from gensynth.passes.cost.device import Evidence, Range


@pytest.mark.parametrize("name", ["host", "raspberry-pi-5", "tegra-x2-cpu", "tegra-x2-gpu"])
def test_devices_that_ship_say_where_their_figures_are_from(name: str) -> None:
    device = load_device(name)
    assert device.name == name
    figures = {"peak_bandwidth", "cache"}
    figures |= {f"precisions.{key}.peak" for key in device.precisions}
    figures |= {f"power_modes.{key}" for key in device.power_modes}
    assert figures <= set(device.sources)
    assert device.evidence or "never measured" in device.description


def test_the_tegra_x2_has_its_precisions_and_power_modes() -> None:
    device = load_device("tegra-x2-gpu")
    assert set(device.precisions) == {"fp16", "fp32"}
    assert list(device.power_modes) == ["MAX-N", "MAX-P", "MAX-Q"]
    for quantity in ("latency", "energy"):
        evidence = device.evidence["tensorrt", quantity]
        assert evidence.networks >= 7 and 0 < evidence.within < 0.1


def test_a_file_of_hardware_figures_alone_is_a_device(tmp_path: Path) -> None:
    device = board(tmp_path)
    assert device.name == "board"
    assert device.condition().precision == "fp16"
    assert 0.2 * 600 < device.coefficient("rate") < 600
    assert 0.2 * 60 < device.coefficient("bandwidth") < 60
    assert device.coefficient("precision.fp32.rate") < 1 < device.coefficient("precision.fp32.mac")
    assert device.coefficient("mode.slow.clock") == 0.5
    assert device.coefficient("mode.fast.clock") == device.coefficient("runtime.engine.launch") == 1.0


def test_what_is_written_is_read_back_as_it_was(tmp_path: Path) -> None:
    device = dataclasses.replace(
        true_board(board(tmp_path)),
        evidence={("engine", "latency"): Evidence("tests", 30, 15, 0.02, 0.1, 0.05, 0.2, 3.5, 0.25)},
        seen={"engine": {"conv3x3": Range((1e3, 2e6), (10.0, 20.0), (64.0, 4096.0))}},
        networks_seen={"engine": (1.5, 20.0)},
        sources={"cache": "a guess"},
    )
    path = tmp_path / "again.toml"
    save_device(device, path)
    again = load_device(path)
    assert again.coefficients == pytest.approx(device.coefficients, rel=5e-4)
    assert dataclasses.replace(again, coefficients=device.coefficients) == device
    assert (again.evidence, again.seen, again.networks_seen) == (device.evidence, device.seen, device.networks_seen)
    assert again.runtimes == device.runtimes and again.sources == device.sources


@pytest.mark.parametrize(
    ("old", "new", "says", "mends"),
    [
        ('kind = "gpu"', 'kind = "gpus"', "'kind' is 'gpus'", "gpu, cpu, accelerator"),
        ("cache = 500000", "cahce = 500000", "'cahce' is no key", "cache"),
        ("peak = 600.0", "peak = -1", "'precisions.fp16.peak' is -1", "above zero"),
        ("clock = 0.6", "", "'power_modes.slow.clock' is missing", "above zero"),
        ('lowering = "eager"', 'lowering = "eagre"', "'runtimes.plain.lowering' is 'eagre'", "eager"),
        ('lowering = "eager"', 'lowering = { joins = ["norm"] }', "'norm'", "norms"),
        (
            "[runtimes.plain]",
            "[coefficients.lunch]\nall = 2.0\n[runtimes.plain]",
            "'coefficients.lunch' is no coefficient",
            "launch",
        ),
        (
            "[runtimes.plain]",
            "[coefficients.launch]\nconv33 = 2.0\n[runtimes.plain]",
            "'coefficients.launch.conv33' is no coefficient",
            "conv3x3",
        ),
        (
            "[runtimes.plain]",
            "[coefficients.mode.slwo]\nclock = 2.0\n[runtimes.plain]",
            "'coefficients.mode.slwo.clock' is no coefficient",
            "slow",
        ),
        ("[precisions.fp16]", "[precisions.fp16", "board.toml", "TOML"),
    ],
)
def test_a_fault_in_a_device_file_is_told_by_its_key(tmp_path: Path, old: str, new: str, says: str, mends: str) -> None:
    assert old in DEVICE
    with pytest.raises(UsageError) as told:
        board(tmp_path, DEVICE.replace(old, new, 1))
    assert says in told.value.message
    assert mends in f"{told.value.message} {told.value.hint}"


@pytest.mark.parametrize("missing", ["precisions", "power_modes", "runtimes"])
def test_a_device_has_at_least_one_of_each(tmp_path: Path, missing: str) -> None:
    kept = [part for part in DEVICE.split("\n\n") if not part.startswith(f"[{missing}.")]
    with pytest.raises(UsageError, match=f"'{missing}' is missing"):
        board(tmp_path, "\n\n".join(kept))


def test_a_device_and_its_condition_are_read_from_one_text() -> None:
    device, condition = parse_device("tegra-x2-gpu:MAX-Q:fp32")
    assert device.name == "tegra-x2-gpu"
    assert (condition.precision, condition.power_mode, condition.runtime) == ("fp32", "MAX-Q", "tensorrt")
    assert parse_device("tegra-x2-gpu")[1] == device.condition()


@pytest.mark.parametrize(
    ("text", "says", "mends"),
    [
        ("tegra-x2", "unknown device 'tegra-x2'", "tegra-x2-"),
        ("tegra-x2-gpu:fp8", "no precision, power mode or runtime 'fp8'", "fp16"),
        ("tegra-x2-gpu:fp16:fp32", "exclude each other", "leave one out"),
        ("nowhere.toml", "cannot read nowhere.toml", "device file"),
    ],
)
def test_a_text_that_names_no_device_is_refused(text: str, says: str, mends: str) -> None:
    with pytest.raises(UsageError) as told:
        parse_device(text)
    assert says in told.value.message and mends in (told.value.hint or "")


def test_a_registered_device_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A copy, since other tests look among all devices that are known.
    monkeypatch.setattr(device_files, "_registered", dict(device_files._registered))
    device = dataclasses.replace(board(tmp_path), name="board-of-tests")
    register_device(device)
    assert "board-of-tests" in device_names()
    assert load_device("board-of-tests") is device
    with pytest.raises(UsageError, match="already"):
        register_device(dataclasses.replace(device, cache=1))


def test_a_device_file_is_parsed_again_only_when_it_has_changed(tmp_path: Path) -> None:
    device = board(tmp_path)
    assert load_device(tmp_path / "board.toml") is device
    changed = board(tmp_path, DEVICE.replace("cache = 500000", "cache = 600000"))
    assert changed is not device and changed.cache == 600000
