"""Adam's rule against float64 NumPy, in its own words and by its constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyorder.engine import Engine
from anyorder.rules.adamw import ADAMW, adamw_, adamw_scalars

GROUP: dict[str, Any] = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3}


def slopes(size: int = 50) -> NDArray[np.float64]:
    return np.random.default_rng(4).normal(size=(8, size))


def run(group: dict[str, Any], dtype: torch.dtype, size: int = 50, mode: Any = "eager") -> Any:
    engine = Engine(mode)
    tensors = [torch.ones(size, dtype=dtype), *torch.zeros(2, size, dtype=dtype).unbind()]
    for step, grad in enumerate(slopes(size), 1):
        found = ADAMW.scalars(group, step)
        numbers = {n: torch.tensor(v, dtype=torch.float64) for n, v in found.items()}
        engine.run(ADAMW.function, [*tensors, torch.tensor(grad, dtype=dtype)], numbers)
    return tensors


@pytest.mark.parametrize("betas", [(0.8, 0.95), (0.0, 0.0), (0.0, 0.9)])
def test_algorithm_1_of_the_paper(betas: tuple[float, float]) -> None:
    """Kingma and Ba (2015)."""
    found = run({**GROUP, "betas": betas}, torch.float64)
    (beta1, beta2), x, m, v = betas, np.ones(50), np.zeros(50), np.zeros(50)
    for step, grad in enumerate(slopes(), 1):
        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
        x = x - 0.03 * m_hat / (np.sqrt(v_hat) + 1e-3)
    for tensor, expected in zip(found, (x, m, v), strict=True):
        np.testing.assert_allclose(tensor, expected, rtol=1e-12)


def test_the_first_step_has_the_length_lr_whatever_the_gradient() -> None:
    for scale in (1e-12, 1.0, 1e12):
        x, m, v = torch.zeros(3, 4, dtype=torch.float64).unbind()
        numbers = {n: torch.tensor(s) for n, s in ADAMW.scalars({**GROUP, "eps": 0.0}, 1).items()}
        adamw_(x, m, v, torch.full((4,), scale, dtype=torch.float64), **numbers)
        torch.testing.assert_close(x, torch.full((4,), -0.03, dtype=torch.float64))


def test_numbers_may_have_other_names_in_a_group() -> None:
    group = {"lr": torch.tensor(0.03), "adam_betas": (0.8, 0.95), "adam_eps": 1e-3}
    found = adamw_scalars("adam_betas", "adam_eps")(group, 3)
    assert found == pytest.approx(ADAMW.scalars(GROUP, 3))
    assert all(isinstance(value, float) for value in found.values())


def test_what_the_rule_declares() -> None:
    assert ADAMW.buffers == ("exp_avg", "exp_avg_sq") and ADAMW.nonnegative == {"exp_avg_sq"}
    assert set(ADAMW.hypers) == {"lr", "betas", "eps", "weight_decay"} and not ADAMW.own_decay


@pytest.mark.slow
def test_the_compiled_rule_has_the_same_bits() -> None:
    ends: list[list[Tensor]] = [
        run(GROUP, torch.float32, 3_001, mode) for mode in ("eager", "compiled")
    ]
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
