"""What a pass is: a frozen dataclass whose fields are its options, and a function from network to network."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, dataclass_transform

from gensynth.ir import Network, UsageError, nearest
from gensynth.ir.plugins import load_plugins

__all__ = ["Option", "OptionValue", "Pass", "PassResult", "all_passes", "option", "pass_class"]

OptionValue = bool | int | float | str | tuple[bool | int | float | str, ...] | None
"""What an option of a textual pipeline can hold."""


def option(*, default: Any = dataclasses.MISSING, help: str = "") -> Any:
    """Declares a field of a pass with the line that `gensynth passes` shows for it; no default makes it required."""
    if default is dataclasses.MISSING:
        return field(metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Option:
    """The declaration of one option: its name in pipelines, its type in words, default and help."""

    name: str
    field: str
    annotation: Any
    default: OptionValue
    required: bool
    help: str

    @property
    def expected(self) -> str:
        """The accepted type, in words."""
        return _describe(self.annotation)

    @property
    def takes_words(self) -> bool:
        """Whether the option is a word or a list of words, so that `8` and `true` are words to it."""
        return _leaves(self.annotation) <= {str, type(None)}

    def convert(self, value: object) -> OptionValue:
        """Returns a parsed value as the option's type.

        Raises:
            ValueError: it has another type; the message says which is expected.
        """
        return _convert(value, self.annotation)


_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}


def _describe(annotation: Any) -> str:
    if typing.get_origin(annotation) is tuple:
        return f"a list such as [a, b], each {_describe(typing.get_args(annotation)[0])}"
    if isinstance(annotation, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        return " or ".join(map(_describe, members))
    return _WORDS.get(annotation, str(annotation))


def _leaves(annotation: Any) -> set[Any]:
    arguments = [item for item in typing.get_args(annotation) if item is not ...]
    return set().union(*map(_leaves, arguments)) if arguments else {annotation}


def _convert(value: object, annotation: Any) -> OptionValue:
    if typing.get_origin(annotation) is tuple:
        items = value if isinstance(value, (tuple, list)) else (value,)
        return tuple(_convert(item, typing.get_args(annotation)[0]) for item in items)  # type: ignore[misc]
    if isinstance(annotation, types.UnionType):
        for member in typing.get_args(annotation):
            if member is type(None):
                continue
            try:
                return _convert(value, member)
            except ValueError:
                pass
    elif annotation is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool)):
        return typing.cast(OptionValue, value)
    shown = f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
    raise ValueError(f"expected {_describe(annotation)}, got {shown}")


@dataclass(frozen=True)
class PassResult:
    """What a pass gives back: the network, whether it changed, and what there is to say about it."""

    network: Network
    changed: bool
    notes: tuple[str, ...] = ()


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option,))
class Pass:
    """A transformation of networks. Subclass it as `class Canonicalize(Pass, name="canonicalize")`.

    The subclass becomes a frozen dataclass, its fields the options of the textual pipeline and of the help text, and
    is registered under its name. The first line of its docstring is its description.
    """

    name: ClassVar[str] = ""
    _registry: ClassVar[dict[str, type[Pass]]] = {}

    def __init_subclass__(cls, *, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, kw_only=True)(cls)
        if not name:
            return
        cls.name = name
        known = Pass._registry.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise UsageError(
                f"pass '{name}' of {cls.__module__} is registered already by {known.__module__}",
                hint="give the pass another name",
            )
        Pass._registry[name] = cls

    def run(self, network: Network) -> PassResult:
        """Transforms a network.

        Raises:
            PassError: the network does not allow it.
        """
        raise NotImplementedError

    @classmethod
    def description(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n", 1)[0]

    @classmethod
    def options(cls) -> Mapping[str, Option]:
        """Returns the options by name, in order of declaration."""
        found = _options.get(cls)
        if found is None:
            found = _options[cls] = _read_options(cls)
        return found

    def text(self) -> str:
        """Returns the pass as a textual pipeline writes it: `offer{rewrite=separate-conv}`."""
        shown = []
        for name, declared in self.options().items():
            value: OptionValue = getattr(self, declared.field)
            if declared.required or value != declared.default:
                shown.append(f"{name}={format_option(value)}")
        return f"{self.name}{{{','.join(shown)}}}" if shown else self.name


_options: dict[type[Pass], Mapping[str, Option]] = {}


def _read_options(cls: type[Pass]) -> Mapping[str, Option]:
    hints = typing.get_type_hints(cls)
    found = {}
    for declared in dataclasses.fields(cls):  # type: ignore[arg-type]
        name = declared.name.replace("_", "-")
        required = declared.default is dataclasses.MISSING
        default = typing.cast(OptionValue, None if required else declared.default)
        help = declared.metadata.get("help", "")
        found[name] = Option(name, declared.name, hints[declared.name], default, required, help)
    return found


def format_option(value: OptionValue) -> str:
    """Returns the text of an option's value; words that hold separators are quoted."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ",".join(map(format_option, value)) + "]"
    if isinstance(value, str):
        from .pipeline import needs_quotes

        return json.dumps(value, ensure_ascii=False) if needs_quotes(value) else value
    return str(value)


def _load_plugins() -> None:
    load_plugins("gensynth.passes")
    load_plugins("gensynth.rules")


def pass_class(name: str) -> type[Pass]:
    """Returns the pass (or rewrite rule) of a name, looking in entry points when it is not built in.

    Raises:
        UsageError: no such pass.
    """
    if name not in Pass._registry:
        _load_plugins()
    found = Pass._registry.get(name)
    if found is None:
        raise UsageError(f"unknown pass '{name}'", hint=nearest(name, Pass._registry, what="passes"))
    return found


def all_passes() -> Iterator[type[Pass]]:
    """Yields every registered pass and rule, plug-ins included, by name."""
    _load_plugins()
    for name in sorted(Pass._registry):
        yield Pass._registry[name]
