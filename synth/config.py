"""Configurations: one TOML file says everything about a synthesis. Every fault is told with its line."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TypeVar

from gensynth.backends.torch.recipe import Recipe
from gensynth.ir import GenSynthError, ParseError, Source, UsageError, nearest
from gensynth.passes import Offer, Requirement, parse_pipeline, parse_requirements
from gensynth.passes.cost import device_text

from .inquisitor import Experience, InquisitorSettings, Surrogate
from .performance import Performance, parse_performance
from .prototypes import prototypes
from .tasks import task

__all__ = ["Config", "SearchSettings", "load_config", "load_training"]

T = TypeVar("T")


@dataclass(frozen=True)
class SearchSettings:
    """How much is spent on learning the generator.

    `cycles` of at most `networks` short trainings each; every cycle draws `draws` seeds, adds one-choice neighbours of
    the best networks known, and probes at most `probes` networks on `stimuli` images. `inherit` starts trainings from
    the prototype's weights, carried through the generator's program. `seed` decides all that is random.
    """

    cycles: int = 4
    networks: int = 6
    draws: int = 128
    probes: int = 32
    stimuli: int = 64
    inherit: bool = True
    seed: int = 0


@dataclass(frozen=True)
class EmitSettings:
    """Which networks are emitted: `seeds` of them, the best that the surrogate knows among the seeds 0 to `pool`."""

    seeds: int = 8
    pool: int = 256


@dataclass(frozen=True)
class Config:
    """A synthesis: prototype, task, requirements, performance function, and how to search.

    `shared_training` is the recipe by which all networks of the generator are trained together, if they are; then
    `search_training` may be None: networks are judged with their slices of the shared weights. `device` is what trains
    networks. `cost_devices` are all that latency or energy is asked for on, in full as
    `device_text` gives them; figures are given for the first.
    """

    task: str
    task_options: Mapping[str, object]
    prototype: str | None
    prototype_arguments: Mapping[str, object]
    prototype_path: Path | None
    requirements: tuple[str, ...]
    performance: str
    passes: str
    search: SearchSettings
    inquisitor: InquisitorSettings
    emit: EmitSettings
    training: Recipe
    search_training: Recipe | None
    processes: int | None
    device: str
    source: str = field(repr=False, default="")
    cost_devices: tuple[str, ...] = ()
    shared_training: Recipe | None = None


_TABLES = {
    "task": "the data: name, and the task's options",
    "prototype": "the network to start from: name and arguments, or path",
    "generator": "passes that open choices",
    "search": "cycles, networks, ...",
    "inquisitor": "how the generator moves",
    "emit": "seeds and pool",
    "training": "the recipe of full trainings",
    "search_training": "the recipe of short trainings",
    "shared_training": "the recipe of training all networks together",
    "run": "processes and device",
}
_TOP = ("requirements", "performance", "device")


class _Reader:
    """Reads tables with types; a fault points at its line."""

    def __init__(self, text: str, name: str) -> None:
        self.source = Source(text, name)
        try:
            self.data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"at line (\d+), column (\d+)", str(error))
            offset = len(text)
            if line is not None:
                before = text.split("\n")[: int(line[1]) - 1]
                offset = sum(len(part) + 1 for part in before) + int(line[2]) - 1
            message = re.sub(r" \(at .*\)$", "", str(error))
            raise ParseError(
                f"this is no TOML: {message}", source=self.source, offset=offset, hint="see https://toml.io"
            ) from None

    def fail(self, message: str, table: str = "", key: str = "", hint: str | None = None) -> NoReturn:
        """Raises a ParseError at a key of a table, at the table, or at the start."""
        offset, length = self.locate(table, key)
        raise ParseError(message, source=self.source, offset=offset, length=length, hint=hint) from None

    def locate(self, table: str, key: str) -> tuple[int, int]:
        """Returns (offset, length) of a key of a table (of the top without one), else of the table's header."""
        text = self.source.text
        start, header_at = 0, (0, 1)
        if table:
            header = re.search(rf"^[ \t]*\[[ \t]*{re.escape(table)}[ \t]*\]", text, re.MULTILINE)
            if header is not None:
                start, header_at = header.end(), (header.start(), header.end() - header.start())
        next_table = re.compile(r"^[ \t]*\[", re.MULTILINE).search(text, start)
        stop = len(text) if next_table is None else next_table.start()
        if key:
            found = re.compile(rf"^[ \t]*({re.escape(key)})[ \t]*=", re.MULTILINE).search(text, start, stop)
            if found is not None:
                return found.start(1), len(key)
        return header_at

    def table(self, name: str) -> dict[str, object]:
        found = self.data.get(name, {})
        if not isinstance(found, dict):
            self.fail(f"'{name}' must be a table", key=name, hint=f"write [{name}] on a line of its own")
        return dict(found)

    def settings(self, name: str, cls: type[T], skip: tuple[str, ...] = ()) -> T:
        """Reads a table into a dataclass whose fields have defaults."""
        fields = {item.name: item for item in dataclasses.fields(cls) if item.name not in skip}  # type: ignore[arg-type]
        values: dict[str, object] = {}
        for key, value in self.table(name).items():
            if key not in fields:
                self.fail(f"[{name}] has no key '{key}'", name, key, nearest(key, fields, what=f"keys of [{name}]"))
            values[key] = self.typed(name, key, value, fields[key].default)
        try:
            return cls(**values)
        except GenSynthError as error:
            key = next((key for key in values if key in error.message), "")
            self.fail(error.message, name, key, error.hint)

    def typed(self, table: str, key: str, value: object, default: object) -> object:
        kind = type(default)
        if kind is bool or kind is str:
            fits = isinstance(value, kind)
        elif kind is int:
            fits = isinstance(value, int) and not isinstance(value, bool)
        elif kind is float:
            fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        else:
            fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not fits:
            words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word in quotes"}
            self.fail(
                f"[{table}] {key} is {value!r}", table, key, f"it is {words.get(kind, 'a list of words in quotes')}"
            )
        if kind is int and isinstance(value, int) and value < 0:
            self.fail(f"[{table}] {key} is {value}", table, key, "it is 0 or more")
        if kind is float:
            assert isinstance(value, (int, float))
            return float(value)
        return tuple(value) if isinstance(value, list) else value


