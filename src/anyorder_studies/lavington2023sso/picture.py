"""The figure of the study of SSO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anyorder_studies.drawing import PALETTE
from anyorder_studies.study import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {
    "full": "Logistic regression, full batch",
    "batch": "Logistic regression, batches of 32",
    "network": "Network, full batch",
}
WORDS = {"gd": "gradient descent", "10": "SSO, 10 inner steps", "30": "SSO, 30 inner steps"}
COLOURS = dict(zip(WORDS, PALETTE, strict=False))


def draw_descents(results: Sequence[tuple[str, Result]]) -> Figure:
    """Plot the training loss over gradients of the loss: seeds (thin) and geometric mean.

    Args:
        results: Pairs of a contestant's name, such as ``full_10``, and a result.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.0))
    axes: Any = figure.subplots(1, len(PANELS))
    for axis, (task, title) in zip(axes, PANELS.items(), strict=True):
        for inner, words in WORDS.items():
            found = [result for name, result in results if name == f"{task}_{inner}"]
            if not found:
                continue
            length = min(len(result["curve"]) for result in found)
            curves = np.array([result["curve"][:length] for result in found])
            places = np.linspace(0.0, found[0]["targets"], length)
            for curve in curves:
                axis.plot(places, curve, color=COLOURS[inner], linewidth=0.5, alpha=0.4)
            mean = np.exp(np.log(curves).mean(0))
            axis.plot(places, mean, color=COLOURS[inner], linewidth=1.8, label=words)
        axis.set_yscale("log")
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_xlabel("gradients of the loss")
    axes[0].set_ylabel("training loss (nats)")
    axes[0].legend(frameon=False, fontsize=7)
    return figure
