"""One block in memory at a time, always with all its updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.engine import Engine
from anyorder.offload import OffloadError
from anyorder.offload.blocks import split
from anyorder.offload.moves import Move, Moves
from anyorder.offload.stores import HostStore
from anyorder.offload.stream import Stream

EAGER = Engine("eager")
BYTES = 4 * 20  # of one block


class Failing(HostStore):
    """A store whose disk is full while ``full`` is set."""

    full = False

    def put(self, index: int, tensors: Mapping[str, Tensor], version: int) -> int:
        if self.full:
            raise OffloadError("full")
        return super().put(index, tensors, version)


def made(*, ahead: bool = False, count: int = 4) -> tuple[Stream, list[Any], list[Tensor]]:
    """A stream, its blocks, and their weights."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(*[nn.Linear(4, 4) for _ in range(count)])
    weights = [layer.weight.detach().clone() for layer in model]
    store = Failing(split(model, list(model))[0], torch.device("cpu"), None)
    return Stream(store, Moves(), EAGER, ahead=ahead), list(model), weights


def move(step: int) -> Move:
    return Move(0, step, (1.0,), 0.1, 0.0)


def moved(weight: Tensor, index: int, steps: int) -> Tensor:
    found = {f"{index}.weight": weight.clone()}
    for step in range(steps):
        move(step).apply_(found, EAGER)
    return found[f"{index}.weight"]


def in_memory(layers: list[Any]) -> list[bool]:
    return [not layer.weight.isnan().any() for layer in layers]


@pytest.mark.parametrize("ahead", [False, True])
def test_one_block_at_a_time(ahead: bool) -> None:
    stream, layers, weights = made(ahead=ahead)
    assert in_memory(layers) == [False] * 4
    for index, weight in enumerate(weights):
        stream.hold(index)
        stream.hold(index)
        assert in_memory(layers) == [i == index for i in range(4)]
        assert torch.equal(layers[index].weight, weight)
    stream.settle()
    assert in_memory(layers) == [False] * 4
    assert (stream.traffic.reads, stream.traffic.writes) == (4, 0)
    assert stream.traffic.resident_bytes == 0
    assert stream.traffic.peak_bytes == (2 if ahead else 1) * BYTES


@pytest.mark.parametrize("ahead", [False, True])
def test_a_block_receives_all_updates_that_it_has_missed(ahead: bool) -> None:
    stream, layers, weights = made(ahead=ahead)
    for step in range(2):
        stream.moves.append(move(step), {})
    stream.hold(1)
    assert torch.equal(layers[1].weight, moved(weights[1], 1, 2))
    stream.settle()
    assert stream.store.versions == [0, 2, 0, 0]
    stream.moves.append(move(2), {})
    for index in range(4):
        stream.hold(index)
        assert torch.equal(layers[index].weight, moved(weights[index], index, 3))
    stream.settle()
    assert stream.store.versions == [3] * 4
    assert (stream.traffic.reads, stream.traffic.writes) == (5, 5)
    assert stream.traffic.bytes_written == 5 * BYTES


def test_flushing_touches_only_what_is_behind() -> None:
    stream, _, weights = made()
    stream.moves.append(move(0), {})
    stream.hold(2)
    stream.flush()
    assert stream.traffic.writes == 4
    stream.flush()
    assert (stream.traffic.writes, stream.traffic.reads) == (4, 4)
    stream.forget()
    assert torch.equal(stream.store.peek(3)["3.weight"], moved(weights[3], 3, 1))
    stream.moves.append(move(1), {})
    stream.flush()
    assert torch.equal(stream.store.peek(3)["3.weight"], moved(weights[3], 3, 2))


