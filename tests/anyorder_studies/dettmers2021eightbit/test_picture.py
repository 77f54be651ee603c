from __future__ import annotations

import math

from anyorder_studies.dettmers2021eightbit.picture import BLOCKS, LABELS, draw_formats
from anyorder_studies.study import Measurement

FOUND = {
    "float32": [{"loss": 1.0}, {"loss": 2.0}],
    **{name: [{"loss": 1.0 + math.log(2)}, {"loss": 2.0 + math.log(3)}] for name in LABELS},
}
ERRORS = {
    f"{key}_{table}_{block}": Measurement(0.1, 0.1, 0.1, 2)
    for key in ("error", "lost")
    for table in ("dynamic", "linear")
    for block in BLOCKS
}


def measured(total: Measurement) -> dict[str, Measurement]:
    return {**ERRORS, **{f"perplexity_ratio_{name}_lm": total for name in LABELS}}


def test_each_format_has_its_seeds_its_interval_and_its_value() -> None:
    figure = draw_formats(FOUND, measured(Measurement(2.5, 2.0, 3.0, 2)))
    left, right = figure.axes
    seeds = [list(line.get_xdata()) for line in left.lines if line.get_marker() == "."]
    assert len(seeds) == len(LABELS)
    assert all(math.isclose(a, 2.0) and math.isclose(b, 3.0) for a, b in seeds)
    assert [text.get_text() for text in left.texts] == ["2.5"] * len(LABELS)
    assert [2.0, 3.0] in [list(line.get_xdata()) for line in left.lines if line.get_marker() != "."]
    assert len(right.lines) == 4
    assert all(list(line.get_ydata()) == [0.1] * len(BLOCKS) for line in right.lines)


def test_one_seed_has_no_interval_to_draw() -> None:
    single = Measurement(2.5, -math.inf, math.inf, 1)
    figure = draw_formats({name: runs[:1] for name, runs in FOUND.items()}, measured(single))
    assert all(math.isfinite(x) for line in figure.axes[0].lines for x in line.get_xdata())
