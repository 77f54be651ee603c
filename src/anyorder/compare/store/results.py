"""Building, writing and reading ``results.json``."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import anyorder
from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.plan.items import Item, best_trial
from anyorder.compare.plan.limits import Limits, prices
from anyorder.compare.plan.plan import Entry, Plan
from anyorder.compare.plan.space import Config, explored, open_edge
from anyorder.compare.run.environment import Environment
from anyorder.compare.run.records import RunRecord
from anyorder.compare.store.schema import (
    SCHEMA,
    Facts,
    MethodRecord,
    Outcome,
    ProblemRecord,
    Rates,
    Results,
    ResultsError,
    Trial,
    TrialCost,
    TuningRecord,
    results_from,
)
from anyorder.compare.store.storage import StorageError
from anyorder.files import write_whole
from anyorder.oracle.kinds import NOMINAL_RATES

Outcomes = Mapping[str, Outcome]


def build(
    plan: Plan, facts: Facts, entrants: Sequence[Entrant], outcomes: Outcomes, command: str
) -> Results:
    """Collect all measurements in the format of ``docs/results.md``.

    Args:
        plan: the plan.
        facts: results of the pilot.
        entrants: the methods, in order.
        outcomes: every finished run by key.
        command: command that repeats the comparison.
    """
    environment = replace(facts.environment, machines=_machines(outcomes))
    methods = [_method(plan, each, outcomes, facts.problem.goal) for each in entrants]
    budget = Limits.read(plan.settings.budget, rates_of(plan, facts)).to_dict()
    return Results(
        schema=SCHEMA,
        created_by=anyorder.__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        plan=plan,
        fingerprint=plan.fingerprint,
        problem=ProblemRecord(
            **asdict(replace(facts.problem, parameters=facts.pilot.parameters)),
            source=plan.source,
        ),
        environment=environment,
        pilot=facts.pilot,
        rates=Rates(plan.settings.rates, dict(NOMINAL_RATES), facts.pilot.measured),
        budget=budget,
        baseline=plan.baseline,
        methods=methods,
        warnings=_warnings(methods, environment, budget),
    )


def rates_of(plan: Plan, facts: Facts) -> dict[str, float]:
    """The prices that a comparison uses."""
    return prices(facts.pilot.measured if plan.settings.rates == "measured" else None)


def score(outcome: Outcome, goal: str) -> tuple[float, float]:
    """Metric and loss of a run, smaller is better; inf if it diverged or failed."""
    record = outcome.record
    if record is None or record.status != "done":
        return math.inf, math.inf
    value, loss = record.final.metric, record.final.loss
    if value is None or loss is None:
        return math.inf, math.inf
    return (value if goal == "min" else -value), loss


def past(outcomes: Iterable[Outcome], goal: str) -> list[tuple[Config, tuple[float, float]]]:
    """Configurations and scores of earlier trials, from which later ones are drawn."""
    return [(outcome.config, score(outcome, goal)) for outcome in outcomes]


def chosen(plan: Plan, method: Entry, tuning: int, outcomes: Outcomes, goal: str) -> int:
    """Index of the trial whose configuration is reported for one tuning of a method."""
    keys = [Item.trial(method.name, tuning, index).key for index in range(plan.trials(method))]
    return best_trial([score(outcomes[key], goal) for key in keys])


def _method(plan: Plan, entrant: Entrant, outcomes: Outcomes, goal: str) -> MethodRecord:
    entry = next(method for method in plan.methods if method.name == entrant.name)
    settings = plan.settings
    if entry.failed is not None:
        return MethodRecord(
            name=entry.name,
            spec=entry.spec,
            class_name=entrant.path,
            version=entry.version,
            order=entrant.order,
            needs=entrant.needs,
            tunings=[],
            runs=[],
            default_runs=[],
            twin_of=entry.twin_of,
            failed=entry.failed,
        )
    tunings = [
        _tuning(plan, entry, entrant, index, outcomes, goal) for index in range(settings.tunings)
    ]
    blocks = range(settings.tunings)
    runs = _done(
        (Item.report(entry.name, t, n) for t in blocks for n in range(settings.seeds)), outcomes
    )
    defaults: list[RunRecord] = []
    if settings.defaults and entry.twin_of is None:
        defaults = _done((Item.default(entry.name, n) for n in range(settings.seeds)), outcomes)
        if tunings[0].chosen == 0:  # the reported runs are runs of the default
            defaults = [run for run in runs if run.tuning == 0]
    return MethodRecord(
        name=entrant.name,
        spec=entrant.spec,
        class_name=entrant.path,
        version=entrant.version,
        order=entrant.order,
        needs=entrant.needs,
        tunings=tunings,
        runs=runs,
        default_runs=defaults,
        twin_of=entry.twin_of,
        failed=_failure(runs),
    )


def _tuning(
    plan: Plan, entry: Entry, entrant: Entrant, index: int, outcomes: Outcomes, goal: str
) -> TuningRecord:
    keys = [Item.trial(entry.name, index, trial).key for trial in range(plan.trials(entry))]
    found = [outcomes[key] for key in keys]
    best = chosen(plan, entry, index, outcomes, goal)
    return TuningRecord(
        index=index,
        trials=[_trial(number, outcome) for number, outcome in enumerate(found)],
        chosen=best,
        settings=plain(entrant.settings(found[best].config if found else {})),
        space=list(explored(entrant.space, plan.settings.tune, past(found, goal))),
    )


def _done(todo: Iterable[Item], outcomes: Outcomes) -> list[RunRecord]:
    records = (outcomes[item.key].record for item in todo)
    return [record for record in records if record is not None]


def _trial(index: int, outcome: Outcome) -> Trial:
    record = outcome.record
    assert record is not None  # only runs of the default can be skipped
    cost = TrialCost(0.0, 0.0, 0)
    if record.curve:
        last = record.curve[-1]
        cost = TrialCost(last.seconds, last.forwards, last.steps)
    return Trial(
        index=index,
        config=outcome.config,
        seed=record.seed,
        value=record.final.metric,
        loss=record.final.loss,
        cost=cost,
        status=record.status,
        error=record.error,
    )


def _failure(runs: Sequence[RunRecord]) -> str | None:
    """Why no run of a method is usable; None if at least one is."""
    if any(run.status == "done" for run in runs):
        return None
    worst = next((run for run in runs if run.status == "failed"), runs[0])
    return f"all {len(runs)} runs {worst.status}: {worst.error}"


def _machines(outcomes: Outcomes) -> list[str]:
    return sorted({outcome.machine for outcome in outcomes.values() if outcome.machine})


def _warnings(
    methods: Sequence[MethodRecord], environment: Environment, budget: Mapping[str, float]
) -> list[str]:
    """Warnings about unequal conditions."""
    says: list[str] = []
    starts: dict[int, set[str]] = {}
    for run in (run for method in methods for run in method.runs if run.start_hash):
        starts.setdefault(run.seed, set()).add(run.start_hash)
    unequal = [str(seed) for seed, hashes in starts.items() if len(hashes) > 1]
    if unequal:
        says.append(
            f"methods did not start at the same point (seed {', '.join(unequal)}): build(seed) of "
            "the problem returns different models in different processes"
        )
    if all(len(method.runs) < 2 for method in methods):
        says.append(
            "one seed per method: nothing here separates a better method from a lucky one; add "
            "seeds with --seeds 5 --extend"
        )
    machines = environment.machines
    if "seconds" in budget and len(machines) > 1:
        says.append(f"seconds of {len(machines)} machines are compared: {', '.join(machines)}")
    load, cores = environment.load, environment.cores
    if load is not None and load + environment.jobs * environment.threads > 1.5 * cores:
        says.append(f"other programs were running (load {load:.1f} on {cores} cores): times vary")
    return says + [line for method in methods for line in _edges(method)]


def _edges(method: MethodRecord) -> list[str]:
    """Chosen values at the edge of their search range, after it was extended where it could be."""
    several = len(method.tunings) > 1
    return [
        f"{method.name}: the best {each.name} ({value:.3g}) is at the {side} edge of the search "
        f"range ({each.low:g} to {each.high:g})" + f" in tuning {tuning.index}" * several
        for tuning in method.tunings
        if tuning.trials
        for each in tuning.space
        if (side := open_edge(each, value := tuning.settings[each.name]))
    ]


# --- Files -------------------------------------------------------------------------------------


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for JSON; other objects are replaced by a description."""
    return {name: json.loads(json.dumps(value, default=str)) for name, value in values.items()}


