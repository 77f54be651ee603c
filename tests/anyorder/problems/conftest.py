"""A problem without faults, from which the tests make faulty ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anyorder.problems import Problem, evaluating, minibatch, seeded

sys.path.insert(0, str(Path(__file__).parent))  # for the modules beside this one


class Good(Problem):
    """Fit a small network to 24 points."""

    name = "good"
    metric = "error"
    target = 1e-6

    def __init__(self, *, size: int = 8):
        self.size = size
        chance = torch.Generator().manual_seed(7)
        self.x = torch.randn(24, 3, generator=chance)
        self.y = self.x.sin().sum(1, keepdim=True)

    def build(self, seed):
        with seeded(seed):
            return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    def batch(self, seed, step):
        rows = minibatch(24, self.size, seed=seed, step=step)
        return {"x": self.x[rows], "y": self.y[rows]}

    def loss(self, model, batch):
        return F.mse_loss(model(batch["x"]), batch["y"])

    def evaluate(self, model):
        with evaluating(model):
            loss = F.mse_loss(model(self.x), self.y).item()
        return {"loss": loss, "error": loss**0.5}


@pytest.fixture(autouse=True)
def one_thread():
    """Run on one thread: these problems are too small to gain from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def good() -> type[Problem]:
    """The class of a problem without faults."""
    return Good


@pytest.fixture
def write(tmp_path):
    """Write a file below the temporary folder and return its path as text."""

    def write(text: str, name: str = "my_problem.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write
