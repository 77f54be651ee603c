"""The cost of a run so far, and its budget."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from operator import attrgetter, mul
from typing import Any

from anyorder.compare.plan.limits import Limits
from anyorder.compare.run.compiling import compiled
from anyorder.compare.run.records import Costs, Point
from anyorder.oracle.ledger import Budget, Calls


@dataclass
class Clock:
    """The cost of a run so far.

    Attributes:
        limits: the budget.
        rates: price of each answer in forward passes.
        calls: the ledger.
        seconds: charged wall-clock seconds, without compilation.
        data_seconds: seconds of these for drawing batches.
        model_compile_seconds: seconds of ``torch.compile`` while the clock ran, not charged.
        evaluation_seconds: seconds of evaluations, not charged.
        steps: number of steps.
    """

    limits: Limits
    rates: dict[str, float]
    calls: Calls = field(default_factory=Calls)
    seconds: float = 0.0
    data_seconds: float = 0.0
    model_compile_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    steps: int = 0
    _began: float | None = None
    _compiled: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        """Prepare what is needed at every step."""
        self._counts = attrgetter(*self.rates, "values")  # one more, so that it is a tuple
        self._prices = tuple(self.rates.values())

    def priced(self, calls: Calls) -> float:
        """As ``calls.forwards(self.rates)``, without checking the rates again."""
        return sum(map(mul, self._counts(calls), self._prices))

    @property
    def forwards(self) -> float:
        """The cost of all answers in forward passes."""
        return self.priced(self.calls)

    @property
    def fraction(self) -> float:
        """The used fraction of the budget."""
        return self.limits.spent(self.forwards, self.seconds, self.steps)

    def start(self) -> None:
        """Start charging."""
        self._compiled, self._began = compiled(), time.perf_counter()

    def stop(self) -> None:
        """Stop charging."""
        after = compiled()
        self.seconds = self._at(after)
        self.model_compile_seconds += after[1] - self._compiled[1]
        self._began = None

    def now(self) -> float:
        """Return the charged seconds at this moment."""
        return self._at(compiled())

    def _at(self, after: tuple[float, float]) -> float:
        """The charged seconds, when so much was compiled."""
        if self._began is None:
            return self.seconds
        compiling = sum(after) - sum(self._compiled)
        return self.seconds + max(0.0, time.perf_counter() - self._began - compiling)

    def point(self, **judged: Any) -> Point:
        """A point of the curve: all costs so far, and the validation results."""
        calls = {each.name: getattr(self.calls, each.name) for each in fields(Costs)}
        # Models are compiled while their loss is computed.
        oracle = max(0.0, self.calls.seconds - self.model_compile_seconds)
        return Point(
            fraction=self.fraction,
            seconds=self.seconds,
            forwards=self.forwards,
            calls=Costs(**calls),
            steps=self.steps,
            oracle_seconds=oracle,
            optimizer_seconds=max(0.0, self.seconds - self.data_seconds - oracle),
            data_seconds=self.data_seconds,
            **judged,
        )


class RunBudget(Budget):
    """A budget in the charged seconds of a clock."""

    clock: Clock

    @classmethod
    def of_run(cls, clock: Clock) -> RunBudget:
        """Return a budget with the limits of the clock, to check within a step."""
        forwards = clock.limits.forwards
        # Slightly above the limit: sums of prices differ from their product by rounding.
        budget = cls(
            rates=clock.rates,
            forwards=forwards and forwards * (1 + 1e-9),
            seconds=clock.limits.seconds,
        )
        budget.clock = clock
        return budget

    def start(self) -> None:
        """Do nothing: the run starts and stops the clock."""

    def spent_seconds(self) -> float:
        """Return the charged seconds."""
        return self.clock.now()

    def check(self, calls: Calls, asked: dict[str, int]) -> None:
        """As :meth:`Budget.check`, for the two kinds of limits that a run has within a step."""
        if self.forwards is not None:
            extra = sum(self.rates.get(name, 0.0) * count for name, count in asked.items())
            self._compare("forwards", self.clock.priced(calls) + extra, self.forwards)
        if self.seconds is not None:
            self._compare("seconds", self.spent_seconds(), self.seconds)
