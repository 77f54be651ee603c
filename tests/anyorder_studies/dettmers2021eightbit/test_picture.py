from __future__ import annotations

import math

from anyorder_studies.dettmers2021eightbit.picture import BLOCKS, LABELS, draw_formats
from anyorder_studies.study import Measurement

FOUND = {
    "float32": [{"loss": 1.0}, {"loss": 2.0}],
    **{name: [{"loss": 1.0 + math.log(1.02)}, {"loss": 2.0 + math.log(1.08)}] for name in LABELS},
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
    figure = draw_formats(FOUND, measured(Measurement(1.05, 1.02, 1.08, 2)))
    left, right = figure.axes
    seeds = [list(line.get_xdata()) for line in left.lines if line.get_marker() == "."]
    assert len(seeds) == len(LABELS)
    assert all(math.isclose(a, 1.02) and math.isclose(b, 1.08) for a, b in seeds)
    assert [text.get_text() for text in left.texts] == ["1.050"] * len(LABELS)
    assert [1.02, 1.08] in [
        list(line.get_xdata()) for line in left.lines if line.get_marker() != "."
    ]
    assert len(right.lines) == 4
    assert all(list(line.get_ydata()) == [0.1] * len(BLOCKS) for line in right.lines)


def test_one_seed_has_no_interval_to_draw() -> None:
    single = Measurement(1.05, -math.inf, math.inf, 1)
    figure = draw_formats({name: runs[:1] for name, runs in FOUND.items()}, measured(single))
    assert all(math.isfinite(x) for line in figure.axes[0].lines for x in line.get_xdata())


def test_what_lies_far_off_is_written_instead_of_drawn() -> None:
    figure = draw_formats(FOUND, measured(Measurement(24.31, 20.0, 30.0, 2)))
    assert [text.get_text() for text in figure.axes[0].texts] == [
        "24.3 \N{RIGHTWARDS ARROW}"
    ] * len(LABELS)
    assert [line for line in figure.axes[0].lines if line.get_marker() == "."] == []
