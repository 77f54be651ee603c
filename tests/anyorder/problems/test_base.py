"""The contract of a problem and the helpers beside it."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from anyorder import Composite
from anyorder.errors import AnyOrderError
from anyorder.problems import Problem, ProblemError, evaluating, minibatch, seeded
from anyorder.problems.base import (
    all_rows,
    device_of,
    generator,
    require_choice,
    require_int,
    require_number,
    resampled_rows,
)


@pytest.mark.parametrize(
    "outputs",
    [5, [], torch.tensor(1.0), torch.ones(0, 3), (torch.ones(3), torch.ones(4)), [torch.ones(())]],
)
def test_outputs_without_rows_are_refused(outputs):
    with pytest.raises(ProblemError, match="test samples in dimension 0, the same number in each"):
        all_rows(outputs)


def test_resampled_rows_depend_on_count_and_draw_alone():
    first, second = resampled_rows(100, 0), resampled_rows(100, 1)
    assert first.shape == (100,) and not torch.equal(first, second)
    resampled_rows.cache_clear()
    torch.manual_seed(3)
    assert torch.equal(first, resampled_rows(100, 0))
    assert first.min() >= 0 and first.max() < 100
    assert len(first.unique()) < 100  # with replacement


class TestProblem:
    def test_cannot_be_made_without_its_methods(self):
        with pytest.raises(TypeError, match="abstract"):
            Problem()

    def test_error_is_both_kinds(self):
        assert issubclass(ProblemError, AnyOrderError)
        assert issubclass(ProblemError, ValueError)

    def test_name_is_the_class_name_unless_set(self, good):
        class Mine(good):
            pass

        class Named(good):
            name = "other"

        assert (Mine.name, Named.name) == ("Mine", "other")

    def test_defaults(self, good):
        class Plain(good):
            target = None

        problem = Plain()
        assert (problem.goal, problem.schedule, problem.optimum) == ("min", "constant", None)
        assert Problem.metric == "loss"
        assert problem.test(problem.build(0)) is None

    @pytest.mark.parametrize("name", ["test_outputs", "score"])
    def test_outputs_and_score_come_together(self, good, name):
        with pytest.raises(ProblemError, match=r"only one of test_outputs\(\) and score\(\)"):
            type("Half", (good,), {name: lambda self, *_: None})

    def test_the_test_is_the_score_of_all_rows(self, good):
        class Rows(good):
            def test_outputs(self, model):
                return {"x": torch.arange(5.0), "parts": [torch.ones(5, 2)]}

            def score(self, outputs, rows):
                return {"sum": outputs["x"][rows].sum().item(), "count": len(rows)}

        problem = Rows()
        assert problem.test(problem.build(0)) == {"sum": 10.0, "count": 5}

    @pytest.mark.parametrize("attribute", ["goal", "schedule"])
    def test_refuses_unknown_words(self, good, attribute):
        with pytest.raises(ProblemError, match=f"Bad: {attribute} must be one of .*'upwards'"):
            type("Bad", (good,), {attribute: "upwards"})

    def test_a_loss_in_two_parts(self, good):
        class Parts(good):
            def outputs(self, model, batch):
                return model(batch["x"])

            def criterion(self, outputs, batch):
                return outputs.square().mean()

        class Whole(Parts):
            def loss(self, model, batch):
                return model(batch["x"]).abs().mean()

        problem = Parts()
        model, batch = problem.build(0), problem.batch(0, 0)
        expected = model(batch["x"]).square().mean()
        closure = problem.closure(model, batch)
        assert problem.in_parts and isinstance(closure, Composite)
        assert torch.equal(problem.loss(model, batch), expected)
        assert torch.equal(closure(), expected)
        assert torch.equal(closure.loss(closure.outputs()), expected)
        whole = Whole()
        assert not whole.in_parts
        assert torch.equal(whole.closure(model, batch)(), model(batch["x"]).abs().mean())

    def test_a_problem_in_parts_needs_no_loss(self):
        class Parts(Problem):
            def build(self, seed):
                return nn.Linear(1, 1)

            def batch(self, seed, step):
                return torch.ones(2, 1)

            def evaluate(self, model):
                return {"loss": 0.0}

            def outputs(self, model, batch):
                return model(batch)

            def criterion(self, outputs, batch):
                return outputs.sum()

        problem = Parts()
        assert problem.loss(problem.build(0), problem.batch(0, 0)).shape == ()

    def test_refuses_half_of_a_loss_and_one_and_a_half(self, good):
        def some(*arguments):
            raise AssertionError

        class Nothing(Problem):
            pass

        with pytest.raises(ProblemError, match=r"outputs\(\) and no criterion\(\)"):
            type("Bad", (Nothing,), {"outputs": some})
        with pytest.raises(ProblemError, match=r"criterion\(\) and no outputs\(\)"):
            type("Bad", (Nothing,), {"criterion": some})
        with pytest.raises(ProblemError, match=r"loss\(\) and outputs\(\)"):
            type("Bad", (good,), {"loss": some, "outputs": some, "criterion": some})

    def test_refuses_a_closure_of_its_own(self, good):
        with pytest.raises(ProblemError, match=r"overrides closure\(\)"):
            type("Bad", (good,), {"closure": lambda self, model, batch: None})

    def test_options(self, good):
        class Many(good):
            def __init__(self, width, *, depth=2, **rest):
                super().__init__()

        class Nothing(Problem):
            pass

        assert good.options() == {"size": 8}
        assert Many.options() == {"width": inspect.Parameter.empty, "depth": 2}
        assert Nothing.options() == {}

    def test_closure_is_the_loss(self, good):
        problem = good()
        model, batch = problem.build(0), problem.batch(0, 0)
        value = problem.closure(model, batch)()
        assert value.item() == problem.loss(model, batch).item()
        assert value.requires_grad
        assert all(p.grad is None for p in model.parameters())


class TestOptions:
    def test_choice(self):
        require_choice("size", "a", ("a", "b"), owner="p")
        with pytest.raises(ProblemError, match="p: size must be one of 'a', 'b'; got 'c'"):
            require_choice("size", "c", ("a", "b"), owner="p")

    @pytest.mark.parametrize("wrong", [0, 1.0, True, "3", None])
    def test_int(self, wrong):
        require_int("dim", 1, at_least=1, owner="p")
        with pytest.raises(ProblemError, match="p: dim must be an integer of at least 1; got"):
            require_int("dim", wrong, at_least=1, owner="p")

    @pytest.mark.parametrize("wrong", [0.5, float("nan"), float("inf"), True, "3", None])
    def test_number(self, wrong):
        require_number("c", 1, at_least=1, owner="p")
        require_number("c", 2.5, at_least=1, owner="p")
        with pytest.raises(ProblemError, match="p: c must be a finite number of at least 1; got"):
            require_number("c", wrong, at_least=1, owner="p")


class TestSeeds:
    def test_generator_is_a_function_of_its_key(self):
        draws = [torch.rand(4, generator=generator("a", 0)) for _ in range(2)]
        assert torch.equal(*draws)
        others = [generator("a", 1), generator("b", 0), generator("a", 0, 0), generator("a", "0")]
        assert not any(torch.equal(draws[0], torch.rand(4, generator=g)) for g in others)

    def test_seeded_seeds_and_puts_back(self):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        with seeded(0):
            first = torch.rand(3)
        assert torch.equal(torch.rand(3), expected)
        torch.manual_seed(0)
        assert torch.equal(torch.rand(3), first)

    def test_seeded_puts_back_after_an_exception(self):
        state = torch.get_rng_state()
        with pytest.raises(KeyError), seeded(0):
            raise KeyError
        assert torch.equal(torch.get_rng_state(), state)

    def test_minibatch_visits_every_sample_once_per_pass(self):
        for epoch in range(3):
            rows = [minibatch(10, 3, seed=1, step=3 * epoch + i) for i in range(3)]
            assert len(set(torch.cat(rows).tolist())) == 9

    def test_minibatch_is_pure(self):
        first = minibatch(50, 5, seed=0, step=17)
        first.zero_()
        later = [minibatch(50, 5, seed=s, step=t) for s, t in ((0, 3), (9, 0), (0, 31))]
        again = minibatch(50, 5, seed=0, step=17)
        assert again.any()
        assert torch.equal(again, minibatch(50, 5, seed=0, step=17))
        assert not any(torch.equal(again, other) for other in later)
        assert not torch.equal(again, minibatch(50, 5, seed=1, step=17))

    def test_minibatch_passes_differ(self):
        passes = [
            torch.cat([minibatch(20, 5, seed=0, step=4 * epoch + i) for i in range(4)])
            for epoch in range(2)
        ]
        assert torch.equal(passes[0].sort()[0], passes[1].sort()[0])
        assert not torch.equal(*passes)

    @pytest.mark.parametrize("size", [0, -1, 11])
    def test_minibatch_refuses_sizes(self, size):
        with pytest.raises(ProblemError, match="use 1 to 10"):
            minibatch(10, size, seed=0, step=0)


class TestModel:
    def test_device_of(self):
        assert device_of(nn.Linear(1, 1, device="meta")).type == "meta"
        assert device_of(nn.BatchNorm1d(2, affine=False, device="meta")).type == "meta"
        assert device_of(nn.Tanh()).type == "cpu"

    def test_evaluating_keeps_mixed_modes(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        model[1].eval()
        with pytest.raises(KeyError), evaluating(model):
            assert not any(module.training for module in model.modules())
            assert not model(torch.ones(1, 2)).requires_grad
            raise KeyError
        assert (model.training, model[0].training, model[1].training) == (True, True, False)
        assert torch.is_grad_enabled()
