"""A race: train one model well within one total budget, without tuning by hand.

Candidates are methods with learning rates around their defaults. They are compared on *completed*
short schedules: in each stage every candidate is trained from the start with the whole
learning-rate schedule, and the best third goes on to longer runs, with further learning rates next
to the best. At least half of the budget is left to train the winner from the start. The
intermediate state of a long run would say little, because runs with a high learning rate only catch
up when it decays.

Runs are executed by the worker processes of a comparison. Each finished run is appended to a
journal, so a killed race is continued by the same command.

References:
    K. Jamieson, A. Talwalkar (2016), Non-stochastic best arm identification and hyperparameter
    optimization. AISTATS 2016 (successive halving).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import anyorder
from anyorder.compare.plan.entrants import resolve_all
from anyorder.compare.plan.limits import bytes_in
from anyorder.compare.racing.journal import Journal
from anyorder.compare.racing.request import RaceRequest, unit_of
from anyorder.compare.racing.track import Track
from anyorder.compare.report.race import Race, text
from anyorder.compare.run.environment import cores
from anyorder.compare.run.pool import Pool, WorkerError
from anyorder.compare.scheduler import Interrupted, interrupts
from anyorder.compare.session import require_device
from anyorder.compare.store.locks import locked
from anyorder.compare.store.results import keep_text
from anyorder.problems import ProblemError, load


def race(
    problem: str,
    *,
    budget: str = "10m",
    out: str | Path | None = None,
    memory: int | str | None = None,
    say: Callable[[str], object] = lambda line: None,
    **more: Any,
) -> Race:
    """Train a model within one total budget, and choose method and learning rate on the way.

    Args:
        problem: a built-in problem, or the path of a problem file.
        budget: total budget of everything, such as ``10m`` or ``30_000grads``.
        out: folder for ``model.pt`` (the ``state_dict``), ``race.json`` and ``race.txt``; default:
            ``races/PROBLEM-BUDGET``. A race that was interrupted continues there.
        memory: largest memory of a run, in bytes or such as ``"8GiB"``.
        say: called with lines on the progress.
        **more: the other fields of :class:`RaceRequest`.

    Returns:
        The outcome; :func:`model_of` returns the model.

    Raises:
        RaceError: the budget is too small, or no candidate is left.
        ProblemError: the problem cannot be used.
        PlanError: the device cannot be used, or the folder contains another race.
        StorageError: the folder cannot be used, or another race runs there.
        Interrupted: the user interrupted the race.
    """
    folder = Path(out) if out is not None else Path("races") / f"{Path(problem).stem}-{budget}"
    limit = bytes_in(memory) if isinstance(memory, str) else memory
    return run_race(RaceRequest(problem, folder, budget, memory=limit, **more), say)


def model_of(found: Race, out: str | Path) -> Any:
    """The trained model of a race, on the CPU.

    Args:
        found: the outcome.
        out: the folder of the race.
    """
    import torch

    model = load(found.problem, **found.options).build(found.seed)
    model.load_state_dict(torch.load(Path(out) / "model.pt", weights_only=True))
    return model


def run_race(request: RaceRequest, say: Callable[[str], object] = lambda line: None) -> Race:
    """Run or continue a race; see :func:`race`."""
    settings, out = request.settings, request.out
    unit_of(request.budget)
    require_device(settings)
    entrants = resolve_all(request.methods, request.sets)
    threads, log = request.threads or cores(), str((out / "output.log").resolve())
    with locked(out, "race"), interrupts() as interrupted, Pool(1, threads, log) as pool:
        journal = Journal(out / "race.jsonl", _plan(request))

        def look() -> None:
            if interrupted.is_set():
                raise Interrupted(f"interrupted; continue with: {request.command}")

        try:
            described = pool.ask("describe", settings, look)
        except WorkerError as error:
            raise ProblemError(f"{error}\n{error.trace}".strip()) from error
        if settings.schedule is None:
            settings = replace(settings, schedule=described.schedule)
        found = Track(request, settings, described, entrants, journal, pool, look, say).run()
        keep_text(out / "race.json", json.dumps(asdict(found), indent=1, allow_nan=False) + "\n")
        keep_text(out / "race.txt", text(found))
    return found


def _plan(request: RaceRequest) -> dict[str, Any]:
    """Everything that must be equal for a race to continue."""
    named = {name: part for name, part in asdict(request).items() if name not in ("out", "timeout")}
    return json.loads(json.dumps({"anyorder": anyorder.__version__, **named}, default=str))
