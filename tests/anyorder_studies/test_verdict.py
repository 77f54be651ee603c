from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder_studies.measurement import Measurement, StudyError
from anyorder_studies.verdict import Claim, Status, Verdict, judge, judge_claim

LOWER = Claim(
    quantity="ratio", direction="lower", expected=0.5, threshold=1.0, tolerance=0.1, unit="x",
    source="table 1", text="It halves.", central=True,
)  # fmt: skip
HIGHER = replace(LOWER, quantity="gain", direction="higher", expected=2.0)
EQUAL = replace(LOWER, quantity="same", direction="equal", expected=2.0, threshold=2.0)
ONLY = replace(LOWER, quantity="sign", expected=1.0)


def measured(low: float, value: float, high: float) -> Measurement:
    return Measurement(value, low, high, 3)


@pytest.mark.parametrize(
    ("claim", "low", "value", "high", "status"),
    [
        (LOWER, 0.4, 0.5, 0.6, Status.MET),
        (LOWER, 0.1, 0.2, 0.3, Status.MET),  # beyond the expected size
        (LOWER, 0.5, 0.55, 0.6, Status.MET),  # just within the tolerance
        (LOWER, 0.5, 0.551, 0.6, Status.EFFECT_ONLY),
        (LOWER, 0.7, 0.8, 0.99, Status.EFFECT_ONLY),
        (LOWER, 0.7, 0.8, 1.0, Status.UNDECIDED),  # an end on the threshold contains it
        (LOWER, 0.1, 0.2, 1.5, Status.UNDECIDED),  # size does not help an interval too wide
        (LOWER, 1.0, 1.2, 1.5, Status.UNDECIDED),
        (LOWER, 1.01, 1.2, 1.5, Status.OPPOSITE),
        (LOWER, float("-inf"), 0.5, float("inf"), Status.UNDECIDED),
        (HIGHER, 1.5, 2.0, 2.5, Status.MET),
        (HIGHER, 5.0, 6.0, 7.0, Status.MET),
        (HIGHER, 1.5, 1.8, 2.5, Status.MET),
        (HIGHER, 1.5, 1.79, 2.5, Status.EFFECT_ONLY),
        (HIGHER, 1.0, 3.0, 5.0, Status.UNDECIDED),
        (HIGHER, 0.5, 0.7, 0.99, Status.OPPOSITE),
        (EQUAL, 1.8, 2.0, 2.2, Status.MET),
        (EQUAL, 1.79, 2.0, 2.2, Status.UNDECIDED),
        (EQUAL, 2.1, 2.2, 2.3, Status.UNDECIDED),
        (EQUAL, 1.0, 2.0, 3.0, Status.UNDECIDED),
        (EQUAL, 2.21, 2.3, 2.4, Status.OPPOSITE),
        (EQUAL, 1.0, 1.5, 1.79, Status.OPPOSITE),
        (ONLY, 0.8, 0.9, 0.99, Status.MET),  # a direction only: existing is meeting
        (ONLY, 0.8, 0.9, 1.0, Status.UNDECIDED),
    ],
)
def test_status_of_one_claim(
    claim: Claim, low: float, value: float, high: float, status: Status
) -> None:
    assert judge_claim(claim, measured(low, value, high)) is status


BY_STATUS = {
    Status.MET: measured(0.4, 0.5, 0.6),
    Status.EFFECT_ONLY: measured(0.7, 0.8, 0.9),
    Status.UNDECIDED: measured(0.7, 0.8, 1.1),
    Status.OPPOSITE: measured(1.1, 1.2, 1.3),
}


@pytest.mark.parametrize(("central", "second"), list(product(Status, Status)))
def test_verdict_of_every_pair_of_statuses(central: Status, second: Status) -> None:
    claims = (
        replace(LOWER, quantity="second", central=False),
        replace(LOWER, quantity="first"),
    )
    found = judge(claims, {"first": BY_STATUS[central], "second": BY_STATUS[second]})
    if central is Status.OPPOSITE:
        expected = Verdict.REFUTED
    elif central is Status.UNDECIDED:
        expected = Verdict.NOT_AT_THIS_SCALE
    elif central is Status.MET and second in (Status.MET, Status.EFFECT_ONLY):
        expected = Verdict.REPRODUCED
    else:
        expected = Verdict.PARTLY
    assert found is expected


def test_one_claim_reaches_all_four_verdicts() -> None:
    verdicts = [judge((LOWER,), {"ratio": m}) for m in BY_STATUS.values()]
    assert verdicts == [
        Verdict.REPRODUCED,
        Verdict.PARTLY,
        Verdict.NOT_AT_THIS_SCALE,
        Verdict.REFUTED,
    ]


ENDS = st.tuples(*[st.floats(-10, 10)] * 3).map(sorted)


@given(ENDS, st.sampled_from([LOWER, HIGHER, ONLY]))
def test_an_effect_exists_exactly_if_the_interval_is_beyond_the_threshold(
    ends: list[float], claim: Claim
) -> None:
    low, value, high = ends
    exists = high < claim.threshold if claim.direction == "lower" else low > claim.threshold
    status = judge_claim(claim, measured(low, value, high))
    assert (status in (Status.MET, Status.EFFECT_ONLY)) == exists


@given(ENDS)
def test_lower_and_higher_mirror_each_other(ends: list[float]) -> None:
    low, value, high = ends
    mirror = replace(LOWER, direction="higher", expected=-0.5, threshold=-1.0)
    there = judge_claim(LOWER, measured(low, value, high))
    assert judge_claim(mirror, measured(-high, -value, -low)) is there


def test_tolerance_is_absolute_where_nothing_is_expected() -> None:
    zero = replace(LOWER, direction="equal", expected=0.0, threshold=0.0, tolerance=0.2)
    assert judge_claim(zero, measured(-0.1, 0.0, 0.1)) is Status.MET
    assert judge_claim(zero, measured(0.3, 0.4, 0.5)) is Status.OPPOSITE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expected": 1.5}, "does not lead from threshold"),
        ({"direction": "higher"}, "does not lead from threshold"),
        ({"direction": "equal"}, "does not lead from threshold"),
        ({"direction": "up"}, "'lower', 'higher' or 'equal'"),
        ({"tolerance": -0.1}, "tolerance >= 0"),
        ({"direction": "equal", "threshold": 0.5, "tolerance": 0.0}, "> 0 for 'equal'"),
        ({"expected": float("nan")}, "finite numbers"),
        ({"source": " "}, "needs a source"),
        ({"text": ""}, "needs a text"),
        ({"unit": ""}, "needs a unit"),
        ({"quantity": ""}, "needs a quantity"),
    ],
)
def test_claims_that_nothing_could_decide_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        replace(LOWER, **change)


def test_a_claim_without_its_measurement_is_refused() -> None:
    with pytest.raises(StudyError, match="claimed but not measured: ratio; measured were other"):
        judge((LOWER,), {"other": measured(0, 0, 0)})
    with pytest.raises(StudyError, match="at least one claim"):
        judge((), {})


def test_exactly_one_claim_is_central() -> None:
    found = {"ratio": measured(0, 0, 0), "gain": measured(0, 0, 0)}
    with pytest.raises(StudyError, match="central=True, got none"):
        judge((replace(LOWER, central=False),), found)
    with pytest.raises(StudyError, match="central=True, got ratio, gain"):
        judge((LOWER, HIGHER), found)
