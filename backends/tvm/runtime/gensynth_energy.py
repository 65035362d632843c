"""Measures the energy of inference on the machine that it runs on, by the machine's own power sensors.

    python3 gensynth_energy.py artifact                                        an artifact of `gensynth compile`
    python3 gensynth_energy.py --inferences-per-run 500 -- ./infer --count {}  any other program
    python3 gensynth_energy.py --list                                          the rails that can be read

This file is all it takes: Python 3.6 or newer. In a program of your own: `measure(lambda: network.run(image))`.

The sensors, and where the facts are from:

- INA3221 of Nvidia's Jetson boards. JetPack 3 and 4 have Nvidia's own driver (`ina3221x`, an iio device: rail names,
  power in mW), JetPack 5 and later the kernel's (hwmon: labels, mV and mA; Documentation/hwmon/ina3221.rst). Which rail
  is where, and which feed which: Nvidia's Jetson Linux Developer Guide, power management, and the project energymon's
  jetson/JetsonPowerRails.md. VDD_IN and POM_5V_IN are the whole module; where there is no such rail, as on the AGX
  boards, those that feed no other are summed.
- RAPL of Intel's and AMD's processors (Documentation/power/powercap): counters of energy, which wrap around and are
  updated about each millisecond (Intel's Software Developer's Manual, volume 3, RAPL). A package does not hold the
  `dram` of servers. Since Linux 5.10 root alone reads them.
- The Raspberry Pi 5's PMIC, by `vcgencmd pmic_read_adc`. Its rails' current times voltage add up to less than the
  supply gives, since what the USB ports take and the regulators lose is on no rail. A command for each reading costs
  time, so there are ten a second.
- Any hwmon device with `powerN_input` or `powerN_average` (Documentation/hwmon/sysfs-interface), and a battery that is
  being discharged.

How it is measured: the power of the idle machine first; then runs to warm up, and more until the temperatures stay;
then blocks of runs, back to back, while a thread reads the sensors. A block begins and ends with a reading. Power is
integrated by the trapezoidal rule; counters are subtracted. A sensor averages over its own window, so consecutive
readings are not independent: blocks are the unit, and the standard error is that of the mean over blocks.
"""

import argparse
import array
import csv
import difflib
import importlib
import importlib.util
import io
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

__all__ = ["COLUMNS", "EnergyError", "Machine", "Settings", "artifact_load", "csv_with", "find_sensors", "measure"]

SYSFS = "/sys"
"""Where sensors are looked for."""

