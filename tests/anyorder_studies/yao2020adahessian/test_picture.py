from __future__ import annotations

import pytest

from anyorder_studies.study import Measurement
from anyorder_studies.yao2020adahessian.picture import CURVES, RATIOS, draw_contest


def test_curves_run_over_their_own_seconds_and_ratios_are_named() -> None:
    result = {f"curve_{name}": [2.0, 1.0, 0.5] for name in CURVES}
    result |= {f"steps_{name}": 100 for name in CURVES}
    result |= {"seconds_rows": 0.004, "seconds_none": 0.005, "seconds_adamw": 0.002}
    figure = draw_contest([result, result], {n: Measurement(0.5, 0.4, 0.6, 2) for n in RATIOS})
    left, right = figure.axes
    ends = {line.get_label(): line.get_xdata()[-1] for line in left.lines}
    assert ends["AdaHessian, rows averaged"] == pytest.approx(0.4)
    assert ends["AdaHessian, not averaged"] == pytest.approx(0.5)
    assert ends["AdamW, equal epochs"] == pytest.approx(0.2)
    assert left.lines[0].get_ydata().tolist() == pytest.approx([2.0, 1.0, 0.5])
    assert [label.get_text() for label in right.get_yticklabels()] == list(
        reversed(RATIOS.values())
    )
    assert [text.get_text() for text in right.texts] == ["0.50"] * len(RATIOS)
