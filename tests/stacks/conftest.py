"""What the tests of stacks share: the examples of the documentation, real data of small size.

Libraries are imported by the tests that use them, never at the top of a file: some take seconds,
and every process of the tests collects every file.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples" / "stacks"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs an example of the documentation in an empty folder and returns its names."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        path = EXAMPLES / f"{name}.py"
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        return runpy.run_path(str(path), run_name="__main__")

    return run


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """The first 256 of scikit-learn's digits: pixels in [0, 1], shape (256, 64), and labels."""
    datasets = pytest.importorskip("sklearn.datasets")
    pixels, labels = datasets.load_digits(return_X_y=True)
    return torch.tensor(pixels, dtype=torch.float32)[:256] / 16, torch.tensor(labels)[:256]


@pytest.fixture
def network() -> Callable[[], nn.Module]:
    """Makes the same small classifier each time."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))

    return make


@pytest.fixture
def equal() -> Callable[[nn.Module, nn.Module], bool]:
    """Whether two modules hold the same bits."""

    def compare(a: nn.Module, b: nn.Module) -> bool:
        ours, theirs = a.state_dict(), b.state_dict()
        return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)

    return compare
