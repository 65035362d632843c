"""The sampler of energy that artifacts carry: sensors of boards, the arithmetic, and what is told of what fails."""

import ast
import csv
import errno
import io
import json
import math
import random
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import hand_made_programs as hand_made
import pytest
from energy_boards import (
    AGX_ORIN,
    AGX_XAVIER,
    NANO,
    ORIN_NX,
    PMIC,
    PMIC_WATTS,
    TX2,
    Simulated,
    Steps,
    Work,
    environment,
    hwmon_board,
    iio_board,
    rapl_zone,
    thermal_zone,
    write,
)

from gensynth.backends.tvm.measuring import COLUMNS
from gensynth.backends.tvm.runtime import gensynth_energy
from gensynth.backends.tvm.runtime.gensynth_energy import (
    Calls,
    Commands,
    EnergyError,
    Meter,
    Rails,
    Settings,
    csv_with,
    find_sensors,
    listing,
    measure,
    row,
    table,
)

SOURCE = Path(gensynth_energy.__file__)
QUICK = Settings(blocks=4, seconds=1.0, idle=1.0, warm_up=0.1, settle=0.0)


def board(root, *, idle=2.0, working=7.0):
    """A TX2 whose VDD_IN tells one power when idle and another when it works."""
    machine = Simulated(root)
    machine.live[iio_board(root, TX2)["VDD_IN"]] = lambda now: 1000 * (working if machine.working else idle)
    return machine


# Sensors.


@pytest.mark.parametrize(
    ("make", "chips", "whole", "watts"),
    [
        (iio_board, TX2, "VDD_IN", 4),
        (iio_board, NANO, "POM_5V_IN", 1),
        (iio_board, AGX_XAVIER, "GPU+CPU+SOC+CV+VDDRQ+SYS5V", 21),
        (hwmon_board, ORIN_NX, "VDD_IN", 1),
        (hwmon_board, TX2, "VDD_IN", 4),
        (hwmon_board, AGX_ORIN, "VDD_GPU_SOC+VDD_CPU_CV+VIN_SYS_5V0", 6),
    ],
)
def test_the_rails_of_jetson_boards_are_found_and_the_whole_is_read(make, chips, whole, watts, tmp_path):
    make(tmp_path, chips)
    machine = Simulated(tmp_path)
    (sensor,) = find_sensors(machine)
    assert list(sensor.rails) == [name for names in chips.values() for name in names if name != "NC"]
    rails = Rails(machine)
    assert (rails.title, rails.sensor) == (whole, "ina3221")
    assert sum(rails.read()) == pytest.approx(watts)
    assert bool(rails.note) == ("+" in whole)
    assert [line["watts"] for line in listing(machine)] == pytest.approx([n + 1 for n in range(len(sensor.rails))])


def test_older_jetpacks_call_the_device_otherwise_and_may_tell_no_power(tmp_path):
    iio_board(tmp_path, TX2, folder="iio_device", power=False)
    assert Rails(Simulated(tmp_path)).read() == pytest.approx([4.0])


