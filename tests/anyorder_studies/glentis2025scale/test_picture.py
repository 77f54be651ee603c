from __future__ import annotations

from anyorder_studies.glentis2025scale.picture import LABELS, draw_losses_and_memory
from anyorder_studies.study import Measurement

FOUND = {
    name: [{"curve": [4.0, 3.0], "loss": 2.0 + place}, {"curve": [2.0, 1.0], "loss": 3.0 + place}]
    for place, name in enumerate(LABELS)
}
MEASURED = {
    f"kilobytes_{name}": Measurement(x, x, x, 1)
    for name, x in zip(LABELS, (1.0, 2.0, 3.0, 6.0), strict=True)
}


def test_curves_are_means_and_points_are_seeds() -> None:
    left, right = draw_losses_and_memory(FOUND, MEASURED).axes
    assert [line.get_label() for line in left.lines] == list(LABELS.values())
    assert [list(line.get_ydata()) for line in left.lines] == [[3.0, 2.0]] * 4
    assert list(left.lines[0].get_xdata()) == [25.0, 75.0]
    assert [list(line.get_ydata()) for line in right.lines][1] == [3.0, 4.0]
    assert [line.get_color() for line in right.lines] == [line.get_color() for line in left.lines]
    assert right.get_xlim() == (0.0, 6.6000000000000005)


def test_a_run_that_diverged_ends_its_curve() -> None:
    runs = [{"curve": [4.0], "loss": 5.5}, {"curve": [2.0, 1.0], "loss": 2.0}]
    left, _ = draw_losses_and_memory({**FOUND, "sgd": runs}, MEASURED).axes
    assert list(left.lines[0].get_ydata()) == [3.0]
