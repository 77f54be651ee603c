"""What processes exchange: means of answers, or a byte."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from anyorder import SGD, AdaHessian, MeZO, Optimizer, Oracle
from anyorder.hyper import hyper
from anyorder.oracle import BackwardDone, Calls, ClosureOracle, Composite
from anyorder.oracle.communicator import Communicator, averaged_already, communicator_for
from anyorder.points.directions import Shift


class Room:
    """Processes that are threads in one room."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.board: list[Any] = [None] * size
        self.turn = threading.Barrier(size, timeout=300)

    def __getitem__(self, rank: int) -> Seat:
        return Seat(self, rank)


class Seat:
    """One process of a room."""

    def __init__(self, room: Room, rank: int) -> None:
        self.room, self.rank, self.size = room, rank, room.size

    def shared(self, item: Any) -> list[Any]:
        self.room.board[self.rank] = item
        self.room.turn.wait()
        found = list(self.room.board)
        self.room.turn.wait()
        return found

    def mean_(self, tensors: Sequence[Tensor]) -> int:
        everyone = self.shared([t.clone() for t in tensors])
        for index, tensor in enumerate(tensors):
            tensor.copy_(torch.stack([theirs[index] for theirs in everyone]).mean(0))
        return 4 * len(tensors)  # say that it sends something small

    def exchange(self, message: bytes) -> list[bytes]:
        return self.shared(message)


class Alone:
    """The mean with a process that always has 1."""

    rank, size = 0, 2

    def mean_(self, tensors: Sequence[Tensor]) -> int:
        for tensor in tensors:
            tensor.add_(1.0).div_(2.0)
        return 100

    def exchange(self, message: bytes) -> list[bytes]:
        return [message, b"other"]


def together(size: int, work: Any) -> list[Any]:
    """What ``work(seat)`` returns at every seat of a room."""
    room, found = Room(size), [None] * size

    def sit(rank: int) -> None:
        try:
            found[rank] = work(room[rank])
        except BaseException:
            room.turn.abort()
            raise

    threads = [threading.Thread(target=sit, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in found
    return found


def test_whatever_answers_the_protocol_is_a_communicator() -> None:
    alone = Alone()
    assert isinstance(alone, Communicator)
    assert communicator_for(alone) is alone and communicator_for(None) is None


X = [1.0, 3.0]


def test_answers_are_averaged_and_what_is_sent_is_counted() -> None:
    x = nn.Parameter(torch.tensor(X))
    closure = Composite(lambda: x * 1.0, lambda z: (z**2).sum())  # 10, slope (2, 6), curvature 2
    for ask, expected, sent in (
        (lambda o: o.value(), 5.5, 100),
        (lambda o: o.grad()[0], 5.5, 100),
        (lambda o: o.grad()[1][0], [1.5, 3.5], 100),
        (lambda o: o.grad_at(Shift())[1][0], [1.5, 3.5], 100),
        (lambda o: o.hessian().loss, 5.5, 100),
        (lambda o: o.hessian().grads[0], [1.5, 3.5], 100),
        (lambda o: (o.hessian() @ [torch.ones(2)])[0], [1.5, 1.5], 200),
        (lambda o: o.hessian(products="finite").grads[0], [1.5, 3.5], 100),
        (lambda o: o.ggn().loss, 5.5, 100),
        (lambda o: (o.ggn() @ [torch.ones(2)])[0], [1.5, 1.5], 200),
        (lambda o: o.output_grad().grads[0], [1.5, 3.5], 100),
        (lambda o: o.output_grad().grad_outputs, [2.0, 6.0], 100),  # of the outputs of this process
    ):
        oracle = ClosureOracle(closure, {"x": x}, group=Alone())
        assert ask(oracle).tolist() == expected
        assert oracle.calls.bytes_sent == sent
        local = oracle.local.grad()[1][0]
        assert local is not None and local.tolist() == [2.0, 6.0]
        assert oracle.calls.bytes_sent == sent


def test_gradients_made_by_backward_are_averaged_where_they_are() -> None:
    x, unused = nn.Parameter(torch.tensor(X)), nn.Parameter(torch.ones(1))
    (x**2).sum().backward()
    oracle = BackwardDone({"x": x, "unused": unused}, group=Alone())
    _, (grad, none) = oracle.grad()
    assert grad is x.grad and grad is not None and none is None
    assert grad.tolist() == [1.5, 3.5] and oracle.calls.bytes_sent == 100


def test_a_fault_anywhere_is_seen_everywhere() -> None:
    def work(seat: Seat) -> int:
        x = nn.Parameter(torch.ones(2))
        factor = torch.nan if seat.rank else 1.0
        optimizer = SGD([x], lr=0.1, engine="eager", nonfinite="skip", process_group=seat)
        optimizer.step(lambda: (x * factor).sum())
        return optimizer.calls.skipped

    assert together(2, work) == [1, 1]


def test_messages_are_exchanged_and_counted() -> None:
    x = nn.Parameter(torch.ones(1))
    lonely = ClosureOracle(lambda: x.sum(), {"x": x})
    assert lonely.exchange(b"me") == [b"me"] and lonely.calls.bytes_sent == 0
    calls = Calls()
    oracle = BackwardDone({"x": x}, group=Alone(), calls=calls)
    assert oracle.exchange(b"me") == [b"me", b"other"] and calls.bytes_sent == 2


class SignOfSlope(Optimizer):
    """A random direction that all know; each process says in one byte which way is down for it."""

    order = 0
    needs = frozenset({"value"})
    lr: float = hyper(0.05, ge=0, doc="length of a step")

    def update(self, oracle: Oracle) -> Tensor:
        """Two values of the own batch, one byte, a step along the majority."""
        z = self.direction()
        ahead, behind = oracle.local.values([Shift(1e-3, z), Shift(-1e-3, z)])
        votes = oracle.exchange(bytes([ahead > behind]))
        up = sum(vote[0] for vote in votes)
        sign = (up < len(votes) - up) - (up > len(votes) - up)
        self.move_(z, lambda group: sign * group["lr"])
        return ahead


def test_one_byte_a_step_is_enough_to_descend() -> None:
    goals = [torch.tensor([1.0, -1.0]), torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0])]

    def work(seat: Seat) -> tuple[list[float], int]:
        x = nn.Parameter(torch.zeros(2))
        goal = goals[seat.rank]
        optimizer = SignOfSlope([("x", x)], engine="eager", process_group=seat)
        for _ in range(200):
            optimizer.step(lambda: ((x - goal) ** 2).sum())
        return x.tolist(), optimizer.calls.bytes_sent

    ends = together(3, work)
    assert ends[0] == ends[1] == ends[2]
    point, sent = ends[0]
    assert sent == 200  # one byte in each step
    assert torch.allclose(torch.tensor(point), torch.tensor([2.0, 0.0]), atol=0.3)


