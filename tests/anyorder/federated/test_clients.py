from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from anyorder import BudgetExhausted
from anyorder.federated import FedProx, FedZO, Scaffold, Shared
from anyorder.hyper import HyperError
from anyorder.oracle.gradients import NonFiniteError
from anyorder.points.directions import Seeded

X = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64)
SLOPE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    return x @ SLOPE


def sgd(lr: float) -> Callable[..., torch.optim.Optimizer]:
    return lambda params: torch.optim.SGD(params, lr=lr)


def by_hand(asked: int, directions: int, number: int = 0) -> Tensor:
    """The mean of ``(slope z) z``, exact for a linear function."""
    like, total = torch.empty(3), torch.zeros(3, dtype=torch.float64)
    for index in range(directions):
        z = Seeded(5, asked).tensor(f"{number}/{index}", like).double()
        total += (SLOPE @ z) * z
    return total / directions


def test_differences_by_hand_and_their_count() -> None:
    client = FedZO(linear, directions=4, seed=5, number=2)
    torch.testing.assert_close(client.gradient(X), by_hand(0, 4, 2), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(client.gradient(X), by_hand(1, 4, 2), rtol=1e-9, atol=1e-9)
    assert client.calls.values == 2 * 5


def test_local_steps_by_hand() -> None:
    client = FedZO(linear, directions=3, seed=5, steps=2, optimizer=sgd(0.1))
    expected = X - 0.1 * (by_hand(0, 3) + by_hand(1, 3))
    torch.testing.assert_close(client.local(X, None), expected, rtol=1e-8, atol=1e-8)
    assert client.calls.values == 2 * 4 and client.taken == 2
    assert len(client.summary(X, X[:0])) == 0


def test_the_pull_towards_the_server() -> None:
    client = FedProx(linear, directions=3, seed=5, steps=2, prox=0.7, optimizer=sgd(0.1))
    first = X - 0.1 * by_hand(0, 3)
    second = first - 0.1 * (by_hand(1, 3) + 0.7 * (first - X))
    torch.testing.assert_close(client.local(X, None), second, rtol=1e-8, atol=1e-8)
    without = FedProx(linear, directions=3, seed=5, steps=2, prox=0.0, optimizer=sgd(0.1))
    plain = FedZO(linear, directions=3, seed=5, steps=2, optimizer=sgd(0.1))
    assert torch.equal(without.local(X, None), plain.local(X, None))


@pytest.mark.parametrize(("variant", "queries"), [("I", 3 * 4), ("II", 2 * 4)])
def test_control_variates(variant: Any, queries: int) -> None:
    client = Scaffold(linear, directions=3, seed=5, steps=2, variant=variant, optimizer=sgd(0.1))
    x = client.local(X, None)
    estimates = [by_hand(0, 3), by_hand(1, 3), by_hand(2, 3)]
    own = client.summary(x, X[:0])
    expected = estimates[2] if variant == "I" else (estimates[0] + estimates[1]) / 2
    torch.testing.assert_close(own, expected, rtol=1e-8, atol=1e-8)
    assert client.calls.values == queries
    mean = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64)
    asked = 3 if variant == "I" else 2
    moved = client.local(x, Shared(mean, own, X[:0]))
    total = by_hand(asked, 3) + by_hand(asked + 1, 3) + 2 * (mean - own)
    torch.testing.assert_close(moved, x - 0.1 * total, rtol=1e-8, atol=1e-8)


def test_functions_that_change_their_point_or_answer_badly() -> None:
    def rude(x: Tensor) -> Tensor:
        x += 1
        return x.sum()

    x = X.clone()
    assert FedZO(rude).value(x) == pytest.approx(3.4)
    assert torch.equal(x, X)
    client = FedZO(lambda x: float("nan"), number=7)
    with pytest.raises(NonFiniteError, match="client 7 returned nan"):
        client.value(X)
    with pytest.raises(BudgetExhausted):
        FedZO(linear, directions=4, budget="3values").gradient(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": -1}, "number: expected a value >= 0"),
        ({"lr": -1.0}, "lr: expected a value >= 0"),
        ({"steps": 0}, "steps: expected a value >= 1"),
        ({"directions": 0}, "directions: expected a value >= 1"),
        ({"mu": 0.0}, "mu: expected a value > 0"),
        ({"variant": "III"}, "variant: expected one of"),
    ],
)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperError, match=message):
        Scaffold(linear, **options)
