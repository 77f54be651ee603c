"""The figure of the study of FZooS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anyorder_studies.drawing import PALETTE
from anyorder_studies.study import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "fzoos": ("FZooS", PALETTE[0]),
    "fedzo": ("FedZO", PALETTE[1]),
    "fedprox": ("FedProx", PALETTE[2]),
    "scaffold_1": ("SCAFFOLD I", PALETTE[3]),
    "scaffold_2": ("SCAFFOLD II", PALETTE[4]),
}


def draw_gaps(found: Mapping[tuple[str, int], Sequence[Result]], dims: Sequence[int]) -> Figure:
    """Plot the gap over the queries of a client, one panel for each number of parameters.

    Args:
        found: Results by method and number of parameters, one per seed.
        dims: Numbers of parameters.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.3))
    panels: Any = figure.subplots(1, len(dims), squeeze=False)
    for panel, dim in zip(panels[0], dims, strict=True):
        for method, (label, colour) in LABELS.items():
            for number, run in enumerate(found[method, dim]):
                panel.plot(
                    run["queries"], run["best"], color=colour, linewidth=0.9, alpha=0.75,
                    label=label if number == 0 else None,
                )  # fmt: skip
        panel.set_yscale("log")
        panel.set_xlabel("queries of one client")
        panel.set_title(f"{dim} parameters", loc="left")
    panels[0][0].set_ylabel("mean loss minus its minimum")
    panels[0][-1].legend(loc="lower left")
    return figure
