from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder.oracle import ledger
from anyorder.oracle.kinds import NOMINAL_RATES
from anyorder.oracle.ledger import Budget, BudgetError, BudgetExhausted, Calls

COUNTED = ("values", "grads", "products", "rankings", "ranked", "output_grads", "steps")


# The ledger -----------------------------------------------------------------------------------


def test_a_new_ledger_is_empty() -> None:
    assert set(Calls().to_dict().values()) == {0}


def test_forwards_price_every_answer() -> None:
    calls = Calls(values=5, grads=2, products=1, rankings=7, ranked=4)
    assert calls.forwards() == 5 * 1 + 2 * 3 + 1 * 6 + 4 * 1
    assert calls.forwards({"grads": 2.5}) == 5.0


def test_output_gradients_cost_what_their_user_says() -> None:
    calls = Calls(grads=2, output_grads=2)
    assert calls.forwards() == 6.0
    assert calls.forwards({**NOMINAL_RATES, "output_grads": 100.0}) == 206.0


def test_nominal_rates_name_fields_of_the_ledger() -> None:
    assert set(NOMINAL_RATES) <= set(Calls().to_dict())


def test_a_ledger_survives_being_saved() -> None:
    calls = Calls(values=3, grads=1, seconds=0.5, peak_bytes=7, bytes_sent=2, skipped=1)
    again = Calls(products=9)
    again.update(calls.to_dict())
    assert again == calls


def test_a_ledger_of_another_version_is_refused_whole() -> None:
    calls = Calls(values=3)
    with pytest.raises(BudgetError, match=r"no \['guesses'\]; it was saved by another version"):
        calls.update({"values": 9, "guesses": 1})
    assert calls.values == 3


# Reading and writing budgets ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("60s", {"seconds": 60.0}),
        ("60 seconds", {"seconds": 60.0}),
        ("5min", {"seconds": 300.0}),
        ("5m", {"seconds": 300.0}),
        ("1.5h", {"seconds": 5400.0}),
        ("250ms", {"seconds": 0.25}),
        ("500grads", {"grads": 500}),
        ("10_000forwards", {"forwards": 10_000.0}),
        ("1e4values", {"values": 10_000}),
        ("30output_grads", {"output_grads": 30}),
        ("2rankings, 20ranked", {"rankings": 2, "ranked": 20}),
        ("60s,500grads,7steps,3products", {"seconds": 60, "grads": 500, "steps": 7, "products": 3}),
    ],
)
def test_parse(text: str, limits: dict[str, float]) -> None:
    assert Budget.parse(text).limits() == limits


def test_counts_are_whole_numbers() -> None:
    budget = Budget.parse("1e4values,3steps")
    assert isinstance(budget.values, int)
    assert isinstance(budget.steps, int)


@pytest.mark.parametrize(
    "text", ["", "60", "s", "grads", "-5s", "60 parsecs", "1,5s", "5s,", "nans"]
)
def test_what_cannot_be_read_is_shown_with_examples(text: str) -> None:
    with pytest.raises(BudgetError, match=r"cannot read the budget .*; write a number and a unit"):
        Budget.parse(text)


def test_a_unit_may_come_once() -> None:
    with pytest.raises(BudgetError, match="limits seconds twice; keep one"):
        Budget.parse("60s,1min")


@pytest.mark.parametrize("text", ["0.5grads", "1.5steps", "1e400values"])
def test_counts_must_be_whole(text: str) -> None:
    with pytest.raises(BudgetError, match=r"expected a whole number of \w+, got '"):
        Budget.parse(text)


@pytest.mark.parametrize("limit", [0, -1, math.nan, True, "5"])
def test_limits_are_positive_numbers(limit: object) -> None:
    with pytest.raises(BudgetError, match=r"expected grads > 0 in a budget, got "):
        Budget(grads=limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", [*ledger.COUNTS, "steps"])
@pytest.mark.parametrize("limit", [2.5, 2.0, math.inf])
def test_limits_on_counts_are_whole_numbers(unit: str, limit: float) -> None:
    with pytest.raises(BudgetError, match=f"expected a whole number of {unit} in a budget"):
        Budget(**{unit: limit})


def test_numbers_of_numpy_are_numbers() -> None:
    budget = Budget(grads=np.int64(3), seconds=np.float32(1.5))  # type: ignore[arg-type]
    assert str(budget) == "3grads,1.5s"


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ({"vaules": 1}, r"expected prices of values, grads, .*; got \['vaules'\]"),
        ({"values": -1}, "expected a price >= 0 for values, got -1"),
        ({"values": math.nan}, "got nan"),
        ({"values": math.inf}, "got inf"),
        ({"values": True}, "got True"),
        ({"values": "dear"}, "got 'dear'"),
        (3, "expected prices by kind of answer, got 3"),
    ],
)
def test_prices_are_numbers_of_known_answers(rates: Any, says: str) -> None:
    with pytest.raises(BudgetError, match=f"rates: .*{says}"):
        Budget(grads=1, rates=rates)
    with pytest.raises(BudgetError, match=f"rates: .*{says}"):
        Calls().forwards(rates)


