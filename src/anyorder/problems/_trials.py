"""Trials of everything except ``loss``: each checks one rule of the contract."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from anyorder.model.sharding import local
from anyorder.problems._acceptance import (
    Bench,
    Snapshot,
    close,
    copied,
    reseed,
    same,
    some,
    tensors_of,
    trainable,
)
from anyorder.problems.base import GOALS, SCHEDULES, all_rows
from anyorder.problems.registry import describe

# Seconds.
_SLOW_EVALUATION = 2.0
_LARGE_IS_GOOD = ("accuracy", "auc", "precision", "recall", "f1")


def attributes(bench: Bench) -> None:
    """Goal, schedule, metric, target and optimum have valid values."""
    problem = cast(Any, bench.problem)
    bench.name = str(problem.name)
    for name, allowed in (("goal", GOALS), ("schedule", SCHEDULES)):
        if getattr(problem, name) not in allowed:
            words = " or ".join(f'"{word}"' for word in allowed)
            bench.add("error", name, f"is {getattr(problem, name)!r}", f"{name} = {words}")
    if not isinstance(problem.metric, str) or not problem.metric:
        bench.add(
            "error",
            "metric",
            f"is {problem.metric!r}; expected the name of a number that evaluate() returns",
            'metric = "loss"',
        )
    elif problem.goal == "min" and any(word in problem.metric.lower() for word in _LARGE_IS_GOOD):
        bench.add(
            "warning",
            "goal",
            f'is "min", so a smaller {problem.metric} would count as better',
            'goal = "max"',
        )
    for name in ("target", "optimum"):
        value = getattr(problem, name)
        if value is not None and not _is_number(value):
            bench.add("error", name, f"is {value!r}; expected a finite number or None")


def build(bench: Bench) -> None:
    """``build`` returns a new trainable model that depends only on the seed."""
    reseed(1)
    state = torch.get_rng_state()
    model = bench.time("build", lambda: bench.problem.build(bench.seed), repeats=1)
    if not isinstance(model, nn.Module):
        bench.add(
            "error",
            "build",
            f"returned {describe(model)}",
            "Return a torch.nn.Module that has the numbers to optimise as nn.Parameter.",
        )
        return
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        bench.add(
            "error",
            "build",
            "leaves lazy layers uninitialised",
            "Run one forward pass in build, or specify the sizes of the layers.",
        )
        return
    bench.parameters = sum(p.numel() for p in trainable(model).values())
    if not bench.parameters:
        bench.add(
            "error",
            "build",
            "the model has no trainable parameters",
            "Make what should be optimised an nn.Parameter with requires_grad=True.",
        )
        return
    strange = [n for n, p in model.named_parameters() if not local(p).isfinite().all().item()]
    if strange:
        bench.add("error", "build", f"NaN or Inf in {some(strange)}", "Use finite initial values.")
    if not torch.equal(state, torch.get_rng_state()):
        bench.add(
            "info",
            "build",
            "changes the global random state",
            "Build under `with seeded(seed):` of anyorder.problems; it restores the state.",
        )
    if _is_fresh(bench, model):
        bench.passed.add("build")


def _is_fresh(bench: Bench, model: nn.Module) -> bool:
    """Build two more models; return whether they are separate, which later trials require.

    The same seed must give an equal model, a different seed a different one.
    """
    before = copied(dict(model.state_dict()))
    reseed(2)
    again = bench.problem.build(bench.seed)
    places = {p.data_ptr() for p in model.parameters()} - {0}  # sharded and empty tensors: 0
    if any(p.data_ptr() in places for p in again.parameters()):
        bench.add(
            "error",
            "build",
            "two calls returned the same parameters",
            "Create a new model in every call of build; store none in self.",
        )
        return False
    if not same(before, copied(dict(again.state_dict()))):
        bench.add(
            "error",
            "build",
            "two calls with the same seed returned different models",
            "Initialise under `with seeded(seed):` of anyorder.problems, and use no other "
            "source of randomness.",
        )
    elif same(before, copied(dict(bench.problem.build(bench.seed + 1).state_dict()))):
        bench.add("info", "build", "the initial point is the same for every seed")
    return True


def batch(bench: Bench) -> None:
    """``batch`` is a pure function of seed and step."""
    problem, seed = bench.problem, bench.seed
    reseed(1)
    first = problem.batch(seed, 0)
    if isinstance(first, Iterator):
        bench.add(
            "error",
            "batch",
            f"returned {describe(cast(object, first))}, which can be read only once",
            "Return the tensors themselves.",
        )
        return
    bench.batch = first
    bench.passed.add("batch")
    strange = [t for t in tensors_of(first) if t.is_floating_point() and not t.isfinite().all()]
    if strange:
        bench.add("warning", "batch", "contains NaN or Inf", "Clean the data before training.")
    before = copied(first)
    reseed(2)
    # The first call may load the data, so the second one is timed.
    following = bench.time("batch", lambda: problem.batch(seed, 1), repeats=1)
    is_overwritten = same(before, first) is False
    following = copied(following)
    again = problem.batch(seed, 0)
    if is_overwritten:
        bench.add(
            "error",
            "batch",
            "a batch changed when later ones were drawn",
            "Return new tensors in every call; do not reuse one.",
        )
        bench.batch = before
    if same(before, again) is False:
        bench.add(
            "error",
            "batch",
            "two calls with the same seed and step returned different data",
            "Choose the samples only from the arguments, for instance with "
            "minibatch(n, size, seed=seed, step=step) of anyorder.problems.",
        )
    elif same(before, again) is None:
        bench.add(
            "info",
            "batch",
            "contains objects that cannot be compared, so its repeatability was not checked",
            "Return tensors, or objects with __eq__.",
        )
    elif first is not None and same(before, following):
        bench.add("info", "batch", "is the same at every step (full batch)")
    elif first is not None and same(before, problem.batch(seed + 1, 0)):
        bench.add(
            "warning",
            "batch",
            "does not depend on the seed, so repeated runs see the same data in the same order",
            "Use the seed to choose the samples.",
        )


def evaluate(bench: Bench) -> None:
    """``evaluate`` returns the required numbers, is repeatable and has no side effects."""
    model = bench.fresh()
    before = Snapshot(model)
    reseed(5)
    result = cast(Any, bench.problem.evaluate(model))
    changed = before.changed()
    advice = {
        "parameters": "Do not train in evaluate.",
        "buffers": "Evaluate under `with evaluating(model):` of anyorder.problems; in training "
        "mode batch norm updates its statistics.",
        "modes": "Evaluate under `with evaluating(model):` of anyorder.problems; it resets "
        "the mode.",
        "flags": "Use torch.no_grad() instead of requires_grad_(False).",
        "gradients": "Evaluate under torch.no_grad(), or use torch.autograd.grad, which does not "
        "set .grad.",
    }
    kinds = {"flags": "requires_grad", "modes": "the mode", "gradients": ".grad"}
    for kind, names in changed.items():
        found = f"changes {kinds.get(kind, kind)} of {some(names)}"
        bench.add("error", "evaluate", found, advice[kind])
    before.restore()
    if not _is_result(bench, "evaluate", result):
        return
    reseed(6)
    start = time.perf_counter()
    again = bench.problem.evaluate(model)
    bench.seconds["evaluate"] = time.perf_counter() - start
    differing = [key for key in result if not close(result[key], again.get(key, math.nan))]
    if differing:
        bench.add(
            "error",
            "evaluate",
            f"two evaluations of the same model differ in {some(differing)}",
            "Use a fixed part of the validation data and the model in evaluation mode.",
        )
    if bench.seconds["evaluate"] > _SLOW_EVALUATION:
        bench.add(
            "info",
            "evaluate",
            f"takes {bench.seconds['evaluate']:.1f} s, and is called many times in a comparison",
            "Use a fixed part of the validation data.",
        )
    _judge_result(bench, result)


def _is_result(bench: Bench, topic: str, result: Any) -> bool:
    """Report why a result is not a dict of numbers; return whether it is one."""
    if not isinstance(result, dict):
        bench.add(
            "error", topic, f"returned {describe(result)}", 'Return a dict: {"loss": ..., ...}.'
        )
        return False
    numbers = cast(dict[Any, Any], result)
    names = [key for key in numbers if not isinstance(key, str)]
    if names:
        bench.add("error", topic, f"has keys that are not text: {names}", "Use strings as keys.")
        return False
    wrong = [key for key, number in numbers.items() if not _is_number(number, finite=False)]
    if wrong:
        kinds = [f"{key} is {describe(numbers[key])}" for key in wrong]
        bench.add("error", topic, some(kinds), "Return Python numbers: tensor.item().")
        return False
    infinite = [key for key, number in numbers.items() if not math.isfinite(number)]
    if infinite:
        bench.add("error", topic, f"{some(infinite)} is not finite for the untrained model")
    return not infinite


def _judge_result(bench: Bench, result: dict[str, float]) -> None:
    """The result has the required keys and is consistent with target and optimum."""
    problem = bench.problem
    for key in dict.fromkeys(("loss", problem.metric)):
        if key not in result:
            bench.add(
                "error",
                "evaluate",
                f"lacks '{key}'; it has {', '.join(result) or 'nothing'}",
                f'Return {{"{key}": ..., ...}}'
                + ("." if key == "loss" else ", or set metric to a number that is returned."),
            )
    optimum, target = problem.optimum, problem.target
    if _is_number(optimum) and "loss" in result:
        slack = 1e-6 * max(1.0, abs(cast(float, optimum)))
        if result["loss"] < cast(float, optimum) - slack:
            bench.add(
                "error",
                "optimum",
                f"is {optimum:.8g}, but the untrained model has a loss of {result['loss']:.8g}",
                "optimum must be the smallest loss that evaluate can return.",
            )
    if _is_number(target) and problem.metric in result:
        value, goal = result[problem.metric], cast(float, target)
        if value <= goal if problem.goal == "min" else value >= goal:
            bench.add(
                "warning",
                "target",
                f"is {goal:g}, which the untrained model already reaches with {value:g}",
                "Choose a harder target, or correct goal.",
            )


def test(bench: Bench) -> None:
    """``test`` returns None or numbers, and ``score`` returns the same ones."""
    problem, model = bench.problem, bench.fresh()
    result = cast(Any, problem.test(model))
    if result is None or not _is_result(bench, "test", result):
        return
    outputs = problem.test_outputs(model)
    if outputs is None:
        return
    rows = all_rows(outputs)
    scored = cast(Any, problem.score(outputs, rows))
    if not _is_result(bench, "test", scored):
        return
    if differing := _differing(result, scored):
        bench.add(
            "error",
            "test",
            f"score() of all rows of test_outputs() differs from test() in {some(differing)}",
            "Remove test(); it is then derived from the other two.",
        )
    # With every sample twice, all means stay the same.
    if differing := _differing(scored, problem.score(outputs, rows.repeat(2))):
        bench.add(
            "warning",
            "test",
            f"score() changes in {some(differing)} when every row is repeated",
            "Evaluate outputs[rows] only, and average over the rows.",
        )


def _differing(first: dict[str, float], second: Any) -> list[str]:
    """Return the names of the numbers that differ between two results."""
    names = [*first, *(name for name in second if name not in first)]
    none = math.nan
    return [name for name in names if not close(first.get(name, none), second.get(name, none))]


def _is_number(value: object, *, finite: bool = True) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return not finite or math.isfinite(value)
