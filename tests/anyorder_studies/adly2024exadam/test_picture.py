from __future__ import annotations

import pytest

from anyorder_studies.adly2024exadam.picture import LINES, RATIOS, draw_sweeps
from anyorder_studies.study import Measurement, exact


def test_sweeps_mark_what_was_chosen_and_ratios_are_named() -> None:
    grid = [1e-3, 1e-2, 1e-1]
    sweeps = {name: [2.0, 1.0 + place, 3.0] for place, name in enumerate(LINES)}
    measurements = {name: Measurement(0.5, 0.4, 0.6, 2) for name in RATIOS}
    measurements |= {f"lr_{name}": exact(1e-2) for name in LINES}
    figure = draw_sweeps(grid, sweeps, measurements)
    left, right = figure.axes
    drawn = {line.get_label(): line for line in left.lines}
    for place, (label, _, style) in enumerate(LINES.values()):
        assert drawn[label].get_ydata().tolist() == [2.0, 1.0 + place, 3.0]
        assert drawn[label].get_linestyle() == style
    dots = [line for line in left.lines if len(line.get_xdata()) == 1]
    assert [dot.get_ydata()[0] for dot in dots] == [1.0 + place for place in range(len(LINES))]
    assert all(dot.get_xdata()[0] == pytest.approx(1e-2) for dot in dots)
    assert [label.get_text() for label in right.get_yticklabels()] == list(
        reversed(RATIOS.values())
    )
    assert [text.get_text() for text in right.texts] == ["0.50"] * len(RATIOS)
