from __future__ import annotations

import math

import numpy as np
import pytest
from judged_results import method, results, run

from anyorder.compare.stats.estimators import StatisticsError
from anyorder.compare.stats.suite import MISS, RATIOS, Costs, costs, judge
from anyorder.compare.store.schema import MethodRecord, Results


def _costs(table: dict[str, list[float]]) -> Costs:
    count = len(next(iter(table.values())))
    problems = tuple(f"p{i}" for i in range(count))
    return Costs(tuple(table), problems, np.asarray(list(table.values())))


TABLE = {"a": [0.1, 0.2, 0.4], "b": [0.2, 0.2, 0.1], "c": [0.4, 0.8, math.inf]}


def test_scores_by_hand() -> None:
    suite = judge(_costs(TABLE))
    scores = {score.method: score for score in suite.scores}
    assert scores["a"].ratio == pytest.approx((1 * 1 * 4) ** (1 / 3))
    assert scores["b"].ratio == pytest.approx((2 * 1 * 1) ** (1 / 3))
    assert scores["c"].ratio == pytest.approx((4 * 4 * MISS / 0.1) ** (1 / 3))
    assert [scores[name].rank for name in "abc"] == pytest.approx(
        [(1 + 1.5 + 2) / 3, (2 + 1.5 + 1) / 3, 3.0]
    )
    at = dict(zip(RATIOS, scores["a"].profile, strict=True))
    assert at[1.0] == at[3.0] == pytest.approx(2 / 3)
    assert at[5.0] == at[10.0] == 1.0
    assert scores["c"].profile[-1] == pytest.approx(2 / 3)  # a miss is never within
    assert (scores["a"].solved, scores["c"].solved) == (1.0, pytest.approx(2 / 3))
    assert [score.method for score in suite.scores] == ["b", "a", "c"]
    assert scores["a"].ratio_interval is None  # three problems


def test_another_method_changes_no_score_of_a_fixed_reference_set() -> None:
    before = judge(_costs(TABLE), reference=["a", "b"])
    more = judge(_costs({**TABLE, "d": [0.01, 0.01, 0.01]}), reference=["a", "b"])
    assert [score for score in more.scores if score.method != "d"] == before.scores
    assert more.scores[0].method == "d"
    assert more.scores[0].ratio < 1


def test_summaries_that_disagree_are_flagged() -> None:
    """a is ahead on most problems by a little, b on one by far."""
    suite = judge(_costs({"a": [0.1, 0.1, 0.1, 5.0], "b": [0.11, 0.11, 0.11, 0.01]}))
    assert suite.disagreements == [("b", "a")]
    assert (
        str(suite) == "Geometric mean, average rank and profile disagree on the order of: b and a."
    )
    agreed = judge(_costs({"a": [0.1, 0.1], "b": [0.2, 0.2]}))
    assert agreed.disagreements == []
    assert str(agreed) == "Geometric mean, average rank and profile order the methods alike."


def test_six_problems_have_intervals() -> None:
    rng = np.random.default_rng(0)
    table = {"a": list(rng.uniform(0.1, 0.2, 8)), "b": list(rng.uniform(0.3, 0.9, 8))}
    first, second = judge(_costs(table)).scores
    assert (first.ratio, first.ratio_interval and first.ratio_interval.low) == (1.0, 1.0)
    for score in (first, second):
        pairs = [(score.ratio, score.ratio_interval), (score.rank, score.rank_interval)]
        pairs += zip(score.profile, score.profile_interval, strict=True)
        for value, ends in pairs:
            assert ends is not None
            assert ends.low <= value <= ends.high
    ends = second.profile_interval[-1]
    assert ends is not None
    assert ends.low < 1.0  # eight problems of eight do not prove all


def test_bad_input_is_refused() -> None:
    with pytest.raises(StatisticsError, match=r"reference: expected some of .* got \('z',\)"):
        judge(_costs(TABLE), reference=["z"])
    with pytest.raises(StatisticsError, match="different problems"):
        costs([])
    same = _problem("p", {"a": 1.0})
    with pytest.raises(StatisticsError, match="different problems"):
        costs([same, same])
    with pytest.raises(StatisticsError, match="no method takes part in all"):
        costs([_problem("p", {"a": 1.0}), _problem("q", {"b": 1.0})])


def _problem(name: str, metrics: dict[str, float], **more: MethodRecord) -> Results:
    """Methods that reach 0.5 after ``5 / metric`` of 10 seconds."""
    methods: list[MethodRecord] = []
    for each, metric in metrics.items():
        made = method(each, [1.0, 1.0])
        made.runs = [run(i, 1.0, metric=metric) for i in range(2)]
        methods.append(made)
    return results(*methods, *more.values(), name=name, target=0.5)


def test_costs_are_shares_of_a_budget() -> None:
    twin = method("a (A/A)", [1.0], twin_of="a")
    found = costs(
        [
            _problem("p", {"a": 1.0, "b": 0.1, "only here": 1.0}, twin=twin),
            _problem("q", {"b": 2.0, "a": 0.5}, twin=twin),
        ]
    )
    assert (found.methods, found.problems) == (("a", "b"), ("p", "q"))
    assert found.of("a").tolist() == pytest.approx([0.5, 1.0])
    assert found.of("b").tolist() == [math.inf, pytest.approx(0.25)]
