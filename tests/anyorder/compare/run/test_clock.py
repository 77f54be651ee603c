"""The cost of a run, and a budget in it."""

from __future__ import annotations

import pytest

from anyorder.compare.plan.limits import Limits
from anyorder.compare.run.clock import Clock, RunBudget
from anyorder.oracle.ledger import NOMINAL_RATES, Budget, BudgetExhausted, Calls


def test_the_clock_reads_all_costs() -> None:
    clock = Clock(
        Limits(forwards=60.0), NOMINAL_RATES, Calls(values=2, grads=3, products=1, seconds=1)
    )
    clock.seconds, clock.data_seconds, clock.steps = 2.0, 0.25, 3
    read = clock.point(train_loss=None, val_loss=1.0, metric=1.0, peak_bytes=0)
    assert read.forwards == 2 + 9 + 6
    assert read.fraction == pytest.approx(17 / 60)
    assert read.optimizer_seconds == pytest.approx(0.75)
    assert (read.calls.values, read.calls.grads, read.calls.products) == (2, 3, 1)


@pytest.mark.parametrize("rates", [dict(NOMINAL_RATES), {"grads": 2.5}])
def test_prices_are_those_of_the_ledger(rates: dict[str, float]) -> None:
    calls = Calls(values=3, grads=5, products=7, ranked=11)
    clock = Clock(Limits(forwards=100.0), rates, calls)
    assert clock.forwards == clock.priced(calls) == calls.forwards(rates)


def test_the_budget_of_a_run_is_checked_as_any_other() -> None:
    """The same answers are allowed as with a budget of the library."""
    rates = dict(NOMINAL_RATES)
    clock = Clock(Limits(forwards=30.0), rates)
    own, plain = RunBudget.of_run(clock), Budget(forwards=30.0, rates=rates)
    for grads in range(12):
        for budget in (own, plain):
            if grads < 10:
                budget.check(Calls(grads=grads), {"grads": 1})
            else:
                with pytest.raises(BudgetExhausted, match="budget of 30 forwards"):
                    budget.check(Calls(grads=grads), {"grads": 1})
