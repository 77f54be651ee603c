"""The request for a race, and its errors."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anyorder.compare.plan.limits import Limits, prices
from anyorder.compare.plan.plan import PlanError
from anyorder.compare.plan.settings import Settings
from anyorder.errors import AnyOrderError

#: Methods that take part by default.
METHODS = ("adamw", "lion", "muon", "schedule_free_adamw", "sgd")
#: Evaluations of a short run: at its start and its end, as a trial has a quarter of these.
BRIEF = 4


class RaceError(AnyOrderError, RuntimeError):
    """A race that cannot be run: the budget is too small, or no candidate is left."""


@dataclass(frozen=True)
class RaceRequest:
    """The request for a race.

    Attributes:
        problem: a built-in problem, or the path of a file.
        out: folder of the results.
        budget: total budget of everything: ``10m`` of wall-clock time, ``30_000grads``, ...
        methods: names and import paths of the methods.
        options: options of the problem.
        sets: ``METHOD.NAME=VALUE`` settings; a learning rate that is set is not varied.
        memory: bytes that no run may exceed; None: no limit.
        seed: seed of initial point and batches.
        device: where to train.
        threads: threads of a run; None: all cores.
        timeout: wall-clock limit of one run; default: 20 times its estimate, at least 10 minutes.
    """

    problem: str
    out: Path
    budget: str = "10m"
    methods: tuple[str, ...] = METHODS
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    sets: tuple[str, ...] = ()
    memory: int | None = None
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    timeout: str | None = None

    @property
    def settings(self) -> Settings:
        """The settings of a run, checked; its budget is the total one."""
        return Settings(
            self.problem, self.options, budget=self.budget, tune=0, seeds=1, evaluations=BRIEF,
            device=self.device, threads=self.threads, timeout=self.timeout, memory=self._memory,
        )  # fmt: skip

    @property
    def _memory(self) -> str | None:
        return None if self.memory is None else f"{self.memory}B"

    @property
    def model(self) -> Path:
        """The file for the ``state_dict`` of the trained model."""
        return self.out / "model.pt"

    @property
    def command(self) -> str:
        """The command that repeats or continues the race."""
        words = ["anyorder", "race", self.problem, "--budget", self.budget]
        words += ["--methods", ",".join(self.methods)]
        for name, value in self.options.items():
            words += ["--option", f"{name}={value}"]
        for each in self.sets:
            words += ["--set", each]
        words += ["--memory", self._memory] if self._memory is not None else []
        for name, usual in (("seed", 0), ("device", "cpu"), ("threads", None), ("timeout", None)):
            value = getattr(self, name)
            words += [f"--{name}", str(value)] if value != usual else []
        return shlex.join([*words, "--out", str(self.out)])


def unit_of(budget: str) -> tuple[str, float]:
    """The unit of a budget, and its amount."""
    limits = Limits.read(budget, prices()).to_dict()
    if len(limits) != 1:
        raise PlanError(f"a race has one budget, such as 10m or 30_000grads; got {budget!r}")
    ((unit, total),) = limits.items()
    return unit, total
