"""What is seen of a plain function: points as copies, numbers of every kind, the best kept."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anyorder.plain_function import (
    MinimizeError,
    Seen,
    closure_of,
    is_number,
    kind,
    numbers,
    own,
    plain_settings,
    ranker_of,
    start_of,
)
from anyorder.points.directions import Dense, Shift


def at(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


# The best -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_best_finite_value_is_kept(sign: float) -> None:
    seen = Seen(at(0.0), sign)
    for value in (math.nan, math.inf, -math.inf, 4.0, 2.0, 2.0, 3.0, 5.0, math.nan):
        seen.take(at(value), value)
    assert seen.fun == seen.best.item() == (2.0 if sign > 0 else 5.0)
    assert seen.last is not None and math.isnan(seen.last[1])


def test_of_equal_values_the_first_is_kept() -> None:
    seen = Seen(at(0.0), 1.0)
    seen.take(at(1.0), 7.0)
    seen.take(at(2.0), 7.0)
    assert seen.best.item() == 1.0


def test_nothing_seen_is_the_start() -> None:
    seen = Seen(at(3.0), 1.0)
    assert seen.best.item() == 3.0 and math.isnan(seen.fun) and seen.last is None
    assert math.isnan(seen.began()) and not seen.worse(1e9)


def test_a_run_began_at_the_value_of_its_start() -> None:
    seen = Seen(at(0.0), 1.0)
    seen.take(at(1.0), 10.0)
    seen.take(at(0.0), 4.0)
    assert seen.began() == 4.0


def test_or_at_the_mean_of_the_finite_values_around_it() -> None:
    seen = Seen(at(0.0), 1.0)
    for x, value in ((-1.0, 3.0), (2.0, math.nan), (1.0, 5.0)):
        seen.take(at(x), value)
    seen.opening = False
    seen.take(at(0.0), 100.0)
    assert seen.began() == 4.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_worse_is_more_than_rounding(sign: float) -> None:
    seen = Seen(at(0.0), sign)
    seen.take(at(0.0), 1e6)
    assert not seen.worse(1e6) and not seen.worse(1e6 * (1 + sign * 1e-15))
    assert seen.worse(1e6 * (1 + sign * 1e-12)) and seen.worse(math.nan)
    assert seen.worse(sign * math.inf) and not seen.worse(-sign * math.inf)


# Settings -----------------------------------------------------------------------------------------


def test_plain_settings_end_with_the_block() -> None:
    with torch.inference_mode(), torch.device("meta"):
        with plain_settings() as users:
            assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()
            assert torch.empty(1).device.type == "cpu"
            assert users(torch.empty)(1).device.type == "meta"
        assert torch.is_inference_mode_enabled() and torch.empty(1).device.type == "meta"
    with torch.no_grad():
        with plain_settings():
            assert torch.is_grad_enabled()
        assert not torch.is_grad_enabled()


def test_functions_are_left_as_they_are_where_nothing_was_set() -> None:
    with plain_settings() as users:
        assert users(math.sqrt) is math.sqrt


# Points and numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize("x0", [np.zeros(2), torch.zeros(2), [0.0, 0.0]], ids=str)
def test_what_is_shown_is_a_copy(x0: Any) -> None:
    point = torch.nn.Parameter(start_of(x0))
    shown = kind(x0)(point)
    shown[:] = 9.0
    assert not bool(point.any()) and isinstance(
        shown, Tensor if isinstance(x0, Tensor) else np.ndarray
    )


def test_the_start_is_a_copy() -> None:
    for x0 in (np.zeros(2), torch.zeros(2)):
        start_of(x0).fill_(1.0)
        assert not x0.any()


@pytest.mark.parametrize(
    "value",
    [1, 1.0, True, np.float32(1), np.ones(1), [1.0], torch.ones(()), torch.tensor(1)],
    ids=repr,
)
def test_numbers_of_every_kind(value: Any) -> None:
    assert numbers(value).item() == 1


@pytest.mark.parametrize(
    "value", [None, "1", 1j, torch.tensor(1j), {"a": 1}, [[1], [1, 2]]], ids=repr
)
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        numbers(value)


def test_is_number() -> None:
    assert all(map(is_number, (1, 1.5, np.float32(1), np.int64(1), math.nan)))
    assert not any(map(is_number, (True, np.True_, "1", None, 1j, [1], torch.ones(()))))


def test_arguments_are_the_callers_own_unless_autograd_could_not_use_them() -> None:
    mine = torch.ones(2)
    with torch.inference_mode():
        lent = torch.ones(2)
    assert own(mine)[0] is mine and own((mine, 3)) == (mine, 3)
    copied = own((lent,))[0]
    assert not copied.is_inference() and torch.equal(copied, mine)


# Functions ----------------------------------------------------------------------------------------


def test_a_closure_takes_note_of_the_point_before_the_function_spoils_its_copy() -> None:
    point, seen = torch.nn.Parameter(at(2.0)), Seen(at(0.0), 1.0)
    closure = closure_of(lambda x: x.mul_(3.0).sum(), None, point, kind(point), seen)
    loss = closure()
    loss.backward()
    assert loss.item() == 6.0 and point.item() == 2.0 and point.grad == at(3.0)
    assert seen.best.item() == 2.0 and seen.fun == 6.0


def test_a_gradient_beside_the_value_is_that_of_the_same_point() -> None:
    point, seen = torch.nn.Parameter(at(2.0)), Seen(at(0.0), 1.0)
    closure = closure_of(lambda x: (x[0] ** 2, 2 * x), True, point, kind(np.zeros(1)), seen)
    closure().backward()
    assert point.grad == at(4.0) and seen.fun == 4.0


@pytest.mark.parametrize("value", [None, (1.0,), "ab", np.zeros(2), torch.zeros(2)], ids=repr)
def test_what_is_not_one_number_is_named(value: Any) -> None:
    point = torch.nn.Parameter(at(0.0))
    closure = closure_of(lambda x: value, None, point, kind([0.0]), Seen(at(0.0), 1.0))
    if isinstance(value, tuple):
        assert closure().item() == 1.0
    else:
        with pytest.raises(MinimizeError, match="fun: expected one number"):
            closure()


def test_rankers_are_shown_points() -> None:
    point = torch.nn.Parameter(at(1.0))
    shifts = [Shift(), Shift(0.5, Dense({"x": at(2.0)}))]
    rank = ranker_of(lambda points: [p.item() for p in points], point, kind(np.zeros(1)))  # type: ignore[arg-type, misc]
    assert list(rank(shifts)) == [1.0, 2.0]
