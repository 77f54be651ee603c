"""The figure of the study of 8-bit state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyorder_studies.drawing import INK, PALETTE
from anyorder_studies.study import Measurement, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "bf16": "bfloat16",
    "dynamic_256": "dynamic, 256",
    "dynamic_2048": "dynamic, 2,048",
    "dynamic_tensor": "dynamic, matrix",
    "linear_2048": "linear, 2,048",
    "linear_tensor": "linear, matrix",
    "dynamic_2048_unguarded": "dynamic, 2,048, unguarded",
    "dynamic_tensor_unguarded": "dynamic, matrix, unguarded",
    "linear_tensor_unguarded": "linear, matrix, unguarded",
}
BLOCKS = {"tensor": "all", "2048": "2,048", "256": "256"}
# Larger ratios are written at the edge instead of drawn.
WIDEST = 1.15
COLOURS = {"dynamic": PALETTE[0], "linear": PALETTE[1]}


def draw_formats(
    found: Mapping[str, Sequence[Result]], measurements: Mapping[str, Measurement]
) -> Figure:
    """Plot ratios of perplexity to float32 by format, and rounding errors by table and block.

    Args:
        found: Results of the language model by contestant, paired by seed.
        measurements: All measurements of the study.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.0))
    left, right = _axes(figure)
    for place, name in enumerate(LABELS):
        total = measurements[f"perplexity_ratio_{name}_lm"]
        if total.value > WIDEST:
            left.annotate(
                f"{total.value:.3g} \N{RIGHTWARDS ARROW}", (WIDEST, place), xytext=(-3, 0),
                ha="right", va="center", textcoords="offset points", fontsize=8,
            )  # fmt: skip
            continue
        pairs = zip(found[name], found["float32"], strict=True)
        ratios = [math.exp(run["loss"] - base["loss"]) for run, base in pairs]
        colour = COLOURS.get(name.split("_")[0], PALETTE[2])
        left.plot(ratios, [place + 0.2] * len(ratios), ".", color=PALETTE[6], markersize=4)
        if total.n > 1:
            left.plot([total.low, total.high], [place, place], color=colour, linewidth=2)
        left.plot(total.value, place, "o", color=colour, markersize=6)
        left.annotate(
            f"{total.value:.3f}", (total.value, place), xytext=(0, 5), ha="center",
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    left.axvline(1.0, color=INK, linewidth=0.8, linestyle=":")
    left.set_xlim(0.96, WIDEST)
    left.set_yticks(range(len(LABELS)), list(LABELS.values()))
    left.set_ylim(len(LABELS) - 0.5, -0.7)
    left.set_xlabel("perplexity over that of float32")
    left.set_title("Language model", loc="left")
    for table, colour in COLOURS.items():
        for key, marker, meaning in (("error", "o", "median error"), ("lost", "s", "lost")):
            values = [measurements[f"{key}_{table}_{block}"].value for block in BLOCKS]
            style = "-" if key == "error" else "--"
            right.plot(values, style, marker=marker, color=colour, label=f"{table}: {meaning}")
    right.set_xticks(range(len(BLOCKS)), list(BLOCKS.values()))
    right.set_yscale("log")
    right.set_ylim(bottom=1e-3)  # room for the legend
    right.set_xlabel("numbers that share a scale")
    right.set_title("Rounding: relative error, share lost", loc="left")
    right.legend(loc="lower left")
    return figure


def _axes(figure: Figure) -> Any:
    return figure.subplots(1, 2)
