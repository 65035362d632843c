"""The searches of bench/search.py: a problem from a table, and all methods run once with one seed."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from search_statistics import hypervolume

import gensynth as gs
import gensynth.synth.search
from gensynth.ir import GenSynthError, Graph, UsageError, architecture_hash, nearest
from gensynth.passes import COMPUTABLE, Requirement, fold_zeros, parse_requirement
from gensynth.synth.inquisitor import Experience
from gensynth.synth.performance import parse_performance
from gensynth.synth.search.inquisitive import inquisitor_strategy
from gensynth.synth.search.probing import Prober
from gensynth.synth.search.problem import Session, Trained
from gensynth.synth.search.space import Decisions, Space
from gensynth.synth.search.strategy import Factory, Strategy, search, strategies, strategy
from gensynth.synth.search.tables import Ceiling, Table, TableProblem
from gensynth.synth.tasks import Task, parse_task_options, task

__all__ = ["ABLATIONS", "CARRIED", "OURS", "Case", "columns_of", "factory_of", "methods_of", "optimum", "repeat"]

OURS = "inquisitor"
CARRIED = "inquisitor-carried"
ABLATIONS: Mapping[str, Mapping[str, object]] = {
    "inquisitor-without-probes": {"probes": False},
    "inquisitor-without-surrogate": {"learn": False},
    "inquisitor-without-shortcuts": {"shortcuts": False},
    "inquisitor-without-repair": {"repair": False},
    "inquisitor-without-trust": {"trust": math.inf},
    "inquisitor-without-carry": {"carry": False},
}
WITH_PRIOR = (CARRIED, "inquisitor-without-carry")
"""The methods that are given what another search found."""

_COUNTABLE = 20_000
"""In at most so many rows the best is looked for where every network has to be built for it."""


@dataclass(frozen=True)
class Case:
    """What is searched, and how: all that a worker process needs to know."""

    program: str | None
    """The text of the generator; NAS-Bench-201 where there is none."""
    tables: tuple[str, ...]
    key: tuple[str, ...]
    alike: str | None
    metric: str
    ceilings: tuple[tuple[str, str], ...]
    performance: str
    params: str | None
    macs: str | None
    pareto: tuple[str, ...]
    stimuli: str
    stimuli_count: int
    probe_cache: str | None
    methods: tuple[str, ...]
    budgets: tuple[int, ...]
    probes: int
    batch: int
    seed: int
    family: int
    prior: str | None
    prior_metric: str | None
    prior_trainings: int

    @property
    def graph(self) -> Graph:
        """The generator program."""
        return _graph(self.program)

    @property
    def table(self) -> Table:
        """The table, read once in a process."""
        return _table(self.program, self.tables, self.key, self.alike)

    @property
    def on(self) -> Task:
        """The task that networks are probed on."""
        return _stimuli(self.stimuli)

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """What networks must meet: ceilings on columns of the table, or on what can be computed."""
        return tuple(requirement_of(self.table, name, bound) for name, bound in self.ceilings)

    @property
    def problem(self) -> Watched:
        """The problem, made once in a process, whatever the methods."""
        only = {"methods": (), "budgets": (), "pareto": (), "probes": 0, "batch": 1, "seed": 0, "family": 0}
        return _problem(replace(self, **only, prior=None, prior_metric=None, prior_trainings=0))  # type: ignore[arg-type]

    @property
    def before(self) -> Case:
        """The search that is carried over from."""
        assert self.prior_metric is not None
        return replace(self, metric=self.prior_metric, prior_metric=None)


@cache
def _graph(program: str | None) -> Graph:
    return gs.prototype("nas-bench-201", arch="open").graph if program is None else gs.parse(program).graph


@cache
def _table(program: str | None, tables: tuple[str, ...], key: tuple[str, ...], alike: str | None) -> Table:
    return Table.read(Space.of(_graph(program)), tables, key=key, alike=alike)


@cache
def _stimuli(text: str) -> Task:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--stimuli: {error}: {text}", hint="write it as in 'cifar10 data=FOLDER'") from None
    if not words:
        raise UsageError("--stimuli names no task", hint="write it as in 'cifar10 data=FOLDER'")
    return task(words[0], **parse_task_options(words[0], words[1:]))


@cache
def _prober(program: str | None, stimuli: str, count: int, cached: str | None) -> Prober:
    return Prober(_graph(program), _stimuli(stimuli), stimuli=count, cache=None if cached is None else Path(cached))


@cache
def _problem(case: Case) -> Watched:
    return Watched(
        case.graph,
        case.table,
        case.table.column(case.metric),
        parse_performance(case.performance),
        _prober(case.program, case.stimuli, case.stimuli_count, case.probe_cache),
        ceilings=case.requirements,
        params=case.params,
        macs=case.macs,
    )


def requirement_of(table: Table, name: str, bound: str) -> Requirement:
    """Returns `NAME <= BOUND`, on a column where there is one of that name, else on what can be computed."""
    if name in table.columns:
        try:
            return Ceiling.of(name, float(bound))
        except ValueError:
            raise UsageError(f"--ceiling {bound} is no number", hint=f"give one in the units of {name}") from None
    metric, at, device = (part.strip() for part in name.partition("@"))
    if metric not in COMPUTABLE:
        known = [*table.columns, *COMPUTABLE]
        raise UsageError(f"--cost: neither a column nor a metric is named '{name}'", hint=nearest(name, known))
    return parse_requirement(f"{metric} <= {bound}{f' @ {device}' if at else ''}", "--cost")


class Watched(TableProblem):
    """A problem that tells what it is asked for, and how long that takes it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scoring = 0.0
        self.scored: set[Decisions] = set()

    def scores(self, decisions: Decisions) -> Mapping[str, float]:
        self.scored.add(decisions)
        started = time.perf_counter()
        try:
            return super().scores(decisions)
        finally:
            self.scoring += time.perf_counter() - started


