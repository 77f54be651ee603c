"""The rules one element at a time, eager against compiled, and what decay and constants are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.engine.program import Arithmetic, scalar_names
from anyorder.hyper import HyperError
from anyorder.rules.kappa import kappa
from anyorder.rules.lion import (
    SIGN,
    along_,
    clip_,
    decoupled,
    loud_,
    mixed,
    momentum_weight,
    plain_,
    radius,
    radius_note,
    sign_,
)

RULES: dict[str, Arithmetic] = {"l1": sign_, "squared": plain_, "huber": clip_, "soft": loud_}

GROUP: dict[str, Any] = {
    "lr": 0.03, "betas": (0.8, 0.95), "weight_decay": 0.25, "decoupled_weight_decay": True,
    "threshold": 0.4,
}  # fmt: skip


def numbers(rule: Arithmetic) -> dict[str, Tensor]:
    found = SIGN.scalars(GROUP, 1)
    return {n: torch.tensor(found[n], dtype=torch.float64) for n in scalar_names(rule)}


def vectors(count: int, size: int = 400, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    rng = np.random.default_rng(7)
    made = [torch.tensor(rng.normal(size=size)).to(dtype) for _ in range(count)]
    made[1][::7] = made[2][::7] = 0  # memory and gradient both nothing
    return made


def mapped(name: str, c: float) -> float:
    sign = 0.0 if c == 0 else math.copysign(1.0, c)
    width = GROUP["threshold"]
    return {
        "l1": sign,
        "squared": c,
        "huber": min(max(c / width, -1.0), 1.0),
        "soft": sign if abs(c) > width else 0.0,
    }[name]


@pytest.mark.parametrize("name", sorted(RULES))
def test_rules_element_by_element(name: str) -> None:
    param, memory, grad = vectors(3)
    (b1, b2), lr = GROUP["betas"], GROUP["lr"]
    values = zip(param.tolist(), memory.tolist(), grad.tolist(), strict=True)
    expected = [(x - lr * mapped(name, b1 * m + (1 - b1) * g), b2 * m + (1 - b2) * g)
                for x, m, g in values]  # fmt: skip
    Engine("eager").run(RULES[name], [param, memory, grad], numbers(RULES[name]))
    np.testing.assert_allclose(param, [x for x, _ in expected], rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(memory, [m for _, m in expected], rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_given_direction_does_what_the_fused_rule_does(name: str) -> None:
    """The map of the whole tensor, then :func:`along_`: the same bits."""
    fused, separate = vectors(3), vectors(3)
    Engine("eager").run(RULES[name], fused, numbers(RULES[name]))
    (b1, _), (param, memory, grad) = GROUP["betas"], separate
    of = kappa(name, threshold=GROUP["threshold"])
    direction = of.gradient(mixed(memory, grad, b1, 1.0 - b1))
    Engine("eager").run(along_, [param, memory, grad, direction], numbers(along_))
    assert all(torch.equal(a, b) for a, b in zip(fused, separate, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("rule", [*RULES.values(), along_])
def test_compiled_rules_have_the_same_bits(rule: Arithmetic) -> None:
    count = 4 if rule is along_ else 3
    runs = [vectors(count, 3_001, torch.float32) for _ in range(2)]
    for mode, tensors in zip(("eager", "compiled"), runs, strict=True):
        for _ in range(3):
            Engine(mode).run(rule, tensors, numbers(rule))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_numbers_are_those_of_the_group() -> None:
    found = SIGN.scalars(GROUP, 1)
    assert found["slope"] == 1 / 0.4
    assert found["take2"] == 1 - 0.95
    assert SIGN.scalars({**GROUP, "threshold": 0.0}, 1)["slope"] == math.inf


def test_radius_is_one_over_decay() -> None:
    assert radius(GROUP) == 4.0
    assert radius({**GROUP, "weight_decay": 0.0}) == math.inf
    coupled = {**GROUP, "decoupled_weight_decay": False}
    assert radius(coupled) == radius({**GROUP, "cautious": True}) == math.inf
    assert (decoupled(GROUP), decoupled(coupled)) == (0.25, 0.0)
    assert radius_note(GROUP, "max |x|") == "decay draws it into max |x| <= 4"
    assert radius_note(coupled, "max |x|") == ""


def test_momentum_weight_cancels_the_cross_term() -> None:
    """The equation it is made to solve: 1 = (1 + c wd) (1 - b1) + c (1 - b2) / lr'."""
    for betas in ((0.9, 0.99), (0.0, 0.5), (0.8, 0.8)):
        for decay in (0.0, 0.3, 20.0):
            group = {**GROUP, "betas": betas, "weight_decay": decay}
            c, (b1, b2) = momentum_weight(group), betas
            implicit = 0.03 / (1 - 0.03 * decay)
            assert (1 + c * decay) * (1 - b1) + c * (1 - b2) / implicit == pytest.approx(1.0)
    with pytest.raises(HyperError, match="below 1"):
        momentum_weight({**GROUP, "weight_decay": 34.0})
