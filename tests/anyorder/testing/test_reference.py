"""The world of references, and that the contract asks for a reference and looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.oracle import Oracle
from anyorder.rules import Rule
from anyorder.testing import MethodContract, Values, World


def test_the_gradient_is_the_slope_of_the_value() -> None:
    world = World()
    start = world.start()
    gradient = world.joined(world.gradient(start))
    x = world.joined(start)
    for index in range(x.size):
        step = np.zeros_like(x)
        step[index] = 1e-5
        rise = world.value(world.parted(x + step)) - world.value(world.parted(x - step))
        assert rise / 2e-5 == pytest.approx(gradient[index], rel=1e-6, abs=1e-6)


def test_the_product_is_the_slope_of_the_gradient() -> None:
    world = World()
    start = world.start()
    x = world.joined(start)
    along = np.random.default_rng(0).normal(size=x.size)
    found = world.joined(world.product(start, world.parted(along)))
    ahead, behind = (
        world.joined(world.gradient(world.parted(x + eps * along))) for eps in (1e-5, -1e-5)
    )
    np.testing.assert_allclose(found, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-6)


def test_parts_and_the_whole() -> None:
    world = World()
    start = world.start()
    assert {name: value.shape for name, value in start.items()} == dict(world.shapes)
    assert all(value.dtype == np.float64 for value in start.values())
    again = world.parted(world.joined(start))
    assert all(np.array_equal(again[name], value) for name, value in start.items())
    first, second = (world.start()["vector"] for _ in range(2))
    assert first is not second and np.array_equal(first, second)


# The test of the contract -----------------------------------------------------------------------


def momentum_(
    param: Tensor, memory: Tensor, grad: Tensor, *, lr: Tensor, keep: Tensor, take: Tensor
) -> None:
    memory.copy_(memory * keep + grad * take)
    param.sub_(memory * lr)


def scalars(group: Mapping[str, Any], step: int) -> dict[str, float]:
    lr, beta = float(group["lr"]), group["beta"]
    return {"lr": lr / (1 - beta**step), "keep": beta, "take": 1 - beta}


MOMENTUM = Rule(momentum_, buffers=("memory",), scalars=scalars)


class Momentum(Optimizer):
    """Momentum descent with Adam's correction of the mean."""

    rule = MOMENTUM
    lr: float = hyper(1e-2, ge=0, search="log", low=1e-3, high=1e-1, doc="step size")
    beta: float = hyper(0.9, ge=0, lt=1, doc="memory of gradients")


class MomentumContract(MethodContract):
    method = Momentum
    reference_settings = ({}, {"lr": 0.02, "beta": 0.5})

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        memory = {name: np.zeros_like(value) for name, value in values.items()}
        for step in range(1, steps + 1):
            for name, g in world.gradient(values).items():
                keep = options["beta"]
                memory[name] = keep * memory[name] + (1 - keep) * g
                values[name] -= options["lr"] * memory[name] / (1 - keep**step)
        return values


class Decaying(Momentum):
    weight_decay: float = hyper(0.0, ge=0, doc="decay")


class OneStepLate(Momentum):
    rule = replace(MOMENTUM, scalars=lambda group, step: scalars(group, step + 1))


class StandsStill(Momentum):
    def update(self, oracle: Oracle) -> Tensor:
        return oracle.grad()[0]


class IgnoresItsMemory(Momentum):
    """Right with the default, wrong with another setting."""

    rule = replace(MOMENTUM, scalars=lambda group, step: scalars({**group, "beta": 0.9}, step))


def contract(method: type[Optimizer], base: type[MethodContract] = MomentumContract) -> Any:
    return type("Contract", (base,), {"method": method})()


def test_a_method_that_follows_its_paper_passes() -> None:
    contract(Momentum).test_equals_its_reference()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (OneStepLate, "kernel after 20 steps with {}"),
        (StandsStill, "unmoved: kernel"),
        (IgnoresItsMemory, "with {'lr': 0.02, 'beta': 0.5}"),
        (Decaying, "reference_settings: add a weight_decay"),
    ],
)
def test_a_method_that_does_not_fails(method: type[Optimizer], words: str) -> None:
    with pytest.raises(AssertionError) as failure:
        contract(method).test_equals_its_reference()
    assert words in str(failure.value)


def test_a_reference_is_asked_for() -> None:
    with pytest.raises(pytest.fail.Exception, match="Contract has no reference: write"):
        contract(Momentum, MethodContract).test_equals_its_reference()
