"""The base of all ops: typed attributes, arity, result types, parameters, and the registry.

One op is one class. Its meaning in NumPy, its MACs and its lowerings live in the layers above, keyed by this class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, dataclass_transform

from .attributes import AttributeValue, Kind, attribute, format_value
from .errors import InferenceError, UsageError, nearest
from .plugins import load_plugins
from .types import TensorType

__all__ = ["AttributeSpec", "Op", "Parameter", "all_ops", "infer_types", "op_class"]

ENTRY_POINTS = "gensynth.ops"
"""Entry-point group under which other packages register ops; each entry point names an `Op` subclass."""

LARGEST_DIMENSION = 2**63 - 1

OpT = TypeVar("OpT", bound="Op")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One weight of an op: its local name, shape, how it starts, and whether training moves it.

    `initial` is `"he"` (normal, variance 2 / fan-in), `"zeros"` or `"ones"`.
    """

    name: str
    shape: tuple[int, ...]
    initial: str = "he"
    trainable: bool = True

    @property
    def size(self) -> int:
        """The number of elements."""
        count = 1
        for dim in self.shape:
            count *= dim
        return count


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """The declaration of one attribute."""

    name: str
    kind: Kind[Any]
    default: AttributeValue | None
    required: bool


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(attribute,))
class Op:
    """An operation with its attributes, and no operands: an immutable value that many nodes may share.

    A subclass is declared `class Relu(Op, name="relu")`, its attributes by `attribute(kind, default)`; it becomes a
    frozen dataclass and is registered under its name at once.
    """

    name: ClassVar[str] = ""
    arity: ClassVar[int | None] = 1
    """The number of operands; None for one or more."""
    commutative: ClassVar[bool] = False
    """Whether the order of the operands is without meaning."""
    attributes: ClassVar[Mapping[str, AttributeSpec]] = {}
    _registry: ClassVar[dict[str, type[Op]]] = {}

    def __init_subclass__(cls, *, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not name:
            return
        dataclass(frozen=True, eq=False, kw_only=True, repr=False)(cls)
        cls.name = name
        cls.attributes = {
            field.name: AttributeSpec(
                field.name,
                field.metadata["kind"],
                None if field.default is dataclasses.MISSING else field.default,
                field.default is dataclasses.MISSING,
            )
            for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        }
        known = Op._registry.get(name)
        if known is not None and known.__module__ != cls.__module__:
            raise UsageError(
                f"op '{name}' of {cls.__module__} is registered already by {known.__module__}",
                hint="give the op another name",
            )
        Op._registry[name] = cls

    def __post_init__(self) -> None:
        for spec in self.attributes.values():
            value = getattr(self, spec.name)
            if value is None and not spec.required and spec.default is None:
                continue
            try:
                normal = spec.kind.normalize(value)
            except ValueError as error:
                raise InferenceError(f"{self.name}: {spec.name}: {error}", attribute=spec.name) from None
            object.__setattr__(self, spec.name, normal)
        key = (type(self), tuple([getattr(self, name) for name in self.attributes]))
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_hash", hash(key))

    _key: ClassVar[Any]
    _hash: ClassVar[int]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Op) and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        return _remake, (type(self), {name: getattr(self, name) for name in self.attributes})

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.explicit().items())
        return f"{type(self).__name__}({shown})"

    def explicit(self) -> dict[str, AttributeValue]:
        """Returns the attributes that differ from their defaults, in declaration order."""
        return {
            spec.name: getattr(self, spec.name)
            for spec in self.attributes.values()
            if spec.required or getattr(self, spec.name) != spec.default
        }

    def with_attributes(self: OpT, changes: Mapping[str, AttributeValue]) -> OpT:
        """Returns the same op with some attributes replaced."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def text(self) -> str:
        """Returns the op as the text form writes it, without operands: `conv2d {channels=16, kernel=3}`."""
        shown = ", ".join(f"{name}={format_value(value)}" for name, value in self.explicit().items())
        return f"{self.name} {{{shown}}}" if shown else self.name

    # What a subclass says about itself.

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        """Returns the result types for concrete operand types (no open dimension).

        Raises:
            InferenceError: the operands do not fit the op.
        """
        raise NotImplementedError

    def parameters(self, operands: Sequence[TensorType]) -> tuple[Parameter, ...]:
        """Returns the weights that the op owns, for concrete operand types."""
        return ()

    # Helpers for subclasses.

    def fail(self, message: str, *, hint: str | None = None, attribute: str | None = None) -> InferenceError:
        """Returns an InferenceError that names this op."""
        return InferenceError(f"{self.name}: {message}", hint=hint, attribute=attribute)

    def image(self, operand: TensorType) -> tuple[int, int, int]:
        """Returns (channels, height, width) of an NCHW operand, or raises."""
        shape = operand.shape
        if len(shape) != 4 or not all(isinstance(dim, int) for dim in shape[1:]):
            raise self.fail(f"wants an image f32[N, C, H, W], got {operand}")
        return shape[1], shape[2], shape[3]  # type: ignore[return-value]

    def with_channels(self, operand: TensorType, channels: int, height: int, width: int) -> tuple[TensorType, ...]:
        """Returns the type of an image of the operand's batch and dtype."""
        return (TensorType(operand.dtype, (operand.shape[0], channels, height, width)),)


def _remake(cls: type[Op], attributes: dict[str, AttributeValue]) -> Op:
    """Makes an op again in another process, where hashes differ."""
    return cls(**attributes)


_inferred: dict[tuple[Op, tuple[TensorType, ...]], tuple[TensorType, ...]] = {}


def infer_types(op: Op, operands: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
    """Returns the result types of an op on concrete operands, after checking its arity. Memoized.

    Raises:
        InferenceError: wrong number or kind of operands.
    """
    found = _inferred.get((op, operands))
    if found is None:
        if op.arity is None:
            if not operands:
                raise op.fail("wants one operand or more, got none")
        elif len(operands) != op.arity:
            raise op.fail(f"wants {op.arity} operand{'s' if op.arity != 1 else ''}, got {len(operands)}")
        found = op.infer(operands)
        for type in found:
            if any(isinstance(dim, int) and dim > LARGEST_DIMENSION for dim in type.shape):
                raise op.fail("makes a dimension of 2^63 or more")
        _inferred[op, operands] = found
    return found


def op_class(name: str) -> type[Op]:
    """Returns the op class of a name, looking in entry points when it is not built in.

    Raises:
        UsageError: no such op.
    """
    found = Op._registry.get(name)
    if found is None:
        load_plugins(ENTRY_POINTS)
        found = Op._registry.get(name)
    if found is None:
        raise UsageError(f"unknown op '{name}'", hint=nearest(name, Op._registry, what="ops"))
    return found


def all_ops() -> Iterator[type[Op]]:
    """Yields every registered op class, plug-ins included, by name."""
    load_plugins(ENTRY_POINTS)
    for name in sorted(Op._registry):
        yield Op._registry[name]
