"""An experiment: hand-made networks, a synthesis, and its FermiNets at several operating points, by one recipe.

python bench/experiment.py bench/experiments/cifar10.toml --data FOLDER [--out runs/results-cifar10] [--form quick]
    [--stages baselines,synthesis,points,control,family,sharing,alone,ranking,cost,test,artifact]
    [--device cuda] [--processes N] [--json OUT [--add]]

Every stage leaves its evaluations in a store below --out, so a run that was cut off goes on where it was, and stages
can be run one by one; `baselines` can run beside the others. What has been measured so far is written to --json at the
end. docs/experiments.md tells more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiment_cost import time_trainings
from experiment_file import Experiment, Short, load_experiment
from experiment_found import added, counts, earlier_stages, found_by, load_earlier, words
from experiment_sharing import judge_sharing, rank_again, train_alone

from gensynth.backends.torch.recipe import Recipe
from gensynth.cli.output import progress
from gensynth.ir import (
    GenSynthError,
    Network,
    UsageError,
    architecture_hash,
    load_network,
    load_weights,
    parse,
    save_network,
    to_text,
    write_atomically,
)
from gensynth.passes.cost import cost_model
from gensynth.synth.evaluation import Job, Prepared
from gensynth.synth.exploration import Explorer
from gensynth.synth.generator import Generator
from gensynth.synth.progress import Progress
from gensynth.synth.run_directory import locked
from gensynth.synth.summary import summary_row
from gensynth.synth.synthesis import Synthesis

Row = dict[str, Any]
Seeded = tuple[Network, int]

STAGES = (
    "baselines", "synthesis", "points", "control", "family", "sharing", "alone", "ranking", "cost", "test", "artifact",
)  # fmt: skip

POOL = 256
"""An operating point is chosen among so many seeds, from 0 on."""

FAMILY_SEEDS = 1_000
"""The family has seeds from here on: none took part in learning or in an operating point."""


class Run:
    """One run of an experiment: its stages, each of which leaves what it found in the folder `figures`."""

    def __init__(
        self,
        experiment: Experiment,
        out: Path,
        listener: Progress,
        *,
        processes: int | None,
        device: str,
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens the run directory; `earlier` are figures of a run of the same experiment that this one adds to.

        Raises:
            UsageError: it holds a run of another experiment.
        """
        self.experiment = experiment
        self.out = out
        self.listener = listener
        self.earlier = earlier_stages(earlier or {})
        self.config = replace(experiment.config, processes=processes, device=device)
        (out / "figures").mkdir(parents=True, exist_ok=True)
        kept = out / "experiment.txt"
        if kept.exists() and kept.read_text(encoding="utf-8") != experiment.source:
            raise UsageError(f"{out} holds a run of another experiment", hint=f"see {kept}, or choose another --out")
        write_atomically(kept, experiment.source.encode())

    # What stages share.

    def figures(self, name: str) -> Path:
        """Returns the file of what a stage found."""
        return self.out / "figures" / f"{name}.json"

    def keep(self, name: str, found: object) -> None:
        """Keeps what a stage found."""
        write_atomically(self.figures(name), (json.dumps(found, indent=2) + "\n").encode())

    def kept(self, name: str) -> Any:
        """Returns what a stage found, None where it has not been run."""
        return json.loads(self.figures(name).read_text()) if self.figures(name).exists() else None

    def rows_of(self, stage: str) -> list[Row]:
        """Returns the rows of the networks that a stage trained fully.

        Raises:
            UsageError: it has not been run.
        """
        return list(self.result_of(stage)["rows"])

    def result_of(self, stage: str) -> Any:
        """Returns what a stage found, in this run or an earlier one.

        Raises:
            UsageError: it has not been run.
        """
        found = self.kept(stage) or self.earlier.get(stage)
        if found is None:
            raise UsageError(f"{self.out} lacks what the stage '{stage}' makes", hint=f"run the stage '{stage}' first")
        return found

    @contextmanager
    def opened(self, folder: str, learning_rate: float | None = None) -> Iterator[Synthesis]:
        """Opens a folder of the run; `learning_rate` is that of its full trainings."""
        config, place = self.config, self.out / folder
        if learning_rate is not None:
            config = replace(config, training=replace(config.training, learning_rate=learning_rate))
        with locked(place):
            synthesis = Synthesis(config, place, progress=self.listener)
            try:
                yield synthesis
            finally:
                synthesis.executor.close()
                synthesis.store.close()

    @contextmanager
    def learned(self, *, again: bool = False) -> Iterator[Synthesis]:
        """Opens the folder of a synthesis that has learned its generator.

        With `again` its inquisitor is shown once more what it saw: the learning is repeated from the store.
        """
        with self.opened("synthesis", self.rows_of("synthesis")[0]["learning_rate"]) as synthesis:
            if again:
                trained, _ = synthesis.prepare()
                synthesis.learn(synthesis.open(trained))
            yield synthesis

    def job(
        self,
        synthesis: Synthesis,
        network: Network,
        recipe: Recipe | None,
        what: Row,
        saved: Path | None = None,
        *,
        seed: int = 0,
    ) -> Prepared:
        """Returns the job of training a network by a recipe, or of judging its weights as they are without one.

        Weights that are saved are those of a full training. Where the recipe distils, the prototype teaches. Another
        `seed` than 0 gives other fresh weights and another order of the images.
        """
        job = Job(
            "search" if saved is None else "final",
            to_text(network.graph),
            synthesis.reference,
            self.config.search.seed + seed,
            recipe,
            network.weights,
            None if saved is None else str(saved),
            device=self.config.device,
            teacher=str(synthesis.out / "prototype.gsir") if recipe is not None and recipe.distillation else None,
        )
        return job, architecture_hash(network.graph), what

    def sweep(
        self, synthesis: Synthesis, networks: Mapping[str, Network], *, distillation: float = 0.0
    ) -> dict[str, float]:
        """Returns the learning rate at which each network does best on validation data after a short training."""
        settings = self.experiment.sweep
        cases = [(name, rate) for name in networks for rate in settings.learning_rates]
        jobs = []
        for name, rate in cases:
            recipe = replace(
                self.config.training,
                epochs=settings.epochs,
                examples=settings.examples,
                learning_rate=rate,
                distillation=distillation,
            )
            jobs.append(self.job(synthesis, networks[name], recipe, {"what": "sweep", "learning_rate": rate}))
        results = synthesis.evaluate(jobs, "learning rates")
        rows = [
            {"name": name, "learning_rate": rate, "accuracy": result["accuracy"]}
            for (name, rate), result in zip(cases, results, strict=True)
        ]
        self.keep(f"sweep-{synthesis.out.name}", rows)
        best = {name: max((row for row in rows if row["name"] == name), key=_accuracy) for name in networks}
        return {name: float(row["learning_rate"]) for name, row in best.items()}  # type: ignore[arg-type]

    def shortened(self, short: Short, stage: str) -> Recipe:
        """Returns the recipe of short trainings, at the learning rate of the first network that a stage trained."""
        rate = self.rows_of(stage)[0]["learning_rate"]
        return replace(self.config.training, epochs=short.epochs, examples=short.examples, learning_rate=rate)

    def trained(self, synthesis: Synthesis, jobs: Sequence[Prepared], rows: Sequence[Row], what: str) -> list[Row]:
        """Runs full trainings and returns their rows, with what is known before the test; networks are saved."""
        done = []
        for (job, _, _), row, result in zip(jobs, rows, synthesis.evaluate(jobs, what), strict=True):
            if "error" in result:
                raise GenSynthError(f"{row['name']}: {result['error']}", hint="lower the learning rates of the sweep")
            assert job.saved is not None and job.recipe is not None
            graph = parse(job.text)
            path = synthesis.out / "networks" / f"{Path(job.saved).stem}.gsir"
            path.parent.mkdir(exist_ok=True)
            save_network(Network(graph, load_weights(job.saved, graph)), path)
            done.append(
                {
                    **row,
                    "learning_rate": job.recipe.learning_rate,
                    "validation_accuracy": result["accuracy"],
                    "seconds": synthesis.store.time(job.key),
                    "path": str(path.relative_to(self.out)),
                }
            )
        return done

    # Stages.

    def baselines(self) -> None:
        """Trains the hand-made networks that the FermiNets are compared with."""
        with self.opened("baselines") as synthesis:
            chosen = self.experiment.baselines
            networks = {item.label: synthesis.start(item.name, item.arguments) for item in chosen}
            rates = self.sweep(synthesis, networks)
            jobs, rows = [], []
            for number, (label, network) in enumerate(networks.items()):
                recipe = replace(self.config.training, learning_rate=rates[label], distillation=0.0)
                saved = synthesis.out / "weights" / f"{chosen[number].name}-{number}.safetensors"
                jobs.append(self.job(synthesis, network, recipe, {"what": label}, saved))
                rows.append({"name": label, "kind": "baseline", "point": None})
            self.keep("baselines", {"rows": self.trained(synthesis, jobs, rows, "baselines")})

    def synthesis(self) -> None:
        """Trains the prototype, trains all networks of the generator together, and learns the generator."""
        assert self.config.prototype is not None
        label = self.experiment.prototype_label
        with self.opened("sweep") as aside:
            start = aside.start(self.config.prototype, self.config.prototype_arguments)
            rate = self.sweep(aside, {label: start})[label]
        with self.opened("synthesis", rate) as synthesis:
            trained, accuracy = synthesis.prepare()
            synthesis.learn(synthesis.open(trained))
            spent = {"prototype": 0.0, "shared": 0.0, "probes": 0.0, "judging": 0.0}
            for key, kind, _, detail, _ in synthesis.store.rows():
                what = str(detail.get("what", {"probe": "probes", "search": "judging"}.get(kind)))
                if what in spent and key in synthesis.evaluated:
                    spent[what] += synthesis.store.time(key)
            row = {
                "name": label,
                "kind": "prototype",
                "point": None,
                "learning_rate": rate,
                "validation_accuracy": accuracy,
                "seconds": spent["prototype"],
                "path": "synthesis/prototype.gsir",
            }
            self.keep("synthesis", {"rows": [row], "seconds": spent})

    def points(self) -> None:
        """Chooses the network of each operating point and trains it, at the rate that the first does best at."""
        with self.learned(again=True) as synthesis:
            chosen: dict[str, Network] = {}
            jobs, rows = [], []
            for point, requirements in self.experiment.points.items():
                taken = {architecture_hash(network.graph) for network in chosen.values()}
                name = f"FermiNet {point}"
                chosen[name], seed = self.best_under(synthesis, requirements, point, taken)
                rows.append({"name": name, "kind": "ferminet", "point": point, "seed": seed})
            training, first = self.config.training, rows[0]["name"]
            rate = self.sweep(synthesis, {first: chosen[first]}, distillation=training.distillation)[first]
            recipe = replace(training, learning_rate=rate)
            for row in rows:
                saved = synthesis.out / "weights" / f"point-{row['point']}.safetensors"
                what = {"what": "point", "point": row["point"]}
                jobs.append(self.job(synthesis, chosen[row["name"]], recipe, what, saved))
            self.keep("points", {"rows": self.trained(synthesis, jobs, rows, "FermiNets")})

    def best_under(
        self, synthesis: Synthesis, requirements: tuple[str, ...], point: str, taken: Collection[str]
    ) -> tuple[Network, int]:
        """Returns the network that promises most among the seeds of the generator under requirements, and its seed.

        Those that the inquisitor believes in most are judged on validation data with their slices of shared weights,
        and the best of them, the finalists, after a short training. Architectures that are taken, by hash, are left
        out.
        """
        generator = generator_under(synthesis, requirements)
        explorer = Explorer(synthesis.inquisitor, synthesis.config.search)
        ranked = [item for item in explorer.ranked(generator, range(POOL)) if item.hash not in taken]
        origins = [explorer.origin(item) for item in ranked[: self.experiment.judged]]
        likely = [(Network(origin.decided.graph, origin.weights()), origin.decided.seed) for origin in origins]
        best = self.best_by(synthesis, likely, None, point)[: self.experiment.finalists]
        if len(best) > 1:
            best = self.best_by(synthesis, best, self.shortened(self.experiment.family, "synthesis"), point)
        return best[0]

    def best_by(
        self, synthesis: Synthesis, likely: Sequence[Seeded], recipe: Recipe | None, point: str
    ) -> list[Seeded]:
        """Returns networks and their seeds, the best first, as trained by a recipe or as they are without one."""
        jobs = [self.job(synthesis, network, recipe, {"what": "choice", "point": point}) for network, _ in likely]
        accuracies = [_accuracy(result) for result in synthesis.evaluate(jobs, f"point {point}")]
        return [likely[index] for index in sorted(range(len(likely)), key=lambda index: -accuracies[index])]

    def control(self) -> None:
        """Trains the network of the first operating point as hand-made ones: from fresh weights, by labels alone."""
        row = self.rows_of("points")[0]
        name = f"{row['point']} from fresh weights"
        network = Network(load_network(self.out / row["path"]).graph)
        with self.opened("control") as synthesis:
            rate = self.sweep(synthesis, {name: network})[name]
            recipe = replace(self.config.training, learning_rate=rate, distillation=0.0)
            saved = synthesis.out / "weights" / f"control-{row['point']}.safetensors"
            job = self.job(synthesis, network, recipe, {"what": "control"}, saved)
            rows = [{"name": name, "kind": "control", "point": row["point"]}]
            self.keep("control", {"rows": self.trained(synthesis, [job], rows, "control")})

    def family(self) -> None:
        """Trains the networks of fresh seeds shortly, from the weights they inherit."""
        short = self.experiment.family
        with self.learned() as synthesis:
            generator = generator_under(synthesis, self.experiment.family_requirements)
            recipe = self.shortened(short, "points")
            seeds = range(FAMILY_SEEDS, FAMILY_SEEDS + short.networks)
            networks = [generator.generate(seed) for seed in seeds]
            jobs = [self.job(synthesis, network, recipe, {"what": "family"}) for network in networks]
            rows = [
                {
                    "seed": seed,
                    **counts(network.graph),
                    "accuracy": result["accuracy"],
                    "feasible": generator.materializer.violation(generator.materializer.meter(network.graph)) == 0.0,
                }
                for seed, network, result in zip(seeds, networks, synthesis.evaluate(jobs, "family"), strict=True)
            ]
        requirements = ", ".join(self.experiment.family_requirements)
        self.keep("family", {"point": requirements, "recipe": words(recipe), "networks": rows})

    def sharing(self) -> None:
        """Judges random networks with their slices of shared weights, and trained by themselves from nothing.

        These trainings take the rate of the stage `control`, that is of a network of the generator from fresh weights.
        """
        with self.learned() as synthesis:
            recipe = self.shortened(self.experiment.sharing, "control")
            self.keep("sharing", judge_sharing(self, synthesis, recipe))

    def alone(self) -> None:
        """Trains the networks of the stage `sharing` by themselves for longer, where the experiment says how long."""
        sharing, longer = self.result_of("sharing"), self.experiment.sharing.longer
        if longer is None:
            self.listener.line("the experiment asks for no longer trainings")
            return
        recipe = replace(self.shortened(self.experiment.sharing, "control"), epochs=longer.epochs)
        with self.opened("alone") as synthesis:
            self.keep("alone", train_alone(self, synthesis, recipe, longer.seeds, sharing))

    def ranking(self) -> None:
        """Judges the networks of the stage `sharing` with shared weights for no requirements, where there are some."""
        sharing, epochs = self.result_of("sharing"), self.experiment.sharing.ranking_epochs
        if not epochs or self.config.shared_training is None:
            self.listener.line("the experiment asks for no other shared weights")
            return
        learned = self.kept("synthesis") or self.earlier.get("prototype") or self.result_of("synthesis")
        recipe = replace(self.config.shared_training, epochs=epochs)
        with self.opened("synthesis", learned["rows"][0]["learning_rate"]) as synthesis:
            longer = self.kept("alone") or self.earlier.get("alone")
            self.keep("ranking", rank_again(self, synthesis, recipe, sharing, longer))

    def cost(self) -> None:
        """Times the training of the prototype and that of the shared weights in turn."""
        with self.learned() as synthesis:
            prototype = load_network(synthesis.out / "prototype.gsir")
            opened = load_network(synthesis.out / "generators" / "000.gsir")
            shared = self.config.shared_training
            assert shared is not None
            alone = replace(self.config.training, distillation=0.0)
            batches, device = self.experiment.timed_batches, self.config.device
            found = time_trainings(prototype, opened, synthesis.task, alone, shared, batches=batches, device=device)
        self.keep("cost", found)

    def rows(self) -> list[Row]:
        """Returns the rows of all networks that have been fully trained."""
        stages = ("baselines", "synthesis", "points", "control")
        return [row for name in stages for row in (self.kept(name) or {"rows": []})["rows"]]

    def test(self) -> None:
        """Reads the test part, once for every network that has been fully trained."""
        rows = self.rows()
        model = cost_model(self.experiment.device)
        with self.opened("test") as synthesis:
            graphs = [load_network(self.out / row["path"]).graph for row in rows]
            jobs: list[Prepared] = []
            for row, graph in zip(rows, graphs, strict=True):
                saved = str((self.out / row["path"]).with_suffix(".safetensors"))
                recipe = self.config.training  # for its layout
                job = Job(
                    "test", to_text(graph), synthesis.reference, 0, recipe, saved=saved, device=self.config.device
                )
                jobs.append((job, architecture_hash(graph), {"what": row["name"]}))
            found = []
            for row, graph, result in zip(rows, graphs, synthesis.evaluate(jobs, "test"), strict=True):
                summary = summary_row(
                    graph,
                    _accuracy(result),
                    seed=row.get("seed"),
                    feasible=True,
                    path=row["path"],
                    validation_accuracy=row["validation_accuracy"],
                    model=model,
                )
                found.append({**summary, **row, "metrics": result["metrics"]})
            task = synthesis.task
        self.keep("test", {"metric": task.objective.metric, "image": list(task.image), "rows": found})

    def artifact(self) -> None:
        """Compiles the most accurate FermiNet for every target, and checks that it computes the same there."""
        from experiment_artifact import verify_artifact

        best = max(self.rows_of("points"), key=lambda row: row["validation_accuracy"])
        with self.opened("test") as synthesis:
            inputs = synthesis.task.split("validation").sample(4).normalized()
        rows = verify_artifact(self.out / best["path"], self.out / "artifacts", inputs=inputs)
        self.keep("artifact", {"name": best["name"], "rows": rows})

    def run(self, stages: Sequence[str]) -> None:
        """Runs stages, in the order in which they build on each other."""
        for stage in STAGES:
            if stage in stages:
                self.listener.stage(f"stage {stage}")
                getattr(self, stage)()


