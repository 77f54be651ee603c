from __future__ import annotations

import math
from dataclasses import replace

import example_results as example
import pytest

from anyorder.compare.report import tables
from anyorder.compare.stats.leaderboard import summarise

RUNS = {
    "a": [[1.0, 0.9 + 0.001 * s] for s in range(8)],
    "b": [[1.0, 0.1 + 0.002 * s] for s in range(8)],
}


def _column(table: tables.Table, name: str) -> list[tables.Cell]:
    return [row[table.head.index(name)] for row in table.rows]


def test_leaderboard_holds_the_exact_numbers() -> None:
    results = example.made_up(RUNS)
    board, rows = tables.leaderboard(results), summarise(results)
    assert [cell.text for cell in _column(board, "method")] == ["b", "a"]
    assert board.methods == [1, 0]
    assert [cell.value for cell in _column(board, "validation score")] == [
        row.metric for row in rows
    ]
    assert [cell.value for cell in _column(board, "validation loss")] == [
        row.final_loss for row in rows
    ]
    assert [cell.text for cell in _column(board, "against the first")] == ["first", "worse"]
    assert [cell.text for cell in _column(board, "reached target")] == ["8/8", "0/8"]
    target = _column(board, "cost to target (forwards)")
    # From 0 to 0.9 - 0.002 s in 30 forwards, the target being 0.8.
    cost = sum(30 * 0.8 / (0.9 - 0.002 * s) for s in range(8)) / 8
    assert target[0].value == rows[0].target_cost == pytest.approx(cost)
    assert target[1].text == "never"
    assert "remarks" not in board.head
    assert [cell.text for cell in _column(board, "not dominated")] == ["yes", ""]
    assert [cell.text for cell in _column(board, "memory added")] == ["1.0 MiB", "1.0 MiB"]


def test_leaderboard_names_losses_and_reasons() -> None:
    results = example.made_up({"a": [[1.0, 0.5]] * 3, "b": [[1.0, 0.9]] * 3, "c": []})
    results.methods[0].runs[0].status = "diverged"
    results.methods[2].failed = "ImportError: no c"
    board = tables.leaderboard(results)
    assert [cell.text for cell in _column(board, "method")] == ["b", "a", "c"]
    lost = _column(board, "validation score")[1]
    assert (lost.text, lost.small, lost.value) == ("runs lost", "median 0.5", None)
    assert [cell.text for cell in _column(board, "remarks")] == [
        "3 seeds: no interval (at least 6 are needed)",
        "1 of 3 runs diverged; 3 seeds: no interval (at least 6 are needed)",
        "ImportError: no c",
    ]
    assert [cell.text for cell in _column(board, "")] == ["1", "2", ""]


def test_one_column_where_metric_and_loss_are_the_same() -> None:
    board = tables.leaderboard(example.made_up(RUNS, metric="loss", goal="min", target=None))
    assert board.head.count("validation loss") == 1
    assert "loss" not in board.head
    assert "cost to target (forwards)" in board.head  # the baseline sets one
    lost = example.made_up({"a": [[], []]}, target=None)
    assert not any("target" in name for name in tables.leaderboard(lost).head)


def test_verdicts_can_be_read_both_ways() -> None:
    table = tables.matrix(example.made_up(RUNS))
    assert table.head == ["", "b", "a"]
    assert [[cell.text for cell in row[1:]] for row in table.rows] == [
        ["", "better"],
        ["worse", ""],
    ]
    (row,) = tables.differences(example.made_up(RUNS)).rows
    assert [cell.text for cell in row[:3]] == ["a", "worse", "b"]
    assert row[3].value == pytest.approx(-0.8 + 0.0035)
    assert row[6].value == 8
    assert row[4].value == 2 / 2**8


def test_too_few_seeds_are_named() -> None:
    few = {name: runs[:3] for name, runs in RUNS.items()}
    cell = _column(tables.leaderboard(example.made_up(few)), "against the first")[1]
    assert (cell.text, cell.small) == ("not separable", "too few seeds, 7 are needed")


