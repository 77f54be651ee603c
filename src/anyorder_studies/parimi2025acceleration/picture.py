"""The figure of the study of acceleration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anyorder_studies.drawing import INK, PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PATHS = {
    "heavy_ball": ("heavy ball", PALETTE[1]),
    "gradient": ("gradient descent", PALETTE[6]),
    "nesterov": ("Nesterov", PALETTE[2]),
    "triple_momentum": ("triple momentum", PALETTE[0]),
}
# Smaller values are drawn here: Nesterov's method reaches zero within three steps.
SMALLEST = 1e-5


def draw_family(
    ratios: Mapping[float, Sequence[float]], paths: Mapping[str, Sequence[float]]
) -> Figure:
    """Plot savings over condition numbers, and distances on the piecewise function.

    Args:
        ratios: Steps of gradient descent over Nesterov's by condition number, one per start.
        paths: Distances to the minimum after each step from the published start, by method.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4))
    axes: Any = figure.subplots(1, 2)
    left, right = axes
    conditions = np.array(list(ratios))
    for condition, found in ratios.items():
        left.plot([condition] * len(found), found, "o", color=PALETTE[0], markersize=4)
    left.plot(conditions, np.sqrt(conditions) / 2, color=INK, linewidth=0.8, linestyle=":")
    left.annotate(
        "half the root", (conditions[-1], np.sqrt(conditions[-1]) / 2), xytext=(-6, 4),
        textcoords="offset points", ha="right", fontsize=8,
    )  # fmt: skip
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("condition")
    left.set_ylabel("steps of gradient descent over Nesterov's")
    left.set_title("Ridge regression, breast cancer", loc="left")
    for form, (label, colour) in PATHS.items():
        distances = np.maximum(paths[form], SMALLEST)
        right.plot(np.arange(len(distances)), distances, color=colour, label=label)
    right.set_yscale("log")
    right.set_xlabel("steps from 3.3")
    right.set_ylabel("distance to the minimum")
    right.set_title("Function of three pieces", loc="left")
    right.legend(loc="lower left", bbox_to_anchor=(0.0, 0.06))
    return figure
