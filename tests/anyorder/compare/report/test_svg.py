from __future__ import annotations

import re
from xml.etree import ElementTree

import example_results as example
import pytest

from anyorder.compare.report import svg
from anyorder.compare.report.charts import Chart
from anyorder.compare.report.curves import figures
from anyorder.compare.store.schema import Results

SVG = "{http://www.w3.org/2000/svg}"
RUNS: dict[str, list[list[float | None]]] = {
    "a": [[1.0, 0.5, 0.1 + 0.01 * s] for s in range(3)],
    "b": [[1.0, 0.9, 0.8]] * 3,
}


def _drawn(results: Results, key: str) -> tuple[Chart, ElementTree.Element]:
    chart = next(each for each in figures(results) if each["id"] == key)
    names = [method.name for method in results.methods]
    return chart, ElementTree.fromstring(svg.draw(chart, names, "forwards"))


def _lasts(drawing: ElementTree.Element) -> list[tuple[float, float]]:
    """The last points of the median lines."""
    found = [each.get("d", "") for each in drawing.iter(f"{SVG}path") if each.get("stroke-width")]
    ends = [tuple(map(float, d.rpartition("L")[2].split())) for d in found if d.count("L") > 1]
    return [(x, y) for x, y in ends]


def test_curves_end_where_their_numbers_are() -> None:
    chart, drawing = _drawn(example.made_up(RUNS), "loss")
    assert drawing.findtext(f"{SVG}title") == "Validation loss"
    assert drawing.findtext(f"{SVG}desc") == chart["alt"]
    ticks = {each.text: float(each.get("y", 0)) for each in drawing.iter(f"{SVG}text")}
    slope = (ticks["0.8"] - ticks["0.2"]) / 0.6
    (_, a), (_, b) = _lasts(drawing)
    assert (a - b) / slope == pytest.approx(0.11 - 0.8, abs=1e-3)
    assert {"a", "b", "forward-pass equivalents", "validation loss"} <= set(ticks)


def test_values_outside_the_range_are_clipped() -> None:
    runs: dict[str, list[list[float | None]]] = {
        f"m{i}": [[2.3, 0.6, 0.3, 0.2 + 0.01 * i]] * 3 for i in range(9)
    }
    runs["bad"] = [[2.3, 40.0, 500.0, 900.0]] * 3
    _, drawing = _drawn(example.made_up(runs), "loss")
    height = float(drawing.get("height", 0))
    heights = [y for _, y in _lasts(drawing)]
    assert all(0 < y < height for y in heights[:9])
    assert max(heights[:9]) - min(heights[:9]) > 40
    assert heights[9] < 0  # far above; the group around it is clipped
    assert any(each.get("clip-path") for each in drawing.iter(f"{SVG}g"))


def _triangles(drawing: ElementTree.Element) -> list[list[tuple[float, float]]]:
    """Corners of the triangles without an outline, which mark values outside the chart."""
    found = [
        re.findall(r"[-\d.]+ [-\d.]+", each.get("d", ""))
        for each in drawing.iter(f"{SVG}path")
        if each.get("fill") != "none" and not each.get("stroke") and not each.get("fill-opacity")
    ]
    corners = [[tuple(map(float, pair.split())) for pair in each] for each in found]
    return [[(x, y) for x, y in each] for each in corners if len(each) == 3]


def test_triangles_mark_where_lines_leave_the_chart() -> None:
    runs: dict[str, list[list[float | None]]] = {
        f"m{i}": [[0.27, 0.26, 0.28, 0.2 + 0.01 * i]] * 3 for i in range(9)
    }
    runs["bad"] = [[0.27, 0.26, 500.0, 900.0]] * 2 + [[0.27, 500.0, 900.0, 900.0]]
    _, drawing = _drawn(example.made_up(runs), "loss")
    found = _triangles(drawing)
    assert len(found) == 4  # three runs and their median
    assert all(min(y for _, y in each) == each[0][1] < 80 for each in found)  # they point up
    (line,) = {each[0][0] for each in found} - {found[2][0][0]}
    assert found[2][0][0] < line  # the third run leaves earlier
    assert not _triangles(_drawn(example.made_up(RUNS), "loss")[1])


def test_triangles_mark_runs_outside_the_chart() -> None:
    runs: dict[str, list[list[float | None]]] = {
        f"m{i}": [[2.3, 0.2 + 0.01 * i + 0.001 * s] for s in range(3)] for i in range(9)
    }
    runs["bad"] = [[2.3, 900.0], [2.3, 0.4], [2.3, 0.4]]
    _, drawing = _drawn(example.made_up(runs), "final")
    found = _triangles(drawing)
    assert len(found) == 4  # three runs and their mean
    for each in found:  # at the left edge, pointing left: a large score is good
        assert min(x for x, _ in each) == each[0][0] < 80
    assert not [each for each in drawing.iter(f"{SVG}path") if "l8 8" in each.get("d", "")]


def test_brackets_show_the_searched_learning_rates() -> None:
    results = example.measured(["sgd"], "quadratic", budget="10grads", tune=4, seeds=1)
    chart, drawing = _drawn(results, "lr")
    (series,) = chart["views"]["fixed"]["series"]
    found = [
        tuple(map(float, numbers.groups()))
        for each in drawing.iter(f"{SVG}path")
        if (numbers := re.fullmatch(r"M([\d.]+) [\d.]+H([\d.]+)V[\d.]+H[\d.]+", each.get("d", "")))
    ]
    (low_foot, low), (high_foot, high) = found
    assert low < low_foot < high_foot < high  # they open towards each other
    places = sorted(
        float(each.get("cx", 0))
        for each in drawing.iter(f"{SVG}circle")
        if float(each.get("cy", 0)) < 384  # not of the legend
    )
    assert len(places) >= len(series["dots"])
    assert low <= min(places) and max(places) <= high + 14  # edge trials may lie beyond


def test_misses_are_crosses_in_the_gutter() -> None:
    results = example.made_up({"hit": [[1.0, 0.1]] * 2, "miss": [[1.0, 0.9]] * 2})
    _, drawing = _drawn(results, "target")
    crosses = [each for each in drawing.iter(f"{SVG}path") if "l8 8" in each.get("d", "")]
    gutter = next(each for each in drawing.iter(f"{SVG}rect") if each.get("fill") == "#eef0f4")
    left, width = float(gutter.get("x", 0)), float(gutter.get("width", 0))
    places = [float(re.findall(r"[\d.]+", each.get("d", ""))[0]) + 4 for each in crosses]
    assert len(places) == len(set(places)) == 2
    assert all(left < place < left + width for place in places)


@pytest.mark.parametrize("name", list(example.hostile()))
def test_hostile_results_make_sound_drawings(name: str) -> None:
    results = example.hostile()[name]
    for chart in figures(results):
        if chart.get("empty"):
            continue
        for axis in ("seconds", "steps"):
            text = svg.draw(chart, [method.name for method in results.methods], axis)
            assert not re.search("nan|inf[^o]|None", re.sub("<(desc|text|title).*", "", text))
            drawing = ElementTree.fromstring(text)
            assert {each.tag.removeprefix(SVG) for each in drawing.iter()} <= set(
                "svg title desc rect text path circle clipPath g".split()
            )
