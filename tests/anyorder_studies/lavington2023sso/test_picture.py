from __future__ import annotations

import pytest

from anyorder_studies.lavington2023sso.picture import PANELS, draw_descents


def test_each_task_has_its_contestants_with_all_seeds_and_a_mean() -> None:
    names = ["full_gd", "full_10", "full_30", "batch_gd", "batch_10", "network_gd", "network_10"]
    results = [
        (name, {"targets": 10, "curve": [2.0, value]}) for name in names for value in (0.25, 1.0)
    ]
    figure = draw_descents([*results, ("priced_gd", {"targets": 14, "curve": [1.0, 1.0]})])
    assert [axis.get_title(loc="left") for axis in figure.axes] == list(PANELS.values())
    assert [len(axis.lines) for axis in figure.axes] == [9, 6, 6]
    mean = figure.axes[0].lines[2]
    assert list(mean.get_xdata()) == [0.0, 10.0]
    assert list(mean.get_ydata()) == pytest.approx([2.0, 0.5])
    assert all(axis.get_yscale() == "log" for axis in figure.axes)


def test_a_run_cut_short_is_drawn_as_far_as_all_came() -> None:
    results = [("full_gd", {"targets": 10, "curve": [2.0, 1.0, 0.5][:n]}) for n in (2, 3)]
    assert len(draw_descents(results).axes[0].lines[2].get_xdata()) == 2
