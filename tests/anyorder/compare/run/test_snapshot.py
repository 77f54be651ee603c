"""A copy of a model and its optimizer, put back as it was."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import pytest
import torch
from torch import nn

from anyorder.compare.run.snapshot import Snapshot


def world() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def train(model: nn.Module, optimizer: Any, steps: int) -> None:
    for step in range(steps):
        batch = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))

        def closure(batch: torch.Tensor = batch) -> torch.Tensor:
            optimizer.zero_grad()
            loss = (model(batch) - 1).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)


def numbers(model: nn.Module, optimizer: Any) -> list[torch.Tensor]:
    """Everything that a step changes."""
    found = [*model.parameters(), *model.buffers()]
    for state in optimizer.state.values():
        for value in state.values():
            found += [t for t in (value if isinstance(value, list) else [value]) if t is not None]
    return [torch.as_tensor(each, dtype=torch.float64).detach().clone() for each in found]


@pytest.mark.parametrize("name", ["SGD", "AdamW", "LBFGS", "Adafactor"])
@pytest.mark.parametrize("before", [0, 3])
def test_all_that_a_step_changes_is_put_back(name: str, before: int) -> None:
    model = world()
    kinds: dict[str, Any] = {"SGD": {"momentum": 0.9}, "LBFGS": {"max_iter": 4}}
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01, **kinds.get(name, {}))
    snapshot = Snapshot(model, optimizer)
    train(model, optimizer, before)
    snapshot.update()
    kept = numbers(model, optimizer)
    train(model, optimizer, 2)
    changed = numbers(model, optimizer)
    assert not all(map(torch.equal, kept, changed))
    snapshot.restore()
    restored = numbers(model, optimizer)
    assert len(restored) == len(kept)
    assert all(map(torch.equal, kept, restored))
    train(model, optimizer, 2)  # it goes on as if nothing had been
    assert all(map(torch.equal, changed, numbers(model, optimizer)))


def test_a_snapshot_can_be_restored_twice() -> None:
    model = world()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 1)
    snapshot, kept = Snapshot(model, optimizer), numbers(model, optimizer)
    for _ in range(2):
        train(model, optimizer, 1)
        snapshot.restore()
        assert all(map(torch.equal, kept, numbers(model, optimizer)))


class Odd(torch.optim.SGD):
    """Keeps things outside of its state: shared ones, references, and what cannot be copied."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), lr=0.1)
        self.model, self.numbers = model, torch.Generator()
        self.history: deque[torch.Tensor] = deque([torch.zeros(2)])
        self.last = self.history[0]
        self.count = 0


def test_attributes_outside_the_state_are_put_back_and_stay_shared() -> None:
    model = world()
    optimizer = Odd(model)
    snapshot = Snapshot(model, optimizer)
    optimizer.count, optimizer.later = 5, 1  # type: ignore[attr-defined]
    optimizer.last.fill_(9.0)
    snapshot.restore()
    assert (optimizer.count, hasattr(optimizer, "later")) == (0, False)
    assert optimizer.model is model
    assert optimizer.last is optimizer.history[0]
    assert optimizer.last.tolist() == [0.0, 0.0]
    assert optimizer.param_groups[0]["params"][0] is next(model.parameters())


def test_what_cannot_be_copied_does_not_keep_the_state_from_being_put_back() -> None:
    model = world()
    optimizer: Any = torch.optim.Adam(model.parameters())
    optimizer.lock = lock = threading.Lock()
    train(model, optimizer, 1)
    snapshot, kept = Snapshot(model, optimizer), numbers(model, optimizer)
    train(model, optimizer, 1)
    snapshot.restore()
    assert all(map(torch.equal, kept, numbers(model, optimizer)))
    assert optimizer.lock is lock


def test_size_of_the_copy() -> None:
    model = world()
    optimizer = torch.optim.Adam(model.parameters())
    snapshot = Snapshot(model, optimizer)
    whole = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    assert snapshot.bytes == whole
    train(model, optimizer, 1)
    snapshot.update()
    params = sum(p.numel() * 4 for p in model.parameters())
    assert snapshot.bytes == whole + 2 * params + 4 * len(list(model.parameters()))
