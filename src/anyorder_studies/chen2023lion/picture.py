"""The figure of the study of Lion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from anyorder_studies.drawing import INK, PALETTE
from anyorder_studies.study import Measurement, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {"512_longer": "512,\n9 x the steps"}
PANELS = {"loss": "Training loss", "validation_loss": "Validation loss"}


def draw_ratios(
    found: Mapping[str, tuple[list[Result], list[Result]]], measurements: Mapping[str, Measurement]
) -> Figure:
    """Plot ratios of Lion to AdamW by contest.

    Args:
        found: Results of Lion and of AdamW by contest, paired by seed.
        measurements: All measurements of the study.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(7.2, 3.3))
    axes: Any = figure.subplots(1, 2, sharey=True)
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        for place, (contest, (lion, adamw)) in enumerate(found.items()):
            ratios = [a[key] / b[key] for a, b in zip(lion, adamw, strict=True)]
            axis.plot([place + 0.12] * len(ratios), ratios, ".", color=PALETTE[6], markersize=5)
            total = measurements[f"{key}_ratio_{contest}"]
            colour = PALETTE[0] if total.value < 1 else PALETTE[1]
            if total.n > 1:
                axis.plot([place, place], [total.low, total.high], color=colour, linewidth=2)
            axis.plot(place, total.value, "o", color=colour, markersize=6)
            axis.annotate(
                f"{total.value:.2f}", (place, total.value), xytext=(-7, 0), ha="right", va="center",
                textcoords="offset points", fontsize=8,
            )  # fmt: skip
        axis.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")
        axis.set_xlim(-0.5, len(found) - 0.5)
        axis.set_xticks(range(len(found)), [LABELS.get(name, name) for name in found])
        axis.set_xlabel("images per batch (the first three: equal epochs)")
        axis.set_title(title, loc="left")
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("Lion over AdamW (below 1: Lion wins)")
    return figure