# In processes ---------------------------------------------------------------------------------

GROUPED: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (SGD, {"lr": 0.1}),
    "clipped": (SGD, {"lr": 0.1, "clip_norm": 0.5}),
    "adahessian": (AdaHessian, {"lr": 0.1, "every": 2}),
    "mezo": (MeZO, {"lr": 0.01}),
}


def model_and_batch(rank: int | None) -> tuple[nn.Module, Tensor, Tensor]:
    """The same model everywhere; half of the batch, or all of it."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.randn(8, 2)
    part = slice(None) if rank is None else slice(4 * rank, 4 * rank + 4)
    return model, x[part], y[part]


def trained(name: str, rank: int | None, group: Any, way: str = "closure") -> Any:
    model, x, y = model_and_batch(rank)
    method, options = GROUPED[name]
    optimizer = method(model, engine="eager", process_group=group, **options)
    loss = lambda: ((model(x) - y) ** 2).mean()  # noqa: E731
    for _ in range(4):
        if way == "closure":
            optimizer.step(loss)
        else:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    return [p.detach().tolist() for p in model.parameters()], optimizer.calls.bytes_sent


def _worker(rank: int, file: str, results: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    group, out = dist.group.WORLD, {}
    for name in GROUPED:
        out[name] = trained(name, rank, group)
    out["backward"] = trained("sgd", rank, group, "backward")
    model, x, y = model_and_batch(rank)
    replica = nn.parallel.DistributedDataParallel(model)
    optimizer = SGD(replica, lr=0.1, engine="eager", process_group=group)
    for _ in range(4):
        optimizer.step(lambda: ((replica(x) - y) ** 2).mean())
    out["replica"] = [p.detach().tolist() for p in model.parameters()], optimizer.calls.bytes_sent
    talk = communicator_for(group)
    assert talk is not None
    turned = torch.arange(6.0).reshape(2, 3).t() * (rank + 1)
    sent = talk.mean_([turned])
    out["talk"] = talk.rank, talk.size, talk.exchange(b"!" * (rank + 1)), turned.tolist(), sent
    results[rank] = out
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(in_two_processes: Any) -> Any:
    """What the two processes found."""
    return in_two_processes(_worker)


@pytest.mark.parametrize("name", [*GROUPED, "backward", "replica"])
def test_a_group_moves_as_one_process_with_the_whole_batch_does(both: Any, name: str) -> None:
    (params, sent), (others, _) = both[0][name], both[1][name]
    assert params == others
    alone, _ = trained(name if name in GROUPED else "sgd", None, None)
    for ours, theirs in zip(alone, params, strict=True):
        torch.testing.assert_close(torch.tensor(theirs), torch.tensor(ours), atol=1e-4, rtol=1e-3)
    # The hooks of the replica have averaged already, and nothing is sent besides.
    assert sent == 0 if name == "replica" else sent > 0


def test_processes_talk(both: Any) -> None:
    for rank in (0, 1):
        mean = (torch.arange(6.0).reshape(2, 3).t() * 1.5).tolist()
        assert both[rank]["talk"] == (rank, 2, [b"!", b"!!"], mean, 24)


class FullyShardedDataParallel(nn.Module):
    """Stands for the class of this name, which cannot be made without processes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def test_what_hooks_average_is_known_by_parameter() -> None:
    inside, beside = nn.Linear(2, 1), nn.Linear(2, 1)
    wrapped = FullyShardedDataParallel(inside)
    mixed = nn.ModuleList([wrapped, beside])
    params = list(mixed.parameters())
    assert averaged_already(None, params) == averaged_already(beside, params) == frozenset()
    assert averaged_already(wrapped, list(inside.parameters())) == {*map(id, inside.parameters())}
    assert averaged_already(mixed, params) == {*map(id, inside.parameters())}
