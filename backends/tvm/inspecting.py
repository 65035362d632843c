"""What the compiler made of a kernel: instructions of its hot loop, counted in assembly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["HotLoop", "functions_of", "hot_loop"]

_LABEL = re.compile(r"^(\.L[\w$.]+|[A-Za-z_][\w$.]*):")
_FUNCTION = re.compile(r"^\s*\.type\s+([\w$.]+),\s*[@%]function")
_AARCH64_MULTIPLY = re.compile(r"^\s*(fmla|fmls|fmadd)\s")
_AARCH64_LOAD = re.compile(r"^\s*(ld[a-z0-9]+)\s")
_AARCH64_STACK = re.compile(r"^\s*(ld|st)[a-z0-9]+\s.*\[sp\b")
_AARCH64_STACK_OR_FRAME = re.compile(r"^\s*(ld|st)[a-z0-9]+\s.*\[(sp|x29)\b")
_AARCH64_FRAME = re.compile(r"^\s*(mov\s+x29, sp|add\s+x29, sp,)")
_X86_MULTIPLY = re.compile(r"^\s*vf(n?m)(add|sub)\d*[ps]s\s")
_X86_LOAD = re.compile(r"^\s*v\w+\s.*\(%r")
_X86_STACK = re.compile(r"^\s*vmov\w+\s.*\(%r[sb]p")
_BRANCH = re.compile(r"^\s*(?:b\.\w+|b|cbn?z|tbn?z|j\w+)\s+(?:.*,\s*)?(\.L[\w$.]+)")


@dataclass(frozen=True)
class HotLoop:
    """The innermost loop with the most multiply-adds, in instructions; a load of a pair counts as two.

    `spills` are the vectors that go to the stack or come from it.
    """

    instructions: int
    multiplies: int
    loads: int
    spills: int

    @property
    def multiplies_per_load(self) -> float:
        """Multiply-adds for each vector that is loaded."""
        return self.multiplies / self.loads if self.loads else float("inf")


def functions_of(assembly: str) -> dict[str, list[str]]:
    """Returns the lines of each function, by name."""
    found: dict[str, list[str]] = {}
    names: set[str] = set()
    current: list[str] | None = None
    for line in assembly.splitlines():
        declared = _FUNCTION.match(line)
        if declared:
            names.add(declared[1])
        label = _LABEL.match(line)
        if label and label[1] in names:
            current = found.setdefault(label[1], [])
        elif current is not None:
            current.append(line)
            if line.lstrip().startswith(".size"):
                current = None
    return found


def _loops(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yields (first line, last line) of every loop: a label and a branch back to it."""
    labels = {label[1]: number for number, line in enumerate(lines) if (label := _LABEL.match(line))}
    for number, line in enumerate(lines):
        branch = _BRANCH.match(line)
        if branch and labels.get(branch[1], number) < number:
            yield labels[branch[1]], number


def hot_loop(lines: Sequence[str], architecture: str) -> HotLoop | None:
    """Returns the counts of a function's hot loop; None where no loop multiplies.

    `architecture` is `aarch64` or `x86_64`.
    """
    multiply, load, stack = (
        (_AARCH64_MULTIPLY, _AARCH64_LOAD, _AARCH64_STACK)
        if architecture == "aarch64"
        else (_X86_MULTIPLY, _X86_LOAD, _X86_STACK)
    )
    # without a frame, x29 is a register like others
    if architecture == "aarch64" and any(_AARCH64_FRAME.match(line) for line in lines):
        stack = _AARCH64_STACK_OR_FRAME
    spans = list(_loops(lines))
    inner = [(a, b) for a, b in spans if not any((c, d) != (a, b) and a <= c and d <= b for c, d in spans)]
    best: HotLoop | None = None
    for first, last in inner:
        body = [line for line in lines[first : last + 1] if line.startswith("\t") and not line.startswith("\t.")]
        multiplies = sum(bool(multiply.match(line)) for line in body)
        spills = sum(bool(stack.match(line)) for line in body)
        loads = sum(1 + line.lstrip().startswith("ldp") for line in body if load.match(line) and not stack.match(line))
        found = HotLoop(len(body), multiplies, loads, spills)
        if multiplies and (best is None or multiplies > best.multiplies):
            best = found
    return best
