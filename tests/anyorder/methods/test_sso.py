"""SSO: the surrogate by hand, its limit cases, exact ledgers, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods.sgd import SGD
from anyorder.methods.sso import SSO
from anyorder.oracle.closures import ClosureError, Composite
from anyorder.oracle.gradients import NonFiniteError
from anyorder.oracle.ledger import Budget, BudgetExhausted
from anyorder.testing import MethodContract, Values, World


def softmax() -> tuple[nn.Module, Composite]:
    """A small network, twelve samples of three classes, in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = torch.randn(12, 4).double(), torch.arange(12) % 3
    return model, Composite(lambda: model(x), lambda z: F.cross_entropy(z, y))


def regression() -> tuple[nn.Parameter, Tensor, Tensor, Composite]:
    """Linear regression on twenty samples of three features, in float64."""
    torch.manual_seed(1)
    a, y = torch.randn(20, 3).double(), torch.randn(20).double()
    x = nn.Parameter(torch.zeros(3).double())
    return x, a, y, Composite(lambda: a @ x, lambda z: ((z - y) ** 2).mean() / 2)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


# Limit cases ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("lr", "inner_lr"), [(0.5, 1.0), (4.0, 0.125)])
def test_one_plain_inner_step_is_sgd_bit_for_bit(lr: float, inner_lr: float) -> None:
    ours, closure = softmax()
    theirs, other = softmax()
    sso = SSO(ours, lr=lr, inner="gd", inner_steps=1, inner_lr=inner_lr)
    sgd = SGD(theirs, lr=lr * inner_lr)
    for _ in range(10):
        a, b = sso.step(closure), sgd.step(other)
        assert a is not None and b is not None and torch.equal(a, b)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q)
    assert (sso.calls.output_grads, sso.calls.grads, sso.calls.values) == (10, 10, 0)


def test_many_inner_steps_regress_the_outputs_on_their_targets() -> None:
    x, a, y, closure = regression()
    start = torch.tensor([1.0, -1.0, 0.5]).double()
    with torch.no_grad():
        x.copy_(start)
    SSO([x], lr=0.7, inner="lbfgs", inner_steps=30).step(closure)
    outputs = a @ start
    wanted = torch.linalg.lstsq(a, outputs - 0.7 * (outputs - y)).solution
    torch.testing.assert_close(x.detach(), wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("inner", ["armijo", "lbfgs"])
def test_squared_error_is_solved_by_one_target(inner: str) -> None:
    """With eta = 1/L = 1 the surrogate of the whole data is the loss itself."""
    x, a, y, closure = regression()
    SSO([x], lr=1.0, inner=inner, inner_steps=200).step(closure)
    best = torch.linalg.lstsq(a, y).solution
    torch.testing.assert_close(x.detach(), best, rtol=1e-4, atol=1e-5)


# The formulas ---------------------------------------------------------------------------------


def by_hand(x: np.ndarray, a: np.ndarray, y: np.ndarray, eta: float, steps: int) -> np.ndarray:
    """Plain inner descent on eta S for logistic loss, one sample at a time."""
    b = len(y)
    z_t = a @ x
    slopes = np.array([1 / (1 + np.exp(-z)) - t for z, t in zip(z_t, y, strict=True)])
    for _ in range(steps):
        gradient = np.zeros_like(x)
        for i in range(b):
            gradient += a[i] * (eta * slopes[i] + (a[i] @ x - z_t[i])) / b
        x = x - 0.3 * gradient
    return x


@pytest.mark.parametrize(
    ("schedule", "eta"),
    [
        ("constant", lambda t: 4.0),
        ("sqrt", lambda t: 4.0 / np.sqrt(t)),
        ("exponential", lambda t: 4.0 * (1 / 5) ** (t / 5)),
    ],
)
def test_equals_the_surrogate_by_hand(schedule: str, eta: Callable[[int], float]) -> None:
    rng = np.random.default_rng(3)
    a, y = rng.normal(size=(9, 2)), (rng.random(9) < 0.5).astype(float)
    x = nn.Parameter(torch.zeros(2).double())
    data, labels = torch.tensor(a), torch.tensor(y)
    closure = Composite(lambda: data @ x, lambda z: F.binary_cross_entropy_with_logits(z, labels))
    optimizer = SSO(
        [x], lr=4.0, inner="gd", inner_steps=7, inner_lr=0.3, schedule=schedule, horizon=5
    )
    expected = np.zeros(2)
    for t in range(1, 7):
        expected = by_hand(expected, a, y, eta(t), steps=7)
        optimizer.step(closure)
        np.testing.assert_allclose(x.detach().numpy(), expected, rtol=1e-10)


def test_the_surrogate_is_a_bound_so_the_loss_never_rises() -> None:
    """Softmax loss is 1/2-smooth in the outputs: eta = 2 on the whole data descends, any model."""
    model, closure = softmax()
    optimizer = SSO(model, lr=2.0, inner_steps=5)
    losses = [float(optimizer.step(closure)) for _ in range(40)]  # type: ignore[arg-type]
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(losses))
    assert losses[-1] < 0.5 * losses[0]


