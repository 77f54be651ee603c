"""accelerate: its loop, its checkpoints, closures through its wrapper."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import anyorder
from anyorder import methods
from anyorder.integrations import metrics

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="needs accelerate"
)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Accelerators share their settings; each test has its own."""
    yield
    as_new()


def as_new() -> None:
    """Forget all settings, as another process would not know them."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def train(
    parts: tuple[Any, ...], digits: tuple[Tensor, Tensor], steps: int, closures: bool = False
) -> None:
    accelerator, model, optimizer, scheduler = parts
    for x, y in list(zip(digits[0].split(32), digits[1].split(32), strict=True))[:steps]:
        with accelerator.accumulate(model):
            if closures:
                optimizer.step(lambda x=x, y=y: cross_entropy(model(x), y))
            else:
                accelerator.backward(cross_entropy(model(x), y))
                optimizer.step()
            scheduler.step()
            optimizer.zero_grad()


def prepared(network: Callable[[], nn.Module], name: str, accumulate: int = 1) -> tuple[Any, ...]:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    model = network()
    optimizer = methods.get(name)(model)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    return accelerator, *accelerator.prepare(model, optimizer, scheduler)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_trains_as_the_loop_does(
    digits: tuple[Tensor, Tensor],
    network: Callable[[], nn.Module],
    equal: Callable[..., bool],
    accumulate: int,
) -> None:
    parts = prepared(network, "adamw", accumulate)
    train(parts, digits, 8)
    model = network()
    optimizer = anyorder.AdamW(model)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for index, (x, y) in enumerate(zip(digits[0].split(32), digits[1].split(32), strict=True)):
        (cross_entropy(model(x), y) / accumulate).backward()
        if (index + 1) % accumulate == 0:
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    assert equal(parts[1], model)
    found = metrics(parts[2])
    assert found["calls/grads"] == found["steps"] == 8 // accumulate
    assert found["lr"] == pytest.approx(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("name", ["mezo", "rank_sgd", "adahessian"])
def test_closures_pass_through_the_wrapper(
    digits: tuple[Tensor, Tensor],
    network: Callable[[], nn.Module],
    equal: Callable[..., bool],
    name: str,
) -> None:
    parts = prepared(network, name)
    train(parts, digits, 4, closures=True)
    model = network()
    optimizer = methods.get(name)(model)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for x, y in list(zip(digits[0].split(32), digits[1].split(32), strict=True))[:4]:
        optimizer.step(lambda x=x, y=y: cross_entropy(model(x), y))
        scheduler.step()
    assert equal(parts[1], model)


@pytest.mark.parametrize("name", ["adamw", "schedule_free_adamw"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    digits: tuple[Tensor, Tensor],
    network: Callable[[], nn.Module],
    equal: Callable[..., bool],
    tmp_path: Path,
    name: str,
) -> None:
    whole = prepared(network, name)
    train(whole, digits, 4)
    whole[0].save_state(str(tmp_path))
    train(whole, (digits[0][128:], digits[1][128:]), 4)
    as_new()
    again = prepared(network, name)
    again[0].load_state(str(tmp_path))
    train(again, (digits[0][128:], digits[1][128:]), 4)
    assert equal(whole[1], again[1])
    assert metrics(again[2])["calls/grads"] == 8
    for parts in (whole, again):
        parts[2].eval()
    assert equal(whole[1], again[1])


def test_the_example(example: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    found = example("accelerate_loop")
    assert (tmp_path / "checkpoint" / "optimizer.bin").exists()
    assert metrics(found["optimizer"])["calls/products"] == len(found["loader"])
