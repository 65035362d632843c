"""What changed between two networks or two generators, as a person would say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from .attributes import AttributeValue, format_value
from .changes import (
    AlternativeAdded,
    AlternativeDropped,
    AttributeChanged,
    Change,
    ChoiceCommitted,
    ChoiceOpened,
    GraphRenamed,
    InputsChanged,
    LogitsMoved,
    NodeAdded,
    NodeRemoved,
    NodeRenamed,
    OperandsRewired,
    OpReplaced,
    OrderChanged,
    OutputsChanged,
    RequirementAdded,
    RequirementRemoved,
    ResultTypeChanged,
    TypesDownstream,
)
from .graph import Choice, ChoiceInfo, Graph, Node, scope_of
from .matching import Matching, match
from .ops.choose import Choose

__all__ = ["Change", "Diff", "diff"]

T = TypeVar("T")
_COLORS = {"+": "32", "-": "31", "~": "33"}
_NETWORK, _CHOICES, _REQUIREMENTS = "network", "choices", "requirements"


@dataclass(frozen=True)
class Diff:
    """All changes between two graphs; false where the graphs are equal."""

    changes: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    @property
    def summary(self) -> str:
        """The changes counted in one line: `3 nodes changed, 1 added, 2 logits moved`."""
        counts: Counter[tuple[str, str]] = Counter()
        changed: set[tuple[str, str]] = set()
        for change in self.changes:
            if isinstance(change, LogitsMoved):
                counts[change.counted] += len(change.labels)
            elif change.counted == OpReplaced.counted:
                changed.add((change.scope, change.subject))
                counts[change.counted] = len(changed)
            elif change.counted[0]:
                counts[change.counted] += 1
        words = [f"{count} {one if count == 1 else many}" for (one, many), count in sorted(counts.items(), key=_place)]
        return ", ".join(words) if words else "no differences"

    def text(self, color: bool = False) -> str:
        """Returns lines marked `+`, `-` and `~`, grouped by scope and aligned, then the summary."""
        lines: list[str] = []
        for scope, group in groupby(self.changes, key=lambda change: change.scope):
            rows = [
                (sign, subject, ", ".join(change.said() for change in same))
                for (sign, subject), same in groupby(group, key=lambda change: (change.sign, change.subject))
            ]
            width = max(len(subject) for _, subject, _ in rows)
            if scope:
                lines.append(scope)
            for sign, subject, said in rows:
                line = f"{sign} {subject:<{width}}  {said}"
                lines.append("  " * bool(scope) + (f"\x1b[{_COLORS[sign]}m{line}\x1b[0m" if color else line))
        return "\n".join([*lines, self.summary]) + "\n"

    def as_dict(self) -> dict[str, object]:
        """Returns the summary and every change, JSON-able."""
        return {"summary": self.summary, "changes": [change.as_dict() for change in self.changes]}

    def __str__(self) -> str:
        return self.text()


def _place(item: tuple[tuple[str, str], int]) -> int:
    """Nodes come first in a summary."""
    return 0 if item[0] == OpReplaced.counted else 1 if item[0][0].startswith("node") else 2


def diff(a: Graph, b: Graph) -> Diff:
    """Returns what changed from `a` to `b`.

    Nodes are matched by name, then by op and place, so that a rename is a rename. What follows from another change is
    not told again: shapes that change downstream are counted in one line, nodes that went into an alternative (or came
    out of one) are told with their choice.
    """
    if a == b:
        return Diff(())
    comparison = _Comparison(a, b)
    comparison.graphs(a, b, "")
    changes = comparison.changes
    if comparison.downstream:
        changes.append(TypesDownstream(scope=_NETWORK, subject="shapes", values=tuple(comparison.downstream)))
    changes.extend(comparison.choice_changes())
    if not changes:
        changes = [OrderChanged(scope=_NETWORK, subject="nodes")]
    return Diff(tuple(_grouped(changes)))


def _grouped(changes: Iterable[Change]) -> Iterator[Change]:
    """Brings changes of one scope, and in it of one subject, together, each where the first of them stood."""
    scopes: dict[str, dict[tuple[str, str], list[Change]]] = {}
    for change in changes:
        scopes.setdefault(change.scope, {}).setdefault((change.sign, change.subject), []).append(change)
    for subjects in scopes.values():
        for same in subjects.values():
            yield from same


def _call(node: Node) -> str:
    """Returns a node without results and types: `conv2d(%x) {channels=8, kernel=3}`."""
    operands = ", ".join(f"%{value.name}" for value in node.operands)
    if isinstance(node.op, Choose):
        return f"choose<{node.op.choice}>({operands})"
    attributes = node.op.explicit() | dict(node.choices)
    shown = ", ".join(f"{name}={_shown(attributes[name])}" for name in node.op.attributes if name in attributes)
    return f"{node.op.name}({operands}){f' {{{shown}}}' if shown else ''}"


def _shown(value: AttributeValue | Choice | None) -> str:
    if value is None:
        return "unset"
    if isinstance(value, Choice):
        return f"choice<{value.id}>[{', '.join(map(format_value, value.values))}]"
    return format_value(value)


def _moved(old: tuple[T, ...], new: tuple[T, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Returns (indices dropped from old, indices added in new), or None where what stayed changed its order."""
    dropped = tuple(index for index, item in enumerate(old) if item not in new)
    added = tuple(index for index, item in enumerate(new) if item not in old)
    stayed = [item for item in old if item in new]
    return (dropped, added) if stayed == [item for item in new if item in old] else None


