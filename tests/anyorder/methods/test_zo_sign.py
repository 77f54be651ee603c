"""ZO-SGD-Sign against its formulas: of the paper, and of the released code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from anyorder import ZOSign
from anyorder.points.directions import Seeded
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import bend


@pytest.mark.parametrize("sign_of", ["estimate", "slope"])
def test_moves_have_a_size_of_their_own(sign_of: str) -> None:
    """Of lr in every weight, or of lr times the direction."""
    params, closure = bend()
    before = {name: p.detach().clone() for name, p in params.items()}
    optimizer = ZOSign(params.items(), lr=1e-3, sign_of=sign_of, seed=5, engine="eager")
    optimizer.step(closure)
    for name, p in params.items():
        z = Seeded(5, 0).tensor(name, p)
        wanted = z.abs() if sign_of == "slope" else torch.ones_like(p)
        moved = (p.detach() - before[name]).abs()
        torch.testing.assert_close(moved, 1e-3 * wanted, rtol=1e-6, atol=1e-12)


def test_without_a_slope_there_is_no_move() -> None:
    for sign_of in ("estimate", "slope"):
        params, closure = bend()
        before = {name: p.detach().clone() for name, p in params.items()}
        optimizer = ZOSign(params.items(), lr=1.0, sign_of=sign_of, engine="eager")
        optimizer.step(lambda c=closure: 0.0 * c())  # type: ignore[misc]
        assert all(torch.equal(p, before[name]) for name, p in params.items())


class TestContract(MethodContract):
    method = ZOSign
    options: ClassVar[dict[str, Any]] = {}
    half: ClassVar[dict[str, Any]] = {"eps": 0.05}
    reference_settings = (
        {"lr": 1e-3},
        {"lr": 1e-3, "eps": 0.1, "directions": 3, "weight_decay": 0.3},
        {"lr": 1e-3, "directions": 2, "sign_of": "slope", "seed": 4},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        seed, lr, eps, q = (options[name] for name in ("seed", "lr", "eps", "directions"))
        for step in range(steps):
            if options["sign_of"] == "estimate":
                grad = world.estimate(values, seed, step, directions=q, eps=eps)
                move = {name: np.sign(g) for name, g in grad.items()}
            else:
                move = {name: np.zeros_like(x) for name, x in values.items()}
                for index in range(q):
                    z = {
                        name: Seeded(seed, step, index).tensor(name, torch.tensor(x)).numpy()
                        for name, x in values.items()
                    }
                    ahead = world.value({name: x + eps * z[name] for name, x in values.items()})
                    behind = world.value({name: x - eps * z[name] for name, x in values.items()})
                    for name in values:
                        move[name] = move[name] + np.sign(ahead - behind) * z[name] / q
            for name, x in values.items():
                values[name] = x * (1 - lr * options["weight_decay"]) - lr * move[name]
        return values
