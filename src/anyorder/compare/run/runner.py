"""One run: a fresh model, one method, one configuration, one seed, until the budget is used up."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from anyorder.compare.plan.entrants import Entrant, switches
from anyorder.compare.plan.items import Task
from anyorder.compare.plan.limits import bytes_in
from anyorder.compare.run import memory
from anyorder.compare.run.adapter import Diverged, Foreign, Native, adapt
from anyorder.compare.run.clock import Clock, RunBudget
from anyorder.compare.run.compiling import compiled
from anyorder.compare.run.loops import Converged, Loop
from anyorder.compare.run.records import Final, Point, RunRecord
from anyorder.files import replaced
from anyorder.oracle.closures import Closure, Composite
from anyorder.oracle.gradients import NonFiniteError
from anyorder.oracle.ledger import Budget, BudgetExhausted
from anyorder.problems import Problem, move
from anyorder.problems.base import all_rows, resampled_rows

if TYPE_CHECKING:
    from anyorder.compare.plan.settings import Settings

#: A run has diverged if its validation loss exceeds its initial value by this factor, this many
#: evaluations in a row. A single such evaluation can be a spike from which the method recovers.
BLOWN_UP, PATIENCE = 1e3, 3
#: A method that takes this many steps without calling the closure does not use it.
IDLE_STEPS = 1000

#: Maximum number of recorded warnings of a run.
MAX_WARNINGS = 20
#: Number of resampled test sets.
RESAMPLES = 200

Watcher = Callable[[Point], None]


class DivergenceWarning(UserWarning):
    """The loss of a run that is judged by another metric has grown too far."""


def run(
    problem: Problem, entrant: Entrant, task: Task, watch: Watcher = lambda point: None
) -> RunRecord:
    """Train once and return the record.

    An exception of the method or the problem ends the run and becomes part of the record.

    Args:
        problem: the problem.
        entrant: the method.
        task: settings, seed and budget.
        watch: called with every point of the curve as soon as it is known.

    Returns:
        The record, with ``warmup_seconds`` of 0.
    """
    training = Training(problem, entrant, task, watch)
    with _noted_warnings(training.warnings):
        record = _outcome(training)
        if task.model is not None and record.status == "done":
            training.save(task.model)
    record.warnings = list(training.warnings)
    return record


def _outcome(training: Training) -> RunRecord:
    try:
        training.prepare()
        training.train()
    except (Diverged, NonFiniteError, memory.MemoryLimitError) as stopped:
        record = training.record()
        record.status, record.stop_reason, record.error = "diverged", "diverged", str(stopped)
        if over := memory.excess(record.peak_bytes, training.memory):
            record.status, record.stop_reason, record.error = "failed", "memory", over
        return record
    except (Exception, SystemExit) as stopped:
        return _ended_by(stopped, training.record())
    record = training.record()
    if not training.task.is_trial:
        try:
            record.test, record.resampled = training.test()
        except Exception as stopped:
            return _ended_by(stopped, record)
    last = record.curve[-1]
    record.final = Final(last.val_loss, last.metric)
    return record


@contextlib.contextmanager
def _noted_warnings(texts: dict[str, None]) -> Generator[None]:
    """Record the first unique texts of Python warnings, and show each once."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def note(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            text = f"{category.__name__}: {' '.join(str(message).split())}"
            if text not in texts and len(texts) < MAX_WARNINGS:
                texts[text] = None
                show(message, category, *place, **more)

        warnings.showwarning = note
        yield


def _ended_by(error: BaseException, record: RunRecord) -> RunRecord:
    record.status, record.stop_reason = "failed", "error"
    record.error, record.traceback = explain(error), "".join(traceback.format_exception(error))
    return record


def explain(error: BaseException) -> str:
    """One line: type, location of the deepest frame, and message of an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    where = ""
    if frames:
        name = frames[-1].filename.replace("\\", "/").rpartition("/site-packages/")[2]
        where = f" at {name}:{frames[-1].lineno}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{where}: {text}"


def seed_everything(seed: int) -> None:
    """Seed the global generators of PyTorch, NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - problems may use it
    random.seed(seed)


