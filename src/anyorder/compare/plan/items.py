"""The runs of a plan, in order, and the input of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from anyorder.compare.plan.limits import Limits, grid

if TYPE_CHECKING:  # workers and studies do not need pydantic
    from anyorder.compare.plan.plan import Entry, Plan
    from anyorder.compare.plan.settings import Settings

Kind = Literal["tune", "report", "default"]

#: Tuning runs use this seed, reported runs 0, 1, 2, ...: tuning never uses a reported seed.
TUNING_SEED = 1000
#: A tuning run is evaluated this many times less often: its curve is not reported.
TUNING_EVALUATIONS = 4


@dataclass(frozen=True)
class Item:
    """One run of the plan.

    Attributes:
        kind: tuning run, reported run, or reported run of the default configuration.
        method: name of the entrant.
        index: number of the tuning trial; -1 for other kinds, whose configuration is chosen later.
        seed: seed of the run.
    """

    kind: Kind
    method: str
    index: int
    seed: int

    @property
    def key(self) -> str:
        """Name of the run, unique in a comparison."""
        number = self.index if self.kind == "tune" else self.seed
        return f"{self.kind}/{self.method}/{number}"

    @classmethod
    def from_key(cls, key: str) -> Item:
        """Return the run with this name."""
        kind, rest = key.split("/", 1)
        method, number = rest.rsplit("/", 1)
        if kind == "tune":
            return cls.trial(method, int(number))
        return cls("default" if kind == "default" else "report", method, -1, int(number))

    @classmethod
    def trial(cls, method: str, index: int) -> Item:
        """Return a tuning run."""
        return cls("tune", method, index, TUNING_SEED)

    def __str__(self) -> str:
        """Kind, number and method of the run."""
        return f"{self.kind} {self.index if self.kind == 'tune' else self.seed}  {self.method}"


def items(plan: Plan) -> list[Item]:
    """Return all runs in order; methods alternate.

    First tuning trial 0 of every method, then trial 1 of every method, and so on; then the same
    with the reported seeds. So changes in the load of the machine affect all methods equally.
    """
    names = [method.name for method in plan.methods]
    rounds = max((plan.trials(method) for method in plan.methods), default=0)
    order = [
        Item.trial(method.name, index)
        for index in range(rounds)
        for method in plan.methods
        if index < plan.trials(method)
    ]
    kinds: tuple[Kind, ...] = ("report", "default") if plan.settings.defaults else ("report",)
    order += [
        Item(kind, name, -1, seed)
        for seed in range(plan.settings.seeds)
        for kind in kinds
        for name in names
    ]
    return order


def best_trial(outcomes: Sequence[tuple[float, float]]) -> int:
    """Return the index of the best trial, by value and then loss; 0 if all failed.

    Args:
        outcomes: value and loss of each trial, smaller is better; inf if it diverged or failed.
    """
    return min(range(len(outcomes)), key=lambda index: (*outcomes[index], index), default=0)


@dataclass(frozen=True)
class Task:
    """The input of one run, as sent to a worker process.

    Attributes:
        settings: settings of the comparison.
        method: the entrant, which the worker resolves.
        item: the run.
        config: values of the tuned hyper-parameters.
        rates: price of each answer in forward passes.
    """

    settings: Settings
    method: Entry
    item: Item
    config: dict[str, Any]
    rates: dict[str, float]

    @property
    def seed(self) -> int:
        """Seed of initial point, batches and random directions."""
        return self.item.seed

    @property
    def tuning(self) -> bool:
        """Whether this is a tuning run: evaluated less often, and never on test data."""
        return self.item.kind == "tune"

    @property
    def limits(self) -> Limits:
        """The budget."""
        return Limits.read(self.settings.budget, self.rates)

    @property
    def grid(self) -> tuple[float, ...]:
        """Fractions of the budget at which to evaluate."""
        evaluations = self.settings.evaluations
        return grid(max(1, evaluations // TUNING_EVALUATIONS) if self.tuning else evaluations)
