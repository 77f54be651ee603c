"""What methods from values share: warnings, groups, memory, checkpoints without masks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anyorder import ForwardGradient, ZOAdam
from anyorder.hyper import HyperError


def test_explains_that_half_precision_cannot_hold_the_perturbation() -> None:
    layer = nn.Linear(4, 4).bfloat16()
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    text = ZOAdam(layer, eps=1e-3).explain().splitlines()
    assert [("raise it" in line) for line in text if "bfloat16" in line] == [True, False]
    assert "raise it" not in ZOAdam(layer, eps=0.05).explain()
    assert "raise it" not in ForwardGradient(layer).explain()  # it perturbs nothing


def test_how_slopes_are_measured_is_common_to_all_groups() -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    with pytest.raises(HyperError, match="eps: expected 0.001 as in the first group"):
        ZOAdam([{"params": [a]}, {"params": [b], "eps": 0.5}])
    ZOAdam([{"params": [a]}, {"params": [b], "lr": 0.5}])


def test_no_more_than_one_large_parameter_is_estimated_at_a_time() -> None:
    from torch.profiler import ProfilerActivity, profile

    side = 1100
    model = nn.Sequential(*[nn.Linear(side, side, bias=False) for _ in range(6)])
    x = torch.randn(2, side)
    optimizer = ZOAdam(model, lr=1e-6, state="8bit", engine="eager")
    optimizer.step(lambda: model(x).square().mean())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        optimizer.step(lambda: model(x).square().mean())
    held = highest = 0
    for event in record.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    layer = 4 * side**2
    assert layer < highest < 3.5 * layer, highest / layer


def test_checkpoints_hold_nothing_of_their_own_without_masks() -> None:
    x = nn.Parameter(torch.ones(1))
    optimizer = ZOAdam([x], engine="eager")
    optimizer.step(lambda: x.sum())
    assert optimizer.extra_state() == {}
    optimizer.load_state_dict(optimizer.state_dict())