def fresh_model(problem: Problem, seed: int, device: str) -> nn.Module:
    """A new model for this seed, built with all global generators seeded."""
    seed_everything(seed)
    model = cast(Any, problem.build(seed))
    return model.to(device)


def warm_up(problem: Problem, entrant: Entrant, task: Task, config: Mapping[str, Any]) -> float:
    """Take a step on a discarded copy, to compile and load libraries; return its seconds.

    Errors are ignored, because the run itself reports them.
    """
    began = time.perf_counter()
    with contextlib.suppress(Exception, SystemExit):
        device = task.settings.device
        model = fresh_model(problem, task.seed, device)
        adapted = adapt(entrant, model, config, Budget(), task.seed)
        began = time.perf_counter()
        adapted.step(problem.closure(model, move(problem.batch(task.seed, 0), device)))
    return time.perf_counter() - began


def _cast(closure: Closure, settings: Settings) -> Closure:
    """The same closure in mixed precision; a composite closure stays composite."""
    kind = torch.device(settings.device).type
    cast_to = torch.autocast(kind, dtype=getattr(torch, settings.autocast))
    if isinstance(closure, Composite):
        return Composite(cast_to(closure.outputs), cast_to(closure.loss))
    return cast_to(closure)


def _guarded(closure: Closure, check: Callable[[], None]) -> Closure:
    """Return the closure with a check before each call; a ``Composite`` stays one."""

    def guarded(part: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def call() -> Tensor:
            check()
            return part()

        return call

    if isinstance(closure, Composite):
        return Composite(guarded(closure.outputs), closure.loss)
    return guarded(closure)


class Training:
    """The state of one run."""

    model: nn.Module
    adapted: Native | Foreign | Loop

    def __init__(self, problem: Problem, entrant: Entrant, task: Task, watch: Watcher) -> None:
        self.problem, self.entrant, self.task, self.watch = problem, entrant, task, watch
        self.settings, self.device = task.settings, task.settings.device
        self.clock = Clock(task.limits, task.rates)
        self.budget = RunBudget.of_run(self.clock)
        self.curve: list[Point] = []
        self.warnings: dict[str, None] = {}  # an ordered set
        self.start_hash, self.base_bytes = "", 0
        self._losses: list[Tensor] = []
        self._rates: list[float] = []
        self._blown_up = 0
        self._converged = False
        self._compiled_before = sum(compiled())
        self._cuda = torch.device(self.device).type == "cuda"
        limit = self.settings.memory
        self.memory = None if limit is None else bytes_in(limit)

    def prepare(self) -> None:
        """Create model and optimizer, hash the initial point, and evaluate it."""
        task = self.task
        memory.reset_peak(self.device)
        self.model = fresh_model(self.problem, task.seed, self.device)
        self.start_hash = memory.fingerprint(self.model)
        self.base_bytes = memory.peak_bytes(self.device)
        self.adapted = adapt(self.entrant, self.model, task.config, self.budget, task.seed)
        self.clock.calls = self.adapted.calls
        self._rates = [group.get("lr", math.nan) for group in self._groups()]
        self._evaluate()

    def train(self) -> None:
        """Step until the budget is used up, evaluating on the grid."""
        grid, due = self.task.grid, 1
        idle, forwards, fraction = 0, 0.0, 0.0
        while fraction < 1.0:
            self._schedule(fraction)
            self.adapted.prepare(self.clock.steps * (1 / fraction - 1) if fraction else 0.0)
            try:
                self.step()
            except BudgetExhausted as end:
                self._converged = isinstance(end, Converged)
                break
            clock, before = self.clock, forwards
            forwards = clock.forwards
            fraction = clock.limits.spent(forwards, clock.seconds, clock.steps)
            idle = idle + 1 if forwards == before else 0
            if idle >= IDLE_STEPS:
                raise RuntimeError(
                    f"{self.entrant.path} took {IDLE_STEPS} steps without calling the closure; "
                    "its step(closure) must call the closure"
                )
            if due < len(grid) - 1 and fraction >= grid[due]:
                self._evaluate()
                while due < len(grid) - 1 and fraction >= grid[due]:
                    due += 1
        self._evaluate(last=True)

    def step(self) -> None:
        """Take one step and charge it.

        Raises:
            BudgetExhausted: the budget ended within the step, which is undone.
        """
        self.clock.start()
        try:
            self._step()
        finally:
            self._synchronise()
            self.clock.stop()
        self.clock.steps += 1

    def test(self) -> tuple[dict[str, float | None] | None, list[float | None]]:
        """Evaluate the result on test data, which no choice has used.

        Returns:
            The numbers, and the judged metric on :data:`RESAMPLES` resampled test sets.
        """
        problem = self.problem
        with self._quiet(), self._judged():
            outputs = problem.test_outputs(self.model)
            if outputs is None or type(problem).test is not Problem.test:
                found = problem.test(self.model)
            else:
                found = problem.score(outputs, all_rows(outputs))
            resampled: list[float | None] = []
            if outputs is not None and problem.metric in (found or {}):
                count = len(all_rows(outputs))
                for draw in range(RESAMPLES):
                    score = problem.score(outputs, resampled_rows(count, draw))
                    resampled.append(finite(score[problem.metric]))
        numbers = None if found is None else {name: finite(each) for name, each in found.items()}
        return numbers, resampled

    def save(self, path: Path) -> None:
        """Write the ``state_dict`` of the result to a file, with tensors on the CPU."""
        with self._quiet(), self._judged():
            state = move(dict(self.model.state_dict()), "cpu")
            with replaced(path) as scratch:
                torch.save(state, scratch)

    def record(self) -> RunRecord:
        """The record of the run so far, as if it ended now."""
        optimizer = self.adapted.optimizer if hasattr(self, "adapted") else None
        return RunRecord(
            seed=self.task.seed,
            tuning=self.task.item.tuning,
            config=self.task.config,
            start_hash=self.start_hash,
            status="done",
            stop_reason="converged" if self._converged else "budget",
            error=None,
            traceback=None,
            curve=self.curve,
            final=Final(None, None),
            test=None,
            peak_bytes=self._peak_bytes(),
            base_bytes=self.base_bytes,
            state_bytes=0 if optimizer is None else memory.state_bytes(optimizer),
            warmup_seconds=0.0,
            evaluation_seconds=self.clock.evaluation_seconds,
            compile_seconds=max(0.0, sum(compiled()) - self._compiled_before),
            warnings=[],
            resampled=[],
        )

    # Inside --------------------------------------------------------------------------------

    def _groups(self) -> list[dict[str, Any]]:
        optimizer = self.adapted.optimizer
        return [] if optimizer is None else optimizer.param_groups

    @contextlib.contextmanager
    def _charged(self) -> Generator[None]:
        """Add the time of the block to the clock."""
        self.clock.start()
        try:
            yield
        finally:
            self._synchronise()
            self.clock.stop()

    def _peak_bytes(self) -> int:
        """Peak memory without the copy for undoing a step."""
        peak = memory.peak_bytes(self.device)
        if self._cuda or not hasattr(self, "adapted"):  # the copy is in main memory
            return peak
        return max(self.base_bytes, peak - self.adapted.kept_bytes)

    def _synchronise(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self.device)

    def _step(self) -> None:
        began = time.perf_counter()
        batch = self.problem.batch(self.task.seed, self.clock.steps)
        if batch is not None and self.device != "cpu":  # problems return batches on the CPU
            batch = move(batch, self.device)
        self.clock.data_seconds += time.perf_counter() - began
        closure = self.problem.closure(self.model, batch)
        if self.settings.autocast != "none":
            closure = _cast(closure, self.settings)
        if self.clock.limits.seconds is not None:
            closure = _guarded(closure, lambda: self.budget.check(self.clock.calls, {}))
        if self.problem.judged and not isinstance(self.adapted, Foreign):
            self.adapted.judge(self._judge_of_step())
        loss = self.adapted.step(closure)
        if loss is not None:
            self._losses.append(loss.detach())

    def _judge_of_step(self) -> Callable[[Tensor], Sequence[int]]:
        """The judge's rankings in this step, which depend only on seed, step and question."""
        seed, step, questions = self.task.seed, self.clock.steps, itertools.count()
        return lambda losses: self.problem.judge(
            losses, seed=seed, step=step, question=next(questions)
        )

    def _schedule(self, fraction: float) -> None:
        """Set the learning rate of every group from the used fraction of the budget."""
        if self.settings.schedule != "cosine" or not self.entrant.scheduled:
            return
        factor = 0.5 * (1.0 + math.cos(math.pi * fraction))
        for group, base in zip(self._groups(), self._rates, strict=False):
            if isinstance(group.get("lr"), Tensor):
                group["lr"].fill_(float(base) * factor)
            elif "lr" in group:
                group["lr"] = base * factor

    @contextlib.contextmanager
    def _quiet(self) -> Generator[None]:
        """Restore the global random state after the block."""
        devices = [torch.device(self.device)] if self._cuda else []
        states = np.random.get_state(), random.getstate()  # noqa: NPY002
        try:
            with torch.random.fork_rng(devices):
                yield
        finally:
            np.random.set_state(states[0])  # noqa: NPY002
            random.setstate(states[1])

    @contextlib.contextmanager
    def _judged(self) -> Generator[None]:
        """Switch the model to the point to evaluate; the time of the switch is charged.

        Methods of this library have ``answer()``; others follow the convention of schedule-free
        optimizers: ``eval()`` before and ``train()`` after.
        """
        optimizer: Any = self.adapted.optimizer
        change = optimizer.answer() if hasattr(optimizer, "answer") else _switched(optimizer)
        with self._charged():
            change.__enter__()
        try:
            yield
        finally:
            with self._charged():
                change.__exit__(None, None, None)

    def _evaluate(self, *, last: bool = False) -> None:
        """Add a point to the curve, without cost and without side effects on the run."""
        if not last:
            self.adapted.keep()
        with self._quiet(), self._judged():
            began = time.perf_counter()
            found = self.problem.evaluate(self.model)
            self._synchronise()
            self.clock.evaluation_seconds += time.perf_counter() - began
        loss, metric = float(found["loss"]), float(found[self.problem.metric])
        point = self.clock.point(
            train_loss=self._mean_loss(),
            val_loss=finite(loss),
            metric=finite(metric),
            peak_bytes=self._peak_bytes(),
        )
        self.curve.append(point)
        self.watch(point)
        if last or self.clock.steps:  # before the first step, the method has used none
            memory.require(point.peak_bytes, self.memory)
        self._judge(loss, metric, last)

    def _mean_loss(self) -> float | None:
        if not self._losses:
            return None
        mean = torch.stack([loss.double() for loss in self._losses]).mean().item()
        self._losses.clear()
        return finite(mean)

    def _judge(self, loss: float, metric: float, last: bool) -> None:
        """Raise :class:`Diverged` if the run is lost.

        The metric decides: a loss that has grown too far is a divergence only if it is the metric.
        A metric that is not finite before the end may recover.
        """
        name = self.problem.metric
        if not math.isfinite(loss):
            raise Diverged(f"the validation loss is {loss}")
        if last and not math.isfinite(metric):
            raise Diverged(f"the {name} is {metric} at the end")
        start = self.curve[0].val_loss
        assert start is not None  # otherwise the run has ended
        self._blown_up = self._blown_up + 1 if loss > BLOWN_UP * abs(start) + 1.0 else 0
        if self._blown_up >= PATIENCE or (self._blown_up and last):
            text = f"the validation loss rose to {loss:g}, from {start:g}"
            if name == "loss":
                raise Diverged(text)
            warnings.warn(f"{text}; the {name} decides", DivergenceWarning, stacklevel=2)


@contextlib.contextmanager
def _switched(optimizer: Any) -> Generator[None]:
    both = switches(optimizer)
    if both:
        optimizer.eval()
    yield
    if both:
        optimizer.train()


def finite(value: Any) -> float | None:
    """The number, or None if it is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None
