"""The plan of a comparison: every choice made before the start, and the runs that follow from it.

The plan is a pure function of the command. Two processes with the same plan make the same list of
runs in the same order, which is what lets them share the work and lets a killed one go on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.plan.space import SAMPLERS
from anyorder.errors import AnyOrderError
from anyorder.oracle.ledger import Budget, BudgetError

Kind = Literal["tune", "report", "default"]

#: Tuning runs use this seed, reported runs 0, 1, 2, ...: no reported run was used for choosing.
TUNING_SEED = 1000
SCHEDULES = ("constant", "cosine")
RATES = ("nominal", "measured")
AUTOCAST = ("none", "bfloat16", "float16")


class PlanError(AnyOrderError, ValueError):
    """A plan that cannot be carried out, or that is not the one already begun."""


@dataclass(frozen=True)
class Plan:
    """What is compared, on what, and how.

    Attributes:
        problem: name or file of the problem.
        options: options of the problem.
        source: hash of the problem's file; empty for a built-in one.
        methods: the entrants: ``name``, ``spec``, ``version``, ``fixed`` settings, and whether
            there is anything to ``search``.
        budget: limits of one run, as text.
        tune: tuning runs per method; 0 and 1 report the defaults without any.
        seeds: reported runs per method.
        defaults: also report the default configuration.
        sampler: how configurations are drawn.
        schedule: how the learning rate runs over the budget.
        evaluations: evaluations per reported run after the first.
        rates: price list for budgets counted in answers.
        device: where models and batches are.
        autocast: type of ``torch.autocast`` around the loss, or ``none``.
        jobs: runs at a time.
        threads: threads per run; None divides the cores among the jobs.
        versions: of what computes the numbers.
    """

    problem: str
    budget: str
    methods: tuple[dict[str, Any], ...]
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    source: str = ""
    tune: int = 4
    seeds: int = 3
    defaults: bool = False
    sampler: str = "qmc"
    schedule: str = "constant"
    evaluations: int = 20
    rates: str = "nominal"
    device: str = "cpu"
    autocast: str = "none"
    jobs: int = 1
    threads: int | None = None
    versions: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        """Refuse what cannot be carried out."""
        for name, least in (("tune", 0), ("seeds", 1), ("jobs", 1), ("evaluations", 1)):
            if getattr(self, name) < least:
                raise PlanError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise PlanError(f"threads: expected at least 1, got {self.threads}")
        for name, words in (
            ("schedule", SCHEDULES),
            ("rates", RATES),
            ("sampler", SAMPLERS),
            ("autocast", AUTOCAST),
        ):
            if getattr(self, name) not in words:
                raise PlanError(
                    f"{name}: expected one of {', '.join(words)}, got {getattr(self, name)!r}"
                )
        Limits.read(self.budget, {"values": 1.0, "grads": 3.0, "products": 6.0, "ranked": 1.0})

    def to_dict(self) -> dict[str, Any]:
        """The plan and its fingerprint, as JSON holds them."""
        return json.loads(json.dumps({**asdict(self), "fingerprint": self.fingerprint}))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Plan:
        """The plan that :meth:`to_dict` stored."""
        known: dict[str, Any] = {n: value for n, value in stored.items() if n != "fingerprint"}
        known["methods"] = tuple(known["methods"])
        return cls(**known)

    @property
    def fingerprint(self) -> str:
        """Hash of all that must be equal for two runs to be comparable."""
        text = json.dumps(_essence(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def trials(self, method: Mapping[str, Any]) -> int:
        """Tuning runs of one method: none where there is nothing to choose between."""
        return self.tune if self.tune > 1 and method["search"] else 0


def method_entry(entrant: Entrant) -> dict[str, Any]:
    """What a plan keeps of an entrant."""
    entry = {
        "name": entrant.name,
        "spec": entrant.spec,
        "version": entrant.version,
        "fixed": entrant.fixed,
        "search": bool(entrant.space),
    }
    return json.loads(json.dumps(entry))  # tuples become lists, as they will after storage


#: What more may be asked of a comparison that has begun.
_EXTENSIBLE = ("methods", "seeds", "defaults")


def _essence(plan: Plan) -> dict[str, Any]:
    return {name: value for name, value in asdict(plan).items() if name not in _EXTENSIBLE}


def joined(stored: Plan, wanted: Plan, *, extend: bool) -> Plan:
    """The plan with which a comparison that has begun goes on.

    Args:
        stored: the plan it began with.
        wanted: the plan that is asked for now.
        extend: whether more seeds and methods may be added.

    Raises:
        PlanError: the two differ; says in what, and what to do.
    """
    old, new = _essence(stored), _essence(wanted)
    differing = [f"{n}: {old.get(n)!r} there, {new[n]!r} now" for n in new if old.get(n) != new[n]]
    known = {method["name"]: method for method in stored.methods}
    for method in wanted.methods:
        before = known.get(method["name"], method)
        differing += [
            f"{method['name']}, {key}: {before[key]!r} there, {method[key]!r} now"
            for key in method
            if before[key] != method[key]
        ]
    if differing:
        raise PlanError(
            "this folder or database holds a comparison with another plan ("
            + "; ".join(differing)
            + "). Choose another folder with --out, or give the old values to go on with it"
        )
    added = [method for method in wanted.methods if method["name"] not in known]
    more = [f"method {method['name']}" for method in added]
    more += [f"{wanted.seeds} seeds instead of {stored.seeds}"] * (wanted.seeds > stored.seeds)
    more += ["the default configurations"] * (wanted.defaults and not stored.defaults)
    if more and not extend:
        raise PlanError(
            f"the comparison there does not include {', '.join(more)}. Add --extend to extend it, "
            "or choose another folder with --out"
        )
    return replace(
        stored,
        methods=(*stored.methods, *added),
        seeds=max(stored.seeds, wanted.seeds),
        defaults=stored.defaults or wanted.defaults,
    )


# --- Budget ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    """Limits of one run in units that every method can be held to."""

    forwards: float | None = None
    seconds: float | None = None
    steps: int | None = None

    @classmethod
    def read(cls, text: str, rates: Mapping[str, float]) -> Limits:
        """Read a budget; answers of one kind become their price in forward passes.

        ``500grads`` gives every method what 500 gradients cost: at 3 forwards each, 1500 values.

        Raises:
            BudgetError: unreadable, or counted in something that has no price.
        """
        limits = Budget.parse(text).limits()
        if "rankings" in limits:
            raise BudgetError(
                "a ranking has no price of its own, the points in it have; write the budget in "
                "ranked, values, grads, forwards, steps or seconds"
            )
        prices = [limits[kind] * rates[kind] for kind in rates if kind in limits]
        if "forwards" in limits:
            prices.append(limits["forwards"])
        steps = limits.get("steps")
        return cls(
            min(prices) if prices else None,
            limits.get("seconds"),
            None if steps is None else int(steps),
        )

    def spent(self, forwards: float, seconds: float, steps: int) -> float:
        """The share of the budget that is used up, by the limit that comes first."""
        shares = (
            (forwards, self.forwards),
            (seconds, self.seconds),
            (steps, self.steps),
        )
        return max(used / limit for used, limit in shares if limit is not None)

    def to_dict(self) -> dict[str, float]:
        """The limits that are set, by unit."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def grid(evaluations: int) -> tuple[float, ...]:
    """Shares of the budget at which a run is evaluated: 0, then more densely at the beginning."""
    return tuple((i / evaluations) ** 1.5 for i in range(evaluations + 1))


