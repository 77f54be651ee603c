"""The summary of a suite as JSON, Markdown and HTML."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from anyorder.compare.report.suite import grids, html, markdown, sentences, write
from anyorder.compare.stats.overview import Overview, Place, Solved


def overview(**changes: Any) -> Overview:
    places = [Place("a<b", 0.91, 0.9, 0.5, 0.7, None), Place("sgd", None, 0.1, None, None, "it|x")]
    problem = Solved("p", "table", {}, "10grads", "test accuracy", "max", 0.8, places, "a<b")
    scores = [
        {"method": "a<b", "ratio": 1.0, "rank": 1.0, "profile": [1.0, 1.0], "solved": 1.0},
        {"method": "best of 2 defaults", "ratio": 1.4, "rank": 2.0, "profile": [0.0, 1.0],
         "solved": 1.0},
        {"method": "sgd", "ratio": 20.0, "rank": 2.0, "profile": [0.0, 0.0], "solved": 0.0},
    ]  # fmt: skip
    wanted: dict[str, Any] = {
        "schema": 1, "suite": "standard", "created_by": "0", "created": "now",
        "command": "anyorder suite standard", "settings": {"tune": 4}, "baseline": "a<b",
        "methods": ["a<b", "sgd"], "problems": [problem], "left_out": {"encoder": "not installed"},
        "ratios": [1.0, 2.0], "scores": scores, "agreement": "They agree.",
    }  # fmt: skip
    return Overview(**{**wanted, **changes})


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_the_sentences_name_what_beats_the_defaults() -> None:
    said = sentences(overview())
    assert said[0] == "Least mean cost over 1 problem: a<b."
    assert "Better than the best of 2 defaults: a<b." in said
    assert "encoder was left out: not installed" in said
    assert said[-1] == "sgd has no result on p: it|x"
    worse = [{**each, "ratio": 3.0} for each in overview().scores]
    assert "No method is better than the best of 2 defaults." in sentences(overview(scores=worse))


def test_both_pages_show_the_same_cells() -> None:
    found = overview()
    parser = Cells()
    parser.feed(html(found))
    expected = [cell for grid in grids(found) for row in (grid.head, *grid.rows) for cell in row]
    assert parser.cells == [cell for cell in expected if cell]
    text = markdown(found)
    for grid in grids(found):
        assert f"## {grid.caption}" in text
        for row in grid.rows:
            assert "| " + " | ".join(row) + " |" in text


def test_costs_and_results_of_the_tables() -> None:
    _, _, tuned, default, costs = grids(overview())
    assert tuned.rows == [["p", "table", "10grads", "test accuracy", "0.91", "—"]]
    assert default.rows[0][-2:] == ["0.9", "0.1"]
    assert costs.rows == [["p", "0.8", "0.5", "—", "0.7 (a<b)"]]
    captions = [grid.caption for grid in grids(overview(settings={"tune": 0}))]
    assert "Reached with the tuned setting" not in captions


def test_names_cannot_inject_markup() -> None:
    assert "<b" not in html(overview()).replace("<body", "").replace("<b>", "")


def test_files(tmp_path: Path) -> None:
    paths = write(overview(), tmp_path)
    assert [path.name for path in paths] == ["suite.json", "suite.md", "suite.html"]
    content = json.loads(paths[0].read_text())
    assert content["scores"][0]["ratio"] == 1.0
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(overview(ratios=[float("inf")]), tmp_path)
