"""The figure of the study of SCALE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyorder_studies.drawing import PALETTE
from anyorder_studies.study import Measurement, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {"sgd": "SGD", "column_sgd": "SGD, columns", "scale": "SCALE", "adam": "Adam"}


def draw_losses_and_memory(
    found: Mapping[str, Sequence[Result]], measurements: Mapping[str, Measurement]
) -> Figure:
    """Plot training losses over steps, and validation losses over bytes of weights and state.

    Args:
        found: Results by method, ordered by seed.
        measurements: All measurements of the study.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.3))
    axes: Any = figure.subplots(1, 2)
    for colour, (name, label) in zip(PALETTE, LABELS.items(), strict=False):
        curves = [run["curve"] for run in found[name]]
        places = [100 * (i + 0.5) / len(curves[0]) for i in range(len(curves[0]))]
        mean = [sum(values) / len(values) for values in zip(*curves, strict=False)]
        axes[0].plot(places[: len(mean)], mean, color=colour, label=label)
        kilobytes = measurements[f"kilobytes_{name}"].value
        losses = [run["loss"] for run in found[name]]
        axes[1].plot([kilobytes] * len(losses), losses, "o", color=colour, markersize=5)
    axes[0].set_xlabel("steps in %")
    axes[0].set_ylabel("training loss in nats per byte")
    axes[0].set_title("Training", loc="left")
    axes[0].legend(frameon=False)
    largest = max(measurements[f"kilobytes_{name}"].value for name in LABELS)
    axes[1].set_xlim(0.0, 1.1 * largest)
    axes[1].set_xlabel("weights and state in kB")
    axes[1].set_ylabel("validation loss in nats per byte")
    axes[1].set_title("Result over memory", loc="left")
    return figure
