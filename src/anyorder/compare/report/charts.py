"""Common parts of all charts: axes, marks, scales, and conversion to JSON.

Each chart is a dict that ``templates/chart.js`` draws. Python, where it can be tested, decides the
content: numbers, scales, marks of the methods, the table of the chart and its alternative text. The
script only draws it.

A chart has ``views``: one per axis of cost, or a single one named ``fixed``. A view has the
``x`` axis and ``series``, one per method ``m``, with any of ``band`` (x, low, high), ``line``
(x, y), ``thin`` (single runs), ``dots`` (marks with a text each), ``bars`` (low, high, row) and
``edges`` (brackets on the x axis). A coordinate of ``None`` means that there is no number: runs
that missed the target or diverged are drawn separately, in the ``gutter``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from anyorder.compare.stats.estimators import Floats
from anyorder.compare.stats.records import Axis

Chart = dict[str, Any]
Series = dict[str, Any]

AXIS_LABELS: dict[Axis, str] = {
    "seconds": "seconds of training",
    "calls": "calls",
    "forwards": "forward-pass equivalents",
    "steps": "steps",
}
COLOURS, DASHES, SHAPES = 8, 3, 6
#: Positive numbers that span more than this many decades are drawn on a logarithmic scale.
LOG_DECADES = 1.5


def marks(count: int) -> list[dict[str, int]]:
    """Colour, dash and shape of each method: unique for up to 24, and never only by colour."""
    return [
        {"colour": i % COLOURS, "dash": i // COLOURS % DASHES, "shape": i % SHAPES}
        for i in range(count)
    ]


def wants_log(values: Sequence[float]) -> bool:
    """Whether finite numbers are all positive and span more than a decade and a half."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known and 0 < min(known) * 10**LOG_DECADES < max(known))


def dot(x: float | None, y: float | None, text: str, kind: str = "seed") -> dict[str, Any]:
    """A mark: ``seed`` for a single run, ``centre`` for the summary of all runs."""
    return {"x": x, "y": y, "text": text, "kind": kind}


def known(value: float) -> float | None:
    """The number, or None if it is not finite: JSON has no infinity."""
    return float(value) if math.isfinite(value) else None


def short(values: Floats) -> list[float | None]:
    """Round derived numbers to seven digits; recorded numbers are not rounded."""
    return [known(float(f"{value:.7g}")) for value in values.tolist()]