class Timed:
    """A strategy, and the time that it takes to be made, asked and told, probes apart."""

    def __init__(self, factory: Factory, session: Session) -> None:
        assert isinstance(session.problem, Watched)
        self.session = session
        self.problem = session.problem
        self.problem.scored = set()
        self.seconds = 0.0
        with self._clock():
            self.strategy: Strategy = factory(session)

    def ask(self, count: int) -> Sequence[Decisions]:
        with self._clock():
            return self.strategy.ask(count)

    def tell(self, trained: Sequence[Trained]) -> None:
        with self._clock():
            self.strategy.tell(trained)

    @contextmanager
    def _clock(self) -> Iterator[None]:
        started, scoring = time.perf_counter(), self.problem.scoring
        yield
        self.seconds += time.perf_counter() - started - (self.problem.scoring - scoring)


# Methods.


def factory_of(name: str) -> Factory:
    """Returns a strategy by name: one that is registered, an ablation, or `module:name`."""
    if name in ABLATIONS:
        return inquisitor_strategy(**ABLATIONS[name])
    if name == CARRIED:
        return strategy(OURS)
    if ":" not in name and name not in strategies():
        known = [*strategies(), *ABLATIONS, CARRIED, "all", "ablations"]
        raise UsageError(f"unknown method '{name}'", hint=nearest(name, known, what="methods"))
    return strategy(name)


def methods_of(text: str, carried: bool) -> tuple[str, ...]:
    """Returns the methods that names stand for; `all` is all strategies, `ablations` the inquisitor part by part.

    Where an experience is carried over, the inquisitor that has it is among them.
    """
    found: list[str] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name == "all":
            found += strategies()
        elif name == "ablations":
            found += [OURS, *(other for other in ABLATIONS if carried or other not in WITH_PRIOR)]
        else:
            factory_of(name)
            found.append(name)
    if carried:
        found.append(CARRIED)
    elif any(name in WITH_PRIOR for name in found):
        named = next(name for name in found if name in WITH_PRIOR)
        raise UsageError(f"{named} has nothing to carry over", hint="give --prior FILE or --prior-metric COLUMN")
    if not found:
        raise UsageError("--methods names none", hint=f"methods: {', '.join(strategies())}")
    return tuple(sorted(dict.fromkeys(found), key=lambda name: (not name.startswith(OURS), found.index(name))))


# Searches.


def repeat(case: Case, repetition: int) -> dict[str, Any]:
    """Runs every method once with one seed. A user's mistake comes back as `error`: message and hint."""
    try:
        return _repeat(case, repetition)
    except GenSynthError as error:
        return {"error": (error.message, error.hint)}


