"""Sparse MeZO against its formulas; thresholds that stay and masks that do not leak."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder import SparseMeZO, ZerothOrder
from anyorder.optimizer.record import CheckpointError
from anyorder.testing import MethodContract, Values, World
from anyorder.testing.worlds import bend


def test_without_sparsity_it_is_plain_descent() -> None:
    ends: list[list[Tensor]] = []
    for kind, options in ((SparseMeZO, {"sparsity": 0.0}), (ZerothOrder, {})):
        params, closure = bend()
        optimizer = kind(params.items(), lr=1e-4, eps=1e-4, engine="eager", **options)  # type: ignore[arg-type]
        optimizer.step(closure)
        ends.append([p.detach() for p in params.values()])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_smallest_quarter_moves_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.Tanh(), nn.Linear(100, 8))
    x = torch.randn(4, 64)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = SparseMeZO(model, lr=1e-3, engine="eager")
    for _ in range(2):
        optimizer.step(lambda: model(x).square().mean())
    for name, p in model.named_parameters():
        moved = p.detach() != before[name]
        largest = before[name].abs()[moved].max()
        assert int(moved.sum()) == -(-p.numel() // 4)
        assert bool((before[name].abs()[~moved] > largest).all())


def test_parameters_that_begin_at_zero_take_part_as_a_whole() -> None:
    """Otherwise they could never leave zero by more than their first move."""
    x, y = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.ones(8))
    optimizer = SparseMeZO([x, y], lr=0.01, engine="eager")
    for _ in range(2):
        before = x.detach().clone()
        optimizer.step(lambda: ((x - 1) ** 2).sum() + (y**2).sum())
        assert bool((x != before).all())


def test_thresholds_stay_as_they_were_in_the_first_step_also_after_a_restart() -> None:
    params, closure = bend()
    optimizer = SparseMeZO(params.items(), lr=1e-2, engine="eager")
    optimizer.step(closure)
    known = dict(optimizer.thresholds)
    for _ in range(3):
        optimizer.step(closure)
    again = SparseMeZO(params.items(), engine="eager")
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert optimizer.thresholds == again.thresholds == known != {}
    damaged = copy.deepcopy(optimizer.state_dict())
    damaged["anyorder"]["thresholds"] = {"matrix": float("nan")}
    with pytest.raises(CheckpointError, match="threshold of matrix"):
        again.load_state_dict(damaged)
    assert again.thresholds == known


class TestContract(MethodContract):
    method = SparseMeZO
    options: ClassVar[dict[str, Any]] = {"sparsity": 0.1}
    half: ClassVar[dict[str, Any]] = {"eps": 0.05, "sparsity": 0.0}
    reference_settings = (
        {"lr": 1e-3, "sparsity": None},
        {"lr": 1e-3, "eps": 0.1, "directions": 3, "weight_decay": 0.3, "sparsity": 0.5},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        share = 0.75 if options["sparsity"] is None else options["sparsity"]
        limits = {
            name: np.sort(np.abs(x), axis=None)[int(np.ceil((1 - share) * x.size)) - 1]
            for name, x in values.items()
        }
        for step in range(steps):
            grad = world.estimate(
                values,
                options["seed"],
                step,
                directions=options["directions"],
                eps=options["eps"],
                keep={name: np.abs(x) <= limits[name] for name, x in values.items()},
            )
            for name, x in values.items():
                decayed = x * (1 - options["lr"] * options["weight_decay"])
                values[name] = decayed - options["lr"] * grad[name]
        return values
