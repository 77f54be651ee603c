"""The hybrid against its formulas, and activations that are not kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder import SGD, ZOHybrid
from anyorder.oracle import ClosureError
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import net


def layers() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(6, 6) for _ in range(4)]), torch.randn(5, 6)


def test_with_all_layers_backpropagated_it_is_gradient_descent() -> None:
    ends: list[Tensor] = []
    for kind, options in ((ZOHybrid, {"last": 9, "lr_ratio": 1.0}), (SGD, {})):
        model, x = layers()
        optimizer = kind(model, lr=1e-2, engine="eager", **options)  # type: ignore[arg-type]
        for _ in range(3):
            optimizer.step(lambda m=model, x=x: m(x).square().mean())  # type: ignore[misc]
        ends.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.equal(*ends)


@pytest.mark.parametrize("last", [1, 3])
def test_the_graph_begins_with_the_first_backpropagated_layer(last: int) -> None:
    model, x = layers()
    graphs: list[list[bool]] = []
    for layer in model:
        layer.register_forward_hook(lambda m, args, out: graphs[-1].append(out.requires_grad))

    def closure() -> Tensor:
        graphs.append([])
        return model(x).square().mean()

    optimizer = ZOHybrid(model, lr=1e-3, last=last, engine="eager")
    optimizer.step(closure)
    assert graphs == [[i >= 4 - last for i in range(4)], [False] * 4, [False] * 4]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_an_exception_leaves_parameters_trainable() -> None:
    model, _ = net()

    def closure() -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ZOHybrid(model, engine="eager").step(closure)
    assert all(p.requires_grad for p in model.parameters())


def test_last_layers_without_influence_stay_and_the_others_descend() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    options: dict[str, Any] = {"blocks": "parameters", "engine": "eager"}
    optimizer = ZOHybrid([("a", used), ("b", unused)], lr=0.01, **options)
    assert optimizer.step(lambda: (used**2).sum()).item() == 3.0
    assert unused.tolist() == [1.0] * 3 and used.tolist() != [1.0] * 3
    with pytest.raises(ClosureError):
        optimizer.step(lambda: used * 2)


class TestContract(MethodContract):
    method = ZOHybrid
    #: Which parameters are the last depends on their order; steps are small where it changes.
    options: ClassVar[dict[str, Any]] = {"blocks": "parameters", "lr": 4e-8, "directions": 8}
    half: ClassVar[dict[str, Any]] = {"eps": 0.05}
    reference_settings = (
        {"lr": 1e-3},
        {"lr": 1e-3, "last": 2, "lr_ratio": 3.0, "eps": 0.1, "weight_decay": 0.3, "directions": 2},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        last = list(values)[-options["last"] :]
        for step in range(steps):
            exact = world.gradient(values)
            estimate = world.estimate(
                values,
                options["seed"],
                step,
                directions=options["directions"],
                eps=options["eps"],
                keep={name: np.full(x.shape, name not in last) for name, x in values.items()},
            )
            for name, x in values.items():
                grad = exact[name] if name in last else estimate[name]
                lr = options["lr"] * (options["lr_ratio"] if name in last else 1.0)
                values[name] = x - lr * (grad + options["weight_decay"] * x)
        return values
