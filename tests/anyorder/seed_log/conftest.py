"""What tests of seed logs share: a small model, and runs of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anyorder import MeZO
from anyorder.seed_log import fingerprint, record

#: Options of MeZO that change what a log has to hold.
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "decay": {"weight_decay": 0.3},
    "directions": {"directions": 3},
}


class Runs:
    """A base model, its data, and runs of MeZO that are recorded."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.base = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)
        self.inputs = torch.randn(64, 5, dtype=dtype)
        self.folder = folder

    def fresh(self) -> nn.Module:
        """A copy of the base model."""
        return copy.deepcopy(self.base)

    def closure(self, model: nn.Module, step: int) -> Callable[[], torch.Tensor]:
        """The loss of the batch of a step."""
        rows = self.inputs[step % 8 :: 8]
        return lambda: (model(rows) - rows[:, :3]).square().mean()

    def run(self, steps: int, name: str = "run", **options: Any) -> tuple[Path, nn.Module]:
        """The log of a run from the base, and the trained model."""
        model, path = self.fresh(), self.folder / f"{name}.seedlog"
        optimizer = MeZO(model, **{"lr": 0.05, **options})
        with record(optimizer, path):
            for step in range(steps):
                optimizer.step(self.closure(model, step))
        return path, model


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


@pytest.fixture(params=[torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def runs_in_dtype(tmp_path: Path, request: pytest.FixtureRequest) -> Runs:
    return Runs(tmp_path, request.param)


@pytest.fixture(params=OPTIONS.values(), ids=list(OPTIONS))
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.fixture
def equal() -> Callable[[nn.Module, nn.Module], bool]:
    return lambda a, b: fingerprint(a) == fingerprint(b)