def test_a_budget_may_be_given_as_text_or_left_out() -> None:
    given = Budget(grads=3)
    assert Budget.of(given) is given and Budget.of(None) is None
    assert Budget.of("60s,3grads") == Budget(seconds=60, grads=3)
    with pytest.raises(BudgetError, match="cannot read the budget"):
        Budget.of("a lot")
    for wrong in (500, 1.5, {"grads": 3}, True):
        with pytest.raises(BudgetError, match=r"such as '500grads' or Budget\(grads=500\), got "):
            Budget.of(wrong)  # type: ignore[arg-type]


def test_nothing_is_left_of_zero_seconds() -> None:
    with pytest.raises(BudgetError, match="expected seconds > 0"):
        Budget.parse("0s")


counts = st.dictionaries(st.sampled_from(COUNTED), st.integers(1, 10**15))
amounts = st.dictionaries(
    st.sampled_from(("seconds", "forwards")),
    st.floats(1e-6, 1e12) | st.integers(1, 10**9),
)


@given(counts, amounts)
def test_a_budget_reads_what_it_writes(counts: dict[str, int], amounts: dict[str, float]) -> None:
    budget = Budget(**counts, **amounts)  # type: ignore[arg-type]
    if budget.limits():
        assert Budget.parse(str(budget)) == budget


@given(st.text(max_size=20) | st.from_regex(r"[0-9._e]{1,6}(s|grads|min|steps)", fullmatch=True))
def test_any_text_is_read_or_refused_in_our_words(text: str) -> None:
    with contextlib.suppress(BudgetError):
        assert Budget.parse(text).limits()


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        ({"grads": "many"}, "grads: expected a whole number >= 0 in a ledger, got 'many'"),
        ({"grads": -1}, "grads: .* got -1"),
        ({"grads": 1.5}, "grads: .* got 1.5"),
        ({"grads": True}, "grads: .* got True"),
        ({"grads": None}, "grads: .* got None"),
        ({"seconds": math.nan}, "seconds: expected a number >= 0"),
        ({"seconds": -0.5}, "seconds: "),
        ({"gradients": 3}, r"a ledger has no \['gradients'\]"),
    ],
)
def test_a_saved_ledger_is_checked_before_any_of_it_is_used(saved: Any, says: str) -> None:
    calls = Calls(values=7)
    with pytest.raises(BudgetError, match=says):
        calls.update({"values": 9, **saved})
    assert calls == Calls(values=7)
    calls.update({"values": 9, "seconds": 3, "peak_bytes": 10})
    assert calls == Calls(values=9, seconds=3, peak_bytes=10)


# Spending ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ledger.COUNTS)
def test_a_count_is_kept_to_the_last_answer(unit: str) -> None:
    budget = Budget(**{unit: 3})
    budget.check(Calls(**{unit: 2}), {unit: 1})
    with pytest.raises(BudgetExhausted, match=rf"budget of 3 {unit} is used up \(4 needed\)"):
        budget.check(Calls(**{unit: 3}), {unit: 1})
    with pytest.raises(BudgetExhausted):
        budget.check(Calls(**{unit: 2}), {unit: 2})


def test_other_questions_are_free() -> None:
    Budget(grads=1).check(Calls(grads=1), {"values": 1})


def test_forwards_add_up_all_answers() -> None:
    budget = Budget(forwards=10)
    budget.check(Calls(grads=3), {"values": 1})
    with pytest.raises(BudgetExhausted, match=r"budget of 10 forwards is used up \(11 needed\)"):
        budget.check(Calls(grads=3), {"values": 2})
    Budget(forwards=10, rates={"values": 0.5, "grads": 3.0}).check(Calls(grads=3), {"values": 2})


def test_large_limits_are_written_in_full() -> None:
    with pytest.raises(BudgetExhausted, match=r"budget of 1234567 grads is used up \(1234568 "):
        Budget(grads=1_234_567).check(Calls(grads=1_234_567), {"grads": 1})


def test_steps() -> None:
    budget = Budget(steps=2)
    budget.check_step(1)
    with pytest.raises(BudgetExhausted, match="budget of 2 steps"):
        budget.check_step(2)
    Budget(grads=1).check_step(10**9)


def test_seconds_run_from_the_first_question(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(ledger.time, "perf_counter", lambda: clock[0])
    budget = Budget(seconds=5)
    clock[0] = 200.0
    assert budget.spent_seconds() == 0.0
    budget.check(Calls(), {"values": 1})
    clock[0] = 205.0
    budget.check(Calls(), {"values": 1})
    assert budget.spent_seconds() == 5.0
    clock[0] = 205.5
    with pytest.raises(BudgetExhausted, match=r"budget of 5 seconds is used up \(5.5 needed\)"):
        budget.check(Calls(), {"values": 1})


def test_starting_twice_does_not_turn_the_clock_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1.0]
    monkeypatch.setattr(ledger.time, "perf_counter", lambda: clock[0])
    budget = Budget(seconds=5)
    budget.start()
    clock[0] = 3.0
    budget.start()
    assert budget.spent_seconds() == 2.0


def test_a_running_clock_makes_no_other_budget() -> None:
    running = Budget(seconds=5)
    running.start()
    assert running == Budget(seconds=5)


def test_budgets_share_no_rates() -> None:
    first, second = Budget(grads=1), Budget(grads=1)
    first.rates["grads"] = 99.0
    assert second.rates == NOMINAL_RATES
