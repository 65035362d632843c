"""Generative synthesis: a generator is learned from a prototype, cycle by cycle, and its networks are emitted.

The run is a pure function of its configuration. Whatever is dear (probes, trainings, tests) is looked up in the run's
store before it is computed, so a run that was killed at any moment and is started again takes the same path, finds what
it had, and ends at the same generator and the same store.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from gensynth.backends.torch.recipe import Recipe
from gensynth.ir import (
    GenSynthError,
    Graph,
    Network,
    UsageError,
    architecture_hash,
    content_hash,
    load_network,
    load_weights,
    save_network,
    to_text,
    write_atomically,
)
from gensynth.passes import Requirement, parse_requirements, run_pipeline
from gensynth.passes.cost import cost_model
from gensynth.synth.tasks import Task

from .config import Config, load_config
from .devices import keep_devices
from .emission import Emission, Emitted
from .evaluation import Job, Prepared, TaskReference, evaluate_all
from .executor import Executor, LocalExecutor
from .exploration import Explorer, Origin
from .generator import Generator
from .inquisitor import Experience, Inquisitor, Reason
from .performance import parse_performance
from .progress import Progress, Silent
from .prototypes import prototype
from .run_directory import CONFIG, check_folder, locked
from .store import Store
from .summary import summary_row

__all__ = ["CycleReport", "Result", "Synthesis", "synthesize"]


@dataclass(frozen=True)
class CycleReport:
    """What one cycle did: the delta theta_G as a pipeline, why, and how the search stood after it."""

    cycle: int
    passes: tuple[str, ...]
    reasons: tuple[Reason, ...]
    probed: int
    trained: int
    best: float | None
    entropy: float
    choices: int

    def as_dict(self) -> dict[str, object]:
        """Returns the report for JSON."""
        return {
            "cycle": self.cycle,
            "passes": list(self.passes),
            "reasons": [{"action": r.action, "choice": r.choice, "text": r.text} for r in self.reasons],
            "probed": self.probed,
            "trained": self.trained,
            "best": self.best,
            "entropy": round(self.entropy, 6),
            "choices": self.choices,
        }


@dataclass(frozen=True)
class Result:
    """A finished synthesis: the run directory, the learned generator, and the content of `summary.json`."""

    out: Path
    generator: Generator
    summary: dict[str, object]

    @property
    def report(self) -> Path:
        """The page that tells everything."""
        return self.out / "report.html"


PROTOTYPE = "prototype"
"""The name of the prototype's files in a run directory."""


