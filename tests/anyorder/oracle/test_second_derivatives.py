"""Curvature is right or refused by name; it is never zero because a graph was left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from anyorder import AdaHessian
from anyorder.oracle import ClosureOracle, Composite
from anyorder.oracle.second_derivatives import SecondDerivativeError, gradients, named

Function: Any = torch.autograd.Function


class Cube(Function):
    """Written as it should be: differentiable as often as one likes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 3 * ctx.saved_tensors[0] ** 2


class Once(Cube):
    """Says so."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 3 * ctx.saved_tensors[0] ** 2


class WithoutGrad(Cube):
    """Does not say so."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        with torch.no_grad():
            return grad * 3 * ctx.saved_tensors[0] ** 2


class Data(Cube):
    """Goes around the graph."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.data * 3 * ctx.saved_tensors[0].data ** 2


class Array(Cube):
    """Leaves PyTorch."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        slope = 3 * ctx.saved_tensors[0].detach().numpy() ** 2
        return torch.from_numpy(grad.detach().numpy() * slope)


LEAVING = [Once, WithoutGrad, Data, Array]
X = nn.Parameter(torch.tensor([1.0, -2.0]))
V = [torch.tensor([0.5, 1.0])]


def product(closure: Callable[[], Tensor], kind: str = "hessian", **options: Any) -> list[Tensor]:
    with getattr(ClosureOracle(closure, {"x": X}), kind)(**options) as operator:
        return operator @ V


def once_more(x: Tensor) -> Tensor:
    """What a product of the sum of cubes is."""
    return 6 * x.detach() * V[0]


@pytest.mark.parametrize("function", LEAVING)
@pytest.mark.parametrize("inside", [lambda y: y.sum(), lambda y: (y**2).sum()])
def test_functions_whose_backward_leaves_the_graph_are_named(function: Any, inside: Any) -> None:
    with pytest.raises(SecondDerivativeError, match=rf"operation {function.__name__} has no sec"):
        product(lambda: inside(function.apply(X)))


@pytest.mark.parametrize("function", LEAVING)
def test_one_way_out_of_several_is_enough(function: Any) -> None:
    with pytest.raises(SecondDerivativeError, match=function.__name__):
        product(lambda: (X**4).sum() + function.apply(X).sum() * X.sum())


@pytest.mark.parametrize("function", LEAVING)
def test_gauss_newton_products_name_them_in_the_model_and_in_the_loss(function: Any) -> None:
    for closure in (
        Composite(lambda: function.apply(X), lambda z: (z**2).sum()),
        Composite(lambda: X * 2, lambda z: function.apply(z).sum()),
    ):
        with pytest.raises(SecondDerivativeError, match=function.__name__):
            product(closure, "ggn")


@pytest.mark.parametrize("function", LEAVING)
def test_what_needs_first_derivatives_only_goes_on(function: Any) -> None:
    oracle = ClosureOracle(lambda: function.apply(X).sum(), {"x": X})
    with oracle.hessian() as hessian:
        assert hessian.grads[0] is not None
        assert torch.equal(hessian.grads[0], 3 * X.detach() ** 2)
    (finite,) = product(lambda: function.apply(X).sum(), products="finite")
    torch.testing.assert_close(finite, once_more(X), rtol=1e-2, atol=1e-2)


def test_functions_that_can_be_differentiated_twice_are_exact() -> None:
    (exact,) = product(lambda: Cube.apply(X).sum())
    torch.testing.assert_close(exact, once_more(X))
    (bent,) = product(Composite(lambda: X * 1.0, lambda z: Cube.apply(z).sum()), "ggn")
    torch.testing.assert_close(bent, once_more(X))


class Rounded(Function):
    """A step: its slope is zero, and so is its curvature."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.zeros_like(grad)


class Through(Rounded):
    """A step with the slope of the line through it."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


@pytest.mark.parametrize(
    "closure",
    [
        lambda: X.sum() * 3,
        lambda: X.round().sum(),
        lambda: X.sign().sum() + X.floor().sum() * 2,
        lambda: Rounded.apply(X).sum(),
        lambda: Through.apply(X).sum(),
        lambda: X.relu().sum(),
    ],
)
def test_losses_that_are_linear_have_no_curvature_and_no_error(closure: Any) -> None:
    (found,) = product(closure)
    assert found.tolist() == [0.0, 0.0]
    (found,) = product(Composite(lambda: X * 1.0, lambda z: z.sum()), "ggn")
    assert found.tolist() == [0.0, 0.0]


class Pair(Function):
    """Right in its first argument, once differentiable in its second."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x**3 + y**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return grad * 3 * x**2, (grad * 3 * y**2).detach()


def test_only_the_way_to_the_parameters_counts() -> None:
    points = torch.ones(2, requires_grad=True)
    (found,) = product(lambda: Pair.apply(X, points).sum() + Once.apply(points).sum())
    torch.testing.assert_close(found, once_more(X))
    with pytest.raises(SecondDerivativeError, match="Pair"):
        product(lambda: Pair.apply(points, X).sum())


def test_a_hook_that_detaches_is_found() -> None:
    handle = X.register_hook(lambda grad: grad.detach() * 2)
    try:
        with pytest.raises(SecondDerivativeError, match="gradient of x is cut off .* by a hook"):
            product(lambda: (X**3).sum())
    finally:
        handle.remove()


def test_compiled_models_say_what_they_are() -> None:
    torch._dynamo.reset()  # too many compiled before, and this one would not be
    model = nn.Linear(2, 1)
    compiled: Any = torch.compile(model, backend="aot_eager")
    params = dict(model.named_parameters())
    oracle = ClosureOracle(lambda: (compiled(torch.ones(3, 2)) ** 2).sum(), params)
    ones = [torch.ones_like(p) for p in params.values()]
    with (
        pytest.raises(SecondDerivativeError, match=r"torch\.compile has no second"),
        oracle.hessian() as hessian,
    ):
        _ = hessian @ ones


def test_a_method_stops_before_it_moves() -> None:
    x = nn.Parameter(torch.ones(2))
    closure = lambda: Once.apply(x).sum()  # noqa: E731
    with pytest.raises(SecondDerivativeError, match="Once"):
        AdaHessian([x], lr=0.1, engine="eager").step(closure)
    assert x.tolist() == [1.0, 1.0]
    AdaHessian([x], lr=0.1, engine="eager", products="finite").step(closure)
    assert bool((x < 1).all())


def test_no_hook_stays_behind() -> None:
    y = Once.apply(X)
    assert gradients(y.sum(), {"x": X}, torch.ones((), requires_grad=True)).fault
    again = gradients(y.sum() * 0 + (X**2).sum(), {"x": X}, torch.ones((), requires_grad=True))
    assert "Once" in again.fault
    (first,) = torch.autograd.grad(y.sum(), X)
    assert torch.equal(first, 3 * X.detach() ** 2)


def test_other_errors_pass() -> None:
    def broken() -> list[Tensor]:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="^something else$"):
        named(broken)
