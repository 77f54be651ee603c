from __future__ import annotations

from anyorder_studies.benson2018simplicial.picture import draw_scores
from anyorder_studies.study import Measurement, exact


def test_all_scores_are_drawn_in_order() -> None:
    names = {"weak": "weak", "strong": "strong"}
    measurements = {
        "weak": Measurement(1.0, 0.8, 1.2, 3),
        "strong": Measurement(2.0, 1.8, 2.2, 3),
        "weak_as_published": exact(1.1),
        "strong_as_published": exact(2.1),
        **{f"{ties}_ties": Measurement(0.1, 0.05, 0.2, 3) for ties in range(4)},
    }
    figure = draw_scores(names, {"weak"}, measurements)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["weak", "strong"]
    assert right.get_yscale() == "log"
