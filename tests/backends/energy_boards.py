"""Boards with power sensors that are none: trees of files as sysfs has them, and a machine whose time is simulated."""

import os
import threading
import time
from pathlib import Path

from gensynth.backends.tvm.runtime.gensynth_energy import Calls, Machine

PMIC = """ 3V7_WL_SW_A current(0)=0.10000000A
   3V3_SYS_A current(1)=0.20000000A
  VDD_CORE_A current(7)=1.50000000A
 3V7_WL_SW_V volt(8)=3.70000000V
   3V3_SYS_V volt(9)=3.30000000V
  VDD_CORE_V volt(15)=0.80000000V
     EXT5V_V volt(24)=5.10000000V
      BATT_V volt(25)=0.00512820V
"""
PMIC_WATTS = 0.1 * 3.7 + 0.2 * 3.3 + 1.5 * 0.8

TX2 = {"0-0040": ("VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI"), "0-0041": ("VDD_IN", "VDD_SYS_CPU", "VDD_SYS_DDR")}
AGX_XAVIER = {"1-0040": ("GPU", "CPU", "SOC"), "1-0041": ("CV", "VDDRQ", "SYS5V")}
NANO = {"6-0040": ("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU")}
ORIN_NX = {"1-0040": ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")}
AGX_ORIN = {
    "1-0040": ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    "1-0041": ("NC", "VDDQ_VDD2_1V8AO", "NC"),
}


def write(path: Path, text: object) -> Path:
    """Writes a file at once, as sysfs does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(f"{text}\n")
    temporary.replace(path)
    return path


def iio_board(root: Path, chips: dict, *, folder: str = "iio:device{}", power: bool = True) -> dict:
    """Makes the INA3221 of JetPack 3 and 4; returns the file of each rail's power in mW. Rail number N draws N W."""
    files = {}
    for number, (chip, names) in enumerate(chips.items()):
        place = root / "bus/i2c/drivers/ina3221x" / chip / folder.format(number)
        for channel, name in enumerate(names):
            watts = len(files) + 1
            write(place / f"rail_name_{channel}", name)
            write(place / f"in_voltage{channel}_input", 5000)
            write(place / f"in_current{channel}_input", 200 * watts)
            if power:
                write(place / f"in_power{channel}_input", 1000 * watts)
            files[name] = place / f"in_power{channel}_input"
    return files


def hwmon_board(root: Path, chips: dict) -> dict:
    """Makes the INA3221 of JetPack 5 and 6; returns the file of each rail's current in mA. Rail number N draws N W."""
    files = {}
    for number, (chip, names) in enumerate(chips.items()):
        place = root / "bus/i2c/drivers/ina3221" / chip / f"hwmon/hwmon{number + 3}"
        write(place / "name", "ina3221")
        write(place / "in7_label", "sum of shunt voltages")
        write(place / "in7_input", 77)
        write(place / "curr4_input", 9999)
        for channel, name in enumerate(names, 1):
            write(place / f"in{channel}_label", name)
            if name != "NC":
                write(place / f"in{channel}_input", 5000)
                files[name] = write(place / f"curr{channel}_input", 200 * (len(files) + 1))
        link = root / "class/hwmon" / place.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place)
    return files


def rapl_zone(root: Path, zone: str, name: str, most: int = 262143328850) -> Path:
    """Makes a counter of energy, and returns its file, which holds microjoules."""
    place = root / "class/powercap" / zone
    write(place / "name", name)
    write(place / "max_energy_range_uj", most)
    return write(place / "energy_uj", 0)


def thermal_zone(root: Path, number: int, name: str) -> Path:
    """Makes a thermal zone, and returns its file, which holds thousandths of a degree."""
    place = root / "class/thermal" / f"thermal_zone{number}"
    write(place / "type", name)
    return write(place / "temp", 40000)


class Simulated(Machine):
    """A machine whose time passes only when it waits or works; files in `live` hold what a function of time tells."""

    def __init__(self, root: Path):
        super().__init__(str(root))
        self.time = 1000.0
        self.live = {}
        self.printed = {}
        self.ticking = []
        self.working = False

    def read(self, path):
        if path in self.live:
            return str(self.live[path](self.time))
        return super().read(path)

    def command(self, words):
        if words[0] not in self.printed:
            raise FileNotFoundError(2, "No such file or directory")
        return self.printed[words[0]](self.time)

    def now(self):
        return self.time

    def wait(self, seconds):
        end = self.time + seconds
        while True:
            due = min(self.ticking, key=lambda entry: entry[0], default=None)
            if due is None or due[0] > end:
                break
            self.time = max(self.time, due[0])
            due[0] += due[1]
            due[2]()
        self.time = end

    def every(self, period, action):
        entry = [self.time + period, period, action]
        self.ticking.append(entry)
        return lambda: self.ticking.remove(entry)


class Work(Calls):
    """Runs that take so many seconds each, on a simulated machine."""

    def __init__(self, machine: Simulated, seconds: float = 0.005):
        super().__init__(self._work)
        self.machine, self.seconds = machine, seconds

    def begin(self):
        self.machine.working = True

    def end(self):
        self.machine.working = False

    def _work(self, count):
        for _ in range(count):
            self.machine.wait(self.seconds)
        return [self.seconds] * count


class Steps:
    """Writes steps of power into a file, in real time, and knows the energy between two moments."""

    def __init__(self, path: Path, milliwatts, seconds: float):
        self.path, self.milliwatts, self.seconds = path, milliwatts, seconds
        self.steps = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self._write(0)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def _write(self, number):
        value = self.milliwatts[number % len(self.milliwatts)]
        write(self.path, value)
        self.steps.append((time.monotonic(), 1e-3 * value))

    def _work(self):
        number = 1
        while not self.ended.wait(self.seconds):
            self._write(number)
            number += 1

    def joules(self, begin: float, end: float) -> float:
        """Returns the energy between two moments of time.monotonic, which all processes share."""
        total = 0.0
        for (since, watts), (until, _) in zip(self.steps, [*self.steps[1:], (end, 0.0)], strict=True):
            total += watts * max(0.0, min(until, end) - max(since, begin))
        return total


def environment() -> dict:
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
