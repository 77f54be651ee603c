"""Bytes and hashes."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import nn

from anyorder.compare.run import memory
from anyorder.methods import get


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux only")
def test_the_peak_sees_what_is_gone_again_and_forgets_it() -> None:
    memory.reset_peak()
    before = memory.peak_bytes()
    block = torch.ones(16 * 2**20)
    del block
    assert memory.peak_bytes() - before > 50 * 2**20
    memory.reset_peak()
    assert memory.peak_bytes() - before < 30 * 2**20


def test_state_is_counted_without_the_parameters() -> None:
    model = nn.Linear(10, 10)
    for optimizer in (get("adamw")(model), torch.optim.AdamW(model.parameters())):
        optimizer.step(_closure(optimizer, model))  # type: ignore[arg-type]
        assert 2 * 110 * 4 <= memory.state_bytes(optimizer) <= 2 * 110 * 4 + 64


def test_histories_in_lists_are_counted() -> None:
    model = nn.Linear(10, 10)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)
    optimizer.step(_closure(optimizer, model))
    assert memory.state_bytes(optimizer) >= 4 * 110 * 4


def _closure(optimizer: torch.optim.Optimizer, model: nn.Module):
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(2, 10)).square().mean()
        loss.backward()
        return loss

    return closure


def test_equal_models_have_equal_fingerprints() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    first = memory.fingerprint(model)
    assert memory.fingerprint(copy.deepcopy(model)) == first
    moved, counted, half = (copy.deepcopy(model) for _ in range(3))
    with torch.no_grad():
        moved[0].weight[0, 0] += 1e-6
        counted[1].running_mean[0] += 1
    prints = {memory.fingerprint(each) for each in (moved, counted, half.half())}
    assert len(prints) == 3
    assert first not in prints
