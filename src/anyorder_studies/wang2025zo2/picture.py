"""The figure of the study of ZO2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyorder_studies.drawing import INK, PALETTE
from anyorder_studies.study import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_memory_and_accuracy(
    memory: Sequence[Result], full: Sequence[Result], narrow: Sequence[Result]
) -> Figure:
    """Plot bytes by method, and accuracy with full and narrow storage.

    Args:
        memory: Bytes of ``weights``, ``mezo`` and ``zo2``, one result per repetition.
        full: ``before`` and ``after`` in percent, one result per seed.
        narrow: The same with narrow storage, in the same order.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.3))
    axes: Any = figure.subplots(1, 2)
    left, right = axes
    bars: Mapping[str, tuple[str, str]] = {
        "weights": ("all weights", PALETTE[6]),
        "mezo": ("MeZO", PALETTE[0]),
        "zo2": ("ZO2", PALETTE[1]),
    }
    for place, (name, (label, colour)) in enumerate(bars.items()):
        size = sum(r[name] for r in memory) / len(memory) / 1e6
        left.bar(place, size, 0.6, color=colour)
        left.annotate(
            f"{size:.0f}", (place, size), xytext=(0, 3), ha="center", textcoords="offset points"
        )
        left.annotate(label, (place, 0), xytext=(0, -12), ha="center", textcoords="offset points")
    left.set_xticks([])
    left.margins(y=0.12)
    left.set_ylabel("megabytes in memory during steps")
    left.set_title("Memory of the process", loc="left")
    for number, (one, other) in enumerate(zip(full, narrow, strict=True)):
        heights = [one["before"], one["after"], other["after"]]
        right.plot([0, 1, 2], heights, "o", color=PALETTE[number % len(PALETTE)], alpha=0.8)
        right.plot([1, 2], heights[1:], color=INK, linewidth=0.6, alpha=0.5)
    right.set_xticks([0, 1, 2], ["before", "float32", "float16"])
    right.set_xlim(-0.5, 2.5)
    right.set_ylabel("held-out accuracy, %")
    right.set_title("Blocks kept in", loc="left")
    return figure
