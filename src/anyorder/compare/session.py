"""A comparison, from the command to the report."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import anyorder
from anyorder.compare.plan.entrants import Entrant, EntrantError, resolve_all, suited
from anyorder.compare.plan.limits import Limits
from anyorder.compare.plan.plan import Plan, PlanError, joined
from anyorder.compare.plan.settings import Settings
from anyorder.compare.progress import Silent
from anyorder.compare.run import memory, pilot
from anyorder.compare.run.environment import cores, environment
from anyorder.compare.run.estimate import timeout
from anyorder.compare.run.pacing import expected
from anyorder.compare.run.pool import Pool, WorkerError
from anyorder.compare.run.records import Described
from anyorder.compare.scheduler import Interrupted, Keeper, Scheduler, interrupts
from anyorder.compare.store import results
from anyorder.compare.store.mirror import Mirror
from anyorder.compare.store.results import rates_of
from anyorder.compare.store.schema import Facts, Results, ResultsError, read
from anyorder.compare.store.storage import Storage, StorageError, embedded_url
from anyorder.extras import require
from anyorder.problems import ProblemError

#: Required free space in the output folder, in bytes.
ROOM = 8 * 2**20
#: Settings that the command to repeat a comparison includes even if they are defaults.
_NAMED = ("budget", "tune", "seeds")

Report = Callable[[Results, Path], object]


@dataclass(frozen=True)
class Request:
    """The request for a comparison.

    Attributes:
        settings: conditions that are equal for all methods.
        methods: names and import paths of the methods.
        out: folder of the results.
        sets: ``METHOD.NAME=VALUE`` settings that are not tuned.
        spaces: ``METHOD.NAME=RANGE`` ranges to search in, such as ``sgd.lr=log:1e-3..10``.
        storage: URL of a database shared by several machines; None: a file in ``out``.
        extend: whether to add seeds and methods to an existing comparison.
    """

    settings: Settings
    methods: tuple[str, ...]
    out: Path
    sets: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ()
    storage: str | None = None
    extend: bool = False


def compare(
    request: Request, progress: Silent | None = None, report: Report | None = None
) -> Results:
    """Run or continue a comparison, and write ``results.json`` and the report.

    Args:
        request: methods, settings and folder.
        progress: progress output; default: none.
        report: function that writes the report into the folder; default:
            :mod:`anyorder.compare.report.page`.

    Returns:
        The results.

    Raises:
        EntrantError: a method or a setting of one is wrong.
        PlanError: the device cannot be used, or the folder contains a comparison with another plan.
        ProblemError: the problem cannot be used.
        StorageError: folder or database cannot be used.
        ResultsError: the content of folder or database is damaged.
        Interrupted: the user interrupted the comparison.
        MissingExtraError: a required library is not installed.
    """
    progress = progress or Silent()
    for module in ("optuna", "sqlalchemy", "scipy", "jinja2"):
        require(module)
    settings, out = request.settings, request.out
    entrants = resolve_all(request.methods, request.sets, request.spaces)
    require_device(settings)
    _prepare_folder(out)
    threads = settings.threads or max(1, cores() // settings.jobs)
    log = str((out / "output.log").resolve())
    with contextlib.ExitStack() as stack:
        interrupted = stack.enter_context(interrupts())
        pool = stack.enter_context(Pool(settings.jobs, threads, log))

        def pause(seconds: float) -> None:
            if interrupted.wait(seconds):
                raise Interrupted(f"interrupted while waiting for the database; {_again(request)}")

        storage = stack.enter_context(
            closing(
                Storage(
                    request.storage or embedded_url(out),
                    say=lambda line: progress.say([line]),
                    pause=pause,
                )
            )
        )

        def check() -> None:
            if interrupted.is_set():
                raise Interrupted(f"interrupted before the first run; {_again(request)}")

        _load_engines()
        described = _ask(pool, "describe", settings, check)
        if settings.schedule is None:
            settings = replace(settings, schedule=described.schedule)
        wanted = _plan(settings, _suited(entrants, described))
        _agree_with_folder(request, wanted)
        plan = storage.begin(wanted, extend=request.extend)
        results.keep(out / "plan.json", plan)
        plan = _here(plan, settings)
        entrants = [each.entrant() for each in plan.methods]
        progress.say([each.describe() for each in entrants])
        facts = storage.facts()
        if facts is None:
            found = _ask(pool, "pilot", settings, check)
            where = environment(threads, settings.jobs, settings.device)
            facts = storage.keep_facts(Facts(described, found, where))
        usable = [each for each in entrants if each.failed is None]
        progress.say(_found(plan, facts, usable))
        scheduler = Scheduler(plan, entrants, storage, facts, progress, out)
        scheduler.expected = expected(plan, scheduler.rates, storage.states(), pool, check)
        _work(request, scheduler, pool, interrupted)
        done = results.build(plan, facts, entrants, storage.outcomes(), command(request))
    results.keep(out / "results.json", done)
    (report or _report)(done, out)
    return done


def command(request: Request) -> str:
    """The command that repeats, continues or joins a comparison."""
    settings = request.settings
    usual = Settings(settings.problem)
    words = ["anyorder", "compare", settings.problem, "--methods", ",".join(request.methods)]
    for name in (each.name for each in fields(Settings)):
        value = getattr(settings, name)
        if name in ("problem", "options") or (name not in _NAMED and value == getattr(usual, name)):
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    for name, value in settings.options.items():
        words += ["--option", f"{name}={value}"]
    for each in request.sets:
        words += ["--set", each]
    for each in request.spaces:
        words += ["--space", each]
    words += ["--out", str(request.out)]
    if request.storage:
        words += ["--storage", "URL"]  # it may contain a password
    return shlex.join(words)


def _again(request: Request) -> str:
    return f"continue with: {command(request)}"


# --- Before the start --------------------------------------------------------------------------


def _suited(entrants: Iterable[Entrant], described: Described) -> list[Entrant]:
    """Return the methods, with those marked as failed that cannot be used on the problem."""
    found = [
        suited(each, described.name, described.parameters, judged=described.judged)
        for each in entrants
    ]
    if all(each.failed is not None for each in found):
        raise EntrantError("; ".join(f"{each.name}: {each.failed}" for each in found))
    return found


def _plan(settings: Settings, entrants: Iterable[Entrant]) -> Plan:
    spec = settings.problem
    path = Path(spec if spec.endswith(".py") else spec.rpartition(":")[0])
    is_file = path.suffix == ".py" and path.is_file()
    return Plan.of(
        settings,
        entrants,
        source=hashlib.sha256(path.read_bytes()).hexdigest()[:16] if is_file else "",
        versions={"anyorder": anyorder.__version__, "torch": metadata.version("torch")},
    )


def _here(plan: Plan, settings: Settings) -> Plan:
    """The plan with the settings that may differ from process to process."""
    own = {name: getattr(settings, name) for name in ("jobs", "threads", "timeout")}
    return replace(plan, settings=replace(plan.settings, **own))


@cache
def _load_engines() -> None:
    """Import what Optuna and SQLAlchemy import late: two threads must not be the first to do so."""
    require("optuna").storages.RDBStorage("sqlite://")


def require_device(settings: Settings) -> None:
    """Check that runs can use the device, and be held to the memory limit.

    Raises:
        PlanError: the device cannot be used, or the memory of a run cannot be measured.
    """
    import torch

    device = settings.device
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise PlanError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}"
        ) from error
    if settings.memory is not None and not memory.measurable(device):
        raise PlanError(
            f"memory: this system cannot measure the peak memory of a run on {device!r}; leave "
            "--memory out, or use Linux or a GPU"
        )


def _prepare_folder(out: Path) -> None:
    """Create the folder, and check early that it can be written."""
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        trial = out / f".room-{os.getpid()}"
        try:
            trial.write_bytes(os.urandom(2**16))
        finally:
            trial.unlink(missing_ok=True)
        free = shutil.disk_usage(out).free
    except OSError as error:
        raise StorageError(
            f"cannot write into {out}: {error.strerror or error}. Choose another folder with --out"
        ) from error
    if free < ROOM:
        raise StorageError(
            f"{out} has {free / 2**20:.1f} MiB left, a comparison needs {ROOM / 2**20:.0f} MiB. "
            "Free disk space or choose another folder with --out"
        )


def _agree_with_folder(request: Request, plan: Plan) -> None:
    """Reject a folder with results of another plan."""
    path = request.out / "plan.json"
    if not path.exists():
        return
    try:
        text = path.read_text(encoding="utf-8")
        version = json.loads(text)["versions"]["anyorder"]
        if version != anyorder.__version__:
            raise StorageError(
                f"{request.out} contains results of anyorder {version} and this is "
                f"{anyorder.__version__}; runs of two versions cannot be compared. Choose another "
                "folder with --out, or continue with that version"
            )
        stored = read(Plan, text, "plan")
    except StorageError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        what = str(error) if isinstance(error, ResultsError) else f"{type(error).__name__}: {error}"
        raise StorageError(
            f"{path} is damaged or was written by another version ({what}). Choose another folder "
            "with --out, or move this one away"
        ) from error
    joined(stored, plan, extend=request.extend)


def _ask(pool: Pool, job: str, settings: Settings, check: Callable[[], None]) -> Any:
    try:
        limit = None if settings.timeout is None else timeout(settings)
        return pool.ask(job, settings, check, limit)
    except WorkerError as error:
        raise ProblemError(f"{error}\n{error.trace}".strip()) from error


def _found(plan: Plan, facts: Facts, entrants: Sequence[Entrant]) -> list[str]:
    """Messages before the first run."""
    settings, rates = plan.settings, rates_of(plan, facts)
    limits = Limits.read(settings.budget, rates).to_dict()
    each_run = ", ".join(f"{value:g} {name}" for name, value in limits.items())
    steady = ", ".join(each.name for each in entrants if not each.scheduled)
    except_ = f" (constant for {steady})" * bool(steady and settings.schedule != "constant")
    return [
        *(
            f"{facts.problem.name}: {line}"
            for line in pilot.describe(facts.pilot, rates, settings.rates)
        ),
        *pilot.troubles(facts.pilot, entrants),
        f"each run: {each_run}; learning rate {settings.schedule}{except_}; "
        f"{settings.tunings} x {settings.tune} trials and {settings.tunings} x {settings.seeds} "
        "reported runs per method",
    ]


# --- The runs ----------------------------------------------------------------------------------


def _work(request: Request, scheduler: Scheduler, pool: Pool, interrupted: threading.Event) -> None:
    """Execute all runs that no other process executes, and mirror them to Optuna."""
    plan, facts, storage = scheduler.plan, scheduler.facts, scheduler.storage
    scheduler.prepare()
    title = f"{facts.problem.name} {plan.settings.budget} {plan.fingerprint[:6]}"
    spaces = {name: entrant.space for name, entrant in scheduler.entrants.items()}
    mirror = Mirror(storage, title, facts.problem.goal, spaces)
    todo = len(scheduler.items)
    scheduler.progress.begin(todo, scheduler.expected, plan.settings.jobs)
    try:
        with Keeper(storage, mirror) as keeper:
            scheduler.work(pool, interrupted, keeper.check)
    except Interrupted:
        done = sum(state == "done" for state in storage.states().values())
        raise Interrupted(
            f"interrupted; {done} of {todo} runs are finished and kept; {_again(request)}"
        ) from None
    finally:
        scheduler.progress.end()
    mirror.finish()


def _report(found: Results, out: Path) -> None:
    from anyorder.compare.report import page as report  # imported late: only needed here

    report.write(found, out)
