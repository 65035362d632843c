"""The kinds of change that a diff speaks of."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from .printer import format_logit

__all__ = [
    "AlternativeAdded",
    "AlternativeDropped",
    "AttributeChanged",
    "Change",
    "ChoiceCommitted",
    "ChoiceOpened",
    "GraphRenamed",
    "InputsChanged",
    "LogitsMoved",
    "NodeAdded",
    "NodeRemoved",
    "NodeRenamed",
    "OpReplaced",
    "OperandsRewired",
    "OrderChanged",
    "OutputsChanged",
    "RequirementAdded",
    "RequirementRemoved",
    "ResultTypeChanged",
    "TypesDownstream",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change. `scope` says where: a scope of names, inside alternatives after `CHOOSE[LABEL]/`; `subject` what."""

    scope: str
    subject: str

    sign: ClassVar[str] = "~"
    counted: ClassVar[tuple[str, str]] = ("change", "changes")
    """What the summary counts this as, in singular and plural."""

    def said(self) -> str:
        """Returns the change in words, without its subject."""
        raise NotImplementedError

    def as_dict(self) -> dict[str, object]:
        """Returns the fields, JSON-able, with the class under `change`."""
        return {"change": type(self).__name__, **dataclasses.asdict(self)}


_CHANGED = ("node changed", "nodes changed")
_CHOICES = ("choice changed", "choices changed")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAdded(Change):
    """A node that the old graph lacks; `node` is its line of the text form after the name."""

    node: str
    sign: ClassVar[str] = "+"
    counted: ClassVar[tuple[str, str]] = ("node added", "nodes added")

    def said(self) -> str:
        return self.node


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRemoved(Change):
    """A node that the new graph lacks."""

    node: str
    sign: ClassVar[str] = "-"
    counted: ClassVar[tuple[str, str]] = ("node removed", "nodes removed")

    def said(self) -> str:
        return self.node


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRenamed(Change):
    """The same node under another name; `subject` is the new one."""

    old: str
    counted: ClassVar[tuple[str, str]] = ("node renamed", "nodes renamed")

    def said(self) -> str:
        return f"renamed from {self.old}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpReplaced(Change):
    """Another op under the same name."""

    old: str
    new: str
    counted: ClassVar[tuple[str, str]] = _CHANGED

    def said(self) -> str:
        return f"{self.old} -> {self.new}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeChanged(Change):
    """Another value of an attribute."""

    attribute: str
    old: str
    new: str
    counted: ClassVar[tuple[str, str]] = _CHANGED

    def said(self) -> str:
        return f"{self.attribute} {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperandsRewired(Change):
    """Other operands; those of the old graph go by the names they have in the new one, where they have one."""

    old: tuple[str, ...]
    new: tuple[str, ...]
    counted: ClassVar[tuple[str, str]] = _CHANGED

    def said(self) -> str:
        return f"reads ({_names(self.new)}) instead of ({_names(self.old)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultTypeChanged(Change):
    """Another result type that no other change explains."""

    old: tuple[str, ...]
    new: tuple[str, ...]
    counted: ClassVar[tuple[str, str]] = _CHANGED

    def said(self) -> str:
        return f"type {', '.join(self.old)} -> {', '.join(self.new)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TypesDownstream(Change):
    """How many values change type only because something before them changed."""

    values: tuple[str, ...]
    counted: ClassVar[tuple[str, str]] = ("", "")

    def said(self) -> str:
        one = len(self.values) == 1
        return f"{len(self.values)} value{'' if one else 's'} downstream change{'s' if one else ''} shape"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceOpened(Change):
    """A choice that the old graph lacks: where it stands, its alternatives, and the nodes that went into one."""

    sites: tuple[str, ...]
    labels: tuple[str, ...]
    logits: tuple[float, ...]
    wraps: tuple[str, ...] = ()
    sign: ClassVar[str] = "+"
    counted: ClassVar[tuple[str, str]] = ("choice opened", "choices opened")

    def said(self) -> str:
        shown = [f"{label}: {format_logit(logit)}" for label, logit in zip(self.labels, self.logits, strict=True)]
        wraps = f", wrapping {_names(self.wraps)}" if self.wraps else ""
        return f"opened at {_names(self.sites)}: [{', '.join(shown)}]{wraps}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceCommitted(Change):
    """A choice that the new graph lacks, with the alternative that became permanent (empty: none can be told)."""

    sites: tuple[str, ...]
    alternative: str
    inlines: tuple[str, ...] = ()
    sign: ClassVar[str] = "-"
    counted: ClassVar[tuple[str, str]] = ("choice committed", "choices committed")

    def said(self) -> str:
        inlines = f", inlining {_names(self.inlines)}" if self.inlines else ""
        what = f"committed to {self.alternative}" if self.alternative else "closed"
        return f"{what} at {_names(self.sites)}{inlines}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternativeAdded(Change):
    """Another alternative of a choice."""

    alternative: str
    sign: ClassVar[str] = "+"
    counted: ClassVar[tuple[str, str]] = ("alternative added", "alternatives added")

    def said(self) -> str:
        return f"alternative {self.alternative} added"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternativeDropped(Change):
    """An alternative that a choice no longer has."""

    alternative: str
    sign: ClassVar[str] = "-"
    counted: ClassVar[tuple[str, str]] = ("alternative dropped", "alternatives dropped")

    def said(self) -> str:
        return f"alternative {self.alternative} dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitsMoved(Change):
    """Other logits, for the alternatives whose logit differs, with their probabilities before and after."""

    labels: tuple[str, ...]
    old: tuple[float, ...]
    new: tuple[float, ...]
    old_probabilities: tuple[float, ...]
    new_probabilities: tuple[float, ...]
    counted: ClassVar[tuple[str, str]] = ("logit moved", "logits moved")

    def said(self) -> str:
        rows = zip(self.labels, self.old, self.new, self.old_probabilities, self.new_probabilities, strict=True)
        return ", ".join(
            f"{label}: {format_logit(old)} -> {format_logit(new)} ({before:.0%} -> {after:.0%})"
            for label, old, new, before, after in rows
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementAdded(Change):
    """A requirement that the old graph lacks."""

    sign: ClassVar[str] = "+"
    counted: ClassVar[tuple[str, str]] = ("requirement added", "requirements added")

    def said(self) -> str:
        return "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementRemoved(Change):
    """A requirement that the new graph lacks."""

    sign: ClassVar[str] = "-"
    counted: ClassVar[tuple[str, str]] = ("requirement removed", "requirements removed")

    def said(self) -> str:
        return "no longer required"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputsChanged(Change):
    """Other inputs: number, names, order or types."""

    old: tuple[str, ...]
    new: tuple[str, ...]

    def said(self) -> str:
        return f"({', '.join(self.old)}) -> ({', '.join(self.new)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsChanged(Change):
    """Other values are returned or yielded; the old ones go by their new names, where they have one."""

    old: tuple[str, ...]
    new: tuple[str, ...]

    def said(self) -> str:
        return f"({_names(self.new)}) instead of ({_names(self.old)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRenamed(Change):
    """Another name of the graph; `subject` is the new one."""

    old: str

    def said(self) -> str:
        return f"renamed from @{self.old}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderChanged(Change):
    """The same things in another order."""

    def said(self) -> str:
        return "in another order"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"%{name}" for name in names)
