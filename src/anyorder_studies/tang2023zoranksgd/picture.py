"""The figure of the study of ZO-RankSGD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anyorder_studies.drawing import PALETTE
from anyorder_studies.study import Measurement, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Type of information, and number of candidates.
TOLD = {
    "ranks_15_1": "best of 15",
    "ranks_15_3": "best 3 of 15",
    "ranks_15_15": "order of 15",
    "values_15": "15 values",
    "ranks_50_50": "order of 50",
    "values_50": "50 values",
}
METHODS = {
    "ranks": ("ranks", PALETTE[0]),
    "values": ("values, same search", PALETTE[1]),
    "mezo": ("values, MeZO", PALETTE[6]),
    "cma": ("ranks, CMA-ES", PALETTE[2]),
}
TITLES = {
    "quadratic": "Quadratic, 20 dimensions",
    "rosenbrock": "Rosenbrock, 10 dimensions",
    "scales": "Ten length scales, diabetes",
    "boosting": "Gradient boosting, breast cancer",
}


def draw_ranks_and_values(
    found: Mapping[str, Mapping[str, Sequence[Result]]], measurements: Mapping[str, Measurement]
) -> Figure:
    """Plot cosines by type of information, and the remaining fraction of the loss over evaluations.

    Args:
        found: Results by task and method, one per seed.
        measurements: All measurements of the study.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(10.4, 5.2))
    axes: Any = figure.subplots(2, 3)
    cosines, *panels, last = axes.flat
    last.remove()
    for place, (name, label) in enumerate(reversed(TOLD.items())):
        cosine = measurements[f"cosine_{name}"]
        colour = PALETTE[0] if name.startswith("ranks") else PALETTE[1]
        cosines.barh(place, cosine.value, 0.6, color=colour)
        cosines.annotate(
            f" {cosine.value:.2f}", (max(0.0, cosine.value), place), va="center", fontsize=8
        )
        cosines.annotate(label, (0, place), xytext=(-4, 0), ha="right", va="center", fontsize=8,
                         textcoords="offset points")  # fmt: skip
    cosines.set_yticks([])
    cosines.margins(x=0.15)
    cosines.set_xlabel("mean cosine to the gradient, d = 100")
    cosines.set_title("What is told", loc="left")
    for axis, (task, by_method) in zip(panels, found.items(), strict=True):
        for method, runs in by_method.items():
            label, colour = METHODS[method]
            left = np.log([np.divide(run["best"], run["best"][0]) for run in runs])
            middle = np.exp(left.mean(axis=0))
            axis.plot(runs[0]["evaluations"], middle, color=colour, label=label)
        axis.set_yscale("log")
        axis.set_title(TITLES[task], loc="left")
    # The errors of the real tasks change by less than a decade.
    for axis in panels[2:]:
        axis.set_yscale("linear")
    for axis in panels[:2]:
        axis.yaxis.set_major_locator(LogLocator())
        axis.yaxis.set_minor_formatter(NullFormatter())
    for axis in axes[:, 0][1:]:
        axis.set_ylabel("loss over loss at the start")
    for axis in panels:
        axis.set_xlabel("evaluations")
    panels[0].legend(loc="upper right")
    panels[-1].legend(loc="upper right")
    return figure
