"""One run: start, curve, cost, schedule, and every way it can end."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.compare.plan.entrants import resolve
from anyorder.compare.plan.items import TUNING_EVALUATIONS, Item, Task
from anyorder.compare.plan.limits import Limits
from anyorder.compare.plan.plan import Entry
from anyorder.compare.plan.settings import Settings
from anyorder.compare.run import runner as running
from anyorder.compare.run.records import Final, Point, RunRecord
from anyorder.compare.run.runner import IDLE_STEPS, Clock, Training, explain, finite, warm_up
from anyorder.compare.store.schema import Outcome, read, text_of
from anyorder.oracle.ledger import NOMINAL_RATES, Calls
from anyorder.problems import Problem, load

METHODS = ["sgd", "adamw", "lion", "adahessian", "mezo", "rank_sgd", "torch.optim:LBFGS"]


def task(
    method: str = "sgd",
    budget: str = "40grads",
    *,
    config: dict[str, Any] | None = None,
    seed: int = 0,
    rates: dict[str, float] | None = None,
    tuning: bool = True,
    evaluations: int = 5,
    schedule: str = "constant",
    autocast: str = "none",
) -> Task:
    settings = Settings(
        "p", budget=budget, schedule=schedule, autocast=autocast,  # type: ignore[arg-type]
        evaluations=evaluations * (TUNING_EVALUATIONS if tuning else 1),
    )  # fmt: skip
    item = Item("tune" if tuning else "report", method, 0, 0, seed)
    entry = Entry(method, method, "", {}, search=False)
    return Task(settings, entry, item, config or {}, rates or NOMINAL_RATES)


def run(problem: Problem, job: Task, watch: Any = lambda point: None) -> RunRecord:
    return running.run(problem, resolve(job.method.spec), job, watch)


def timeless(record: RunRecord) -> dict[str, Any]:
    from anyorder.compare.store.results import strip_times

    return strip_times(record)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_to_its_budget_and_its_record_is_valid(method: str) -> None:
    record = run(load("quadratic"), task(method, tuning=False))
    assert (record.status, record.stop_reason, record.error) == ("done", "budget", None)
    outcome = Outcome({}, {}, record, "m")
    assert read(Outcome, text_of(outcome), "outcome") == outcome
    end = record.curve[-1]
    assert 100 < end.forwards <= 120
    calls = end.calls
    assert calls.grads * 3 + calls.products * 6 + calls.values + calls.ranked == pytest.approx(
        end.forwards
    )
    fractions = [point.fraction for point in record.curve]
    assert fractions == sorted(fractions)
    assert record.final == Final(end.val_loss, end.metric)


@pytest.mark.parametrize("method", ["adamw", "mezo", "rank_sgd"])
def test_a_run_repeats_bit_for_bit(method: str) -> None:
    first, second = (run(load("quadratic"), task(method, "10grads")) for _ in range(2))
    assert timeless(first) == timeless(second)


def test_the_same_seed_is_the_same_start_for_all_methods() -> None:
    problem = load("digits")
    hashes = {
        run(problem, task(m, "1grads", seed=s)).start_hash for m in METHODS[:3] for s in (0, 1)
    }
    assert len(hashes) == 2


def test_a_counted_budget_is_used_up_to_the_last_answer() -> None:
    record = run(load("quadratic"), task("sgd", "40grads"))
    assert record.curve[-1].calls.grads == 40
    record = run(load("quadratic"), task("mezo", "40grads"))
    assert record.curve[-1].calls.values == 120
    record = run(load("quadratic"), task("sgd", "7steps"))
    assert record.curve[-1].steps == 7


def test_prices_that_are_no_round_numbers_lose_no_answer() -> None:
    rates = {**NOMINAL_RATES, "grads": 2.8765432109}
    record = run(load("quadratic"), task(budget="333grads", rates=rates))
    assert record.curve[-1].calls.grads == 333


def test_a_budget_in_seconds_is_of_charged_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = load("digits")
    ticks = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks) / 1000)  # each look takes 1 ms
    record = run(problem, task("sgd", "0.2s"))
    end = record.curve[-1]
    assert 0.2 <= end.seconds < 0.3
    parts = end.oracle_seconds + end.optimizer_seconds + end.data_seconds
    assert parts == pytest.approx(end.seconds, rel=1e-6)
    assert record.evaluation_seconds > 0


def test_evaluations_fall_on_the_grid_and_the_end() -> None:
    record = run(load("quadratic"), task(evaluations=4, budget="100grads"))
    assert [p.calls.grads for p in record.curve] == [0, 13, 36, 65, 100]
    assert record.curve[0].train_loss is None


def test_train_loss_is_the_mean_of_what_was_seen_since() -> None:
    record = run(load("quadratic"), task(evaluations=2, budget="4steps"))
    singly = run(load("quadratic"), task(evaluations=4, budget="4steps"))
    assert len(record.curve) == 3
    first = record.curve[1].train_loss
    assert first is not None
    assert singly.curve[-1].val_loss == record.curve[-1].val_loss
    assert first > record.curve[2].train_loss  # type: ignore[operator]


def test_a_method_that_sees_no_loss_has_no_train_loss() -> None:
    assert run(load("quadratic"), task("rank_sgd")).curve[-1].train_loss is None


@pytest.mark.parametrize("method", ["sgd", "torch.optim:SGD"])
def test_the_schedule_follows_the_budget(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    step = Training._step

    def watched(self: Training) -> None:
        seen.append(float(self._groups()[0]["lr"]))
        step(self)

    monkeypatch.setattr(Training, "_step", watched)
    run(load("quadratic"), task(method, "10grads", schedule="cosine", config={"lr": 0.5}))
    assert seen == pytest.approx([0.25 * (1 + math.cos(math.pi * i / 10)) for i in range(10)])


def test_methods_that_stand_in_for_a_schedule_get_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs.py"
    theirs.write_text(
        "import torch\n"
        "class Averages(torch.optim.SGD):\n"
        "    def train(self): pass\n"
        "    def eval(self): pass\n"
    )
    seen: set[float] = set()
    step = Training._step

    def watched(self: Training) -> None:
        seen.add(float(self._groups()[0]["lr"]))
        step(self)

    monkeypatch.setattr(Training, "_step", watched)
    for method in ("schedule_free_adamw", f"{theirs}:Averages"):
        run(load("quadratic"), task(method, "10grads", schedule="cosine", config={"lr": 0.01}))
    assert seen == {0.01}


def test_tensor_learning_rates_are_scheduled_in_place() -> None:
    entrant = resolve("torch.optim:AdamW")
    lr = torch.tensor(0.5)
    changed = task(config={"lr": lr, "foreach": False}, schedule="cosine")
    training = Training(load("quadratic"), entrant, changed, lambda point: None)
    training.prepare()
    training._schedule(0.5)
    assert training._groups()[0]["lr"] is lr
    assert float(lr) == pytest.approx(0.25)


def test_a_divergence_is_found_and_is_no_result() -> None:
    record = run(load("quadratic"), task("sgd", "2000grads", config={"lr": 100.0}, evaluations=40))
    assert (record.status, record.stop_reason) == ("diverged", "diverged")
    assert record.final == Final(None, None)
    assert record.error
    assert record.curve[-1].calls.grads < 2000
    assert text_of(record)


def test_one_spike_is_no_divergence(problem_file: Callable[[str], str]) -> None:
    problem = load(
        problem_file("""
        looks = 0
        def evaluate(self, model):
            self.looks += 1
            return {"loss": 1e9 if self.looks == 3 else 1.0}
        """)
    )
    assert run(problem, task("sgd")).status == "done"


def test_a_run_that_ends_on_a_blown_up_loss_has_diverged(
    problem_file: Callable[[str], str],
) -> None:
    problem = load(
        problem_file("""
        looks = 0
        def evaluate(self, model):
            self.looks += 1
            return {"loss": 1e9 if self.looks == 6 else 1.0}
        """)
    )
    assert run(problem, task("sgd")).status == "diverged"


def test_a_method_that_raises_is_explained_with_its_place(
    method_file: Callable[[str], str],
) -> None:
    spec = method_file(
        """
        if self.count == 3:
            raise ArithmeticError("no more")
        return closure()
        """
    )
    record = run(load("quadratic"), task(spec))
    assert (record.status, record.stop_reason) == ("failed", "error")
    assert record.error.startswith("ArithmeticError at ")
    assert record.error.endswith("mine.py:13: no more")
    assert "raise ArithmeticError" in record.traceback
    assert len(record.curve) >= 1
    assert record.final == Final(None, None)


def test_a_class_that_refuses_parameters_fails_with_its_own_words() -> None:
    record = run(load("digits"), task("torch.optim:Muon"))
    assert record.status == "failed"
    assert "Muon only supports 2D parameters" in record.error
    assert record.curve == []


def test_a_problem_that_fails_in_mid_run_fails_the_run(problem_file: Callable[[str], str]) -> None:
    problem = load(
        problem_file("""
        def batch(self, seed, step):
            if step == 3:
                raise OSError("the data is gone")
            return torch.ones(2, 3)
        """)
    )
    record = run(problem, task("adamw"))
    assert "OSError" in record.error
    assert "the data is gone" in record.error


def test_a_method_that_never_asks_is_stopped(method_file: Callable[[str], str]) -> None:
    record = run(load("quadratic"), task(method_file("return None")))
    assert record.status == "failed"
    assert f"took {IDLE_STEPS} steps without calling the closure" in record.error


def test_test_data_is_looked_at_once_and_only_if_asked(problem_file: Callable[[str], str]) -> None:
    changes = """
    tested = 0
    def test(self, model):
        self.tested += 1
        return {"loss": 0.5, "nan": float("nan")}
    """
    problem: Any = load(problem_file(changes))
    assert run(problem, task("sgd")).test is None
    assert problem.tested == 0
    assert run(problem, task("sgd", tuning=False)).test == {"loss": 0.5, "nan": None}
    assert problem.tested == 1


def test_evaluation_leaves_no_trace_in_the_random_state(problem_file: Callable[..., str]) -> None:
    noisy = """
    def loss(self, model, batch):
        return model(batch + 0.1 * torch.randn(8, 3)).square().mean()
    """
    greedy = (
        noisy
        + """
    def evaluate(self, model):
        torch.randn(99)
        with torch.no_grad():
            return {"loss": model(torch.eye(3)).square().mean().item()}
    """
    )
    plain_file, greedy_file = problem_file(noisy), problem_file(greedy, "greedy.py")
    first, second = (run(load(path), task("sgd")) for path in (plain_file, greedy_file))
    assert first.final == second.final
    assert first.status == "done"


def test_averaged_weights_are_put_in_place_for_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "averaging.py"
    path.write_text(
        textwrap.dedent("""
        import torch

        class Averaging(torch.optim.Optimizer):
            def __init__(self, params):
                super().__init__(params, {})

            def step(self, closure):
                return closure()

            def eval(self):
                self.param_groups[0]["params"][0].data.add_(100)

            def train(self):
                self.param_groups[0]["params"][0].data.sub_(100)
        """)
    )
    problem = load("quadratic")
    plain = problem.evaluate(problem.build(0))["loss"]
    record = run(problem, task(f"{path}:Averaging"))
    assert record.status == "done"
    assert record.curve[0].val_loss > 100 * plain
    assert record.curve[0].val_loss == pytest.approx(record.curve[-1].val_loss)


def test_autocast_surrounds_the_loss(problem_file: Callable[[str], str]) -> None:
    problem = load(
        problem_file("""
        seen = set()
        def loss(self, model, batch):
            out = model(batch)
            self.seen.add(out.dtype)
            return out.float().square().mean()
        """)
    )
    assert run(problem, task("sgd", autocast="bfloat16")).status == "done"
    assert problem.seen == {torch.bfloat16}  # type: ignore[attr-defined]


def test_autocast_surrounds_both_parts_of_a_loss() -> None:
    whole = type(load("digits"))
    seen: set[torch.dtype] = set()

    class Watched(whole):  # type: ignore[misc, valid-type]
        def outputs(self, model: nn.Module, batch: Any) -> Tensor:
            seen.add(super().outputs(model, batch).dtype)
            return super().outputs(model, batch)

        def criterion(self, outputs: Tensor, batch: Any) -> Tensor:
            seen.add((outputs.float() @ outputs.float().T).dtype)
            return super().criterion(outputs, batch)

    record = run(Watched(), task("sso", autocast="bfloat16"))
    assert record.status == "done", record.error
    assert seen == {torch.bfloat16}


def test_a_method_that_works_on_outputs_asks_less_of_the_loss() -> None:
    record = run(load("digits"), task("sso", "60grads"))
    assert record.status == "done", record.error
    calls = record.curve[-1].calls
    assert 0 < 5 * calls.output_grads <= calls.grads <= 60
    assert record.final.loss < 0.8 * record.curve[0].val_loss


def test_points_are_told_as_they_come() -> None:
    seen: list[Point] = []
    record = run(load("quadratic"), task("sgd"), seen.append)
    assert seen == record.curve


def test_warming_up_takes_time_and_hides_errors(method_file: Callable[[str], str]) -> None:
    problem: Problem = load("quadratic")
    assert warm_up(problem, resolve("sgd"), task("sgd"), {}) > 0
    raising = method_file("raise ValueError")
    assert warm_up(problem, resolve(raising), task(raising), {}) >= 0


def test_the_clock_reads_all_costs() -> None:
    clock = Clock(
        Limits(forwards=60.0), NOMINAL_RATES, Calls(values=2, grads=3, products=1, seconds=1)
    )
    clock.seconds, clock.data_seconds, clock.steps = 2.0, 0.25, 3
    read = clock.point(train_loss=None, val_loss=1.0, metric=1.0, peak_bytes=0)
    assert read.forwards == 2 + 9 + 6
    assert read.fraction == pytest.approx(17 / 60)
    assert read.optimizer_seconds == pytest.approx(0.75)
    assert (read.calls.values, read.calls.grads, read.calls.products) == (2, 3, 1)


def test_words_for_errors_and_numbers() -> None:
    with pytest.raises(KeyError) as caught:
        raise KeyError("a\nb")
    assert "\n" not in explain(caught.value)
    assert explain(caught.value).startswith("KeyError at ")
    assert (finite(1), finite(math.inf), finite(math.nan)) == (1.0, None, None)
