"""The plan of a comparison: its settings and methods, fixed before the start.

The plan is a pure function of the command. Two processes with the same plan create the same
list of runs in the same order, so they can share the work, and a killed one can continue.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from anyorder.compare.plan.checked import STRICT
from anyorder.compare.plan.entrants import Entrant
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
        return cls(entrant.name, entrant.spec, entrant.version, fixed, bool(entrant.space))


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

    @property
    def baseline(self) -> str:
        """Name of the method that the others are compared with; empty if there is none."""
        usable = [each.name for each in self.methods if each.failed is None]
        twins = [each.twin_of for each in self.methods if each.twin_of is not None]
        usual = ["adamw"] if "adamw" in usable else usable
        return next(iter([*filter(None, [self.settings.baseline]), *twins, *usual]), "")

    @property
    def fingerprint(self) -> str:
        """Hash of everything that must be equal for two runs to be comparable."""
        text = json.dumps(_essence(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def trials(self, method: Entry) -> int:
        """Number of tuning runs of one method: 0 if there is no choice."""
        return self.settings.tune if self.settings.tune > 1 and method.search else 0


#: Settings that may increase in an existing comparison.
_EXTENSIBLE = ("seeds", "defaults")


def _essence(plan: Plan) -> dict[str, Any]:
    settings = {n: v for n, v in asdict(plan.settings).items() if n not in _EXTENSIBLE}
    return {**settings, "source": plan.source, "versions": plan.versions}


def joined(stored: Plan, wanted: Plan, *, extend: bool) -> Plan:
    """Return the plan with which an existing comparison continues.

    Args:
        stored: the stored plan.
        wanted: the requested plan.
        extend: whether more seeds and methods may be added.

    Raises:
        PlanError: the plans differ; the message says how, and what to do.
    """
    differing = _differences("", _essence(stored), _essence(wanted))
    known = {method.name: method for method in stored.methods}
    for method in wanted.methods:
        before = known.get(method.name, method)
        differing += _differences(f"{method.name}, ", asdict(before), asdict(method))
    if differing:
        raise PlanError(
            "this folder or database contains a comparison with another plan ("
            + "; ".join(differing)
            + "). Choose another folder with --out, or use the old values to continue it"
        )
    old, new = stored.settings, wanted.settings
    added = [method for method in wanted.methods if method.name not in known]
    more = [f"method {method.name}" for method in added]
    more += [f"{new.seeds} seeds instead of {old.seeds}"] * (new.seeds > old.seeds)
    more += ["the default configurations"] * (new.defaults and not old.defaults)
    if more and not extend:
        raise PlanError(
            f"the existing comparison does not include {', '.join(more)}. Add --extend to extend "
            "it, or choose another folder with --out"
        )
    seeds, defaults = max(old.seeds, new.seeds), old.defaults or new.defaults
    return replace(
        stored,
        settings=replace(old, seeds=seeds, defaults=defaults),
        methods=[*stored.methods, *added],
    )


def _differences(whose: str, there: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{whose}{name}: {there[name]!r} there, {now[name]!r} now"
        for name in now
        if there[name] != now[name]
    ]
