"""Programs: a rule, and what is read, written and decayed around it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from anyorder.precision import Plain, Stochastic
from anyorder.program import NOISE, Program, program_for
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
    assert [t.shape for t in plain.changed(tensors(4))] == [(4,), (4,)]
    random = program_for(mix_, (Stochastic(), Plain()), "decoupled", 2)
    assert random.scalars == ("lr", "keep", "shrink", *NOISE)
    assert random.random and not plain.random
