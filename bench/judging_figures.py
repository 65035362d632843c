"""The table of what bench/judging.py measured, for the terminal and for docs/results.md."""

from __future__ import annotations

from typing import Any

from compile_figures import Figure

__all__ = ["judging_figure"]


def judging_figure(found: dict[str, Any]) -> Figure:
    """Returns the table of evaluations in batches of several sizes."""
    rows = []
    for label, measured in found["networks"].items():
        for size, taken in measured["batches"].items():
            faults = measured["page_faults"][size]
            rows.append([f"{label}, {size}", f"{taken['median']:.2f}", f"{1 / taken['ratio']:.2f}x", f"{faults:,}"])
    images = next(iter(found["networks"].values()))["images"]
    note = (
        f"{images} images of 3x32x32, one thread, medians of {found['repetitions']} evaluations, which took turns; page"
        " faults of the last. An evaluation on a CPU has batches of 64."
    )
    columns = ["network, examples a batch", "s", "faster than the first", "page faults"]
    return Figure("judging in batches of several sizes", columns, rows, [note])
