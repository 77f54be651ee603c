from __future__ import annotations

from anyorder_studies.shu2023fzoos.picture import LABELS, draw_gaps
from anyorder_studies.shu2023fzoos.quadratics import METHODS


def test_a_panel_for_each_number_of_parameters() -> None:
    run = {"queries": [0, 100], "best": [1.0, 0.1]}
    figure = draw_gaps({(m, d): [run] * 2 for m in METHODS for d in (2, 3)}, (2, 3))
    left, right = figure.axes
    assert set(LABELS) == set(METHODS)
    assert len(left.lines) == len(right.lines) == 2 * len(METHODS)
    assert list(left.lines[0].get_ydata()) == [1.0, 0.1] and left.get_yscale() == "log"
    assert [panel.get_title(loc="left") for panel in (left, right)] == [
        "2 parameters",
        "3 parameters",
    ]
