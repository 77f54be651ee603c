"""The figure of the study of AdaHessian."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anyorder_studies.drawing import INK, PALETTE
from anyorder_studies.study import Measurement, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = {
    "rows": ("AdaHessian, rows averaged", PALETTE[0], "seconds_rows"),
    "none": ("AdaHessian, not averaged", PALETTE[2], "seconds_none"),
    "adamw": ("AdamW, equal epochs", PALETTE[1], "seconds_adamw"),
    "adamw_longer_seconds": ("AdamW, equal seconds", PALETTE[5], "seconds_adamw"),
}
RATIOS = {
    "loss_ratio_epochs": "loss over AdamW's,\nequal epochs",
    "loss_ratio_seconds": "loss over AdamW's,\nequal seconds",
    "averaging_ratio": "loss with averaging\nover without",
    "step_ratio": "seconds per step\nover AdamW's",
}


def draw_contest(found: Sequence[Result], measurements: Mapping[str, Measurement]) -> Figure:
    """Plot training losses over CPU seconds, and the ratios.

    Args:
        found: Results of all seeds.
        measurements: All measurements of the study.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6))
    axes: Any = figure.subplots(1, 2, width_ratios=(1.4, 1.0))
    left, right = axes
    for name, (label, colour, clock) in CURVES.items():
        # All seeds have the same numbers of steps and checks, so curves can be averaged.
        curves = np.log([result[f"curve_{name}"] for result in found])
        seconds = float(np.median([result[clock] for result in found]))
        times = np.linspace(0, found[0][f"steps_{name}"] * seconds, curves.shape[1])
        left.plot(times, np.exp(curves.mean(axis=0)), color=colour, label=label)
    left.set_yscale("log")
    left.set_xlabel("processor seconds (step costs as measured)")
    left.set_ylabel("training loss, nats")
    left.set_title("Each with its best step size", loc="left")
    left.legend(loc="upper right")
    for place, name in enumerate(reversed(RATIOS)):
        ratio = measurements[name]
        colour = PALETTE[0] if ratio.value < 1 else PALETTE[1]
        if ratio.n > 1:
            right.plot([ratio.low, ratio.high], [place, place], color=colour, linewidth=2)
        right.plot(ratio.value, place, "o", color=colour, markersize=6)
        right.annotate(
            f"{ratio.value:.2f}", (ratio.value, place), xytext=(0, 6), ha="center",
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    right.axvline(1.0, color=INK, linewidth=0.8, linestyle=":")
    right.set_xscale("log")
    right.set_yticks(range(len(RATIOS)), list(reversed(RATIOS.values())))
    right.set_ylim(-0.5, len(RATIOS) - 0.4)
    right.set_title("Below 1: AdaHessian wins", loc="left")
    return figure
