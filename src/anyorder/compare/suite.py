"""A suite: ordinary comparisons on several problems, and a summary over them.

A suite is data: :data:`PARTS` are the problems, and :data:`LEVELS` say how long and how often each
method is run on them. Every problem is one comparison in a folder of its own, so a suite is
continued by running it again.
"""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyorder
from anyorder.compare.plan.settings import Settings
from anyorder.compare.progress import Silent
from anyorder.compare.report import suite as report
from anyorder.compare.scheduler import Interrupted
from anyorder.compare.session import Request, compare
from anyorder.compare.stats.overview import Overview, overview
from anyorder.compare.store.locks import locked
from anyorder.compare.store.schema import Results
from anyorder.errors import AnyOrderError
from anyorder.problems import ProblemError
from anyorder.problems.registry import nearest


class SuiteError(AnyOrderError, ValueError):
    """A suite that does not exist, or a problem that is not in it."""


@dataclass(frozen=True)
class Part:
    """One problem of the suite.

    Attributes:
        problem: its name.
        kind: what kind of data and model it has.
        grads: budget of a run at the level ``quick``, in gradients.
        options: its options.
    """

    problem: str
    kind: str
    grads: int
    options: dict[str, Any] = field(default_factory=dict[str, Any])


#: The problems, all on real data. There is none with two levels (bilevel) yet.
PARTS = (
    Part("cancer", "table, convex", 100),
    Part("adult", "table", 150),
    Part("eclipses", "black box", 300),
    Part("digits", "images", 150),
    Part("fashion", "images", 60),
    Part("spam", "text, imbalanced", 150),
    Part("banking", "text, 77 classes", 150),
    Part("polarity", "text, embeddings", 100),
    Part("stdlib-lm", "text, language model", 50),
    Part("encoder", "text, pretrained encoder", 40),
)

#: Methods that take part by default: first-order methods that work on every problem.
METHODS = ("adamw", "exadam", "lion", "schedule_free_adamw", "sgd")


@dataclass(frozen=True)
class Level:
    """How much is done on each problem.

    Attributes:
        about: in words.
        longer: multiple of the quick budget.
        settings: settings that are equal for all problems.
    """

    about: str
    longer: int
    settings: dict[str, Any]


LEVELS = {
    "quick": Level(
        "defaults only, about two minutes on two idle cores",
        1,
        {"tune": 0, "seeds": 2, "evaluations": 10, "twin": False},
    ),
    "standard": Level("one tuning of each method", 4, {"tune": 4, "seeds": 3}),
    "verdict": Level(
        "several tunings: statements about methods", 4, {"tune": 8, "tunings": 6, "seeds": 2}
    ),
}


@dataclass(frozen=True)
class SuiteRequest:
    """The request for a suite.

    Attributes:
        level: one of :data:`LEVELS`.
        out: folder of the results, with one folder per problem.
        methods: names and import paths of the methods.
        problems: names of the problems to run; empty: all.
        jobs: parallel runs.
        threads: threads per run; None: cores / jobs.
        budget: another budget of a run on every problem; None: that of the problem and the level.
    """

    level: str
    out: Path
    methods: tuple[str, ...] = METHODS
    problems: tuple[str, ...] = ()
    jobs: int = 1
    threads: int | None = None
    budget: str | None = None

    def __post_init__(self) -> None:
        """Check the names."""
        _require("suite", self.level, list(LEVELS))
        for name in self.problems:
            _require("problem of the suite", name, [part.problem for part in PARTS])

    @property
    def command(self) -> str:
        """The command that repeats or continues the suite."""
        words = ["anyorder", "suite", self.level, "--methods", ",".join(self.methods)]
        words += ["--problems", ",".join(self.problems)] if self.problems else []
        words += ["--budget", self.budget] if self.budget is not None else []
        words += ["--jobs", str(self.jobs)] if self.jobs > 1 else []
        words += ["--threads", str(self.threads)] if self.threads is not None else []
        return shlex.join([*words, "--out", str(self.out)])


def _require(what: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise SuiteError(f"unknown {what} {name!r}{nearest(name, known)} Known: {', '.join(known)}")


def comparisons(request: SuiteRequest) -> dict[str, tuple[Part, Request]]:
    """The comparison of each problem, by its name."""
    level = LEVELS[request.level]
    wanted = [part for part in PARTS if not request.problems or part.problem in request.problems]
    return {
        part.problem: (
            part,
            Request(
                Settings(
                    part.problem,
                    part.options,
                    budget=request.budget or f"{part.grads * level.longer}grads",
                    jobs=request.jobs,
                    threads=request.threads,
                    **level.settings,
                ),
                request.methods,
                request.out / part.problem,
            ),
        )
        for part in wanted
    }


def run_suite(
    request: SuiteRequest,
    progress: Callable[[], Silent] = Silent,
    say: Callable[[str], object] = lambda line: None,
) -> Overview:
    """Run or continue all comparisons of a suite, and write the summary.

    A problem that cannot be used, because its data or a package is missing, is left out, and the
    summary says so.

    Args:
        request: level, methods and folder.
        progress: called for the progress output of each comparison.
        say: called with a line before each problem.

    Returns:
        The content of ``suite.json``.

    Raises:
        ProblemError: no problem can be used.
        Interrupted: the user interrupted the suite.
        StorageError: the folder cannot be used, or another suite runs there.
        AnyOrderError: see :func:`~anyorder.compare.session.compare`.
    """
    with locked(request.out, "suite"):
        return _run(request, progress, say)


def _run(
    request: SuiteRequest, progress: Callable[[], Silent], say: Callable[[str], object]
) -> Overview:
    found: dict[str, tuple[str, Results]] = {}
    left_out: dict[str, str] = {}
    wanted = comparisons(request)
    for number, (name, (part, each)) in enumerate(wanted.items(), start=1):
        say(f"[{number}/{len(wanted)}] {name}: {part.kind}")
        try:
            found[name] = part.kind, compare(each, progress())
        except ProblemError as error:
            left_out[name] = str(error).partition("\n")[0]
            say(f"{name} is left out: {left_out[name]}")
        except Interrupted as error:
            raise Interrupted(f"interrupted; continue with: {request.command}") from error
    if not found:
        raise ProblemError("no problem of the suite can be used: " + "; ".join(left_out.values()))
    done = overview(
        found,
        left_out,
        suite=request.level,
        created_by=anyorder.__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=replace(request, out=Path(request.out.name)).command,
        settings=LEVELS[request.level].settings,
    )
    report.write(done, request.out)
    return done


def failures(found: Overview) -> Sequence[str]:
    """Methods without a result on a problem, in words."""
    reasons: Mapping[str, str] = {
        f"{place.method} on {each.problem}": place.failed
        for each in found.problems
        for place in each.places
        if place.failed is not None
    }
    return [f"{where}: {why}" for where, why in reasons.items()]
