"""Block-wise descent against its formulas: one block after the other, or all from one point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from anyorder import ZerothOrder, ZOBlock
from anyorder.testing import MethodContract, Values, World


def test_with_one_block_it_is_plain_descent() -> None:
    ends: list[torch.Tensor] = []
    for kind in (ZOBlock, ZerothOrder):
        torch.manual_seed(0)
        layer = nn.Linear(4, 3)
        optimizer = kind(layer, lr=1e-3, engine="eager")
        for _ in range(3):
            optimizer.step(lambda layer=layer: layer(torch.ones(2, 4)).square().sum())  # type: ignore[misc]
        ends.append(layer.weight.detach())
    assert torch.equal(*ends)


def test_a_sweep_is_one_step_for_each_block_or_one_for_all() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)])
    x = torch.randn(5, 4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = ZOBlock(model, lr=1e-3, engine="eager")
    for _ in range(3):
        optimizer.step(lambda: model(x).square().mean())
    assert optimizer.calls.values == 6
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())
    jacobi = ZOBlock(model, sweep="jacobi", directions=2, engine="eager")
    jacobi.step(lambda: model(x).square().mean())
    assert jacobi.calls.values == 2 * 2 * 3


class TestContract(MethodContract):
    method = ZOBlock
    options: ClassVar[dict[str, Any]] = {"sweep": "jacobi"}
    half: ClassVar[dict[str, Any]] = {"eps": 0.05}
    reference_settings = (
        {"lr": 1e-3, "sweep": "gauss-seidel"},
        {"lr": 1e-3, "eps": 0.1, "directions": 3, "weight_decay": 0.3, "sweep": "jacobi"},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        """The world's parameters have no module: they are one block."""
        for step in range(steps):
            grad = world.estimate(
                values,
                options["seed"],
                step,
                directions=options["directions"],
                eps=options["eps"],
                keep={name: np.ones(x.shape, bool) for name, x in values.items()},
            )
            for name, x in values.items():
                decayed = x * (1 - options["lr"] * options["weight_decay"])
                values[name] = decayed - options["lr"] * grad[name]
        return values
