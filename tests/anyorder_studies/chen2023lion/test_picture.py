from __future__ import annotations

import math

from anyorder_studies.chen2023lion.picture import draw_ratios
from anyorder_studies.study import Measurement

FOUND = {
    batch: (
        [{"loss": 1.0, "validation_loss": 3.0}] * 2,
        [{"loss": 2.0, "validation_loss": 2.0}] * 2,
    )
    for batch in ("16", "512")
}
NAMES = [f"{key}_ratio_{batch}" for key in ("loss", "validation_loss") for batch in FOUND]


def test_each_batch_has_its_seeds_and_its_interval() -> None:
    figure = draw_ratios(FOUND, {name: Measurement(0.5, 0.4, 0.6, 2) for name in NAMES})
    training, validation = figure.axes
    assert [label.get_text() for label in training.get_xticklabels()] == ["16", "512"]
    assert [text.get_text() for text in training.texts] == ["0.50", "0.50"]
    seeds = [line.get_ydata() for line in validation.lines if line.get_marker() == "."]
    assert [list(values) for values in seeds] == [[1.5, 1.5]] * 2


def test_one_seed_has_no_interval_to_draw() -> None:
    single = Measurement(0.5, -math.inf, math.inf, 1)
    figure = draw_ratios(FOUND, dict.fromkeys(NAMES, single))
    assert all(math.isfinite(y) for line in figure.axes[0].lines for y in line.get_ydata())
