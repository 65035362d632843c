"""Evaluations, from cheap to dear: probes, short trainings, full trainings, the test.

The task's objective says what is trained for and measured: `accuracy` is its main metric, and `metrics` are all, in
percent. Each evaluation is a pure function of its job. Jobs are plain data, so that any executor can carry them to
another process; a job's key is a hash of everything that its result depends on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from gensynth.backends.examples import Examples
from gensynth.backends.torch.recipe import Recipe
from gensynth.ir import Network, Weights, load_network, load_weights, parse, save_weights

from .executor import Executor
from .store import Store
from .tasks import Task, task

__all__ = ["Job", "Outcome", "Prepared", "TaskReference", "evaluate_all", "probe_network", "run_job", "stimuli_of"]


@dataclass(frozen=True)
class TaskReference:
    """A task by name and options: enough to load it in any process."""

    name: str
    options: tuple[tuple[str, object], ...] = ()

    @classmethod
    def of(cls, name: str, options: Mapping[str, object]) -> TaskReference:
        """Returns the task of a name and options, lists among them as configuration files have them."""
        frozen = ((key, tuple(value) if isinstance(value, list) else value) for key, value in options.items())
        return cls(name, tuple(sorted(frozen)))

    def load(self) -> Task:
        """Returns the task; loaded once a process."""
        return _load_task(self)


@lru_cache(maxsize=4)
def _load_task(reference: TaskReference) -> Task:
    return task(reference.name, **dict(reference.options))


_LATER_KEYS = {
    "distillation": 0.0,
    "teacher_precision": "same",
    "teacher_images": "same",
    "examples": 0,
    "layout": "nchw",
}
"""Keys that recipes did not have from the start: at these values, keys of evaluations stay what they were."""


@dataclass(frozen=True)
class Job:
    """One evaluation.

    `kind` is `probe`, `shared` (training of all networks of a generator together), `search` (short training; without a
    recipe the weights are judged as they are, running statistics taken anew), `final` (full training) or `test`.
    `weights` start a training or a probe (fresh ones by `seed` otherwise); `saved` is the file that trained weights go
    to, or that a test reads; a test takes the layout of its recipe, if it has one; `teacher` is the network file that
    distillation learns from.
    """

    kind: str
    text: str
    task: TaskReference
    seed: int
    recipe: Recipe | None = None
    weights: Weights | None = field(default=None, repr=False, compare=False)
    saved: str | None = None
    stimuli: int = 64
    device: str = "cpu"
    teacher: str | None = None

    @cached_property
    def key(self) -> str:
        """The hash of everything that the result depends on; taken once, since it reads the teacher's weights."""
        recipe = None if self.recipe is None else asdict(self.recipe)
        if recipe is not None and not recipe["distillation"]:
            recipe["teacher_precision"] = recipe["teacher_images"] = "same"  # nobody teaches
        for name, plain in _LATER_KEYS.items():
            if recipe is not None and recipe[name] == plain:
                del recipe[name]
        parts = {
            "kind": self.kind,
            "text": self.text,
            "task": [self.task.name, self.task.options],
            "seed": self.seed,
            "recipe": recipe,
            "weights": None if self.weights is None else _digest(self.weights),
            "stimuli": self.stimuli if self.kind == "probe" else None,
        }
        if self.kind == "test" and self.saved is not None:
            parts["weights"] = _digest(load_weights(Path(self.saved), parse(self.text, "<generated>")))
        if self.teacher is not None:
            parts["teacher"] = _digest(load_network(self.teacher).weights or {})
        return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What a job gave: figures for JSON, and the time it took, that before a training was cut off included."""

    result: Mapping[str, object]
    seconds: float


def _digest(weights: Weights) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()


Prepared = tuple[Job, str, Mapping[str, object]]
"""A job, the architecture hash of its network, and details for the store."""

Told = Callable[[Mapping[str, object], int, int], None]


def evaluate_all(
    jobs: Sequence[Prepared], executor: Executor, store: Store, *, told: Told | None = None
) -> list[dict[str, object]]:
    """Returns the results of jobs, from the store where it has them; what it lacks is run and put there.

    Equal jobs that save to the same file, or to none, are run once. `told` is called with each new result, how many
    are known and how many there will be.
    """
    results: dict[tuple[str, str | None], dict[str, object]] = {}
    missing: dict[tuple[str, str | None], int] = {}
    for index, (job, _, _) in enumerate(jobs):
        known = store.get(job.key)
        if known is not None and (job.kind == "test" or job.saved is None or Path(job.saved).exists()):
            results[job.key, job.saved] = known
        else:
            missing.setdefault((job.key, job.saved), index)
    whole = len(results) + len(missing)
    indices = list(missing.values())
    for position, outcome in executor.map(run_job, [jobs[index][0] for index in indices]):
        job, network, detail = jobs[indices[position]]
        result = json.loads(json.dumps(dict(outcome.result)))
        store.put(
            job.key,
            kind=job.kind,
            network=network,
            text=job.text,
            detail=detail,
            result=result,
            seconds=outcome.seconds,
        )
        results[job.key, job.saved] = result
        if told is not None:
            told(result, len(results), whole)
    return [results[job.key, job.saved] for job, _, _ in jobs]


def run_job(job: Job) -> Outcome:
    """Runs a job; a training that diverges is a result (`accuracy` 0 and the reason), not an error.

    Raises:
        DataError: the task's data cannot be read.
    """
    started = time.perf_counter()
    run = {"probe": _probe, "shared": _share, "search": _search, "final": _train, "test": _test}[job.kind]
    result = run(job)
    taken = time.perf_counter() - started
    return Outcome(result, float(result.pop("seconds", taken)))  # type: ignore[arg-type]


def _probe(job: Job) -> dict[str, object]:
    network = Network(parse(job.text, "<generated>"), job.weights)
    return probe_network(network, job.task.load(), stimuli=job.stimuli, seed=job.seed)


def stimuli_of(on: Task, count: int, seed: int) -> Examples:
    """Returns the first training examples of a task in a shuffle fixed by `seed`."""
    return on.split("train").sample(count, seed)


def probe_network(network: Network, on: Task, *, stimuli: int = 64, seed: int = 0) -> dict[str, object]:
    """Returns what a probe on real stimuli of a task tells: `scores` of the network, `vertices` and `edges` by name.

    The stimuli are the first training examples of a shuffle fixed by `seed`.
    """
    from gensynth.backends.torch import probe

    responses = probe(network, stimuli_of(on, stimuli, seed), on.objective, seed=seed)
    scores = {name: float(value) for name, value in asdict(responses.scores).items()}
    shares = [value.dead for value in responses.values]
    ranks = [value.rank for value in responses.values if value.rank > 0]
    scores["alive"] = 1.0 - float(np.mean(shares))
    scores["rank"] = float(np.mean(np.log(ranks))) if ranks else 0.0
    return {
        "scores": scores,
        "vertices": {
            value.name: {
                "dead": round(value.dead, 4),
                "rank": round(value.rank, 3),
                "gradient": float(f"{value.gradient:.4g}"),
            }
            for value in responses.values
        },
        "edges": {
            f"{edge.source} -> {edge.target}.{edge.index}": float(f"{edge.importance:.4g}") for edge in responses.edges
        },
    }


def _checkpoint(job: Job) -> Path | None:
    """Returns where a training whose weights are saved keeps its state: it may be long, others are short."""
    return None if job.saved is None else Path(job.saved).with_suffix(".checkpoint")


def _share(job: Job) -> dict[str, object]:
    from gensynth.backends.torch import TrainingError
    from gensynth.backends.torch.shared_training import train_shared

    on = job.task.load()
    generator = Network(parse(job.text, "<generated>"), job.weights)
    assert job.recipe is not None and job.saved is not None
    try:
        trained = train_shared(
            generator,
            on.split("train"),
            on.split("validation"),
            job.recipe,
            on.objective,
            teacher=None if job.teacher is None else load_network(job.teacher),
            maps=False,  # a generator's weights have no place for them
            seed=job.seed,
            device=job.device,
            checkpoint=_checkpoint(job),
        )
    except TrainingError as error:
        return {"accuracy": 0.0, "error": error.message}
    weights = trained.generator().weights
    assert weights is not None
    save_weights(weights, job.saved)
    last = trained.history[-1]
    return {
        "accuracy": last.validation_accuracy,
        "loss": last.loss,
        "epochs": last.epoch,
        "seconds": trained.seconds,
    }


def _search(job: Job) -> dict[str, object]:
    if job.recipe is not None:
        return _train(job)
    from gensynth.backends.torch import evaluate
    from gensynth.backends.torch.calibration import CALIBRATED, calibrate

    on = job.task.load()
    network = Network(parse(job.text, "<generated>"), job.weights)
    seen = stimuli_of(on, CALIBRATED, job.seed)
    found = evaluate(
        calibrate(network, seen, device=job.device), on.split("validation"), on.objective, device=job.device
    )
    return {"accuracy": found.accuracy, "loss": found.loss, "metrics": dict(found.metrics)}


def _train(job: Job) -> dict[str, object]:
    from gensynth.backends.torch import TrainingError, train

    on = job.task.load()
    network = Network(parse(job.text, "<generated>"), job.weights)
    assert job.recipe is not None
    try:
        trained = train(
            network,
            on.split("train"),
            on.split("validation"),
            job.recipe,
            on.objective,
            teacher=None if job.teacher is None else load_network(job.teacher),
            seed=job.seed,
            device=job.device,
            checkpoint=_checkpoint(job),
        )
    except TrainingError as error:
        return {"accuracy": 0.0, "error": error.message}
    if job.saved is not None:
        assert trained.network.weights is not None
        save_weights(trained.network.weights, job.saved)
    last = trained.history[-1]
    return {
        "accuracy": trained.accuracy,
        "loss": last.loss,
        "epochs": last.epoch,
        "metrics": dict(trained.metrics),
        "seconds": trained.seconds,
    }


def _test(job: Job) -> dict[str, object]:
    from gensynth.backends.torch import evaluate

    graph = parse(job.text, "<generated>")
    assert job.saved is not None
    network = Network(graph, load_weights(Path(job.saved), graph))
    on = job.task.load()
    layout = "nchw" if job.recipe is None else job.recipe.layout
    found = evaluate(network, on.split("test"), on.objective, device=job.device, layout=layout)
    return {"accuracy": found.accuracy, "loss": found.loss, "count": found.count, "metrics": dict(found.metrics)}
