"""ZO-Adam against its formulas, and the size of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from anyorder import ZOAdam
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import bend


def test_the_first_step_has_the_size_of_lr_whatever_the_scale_of_the_loss() -> None:
    for scale in (1.0, 1e4):
        params, closure = bend()
        before = {name: p.detach().clone() for name, p in params.items()}
        ZOAdam(params.items(), lr=1e-3, engine="eager").step(lambda c=closure, s=scale: c() * s)  # type: ignore[misc]
        for name, p in params.items():
            moved = (p.detach() - before[name]).abs()
            torch.testing.assert_close(moved, torch.full_like(moved, 1e-3), rtol=1e-3, atol=0.0)


class TestContract(MethodContract):
    method = ZOAdam
    options: ClassVar[dict[str, Any]] = {"directions": 4}
    half: ClassVar[dict[str, Any]] = {"eps": 0.05}
    reference_settings = (
        {"lr": 1e-2},
        {"lr": 1e-2, "eps": 0.1, "directions": 2, "weight_decay": 0.3, "betas": (0.5, 0.9)},
        {"lr": 1e-2, "adam_eps": 0.1, "seed": 4},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        m, v = ({name: np.zeros_like(x) for name, x in values.items()} for _ in range(2))
        beta1, beta2 = options["betas"]
        for step in range(steps):
            grad = world.estimate(
                values,
                options["seed"],
                step,
                directions=options["directions"],
                eps=options["eps"],
            )
            for name, x in values.items():
                m[name] = beta1 * m[name] + (1 - beta1) * grad[name]
                v[name] = beta2 * v[name] + (1 - beta2) * grad[name] ** 2
                ahead = m[name] / (1 - beta1 ** (step + 1))
                root = np.sqrt(v[name] / (1 - beta2 ** (step + 1)))
                decayed = x * (1 - options["lr"] * options["weight_decay"])
                values[name] = decayed - options["lr"] * ahead / (root + options["adam_eps"])
        return values
