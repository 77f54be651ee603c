from __future__ import annotations

import pytest

from anyorder_studies.parimi2025acceleration.picture import PATHS, SMALLEST, draw_family


def test_every_start_is_a_dot_and_every_member_a_line() -> None:
    ratios = {10.0: [1.5, 1.6], 1000.0: [14.0, 13.0]}
    paths = {name: [3.0, 1.0, 0.0] for name in PATHS}
    figure = draw_family(ratios, paths)
    left, right = figure.axes
    dots = [list(line.get_ydata()) for line in left.lines if line.get_marker() == "o"]
    assert dots == list(ratios.values())
    (theory,) = (line for line in left.lines if line.get_linestyle() == ":")
    assert theory.get_ydata().tolist() == pytest.approx([10**0.5 / 2, 1000**0.5 / 2])
    assert [line.get_label() for line in right.lines] == [label for label, _ in PATHS.values()]
    for line in right.lines:
        assert line.get_ydata().tolist() == [3.0, 1.0, SMALLEST]  # a logarithm has no zero