def test_ledger() -> None:
    results = example.made_up(RUNS)
    for run in (run for method in results.methods for run in method.runs):
        run.base_bytes = 1 << 18
    table = tables.ledger(results)
    row = table.rows[0]
    assert [cell.value for cell in row[1:9]] == [0, 10, 0, 0, 0, 30.0, 10, 0.5]
    assert row[table.head.index("in the problem")].text == "60%"
    memory = row[table.head.index("memory added")]
    assert (memory.text, memory.small) == ("768.0 KiB", "peak 1.0 MiB")
    assert row[table.head.index("state")].value == 1024


def test_the_ledger_shows_output_gradients_where_they_say_more_than_gradients() -> None:
    results = example.made_up(RUNS)
    points = [point for method in results.methods for run in method.runs for point in run.curve]
    assert "output gradients" not in tables.ledger(results).head
    for point in points:
        point.calls.output_grads = point.calls.grads
    assert "output gradients" not in tables.ledger(results).head
    for point in points:
        point.calls.output_grads = 7
    table = tables.ledger(results)
    assert [row[table.head.index("output gradients")].value for row in table.rows] == [7] * len(
        table.rows
    )
    assert table.head[5:8] == ["ranked points", "output gradients", "forwards"]


def test_test_data() -> None:
    results = example.made_up(RUNS)
    assert tables.test_data(results) is None
    for method in results.methods:
        for run in method.runs:
            run.test = {"loss": 0.25, "score": None}
    results.methods[1].runs[0].status = "diverged"
    table = tables.test_data(results)
    assert table is not None
    b = table.rows[[cell.text for cell in _column(table, "method")].index("b")]
    assert (b[1].value, b[2].value, b[3].value) == (0.25, None, 1)


def test_tuning() -> None:
    results = example.made_up(RUNS)
    assert tables.tuning(results) is None
    results.methods[0] = replace(
        results.methods[0],
        tunings=[
            example.tuned(
                chosen=1,
                space=[example.searched(low=0.01, high=0.1)],
                trials=[
                    example.trial(0, 0.5, lr=0.01, n=3),
                    example.trial(1, 0.7, lr=0.1, n=4),
                    example.trial(2, None, "failed", lr=9.0),
                ],
            )
        ],
    )
    table = tables.tuning(results)
    assert table is not None
    ((_, tunings, trials, lost, cost, default, best, chosen, edge),) = table.rows
    assert [cell.value for cell in (tunings, trials, lost, cost, default, best)] == [
        1, 3, 1, 93, 0.5, 0.7,
    ]  # fmt: skip
    assert chosen.text == "lr 0.1, n 4"
    assert edge.text == "lr 0.1 is at the upper end of the range, the best may be outside"
    losses = tables.losses(results)
    assert losses is not None
    assert [cell.text for cell in losses.rows[0]] == ["a", "tuning trial 2: lr 9", "failed", "boom"]


def test_three_results_have_a_table() -> None:
    results = example.made_up(RUNS)
    results.methods[0].tunings = [
        example.tuned(trials=[example.trial(0, 0.5), example.trial(1, 0.7)], chosen=1)
    ]
    results.methods[0].default_runs = [example.run(i, [1.0, 0.4]) for i in range(3)]
    table = tables.three(results)
    assert table is not None
    assert table.head == [
        "method", "validation score by default", "expected best validation score of k trials",
        "validation score tuned", "cost of one tuning (forwards)",
        "tuning and cost to target (forwards)",
    ]  # fmt: skip
    b, a = table.rows
    assert [cell.text for cell in a[:3]] == ["a", "0.6", "1: 0.6; 2: 0.7"]
    spent = sum(each.cost.forwards for each in results.methods[0].tunings[0].trials)
    assert (a[4].value, a[5].text) == (spent, "never")
    assert (b[1].text, b[4].value) == ("", 0.0)
    assert tables.three(example.results()) is None


