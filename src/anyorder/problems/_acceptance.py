"""Tools of the check: run a problem without side effects, and compare what it returns."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import linecache
import math
import random
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from anyorder.model.sharding import local, reshard
from anyorder.problems._trees import map_tree
from anyorder.problems.base import Problem
from anyorder.problems.registry import say

Level = Literal["error", "warning", "info"]

# Two values of one loss that differ by less than this, relatively, may differ by rounding only.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
        level: ``error`` makes results meaningless, ``warning`` is probably a mistake, ``info``
            is a fact worth knowing.
        topic: The method or attribute concerned.
        found: What the check observed.
        instead: What to write instead; empty if there is nothing to change.
        where: ``file:line`` in the user's code, if there is one.
    """

    level: Level
    topic: str
    found: str
    instead: str = ""
    where: str | None = None


class Bench:
    """A problem under test and the findings so far.

    Args:
        problem: The problem to test.
        seed: Seed passed to ``build`` and ``batch``.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.seed = seed
        self.findings: list[Finding] = []
        self.name = type(problem).__name__
        self.seconds: dict[str, float] = {}
        self.parameters = 0
        self.batch: Any = None
        # Results of earlier trials, for later ones.
        self.passed: set[str] = set()

    def add(self, level: Level, topic: str, found: str, instead: str = "") -> None:
        """Add a finding; its location is the definition of the method named ``topic``."""
        where = definition(self.problem, topic)
        self.findings.append(Finding(level, topic, found, instead, where))

    def attempt(self, topic: str, trial: Callable[[Bench], None]) -> None:
        """Run a trial; an exception that it raises becomes an error finding."""
        try:
            trial(self)
        except (Exception, SystemExit) as error:
            self.findings.append(
                Finding(
                    "error",
                    topic,
                    f"raised {say(error)}",
                    _advice(topic, error),
                    place(error, self.problem),
                )
            )

    def fresh(self) -> nn.Module:
        """Return a new model, built with a fixed random state."""
        reseed(1)
        return self.problem.build(self.seed)

    def loss(self, model: nn.Module, batch: Any, state: int = 3) -> Any:
        """Return the result of the problem's loss, with the global random state ``state``."""
        reseed(state)
        return cast(Any, self.problem.loss(model, batch))

    def time(self, name: str, call: Callable[[], Any], repeats: int = 3) -> Any:
        """Record the median wall time of a call in seconds; return its last result."""
        took: list[float] = []
        result = None
        for _ in range(repeats):
            start = time.perf_counter()
            result = call()
            took.append(time.perf_counter() - start)
        self.seconds[name] = statistics.median(took)
        return result


def _advice(topic: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            "Import modules from the file's folder at the top of the file: that folder is on "
            "sys.path only while the file is loaded."
        )
    return {
        "build": "build(seed) must return a new model for every integer seed.",
        "batch": "batch(seed, step) must return data for every step from 0.",
        "loss": "loss(model, batch) must accept what build(seed) and batch(seed, step) return.",
        "evaluate": "evaluate(model) must accept what build(seed) returns.",
        "test": "test(model) must accept what build(seed) returns, or return None.",
    }.get(topic, "")


# --- Random state ------------------------------------------------------------------------------


def reseed(seed: int) -> None:
    """Seed the global generators of PyTorch (CPU), NumPy (legacy) and Python."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- user code may use this state
    random.seed(seed)


@contextmanager
def kept_random_state() -> Generator[None, None, None]:
    """Restore the global random states after the block."""
    old = np.random.get_state()  # noqa: NPY002 -- see reseed
    states = torch.get_rng_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(old)  # noqa: NPY002
        random.setstate(states[1])


# --- Model -------------------------------------------------------------------------------------


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require a gradient, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


class Snapshot:
    """A copy of everything in a model that a loss or an evaluation could change."""

    def __init__(self, model: nn.Module) -> None:
        """Copy parameters, buffers, modes, flags and gradients (None where absent)."""
        self._model = model
        reshard(model)
        self._parameters = {n: p.detach().clone() for n, p in model.named_parameters()}
        self._buffers = {n: b.detach().clone() for n, b in model.named_buffers()}
        self._modes = {name: module.training for name, module in _modules(model)}
        self._flags = {n: p.requires_grad for n, p in model.named_parameters()}
        self._gradients = {
            n: None if p.grad is None else p.grad.detach().clone()
            for n, p in model.named_parameters()
        }

    def changed(self) -> dict[str, list[str]]:
        """Return the names of everything that has changed, by kind.

        Kinds are ``parameters``, ``buffers``, ``modes``, ``flags`` (of ``requires_grad``) and
        ``gradients``; a kind without a change is absent.
        """
        now = Snapshot(self._model)
        pairs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "parameters": (self._parameters, now._parameters),
            "buffers": (self._buffers, now._buffers),
            "modes": (self._modes, now._modes),
            "flags": (self._flags, now._flags),
            "gradients": (self._gradients, now._gradients),
        }
        differing = {
            kind: [
                name or "the model"
                for name in {**old, **new}
                if not same(old.get(name), new.get(name))
            ]
            for kind, (old, new) in pairs.items()
        }
        return {kind: found for kind, found in differing.items() if found}

    def restore(self) -> None:
        """Restore parameters, buffers, modes and flags, and drop all gradients."""
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.requires_grad_(self._flags.get(name, parameter.requires_grad))
                parameter.grad = None
                if name in self._parameters:
                    parameter.copy_(self._parameters[name])
            for name, buffer in self._model.named_buffers():
                if name in self._buffers:
                    buffer.copy_(self._buffers[name])
        for name, module in _modules(self._model):
            module.training = self._modes.get(name, module.training)


def _modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(cast(Any, model.named_modules()))


def some(names: list[str]) -> str:
    """Return up to three of the names, and how many more there are."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


