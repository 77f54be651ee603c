from __future__ import annotations

from anyorder_studies.andronov2016nav.picture import RATIOS, draw_fits
from anyorder_studies.study import Measurement


def test_both_fits_and_all_ratios_are_drawn() -> None:
    shown = {
        "phase": [0.1, 0.2], "magnitude": [0.0, 0.5], "grid": [0.1, 0.2], "nav": [0.0, 0.5],
        "trig": [0.1, 0.4], "parameters_nav": 11, "parameters_trig": 67,
    }  # fmt: skip
    figure = draw_fits(shown, {name: Measurement(1.5, 1.0, 2.0, 3) for name in RATIOS})
    labels = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert labels == {"polynomial, 67 parameters", "NAV, 11 parameters"}
    ratios = next(axis for axis in figure.axes if axis.get_xlabel() == "polynomial over NAV")
    assert len(ratios.get_yticks()) == len(RATIOS)
    whole = figure.axes[0]
    assert whole.get_ylim()[0] > whole.get_ylim()[1]  # bright is up