class _Comparison:
    """Compares two graphs, bodies included; changes of choices are gathered over all their sites."""

    def __init__(self, a: Graph, b: Graph) -> None:
        self.old, self.new = a.choices, b.choices
        self.changes: list[Change] = []
        self.downstream: list[str] = []
        self.taken: dict[str, str] = {}
        """The alternative that a committed choice took, where it can be told."""
        self.wraps: dict[str, list[str]] = {}
        self.inlines: dict[str, list[str]] = {}
        self.dropped: dict[str, dict[int, str]] = {}
        self.added: dict[str, dict[int, str]] = {}

    def say(self, make: Callable[..., Change], prefix: str, name: str, **fields: object) -> None:
        """Notes a change of a node: its scope (and alternative) heads the group, the rest of its name is subject."""
        self.changes.append(make(scope=prefix + scope_of(name), subject=f"%{name.rpartition('.')[2]}", **fields))

    def graphs(self, a: Graph, b: Graph, prefix: str) -> None:
        heading = prefix or _NETWORK
        if a.name != b.name:
            self.changes.append(GraphRenamed(scope=heading, subject=f"@{b.name}", old=a.name))
        self.requirements(a, b)
        matching = match(a, b)
        old, new = (tuple(v.name if prefix else repr(v) for v in graph.inputs) for graph in (a, b))
        if old != new:
            self.changes.append(InputsChanged(scope=heading, subject="inputs", old=old, new=new))
        self.nodes(a, b, matching, prefix)
        outputs = tuple(matching.values.get(value.name, value.name) for value in a.outputs)
        wanted = tuple(value.name for value in b.outputs)
        if outputs != wanted:
            self.changes.append(
                OutputsChanged(scope=heading, subject="yields" if prefix else "returns", old=outputs, new=wanted)
            )
        stayed = [before.name for before, _ in matching.pairs]
        if stayed != [node.name for node in a.nodes if node.name in set(stayed)]:
            self.changes.append(OrderChanged(scope=heading, subject="nodes"))

    def requirements(self, a: Graph, b: Graph) -> None:
        before = len(self.changes)
        for text in a.requirements:
            if text not in b.requirements:
                self.changes.append(RequirementRemoved(scope=_REQUIREMENTS, subject=f'"{text}"'))
        for text in b.requirements:
            if text not in a.requirements:
                self.changes.append(RequirementAdded(scope=_REQUIREMENTS, subject=f'"{text}"'))
        if a.requirements != b.requirements and len(self.changes) == before:
            self.changes.append(OrderChanged(scope=_REQUIREMENTS, subject="requirements"))

    def nodes(self, a: Graph, b: Graph, matching: Matching, prefix: str) -> None:
        inlined, wrapped = self.explained(matching)
        for node in matching.removed:
            if node.name in wrapped:
                self.wraps.setdefault(wrapped[node.name], []).append(node.name)
            elif not self.closed(node):
                self.say(NodeRemoved, prefix, node.name, node=_call(node))
        old_of = {new.name: old for old, new in matching.pairs}
        changed_types = {new.name for old, new in zip(a.inputs, b.inputs, strict=False) if old.type is not new.type}
        downstream: list[str] = []
        for node in b.nodes:
            old = old_of.get(node.name)
            if old is not None:
                self.pair(old, node, matching, prefix, changed_types, downstream)
            elif node.name in inlined:
                self.inlines.setdefault(inlined[node.name], []).append(node.name)
            elif not self.freshly_open(node):
                self.say(NodeAdded, prefix, node.name, node=_call(node))
        self.downstream.extend(prefix + name for name in downstream)

    def explained(self, matching: Matching) -> tuple[dict[str, str], dict[str, str]]:
        """Returns the choice that each added node came out of, and the choice that each removed node went into."""
        old = [*(old for old, _ in matching.pairs), *matching.removed]
        new = [*(new for _, new in matching.pairs), *matching.added]
        replaced = {new.name: new for before, new in matching.pairs if isinstance(before.op, Choose)}
        inlined: dict[str, str] = {}
        for node in old:
            if isinstance(node.op, Choose) and self.closed(node):
                fresh = [*matching.added, *(node for node in replaced.values() if not isinstance(node.op, Choose))]
                label, taken = _likeliest(node, [node for node in fresh if node.name not in inlined])
                self.taken.setdefault(node.op.choice, label)
                inlined.update((name, node.op.choice) for name in taken)
        wrapped: dict[str, str] = {}
        for node in new:
            if isinstance(node.op, Choose) and self.freshly_open(node):
                gone = [*matching.removed, *(before for before, after in matching.pairs if after is node)]
                _, taken = _likeliest(node, [before for before in gone if before.name not in wrapped])
                wrapped.update((name, node.op.choice) for name in taken)
        return inlined, wrapped

    def pair(
        self, old: Node, new: Node, matching: Matching, prefix: str, changed_types: set[str], downstream: list[str]
    ) -> None:
        names = tuple(value.name for value in old.results)
        before_pair = len(self.changes)
        if old.name != new.name:
            self.say(NodeRenamed, prefix, new.name, old=old.name)
        if names[1:] != tuple(value.name for value in new.results)[1:]:
            results = ", ".join(f"%{name}" for name in names), ", ".join(f"%{value.name}" for value in new.results)
            self.say(AttributeChanged, prefix, new.name, attribute="results", old=results[0], new=results[1])
        reads = tuple(matching.values.get(value.name, value.name) for value in old.operands)
        wanted = tuple(value.name for value in new.operands)
        if reads != wanted and not (self.closed(old) or self.freshly_open(new)):
            self.say(OperandsRewired, prefix, new.name, old=reads, new=wanted)
        told = len(self.changes) > before_pair + (old.name != new.name)
        told |= self.ops(old, new, prefix)
        differing = [
            after.name for before, after in zip(old.results, new.results, strict=False) if before.type is not after.type
        ]
        if differing:
            if told or changed_types.intersection(wanted):
                downstream.extend(differing)
            else:
                types = [tuple(value.type.text for value in node.results) for node in (old, new)]
                self.say(ResultTypeChanged, prefix, new.name, old=types[0], new=types[1])
            changed_types.update(differing)

    def ops(self, old: Node, new: Node, prefix: str) -> bool:
        """Compares ops, choices and alternatives of a pair; returns whether they differ."""
        if old.op == new.op and old.choices == new.choices and old.alternatives == new.alternatives:
            return False
        if isinstance(old.op, Choose) and isinstance(new.op, Choose):
            self.chooses(old, old.op, new, new.op, prefix)
        elif type(old.op) is not type(new.op):
            if not (self.closed(old) or self.freshly_open(new)):
                self.say(OpReplaced, prefix, new.name, old=_call(old), new=_call(new))
        else:
            before, after = dict(old.choices), dict(new.choices)
            for name in new.op.attributes:
                was: AttributeValue | Choice | None = before.get(name, getattr(old.op, name))
                now: AttributeValue | Choice | None = after.get(name, getattr(new.op, name))
                if was != now:
                    self.attribute(new, name, was, now, prefix)
        return True

    def closed(self, old: Node) -> bool:
        return isinstance(old.op, Choose) and old.op.choice not in self.new

    def freshly_open(self, new: Node) -> bool:
        return isinstance(new.op, Choose) and new.op.choice not in self.old

    def attribute(
        self,
        node: Node,
        name: str,
        was: AttributeValue | Choice | None,
        now: AttributeValue | Choice | None,
        prefix: str,
    ) -> None:
        if isinstance(was, Choice) and isinstance(now, Choice) and was.id == now.id:
            moved = _moved(was.values, now.values)
            if moved is not None and self.alternatives(was.id, *moved):
                return
        elif isinstance(was, Choice) and was.id not in self.new and now in was.values:
            index = was.values.index(now)
            self.taken.setdefault(was.id, self.old[was.id].labels[index])
            return
        elif isinstance(now, Choice) and now.id not in self.old and was in now.values:
            return
        self.say(AttributeChanged, prefix, node.name, attribute=name, old=_shown(was), new=_shown(now))

    def alternatives(self, identifier: str, dropped: tuple[int, ...], added: tuple[int, ...]) -> bool:
        """Notes alternatives dropped and added; returns whether they agree with the choice's other sites."""
        for found, indices, labels in (
            (self.dropped, dropped, self.old[identifier].labels),
            (self.added, added, self.new[identifier].labels),
        ):
            told = found.setdefault(identifier, {index: labels[index] for index in indices})
            if set(told) != set(indices):
                return False
        return True

    def chooses(self, old: Node, was: Choose, new: Node, now: Choose, prefix: str) -> None:
        labels = [tuple(alternative.label for alternative in node.alternatives) for node in (old, new)]
        moved = _moved(labels[0], labels[1])
        if was.choice != now.choice:
            self.say(AttributeChanged, prefix, new.name, attribute="choice", old=was.choice, new=now.choice)
        explained = was.choice == now.choice and moved is not None and self.alternatives(was.choice, *moved)
        if labels[0] != labels[1] and not explained:
            shown = [f"[{', '.join(each)}]" for each in labels]
            self.say(AttributeChanged, prefix, new.name, attribute="alternatives", old=shown[0], new=shown[1])
        before = {alternative.label: alternative.body for alternative in old.alternatives}
        for alternative in new.alternatives:
            body = before.get(alternative.label)
            if body is not None and body != alternative.body:
                self.graphs(body, alternative.body, f"{prefix}{new.name}[{alternative.label}]/")

    def choice_changes(self) -> Iterator[Change]:
        """Yields the changes of choices, in the order of the new graph's choices after those that are gone."""
        for identifier, info in self.old.items():
            if identifier in self.new:
                continue
            yield ChoiceCommitted(
                scope=_CHOICES,
                subject=identifier,
                sites=info.nodes,
                alternative=self.taken.get(identifier, ""),
                inlines=tuple(self.inlines.get(identifier, ())),
            )
        for identifier, info in self.new.items():
            if identifier in self.old:
                yield from self.kept(identifier, self.old[identifier], info)
            else:
                yield ChoiceOpened(
                    scope=_CHOICES,
                    subject=identifier,
                    sites=info.nodes,
                    labels=info.labels,
                    logits=info.logits,
                    wraps=tuple(self.wraps.get(identifier, ())),
                )

    def kept(self, identifier: str, old: ChoiceInfo, new: ChoiceInfo) -> Iterator[Change]:
        dropped, added = self.dropped.get(identifier, {}), self.added.get(identifier, {})
        for label in dropped.values():
            yield AlternativeDropped(scope=_CHOICES, subject=identifier, alternative=label)
        for label in added.values():
            yield AlternativeAdded(scope=_CHOICES, subject=identifier, alternative=label)
        stayed_old = [index for index in range(len(old.labels)) if index not in dropped]
        stayed_new = [index for index in range(len(new.labels)) if index not in added]
        rows = [
            (new.labels[j], old.logits[i], new.logits[j], old.probabilities[i], new.probabilities[j])
            for i, j in zip(stayed_old, stayed_new, strict=False)
            if old.logits[i] != new.logits[j]
        ]
        if rows:
            labels, before, after, was, now = zip(*rows, strict=True)
            yield LogitsMoved(
                scope=_CHOICES,
                subject=identifier,
                labels=labels,
                old=before,
                new=after,
                old_probabilities=was,
                new_probabilities=now,
            )


def _likeliest(choose: Node, nodes: list[Node]) -> tuple[str, tuple[str, ...]]:
    """Returns the alternative whose ops are all among `nodes`, the one of most nodes first, and which nodes they are.

    An alternative that is empty counts only where no other fits.
    """
    best: tuple[str, tuple[str, ...]] = ("", ())
    for alternative in choose.alternatives:
        left = list(nodes)
        taken: list[str] = []
        for inner in alternative.body.nodes:
            found = next((node for node in left if node.op == inner.op and node.choices == inner.choices), None)
            if found is None:
                break
            left.remove(found)
            taken.append(found.name)
        else:
            if not best[0] or len(taken) > len(best[1]):
                best = (alternative.label, tuple(taken))
    return best
