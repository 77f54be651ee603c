"""What a method may ask: questions, what is done to every answer, and the count of all of them.

``update(oracle)`` of a method gets an :class:`Oracle`. Most often it is a
:class:`~anyorder.oracle.closure_oracle.ClosureOracle`, which answers from a closure; after a plain
``loss.backward()`` it is a :class:`~anyorder.oracle.backward_done.BackwardDone`, which knows the
gradients in ``.grad`` and nothing else. What lies around an answer is the same for all and is
written here: the budget before it, the mean over processes, a gradient scaler, the search for NaN,
the sign of ``maximize``, clipping.
"""

from __future__ import annotations

import contextlib
import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypedDict, Unpack

import torch
from torch import Tensor, nn

from anyorder.errors import AnyOrderError
from anyorder.oracle.communicator import Communicator, averaged_already, communicator_for
from anyorder.oracle.curvature import GGN, FiniteHessian, Hessian, OutputGrad
from anyorder.oracle.gradients import Nonfinite, clipped, refuse_sparse, require_finite
from anyorder.oracle.kinds import ANSWERS
from anyorder.oracle.ledger import Budget, Calls
from anyorder.oracle.scaling import Scaling
from anyorder.points.directions import Dense, Shift

if TYPE_CHECKING:
    import torch.distributed

#: Answers that are counted for each of several batches; a point is ranked once, over all of them.
_EACH = frozenset(answer.name for answer in ANSWERS if answer.batches)
#: Answers that were had as soon as the closure returned.
_EVALUATIONS = frozenset(a.name for a in ANSWERS if a.evaluation or a.composite)


class NeedsError(AnyOrderError, TypeError):
    """A method was not given what it needs (a closure, a module, a ranker)."""


class Policies(TypedDict, total=False):
    """What holds for every answer, wherever it comes from; see :class:`Oracle`."""

    calls: Calls
    budget: Budget | None
    maximize: bool
    nonfinite: Nonfinite
    clip: float | None
    module: nn.Module | None
    scaler: Any
    group: torch.distributed.ProcessGroup | Communicator | None


