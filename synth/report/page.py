"""Makes the page: what the run directory holds goes through the templates beside this file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gensynth.backends.drawing import draw
from gensynth.backends.drawing.style import STYLE
from gensynth.ir import GenSynthError, Graph, Network, to_text, write_atomically
from gensynth.ir.diff import diff
from gensynth.passes import ON_DEVICE, Ledger, LedgerRow, Requirement, run_pipeline
from gensynth.passes.cost import CostReport, CostRow, cost

from ..generator import Generator
from . import figures
from .charts import Scatter, Spot, Trend, accuracy_tooltip, scatter, trend
from .movements import Decision, decisions, learned
from .run import Cycle, Row, Run, Training, read_run

__all__ = ["write_report"]

_BUDGET = 1_300_000
"""Characters that drawings and their tables may take, so that the page stays below 2 MB."""


@dataclass(frozen=True)
class Drawn:
    """A network of the page: its drawing, or why there is none, and the nodes that cost something."""

    row: Row
    drawing: Markup
    fault: str
    report: CostReport
    nodes: tuple[CostRow, ...]


@dataclass(frozen=True)
class Kept:
    """How the family meets a requirement: the worst value in it and its margin, a share of the bound."""

    requirement: Requirement
    prototype: float | None
    worst: float | None
    margin: float | None


def write_report(out: Path) -> Path:
    """Writes `report.html` into a run directory, finished or not, and returns its path.

    The page is a pure function of the run directory: made twice, it is the same bytes.

    Raises:
        DataError: `out` is no directory, or its files are damaged beyond use.
    """
    path = Path(out) / "report.html"
    write_atomically(path, _page(read_run(Path(out))).encode())
    return path


def _page(run: Run) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=figures.byte_count,
        count=figures.count,
        interval=figures.interval,
        measure=figures.measure,
        percent=figures.percent,
        points=figures.points,
        ratio=figures.ratio,
    )
    rows = [*([] if run.prototype is None else [run.prototype]), *run.networks]
    generator_text = "" if run.last is None else to_text(run.last)
    generator_drawing, generator_fault = (Markup(""), "") if run.last is None else _drawing(run.last, run.last.name)
    if len(generator_drawing) > _BUDGET / 2:
        generator_drawing = Markup("")
        generator_fault = f"It is too large for this page: gensynth show {run.last_path} --format html draws it."
    drawn, omitted = _drawings(rows, len(generator_text) + len(generator_drawing))
    ledger, ledger_fault = _ledger(run)
    return environment.get_template("page.html.j2").render(
        run=run,
        rows=rows,
        title=_title(run),
        headline=figures.headline(run.prototype, run.networks),
        tiles=_tiles(run),
        kept=[_kept(item, run) for item in run.requirements],
        scatters=_scatters(run),
        trends=_trends(run),
        cycles=_decided(run),
        movements=learned(run),
        changes=_changes(run),
        generator_text=generator_text,
        generator_drawing=generator_drawing,
        generator_fault=generator_fault,
        drawn=drawn,
        omitted=omitted,
        ledger=ledger,
        ledger_fault=ledger_fault,
        costs=[(row, cost(row.graph)) for row in rows],
        outside=_outside(rows),
        drawing_style=Markup(STYLE),
        value_text=_value_text,
    )


def _title(run: Run) -> str:
    start = run.start.graph.name if run.start is not None else ""
    if run.config is not None and not start:
        start = run.config.prototype or (run.config.prototype_path.stem if run.config.prototype_path else "")
    return f"{start or 'a prototype'} on {run.task or 'its task'}"


def _value_text(requirement: Requirement, value: float | None) -> str:
    if value is None:
        return "–"
    metric = requirement.metric
    if metric == "accuracy":
        return figures.percent(value)
    if metric in ON_DEVICE:
        return requirement.show(value)
    return figures.byte_count(value) if metric.endswith("memory") else figures.count(value)


def _outside(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Returns in what networks lie outside what the device's model was fitted to, and how many do."""
    found: dict[str, int] = {}
    for row in rows:
        # The number of kernels at the end differs from network to network.
        reasons = {reason.partition(" (")[0] for reason in row.estimate.outside} if row.estimate is not None else set()
        for reason in sorted(reasons):
            found[reason] = found.get(reason, 0) + 1
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """Returns name, figure and explanation of what a reader should see first."""
    start, networks = run.prototype, run.networks
    tiles = []
    if start is not None and networks:
        density = [(row.information_density, row.density_ratio) for row in networks]
        macs = [(row.totals.macs, row.macs_ratio) for row in networks]
        params = [(row.totals.params, row.params_ratio) for row in networks]
        tiles += _gain("information density", " % per M params", start.information_density, density)
        tiles += _gain("MACs saved", "", start.totals.macs, macs)
        tiles += _gain("parameters saved", "", start.totals.params, params)
        if start.estimate is not None:
            energy = [(row.estimate.energy_mj, row.energy_ratio) for row in networks if row.estimate is not None]
            tiles += _gain("energy saved", " mJ an inference", start.estimate.energy_mj, energy)
        tested = [row.accuracy for row in networks if row.accuracy is not None]
        if tested and start.accuracy is not None:
            low, high = min(tested), max(tested)
            change = f"{figures.points(low - start.accuracy)} to {figures.points(high - start.accuracy)}"
            text = f"{figures.percent(low)} to {figures.percent(high)}, from {figures.percent(start.accuracy)}"
            tiles.append(("points of test accuracy", change, text))
    if run.trainings:
        full = sum(item.kind == "final" for item in run.trainings)
        text = f"{len(run.trainings) - full} short and {full} full trainings, {run.probes} probes"
        tiles.append(("of computing", _duration(run.seconds), text))
    return tiles


