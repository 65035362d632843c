"""Checks what the demo reached, from its run directory: figures, ratios, and 1,000 unseen seeds.

make demo && python bench/demo.py runs/demo --json out.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from harness import print_table

from gensynth.ir import architecture_hash, verify
from gensynth.synth.generator import Generator

UNSEEN = 10_000_000
"""Seeds from here on took no part in learning or emission."""


def main() -> None:
    """Prints a table and what holds, writes JSON, and ends with 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    summary = json.loads((arguments.run / "summary.json").read_text())
    prototype, networks = summary["prototype"], summary["networks"]
    for row in networks:
        row["density_ratio"] = row["information_density"] / prototype["information_density"]
        row["macs_ratio"] = prototype["macs"] / row["macs"]
        row["points_below"] = prototype["accuracy"] - row["accuracy"]
    print_table(
        f"prototype: {prototype['accuracy']:.2f}% test, {prototype['params']:,} params, {prototype['macs']:,} MACs",
        ("seed", "test %", "below", "params", "MACs", "density x", "MACs /", "NetScore", "hash"),
        [
            (
                str(row["seed"]),
                f"{row['accuracy']:.2f}",
                f"{row['points_below']:.2f}",
                f"{row['params']:,}",
                f"{row['macs']:,}",
                f"{row['density_ratio']:.1f}",
                f"{row['macs_ratio']:.1f}",
                f"{row['netscore']:.1f}",
                row["architecture_hash"],
            )
            for row in networks
        ],
    )
    generator = Generator.load(arguments.run / "generator.gsir")
    requirements = generator.materializer.requirements
    began = time.perf_counter()
    holding, different, repaired = 0, set(), 0
    for seed in range(UNSEEN, UNSEEN + arguments.seeds):
        decided = generator.decide(seed)
        verify(decided.graph)
        holding += generator.materializer.violation(decided.totals) == 0.0
        different.add(architecture_hash(decided.graph))
        repaired += bool(decided.repairs)
    seconds = time.perf_counter() - began
    claims = {
        f"{len(networks)} networks have {len(networks)} different hashes": len(
            {row["architecture_hash"] for row in networks}
        )
        == len(networks),
        "each has >= 10x the prototype's information density": min(row["density_ratio"] for row in networks) >= 10,
        "each has <= 1/5 of its MACs": min(row["macs_ratio"] for row in networks) >= 5,
        "each is at most 1.0 point below on the test part": max(row["points_below"] for row in networks) <= 1.0,
        "each satisfies the requirements": all(row["feasible"] for row in networks),
        f"{arguments.seeds} unseen seeds satisfy the computable requirements": holding == arguments.seeds,
    }
    for claim, holds in claims.items():
        print(f"{'yes' if holds else 'NO '}  {claim}")
    stated = ", ".join(str(item) for item in requirements)
    print(
        f"{holding} of {arguments.seeds} unseen seeds satisfy {stated}; {repaired} needed repair;"
        f" {len(different)} different architectures; {seconds:.1f} s"
    )
    if arguments.json:
        found = {
            "prototype": prototype,
            "networks": networks,
            "requirements": summary["requirements"],
            "claims": claims,
            "unseen": {
                "seeds": arguments.seeds,
                "holding": holding,
                "repaired": repaired,
                "different": len(different),
            },
        }
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(0 if all(claims.values()) else 1)


if __name__ == "__main__":
    main()
