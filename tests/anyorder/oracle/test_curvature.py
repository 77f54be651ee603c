"""Curvature operators against dense matrices."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian as dense_hessian

from anyorder.oracle import ClosureOracle
from anyorder.oracle.closures import Composite
from anyorder.oracle.curvature import OutputGrad
from anyorder.oracle.second_derivatives import SecondDerivativeError


def net() -> tuple[nn.Module, Composite]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, y = torch.randn(6, 3).double(), torch.randint(3, (6,))
    return model, Composite(lambda: model(x), lambda z: nn.functional.cross_entropy(z, y))


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors])


def columns(operator: object, params: list[Tensor]) -> Tensor:
    """The dense matrix of an operator, column by column."""
    size = sum(p.numel() for p in params)
    found: list[Tensor] = []
    for i in range(size):
        unit = torch.zeros(size, dtype=torch.float64)
        unit[i] = 1.0
        pieces = unit.split([p.numel() for p in params])
        vector = [piece.view(p.shape) for piece, p in zip(pieces, params, strict=True)]
        found.append(flat(operator @ vector))  # type: ignore[operator]
    return torch.stack(found, 1)


def dense(model: nn.Module, closure: Composite) -> Tensor:
    named = dict(model.named_parameters())
    sizes = [p.numel() for p in named.values()]
    shapes = [p.shape for p in named.values()]

    def loss(point: Tensor) -> Tensor:
        parts = [part.view(s) for part, s in zip(point.split(sizes), shapes, strict=True)]
        saved = {n: p.data for n, p in named.items()}
        found = torch.func.functional_call(model, dict(zip(named, parts, strict=True)), (X,))
        assert saved
        return nn.functional.cross_entropy(found, Y)

    torch.manual_seed(0)
    nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    X, Y = torch.randn(6, 3).double(), torch.randint(3, (6,))
    result = dense_hessian(loss, flat([p.detach() for p in named.values()]))
    assert isinstance(result, Tensor)
    return result


def test_hessian_is_the_dense_one() -> None:
    model, closure = net()
    oracle = ClosureOracle(closure, dict(model.named_parameters()))
    params = list(model.parameters())
    expected = dense(model, closure)
    with oracle.hessian() as exact:
        made = columns(exact, params)
    assert torch.allclose(made, expected, atol=1e-12)
    assert torch.allclose(made, made.T, atol=1e-12)
    assert oracle.calls.products == made.shape[0] and oracle.calls.grads == 1
    with oracle.hessian(products="finite") as finite:
        assert torch.allclose(columns(finite, params), expected, atol=1e-7)


def test_gauss_newton_is_jacobian_curvature_jacobian() -> None:
    model, closure = net()
    params = list(model.parameters())
    oracle = ClosureOracle(closure, dict(model.named_parameters()))
    with oracle.ggn() as ggn:
        made = columns(ggn, params)
        outputs = closure.outputs().reshape(-1)
        rows = [torch.autograd.grad(z, params, retain_graph=True) for z in outputs]
        jacobian = torch.stack([flat(list(row)) for row in rows])
    inner = dense_hessian(lambda z: closure.loss(z.view(6, 3)), outputs.detach())
    assert isinstance(inner, Tensor)
    assert torch.allclose(made, jacobian.T @ inner @ jacobian, atol=1e-12)
    assert float(torch.linalg.eigvalsh(made).min()) > -1e-12


def test_linear_losses_and_unused_parameters_have_zero_curvature() -> None:
    x, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    oracle = ClosureOracle(lambda: x.sum() * 2, {"x": x, "unused": unused})
    with oracle.hessian() as hessian:
        assert hessian.grads[1] is None
        assert [v.tolist() for v in hessian @ [torch.ones(2), torch.ones(3)]] == [
            [0.0] * 2,
            [0.0] * 3,
        ]


def test_a_closed_operator_says_so_and_holds_no_graph() -> None:
    model, closure = net()
    oracle = ClosureOracle(closure, dict(model.named_parameters()))
    vector = [torch.ones_like(p) for p in model.parameters()]
    with oracle.hessian() as hessian:
        _ = hessian @ vector
    with pytest.raises(SecondDerivativeError, match="closed"):
        _ = hessian @ vector
    gc.collect()
    counts: list[int] = []
    for _ in range(30):
        with oracle.hessian() as hessian:
            _ = hessian @ vector
        gc.collect()
        counts.append(sum(type(o) is Tensor for o in gc.get_objects()))
    assert counts[-1] <= counts[5]


@pytest.mark.parametrize(
    ("shape", "samples"), [((), 1), ((7,), 7), ((7, 3), 7), ((2, 5, 3), 10), ((4, 0), 0)]
)
def test_an_output_gradient_counts_all_axes_of_its_outputs_but_the_last(
    shape: tuple[int, ...], samples: int
) -> None:
    outputs = torch.zeros(shape)
    assert OutputGrad(torch.zeros(()), [], outputs, outputs).samples == samples


def test_differences_are_of_whole_gradients_and_are_not_taken_for_the_steps() -> None:
    x = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    oracle = ClosureOracle(lambda: (x**3).sum(), {"x": x}, clip=1.0)
    with oracle.hessian(products="finite") as hessian:
        (found,) = hessian @ [torch.ones_like(x)]
    assert torch.allclose(found, 6 * x.detach())
    assert hessian.grads[0] is not None
    assert torch.allclose(hessian.grads[0].norm(), torch.ones((), dtype=torch.float64))
    assert oracle.grads_by_param() == {id(x): hessian.grads[0]}