def test_a_channel_that_is_off_is_no_rail(tmp_path):
    hwmon_board(tmp_path, ORIN_NX)
    write(tmp_path / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/in2_enable", 0)
    assert list(find_sensors(Simulated(tmp_path))[0].rails) == ["VDD_IN", "VDD_SOC"]


def test_an_ina3221_of_the_kernel_alone_is_found_by_its_name(tmp_path):
    place = tmp_path / "class/hwmon/hwmon0"
    for name, value in (("name", "ina3221"), ("in1_input", 12000), ("curr1_input", 500), ("in2_input", 5000)):
        write(place / name, value)
    rails = Rails(Simulated(tmp_path))
    assert (rails.names, rails.read()) == (["hwmon0/in1"], [pytest.approx(6.0)])


def test_rails_are_chosen_by_name_and_none_is_counted_twice(tmp_path):
    iio_board(tmp_path, {**TX2, "0-0042": ("VDD_MUX", "VDD_5V0_IO_SYS", "VDD_3V3_SYS")})
    machine = Simulated(tmp_path)
    assert Rails(machine).title == "VDD_IN"
    rails = Rails(machine, ["VDD_SYS_GPU", "VDD_IN", "VDD_MUX", "VDD_IN"])
    assert rails.names == ["VDD_SYS_GPU", "VDD_IN", "VDD_MUX"]
    assert rails.title == "VDD_IN+VDD_MUX", "the GPU is fed by VDD_IN, the carrier board is not"
    assert Rails(machine, ["VDD_SYS_GPU", "VDD_SYS_CPU"]).title == "VDD_SYS_GPU+VDD_SYS_CPU"
    with pytest.raises(EnergyError, match="there is no rail 'vdd_sys_gpus'") as caught:
        Rails(machine, ["vdd_sys_gpus"])
    assert "did you mean VDD_SYS_GPU" in caught.value.hint and "VDD_SYS_DDR" in caught.value.hint


def test_counters_of_energy_are_followed_around_their_end(tmp_path):
    machine = Simulated(tmp_path)
    for number, watts in ((0, 20.0), (1, 5.0)):
        path = rapl_zone(tmp_path, f"intel-rapl:{number}", f"package-{number}", most=10_000_000)
        machine.live[path] = lambda now, watts=watts: int(1e6 * watts * now) % 10_000_000
    rapl_zone(tmp_path, "intel-rapl:0:0", "core")
    rapl_zone(tmp_path, "intel-rapl:0:1", "dram")
    rapl_zone(tmp_path, "intel-rapl:2", "psys")
    write(tmp_path / "class/powercap/intel-rapl/enabled", 1)
    rails = Rails(machine)
    assert rails.title == "package-0+package-1"
    assert list(find_sensors(machine)[0].rails) == [
        "package-0",
        "package-0/core",
        "package-0/dram",
        "package-1",
        "psys",
    ]
    assert Rails(machine, ["package-0", "package-0/core", "package-0/dram"]).title == "package-0+package-0/dram"
    with Meter(machine, rails) as meter:
        begin = meter.mark()
        machine.wait(3.0)  # the first counter wraps six times
        end = meter.mark()
    assert meter.joules(begin, end) == pytest.approx([60.0, 15.0], rel=1e-6)
    found = measure(Work(machine), QUICK, machine)
    assert found["energy"]["energy_mj"] == pytest.approx(1e3 * 25.0 * 0.005, rel=1e-6)
    assert found["energy"]["power_w"] == pytest.approx(25.0)


def test_a_counter_without_a_known_end_must_not_go_backwards(tmp_path):
    path = rapl_zone(tmp_path, "intel-rapl:0", "package-0")
    (path.parent / "max_energy_range_uj").unlink()
    machine = Simulated(tmp_path)
    machine.live[path] = lambda now: int(1e6 * now) if now < 1002 else 0
    with Meter(machine, Rails(machine)) as meter:
        machine.wait(3.0)
        with pytest.raises(EnergyError, match="lost: .*energy_uj.* backwards"):
            meter.mark()


def test_the_pmic_of_a_raspberry_pi_is_read_by_its_command(tmp_path):
    machine = Simulated(tmp_path)
    machine.printed["vcgencmd"] = lambda now: PMIC
    rails = Rails(machine)
    assert rails.names == ["3V7_WL_SW", "3V3_SYS", "VDD_CORE"], "of the others there is no current"
    assert sum(rails.read()) == pytest.approx(PMIC_WATTS)
    assert rails.period == 0.1
    found = measure(Work(machine), QUICK, machine)
    assert found["energy"]["energy_mj"] == pytest.approx(5 * PMIC_WATTS)
    assert found["energy"]["by_rail_mj"]["VDD_CORE"] == pytest.approx(5 * 1.2)
    machine.printed["vcgencmd"] = lambda now: 'error=1 error_msg="Command not registered"\n'
    with pytest.raises(EnergyError, match="no power sensor"):
        find_sensors(machine)


def test_a_vcgencmd_that_may_not_run_is_told_of(tmp_path):
    machine = Simulated(tmp_path)
    machine.printed["vcgencmd"] = lambda now: (_ for _ in ()).throw(OSError("Can't open device file: /dev/vcio"))
    with pytest.raises(EnergyError, match="no power sensor.*/dev/vcio.*group video"):
        find_sensors(machine)


def test_other_chips_and_batteries_are_read_where_there_is_nothing_better(tmp_path):
    battery = tmp_path / "class/power_supply/BAT0"
    for name, value in (
        ("type", "Battery"),
        ("status", "Charging"),
        ("current_now", 2000000),
        ("voltage_now", 12000000),
    ):
        write(battery / name, value)
    machine = Simulated(tmp_path)
    with pytest.raises(
        EnergyError, match=r"no power sensor: there is nothing at .*/bus/i2c/drivers/ina3221x.*powercap"
    ):
        find_sensors(machine)
    write(battery / "status", "Discharging")
    assert (Rails(machine).title, Rails(machine).read()) == ("BAT0", [pytest.approx(24.0)])
    chip = tmp_path / "class/hwmon/hwmon1"
    for name, value in (("name", "amdgpu"), ("power1_average", 9000000), ("power1_label", "PPT"), ("power1_cap", 1)):
        write(chip / name, value)
    write(chip / "power2_input", 3000000)
    assert (Rails(machine).title, sum(Rails(machine).read())) == ("amdgpu/PPT+amdgpu/power2", pytest.approx(12.0))
    for name, value in (("name", "power_meter"), ("power1_average", 80000000)):
        write(tmp_path / "class/hwmon/hwmon2" / name, value)
    assert Rails(machine).title == "power_meter/power1"
    assert Rails(machine, ["BAT0", "amdgpu/PPT"]).read() == pytest.approx([9.0, 24.0])


# Arithmetic.


def test_power_is_integrated_by_the_trapezoidal_rule(tmp_path):
    machine = Simulated(tmp_path)
    machine.live[iio_board(tmp_path, TX2)["VDD_IN"]] = lambda now: 1000 * (3 + 2 * (now - 1000))
    with Meter(machine, Rails(machine)) as meter:
        machine.wait(0.0137)
        begin = meter.mark()
        machine.wait(2.0)
        end = meter.mark()
    since, until = 0.0137, 2.0137
    assert meter.joules(begin, end) == pytest.approx([3 * 2.0 + until**2 - since**2], rel=1e-9)
    assert meter.seconds(begin, end) == pytest.approx(2.0)


def test_a_run_is_told_its_energy_with_and_without_that_of_the_idle_machine(tmp_path):
    machine = board(tmp_path)
    machine.printed["nvpmodel"] = lambda now: "NV Fan Mode:quiet\nNV Power Mode: MAXN\n0\n"
    told = []
    found = measure(Work(machine), QUICK, machine, told.append)
    energy = found["energy"]
    assert energy["energy_mj"] == pytest.approx(35.0, rel=1e-6)
    assert energy["energy_above_idle_mj"] == pytest.approx(25.0, rel=1e-6)
    assert (energy["idle_w"], energy["power_w"]) == (pytest.approx(2.0), pytest.approx(7.0))
    assert energy["energy_se_mj"] == pytest.approx(0.0, abs=1e-6)
    assert (energy["rails"], energy["sensor"], energy["settled"]) == ("VDD_IN", "ina3221", None)
    assert [block["runs"] for block in energy["blocks"]] == [200] * 4 and found["repetitions"] == 800
    assert found["latency_ms"]["p50"] == pytest.approx(5.0) and found["images_per_second"] == pytest.approx(200)
    assert found["power_mode"] == "MAX-N"
    assert told[-1] == "block 4 of 4, 200 runs"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_power_that_swings_is_followed(tmp_path):
    machine = Simulated(tmp_path)
    machine.live[iio_board(tmp_path, TX2)["VDD_IN"]] = lambda now: 1000 * (6 + 3 * math.sin(2 * math.pi * now / 0.37))
    found = measure(Work(machine), QUICK._replace(blocks=3, seconds=3.7), machine)
    assert found["energy"]["energy_mj"] == pytest.approx(30.0, rel=0.002)
    block = found["energy"]["blocks"][0]
    assert block["readings"] == pytest.approx(370, abs=3) and block["changes"] >= 360


def test_readings_of_a_sensor_that_is_slow_count_as_new_only_where_they_changed(tmp_path):
    machine = Simulated(tmp_path)
    machine.live[iio_board(tmp_path, TX2)["VDD_IN"]] = lambda now: 5000 + int(now / 0.25) % 7
    found = measure(Work(machine), QUICK, machine)
    block = found["energy"]["blocks"][0]
    assert block["readings"] >= 95 and 3 <= block["changes"] <= 5
    assert any("changed only" in note and "longer blocks" in note for note in found["energy"]["notes"])


def test_without_an_idle_baseline_nothing_is_told_above_it(tmp_path):
    machine = board(tmp_path)
    found = measure(Work(machine), QUICK._replace(idle=0.0), machine)
    assert found["energy"]["idle_w"] is None and found["energy"]["energy_above_idle_mj"] is None
    assert "idle" not in table(found)


class Noisy(Work):
    """Work whose power is another in each block."""

    levels = ()

    def block(self, meter):
        self.machine.level = self.levels[len(self.taken) // max(self.runs, 1)]
        return super().block(meter)


def test_the_standard_error_is_that_of_the_mean_over_blocks(tmp_path):
    machine = Simulated(tmp_path)
    machine.level = 5.0
    machine.live[iio_board(tmp_path, TX2)["VDD_IN"]] = lambda now: 1000 * machine.level
    load = Noisy(machine)
    load.levels = (4.9, 5.3, 5.0, 5.2)
    energy = measure(load, QUICK, machine)["energy"]
    # The first mark of a block is still at the level of the one before: half a period of a hundred.
    assert energy["energy_mj"] == pytest.approx(5 * statistics.mean(load.levels), rel=2e-3)
    assert energy["energy_se_mj"] == pytest.approx(5 * statistics.stdev(load.levels) / 2, rel=0.02)


def test_noise_that_lasts_longer_than_a_reading_does_not_deceive_the_standard_error(tmp_path):
    files = iio_board(tmp_path, TX2)
    chance = random.Random(5)
    means, errors, naive = [], [], []
    for _ in range(80):
        machine, state = Simulated(tmp_path), [0.0]

        def power(now, state=state):
            state[0] = 0.9 * state[0] + chance.gauss(0.0, 0.2)  # remembers about ten readings
            return 1000 * (5 + state[0])

        machine.live[files["VDD_IN"]] = power
        with Meter(machine, Rails(machine)) as meter:
            load = Work(machine, 0.01)
            load.runs, load.chunk = 50, 50
            blocks = [load.block(meter) for _ in range(8)]
        each = [block.joules[0] / block.runs for block in blocks]
        means.append(statistics.mean(each))
        errors.append(statistics.stdev(each) / math.sqrt(len(each)))
        values = [values[0] for values in meter.values]
        naive.append(0.01 * statistics.stdev(values) / math.sqrt(len(values)))
    scatter = statistics.stdev(means)
    assert math.sqrt(statistics.mean(error**2 for error in errors)) == pytest.approx(scatter, rel=0.3)
    assert statistics.mean(naive) < 0.5 * scatter, "readings are not independent"


def test_blocks_that_drift_are_told_of(tmp_path):
    machine = Simulated(tmp_path)
    machine.live[iio_board(tmp_path, TX2)["VDD_IN"]] = lambda now: 1000 * (5 + 0.1 * (now - 1000))
    notes = measure(Work(machine), QUICK._replace(blocks=8), machine)["energy"]["notes"]
    assert any("blocks drift, by +" in note for note in notes)


def test_it_waits_until_temperatures_stay_and_says_whether_they_did(tmp_path):
    machine = board(tmp_path)
    hot, steady = thermal_zone(tmp_path, 0, "CPU-therm"), thermal_zone(tmp_path, 1, "PMIC-Die")
    machine.live[hot] = lambda now: int(1000 * (60 - 20 * math.exp(-(now - 1000) / 10)))
    machine.live[steady] = lambda now: 100000
    thermal_zone(tmp_path, 2, "unreadable").write_text("no number")
    settings = QUICK._replace(blocks=2, settle=100.0, settle_window=5.0, settle_degrees=1.0)
    energy = measure(Work(machine), settings, machine)["energy"]
    # 20 exp(-t/10) changes by less than a degree in the 5 s after t = 20.6; 1.2 s have passed before.
    assert energy["settled"] is True and energy["settle_seconds"] == pytest.approx(20.6 - 1.2 + 5, abs=1.0)
    assert set(energy["temperatures_c"]["after"]) == {"CPU-therm", "PMIC-Die"}
    machine = board(tmp_path)
    machine.live[hot], machine.live[steady] = (lambda now: int(1000 * (now - 960))), (lambda now: 100000)
    found = measure(Work(machine), settings._replace(settle=12.0), machine)
    assert found["energy"]["settled"] is False and 12 <= found["energy"]["settle_seconds"] < 13
    assert "temperatures have not settled: CPU-therm still changes" in found["energy"]["notes"]
    assert "not settled; CPU-therm" in table(found)


# What runs.


class Program(Commands):
    """A program on a simulated machine: 0.8 s at 9 W to start, then 10 ms at 6 W for each inference."""

    def __init__(self, machine, words, inferences):
        super().__init__(words, inferences)
        self.machine = machine
        self.ran = []

    def _run(self, inferences):
        self.ran.append(inferences)
        for seconds, watts in ((0.8, 9.0), (0.01 * inferences, 6.0)):
            self.machine.level = watts
            self.machine.wait(seconds)
        self.machine.level = 1.0
        return ""


@pytest.fixture
def leveled(tmp_path):
    machine = Simulated(tmp_path)
    machine.level = 1.0
    machine.live[iio_board(tmp_path, TX2)["VDD_IN"]] = lambda now: 1000 * machine.level
    return machine


def test_a_program_that_is_told_its_number_of_inferences_is_not_charged_for_its_start(leveled):
    program = Program(leveled, ["infer", "--count={}"], 100)
    found = measure(program, QUICK, leveled)
    assert found["energy"]["energy_mj"] == pytest.approx(60.0, rel=0.01)
    assert found["energy"]["energy_above_idle_mj"] == pytest.approx(50.0, rel=0.01)
    assert found["latency_ms"] == {"p50": pytest.approx(10.0, rel=0.01), "mean": pytest.approx(10.0, rel=0.01)}
    assert program.ran[-8:] == [100, 200, 200, 100] * 2, "turns alternate"
    assert found["repetitions"] == 400
    assert not any("start" in note for note in found["energy"]["notes"])


def test_a_program_that_cannot_be_told_is_charged_and_the_result_says_so(leveled):
    found = measure(Program(leveled, ["infer"], 100), QUICK._replace(seconds=5.4), leveled)
    assert found["energy"]["energy_mj"] == pytest.approx((0.8 * 9 + 6) * 10, rel=0.02)
    assert any("start is part of the figures" in note for note in found["energy"]["notes"])
    assert found["energy"]["blocks"][0]["runs"] == 300


def test_a_python_function_can_be_measured(tmp_path):
    iio_board(tmp_path, TX2)
    called = []
    settings = QUICK._replace(blocks=2, seconds=0.02, idle=0.05, warm_up=0.01)
    found = measure(lambda: called.append(sum(range(1000))), settings, gensynth_energy.Machine(str(tmp_path)))
    assert len(called) > found["repetitions"] > 10
    assert found["energy"]["power_w"] == pytest.approx(4.0)


# What fails.


def test_a_rail_that_may_not_be_read_is_told_with_its_file_and_the_remedy(tmp_path, monkeypatch, capsys):
    machine = Simulated(tmp_path)
    path = rapl_zone(tmp_path, "intel-rapl:0", "package-0")

    def refuse(now):
        raise PermissionError(errno.EACCES, "Permission denied")

    machine.live[path] = refuse
    monkeypatch.setattr(gensynth_energy, "Machine", lambda *options: machine)
    assert gensynth_energy.main(["--inferences-per-run", "1", "--", "true"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and f"error: {path} may not be read: permission denied" in told.err
    assert f"sudo chmod a+r {path}" in told.err and "Traceback" not in told.err
    assert gensynth_energy.main(["--list"]) == 0
    assert "may not be read" in capsys.readouterr().out


def lost_at(machine, path, moment):
    """Lets a rail vanish at a moment."""
    before = machine.live[path]

    def read(now):
        if now >= moment:
            raise OSError(errno.ENODEV, "No such device")
        return before(now)

    machine.live[path] = read


def test_a_rail_that_vanishes_leaves_the_full_blocks(tmp_path):
    machine = board(tmp_path)
    (path,) = machine.live
    lost_at(machine, path, 1000 + 1.3 + 3.5)  # in the fourth block
    found = measure(Work(machine), QUICK._replace(blocks=6), machine)
    assert len(found["energy"]["blocks"]) == 3 and found["energy"]["energy_mj"] == pytest.approx(35.0)
    assert re_found(r"ended after 3 of 6 blocks.*a rail was lost: .*in_power0_input.*No such device", found)
    machine = board(tmp_path)
    lost_at(machine, path, 1000 + 1.3 + 1.5)  # in the second
    with pytest.raises(EnergyError, match="a rail was lost: .*in_power0_input"):
        measure(Work(machine), QUICK._replace(blocks=6), machine)


def re_found(pattern, found):
    return any(re.search(pattern, note) for note in found["energy"]["notes"])


def test_single_readings_that_fail_are_left_out(tmp_path):
    machine = board(tmp_path)
    ((path, power),) = machine.live.items()
    count = [0]

    def sometimes(now):
        count[0] += 1
        if count[0] % 10 == 0:
            raise OSError(errno.EIO, "Input/output error")
        return "" if count[0] % 10 == 5 else power(now)

    machine.live[path] = sometimes
    energy = measure(Work(machine), QUICK, machine)["energy"]
    assert energy["energy_mj"] == pytest.approx(35.0, rel=1e-3) and energy["missed_readings"] > 50


def test_an_interrupt_leaves_the_full_blocks(tmp_path):
    machine = board(tmp_path)
    load = Work(machine)
    work = load.times

    def times(count):
        if machine.time > 1000 + 1.3 + 2.5:
            raise KeyboardInterrupt
        return work(count)

    load.times = times
    found = measure(load, QUICK, machine)
    assert len(found["energy"]["blocks"]) == 2 and re_found("2 of 4 blocks.*interrupted", found)
    assert not machine.working and not machine.ticking
    with pytest.raises(KeyboardInterrupt):
        measure(load, QUICK, machine)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "what is to be measured?"),
        (["nowhere", "--", "true"], "what is to be measured?"),
        (["nowhere"], "nowhere is no artifact"),
        (["--", "true"], "--inferences-per-run K"),
        (["--inferences-per-run", "2", "--", "no-such-program"], "no-such-program cannot be started"),
        (["--inferences-per-run", "2", "--", "sh", "-c", "echo no weights >&2; exit 3"], "exit code 3: no weights"),
        (["--inferences-per-run", "2", "--blocks", "1", "--", "true"], "1 blocks have no standard error"),
        (["--inferences-per-run", "2", "--rails", "VDD_INN", "--", "true"], "there is no rail 'VDD_INN'"),
        (["--inferences-per-run", "no", "--", "true"], "'no' is no whole number from 1 on"),
        (["--idle", "-1", "nowhere"], "'-1' is no number from 0 on"),
        (["--bogus"], "--bogus"),
        (["--csv", "{}/other.csv", "--inferences-per-run", "2", "--", "true"], "other columns"),
        (["--csv", "{}/none/m.csv", "--inferences-per-run", "2", "--", "true"], "cannot write"),
        (["--inferences-per-run", "2", "--rails", "VDD_SYS_DDR", "--", "true"], "Is a directory"),
        (["--csv", "{}/m.csv", "--inferences-per-run", "2", "--", "true"], "what network"),
    ],
)
def test_what_is_wrong_is_told_in_one_message(words, told, tmp_path, capsys):
    files = iio_board(tmp_path, TX2)
    files["VDD_SYS_DDR"].unlink()
    files["VDD_SYS_DDR"].mkdir()
    (tmp_path / "other.csv").write_text("year,income\n")
    words = [word.replace("{}", str(tmp_path)) for word in words]
    assert gensynth_energy.main(["--sysfs", str(tmp_path), "--idle", "0", "--settle", "0", *words]) == 2
    found = capsys.readouterr()
    assert found.out == "" and told in found.err and found.err.count("error:") == 1
    assert (tmp_path / "other.csv").read_text() == "year,income\n"


# CSV.


def test_a_line_of_the_csv_is_that_of_gensynth_measure(tmp_path):
    assert tuple(gensynth_energy.COLUMNS) == COLUMNS
    machine = board(tmp_path)
    found = measure(Work(machine), QUICK, machine)
    found.update(network="net, the first", dtype="f16", target="tegra-x2-gpu", batch=1, threads=4, runtime="gensynth")
    (line,) = csv.DictReader(io.StringIO(csv_with("", [row(found)])))
    assert tuple(line) == COLUMNS
    assert (line["network"], line["precision"], line["device"], line["threads"]) == (
        "net, the first",
        "fp16",
        "tegra-x2-gpu",
        "4",
    )
    assert float(line["energy_mj"]) == pytest.approx(found["energy"]["energy_mj"], rel=1e-5)
    assert (line["rails"], line["repetitions"]) == ("VDD_IN", "800")


def test_a_csv_from_before_there_was_energy_gets_the_new_columns(tmp_path):
    old = COLUMNS[: COLUMNS.index("energy_se_mj")]
    before = ",".join(old) + '\n"a ""strange"", name",' + ",".join(["1"] * (len(old) - 1)) + "\n"
    line = dict.fromkeys(COLUMNS, "2")
    first, second = csv.DictReader(io.StringIO(csv_with(before, [line])))
    assert first["network"] == 'a "strange", name' and first["max_ms"] == "1" and first["rails"] == ""
    assert set(second.values()) == {"2"}
    again = csv_with(before, [line])
    assert csv_with(again, []) == again and csv_with(again.rstrip("\n"), [line]).count("\n") == 4


# As a board runs it.


def test_the_sampler_is_written_for_python_3_6():
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 6))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert all(name.partition(".")[0] in sys.stdlib_module_names for name in imported)
    newer = {"capture_output", "missing_ok", "parenthesize", "nullcontext", "removeprefix", "removesuffix"}
    newer |= {"time_ns", "monotonic_ns", "cached_property", "fmean", "quantiles", "is_relative_to", "readlink"}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert not used & newer, "Python 3.6 has no such thing"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifact")
    code = hand_made.kernels_object(tmp_path_factory.mktemp("kernels"))
    return hand_made.build_checked(folder, code, hand_made.program(hand_made.STEPS))


