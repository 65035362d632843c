"""Does every rewrite rule hold everywhere? Each on every prototype: spots, validity, PyTorch against the reference.

    python bench/rules.py --json rules.json
    python bench/rules.py --rules separate-conv pool-early --prototypes resnet lenet

`spots` counts those that fit of those that look like one; `torch` is the largest difference of PyTorch and reference
after the rule, `original` that of the rewritten and the original network (asked of exact rules only), both as shares
of the largest output. The exit status is 1 where a network is not valid or a difference is above 1e-3.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from gensynth.backends.reference import run_reference
from gensynth.backends.torch import to_torch
from gensynth.ir import Array, GenSynthError, Network, check_weights, initialize, verify
from gensynth.passes import Carry, Rule, parse_pipeline
from gensynth.synth.prototypes import ArgumentValue, prototype

RULES = (
    "bottleneck-conv",
    "bypass-block",
    "bypass-block{plain=true}",
    "collapse-block",
    "factorize-conv",
    "fold-batch-norm",
    "group-conv",
    "low-rank-conv",
    "pool-early",
    "replace-activation{to=hard_swish}",
    "scale-width",
    "separate-conv",
    "separate-conv{normalize=true}",
    "shrink-kernel",
    "shrink-kernel{size=1}",
    "squeeze-excite",
)
FORMS: tuple[tuple[str, dict[str, ArgumentValue]], ...] = (
    ("lenet", {}),
    ("resnet", {"depth": 20}),
    ("resnet", {"depth": 20, "shortcut": "pad"}),
    ("resnet", {"depth": 50, "dataset": "imagenet", "image": (3, 64, 64)}),
    ("mobilenet", {"version": 1}),
    ("mobilenet", {"version": 2}),
    ("shufflenet", {"version": 1, "groups": 3}),
    ("shufflenet", {"version": 2}),
    ("squeezenet", {"version": 1.0}),
    ("squeezenet", {"version": 1.1}),
    ("nasnet-a", {"cells": 2, "filters": 192}),
)
TOLERANCE = 1e-3


def difference(found: Array, wanted: Array) -> float:
    """Returns the largest difference as a share of the largest wanted value."""
    return float(np.abs(found - wanted).max() / max(1e-30, float(np.abs(wanted).max())))


def row(pipeline: str, title: str, network: Network, x: Array, wanted: Array) -> dict[str, object]:
    """Applies one rule to one network and returns what there is to say about it."""
    import torch

    (rule,) = parse_pipeline(pipeline)
    assert isinstance(rule, Rule)
    verdicts = rule.why(network)
    fit = sum(verdict.reason is None for verdict in verdicts)
    found: dict[str, object] = {"rule": pipeline, "prototype": title, "spots": len(verdicts), "fit": fit}
    if not fit:
        return found
    start = time.perf_counter()
    result = rule.run(network).network
    found["seconds"] = time.perf_counter() - start
    try:
        verify(result.graph)
        check_weights(result.graph, result.weights or {})
    except GenSynthError as error:
        return {**found, "verified": False, "error": error.message}
    (meant,) = run_reference(result, x)
    with torch.no_grad():
        given = to_torch(result).eval()(torch.from_numpy(x)).numpy()
    found |= {"verified": True, "torch": difference(given, meant)}
    if rule.carries is Carry.EXACT:
        found["original"] = difference(meant, wanted)
    return found


def failed(item: dict[str, object]) -> bool:
    """Whether a row is not as it should be."""
    errors = [item[key] for key in ("torch", "original") if key in item]
    return item.get("verified") is False or any(
        not (isinstance(error, float) and error < TOLERANCE) for error in errors
    )


def show(rows: list[dict[str, object]]) -> None:
    """Prints the rows as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("rule", "prototype", "spots", "verified", "torch", "original", "seconds", title="rewrite rules")
    for item in rows:
        errors = [f"{item[key]:.1e}" if key in item else "" for key in ("torch", "original")]
        seconds = f"{item['seconds']:.2f}" if "seconds" in item else ""
        verified = {True: "yes", False: "NO"}.get(bool(item["verified"]), "") if "verified" in item else ""
        style = "red" if failed(item) else None
        spots = f"{item['fit']} of {item['spots']}"
        table.add_row(str(item["rule"]), str(item["prototype"]), spots, verified, *errors, seconds, style=style)
    Console(width=140).print(table)


def main(arguments: list[str] | None = None) -> int:
    """Runs the walk; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rules", nargs="*", default=RULES, help="rules with options (default: all)")
    parser.add_argument("--prototypes", nargs="*", help="names of prototypes (default: all)")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    options = parser.parse_args(arguments)
    rows: list[dict[str, object]] = []
    for name, settings in FORMS:
        if options.prototypes and name not in options.prototypes:
            continue
        graph = prototype(name, **settings).graph
        title = " ".join([name, *(f"{key}={value}" for key, value in settings.items())])
        network = Network(graph, initialize(graph))
        x = np.random.default_rng(0).standard_normal(graph.inputs[0].type.sizes(1)).astype(np.float32)
        (wanted,) = run_reference(network, x)
        for pipeline in options.rules:
            print(f"{title}: {pipeline}", file=sys.stderr)
            rows.append(row(pipeline, title, network, x, wanted))
    show(rows)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(any(map(failed, rows)))


if __name__ == "__main__":
    sys.exit(main())
