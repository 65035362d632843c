"""The table of what bench/sharing.py measured, for the terminal and for docs/results.md."""

from __future__ import annotations

from typing import Any

from compile_figures import Figure, claim

__all__ = ["sharing_figure"]

GOAL = 0.6


def sharing_figure(found: dict[str, Any]) -> Figure:
    """Returns the table of the networks and what it tells."""
    rows = [
        [
            str(row["seed"]),
            f"{row['macs']:,}",
            f"{row['params']:,}",
            f"{row['shared']:.2f}",
            f"{row['alone']:.2f}",
        ]
        for row in sorted(found["networks"], key=lambda row: -row["alone"])
    ]
    prototype, ours, plain = found["prototype"], found["tau"], found["tau_macs"]
    costs = found["shared_seconds"] / prototype["seconds"]
    notes = [
        claim(
            ours["tau"] >= GOAL,
            f"Kendall's tau of shared and stand-alone accuracy {ours['tau']:.2f} (95% by bootstrap {ours['low']:.2f} to"
            f" {ours['high']:.2f}), at least {GOAL}; of MACs and stand-alone accuracy {plain['tau']:.2f}",
        ),
        f"Prototype {prototype['accuracy']:.2f}%; training all networks together took {costs:.1f} times as long.",
    ]
    title = f"{found['task']}, {found['choices']} choices: {len(rows)} networks of fresh seeds, validation accuracy [%]"
    return Figure(title, ["seed", "MACs", "params", "shared weights", "by itself"], rows, notes)
