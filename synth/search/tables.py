"""Tabular benchmarks: problems whose trainings were all done beforehand and stand in a CSV file, keyed by choices."""

from __future__ import annotations

import csv
import gzip
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gensynth.ir import DataError, Graph, UsageError, nearest
from gensynth.passes import Requirement
from gensynth.passes.cost import Costs, Totals
from gensynth.synth.performance import Performance

from .probing import Prober
from .problem import Problem
from .space import Decisions, Space

__all__ = ["Ceiling", "Table", "TableProblem"]

_TOTALS = Totals(0, 0, 0, 0, 0, 0)
_SPARSE = 0.2
"""Where a table holds a smaller share of the space than this, networks are drawn from the table."""
_DRAWS = 20
"""So are they after so many draws in a row that miss the requirements."""


class Ceiling(Requirement):
    """A requirement on a column of a table, `COLUMN <= BOUND`."""

    @property
    def computable(self) -> bool:
        """The table tells it."""
        return True

    def value(self, found: Costs | Totals) -> float:
        """Returns what the table says.

        Raises:
            UsageError: the costs are not from a table with this column.
        """
        figures = Costs.of(found).figures
        if self.metric not in figures:
            raise UsageError(f"'{self}': the costs have no {self.metric}", hint="read the column along with the table")
        return figures[self.metric]

    @classmethod
    def of(cls, column: str, bound: float) -> Ceiling:
        """Returns the requirement that a column's figure is at most `bound`."""
        return cls(column, "<=", bound, f"{column} <= {bound:g}")


@dataclass(frozen=True)
class Table:
    """Figures by decisions, a row of columns each; NaN where a cell is empty."""

    space: Space
    columns: tuple[str, ...]
    rows: Mapping[Decisions, Mapping[str, float]]

    @classmethod
    def read(
        cls, space: Space, paths: Sequence[str | os.PathLike[str]], *, key: Sequence[str] = (), alike: str | None = None
    ) -> Table:
        """Reads CSV files (or .csv.gz), joined on their keys; every column that holds numbers is kept.

        `key` names the column, or the columns, that hold the decisions. One column holds all labels in the order of the
        generator's choices, with anything between them (`|nor_conv_3x3~0|+...`, `8:16:64`, `["a", "b"]`), or as
        `choice=label` pairs, or as one digit a choice, its alternative's index. Several columns hold a label, or an
        index, each. Without `key`, there is a column for every choice, named by it. `alike` names a column with the
        number of the row (from 0) whose figures stand for a row's empty cells. Of rows that differ only in choices
        that do not matter (`Space.normal`), the first counts.

        Raises:
            UsageError: a file cannot be read or lacks a column.
            DataError: a key is none of the generator's, or stands there twice.
        """
        rows: dict[Decisions, dict[str, float]] = {}
        columns: dict[str, None] = {}
        for path in paths:
            found = _read(Path(path), space, tuple(key), alike)
            for decisions, figures in found.items():
                row = rows.setdefault(decisions, {})
                row.update({name: value for name, value in figures.items() if not math.isnan(value) or name not in row})
                columns.update(dict.fromkeys(figures))
        if alike is not None and alike not in columns:
            raise UsageError(f"the table has no column '{alike}'", hint=nearest(alike, columns, what="columns"))
        return cls(space, tuple(columns), rows)

    def column(self, name: str) -> str:
        """Returns a column's name.

        Raises:
            UsageError: there is no such column.
        """
        if name not in self.columns:
            raise UsageError(f"the table has no column '{name}'", hint=nearest(name, self.columns, what="columns"))
        return name

    def known(self, columns: Iterable[str]) -> dict[Decisions, Mapping[str, float]]:
        """Returns the rows in which all these columns are known."""
        names = [self.column(name) for name in columns]
        return {
            decisions: figures
            for decisions, figures in self.rows.items()
            if all(not math.isnan(figures.get(name, math.nan)) for name in names)
        }


def _read(path: Path, space: Space, key: tuple[str, ...], alike: str | None) -> dict[Decisions, dict[str, float]]:
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="") as file
        ):
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or ())
            lines = list(reader)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", hint="give a .csv or .csv.gz file") from None
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no CSV file: {error}", hint="save it as UTF-8 text with commas") from None
    decide = _decider(path, space, key, names)
    found: dict[Decisions, dict[str, float]] = {}
    order: list[Decisions] = []
    before: set[Decisions] = set()
    numeric = [name for name in names if name not in (key or space.choices)]
    for number, line in enumerate(lines, start=2):
        written = decide(line, number)
        if written in before:
            raise DataError(f"{path}, line {number}: these choices stood there before", hint="keep one line of each")
        before.add(written)
        decisions = space.normal(written)
        found.setdefault(decisions, {name: value for name in numeric if (value := _cell(line[name])) is not None})
        order.append(decisions)
    if alike is not None and alike in names:
        for decisions in order:
            own = found[decisions]
            at = own.get(alike, math.nan)
            if not math.isnan(at) and 0 <= int(at) < len(order):
                for name, value in found[order[int(at)]].items():
                    if math.isnan(own.get(name, math.nan)):
                        own[name] = value
    return found


def _cell(text: str | None) -> float | None:
    """Returns a number, NaN for an empty cell, None for any other text."""
    if text is None or not text.strip():
        return math.nan
    try:
        return float(text)
    except ValueError:
        return None