COLUMNS = [
    *("network", "latency_ms", "energy_mj", "batch", "precision", "power_mode", "runtime", "device", "threads"),
    *("repetitions", "mean_ms", "min_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "architecture_hash"),
    *("energy_se_mj", "energy_above_idle_mj", "idle_w", "rails"),
]
"""The columns of the CSV, those of `gensynth measure --csv`."""

_OLD_COLUMNS = COLUMNS[: COLUMNS.index("energy_se_mj")]
"""Those of files from before there was energy; such a file gets the new columns."""

_PATIENCE = 5
"""So many readings may fail in a row before a rail counts as lost."""

_CHUNK = 0.25
"""Seconds of runs between two looks at whether the sensors still answer."""

_Tell = Callable[[str], None]


class EnergyError(Exception):
    """Something that hinders the measurement; `hint` says how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Unreadable(Exception):
    """A sensor that gives no number."""

    def __init__(self, place: str, error: Exception) -> None:
        super().__init__(place)
        self.place = place
        self.error = error

    def told(self) -> EnergyError:
        """Returns what to tell the user."""
        if isinstance(self.error, PermissionError):
            return EnergyError(
                f"{self.place} may not be read: permission denied",
                f"run this with sudo, or once `sudo chmod a+r {self.place}`; --list shows what can be read",
            )
        reason = getattr(self.error, "strerror", None) or str(self.error)
        return EnergyError(
            f"{self.place} cannot be read: {reason}", "choose other rails with --rails; --list shows them"
        )


class Machine:
    """The machine that is measured: files below a root, commands, a clock. Tests put another in its place."""

    def __init__(self, sysfs: str = "", vcgencmd: str = "vcgencmd", nvpmodel: str = "nvpmodel") -> None:
        self.sysfs = Path(sysfs or SYSFS)
        self.vcgencmd = shlex.split(vcgencmd)
        self.nvpmodel = shlex.split(nvpmodel)

    def read(self, path: Path) -> str:
        """Returns what a file holds."""
        return path.read_text(encoding="utf-8").strip()

    def command(self, words: Sequence[str]) -> str:
        """Returns what a command prints; an OSError tells that it failed."""
        pipe = subprocess.PIPE
        ran = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, universal_newlines=True)
        if ran.returncode:
            raise OSError((ran.stderr or ran.stdout).strip()[-200:] or f"exit code {ran.returncode}")
        return ran.stdout

    def now(self) -> float:
        """Returns the time in seconds, by a clock that nobody sets."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)

    def every(self, period: float, action: Callable[[], object]) -> Callable[[], None]:
        """Does something every `period` seconds beside what goes on; returns what ends it."""
        ended = threading.Event()

        def work() -> None:
            due = self.now()
            while not ended.is_set():
                action()
                due = max(due + period, self.now())
                ended.wait(max(0.0, due - self.now()))

        thread = threading.Thread(target=work, name="gensynth-energy", daemon=True)
        thread.start()

        def end() -> None:
            ended.set()
            thread.join()

        return end

    def text(self, path: Path) -> str:
        """Returns what a file holds, nothing where it cannot be read."""
        try:
            return self.read(path)
        except (OSError, ValueError):
            return ""

    def folders(self, pattern: str) -> List[Path]:
        """Returns what is there by a pattern, in the order of the numbers in the names."""
        return sorted(self.sysfs.glob(pattern), key=_by_number)

    def power_mode(self) -> str:
        """Returns the power mode of a Jetson board, nothing on others; `MAXN` is called as Nvidia's documents do."""
        try:
            found = re.search(r"NV Power Mode: *(\S.*)", self.command([*self.nvpmodel, "-q"]))
        except OSError:
            return ""
        return re.sub(r"^MAX([NQ])$", r"MAX-\1", found.group(1).strip()) if found else ""

    def temperatures(self) -> Dict[str, float]:
        """Returns the degrees Celsius of the thermal zones that can be read, by type."""
        found = {}
        for zone in self.folders("class/thermal/thermal_zone*"):
            try:
                degrees = 1e-3 * float(self.read(zone / "temp"))
            except (OSError, ValueError):
                continue
            name = self.text(zone / "type") or zone.name
            found[name if name not in found else f"{name}@{zone.name}"] = degrees
        return found


def _by_number(path: Path) -> List[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


# Sensors.


class Sensor:
    """Rails that are read together.

    `rails` has, by name, the files whose product times the scale is the power in watts, or, where `counts` is true,
    the energy in joules since some time. `problem` tells why there are none, if that is known.
    """

    kind = ""
    places: Tuple[str, ...] = ()
    counts = False
    period = 0.01
    problem = ""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.rails: Dict[str, Tuple[Tuple[Path, ...], float]] = {}
        self.find()

    def find(self) -> None:
        """Fills `rails` by what this machine has."""

    def total(self) -> Tuple[List[str], str]:
        """Returns the rails that make the whole, and a note where there is something to say of them."""
        return [name for name in self.rails if not self.inside(name, self.rails)], ""

    def inside(self, name: str, others: Iterable[str]) -> bool:
        """Returns whether the energy of a rail is also that of another one."""
        return False

    def read(self, names: Sequence[str]) -> List[float]:
        """Returns the readings of rails.

        Raises:
            Unreadable: one gives no number.
        """
        return [self._product(*self.rails[name]) for name in names]

    def place(self, name: str) -> str:
        """Returns where a rail is read."""
        return " x ".join(str(path) for path in self.rails[name][0])

    def _product(self, files: Tuple[Path, ...], scale: float) -> float:
        for path in files:
            try:
                scale *= float(self.machine.read(path))
            except (OSError, ValueError) as error:
                raise Unreadable(str(path), error) from None
        return scale

    def _add(self, name: str, place: str, scale: float, *files: Path) -> str:
        name = name if name not in self.rails else f"{name}@{place}"
        self.rails[name] = (files, scale)
        return name


class Ina3221(Sensor):
    """The INA3221 monitors of a Jetson board."""

    kind = "ina3221"
    places = ("bus/i2c/drivers/ina3221x", "bus/i2c/drivers/ina3221")

    WHOLE = ("VDD_IN", "POM_5V_IN", "5V_IN")
    CARRIER = (
        *("VDD_MUX", "VDD_5V0_IO_SYS", "VDD_5V_IO_SYS", "VDD_3V3_SYS", "VDD_3V3_IO_SLP", "VDD_3V3_IO", "VDD_1V8_IO"),
        *("VDD_3V3_SYS_M2", "VDD_M2_IN"),
    )
    FED = ("VDDQ_VDD2_1V8AO", "VIN_SYS_5V0")

    def find(self) -> None:
        for chip in self.machine.folders("bus/i2c/drivers/ina3221x/*-00??"):
            for folder in [chip / "iio_device", *sorted(chip.glob("iio:device*"), key=_by_number)]:
                names = [self.machine.text(folder / f"rail_name_{channel}") for channel in range(3)]
                for channel, name in enumerate(names):
                    if name in ("", "NC"):
                        continue
                    power, volts, amperes = (folder / f"in_{what}{channel}_input" for what in _QUANTITIES)
                    if power.exists():
                        self._add(name, chip.name, 1e-3, power)
                    else:
                        self._add(name, chip.name, 1e-6, volts, amperes)
                if any(names):
                    break
        seen: Set[Path] = set()
        folders = self.machine.folders("bus/i2c/drivers/ina3221/*-00??/hwmon/hwmon*")
        folders += [item for item in self.machine.folders("class/hwmon/hwmon*") if _is_ina3221(self.machine, item)]
        for folder in folders:
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            for channel in (1, 2, 3):
                name = self.machine.text(folder / f"in{channel}_label") or f"{folder.name}/in{channel}"
                volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
                on = self.machine.text(folder / f"in{channel}_enable") != "0"
                if name != "NC" and on and volts.exists() and amperes.exists():
                    self._add(name, folder.name, 1e-6, volts, amperes)

    def total(self) -> Tuple[List[str], str]:
        whole = [name for name in self.rails if name in self.WHOLE][:1]
        if whole:
            return whole, ""
        names, _ = super().total()
        return names, f"this board has no rail of the whole module: energy is the sum of {', '.join(names)}"

    def inside(self, name: str, others: Iterable[str]) -> bool:
        there = set(others)
        if name == self.FED[0] and self.FED[1] in there:
            return True
        return name not in (*self.WHOLE, *self.CARRIER) and bool(there.intersection(self.WHOLE))


_QUANTITIES = ("power", "voltage", "current")


def _is_ina3221(machine: Machine, folder: Path) -> bool:
    return machine.text(folder / "name") == "ina3221"


class Rapl(Sensor):
    """The energy counters of an Intel or AMD processor."""

    kind = "rapl"
    places = ("class/powercap/intel-rapl:*",)
    counts = True

    def find(self) -> None:
        self._wraps: Dict[str, float] = {}
        self._last: Dict[str, float] = {}
        self._sums: Dict[str, float] = {}
        for zone in self.machine.folders("class/powercap/intel-rapl:*"):
            if not (zone / "energy_uj").exists():
                continue
            parent = zone.with_name(zone.name.rpartition(":")[0])
            name = self.machine.text(zone / "name") or zone.name
            if zone.name.count(":") > 1:
                name = f"{self.machine.text(parent / 'name') or parent.name}/{name}"
            name = self._add(name, zone.name, 1e-6, zone / "energy_uj")
            most = self.machine.text(zone / "max_energy_range_uj")
            self._wraps[name] = 1e-6 * float(most) if most.isdigit() else 0.0

    def total(self) -> Tuple[List[str], str]:
        domains = [name for name in self.rails if "/" not in name]
        return [name for name in domains if name.startswith("package")] or domains, ""

    def inside(self, name: str, others: Iterable[str]) -> bool:
        there = set(others)
        parent, _, part = name.partition("/")
        return name != "psys" and ("psys" in there or (part not in ("", "dram") and parent in there))

    def read(self, names: Sequence[str]) -> List[float]:
        values = super().read(names)
        for name, value in zip(names, values):
            step = value - self._last.get(name, value)
            step += self._wraps[name] if step < 0 else 0.0
            if step < 0:
                raise Unreadable(self.place(name), ValueError("the counter went backwards"))
            self._last[name] = value
            self._sums[name] = self._sums.get(name, 0.0) + step
        return [self._sums[name] for name in names]


class Pmic(Sensor):
    """The power management chip of a Raspberry Pi 5."""

    kind = "pmic"
    places = ("vcgencmd pmic_read_adc",)
    period = 0.1

    LINE = re.compile(r"^\s*(\S+)_[AV] +(current|volt)\(\d+\)=(-?[0-9.]+)[AV]\s*$", re.MULTILINE)

    def find(self) -> None:
        try:
            names = self._watts()
        except Unreadable as error:
            if not isinstance(error.error, FileNotFoundError):
                self.problem = f"`{error.place}` fails: {error.error} (is this user in the group video?)"
            return
        self.rails = dict.fromkeys(names, ((), 1.0))

    def read(self, names: Sequence[str]) -> List[float]:
        watts = self._watts()
        try:
            return [watts[name] for name in names]
        except KeyError as error:
            raise Unreadable(self.place(""), ValueError(f"it tells of no rail {error}")) from None

    def place(self, name: str) -> str:
        return " ".join([*self.machine.vcgencmd, "pmic_read_adc"])

    def _watts(self) -> Dict[str, float]:
        try:
            printed = self.machine.command([*self.machine.vcgencmd, "pmic_read_adc"])
        except OSError as error:
            raise Unreadable(self.place(""), error) from None
        found: Dict[str, Dict[str, float]] = {"current": {}, "volt": {}}
        for name, what, value in self.LINE.findall(printed):
            found[what][name] = float(value)
        return {name: value * found["volt"][name] for name, value in found["current"].items() if name in found["volt"]}


class Hwmon(Sensor):
    """Any other chip that tells power."""

    kind = "hwmon"
    places = ("class/hwmon/hwmon*/power*_input", "class/hwmon/hwmon*/power*_average")

    def find(self) -> None:
        for folder in self.machine.folders("class/hwmon/hwmon*"):
            device = self.machine.text(folder / "name") or folder.name
            files = [*folder.glob("power*_input"), *folder.glob("power*_average")]
            for number in sorted({path.name.partition("_")[0] for path in files}):
                name = f"{device}/{self.machine.text(folder / (number + '_label')) or number}"
                path = folder / f"{number}_input"
                path = path if path.exists() else folder / f"{number}_average"
                self._add(name, folder.name, 1e-6, path)

    def total(self) -> Tuple[List[str], str]:
        # What ACPI calls a power meter is that of the whole machine.
        whole = [name for name in self.rails if name.startswith("power_meter/")]
        names = whole or list(self.rails)
        return names, f"energy is the sum of {', '.join(names)}" if len(names) > 1 else ""


class Battery(Sensor):
    """A battery that feeds the machine."""

    kind = "battery"
    places = ("class/power_supply/*",)
    period = 0.1

    def find(self) -> None:
        for folder in self.machine.folders("class/power_supply/*"):
            kind, status = (self.machine.text(folder / name) for name in ("type", "status"))
            if (kind, status) != ("Battery", "Discharging"):
                continue
            if (folder / "power_now").exists():
                self._add(folder.name, "", 1e-6, folder / "power_now")
            elif (folder / "current_now").exists() and (folder / "voltage_now").exists():
                self._add(folder.name, "", 1e-12, folder / "current_now", folder / "voltage_now")


KINDS = (Ina3221, Rapl, Pmic, Hwmon, Battery)
"""The best first: by default the first that is there is taken."""


def find_sensors(machine: Machine) -> List[Sensor]:
    """Returns the sensors of a machine.

    Raises:
        EnergyError: it has none.
    """
    sensors: List[Sensor] = [kind(machine) for kind in KINDS]
    found = [sensor for sensor in sensors if sensor.rails]
    if not found:
        places = [place if " " in place else str(machine.sysfs / place) for kind in KINDS for place in kind.places]
        problems = "".join(f"; {sensor.problem}" for sensor in sensors if sensor.problem)
        raise EnergyError(
            f"this machine has no power sensor: there is nothing at {', '.join(places)}{problems}",
            "run this on the board itself, outside of containers; for an Intel or AMD processor `sudo modprobe"
            " intel_rapl_msr` may help; or measure with an external meter",
        )
    return found


class Rails:
    """The rails that are read, by sensor; `summed` tells which of them make the energy."""

    def __init__(self, machine: Machine, asked: Sequence[str] = ()) -> None:
        """Finds the rails that were asked for, or those of the whole machine.

        Raises:
            EnergyError: there is no sensor, or no such rail.
        """
        sensors = find_sensors(machine)
        known = [(sensor, name) for sensor in sensors for name in sensor.rails]
        self.note = ""
        if not asked:
            names, self.note = sensors[0].total()
            chosen = [(sensors[0], name) for name in names]
        else:
            chosen = []
            for name in dict.fromkeys(asked):
                there = [entry for entry in known if entry[1] == name]
                if not there:
                    raise _unknown(name, [each for _, each in known])
                chosen.append(there[0])
        self.parts = [(sensor, [name for each, name in chosen if each is sensor]) for sensor in sensors]
        self.parts = [(sensor, names) for sensor, names in self.parts if names]
        self.names = [name for _, names in self.parts for name in names]
        self.counts = [sensor.counts for sensor, names in self.parts for _ in names]
        self.summed = [not sensor.inside(name, names) for sensor, names in self.parts for name in names]
        self.sensor = "+".join(sensor.kind for sensor, _ in self.parts)
        self.period = max(sensor.period for sensor, _ in self.parts)

    def read(self) -> List[float]:
        """Returns a reading of each rail."""
        return [value for sensor, names in self.parts for value in sensor.read(names)]

    @property
    def title(self) -> str:
        """The rails that make the energy."""
        return "+".join(name for name, summed in zip(self.names, self.summed) if summed)


def _unknown(name: str, names: Sequence[str]) -> EnergyError:
    lower = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(lower[each] for each in close)}? " if close else ""
    return EnergyError(f"there is no rail '{name}'", f"{hint}the rails are {', '.join(names)}")


class Meter:
    """Reads rails, by itself every `period` seconds and when it is told to, and adds up their energy."""

    def __init__(self, machine: Machine, rails: Rails, period: float = 0.0) -> None:
        self.machine = machine
        self.rails = rails
        self.period = period or rails.period
        self.times: List[float] = []
        self.values: List[List[float]] = []
        self.energies: List[List[float]] = []
        self.missed = 0
        self._failed = 0
        self._lost: Optional[Unreadable] = None
        self._lock = threading.Lock()

    def __enter__(self) -> "Meter":
        """Begins; a sensor that cannot be read is told of here."""
        try:
            self._read()
        except Unreadable as error:
            raise error.told() from None
        self._end = self.machine.every(self.period, self._try)
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def mark(self) -> int:
        """Takes a reading now, and returns its number.

        Raises:
            EnergyError: the sensor gives none any more.
        """
        for attempt in range(_PATIENCE):
            if self._try():
                return len(self.times) - 1
            # At once the first time: a block should not be charged for waiting.
            self.machine.wait(self.period if attempt else 0.0)
        self.check()
        raise EnergyError("the power sensor gives no readings")

    def check(self) -> None:
        """Raises an EnergyError where the sensor was lost."""
        if self._lost is not None:
            told = self._lost.told()
            raise EnergyError(f"a rail was lost: {told.message}", told.hint)

    def seconds(self, begin: int, end: int) -> float:
        """Returns the time between two readings."""
        return self.times[end] - self.times[begin]

    def joules(self, begin: int, end: int) -> List[float]:
        """Returns the energy of each rail between two readings."""
        return [after - before for before, after in zip(self.energies[begin], self.energies[end])]

    def changes(self, begin: int, end: int) -> int:
        """Returns how often readings differed from those before: the sensor was updated at least so often."""
        return sum(self.values[i] != self.values[i - 1] for i in range(begin + 1, end + 1))

    def sum(self, joules: Sequence[float]) -> float:
        """Returns the energy of the rails that are summed."""
        return math.fsum(each for each, summed in zip(joules, self.rails.summed) if summed)

    def _try(self) -> bool:
        try:
            self._read()
        except Unreadable as error:
            self.missed += 1
            self._failed += 1
            if self._failed >= _PATIENCE:
                self._lost = self._lost or error
            return False
        self._failed = 0
        return True

    def _read(self) -> None:
        with self._lock:
            before = self.machine.now()
            values = self.rails.read()
            moment = 0.5 * (before + self.machine.now())
            if not self.times:
                energies = [0.0] * len(values)
            else:
                step, last = moment - self.times[-1], self.values[-1]
                energies = [
                    energy + (value - past if counts else 0.5 * (past + value) * step)
                    for energy, past, value, counts in zip(self.energies[-1], last, values, self.rails.counts)
                ]
            # `times` last: its length is the number of whole readings.
            self.values.append(values)
            self.energies.append(energies)
            self.times.append(moment)


# What runs.


class Settings(NamedTuple):
    """How to measure; times in seconds. Without `repetitions`, a block has as many runs as take `seconds`."""

    rails: Tuple[str, ...] = ()
    blocks: int = 10
    repetitions: int = 0
    seconds: float = 2.0
    idle: float = 10.0
    warm_up: float = 1.0
    settle: float = 120.0
    settle_window: float = 10.0
    settle_degrees: float = 1.0
    period: float = 0.0


DEFAULTS = Settings()


class Block(NamedTuple):
    """Runs that were measured together: when they began, how many, how long, and the energy of each rail in joules."""

    begin: float
    runs: int
    seconds: float
    joules: List[float]
    readings: int
    changes: int


class Load:
    """What is measured. A run is one inference, of a whole batch where there is one."""

    method = ""
    note = ""

    def __init__(self) -> None:
        self.facts: Dict[str, Any] = {}
        self.runs = 0

    def check(self) -> None:
        """Looks whether it runs, and leaves nothing behind that would draw power."""

    def begin(self) -> None:
        """Makes ready for runs."""

    def end(self) -> None:
        """Gives back what runs needed."""

    def prepare(self, machine: Machine, settings: Settings) -> None:
        """Warms up, and finds how many runs make a block."""

    def busy(self) -> None:
        """Runs for a moment."""

    def block(self, meter: Meter) -> Block:
        """Measures a block."""
        raise NotImplementedError

    def latency(self) -> Dict[str, float]:
        """Returns what is known of the time of a run, in milliseconds."""
        raise NotImplementedError


class Calls(Load):
    """Runs in this process: `times(count)` makes so many and returns the seconds that each took."""

    method = "in this process"

    def __init__(self, times: Callable[[int], List[float]]) -> None:
        super().__init__()
        self.times = times
        self.chunk = 1
        self.taken = array.array("d")

    def check(self) -> None:
        self.times(1)

    def prepare(self, machine: Machine, settings: Settings) -> None:
        begin, each = machine.now(), 0.0
        while not each or machine.now() - begin < settings.warm_up:
            before = machine.now()
            self.times(self.chunk)
            each = max((machine.now() - before) / self.chunk, 1e-7)
            self.chunk = max(1, min(2 * self.chunk, int(_CHUNK / each)))
        self.runs = settings.repetitions or max(1, round(settings.seconds / each))

    def busy(self) -> None:
        self.times(self.chunk)

    def block(self, meter: Meter) -> Block:
        taken = array.array("d")
        begin = meter.mark()
        while len(taken) < self.runs:
            taken.extend(self.times(min(self.chunk, self.runs - len(taken))))
            meter.check()
        end = meter.mark()
        self.taken += taken
        return _block(meter, begin, end, self.runs)

    def latency(self) -> Dict[str, float]:
        ordered = sorted(1e3 * each for each in self.taken)

        def percentile(share: float) -> float:
            return ordered[max(1, math.ceil(share * len(ordered))) - 1]

        shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
        found = {"mean": math.fsum(ordered) / len(ordered), "min": ordered[0]}
        found.update({name: percentile(share) for name, share in shares.items()}, max=ordered[-1])
        return found


def _block(meter: Meter, begin: int, end: int, runs: int) -> Block:
    joules, changes = meter.joules(begin, end), meter.changes(begin, end)
    return Block(meter.times[begin], runs, meter.seconds(begin, end), joules, end - begin, changes)


class ArtifactCalls(Calls):
    """The library of an artifact, opened by gensynth_network.py. It is closed while the idle machine is measured."""

    def __init__(self, module: Any, folder: Path, threads: int) -> None:
        super().__init__(self._times)
        self.module, self.folder, self.threads = module, folder, threads
        self.network: Any = None
        self.inputs: List[Any] = []

    def check(self) -> None:
        self.begin()
        try:
            self.times(1)
        finally:
            self.end()

    def begin(self) -> None:
        try:
            self.network = self.module.Network(self.folder, threads=self.threads)
        except self.module.NetworkError as error:
            raise EnergyError(str(error)) from None
        self.inputs = [_input(self.folder, tensor) for tensor in self.network.inputs]
        names = {"network": "name", "architecture_hash": "architecture_hash", "target": "target", "device": "device"}
        names.update({"dtype": "dtype", "batch": "batch", "threads": "threads"})
        self.facts = {key: getattr(self.network, name) for key, name in names.items()}

    def end(self) -> None:
        if self.network is not None:
            self.network.close()

    def _times(self, count: int) -> List[float]:
        try:
            found: List[float] = self.network.times(count, *self.inputs)
        except self.module.NetworkError as error:
            raise EnergyError(f"the network failed: {error}") from None
        return found


def _input(folder: Path, tensor: Any) -> bytes:
    """Returns the check vector for an input, or numbers from -1 to 1: how much power is drawn depends on the data."""
    path = folder / "check" / f"input_{tensor.name}.bin"
    if path.is_file():
        return path.read_bytes()
    count, state = 1, 1
    for size in tensor.shape:
        count *= size
    values = array.array("f")
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append((state >> 8) / 8388608.0 - 1.0)
    return values.tobytes()


class Commands(Load):
    """A program. Where `{}` stands in its words, it is told how many inferences to make.

    It is then run for K and for 2K inferences, in turns; the difference is what K inferences take, without what it
    takes to start. A program that cannot be told is charged with its start.
    """

    def __init__(self, words: Sequence[str], inferences: int = 0) -> None:
        super().__init__()
        self.words = list(words)
        self.inferences = inferences
        self.twice = any("{}" in word for word in words)
        self.method = "difference of programs" if self.twice else "whole programs"
        self.repeats = 1
        self.printed: List[Dict[str, float]] = []
        self.each: List[float] = []
        self.turn = 0
        if not self.twice:
            self.note = "the program's start is part of the figures; write {} where it takes its number of inferences"
        if inferences < 1:
            raise EnergyError(
                f"how many inferences does a run of {self.words[0]} make?", "say so with --inferences-per-run K"
            )

    def check(self) -> None:
        self._run(self.inferences)

    def prepare(self, machine: Machine, settings: Settings) -> None:
        begin = machine.now()
        while True:
            before = machine.now()
            self._run(self.inferences)
            taken = max(machine.now() - before, 1e-6)
            if machine.now() - begin >= settings.warm_up:
                break
        fitting = 1 if self.twice else round(settings.seconds / taken)
        self.repeats = settings.repetitions or max(1, fitting)
        self.runs = self.repeats * self.inferences

    def busy(self) -> None:
        self._run(self.inferences)

    def block(self, meter: Meter) -> Block:
        if not self.twice:
            found = self._measured(meter, self.inferences)
        else:
            # Turns alternate, so that a drift does not favour one of the two.
            self.turn = 1 - self.turn
            counts = [self.inferences * (1 + (i == self.turn)) for i in range(2)]
            pair = dict(zip(counts, [self._measured(meter, count) for count in counts]))
            less, more = pair[min(counts)], pair[max(counts)]
            joules = [after - before for before, after in zip(less.joules, more.joules)]
            seconds = more.seconds - less.seconds
            begin, readings = min(less.begin, more.begin), less.readings + more.readings
            found = Block(begin, self.runs, seconds, joules, readings, less.changes + more.changes)
        self.each.append(found.seconds / self.runs)
        return found

    def latency(self) -> Dict[str, float]:
        if self.printed:
            pick = {"min": min, "max": max}
            return {
                name: pick.get(name, statistics.median)([p[name] for p in self.printed]) for name in self.printed[0]
            }
        return {"p50": 1e3 * statistics.median(self.each), "mean": 1e3 * statistics.mean(self.each)}

    def _measured(self, meter: Meter, inferences: int) -> Block:
        begin = meter.mark()
        for _ in range(self.repeats):
            self._read(self._run(inferences))
            meter.check()
        return _block(meter, begin, meter.mark(), self.repeats * inferences)

    def _read(self, printed: str) -> None:
        """Takes what a program tells of itself, as `run --bench N --json` does."""

    def _run(self, inferences: int) -> str:
        words = [word.replace("{}", str(inferences)) for word in self.words]
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            try:
                code = subprocess.call(words, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
            except OSError as error:
                raise EnergyError(f"{words[0]} cannot be started: {error.strerror}", "is the path right?") from None
            output.seek(0)
            errors.seek(0)
            if code:
                told = errors.read().strip()[-500:] or "it printed nothing on stderr"
                shown = " ".join(shlex.quote(word) for word in words)
                raise EnergyError(f"`{shown}` failed with exit code {code}: {told}", "try it by itself first")
            return output.read()


class ArtifactCommands(Commands):
    """The program `run` of an artifact, where gensynth_network.py is not there."""

    def __init__(self, folder: Path, threads: int) -> None:
        words = [str(folder.resolve() / "run"), "--bench", "{}", "--json"]
        super().__init__([*words, *(["--threads", str(threads)] if threads else [])], 10)

    def check(self) -> None:
        self._read(self._run(self.inferences))

    def prepare(self, machine: Machine, settings: Settings) -> None:
        self.inferences = settings.repetitions or self._fitting(settings.seconds)
        super().prepare(machine, settings._replace(repetitions=1))
        self.printed = []

    def _fitting(self, seconds: float) -> int:
        """Returns how many inferences take so many seconds. A few tell little: they may be slow, as first ones are."""
        while True:
            fitting = max(1, round(seconds / max(1e-3 * self.printed[-1]["mean"], 1e-7)))
            if fitting <= 2 * self.inferences:
                return fitting
            self.inferences = fitting
            self._read(self._run(fitting))

    def _read(self, printed: str) -> None:
        try:
            found = json.loads(printed)
            self.printed.append({name: float(value) for name, value in found.pop("latency_ms").items()})
        except (ValueError, KeyError, AttributeError) as error:
            raise EnergyError(f"{self.words[0]} printed something else than times: {error!r}") from None
        kept = ("network", "architecture_hash", "target", "device", "dtype", "batch", "threads")
        self.facts = {name: found[name] for name in kept if name in found}


def artifact_load(folder: Path, threads: int = 0) -> Load:
    """Returns what runs an artifact: its library in this process, or else its program.

    Raises:
        EnergyError: the folder is no artifact.
    """
    if not (folder / "libnetwork.so").is_file() and not (folder / "run").is_file():
        raise EnergyError(f"{folder} is no artifact: it has neither libnetwork.so nor run", "unpack the .tar.gz first")
    module = _network_module(folder)
    if module is not None and (folder / "libnetwork.so").is_file():
        return ArtifactCalls(module, folder, threads)
    return ArtifactCommands(folder, threads)


def _network_module(folder: Path) -> Any:
    """Returns gensynth_network, from beside this file or the artifact, where it is and can measure times."""
    name = "gensynth_network"
    try:
        return importlib.import_module(f"{__package__}.{name}" if __package__ else name)
    except ImportError:
        pass
    found = importlib.util.spec_from_file_location(name, str(folder / f"{name}.py"))
    if found is None or found.loader is None or not (folder / f"{name}.py").is_file():
        return None
    module: Any = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except (ImportError, OSError):
        return None
    return module if hasattr(module.Network, "times") else None


def _timed(function: Callable[[], object]) -> Callable[[int], List[float]]:
    def times(count: int) -> List[float]:
        taken = []
        for _ in range(count):
            before = time.perf_counter()
            function()
            taken.append(time.perf_counter() - before)
        return taken

    return times


# The measurement.


def measure(
    what: Any, settings: Settings = DEFAULTS, machine: Optional[Machine] = None, tell: Optional[_Tell] = None
) -> Dict[str, Any]:
    """Measures the energy of a load, or of a Python function that makes one inference; returns what there is to tell.

    The result is ready for JSON: what `run --bench N --json` prints, and under `energy` millijoules a run. Where
    something fails, or the user interrupts, after two blocks or more, what was measured is kept, and `notes` tell so.

    Raises:
        EnergyError: there is no sensor, it cannot be read, or what is measured fails.
    """
    load: Load = what if isinstance(what, Load) else Calls(_timed(what))
    machine = Machine() if machine is None else machine
    tell = (lambda text: None) if tell is None else tell
    if settings.blocks < 2:
        raise EnergyError(f"{settings.blocks} blocks have no standard error", "two are the fewest, ten are fine")
    rails = Rails(machine, settings.rails)
    meter = Meter(machine, rails, settings.period)
    blocks: List[Block] = []
    stopped = ""
    with meter:
        load.check()
        before = machine.temperatures()
        if settings.idle:
            tell(f"{rails.title}: power when idle, {settings.idle:g} s")
        idle = _idle(meter, settings.idle)
        load.begin()
        try:
            tell("warming up")
            load.prepare(machine, settings)
            settled = _settle(machine, load, settings, tell)
            for number in range(settings.blocks):
                tell(f"block {number + 1} of {settings.blocks}, {load.runs} runs")
                blocks.append(load.block(meter))
        except (EnergyError, KeyboardInterrupt) as error:
            if len(blocks) < 2:
                raise
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            stopped = f"ended after {len(blocks)} of {settings.blocks} blocks, which are what is told: {why}"
        finally:
            load.end()
    after = machine.temperatures()
    energy = _energy(meter, load, blocks, idle)
    energy.update(settled, temperatures_c={"before": before, "after": after})
    notes = [stopped, load.note, rails.note, *_doubts(meter, load, blocks, energy)]
    energy["notes"] = [note for note in notes if note]
    latency = load.latency()
    batch = int(load.facts.get("batch", 1))
    return dict(
        load.facts,
        repetitions=sum(block.runs for block in blocks),
        latency_ms=latency,
        images_per_second=1e3 * batch / latency["mean"],
        power_mode=machine.power_mode(),
        energy=energy,
    )


def _idle(meter: Meter, seconds: float) -> Optional[Tuple[float, float]]:
    """Returns the power of the idle machine and its standard error, over ten windows."""
    if seconds <= 0:
        return None
    window = seconds / 10
    meter.machine.wait(window)  # what was before fades away
    powers = []
    for _ in range(10):
        begin = meter.mark()
        meter.machine.wait(window)
        end = meter.mark()
        powers.append(meter.sum(meter.joules(begin, end)) / meter.seconds(begin, end))
        meter.check()
    return _mean(powers)


def _mean(values: Sequence[float]) -> Tuple[float, float]:
    """Returns the mean and its standard error."""
    return math.fsum(values) / len(values), statistics.stdev(values) / math.sqrt(len(values))


def _settle(machine: Machine, load: Load, settings: Settings, tell: _Tell) -> Dict[str, Any]:
    """Runs until no temperature has changed by `settle_degrees` for `settle_window` seconds, or time is up."""
    begin = machine.now()
    history = [(begin, machine.temperatures())]
    if settings.settle <= 0 or not history[0][1]:
        return {"settled": None, "settle_seconds": 0.0}
    tell(f"running until temperatures stay within {settings.settle_degrees:g} C, {settings.settle:g} s at most")
    while True:
        load.busy()
        now = machine.now()
        history.append((now, machine.temperatures()))
        while len(history) > 2 and history[1][0] <= now - settings.settle_window:
            del history[0]
        moved = {}
        for zone in history[-1][1]:
            seen = [found[zone] for _, found in history if zone in found]
            moved[zone] = max(seen) - min(seen)
        full = now - history[0][0] >= settings.settle_window
        if full and all(degrees < settings.settle_degrees for degrees in moved.values()):
            return {"settled": True, "settle_seconds": now - begin}
        if now - begin >= settings.settle:
            zone = max(moved, key=lambda name: moved[name]) if moved else ""
            return {"settled": False, "settle_seconds": now - begin, "unsettled_zone": zone}


def _energy(meter: Meter, load: Load, blocks: Sequence[Block], idle: Optional[Tuple[float, float]]) -> Dict[str, Any]:
    """Returns the figures; a run's energy in millijoules."""
    each = [1e3 * meter.sum(block.joules) / block.runs for block in blocks]
    mean, error = _mean(each)
    if mean <= 0:
        raise EnergyError(
            f"the energy of a run comes out as {mean:.3g} mJ: blocks are too short for this sensor",
            "measure longer blocks: --seconds, --repetitions or --inferences-per-run",
        )
    seconds = math.fsum(block.seconds for block in blocks)
    found: Dict[str, Any] = {
        "energy_mj": mean,
        "energy_se_mj": error,
        "energy_above_idle_mj": None,
        "energy_above_idle_se_mj": None,
        "idle_w": None,
        "idle_se_w": None,
        "power_w": math.fsum(meter.sum(block.joules) for block in blocks) / seconds,
        "rails": meter.rails.title,
        "by_rail_mj": {
            name: 1e3 * math.fsum(block.joules[i] / block.runs for block in blocks) / len(blocks)
            for i, name in enumerate(meter.rails.names)
        },
        "sensor": meter.rails.sensor,
        "method": load.method,
        "period_s": meter.period,
        "missed_readings": meter.missed,
        "blocks": [
            {
                "begin": block.begin,
                "runs": block.runs,
                "seconds": block.seconds,
                "joules": meter.sum(block.joules),
                "readings": block.readings,
                "changes": block.changes,
            }
            for block in blocks
        ],
    }
    if idle is not None:
        above = [own - 1e3 * idle[0] * block.seconds / block.runs for own, block in zip(each, blocks)]
        own_mean, own_error = _mean(above)
        by_idle = 1e3 * idle[1] * seconds / sum(block.runs for block in blocks)
        found.update(idle_w=idle[0], idle_se_w=idle[1])
        found.update(energy_above_idle_mj=own_mean, energy_above_idle_se_mj=math.hypot(own_error, by_idle))
    return found


def _doubts(meter: Meter, load: Load, blocks: Sequence[Block], energy: Dict[str, Any]) -> List[str]:
    """Returns what there is to say against the figures."""
    notes = []
    changes, readings = min(block.changes for block in blocks), min(block.readings for block in blocks)
    if changes < 10:
        notes.append(
            f"the sensor changed only {changes} times in a block of {readings} readings: measure longer blocks, unless"
            " the power is that steady"
        )
    span = meter.seconds(0, len(meter.times) - 1)
    if len(meter.times) > 20 and len(meter.times) * meter.period < 0.5 * span:
        notes.append(f"the sensor was read every {1e3 * span / len(meter.times):.3g} ms, not {1e3 * meter.period:.3g}")
    if isinstance(load, Calls):
        between = 1 - math.fsum(load.taken) / math.fsum(block.seconds for block in blocks)
        if between > 0.02:
            notes.append(
                f"{100 * between:.0f} % of the time is Python's, between runs as short as these;"
                " `--inferences-per-run N -- ./run --bench {}` leaves it out for an artifact"
            )
    if energy.get("settled") is False:
        notes.append(f"temperatures have not settled: {energy['unsettled_zone']} still changes")
    if len(blocks) >= 6:
        each = [1e3 * meter.sum(block.joules) / block.runs for block in blocks]
        half = len(each) // 2
        (early, early_error), (late, late_error) = _mean(each[:half]), _mean(each[-half:])
        if abs(late - early) > max(4 * math.hypot(early_error, late_error), 0.01 * energy["energy_mj"]):
            notes.append(
                f"blocks drift, by {100 * (late / early - 1):+.1f} % from the first half to the second: the standard"
                " error is too small; let it settle longer"
            )
    return notes


# What is told.


def table(found: Dict[str, Any]) -> str:
    """Returns a result as people read it."""
    energy, latency = found["energy"], found["latency_ms"]
    batch = int(found.get("batch", 1))
    head = [found.get("network", ""), f"for {found['target']}" if found.get("target") else ""]
    head += [f"batch {batch}", f"{found['threads']} threads" if found.get("threads") else "", found["power_mode"]]
    of_batch = f", {energy['energy_mj'] / batch:.4g} mJ an image" if batch > 1 else ""
    lines = [
        ", ".join(part for part in head if part),
        f"energy    {energy['energy_mj']:.4g} mJ a run, standard error {energy['energy_se_mj']:.2g}{of_batch}",
    ]
    if energy["idle_w"] is not None:
        above, error = energy["energy_above_idle_mj"], energy["energy_above_idle_se_mj"]
        lines.append(f"          {above:.4g} mJ of it above idle, standard error {error:.2g}")
    idle = "" if energy["idle_w"] is None else f", idle {energy['idle_w']:.4g} W"
    lines.append(f"power     {energy['power_w']:.4g} W{idle}; {energy['rails']} ({energy['sensor']})")
    parts = [f"{name} {value:.4g}" for name, value in energy["by_rail_mj"].items()]
    if len(parts) > 1:
        lines.append(f"rails     [mJ] {'   '.join(parts)}")
    lines.append("latency   [ms] " + "   ".join(f"{name} {value:.4f}" for name, value in latency.items()))
    blocks = energy["blocks"]
    seconds, readings, changes = (
        statistics.mean(block[name] for block in blocks) for name in ("seconds", "readings", "changes")
    )
    lines.append(
        f"blocks    {len(blocks)} of {blocks[0]['runs']} runs, {seconds:.3g} s each, {readings:.0f} readings of which"
        f" {changes:.0f} new; {energy['method']}"
    )
    settled = {True: f"settled after {energy['settle_seconds']:.0f} s", False: "not settled", None: "not waited for"}
    lines.append(f"heat      {settled[energy['settled']]}{_degrees(energy['temperatures_c'])}")
    return "\n".join([*lines, *(f"note: {note}" for note in energy["notes"])])


def _degrees(found: Dict[str, Dict[str, float]]) -> str:
    after = found["after"]
    if not after:
        return "; there are no thermal zones"
    # The zone that changed most; some, such as a PMIC's, always tell the same.
    zone = max(after, key=lambda name: abs(after[name] - found["before"].get(name, after[name])))
    return f"; {zone} {found['before'].get(zone, after[zone]):.1f} to {after[zone]:.1f} C"


def row(found: Dict[str, Any]) -> Dict[str, Any]:
    """Returns a result as a line of the CSV, by column."""
    energy, latency = found["energy"], found["latency_ms"]
    precision = found.get("precision") or {"f32": "fp32", "f16": "fp16"}.get(found.get("dtype", ""), "")
    line: Dict[str, Any] = dict.fromkeys(COLUMNS, "")
    line.update({f"{name}_ms": latency.get(name, "") for name in ("mean", "min", "p90", "p95", "p99", "max")})
    line.update(
        {name: energy[name] for name in ("energy_mj", "energy_se_mj", "energy_above_idle_mj", "idle_w", "rails")}
    )
    line.update({name: found.get(name, "") for name in ("network", "batch", "threads", "architecture_hash")})
    line.update(power_mode=found["power_mode"], device=found.get("target", ""), repetitions=found["repetitions"])
    line.update(latency_ms=latency["p50"], precision=precision, runtime=found.get("runtime", ""))
    return line


def csv_with(before: str, rows: Sequence[Dict[str, Any]]) -> str:
    """Returns a CSV file with rows added to what was in it. An older one gets the columns that it lacks, empty.

    Raises:
        EnergyError: it has other columns.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    lines = list(csv.reader(io.StringIO(before, newline="")))
    if not lines:
        writer.writerow(COLUMNS)
    elif lines[0] == _OLD_COLUMNS:
        writer.writerow(COLUMNS)
        writer.writerows([*line, *[""] * (len(COLUMNS) - len(line))] for line in lines[1:])
    elif lines[0] == COLUMNS:
        stream.write(before if before.endswith("\n") else before + "\n")
    else:
        raise EnergyError("it has other columns than measurements", "give a file that this wrote, or a new one")
    writer.writerows([_shown(line[name]) for name in COLUMNS] for line in rows)
    return stream.getvalue()


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _add_to_csv(path: Path, rows: Sequence[Dict[str, Any]]) -> None:
    """Adds rows to a file, so that a crash leaves the old or the new; without rows it looks whether that will do."""
    try:
        with_rows = csv_with(path.read_text(encoding="utf-8") if path.exists() else "", rows)
        descriptor, temporary = tempfile.mkstemp(dir=str(path.resolve().parent), prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(with_rows)
        if rows:
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        else:
            Path(temporary).unlink()
    except EnergyError as error:
        raise EnergyError(f"{path}: {error}", error.hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise EnergyError(f"cannot write {path}: {error}", "choose another --csv") from None


def listing(machine: Machine) -> List[Dict[str, Any]]:
    """Returns the rails that there are, with the power that they tell now.

    Raises:
        EnergyError: there are none.
    """
    sensors = find_sensors(machine)
    total = sensors[0].total()[0]
    found = []
    for sensor in sensors:
        for name in sensor.rails:
            watts, problem = None, ""
            try:
                value, begin = sensor.read([name])[0], machine.now()
                if sensor.counts:
                    machine.wait(0.1)
                    value = (sensor.read([name])[0] - value) / (machine.now() - begin)
                watts = value
            except Unreadable as error:
                problem = error.told().message
            whole = sensor is sensors[0] and name in total
            line = {"rail": name, "sensor": sensor.kind, "watts": watts, "default": whole}
            found.append(dict(line, place=sensor.place(name), problem=problem))
    return found


def _listed(rails: Sequence[Dict[str, Any]]) -> str:
    lines = [["rail", "sensor", "now [W]", "", "where"]]
    for rail in rails:
        watts = "-" if rail["watts"] is None else f"{rail['watts']:.3f}"
        default = "default" if rail["default"] else ""
        lines.append([rail["rail"], rail["sensor"], watts, default, rail["problem"] or rail["place"]])
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    shown = ["  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[4]]) for line in lines]
    return "\n".join(shown)


# The command line.


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise EnergyError(message, "--help tells more")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gensynth_energy.py",
        usage="gensynth_energy.py [options] ARTIFACT | [options] -- COMMAND ... | --list",
        description="Measures the energy of inference by this machine's own power sensors.",
        epilog="In COMMAND, {} stands for the number of inferences: it is run for K and for 2K, and the difference"
        " counts. exit code: 0 fine, 2 something is wrong, 130 interrupted",
    )
    parser.add_argument("artifact", nargs="?", metavar="ARTIFACT", help="the folder of an artifact")
    parser.add_argument("--list", action="store_true", help="list the rails that can be read")
    parser.add_argument("--json", action="store_true", help="print all as JSON")
    parser.add_argument("--quiet", action="store_true", help="do not tell what goes on")
    seconds, count = _number(float, 0), _number(int, 1)
    for name, kind, metavar, told in (
        ("blocks", count, "B", "blocks of runs (default 10)"),
        ("repetitions", count, "N", "runs in a block (default: as many as --seconds take)"),
        ("seconds", seconds, "S", "length of a block (default 2)"),
        ("idle", seconds, "S", "time for the power when idle (default 10; 0: none)"),
        ("warm-up", seconds, "S", "time to warm up (default 1)"),
        ("settle", seconds, "S", "longest wait for steady temperatures (default 120; 0: none)"),
        ("settle-window", seconds, "S", "steady is for so long (default 10)"),
        ("settle-degrees", seconds, "C", "to change by less than this (default 1)"),
        ("period", seconds, "S", "time between readings (default 0.01; by vcgencmd 0.1)"),
    ):
        default = getattr(DEFAULTS, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=kind, default=default, metavar=metavar, help=told)
    parser.add_argument("--threads", type=count, default=0, metavar="T", help="threads of an artifact (default: all)")
    parser.add_argument("--inferences-per-run", type=count, default=0, metavar="K", help="that COMMAND makes")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="images in an inference of COMMAND")
    for name, default, metavar, told in (
        ("rails", "", "A,B", "rails to read (default: that of the whole machine)"),
        ("csv", "", "FILE.csv", "add a line to this file, as `gensynth measure --csv` does"),
        ("network", "", "TEXT", "in the CSV: the network"),
        ("device", "", "TEXT", "in the CSV: the device"),
        ("precision", "", "TEXT", "in the CSV: fp32, fp16 or the like"),
        ("runtime", "", "TEXT", "in the CSV: what runs the network"),
        ("power-mode", "", "TEXT", "in the CSV: the power mode (default: what nvpmodel tells)"),
        ("sysfs", "", "ROOT", "in place of /sys"),
        ("vcgencmd", "vcgencmd", "COMMAND", "in place of vcgencmd"),
        ("nvpmodel", "nvpmodel", "COMMAND", "in place of nvpmodel"),
    ):
        parser.add_argument(f"--{name}", default=default, metavar=metavar, help=told)
    return parser


def _number(kind: Callable[[str], Any], least: float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"'{text}' is no {'whole ' * (kind is int)}number from {least} on")
        return value

    return read


def _main(words: List[str]) -> int:
    cut = words.index("--") if "--" in words else len(words)
    command = words[cut + 1 :]
    asked = _parser().parse_args(words[:cut])
    machine = Machine(asked.sysfs, asked.vcgencmd, asked.nvpmodel)
    if asked.list:
        rails = listing(machine)
        print(json.dumps(rails, indent=1) if asked.json else _listed(rails))
        return 0
    if bool(command) == bool(asked.artifact):
        raise EnergyError("what is to be measured?", "give the folder of an artifact, or a command after --")
    if asked.csv:
        _add_to_csv(Path(asked.csv), [])
        if command and not asked.network:
            raise EnergyError("the CSV needs to know what network that command runs", "say so with --network TEXT")
    names = tuple(name.strip() for name in asked.rails.split(",") if name.strip())
    settings = Settings(rails=names, **{name: getattr(asked, name) for name in Settings._fields if name != "rails"})
    if command:
        load: Load = Commands(command, asked.inferences_per_run)
        load.facts = {"batch": asked.batch}
    else:
        load = artifact_load(Path(asked.artifact), asked.threads)

    def tell(text: str) -> None:
        if not asked.quiet:
            print(text, file=sys.stderr, flush=True)

    found = measure(load, settings, machine, tell)
    given = {name: getattr(asked, name) for name in ("network", "precision", "runtime", "power_mode")}
    given.update(target=asked.device, runtime=asked.runtime or ("" if command else "gensynth"))
    found.update({name: value for name, value in given.items() if value})
    print(json.dumps(found, indent=1) if asked.json else table(found), flush=True)
    if asked.csv:
        line = row(found)
        if asked.artifact and not asked.network:
            source = Path(asked.artifact) / "network.gsir"
            line["network"] = str(source if source.is_file() else asked.artifact)
        _add_to_csv(Path(asked.csv), [line])
    notes = found["energy"]["notes"]
    for note in notes if asked.json else []:
        tell(f"note: {note}")
    return 130 if any(note.endswith(": interrupted") for note in notes) else 0


def main(words: Optional[Sequence[str]] = None) -> int:
    """Runs the command line; returns 0, 2 where something is wrong, 130 where it was interrupted."""
    try:
        return _main(list(sys.argv[1:] if words is None else words))
    except EnergyError as error:
        told = f"gensynth_energy: error: {error.message}"
        print(told + (f"\n  hint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gensynth_energy: interrupted before two blocks were measured", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
