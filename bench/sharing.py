"""Does a network's accuracy with shared weights tell its accuracy by itself? Kendall's tau, and what sharing costs.

python bench/sharing.py [--config FILE] [--task NAME key=value ...] [--networks 20] [--json OUT]

The generator of the configuration is trained once as a weight-sharing module. Then networks of fresh seeds are judged
twice, on the validation part: with their slices of the shared weights, and trained by themselves from fresh weights by
the recipe `[search_training]`. The prototype is trained by `[training]`, so that seconds can be set against it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from harness import print_table, write_json
from sharing_figures import sharing_figure

import gensynth as gs
from gensynth.backends.torch import train
from gensynth.backends.torch.shared_training import evaluate_shared, train_shared
from gensynth.ir import GenSynthError, Network, UsageError
from gensynth.passes import run_pipeline
from gensynth.passes.cost import totals
from gensynth.synth.config import load_config
from gensynth.synth.tasks import parse_task_options, task


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the figures."""
    config = load_config(options.config)
    name, *texts = options.task or [config.task]
    chosen = parse_task_options(name, texts) if options.task else config.task_options
    on = task(name, **chosen)
    training, validation = on.split("train"), on.split("validation")
    if options.training:
        training = training.subset(range(min(options.training, len(training))))
    if config.prototype is None or config.shared_training is None or config.search_training is None:
        raise UsageError(
            f"{options.config} lacks a prototype's name, [shared_training] or [search_training]",
            hint="see bench/sharing.toml",
        )
    arguments: dict[str, Any] = {"image": on.image, "classes": on.classes, **config.prototype_arguments}
    start = gs.prototype(config.prototype, **arguments)

    begun = time.perf_counter()
    prototype = train(start, training, validation, config.training, on.objective, seed=options.seed)
    prototype_seconds = time.perf_counter() - begun
    print(f"prototype: {prototype.accuracy:.2f}% in {prototype_seconds:.0f} s", flush=True)

    generator = run_pipeline(prototype.network, config.passes)
    begun = time.perf_counter()
    shared = train_shared(
        generator,
        training,
        validation,
        config.shared_training,
        on.objective,
        teacher=prototype.network,
        seed=options.seed,
        on_epoch=lambda report: print(
            f"shared, epoch {report.epoch}: loss {report.loss:.3f}, {report.validation_accuracy:.2f}%",
            flush=True,
        ),
    )
    shared_seconds = time.perf_counter() - begun

    rows = []
    module = shared.module
    for seed in range(options.networks):
        decisions = module.materializer.draw(10_000 + seed)
        begun = time.perf_counter()
        with_shared = evaluate_shared(module, decisions, training, validation, on.objective).accuracy
        judged = time.perf_counter() - begun
        graph = module.network(decisions).graph
        begun = time.perf_counter()
        alone = train(
            Network(graph), training, validation, config.search_training, on.objective, seed=options.seed
        ).accuracy
        assert alone is not None
        counted = totals(graph)
        rows.append(
            {
                "seed": 10_000 + seed,
                "macs": counted.macs,
                "params": counted.params,
                "shared": with_shared,
                "alone": alone,
                "judged_seconds": judged,
                "alone_seconds": time.perf_counter() - begun,
            }
        )
        print(f"{seed}: {counted.macs:,} MACs, shared {with_shared:.2f}%, alone {alone:.2f}%", flush=True)
    return {
        "task": name,
        "prototype": {"name": config.prototype, "accuracy": prototype.accuracy, "seconds": prototype_seconds},
        "choices": len(generator.graph.choices),
        "training_images": len(training),
        "shared_seconds": shared_seconds,
        "largest": shared.history[-1].validation_accuracy,
        "networks": rows,
        "tau": tau(rows, "shared"),
        "tau_macs": tau(rows, "macs"),
    }


def tau(rows: list[dict[str, Any]], by: str) -> dict[str, float]:
    """Returns Kendall's tau-b between a column and stand-alone accuracy, and its 95% interval by bootstrap.

    Where all are equal, there is no order to compare, and all three are NaN.
    """
    from scipy.stats import kendalltau

    columns = np.array([[row[by], row["alone"]] for row in rows])
    random = np.random.default_rng(0)
    drawn = [columns[random.integers(len(rows), size=len(rows))] for _ in range(2_000)]
    taus = [kendalltau(*sample.T).statistic for sample in drawn]
    known = [value for value in taus if not np.isnan(value)]
    low, high = np.percentile(known, [2.5, 97.5]) if known else (np.nan, np.nan)
    return {"tau": float(kendalltau(*columns.T).statistic), "low": float(low), "high": float(high)}


def tau_of_repeats(repeats: Sequence[Sequence[float]]) -> float | None:
    """Returns Kendall's tau-b between two trainings of the same networks, mean of all pairs of trainings.

    `repeats` has the accuracies of each network, one of each training; with a single training there is no pair (None).
    """
    from scipy.stats import kendalltau

    pairs = [kendalltau(*pair).statistic for pair in combinations(zip(*repeats, strict=True), 2)]
    return float(np.mean(pairs)) if pairs else None


def main() -> int:
    """Prints the table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("sharing.toml"))
    parser.add_argument("--task", nargs="+", metavar="NAME", help="instead of the configuration's: cifar10 data=FOLDER")
    parser.add_argument("--training", type=int, default=0, help="only so many training images (all)")
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    try:
        found = measure(options)
    except GenSynthError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    write_json(options.json, found)
    figure = sharing_figure(found)
    print_table(figure.title, figure.columns, figure.rows)
    print("\n".join(figure.notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
