"""Several closures by name: whose parameters, whose gradients, one ledger; a hypergradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.oracle import Budget, BudgetExhausted, Calls, NeedsError
from anyorder.oracle.closure_oracle import ClosureOracle
from anyorder.oracle.curvature import CrossError
from anyorder.oracle.named_closures import NamedClosures, OwnerError, checked_closures, owners
from anyorder.points.directions import Seeded, Shift

A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
B = torch.tensor([[1.0, -1.0, 0.5], [0.0, 2.0, 1.0]], dtype=torch.float64)
GOAL = torch.tensor([1.0, -2.0], dtype=torch.float64)
WEIGHT = 1.0


class Bilevel:
    """The inner problem y*(x) = argmin y'Ay/2 - y'Bx, the outer |y* - goal|^2/2 + w|x|^2/2."""

    def __init__(self) -> None:
        self.x = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))
        self.y = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
        self.closures: dict[str, Any] = {"outer": self.outer, "inner": self.inner}
        self.owned: dict[str, dict[str, Tensor]] = {"outer": {"x": self.x}, "inner": {"y": self.y}}

    def outer(self) -> Tensor:
        return ((self.y - GOAL) ** 2).sum() / 2 + WEIGHT * (self.x**2).sum() / 2

    def inner(self) -> Tensor:
        return self.y @ A @ self.y / 2 - self.y @ B @ self.x

    def solve(self) -> None:
        self.y.data = torch.linalg.solve(A, B @ self.x.detach())

    def hypergradient(self) -> Tensor:
        """By hand, at the solution of the inner problem."""
        x, y = self.x.detach(), self.y.detach()
        return WEIGHT * x + B.T @ torch.linalg.solve(A, y - GOAL)

    def oracle(self, **options: Any) -> NamedClosures:
        return NamedClosures(self.closures, self.owned, **options)


def hypergradient(oracle: NamedClosures, products: Any, steps: int = 200) -> Tensor:
    """The implicit one, with the inverse Hessian by Richardson's iteration."""
    _, (direct, right) = oracle["outer"].over("outer", "inner").grad()
    assert direct is not None and right is not None
    with oracle["inner"].hessian(products=products) as hessian:
        found = torch.zeros_like(right)
        for _ in range(steps):
            found += 0.3 * (right - (hessian @ [found])[0])
        (mixed,) = hessian.cross([found], "outer")
    return direct - mixed


@pytest.mark.parametrize(("products", "atol"), [("exact", 1e-12), ("finite", 1e-6)])
def test_the_hypergradient_is_the_one_by_hand(products: Any, atol: float) -> None:
    toy = Bilevel()
    toy.solve()
    found = hypergradient(toy.oracle(), products)
    torch.testing.assert_close(found, toy.hypergradient(), atol=atol, rtol=0)


def test_a_method_of_two_levels_reaches_the_solution() -> None:
    toy = Bilevel()
    calls = Calls()
    for _ in range(60):
        oracle = toy.oracle(calls=calls)
        with torch.no_grad():
            for _ in range(3):
                _, (slope,) = oracle["inner"].grad()
                assert slope is not None
                toy.y -= 0.3 * slope
            toy.x -= 0.3 * hypergradient(oracle, "exact", steps=20)
    toy.solve()
    assert float(toy.hypergradient().norm()) < 1e-3
    assert (calls.grads, calls.products) == (60 * 5, 60 * 21)


def test_each_closure_is_asked_about_its_own_parameters_or_those_of_another() -> None:
    toy = Bilevel()
    oracle = toy.oracle()
    x, y = toy.x.detach(), toy.y.detach()
    expected = {
        ("outer", "outer"): WEIGHT * x,
        ("outer", "inner"): y - GOAL,
        ("inner", "outer"): -(B.T @ y),
        ("inner", "inner"): A @ y - B @ x,
    }
    for (closure, owner), value in expected.items():
        asked = oracle[closure].over(owner)
        assert list(asked.params) == list(toy.owned[owner])
        loss, (grad,) = asked.grad()
        assert grad is not None and torch.allclose(grad, value)
        assert loss == toy.closures[closure]().detach()
    _, (grad,) = oracle["inner"].grad()
    assert grad is not None and torch.allclose(grad, expected["inner", "inner"])
    assert toy.x.grad is None and toy.y.grad is None
    near, far = oracle["inner"].values([Shift(), Shift(0.5, Seeded(0, 0))])
    assert near == toy.inner().detach() and far != near
    far_x = oracle["inner"].over("outer").values([Shift(0.5, Seeded(0, 0))])
    moved = Seeded(0, 0).tensor("x", x)
    assert torch.allclose(far_x[0], y @ A @ y / 2 - y @ B @ (x + 0.5 * moved))
    assert oracle.grads_by_param() == {id(toy.y): oracle["inner"].grads_by_param()[id(toy.y)]}


