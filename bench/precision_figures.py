"""The table of what bench/precision.py measured, for the terminal and for docs/results.md."""

from __future__ import annotations

from typing import Any

from compile_figures import Figure

__all__ = ["precision_figure"]


def precision_figure(found: dict[str, Any]) -> Figure:
    """Returns the table of trainings in two precisions."""
    rows = [
        [
            f"{row['network']}, {row['layout']}",
            f"{row['float32']['median']:.2f}",
            f"{row['bfloat16']['median']:.2f}",
            f"{row['bfloat16']['ratio']:.2f}x",
        ]
        for row in found["trainings"]
    ]
    note = (
        f"An epoch of {found['images']} images of 3x32x32 on `{found['device']}` ({found['machine']['processor']}), one"
        f" thread, medians of {found['repetitions']} trainings, which took turns. The precision `auto` is"
        f" {found['auto']} there."
    )
    return Figure("training in two precisions", ["network, layout", "float32, s", "bfloat16, s", "ratio"], rows, [note])
