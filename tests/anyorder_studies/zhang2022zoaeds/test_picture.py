from __future__ import annotations

from anyorder_studies.zhang2022zoaeds.defence import METHODS
from anyorder_studies.zhang2022zoaeds.picture import CURVES, LABELS, draw_defences


def test_curves_over_queries_and_a_bar_for_each_defence() -> None:
    runs = {
        name: [{"queries": [0.0, 33.0], "noisy": [0.5, 0.7], "certified": float(place)}] * 2
        for place, name in enumerate(METHODS)
    }
    left, right = draw_defences(runs).axes
    assert len(left.lines) == 2 * len(CURVES)
    assert list(left.lines[0].get_ydata()) == [50.0, 70.0]
    assert set(LABELS) == set(METHODS)
    widths = [bar.get_width() for bar in right.patches]
    assert widths == [float(METHODS.index(name)) for name in reversed(LABELS)]