def test_they_share_the_ledger_the_budget_and_the_policies() -> None:
    toy = Bilevel()
    oracle = toy.oracle(budget=Budget(grads=2), maximize=True)
    loss, _ = oracle["outer"].grad()
    assert loss == -toy.outer().detach()
    oracle["inner"].grad()
    with pytest.raises(BudgetExhausted):
        oracle["outer"].over("inner").grad()
    assert oracle.calls.grads == oracle["inner"].calls.grads == 2


def test_they_draw_the_same_numbers_and_each_moves_the_state_once() -> None:
    norm = nn.BatchNorm1d(2)
    x = nn.Parameter(torch.ones(4, 2))
    drawn: list[float] = []

    def outer() -> Tensor:
        drawn.append(torch.rand(()).item())
        return norm(x).pow(3).sum()

    def inner() -> Tensor:
        drawn.append(torch.rand(()).item())
        return norm(x + 1).pow(3).sum()

    owned: dict[str, dict[str, Tensor]] = {
        "outer": {"x": x},
        "inner": dict(norm.named_parameters()),
    }
    oracle = NamedClosures({"outer": outer, "inner": inner}, owned, module=norm, advance=True)
    for name in ("outer", "inner", "outer", "inner"):
        oracle[name].grad()
        oracle[name].value()
    assert len(set(drawn)) == 1
    assert torch.rand(()).item() not in drawn
    assert norm.num_batches_tracked == 2


def test_batches_of_one_of_them_may_come_as_a_list() -> None:
    toy = Bilevel()
    toy.closures["inner"] = [toy.inner, lambda: 3 * toy.inner()]
    _, (grad,) = toy.oracle()["inner"].grad()
    toy.closures["inner"] = toy.inner
    _, (single,) = toy.oracle()["inner"].grad()
    assert grad is not None and single is not None and torch.allclose(grad, 2 * single)


def test_questions_without_a_name_and_wrong_names_are_refused() -> None:
    toy = Bilevel()
    oracle = toy.oracle()
    for ask in (oracle.grad, oracle.value, oracle.hessian):
        with pytest.raises(NeedsError, match=r"several closures by name. Use one of them"):
            ask()
    with pytest.raises(NeedsError, match=r"expected one of \['outer', 'inner'\], got 'middle'"):
        oracle["middle"]
    with pytest.raises(
        NeedsError, match=r"expected some of \['outer', 'inner'\], got \['middle'\]"
    ):
        oracle["outer"].over("outer", "middle")
    with oracle["inner"].hessian() as hessian, pytest.raises(CrossError, match="got 'middle'"):
        hessian.cross([torch.ones_like(toy.y)], "middle")
    one = ClosureOracle(toy.outer, {"x": toy.x})
    with pytest.raises(NeedsError, match="a closure called 'outer'; this one knows one closure"):
        one["outer"]


@pytest.mark.parametrize(
    ("given", "declared", "says"),
    [
        ({"outer": abs}, (), r"one closure for Mine, got closures by name; write optimizer\.step"),
        (abs, ("outer", "inner"), r"got builtin_function_or_method; write .*'outer': outer, 'in"),
        (None, ("outer", "inner"), "got none"),
        ({"outer": abs}, ("outer", "inner"), "for Mine; missing inner. Write"),
        ({"a": abs, "outer": abs, "inner": abs}, ("outer", "inner"), "unknown a"),
        ({"a": abs, "inner": abs}, ("outer", "inner"), "missing outer; unknown a"),
    ],
)
def test_closures_that_do_not_fit_the_method_are_refused(
    given: Any, declared: tuple[str, ...], says: str
) -> None:
    with pytest.raises(NeedsError, match=says):
        checked_closures(given, declared, "Mine")


def test_closures_that_fit_come_in_the_order_of_the_method() -> None:
    assert checked_closures(abs, (), "Mine") is abs
    assert checked_closures([abs], (), "Mine") == [abs]
    found = checked_closures({"inner": abs, "outer": max}, ("outer", "inner"), "Mine")
    assert list(found.items()) == [("outer", max), ("inner", abs)]


def test_groups_say_who_owns_them() -> None:
    x, y, frozen = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(2)), torch.ones(3)
    groups = [
        {"params": [x], "param_names": ["x"], "closure": "outer"},
        {"params": [y, frozen], "param_names": ["y", "frozen"], "closure": "inner"},
    ]
    assert owners(groups, ("inner", "outer")) == {"inner": {"y": y}, "outer": {"x": x}}
    for wrong in ("middle", None):
        bad = [groups[0], {**groups[1], "closure": wrong}]
        with pytest.raises(
            OwnerError, match=rf"\['outer', 'inner'\] in parameter group 1, got {wrong!r}"
        ):
            owners(bad, ("outer", "inner"))
