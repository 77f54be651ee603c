"""The contract of a problem: a model, its data, its loss and its evaluation.

Methods of a problem depend only on their arguments. ``build(seed)`` and ``batch(seed, step)`` are
pure functions, so two methods with the same seed start at the same point and see the same data
in the same order, and a run can continue at any step without replaying the earlier ones.
"""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeVar, cast, final

import torch
from torch import Tensor, nn

from anyorder.errors import AnyOrderError
from anyorder.oracle.closures import Closure, Composite
from anyorder.problems._trees import map_tree

T = TypeVar("T")

GOALS = ("min", "max")
SCHEDULES = ("constant", "cosine")


class ProblemError(AnyOrderError, ValueError):
    """A problem does not exist, or cannot be loaded or used; the message says how to fix it."""


class Problem(ABC):
    """A loss to minimise, its model and data, and how a result is evaluated.

    A subclass implements ``build``, ``batch``, ``loss`` and ``evaluate``. If the loss depends only
    on the model's outputs, it can implement ``outputs`` and ``criterion`` instead of ``loss``;
    methods that work in the space of outputs can then be used too. It can implement
    ``test_outputs`` and ``score`` instead of ``test``; a comparison then resamples the test set.
    Options are keyword arguments of the constructor, each with a default; ``options()`` lists them.

    Attributes:
        name: Name of the problem in results; default: the class name.
        metric: The key of ``evaluate()`` that is reported with the loss.
        goal: Whether a smaller (``"min"``) or a larger (``"max"``) metric is better.
        target: The value of ``metric`` that counts as reached, or None. Set it in the
            constructor if it depends on an option.
        schedule: Default learning-rate schedule over the budget.
        optimum: The smallest possible value of the evaluated loss, or None if unknown.
    """

    name: ClassVar[str] = "Problem"
    metric: ClassVar[str] = "loss"
    goal: ClassVar[Literal["min", "max"]] = "min"
    schedule: ClassVar[Literal["constant", "cosine"]] = "constant"
    target: float | None = None
    optimum: float | None = None
    in_parts: ClassVar[bool] = False
    """Whether the loss is defined by ``outputs`` and ``criterion``; set automatically."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Set the default name and reject invalid overrides."""
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__
        if "closure" in cls.__dict__:
            raise ProblemError(
                f"{cls.__name__} overrides closure(), which is derived from loss(). "
                "Write the loss in loss(self, model, batch) and remove closure()."
            )
        require_choice("goal", cls.goal, GOALS, owner=cls.__name__)
        require_choice("schedule", cls.schedule, SCHEDULES, owner=cls.__name__)
        cls._find_parts()
        cls._find_test()

    @classmethod
    def _find_parts(cls) -> None:
        """Derive ``loss`` if the class defines ``outputs`` and ``criterion`` instead."""
        parts = [name for name in ("outputs", "criterion") if name in cls.__dict__]
        if "loss" in cls.__dict__:
            if parts:
                raise ProblemError(
                    f"{cls.__name__} has loss() and {' and '.join(p + '()' for p in parts)}, which "
                    "may differ. Keep loss(), or keep outputs() and criterion()."
                )
            cls.in_parts = False
        elif parts:
            for name in ("outputs", "criterion"):
                if getattr(cls, name) is getattr(Problem, name):
                    raise ProblemError(
                        f"{cls.__name__} has {parts[0]}() and no {name}(). Write both, "
                        "outputs(self, model, batch) and criterion(self, outputs, batch), or "
                        "loss(self, model, batch) alone."
                    )
            cls.in_parts = True
            cls.loss = _loss_in_parts

    @classmethod
    def _find_test(cls) -> None:
        """Refuse one of ``test_outputs`` and ``score`` without the other."""
        written = [getattr(cls, n) is not getattr(Problem, n) for n in ("test_outputs", "score")]
        if any(written) and not all(written):
            raise ProblemError(
                f"{cls.__name__} has only one of test_outputs() and score(). Write both, "
                "test_outputs(self, model) and score(self, outputs, rows), or test(self, model) "
                "alone."
            )

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Names of the constructor's keyword arguments and their defaults.

        An option without a default has the value ``inspect.Parameter.empty``.
        """
        if cls.__init__ is object.__init__:
            return {}
        return options_of(cls)

    @abstractmethod
    def build(self, seed: int) -> nn.Module:
        """Return a freshly initialised model that depends only on ``seed``."""

    @abstractmethod
    def batch(self, seed: int, step: int) -> Any:
        """Return the training batch of one step, a pure function of ``(seed, step)``.

        Tensors are on the CPU; the caller moves them with ``move``.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of the batch: a 0-dimensional tensor, without calling ``backward``."""

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the model's outputs for the batch: the inner function of a composite loss."""
        raise NotImplementedError

    def criterion(self, outputs: Tensor, batch: Any) -> Tensor:
        """Return the loss of these outputs, without reading parameters: the outer function."""
        raise NotImplementedError

    @abstractmethod
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Evaluate the model on held-out validation data, on the model's device.

        Returns:
            Numbers by name, among them ``"loss"`` and ``metric``. The same model must always give
            the same numbers, and must not be changed (see ``evaluating``).
        """

    def test(self, model: nn.Module) -> dict[str, float] | None:
        """Evaluate the model on test data, which no choice has used; called once, at the end.

        By default the ``score`` of all rows of ``test_outputs``; None without test data.
        """
        outputs = self.test_outputs(model)
        return None if outputs is None else self.score(outputs, all_rows(outputs))

    def test_outputs(self, model: nn.Module) -> Any:
        """Return the model's outputs on the test data, for ``score``.

        Returns:
            A tensor, or a dict, list, tuple or dataclass of tensors, with the test samples in
            dimension 0 of each; None if the test set cannot be resampled.
        """
        return None

    def score(self, outputs: Any, rows: Tensor) -> dict[str, float]:
        """Return the numbers of ``test`` for some of the test samples.

        A comparison calls it with resampled rows.

        Args:
            outputs: The result of ``test_outputs``.
            rows: Indices of the samples, int64 of shape ``(n,)`` on the CPU, possibly repeated.
        """
        raise NotImplementedError

    def judge(self, losses: Tensor, *, seed: int, step: int, question: int) -> Sequence[int]:
        """Rank points for a method; a problem with this method answers with rankings only.

        It must depend only on its arguments.

        Args:
            losses: The losses of the points in the order in which they are shown, shape ``(n,)``.
                Methods do not see them.
            seed: Seed of the run.
            step: Step of the run, from 0.
            question: Number of the ranking in this step, from 0.

        Returns:
            Positions in ``losses``, best first; possibly only the best few.
        """
        raise NotImplementedError

    @final
    @property
    def judged(self) -> bool:
        """Whether the problem answers with rankings only, because it has ``judge``."""
        return type(self).judge is not Problem.judge

    @final
    def closure(self, model: nn.Module, batch: Any) -> Closure:
        """Return the closure that an optimiser's ``step`` takes."""
        if self.in_parts:
            return Composite(
                lambda: self.outputs(model, batch), lambda outputs: self.criterion(outputs, batch)
            )
        return lambda: self.loss(model, batch)


