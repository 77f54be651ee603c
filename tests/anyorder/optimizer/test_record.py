"""The record of a checkpoint: what it holds, and what of it is believed."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from anyorder import SGD, MeZO
from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.optimizer.record import (
    FORMAT,
    CheckpointError,
    checked_record,
    load_record,
    number,
    numbers,
    record_of,
    without_clocks,
)
from anyorder.rules.descent import DESCENT


class Counting(Optimizer):
    """Descent that keeps two numbers of its own."""

    rule = DESCENT
    lr: float = hyper(0.1, ge=0, doc="step size")
    best, taken = math.inf, 0

    def extra_state(self) -> dict[str, Any]:
        """Both."""
        return {"best": self.best, "taken": self.taken}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """One after the other."""
        self.taken = number(extra, extra["taken"], "taken", least=0, whole=True)
        self.best = number(extra, extra["best"], "best")


def made(kind: Any = Counting, steps: int = 2) -> Any:
    x = nn.Parameter(torch.ones(2))
    optimizer = kind([("x", x)], engine="eager", seed=7)
    for _ in range(steps):
        optimizer.step(lambda: (x**2).sum())
    return optimizer


def test_a_record_is_what_belongs_to_the_run() -> None:
    record = record_of(made(), ["x/mean"])
    assert record.items() >= {
        "format": FORMAT, "method": "Counting", "steps": 2, "skips": 0, "seed": 7, "answer": False,
        "best": math.inf, "taken": 0,
    }.items()  # fmt: skip
    assert record["calls"]["grads"] == 2 and record["work"] == {}
    assert record["nonfinite"] == ["x/mean", "record"]  # numbers of its own may be infinite


def test_groups_carry_it_without_clocks() -> None:
    state = made().state_dict()
    assert state["anyorder"]["calls"]["seconds"] > 0
    carried = state["param_groups"][0]["anyorder"]
    assert carried == without_clocks(state["anyorder"]) and "seconds" not in carried["calls"]
    for kept in (state["anyorder"], carried):
        assert checked_record(made(), {**state, "anyorder": kept})["steps"] == 2


DAMAGE: list[tuple[dict[str, Any], str]] = [
    ({"format": 1}, "expected checkpoint format 2, got 1; see the changelog"),
    ({"method": "SGD"}, "expected the state of Counting, got that of SGD"),
    ({"steps": -1}, "steps: expected a count from 0 on, got -1"),
    ({"steps": 1.5}, "steps: expected a whole number, got 1.5"),
    ({"skips": None}, "skips: expected a whole number"),
    ({"seed": True}, "seed: expected a whole number, got True"),
    ({"calls": [1]}, "calls: expected counts by kind"),
    ({"calls": {"grads": -1}}, "expected a count >= 0 of grads, got -1"),
    ({"calls": {"grads": 1.5}}, "of grads, got 1.5"),
    ({"calls": {"seconds": math.nan}}, "of seconds, got nan"),
    ({"calls": {"grads": True}}, "of grads, got True"),
    ({"calls": {"guesses": 1}}, "calls: .*guesses"),
    ({"work": {"descend_": "many"}}, "work: expected counts by rule"),
]


@pytest.mark.parametrize(("changed", "says"), DAMAGE)
def test_damage_is_named(changed: dict[str, Any], says: str) -> None:
    state = made().state_dict()
    with pytest.raises(CheckpointError, match=says):
        checked_record(made(), {**state, "anyorder": {**state["anyorder"], **changed}})


@pytest.mark.parametrize("given", [None, [], {}, {"state": {}}, {"state": [], "param_groups": []}])
def test_what_is_no_state_dict_is_refused(given: Any) -> None:
    with pytest.raises(CheckpointError, match=r"expected the state_dict\(\) of an optimizer"):
        checked_record(made(), given)


def test_state_dicts_of_others_are_refused() -> None:
    x = nn.Parameter(torch.ones(2))
    for theirs in (torch.optim.SGD([x]).state_dict(), {"state": {}, "param_groups": [1]}):
        with pytest.raises(CheckpointError, match=r"another library|to be a dict"):
            checked_record(made(), theirs)


def test_only_methods_without_numbers_of_their_own_do_without_a_record() -> None:
    def stripped(optimizer: Any) -> Any:
        state = optimizer.state_dict()
        del state["anyorder"]
        for group in state["param_groups"]:
            group.pop("anyorder")
        return state

    plain = made(SGD)
    record = checked_record(made(SGD, 0), stripped(plain))
    assert (record["steps"], record["skips"], record["seed"]) == (2, 0, 7)
    for kind in (Counting, MeZO):  # numbers of its own; directions that follow from the seed
        with pytest.raises(CheckpointError, match="lacks the record"):
            checked_record(made(kind, 0), stripped(made(kind)))


def test_loading_is_whole_or_not_at_all() -> None:
    source, target = made(), made(steps=1)
    source.best, source.taken = 0.5, 4
    source.engine.work["adamw_"] = 9  # elements that were moved; enough of them, and it compiles
    record = copy.deepcopy(source.state_dict()["anyorder"])
    target.taken = 1
    with pytest.raises(CheckpointError, match="record of Counting cannot be read .*best"):
        load_record(target, {**record, "best": "low"}, [{}])
    assert (target.taken, target.best, target.steps) == (1, math.inf, 1)
    load_record(target, record, [{}])
    assert (target.taken, target.best, target.steps) == (4, 0.5, 2)
    assert target.calls.grads == 2 and target.engine.work == {"adamw_": 9}


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        ("1", {}),
        (None, {}),
        (True, {}),
        (math.nan, {}),
        (math.inf, {}),
        (-0.5, {"least": 0.0}),
        (2, {"most": 1}),
        (1.0, {"whole": True}),
    ],
)
def test_what_is_no_such_number_is_refused(value: Any, bounds: Any) -> None:
    with pytest.raises(CheckpointError, match="probe: expected a number"):
        number({}, value, "probe", **bounds)


def test_numbers_are_given_back() -> None:
    assert number({}, 3, "probe", least=3, most=3, whole=True) == 3
    assert number({"nonfinite": ["record"]}, math.inf, "probe", most=1.0) == math.inf
    assert numbers({}, (1, 2.5), "pair", 2) == numbers({}, [1, 2.5], "pair", None) == [1, 2.5]
    for wrong in ([1], [1, 2, 3], 1, "12", [1, "2"], {"a": 1, "b": 2}):
        with pytest.raises(CheckpointError, match="pair: expected"):
            numbers({}, wrong, "pair", 2)