def older_python():
    """Returns the oldest Python here that the sampler is for."""
    for name in ("python3.6", "python3.7", "python3.8", "python3.9"):
        found = shutil.which(name)
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    return pytest.skip("there is no older Python")


def sample(folder, *words, python=sys.executable, code=0):
    command = [python, str(folder / "gensynth_energy.py"), *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(), check=False)
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran


FAST = ("--idle", "0.3", "--warm-up", "0.05", "--settle", "0", "--blocks", "3", "--seconds", "0.5")


@pytest.mark.parametrize("python", [lambda: sys.executable, older_python], ids=["this_python", "older_python"])
def test_an_artifact_measures_itself_on_a_board(python, artifact, tmp_path):
    path = iio_board(tmp_path, TX2)["VDD_IN"]
    thermal_zone(tmp_path, 0, "CPU-therm")
    words = [
        "--sysfs",
        tmp_path,
        *FAST,
        "--threads",
        "2",
        "--json",
        "--csv",
        tmp_path / "m.csv",
        "--power-mode",
        "MAXQ",
    ]
    with Steps(path, (4000, 9000, 5000, 6000), 0.07) as steps:
        ran = sample(artifact, artifact, *words, python=python())
    found = json.loads(ran.stdout)
    blocks = found["energy"]["blocks"]
    assert len(blocks) == 3 and found["repetitions"] == sum(block["runs"] for block in blocks)
    for block in blocks:
        truth = steps.joules(block["begin"], block["begin"] + block["seconds"])
        assert block["joules"] == pytest.approx(truth, rel=0.15)
    assert found["energy"]["method"] == "in this process"
    assert (found["network"], found["target"], found["threads"]) == ("hand_made", "host", 2)
    assert 0 < found["latency_ms"]["min"] <= found["latency_ms"]["p50"] <= found["latency_ms"]["max"]
    (line,) = csv.DictReader(io.StringIO((tmp_path / "m.csv").read_text()))
    assert tuple(line) == COLUMNS and (line["power_mode"], line["runtime"]) == ("MAXQ", "gensynth")
    assert float(line["energy_mj"]) == pytest.approx(found["energy"]["energy_mj"], rel=1e-5)
    assert line["network"] == str(artifact)


