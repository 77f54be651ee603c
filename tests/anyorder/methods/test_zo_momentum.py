"""ZO-SGD-MMT against its formulas, and without momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from anyorder import ZerothOrder, ZOMomentum
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import bend


def test_without_momentum_it_is_plain_descent() -> None:
    ends: list[list[Tensor]] = []
    for kind, options in ((ZOMomentum, {"momentum": 0.0}), (ZerothOrder, {})):
        params, closure = bend()
        optimizer = kind(params.items(), lr=1e-3, engine="eager", **options)  # type: ignore[arg-type]
        for _ in range(4):
            optimizer.step(closure)
        ends.append([p.detach() for p in params.values()])
    assert all(map(torch.equal, *ends))


class TestContract(MethodContract):
    method = ZOMomentum
    options: ClassVar[dict[str, Any]] = {"directions": 2}
    half: ClassVar[dict[str, Any]] = {"eps": 0.05}
    reference_settings = (
        {"lr": 1e-3},
        {"lr": 1e-3, "eps": 0.1, "directions": 3, "weight_decay": 0.3, "momentum": 0.5},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        velocity = {name: np.zeros_like(value) for name, value in values.items()}
        for step in range(steps):
            grad = world.estimate(
                values,
                options["seed"],
                step,
                directions=options["directions"],
                eps=options["eps"],
            )
            for name, x in values.items():
                velocity[name] = options["momentum"] * velocity[name] + grad[name]
                decayed = x * (1 - options["lr"] * options["weight_decay"])
                values[name] = decayed - options["lr"] * velocity[name]
        return values
