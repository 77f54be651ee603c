from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from anyorder.federated import Client, FederatedError, Federation, FedProx, FedZO, FZooS, Scaffold

X = torch.tensor([0.1, 0.9, 0.4, 0.2], dtype=torch.float64)
TARGETS = torch.tensor([[0.3, 0.5, 0.4, 0.1], [0.7, 0.3, 0.6, 0.3], [0.2, 0.4, 0.5, 0.8]])
SMALL: dict[str, Any] = {"steps": 3, "lr": 0.02}
METHODS: dict[str, Callable[[int], Client]] = {
    "fedzo": lambda i: FedZO(private(i), number=i, directions=6, **SMALL),
    "fedprox": lambda i: FedProx(private(i), number=i, directions=6, **SMALL),
    "scaffold-I": lambda i: Scaffold(private(i), number=i, directions=6, variant="I", **SMALL),
    "scaffold-II": lambda i: Scaffold(private(i), number=i, directions=6, variant="II", **SMALL),
    "fzoos": lambda i: FZooS(private(i), number=i, summary_queries=8, features=50, **SMALL),
}


def private(number: int) -> Callable[[Tensor], Tensor]:
    weights = 1.0 + torch.arange(4) * (number + 1) / 4
    return lambda x: (weights * (x - TARGETS[number]) ** 2).sum()


def federation_of(method: str, count: int = 3) -> Federation:
    return Federation([METHODS[method](i) for i in range(count)], X)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_descends_on_the_mean(method: str) -> None:
    federation = federation_of(method)

    def loss() -> float:
        return float(sum(private(i)(federation.x) for i in range(3)))

    first = loss()
    for _ in range(12):
        federation.round()
    best = sum(1.0 + torch.arange(4) * (i + 1) / 4 for i in range(3))
    optimum = sum((1.0 + torch.arange(4) * (i + 1) / 4) * TARGETS[i] for i in range(3)) / best
    least = float(sum(private(i)(optimum) for i in range(3)))
    assert loss() - least < 0.3 * (first - least)


@pytest.mark.parametrize(
    ("method", "queries", "floats"),
    [
        ("fedzo", 3 * 7, 4),
        ("fedprox", 3 * 7, 4),
        ("scaffold-I", 4 * 7, 4 + 4),
        ("scaffold-II", 3 * 7, 4 + 4),
        ("fzoos", 2 * 6 + 9, 5 + 50),
    ],
)
def test_queries_and_numbers_sent_are_counted(method: str, queries: int, floats: int) -> None:
    federation = federation_of(method)
    federation.round()
    before = [client.calls.values for client in federation.clients]
    federation.round()
    after = [client.calls.values for client in federation.clients]
    assert [b - a for a, b in zip(before, after, strict=True)] == [queries] * 3
    assert federation.floats == 2 * 2 * floats


def test_one_round_by_hand() -> None:
    federation = federation_of("fedzo")
    alone = [METHODS["fedzo"](i) for i in range(3)]
    expected = torch.stack([client.local(X, None) for client in alone]).mean(0)
    assert torch.equal(federation.round(), expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_federation_resumes_bit_for_bit(method: str) -> None:
    unbroken, fresh = federation_of(method), federation_of(method)
    for _ in range(2):
        unbroken.round()
    file = io.BytesIO()
    torch.save(unbroken.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):
        unbroken.round()
        fresh.round()
    assert torch.equal(unbroken.x, fresh.x)
    assert (unbroken.floats, unbroken.rounds) == (fresh.floats, fresh.rounds) and fresh.rounds == 4
    assert [c.calls.values for c in unbroken.clients] == [c.calls.values for c in fresh.clients]
    with pytest.raises(FederatedError, match=r"clients \[0, 1\], got that of \[0, 1, 2\]"):
        federation_of(method, 2).load_state_dict(unbroken.state_dict())


def _worker(rank: int, file: str, found: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    out: dict[str, Any] = {}
    for method, make in METHODS.items():
        client = make(rank)
        federation = Federation([client], X, process_group=dist.group.WORLD)
        for _ in range(2):
            federation.round()
        out[method] = federation.x.tolist(), client.calls.values, client.calls.bytes_sent
    broken = METHODS["fedzo"](rank)
    if rank == 1:
        broken.function = lambda x: [][0]
    federation = Federation([broken], X, process_group=dist.group.WORLD)
    try:
        federation.round()
    except Exception as error:
        out["broken"] = f"{type(error).__name__}: {error}", federation.x.tolist()
    found[rank] = out
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(in_two_processes: Any) -> Any:
    return in_two_processes(_worker)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_are_as_one(both: Any, method: str) -> None:
    federation = federation_of(method, 2)
    for _ in range(2):
        federation.round()
    for rank, client in enumerate(federation.clients):
        x, values, sent = both[rank][method]
        assert x == federation.x.tolist()  # bit for bit
        assert values == client.calls.values
        exchanges = 4  # two in each round; five bytes say what they are
        assert sent == 8 * federation.floats / 2 + 5 * exchanges


def test_a_client_that_fails_elsewhere_stops_all(both: Any) -> None:
    message, x = both[0]["broken"]
    assert message.startswith("FederatedError: a client of process 1 failed: IndexError: list")
    assert both[1]["broken"][0].startswith("IndexError")
    assert x == both[1]["broken"][1] == X.tolist()


def test_a_client_that_fails_stops_all_and_changes_nothing() -> None:
    federation = federation_of("fzoos")
    federation.round()
    before = federation.x.clone()
    fine = federation.clients[1].function
    federation.clients[1].function = lambda x: float("inf")
    with pytest.raises(ValueError, match="client 1 returned inf"):
        federation.round()
    assert torch.equal(federation.x, before) and federation.rounds == 1
    federation.clients[1].function = fine
    federation.round()
    assert federation.rounds == 2 and not torch.equal(federation.x, before)


class _Fixed:
    """A communicator with a peer that sends what it is told."""

    rank, size = 0, 2

    def __init__(self, message: bytes) -> None:
        self.message = message

    def mean_(self, tensors: Any) -> int:
        raise AssertionError

    def exchange(self, message: bytes) -> list[bytes]:
        return [message, self.message]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"v\1\0\0\0" + b"\0" * 24, r"process 1 sent 24 bytes for 1 clients; expected 4 float64"),
        (b"x", "process 1 sent 0 bytes"),
        (b"fValueError: gone", "a client of process 1 failed: ValueError: gone"),
        (b"v\1\0\0\0" + b"\xff" * 32, "a client sent NaN or Inf"),
    ],
)
def test_messages_that_do_not_fit(message: bytes, error: str) -> None:
    federation = Federation([METHODS["fedzo"](0)], X, process_group=_Fixed(message))
    with pytest.raises(FederatedError, match=error):
        federation.round()
    assert torch.equal(federation.x, X)


@pytest.mark.parametrize(
    ("clients", "x", "message"),
    [
        ([], X, "each with another number, got numbers"),
        ([METHODS["fedzo"](0), METHODS["fedzo"](0)], X, r"got numbers \[0, 0\]"),
        ([METHODS["fedzo"](0)], X[None], "expected a real vector"),
        ([METHODS["fedzo"](0)], torch.tensor([1]), "expected a real vector"),
    ],
)
def test_what_does_not_make_a_federation(clients: Any, x: Tensor, message: str) -> None:
    with pytest.raises(FederatedError, match=message):
        Federation(clients, x)