def generator_under(synthesis: Synthesis, requirements: tuple[str, ...]) -> Generator:
    """Returns the learned generator of a finished synthesis, held to other requirements."""
    learned = Generator.load(synthesis.out / "generator.gsir").network
    return Generator(learned.with_graph(learned.graph.replace(requirements=requirements)))


def _accuracy(row: Mapping[str, object]) -> float:
    return float(row["accuracy"])  # type: ignore[arg-type]


def main() -> int:
    """Runs stages and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the data (GENSYNTH_DATA)")
    parser.add_argument("--out", type=Path, help="run directory (runs/results-NAME)")
    parser.add_argument("--form", default="cpu", help="cpu, or a form that the file names: quick, full")
    parser.add_argument("--quick", dest="form", action="store_const", const="quick", help="the same as --form quick")
    parser.add_argument("--stages", default=",".join(STAGES), help="some of them (all)")
    parser.add_argument("--processes", type=int, help="worker processes (one for each CPU)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path, help="where what has been measured is written")
    parser.add_argument("--add", action="store_true", help="keep what --json has, and add what this run finds")
    options = parser.parse_args()
    try:
        stages = options.stages.split(",")
        for stage in stages:
            if stage not in STAGES:
                raise UsageError(f"there is no stage '{stage}'", hint=f"they are {', '.join(STAGES)}")
        if options.data is not None:
            os.environ["GENSYNTH_DATA"] = str(options.data)
        experiment = load_experiment(options.experiment, options.form)
        suffix = "" if options.form == "cpu" else f"-{options.form}"
        out = options.out or Path("runs") / f"results-{experiment.name}{suffix}"
        earlier = load_earlier(options.json, experiment) if options.add else {}
        with progress() as listener:
            run = Run(experiment, out, listener, processes=options.processes, device=options.device, earlier=earlier)
            run.run(stages)
    except GenSynthError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        found = found_by(run.experiment, run.config, run.kept)
        options.json.write_text(json.dumps(added(earlier, found), indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