def _loss_in_parts(self: Problem, model: nn.Module, batch: Any) -> Tensor:
    """Return the loss of the batch: the criterion of the model's outputs."""
    return self.criterion(self.outputs(model, batch), batch)


# --- Options -----------------------------------------------------------------------------------


def options_of(maker: Callable[..., Any]) -> dict[str, Any]:
    """Keyword arguments that a class or function accepts, by name, with their defaults."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(maker).parameters.values()
    return {each.name: each.default for each in parameters if each.kind in named}


def require_choice(name: str, value: object, allowed: tuple[str, ...], *, owner: str) -> None:
    """Raise ``ProblemError`` unless ``value`` is one of the ``allowed`` values."""
    if value not in allowed:
        words = ", ".join(repr(word) for word in allowed)
        raise ProblemError(f"{owner}: {name} must be one of {words}; got {value!r}.")


def require_int(name: str, value: object, *, at_least: int, owner: str) -> None:
    """Raise ``ProblemError`` unless ``value`` is an integer of at least ``at_least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ProblemError(
            f"{owner}: {name} must be an integer of at least {at_least}; got {value!r}."
        )


def require_number(name: str, value: object, *, at_least: float, owner: str) -> None:
    """Raise ``ProblemError`` unless ``value`` is a finite number of at least ``at_least``."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not at_least <= cast(float, value) < float("inf"):
        raise ProblemError(
            f"{owner}: {name} must be a finite number of at least {at_least:g}; got {value!r}."
        )


# --- Seeds -------------------------------------------------------------------------------------


def generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator seeded by ``key``; similar keys give unrelated streams."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@contextmanager
def seeded(seed: int) -> Generator[None, None, None]:
    """Seed the global CPU generator inside the block and restore its state afterwards.

    Use it in ``build``: layers of ``torch.nn`` are initialised from the global generator.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