def test_the_ladder_and_cost_verdicts_have_tables() -> None:
    results = example.made_up(RUNS, target=None)
    assert results.baseline == "a"
    table = tables.rungs(results)
    assert table is not None
    assert table.caption == "Cost in forwards to targets set by the tuned a"
    reached = {row[0].text: [cell.small for cell in row[1:]] for row in table.rows}
    assert set(reached["b"]) == {"8/8 runs"}
    pairs = tables.cost_differences(results)
    assert pairs is not None
    assert "median of a at" in pairs.caption
    assert pairs.rows[0][1].text in ("slower", "not separable")
    assert tables.cost_differences(example.results(target=None)) is None
    assert tables.rungs(example.results()) is None


def test_search_spaces_name_their_source() -> None:
    results = example.made_up(RUNS)
    assert tables.spaces(results) is None
    space = [
        replace(example.searched(), source="as adamw", extended=True),
        replace(example.searched("kind"), kind="choice", choices=("x", "y"), source="user"),
    ]
    results.methods[0].tunings = [example.tuned(space=space)] * 2
    table = tables.spaces(results)
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["a", "lr", "log", "0.0001 to 1, extended", "as adamw"],
        ["a", "kind", "choice", "x, y", "user"],
    ]


def test_the_twin_is_compared_with_its_baseline_only() -> None:
    results = example.made_up({**RUNS, "a (A/A)": RUNS["a"]})
    results.methods[2].twin_of = "a"
    for run in results.methods[2].runs:
        run.seed += 500_000
    board = tables.leaderboard(results)
    assert [cell.text for cell in _column(board, "")] == ["1", "2", ""]
    matrix = tables.matrix(results)
    assert matrix.head == ["", "b", "a", "a (A/A)"]
    assert [cell.text for cell in matrix.rows[2][1:]] == ["", "not separable", ""]
    assert [row[2].text for row in tables.differences(results).rows] == ["b", "a (A/A)"]


def test_losses_say_why() -> None:
    results = example.made_up(RUNS)
    assert tables.losses(results) is None
    runs = results.methods[0].runs
    runs[2] = example.lost(runs[2], "failed", error="ValueError: x")
    results.methods.append(example.method("c", [], failed="ImportError: c"))
    table = tables.losses(results)
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["a", "seed 2", "failed", "ValueError: x"],
        ["c", "", "failed", "ImportError: c"],
    ]


def test_rates_nominal_beside_measured() -> None:
    table = tables.rates(example.results())
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["value", "1", "1", "0.11 ms", "0 B"],
        ["gradient", "3", "2.82", "0.31 ms", "4.0 KiB"],
        ["product", "6", "—", "—", "—"],
        ["directional derivative", "2", "—", "—", "—"],
        ["ranked point", "1", "1", "—", "—"],
    ]


@pytest.mark.parametrize("name", list(example.hostile()))
def test_hostile_results_make_sound_tables(name: str) -> None:
    results = example.hostile()[name]
    for make in (tables.leaderboard, tables.matrix, tables.differences, tables.ledger):
        table = make(results)
        assert len(table.rows) == len(table.methods or table.rows)
        values = [cell.value for row in table.rows for cell in row if cell.value is not None]
        assert all(map(math.isfinite, values))
    for make in (
        tables.test_data, tables.tuning, tables.losses, tables.rates, tables.three, tables.rungs,
        tables.spaces, tables.cost_differences,
    ):  # fmt: skip
        found = make(results)
        assert found is None or found.rows or found.caption


def test_remarks_on_all_rows_are_said_once() -> None:
    results = example.made_up({"a": [[1.0, 0.5]] * 3, "b": [[1.0, 0.9]] * 3})
    results.methods[0].runs[0].status = "diverged"
    board, single, shared = tables.without_remarks(tables.leaderboard(results))
    assert "remarks" not in board.head
    assert single == ["", "1 of 3 runs diverged"]
    assert shared == ["3 seeds: no interval (at least 6 are needed)"]
    whole = tables.leaderboard(example.made_up(RUNS))
    assert tables.without_remarks(whole) == (whole, ["", ""], [])
