"""Search spaces and the configurations drawn from them."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch

from anyorder.compare.plan.space import (
    Dimension,
    Sampler,
    SpaceError,
    assumed,
    clamped,
    configuration,
    declared,
    distribution,
)
from anyorder.hyper import hyper
from anyorder.methods import get

SPACE = (
    Dimension("lr", "log", 1e-3, 1e-5, 1e-1),
    Dimension("decay", "log", 0.0, 1e-3, 1.0),
    Dimension("momentum", "linear", 0.0, 0.0, 0.95),
    Dimension("count", "linear", 3, 1, 9, whole=True),
    Dimension("kind", "choice", "b", choices=("a", "b", "c")),
)


def draw(index: int, sampler: str, **more: object) -> dict[str, object]:
    return configuration(SPACE, index, sampler=sampler, seed=0, **more)  # type: ignore[arg-type]


def past(count: int) -> list[tuple[dict[str, object], float]]:
    values = [1.0, math.inf, 0.5, 0.25, 2.0, 0.1]
    found: list[tuple[dict[str, object], float]] = []
    for index in range(count):
        found.append((draw(index, "tpe", past=found), values[index]))
    return found


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_trial_0_is_the_default(sampler: str) -> None:
    assert draw(0, sampler) == {each.name: each.default for each in SPACE}


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_configurations_lie_inside_differ_and_repeat(sampler: str) -> None:
    before = past(5)
    drawn = [draw(index, sampler, past=before) for index in range(1, 6)]
    assert drawn == [draw(index, sampler, past=before) for index in range(1, 6)]
    assert len({str(config) for config in drawn}) == 5
    for config in drawn:
        assert 1e-5 <= config["lr"] <= 1e-1  # type: ignore[operator]
        assert 1e-3 <= config["decay"] <= 1.0  # type: ignore[operator]
        assert 0.0 <= config["momentum"] <= 0.95  # type: ignore[operator]
        assert config["count"] in range(1, 10)
        assert type(config["count"]) is int
        assert config["kind"] in ("a", "b", "c")


def test_sobol_points_cover_the_range_evenly() -> None:
    space = (Dimension("lr", "log", 1e-3, 1e-4, 1.0),)
    drawn = [configuration(space, i, sampler="qmc", seed=0)["lr"] for i in range(1, 17)]
    quarters = [int(math.log10(value) + 4) for value in drawn]
    assert max(quarters.count(q) for q in range(4)) - min(quarters.count(q) for q in range(4)) <= 2


def test_more_trials_begin_with_the_same_ones() -> None:
    assert draw(2, "qmc") == draw(2, "qmc", past=past(4))


def test_tpe_learns_and_random_does_not() -> None:
    good = [(each[0], 1.0 if index else 0.0) for index, each in enumerate(past(6))]
    bad = [(each[0], 0.0 if index else 1.0) for index, each in enumerate(past(6))]
    assert draw(6, "tpe", past=good) != draw(6, "tpe", past=bad)
    assert draw(6, "random", past=good) == draw(6, "random", past=bad)


def test_an_empty_space_has_one_configuration() -> None:
    assert configuration((), 3, sampler="qmc", seed=0) == {}


def test_declared_spaces_leave_out_what_is_fixed() -> None:
    hypers = get("adamw").hypers
    assert [each.name for each in declared(hypers, {})] == ["lr", "weight_decay"]
    assert [each.name for each in declared(hypers, {"lr": 1e-3})] == ["weight_decay"]


def test_whole_numbers_and_choices_are_declared() -> None:
    space = declared(
        {
            "k": hyper(3, ge=1, search="linear", low=1, high=9),
            "mode": hyper("x", choices=("x", "y"), search="choice"),
        },
        {},
    )
    assert (space[0].whole, space[1].choices) == (True, ("x", "y"))


def test_a_tuple_cannot_be_searched() -> None:
    with pytest.raises(SpaceError, match="betas"):
        declared({"betas": hyper((0.9, 0.99), search="linear", low=0.0, high=1.0)}, {})


def test_spaces_of_foreign_classes_are_assumed_by_name() -> None:
    found = assumed(torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.01, "eps": 1e-8}, {})
    assert [each.name for each in found] == ["lr", "weight_decay"]
    assert all(each.assumed for each in found)
    coupled = assumed(torch.optim.Adam, {"lr": 1e-3, "weight_decay": 0}, {})
    assert [each.name for each in coupled] == ["lr"]
    lbfgs = assumed(torch.optim.LBFGS, {"lr": 1}, {})
    assert (lbfgs[0].low, lbfgs[0].high) == (0.1, 1.0)


def test_a_dimension_says_what_it_is() -> None:
    assert str(SPACE[0]) == "lr log 1e-05..0.1"
    assert str(SPACE[4]) == "kind choice a|b|c"


def test_optuna_takes_what_was_clamped() -> None:
    for each in SPACE:
        inside = clamped(each, each.default)
        assert distribution(each)._contains(distribution(each).to_internal_repr(inside))