class Synthesis:
    """One run. `prepare`, `learn` and `emit` are its parts; `synthesize` does them all."""

    def __init__(
        self, config: Config, out: Path, *, executor: Executor | None = None, progress: Progress | None = None
    ) -> None:
        """Opens the run directory."""
        self.config = config
        self.out = out
        self.progress: Progress = progress or Silent()
        self.executor: Executor = executor or LocalExecutor(config.processes)
        self.reference = TaskReference.of(config.task, config.task_options)
        self.task: Task = self.reference.load()
        self.requirements: tuple[Requirement, ...] = parse_requirements(config.requirements)
        self.performance = parse_performance(config.performance)
        self.model = cost_model(config.cost_devices[0]) if config.cost_devices else None
        self.store = Store(out / "store.sqlite")
        self.evaluated: set[str] = set()
        """Keys of all evaluations that were asked for, those that the store had among them."""
        self.inquisitor = Inquisitor(
            self.performance,
            self.requirements,
            validation_size=len(self.task.split("validation")),
            settings=config.inquisitor,
            experience=self._experience(),
        )

    def _experience(self) -> Experience | None:
        """Returns what an earlier search found, as it was when this run began: a resumed run takes the same path."""
        if not self.config.inquisitor.experience:
            return None
        kept = self.out / "prior.json"
        if not kept.exists():
            Experience.load(self.config.inquisitor.experience).save(kept)
        return Experience.load(kept)

    # Evaluations.

    def evaluate(self, jobs: Sequence[Prepared], what: str) -> list[dict[str, object]]:
        """Returns the results of jobs, from the store where it has them, and tells what has come in."""

        def told(result: Mapping[str, object], known: int, whole: int) -> None:
            accuracy = result.get("accuracy")
            self.progress.advance(known, whole, what if accuracy is None else f"{what}: {accuracy:.2f}%")

        self.evaluated.update(job.key for job, _, _ in jobs)
        return evaluate_all(jobs, self.executor, self.store, told=told)

    def train_fully(self, network: Network, name: str, detail: dict[str, object]) -> Prepared:
        """Returns the job of a full training, its weights to be saved in the run directory under `name`.

        Where the recipe distils, the prototype teaches all others.
        """
        recipe = self.config.training
        if name == PROTOTYPE:
            recipe = replace(recipe, distillation=0.0)
        job = Job(
            "final",
            to_text(network.graph),
            self.reference,
            self.config.search.seed,
            recipe,
            network.weights,
            str(self.out / "weights" / f"{name}.safetensors"),
            device=self.config.device,
            teacher=self._teacher(recipe),
        )
        return job, architecture_hash(network.graph), {**detail, **self._figures(network.graph)}

    def _teacher(self, recipe: Recipe | None) -> str | None:
        """Returns the file of the trained prototype for a recipe that distils."""
        return str(self.out / f"{PROTOTYPE}.gsir") if recipe is not None and recipe.distillation else None

    def _figures(self, graph: Graph) -> dict[str, object]:
        """Returns what the store says of a network on the device, if one is named."""
        if self.model is None:
            return {}
        latency, energy = self.model.totals(graph)
        return {"latency_ms": float(f"{latency:.6g}"), "energy_mj": float(f"{energy:.6g}")}

    # Parts.

    def prepare(self) -> tuple[Network, float]:
        """Returns the prototype, fully trained, and its validation accuracy [percent]."""
        config = self.config
        if config.prototype is None:
            assert config.prototype_path is not None
            start = _prototype_of(config.prototype_path)
        else:
            start = self.start(config.prototype, config.prototype_arguments)
        self._check_fits(start)
        self.progress.stage(f"training the prototype @{start.graph.name}")
        job = self.train_fully(start, PROTOTYPE, {"what": "prototype"})
        (result,) = self.evaluate([job], "prototype")
        if "error" in result:
            raise GenSynthError(
                f"the prototype's training failed: {result['error']}", hint="lower [training] learning_rate"
            )
        weights = load_weights(str(job[0].saved), start.graph)
        trained = Network(start.graph, weights)
        save_network(trained, self.out / f"{PROTOTYPE}.gsir")
        return trained, float(result["accuracy"])  # type: ignore[arg-type]

    def start(self, name: str, arguments: Mapping[str, object]) -> Network:
        """Returns a prototype for the task, with its image and classes where it takes them and arguments are silent."""
        from .prototypes import prototypes

        known = {item.name: item.arguments for item in prototypes()}.get(name, {})
        of_task: dict[str, object] = {"image": self.task.image, "classes": self.task.classes}
        defaults = {key: value for key, value in of_task.items() if key in known}
        return prototype(name, **{**defaults, **arguments})  # type: ignore[arg-type]

    def _check_fits(self, network: Network) -> None:
        graph, objective = network.graph, self.task.objective
        wanted = self.task.image
        hint = "set the prototype's image and classes to the task's, or leave them out"
        classifies = objective.kind == "classes"
        if (
            len(graph.inputs) != 1
            or graph.inputs[0].type.shape[1:] != wanted
            or (classifies and graph.outputs[0].type.shape[1:] != (self.task.classes,))
        ):
            raise UsageError(
                f"the prototype @{graph.name} takes {graph.inputs[0].type} and gives {graph.outputs[0].type}; task"
                f" '{self.task.name}' has images {list(wanted)} and {self.task.classes} classes",
                hint=hint,
            )
        objective.check_network(graph)
        if graph.is_generator:
            raise UsageError(f"the prototype @{graph.name} has open choices", hint="start from a network")

    def open(self, trained: Network) -> Generator:
        """Returns the generator to start from: the prototype's program with choices opened."""
        self.progress.stage("opening choices")
        start = trained if self.config.search.inherit else Network(trained.graph)
        opened = run_pipeline(start, self.config.passes)
        computable = tuple(str(item) for item in self.requirements if item.computable)
        graph = opened.graph.replace(requirements=computable)
        generator = Generator(opened.with_graph(graph))
        for seed in range(16):
            generator.decide(seed)
        self.progress.line(f"{len(graph.choices)} choices, entropy {generator.entropy():.1f} nats")
        recipe = self.config.shared_training
        return generator if recipe is None else self.share(generator, recipe, "shared")

    def share(self, generator: Generator, recipe: Recipe, name: str) -> Generator:
        """Returns a generator with weights that all of its networks were trained on together, by a recipe.

        The weights are saved in the run directory under `name`, which is also what the store calls the training.

        Raises:
            GenSynthError: the training fails.
        """
        self.progress.stage("training all networks together")
        job = Job(
            "shared",
            to_text(generator.graph),
            self.reference,
            self.config.search.seed,
            recipe,
            generator.network.weights,
            str(self.out / "weights" / f"{name}.safetensors"),
            device=self.config.device,
            teacher=self._teacher(recipe),
        )
        detail: dict[str, object] = {"what": name}
        reported = "the largest network" if job.teacher is None else "the smallest network"
        (result,) = self.evaluate([(job, content_hash(generator.graph), detail)], reported)
        if "error" in result:
            raise GenSynthError(
                f"the training of all networks together failed: {result['error']}",
                hint="lower [shared_training] learning_rate",
            )
        return Generator(Network(generator.graph, load_weights(str(job.saved), generator.graph)))

    def learn(self, generator: Generator) -> tuple[Generator, list[CycleReport]]:
        """Returns the generator after all cycles, with a report of each."""
        explorer = Explorer(self.inquisitor, self.config.search)
        reports: list[CycleReport] = []
        save(generator, self.out / "generators" / "000.gsir")
        for cycle in range(1, self.config.search.cycles + 1):
            self.progress.stage(f"cycle {cycle} of {self.config.search.cycles}")
            generator, report = self._cycle(generator, explorer, cycle)
            reports.append(report)
            self._keep_cycle(generator, report)
        save(generator, self.out / "generator.gsir")
        if self.inquisitor.trained:
            self.inquisitor.learned().save(self.out / "experience.json")
        carried = self.inquisitor.carried()
        if carried is not None:
            self.progress.line(
                f"experience carried over: related {carried['relation']:.0%}, worth {carried['nats']:+.2f} nats over"
                f" {carried['trainings']:.0f} trainings"
            )
        return generator, reports

    def _cycle(self, generator: Generator, explorer: Explorer, cycle: int) -> tuple[Generator, CycleReport]:
        settings = self.config.search
        pool = explorer.pool(generator, cycle)
        to_probe = explorer.worth_probing(generator, pool)
        results = self.evaluate([self.probe_job(explorer.origin(item), cycle=cycle) for item in to_probe], "probe")
        explorer.take_probes(to_probe, results)
        chosen = self.inquisitor.select(explorer.probed(), settings.networks)
        trainings = [self._job("search", explorer.origin(item), cycle) for item in chosen]
        found = self.evaluate(trainings, "training")
        explorer.take_trainings(chosen, found)
        proposal = self.inquisitor.propose(generator.graph, explorer.known(pool), cycle=cycle)
        passes, reasons = list(proposal.passes), list(proposal.reasons)
        moved = generator.apply(",".join(passes)) if passes else generator
        if cycle < settings.cycles:
            offered = explorer.offer(moved)
            if offered is not None:
                moved, text, reason = offered
                passes.append(text)
                reasons.append(reason)
        explorer.settle(passes)
        best = self._best()
        self.progress.line(
            f"{len(to_probe)} probed, {len(chosen)} trained; best {self.config.performance}"
            f" {'none feasible yet' if best is None else f'{best:.2f}'}; entropy {moved.entropy():.1f} nats"
        )
        report = CycleReport(
            cycle,
            tuple(passes),
            tuple(reasons),
            len(to_probe),
            len(chosen),
            best,
            moved.entropy(),
            len(moved.graph.choices),
        )
        return moved, report

    def _best(self) -> float | None:
        values = [
            self.inquisitor.value(item) for item in self.inquisitor.trained if self.inquisitor.meets_requirements(item)
        ]
        return max(values) if values else None

    def probe_job(self, origin: Origin, *, cycle: int) -> Prepared:
        """Returns the job of probing a network, with its hash and details."""
        return self._job("probe", origin, cycle)

    def _job(self, kind: str, origin: Origin, cycle: int) -> Prepared:
        decided = origin.decided
        recipe = self.config.search_training if kind == "search" else None
        job = Job(
            kind,
            to_text(decided.graph),
            self.reference,
            self.config.search.seed,
            recipe,
            origin.weights(),
            stimuli=self.config.search.stimuli,
            device=self.config.device,
            teacher=self._teacher(recipe),
        )
        detail = {"cycle": cycle, "seed": decided.seed, **self._figures(decided.graph)}
        return job, architecture_hash(decided.graph), detail

    def _keep_cycle(self, generator: Generator, report: CycleReport) -> None:
        name = f"{report.cycle:03d}"
        save(generator, self.out / "generators" / f"{name}.gsir")
        text = "".join(f"{item},\n" for item in report.passes).rstrip(",\n")
        write_atomically(self.out / "cycles" / f"{name}.passes", f"{text}\n".encode())
        write_atomically(self.out / "cycles" / f"{name}.json", json.dumps(report.as_dict(), indent=2).encode())

    def emit(self, generator: Generator) -> list[Emitted]:
        """Returns the FermiNets: emitted by seeds, fully trained, and meeting every requirement on validation data."""
        self.progress.stage(f"emitting {self.config.emit.seeds} networks")
        return Emission(self, generator).run()

    def test(self, networks: Sequence[tuple[Network, str]]) -> list[float]:
        """Returns test accuracies [percent] of trained networks, given with their weights files."""
        jobs = [
            (
                Job("test", to_text(network.graph), self.reference, 0, saved=saved, device=self.config.device),
                architecture_hash(network.graph),
                {"saved": Path(saved).name},
            )
            for network, saved in networks
        ]
        return [float(result["accuracy"]) for result in self.evaluate(jobs, "test")]  # type: ignore[arg-type]

    def run(self) -> Result:
        """Does everything and writes `summary.json` and `report.html`."""
        trained, validation_accuracy = self.prepare()
        generator, _ = self.learn(self.open(trained))
        emitted = self.emit(generator)
        self.progress.stage("the test, once")
        files = [(trained, str(self.out / "weights" / "prototype.safetensors"))]
        files += [(item.network, item.saved) for item in emitted]
        accuracies = self.test(files)
        rows = []
        for item, accuracy in zip(emitted, accuracies[1:], strict=True):
            path = self.out / "networks" / f"seed-{item.seed:06d}.gsir"
            save_network(Network(item.network.graph, load_weights(item.saved, item.network.graph)), path)
            rows.append(
                summary_row(
                    item.network.graph,
                    accuracy,
                    seed=item.seed,
                    feasible=item.feasible,
                    path=str(path.relative_to(self.out)),
                    validation_accuracy=item.accuracy,
                    model=self.model,
                )
            )
        first = summary_row(
            trained.graph,
            accuracies[0],
            seed=None,
            feasible=self.inquisitor.holds(self.inquisitor.meter(trained.graph), validation_accuracy),
            path="prototype.gsir",
            validation_accuracy=validation_accuracy,
            model=self.model,
        )
        summary: dict[str, object] = {
            "task": self.config.task,
            "performance": self.config.performance,
            "requirements": list(self.config.requirements),
            **({"device": self.config.cost_devices[0]} if self.config.cost_devices else {}),
            "prototype": first,
            "networks": rows,
        }
        write_atomically(self.out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
        from .report import write_report

        write_report(self.out)
        return Result(self.out, generator, summary)


def _prototype_of(path: Path) -> Network:
    """Reads a prototype: a network of our own, or an ONNX model."""
    if path.suffix != ".onnx":
        return load_network(path)
    if find_spec("onnx") is None:
        raise UsageError(f"{path} needs onnx, which is not installed", hint='pip install "gensynth[onnx]"')
    from gensynth.backends.onnx import import_onnx

    return import_onnx(path)


def save(generator: Generator, path: Path) -> None:
    """Writes a generator's text; weights go beside it only for the first and the last."""
    write_atomically(path, to_text(generator.graph).encode())
    if generator.network.weights is not None and path.name in ("000.gsir", "generator.gsir"):
        generator.save(path)


def synthesize(
    config: Config | str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Result:
    """Learns a generator from a prototype and emits FermiNets; see docs/design.md.

    `out` is the run directory (`runs/NAME` for NAME.toml where not given). With `resume` a run that was cut off goes
    on, with the same configuration; without it the directory must be new or empty.

    Raises:
        UsageError: the directory is in use, not empty, or holds a run of another configuration or device file.
        GenSynthError: whatever is wrong with the configuration, the data or the passes.
    """
    if not isinstance(config, Config):
        path = Path(config)
        out = Path("runs") / path.stem if out is None else out
        config = load_config(path)
    if out is None:
        raise UsageError("a configuration that is no file needs `out`", hint="give the run directory")
    folder = Path(out)
    check_folder(folder, config.source, resume=resume)
    with locked(folder):
        if config.source:
            write_atomically(folder / CONFIG, config.source.encode())
        keep_devices(config.cost_devices, folder / "devices")
        synthesis = Synthesis(config, folder, executor=executor, progress=progress)
        try:
            return synthesis.run()
        finally:
            if executor is None:
                synthesis.executor.close()
            synthesis.store.close()
