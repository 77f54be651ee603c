from __future__ import annotations

import pytest

from anyorder_studies.study import Measurement
from anyorder_studies.tang2023zoranksgd.descents import GRIDS, TASKS
from anyorder_studies.tang2023zoranksgd.picture import METHODS, TOLD, draw_ranks_and_values


def test_cosines_and_three_descents() -> None:
    run = {"evaluations": [0, 22, 44], "best": [4.0, 2.0, 1.0]}
    other = {"evaluations": [0, 22, 44], "best": [4.0, 4.0, 4.0]}
    found = {task: {method: [run, other] for method in GRIDS[task]} for task in TASKS}
    measurements = {f"cosine_{name}": Measurement(0.3, 0.2, 0.4, 2) for name in TOLD}
    cosines, quadratic, _, scales, boosting = draw_ranks_and_values(found, measurements).axes
    assert len(cosines.patches) == len(TOLD)
    assert {text.get_text() for text in cosines.texts} == {" 0.30", *TOLD.values()}
    middle = quadratic.lines[0]
    assert list(middle.get_xdata()) == [0, 22, 44]
    assert list(middle.get_ydata()) == pytest.approx([1.0, 0.5**0.5, 0.5])
    assert (quadratic.get_yscale(), scales.get_yscale()) == ("log", "linear")
    assert {line.get_label() for line in boosting.lines} == {
        METHODS[method][0] for method in GRIDS["boosting"]
    }
