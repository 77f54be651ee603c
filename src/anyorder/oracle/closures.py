"""Closures and rankers, and checks of their results."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.oracle.kinds import ANSWERS, COMPOSITE
from anyorder.points.directions import Shift

Closure = Callable[[], Tensor]
#: Positions, best first; those that tie stand in a list of their own: ``[2, [0, 3], 1]``.
Ranked = Sequence[int | Collection[int]]
#: Orders candidate points: takes the shifts, returns their positions, best first. It may return
#: only the best few; the rest then share the last place.
Ranker = Callable[[Sequence[Shift]], Ranked]

_HOW = "Composite(lambda: model(x), lambda outputs: criterion(outputs, y))"
#: Where the loop belongs to another library.
_LIGHTNING = "In Lightning set self.automatic_optimization = False and write in training_step: "


class ClosureError(AnyOrderError, TypeError):
    """A closure that does not return a usable loss."""


class CompositeError(AnyOrderError, TypeError):
    """``outputs`` or ``loss`` of a ``Composite`` is not a function."""


class RankingError(AnyOrderError, ValueError):
    """A ranker returned something other than an order of its points."""


class Composite:
    """A closure that keeps outputs and loss apart, for methods that need the outputs.

    Args:
        outputs: returns the model's outputs for one fixed batch.
        loss: maps these outputs to the scalar loss.

    Raises:
        CompositeError: one of them is not a function.
    """

    def __init__(self, outputs: Callable[[], Tensor], loss: Callable[[Tensor], Tensor]) -> None:
        for name, part in (("outputs", outputs), ("loss", loss)):
            if not callable(part):
                raise CompositeError(
                    f"{name}: expected a function, got {type(part).__name__}; write {_HOW}"
                )
        self.outputs, self.loss = outputs, loss

    def __call__(self) -> Tensor:
        """Return the loss."""
        return self.loss(self.outputs())


class Mean:
    """Several closures as one, for answers other than gradients."""

    def __init__(self, batches: Sequence[Closure]) -> None:
        self.batches = batches

    def __call__(self) -> Tensor:
        """Return the mean loss."""
        return torch.stack([batch() for batch in self.batches]).mean()


def batches_of(closure: Closure | Sequence[Closure]) -> Sequence[Closure]:
    """Return a list of closures; raise :class:`ClosureError` if one is not a function."""
    several = isinstance(closure, Sequence)
    if not (all(map(callable, closure)) and len(closure) if several else callable(closure)):
        raise ClosureError(
            f"expected a closure, a function that returns the loss, got {closure!r}; write "
            "optimizer.step(lambda: criterion(model(x), y))"
        )
    return closure if several else [_unwrapped(closure)]


def _unwrapped(closure: Any) -> Closure:
    """The ``Composite`` around which Lightning put its hooks: a method calls the two parts."""
    inside = closure.args[-1:] if isinstance(closure, functools.partial) else ()
    return inside[0] if inside and isinstance(inside[0], Composite) else closure


def one_gradient(closure: Closure) -> dict[str, int]:
    """Return what one gradient of ``closure`` counts as."""
    apart = int(isinstance(closure, Composite))
    return {"grads": 1, **{answer.name: apart for answer in ANSWERS if answer.composite}}


def as_composite(closure: Closure, what: str) -> Composite:
    """Return ``closure`` if it is a ``Composite``, else raise; ``what`` is the reason."""
    if not isinstance(closure, Composite):
        raise ClosureError(
            f"{what} one Composite, outputs and loss apart; write {_HOW}. {_LIGHTNING}"
            "self.optimizers().step(Composite(...))"
        )
    return closure


def calls_backward() -> ClosureError:
    """Return the error for a closure that calls ``backward`` itself."""
    return ClosureError(
        "the closure calls backward(). This method differentiates the loss itself, so the closure "
        "must not call backward(). Change\n"
        "    def closure(): optimizer.zero_grad(); loss = ...; loss.backward(); return loss\n"
        "to\n"
        "    def closure(): return ...  # the loss, nothing else\n"
        f"{_LIGHTNING}self.optimizers().step(closure). Methods of values and rankings also take "
        "its own closures, in a module with `def backward(self, loss): pass`. In skorch override "
        "train_step_single without loss.backward()"
    )


def needs_closure(name: str, needs: Collection[str]) -> str:
    """Return the error for a step without the closure that a method needs."""
    how = _HOW if set(needs) & COMPOSITE else "lambda: criterion(model(x), y)"
    return (
        f"{name} needs {', '.join(sorted(needs))}, so it needs a closure; write "
        f"optimizer.step({how}). In transformers.Trainer write class MyTrainer(ClosureMixin, "
        "Trainer), from anyorder.integrations.transformers"
    )


def with_graph(found: Tensor) -> Tensor:
    """Return ``found`` if it depends on the parameters, else raise."""
    if not found.requires_grad:
        raise ClosureError(
            "the loss does not depend on the parameters (it has no graph); compute it from them "
            "inside the closure and outside torch.no_grad()"
        )
    return found


def checked_loss(loss: Any) -> Tensor:
    """Return the result of a closure as a tensor of shape (), if it is one real number."""
    if not isinstance(loss, Tensor):
        raise ClosureError(
            f"expected the closure to return the loss as a tensor, got {type(loss).__name__}; "
            "return the loss itself, not loss.item()"
        )
    if loss.numel() != 1 or loss.is_complex() or not loss.is_floating_point():
        raise ClosureError(
            f"expected the closure to return one real number, got a tensor of shape "
            f"{tuple(loss.shape)} and dtype {loss.dtype}; reduce it with .mean() or .sum()"
        )
    return loss.reshape(())


def checked_outputs(outputs: Any) -> Tensor:
    """Check and return the outputs of a ``Composite``."""
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        found = outputs.dtype if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ClosureError(
            f"expected the outputs of the Composite to be one tensor of real numbers, got {found}"
        )
    return with_graph(outputs)


class Order(list[int]):
    """Positions, best first, and which of them tie.

    Tied positions stand in the order of the points, so the list itself is an order without ties.

    Args:
        groups: groups of tied positions, best first; a position without a tie is a group of one.
    """

    def __init__(self, groups: Iterable[Collection[int]]) -> None:
        self.groups = [sorted(group) for group in groups]
        super().__init__(place for group in self.groups for place in group)


def checked_order(order: Ranked, count: int) -> Order:
    """Check and return a ranking of ``count`` points.

    Args:
        order: positions, best first; those that tie stand in a list of their own.
        count: number of points.

    Raises:
        RankingError: nothing is ranked, a position is unknown or stands twice, or something is not
            a position.
    """
    try:
        groups = [_group(entry) for entry in order]
        fault = _fault(groups, count)
    except TypeError:  # 0.5 is not a position
        groups, fault = [], "that is no list of positions"
    if not fault:
        return Order(groups)
    raise RankingError(
        f"expected positions from 0 to {count - 1}, each at most once, best first, those that tie "
        f"in a list of their own, such as [1, 0] or [[0, 1]]; got {order}: {fault}"
    )


def _group(entry: int | Collection[int]) -> list[int]:
    """The positions of an entry of a ranking: its own, or those that tie."""
    try:
        return [operator.index(entry)]  # pyright: ignore[reportArgumentType]
    except TypeError:
        return [operator.index(place) for place in entry]  # pyright: ignore


def _fault(groups: list[list[int]], count: int) -> str:
    """What is wrong with a ranking; empty if nothing is."""
    times = Counter(place for group in groups for place in group)
    unknown = [place for place in times if not 0 <= place < count]
    repeated = [place for place in times if times[place] > 1]
    if unknown:
        return f"there is no position {unknown[0]}"
    if repeated:
        return f"position {repeated[0]} stands more than once"
    if not times:
        return "nothing is ranked"
    return "" if all(groups) else "a list of ties is empty"
