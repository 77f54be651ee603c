"""The outcome of a suite: what each method reached on each problem, and scores over all of them.

The target on a problem is what the tuned baseline reached at 75 % of its budget (see
:func:`~anyorder.compare.stats.targets.ladder`), so that every problem has one that is neither
trivial nor out of reach.

A further line shows the *best of the defaults*: on each problem the method whose default setting
has the best validation metric. Trying several methods at their defaults can be as good as tuning
one of them, so a method that is worth tuning has to be better.

References:
    R. M. Schmidt, F. Schneider, P. Hennig (2021), Descending through a crowded valley. ICML 2021.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from anyorder.compare.run.records import RunRecord
from anyorder.compare.stats.estimators import iqm
from anyorder.compare.stats.leaderboard import summarise as leaderboard
from anyorder.compare.stats.records import Criterion, judged_by, main_axis
from anyorder.compare.stats.suite import RATIOS, Costs, Suite, costs, judge
from anyorder.compare.stats.targets import main_target, time_to_target
from anyorder.compare.store.schema import MethodRecord, Results

#: Version of the format of ``suite.json``.
SUITE_SCHEMA = 1
#: Least cost, in budgets: a target that the initial model reaches would cost nothing.
LEAST = 1e-3


@dataclass(frozen=True)
class Place:
    """One method on one problem; None: no result.

    Attributes:
        method: The method.
        judged: Interquartile mean of the judged number with the tuned setting.
        default: The same with the default setting.
        cost: Expected cost of the tuned setting to the target, in budgets; None if never reached.
        default_cost: The same for the default setting.
        failed: Why there is no result.
    """

    method: str
    judged: float | None
    default: float | None
    cost: float | None
    default_cost: float | None
    failed: str | None


@dataclass(frozen=True)
class Solved:
    """One problem of a suite.

    Attributes:
        problem: Its name.
        kind: What kind of data it has.
        options: Its options.
        budget: Budget of a run.
        judged_by: The judged number in words.
        goal: Whether it should be small or large.
        target: Value of the validation metric to reach; None if the baseline has no result.
        places: The methods, best first.
        best_default: The method whose default has the best validation metric; None without any.
    """

    problem: str
    kind: str
    options: dict[str, Any]
    budget: str
    judged_by: str
    goal: str
    target: float | None
    places: list[Place]
    best_default: str | None

    def place(self, method: str) -> Place:
        """The outcome of one method."""
        return next(each for each in self.places if each.method == method)


@dataclass(frozen=True)
class Overview:
    """The content of ``suite.json``.

    Attributes:
        schema: Version of the format.
        suite: Name of the suite.
        created_by: Version of the library.
        created: Time of the last run.
        command: Command that repeats or continues it.
        settings: Conditions of all comparisons.
        baseline: The method that sets the targets.
        methods: All methods.
        problems: The problems that were run.
        left_out: Reasons why others were not, by name.
        ratios: Cost ratios of the profiles.
        scores: Scores over the problems, best first, with a line for the best of the defaults.
        agreement: Sentence on whether the summaries agree.
    """

    schema: int
    suite: str
    created_by: str
    created: str
    command: str
    settings: dict[str, Any]
    baseline: str
    methods: list[str]
    problems: list[Solved]
    left_out: dict[str, str]
    ratios: list[float]
    scores: list[dict[str, Any]]
    agreement: str


def best_of(count: int) -> str:
    """Name of the line for the best of the defaults of ``count`` methods."""
    return f"best of {count} defaults"


def solved(results: Results, kind: str) -> Solved:
    """What each method reached on one problem, best first."""
    results, criterion = _with_target(results), judged_by(results)
    target, rows = main_target(results), leaderboard(results)
    named = {method.name: method for method in results.methods}
    validation = Criterion("metric", results.problem.metric, results.problem.goal)
    budget = results.budget[main_axis(results)]
    defaults = {
        name: _mean(method.default_runs, validation)
        for name, method in named.items()
        if method.default_runs
    }
    sign = 1.0 if validation.goal == "min" else -1.0
    places = [
        Place(
            method=row.name,
            judged=_known(row.judged),
            default=_known(_mean(named[row.name].default_runs, criterion)),
            cost=None if row.target_cost is None else _known(row.target_cost / budget),
            default_cost=_known(_default_cost(results, named[row.name])),
            failed=_reason(named[row.name].failed),
        )
        for row in rows
        if not row.twin
    ]
    return Solved(
        problem=results.problem.name,
        kind=kind,
        options=results.problem.options,
        budget=results.plan.settings.budget,
        judged_by=criterion.name,
        goal=criterion.goal,
        target=None if target is None else target.value,
        places=places,
        best_default=min(defaults, key=lambda name: sign * defaults[name], default=None),
    )


def scored(comparisons: Sequence[Results]) -> Suite:
    """Scores of all methods over all problems, with a line for the best of the defaults.

    The methods themselves are the reference, so that this line changes none of their scores.
    """
    found = costs([_with_target(each) for each in comparisons])
    line = [_best_default_cost(each) for each in comparisons]
    table = np.maximum(np.vstack([found.table, line]), LEAST)
    names = (*found.methods, best_of(len(found.methods)))
    suite = judge(Costs(names, found.problems, table), reference=found.methods)
    # The line repeats the costs of methods, so its rank means little.
    return Suite(suite.scores, [pair for pair in suite.disagreements if names[-1] not in pair])


def overview(
    comparisons: Mapping[str, tuple[str, Results]], left_out: Mapping[str, str], **about: Any
) -> Overview:
    """Put the comparisons of a suite together.

    Args:
        comparisons: Kind and results, by problem; at least one.
        left_out: Reasons by problem that was not run.
        about: The remaining fields: ``suite``, ``created_by``, ``created``, ``command`` and
            ``settings``.
    """
    every = [results for _, results in comparisons.values()]
    suite = scored(every)
    return Overview(
        schema=SUITE_SCHEMA,
        **about,
        baseline=every[0].baseline,
        methods=[each.name for each in every[0].methods if each.twin_of is None],
        problems=[solved(results, kind) for kind, results in comparisons.values()],
        left_out=dict(left_out),
        ratios=list(RATIOS),
        scores=[
            {
                "method": score.method,
                "ratio": score.ratio,
                "rank": score.rank,
                "profile": list(score.profile),
                "solved": score.solved,
            }
            for score in suite.scores
        ],
        agreement=str(suite),
    )


def _with_target(results: Results) -> Results:
    """The results with the target that the baseline sets, whatever the problem's own."""
    return replace(results, problem=replace(results.problem, target=None))


def _mean(runs: Sequence[RunRecord], criterion: Criterion) -> float:
    return iqm([criterion.of(run) for run in runs]) if runs else math.nan


def _default_cost(results: Results, method: MethodRecord) -> float:
    """Expected cost of the default setting to the target, in budgets."""
    target, axis = main_target(results), main_axis(results)
    if target is None or not method.default_runs:
        return math.inf
    reach = time_to_target(method.default_runs, target.value, results.problem.goal, axis)
    return reach.expected / results.budget[axis]


def _best_default_cost(results: Results) -> float:
    results = _with_target(results)
    best = solved(results, "").best_default
    method = next((each for each in results.methods if each.name == best), None)
    return math.inf if method is None else _default_cost(results, method)


def _reason(text: str | None) -> str | None:
    """Why a method has no result, without the place in a file, which differs between machines."""
    return None if text is None else re.sub(r" at \S+:\d+(?=: )", "", text)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
