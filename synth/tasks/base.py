"""What a task is: labelled images in three parts, made by name from typed options; and the registry of tasks."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import ClassVar, TypeVar, dataclass_transform

from gensynth.backends.examples import Examples
from gensynth.backends.torch.objectives import Classification, Objective
from gensynth.backends.torch.recipe import Augmentation
from gensynth.ir import DataError, UsageError, nearest
from gensynth.ir.plugins import load_plugins
from gensynth.passes.base import Option, OptionValue, option

__all__ = ["SPLITS", "Task", "parse_task_options", "register_task", "task", "task_from_mapping", "tasks"]

SPLITS = ("train", "validation", "test")
"""The parts of a task's data: networks learn on the first, decisions rest on the second, the third is for the end."""

ENTRY_POINTS = "gensynth.tasks"
"""Entry-point group for other packages' tasks; each names a class under `@register_task`."""

TaskT = TypeVar("TaskT", bound="Task")


class Task(ABC):
    """Labelled images to learn from. A subclass under `@register_task(NAME)` is a frozen dataclass.

    Its fields, declared with `option`, are the task's options. It says `image`, `class_names` and `load`, and
    `objective` and `metric` where networks do not classify; building one checks the options only, the data are looked
    at when first needed. Pickling one carries its options, not its data.
    """

    name: ClassVar[str] = ""
    description: ClassVar[str] = ""
    """The first line of the class's docstring."""
    metric: ClassVar[str] = "accuracy"
    """The main metric of the objective: the figure that is called accuracy throughout."""

    @property
    @abstractmethod
    def image(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of their labels."""

    @abstractmethod
    def load(self, name: str) -> Examples:
        """Reads one of `SPLITS` from the data, and of the test part nothing unless it is asked for.

        Raises:
            DataError: the data are missing, damaged or laid out otherwise.
        """

    @property
    def objective(self) -> Objective:
        """What networks are trained for and judged by, as plain data; it may look at the training part."""
        return Classification()

    @property
    def augmentation(self) -> tuple[Augmentation, ...]:
        """The random changes of training images that keep their classes: what a recipe uses by default."""
        return ()

    @property
    def preprocessing(self) -> Mapping[str, object]:
        """How an input is made from the pixels of an image, as data; empty where the task does not say.

        `order` names the channels, `range` is the pixels' (least, most), `mean` and `deviation` are those of each
        channel: an input is (pixel - mean) / deviation.
        """
        return {}

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def options(self) -> dict[str, OptionValue]:
        """Every option with its value: `task(name, **options)` makes the same task, in any process."""
        return {name: getattr(self, name) for name in self.declared_options()}

    def split(self, name: str) -> Examples:
        """Returns the examples of one part, read at the first call; labels are of the objective's kind.

        Raises:
            UsageError: the name is none of `SPLITS`.
            DataError: the data are missing, damaged or laid out otherwise.
        """
        if name not in SPLITS:
            raise UsageError(f"task '{self.name}' has no part '{name}'", hint=nearest(name, SPLITS, what="parts"))
        if name not in self._loaded:
            examples = self.load(name)
            self.objective.check_kind(examples, f"examples of task '{self.name}'")
            found, largest = examples.inputs.shape[1:], self.objective.largest_class(examples.labels)
            if found != self.image or largest >= self.classes:
                raise DataError(
                    f"task '{self.name}': {name} has images {list(found)} and labels up to {largest}",
                    hint=f"the task declares images {list(self.image)} and {self.classes} classes",
                )
            self._loaded[name] = examples
        return self._loaded[name]

    @cached_property
    def _loaded(self) -> dict[str, Examples]:
        return {}

    def __reduce__(self) -> tuple[Callable[[type[Task], dict[str, OptionValue]], Task], tuple[type[Task], object]]:
        return _rebuild, (type(self), self.options)

    @classmethod
    def declared_options(cls) -> Mapping[str, Option]:
        """Returns the declarations of the options by name, in order."""
        hints = typing.get_type_hints(cls)
        found = {}
        for declared in dataclasses.fields(cls):  # type: ignore[arg-type]
            default = None if declared.default is dataclasses.MISSING else declared.default
            required = declared.default is dataclasses.MISSING
            explained = declared.metadata.get("help", "")
            found[declared.name] = Option(
                declared.name, declared.name, hints[declared.name], default, required, explained
            )
        return found

    @classmethod
    def usage(cls) -> str:
        """Returns all options with their defaults in one line, as `key=value` texts."""
        return " ".join(f"{item.name}={_shown(item.default)}" for item in cls.declared_options().values())


def _rebuild(cls: type[Task], options: dict[str, OptionValue]) -> Task:
    return cls(**options)


def _shown(value: OptionValue) -> str:
    if value is None or value == ():
        return "..."
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


_registry: dict[str, type[Task]] = {}


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=False, field_specifiers=(option,))
def register_task(name: str) -> Callable[[type[TaskT]], type[TaskT]]:
    """Registers a subclass of `Task` under a name and makes it a frozen dataclass of its options."""

    def register(cls: type[TaskT]) -> type[TaskT]:
        known = _registry.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise UsageError(
                f"task '{name}' of {cls.__module__} is registered already by {known.__module__}",
                hint="give the task another name",
            )
        described = (inspect.getdoc(cls) or "").partition("\n")[0]
        made = dataclasses.dataclass(frozen=True, eq=False, kw_only=True)(cls)
        made.name, made.description = name, described
        _registry[name] = made
        return made

    return register


def tasks() -> tuple[type[Task], ...]:
    """Returns every task's class (`name`, `description`, `declared_options()`), plug-ins included, by name."""
    load_plugins(ENTRY_POINTS)
    return tuple(_registry[name] for name in sorted(_registry))


def _find(name: str) -> type[Task]:
    if name not in _registry:
        load_plugins(ENTRY_POINTS)
    found = _registry.get(name)
    if found is None:
        raise UsageError(f"unknown task '{name}'", hint=nearest(name, _registry, what="tasks"))
    return found


def _declared(cls: type[Task], key: str) -> Option:
    known = cls.declared_options()
    if key not in known:
        raise UsageError(
            f"task '{cls.name}' has no option '{key}'", hint=nearest(key, known, what=f"options of {cls.name}")
        )
    return known[key]


def _convert(cls: type[Task], declared: Option, value: object) -> OptionValue:
    if value is None and declared.default is None and not declared.required:
        return None
    try:
        return declared.convert(os.fspath(value) if isinstance(value, os.PathLike) else value)
    except ValueError as error:
        raise UsageError(f"task '{cls.name}': {declared.name}: {error}", hint=f"options: {cls.usage()}") from None


def task(name: str, /, **options: object) -> Task:
    """Returns the task of a name: `task("image-folder", data="photos", size=(64, 64))`.

    Raises:
        UsageError: an unknown name or option, a value of another type or out of range, or a missing option.
    """
    cls = _find(name)
    values = {key: _convert(cls, _declared(cls, key), value) for key, value in options.items()}
    for declared in cls.declared_options().values():
        if declared.required and declared.name not in values:
            raise UsageError(
                f"task '{name}' needs the option '{declared.name}'", hint=f"it is {declared.expected}: {declared.help}"
            )
    return cls(**values)


def task_from_mapping(mapping: Mapping[str, object], *, where: str = "task") -> Task:
    """Returns the task that a table of a configuration file describes: its `name`, and its options beside it.

    Raises:
        UsageError: no name, or what `task` raises; `where` names the table in the message.
    """
    name = mapping.get("name")
    if not isinstance(name, str):
        problem = "there is no name" if name is None else f"name is {name!r}"
        raise UsageError(f"{where}: {problem}", hint='write name = "digits"; `gensynth tasks` lists the tasks')
    try:
        return task(name, **{key: value for key, value in mapping.items() if key != "name"})
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", hint=error.hint) from None


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def parse_task_options(name: str, texts: Sequence[str]) -> dict[str, OptionValue]:
    """Returns `key=value` texts as the options of a task: `["data=photos", "size=64x64"]`.

    Raises:
        UsageError: an unknown task or option, a text without `=`, one given twice, or a value of another type.
    """
    cls = _find(name)
    parsed: dict[str, OptionValue] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                f"task '{name}': cannot read '{text}'", hint=f"write key=value; options: {cls.usage() or 'none'}"
            )
        declared = _declared(cls, key)
        if key in parsed:
            raise UsageError(f"task '{name}': '{key}' is given twice", hint="give it once")
        kinds = (declared.annotation, *typing.get_args(declared.annotation))
        if typing.get_origin(declared.annotation) is tuple and str in kinds:
            parsed[key] = tuple(part.strip() for part in value.split(","))
        else:
            parsed[key] = _convert(cls, declared, value if str in kinds else _from_text(value))
    return parsed


def _from_text(text: str) -> bool | int | float | str | tuple[bool | int | float | str, ...]:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = re.split(r"\s*[x,]\s*", text.strip("[]"))
    if all(re.fullmatch(r"\d+", part) for part in parts):
        return tuple(map(int, parts))
    return text
