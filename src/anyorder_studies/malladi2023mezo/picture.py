"""The figure of the study of MeZO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anyorder_studies.drawing import INK, PALETTE
from anyorder_studies.study import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BARS = {
    "inference": ("inference", PALETTE[6]),
    "mezo": ("MeZO", PALETTE[0]),
    "adamw": ("AdamW", PALETTE[1]),
}
CURVES = {"sgd": ("SGD", PALETTE[1]), "mezo": ("MeZO", PALETTE[0])}


def draw_memory_and_learning(found: Mapping[str, Sequence[Result]]) -> Figure:
    """Plot bytes by operation, and held-out accuracy over the cost in forward passes.

    Args:
        found: Results by method; one for ``memory``, one per seed for ``sgd`` and ``mezo``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.3))
    axes: Any = figure.subplots(1, 2, width_ratios=(1.0, 1.7))
    left, right = axes
    memory = found["memory"][0]
    for place, (name, (label, colour)) in enumerate(BARS.items()):
        size = memory[name] / 1e6
        left.bar(place, size, 0.6, color=colour)
        left.annotate(
            f"{memory[name] / memory['inference']:.2f} x", (place, size), xytext=(0, 3),
            ha="center", textcoords="offset points", fontsize=8,
        )  # fmt: skip
        left.annotate(label, (place, 0), xytext=(0, -12), ha="center", textcoords="offset points")
    left.axhline(memory["weights"] / 1e6, color=INK, linewidth=0.8, linestyle=":")
    left.set_xticks([])
    left.margins(y=0.12)
    left.set_ylabel("megabytes, weights included")
    left.set_title("Memory (dotted: weights)", loc="left")
    for name, (label, colour) in CURVES.items():
        for number, run in enumerate(found[name]):
            price = np.asarray(run["checks"][1:]) * run["forwards_per_step"]
            right.plot(
                price, run["accuracies"][1:], color=colour, linewidth=0.9, alpha=0.75,
                label=label if number == 0 else None,
            )  # fmt: skip
    before = float(np.mean([run["accuracies"][0] for run in found["sgd"]]))
    right.axhline(before, color=INK, linewidth=0.8, linestyle=":")
    right.set_xscale("log")
    right.set_xlabel("price in forward passes (a gradient costs three)")
    right.set_ylabel("held-out accuracy, %")
    right.set_title("Rotated digits (dotted: before)", loc="left")
    right.legend(loc="lower right")
    return figure