def test_without_the_python_class_an_artifact_is_measured_by_its_program(artifact, tmp_path):
    copy = Path(shutil.copytree(artifact, tmp_path / "copy"))
    (copy / "gensynth_network.py").unlink()
    hwmon_board(tmp_path / "sys", ORIN_NX)
    words = ["--sysfs", tmp_path / "sys", "--idle", "0", "--warm-up", "0", "--settle", "0", "--blocks", "2"]
    words += ["--threads", "1"]  # two that wait for each other take a hundred times as long on a machine that is busy
    found = json.loads(sample(copy, copy, *words, "--seconds", "1", "--json").stdout)
    assert found["energy"]["method"] == "difference of programs"
    assert found["energy"]["power_w"] == pytest.approx(1.0)
    assert found["network"] == "hand_made" and found["latency_ms"]["p99"] > 0


def test_a_few_slow_inferences_do_not_make_blocks_of_a_program_short(tmp_path):
    """The first inferences of a program may take far longer than later ones."""
    hwmon_board(tmp_path / "sys", ORIN_NX)
    shutil.copy(SOURCE, tmp_path)
    (tmp_path / "run").write_text(
        f"#!{sys.executable}\n"
        "import json, sys, time\n"
        "count = int(sys.argv[2])\n"
        "seconds = 0.01 + 1e-6 * count\n"
        "time.sleep(seconds)\n"
        'print(json.dumps({"latency_ms": {"mean": 1e3 * seconds / count}}))\n'
    )
    (tmp_path / "run").chmod(0o755)
    words = ["--sysfs", tmp_path / "sys", "--idle", "0", "--warm-up", "0", "--settle", "0", "--blocks", "2"]
    found = json.loads(sample(tmp_path, tmp_path, *words, "--seconds", "0.5", "--json").stdout)
    assert found["repetitions"] > 500_000, "ten of them seem to take 1 ms each, all later ones take 1 us"