def keep(path: Path, record: Any) -> None:
    """Write results, or another record, atomically.

    Raises:
        StorageError: the folder cannot be written or is full.
    """
    keep_text(path, json.dumps(asdict(record), indent=1, allow_nan=False) + "\n")


def keep_text(path: Path, text: str) -> None:
    """Write ``text`` to a file atomically.

    Raises:
        StorageError: the folder cannot be written or is full.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}. Free disk space or choose another "
            "folder with --out"
        ) from error


def load(path: Path) -> Results:
    """Read a results file and check it.

    Raises:
        ResultsError: the file is no results file, is damaged, or was written by another version.
    """
    try:
        return results_from(path.read_text(encoding="utf-8"))
    except ResultsError:
        raise
    except (OSError, ValueError) as error:
        raise ResultsError(f"cannot read the results file {path}: {error}") from error


#: Fields of times, memory and environment, at any depth.
_TIMES = frozenset(
    """created command environment pilot measured seconds oracle_seconds optimizer_seconds
    data_seconds warmup_seconds evaluation_seconds compile_seconds peak_bytes base_bytes state_bytes
    warnings traceback""".split()
)


def strip_times(record: Any) -> dict[str, Any]:
    """Return results, or one record, without times, memory and environment.

    With a budget counted in answers, two comparisons with the same plan are equal in this respect,
    even if one of them was killed and continued.
    """
    return cast("dict[str, Any]", _stripped(asdict(record)))


def _stripped(tree: Any) -> Any:
    if isinstance(tree, dict):
        fields = cast("dict[str, Any]", tree)
        return {name: _stripped(part) for name, part in fields.items() if name not in _TIMES}
    if isinstance(tree, list):
        return [_stripped(part) for part in cast("list[Any]", tree)]
    return tree
