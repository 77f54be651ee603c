"""The interface through which methods evaluate the loss.

``update(oracle)`` of a method receives an :class:`Oracle`. Usually it is a
:class:`~anyorder.oracle.closure_oracle.ClosureOracle`, which evaluates a closure. After a plain
``loss.backward()`` it is a :class:`~anyorder.oracle.backward_done.BackwardDone`, which only knows
the gradients in ``.grad``. This module contains what is common to all answers: the budget check,
the mean over processes, gradient scaling, the check for NaN, the sign of ``maximize``, and
clipping.
"""

from __future__ import annotations

import contextlib
import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict

import torch
from torch import Tensor, nn

from anyorder.errors import AnyOrderError
from anyorder.oracle.communicator import Communicator, averaged_already, communicator_for
from anyorder.oracle.curvature import GGN, FiniteHessian, Hessian, OutputGrad
from anyorder.oracle.gradients import Nonfinite, clipped, refuse_sparse, require_finite
from anyorder.oracle.kinds import ANSWERS
from anyorder.oracle.ledger import Budget, Calls
from anyorder.oracle.scaling import UNSCALED, Scaling
from anyorder.points.directions import Dense, Shift

if TYPE_CHECKING:
    import torch.distributed

#: Answers that are counted per batch; a point is ranked once for all batches.
_EACH = frozenset(answer.name for answer in ANSWERS if answer.batches)
#: Answers that are complete as soon as the closure returns.
_EVALUATIONS = frozenset(a.name for a in ANSWERS if a.evaluation or a.composite)


class NeedsError(AnyOrderError, TypeError):
    """Something that the method needs is missing (a closure, a module, a ranker)."""


class Policies(TypedDict, total=False):
    """Arguments common to all oracles; see :class:`Oracle`."""

    calls: Calls
    budget: Budget | None
    maximize: bool
    nonfinite: Nonfinite
    clip: float | None
    module: nn.Module | None
    scaler: Any
    group: torch.distributed.ProcessGroup | Communicator | None