def _repeat(case: Case, repetition: int) -> dict[str, Any]:
    problem = case.problem
    seed = case.seed + repetition
    prior = _prior(case, seed)
    methods = {}
    for name in case.methods:
        factory = factory_of(name)
        made, trained = search(
            problem,
            _timed(factory),
            max(case.budgets),
            seed=seed,
            probes=case.probes,
            batch=case.batch,
            prior=prior if name in WITH_PRIOR else None,
        )
        assert isinstance(made, Timed)
        values = [item.value for item in trained]
        found = getattr(made.strategy, "family", None)
        carried = getattr(getattr(made.strategy, "inquisitor", None), "carried", None)
        methods[name] = {
            "best": [max(values[:budget]) for budget in case.budgets],
            "probes": len(made.session.probed),
            # What is ranked once serves every strategy that asks for it.
            "beyond": max(
                len(problem.scored - made.session.probed.keys()),
                getattr(made.strategy, "scores_read", 0) - len(made.session.probed),
            ),
            "overhead_ms": 1e3 * made.seconds / len(trained),
            "family": family(case, found(case.family)) if found is not None and case.family else None,
            "carried": carried() if name == CARRIED and carried is not None else None,
        }
    return {"methods": methods, "drawn": family(case, _drawn(problem, case.family, seed)) if case.family else None}


def _timed(factory: Factory) -> Callable[[Session], Timed]:
    return lambda session: Timed(factory, session)


def _prior(case: Case, seed: int) -> Experience | None:
    if case.prior is not None:
        return Experience.load(case.prior)
    if case.prior_metric is None:
        return None
    made, _ = search(
        case.before.problem, strategy(OURS), case.prior_trainings, seed=seed, probes=case.probes, batch=case.batch
    )
    experience = made.inquisitor.learned()  # type: ignore[attr-defined]
    assert isinstance(experience, Experience)
    return experience


def _drawn(problem: TableProblem, count: int, seed: int) -> list[Decisions]:
    """Returns different networks drawn uniformly, as many as can be."""
    random = np.random.Generator(np.random.Philox(key=[seed, 1]))
    found: dict[Decisions, None] = {}
    for _ in range(100 * count):
        if len(found) == count:
            break
        found[problem.draw(random)] = None
    return list(found)


def family(case: Case, networks: Sequence[Decisions]) -> dict[str, Any]:
    """Returns what the table says of a family: accuracies [percent], shares, and hypervolumes by cost column."""
    problem = case.problem
    known = [decisions for decisions in networks if problem.exists(decisions)]
    accuracies = [problem.accuracy(decisions) for decisions in known]
    volumes: dict[str, float | None] = {}
    for column in case.pareto:
        rows = [problem.rows[decisions] for decisions in known]
        pairs = [(row[case.metric], row[column]) for row in rows if not math.isnan(row.get(column, math.nan))]
        largest = _largest(case, column)
        volumes[column] = hypervolume(*zip(*pairs, strict=True), largest) if pairs else None
    return {
        "networks": len(networks),
        "mean": float(np.mean(accuracies)) if known else 0.0,
        "best": max(accuracies, default=0.0),
        "worst": min(accuracies, default=0.0),
        "different": len(set(networks)),
        "architectures": len({_architecture(problem, decisions) for decisions in networks}),
        "feasible": float(np.mean([problem.holds(decisions) for decisions in networks])) if networks else 0.0,
        "hypervolume": volumes,
    }


@cache
def _architecture(problem: TableProblem, decisions: Decisions) -> str:
    return architecture_hash(fold_zeros(problem.prober.build(decisions)))


def _largest(case: Case, column: str) -> float:
    return max(columns_of(case.table, column))


def columns_of(table: Table, *names: str) -> list[float]:
    """Returns the figures of the last of some columns, in rows that have them all."""
    return [row[names[-1]] for row in table.known(names).values()]


def optimum(problem: TableProblem) -> tuple[float | None, int | None]:
    """Returns the best value of a network that holds, and how many hold; None where it takes too long to tell."""
    rows = problem.rows
    cheap = not problem.requirements or problem.known_costs(next(iter(rows))) is not None
    feasible = sum(map(problem.holds, rows)) if cheap else None
    if problem.performance.text == "accuracy":
        for decisions in sorted(rows, key=problem.accuracy, reverse=True):
            if problem.holds(decisions):
                return problem.accuracy(decisions), feasible
        raise UsageError(f"no row meets {'; '.join(map(str, problem.requirements))}", hint="raise the ceilings")
    if problem.known_costs(next(iter(rows))) is None and len(rows) > _COUNTABLE:
        return None, feasible
    values = [problem.value(decisions, problem.accuracy(decisions)) for decisions in rows if problem.holds(decisions)]
    if not values:
        raise UsageError(f"no row meets {'; '.join(map(str, problem.requirements))}", hint="raise the ceilings")
    return max(values), len(values)