@lru_cache(maxsize=8)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    """Order of the samples in one pass; cached because every step of the pass needs it."""
    return torch.randperm(n, generator=generator("minibatch", seed, epoch))


def minibatch(n: int, size: int, *, seed: int, step: int) -> Tensor:
    """Return the sample indices of one step, without repetition within a pass over the data.

    Args:
        n: Number of samples.
        size: Samples per batch; the last ``n % size`` samples of each pass are dropped.
        seed: Seed of the run.
        step: Step of the run, from 0.

    Returns:
        Integer tensor of shape ``(size,)``, a pure function of the four arguments.

    Raises:
        ProblemError: If the batch is empty or larger than the data.

    Example:
        >>> from anyorder.problems import minibatch
        >>> first = minibatch(10, 5, seed=0, step=0)
        >>> second = minibatch(10, 5, seed=0, step=1)
        >>> sorted(first.tolist() + second.tolist())
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    if not 1 <= size <= n:
        raise ProblemError(f"a batch of {size} cannot be drawn from {n} samples; use 1 to {n}.")
    epoch, place = divmod(step, n // size)
    return _permutation(n, seed, epoch)[place * size : (place + 1) * size].clone()


def all_rows(outputs: Any) -> Tensor:
    """Return the indices of all test samples in a result of ``test_outputs``.

    Raises:
        ProblemError: If it holds no tensor, or tensors that differ in dimension 0.
    """
    lengths: set[int | None] = set()

    def look(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            lengths.add(len(leaf) if leaf.ndim else None)
        return leaf

    map_tree(outputs, look)
    length = lengths.pop() if len(lengths) == 1 else None
    if not length:
        raise ProblemError(
            "test_outputs() must return tensors with the test samples in dimension 0, the same "
            "number in each."
        )
    return torch.arange(length)


@lru_cache(maxsize=256)
def resampled_rows(count: int, draw: int) -> Tensor:
    """Return indices of ``count`` test samples, drawn with replacement.

    They are the same in all runs of all methods, so that differences between results are paired.

    Args:
        count: Number of test samples.
        draw: Number of the resampled test set.
    """
    return torch.randint(count, (count,), generator=generator("test rows", count, draw))


# --- Devices and modes -------------------------------------------------------------------------


def device_of(model: nn.Module) -> torch.device:
    """Device of the model's first parameter or buffer; the CPU if it has neither."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def evaluating(model: nn.Module) -> Generator[None, None, None]:
    """Run a block without gradients and with the model in evaluation mode.

    Afterwards every submodule is in its previous mode, even if the modes were mixed.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
