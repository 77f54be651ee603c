"""A comparison from its command to its report."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import anyorder
from anyorder.compare.plan.entrants import Entrant, resolve, resolve_all
from anyorder.compare.plan.plan import Limits, Plan, PlanError, items, joined, method_entry
from anyorder.compare.progress import Silent
from anyorder.compare.run import pilot as probe
from anyorder.compare.run.environment import cores, environment
from anyorder.compare.run.pool import Pool, WorkerError
from anyorder.compare.scheduler import (
    TUNING_EVALUATIONS,
    Interrupted,
    Keeper,
    Scheduler,
    interrupts,
)
from anyorder.compare.store import results
from anyorder.compare.store.mirror import Mirror
from anyorder.compare.store.results import rates_of, write_whole
from anyorder.compare.store.schema import Results
from anyorder.compare.store.storage import Storage, StorageError, embedded_url
from anyorder.extras import require
from anyorder.problems import ProblemError

#: Room that must be left in the output folder before anything is begun.
ROOM = 8 * 2**20

Report = Callable[[Results, Path], object]


class RefusedError(ProblemError):
    """The check found errors in the problem."""


@dataclass(frozen=True)
class Request:
    """What a user asks for; see :class:`anyorder.compare.plan.plan.Plan` for most fields.

    Attributes:
        problem: name or file of the problem.
        methods: names and import paths of the methods.
        out: folder of the results.
        sets: ``METHOD.NAME=VALUE`` settings that are not searched.
        schedule: None is the problem's own.
        storage: address of a database that several machines share; None is a file in ``out``.
        extend: whether a comparison that has begun may get more seeds and methods.
    """

    problem: str
    methods: tuple[str, ...]
    out: Path
    budget: str = "20s"
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sets: tuple[str, ...] = ()
    tune: int = 4
    seeds: int = 3
    defaults: bool = False
    sampler: str = "qmc"
    schedule: str | None = None
    evaluations: int = 20
    rates: str = "nominal"
    device: str = "cpu"
    autocast: str = "none"
    jobs: int = 1
    threads: int | None = None
    storage: str | None = None
    extend: bool = False


def compare(
    request: Request, progress: Silent | None = None, report: Report | None = None
) -> Results:
    """Run a comparison, or go on with one, and write ``results.json`` and the report.

    Args:
        request: what is asked for.
        progress: whom to tell what is going on; by default nobody.
        report: writes the report into the folder; by default :mod:`anyorder.compare.report.page`.

    Returns:
        The results.

    Raises:
        EntrantError: a method or a setting of one is wrong.
        PlanError: the plan is wrong, or the folder holds a comparison with another one.
        ProblemError: the problem cannot be used; :class:`RefusedError` if the check says so.
        StorageError: folder or database cannot be used.
        Interrupted: the user asked to stop.
        MissingExtraError: a library that comparisons need is not installed.
    """
    progress = progress or Silent()
    for module in ("optuna", "sqlalchemy", "scipy", "jinja2"):
        require(module)
    entrants = resolve_all(request.methods, request.sets)
    _plan(request, entrants, schedule="constant")  # wrong numbers are refused before any work
    _require_device(request.device)
    _prepare_folder(request.out)
    threads = request.threads or max(1, cores() // request.jobs)
    log = str((request.out / "output.log").resolve())
    storage = Storage(request.storage or embedded_url(request.out))
    with interrupts() as asked, Pool(request.jobs, threads, log) as pool, closing(storage):

        def check() -> None:
            if asked.is_set():
                raise Interrupted(f"interrupted before the first run; {_again(request)}")

        described = _ask(pool, "describe", request, check)
        plan = _plan(request, entrants, described["schedule"])
        _agree_with_folder(request, plan)
        plan = storage.begin(plan, extend=request.extend)
        entrants = [resolve(each["spec"], each["name"], each["fixed"]) for each in plan.methods]
        write_whole(request.out / "plan.json", json.dumps(plan.to_dict(), indent=1) + "\n")
        progress.say([each.describe() for each in entrants])
        facts = storage.facts()
        if not facts:
            probed = _probed(_ask(pool, "probe", request, check))
            where = environment(threads, request.jobs, request.device)
            facts = {"problem": described, "probe": probed, "environment": where}
            facts = storage.keep_facts(facts)
        progress.say(_found(plan, facts, entrants))
        _work(
            request, Scheduler(plan, entrants, storage, facts, progress, request.out), pool, asked
        )
        outcomes = storage.outcomes()
        found = results.build(plan, facts, entrants, outcomes, command(request))
    results.write(found, request.out / "results.json")
    (report or _report)(found, request.out)
    return found


def command(request: Request) -> str:
    """The command that repeats, continues or joins a comparison."""
    words = ["anyorder", "compare", request.problem, "--methods", ",".join(request.methods)]
    words += [
        "--budget",
        request.budget,
        "--tune",
        str(request.tune),
        "--seeds",
        str(request.seeds),
    ]
    for name, value in request.options.items():
        words += ["--option", f"{name}={value}"]
    for each in request.sets:
        words += ["--set", each]
    usual = Request("", (), Path())
    for name in (
        "sampler",
        "schedule",
        "evaluations",
        "rates",
        "device",
        "autocast",
        "jobs",
        "threads",
    ):
        value = getattr(request, name)
        if value is not None and value != getattr(usual, name):
            words += [f"--{name}", str(value)]
    words += ["--defaults"] * request.defaults
    words += ["--out", str(request.out)]
    if request.storage:
        words += ["--storage", "URL"]  # it may hold a password
    return shlex.join(words)


def _again(request: Request) -> str:
    return f"go on with: {command(request)}"


# --- Before the start --------------------------------------------------------------------------


def _plan(request: Request, entrants: Iterable[Entrant], schedule: str) -> Plan:
    path = request.problem.partition(".py")[0] + ".py"
    is_file = ".py" in request.problem and Path(path).is_file()
    return Plan(
        problem=request.problem,
        budget=request.budget,
        methods=tuple(method_entry(each) for each in entrants),
        options=json.loads(json.dumps(dict(request.options), default=str)),
        source=hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if is_file else "",
        tune=request.tune,
        seeds=request.seeds,
        defaults=request.defaults,
        sampler=request.sampler,
        schedule=request.schedule or schedule,
        evaluations=request.evaluations,
        rates=request.rates,
        device=request.device,
        autocast=request.autocast,
        jobs=request.jobs,
        threads=request.threads,
        versions={"anyorder": anyorder.__version__, "torch": metadata.version("torch")},
    )


def _require_device(device: str) -> None:
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise PlanError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}"
        ) from error


def _prepare_folder(out: Path) -> None:
    """Make the folder, and find out now rather than later that it cannot be written."""
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        probe_file = out / f".room-{os.getpid()}"
        try:
            probe_file.write_bytes(os.urandom(2**16))
        finally:
            probe_file.unlink(missing_ok=True)
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise StorageError(
            f"cannot write into {out}: {error.strerror or error}. Choose another folder with --out"
        ) from error
    if free < ROOM:
        raise StorageError(
            f"{out} has {free / 2**20:.1f} MiB left, a comparison wants {ROOM / 2**20:.0f}. Make "
            "room or choose another folder with --out"
        )


def _agree_with_folder(request: Request, plan: Plan) -> None:
    """Refuse a folder that holds results of another plan, wherever its runs are stored."""
    path = request.out / "plan.json"
    if not path.exists():
        return
    try:
        stored = Plan.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StorageError(
            f"{path} is damaged or was written by another version ({type(error).__name__}: "
            f"{error}). Choose another folder with --out, or move this one away"
        ) from error
    version = stored.versions.get("anyorder")
    if version != anyorder.__version__:
        raise StorageError(
            f"{request.out} holds results of anyorder {version} and this is "
            f"{anyorder.__version__}; runs of two versions cannot be compared. Choose another "
            "folder with --out, or go on with that version"
        )
    joined(stored, plan, extend=request.extend)


def _ask(pool: Pool, job: str, request: Request, check: Callable[[], None]) -> dict[str, Any]:
    message = {
        "problem": request.problem,
        "options": dict(request.options),
        "device": request.device,
        "autocast": request.autocast,
    }
    try:
        return pool.ask(job, message, check)
    except WorkerError as error:
        raise ProblemError(f"{error}\n{error.trace}".strip()) from error


def _probed(found: dict[str, Any]) -> dict[str, Any]:
    """What the probe found, unless that was an error in the problem."""
    if not found["ok"]:
        errors = [each for each in found["findings"] if each["level"] == "error"]
        lines = [f"{each['topic']}: {_finding(each)}" for each in errors]
        raise RefusedError("the problem cannot be used yet.\n" + "\n".join(lines))
    return found


def _finding(each: Mapping[str, Any]) -> str:
    where = f" ({each['where']})" if each["where"] else ""
    instead = f"\n    {each['instead']}" if each["instead"] else ""
    return f"{each['found']}{where}{instead}"


def _found(plan: Plan, facts: Mapping[str, Any], entrants: Sequence[Entrant]) -> list[str]:
    """What to tell before the first run."""
    needs = [
        {"name": each.name, "needs": each.needs, "settings": each.settings()} for each in entrants
    ]
    rates = rates_of(plan, facts)
    limits = ", ".join(
        f"{value:g} {name}" for name, value in Limits.read(plan.budget, rates).to_dict().items()
    )
    steady = ", ".join(each.name for each in entrants if not each.scheduled)
    except_ = f" (constant for {steady})" * bool(steady and plan.schedule != "constant")
    return [
        *(
            f"{facts['problem']['name']}: {line}"
            for line in probe.describe(facts["probe"], rates, plan.rates)
        ),
        *probe.troubles(facts["probe"], needs),
        f"each run: {limits}; learning rate {plan.schedule}{except_}; {plan.tune} tuning "
        f"runs and {plan.seeds} seeds per method",
    ]


# --- The runs ----------------------------------------------------------------------------------


def _work(request: Request, scheduler: Scheduler, pool: Pool, asked: threading.Event) -> None:
    """Do all runs that nobody else does, and show them to Optuna."""
    plan, facts, storage = scheduler.plan, scheduler.facts, scheduler.storage
    scheduler.prepare()
    title = f"{facts['problem']['name']} {plan.budget} {plan.fingerprint[:6]}"
    spaces = {name: entrant.space for name, entrant in scheduler.entrants.items()}
    mirror = Mirror(storage, title, facts["problem"]["goal"], spaces)
    todo = len(scheduler.items)
    done = sum(state == "done" for state in storage.states().values())
    scheduler.progress.begin(done, todo, plan.jobs, estimate(plan, facts))
    try:
        with Keeper(storage, mirror) as keeper:
            scheduler.work(pool, asked, keeper.check)
    except Interrupted:
        done = sum(state == "done" for state in storage.states().values())
        raise Interrupted(
            f"interrupted; {done} of {todo} runs are finished and kept; {_again(request)}"
        ) from None
    finally:
        scheduler.progress.end()
    while storage.unmirrored(1):
        mirror.update()


def estimate(plan: Plan, facts: Mapping[str, Any]) -> float:
    """Seconds all runs will take together, going by the prices the probe found."""
    rates = rates_of(plan, facts)
    limits = Limits.read(plan.budget, rates)
    costs = facts["probe"]["costs"]
    times = [limits.seconds] if limits.seconds is not None else []
    if limits.forwards is not None:
        times.append(limits.forwards * costs["value"]["seconds"])
    if limits.steps is not None:
        times.append(limits.steps * costs["gradient"]["seconds"])
    todo = items(plan)
    tuning = sum(item.kind == "tune" for item in todo)
    looks = (len(todo) - tuning) * plan.evaluations + tuning * plan.evaluations / TUNING_EVALUATIONS
    whole = len(todo) * min(times) + looks * facts["probe"]["evaluation_seconds"]
    return whole / plan.jobs


def _report(found: Results, out: Path) -> None:
    from anyorder.compare.report import page as report  # draws; nothing before this needs it

    report.write(found, out)
