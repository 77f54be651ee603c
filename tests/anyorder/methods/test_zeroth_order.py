"""The general method: each rule against its formulas, and options that have no meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder import MeZO, ZerothOrder, ZOAdam, ZOMomentum
from anyorder.hyper import HyperError
from anyorder.points.directions import Seeded
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import bend


@pytest.mark.parametrize(
    ("preset", "rule"), [(MeZO, "sgd"), (ZOMomentum, "momentum"), (ZOAdam, "adamw")]
)
def test_presets_are_choices_of_it(preset: Any, rule: str) -> None:
    ends: list[list[Tensor]] = []
    for kind, options in ((preset, {}), (ZerothOrder, {"rule": rule})):
        params, closure = bend()
        optimizer = kind(params.items(), lr=1e-4, directions=2, engine="eager", **options)
        for _ in range(4):
            optimizer.step(closure)
        ends.append([p.detach() for p in params.values()])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)  # MeZO adds one term at a time


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beta1": 0.9}, "beta1: only used with rule = 'momentum' or 'adamw' or 'lion'"),
        ({"rule": "momentum", "beta2": 0.9}, "beta2: only used with rule = 'adamw' or 'lion'"),
        ({"rule": "lion", "adamw_eps": 1e-8}, "adamw_eps: only used with rule = 'adamw'"),
        ({"rule": "sign", "state": "8bit"}, "state: expected 'fp32' with rule='sign'"),
        ({"rule": "adam"}, "rule: expected one of"),
    ],
)
def test_options_that_the_rule_does_not_use_are_refused(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(HyperError, match=words):
        ZerothOrder([nn.Parameter(torch.ones(3))], **options)


def test_groups_may_have_rules_of_their_own() -> None:
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    groups = [
        {"params": [a], "rule": "lion", "beta1": 0.5},
        {"params": [b], "rule": "adamw", "lr": 0.1},
    ]
    optimizer = ZerothOrder(groups, lr=0.01, engine="eager")
    optimizer.step(lambda: (a * b).sum())
    torch.testing.assert_close((a.detach() - 1).abs(), torch.full((3,), 0.01))
    torch.testing.assert_close((b.detach() - 1).abs(), torch.full((3,), 0.1))
    assert set(optimizer.state[a]) == {"step", "exp_avg"}


@pytest.mark.parametrize("state", ["bf16", "8bit"])
@pytest.mark.parametrize("rule", ["momentum", "adamw", "lion"])
def test_rules_keep_state_in_any_precision(rule: str, state: str) -> None:
    x = nn.Parameter(torch.ones(4096))
    optimizer = ZerothOrder([x], lr=1e-4, rule=rule, state=state, engine="eager")
    for _ in range(3):
        optimizer.step(lambda: (x**2).sum())
    buffers = 2 if rule == "adamw" else 1
    size = 2 * 4096 if state == "bf16" else 4096 + 16 * 4
    assert optimizer.state_bytes() == buffers * size


class TestContract(MethodContract):
    method = ZerothOrder
    options: ClassVar[dict[str, Any]] = {"rule": "adamw", "directions": 4}
    half: ClassVar[dict[str, Any]] = {"eps": 0.05}
    reference_settings = (
        {"lr": 1e-2, "weight_decay": 0.3},
        {"lr": 1e-2, "beta1": 0.5, "beta2": 0.9, "adamw_eps": 0.1, "seed": 3},
        {"lr": 1e-3, "rule": "sgd", "difference": "forward", "law": "rademacher"},
        {"lr": 1e-3, "rule": "momentum", "beta1": 0.5, "law": "sphere"},
        {"lr": 1e-3, "rule": "sign", "law": "coordinate", "directions": 100, "eps": 0.1},
        {"lr": 1e-3, "rule": "lion", "beta2": 0.9},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        m, v = ({name: np.zeros_like(x) for name, x in values.items()} for _ in range(2))
        lr = options["lr"]
        for step in range(steps):
            grad = self.estimate(values, world, step, options)
            for name, x in values.items():
                g = grad[name]
                move, m[name], v[name] = updates(options, step, g, m[name], v[name])
                values[name] = x * (1 - lr * options["weight_decay"]) - lr * move
        return values

    def estimate(self, x: Values, world: World, step: int, options: Mapping[str, Any]) -> Values:
        """Each law and difference as its formula says."""
        eps, q, law, size = options["eps"], options["directions"], options["law"], 0
        zero = {name: np.zeros_like(value) for name, value in x.items()}
        directions: list[Values] = []
        if law == "coordinate":
            for name in x:
                for i in range(x[name].size):
                    z = {n: np.zeros_like(value) for n, value in x.items()}
                    z[name].reshape(-1)[i] = 1.0
                    directions.append(z)
        else:
            size = sum(value.size for value in x.values())
            for index in range(q):
                seeded = Seeded(
                    options["seed"], step, index, law if law == "rademacher" else "normal"
                )
                directions.append(
                    {n: seeded.tensor(n, torch.tensor(value)).numpy() for n, value in x.items()}
                )
        found, base = zero, world.value(x)
        for z in directions:
            weight = 1.0 if law == "coordinate" else 1.0 / q
            if law == "sphere":
                length = np.sqrt(sum((part**2).sum() for part in z.values()))
                z, weight = {name: part / length for name, part in z.items()}, size / q
            ahead = world.value({name: x[name] + eps * z[name] for name in x})
            behind = world.value({name: x[name] - eps * z[name] for name in x})
            slope = (ahead - behind) / (2 * eps)
            if options["difference"] == "forward":
                slope = (ahead - base) / eps
            found = {name: found[name] + weight * slope * z[name] for name in x}
        return found


def updates(
    options: Mapping[str, Any], step: int, g: np.ndarray, m: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The move in units of lr, and both buffers, by the rule's formula."""
    given = (options["beta1"], options["beta2"])
    if options["rule"] == "sgd":
        return g, m, v
    if options["rule"] == "sign":
        return np.sign(g), m, v
    if options["rule"] == "momentum":
        m = (0.9 if options["beta1"] is None else options["beta1"]) * m + g
        return m, m, v
    defaults = (0.9, 0.999) if options["rule"] == "adamw" else (0.9, 0.99)
    beta1, beta2 = (b if b is not None else d for b, d in zip(given, defaults, strict=True))
    if options["rule"] == "lion":
        return np.sign(beta1 * m + (1 - beta1) * g), beta2 * m + (1 - beta2) * g, v
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
    eps = 1e-8 if options["adamw_eps"] is None else options["adamw_eps"]
    root = np.sqrt(v / (1 - beta2 ** (step + 1)))
    return m / (1 - beta1 ** (step + 1)) / (root + eps), m, v
