"""The stages of a race, and the run of its winner."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyorder
from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.plan.items import Item, Task
from anyorder.compare.plan.limits import prices
from anyorder.compare.plan.plan import Entry
from anyorder.compare.plan.settings import Settings
from anyorder.compare.racing.journal import Journal
from anyorder.compare.racing.request import BRIEF, RaceError, RaceRequest, unit_of
from anyorder.compare.report.formats import show
from anyorder.compare.report.race import RACE_SCHEMA, Race, Stage, Tried
from anyorder.compare.run.estimate import SLACK, Pace, timeout
from anyorder.compare.run.pool import Pool, WorkerError
from anyorder.compare.run.records import Described, RunRecord, failed_run
from anyorder.compare.store.results import plain, score
from anyorder.compare.store.schema import Outcome
from anyorder.problems import ProblemError

#: Shares of the budget for the stages; the rest trains the winner.
STAGES = (0.12, 0.13, 0.25)
#: Learning rates of the first stage, in half decades around the default; fewer if time is short.
LADDERS = ((-2, 0, 2, 4), (0, 2, 4), (0, 2), (0,))
#: A run shorter than this many steps says little; a step costs about one gradient.
LEAST_STEPS, LEAST_FORWARDS = 10, 30
#: One candidate in this many goes on, and the learning rates of so many are refined.
KEPT, REFINED = 3, 2
#: Runs of a stage are longer than those before by this factor at least, or it is left out.
LONGER = 2.0
#: Evaluations of the winner's run, and the largest share of its time for them.
EVALUATIONS, WATCHED = 20, 0.05


@dataclass(frozen=True)
class Candidate:
    """A method and a learning rate.

    Attributes:
        method: name of the method.
        rung: learning rate in half decades above the default; None: it has none to vary.
    """

    method: str
    rung: int | None


class Track:
    """A race from its start to its winner.

    Args:
        request: what is wanted.
        settings: settings of a run.
        described: the problem.
        entrants: the methods.
        journal: what was done before.
        pool: where runs are executed.
        look: called repeatedly while waiting, and can raise to stop.
        say: called with lines on the progress.
    """

    def __init__(
        self,
        request: RaceRequest,
        settings: Settings,
        described: Described,
        entrants: Sequence[Entrant],
        journal: Journal,
        pool: Pool,
        look: Callable[[], None],
        say: Callable[[str], object],
    ) -> None:
        self.request, self.settings, self.described = request, settings, described
        self.journal, self.pool, self.look, self.say = journal, pool, look, say
        self.unit, self.total = unit_of(request.budget)
        self.rates = prices()
        self.methods = {each.name: each for each in entrants if each.failed is None}
        self.dropped = {each.name: each.failed for each in entrants if each.failed is not None}
        self.tried: list[Candidate] = []
        self._counted = 0.0
        self._began, self._before = time.monotonic(), journal.elapsed
        self.pace = self._pace()

    @property
    def elapsed(self) -> float:
        """Wall-clock seconds so far, without interrupted runs."""
        return self._before + time.monotonic() - self._began

    @property
    def spent(self) -> float:
        """What was used of the budget so far."""
        return self.elapsed if self.unit == "seconds" else self._counted

    def run(self) -> Race:
        """Run all stages and the winner.

        Raises:
            RaceError: the budget is too small, or no candidate is left.
        """
        stages: list[Stage] = []
        ranked: list[Candidate] = []
        length = 0.0
        for number in range(len(STAGES)):
            decided = self.journal.decided(
                f"stage/{number}",
                lambda number=number, ranked=ranked, length=length: self._decide(
                    number, ranked, length
                ),
            )
            if decided is None:
                break
            length = decided["length"]
            candidates = [Candidate(*each) for each in decided["candidates"]]
            stage, ranked = self._stage(number, candidates, self._budget(length))
            stages.append(stage)
        return self._finish(ranked, stages)

    # Candidates ----------------------------------------------------------------------------

    def _decide(
        self, number: int, ranked: Sequence[Candidate], before: float
    ) -> dict[str, Any] | None:
        """Candidates of a stage and the length of their runs; None: no further stage."""
        if number == 0:
            candidates, length = self._first()
        else:
            candidates = self._next(ranked)
            while self._length(STAGES[number], len(candidates)) < LONGER * before:
                candidates.pop()  # the least promising is last
                if not candidates:
                    return None
            if len(candidates) == 1:
                return None
            length = self._length(STAGES[number], len(candidates))
        return {"length": length, "candidates": [[each.method, each.rung] for each in candidates]}

    def _first(self) -> tuple[list[Candidate], float]:
        for ladder in LADDERS:
            found = [
                Candidate(name, rung)
                for name, entrant in self.methods.items()
                for rung in (ladder if _has_rate(entrant) else (None,))
            ]
            length = self._length(STAGES[0], len(found))
            if length >= self._least():
                return found, length
        need = (self._least() + self._overhead(1)) * len(self.methods) / STAGES[0]
        raise RaceError(
            f"{self.request.budget} is too small for {len(self.methods)} methods: write a budget "
            f"of at least {self._budget(math.ceil(1.2 * (need + self.spent)))}, or fewer methods"
        )

    def _next(self, ranked: Sequence[Candidate]) -> list[Candidate]:
        """The best third, and untried learning rates next to the best two; important ones first."""
        kept = list(ranked[: math.ceil(len(ranked) / KEPT)])
        leaders = [each for each in kept if each.rung is not None][:REFINED]
        near = [
            Candidate(each.method, each.rung + step)
            for each in leaders
            for step in (1, -1)
            if each.rung is not None
        ]
        new = [each for each in dict.fromkeys(near) if each not in self.tried]
        return [*kept[:REFINED], *new, *kept[REFINED:]]

    def _config(self, each: Candidate) -> dict[str, float]:
        if not each.rung:
            return {}
        rate = self.methods[each.method].settings()["lr"]
        return {"lr": float(f"{rate * 10 ** (each.rung / 2):.4g}")}

    # Lengths -------------------------------------------------------------------------------

    def _least(self) -> float:
        """Least length of a run."""
        if self.unit == "seconds":
            return LEAST_STEPS * self.pace.step_seconds
        return LEAST_FORWARDS if self.unit == "forwards" else LEAST_STEPS

    def _overhead(self, evaluations: int) -> float:
        """What a run uses of the budget without training."""
        if self.unit != "seconds":
            return 0.0
        return self.pace.setup_seconds + (evaluations + 1) * self.pace.evaluation_seconds

    def _length(self, share: float, runs: int) -> float:
        """Length of each run of a stage."""
        left = max(0.0, sum(STAGES) * self.total - self.spent)
        each = min(share * self.total, left) / runs - self._overhead(1)
        return each if self.unit == "seconds" else math.floor(each)

    def _budget(self, length: float) -> str:
        return f"{length:.3f}s" if self.unit == "seconds" else f"{math.floor(length)}{self.unit}"

    # Runs ----------------------------------------------------------------------------------

    def _pace(self) -> Pace:
        """The speed of the first method that works."""
        troubles: list[str] = []
        for name, entrant in self.methods.items():
            item = Item("tune", name, 0, 0, self.request.seed)
            task = Task(self.settings, Entry.of(entrant), item, {}, self.rates)
            try:
                return self.pool.ask("pace", task, self.look, timeout(self.settings))
            except WorkerError as error:
                troubles.append(f"{name}: {error}\n{error.trace}".strip())
        raise ProblemError("no method can take a step. " + "; ".join(troubles))

    def _stage(
        self, number: int, candidates: Sequence[Candidate], budget: str
    ) -> tuple[Stage, list[Candidate]]:
        """Run all candidates; return the stage and those that may go on, best first."""
        self.say(f"stage {number + 1}: {len(candidates)} candidates x {budget}")
        found: list[tuple[tuple[float, float], Tried, Candidate]] = []
        for each in candidates:
            self.tried.append(each)
            item = Item("tune", each.method, 0, len(self.tried) - 1, self.request.seed)
            key = f"run/{number}/{each.method}/{each.rung}"
            outcome = self._run(key, item, self._config(each), budget, BRIEF)
            tried = self._describe(each, outcome)
            self.say(f"  {tried.name}: {self.described.metric} {show(tried.metric)}")
            found.append((score(outcome, self.described.goal), tried, each))
        found.sort(key=lambda one: one[0])
        self._drop([tried for _, tried, _ in found])
        ranked = [
            each
            for value, _, each in found
            if math.isfinite(value[0]) and each.method not in self.dropped
        ]
        if not ranked:
            why = "; ".join(f"{name}: {reason}" for name, reason in self.dropped.items())
            raise RaceError(f"no candidate is left: {why or 'all runs diverged'}")
        return Stage(budget, [tried for _, tried, _ in found]), ranked

    def _drop(self, runs: Iterable[Tried]) -> None:
        """Drop methods that raise or need too much memory."""
        for each in runs:
            if each.status == "failed":
                self.dropped.setdefault(each.method, str(each.error))

    def _finish(self, ranked: Sequence[Candidate], stages: list[Stage]) -> Race:
        """Train the winner with what is left; if it diverges, the next one."""
        for place, each in enumerate(ranked):
            if each.method in self.dropped:
                continue
            decided = self.journal.decided(f"winner/{place}", self._last)
            if decided is None:
                break
            budget = decided["budget"]
            self.say(f"winner: {each.method} {self._config(each)}, {budget}")
            item = Item("report", each.method, 0, -1, self.request.seed)
            outcome = self._run(
                f"run/winner/{place}", item, self._config(each), budget, decided["evaluations"]
            )
            record, tried = outcome.record, self._describe(each, outcome)
            assert record is not None
            if record.status == "done":
                return self._outcome(stages, budget, tried, record)
            self._drop([tried])
            self.say(f"  {record.status}: {record.error}")
        raise RaceError("no candidate could be trained for the rest of the budget")

    def _last(self) -> dict[str, Any] | None:
        """Length and evaluations of the winner's run; None: nothing is left."""
        left, evaluations = self.total - self.spent, EVALUATIONS
        if self.unit == "seconds":
            cost = max(self.pace.evaluation_seconds, 1e-9)
            evaluations = int(min(EVALUATIONS, max(1.0, WATCHED * left / cost)))
            left -= self._overhead(evaluations)
        if left < self._least():
            return None
        return {"budget": self._budget(left), "evaluations": evaluations}

    def _run(
        self, key: str, item: Item, config: Mapping[str, float], budget: str, evaluations: int
    ) -> Outcome:
        """Execute a run, or return its stored outcome."""
        outcome = self.journal.outcome(key)
        if outcome is None or (item.kind == "report" and not self._model_kept(outcome)):
            settings = replace(self.settings, budget=budget, evaluations=evaluations)
            entrant = self.methods[item.method]
            keep = self.request.model if item.kind == "report" else None
            task = Task(settings, Entry.of(entrant), item, dict(config), self.rates, keep)
            record = self._execute(task)
            outcome = Outcome(
                dict(config), plain(entrant.settings(config)), record, platform.node()
            )
            self.journal.finish(key, outcome, self.elapsed)
        assert outcome.record is not None
        if outcome.record.curve and self.unit != "seconds":
            self._counted += float(getattr(outcome.record.curve[-1], self.unit))
        return outcome

    def _model_kept(self, outcome: Outcome) -> bool:
        record = outcome.record
        return record is None or record.status != "done" or self.request.model.exists()

    def _execute(self, task: Task) -> RunRecord:
        """Execute a run in a worker process; how it ends is part of its record."""
        expected = self.pace.charged(task.limits)
        limit = timeout(task.settings, expected)
        if self.unit == "seconds" and self.settings.timeout is None:
            limit = min(limit, SLACK * self.total)
        try:
            return self.pool.ask("run", task, self.look, limit)
        except WorkerError as error:
            return failed_run(task, str(error), error.trace or None, crashed=True)

    def _describe(self, each: Candidate, outcome: Outcome) -> Tried:
        record = outcome.record
        assert record is not None
        last = record.curve[-1] if record.curve else None
        return Tried(
            method=each.method,
            config=dict(outcome.config),
            status=record.status,
            error=record.error,
            metric=record.final.metric,
            loss=record.final.loss,
            spent=0.0 if last is None else float(getattr(last, self.unit)),
            seconds=0.0 if last is None else last.seconds,
            peak_bytes=record.peak_bytes,
        )

    def _outcome(self, stages: list[Stage], length: str, winner: Tried, record: RunRecord) -> Race:
        return Race(
            schema=RACE_SCHEMA,
            created_by=anyorder.__version__,
            command=self.request.command,
            problem=self.request.problem,
            options=dict(self.settings.options),
            metric=self.described.metric,
            goal=self.described.goal,
            budget=self.request.budget,
            seed=self.request.seed,
            stages=stages,
            dropped=dict(self.dropped),
            length=length,
            winner=winner,
            test=record.test,
            spent=self.spent,
            total=self.total,
            unit=self.unit,
        )


def _has_rate(entrant: Entrant) -> bool:
    """Whether there is a learning rate to vary: a positive number that the user has not set."""
    rate = entrant.settings().get("lr")
    return "lr" not in entrant.fixed and isinstance(rate, (int, float)) and rate > 0