def load_config(path: str | os.PathLike[str]) -> Config:
    """Reads a configuration.

    Raises:
        UsageError: the file cannot be read.
        ParseError: something in it is wrong; the message points at the line.
    """
    return parse_config(_read(path), str(path))


def load_training(path: str | os.PathLike[str]) -> dict[str, object]:
    """Reads the table [training] of a configuration alone, checked, in the form that `Recipe.from_mapping` takes.

    Raises:
        UsageError: the file cannot be read.
        ParseError: there is no such table, or something in it is wrong; the message points at the line.
    """
    reader = _Reader(_read(path), str(path))
    if "training" not in reader.data:
        reader.fail("there is no table [training]", hint="write [training], and below it epochs = 30 and the like")
    _read_recipe(reader, "training")
    return reader.table("training")


def _read(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="give the path of a .toml file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text: byte {error.start} is not UTF-8", hint="save it as UTF-8") from None


def parse_config(text: str, name: str = "<config>") -> Config:
    """Reads a configuration from its text; see `load_config`."""
    reader = _Reader(text, name)
    for key in reader.data:
        if key not in _TABLES and key not in _TOP:
            reader.fail(
                f"unknown key '{key}'",
                "" if not isinstance(reader.data[key], dict) else key,
                key,
                nearest(key, [*_TABLES, *_TOP], what="keys and tables"),
            )
    options = reader.table("task")
    if not isinstance(options.get("name"), str):
        reader.fail("the task has no name", "task", "name", 'write [task] and name = "digits"')
    task_name = str(options.pop("name"))
    try:
        task(task_name, **options)
    except UsageError as error:
        reader.fail(error.message, "task", next((key for key in options if key in error.message), "name"), error.hint)
    prototype, arguments, prototype_path = _read_prototype(reader, name)
    requirements = _read_requirements(reader)
    performance = _read_performance(reader)
    passes = _read_passes(reader)
    run = reader.settings("run", _RunSettings)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", run.device):
        reader.fail(f"[run] device is '{run.device}'", "run", "device", "write cpu, cuda or cuda:0")
    return Config(
        task=task_name,
        task_options=options,
        prototype=prototype,
        prototype_arguments=arguments,
        prototype_path=prototype_path,
        requirements=tuple(map(str, requirements)),
        performance=performance.text,
        passes=passes,
        search=reader.settings("search", SearchSettings),
        inquisitor=_read_inquisitor(reader, name),
        emit=_read_emit(reader),
        training=_read_recipe(reader, "training"),
        search_training=_read_search_training(reader),
        shared_training=_read_shared_training(reader),
        processes=None if run.processes < 0 else run.processes,
        device=run.device,
        source=text,
        cost_devices=_read_devices(reader, requirements, performance),
    )


