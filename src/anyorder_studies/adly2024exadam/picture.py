"""The figure of the study of EXAdam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyorder_studies.drawing import INK, PALETTE
from anyorder_studies.study import Measurement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = {
    "adam": ("Adam", PALETTE[1], "-"),
    "adam_growing": ("Adam, growing step", PALETTE[1], "--"),
    "exadam": ("EXAdam, version 2", PALETTE[0], "-"),
    "exadam_growing": ("EXAdam, version 1 (grows)", PALETTE[0], "--"),
    "exadam_no_boost": ("version 2, no added gradient", PALETTE[2], "-"),
}
RATIOS = {
    "steps_ratio": "steps over Adam's,\nboth tuned",
    "steps_ratio_equal": "steps over Adam's,\nboth at 1e-4",
    "loss_ratio": "loss over Adam's,\nboth tuned",
    "corrections_ratio": "the same without\nadded gradient",
    "boost_ratio": "loss with added\ngradient over without",
    "growing_ratio": "version 1 over Adam\nthat grows as well",
}


def draw_sweeps(
    grid: Sequence[float],
    sweeps: Mapping[str, Sequence[float]],
    measurements: Mapping[str, Measurement],
) -> Figure:
    """Plot training losses over step sizes, and the ratios.

    Args:
        grid: Step sizes.
        sweeps: Mean loss at each of them, by contestant.
        measurements: All measurements of the study.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(7.2, 3.9))
    axes: Any = figure.subplots(1, 2, width_ratios=(1.3, 1.0))
    left, right = axes
    for name, (label, colour, style) in LINES.items():
        left.plot(grid, sweeps[name], style, color=colour, label=label)
        lr = measurements[f"lr_{name}"].value
        left.plot(lr, sweeps[name][list(grid).index(lr)], "o", color=colour, markersize=5)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("step size (dots: chosen)")
    left.set_ylabel("training loss, nats")
    left.set_title("The sweep, on tuning seeds", loc="left")
    left.set_ylim(top=300.0)  # room for the legend
    left.legend(loc="upper left")
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
    right.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    right.xaxis.set_major_formatter("{x:g}")
    right.xaxis.set_minor_formatter(NullFormatter())
    right.set_yticks(range(len(RATIOS)), list(reversed(RATIOS.values())))
    right.set_ylim(-0.5, len(RATIOS) - 0.4)
    right.set_title("Below 1: EXAdam wins", loc="left")
    return figure
