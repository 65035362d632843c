"""What a run directory holds, finished or not, read for the report. Nothing is written there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gensynth.ir import DataError, GenSynthError, Graph, Network, ParseError, load_network, parse
from gensynth.passes import Commit, Requirement, parse_pipeline, parse_requirement, parse_requirements
from gensynth.passes.cost import CostModel, Costs, Estimate, Meter, Totals, cost_model

from ..config import Config, load_config
from ..performance import PERFORMANCE, Outcome
from ..store import Store

__all__ = ["Cycle", "Reason", "Row", "Run", "Training", "read_run"]


@dataclass(frozen=True)
class Row:
    """A network of the report. Accuracies in percent, `accuracy` on the test part; ratios are to the prototype."""

    name: str
    seed: int | None
    architecture_hash: str
    accuracy: float | None
    validation_accuracy: float | None
    costs: Costs
    information_density: float | None
    netscore: float | None
    feasible: bool
    path: str
    graph: Graph
    density_ratio: float | None = None
    macs_ratio: float | None = None
    params_ratio: float | None = None
    energy_ratio: float | None = None
    estimate: Estimate | None = None

    @property
    def totals(self) -> Totals:
        """The exact counts."""
        return self.costs.totals

    @property
    def anchor(self) -> str:
        """The id of the network's place on the page."""
        return "prototype" if self.seed is None else f"network-{self.seed}"

    def value(self, requirement: Requirement) -> float | None:
        """Returns what a requirement judges, in its base unit (accuracy: on validation data)."""
        if requirement.computable:
            return requirement.value(self.costs)
        if self.validation_accuracy is None:
            return None
        return PERFORMANCE[requirement.metric](Outcome.of(self.validation_accuracy, self.costs))


@dataclass(frozen=True)
class Training:
    """One training of the store: `search` (short) or `final` (full), with the validation accuracy in percent."""

    kind: str
    network: str
    cycle: int | None
    seed: int | None
    accuracy: float
    costs: Costs
    graph: Graph

    @property
    def totals(self) -> Totals:
        """The exact counts."""
        return self.costs.totals


@dataclass(frozen=True)
class Reason:
    """One decision of the inquisitor in its own words."""

    action: str
    choice: str
    text: str


@dataclass(frozen=True)
class Cycle:
    """One cycle as it was recorded, with the generator that it left."""

    number: int
    passes: tuple[str, ...]
    reasons: tuple[Reason, ...]
    probed: int
    trained: int
    best: float | None
    entropy: float
    choices: int
    generator: Graph | None

    @property
    def settled(self) -> dict[str, str]:
        """The choices that the cycle committed to, each with its alternative."""
        passes = [item for text in self.passes for item in parse_pipeline(text)]
        return {item.choice: item.to for item in passes if isinstance(item, Commit)}


@dataclass
class Run:
    """A run directory. What is missing is None or empty; what could not be read is told in `faults`.

    `model` is of the device that figures are given for; `meter` knows it and those that requirements name.
    """

    task: str = ""
    performance: str = ""
    requirements: tuple[Requirement, ...] = ()
    config: Config | None = None
    finished: bool = False
    prototype: Row | None = None
    start: Network | None = None
    networks: list[Row] = field(default_factory=list)
    trainings: list[Training] = field(default_factory=list)
    probes: int = 0
    seconds: float = 0.0
    first: Graph | None = None
    last: Graph | None = None
    last_path: str = ""
    cycles: list[Cycle] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    model: CostModel | None = None
    meter: Meter = field(default_factory=Meter)

    @property
    def device(self) -> str | None:
        """The device that figures are given for, in full."""
        return self.config.cost_devices[0] if self.config is not None and self.config.cost_devices else None


