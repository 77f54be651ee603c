"""The figure of the study of NAV light curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from anyorder_studies.drawing import INK, PALETTE
from anyorder_studies.study import Measurement, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATIOS = {
    "error_ratio_narrow": "narrow, simulated:\nerror to the truth",
    "error_ratio_total": "total, simulated:\nerror to the truth",
    "error_ratio_wide": "wide, simulated:\nerror to the truth",
    "accuracy_ratio_asas_sn": "ASAS-SN:\nstandard error",
    "held_out_ratio_asas_sn": "ASAS-SN:\nheld-out error",
    "accuracy_ratio_tess": "TESS:\nstandard error",
    "held_out_ratio_tess": "TESS:\nheld-out error",
}


def draw_fits(shown: Result, measurements: Mapping[str, Measurement]) -> Figure:
    """Plot one real curve with both fits, and the ratios of their errors.

    Args:
        shown: Result of a unit with its held-out points and both curves.
        measurements: All measurements of the study.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.9))
    layout: list[Any] = [["whole", "ratios"], ["zoom", "ratios"]]
    axes: Any = figure.subplot_mosaic(layout, width_ratios=(1.5, 1.0))
    whole, zoom, right = axes["whole"], axes["zoom"], axes["ratios"]
    for axis in (whole, zoom):
        axis.plot(shown["phase"], shown["magnitude"], ".", color=PALETTE[6], markersize=3)
        trig = f"polynomial, {shown['parameters_trig']} parameters"
        axis.plot(shown["grid"], shown["trig"], color=PALETTE[1], linewidth=1.0, label=trig)
        nav = f"NAV, {shown['parameters_nav']} parameters"
        axis.plot(shown["grid"], shown["nav"], color=PALETTE[0], linewidth=1.4, label=nav)
        axis.set_ylabel("magnitude")
    whole.invert_yaxis()
    whole.tick_params(labelbottom=False)
    whole.set_title("ASAS-SN with held-out points", loc="left")
    whole.legend(loc="lower right")
    zoom.set_ylim(0.055, -0.055)
    zoom.set_xlabel("phase (below: between the eclipses)")
    for place, name in enumerate(reversed(RATIOS)):
        found = measurements[name]
        colour = PALETTE[0] if found.value > 1 else PALETTE[1]
        right.plot([found.low, found.high], [place, place], color=colour, linewidth=1.4)
        right.plot(found.value, place, "o", color=colour, markersize=5)
    right.axvline(1.0, color=INK, linewidth=0.8, linestyle=":")
    right.set_yticks(range(len(RATIOS)), list(reversed(RATIOS.values())))
    right.set_xlabel("polynomial over NAV")
    right.set_title("Above 1: NAV is better", loc="left")
    return figure