@pytest.mark.parametrize("ahead", [False, True])
def test_a_write_that_fails_is_repeated(ahead: bool) -> None:
    stream, layers, weights = made(ahead=ahead)
    stream.moves.append(move(0), {})
    stream.store.full = True  # type: ignore[attr-defined]
    for _ in range(2):
        with pytest.raises(OffloadError, match="full"):
            stream.hold(1)
            stream.settle()
        with pytest.raises(OffloadError, match="full"):
            stream.flush()
        assert stream.store.versions == [0] * 4
        assert in_memory(layers) == [False] * 4
        assert stream.traffic.resident_bytes == 0
    stream.store.full = False  # type: ignore[attr-defined]
    stream.flush()
    for index in range(4):
        assert torch.equal(
            stream.store.peek(index)[f"{index}.weight"], moved(weights[index], index, 1)
        )


def test_the_order_of_blocks_is_learned() -> None:
    stream, layers, weights = made(ahead=True)
    asked: list[int] = []
    get = stream.store.get

    def spied(index: int) -> dict[str, Tensor]:
        asked.append(index)
        return get(index)

    stream.store.get = spied  # type: ignore[method-assign]
    for _ in range(2):
        for index in (2, 0, 3):
            stream.hold(index)
            assert torch.equal(layers[index].weight, weights[index])
        stream.settle()
    # First it expects 3 after 2, and 1 after 0; then it knows better.
    assert asked[:3] == [2, 3, 0]
    assert asked[-3:] == [2, 0, 3]


def test_an_error_while_reading_ahead_is_raised_when_the_block_is_wanted() -> None:
    stream, layers, weights = made(ahead=True)
    get = stream.store.get

    def failing(index: int) -> dict[str, Tensor]:
        if index == 1:
            raise OffloadError("damaged")
        return get(index)

    stream.store.get = failing  # type: ignore[method-assign]
    stream.hold(0)
    with pytest.raises(OffloadError, match="damaged"):
        stream.hold(1)
    stream.settle()
    assert stream.traffic.resident_bytes == 0
    stream.hold(2)
    assert torch.equal(layers[2].weight, weights[2])


def test_a_plain_use_leaves_nothing_behind() -> None:
    for ahead in (False, True):
        stream, layers, _ = made(ahead=ahead)
        for index in range(4):
            with stream.used(index):
                assert in_memory(layers)[index]
        assert stream.traffic.resident_bytes == 0
        with pytest.raises(KeyError), stream.used(0):
            raise KeyError
        assert stream.traffic.resident_bytes == 0


def test_closing_gives_the_weights_back() -> None:
    stream, layers, weights = made()
    stream.moves.append(move(0), {})
    stream.close()
    for index, layer in enumerate(layers):
        assert torch.equal(layer.weight, moved(weights[index], index, 1))


def test_frozen_blocks_are_never_written() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].requires_grad_(False)
    before = model[1].weight.detach().clone()
    store = HostStore(split(model, list(model))[0], torch.device("cpu"), None)
    stream = Stream(store, Moves(), EAGER, ahead=False)
    for step in range(3):
        stream.moves.append(move(step), {})
        stream.hold(1)
        stream.flush()
    assert (stream.traffic.writes, store.versions) == (3, [3, 0])
    assert torch.equal(store.peek(1)["1.weight"], before)


@pytest.mark.gpu
def test_blocks_on_a_gpu_are_right_while_transfers_overlap() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(512, 512) for _ in range(8)]
    model: Any = nn.Sequential(*layers)
    weights = [layer.weight.detach().clone() for layer in layers]
    store = HostStore(split(model, layers)[0], torch.device("cuda", 0), None)
    stream = Stream(store, Moves(), EAGER, ahead=True)
    base = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    x = torch.randn(256, 512, device="cuda")
    for step in range(3):
        for index, layer in enumerate(layers):
            stream.hold(index)
            for _ in range(50):  # keeps the device busy when the block is let go of
                x = (x @ layer.weight.T).softmax(-1)
        stream.settle()
        stream.moves.append(move(step), {})
    stream.flush()
    peak = torch.cuda.max_memory_allocated() - base
    assert peak < 5 * 4 * 512 * 513
    for index, weight in enumerate(weights):
        kept = store.peek(index)[f"{index}.weight"]
        torch.testing.assert_close(kept, moved(weight, index, 3), rtol=1e-5, atol=1e-6)