def read_run(out: Path) -> Run:
    """Returns what lies in a run directory.

    Raises:
        DataError: it is no directory.
    """
    if not out.is_dir():
        raise DataError(f"{out} is no run directory", hint="give the directory that gensynth synthesize wrote")
    run = Run()
    if (out / "config.toml").exists():
        try:
            run.config = load_config(out / "config.toml")
        except GenSynthError as error:
            run.faults.append(f"config.toml: {error.message}")
        else:
            run.task, run.performance = run.config.task, run.config.performance
            run.requirements = parse_requirements(run.config.requirements)
            run.meter = Meter(run.config.cost_devices)
            run.model = None if run.device is None else cost_model(run.device)
    run.start = _network(run, out, "prototype.gsir")
    _read_store(run, out)
    _read_generators(run, out)
    try:
        for path in sorted((out / "cycles").glob("*.json")):
            record = _json(run, out, str(path.relative_to(out)))
            if record is not None:
                run.cycles.append(_cycle(record, _graph(run, out, f"generators/{path.stem}.gsir")))
        summary = _json(run, out, "summary.json") if (out / "summary.json").exists() else None
        if summary is None:
            _rows_of_store(run)
        else:
            run.finished = True
            _rows_of_summary(run, out, summary)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{out}: a record of the run is damaged: {type(error).__name__} {error}",
            hint="its JSON files were changed by hand; go on with --resume to have them written again",
        ) from None
    return run


