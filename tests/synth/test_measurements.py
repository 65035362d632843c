"""The CSV of measurements: what it may hold, and how a line that cannot be read is told."""

from __future__ import annotations

from pathlib import Path

import pytest

import gensynth as gs
from gensynth.ir import DataError, UsageError
from gensynth.passes.cost import cost_model, load_device
from gensynth.synth.measurements import calibrate_device, read_measurements

ARCH = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
DEVICE = load_device("tegra-x2-gpu")


def write(folder: Path, text: str) -> Path:
    path = folder / "measured.csv"
    path.write_text(text)
    return path


def test_a_network_is_a_file_a_prototype_or_an_architecture(tmp_path: Path) -> None:
    net = gs.prototype("resnet", depth=8)
    gs.save(net, tmp_path / "net.gsir")
    path = write(
        tmp_path,
        "network,latency_ms,energy_mj\n"
        "net.gsir,1.5,10\n"
        f"{tmp_path / 'net.gsir'},1.5,\n"
        "resnet depth=8,1.5,\n"
        f"{ARCH},4.0,\n"
        f"nas-bench-201 'arch={ARCH}' classes=100,,20\n",
    )
    found = read_measurements(path, DEVICE)
    assert [item.graph.name for item in found] == ["resnet8"] * 3 + ["nas_bench_201"] * 2
    assert [item.family for item in found] == ["resnet", "resnet", "resnet", "nas-bench-201", "nas-bench-201"]
    assert found[0].graph == net.graph
    assert [item.latency for item in found] == [1.5, 1.5, 1.5, 4.0, None]
    assert [item.energy for item in found] == [10.0, None, None, None, 20.0]
    assert {item.condition for item in found} == {DEVICE.condition()}