def _gain(
    name: str, unit: str, start: float | None, found: Sequence[tuple[float | None, float | None]]
) -> list[tuple[str, str, str]]:
    """Returns the tile of (value, ratio) pairs, none where they are not known."""
    values = [value for value, _ in found if value is not None]
    ratios = [ratio for _, ratio in found if ratio is not None]
    if start is None or not values or not ratios:
        return []
    text = f"{figures.count(min(values))} to {figures.count(max(values))}{unit}, from {figures.count(start)}"
    return [(name, f"{figures.span(ratios)}×", text)]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _kept(requirement: Requirement, run: Run) -> Kept:
    values = [value for row in run.networks if (value := row.value(requirement)) is not None]
    worst = min(values, key=requirement.margin) if values else None
    start = None if run.prototype is None else run.prototype.value(requirement)
    return Kept(requirement, start, worst, None if worst is None else requirement.margin(worst))


def _scatters(run: Run) -> list[Scatter]:
    names = {"macs": "accuracy against MACs", "params": "accuracy against parameters"}
    if run.device is not None:
        names["energy"] = "accuracy against energy [mJ]"
    requirements = [item for item in run.requirements if item.device in (None, run.device)]
    found = [
        scatter(name, metric, [_spot(run, item, metric) for item in run.trainings], requirements)
        for metric, name in names.items()
    ]
    return [item for item in found if item is not None]


def _spot(run: Run, item: Training, metric: str) -> Spot:
    costs: dict[str, float] = {"macs": item.totals.macs, "params": item.totals.params}
    words = f"{figures.count(item.totals.macs)} MACs, {figures.count(item.totals.params)} params"
    if run.device is not None:
        costs["energy"] = item.costs.on[run.device].energy_mj
        words += f", {figures.measure(costs['energy'])} mJ"
    value = costs[metric]
    if item.kind == "search":
        last = max(1, max((training.cycle or 0 for training in run.trainings), default=1) - 1)
        share = ((item.cycle or 1) - 1) / last
        told = accuracy_tooltip(f"cycle {item.cycle}", item.accuracy, words, " (short training)")
        return Spot(item.accuracy, value, "search", told, min(1.0, max(0.0, share)))
    if item.seed is None:
        row = run.prototype
        return Spot(item.accuracy, value, "prototype", _tested("prototype", item, words, row), link="#prototype")
    row = next((row for row in run.networks if row.seed == item.seed), None)
    if row is None:
        told = accuracy_tooltip(f"seed {item.seed}", item.accuracy, words, "; not emitted: it misses a requirement")
        return Spot(item.accuracy, value, "rejected", told)
    return Spot(item.accuracy, value, "fermi", _tested(row.name, item, words, row), link=f"#{row.anchor}")


