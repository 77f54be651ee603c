"""What a closure is, and what it and a ranker must give back."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.oracle.kinds import ANSWERS
from anyorder.points.directions import Shift

Closure = Callable[[], Tensor]
#: Orders candidate points: takes the shifts, returns their positions, best first. It may return
#: only the best few; the rest then share the last place.
Ranker = Callable[[Sequence[Shift]], Sequence[int]]

_HOW = "Composite(lambda: model(x), lambda outputs: criterion(outputs, y))"


class ClosureError(AnyOrderError, TypeError):
    """A closure that does not do what the oracle needs."""


class CompositeError(AnyOrderError, TypeError):
    """The outputs or the loss of a ``Composite`` is no function."""


class RankingError(AnyOrderError, ValueError):
    """A ranker's answer that is not an order of the points it was shown."""


class Composite:
    """A closure with outputs and loss apart, for methods that need the model's outputs.

    Args:
        outputs: returns the model's outputs for one fixed batch.
        loss: maps these outputs to the scalar loss.

    Raises:
        CompositeError: one of them is no function.
    """

    def __init__(self, outputs: Callable[[], Tensor], loss: Callable[[Tensor], Tensor]) -> None:
        for name, part in (("outputs", outputs), ("loss", loss)):
            if not callable(part):
                raise CompositeError(
                    f"{name}: expected a function, got {type(part).__name__}; write {_HOW}"
                )
        self.outputs, self.loss = outputs, loss

    def __call__(self) -> Tensor:
        """The loss."""
        return self.loss(self.outputs())


class Mean:
    """Several closures as one, for answers other than gradients."""

    def __init__(self, batches: Sequence[Closure]) -> None:
        self.batches = batches

    def __call__(self) -> Tensor:
        """The mean loss."""
        return torch.stack([batch() for batch in self.batches]).mean()


def batches_of(closure: Closure | Sequence[Closure]) -> Sequence[Closure]:
    """The closure, or each of several; :class:`ClosureError` if one is no function."""
    several = isinstance(closure, Sequence)
    if not (all(map(callable, closure)) and len(closure) if several else callable(closure)):
        raise ClosureError(
            f"expected a closure, a function that returns the loss, got {closure!r}; write "
            "optimizer.step(lambda: criterion(model(x), y))"
        )
    return closure if several else [closure]


def one_gradient(closure: Closure) -> dict[str, int]:
    """What a gradient of ``closure`` counts as: with a ``Composite`` one in the outputs, too."""
    apart = int(isinstance(closure, Composite))
    return {"grads": 1, **{answer.name: apart for answer in ANSWERS if answer.composite}}


def as_composite(closure: Closure, what: str) -> Composite:
    """``closure``, which has to be a ``Composite`` because of ``what``."""
    if not isinstance(closure, Composite):
        raise ClosureError(f"{what} one Composite, outputs and loss apart; write {_HOW}")
    return closure


def calls_backward() -> ClosureError:
    """What is raised when a closure differentiates the loss itself."""
    return ClosureError(
        "the closure calls backward(). This method takes what it needs from the loss by itself, so "
        "the closure must not call backward(). Change\n"
        "    def closure(): optimizer.zero_grad(); loss = ...; loss.backward(); return loss\n"
        "to\n"
        "    def closure(): return ...  # the loss, nothing else"
    )


def with_graph(found: Tensor) -> Tensor:
    """``found``, which has to depend on the parameters."""
    if not found.requires_grad:
        raise ClosureError(
            "the loss does not depend on the parameters (it has no graph); compute it from them "
            "inside the closure and outside torch.no_grad()"
        )
    return found


def checked_loss(loss: Any) -> Tensor:
    """What a closure returned as a tensor of shape (), if it is one real number."""
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
    """The outputs of a model as a ``Composite`` gives them."""
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        found = outputs.dtype if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ClosureError(
            f"expected the outputs of the Composite to be one tensor of real numbers, got {found}"
        )
    return with_graph(outputs)


def checked_order(order: Sequence[int], count: int) -> list[int]:
    """The answer to a ranking of ``count`` points, best first, or :class:`RankingError`."""
    try:
        places = [operator.index(place) for place in order]
    except TypeError:  # 0.5 is no position
        places = []
    if not places or len(set(places)) != len(places) or not set(places) <= set(range(count)):
        raise RankingError(
            f"expected positions from 0 to {count - 1}, each at most once, best first; got {order}"
        )
    return places