def test_an_onnx_model_and_an_artifact_are_networks_too(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    net = gs.prototype("lenet")
    net = gs.Network(net.graph, gs.initialize(net.graph, 0))
    gs.export_onnx(net, tmp_path / "net.onnx")
    (tmp_path / "artifact").mkdir()
    gs.save(net, tmp_path / "artifact" / "network.gsir")
    path = write(tmp_path, "network,latency_ms\nnet.onnx,1\nartifact,1\n")
    first, second = read_measurements(path, DEVICE)
    assert gs.cost(first.graph).macs == gs.cost(second.graph).macs == gs.cost(net).macs


def test_the_condition_is_read_from_its_columns(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "network,latency_ms,batch,precision,power_mode,runtime,family,repetitions\n"
        "resnet depth=8,1.5,4,float32,maxq,GenSynth,mine,100\n"
        "resnet depth=8,1.5,,,,my-own,,\n",
    )
    first, second = read_measurements(path, DEVICE)
    assert first.condition == DEVICE.condition("fp32", "MAX-Q", "gensynth", 4)
    assert first.family == "mine"
    assert (second.condition.runtime, second.condition.batch) == ("my-own", 1)


@pytest.mark.parametrize(
    ("text", "says", "mends"),
    [
        ("", "no column 'network'", ""),
        ("net,latency_ms\n", "no column 'network'", "net"),
        ("network,latency\nresnet,1\n", "neither a column 'latency_ms' nor 'energy_mj'", "latency"),
        ("network,latency_ms\n", "holds no measurements", "a line"),
        ("network,latency_ms\nresnet,1\nresnet,fast\n", "line 3: latency_ms is 'fast'", "a number"),
        ("network,latency_ms\nresnet,-1\n", "line 2: latency_ms is -1", "above zero"),
        ("network,latency_ms\nresnet,nan\n", "line 2: latency_ms is nan", "above zero"),
        ("network,latency_ms,energy_mj\nresnet,,\n", "line 2: neither latency_ms nor energy_mj", "at least one"),
        ("network,latency_ms\n,1\n", "line 2: the network is missing", "prototype"),
        ("network,latency_ms\nresnett,1\n", "line 2: unknown prototype 'resnett'", "resnet"),
        ("network,latency_ms\nresnet dept=8,1\n", "line 2: ", "depth"),
        ("network,latency_ms\nresnet 'depth=8,1\n", "line 2: cannot read the network", ""),
        ("network,latency_ms\nno.gsir,1\n", "line 2: cannot read", ""),
        ("network,latency_ms\n|none~0|+|x~0|,1\n", "has 2 nodes, not 3", "OP~0"),
        ("network,latency_ms,batch\nresnet,1,0\n", "line 2: batch is '0'", "at least 1"),
        ("network,latency_ms,precision\nresnet,1,int8\n", "line 2: tegra-x2-gpu has no precision 'int8'", "fp16"),
        ("network,latency_ms,power_mode\nresnet,1,MAXX\n", "line 2: tegra-x2-gpu has no power mode 'MAXX'", "MAX-N"),
        ("network,latency_ms,runtime\nresnet,1,a b\n", "line 2: runtime is 'a b'", "letters"),
    ],
)
def test_a_line_that_cannot_be_read_is_told(tmp_path: Path, text: str, says: str, mends: str) -> None:
    with pytest.raises(DataError) as told:
        read_measurements(write(tmp_path, text), DEVICE)
    assert says in told.value.message and mends in (told.value.hint or "")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_measurements(tmp_path / "none.csv", DEVICE)
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_measurements(path, DEVICE)


def five(folder: Path, device: str = "raspberry-pi-5", scale: float = 1.0) -> Path:
    """Writes what five networks take on a device, by its model, times a scale."""
    model = cost_model(device)
    lines = ["network,latency_ms,energy_mj"]
    for name, arguments in (
        ("resnet depth=8", {"depth": 8}),
        ("resnet depth=20", {"depth": 20}),
        ("resnet depth=32 width=32", {"depth": 32, "width": 32}),
        ("squeezenet", {}),
        ("mobilenet", {}),
    ):
        latency, energy = model.totals(gs.prototype(name.split()[0], **arguments).graph)
        lines.append(f"{name},{scale * latency},{scale * energy}")
    return write(folder, "\n".join(lines) + "\n")


def test_a_new_device_starts_from_the_one_it_is_like(tmp_path: Path) -> None:
    path = five(tmp_path, scale=3.0)
    found = calibrate_device(path, "my-board", like="raspberry-pi-5").device
    assert found.name == "my-board" and "raspberry-pi-5" in found.sources["cache"]
    for item in read_measurements(path, found):
        latency, energy = cost_model(found).totals(item.graph)
        assert latency == pytest.approx(item.latency, rel=0.1) and energy == pytest.approx(item.energy, rel=0.15)
    assert found.evidence[next(iter(found.runtimes)), "energy"].networks == 5


def test_the_device_that_a_new_one_is_like_is_found(tmp_path: Path) -> None:
    told: list[str] = []
    found = calibrate_device(five(tmp_path, scale=1.2), "my-board", on_progress=told.append).device
    assert any("starting from raspberry-pi-5" in text for text in told)
    assert found.kind == "cpu"


def test_power_modes_of_a_new_device_need_no_clocks(tmp_path: Path) -> None:
    lines = ["network,latency_ms,power_mode"]
    for mode, slower in (("boost", 1.0), ("eco", 2.5)):
        model = cost_model("tegra-x2-gpu")
        for depth in (8, 20, 32, 56):
            latency, _ = model.totals(gs.prototype("resnet", depth=depth).graph)
            lines.append(f"resnet depth={depth},{slower * latency},{mode}")
    found = calibrate_device(write(tmp_path, "\n".join(lines) + "\n"), "new-board", like="tegra-x2-gpu").device
    assert list(found.power_modes) == ["boost", "eco"]
    assert "clocks unknown" in found.sources["power_modes"]
    graph = gs.prototype("resnet", depth=44).graph
    fast, slow = (cost_model(found, power_mode=mode).totals(graph)[0] for mode in ("boost", "eco"))
    assert slow / fast == pytest.approx(2.5, rel=0.1)


def test_fewer_known_devices_than_tell_how_devices_vary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 known devices tell nothing"):
        calibrate_device(five(tmp_path), "my-board", known=("host", "tegra-x2-cpu"))


@pytest.mark.parametrize(
    ("device", "like", "says"),
    [
        ("raspberry-pi-5", "tegra-x2-gpu", "is a device already"),
        ("my board", None, "is no name of a device"),
        ("my-board", "rasberry", "unknown device 'rasberry'"),
        ("none.toml", None, "cannot read none.toml"),
    ],
)
def test_a_device_that_is_not_to_be_had_is_told(tmp_path: Path, device: str, like: str | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        calibrate_device(five(tmp_path), device, like=like)
