"""The charts of a report as SVG files, for papers and web pages.

They show the same data as the charts of ``report.html``, without a browser and in light colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from anyorder.compare.report.charts import PALETTE, Chart, Series, marks
from anyorder.compare.report.formats import show
from anyorder.compare.stats.records import Axis

_WIDTH, _TOP, _HEIGHT, _ROW, _LETTER = 720.0, 64.0, 320.0, 34.0, 6.7
_DASHES = ("", "7 4", "2 3")
_INK, _SOFT, _GRID, _APART = "#171a21", "#565e6e", "#e8ebf0", "#eef0f4"
#: Corners of the marks, in units of their radius. The first one is a circle.
_CORNERS = (
    "",
    "-.9 -.9 .9 -.9 .9 .9 -.9 .9",
    "0 -1.2 1.1 .85 -1.1 .85",
    "0 -1.3 1.3 0 0 1.3 -1.3 0",
    "0 1.2 1.1 -.85 -1.1 -.85",
    "-.4 -1.2 .4 -1.2 .4 -.4 1.2 -.4 1.2 .4 .4 .4 .4 1.2 -.4 1.2 -.4 .4 -1.2 .4 -1.2 -.4 -.4 -.4",
)


def draw(chart: Chart, names: Sequence[str], axis: Axis) -> str:
    """One chart as an SVG document.

    Args:
        chart: A chart that is not empty, see :mod:`anyorder.compare.report.charts`.
        names: The names of all methods.
        axis: The axis of cost, for charts that have several.
    """
    view = chart["views"].get(axis) or chart["views"]["fixed"]
    rows: list[str] | None = chart["y"].get("rows")
    if rows is not None:
        bottom, body = _TOP + _ROW * len(rows), list(_rows(chart, view, rows, marks(len(names))))
    else:
        bottom, body = _TOP + _HEIGHT, list(_plane(chart, view, marks(len(names))))
    shown = [] if rows is not None else [each["m"] for each in view["series"]]
    legend, height = _legend(shown, names, bottom + 64)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height:g}" '
            f'width="{_WIDTH:g}" height="{height:g}" role="img" '
            'font-family="Helvetica, Arial, sans-serif" font-size="12">',
            f"<title>{escape(chart['title'])}</title>",
            f"<desc>{escape(chart['alt'])}</desc>",
            _rectangle(0, 0, _WIDTH, height, "#ffffff"),
            _text(16, 26, chart["title"], "start", _INK, ' font-weight="600" font-size="15"'),
            *body,
            *legend,
            "</svg>",
            "",
        ]
    )


# --- Scales ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """A linear or logarithmic axis from ``low`` to ``high``, drawn from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    whole: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; beyond the end for values that the axis cannot show."""
        if self.log and value <= 0:
            return self.start
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low)
        return self.start + max(-3.0, min(4.0, share)) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """About six round values."""
        if self.log and self.high >= 10 * self.low:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**e for e in range(first, last + 1, 1 + (last - first) // 6)]
        raw = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(part * power for part in (1, 2, 2.5, 5, 10) if part * power >= raw * 0.999)
        step = max(1.0, round(step)) if self.whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _scale(
    values: Sequence[float], spec: dict[str, Any], ends: tuple[float, float], margin: float = 0.05
) -> _Scale:
    log = spec["log"]
    least, most = spec.get("range") or (-math.inf, math.inf)
    inside = [v for v in values if (v > 0 or not log) and least <= v <= most]
    low, high = min(inside, default=0.1), max(inside, default=1.0)
    if spec.get("zero") and not log:
        low = min(0.0, low)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    if log:
        factor = (high / low) ** margin
        return _Scale(low / factor, high * factor, *ends, True)
    rest = (high - low) * margin
    return _Scale(low - rest * (low != 0), high + rest, *ends, False, spec.get("whole", False))


def _values(series: Sequence[Series], axis: int) -> list[float]:
    """All numbers of the lines, bands, dots and bars on the x axis (0) or the y axis (1)."""
    found: list[float | None] = []
    for each in series:
        lines = [each["line"]] if "line" in each else []
        lines += [(run["x"], run["y"]) for run in each.get("thin", [])]
        found += [value for line in lines for value in line[axis]]
        found += [mark["xy"[axis]] for mark in each.get("dots", [])]
        if axis == 0:
            found += [end for bar in each.get("bars", []) for end in bar[:2]]
            found += each.get("edges") or []
        elif "band" in each:
            found += [*each["band"][1], *each["band"][2]]
    return [value for value in found if value is not None]


# --- Kinds of charts ---------------------------------------------------------------------------


def _plane(chart: Chart, view: dict[str, Any], looks: Sequence[dict[str, int]]) -> Iterator[str]:
    """Curves, or a scatter."""
    left, right, bottom = 66.0, _WIDTH - 18, _TOP + _HEIGHT
    top = _TOP + (30 if chart.get("gutter") else 0)
    series, curve = view["series"], chart["kind"] == "curve"
    lines = chart.get("lines", [])
    x = _scale(_values(series, 0), view["x"], (left, right), 0.0 if curve else 0.05)
    y = _scale([*_values(series, 1), *(e["at"] for e in lines)], chart["y"], (bottom, top))
    yield from _x_axis(x, view["x"]["label"], top, bottom)
    yield _text(left, _TOP - 14, chart["y"]["label"], "start")
    if chart.get("gutter"):
        yield _rectangle(left, _TOP - 6, right - left, 22, _APART)
        yield _text(right - 6, _TOP + 9, chart["gutter"], "end")
    for tick in y.ticks():
        yield f'<path d="M{left:g} {y(tick):.1f}H{right:g}" stroke="{_GRID}"/>'
        yield _text(left - 8, y(tick) + 4, show(tick), "end")
    clip = f"inside-{chart['id']}"
    inside = _rectangle(left, top - 6, right - left + 8, bottom - top + 12)
    yield f'<clipPath id="{clip}">{inside}</clipPath><g clip-path="url(#{clip})">'
    for each in series:
        colour = PALETTE[looks[each["m"]]["colour"]][0]
        if "band" in each:
            xs, low, high = each["band"]
            there, back = _points(xs, low, x, y, chart), _points(xs, high, x, y, chart)[::-1]
            yield f'<path d="{_path([*there, *back])}Z" fill="{colour}" fill-opacity=".13"/>'
        for run in each.get("thin", []):
            points = _points(run["x"], run["y"], x, y, chart)
            yield _stroke(points, colour, ' stroke-opacity=".35"')
            yield from _leaving(points, chart, (top, bottom), colour)
            if run["lost"]:
                yield _cross(points[-1][0], max(top, min(bottom, points[-1][1])), colour)
    for each in series:
        look = looks[each["m"]]
        colour, points = (
            PALETTE[look["colour"]][0],
            _points(each["line"][0], each["line"][1], x, y, chart),
        )
        wide = f' stroke-width="2.3" stroke-dasharray="{_DASHES[look["dash"]]}"'
        yield _stroke(points, colour, wide if curve else ' stroke-opacity=".35"')
        if curve and points:
            yield _symbol(look["shape"], points[-1][0], points[-1][1], 4.5, colour)
            yield from _leaving(points, chart, (top, bottom), colour)
        yield from _brackets(each, x, bottom, colour)
    yield "</g>"
    for each in series:
        yield from _dots(each, looks[each["m"]], (x, y), (top, bottom))
    for line in lines:
        at = y(line["at"])
        if top <= at <= bottom:
            yield f'<path d="M{left:g} {at:.1f}H{right:g}" stroke="{_INK}" stroke-dasharray="1 4"/>'
            worse = 16 if chart["y"]["goal"] == "max" else -6
            yield _text(left + 6, at + worse, line["label"], "start", _INK)


def _brackets(each: Series, x: _Scale, bottom: float, colour: str) -> Iterator[str]:
    """The ends of the searched range, on the x axis."""
    for way, end in zip((5, -5), each.get("edges") or [], strict=False):
        foot = bottom - 2 - 4 * (each["m"] % 6)
        d = f"M{x(end) + way:.1f} {foot - 9:g}H{x(end):.1f}V{foot:g}H{x(end) + way:.1f}"
        yield f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def _dots(
    each: Series, look: dict[str, int], scales: tuple[_Scale, _Scale], ends: tuple[float, float]
) -> Iterator[str]:
    """The dots of a scatter: crosses for those without a number, triangles for those outside."""
    (x, y), (top, bottom), colour = scales, ends, PALETTE[look["colour"]][0]
    for mark in each.get("dots", []):
        place, size = x(mark["x"]), 6.5 if mark["kind"] == "centre" else 4
        if mark["y"] is None:
            yield _cross(place, _TOP + 5, colour)
        elif top - 6 <= (at := y(mark["y"])) <= bottom + 6:
            yield _symbol(look["shape"], place, at, size, colour)
        else:
            yield _arrow(place, *((top, 0, -1) if at < top else (bottom, 0, 1)), colour)


def _rows(
    chart: Chart, view: dict[str, Any], rows: Sequence[str], looks: Sequence[dict[str, int]]
) -> Iterator[str]:
    """One row per method."""
    left = min(0.36 * _WIDTH, max(map(len, rows), default=0) * _LETTER + 28)
    aside = 84.0 if chart.get("gutter") else 0.0
    right, bottom = _WIDTH - 18 - aside, _TOP + _ROW * len(rows)
    x = _scale(_values(view["series"], 0), view["x"], (left + 8, right - 8))
    yield from _x_axis(x, view["x"]["label"], _TOP, bottom)
    if aside:
        yield _rectangle(right + 8, _TOP, aside, bottom - _TOP, _APART)
        yield _text(right + 8 + aside / 2, bottom + 18, chart["gutter"])
    room = int((left - 20) / _LETTER)
    for i, name in enumerate(rows):
        at = _TOP + _ROW * (i + 0.5)
        yield f'<path d="M{left:g} {at:g}H{right:g}" stroke="{_GRID}"/>'
        shown = name if len(name) <= room else f"{name[: room - 1]}…"
        yield _text(left - 10, at + 4, shown, "end", _INK)
    for each in view["series"]:
        look = looks[each["m"]]
        colour = PALETTE[look["colour"]][0]
        for low, high, row in each.get("bars", []):
            at = _TOP + _ROW * (row + 0.5) - 5
            a, b = (left if low is None else x(low)), (right if high is None else x(high))
            ends = [(max(left, min(right, place)), at) for place in (a, b)]
            yield _stroke(ends, colour, ' stroke-width="2.4"')
            for (end, _), known in zip(ends, (low, high), strict=True):
                if known is not None and left < end < right:
                    yield _stroke([(end, at - 6), (end, at + 6)], colour, ' stroke-width="2.4"')
        missed = 0
        for mark in each["dots"]:
            centre = mark["kind"] == "centre"
            at = _TOP + _ROW * (mark["y"] + 0.5) + (-5 if centre else 7)
            place = right + 8 + aside / 2 if mark["x"] is None else x(mark["x"])
            if mark["x"] is None:
                missed += 1
                yield _cross(place + 9 * (missed // 2) * (-1) ** missed, at - 7, colour)
            elif left <= place <= right:
                yield _symbol(look["shape"], place, at, 6.5 if centre else 4, colour)
            else:
                edge, way = (left, -1) if place < left else (right, 1)
                yield _arrow(edge, at, way, 0, colour)


# --- Parts -------------------------------------------------------------------------------------


def _x_axis(x: _Scale, label: str, top: float, bottom: float) -> Iterator[str]:
    for tick in x.ticks():
        yield f'<path d="M{x(tick):.1f} {top:g}V{bottom:g}" stroke="{_GRID}"/>'
        yield _text(x(tick), bottom + 18, show(tick))
    yield f'<path d="M{x.start:g} {bottom:g}H{x.end:g}" stroke="{_SOFT}"/>'
    yield _text((x.start + x.end) / 2, bottom + 38, label)


def _legend(shown: Sequence[int], names: Sequence[str], top: float) -> tuple[list[str], float]:
    """Line, mark and name of each method, and the height of the whole chart."""
    found: list[str] = []
    looks, at = marks(len(names)), 16.0
    for index in shown:
        look, wide = looks[index], 50 + len(names[index]) * _LETTER
        if at > 16 and at + wide > _WIDTH - 16:
            at, top = 16.0, top + 22
        colour = PALETTE[look["colour"]][0]
        dash = f' stroke-width="2.3" stroke-dasharray="{_DASHES[look["dash"]]}"'
        found.append(_stroke([(at, top), (at + 28, top)], colour, dash))
        found.append(_symbol(look["shape"], at + 14, top, 4, colour))
        found.append(_text(at + 34, top + 4, names[index], "start", _INK))
        at += wide + 14
    return found, top + (16 if shown else -14)


def _points(
    xs: Sequence[float], ys: Sequence[float | None], x: _Scale, y: _Scale, chart: Chart
) -> list[tuple[float, float]]:
    """Places of a line; infinite values are far out on the bad side."""
    bad = y.start + 60 if chart["y"]["goal"] == "max" else y.end - 60
    pairs = zip(xs, ys, strict=True)
    return [(x(a), bad if b is None else y(b)) for a, b in pairs if a > 0 or not x.log]


def _leaving(
    points: Sequence[tuple[float, float]], chart: Chart, ends: tuple[float, float], colour: str
) -> Iterator[str]:
    """Triangles where a line leaves the range of the chart on the bad side.

    A line that begins outside and comes in has none; one that stays outside has one at its end.
    """
    if not chart["y"].get("range"):
        return
    up = chart["y"]["goal"] == "min"
    edge = ends[0] if up else ends[1]
    outside = [at < edge - 1 if up else at > edge + 1 for _, at in points]
    places = [
        a + (b - a) * (edge - high) / (low - high)
        for (a, high), (b, low), before, now in zip(
            points, points[1:], outside, outside[1:], strict=False
        )
        if now and not before
    ]
    for place in [points[-1][0]] if points and all(outside) else places:
        yield _arrow(place, edge + (6 if up else -6), 0, -1 if up else 1, colour)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points) if points else "M0 0"


def _stroke(points: Sequence[tuple[float, float]], colour: str, more: str = "") -> str:
    return f'<path d="{_path(points)}" fill="none" stroke="{colour}"{more}/>'


def _rectangle(x: float, y: float, width: float, height: float, fill: str = _INK) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"/>'


def _cross(x: float, y: float, colour: str) -> str:
    d = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
    return f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="2.2"/>'


def _arrow(x: float, y: float, dx: int, dy: int, colour: str, r: float = 5.0) -> str:
    """A triangle that points out of the chart, for a value outside of it."""
    corners = ((1.0, 0.0), (-0.8, 1.0), (-0.8, -1.0))
    points = [(x + r * (dx * a - dy * b), y + r * (dy * a + dx * b)) for a, b in corners]
    return f'<path d="{_path(points)}Z" fill="{colour}"/>'


def _symbol(shape: int, x: float, y: float, r: float, colour: str) -> str:
    style = f'fill="{colour}" stroke="#ffffff"'
    if not _CORNERS[shape]:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" {style}/>'
    numbers = [float(each) * r for each in _CORNERS[shape].split()]
    points = [(x + a, y + b) for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    return f'<path d="{_path(points)}Z" {style}/>'


def _text(
    x: float, y: float, text: str, anchor: str = "middle", fill: str = _SOFT, more: str = ""
) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {where}{more}>{escape(text)}</text>"