class Oracle(ABC):
    """Base class of oracles: counted evaluations within a budget.

    A request that this kind of oracle cannot answer raises :class:`NeedsError`.

    Args:
        params: parameters by name, which define the current point. Frozen parameters are excluded,
            unless all are frozen (plain tensors).
        calls: the ledger (default: a new one).
        budget: limits, checked before each evaluation.
        maximize: evaluate the negative loss.
        nonfinite: what to do about a NaN or infinite loss or gradient: ``raise``, ``skip`` or
            ``ignore``.
        clip: maximal Euclidean norm of the gradient over all parameters; larger ones are rescaled.
        module: the module of the parameters, if known.
        scaler: a ``torch.amp.GradScaler``; losses are scaled before differentiation and answers are
            unscaled.
        group: process group, or another communicator, over which answers are averaged.
    """

    #: For error messages: what the oracle knows, and what to do instead.
    knows: ClassVar[str]
    instead: ClassVar[str]
    #: Whether losses are compared with each other, so that processes need the mean.
    _compares = True

    def __init__(
        self,
        params: Mapping[str, Tensor],
        *,
        calls: Calls | None = None,
        budget: Budget | None = None,
        maximize: bool = False,
        nonfinite: Nonfinite = "raise",
        clip: float | None = None,
        module: nn.Module | None = None,
        scaler: Any = None,
        group: torch.distributed.ProcessGroup | Communicator | None = None,
    ) -> None:
        trainable = {name: p for name, p in params.items() if p.requires_grad}
        self.params = trainable or dict(params)
        self.calls = Calls() if calls is None else calls
        self.budget = budget
        self._sign = -1.0 if maximize else 1.0
        self._nonfinite: Nonfinite = nonfinite
        self._clip, self._module = clip, module
        self._scaling = UNSCALED if scaler is None else Scaling(scaler)
        self._communicator = None if group is None else communicator_for(group)
        self._count, self._evaluated = 1, 0
        self._seen: list[Tensor | None] = [None] * len(self.params)

    # Questions -----------------------------------------------------------------------------

    def value(self) -> Tensor:
        """Return the loss at the current point, shape ()."""
        return self.values([Shift()])[0]

    def values(self, shifts: Sequence[Shift]) -> Tensor:
        """Return the losses at shifted points, shape ``(len(shifts),)``. Counts one value each.

        All evaluations use the same random numbers, so a difference does not contain dropout noise.
        """
        raise self._cannot_give("values")

    def rank(self, shifts: Sequence[Shift]) -> list[int]:
        """Return positions of the shifted points, best first; possibly only the best few.

        A ranker's answer is an :class:`~anyorder.oracle.closures.Order`, which knows what ties.
        Counts one ranking and ``len(shifts)`` ranked points. Without a ranker the points are
        ordered by their values, which do not count as values because the method does not see them.
        """
        raise self._cannot_give("rankings")

    @abstractmethod
    def grad(self) -> tuple[Tensor, list[Tensor | None]]:
        """Return the loss and its gradient per parameter (``None`` if there is none).

        Counts one grad per closure. With several closures the gradients are averaged.
        """

    def grads_by_param(self) -> dict[int, Tensor]:
        """Return the last computed gradients by the identity of their parameters."""
        pairs = zip(self.params.values(), self._seen, strict=True)
        return {id(param): grad for param, grad in pairs if grad is not None}

    def grad_at(self, shift: Shift) -> tuple[Tensor, list[Tensor | None]]:
        """Like :meth:`grad`, at a shifted point; needs memory for a copy of the parameters."""
        raise self._cannot_give("gradients at other points")

    def shift(self, vector: Sequence[Tensor], scale: float = 1.0) -> Shift:
        """Return the point at ``scale * vector``; ``vector`` is shaped like the parameters."""
        return Shift(scale, Dense(dict(zip(self.params, vector, strict=True))))

    def hessian(self, *, products: Literal["exact", "finite"] = "exact") -> Hessian | FiniteHessian:
        """Return the Hessian as an operator, with loss and gradient. Counts one grad.

        Each ``H @ v`` costs one product, or two gradients with ``products="finite"`` (finite
        differences, for models without second derivatives). Use it as a context manager, which
        frees its graph at the end.
        """
        raise self._cannot_give("curvature")

    def ggn(self) -> GGN:
        """Return the generalised Gauss-Newton matrix as an operator. Counts one value.

        Needs a ``Composite(outputs, loss)`` whose loss is convex in the outputs.
        """
        raise self._cannot_give("curvature")

    def output_grad(self) -> OutputGrad:
        """Return the loss and its gradients in parameters and outputs. Counts one of each.

        Needs a ``Composite(outputs, loss)`` whose loss depends on the parameters only through the
        outputs.
        """
        raise self._cannot_give("gradients in the model's outputs")

    def reusing_outputs(
        self, loss: Callable[[Tensor], Tensor], *, nonfinite: Nonfinite | None = None
    ) -> Oracle:
        """Return an oracle for another loss of the same outputs, a surrogate.

        It has the same parameters, ledger, budget and random numbers. Its loss is never maximised,
        and its gradients do not count as output gradients.

        Args:
            loss: maps the model's outputs to a loss, shape ().
            nonfinite: another policy than this oracle's.
        """
        raise self._cannot_give("the model's outputs")

    # Other processes -----------------------------------------------------------------------

    @property
    def local(self) -> Self:
        """This oracle for the batch of this process only, without averaging."""
        twin = copy.copy(self)
        twin._communicator = None
        return twin

    def exchange(self, message: bytes) -> list[bytes]:
        """Send a message and return the messages of all processes, in the order of their ranks.

        Bytes sent are counted in ``calls.bytes_sent``.
        """
        if self._communicator is None:
            return [message]
        self.calls.bytes_sent += len(message)
        return self._communicator.exchange(message)

    def __getitem__(self, name: str) -> Oracle:
        """Return the oracle of a named closure, for methods with several closures."""
        raise self._cannot_give(f"a closure called {name!r}")

    def _cannot_give(self, what: str) -> NeedsError:
        return NeedsError(
            f"expected an oracle that provides {what}; this one knows {self.knows}. {self.instead}"
        )

    # Counting ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _asking(self, **asked: int) -> Generator[None]:
        """Check the budget, then time and count one evaluation (per batch)."""
        asked = {n: c * self._count if n in _EACH else c for n, c in asked.items()}
        if self.budget is not None:
            self.budget.check(self.calls, asked)
        began, self._evaluated = time.perf_counter(), 0
        try:
            with _outside_inference_mode():
                yield
        except BaseException:
            # Interrupted: only count completed evaluations.
            asked = {n: min(c, self._evaluated) for n, c in asked.items() if n in _EVALUATIONS}
            raise
        finally:
            for name, count in asked.items():
                setattr(self.calls, name, getattr(self.calls, name) + count)
            self.calls.seconds += time.perf_counter() - began
        device = next((p.device for p in self.params.values()), None)
        if device is not None and device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device)
            self.calls.peak_bytes = max(self.calls.peak_bytes, peak)

    # What is done to every answer ----------------------------------------------------------

    def _own_grads(self) -> list[Tensor | None]:
        """Return the gradients in ``.grad``; raise an error if one is sparse."""
        grads = [p.grad for p in self.params.values()]
        refuse_sparse(self.params, grads)
        return grads

    def _average(self, tensors: Sequence[Tensor]) -> None:
        """Average answers over the processes in place."""
        if self._communicator is not None and tensors:
            self.calls.bytes_sent += self._communicator.mean_(tensors)

    def _settled(
        self,
        loss: Tensor | None,
        grads: Sequence[Tensor | None],
        *,
        hooked: bool = True,
        scaled: bool = True,
        owner: Any = None,
    ) -> Tensor | None:
        """Average, unscale and check gradients in place.

        Args:
            loss: their loss, if known.
            grads: dense gradients by parameter, optionally followed by gradients in something else.
            hooked: whether hooks of DistributedDataParallel or similar were applied to them.
            scaled: whether they are gradients of a scaled loss.
            owner: the optimizer, if they are in ``.grad``.

        Returns:
            The loss, averaged if gradients were averaged.
        """
        own = grads[: len(self.params)]
        if self._communicator is not None:
            params = list(self.params.values())
            done = averaged_already(self._module, params) if hooked else frozenset[int]()
            pairs = zip(params, own, strict=True)
            tensors = [g for p, g in pairs if g is not None and id(p) not in done]
            if loss is not None and (tensors or self._compares):
                loss = loss.detach().clone()
                tensors.append(loss)
            self._average(tensors)
        if scaled and self._scaling is not UNSCALED:
            self._scaling.unscale_(own, loss, owner)
        require_finite(self._nonfinite, loss, grads, self.params)
        return loss

    def _turned(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        """Return gradients of the negative loss if it is maximised."""
        return grads if self._sign > 0 else [None if g is None else -g for g in grads]

    def _taken(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        """Clip and store gradients before a method receives them."""
        self._seen = grads if self._clip is None else clipped(grads, self._clip)
        return self._seen


def _outside_inference_mode() -> contextlib.AbstractContextManager[Any]:
    """Leave inference mode, which would not build graphs."""
    if torch.is_inference_mode_enabled():
        return torch.inference_mode(False)
    return contextlib.nullcontext()
