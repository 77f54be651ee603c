"""Test a problem and report its errors before a long comparison."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from anyorder.problems import _derivative_trials, _loss_trials, _trials
from anyorder.problems._acceptance import Bench, Finding, kept_random_state
from anyorder.problems.base import Problem
from anyorder.problems.registry import describe

__all__ = ["Finding", "Report", "check"]


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        problem: Name of the problem.
        findings: All findings, errors first.
        seconds: Median wall time of one ``build``, ``batch``, ``loss``, ``backward`` and
            ``evaluate``; calls that could not run are absent.
        parameters: Number of trainable parameters (scalars) of the model.
    """

    problem: str
    findings: tuple[Finding, ...]
    seconds: dict[str, float]
    parameters: int

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.of("error")

    def of(self, level: str) -> tuple[Finding, ...]:
        """Return the findings of one level."""
        return tuple(finding for finding in self.findings if finding.level == level)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as dicts, lists, texts and numbers, for JSON."""
        return {
            "problem": self.problem,
            "ok": self.ok,
            "parameters": self.parameters,
            "seconds": dict(self.seconds),
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
        }

    def __str__(self) -> str:
        """Return the report as text, one finding after another."""
        lines = [f"{self.problem}: {'no errors' if self.ok else 'not usable yet'}"]
        for finding in self.findings:
            where = f" ({finding.where})" if finding.where else ""
            lines.append(f"{finding.level}: {finding.topic}: {finding.found}{where}")
            lines += [f"    {line}" for line in finding.instead.splitlines()]
        return "\n".join(lines)


def check(problem: Problem, *, seed: int = 0) -> Report:
    """Test a problem by using it: build, draw, differentiate, evaluate, and compare.

    Nothing is trained. ``test`` is called with an untrained model, and only the form of its result
    is checked, and whether ``score`` agrees with it. Global random states are restored afterwards.
    Every exception that the problem raises becomes a finding.

    Args:
        problem: The problem to test.
        seed: Seed passed to ``build`` and ``batch``.

    Returns:
        The findings and the wall times.

    Example:
        >>> from anyorder.problems import check, load
        >>> check(load("quadratic")).ok
        True
    """
    if not isinstance(problem, Problem):  # pyright: ignore[reportUnnecessaryIsInstance] -- a user's
        advice = "Pass an instance of a subclass of anyorder.problems.Problem."
        if inspect.isclass(problem):
            advice = f"Pass an instance: check({problem.__name__}())."
        finding = Finding("error", "problem", f"{describe(problem)} is not a problem", advice)
        return Report(type(problem).__name__, (finding,), {}, 0)
    bench = Bench(problem, seed)
    with kept_random_state():
        for topic, needs, trial in _TRIALS:
            if needs <= bench.passed:
                bench.attempt(topic, trial)
    levels = ("error", "warning", "info")
    ordered = sorted(bench.findings, key=lambda finding: levels.index(finding.level))
    return Report(bench.name, tuple(ordered), bench.seconds, bench.parameters)


# Topic, required results of earlier trials, and the trial.
_TRIALS = (
    ("attributes", set[str](), _trials.attributes),
    ("build", set[str](), _trials.build),
    ("batch", set[str](), _trials.batch),
    ("loss", {"build", "batch"}, _loss_trials.loss),
    ("loss", {"loss", "repeatable"}, _loss_trials.without_graph),
    ("loss", {"loss"}, _derivative_trials.gradients),
    ("loss", {"gradients", "repeatable"}, _derivative_trials.finite_differences),
    ("loss", {"gradients", "repeatable"}, _derivative_trials.second_derivative),
    ("loss", {"gradients"}, _derivative_trials.speed),
    ("evaluate", {"build"}, _trials.evaluate),
    ("test", {"build"}, _trials.test),
)
