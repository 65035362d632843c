"""Prints and parses random graphs: every one must verify, come back equal, and print again byte for byte.

    python bench/round_trip.py [--graphs 10000] [--json round_trip.json]

Half the graphs are random networks over all ops, half are generators with shared, open and nested choices.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from harness import print_table, write_json

from gensynth.ir import GenSynthError, parse, to_text, verify

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from random_graphs import random_generator, random_network


def main() -> int:
    """Runs the round trips and returns 1 where any failed."""
    parser = argparse.ArgumentParser(description="Print, parse and verify random graphs.")
    parser.add_argument("--graphs", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=20, help="most nodes of a graph, about")
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args()
    failures: list[str] = []
    seconds = Counter({"print": 0.0, "parse": 0.0, "verify": 0.0})
    ops: Counter[str] = Counter()
    nodes = characters = generators = 0
    texts: set[str] = set()
    for seed in range(options.graphs):
        graph = (random_generator if seed % 2 else random_network)(seed, options.size)
        generators += graph.is_generator
        for _, node in graph.walk():
            ops[node.op.name] += 1
            nodes += 1
        try:
            start = time.perf_counter()
            text = to_text(graph)
            printed = time.perf_counter()
            again = parse(text)
            parsed = time.perf_counter()
            verify(again)
            verified = time.perf_counter()
            seconds.update({"print": printed - start, "parse": parsed - printed, "verify": verified - parsed})
            if again != graph or to_text(again) != text:
                failures.append(f"seed {seed}: comes back different")
        except GenSynthError as error:
            failures.append(f"seed {seed}: {error}")
            continue
        texts.add(text)
        characters += len(text)
    rows = [
        ["graphs", f"{options.graphs:,}"],
        ["of them generators", f"{generators:,}"],
        ["different", f"{len(texts):,}"],
        ["nodes", f"{nodes:,}"],
        ["kinds of op", str(len(ops))],
        ["text", f"{characters / 1e6:.1f} MB"],
        *([f"seconds to {what}", f"{taken:.2f}"] for what, taken in seconds.items()),
        ["failures", str(len(failures))],
    ]
    print_table("Round trip: parse(print(g)) == g, printed again byte for byte", ["", ""], rows)
    for failure in failures[:10]:
        print(failure)
    write_json(
        options.json,
        {
            "graphs": options.graphs,
            "generators": generators,
            "different": len(texts),
            "nodes": nodes,
            "ops": dict(sorted(ops.items())),
            "characters": characters,
            "seconds": dict(seconds),
            "failures": failures,
        },
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
