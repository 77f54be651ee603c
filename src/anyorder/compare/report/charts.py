"""What all charts of a report share: axes, marks, scales, and numbers fit for JSON.

Each chart is a dict that ``templates/chart.js`` draws. Everything with a meaning is decided in
Python, where it can be tested: which numbers, which scale, which marks for which method, the table
behind the chart, and words for those who cannot see it. The script only turns it into lines.

A chart has ``views``: one per axis of cost, or a single one named ``fixed``. A view has the
``x`` axis and ``series``, one per method ``m``, with any of ``band`` (x, low, high), ``line``
(x, y), ``thin`` (single runs), ``dots`` (marks with a text each), ``bars`` (low, high, row) and
``edges`` (brackets on the x axis). A coordinate of ``None`` means that there is no number: a run
that missed or diverged is drawn apart, in the ``gutter``.
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
    """Colour, dash and shape of each method: no two alike for up to 24, and never colour alone."""
    return [
        {"colour": i % COLOURS, "dash": i // COLOURS % DASHES, "shape": i % SHAPES}
        for i in range(count)
    ]


def wants_log(values: Sequence[float]) -> bool:
    """Whether finite numbers are all positive and span more than a decade and a half."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known and 0 < min(known) * 10**LOG_DECADES < max(known))


def dot(x: float | None, y: float | None, text: str, kind: str = "seed") -> dict[str, Any]:
    """A mark: ``seed`` for a single run, ``centre`` for what stands for all of them."""
    return {"x": x, "y": y, "text": text, "kind": kind}


def known(value: float) -> float | None:
    """The number, or None if it is not finite: JSON cannot say infinity."""
    return float(value) if math.isfinite(value) else None


def short(values: Floats) -> list[float | None]:
    """Derived numbers to seven digits; what was recorded is kept as it is."""
    return [known(float(f"{value:.7g}")) for value in values.tolist()]