def test_any_program_is_measured_and_told_as_a_table(tmp_path):
    iio_board(tmp_path, NANO)
    shutil.copy(SOURCE, tmp_path)
    words = ["--sysfs", tmp_path, "--idle", "0.1", "--warm-up", "0", "--settle", "0", "--blocks", "2"]
    words += ["--inferences-per-run", "2", "--network", "net.onnx", "--precision", "fp32", "--runtime", "onnxruntime"]
    words += ["--csv", tmp_path / "m.csv", "--device", "nano", "--rails", "POM_5V_IN,POM_5V_GPU"]
    ran = sample(tmp_path, *words, "--", sys.executable, "-c", "import time; time.sleep(0.05 * {})")
    assert ran.stdout.startswith("net.onnx, for nano, batch 1\nenergy ")
    assert "POM_5V_IN (ina3221)" in ran.stdout and "POM_5V_GPU" in ran.stdout and "difference of programs" in ran.stdout
    assert "block 2 of 2" in ran.stderr
    (line,) = csv.DictReader(io.StringIO((tmp_path / "m.csv").read_text()))
    assert (line["runtime"], line["precision"], line["p99_ms"], line["rails"]) == (
        "onnxruntime",
        "fp32",
        "",
        "POM_5V_IN",
    )
    assert float(line["energy_mj"]) == pytest.approx(float(line["mean_ms"]), rel=1e-3), "it draws 1 W"


