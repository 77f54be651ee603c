"""One run: start, curve, cost, schedule, and every way it can end."""

from __future__ import annotations

import itertools
import math
import re
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.compare.plan.entrants import resolve
from anyorder.compare.plan.items import TUNING_EVALUATIONS, Item, Task
from anyorder.compare.plan.limits import bytes_in
from anyorder.compare.plan.plan import Entry
from anyorder.compare.plan.settings import Settings
from anyorder.compare.run import clock, memory
from anyorder.compare.run import runner as running
from anyorder.compare.run.records import Final, Point, RunRecord
from anyorder.compare.run.runner import IDLE_STEPS, Training, explain, finite, warm_up
from anyorder.compare.store.schema import Outcome, read, text_of
from anyorder.oracle.ledger import NOMINAL_RATES
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
    memory: str | None = None,
) -> Task:
    settings = Settings(
        "p", budget=budget, schedule=schedule, autocast=autocast,  # type: ignore[arg-type]
        memory=memory, evaluations=evaluations * (TUNING_EVALUATIONS if tuning else 1),
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


#: A problem whose every loss takes one second on the clock ``problem.time``.
SLOW = """
time = 0.0
def loss(self, model, batch):
    type(self).time += 1.0
    return (model(batch) - 1).square().mean()
"""


@pytest.fixture
def slow(problem_file: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Any:
    problem: Any = load(problem_file(SLOW))
    monkeypatch.setattr("time.perf_counter", lambda: type(problem).time)
    return problem


@pytest.mark.parametrize("method", ["torch.optim:LBFGS", "adahessian", "mezo", "sgd"])
@pytest.mark.parametrize("budget", ["0.5s", "10s", "33s"])
def test_a_budget_in_seconds_binds_within_a_step(slow: Any, method: str, budget: str) -> None:
    record = run(slow, task(method, budget, config={"lr": 1e-3}))
    end, limit = record.curve[-1], float(budget[:-1])
    assert record.status == "done", record.error
    # Not a closure is called after the end: the one that passes it is the last.
    assert limit <= end.seconds <= limit + 1.0
    assert end.fraction >= 1.0


#: A closure per step, from step 51 on as many as the body says; BatchNorm sees every trial point.
VARYING = """
calls = 1 if self.count <= 50 else {calls}
param = self.param_groups[0]["params"][0]
for call in range(calls):
    loss = closure()
    self.state[param]["moved"] = self.state[param].get("moved", 0) + 1
    param.data.sub_(0.01 * (1 + 50 * (call > 0)))
return loss
"""
NORMED = """
def build(self, seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))

def evaluate(self, model):
    model.eval()
    with torch.no_grad():
        loss = model(torch.eye(3)).square().mean().item()
    model.train()
    return {"loss": loss}
"""


def test_a_step_that_calls_more_often_than_any_before_is_undone(
    problem_file: Callable[[str], str], method_file: Callable[[str], str]
) -> None:
    problem = load(problem_file(NORMED))
    spec = method_file(VARYING.format(calls=9))
    whole, cut = (run(problem, task(spec, budget)) for budget in ("50grads", "55grads"))
    assert cut.curve[-1].calls.grads == 55
    assert cut.curve[-1].steps == 50
    assert cut.final == whole.final  # parameters and buffers of step 50


def test_long_before_the_end_it_is_undone_to_the_last_evaluation(
    problem_file: Callable[[str], str], method_file: Callable[[str], str]
) -> None:
    problem = load(problem_file(NORMED))
    spec = method_file(VARYING.format(calls=9999))
    record = run(problem, task(spec, "500grads", evaluations=20))
    *_, before, end = record.curve
    assert (end.calls.grads, end.steps) == (500, 50)
    assert before.steps < 50
    assert (end.val_loss, end.metric) == (before.val_loss, before.metric)


def test_undoing_reaches_the_state_of_the_optimizer(
    problem_file: Callable[[str], str], method_file: Callable[[str], str]
) -> None:
    problem, spec = load(problem_file(NORMED)), method_file(VARYING.format(calls=9))
    training = Training(problem, resolve(spec), task(spec, "55grads"), lambda point: None)
    training.prepare()
    training.train()
    optimizer: Any = training.adapted.optimizer
    assert [state["moved"] for state in optimizer.state.values()] == [50]
    assert optimizer.count == 50


def test_a_budget_that_ends_in_a_line_search_full_of_nan_ends_at_a_point_of_the_method(
    problem_file: Callable[[str], str],
) -> None:
    problem = load(
        problem_file(
            """
        asked = 0
        def loss(self, model, batch):
            self.asked += 1
            return model(batch).square().mean() * (1.0 if self.asked <= 3 else float("nan"))
        """
        )
    )
    config = {"line_search_fn": "strong_wolfe", "lr": 0.01}
    record = run(problem, task("torch.optim:LBFGS", "15grads", config=config))
    start, end = record.curve[0], record.curve[-1]
    assert (record.status, end.steps, end.calls.grads) == ("done", 0, 15)
    assert end.val_loss == start.val_loss


def test_compiling_is_not_charged(slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` compiles in mid-run, which takes a long time and fails here."""
    from anyorder.engine import engine, kernels

    def compile_(*_: Any) -> Any:
        type(slow).time += 1000.0
        raise RuntimeError("no compiler")

    kernels.kernel_for.cache_clear()
    monkeypatch.setattr(kernels, "_compile", compile_)
    monkeypatch.setattr(engine, "AUTO_ELEMENTS", 4 * 5)  # numbers moved by five steps
    with pytest.warns(kernels.EngineWarning):
        record = run(slow, task("sgd", "12s"))
    kernels.kernel_for.cache_clear()
    end = record.curve[-1]
    assert (end.steps, end.seconds) == (12, 12.0)
    assert (end.oracle_seconds, end.optimizer_seconds) == (12.0, 0.0)
    assert record.compile_seconds == 1000.0
    assert [text.partition(":")[0] for text in record.warnings] == ["EngineWarning"]


def test_a_model_that_compiles_in_a_step_is_not_charged(
    slow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    for module in (running, clock):
        monkeypatch.setattr(module, "compiled", lambda: (0.0, seconds[0]))
    loss = slow.loss

    def compiling(model: nn.Module, batch: Any) -> Tensor:
        if type(slow).time == 4.0:
            type(slow).time += 500.0
            seconds[0] += 500.0
        return loss(model, batch)

    slow.loss = compiling
    record = run(slow, task("sgd", "10s"))
    end = record.curve[-1]
    assert (end.steps, end.seconds, record.compile_seconds) == (10, 10.0, 500.0)
    assert (end.oracle_seconds, end.optimizer_seconds) == (10.0, 0.0)


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


#: A problem that is judged by a ranking, and whose loss blows up from the third look on.
RANKED = """
metric, goal = "precision", "max"
looks = 0
def evaluate(self, model):
    self.looks += 1
    return {"loss": 1.0 if self.looks < 3 else 1e9, "precision": PRECISION}
"""


def test_the_metric_decides_where_it_is_not_the_loss(problem_file: Callable[[str], str]) -> None:
    problem = load(problem_file(RANKED.replace("PRECISION", "0.85")))
    with pytest.warns(running.DivergenceWarning):
        record = run(problem, task("sgd"))
    assert (record.status, record.final.metric) == ("done", 0.85)
    assert record.warnings == [
        "DivergenceWarning: the validation loss rose to 1e+09, from 1; the precision decides"
    ]


@pytest.mark.parametrize(
    ("precision", "status"),
    [
        ("float('nan') if self.looks == 6 else 0.5", "diverged"),
        ("float('nan') if self.looks < 6 else 0.5", "done"),
    ],
)
@pytest.mark.filterwarnings("ignore::anyorder.compare.run.runner.DivergenceWarning")
def test_a_metric_that_is_not_finite_at_the_end_is_a_divergence(
    problem_file: Callable[[str], str], precision: str, status: str
) -> None:
    record = run(load(problem_file(RANKED.replace("PRECISION", precision))), task("sgd"))
    assert record.status == status
    if status == "diverged":
        assert record.error == "the precision is nan at the end"


def test_a_metric_that_never_changes_is_no_trouble(problem_file: Callable[[str], str]) -> None:
    constant = """
    metric = "same"
    def evaluate(self, model):
        return {"loss": 1.0, "same": 0.0}
    """
    record = run(load(problem_file(constant)), task("sgd", tuning=False))
    assert (record.status, record.final) == ("done", Final(1.0, 0.0))


def test_warnings_of_a_run_are_kept_once_each(problem_file: Callable[[str], str]) -> None:
    problem = load(
        problem_file("""
        asked = 0
        def loss(self, model, batch):
            import warnings
            self.asked += 1
            warnings.warn("every\\ntime", UserWarning)
            warnings.warn(f"number {self.asked}", RuntimeWarning)
            return model(batch).square().mean()
        """)
    )
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        record = run(problem, task("sgd"))
    assert record.warnings[:2] == ["UserWarning: every time", "RuntimeWarning: number 1"]
    assert len(set(record.warnings)) == len(record.warnings) == running.MAX_WARNINGS
    assert len(shown) == running.MAX_WARNINGS


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


MIB = 2**20
#: Keeps 64 MiB more from the third step on; then its parameters may become NaN.
HOARDING = """
if self.count == 3:
    self.kept = torch.ones({mib} * 2**18)
    {then}
return closure()
"""
NAN = "self.param_groups[0]['params'][0].data.fill_(float('nan'))"


@pytest.mark.skipif(not memory.measurable("cpu"), reason="the peak can be reset on Linux only")
@pytest.mark.parametrize("evaluations", [1, 10])
@pytest.mark.parametrize("then", ["pass", NAN])
def test_a_run_above_the_memory_limit_has_failed_and_not_diverged(
    problem_file: Callable[[str], str],
    method_file: Callable[[str], str],
    then: str,
    evaluations: int,
) -> None:
    problem, spec = load(problem_file("")), method_file(HOARDING.format(mib=64, then=then))
    memory.reset_peak()
    limit = memory.peak_bytes() + 32 * MIB
    held = task(spec, "40grads", memory=f"{limit}B", evaluations=evaluations)
    record = run(problem, held)
    assert (record.status, record.stop_reason) == ("failed", "memory"), record.error
    said = re.fullmatch(
        r"its peak memory of ([\d.]+) (MiB|GiB) exceeds the limit of ([\d.]+) (MiB|GiB)",
        record.error or "",
    )
    assert said is not None
    assert bytes_in(said[1] + said[2]) == pytest.approx(record.peak_bytes, rel=0.05)
    assert bytes_in(said[3] + said[4]) == pytest.approx(limit, rel=0.05)
    assert 24 * MIB < record.peak_bytes - limit < 48 * MIB
    assert record.final == Final(None, None)
    if evaluations == 10:  # it ends at the first evaluation that sees it
        assert 3 <= record.curve[-1].steps <= 8
        assert all(point.peak_bytes <= limit for point in record.curve[:-1])


@pytest.mark.skipif(not memory.measurable("cpu"), reason="the peak can be reset on Linux only")
def test_a_run_within_the_memory_limit_is_like_any_other(
    problem_file: Callable[[str], str], method_file: Callable[[str], str]
) -> None:
    problem, spec = load(problem_file("")), method_file(HOARDING.format(mib=64, then="pass"))
    memory.reset_peak()
    limit = memory.peak_bytes() + 96 * MIB
    limits = (None, f"{limit}B")
    free, held = (run(problem, task(spec, "8grads", memory=each)) for each in limits)
    assert held.status == "done"
    assert timeless(held) == timeless(free)


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


#: Rows of a test set: the first half of 8 is right.
ROWS = """
metric, goal = "right", "max"
opened = 0
def evaluate(self, model):
    return {"loss": 1.0, "right": 0.0}
def test_outputs(self, model):
    self.opened += 1
    return (torch.arange(8) < 4).double()
def score(self, outputs, rows):
    return {"right": outputs[rows].mean().item()}
"""


def test_test_sets_are_resampled_alike_for_all_runs(problem_file: Callable[[str], str]) -> None:
    problem: Any = load(problem_file(ROWS))
    first = run(problem, task("sgd", tuning=False))
    assert (problem.opened, first.test) == (1, {"right": 0.5})
    second = run(problem, task("mezo", tuning=False, seed=7))
    assert first.resampled == second.resampled
    assert len(first.resampled) == running.RESAMPLES
    values = torch.tensor(first.resampled)
    # The mean of 8 draws of 0 or 1.
    assert values.std().item() == pytest.approx((0.25 / 8) ** 0.5, rel=0.15)
    assert values.mean().item() == pytest.approx(0.5, abs=0.05)
    assert run(problem, task("sgd")).resampled == []
    assert problem.opened == 2


def test_no_rows_or_another_metric_are_not_resampled(problem_file: Callable[[str], str]) -> None:
    for changes in (
        "def test(self, model): return {'loss': 1.0}",
        "metric = 'other'" + ROWS[ROWS.index("\nopened") :].replace('"right": 0.0', '"other": 0.0'),
    ):
        record = run(load(problem_file(changes)), task("sgd", tuning=False))
        assert (record.status, record.resampled) == ("done", [])
        assert record.test is not None


def test_a_score_that_fails_fails_the_run(problem_file: Callable[[str], str]) -> None:
    broken = ROWS.replace('return {"right": outputs[rows]', 'return {"right": outputs[rows + 8]')
    record = run(load(problem_file(broken)), task("sgd", tuning=False))
    assert (record.status, record.resampled) == ("failed", [])
    assert "IndexError" in record.error


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


def test_words_for_errors_and_numbers() -> None:
    with pytest.raises(KeyError) as caught:
        raise KeyError("a\nb")
    assert "\n" not in explain(caught.value)
    assert explain(caught.value).startswith("KeyError at ")
    assert (finite(1), finite(math.inf), finite(math.nan)) == (1.0, None, None)
