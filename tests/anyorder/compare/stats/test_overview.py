"""The outcome of a suite."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judged_results import method, results

from anyorder.compare.stats.overview import LEAST, best_of, overview, scored, solved
from anyorder.compare.store.schema import MethodRecord, Results

ABOUT = {"suite": "s", "created_by": "0", "created": "now", "command": "c", "settings": {}}


def with_default(name: str, tuned: list[float], default: list[float]) -> MethodRecord:
    """A method, its losses, and those of its default setting."""
    return replace(method(name, tuned), default_runs=method(name, default).runs)


def comparison(name: str, *methods: MethodRecord) -> Results:
    found = results(*methods, name=name)
    found.baseline = methods[0].name
    return found


@pytest.fixture
def one() -> Results:
    return comparison("one", with_default("a", [1.0, 1.2], [3.0, 3.2]),
                      with_default("b", [2.0, 2.2], [2.0, 2.2]))  # fmt: skip


def test_one_problem(one: Results) -> None:
    found = solved(one, "table")
    assert (found.problem, found.kind, found.goal) == ("one", "table", "max")
    assert [each.method for each in found.places] == ["a", "b"]
    assert found.place("a").judged == pytest.approx(-1.1)
    assert found.place("a").default == pytest.approx(-3.1)
    assert found.place("a").failed is None


def test_the_target_is_that_of_the_baseline_whatever_the_problems_own(one: Results) -> None:
    own = replace(one, problem=replace(one.problem, target=123.0))
    assert solved(own, "").target == solved(one, "").target != 123.0


def test_the_best_default_is_chosen_by_the_metric(one: Results) -> None:
    # The metric is minus the loss: a has the better tuned setting, b the better default.
    assert solved(one, "").best_default == "b"
    without = replace(one, methods=[replace(each, default_runs=[]) for each in one.methods])
    assert solved(without, "").best_default is None
    assert solved(without, "").place("a").default is None


def test_scores_have_a_line_for_the_best_of_the_defaults(one: Results) -> None:
    two = replace(one, problem=replace(one.problem, name="two"))
    suite = scored([one, two])
    assert {score.method for score in suite.scores} == {"a", "b", best_of(2)}
    assert all(score.ratio >= 1 for score in suite.scores)
    assert best_of(2) == "best of 2 defaults"


def test_a_target_that_costs_nothing_has_a_score(one: Results) -> None:
    still = [replace(run, curve=[replace(each, metric=0.0) for each in run.curve])
             for run in one.methods[0].runs]  # fmt: skip
    flat = replace(one, methods=[replace(each, runs=still, default_runs=still)
                                 for each in one.methods])  # fmt: skip
    suite = scored([flat])
    assert [score.ratio for score in suite.scores] == [1.0, 1.0, 1.0]
    assert 0 < LEAST < 0.01


def test_overview(one: Results) -> None:
    failed = method("b", [2.0, 2.0], failed="KeyError at /a/b.py:3: it raised")
    two = comparison("two", method("a", [1.0, 1.0]), failed)
    found = overview({"one": ("table", one), "two": ("text", two)}, {"three": "no data"}, **ABOUT)
    assert found.methods == ["a", "b"]
    assert [each.problem for each in found.problems] == ["one", "two"]
    assert found.problems[1].place("b").failed == "KeyError: it raised"
    assert found.left_out == {"three": "no data"}
    assert [len(score["profile"]) for score in found.scores] == [len(found.ratios)] * 3
