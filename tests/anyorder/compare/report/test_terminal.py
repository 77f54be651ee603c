"""The table on the terminal."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from example_results import method, results, searched
from rich.console import Console

from anyorder.compare.report.terminal import leaderboard
from anyorder.compare.stats.verdicts import Row

GOOD = method("good", [], space=[searched("lr"), searched("k")], settings={"lr": 0.12345, "k": 3})
RESULTS = results(GOOD, method("bad", []), budget="3s", name="p", metric="accuracy", target=0.9)
RESULTS.warnings = ["the machine was busy"]
ROWS = [
    Row(
        "good", 0.5, 0.4, 0.6, 0.95, 0.94, 0.96, 2 / 3, 12.5, {"grads": 100.0, "products": 50.0},
        seconds=2.5, runs=3,
    ),
    Row("bad", math.inf, None, None, math.nan, success=0.0, runs=3, note="3 of 3 runs diverged"),
]  # fmt: skip


def show(found: Any = RESULTS, rows: Any = ROWS, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(leaderboard(found, rows, Path("out")))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_everything_fits_80_columns() -> None:
    text = show()
    assert max(map(len, text.splitlines())) <= 80
    for part in (
        "p, 3s per run, 3 seeds; accuracy is better when larger; target: accuracy 0.9",
        "0.4 to 0.6", "0.94 to 0.96", "12.5 s", "2 of 3 runs", "100 grads", "50 products", "2.5 s",
        "lr=0.12", "k=3", "missed", "bad: 3 of 3 runs diverged", "note: the machine was busy",
        "out/report.html", "out/results.json",
    ):  # fmt: skip
        assert part in text


def test_a_remark_on_all_is_made_once() -> None:
    rows = [Row("good", 0.5, runs=1, note="1 seed"), Row("bad", 0.6, runs=1, note="lost; 1 seed")]
    text = show(rows=rows)
    assert "all: 1 seed" in text
    assert "bad: lost" in text
    assert text.count("1 seed") == 1


def test_the_loss_is_shown_once_and_no_target_is_none() -> None:
    one = results(GOOD, name="p", metric="loss", goal="min", target=None)
    text = show(one, [Row("good", 0.5, runs=1, success=None)])
    assert text.count("loss") == 2
    assert "target:" not in text
