"""A regression gate: new results of a comparison against older ones, method by method.

Each method is compared with itself: the older runs take part as a second method. So the gate uses
the same tests as a report, with the error divided by the number of tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from anyorder.compare.stats.differences import error_of_look, least_units
from anyorder.compare.stats.estimators import LEVEL, iqm
from anyorder.compare.stats.records import AXES, Axis, judged_by, main_axis, unit_of
from anyorder.compare.stats.targets import main_target
from anyorder.compare.stats.verdicts import Pair, compare_costs, compare_pairs
from anyorder.compare.store.schema import MethodRecord, Results
from anyorder.errors import AnyOrderError

Status = Literal["ok", "worse", "slower", "failed"]
#: What the older runs of a method are called while they are compared.
_OLD = " (old)"


class GateError(AnyOrderError, ValueError):
    """Two results that cannot be compared, or too few runs to find a regression."""


@dataclass(frozen=True)
class Check:
    """New results of one method against its older ones.

    Attributes:
        method: the method.
        status: ``ok``, or the kind of regression.
        quality: verdict on the judged number: what the new runs are.
        change: new minus old, as a share of the old number; None if unknown.
        quality_p: p-value of that test; None without a test.
        cost: verdict on the cost to the target; ``not comparable`` without a target.
        ratio: new cost over old cost; None if unknown.
        cost_p: p-value of that test; None without a test.
        why: explanation of the status.
    """

    method: str
    status: Status
    quality: str
    change: float | None
    quality_p: float | None
    cost: str
    ratio: float | None
    cost_p: float | None
    why: str

    @property
    def ok(self) -> bool:
        """Whether there is no regression."""
        return self.status == "ok"


def check(
    new: Results,
    old: Results,
    *,
    worse: float = 0.0,
    slower: float = 0.05,
    axis: Axis | None = None,
) -> list[Check]:
    """Compare every method of the older results with its new runs.

    A method fails the gate if its new runs are separably worse by more than the tolerance, or
    separably slower, or if it has no result any more.

    Args:
        new: the new results.
        old: the older results; the same problem, budget and seeds.
        worse: tolerated change of the judged number for the worse, as a share of the old number.
        slower: tolerated increase of the cost to the target, as a share of the old cost.
        axis: unit of the cost; by default that of the budget.

    Returns:
        One check per method of the older results.

    Raises:
        GateError: the results are not of the same comparison, a method is missing, or there are too
            few runs to separate anything.

    Example:
        >>> from pathlib import Path
        >>> from anyorder.compare.store.results import load
        >>> check(load(Path("new.json")), load(Path("old.json")))  # doctest: +SKIP
    """
    if axis is not None and axis not in AXES:
        raise GateError(f"axis: expected one of {', '.join(AXES)}, got {axis!r}")
    for name, value in (("worse", worse), ("slower", slower)):
        if not 0 <= value < math.inf:
            raise GateError(f"{name}: expected a share of at least 0, such as 0.05, got {value!r}")
    _require_alike(new, old)
    names = [method.name for method in old.methods if method.twin_of is None]
    lacking = [name for name in names if all(name != each.name for each in new.methods)]
    if lacking:
        raise GateError(f"the new results lack {', '.join(lacking)}; run the same methods")
    # Two tests per method: quality and cost.
    level = 1 - (1 - LEVEL) / (2 * len(names))
    _require_runs(new, old, level)
    target_of = _with_target(new, old)
    return [_check(name, *target_of, worse, slower, axis, level) for name in names]


def _require_alike(new: Results, old: Results) -> None:
    """Refuse results of different comparisons."""
    differing = [
        f"{what}: {before!r} in the old results, {now!r} in the new ones"
        for what, before, now in (
            ("problem", old.problem.name, new.problem.name),
            ("options", old.problem.options, new.problem.options),
            ("metric", old.problem.metric, new.problem.metric),
            *(
                (name, getattr(old.plan.settings, name), getattr(new.plan.settings, name))
                for name in ("budget", "schedule", "tune", "tunings", "seeds")
            ),
            ("judged by", judged_by(old).name, judged_by(new).name),
        )
        if before != now
    ]
    if differing:
        raise GateError("the results are of different comparisons: " + "; ".join(differing))


def _require_runs(new: Results, old: Results, level: float) -> None:
    """Refuse a gate that could never fail."""
    unit = unit_of(new)
    settings = new.plan.settings
    have = settings.tunings if unit == "tuning" else settings.seeds
    needed = least_units(1, error_of_look(1, level), paired=unit == "seed")
    if have < needed:
        raise GateError(
            f"{have} {unit}s cannot show a regression, at least {needed} are needed: run both "
            f"comparisons with --{unit}s {needed}"
        )


def _with_target(new: Results, old: Results) -> tuple[Results, Results]:
    """Both results with the target of the older ones, which the baseline may have set."""
    target = main_target(old)
    value = None if target is None else target.value
    return tuple(replace(each, problem=replace(each.problem, target=value)) for each in (new, old))  # type: ignore[return-value]


def _check(
    name: str,
    new: Results,
    old: Results,
    worse: float,
    slower: float,
    axis: Axis | None,
    level: float,
) -> Check:
    now, before = _method(new, name), _method(old, name)
    if before.failed is not None:
        return Check(name, "ok", "not comparable", None, None, "not comparable", None, None,
                     f"it had no result before: {before.failed}")  # fmt: skip
    if now.failed is not None:
        return Check(name, "failed", "not comparable", None, None, "not comparable", None, None,
                     now.failed)  # fmt: skip
    both = replace(
        new,
        methods=[now, replace(before, name=name + _OLD, twin_of=None)],
        plan=replace(new.plan, looks=1),  # a gate looks once, however the results grew
    )
    (quality,) = compare_pairs(both, level)
    cost = next(iter(compare_costs(both, axis, level)), None)
    size = abs(_centre(before, both))
    change = quality.difference / size if size else math.nan
    # Without a difference, a run had no result: any separated verdict then counts.
    is_worse = quality.verdict == "worse" and not abs(change) <= worse
    is_slower = cost is not None and cost.verdict == "slower" and not cost.difference <= 1 + slower
    status: Status = "worse" if is_worse else "slower" if is_slower else "ok"
    return Check(
        name,
        status,
        quality.verdict,
        _known(change),
        _known(quality.p),
        "not comparable" if cost is None else cost.verdict,
        None if cost is None else _known(cost.difference),
        None if cost is None else _known(cost.p),
        _why(quality, cost, axis or main_axis(new)),
    )


def _method(results: Results, name: str) -> MethodRecord:
    return next(method for method in results.methods if method.name == name)


def _centre(method: MethodRecord, results: Results) -> float:
    return iqm([judged_by(results).of(run) for run in method.runs])


def _why(quality: Pair, cost: Pair | None, axis: Axis) -> str:
    parts = [f"quality: {quality.verdict}" + (f" ({quality.why})" if quality.why else "")]
    if cost is not None:
        apart = "" if math.isnan(cost.difference) else f", {cost.difference:.3g} x as many"
        parts.append(f"cost in {axis}: {cost.verdict}{apart}")
    return "; ".join(parts)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def share(text: str) -> float:
    """Parse a share such as ``5%`` or ``0.05``.

    Raises:
        GateError: it is neither.

    Example:
        >>> share("5%"), share("0.1")
        (0.05, 0.1)
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise GateError(f"expected a share such as 5% or 0.05, got {text!r}")
    return value


def regressions(checks: Sequence[Check]) -> list[str]:
    """The failed checks in words."""
    return [f"{each.method} is {each.status}: {each.why}" for each in checks if not each.ok]
