"""Does learning help? The learned generator against what it started as, and against random search at equal trainings.

    python bench/generator.py examples/digits.toml --repetitions 5 --json out.json

Every repetition (its number is the search seed) learns a generator, and trains fully, by the same recipe:
`before`: 8 fresh seeds of the generator as it was opened; `after`: the same seeds of the learned one; `emitted`: the
8 that the synthesis emits; `random`: 8 chosen by random search, which trains as many networks of the opened generator
as the synthesis did, by the same short recipe, ranks them by what was measured, and takes the best that keep the
requirements after full training, with as many tries. NetScore and accuracy are of the validation part.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from harness import print_table

from gensynth.ir import Network, to_text
from gensynth.synth.config import load_config
from gensynth.synth.evaluation import Job
from gensynth.synth.exploration import Explorer
from gensynth.synth.generator import Generator
from gensynth.synth.inquisitor import Candidate
from gensynth.synth.performance import Outcome, netscore
from gensynth.synth.synthesis import Synthesis

FRESH = 9_000_000
RANDOM = 8_000_000


def figures(synthesis: Synthesis, items: list[tuple[Candidate, float]]) -> dict[str, Any]:
    """Returns means over fully trained networks, given with their validation accuracies [percent]."""
    scores = [netscore(Outcome(accuracy, item.totals.params, item.totals.macs)) for item, accuracy in items]
    feasible = [synthesis.inquisitor.holds(item.totals, accuracy) for item, accuracy in items]
    kept = [score for score, holds in zip(scores, feasible, strict=True) if holds]
    return {
        "netscore": mean(scores),
        "best_feasible": max(kept) if kept else None,
        "accuracy": mean(accuracy for _, accuracy in items),
        "params": mean(item.totals.params for item, _ in items),
        "macs": mean(item.totals.macs for item, _ in items),
        "feasible": sum(feasible) / len(feasible),
        "different": len({item.hash for item, _ in items}),
    }


def train(synthesis: Synthesis, explorer: Explorer, items: list[Candidate], name: str) -> list[tuple[Candidate, float]]:
    """Trains candidates fully."""
    jobs = [
        synthesis.train_fully(
            Network(item.graph, explorer.origin(item).weights()), f"{name}-{index:02d}", {"what": name}
        )
        for index, item in enumerate(items)
    ]
    results = synthesis.evaluate(jobs, name)
    return [(item, float(result["accuracy"])) for item, result in zip(items, results, strict=True)]  # type: ignore[arg-type]


def fresh(synthesis: Synthesis, generator: Generator, name: str, count: int) -> list[tuple[Candidate, float]]:
    """Trains the networks of fresh seeds, as they come."""
    explorer = Explorer(synthesis.inquisitor, synthesis.config.search)
    items = [explorer.candidate(generator, generator.decide(FRESH + offset)) for offset in range(count)]
    return train(synthesis, explorer, items, name)


def random_search(
    synthesis: Synthesis, generator: Generator, trainings: int, count: int, tries: int
) -> list[tuple[Candidate, float]]:
    """Trains random networks shortly, then the best of them fully until enough keep the requirements."""
    explorer = Explorer(synthesis.inquisitor, synthesis.config.search)
    items: dict[str, Candidate] = {}
    seed = RANDOM
    while len(items) < trainings:
        candidate = explorer.candidate(generator, generator.decide(seed))
        items.setdefault(candidate.hash, dataclasses.replace(candidate, accuracy=None))
        seed += 1
    jobs = []
    for item in items.values():
        job = Job(
            "search",
            to_text(item.graph),
            synthesis.reference,
            synthesis.config.search.seed,
            synthesis.config.search_training,
            explorer.origin(item).weights(),
        )
        jobs.append((job, item.hash, {"what": "random"}))
    results = synthesis.evaluate(jobs, "random search")
    trained = [
        item.trained(float(result["accuracy"]))
        for item, result in zip(items.values(), results, strict=True)  # type: ignore[arg-type]
    ]
    meets = synthesis.inquisitor.meets_requirements
    trained.sort(
        key=lambda item: (not meets(item), -synthesis.inquisitor.value(item) if meets(item) else -(item.accuracy or 0))
    )
    accepted: list[tuple[Candidate, float]] = []
    rejected: list[tuple[Candidate, float]] = []
    at = 0
    while len(accepted) < count and at < min(tries, len(trained)):
        batch = trained[at : at + count - len(accepted)]
        for item, accuracy in train(synthesis, explorer, batch, f"random-{at}"):
            (accepted if synthesis.inquisitor.holds(item.totals, accuracy) else rejected).append((item, accuracy))
        at += len(batch)
    rejected.sort(key=lambda pair: -pair[1])
    return accepted + rejected[: count - len(accepted)]


def repetition(config_path: Path, number: int, out: Path) -> dict[str, Any]:
    """Does one repetition and returns its figures."""
    config = load_config(config_path)
    config = dataclasses.replace(config, search=dataclasses.replace(config.search, seed=number))
    synthesis = Synthesis(config, out)
    try:
        trained, _ = synthesis.prepare()
        before = synthesis.open(trained)
        after, reports = synthesis.learn(before)
        emitted = synthesis.emit(after)
        count = config.emit.seeds
        explorer = Explorer(synthesis.inquisitor, config.search)
        pairs = [(explorer.candidate(after, after.decide(item.seed)), item.accuracy) for item in emitted]
        trainings = sum(report.trained for report in reports)
        finals = sum(1 for _, kind, _, detail, _ in synthesis.store.rows("final") if detail.get("what") == "emitted")
        found = {
            "before": figures(synthesis, fresh(synthesis, before, "before", count)),
            "after": figures(synthesis, fresh(synthesis, after, "after", count)),
            "emitted": figures(synthesis, pairs),
            "random": figures(synthesis, random_search(synthesis, before, trainings, count, finals)),
        }
        return {"repetition": number, "search_trainings": trainings, "full_trainings": finals, **found}
    finally:
        synthesis.executor.close()
        synthesis.store.close()


def main() -> None:
    """Prints a table of means and spreads over the repetitions, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for number in range(arguments.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            row = repetition(arguments.config, number, Path(folder))
        rows.append(row)
        shown = ", ".join(f"{name} {row[name]['netscore']:.2f}" for name in ("before", "after", "emitted", "random"))
        print(f"repetition {number}: {shown}", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps({"repetitions": rows}, indent=2) + "\n")

    def spread(values: list[float]) -> str:
        return f"{mean(values):.2f} ({stdev(values):.2f})" if len(values) > 1 else f"{values[0]:.2f}"

    table = []
    for name in ("before", "after", "emitted", "random"):
        best = [row[name]["best_feasible"] for row in rows if row[name]["best_feasible"] is not None]
        table.append(
            (
                name,
                spread([row[name]["netscore"] for row in rows]),
                spread([row[name]["accuracy"] for row in rows]),
                f"{mean(row[name]['params'] for row in rows):,.0f}",
                f"{mean(row[name]['macs'] for row in rows):,.0f}",
                f"{mean(row[name]['feasible'] for row in rows):.0%}",
                spread(best) if best else "none",
            )
        )
    print_table(
        f"{len(rows)} repetitions: mean (standard deviation over repetitions)",
        ("networks", "NetScore", "accuracy %", "params", "MACs", "feasible", "best feasible"),
        table,
    )
    gain = [row["after"]["netscore"] - row["before"]["netscore"] for row in rows]
    lead = [row["emitted"]["netscore"] - row["random"]["netscore"] for row in rows]
    print(f"after - before, fresh seeds: {spread(gain)}; emitted - random search: {spread(lead)}")
    if not all(map(math.isfinite, gain + lead)):
        raise SystemExit("a figure is not finite")


if __name__ == "__main__":
    main()