def _json(run: Run, out: Path, name: str) -> dict[str, object] | None:
    try:
        found = json.loads((out / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        run.faults.append(f"{name}: {error}")
        return None
    if isinstance(found, dict):
        return found
    run.faults.append(f"{name}: no JSON object")
    return None


def _network(run: Run, out: Path, name: str) -> Network | None:
    if not (out / name).exists():
        return None
    try:
        return load_network(out / name)
    except GenSynthError as error:
        run.faults.append(f"{name}: {error.message}")
        return None


def _graph(run: Run, out: Path, name: str) -> Graph | None:
    if not (out / name).exists():
        return None
    try:
        return parse((out / name).read_text(encoding="utf-8"), name)
    except (ParseError, UnicodeDecodeError) as error:
        run.faults.append(f"{name}: {error.message if isinstance(error, ParseError) else error}")
        return None


def _read_generators(run: Run, out: Path) -> None:
    found = sorted((out / "generators").glob("*.gsir"))
    if not found:
        return
    run.first = _graph(run, out, f"generators/{found[0].name}")
    run.last_path = "generator.gsir" if (out / "generator.gsir").exists() else f"generators/{found[-1].name}"
    run.last = _graph(run, out, run.last_path)


def _read_store(run: Run, out: Path) -> None:
    if not (out / "store.sqlite").exists():
        return
    store = Store(out / "store.sqlite")
    try:
        graphs: dict[str, Graph] = {}
        for kind in ("search", "final"):
            for _, _, network, detail, result in store.rows(kind):
                if network not in graphs:
                    graphs[network] = parse(store.text(network), network)
                run.trainings.append(
                    Training(
                        kind,
                        network,
                        _integer(detail.get("cycle")),
                        _integer(detail.get("seed")),
                        _number(result["accuracy"]),
                        run.meter(graphs[network]),
                        graphs[network],
                    )
                )
        run.trainings.sort(key=lambda item: (item.kind, item.cycle or 0, item.seed or 0, item.network))
        run.probes = store.count("probe")
        run.seconds = store.seconds()
    finally:
        store.close()


def _cycle(record: Mapping[str, object], generator: Graph | None) -> Cycle:
    passes, reasons = record.get("passes", []), record.get("reasons", [])
    best = record.get("best")
    return Cycle(
        _integer(record.get("cycle")) or 0,
        tuple(map(str, passes)) if isinstance(passes, list) else (),
        tuple(Reason(str(item["action"]), str(item["choice"]), str(item["text"])) for item in reasons)
        if isinstance(reasons, list)
        else (),
        _integer(record.get("probed")) or 0,
        _integer(record.get("trained")) or 0,
        None if best is None else _number(best),
        _number(record.get("entropy", 0.0)),
        _integer(record.get("choices")) or 0,
        generator,
    )


def _rows_of_summary(run: Run, out: Path, summary: Mapping[str, object]) -> None:
    run.task, run.performance = str(summary["task"]), str(summary["performance"])
    requirements = summary["requirements"]
    prototype, networks = summary["prototype"], summary["networks"]
    if not isinstance(requirements, list) or not isinstance(prototype, dict) or not isinstance(networks, list):
        raise TypeError("in summary.json")
    if run.config is None:
        run.requirements = tuple(item for text in requirements if (item := _requirement(run, str(text))) is not None)
        run.meter = Meter(item.device for item in run.requirements if item.device is not None)
    run.prototype = _row(run, out, prototype, None)
    for item in networks:
        row = _row(run, out, item, run.prototype)
        if row is not None:
            run.networks.append(row)


def _requirement(run: Run, text: str) -> Requirement | None:
    try:
        return parse_requirement(text)
    except ParseError as error:
        run.faults.append(f"summary.json: {error.reason}")
        return None


def _row(run: Run, out: Path, item: Mapping[str, object], prototype: Row | None) -> Row | None:
    path = str(item["path"])
    graph = _graph(run, out, path)
    if graph is None:
        if not (out / path).exists():
            run.faults.append(f"{path}: not there")
        return None
    seed, validation = _integer(item["seed"]), item.get("validation_accuracy")
    return _with_ratios(
        Row(
            name=graph.name if seed is None else f"seed {seed}",
            seed=seed,
            architecture_hash=str(item["architecture_hash"]),
            accuracy=_number(item["accuracy"]),
            validation_accuracy=None if validation is None else _number(validation),
            costs=run.meter(graph),
            information_density=_number(item["information_density"]),
            netscore=_number(item["netscore"]),
            feasible=bool(item["feasible"]),
            path=path,
            graph=graph,
            estimate=None if run.model is None else run.model.estimate(graph),
        ),
        prototype,
    )


def _rows_of_store(run: Run) -> None:
    """Takes what has been trained fully, untested as it is: the prototype, then what meets the requirements."""
    finals = [item for item in run.trainings if item.kind == "final"]
    for item in sorted(finals, key=lambda item: -1 if item.seed is None else item.seed):
        row = Row(
            name=item.graph.name if item.seed is None else f"seed {item.seed}",
            seed=item.seed,
            architecture_hash=item.network,
            accuracy=None,
            validation_accuracy=item.accuracy,
            costs=item.costs,
            information_density=None,
            netscore=None,
            feasible=False,
            path="prototype.gsir" if item.seed is None else "",
            graph=item.graph,
            estimate=None if run.model is None else run.model.estimate(item.graph),
        )
        values = [(wanted, row.value(wanted)) for wanted in run.requirements]
        feasible = all(value is not None and wanted.holds(value) for wanted, value in values)
        row = _with_ratios(replace(row, feasible=feasible), run.prototype)
        if item.seed is None:
            run.prototype = row
        elif feasible:
            run.networks.append(row)


def _with_ratios(row: Row, prototype: Row | None) -> Row:
    """Adds ratios to the prototype, larger being better: density gained, MACs, weights and energy saved."""
    if prototype is None:
        return row
    density = None
    if row.information_density is not None and prototype.information_density:
        density = row.information_density / prototype.information_density
    macs = prototype.totals.macs / row.totals.macs if row.totals.macs else None
    params = prototype.totals.params / row.totals.params if row.totals.params else None
    energy = None
    if row.estimate is not None and prototype.estimate is not None:
        energy = prototype.estimate.energy_mj / row.estimate.energy_mj
    return replace(row, density_ratio=density, macs_ratio=macs, params_ratio=params, energy_ratio=energy)


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _number(value: object) -> float:
    if not isinstance(value, (int, float)):
        raise DataError(f"expected a number, found {value!r}", hint="the run directory was changed by hand")
    return float(value)