class Oracle(ABC):
    """What a method may ask, counted, and within a budget.

    A question that this kind of oracle cannot answer raises :class:`NeedsError`.

    Args:
        params: parameters by name; the point at which questions are asked. Frozen ones are left
            out, unless all are (plain tensors).
        calls: ledger to count in (default: a new one).
        budget: limits checked before each question.
        maximize: ask about minus the loss.
        nonfinite: what a NaN or infinite loss or gradient does: ``raise``, ``skip`` or ``ignore``.
        clip: longest gradient, in the Euclidean norm over all parameters; a longer one is scaled.
        module: the module that the parameters are of, if it is known.
        scaler: a ``torch.amp.GradScaler``: what is differentiated is scaled, and answers are not.
        group: process group, or another communicator, over which answers are averaged.
    """

    #: What it can answer from, and what to do about other questions.
    knows: ClassVar[str]
    instead: ClassVar[str]
    #: Whether losses are compared with each other, so that processes need their mean.
    _compares = True

    def __init__(
        self,
        params: Mapping[str, Tensor],
        **policies: Unpack[Policies],
    ) -> None:
        trainable = {name: p for name, p in params.items() if p.requires_grad}
        self.params = trainable or dict(params)
        self.calls = policies.get("calls") or Calls()
        self.budget = policies.get("budget")
        self._sign = -1.0 if policies.get("maximize") else 1.0
        self._nonfinite: Nonfinite = policies.get("nonfinite", "raise")
        self._clip, self._module = policies.get("clip"), policies.get("module")
        self._scaling = Scaling(policies.get("scaler"))
        self._communicator = communicator_for(policies.get("group"))
        self._count, self._evaluated = 1, 0
        self._seen: list[Tensor | None] = [None] * len(self.params)

    # Questions -----------------------------------------------------------------------------

    def value(self) -> Tensor:
        """The loss at the present point, shape ()."""
        return self.values([Shift()])[0]

    def values(self, shifts: Sequence[Shift]) -> Tensor:
        """The losses at shifted points, shape ``(len(shifts),)``. Counts one value each.

        All of them see the same random numbers, so a difference is not dropout noise.
        """
        raise self._cannot_give("values")

    def rank(self, shifts: Sequence[Shift]) -> list[int]:
        """Positions of the shifted points, best first; possibly only the best few.

        Counts one ranking and ``len(shifts)`` ranked points. Without a ranker the order is that of
        the values, which are not counted as values: nobody was told them.
        """
        raise self._cannot_give("rankings")

    @abstractmethod
    def grad(self) -> tuple[Tensor, list[Tensor | None]]:
        """The loss and its gradient by parameter (``None`` where it has none).

        Counts one grad for each closure; of several the gradients are averaged as they come.
        """

    def grads_by_param(self) -> dict[int, Tensor]:
        """The last gradients taken, by the identity of their parameters."""
        pairs = zip(self.params.values(), self._seen, strict=True)
        return {id(param): grad for param, grad in pairs if grad is not None}

    def grad_at(self, shift: Shift) -> tuple[Tensor, list[Tensor | None]]:
        """:meth:`grad` at a shifted point; needs memory for a copy of the parameters."""
        raise self._cannot_give("gradients at other points")

    def shift(self, vector: Sequence[Tensor], scale: float = 1.0) -> Shift:
        """The point that lies ``scale * vector`` away; ``vector`` is shaped like the parameters."""
        return Shift(scale, Dense(dict(zip(self.params, vector, strict=True))))

    def hessian(self, *, products: Literal["exact", "finite"] = "exact") -> Hessian | FiniteHessian:
        """The Hessian as an operator, with the loss and gradient it came from. Counts one grad.

        ``H @ v`` costs one product each, or two gradients with ``products="finite"`` (differences,
        for models without second derivatives). Use it as a context: its graph is freed at the end.
        """
        raise self._cannot_give("curvature")

    def ggn(self) -> GGN:
        """The generalised Gauss-Newton matrix as an operator. Counts one value.

        Needs a ``Composite(outputs, loss)``, the loss convex in the outputs.
        """
        raise self._cannot_give("curvature")

    def output_grad(self) -> OutputGrad:
        """The loss and its gradients in parameters and outputs. Counts one of each.

        Needs a ``Composite(outputs, loss)``, and a loss that depends on the parameters through the
        outputs alone.
        """
        raise self._cannot_give("gradients in the model's outputs")

    def reusing_outputs(
        self, loss: Callable[[Tensor], Tensor], *, nonfinite: Nonfinite | None = None
    ) -> Oracle:
        """An oracle for another loss of the same model's outputs: a surrogate.

        Same parameters, ledger, budget and random numbers; the loss is never maximised, and its
        gradients are not counted in outputs.

        Args:
            loss: maps the model's outputs to a loss, shape ().
            nonfinite: another policy than this oracle's.
        """
        raise self._cannot_give("the model's outputs")

    # Other processes -----------------------------------------------------------------------

    @property
    def local(self) -> Self:
        """This oracle for the batch of this process alone: nothing is averaged."""
        twin = copy.copy(self)
        twin._communicator = None
        return twin

    def exchange(self, message: bytes) -> list[bytes]:
        """The messages of all processes in the order of their ranks; of one process, its own.

        What is sent is counted in ``calls.bytes_sent``.
        """
        if self._communicator is None:
            return [message]
        self.calls.bytes_sent += len(message)
        return self._communicator.exchange(message)

    def __getitem__(self, name: str) -> Oracle:
        """The oracle of one of several closures, for methods that declare them."""
        raise self._cannot_give(f"a closure called {name!r}")

    def _cannot_give(self, what: str) -> NeedsError:
        return NeedsError(
            f"expected an oracle that can give {what}; this one knows {self.knows}. {self.instead}"
        )

    # Counting ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _asking(self, **asked: int) -> Generator[None]:
        """Check the budget, then time and count one question (for each of several batches)."""
        asked = {n: c * self._count if n in _EACH else c for n, c in asked.items()}
        if self.budget is not None:
            self.budget.check(self.calls, asked)
        began, self._evaluated = time.perf_counter(), 0
        try:
            with _outside_inference_mode():
                yield
        except BaseException:
            # Cut short: only evaluations that were completed have been answers.
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
        """Gradients as all processes have them, without a scale, and finite; changed in place.

        Args:
            loss: the loss they are of, if it is known.
            grads: gradients by parameter, perhaps followed by gradients in something else.
            hooked: whether the hooks of DistributedDataParallel and its like have seen them.
            scaled: whether they are of a scaled loss.
            owner: the optimizer in whose ``.grad`` they are.

        Returns:
            The loss, averaged where gradients were.
        """
        own = grads[: len(self.params)]
        refuse_sparse(self.params, own)
        if self._communicator is not None:
            params = list(self.params.values())
            done = averaged_already(self._module, params) if hooked else frozenset[int]()
            pairs = zip(params, own, strict=True)
            tensors = [g for p, g in pairs if g is not None and id(p) not in done]
            if loss is not None and (tensors or self._compares):
                loss = loss.detach().clone()
                tensors.append(loss)
            self._average(tensors)
        if scaled:
            self._scaling.unscale_(own, loss, owner)
        self._finite(loss, grads)
        return loss

    def _finite(self, loss: Tensor | None, grads: Sequence[Tensor | None] = ()) -> None:
        """Raise or leave the step out if something is not finite and the policy forbids that."""
        require_finite(self._nonfinite, loss, grads, [*self.params, "the model's outputs"])

    def _turned(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        """Gradients of minus the loss where that is asked about."""
        return grads if self._sign > 0 else [None if g is None else -g for g in grads]

    def _taken(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        """Gradients as a method gets them: clipped, and remembered."""
        self._seen = clipped(grads, self._clip)
        return self._seen


def _outside_inference_mode() -> contextlib.AbstractContextManager[Any]:
    """Questions need graphs, which inference mode would not build."""
    if torch.is_inference_mode_enabled():
        return torch.inference_mode(False)
    return contextlib.nullcontext()
