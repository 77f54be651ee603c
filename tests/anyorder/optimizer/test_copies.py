"""Copies and pickles, beyond what the contract tests on every method."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from anyorder import AdamW
from anyorder.optimizer.copies import PickleError


@pytest.fixture
def group() -> Iterator[Any]:
    """A process group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


class Alone:
    """A communicator of one process, which a pickle can find again."""

    rank, size = 0, 1

    def mean_(self, tensors: Sequence[Tensor]) -> int:
        return 0

    def exchange(self, message: bytes) -> list[bytes]:
        return [message]


def made(**options: Any) -> tuple[list[nn.Parameter], AdamW]:
    params = [nn.Parameter(torch.ones(n)) for n in (2, 3)]
    optimizer = AdamW(params, lr=0.1, engine="eager", **options)
    step(optimizer)
    return params, optimizer


def step(optimizer: AdamW) -> list[Tensor]:
    params = optimizer.param_groups[0]["params"]
    optimizer.step(lambda: (params[0] ** 2).sum() + (params[1] ** 3).sum())
    return params


def test_a_process_group_is_shared_by_deepcopies(group: Any) -> None:
    _, optimizer = made(process_group=group)
    twin = copy.deepcopy(optimizer)
    assert twin.process_group is group
    for mine, theirs in zip(step(optimizer), step(twin), strict=True):
        assert mine is not theirs and torch.equal(mine, theirs)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_process_group_cannot_leave_its_process(group: Any, protocol: int) -> None:
    _, optimizer = made(process_group=group)
    with pytest.raises(PickleError, match=r"set optimizer.process_group = None before"):
        pickle.dumps(optimizer, protocol)
    optimizer.process_group = None
    assert pickle.loads(pickle.dumps(optimizer, protocol)).process_group is None


def test_a_communicator_of_the_users_own_goes_where_it_can() -> None:
    _, optimizer = made(process_group=Alone())
    assert copy.deepcopy(optimizer).process_group is optimizer.process_group
    again = pickle.loads(pickle.dumps(optimizer))
    assert isinstance(again.process_group, Alone)
    assert all(map(torch.equal, step(optimizer), step(again)))


def test_copies_have_state_of_its_own_size() -> None:
    """Entries of small parameters are views of one buffer; a copy of one is not all of it."""
    params, optimizer = made()
    shared = {optimizer.state[p]["exp_avg"].untyped_storage().data_ptr() for p in params}
    assert len(shared) == 1
    for entry in optimizer.__getstate__()["state"].values():
        for value in entry.values():
            assert not isinstance(value, Tensor) or value.untyped_storage().nbytes() == value.nbytes


def test_entries_of_copies_are_tied_to_their_own_buffers() -> None:
    _, optimizer = made()
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        params = twin.param_groups[0]["params"]
        twin.state[params[0]]["exp_avg"].fill_(3.0)
        assert twin.buffer("exp_avg")["param.0"].tolist() == [3.0, 3.0]
        assert optimizer.buffer("exp_avg")["param.0"].tolist() != [3.0, 3.0]


def test_what_hangs_on_the_original_stays_there() -> None:
    _, optimizer = made()
    seen: list[int] = []
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # wraps step
    twin = copy.deepcopy(optimizer)
    step(twin)
    assert not seen and "step" not in vars(twin)
    step(optimizer)
    assert seen == [1]


def test_defaults_are_those_of_the_method() -> None:
    """torch.optim adds its own when it restores one of its optimizers."""
    _, optimizer = made()
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert twin.defaults == optimizer.defaults and "foreach" not in twin.defaults


def test_a_copy_among_others_is_one_object() -> None:
    params, optimizer = made()
    first, second, weight = copy.deepcopy([optimizer, optimizer, params[0]])
    assert first is second and first.param_groups[0]["params"][0] is weight
