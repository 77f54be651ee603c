"""Results to make reports of: measured ones, made up ones, and hostile ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from anyorder.compare.plan.entrants import resolve_all
from anyorder.compare.plan.items import Item, Task, items
from anyorder.compare.plan.plan import Entry, Plan
from anyorder.compare.plan.seeds import BLOCK, stream
from anyorder.compare.plan.settings import Settings
from anyorder.compare.plan.space import Dimension, configuration
from anyorder.compare.run.environment import Environment
from anyorder.compare.run.records import (
    Cost,
    Costs,
    Described,
    Final,
    Noise,
    Pilot,
    Point,
    RunRecord,
    failed_run,
)
from anyorder.compare.run.runner import run as run_task
from anyorder.compare.store import results as storing
from anyorder.compare.store.schema import (
    SCHEMA,
    Facts,
    MethodRecord,
    Outcome,
    ProblemRecord,
    Rates,
    Results,
    Trial,
    TrialCost,
    TuningRecord,
    results_from,
    text_of,
)
from anyorder.oracle.ledger import NOMINAL_RATES
from anyorder.problems import load
from anyorder.problems.check import Finding

MEASURED: dict[str, float | None] = {
    "values": 1.0, "grads": 2.82, "products": None, "ranked": 1.0
}  # fmt: skip
ENVIRONMENT = Environment(
    computer={"python": "3.11", "torch": "2.6", "cpu": "Abacus", "platform": "Linux x86_64"},
    machine="m", cores=2, threads=1, jobs=1, device="cpu", load=0.0, git=None, machines=["m"],
)  # fmt: skip


def pilot(**changes: Any) -> Pilot:
    """What a pilot found."""
    found = Pilot(
        parameters=17226,
        findings=[],
        deterministic=True,
        noise=Noise(16, 2.31, 0.02),
        costs={"value": Cost(1.1e-4, 0), "gradient": Cost(3.1e-4, 4096)},
        second_derivative="no product here",
        in_parts=True,
        evaluation_seconds=0.0123,
        measured=dict(MEASURED),
    )
    return replace(found, **changes)


def facts(**problem: Any) -> Facts:
    """What was found before the first run."""
    described = Described("p", "p", {}, "loss", "min", None, 0.0, "constant")
    return Facts(replace(described, **problem), pilot(), ENVIRONMENT)


def plan(*methods: str, **settings: Any) -> Plan:
    """A plan of methods of this library."""
    entries = [Entry.of(each) for each in resolve_all(methods)]
    wanted = {
        "problem": "p", "budget": "20grads", "schedule": "constant", "defaults": False,
        "twin": False, **settings,
    }  # fmt: skip
    return Plan(Settings(**wanted), entries, "", {"anyorder": "0", "torch": "0"})


def task(method: str = "sgd", item: Item | None = None, **settings: Any) -> Task:
    """What a worker is sent."""
    one = plan(method, **settings)
    item = item or Item.report(method, 0, 0)
    return Task(one.settings, one.methods[0], item, {}, dict(NOMINAL_RATES))


def measured(
    names: Sequence[str],
    problem: str = "digits",
    sets: Sequence[str] = (),
    spaces: Sequence[str] = (),
    **settings: Any,
) -> Results:
    """A comparison that is really run, in this process."""
    described, found = load(problem), pilot()
    entrants = resolve_all(names, sets, spaces)
    wished: dict[str, Any] = {"defaults": False, "twin": False, **settings}
    chosen = Settings(problem, schedule="constant", **wished)
    wanted = Plan(chosen, [Entry.of(each) for each in entrants], "", {})
    outcomes: dict[str, Outcome] = {}
    told = Described(
        problem, problem, {}, described.metric, described.goal, described.target,
        described.optimum, described.schedule,
    )  # fmt: skip
    found.findings = [
        Finding(
            "warning",
            "loss",
            "differs from finite differences by 3 %",
            "Look for a step in the loss.",
        )
    ]
    for item in items(wanted):
        entry = next(each for each in wanted.methods if each.name == item.method)
        entrant = next(each for each in entrants if each.name == item.method)
        if item.kind == "report":
            best = storing.chosen(wanted, entry, item.tuning, outcomes, described.goal)
            key = Item.trial(item.method, item.tuning, best).key
            config = outcomes[key].config if key in outcomes else {}
        else:
            keys = [Item.trial(item.method, item.tuning, i).key for i in range(item.index)]
            config = configuration(
                entrant.space,
                max(item.index, 0),
                trials=chosen.tune,
                sampler="qmc",
                stream=stream(item.method, item.tuning),
                past=storing.past([outcomes[key] for key in keys], described.goal),
            )
        job = Task(chosen, entry, item, config, dict(NOMINAL_RATES))
        record = run_task(described, entrant, job)
        record.warmup_seconds = 0.01
        outcomes[item.key] = Outcome(config, entrant.settings(config), record, "m")
    known = Facts(told, found, ENVIRONMENT)
    words = f"anyorder compare {problem} --methods {','.join(names)}"
    return results_from(text_of(storing.build(wanted, known, entrants, outcomes, words)))


# --- Made up -----------------------------------------------------------------------------------


def costs(**changes: int) -> Costs:
    """A ledger."""
    return replace(Costs(0, 0, 0, 0, 0, 0, 0, 0), **changes)


def point(**changes: Any) -> Point:
    """One evaluation."""
    return replace(Point(1.0, 1.0, 1.0, costs(), 1, None, None, None, 0.0, 0.0, 0.0, 0), **changes)


def run(seed: int, values: Sequence[float | None], **more: Any) -> RunRecord:
    """A run with these validation losses, whose metric is 1 minus the loss."""
    curve = [
        point(
            fraction=i / 5,
            seconds=0.5 * i,
            forwards=30.0 * i,
            calls=costs(grads=10 * i),
            steps=10 * i,
            train_loss=value,
            val_loss=value,
            metric=None if value is None else 1 - value,
            oracle_seconds=0.3 * i,
            optimizer_seconds=0.2 * i,
        )
        for i, value in enumerate(values)
    ]
    last = values[-1] if values else None
    made = RunRecord(
        seed=seed,
        tuning=seed // BLOCK,
        config={},
        start_hash=f"s{seed}",
        status="done",
        stop_reason="budget",
        error=None,
        traceback=None,
        curve=curve,
        final=Final(last, None if last is None else 1 - last),
        test=None,
        peak_bytes=1 << 20,
        base_bytes=0,
        state_bytes=1 << 10,
        warmup_seconds=0.0,
        evaluation_seconds=0.0,
        compile_seconds=0.0,
        warnings=[],
        resampled=[],
    )
    return lost(made, **more) if more.get("status", "done") != "done" else replace(made, **more)


def lost(one: RunRecord, status: str = "diverged", **more: Any) -> RunRecord:
    """The same run, but without a result."""
    reason = "diverged" if status == "diverged" else "error"
    changes: dict[str, Any] = {"error": "the loss is nan", "final": Final(None, None), **more}
    return replace(one, status=status, stop_reason=reason, **changes)  # type: ignore[arg-type]


def tuned(
    settings: dict[str, Any] | None = None,
    space: Sequence[Dimension] = (),
    trials: Sequence[Trial] = (),
    chosen: int = 0,
    index: int = 0,
) -> TuningRecord:
    """A tuning."""
    return TuningRecord(index, list(trials), chosen, settings or {"lr": 0.1}, list(space))


def method(name: str, runs: list[RunRecord], **more: Any) -> MethodRecord:
    """A method with these runs; what is said of its tuning holds for its only one."""
    said = {key: more.pop(key) for key in ("settings", "space", "trials", "chosen") if key in more}
    made = MethodRecord(
        name=name,
        spec=name,
        class_name=f"x.{name}",
        version="x 1",
        order=1,
        needs=["grad"],
        tunings=[tuned(**said)],
        runs=runs,
        default_runs=[],
        twin_of=None,
        failed=None,
    )
    return replace(made, **more)


def trial(index: int, value: float | None, status: str = "done", **config: Any) -> Trial:
    """A tuning run."""
    cost = TrialCost(1.0, 30.0 + index, 10)
    error = None if status == "done" else "boom"
    return Trial(index, config, 1000, value, value, cost, status, error)  # type: ignore[arg-type]


def searched(name: str = "lr", low: float = 1e-4, high: float = 1.0) -> Dimension:
    """A searched hyper-parameter."""
    return Dimension(name, "log", low, low, high)


def results(*methods: MethodRecord, budget: str = "150forwards", **problem: Any) -> Results:
    """A comparison of these methods."""
    settings = Settings(
        "made up", budget=budget, tune=0, schedule="constant", defaults=False, twin=False
    )
    described: dict[str, Any] = {
        "name": "made up", "spec": "made up", "options": {}, "metric": "score", "goal": "max",
        "target": 0.8, "optimum": None, "schedule": "constant", "parameters": 7, "source": "",
    }  # fmt: skip
    return Results(
        schema=SCHEMA,
        created_by="0.1.0",
        created="2026-01-02T03:04:05+00:00",
        command="anyorder compare 'made up'",
        plan=Plan(settings, [Entry(m.name, m.spec, m.version, {}, False) for m in methods], "", {}),
        fingerprint="f",
        problem=ProblemRecord(**described | problem),
        environment=ENVIRONMENT,
        pilot=pilot(),
        rates=Rates("nominal", dict(NOMINAL_RATES), dict(MEASURED)),
        budget={"forwards": 150.0},
        baseline=methods[0].name if methods else "",
        methods=list(methods),
        warnings=[],
    )


def made_up(losses: dict[str, list[list[float | None]]], **problem: Any) -> Results:
    """Results from nothing but the losses of every run of every method."""
    return results(
        *(
            method(name, [run(i, values) for i, values in enumerate(runs)])
            for name, runs in losses.items()
        ),
        **problem,
    )


# --- Hostile ones ------------------------------------------------------------------------------


def hostile() -> dict[str, Results]:
    """Results that a report must survive, by what is odd about them; all can be read back."""
    made = _hostile()
    return {name: results_from(text_of(each)) for name, each in made.items()}


def _hostile() -> dict[str, Results]:
    fine: dict[str, list[list[float | None]]] = {
        "a": [[1.0, 0.5 + 0.01 * s, 0.2, 0.1 + 0.01 * s] for s in range(3)],
        "b": [[1.0, 0.6, 0.4, 0.3 + 0.02 * s] for s in range(3)],
    }
    one = made_up({name: runs[:1] for name, runs in fine.items()})
    failed = made_up({name: [[1.0]] * 3 for name in fine})
    for each in failed.methods:
        each.failed = "all 3 runs failed: RuntimeError: no"
        each.runs = [failed_run(task(), "RuntimeError: no") for _ in each.runs]
        for seed, record in enumerate(each.runs):
            record.seed = seed
    nan = made_up(fine)
    nan.methods[0].runs[1] = run(1, [1.0, None], status="diverged", error="NaN")
    both = [trial(0, None, "diverged", lr=0.1), trial(1, None, "failed", lr=1.0)]
    nan.methods[1].tunings = [tuned(space=[searched()], trials=both)]
    shouting = (
        "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    )
    names = made_up({f"{shouting}{i}": runs for i, runs in enumerate(fine.values())})
    names.problem.name = names.problem.metric = "</script><b>"
    names.warnings = [shouting]
    names.command = f"anyorder '{shouting}'"
    names.methods[0].runs[0] = lost(
        names.methods[0].runs[0], "failed", error=f"{shouting}\n| `x` |"
    )
    names.methods[1].tunings = [tuned({shouting: shouting})]
    twelve = {
        f"method number {i:02d}": [
            [1.0, 0.9 - 0.05 * i, 0.5, 0.5 - 0.03 * i + 0.004 * s] for s in range(3)
        ]
        for i in range(12)
    }
    return {
        "one seed": one,
        "all failed": failed,
        "nan": nan,
        "exploding": made_up({"up": [[1.0, 50.0, 1e30]] * 3, "down": [[1.0, 0.1, 1e-6]] * 3}),
        "no target": made_up(fine, target=None),
        "constant": made_up({name: [[0.5, 0.5, 0.5]] * 3 for name in "ab"}),
        "twelve": made_up(twelve),
        "names": names,
        "optimum": made_up(
            {"a": [[1.0, 0.1, 0.0]] * 3, "b": [[1.0, 0.01, -1e-12]] * 3}, optimum=0.0
        ),
        "no methods": made_up({}),
        "empty curves": made_up({"a": [[], [], []]}),
    }


def as_json(record: Any) -> Any:
    """A record as a script would read it."""
    return json.loads(text_of(record))
