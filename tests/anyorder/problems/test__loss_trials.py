"""Faulty losses, each with the finding it must get."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anyorder.problems import check


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


class TestValue:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda v: v.item(), "returned a value of type float"),
            (lambda v: None, "returned None"),
            (lambda v: v.expand(5), "returned a tensor of shape (5,)"),
            (lambda v: v.long(), "type torch.int64"),
            (lambda v: v * float("nan"), "is nan at the initial point"),
            (lambda v: v / 0, "is inf at the initial point"),
            (lambda v: v.detach(), "not attached to the parameters"),
            (lambda v: torch.tensor(v.item()), "not attached to the parameters"),
        ],
    )
    def test_errors(self, faulty, change, message):
        problem = faulty(lambda self, model, batch: change(usual(self, model, batch)))
        assert message in only(problem, "error")

    def test_one_number_with_a_dimension(self, faulty):
        problem = faulty(lambda self, model, batch: usual(self, model, batch).reshape(1))
        assert "shape (1,) instead of ()" in only(problem, "warning")


class TestEffects:
    def test_backward(self, faulty):
        def loss(self, model, batch):
            value = usual(self, model, batch)
            value.backward()
            return value

        report = check(faulty(loss))
        (finding,) = report.of("error")
        assert "calls backward itself at " in finding.found
        line = loss.__code__.co_firstlineno + 2
        assert finding.found.endswith(f"test__loss_trials.py:{line}")
        remove, give = finding.instead.splitlines()
        assert remove == "Remove the line `value.backward()`"
        assert "`return loss`" in give

    @pytest.mark.parametrize("last", [lambda v: v.detach(), lambda v: v.item()])
    def test_backward_and_a_bare_number(self, faulty, last):
        def loss(self, model, batch):
            value = usual(self, model, batch)
            value.backward()
            return last(value)

        found = [f.found for f in check(faulty(loss)).of("error")]
        assert any("calls backward itself" in text for text in found)
        assert not any("not attached" in text for text in found)

    def test_inner_derivative_is_no_backward(self, faulty):
        def loss(self, model, batch):
            x = batch["x"].clone().requires_grad_()
            with torch.enable_grad():
                (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            return (slope - 1).square().mean() + model(x).square().mean()

        report = check(faulty(loss))
        assert report.ok, str(report)
        assert not report.of("warning")

    def test_step(self, faulty):
        def loss(self, model, batch):
            with torch.no_grad():
                model[2].bias += 1
            return usual(self, model, batch)

        assert "changes parameters: 2.bias" in only(faulty(loss), "error")

    def test_statistics(self, faulty, good):
        def build(self, seed):
            return nn.Sequential(nn.BatchNorm1d(3), *good.build(self, seed))

        assert "changes buffers: 0.running_mean" in only(faulty(usual, build=build), "info")

    def test_mode(self, faulty):
        def loss(self, model, batch):
            model[1].eval()
            return usual(self, model, batch)

        assert "changes the mode or the requires_grad of 1" in only(faulty(loss), "warning")

    def test_batch_changed(self, faulty):
        def loss(self, model, batch):
            batch["x"].mul_(0.9)
            return usual(self, model, batch)

        report = check(faulty(loss))
        assert any("changes the batch" in f.found for f in report.of("error"))


class TestRepetition:
    def test_another_batch_each_time(self, faulty, good):
        steps = itertools.count()

        def loss(self, model, batch):
            return usual(self, model, good.batch(self, 0, next(steps)))

        assert "two evaluations of the same model and batch differ" in only(faulty(loss), "error")

    def test_a_generator_of_its_own(self, faulty):
        chance = torch.Generator().manual_seed(0)

        def loss(self, model, batch):
            return usual(self, model, batch) + torch.rand((), generator=chance)

        text = only(faulty(loss), "error")
        assert "Random numbers belong in batch" in text

    def test_dropout(self, faulty, good):
        def build(self, seed):
            return nn.Sequential(*good.build(self, seed), nn.Dropout(0.5))

        text = only(faulty(usual, build=build), "info")
        assert "depends on the global random state" in text

    @pytest.mark.parametrize("draw", ["torch.rand(()).item()", "np.random.rand()", "random()"])
    def test_global_states(self, faulty, draw):
        import random

        import numpy as np

        names = {"torch": torch, "np": np, "random": random.random}

        def loss(self, model, batch):
            return usual(self, model, batch) * (1 + eval(draw, names))

        assert "depends on the global random state" in only(faulty(loss), "info")


class TestWithoutGraph:
    def test_inner_derivative_fails(self, faulty):
        def loss(self, model, batch):
            x = batch["x"].clone().requires_grad_()
            value = model(x).sum()
            (slope,) = torch.autograd.grad(value, x, create_graph=True)
            return slope.square().mean() + model(x).square().mean()

        report = check(faulty(loss))
        (finding,) = report.of("warning")
        assert "fails under torch.no_grad() at " in finding.found
        assert f"test__loss_trials.py:{loss.__code__.co_firstlineno + 3}:" in finding.found
        assert "torch.enable_grad()" in finding.instead
        assert report.ok

    def test_another_value(self, faulty):
        def loss(self, model, batch):
            return usual(self, model, batch) * (2 if torch.is_grad_enabled() else 1)

        report = check(faulty(loss))
        assert any("under torch.no_grad() and" in f.found for f in report.of("warning"))
