from __future__ import annotations

import numpy as np
import pytest

from anyorder_studies.chen2023lionk.picture import LABELS, draw_ways
from anyorder_studies.chen2023lionk.quadratics import BALLS
from anyorder_studies.chen2023lionk.study import DECAY, FIRST


def test_ways_over_their_radius_and_curves_over_their_steps() -> None:
    found = {
        ball: {"outside": [4.0 - place, 1.0, 0.0], "levels": [5.0, 3.0], "losses": [4.0, 4.5]}
        for place, ball in enumerate(BALLS)
    }
    figure = draw_ways(found, steps=100, watched=1_000)
    left, right = figure.axes
    assert list(LABELS) == list(BALLS)
    assert [line.get_label() for line in left.lines] == [*LABELS.values()]
    for place, line in enumerate(left.lines):
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        assert x.tolist() == [0, 50]  # what is inside has no place on a logarithmic axis
        assert y.tolist() == pytest.approx([(4.0 - place) * DECAY, DECAY])
    assert [line.get_label() for line in right.lines] == ["H", "loss"]
    assert np.asarray(right.lines[1].get_ydata()).tolist() == [4.0, 4.5]
    assert np.asarray(right.lines[0].get_xdata())[-1] == FIRST - 1
    short = draw_ways(found, steps=100, watched=20)
    assert np.asarray(short.axes[1].lines[0].get_xdata())[-1] == 20