def _decider(
    path: Path, space: Space, key: tuple[str, ...], names: list[str]
) -> Callable[[Mapping[str, str], int], Decisions]:
    """Returns what reads the decisions of a line."""
    for name in key or space.choices:
        if name not in names:
            raise UsageError(f"{path} has no column '{name}'", hint=nearest(name, names, what="columns"))
    if len(key) != 1:
        if key and len(key) != len(space.choices):
            raise UsageError(
                f"{len(key)} key columns for {len(space.choices)} choices", hint="name one, or one for each choice"
            )
        columns = key or space.choices
        return lambda line, number: _decide(path, number, space, [(line[name] or "").strip() for name in columns])
    tokens = sorted({re.escape(label) for labels in space.labels for label in labels}, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w.])(?:{'|'.join(tokens)})(?![\w.])")

    def decide(line: Mapping[str, str], number: int) -> Decisions:
        text = (line[key[0]] or "").strip()
        if re.fullmatch(r"\d+", text) and len(text) == len(space.choices) > 1:
            indices = [
                labels[int(digit)] if int(digit) < len(labels) else digit
                for labels, digit in zip(space.labels, text, strict=True)
            ]
            return _decide(path, number, space, indices)
        pairs = dict(re.findall(r"([\w.]+)=([\w.+-]+)", text))
        if set(pairs) == set(space.choices):
            return _decide(path, number, space, [pairs[choice] for choice in space.choices])
        return _decide(path, number, space, pattern.findall(text), text)

    return decide


def _decide(path: Path, number: int, space: Space, labels: Sequence[str], text: str = "") -> Decisions:
    if len(labels) != len(space.choices):
        raise DataError(
            f"{path}, line {number}: {len(labels)} labels in '{text}', and {len(space.choices)} choices",
            hint="write the label of every choice, in the order in which the program has them",
        )
    found = []
    for choice, known, label in zip(space.choices, space.labels, labels, strict=True):
        if label in known:
            found.append(known.index(label))
        elif label.isdigit() and int(label) < len(known):
            found.append(int(label))
        else:
            raise DataError(
                f"{path}, line {number}: choice '{choice}' has no alternative '{label}'",
                hint=nearest(label, known, what="alternatives"),
            )
    return tuple(found)


class TableProblem(Problem):
    """A generator program whose networks' accuracies stand in a table. Probes are real: networks are built and run."""

    def __init__(
        self,
        graph: Graph,
        table: Table,
        metric: str,
        performance: Performance,
        prober: Prober,
        *,
        ceilings: Sequence[Requirement] = (),
        params: str | None = None,
        macs: str | None = None,
    ) -> None:
        """`metric` is the column of accuracies [percent]; `ceilings` are on columns, or on what can be computed.

        `params` and `macs` name columns with both in millions; without them they are counted where U asks for them.

        Raises:
            UsageError: there is no such column, or no row has all that are needed.
        """
        super().__init__(graph, performance, ceilings)
        self.metric = metric
        self.prober = prober
        self._params, self._macs = params, macs
        self._columns = tuple(item.metric for item in ceilings if isinstance(item, Ceiling))
        needed = [name for name in (metric, params, macs, *self._columns) if name is not None]
        self.rows = table.known(needed)
        if not self.rows:
            raise UsageError(f"no row of the table has all of {', '.join(needed)}", hint="look at its columns")
        self._sparse = len(self.rows) < _SPARSE * self.space.size
        asked = {item.metric for item in ceilings if not isinstance(item, Ceiling)}
        if performance.text != "accuracy":
            asked |= {"params", "macs"} if performance.device is None else {"energy"}
        told = {"params", "macs"} if params is not None and macs is not None else set()
        self._counting = bool(asked - told)
        self._costs: dict[Decisions, Costs] = {}

    def exists(self, decisions: Decisions) -> bool:
        """Whether the table has these decisions."""
        return decisions in self.rows

    def known_costs(self, decisions: Decisions) -> Costs | None:
        """Returns the costs where the table has all that are asked for, or where they had to be counted anyway."""
        if self._counting and not self.requirements:
            return None
        return self.costs(decisions)

    def costs(self, decisions: Decisions) -> Costs:
        """Returns the costs that the table has, and counts where they are asked for and it has none."""
        found = self._costs.get(decisions)
        if found is None:
            row = self.rows[decisions]
            figures = {name: row[name] for name in self._columns}
            if self._params is not None and self._macs is not None and not self._counting:
                totals = _TOTALS._replace(params=round(row[self._params] * 1e6), macs=round(row[self._macs] * 1e6))
                found = Costs(totals, figures=figures)
            elif self._counting:
                counted = self.prober.costs(decisions, self.requirements, self.performance.device)
                found = counted._replace(figures=figures)
            else:
                found = Costs(_TOTALS, figures=figures)
            self._costs[decisions] = found
        return found

    def scores(self, decisions: Decisions) -> Mapping[str, float]:
        """Returns the scores of a probe."""
        return self.prober.scores(decisions)

    def network(self, decisions: Decisions) -> str:
        """Returns the hash of what computes in the network."""
        return self.prober.network(decisions)

    def accuracy(self, decisions: Decisions) -> float:
        """Returns what the table has."""
        return self.rows[decisions][self.metric]

    def draw(self, random: np.random.Generator) -> Decisions:
        """Returns decisions drawn uniformly among those that hold; from the table's where it holds few of all."""
        if not self._sparse:
            for _ in range(_DRAWS):
                decisions = self.space.draw(random)
                if self.holds(decisions):
                    return decisions
        return self._holding[int(random.integers(len(self._holding)))]

    @cached_property
    def _holding(self) -> list[Decisions]:
        """The decisions of the table that meet the requirements.

        Raises:
            UsageError: there are none.
        """
        self._sparse = True
        found = [decisions for decisions in self.rows if self.holds(decisions)]
        if not found:
            raise UsageError(
                f"no row of the table meets {'; '.join(map(str, self.requirements))}", hint="raise the ceilings"
            )
        return found