@dataclass(frozen=True)
class _RunSettings:
    processes: int = -1
    device: str = "cpu"


def _read_emit(reader: _Reader) -> EmitSettings:
    emit = reader.settings("emit", EmitSettings)
    if emit.seeds < 1 or emit.pool < emit.seeds:
        reader.fail(
            "[emit] wants at least one seed, and a pool no smaller", "emit", "seeds", "write seeds = 8, pool = 256"
        )
    return emit


def _read_prototype(reader: _Reader, name: str) -> tuple[str | None, dict[str, object], Path | None]:
    table = reader.table("prototype")
    if ("name" in table) == ("path" in table):
        reader.fail(
            "the prototype wants either a name or a path", "prototype", "", 'write [prototype] and name = "resnet"'
        )
    chosen = table.pop("name", None) or table.pop("path", None)
    if not isinstance(chosen, str):
        reader.fail("the prototype's name is no word", "prototype", "name", 'write name = "resnet"')
    if "path" in reader.table("prototype"):
        if table:
            reader.fail(f"a prototype from a file takes no '{next(iter(table))}'", "prototype", next(iter(table)))
        path = Path(chosen)
        if not path.is_absolute() and not path.exists():
            path = Path(name).parent / path
        return None, {}, path
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    known = {item.name: item for item in prototypes()}
    if chosen not in known:
        reader.fail(f"unknown prototype '{chosen}'", "prototype", "name", nearest(chosen, known, what="prototypes"))
    for key, value in arguments.items():
        try:
            spec = known[chosen].argument(key)
            spec.check(value)
        except UsageError as error:
            reader.fail(error.message, "prototype", key, error.hint)
        except ValueError as error:
            refused = known[chosen].refuse(spec, value, error)
            reader.fail(refused.message, "prototype", key, refused.hint)
    return chosen, arguments, None


def _read_requirements(reader: _Reader) -> tuple[Requirement, ...]:
    stated = reader.data.get("requirements", [])
    if not isinstance(stated, list) or not all(isinstance(item, str) for item in stated):
        reader.fail(
            "'requirements' is no list of lines", key="requirements", hint='write requirements = ["macs <= 5M"]'
        )
    try:
        return parse_requirements(list(stated), reader.source.name)
    except ParseError as error:
        text = error.source.text
        offset = reader.source.text.find(text)
        raise ParseError(
            error.reason,
            source=reader.source,
            offset=max(0, offset) + error.offset,
            hint=error.hint,
        ) from None
    except UsageError as error:
        reader.fail(error.message, key="requirements", hint=error.hint)


