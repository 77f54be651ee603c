"""A gradient scaler around gradients and curvature in half precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder import AdaHessian, AdamW
from anyorder.oracle import BackwardDone, ClosureOracle, Composite
from anyorder.oracle.gradients import SkipStep
from anyorder.oracle.scaling import Scaling

TINY = 1e-9  # times 2, too small for float16


def made(scale: float = 2.0**16) -> Any:
    return torch.amp.GradScaler("cpu", init_scale=scale)


def half(x: Tensor) -> Tensor:
    """As autocast makes activations."""
    return (x * 1.0).half()


def test_without_a_scaler_nothing_is_done() -> None:
    scaling, x = Scaling(None), torch.ones(2)
    assert not scaling and scaling.up(x) is x and scaling.factor() == 1.0
    scaling.unscale_([x, None], None)
    assert x.tolist() == [1.0, 1.0]
    product = [torch.tensor([torch.inf])]
    assert scaling.undone(product, 2.0, x) is product


def test_gradients_are_unscaled_in_place_and_the_scale_grows() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
    scaling, grad = Scaling(scaler), torch.full((2,), 16.0)
    assert scaling.up(torch.ones(())) == 8.0 and scaling.factor() == 0.125
    scaling.unscale_([grad, None], None)
    assert grad.tolist() == [2.0, 2.0] and scaler.get_scale() == 16.0
    scaling.unscale_([None], None)
    assert scaler.get_scale() == 16.0


def test_an_overflow_shrinks_the_scale_and_brings_the_loss() -> None:
    scaler = made(8.0)
    scaling = Scaling(scaler)
    scaling.up(torch.ones(()))
    with pytest.raises(SkipStep) as caught:
        scaling.unscale_([torch.tensor([torch.inf])], torch.tensor(3.0))
    assert caught.value.loss == 3.0 and scaler.get_scale() == 4.0
    with pytest.raises(SkipStep):
        scaling.undone([torch.ones(1), torch.tensor([torch.nan])], 0.25, torch.tensor(3.0))
    assert scaler.get_scale() == 2.0
    (found,) = scaling.undone([torch.ones(1)], 0.25, torch.tensor(3.0))
    assert found.tolist() == [0.25]


@pytest.mark.parametrize("products", ["exact", "finite"])
def test_curvature_in_half_precision_survives(products: Any) -> None:
    x = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    closure = lambda: ((half(x).float() ** 2) * TINY).sum()  # noqa: E731
    vector = [torch.ones(4)]
    with ClosureOracle(closure, {"x": x}).hessian(products=products) as plain:
        assert (plain @ vector)[0].tolist() == [0.0] * 4
    scaler = made()
    with ClosureOracle(closure, {"x": x}, scaler=scaler).hessian(products=products) as scaled:
        (found,) = scaled @ vector
    assert torch.allclose(found, torch.full((4,), 2 * TINY), rtol=0.05)
    assert scaled.grads[0] is not None
    assert torch.allclose(scaled.grads[0], 2 * TINY * x.detach(), rtol=0.05)
    assert scaled.loss == closure().detach()


def test_gauss_newton_products_in_half_precision_survive() -> None:
    x = nn.Parameter(torch.ones(4))
    closure = Composite(lambda: half(x), lambda z: ((z.float() ** 2) * TINY).sum())
    with ClosureOracle(closure, {"x": x}, scaler=made()).ggn() as operator:
        (found,) = operator @ [torch.ones(4)]
    assert torch.allclose(found, torch.full((4,), 2 * TINY), rtol=0.05)


def test_an_overflow_in_a_product_leaves_the_step_out() -> None:
    x = nn.Parameter(torch.ones(2))
    scaler = made(2.0**10)
    optimizer = AdaHessian([x], lr=0.1, scaler=scaler, engine="eager")

    def closure() -> Tensor:  # slope 4, curvature 1200
        h = half(x - 0.99)
        return (h * h * h * 1e4).float().sum()

    assert optimizer.step(closure) is not None
    assert x.tolist() == [1.0, 1.0]
    assert optimizer.calls.skipped == 1 and scaler.get_scale() < 2.0**10
    while optimizer.calls.skipped == optimizer.calls.grads:
        optimizer.step(closure)
    assert bool((x != 1).all())


def test_micro_batches_are_unscaled_once() -> None:
    x = nn.Parameter(torch.tensor([1.0, -2.0]))
    batches = [lambda: (x**2).sum(), lambda: (x**3).sum(), lambda: x.sum()]
    _, plain = ClosureOracle(batches, {"x": x}).grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    loss, scaled = ClosureOracle(batches, {"x": x}, scaler=scaler).grad()
    assert loss == torch.stack([b().detach() for b in batches]).mean()
    assert plain[0] is not None and scaled[0] is not None and torch.equal(plain[0], scaled[0])
    assert scaler.get_scale() == 8.0  # one step, not three


def test_those_who_look_at_single_batches_see_them_unscaled() -> None:
    class Watched(list[Any]):
        def seen(self, grads: list[Tensor]) -> None:
            found.append(grads[0].tolist())

    found: list[list[float]] = []
    x = nn.Parameter(torch.tensor([1.0, -2.0]))
    batches = Watched([lambda: (x**2).sum(), lambda: (3 * x).sum()])
    _, (grad,) = ClosureOracle(batches, {"x": x}, scaler=made(8.0)).grad()
    assert found == [[2.0, -4.0], [3.0, 3.0]]
    assert grad is not None and grad.tolist() == [2.5, -0.5]


def test_gradients_made_by_backward_are_unscaled_once_whoever_does_it() -> None:
    ends: list[list[float]] = []
    for way in ("plain", "scaled", "unscaled before", "scaler.step"):
        x = nn.Parameter(torch.tensor([1.0, -2.0]))
        scaler = made(2.0**10)
        given = None if way == "plain" else scaler
        optimizer = AdamW([x], lr=0.1, scaler=given, engine="eager")
        loss = (x**2).sum()
        (loss if way == "plain" else scaler.scale(loss)).backward()
        if way == "unscaled before":
            scaler.unscale_(optimizer)
        if way == "scaler.step":
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        assert x.grad is not None and x.grad.tolist() == [2.0, -4.0]
        ends.append(x.tolist())
    assert ends[1:] == ends[:-1]


def test_an_overflow_of_backward_is_left_out() -> None:
    x = nn.Parameter(torch.ones(1))
    scaler = made(2.0**4)
    scaler.scale(torch.ones(()))
    x.grad = torch.tensor([torch.inf])
    with pytest.raises(SkipStep):
        BackwardDone({"x": x}, scaler=scaler).grad()
    assert scaler.get_scale() == 2.0**3
