"""What gradients must be: dense, finite by policy, and not too long."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from anyorder.oracle.gradients import (
    NonFiniteError,
    SkipStep,
    SparseGradientError,
    clipped,
    refuse,
    refuse_sparse,
    require_finite,
    unknown_loss,
)

GOOD, BAD = torch.ones(3), torch.tensor([1.0, math.inf, 0.0])
NAMES = ["a", "b", "c"]


def test_finite_ones_pass_whatever_is_missing() -> None:
    for loss in (None, torch.tensor(1.0)):
        for grads in ([], [None], [GOOD, None, GOOD], [torch.zeros(0)]):
            for policy in ("raise", "skip", "ignore"):
                require_finite(policy, loss, grads, NAMES)  # type: ignore[arg-type]


def test_sums_that_overflow_by_themselves_are_no_fault() -> None:
    large = torch.full((1000,), 1e38)
    assert large.sum().isinf()
    require_finite("raise", None, [large], NAMES)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_one_at_fault_is_named(value: float, dtype: torch.dtype) -> None:
    bad = torch.ones(70_000, dtype=dtype)
    bad[-1] = value
    with pytest.raises(NonFiniteError, match="not finite in c; no parameter was changed"):
        require_finite("raise", torch.tensor(0.0), [GOOD, None, bad], NAMES)
    require_finite("ignore", torch.tensor(value), [GOOD, None, bad], NAMES)


def test_a_loss_at_fault_is_told_by_its_value() -> None:
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        require_finite("raise", torch.tensor(math.nan), [GOOD], NAMES)


@pytest.mark.parametrize("loss", [None, torch.tensor(2.0)])
def test_steps_left_out_bring_their_loss(loss: Tensor | None) -> None:
    with pytest.raises(SkipStep) as caught:
        require_finite("skip", loss, [BAD], NAMES)
    assert caught.value.loss.isnan() if loss is None else caught.value.loss == 2.0


def test_refusing_by_policy() -> None:
    with pytest.raises(NonFiniteError, match="^the moon is full; no parameter was changed"):
        refuse("raise", "the moon is full")
    with pytest.raises(SkipStep):
        refuse("skip", "the moon is full")


def test_sparse_ones_are_named() -> None:
    params = {"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}
    refuse_sparse(params, [None, torch.eye(2)])
    with pytest.raises(SparseGradientError, match="gradient of b is sparse"):
        refuse_sparse(params, [torch.eye(2), torch.eye(2).to_sparse()])


def test_only_long_ones_are_shortened_as_a_whole() -> None:
    grads = [torch.tensor([3.0, 0.0]), None, torch.tensor([[4.0]])]
    for limit in (None, 7.0):
        same = zip(clipped(grads, limit), grads, strict=True)
        assert all(a is b or torch.equal(a, b) for a, b in same)  # type: ignore[arg-type]
    short = clipped(grads, 1.0)
    assert short[1] is None
    assert torch.cat([g.reshape(-1) for g in short if g is not None]).norm() == pytest.approx(
        1.0, rel=1e-5
    )
    assert grads[0] is not None and grads[0][0] == 3.0  # the user's own are left alone


def test_an_unknown_loss_is_a_plain_number_whatever_the_defaults() -> None:
    with torch.device("meta"):
        loss = unknown_loss()
    assert loss.isnan() and loss.dtype is torch.float32 and loss.shape == ()
