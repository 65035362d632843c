"""The registry of prototypes: typed arguments, their text form, and the look-up by name."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gensynth.ir import Graph, InferenceError, Network, UsageError, nearest
from gensynth.ir.plugins import load_plugins

__all__ = [
    "ArgumentSpec",
    "ArgumentValue",
    "Image",
    "Prototype",
    "parse_arguments",
    "prototype",
    "prototypes",
    "register_prototype",
]

ENTRY_POINTS = "gensynth.prototypes"
"""Entry-point group for other packages' prototypes; each names a function under `@register_prototype`."""

Image = tuple[int, int, int]
"""Channels, height and width of the input; `3x32x32` as text."""

ArgumentValue = bool | int | float | str | Image | None
"""What an argument of a prototype may be."""

FunctionT = TypeVar("FunctionT", bound=Callable[..., Graph])


@dataclass(frozen=True)
class ArgumentSpec:
    """One argument of a prototype. `default` is None where the value follows from the other arguments."""

    name: str
    kind: type
    words: tuple[str, ...]
    default: ArgumentValue

    @property
    def expected(self) -> str:
        """What the argument accepts, as said in messages."""
        if self.words:
            return "one of " + ", ".join(self.words)
        if self.kind is tuple:
            return "channels x height x width, such as 3x32x32"
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
        return names[self.kind]

    @property
    def text(self) -> str:
        """The argument and its default as the command line takes it: `depth=20`, `image=...`."""
        if self.default is None:
            return f"{self.name}=..."
        return f"{self.name}={_format(self.default)}"

    def parse(self, text: str) -> ArgumentValue:
        """Returns the value that a text stands for.

        Raises:
            ValueError: it stands for none.
        """
        if self.kind is bool:
            return {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else self._refuse()
        if self.kind is tuple:
            found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
            return self._refuse() if found is None else self.check(tuple(map(int, found.groups())))
        if self.kind is int:
            return self.check(int(text))
        if self.kind is float:
            return self.check(float(text))
        return self.check(text)

    def check(self, value: object) -> ArgumentValue:
        """Returns the value where the argument accepts it.

        Raises:
            ValueError: it does not.
        """
        if value is None and self.default is None:
            return None
        if self.kind is tuple:
            sizes = value if isinstance(value, (tuple, list)) else ()
            if len(sizes) == 3 and all(type(size) is int and size >= 1 for size in sizes):
                return sizes[0], sizes[1], sizes[2]
        elif self.kind is float:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return float(value)
        elif type(value) is self.kind and (not self.words or value in self.words):
            assert isinstance(value, (bool, int, str))
            return value
        return self._refuse()

    def _refuse(self) -> ArgumentValue:
        raise ValueError(f"expected {self.expected}")


def _format(value: ArgumentValue) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Prototype:
    """A family of human-made networks: a function from typed arguments to a graph."""

    name: str
    function: Callable[..., Graph]

    @property
    def description(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @cached_property
    def arguments(self) -> Mapping[str, ArgumentSpec]:
        """The arguments by name, read from the function's annotations.

        Raises:
            UsageError: an annotation is not one of int, float, bool, str, Image, Literal of words, or these or None.
        """
        hints = get_type_hints(self.function)
        specs = {}
        for name, parameter in inspect.signature(self.function).parameters.items():
            hint = hints.get(name)
            if get_origin(hint) in (Union, types.UnionType):
                hint = next(part for part in get_args(hint) if part is not types.NoneType)
            words: tuple[str, ...] = get_args(hint) if get_origin(hint) is Literal else ()
            kind = str if words else tuple if get_origin(hint) is tuple else hint
            if kind not in (int, float, bool, str, tuple) or parameter.kind is not parameter.KEYWORD_ONLY:
                raise UsageError(
                    f"prototype '{self.name}': cannot read argument '{name}' from the command line",
                    hint="make it keyword-only and annotate it int, float, bool, str, Image or Literal[...]",
                )
            default = None if parameter.default is parameter.empty else parameter.default
            specs[name] = ArgumentSpec(name, kind, words, default)
        return specs

    @property
    def usage(self) -> str:
        """All arguments with their defaults, in one line."""
        return " ".join(spec.text for spec in self.arguments.values())

    def argument(self, name: str) -> ArgumentSpec:
        """Returns the declaration of an argument.

        Raises:
            UsageError: there is none of this name.
        """
        found = self.arguments.get(name)
        if found is None:
            near = nearest(name, self.arguments, what="arguments")
            suffix = "" if near.startswith("arguments") else f"\n  arguments: {self.usage}"
            raise UsageError(f"prototype '{self.name}' has no argument '{name}'", hint=near + suffix)
        return found

    def refuse(self, spec: ArgumentSpec, value: object, error: ValueError) -> UsageError:
        """Returns the error for a value that an argument does not accept."""
        reason = str(error) if str(error).startswith("expected") else f"expected {spec.expected}"
        shown = value if isinstance(value, str) else repr(value)
        near = f"{nearest(value, spec.words)}\n  " if spec.words and isinstance(value, str) else ""
        return UsageError(
            f"prototype '{self.name}': {spec.name}: {reason}, got {shown}", hint=f"{near}arguments: {self.usage}"
        )

    def build(self, **arguments: ArgumentValue) -> Graph:
        """Returns the graph for some arguments.

        Raises:
            UsageError: an argument is unknown, has a value of the wrong kind, or does not go with the others.
        """
        checked = {}
        for name, value in arguments.items():
            spec = self.argument(name)
            try:
                checked[name] = spec.check(value)
            except ValueError as error:
                raise self.refuse(spec, value, error) from None
        try:
            return self.function(**checked)
        except InferenceError as error:
            given = " ".join(f"{name}={_format(value)}" for name, value in checked.items())
            raise UsageError(
                f"prototype '{self.name}' cannot be built with {given or 'its defaults'}: {error.message}",
                hint="give it a larger image, or other arguments",
            ) from None
        except UsageError as error:
            raise UsageError(f"prototype '{self.name}': {error.message}", hint=error.hint) from None


_registry: dict[str, Prototype] = {}


def register_prototype(name: str) -> Callable[[FunctionT], FunctionT]:
    """Registers a function from keyword arguments to a graph as the prototype `name`."""

    def register(function: FunctionT) -> FunctionT:
        known = _registry.get(name)
        if known is not None and known.function.__module__ != function.__module__:
            raise UsageError(
                f"prototype '{name}' of {function.__module__} is registered already by {known.function.__module__}",
                hint="give the prototype another name",
            )
        _registry[name] = Prototype(name, function)
        return function

    return register


def prototypes() -> tuple[Prototype, ...]:
    """Returns every prototype, plug-ins included, by name."""
    load_plugins(ENTRY_POINTS)
    return tuple(_registry[name] for name in sorted(_registry))


def _find(name: str) -> Prototype:
    if name not in _registry:
        load_plugins(ENTRY_POINTS)
    found = _registry.get(name)
    if found is None:
        raise UsageError(f"unknown prototype '{name}'", hint=nearest(name, _registry, what="prototypes"))
    return found


def prototype(name: str, **arguments: ArgumentValue) -> Network:
    """Returns a network of the zoo, without weights: `prototype("resnet", depth=20, classes=10)`.

    Raises:
        UsageError: unknown name or argument, or a value that does not fit.
    """
    return Network(_find(name).build(**arguments))


def parse_arguments(name: str, arguments: Sequence[str]) -> dict[str, ArgumentValue]:
    """Returns `key=value` texts as the arguments of a prototype: `["depth=20", "image=1x8x8"]`.

    Raises:
        UsageError: unknown prototype or argument, a text without `=`, one given twice, or a value that does not fit.
    """
    found = _find(name)
    parsed: dict[str, ArgumentValue] = {}
    for text in arguments:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(
                f"prototype '{name}': cannot read '{text}'", hint=f"write key=value; arguments: {found.usage}"
            )
        spec = found.argument(key)
        if key in parsed:
            raise UsageError(f"prototype '{name}': '{key}' is given twice", hint="give it once")
        try:
            parsed[key] = spec.parse(value)
        except ValueError as error:
            raise found.refuse(spec, value, error) from None
    return parsed
