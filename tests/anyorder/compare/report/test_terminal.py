"""The leaderboard on the terminal, and in a log."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import example_results as example
import pytest
from example_results import method, results, searched
from rich.console import Console

from anyorder.compare.report.terminal import leaderboard
from anyorder.compare.stats.leaderboard import Row, summarise

GOOD = method("good", [], space=[searched("lr"), searched("k")], settings={"lr": 0.12345, "k": 3})
RESULTS = results(GOOD, method("bad", []), budget="3s", name="p", metric="accuracy", target=0.9)
RESULTS.warnings = ["the machine was busy"]
ROWS = [
    Row(
        "good", 0.95, 0.94, 0.96, 0.5, metric=0.95, success=2 / 3, target_cost=12.5,
        calls={"grads": 100.0, "products": 50.0}, seconds=2.5, runs=3, run_bytes=3 << 20,
        pareto=True,
    ),
    Row("bad", success=0.0, runs=3, note="3 of 3 runs diverged"),
]  # fmt: skip


def show(found: Any = RESULTS, rows: Any = ROWS, width: int = 80, out: str = "out") -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(leaderboard(found, rows, Path(out)), crop=False)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_everything_fits_80_columns() -> None:
    text = show()
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for part in (
        "p, 3s per run, 3 seeds; accuracy is better when larger; target: accuracy 0.9",
        "0.94 to 0.96", "12.5", "2/3 runs", "100 grads", "50 products", "2.5 s", "3.0 MiB",
        "lr=0.12", "k=3", "missed", "bad: 3 of 3 runs diverged", "note: the machine was busy",
        "good: searched lr log 0.0001..1 (declared), k log 0.0001..1 (declared)",
        "(*) no other is as good", "out/report.html", "out/results.json",
    ):  # fmt: skip
        assert part in flat


def test_extreme_numbers_fit_80_columns_too() -> None:
    """Nothing is cut off: rich marks what it cuts off with an ellipsis."""
    calls = dict.fromkeys(("values", "grads", "products", "rankings", "output_grads"), 123_456_789)
    calls["output_grads"] += 1
    row = replace(
        ROWS[0], name="my_package.some_module:VeryLongClassName", judged=-1.23456e-12,
        judged_low=-1.23456e-12, judged_high=-1.13456e-12, metric=-1.23456e-12, runs=10_000,
        target_cost=1.234567e12, calls=calls, seconds=123456.0, run_bytes=1023 << 30,
    )  # fmt: skip
    text = show(rows=[row])
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for part in ("-1.23e-12 to", "123457k out. grads", "6667/10000 runs", "1023.0 GiB"):
        assert part in text or part.replace("123457k", "123M") in text
    joined = "".join(line.split()[0] for line in text.splitlines() if line.strip())
    assert "my_package.some_module:VeryLongClassName"[:20] in joined


def test_paths_are_not_wrapped() -> None:
    out = "a folder/" * 20
    text = show(out=out)
    assert f"report:  {Path(out) / 'report.html'}" in text.splitlines()


def test_a_log_has_no_escape_codes_and_the_same_width() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, _environ={})
    console.print(leaderboard(RESULTS, ROWS, Path("out")), crop=False)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    assert text == show()


def test_a_note_on_all_is_made_once() -> None:
    rows = [Row("good", 0.5, runs=1, note="1 seed"), Row("bad", 0.6, runs=1, note="lost; 1 seed")]
    text = show(rows=rows)
    assert "all: 1 seed" in text
    assert "bad: lost" in text
    assert text.count("1 seed") == 1


def test_several_tunings_show_the_range_of_what_they_chose() -> None:
    tunings = [
        replace(GOOD.tunings[0], index=i, settings={"lr": lr, "k": k})
        for i, (lr, k) in enumerate(((0.1, "a"), (0.3, "b"), (0.2, "a")))
    ]
    found = results(replace(GOOD, tunings=tunings), name="p")
    text = show(found, ROWS[:1])
    assert "lr=0.1..0.3" in text
    assert "k=a|b" in text


def test_the_loss_is_shown_once_and_no_target_is_none() -> None:
    one = results(GOOD, name="p", metric="loss", goal="min", target=None)
    text = show(one, [Row("good", 0.5, runs=1, success=None)])
    assert "target:" not in text
    header = [line for line in text.splitlines() if line.startswith(("method", "tuned"))]
    assert " ".join(header).count("loss") == 1


@pytest.mark.parametrize("name", [n for n in example.hostile() if n != "names"])
def test_odd_results_fit_80_columns(name: str) -> None:
    odd = example.hostile()[name]
    text = show(odd, summarise(odd))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
