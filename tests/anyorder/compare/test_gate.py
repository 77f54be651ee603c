"""The regression gate: what it finds, what it lets pass, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from judged_results import method, results, tuned

from anyorder.compare.gate import GateError, check, regressions, share
from anyorder.compare.store.schema import Results

SEEDS = 10
NOISE = np.random.default_rng(0).normal(0, 0.01, SEEDS)


def comparison(target: float | None = None, seeds: int = SEEDS, **losses: float) -> Results:
    """Methods with these losses, and the same noise of the seeds."""
    every = [
        method(name, [loss + float(each) for each in NOISE[:seeds]])
        for name, loss in losses.items()
    ]
    found = results(*every, target=target)
    settings = replace(found.plan.settings, seeds=seeds)
    found.plan = replace(found.plan, settings=settings)
    return found


def later(found: Results, by: float) -> Results:
    """The same comparison with the evaluation that reaches the target at another time."""
    changed = []
    for each in found.methods:
        runs = []
        for run in each.runs:
            start, end = run.curve
            hit = replace(end, seconds=5.0 * by * (1 + 0.001 * run.seed), fraction=0.5)
            runs.append(replace(run, curve=[start, hit, end]))
        changed.append(replace(each, runs=runs))
    return replace(found, methods=changed)


def test_equal_results_pass() -> None:
    old = comparison(a=1.0, b=2.0)
    found = check(comparison(a=1.0, b=2.0), old)
    assert [(each.method, each.status, each.quality) for each in found] == [
        ("a", "ok", "not separable"),
        ("b", "ok", "not separable"),
    ]
    assert regressions(found) == []


def test_a_worse_method_fails_and_a_better_one_does_not() -> None:
    found = check(comparison(a=1.2, b=1.5), comparison(a=1.0, b=2.0))
    assert [each.status for each in found] == ["worse", "ok"]
    worse, better = found
    assert worse.quality == "worse"
    assert worse.change == pytest.approx(-0.2, rel=0.05)  # the judged metric is minus the loss
    assert worse.quality_p is not None and worse.quality_p < 0.01
    assert better.quality == "better"
    assert "a is worse" in regressions(found)[0]


def test_a_tolerated_loss_passes() -> None:
    old, new = comparison(a=1.0), comparison(a=1.2)
    assert check(new, old, worse=0.3)[0].ok
    assert not check(new, old, worse=0.1)[0].ok


def test_noise_alone_passes() -> None:
    """Other noise on the seeds is no regression."""
    old, new = comparison(a=1.0), comparison(a=1.0)
    shaken = np.random.default_rng(5).normal(0, 0.01, SEEDS)
    new.methods = [method("a", [1.0 + float(each) for each in shaken])]
    assert check(new, old)[0].ok


def test_a_slower_method_fails_beyond_the_tolerance() -> None:
    old = later(comparison(target=0.4, a=1.0), 1.0)
    new = later(comparison(target=0.4, a=1.0), 1.2)
    (found,) = check(new, old, axis="seconds")
    assert (found.status, found.cost) == ("slower", "slower")
    assert found.ratio == pytest.approx(1.2, rel=1e-3)
    assert check(new, old, slower=0.25, axis="seconds")[0].ok
    assert check(old, new, axis="seconds")[0].ok


def test_a_method_that_fails_now_is_a_regression() -> None:
    new = comparison(a=1.0)
    new.methods = [replace(new.methods[0], failed="it raised")]
    (found,) = check(new, comparison(a=1.0))
    assert (found.status, found.why) == ("failed", "it raised")


def test_a_method_that_failed_before_is_not() -> None:
    old = comparison(a=1.0)
    old.methods = [replace(old.methods[0], failed="it raised")]
    assert check(comparison(a=1.0), old)[0].ok


def test_tunings_are_the_units_if_there_are_several() -> None:
    rng = np.random.default_rng(1)

    def several(loss: float) -> Results:
        found = results(tuned("a", loss + rng.normal(0, 0.01, (6, 2))))
        settings = replace(found.plan.settings, tunings=6, seeds=2)
        found.plan = replace(found.plan, settings=settings)
        return found

    assert check(several(1.3), several(1.0))[0].status == "worse"
    assert check(several(1.0), several(1.0))[0].ok


def test_a_gate_that_cannot_fail_is_refused() -> None:
    with pytest.raises(
        GateError, match=r"3 seeds cannot show a regression, at least 8 .* --seeds 8"
    ):
        check(comparison(seeds=3, a=1.0), comparison(seeds=3, a=1.0))


def test_results_of_other_comparisons_are_refused() -> None:
    old = comparison(a=1.0, b=1.0)
    with pytest.raises(GateError, match="lack b"):
        check(comparison(a=1.0), old)
    other = comparison(a=1.0, b=1.0)
    other.plan = replace(other.plan, settings=replace(other.plan.settings, budget="20s"))
    with pytest.raises(GateError, match="budget: '10s' in the old results, '20s' in the new ones"):
        check(other, old)


@pytest.mark.parametrize("options", [{"worse": -0.1}, {"slower": float("nan")}, {"axis": "days"}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    found = comparison(a=1.0)
    with pytest.raises(GateError, match="expected"):
        check(found, found, **options)


def test_shares() -> None:
    assert share("5%") == share("0.05") == pytest.approx(0.05)
    for text in ("much", "-1%", "inf"):
        with pytest.raises(GateError, match="expected a share"):
            share(text)
