"""The small worlds of the contract: what they hold, and that `same` sees every bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anyorder.testing.worlds import bend, bits, bowl, in_parts, net, same, slopes


def test_net_holds_a_little_of_everything() -> None:
    model, closure = net()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert {len(shape) for shape in shapes.values()} == {0, 1, 2, 3}
    assert {name for name, _ in model.named_buffers()} == {
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }
    loss = closure()
    assert loss.shape == () and loss.requires_grad and bool(loss.isfinite())
    grads = torch.autograd.grad(loss, list(model.parameters()))
    assert all(bool(g.any()) for g in grads)  # no parameter is there for nothing


def test_net_is_the_same_every_time_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, closure = net()
    assert torch.equal(torch.get_rng_state(), before)
    two, other = net()
    assert same(bits(one), bits(two))
    assert not same(bits(one), bits(net(seed=1)[0]))
    one.eval(), two.eval()
    assert torch.equal(closure(), other())


def test_net_draws_dropout_from_the_global_generator() -> None:
    _, closure = net()
    torch.manual_seed(0)
    a, b = closure(), closure()
    torch.manual_seed(0)
    assert torch.equal(closure(), a) and not torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_bowl_has_its_bottom_at_zero(dtype: torch.dtype) -> None:
    params, closure = bowl(dtype, shapes=((2, 2), (), (0,)))
    assert list(params) == ["p0", "p1", "p2"]
    assert [tuple(p.shape) for p in params.values()] == [(2, 2), (), (0,)]
    assert all(p.dtype == dtype and p.requires_grad for p in params.values())
    expected = sum(float((p.detach() ** 2).sum()) for p in params.values())
    assert closure().item() == pytest.approx(expected, rel=1e-2)
    with torch.no_grad():
        for p in params.values():
            p.zero_()
    assert closure().item() == 0.0


def test_bits_are_copies() -> None:
    params, _ = bowl()
    kept = bits(params)
    with torch.no_grad():
        params["p0"].add_(1.0)
    assert not same(kept, bits(params))
    assert not any(t.requires_grad for t in kept.values())
    model = nn.Linear(2, 1)
    assert set(bits(model)) == {"weight", "bias"}


def test_same_sees_every_bit_and_takes_nan_for_nan() -> None:
    a = {"x": torch.tensor([1.0, float("nan"), float("inf")])}
    assert same(a, {"x": a["x"].clone()})
    for place, other in (
        (0, 1.0 + 2**-23),
        (1, 0.0),
        (2, float("-inf")),
        (2, float("nan")),
        (0, float("nan")),
    ):
        b = {"x": a["x"].clone()}
        b["x"][place] = other
        assert not same(a, b) and not same(b, a)
    assert not same(a, {"y": a["x"]})
    assert not same(a, {})
    assert not same({"x": torch.ones(2)}, {"x": torch.ones(2).double()})
    assert not same({"x": torch.zeros(2)}, {"x": torch.zeros(3)})


def test_a_closure_in_two_parts_is_the_same_loss() -> None:
    params, closure = bowl()
    parts = in_parts(closure)
    assert torch.equal(parts(), closure())
    grads = [torch.autograd.grad(f(), list(params.values())) for f in (closure, parts)]
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    vector = in_parts(lambda: params["p0"] * 2)
    assert vector().shape == params["p0"].shape  # what is no number stays none


def test_the_gradient_written_by_hand_is_that_of_the_curved_function() -> None:
    params, closure = bend()
    grads = torch.autograd.grad(closure(), list(params.values()))
    for found, expected in zip(slopes(params).values(), grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
