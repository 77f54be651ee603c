"""Programs: a rule, and what is read, written and decayed around it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from anyorder.engine.engine import Engine
from anyorder.engine.formats import Plain, Stochastic
from anyorder.engine.program import NOISE, Program, precision_for, program_for
from anyorder.testing.worlds import mix_
from anyorder.testing.worlds import mix_scalars as scalars
from anyorder.testing.worlds import mix_tensors as tensors


@pytest.mark.parametrize("decay", ["decoupled", "coupled"])
def test_decay_is_arithmetic_before_the_rule(decay: Any) -> None:
    param, mean, grad = tensors(100)
    before = [param.clone(), mean.clone(), grad.clone()]
    numbers = {"shrink": torch.tensor(0.9).double(), "penalty": torch.tensor(0.1).double()}
    program = Program(mix_, (), decay, gradient=2)
    program([param, mean, grad], {**scalars(), **numbers})
    assert torch.equal(grad, before[2])
    if decay == "decoupled":
        before[0].mul_(numbers["shrink"])
    else:
        before[2].add_(before[0] * numbers["penalty"])
    mix_(*before, **scalars())
    assert torch.equal(param, before[0]) and torch.equal(mean, before[1])


def test_half_precision_is_rounded_once() -> None:
    param, mean, grad = tensors(1000, torch.bfloat16)
    wide = [param.double(), mean.double(), grad.double()]
    program_for(mix_)([param, mean, grad], scalars())
    mix_(*wide, **scalars())
    assert bool(((param.double() - wide[0]).abs() <= wide[0].abs() * 2.0**-8 + 1e-30).all())
    assert torch.allclose(mean.double(), wide[1], rtol=1e-6)


def test_inputs_are_not_written() -> None:
    param, mean, grad = tensors(50, torch.bfloat16)
    before, version = grad.clone(), grad._version
    program_for(mix_)([param, mean, grad], scalars())
    assert torch.equal(grad, before)
    assert grad._version == version


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_equal_ones_are_the_same_also_as_copies(copied) -> None:
    program = program_for(mix_, (Plain(), Stochastic()), "coupled", 2)
    assert program_for(mix_, (Plain(), Stochastic()), "coupled", 2) is program
    assert copied(program) is program


def test_it_says_what_it_takes_and_writes() -> None:
    plain = program_for(mix_)
    assert plain.scalars == ("lr", "keep")
    assert plain.changed(3) == 2
    random = program_for(mix_, (Stochastic(), Plain()), "decoupled", 2)
    assert random.scalars == ("lr", "keep", "shrink", *NOISE)
    assert random.random and not plain.random


def three_(first: Tensor, second: Tensor, third: Tensor, *, to: Tensor) -> None:
    for each in (first, second, third):
        each.zero_().add_(to)


def test_tensors_of_a_program_are_rounded_independently_and_without_bias() -> None:
    count, share = 200_000, 0.3
    program = program_for(three_, (Stochastic(),) * 3)
    stored = [torch.zeros(count, dtype=torch.bfloat16) for _ in range(3)]
    numbers = dict(zip(NOISE, map(torch.tensor, (5, 7, 0)), strict=True))
    program(stored, {"to": torch.tensor(1.0 + share * 2.0**-7).double(), **numbers})
    up = torch.stack(stored).double() > 1.0
    spread = (share * (1 - share)) ** 0.5
    assert up.double().mean(1).tolist() == pytest.approx([share] * 3, abs=5 * spread / count**0.5)
    correlation = torch.corrcoef(up.double()) - torch.eye(3)
    assert correlation.abs().max() < 5 / count**0.5
    for shift in (1, 8):  # nor do neighbours go together
        together = (up[:, shift:] & up[:, :-shift]).double().mean(1).tolist()
        assert together == pytest.approx([share**2] * 3, abs=5 * spread / count**0.5)


def test_what_it_writes_is_found_in_any_mode(user_mode: Any) -> None:
    def moves_(param: Tensor, momentum: Tensor, grad: Tensor, *, lr: Tensor) -> None:
        momentum.add_(grad)
        param.sub_(momentum.sqrt() * lr)

    with user_mode():
        assert Program(moves_).written(3) == 2


def along_(param: Tensor, grad: Tensor, *, lr: Tensor) -> None:
    param.sub_(torch.where(grad.abs() > lr, grad, 0.0).mul_(lr))


def keeping_(param: Tensor, grad: Tensor, *, lr: Tensor) -> None:
    param.mul_(1.0 - lr).add_(grad * lr)


def masked_(param: Tensor, grad: Tensor, *, lr: Tensor) -> None:
    param.sub_((grad > 0) * lr)


def test_scalars_are_float32_only_where_each_meets_nothing_but_float32() -> None:
    single, half, double, whole = torch.float32, torch.bfloat16, torch.float64, torch.int32
    assert precision_for(along_, (single, half)) is single
    assert precision_for(along_, (single, double)) is double
    assert precision_for(along_, (single, whole)) is double
    assert precision_for(keeping_, (single, single)) is double  # 1 - lr is worked out in float64
    assert precision_for(masked_, (single, single)) is double  # a mask rounds nothing


@pytest.mark.parametrize("rule", [along_, keeping_, masked_])
def test_the_precision_of_scalars_changes_no_bit(rule: Any) -> None:
    *ours, _ = tensors(1000)
    theirs = [t.clone() for t in ours]
    Engine("eager").run(rule, ours, {"lr": 0.1})
    rule(*theirs, lr=torch.tensor(0.1, dtype=torch.float64))
    assert torch.equal(ours[0], theirs[0])