def _tested(name: str, item: Training, words: str, row: Row | None) -> str:
    tested = "" if row is None or row.accuracy is None else f"; {figures.percent(row.accuracy)} on test data"
    return accuracy_tooltip(name, item.accuracy, words, tested)


def _trends(run: Run) -> list[Trend]:
    if not run.cycles:
        return []
    start: list[tuple[int, float]] = []
    choices: list[tuple[int, float]] = []
    if run.first is not None and run.first.is_generator:
        start.append((0, Generator(Network(run.first)).entropy()))
        choices.append((0, len(run.first.choices)))
    trained = 0
    sums: list[tuple[int, float]] = []
    for cycle in run.cycles:
        trained += cycle.trained
        sums.append((cycle.number, trained))
    best = [(cycle.number, cycle.best) for cycle in run.cycles if cycle.best is not None]
    entropies = [*start, *((cycle.number, cycle.entropy) for cycle in run.cycles)]
    opened = [*choices, *((cycle.number, float(cycle.choices)) for cycle in run.cycles)]
    return [
        trend(
            f"best {run.performance or 'U'}",
            "of a network trained in the search that meets the requirements",
            best,
            lambda value: f"{value:.2f}",
        ),
        trend("entropy", "of the generator’s choices, in nats", entropies, lambda value: f"{value:.2f}"),
        trend("trained", "networks, short trainings so far", sums, lambda value: f"{value:.0f}"),
        trend("open choices", "in the generator", opened, lambda value: f"{value:.0f}"),
    ]


def _decided(run: Run) -> list[tuple[Cycle, list[Decision], dict[str, int]]]:
    found = []
    before = run.first
    for cycle in run.cycles:
        actions: dict[str, int] = {}
        for reason in cycle.reasons:
            actions[reason.action] = actions.get(reason.action, 0) + 1
        found.append((cycle, decisions(cycle, before), actions))
        before = cycle.generator
    return found


def _changes(run: Run) -> tuple[str, list[tuple[str, str]]]:
    """Returns what the diff of the first and the last generator says in all, and its lines, each with its kind."""
    if run.first is None or run.last is None:
        return "", []
    found = diff(run.first, run.last)
    kinds = {"+": "added", "-": "removed", "~": "changed"}
    lines = found.text().rstrip("\n").split("\n")[:-1]
    return found.summary, [(kinds.get(line.lstrip()[:1], "scope"), line) for line in lines]


def _drawing(graph: Graph, title: str) -> tuple[Markup, str]:
    """Returns a drawing to stand in the page, or why there is none. The page holds the style and keeps ids unique."""
    try:
        text = draw(graph, format="svg", title=title)
    except GenSynthError as error:
        return Markup(""), f"{error.message}" + (f" ({error.hint})" if error.hint else "")
    text = re.sub(r"<style>.*?</style>\n?", "", text, count=1, flags=re.DOTALL)
    return Markup(re.sub(r' id="[^"]*"', "", text)), ""


def _drawings(rows: Sequence[Row], size: int) -> tuple[list[Drawn], list[Row]]:
    """Returns what is shown of each network, and the networks left out because the page would grow too large.

    `size` is how many characters of the budget are spent already.
    """
    drawn: list[Drawn] = []
    omitted: list[Row] = []
    for row in rows:
        report = cost(row.graph)
        nodes = tuple(node for node in report.rows if node.cost.macs or node.cost.params)
        drawing, fault = _drawing(row.graph, row.name)
        size += len(drawing) + 260 * len(nodes)
        if size > _BUDGET:
            omitted.append(row)
        else:
            drawn.append(Drawn(row, drawing, fault, report, nodes))
    return drawn, omitted


def _ledger(run: Run) -> tuple[list[LedgerRow], str]:
    """Returns what each pass did that opened the generator, found by running the configuration's pipeline again."""
    if run.config is None or run.start is None:
        return [], ""
    ledger = Ledger()
    start = run.start if run.config.search.inherit else Network(run.start.graph)
    try:
        run_pipeline(start, run.config.passes, instruments=[ledger])
    except GenSynthError as error:
        return ledger.rows, error.message
    return ledger.rows, ""