# --- Trees -------------------------------------------------------------------------------------


def same(a: Any, b: Any) -> bool | None:
    """Whether two trees contain the same values; None if they cannot be compared."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return _same_tensor(a, b)
    if isinstance(a, np.ndarray):
        array = cast(Any, a)
        return bool(np.array_equal(array, b, equal_nan=array.dtype.kind in "fc"))
    if isinstance(a, Mapping):
        left, right = cast(Mapping[Any, Any], a), cast(Mapping[Any, Any], b)
        return left.keys() == right.keys() and _all(same(left[key], right[key]) for key in left)
    if isinstance(a, tuple | list):
        first, second = cast(list[Any], a), cast(list[Any], b)
        return len(first) == len(second) and _all(map(same, first, second))
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return _all(
            same(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a)
        )
    if type(a).__eq__ is object.__eq__:
        return True if a is b else None
    try:
        return bool(a == b) or (a != a and b != b)
    except Exception:  # a user-defined __eq__ may raise anything
        return None


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = (local(t.detach()) for t in (a, b))
    a, b = (t.to_dense() if t.layout != torch.strided else t for t in (a, b))
    if a.is_floating_point() or a.is_complex():
        return bool(torch.isclose(a, b, rtol=0, atol=0, equal_nan=True).all().item())
    return torch.equal(a, b)


def _all(answers: Iterator[bool | None] | map[bool | None]) -> bool | None:
    """Return False if any answer is False, else None if any is None, else True."""
    known = list(answers)
    return False if False in known else (None if None in known else True)


def close(a: float, b: float) -> bool:
    """Whether two numbers are equal up to rounding."""
    return math.isclose(a, b, rel_tol=_ROUNDING, abs_tol=1e-12)


def copied(tree: Any) -> Any:
    """Return a deep copy of a tree, with tensors detached; other leaves only if copyable."""
    return map_tree(tree, _copied_leaf)


def _copied_leaf(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    try:
        return copy.deepcopy(leaf)
    except Exception:  # a leaf that cannot be copied is compared with itself
        return leaf


def tensors_of(tree: Any) -> list[Tensor]:
    """Return all tensors in a tree."""
    found: list[Tensor] = []
    map_tree(tree, lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None)
    return found


# --- Places ------------------------------------------------------------------------------------


def definition(problem: Problem, method: str) -> str | None:
    """Return ``file:line`` of a method of the problem; None if it is not defined in user code."""
    function = getattr(type(problem), method, None)
    if not callable(function) or function is getattr(Problem, method, None):
        return None
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else None


def _files_of(problem: Problem) -> set[str]:
    """Return the files that define the classes of the problem."""
    kinds = [kind for kind in type(problem).__mro__ if issubclass(kind, Problem)]
    modules = {kind.__module__ for kind in kinds if kind is not Problem}
    return {getattr(sys.modules.get(name), "__file__", None) or "" for name in modules}


def innermost(frames: traceback.StackSummary, problem: Problem) -> str | None:
    """Return ``file:line`` of the deepest frame in the problem's files, or of any user's file."""
    own = _files_of(problem)
    here, library = str(Path(__file__).parent), str(Path(torch.__file__).parent)
    foreign = [f for f in frames if not f.filename.startswith((here, library, "<"))]
    chosen = [f for f in frames if f.filename in own] or foreign
    return f"{chosen[-1].filename}:{chosen[-1].lineno}" if chosen else None


def place(error: BaseException, problem: Problem) -> str | None:
    """Return ``file:line`` of the deepest frame of an exception in the user's code."""
    return innermost(traceback.extract_tb(error.__traceback__), problem)


def source_line(where: str) -> str:
    """Return the text of the line at ``file:line``; empty if it cannot be read."""
    file, _, line = where.rpartition(":")
    return linecache.getline(file, int(line)).strip()


@contextmanager
def watched_backward(problem: Problem) -> Generator[list[str], None, None]:
    """List the places from which ``backward`` is called inside the block; the calls go through."""
    places: list[str] = []
    real = torch.autograd.backward

    def noting(*args: Any, **kwargs: Any) -> None:
        # Tensor.backward also gets here: it looks up torch.autograd.backward at every call.
        places.append(innermost(traceback.extract_stack(), problem) or "")
        real(*args, **kwargs)

    with mock.patch.object(torch.autograd, "backward", noting):
        yield places
