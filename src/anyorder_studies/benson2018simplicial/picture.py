"""The figure of the study of simplicial closure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from anyorder_studies.drawing import INK, PALETTE
from anyorder_studies.study import Measurement

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_scores(
    names: Mapping[str, str], local: set[str], measurements: Mapping[str, Measurement]
) -> Figure:
    """Plot scores relative to chance, and closure probabilities.

    Args:
        names: Quantity by name of the score.
        local: Names of the local scores.
        measurements: All measurements of the study.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.9))
    axes: Any = figure.subplots(1, 2, width_ratios=(2.1, 1.0))
    left, right = axes
    ordered = sorted(names, key=lambda name: measurements[names[name]].value)
    for place, name in enumerate(ordered):
        found = measurements[names[name]]
        colour = PALETTE[0] if name in local else PALETTE[1]
        left.plot([found.low, found.high], [place, place], color=colour, linewidth=1.4)
        left.plot(found.value, place, "o", color=colour, markersize=5)
        published = measurements[f"{names[name]}_as_published"].value
        left.plot(published, place, "d", color=INK, markersize=4.5, fillstyle="none")
    left.axvline(1.0, color=INK, linewidth=0.8, linestyle=":")
    left.set_yticks(range(len(ordered)), ordered)
    left.set_xscale("log", base=2)
    left.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    left.set_xlabel("accuracy over chance (dotted: chance)")
    left.set_title("Which score ranks the closing triangles first?", loc="left")
    left.plot([], [], "o-", color=PALETTE[0], markersize=5, label="local")
    left.plot([], [], "o-", color=PALETTE[1], markersize=5, label="walk or learned")
    left.plot([], [], "d", color=INK, fillstyle="none", markersize=4.5, label="published labels")
    left.legend(loc="lower right")
    for ties in range(4):
        found = measurements[f"{ties}_ties"]
        right.plot([ties, ties], [found.low, found.high], color=PALETTE[2], linewidth=1.4)
        right.plot(ties, found.value, "o", color=PALETTE[2], markersize=5)
    right.set_yscale("log")
    right.set_xticks(range(4))
    right.set_xlabel("ties among the three")
    right.set_ylabel("probability of closing")
    right.set_title("Ties and closure", loc="left")
    return figure
