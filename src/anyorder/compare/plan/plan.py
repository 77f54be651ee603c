"""The plan of a comparison: its settings and methods, fixed before the start.

The plan is a pure function of the command. Two processes with the same plan create the same
list of runs in the same order, so they can share the work, and a killed one can continue.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from anyorder.compare.plan.checked import STRICT
from anyorder.compare.plan.entrants import Entrant, resolve
from anyorder.compare.plan.limits import Limits, prices
from anyorder.compare.plan.seeds import TWIN
from anyorder.compare.plan.settings import Settings
from anyorder.errors import AnyOrderError


class PlanError(AnyOrderError, ValueError):
    """A plan that cannot be executed, or that differs from the stored one."""


@dataclass(frozen=True)
class Entry:
    """An entrant as stored in a plan.

    Attributes:
        name: its name in the results.
        spec: the text it is resolved from.
        version: version of the package or hash of the file that defines its class.
        fixed: settings that are not tuned.
        search: whether any setting is tuned.
        space: search ranges set by the user, by setting, as text.
        twin_of: name of the method that this is a second copy of, else None.
        failed: why it cannot be used, else None.
    """

    name: str
    spec: str
    version: str
    fixed: dict[str, Any]
    search: bool
    space: dict[str, str] = field(default_factory=dict[str, str])
    twin_of: str | None = None
    failed: str | None = None

    @classmethod
    def of(cls, entrant: Entrant) -> Entry:
        """The entry of an entrant."""
        fixed = json.loads(json.dumps(entrant.fixed))  # tuples become lists, as after storage
        return cls(
            entrant.name,
            entrant.spec,
            entrant.version,
            fixed,
            bool(entrant.space),
            entrant.ranges,
            failed=entrant.failed,
        )

    def entrant(self) -> Entrant:
        """Resolve the entrant again."""
        if self.failed is not None:
            return Entrant.unusable(self.name, self.spec, self.failed)
        return resolve(self.spec, self.name, self.fixed, self.space)


@dataclass(frozen=True)
class Plan:
    """The methods and all conditions of a comparison.

    Attributes:
        settings: conditions that are equal for all methods.
        methods: the entrants.
        source: hash of the problem's file; empty for a built-in problem.
        versions: versions of the software that computes the numbers.
        looks: how often seeds, tunings or methods were added, plus one.
    """

    __pydantic_config__ = STRICT

    settings: Settings
    methods: list[Entry]
    source: str
    versions: dict[str, str]
    looks: int = 1

    @classmethod
    def of(
        cls,
        settings: Settings,
        entrants: Iterable[Entrant],
        source: str = "",
        versions: Mapping[str, str] | None = None,
    ) -> Plan:
        """Return the plan for these entrants and the twin of the baseline.

        Raises:
            PlanError: the baseline is none of the methods, or cannot be used.
        """
        plan = cls(settings, [Entry.of(each) for each in entrants], source, dict(versions or {}))
        usable = [each.name for each in plan.methods if each.failed is None]
        if settings.baseline is not None and settings.baseline not in usable:
            raise PlanError(
                f"the baseline {settings.baseline!r} is not one of the methods that can be used: "
                f"{', '.join(usable)}"
            )
        return _with_twin(plan)

    @property
    def baseline(self) -> str:
        """Name of the method that the others are compared with; empty if there is none.

        That is the one set by the user, or ``adamw``, or the first one that can be used. It stays
        the same when methods are added.
        """
        if self.settings.baseline is not None:
            return self.settings.baseline
        usable = [each.name for each in self.methods if each.failed is None]
        return "adamw" if "adamw" in usable else next(iter(usable), "")

    @property
    def fingerprint(self) -> str:
        """Hash of everything that must be equal for two runs to be comparable."""
        text = json.dumps(_essence(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def trials(self, method: Entry) -> int:
        """Number of tuning runs of one method: 0 if there is no choice."""
        return self.settings.tune if self.settings.tune > 1 and method.search else 0


#: Settings that may increase in an existing comparison, and what they are called.
_EXTENSIBLE = {"seeds": "seeds", "tunings": "tunings"}
#: Settings that may be switched on in an existing comparison.
_SWITCHES = {"defaults": "the default configurations", "twin": "a twin of the baseline"}
#: Settings that change no number, unless the budget is a time.
_CIRCUMSTANCES = ("jobs", "threads")


def _essence(plan: Plan) -> dict[str, Any]:
    free = {*_EXTENSIBLE, *_SWITCHES, "baseline", "timeout"}
    if Limits.read(plan.settings.budget, prices()).seconds is None:
        free.update(_CIRCUMSTANCES)
    settings = {n: v for n, v in asdict(plan.settings).items() if n not in free}
    return {**settings, "source": plan.source, "versions": plan.versions}


def joined(stored: Plan, wanted: Plan, *, extend: bool) -> Plan:
    """Return the plan with which an existing comparison continues.

    Args:
        stored: the stored plan.
        wanted: the requested plan.
        extend: whether more seeds, tunings and methods may be added.

    Raises:
        PlanError: the plans differ; the message says how, and what to do.
    """
    old, new = stored.settings, wanted.settings
    methods = [each for each in wanted.methods if each.twin_of is None]
    known = {each.name: each for each in stored.methods if each.failed is None}
    differing = _differences("", _essence(stored), _essence(wanted))
    if new.baseline not in (None, stored.baseline):
        differing.append(f"baseline: {stored.baseline!r} there, {new.baseline!r} now")
    for each in methods:
        before = known.get(each.name, each)
        if each.failed is not None and before.failed is None:
            differing.append(f"{each.name} cannot be used here: {each.failed}")
        else:
            differing += _differences(f"{each.name}, ", asdict(before), asdict(each))
    if differing:
        raise PlanError(
            "this folder or database contains a comparison with another plan ("
            + "; ".join(differing)
            + "). Choose another folder with --out, or use the old values to continue it"
        )
    names = {each.name for each in stored.methods}
    added = [each for each in methods if each.name not in names]
    repaired = {each.name: each for each in methods if each.failed is None}
    repaired = {name: each for name, each in repaired.items() if name in names - known.keys()}
    looked = [f"method {name}" for name in (*(each.name for each in added), *repaired)]
    looked += [
        f"{getattr(new, name)} {words} instead of {getattr(old, name)}"
        for name, words in _EXTENSIBLE.items()
        if getattr(new, name) > getattr(old, name)
    ]
    switched = [name for name in _SWITCHES if getattr(new, name) and not getattr(old, name)]
    more = looked + [_SWITCHES[name] for name in switched]
    if not more:
        return stored
    if not extend:
        raise PlanError(
            f"the existing comparison does not include {', '.join(more)}. Add --extend to extend "
            "it, or choose another folder with --out"
        )
    changes: dict[str, Any] = dict.fromkeys(switched, True)
    changes |= {name: max(getattr(old, name), getattr(new, name)) for name in _EXTENSIBLE}
    grown = replace(
        stored,
        # Added methods do not change the baseline.
        settings=replace(old, **changes, baseline=stored.baseline),
        methods=[*(repaired.get(each.name, each) for each in stored.methods), *added],
        looks=stored.looks + bool(looked),
    )
    return _with_twin(grown)


def _with_twin(plan: Plan) -> Plan:
    """Return the plan with a twin of its baseline, if it wants one and has none."""
    if not plan.settings.twin or any(each.twin_of is not None for each in plan.methods):
        return plan
    original = next(each for each in plan.methods if each.name == plan.baseline)
    twin = replace(original, name=original.name + TWIN, twin_of=original.name)
    return replace(plan, methods=[*plan.methods, twin])


def _differences(whose: str, there: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{whose}{name}: {there[name]!r} there, {now[name]!r} now"
        for name in now
        if name in there and there[name] != now[name]
    ]
