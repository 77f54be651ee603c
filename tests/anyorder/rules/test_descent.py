"""Rules of descent against float64 NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyorder.engine import Engine
from anyorder.engine.program import scalar_names
from anyorder.rules import Rule
from anyorder.rules.descent import AVERAGE, DESCENT, HEAVY_BALL, MOVE, SHIFT, lr_of

GROUP: dict[str, Any] = {"lr": 0.1, "momentum": 0.8, "dampening": 0.25, "nesterov": False}
RULES = {"descent": DESCENT, "move": MOVE, "ball": HEAVY_BALL, "average": AVERAGE}


def numbers(rule: Rule, group: dict[str, Any], step: int) -> dict[str, Tensor]:
    found = rule.scalars(group, step)
    return {n: torch.tensor(found[n], dtype=torch.float64) for n in scalar_names(rule.function)}


def run(
    rule: Rule, group: dict[str, Any], tensors: list[Tensor], grads: list[Any], mode: Any = "eager"
) -> None:
    engine = Engine(mode)
    for step, grad in enumerate(grads, 1):
        given = [*tensors, torch.as_tensor(grad).to(tensors[0].dtype)]
        engine.run(rule.function, given, numbers(rule, group, step))


def slopes(count: int = 6, size: int = 50) -> list[NDArray[np.float64]]:
    return list(np.random.default_rng(1).normal(size=(count, size)))


@pytest.mark.parametrize("rule", [DESCENT, MOVE])
def test_a_step_along_a_direction(rule: Rule) -> None:
    x = torch.ones(50, dtype=torch.float64)
    run(rule, GROUP, [x], slopes())
    np.testing.assert_allclose(x, 1 - 0.1 * np.sum(slopes(), 0), rtol=1e-13)
    assert lr_of({"lr": torch.tensor(0.5)}, 7) == {"lr": 0.5}


def test_what_is_done_around_directions() -> None:
    assert (DESCENT.gradient, MOVE.gradient, SHIFT.gradient) == (True, False, False)
    assert (DESCENT.ends_step, MOVE.ends_step, SHIFT.ends_step) == (True, True, False)
    assert SHIFT.function is MOVE.function and SHIFT.scalars(GROUP, 1) == {}  # given with each use
    assert AVERAGE.gradient and not AVERAGE.ends_step
    assert AVERAGE.buffers == HEAVY_BALL.buffers == ("momentum_buffer",)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("dampening", [0.0, 0.25])
def test_momentum(nesterov: bool, dampening: float) -> None:
    """Sutskever et al. (2013); the first velocity is the gradient, whatever the dampening."""
    group = {**GROUP, "nesterov": nesterov, "dampening": dampening}
    x, v = torch.ones(50, dtype=torch.float64), torch.zeros(50, dtype=torch.float64)
    run(HEAVY_BALL, group, [x, v], slopes())
    position, velocity = np.ones(50), np.zeros(50)
    for step, grad in enumerate(slopes()):
        velocity = 0.8 * velocity + (1.0 if step == 0 else 1 - dampening) * grad
        position = position - 0.1 * (grad + 0.8 * velocity if nesterov else velocity)
    np.testing.assert_allclose(x, position, rtol=1e-13)
    np.testing.assert_allclose(v, velocity, rtol=1e-13)


def test_an_average_leaves_the_parameter_alone() -> None:
    x, m = torch.ones(50, dtype=torch.float64), torch.zeros(50, dtype=torch.float64)
    run(AVERAGE, GROUP, [x, m], slopes())
    weights = 0.2 * 0.8 ** np.arange(5, -1, -1)
    np.testing.assert_allclose(m, weights @ np.array(slopes()), rtol=1e-12)
    assert torch.equal(x, torch.ones_like(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_compiled_rules_have_the_same_bits(name: str) -> None:
    rule, ends = RULES[name], []
    for mode in ("eager", "compiled"):
        tensors = [torch.ones(3_001), *(torch.zeros(3_001) for _ in rule.buffers)]
        run(rule, {**GROUP, "nesterov": True}, tensors, slopes(3, 3_001), mode)
        ends.append(tensors)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
