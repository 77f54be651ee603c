"""The figure of the study of ZO-AE-DS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from anyorder_studies.drawing import INK, PALETTE
from anyorder_studies.study import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "none": "no defence",
    "ae": "autoencoder, untrained",
    "zo_ds": "pixels, random directions",
    "zo_ae_rge": "code, random directions",
    "zo_ae_ds": "code, coordinates (ZO-AE-DS)",
    "fo_ae_ds": "code, derivatives",
    "fo_ds": "pixels, derivatives",
}
COLOURS = dict(zip(LABELS, (INK, PALETTE[6], PALETTE[1], PALETTE[5], PALETTE[0], PALETTE[2],
                            PALETTE[3]), strict=True))  # fmt: skip
CURVES = ("zo_ds", "zo_ae_rge", "zo_ae_ds")


def draw_defences(found: Mapping[str, Sequence[Result]]) -> Figure:
    """Plot noisy accuracy over queries, and certified accuracy by defence.

    Args:
        found: Results by method, one per seed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.3))
    axes: Any = figure.subplots(1, 2)
    left, right = axes
    for name in CURVES:
        for number, run in enumerate(found[name]):
            left.plot(
                run["queries"], 100 * np.asarray(run["noisy"]), color=COLOURS[name],
                linewidth=0.9, alpha=0.75, label=LABELS[name] if number == 0 else None,
            )  # fmt: skip
    left.set_xlabel("queries per training image")
    left.set_ylabel("accuracy on noisy images, %")
    left.set_title("Training through queries", loc="left")
    left.legend(loc="lower right")
    for place, name in enumerate(reversed(LABELS)):
        values = [run["certified"] for run in found[name]]
        right.barh(place, np.mean(values), 0.6, color=COLOURS[name])
        right.plot(values, [place] * len(values), ".", color=INK, markersize=3)
    right.set_yticks(range(len(LABELS)), [LABELS[name] for name in reversed(LABELS)])
    right.set_xlabel("certified accuracy at radius 0.25, %")
    right.set_title("Certified", loc="left")
    return figure