def test_more_inner_steps_bring_more_per_target() -> None:
    ended: list[float] = []
    for steps in (1, 5, 20):
        model, closure = softmax()
        optimizer = SSO(model, lr=2.0, inner_steps=steps)
        for _ in range(10):
            optimizer.step(closure)
        assert optimizer.calls.output_grads == 10
        ended.append(closure().item())
    assert ended[0] > ended[1] > ended[2]


# The ledger -----------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["armijo", "gd", "lbfgs"])
def test_the_loss_is_asked_once_a_step(inner: str) -> None:
    model, closure = softmax()
    asked = {"outputs": 0, "loss": 0}

    def outputs() -> Tensor:
        asked["outputs"] += 1
        return closure.outputs()

    def loss(z: Tensor) -> Tensor:
        asked["loss"] += 1
        return closure.loss(z)

    optimizer = SSO(model, inner=inner, inner_lr=0.5, inner_steps=4)
    for _ in range(3):
        optimizer.step(Composite(outputs, loss))
    calls = optimizer.calls
    assert asked["loss"] == calls.output_grads == 3
    assert calls.grads == 12
    assert asked["outputs"] == calls.grads + calls.values
    assert (calls.values == 0) == (inner == "gd")


def test_output_gradients_can_be_given_a_price_and_a_limit() -> None:
    model, closure = softmax()
    budget = Budget(
        output_grads=2, forwards=500, rates={"values": 1, "grads": 3, "output_grads": 100}
    )
    optimizer = SSO(model, budget=budget, inner="gd", inner_lr=0.1, inner_steps=3)
    optimizer.step(closure)
    optimizer.step(closure)
    before = copied(model)
    assert optimizer.calls.forwards(budget.rates) == 2 * (100 + 9)
    with pytest.raises(BudgetExhausted, match="2 output_grads"):
        optimizer.step(closure)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_a_budget_that_ends_between_inner_steps_leaves_the_last_whole_step() -> None:
    model, closure = softmax()
    optimizer = SSO(model, budget=Budget(grads=7), inner="gd", inner_lr=0.1, inner_steps=5)
    optimizer.step(closure)
    before = copied(model)
    with pytest.raises(BudgetExhausted):
        optimizer.step(closure)
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert (optimizer.steps, optimizer.calls.grads) == (1, 7)


# What surrounds it ------------------------------------------------------------------------------


def test_it_goes_on_from_a_checkpoint_as_it_would_have() -> None:
    model, closure = softmax()
    optimizer = SSO(model, schedule="sqrt", inner_steps=3)
    for _ in range(3):
        optimizer.step(closure)
    saved, weights = optimizer.state_dict(), copied(model)
    for _ in range(3):
        optimizer.step(closure)
    ended = copied(model)
    again, other = softmax()
    again.load_state_dict(weights)
    resumed = SSO(again, schedule="sqrt", inner_steps=3)
    resumed.load_state_dict(saved)
    for _ in range(3):
        resumed.step(other)
    assert all(torch.equal(p, ended[n]) for n, p in again.named_parameters())


def test_outputs_of_any_shape_count_their_samples() -> None:
    """Tokens of sequences are samples: the step equals that on the flattened batch."""
    ended: list[Tensor] = []
    for flat in (False, True):
        torch.manual_seed(0)
        x, y = torch.randn(2, 5, 4).double(), torch.randint(0, 3, (10,))
        model = nn.Linear(4, 3).double()

        def outputs(model: nn.Module = model, x: Tensor = x, flat: bool = flat) -> Tensor:
            return model(x.flatten(0, 1) if flat else x)

        optimizer = SSO(model, lr=2.0, inner_steps=5)
        optimizer.step(
            Composite(outputs, lambda z, y=y: F.cross_entropy(z.reshape(-1, 3), y))  # type: ignore
        )
        ended.append(model.weight.detach())
    torch.testing.assert_close(ended[0], ended[1], rtol=1e-10, atol=1e-12)


