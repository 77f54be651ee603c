from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyorder.hyper import Hyper, HyperError, UnknownOptionError, hyper, refuse_unknown

LR = hyper(1e-3, gt=0)
COUNT = hyper(10, ge=2)
BETAS = hyper((0.9, 0.999), ge=0, lt=1)
MODE = hyper("abs", choices=("abs", "signed"))
FLAG = hyper(False)
MAYBE = hyper(None, gt=0)


# Checking -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (LR, 0.5),
        (LR, 1),
        (LR, np.float32(0.5)),
        (LR, torch.tensor(0.5)),
        (COUNT, 2),
        (COUNT, np.int64(3)),
        (BETAS, (0.0, 0.5)),
        (BETAS, [0.0, 0.5]),
        (MODE, "signed"),
        (FLAG, True),
        (MAYBE, None),
        (MAYBE, 0.1),
        (hyper(math.inf, gt=0), math.inf),
    ],
)
def test_good_values_pass(declared: Hyper, value: Any) -> None:
    declared.check("name", value)


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        (LR, 0, "name: expected a value > 0, got 0"),
        (LR, -1, "name: expected a value > 0, got -1"),
        (LR, math.nan, "name: expected a number, got nan"),
        (LR, math.inf, "name: expected a finite number, got inf"),
        (LR, 10**400, "name: expected a number, got 1000"),
        (LR, True, "name: expected a number, got True"),
        (LR, "0.1", "name: expected a number, got '0.1'"),
        (LR, b"1", "name: expected a number, got b'1'"),
        (LR, None, "name: expected a number, got None"),
        (LR, 1j, "name: expected a number, got 1j"),
        (LR, torch.ones(2), r"name: expected a number, got tensor\(\[1., 1.\]\)"),
        (LR, (0.1,), r"name: expected a number, got \(0.1,\)"),
        (COUNT, 1, "name: expected a value >= 2, got 1"),
        (COUNT, 2.5, "name: expected a whole number, got 2.5"),
        (COUNT, 3.0, "name: expected a whole number, got 3.0"),
        (COUNT, math.inf, "name: expected a whole number, got inf"),
        (BETAS, 0.9, "name: expected 2 numbers, got 0.9"),
        (BETAS, (0.9,), r"name: expected 2 numbers, got \(0.9,\)"),
        (BETAS, "ab", r"name\[0\]: expected a number, got 'a'"),
        (BETAS, (0.9, 1.0), r"name\[1\]: expected a value < 1, got 1.0"),
        (hyper(0.5, le=1), 2, "name: expected a value <= 1, got 2"),
        (MODE, "max", r"name: expected one of \['abs', 'signed'\], got 'max'"),
        (FLAG, 1, "name: expected True or False, got 1"),
        (MAYBE, 0, "name: expected a value > 0, got 0"),
        (MAYBE, "x", "name: expected a number, got 'x'"),
    ],
)
def test_bad_values_are_named(declared: Hyper, value: Any, message: str) -> None:
    with pytest.raises(HyperError, match=message):
        declared.check("name", value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_bounds_are_kept(value: float) -> None:
    declared = hyper(0.5, ge=0, lt=1)
    if 0 <= value < 1:
        declared.check("x", value)
    else:
        with pytest.raises(HyperError, match="x: expected a value"):
            declared.check("x", value)


# Words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (LR, "> 0"),
        (COUNT, ">= 2"),
        (BETAS, ">= 0, < 1"),
        (hyper(0.5, gt=0, le=1), "> 0, <= 1"),
        (MODE, "abs | signed"),
        (FLAG, ""),
    ],
)
def test_range(declared: Hyper, words: str) -> None:
    assert declared.range() == words


# Command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        (LR, "0.5", 0.5),
        (LR, "1e-2", 0.01),
        (LR, "1", 1),
        (COUNT, "20", 20),
        (COUNT, "1e3", 1000),
        (COUNT, "1_000", 1000),
        (BETAS, "0.8,0.9", (0.8, 0.9)),
        (BETAS, "(0.8, 0.9)", (0.8, 0.9)),
        (MODE, "signed", "signed"),
        (hyper(1, choices=(1, 2)), "2", 2),
        (FLAG, "True", True),
        (FLAG, "false", False),
        (MAYBE, "none", None),
        (MAYBE, "0.5", 0.5),
    ],
)
def test_parse(declared: Hyper, text: str, value: Any) -> None:
    found = declared.parse("name", text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("declared", "text", "message"),
    [
        (LR, "fast", "name: expected a number, got 'fast'"),
        (LR, "-1", "name: expected a value > 0, got -1"),
        (LR, "none", "name: expected a number, got 'none'"),
        (COUNT, "2.5", "name: expected a whole number, got 2.5"),
        (BETAS, "0.9", "name: expected 2 numbers"),
        (BETAS, "0.9,", r"name\[1\]: expected a number, got ''"),
        (MODE, "max", "name: expected one of"),
        (FLAG, "yes", "name: expected True or False, got 'yes'"),
    ],
)
def test_parse_refuses(declared: Hyper, text: str, message: str) -> None:
    with pytest.raises(HyperError, match=message):
        declared.parse("name", text)


@given(st.floats(1e-300, 1e300))
def test_numbers_survive_being_written(value: float) -> None:
    assert LR.parse("lr", repr(value)) == value


# Declaring ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"default": -1.0, "gt": 0}, "default: expected a value > 0"),
        ({"default": 1.0, "search": "log"}, "search='log' needs low and high"),
        ({"default": 1.0, "search": "linear", "low": 0.0}, "search='linear' needs low and high"),
        ({"default": 1.0, "search": "log", "low": 2.0, "high": 1.0}, "with low < high"),
        ({"default": 1.0, "search": "log", "low": 0.0, "high": 1.0}, "needs low > 0, got 0.0"),
        ({"default": 1.0, "search": "choice"}, "search='choice' needs choices"),
        ({"default": "c", "choices": ("a", "b")}, r"default: expected one of \['a', 'b'\]"),
    ],
)
def test_declarations_that_make_no_sense(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperError, match=message):
        hyper(**arguments)


def test_a_switch_may_be_searched_without_choices() -> None:
    assert hyper(False, search="choice").search == "choice"


def test_hyper_takes_what_a_hyper_is() -> None:
    assert list(inspect.signature(hyper).parameters) == list(inspect.signature(Hyper).parameters)


# Unknown names --------------------------------------------------------------------------------


def test_known_names_pass() -> None:
    refuse_unknown(["lr"], ["lr", "eps"], "SGD")


def test_an_unknown_name_gets_the_nearest_spelling() -> None:
    with pytest.raises(
        UnknownOptionError,
        match=r"SGD has no option 'momentm'. Did you mean 'momentum'\? Known options: lr, mom",
    ):
        refuse_unknown(["lr", "momentm"], ["momentum", "lr"], "SGD")


def test_an_unknown_name_like_nothing_gets_the_list() -> None:
    with pytest.raises(UnknownOptionError, match=r"no option 'zzz'. Known options: lr."):
        refuse_unknown(["zzz"], ["lr"], "SGD")