def test_the_rails_are_listed(tmp_path):
    iio_board(tmp_path, TX2)
    rapl_zone(tmp_path, "intel-rapl:0", "package-0")
    shutil.copy(SOURCE, tmp_path)
    listed = sample(tmp_path, "--sysfs", tmp_path, "--list").stdout
    assert "VDD_SYS_GPU" in listed and "4.000" in listed and "package-0" in listed
    lines = json.loads(sample(tmp_path, "--sysfs", tmp_path, "--list", "--json").stdout)
    assert [line["rail"] for line in lines if line["default"]] == ["VDD_IN"]
    ran = sample(tmp_path, "--sysfs", tmp_path / "none", "--vcgencmd", "no-such", "--list", code=2)
    assert "no power sensor" in ran.stderr and "hint: run this on the board itself" in ran.stderr


def test_runs_on_the_same_inputs_can_be_timed(artifact):
    from gensynth.backends.tvm.runtime.gensynth_network import Network, NetworkError

    with Network(artifact, threads=1) as network:
        taken = network.times(20, hand_made.image())
        assert len(taken) == 20 and all(0 < seconds < 1 for seconds in taken)
        with pytest.raises(NetworkError, match="no input"):
            network.times(1)


def test_calls_measure_what_they_are_given():
    load = Calls(lambda count: [0.002] * count)
    load.taken.extend([0.001, 0.002, 0.003, 0.010])
    assert load.latency()["p50"] == pytest.approx(2.0) and load.latency()["p99"] == pytest.approx(10.0)
