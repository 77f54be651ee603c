"""Losses with faulty derivatives, each with the finding it must get."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anyorder.problems import check
from anyorder.problems._acceptance import Bench
from anyorder.problems._derivative_trials import (
    _curvature,
    _derivative,
    _directions,
    _doubled,
    _slope,
)


def only(problem, level, topic="loss"):
    """The text of the one finding of a level and topic; there must be no other error."""
    report = check(problem)
    found = [f for f in report.findings if (f.level, f.topic) == (level, topic)]
    assert len(found) == 1, str(report)
    assert all(f is found[0] for f in report.of("error")), str(report)
    return f"{found[0].found} | {found[0].instead}"


def usual(self, model, batch):
    return F.mse_loss(model(batch["x"]), batch["y"])


@pytest.fixture
def faulty(good):
    """Make a problem of a loss."""
    return lambda loss, **more: type("Bad", (good,), {"loss": loss, **more})()


class Detached(nn.Module):
    """A linear layer whose weight a careless author reads from outside the graph."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 3))
        self.bias = nn.Parameter(torch.ones(1))

    def forward(self, x):
        part = x * self.weight.clone()
        part[:, 0] = (x[:, 0] * self.weight[0]).detach()
        return part.sum(1, keepdim=True) + self.bias


class WrongSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 1.9 * x * gradient


class TestGradients:
    def test_another_model(self, faulty, good):
        kept = good().build(5)
        problem = faulty(lambda self, model, batch: usual(self, kept, batch))
        assert "no parameter of the model received a gradient" in only(problem, "error")

    def test_unused_layer(self, faulty, good):
        def build(self, seed):
            model = good.build(self, seed)
            model[1].extra = nn.Linear(2, 2)
            nn.init.ones_(model[1].extra.weight)
            nn.init.ones_(model[1].extra.bias)
            return model

        text = only(faulty(usual, build=build), "warning")
        assert "no gradient for 1.extra.weight, 1.extra.bias: the loss" in text

    def test_exactly_zero(self, faulty):
        def loss(self, model, batch):
            hidden = torch.round(model[0](batch["x"]))
            return (model[2](hidden) - batch["y"]).square().mean()

        report = check(faulty(loss))
        texts = [f.found for f in report.of("warning")]
        assert any(
            "exactly zero for 0.weight, 0.bias, at the initial point and near" in t for t in texts
        )

    def test_zero_only_at_the_start(self, faulty, good):
        def build(self, seed):
            model = good.build(self, seed)
            nn.init.zeros_(model[2].weight)
            return model

        text = only(faulty(usual, build=build), "info")
        assert "zero at the initial point for 0.weight, 0.bias" in text

    def test_nan_gradient(self, faulty):
        def loss(self, model, batch):
            zero = (model(batch["x"]) * 0).sum()
            return usual(self, model, batch) + torch.sqrt(zero)

        assert "NaN or infinite gradient" in only(faulty(loss), "error")

    def test_sparse_gradients(self, good):
        class Sparse(good):
            def build(self, seed):
                torch.manual_seed(seed)
                return nn.EmbeddingBag(24, 1, sparse=True, mode="sum")

            def batch(self, seed, step):
                return torch.arange(24).reshape(8, 3)

            def loss(self, model, batch):
                return (model(batch) - 1).square().mean()

            def evaluate(self, model):
                return {"loss": 1.0, "error": 1.0}

        report = check(Sparse())
        assert report.ok, str(report)
        assert not report.of("warning")


class TestFiniteDifferences:
    def test_detached_part(self, faulty):
        problem = faulty(usual, build=lambda self, seed: Detached())
        assert "its gradient is wrong" in only(problem, "warning")

    def test_custom_backward(self, faulty):
        def loss(self, model, batch):
            return WrongSquare.apply(model(batch["x"]) - batch["y"]).mean()

        assert "its gradient is wrong" in only(faulty(loss), "warning")

    def test_only_float32(self, faulty):
        def loss(self, model, batch):
            return usual(self, model, {key: value.float() for key, value in batch.items()})

        report = check(faulty(loss))
        assert not report.of("error") + report.of("warning")
        (finding,) = report.of("info")
        assert "does not run in float64" in finding.found

    def test_wrong_in_float32(self, faulty):
        def loss(self, model, batch):
            x, y = batch["x"].float(), batch["y"].float()
            return 2 * WrongSquare.apply(model(x) - y).mean() - (model(x) - y).square().mean()

        report = check(faulty(loss))
        assert any("its gradient is wrong" in f.found for f in report.of("warning")), str(report)

    def test_half_precision_is_left_alone(self, faulty):
        def loss(self, model, batch):
            x, y = batch["x"].float(), batch["y"].float()
            return WrongSquare.apply(model(x) - y).mean().bfloat16()

        assert not check(faulty(loss)).of("warning")

    def test_float32_inside_a_float64_copy(self, faulty):
        def loss(self, model, batch):
            return F.mse_loss(model(batch["x"]).float(), batch["y"].float())

        assert not check(faulty(loss)).findings

    @pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardtanh, nn.GELU])
    def test_kinks_are_no_mistakes(self, faulty, activation):
        def build(self, seed):
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(3, 200), activation(), nn.Linear(200, 1))

        for seed in range(5):
            report = check(faulty(usual, build=build), seed=seed)
            assert not report.of("warning"), str(report)

    def test_large_and_small_losses(self, faulty):
        for factor in (1e-8, 1e8):
            problem = faulty(lambda self, m, b, f=factor: f * usual(self, m, b))
            assert not check(problem).of("warning")


class NoSecond(torch.autograd.Function):
    """A square with a right gradient, whose own derivative PyTorch silently leaves out."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class TestSecondDerivative:
    def test_none(self, faulty):
        def attention(self, model, batch):
            x = model[0](batch["x"])[None, None]
            return F.scaled_dot_product_attention(x, x, x).square().mean() + usual(
                self, model, batch
            )

        text = only(faulty(attention), "info")
        assert "cannot be differentiated twice: RuntimeError" in text
        assert "write softmax" in text

    def test_wrong(self, faulty):
        def loss(self, model, batch):
            return NoSecond.apply(model(batch["x"]) - batch["y"]).mean()

        text = only(faulty(loss), "warning")
        assert "its second derivative is wrong" in text

    def test_curvature_is_right_where_it_is_known(self, faulty):
        """Along any unit direction the second derivative of |x|^2 / 2 is one."""
        problem = faulty(
            lambda self, model, batch: 0.5 * sum(p.square().sum() for p in model.parameters())
        )
        bench = Bench(problem, 0)
        bench.batch = problem.batch(0, 0)
        for at in _directions(bench, *_doubled(bench)):
            assert _curvature(bench, at) == pytest.approx(1.0)
            assert _derivative(bench, at) == pytest.approx(_slope(bench, at).difference)


def test_linear_loss_has_a_second_derivative(faulty):
    """Its first derivative is constant: nothing to differentiate, and nothing wrong."""
    problem = faulty(
        lambda self, m, b: m(b["x"]).mean(),
        build=lambda self, seed: nn.Linear(3, 1),
    )
    assert not [f for f in check(problem).findings if "twice" in f.found]