# --- Runs --------------------------------------------------------------------------------------


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
        """The run of that name."""
        kind, rest = key.split("/", 1)
        method, number = rest.rsplit("/", 1)
        if kind == "tune":
            return cls("tune", method, int(number), TUNING_SEED)
        return cls("default" if kind == "default" else "report", method, -1, int(number))

    def __str__(self) -> str:
        """For people: what it is and which one."""
        return f"{self.kind} {self.index if self.kind == 'tune' else self.seed}  {self.method}"


def items(plan: Plan) -> list[Item]:
    """All runs in the order in which they are taken up: methods take turns.

    First tuning trial 0 of every method, then trial 1 of every method, and so on; then the same
    with the reported seeds. A machine that grows slower or busier meets all methods alike.
    """
    names = [method["name"] for method in plan.methods]
    rounds = max((plan.trials(method) for method in plan.methods), default=0)
    order = [
        Item("tune", method["name"], index, TUNING_SEED)
        for index in range(rounds)
        for method in plan.methods
        if index < plan.trials(method)
    ]
    kinds: tuple[Kind, ...] = ("report", "default") if plan.defaults else ("report",)
    order += [
        Item(kind, name, -1, seed) for seed in range(plan.seeds) for kind in kinds for name in names
    ]
    return order


def best_trial(outcomes: Sequence[tuple[float, float]]) -> int:
    """Index of the trial that is reported: the best, by value and then loss; 0 if all failed.

    Args:
        outcomes: value and loss of each trial, smaller is better, inf if it diverged or failed.
    """
    return min(range(len(outcomes)), key=lambda index: (*outcomes[index], index), default=0)
