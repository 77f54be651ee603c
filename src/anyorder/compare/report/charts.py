"""Common parts of all charts: axes, marks, scales, and conversion to JSON.

Each chart is a dict that ``templates/chart.js`` draws. Python, where it can be tested, decides the
content: numbers, scales, marks of the methods, the table of the chart and its alternative text. The
script only draws it.

A chart has ``views``: one per axis of cost, or a single one named ``fixed``. A view has the
``x`` axis and ``series``, one per method ``m``, with any of ``band`` (x, low, high), ``line``
(x, y), ``thin`` (single runs), ``dots`` (marks with a text each), ``bars`` (low, high, row) and
``edges`` (brackets on the x axis). A coordinate of ``None`` means that there is no number: runs
that missed the target or diverged are drawn separately, in the ``gutter``. An axis may have a
``range`` (see :func:`focus`), outside of which values are only marked until the reader selects the
full range. A chart with nothing to draw says why in ``empty``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from anyorder.compare.report.formats import show
from anyorder.compare.stats.estimators import Floats, Goal
from anyorder.compare.stats.records import Axis

Chart = dict[str, Any]
Series = dict[str, Any]

AXIS_LABELS: dict[Axis, str] = {
    "seconds": "seconds of training",
    "calls": "calls",
    "forwards": "forward-pass equivalents",
    "steps": "steps",
}
#: What stands for values outside the range of a chart.
LEAVING, AT_EDGE = "triangles mark where lines leave it", "triangles at its edge stand for them"
DASHES, SHAPES = 3, 6
#: Colours for light and dark pages, distinguishable with any colour vision.
PALETTE = (
    ("#1f2d87", "#4c67f2"),
    ("#f34f0e", "#fa7f15"),
    ("#19966e", "#4fbe93"),
    ("#8747d7", "#bd96fe"),
    ("#6b1426", "#d02010"),
    ("#006682", "#8ee5fd"),
    ("#6e5006", "#f7d505"),
    ("#da64be", "#ad629a"),
)
#: Leaving out values must shorten an axis by at least this factor to be worth it.
WORTH = 1.5
#: Positive numbers that span more than this many decades are drawn on a logarithmic scale.
LOG_DECADES = 1.5


def marks(count: int) -> list[dict[str, int]]:
    """Colour, dash and shape of each method: unique for up to 24, and never only by colour."""
    return [
        {"colour": i % len(PALETTE), "dash": i // len(PALETTE) % DASHES, "shape": i % SHAPES}
        for i in range(count)
    ]


def palette() -> str:
    """Style classes of the colours."""
    return "".join(
        f".c{i} {{ --c: light-dark({light}, {dark}); }}\n"
        for i, (light, dark) in enumerate(PALETTE)
    )


def wants_log(values: Sequence[float], goal: Goal = "min") -> bool:
    """Whether finite numbers are all positive and span more than a decade and a half.

    Never where large is good: a logarithmic axis would compress the good values.
    """
    if goal == "max":
        return False
    known = [value for value in values if math.isfinite(value)]
    return bool(known and 0 < min(known) * 10**LOG_DECADES < max(known))


def focus(
    middle: Sequence[float], values: Sequence[float], goal: Goal, *, log: bool, floor: float = 0.0
) -> list[float] | None:
    """The part of an axis that matters, so that a few bad values do not compress all others.

    It extends from the best value to the worst one within Tukey's fence on the bad side: the
    quartile plus 1.5 interquartile ranges.

    Args:
        middle: Values that determine the fence.
        values: All values of the axis.
        goal: Whether small or large is good.
        log: Whether the axis is logarithmic; then other values than positive ones do not count.
        floor: Minimum length of a linear axis.

    Returns:
        Both ends, or None if the axis should show all values.
    """
    sign = 1.0 if goal == "min" else -1.0

    def places(numbers: Sequence[float]) -> list[float]:
        shown = [v for v in numbers if math.isfinite(v) and (v > 0 or not log)]
        return [sign * (math.log10(v) if log else v) for v in shown]

    core, every = places(middle), places(values)
    if not core or not every:
        return None
    first, third = np.quantile(core, [0.25, 0.75])
    best, worst = min(every), max(every)
    fence = max(third + 1.5 * (third - first), best + (0.0 if log else floor))
    end = max(place for place in every if place <= max(fence, best))
    if end == best or worst - best <= WORTH * (end - best):
        return None
    return sorted(10 ** (sign * place) if log else sign * place for place in (best, end))


def outside(ends: Sequence[float] | None, goal: Goal, marks: str) -> str:
    """A note on values outside the range; empty if all are inside."""
    if ends is None:
        return ""
    where = f"above {show(ends[1])}" if goal == "min" else f"below {show(ends[0])}"
    return f"Values {where} are outside the chart; {marks}. “Full range” shows them."


def dot(x: float | None, y: float | None, text: str, kind: str = "seed") -> dict[str, Any]:
    """A mark: ``seed`` for a single run, ``centre`` for the summary of all runs."""
    return {"x": x, "y": y, "text": text, "kind": kind}


def known(value: float) -> float | None:
    """The number, or None if it is not finite: JSON has no infinity."""
    return float(value) if math.isfinite(value) else None


def short(values: Floats) -> list[float | None]:
    """Round derived numbers to seven digits; recorded numbers are not rounded."""
    return [known(float(f"{value:.7g}")) for value in values.tolist()]