def _read_performance(reader: _Reader) -> Performance:
    stated = reader.data.get("performance", "netscore")
    if not isinstance(stated, str):
        reader.fail("'performance' is no word", key="performance", hint='write performance = "netscore"')
    try:
        return parse_performance(stated)
    except UsageError as error:
        reader.fail(error.message, key="performance", hint=error.hint)


def _read_devices(reader: _Reader, requirements: tuple[Requirement, ...], performance: Performance) -> tuple[str, ...]:
    """Returns the devices named: the one that figures are given for, then those of requirements and performance."""
    stated = reader.data.get("device")
    found = [item.device for item in requirements] + [performance.device]
    if stated is not None:
        if not isinstance(stated, str):
            reader.fail("'device' is no word", key="device", hint='write device = "tegra-x2-gpu:fp16"')
        try:
            found.insert(0, device_text(stated))
        except UsageError as error:
            reader.fail(error.message, key="device", hint=error.hint)
    return tuple(dict.fromkeys(name for name in found if name is not None))


def _read_passes(reader: _Reader) -> str:
    table = reader.table("generator")
    for key in table:
        if key != "passes":
            reader.fail(f"[generator] has no key '{key}'", "generator", key, "its only key is passes")
    passes = table.get("passes")
    if not isinstance(passes, (str, list)) or (
        isinstance(passes, list) and not all(isinstance(p, str) for p in passes)
    ):
        reader.fail(
            "the generator has no passes that open choices",
            "generator",
            "passes",
            'write passes = ["offer{rewrite=separate-conv}", "open-width"]',
        )
    text = passes if isinstance(passes, str) else ",".join(passes)
    try:
        parse_pipeline(text)
    except ParseError as error:
        offset, length = reader.locate("generator", "passes")
        start = 0
        for item in [passes] if isinstance(passes, str) else passes:
            inside = error.offset - start
            written = reader.source.text.find(item, offset + length)
            if 0 <= inside <= len(item) and written >= 0:
                offset, length = written + inside, 1
                break
            start += len(item) + 1
        raise ParseError(error.reason, source=reader.source, offset=offset, length=length, hint=error.hint) from None
    return text


def _read_inquisitor(reader: _Reader, name: str) -> InquisitorSettings:
    settings = reader.settings("inquisitor", InquisitorSettings, skip=("surrogate",))
    if settings.experience:
        path = Path(settings.experience)
        if not path.is_absolute() and not path.exists():
            path = Path(name).parent / path
        try:
            Experience.load(path)
        except GenSynthError as error:
            reader.fail(error.message, "inquisitor", "experience", error.hint)
        settings = dataclasses.replace(settings, experience=str(path))
    for offer in settings.offers:
        try:
            Offer(rewrite=offer)
        except GenSynthError as error:
            reason = error.reason if isinstance(error, ParseError) else error.message
            reader.fail(f"[inquisitor] offers: {reason}", "inquisitor", "offers", error.hint)
    return dataclasses.replace(settings, surrogate=Surrogate())


def _read_search_training(reader: _Reader) -> Recipe | None:
    """Returns the recipe of short trainings: full ones where it is silent, none where weights are shared."""
    if "search_training" in reader.data:
        return _read_recipe(reader, "search_training")
    return None if "shared_training" in reader.data else _read_recipe(reader, "training")


def _read_shared_training(reader: _Reader) -> Recipe | None:
    if "shared_training" not in reader.data:
        return None
    recipe = _read_recipe(reader, "shared_training")
    try:
        recipe.check_shared("[shared_training]")
    except UsageError as error:
        key = error.message.rpartition(" ")[2]
        reader.fail(error.message, "shared_training", "augmentation" if key == "mixup" else key, error.hint)
    return recipe


def _read_recipe(reader: _Reader, name: str) -> Recipe:
    try:
        return Recipe.from_mapping(reader.table(name), where=f"[{name}]")
    except UsageError as error:
        key = next((key for key in reader.table(name) if f"{key}" in error.message), "")
        reader.fail(error.message, name, key, error.hint)
