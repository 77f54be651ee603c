"""The figure of the study of Lion-K."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from anyorder_studies.drawing import INK, PALETTE
from anyorder_studies.study import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "l1": "box (Lion)", "l2": "norm", "group": "norm of rows", "spectral": "singular values",
}  # fmt: skip


def draw_ways(found: Mapping[str, Result], *, steps: int, watched: int) -> Figure:
    """Left: distances to the ball. Right: Lyapunov function and loss of Lion.

    Args:
        found: Result on a quadratic for each ball.
        steps: Number of steps into the ball.
        watched: Number of steps in which H was measured.
    """
    from matplotlib.figure import Figure

    from anyorder_studies.chen2023lionk.study import DECAY, FIRST

    figure = Figure(figsize=(7.2, 3.3))
    axes: Any = figure.subplots(1, 2)
    for place, (ball, label) in enumerate(LABELS.items()):
        sizes = np.array(found[ball]["outside"]) * DECAY
        shown = sizes > 0
        axes[0].plot(
            np.linspace(0, steps, len(sizes))[shown],
            sizes[shown],
            color=PALETTE[place],
            label=label,
        )
    axes[0].set_yscale("log")
    axes[0].set_xlabel("step (the step size falls)")
    axes[0].set_ylabel("distance to the ball over its radius")
    axes[0].set_title("Into the ball", loc="left")
    axes[0].legend(frameon=False, fontsize=8)
    curves = {"levels": ("H", PALETTE[0], "-"), "losses": ("loss", INK, ":")}
    for key, (label, colour, style) in curves.items():
        values = found["l1"][key]
        end = min(FIRST, watched + 1) - 1
        axes[1].plot(
            np.linspace(0, end, len(values)),
            values,
            style,
            color=colour,
            linewidth=1.5,
            label=label,
        )
    axes[1].set_xlabel("step, from a momentum that points uphill")
    axes[1].set_title("Inside the box: what falls", loc="left")
    axes[1].legend(frameon=False, fontsize=8)
    return figure
