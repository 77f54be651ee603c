"""Threads that take turns: one at a time, each with its own random numbers and buffers."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from anyorder.offload import OffloadError
from anyorder.offload.sides import (
    Side,
    State,
    Surroundings,
    innermost,
    refuse_modes,
    without,
)
from anyorder.oracle.closures import ClosureError
from anyorder.points.directions import Shift

CPU = torch.device("cpu")


def test_a_side_stops_at_blocks_and_goes_on() -> None:
    seen: list[str] = []

    def work(side: Side) -> Tensor:
        seen.append("start")
        side.wait_at(3)
        seen.append("block")
        return torch.tensor(2.0)

    side = Side(work, Shift())
    side.resume()
    assert (seen, side.block, side.loss) == (["start"], 3, None)
    side.resume()
    assert (seen, side.block, side.loss) == (["start", "block"], None, torch.tensor(2.0))
    side.cancel()


def test_an_error_is_raised_where_the_side_is_resumed() -> None:
    def work(side: Side) -> Tensor:
        side.wait_at(0)
        raise ValueError("inside")

    side = Side(work, Shift())
    side.resume()
    with pytest.raises(ValueError, match="inside"):
        side.resume()
    side.cancel()


@pytest.mark.parametrize("start", [False, True])
def test_a_cancelled_side_ends_even_if_it_calls_a_block_while_it_unwinds(start: bool) -> None:
    unwound: list[bool] = []

    def work(side: Side) -> Tensor:
        try:
            side.wait_at(0)
        finally:
            unwound.append(True)
            side.wait_at(1)
        return torch.zeros(())

    side = Side(work, Shift())
    if start:
        side.resume()
    before = threading.active_count()
    side.cancel()
    assert unwound == [True] * start
    assert threading.active_count() == before - start


class Counting(nn.Module):
    """A module with a buffer that every call changes, known by two names."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(2))
        self.register_buffer("alias", self.count)


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


@pytest.mark.parametrize("keep", [True, False])
def test_every_evaluation_has_the_same_random_numbers_and_its_own_buffers(keep: bool) -> None:
    model = Counting()
    original = model.count
    state = State({}, model, keep=keep, count=2)
    drawn: dict[int, list[Any]] = {0: [], 1: []}
    for _ in range(3):
        for index in (0, 1):
            with state.turn(index):
                drawn[index].append(draw())
                assert model.alias is model.count
                model.count += 1
                assert model.count[0] == len(drawn[index])
            assert torch.equal(model.count, original)
    state.finish(done=True)
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3
    assert model.count is original
    assert model.count[0] == (3 if keep else 0)
    following = draw()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    plain = [draw() for _ in range(4)]
    assert plain[:3] == drawn[0]
    assert following == (plain[3] if keep else plain[0])


def test_everything_is_restored_after_a_failure() -> None:
    model = Counting().train()
    state = State({}, model, keep=True, count=1)
    before = torch.get_rng_state()
    with state.turn(0):
        draw()
        model.count += 1
        model.eval()
    state.finish(done=False)
    assert model.count.sum() == 0
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_have_the_surroundings_of_the_caller() -> None:
    found: list[Any] = []

    def look() -> None:
        with there.entered():
            found.append((torch.is_autocast_enabled("cpu"), torch.is_grad_enabled()))
            found.append(torch.get_default_device().type)
            found.append(torch.get_num_threads())

    torch.set_default_device("meta")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            there = Surroundings(CPU)
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
    finally:
        torch.set_default_device(None)
    assert found == [(True, False), "meta", torch.get_num_threads()]


def test_global_settings_must_not_change_around_a_block() -> None:
    there = Surroundings(CPU)
    there.check()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ClosureError, match="changes a global setting of PyTorch"):
            there.check()
    finally:
        torch.set_default_dtype(torch.float32)


def test_modes_of_the_calling_thread_are_refused() -> None:
    refuse_modes()
    for mode in (TorchFunctionMode(), TorchDispatchMode()):
        with mode, pytest.raises(OffloadError, match="enter it inside the closure"):
            refuse_modes()
    with torch.device("meta"):
        refuse_modes()


def test_only_the_innermost_mode_is_left() -> None:
    with TorchFunctionMode() as outer:
        with without(outer):
            assert innermost() is None
        assert innermost() is outer
        with TorchFunctionMode() as inner:
            for mode in (outer, None):
                with without(mode):
                    assert innermost() is inner
