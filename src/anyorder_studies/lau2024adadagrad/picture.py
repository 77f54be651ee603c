"""The figure of the study of AdAdaGrad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from anyorder_studies.drawing import PALETTE
from anyorder_studies.study import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORDS = {
    "smallest": "fixed, 8",
    "largest": "fixed, 1,024",
    "eta_0.5": "growing, eta 0.5",
    "eta_1": "growing, eta 1",
    "matched": "fixed, as many steps as eta 1",
}
COLOURS = dict(zip(WORDS, PALETTE, strict=False))


def draw_batches(results: Sequence[tuple[str, Result]]) -> Figure:
    """Plot final losses over steps, one point per seed, and batch sizes.

    Args:
        results: Pairs of a contestant's name and a result.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.3))
    axes: Any = figure.subplots(1, 2)
    for name, words in WORDS.items():
        found = [result for which, result in results if which == name]
        axes[0].plot(
            [r["steps"] for r in found], [r["loss"] for r in found], "o",
            color=COLOURS[name], markersize=4, alpha=0.7, label=words,
        )  # fmt: skip
        for result in found[:3] if name.startswith("eta") else ():
            starts, sizes = zip(*result["sizes"], strict=True)
            axes[1].step(
                [max(start, 1) for start in (*starts, result["samples"])], (*sizes, sizes[-1]),
                where="post", color=COLOURS[name], linewidth=1.2, alpha=0.8,
            )  # fmt: skip
    for axis in axes:
        axis.set_xscale("log")
        axis.set_yscale("log")
    axes[0].set_xlabel("steps (all: equally many samples)")
    axes[0].set_ylabel("training loss (nats)")
    axes[0].legend(frameon=False, fontsize=7)
    axes[1].set_xlabel("samples")
    axes[1].set_ylabel("samples per batch")
    return figure
