"""Faulty problems, each with the finding it must get: all but the loss."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from anyorder.problems import check


def only(problem, level, topic):
    """The text of the one finding of a level and topic; there must be no other error."""
    report = check(problem)
    found = [f for f in report.findings if (f.level, f.topic) == (level, topic)]
    assert len(found) == 1, str(report)
    assert all(f is found[0] for f in report.of("error")), str(report)
    return f"{found[0].found} | {found[0].instead}"


class TestAttributes:
    @pytest.mark.parametrize(("name", "good_word"), [("goal", "min"), ("schedule", "cosine")])
    def test_words(self, good, name, good_word):
        problem = good()
        setattr(problem, name, "sideways")
        assert f'"{good_word}"' in only(problem, "error", name)

    @pytest.mark.parametrize("metric", [None, ""])
    def test_metric_is_no_name(self, good, metric):
        problem = good()
        problem.metric = metric
        report = check(problem)
        assert "expected the name of a number" in report.of("error")[0].found

    @pytest.mark.parametrize("value", ["0.9", float("nan"), torch.tensor(1.0), True])
    @pytest.mark.parametrize("name", ["target", "optimum"])
    def test_no_number(self, good, name, value):
        problem = good()
        setattr(problem, name, value)
        assert "expected a finite number" in only(problem, "error", name)

    def test_accuracy_to_be_minimised(self, good):
        class Bad(good):
            metric = "val_accuracy"
            target = None

            def evaluate(self, model):
                return {**super().evaluate(model), "val_accuracy": 0.5}

        assert 'goal = "max"' in only(Bad(), "warning", "goal")
        Bad.goal = "max"
        assert not check(Bad()).findings


class TestBuild:
    def test_no_module(self, good):
        class Bad(good):
            def build(self, seed):
                return [torch.ones(2)]

        assert "returned a value of type list" in only(Bad(), "error", "build")

    def test_class_instead_of_instance(self, good):
        class Bad(good):
            def build(self, seed):
                return nn.Tanh

        assert "returned the class Tanh" in only(Bad(), "error", "build")

    @pytest.mark.parametrize("model", [nn.Tanh(), nn.Linear(3, 1).requires_grad_(False)])
    def test_nothing_to_train(self, good, model):
        class Bad(good):
            def build(self, seed):
                return model

        assert "no trainable parameters" in only(Bad(), "error", "build")

    def test_lazy(self, good):
        class Bad(good):
            def build(self, seed):
                return nn.LazyLinear(1)

        assert "lazy layers" in only(Bad(), "error", "build")

    def test_not_finite(self, good):
        class Bad(good):
            def build(self, seed):
                model = super().build(seed)
                model[0].bias.data[0] = float("nan")
                return model

        report = check(Bad())
        assert any("NaN or Inf in 0.bias" in f.found for f in report.of("error"))

    def test_same_seed_different_model(self, good):
        class Bad(good):
            def build(self, seed):
                return nn.Linear(3, 1)

        assert "same seed returned different models" in only(Bad(), "error", "build")
        assert "changes the global random state" in check(Bad()).of("info")[0].found

    def test_seeding_the_global_state(self, good):
        class Rude(good):
            def build(self, seed):
                torch.manual_seed(seed)
                return nn.Linear(3, 1)

        assert "with seeded(seed)" in only(Rude(), "info", "build")

    def test_same_model_twice(self, good):
        class Bad(good):
            kept = None

            def build(self, seed):
                self.kept = self.kept or super().build(seed)
                return self.kept

        assert "two calls returned the same parameters" in only(Bad(), "error", "build")

    def test_same_start_for_every_seed(self, good):
        class Fixed(good):
            def build(self, seed):
                return super().build(0)

        assert "same for every seed" in only(Fixed(), "info", "build")


class TestBatch:
    def test_random(self, good):
        class Bad(good):
            def batch(self, seed, step):
                return super().batch(seed, int(torch.randint(1000, ())))

        assert "same seed and step returned different data" in only(Bad(), "error", "batch")

    def test_order_of_calls_matters(self, good):
        class Bad(good):
            def __init__(self):
                super().__init__()
                self.steps = itertools.count()

            def batch(self, seed, step):
                return super().batch(seed, next(self.steps))

        assert "same seed and step returned different data" in only(Bad(), "error", "batch")

    def test_one_tensor_filled_again(self, good):
        class Bad(good):
            def __init__(self):
                super().__init__()
                self.kept = {"x": torch.zeros(8, 3), "y": torch.zeros(8, 1)}

            def batch(self, seed, step):
                for key, value in super().batch(seed, step).items():
                    self.kept[key].copy_(value)
                return self.kept

        assert "a batch changed when later ones were drawn" in only(Bad(), "error", "batch")

    def test_iterator(self, good):
        class Bad(good):
            def batch(self, seed, step):
                return (row for row in self.x)

        assert "can be read only once" in only(Bad(), "error", "batch")

    def test_nan(self, good):
        class Bad(good):
            def batch(self, seed, step):
                return {**super().batch(seed, step), "extra": torch.tensor([float("nan")])}

        assert "contains NaN" in only(Bad(), "warning", "batch")

    def test_seed_not_used(self, good):
        class Bad(good):
            def batch(self, seed, step):
                return super().batch(0, step)

        assert "does not depend on the seed" in only(Bad(), "warning", "batch")

    def test_full_batch(self, good):
        class Full(good):
            def batch(self, seed, step):
                return {"x": self.x, "y": self.y}

        assert "full batch" in only(Full(), "info", "batch")

    def test_incomparable(self, good):
        class Odd(good):
            def batch(self, seed, step):
                return {**super().batch(seed, step), "thing": object()}

        assert "not checked" in only(Odd(), "info", "batch")


class TestEvaluate:
    def faulty(self, good, evaluate):
        return type("Bad", (good,), {"evaluate": evaluate})()

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            (1.0, "returned a value of type float"),
            (None, "returned None"),
            ({"error": 1.0}, "lacks 'loss'; it has error"),
            ({"loss": 1.0}, "lacks 'error'; it has loss"),
            ({"loss": float("nan"), "error": 1.0}, "loss is not finite"),
            ({"loss": 1.0, "error": float("inf")}, "error is not finite"),
            ({"loss": torch.tensor(1.0), "error": 1.0}, "loss is a value of type Tensor"),
            ({"loss": 1.0, "error": True}, "error is a value of type bool"),
            ({"loss": 1.0, "error": 1.0, 3: 1.0}, "keys that are not text"),
        ],
    )
    def test_form(self, good, result, message):
        problem = self.faulty(good, lambda self, model: result)
        assert message in only(problem, "error", "evaluate")

    def test_random(self, good):
        def evaluate(self, model):
            loss = torch.rand(()).item()
            return {"loss": loss, "error": 1.0}

        text = only(self.faulty(good, evaluate), "error", "evaluate")
        assert "two evaluations of the same model differ in loss" in text

    def test_changes_parameters(self, good):
        def evaluate(self, model):
            with torch.no_grad():
                model[0].weight.mul_(0.5)
            return {"loss": 1.0, "error": 1.0}

        text = only(self.faulty(good, evaluate), "error", "evaluate")
        assert "changes parameters of 0.weight" in text

    def test_changes_mode(self, good):
        def evaluate(self, model):
            model.eval()
            return {"loss": 1.0, "error": 1.0}

        text = only(self.faulty(good, evaluate), "error", "evaluate")
        assert "changes the mode of the model, 0, 1 and 1 more" in text

    def test_changes_statistics(self, good):
        class Bad(good):
            def build(self, seed):
                model = super().build(seed)
                return nn.Sequential(nn.BatchNorm1d(3), *model)

            def evaluate(self, model):
                with torch.no_grad():
                    loss = (model(self.x) - self.y).square().mean().item()
                return {"loss": loss, "error": loss}

        text = only(Bad(), "error", "evaluate")
        assert "changes buffers of 0.running_mean" in text
        assert "evaluating(model)" in text

    def test_leaves_gradients(self, good):
        def evaluate(self, model):
            loss = (model(self.x) - self.y).square().mean()
            loss.backward()
            return {"loss": loss.item(), "error": 1.0}

        text = only(self.faulty(good, evaluate), "error", "evaluate")
        assert "changes .grad of 0.weight" in text

    def test_freezes(self, good):
        def evaluate(self, model):
            model.requires_grad_(False)
            return {"loss": 1.0, "error": 1.0}

        text = only(self.faulty(good, evaluate), "error", "evaluate")
        assert "changes requires_grad of 0.weight" in text

    def test_slow(self, good, monkeypatch):
        monkeypatch.setattr("anyorder.problems._trials._SLOW_EVALUATION", 0.0)
        assert "called many times" in only(good(), "info", "evaluate")

    def test_target_reached_at_the_start(self, good):
        class Easy(good):
            target = 1e6

        assert "which the untrained model already reaches" in only(Easy(), "warning", "target")

        class Wrong(good):
            target = 1e-6
            goal = "max"

        assert "correct goal" in only(Wrong(), "warning", "target")

    def test_optimum_above_a_loss(self, good):
        class Bad(good):
            optimum = 1e3

        assert "the untrained model has a loss of" in only(Bad(), "error", "optimum")


@pytest.mark.parametrize(
    ("result", "message"),
    [(3.0, "returned a value of type float"), ({"loss": "low"}, "loss is a value of type str")],
)
def test_test(good, result, message):
    problem = type("Bad", (good,), {"test": lambda self, model: result})()
    assert message in only(problem, "error", "test")


def rows(good, **changes):
    """A problem whose test set can be resampled."""

    def test_outputs(self, model):
        return self.x.sum(1)

    def score(self, outputs, rows):
        return {"loss": outputs[rows].square().mean().item()}

    return type("Bad", (good,), {"test_outputs": test_outputs, "score": score, **changes})()


def test_test_rows(good):
    assert check(rows(good)).ok
    assert check(rows(good, test=lambda self, model: None)).ok


def test_score_that_is_not_the_test(good):
    found = only(rows(good, test=lambda self, model: {"loss": 1.0}), "error", "test")
    assert found.startswith("score() of all rows of test_outputs() differs from test() in loss")
    found = only(rows(good, test=lambda self, model: {"accuracy": 1.0}), "error", "test")
    assert "in accuracy and loss" in found or "accuracy, loss" in found


def test_score_of_the_number_of_rows(good):
    found = only(rows(good, score=lambda self, outputs, rows: {"n": len(rows)}), "warning", "test")
    assert found.startswith("score() changes in n when every row is repeated")


def test_outputs_without_rows(good):
    problem = rows(good, test_outputs=lambda self, model: torch.tensor(1.0))
    assert "test samples in dimension 0" in only(problem, "error", "test")