def test_unused_parameters_are_left_alone() -> None:
    x, _, _, closure = regression()
    unused = nn.Parameter(torch.ones(2).double())
    SSO([x, unused]).step(closure)
    assert bool((unused == 1).all()) and bool(x.any())


def test_an_inner_step_that_diverges_changes_nothing() -> None:
    x, _, _, closure = regression()
    optimizer = SSO([x], inner="gd", inner_lr=1e200, inner_steps=5)
    with pytest.raises(NonFiniteError):
        optimizer.step(closure)
    assert not bool(x.any()) and optimizer.steps == 0


def test_it_stays_at_a_minimum() -> None:
    x, a, y, closure = regression()
    with torch.no_grad():
        x.copy_(torch.linalg.lstsq(a, y).solution)
    before = x.detach().clone()
    SSO([x], inner_steps=50).step(closure)
    torch.testing.assert_close(x.detach(), before, rtol=1e-10, atol=1e-12)


# Bad input --------------------------------------------------------------------------------------


def test_closures_in_one_part_or_of_many_batches_are_refused() -> None:
    x, _, _, closure = regression()
    wrong: list[Any] = [lambda: closure(), [closure, closure]]
    for bad in wrong:
        with pytest.raises(
            ClosureError, match="one Composite, outputs and loss apart; write Composite"
        ):
            SSO([x]).step(bad)


def test_groups_cannot_differ() -> None:
    x, y = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    for name, value in [("lr", 2.0), ("inner", "gd"), ("inner_steps", 3)]:
        with pytest.raises(HyperError, match=f"{name}: expected .* as in the first group"):
            SSO([{"params": [("x", x)]}, {"params": [("y", y)], name: value}])
    optimizer = SSO([{"params": [("x", x)]}, {"params": [("y", y)]}])
    optimizer.param_groups[1]["lr"] = 0.5
    with pytest.raises(HyperError, match="lr: expected 1.0 as in the first group, got 0.5"):
        optimizer.step(Composite(lambda: x + y, lambda z: z.sum()))


@pytest.mark.parametrize(
    "bad", [{"inner": "newton"}, {"inner_steps": 0}, {"armijo": 1.0}, {"schedule": "cosine"}]
)
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(HyperError, match=next(iter(bad))):
        SSO([nn.Parameter(torch.zeros(1))], **bad)


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = SSO
    reference_settings = (
        {"lr": 0.1, "inner_lr": 0.01},
        {"lr": 0.3, "inner_lr": 1.0, "armijo": 0.3, "inner_steps": 4, "schedule": "sqrt"},
        {"lr": 5.0, "inner": "gd", "inner_lr": 1e-4, "inner_steps": 3, "schedule": "sqrt"},
        {
            "lr": 5.0,
            "inner": "gd",
            "inner_lr": 1e-4,
            "inner_steps": 3,
            "schedule": "exponential",
            "horizon": 9,
        },
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        """Algorithm 1 for one sample whose output z is its loss, so that G is 1."""
        x, s = world.joined(values), options
        longest = 0.0
        for t in range(1, steps + 1):
            powers = {
                "constant": 1.0,
                "sqrt": t**-0.5,
                "exponential": (1 / s["horizon"]) ** (t / s["horizon"]),
            }
            eta = s["lr"] * powers[s["schedule"]]
            z = world.value(world.parted(x))

            def surrogate(x: np.ndarray, eta: float = eta, z: float = z) -> float:
                gap = world.value(world.parted(x)) - z
                return eta * gap + gap**2 / 2

            size = 2 * longest or s["inner_lr"]
            longest, first = 0.0, 0.0
            for inner in range(s["inner_steps"]):
                gap = world.value(world.parted(x)) - z
                slope = (eta + gap) * world.joined(world.gradient(world.parted(x)))
                square = float(slope @ slope)
                first = first if inner else square
                if s["inner"] == "gd":
                    x = x - s["inner_lr"] * slope
                elif square > 1e-14 * first:  # else it has arrived
                    start = surrogate(x)
                    while surrogate(x - size * slope) > start - s["armijo"] * size * square:
                        size /= 2
                    x = x - size * slope
                    longest = max(longest, size)
        return world.parted(x)
