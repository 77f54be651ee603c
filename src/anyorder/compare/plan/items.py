"""The runs of a plan, in order, and the input of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from anyorder.compare.plan.limits import Limits, grid
from anyorder.compare.plan.seeds import report_seed, trial_seed

if TYPE_CHECKING:  # workers and studies do not need pydantic
    from anyorder.compare.plan.plan import Entry, Plan
    from anyorder.compare.plan.settings import Settings

Kind = Literal["tune", "report", "default"]

#: A trial is evaluated this many times less often: its curve is not reported.
TUNING_EVALUATIONS = 4
#: Characters of a method's name in the name of a file.
LONGEST = 160


@dataclass(frozen=True)
class Item:
    """One run of the plan.

    Attributes:
        kind: trial (``tune``), reported run, or reported run of the default configuration.
        method: name of the entrant.
        tuning: number of the tuning it belongs to; 0 for runs of the default.
        index: number of the trial in its tuning; -1 for other kinds.
        seed: seed of the run.
    """

    kind: Kind
    method: str
    tuning: int
    index: int
    seed: int

    @property
    def key(self) -> str:
        """Name of the run, unique in a comparison."""
        number = self.index if self.kind == "tune" else self.seed
        return f"{self.kind}/{self.method}/{self.tuning}/{number}"

    @property
    def file_name(self) -> str:
        """Name of the file of the run; other runs have other names."""
        method = quote(self.method, safe="")
        if len(method) > LONGEST:  # file systems end at 255
            digest = hashlib.sha256(self.method.encode()).hexdigest()[:16]
            method = f"{method[:LONGEST]}+{digest}"
        number = self.index if self.kind == "tune" else self.seed
        return f"{self.kind}-{method}-{self.tuning}-{number}.jsonl"

    @classmethod
    def from_key(cls, key: str) -> Item:
        """Return the run with this name."""
        kind, rest = key.split("/", 1)
        method, tuning, number = rest.rsplit("/", 2)
        if kind == "tune":
            return cls.trial(method, int(tuning), int(number))
        return cls(
            "default" if kind == "default" else "report", method, int(tuning), -1, int(number)
        )

    @classmethod
    def trial(cls, method: str, tuning: int, index: int) -> Item:
        """Return trial ``index`` of a tuning."""
        return cls("tune", method, tuning, index, trial_seed(method, tuning))

    @classmethod
    def report(cls, method: str, tuning: int, number: int) -> Item:
        """Return reported run ``number`` (0, 1, ...) of the configuration a tuning chose."""
        return cls("report", method, tuning, -1, report_seed(method, tuning, number))

    @classmethod
    def default(cls, method: str, number: int) -> Item:
        """Return run ``number`` (0, 1, ...) of the default configuration."""
        return cls("default", method, 0, -1, report_seed(method, 0, number))

    def __str__(self) -> str:
        """Kind, number and method of the run."""
        number = self.index if self.kind == "tune" else self.seed
        place = f"{self.tuning}/{number}" if self.kind == "tune" and self.tuning else number
        return f"{self.kind} {place}  {self.method}"


def items(plan: Plan) -> list[Item]:
    """Return all runs in order; methods alternate.

    First trial 0 of every tuning of every method, then trial 1, and so on; then the same with the
    reported seeds. So changes in the load of the machine affect all methods equally.
    """
    settings = plan.settings
    usable = [method for method in plan.methods if method.failed is None]
    tunings, seeds = range(settings.tunings), range(settings.seeds)
    order = [
        Item.trial(method.name, tuning, index)
        for index in range(settings.tune)
        for tuning in tunings
        for method in usable
        if index < plan.trials(method)
    ]
    for number in seeds:
        order += [Item.report(each.name, tuning, number) for tuning in tunings for each in usable]
        if settings.defaults:  # the twin's would say nothing that those of its baseline do not
            order += [Item.default(each.name, number) for each in usable if each.twin_of is None]
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
        model: file for the ``state_dict`` of the trained model, if it is to be kept.
    """

    settings: Settings
    method: Entry
    item: Item
    config: dict[str, Any]
    rates: dict[str, float]
    model: Path | None = None

    @property
    def seed(self) -> int:
        """Seed of initial point, batches and random directions."""
        return self.item.seed

    @property
    def is_trial(self) -> bool:
        """Whether this is a trial: evaluated less often, and never on test data."""
        return self.item.kind == "tune"

    @property
    def limits(self) -> Limits:
        """The budget."""
        return Limits.read(self.settings.budget, self.rates)

    @property
    def grid(self) -> tuple[float, ...]:
        """Fractions of the budget at which to evaluate."""
        evaluations = self.settings.evaluations
        return grid(max(1, evaluations // TUNING_EVALUATIONS) if self.is_trial else evaluations)
