from __future__ import annotations

import pytest

from anyorder_studies.lau2024adadagrad.picture import WORDS, draw_batches


def test_each_contestant_has_its_seeds_and_growing_ones_their_sizes() -> None:
    result = {"steps": 10, "loss": 0.5, "samples": 300, "sizes": [[8, 8], [24, 64]]}
    figure = draw_batches(
        [(name, {**result, "steps": 10 + seed}) for name in WORDS for seed in (0, 1)]
    )
    losses, sizes = figure.axes
    assert [line.get_label() for line in losses.lines] == list(WORDS.values())
    assert all(list(line.get_xdata()) == [10, 11] for line in losses.lines)
    assert len(sizes.lines) == 2 * 2
    assert list(sizes.lines[0].get_xdata()) == [8, 24, 300]
    assert list(sizes.lines[0].get_ydata()) == [8, 64, 64]
    assert losses.get_yscale() == sizes.get_xscale() == "log"


@pytest.mark.parametrize("count", [1, 5])
def test_no_more_than_three_seeds_of_sizes_are_drawn(count: int) -> None:
    result = {"steps": 10, "loss": 0.5, "samples": 300, "sizes": [[8, 8]]}
    figure = draw_batches([("eta_1", result)] * count)
    assert len(figure.axes[1].lines) == min(count, 3)
