"""The pilot: measures which kinds of answers a problem supports, and their cost."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.run import memory
from anyorder.compare.run.group import agreed
from anyorder.compare.run.records import Cost, Noise, Pilot
from anyorder.compare.run.runner import fresh_model
from anyorder.model.sharding import is_sharded
from anyorder.oracle import ClosureOracle
from anyorder.oracle.kinds import ANSWERS
from anyorder.oracle.second_derivatives import SecondDerivativeError
from anyorder.points.directions import Shift
from anyorder.problems import Problem, ProblemError, check, move
from anyorder.problems.check import Finding, Report

#: Number of batches for the noise of the loss.
NOISE_BATCHES = 16
#: Minimum and maximum number of timings per kind of answer, and their approximate total seconds.
LEAST, MOST, PATIENCE = 5, 50, 1.0
#: Number of points in the ranking that is timed.
RANKED = 4


def pilot(
    problem: Problem, device: str = "cpu", autocast: str = "none", report: Report | None = None
) -> Pilot:
    """Check the problem, and measure noise and the cost of each kind of answer.

    Args:
        problem: the problem.
        device: device of the runs.
        autocast: type of ``torch.autocast`` around losses, or ``none``.
        report: the check's report, if available.

    Raises:
        ProblemError: the check reported errors; the message says how to fix them.
    """
    report = report or check(problem)
    if not report.ok:
        lines = [f"{each.topic}: {_finding(each)}" for each in report.of("error")]
        raise ProblemError("the problem cannot be used yet.\n" + "\n".join(lines))
    bench = _Bench(problem, device, autocast)
    missing = bench.second_derivative()
    questions = {
        "value": bench.value,
        "ranked point": bench.ranking,
        "gradient": bench.gradient,
    }
    if not missing:
        questions["product"] = bench.curvature
    costs = bench.costs(questions)
    if not missing:
        # A product costs what it adds to the gradient of the same graph, but at least a value.
        added = costs["product"].seconds - costs["gradient"].seconds
        costs["product"].seconds = max(added, costs["value"].seconds)
    return Pilot(
        parameters=report.parameters,
        findings=list(report.findings),
        deterministic=not any(
            each.topic == "loss" and each.found.startswith("depends on the global random state")
            for each in report.findings
        ),
        noise=bench.noise(),
        costs=costs,
        second_derivative=missing or None,
        in_parts=problem.in_parts,
        evaluation_seconds=report.seconds.get("evaluate", 0.0),
        measured=_rates({name: cost.seconds for name, cost in costs.items()}),
    )


def _finding(each: Finding) -> str:
    where = f" ({each.where})" if each.where else ""
    instead = f"\n    {each.instead}" if each.instead else ""
    return f"{each.found}{where}{instead}"


def _rates(seconds: Mapping[str, float]) -> dict[str, float | None]:
    """Exchange rates in forward passes; None if not measured."""
    value, product = max(seconds["value"], 1e-9), seconds.get("product")
    return {
        "values": 1.0,
        "grads": seconds["gradient"] / value,
        "products": None if product is None else product / value,
        "jvps": None,
        "ranked": seconds["ranked point"] / value,
    }


class _Bench:
    """The problem at its initial point with one batch, and the kinds of evaluations."""

    def __init__(self, problem: Problem, device: str, autocast: str) -> None:
        self.problem, self.device, self.autocast = problem, device, autocast
        self.model = fresh_model(problem, 0, device)
        self.batch = self._moved(0)
        self.params = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.ones = [torch.ones_like(p) for p in self.params.values()]

    def _moved(self, step: int) -> Any:
        batch = self.problem.batch(0, step)
        return None if batch is None else move(batch, self.device)

    def loss(self, batch: Any = None) -> Tensor:
        context: Any = contextlib.nullcontext()
        if self.autocast != "none":
            kind = torch.device(self.device).type
            context = torch.autocast(kind, dtype=getattr(torch, self.autocast))
        with context:
            return self.problem.loss(self.model, self.batch if batch is None else batch)

    def oracle(self) -> ClosureOracle:
        """The oracle that methods use; all answers are timed through it."""
        return ClosureOracle(self.loss, self.params, nonfinite="ignore")

    def value(self) -> None:
        self.oracle().value()

    def ranking(self) -> None:
        """A ranking of points without shifts: to compute these is the work of a method."""
        self.oracle().rank([Shift()] * RANKED)

    def gradient(self) -> None:
        self.oracle().grad()

    def curvature(self) -> None:
        """A gradient with its graph, and one product with the Hessian."""
        with self.oracle().hessian() as hessian:
            _ = hessian @ self.ones

    def second_derivative(self) -> str:
        """The error of a Hessian product; empty if it works."""
        if any(map(is_sharded, self.params.values())):
            return "curvature products do not support sharded parameters (DTensor) yet"
        try:
            self.curvature()
        except SecondDerivativeError as error:
            return " ".join(str(error).split())
        return ""

    def noise(self) -> Noise:
        """Mean and standard deviation of the initial loss over batches."""
        with torch.no_grad():
            losses = [self.loss(self._moved(step)).item() for step in range(NOISE_BATCHES)]
        return Noise(NOISE_BATCHES, statistics.fmean(losses), statistics.stdev(losses))

    def costs(self, questions: Mapping[str, Callable[[], None]]) -> dict[str, Cost]:
        """Median seconds of each evaluation after a warm-up, and its peak memory in bytes.

        The evaluations alternate, so that varying load affects all of them equally.
        """
        needed: dict[str, int] = {}
        for name, question in questions.items():
            question()  # warm-up
            memory.reset_peak(self.device)
            before = memory.peak_bytes(self.device)
            question()
            needed[name] = max(0, memory.peak_bytes(self.device) - before)
        taken: dict[str, list[float]] = {name: [] for name in questions}
        began, rounds = time.perf_counter(), 0
        while agreed(rounds < LEAST or (rounds < MOST and time.perf_counter() - began < PATIENCE)):
            rounds += 1
            for name, question in questions.items():
                start = time.perf_counter()
                question()
                if torch.device(self.device).type == "cuda":
                    torch.cuda.synchronize(self.device)
                taken[name].append(time.perf_counter() - start)
        points = {"ranked point": RANKED}
        return {
            name: Cost(statistics.median(times) / points.get(name, 1), needed[name])
            for name, times in taken.items()
        }


# --- Messages ----------------------------------------------------------------------------------


def troubles(found: Pilot, entrants: Iterable[Entrant]) -> list[str]:
    """Methods that will not work on this problem, with advice."""
    says: list[str] = []
    for each in entrants:
        settings, missing = each.settings(), found.second_derivative
        if missing and "hessian" in each.needs and settings.get("products") != "finite":
            fallback = f". Add --set {each.name}.products=finite" * ("products" in settings)
            says.append(f"{each.name} will fail: {missing}{fallback}")
        if {"ggn", "target"} & set(each.needs) and not found.in_parts:
            says.append(
                f"{each.name} will fail: it needs a composite loss; write outputs(self, "
                "model, batch) and criterion(self, outputs, batch) instead of loss()"
            )
    return says


def describe(found: Pilot, rates: Mapping[str, float], used: str) -> list[str]:
    """The results of the pilot as lines of text."""
    noise = found.noise
    seconds = [
        f"{name} {_time(cost.seconds)}" + (f", {_size(cost.bytes)}" if cost.bytes else "")
        for name, cost in found.costs.items()
    ]
    spread = noise.std / abs(noise.mean) if noise.mean else 0.0
    warnings = [each for each in found.findings if each.level == "warning"]
    agrees = not any(each.topic == "loss" for each in warnings)
    gradient = "gradient agrees with finite differences" if agrees else "see the warnings below"
    random = "" if found.deterministic else "; random (dropout or noise), repeatable by seed"
    prices = "; ".join(
        f"{answer.one} {answer.price:g} nominal, {_rate(found.measured.get(answer.name))} measured"
        for answer in ANSWERS
        if answer.name in rates
    )
    lines = [
        f"{found.parameters:,} parameters; {gradient}{random}",
        f"one answer costs: {'; '.join(seconds)}",
        f"price in forward passes ({used} used): {prices}",
        f"initial loss over {noise.batches} batches: {noise.mean:.4g}, spread {spread:.1%}",
    ]
    return lines + [f"warning: {each.topic}: {each.found}" for each in warnings]


def _rate(rate: float | None) -> str:
    return "not" if rate is None else f"{rate:.2f}"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def _size(count: float) -> str:
    return f"{count / 2**20:.1f} MiB"
