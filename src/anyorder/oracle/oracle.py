"""One closure, one oracle: everything a method may ask, counted, with the user's world left alone.

``closure() -> loss`` returns the loss of one fixed batch and does nothing else. The :class:`Oracle`
takes values, rankings, gradients and curvature products from it. It counts every answer in a
ledger, refuses a question that would exceed the budget *before* asking, and leaves parameters,
``.grad``, ``requires_grad``, buffers, module mode and random state as it found them, also when the
closure raises in the middle.

Example:
    >>> import torch
    >>> from anyorder.oracle import Oracle
    >>> x = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> oracle = Oracle(lambda: (x ** 2).sum(), {"x": x})
    >>> loss, grads = oracle.grad()
    >>> loss.item(), grads[0].tolist(), x.grad
    (5.0, [2.0, 4.0], None)
    >>> oracle.calls.grads
    1
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from anyorder.engine import Engine
from anyorder.engine.tensors import all_finite
from anyorder.oracle.closures import (
    Closure,
    ClosureError,
    Mean,
    Ranker,
    calls_backward,
    checked_loss,
    checked_order,
    checked_outputs,
    in_two_parts,
    one_gradient,
    parts_of,
    with_graph,
)
from anyorder.oracle.curvature import GGN, FiniteHessian, Hessian, Target
from anyorder.oracle.gradients import (
    Nonfinite,
    SkipStep,
    clipped,
    refuse,
    refuse_sparse,
    require_finite,
)
from anyorder.oracle.gradients import (
    NonFiniteError as NonFiniteError,  # what an oracle raises is to be had from here, too
)
from anyorder.oracle.ledger import Budget, Calls
from anyorder.oracle.user_state import World
from anyorder.points.directions import Dense, Shift
from anyorder.points.substitution import in_place, shifted

if TYPE_CHECKING:
    import torch.distributed

#: Ledger entries that are evaluations of the closure, one by one.
_RANKS = ("rankings", "ranked")  # a point is shown once, over however many closures
_EVALUATIONS = ("values", "ranked", "grads", "targets")


@dataclass(slots=True)
class Learned:
    """What evaluations have shown about a closure, kept from step to step.

    Attributes:
        opaque: parameters that no visible operation reads (:mod:`anyorder.points.substitution`).
        graph: whether the closure differentiates something itself and so needs a graph.
    """

    opaque: set[str] = field(default_factory=set)
    graph: bool = False


class Oracle:
    """What a method may ask of a closure.

    Args:
        closure: returns the scalar loss of one fixed batch.
        params: parameters by name; the point at which questions are asked. Frozen ones are left
            out, unless all are (plain tensors).
        calls: ledger to count in (default: a new one).
        budget: limits checked before each question.
        ranker: answers :meth:`rank`; by default the order of the values.
        module: the module whose buffers are kept safe between evaluations.
        maximize: ask about minus the loss.
        engine: runs the rules that make shifted points.
        scaler: a ``torch.amp.GradScaler`` for float16 gradients.
        group: process group over which answers are averaged.
        advance: let the *first* evaluation move buffers and random state, as a plain call would;
            otherwise nothing moves at all.
        legacy: accept a closure that calls ``backward`` itself, for :meth:`grad` only.
        nonfinite: what a NaN or infinite loss or gradient does: ``raise``, ``skip`` or ``ignore``.
        learned: what earlier evaluations have shown about the closure; added to.
        clip: longest gradient, in the Euclidean norm over all parameters; a longer one is scaled.
    """

    def __init__(
        self,
        closure: Closure | Sequence[Closure],
        params: Mapping[str, Tensor],
        *,
        calls: Calls | None = None,
        budget: Budget | None = None,
        ranker: Ranker | None = None,
        module: nn.Module | None = None,
        maximize: bool = False,
        engine: Engine | None = None,
        scaler: Any = None,
        group: torch.distributed.ProcessGroup | None = None,
        advance: bool = False,
        legacy: bool = False,
        nonfinite: Nonfinite = "raise",
        learned: Learned | None = None,
        clip: float | None = None,
    ) -> None:
        self._parts = parts_of(closure)
        self._closure: Closure = Mean(self._parts) if len(self._parts) > 1 else self._parts[0]
        trainable = {name: p for name, p in params.items() if p.requires_grad}
        self.params = trainable or dict(params)
        self.calls = Calls() if calls is None else calls
        self.budget = budget
        self._ranker, self._module = ranker, module
        self._sign = -1.0 if maximize else 1.0
        self._engine = engine or Engine("eager")
        self._scaler, self._group, self._legacy = scaler, group, legacy
        self._world = World(self.params, module)
        self._keep_first = advance
        self._nonfinite: Nonfinite = nonfinite
        self.learned = Learned() if learned is None else learned
        self._evaluated = 0
        self._clip = clip
        self._seen: list[Tensor | None] = []

    # Questions -----------------------------------------------------------------------------

    def value(self) -> Tensor:
        """The loss at the present point, shape ()."""
        return self.values([Shift()])[0]

    def values(self, shifts: Sequence[Shift]) -> Tensor:
        """The losses at shifted points, shape ``(len(shifts),)``. Counts one value each.

        All of them see the same random numbers, so a difference is not dropout noise.
        """
        with self._asking(values=len(shifts)):
            losses = torch.stack([self._value(shift) for shift in shifts])
        self._average([losses])
        return losses * self._sign

    def rank(self, shifts: Sequence[Shift]) -> list[int]:
        """Positions of the shifted points, best first; possibly only the best few.

        Counts one ranking and ``len(shifts)`` ranked points. Without a ranker the order is that of
        the values, which are not counted as values: nobody was told them.
        """
        with self._asking(rankings=1, ranked=len(shifts)):
            if self._ranker is not None:
                return checked_order(self._ranker(shifts), len(shifts))
            policy, self._nonfinite = self._nonfinite, "ignore"  # NaN is merely the worst rank
            try:
                losses = torch.stack([self._value(shift) for shift in shifts])
            finally:
                self._nonfinite = policy
            self._average([losses])
        losses = torch.where(losses.isnan(), torch.inf, losses * self._sign)
        return losses.argsort(stable=True).tolist()

    def grad(self) -> tuple[Tensor, list[Tensor | None]]:
        """The loss and its gradient by parameter (``None`` where it has none).

        Counts one grad for each closure; of several the gradients are averaged as they come.
        """
        with (
            self._asking(**one_gradient(self._parts[0])),
            torch.enable_grad(),
            self._world.grads_put_aside() as before,
        ):
            if len(self._parts) > 1:
                loss = self._accumulated(before)
            else:
                with self._evaluation():
                    loss = self._checked(self._closure())
                    if self._legacy and self._world.grads_changed(before):
                        before.keep()  # a torch.optim closure: its gradients stay where they are
                    elif self._world.grads_changed(before):
                        raise calls_backward()
                    else:
                        self._backward(loss)
            grads = [p.grad for p in self.params.values()]
        refuse_sparse(self.params, grads)
        self._finite(loss, grads)
        if self._sign < 0:
            grads = [None if g is None else -g for g in grads]
        return loss.detach() * self._sign, self._taken(grads)

    def slopes(self) -> dict[int, Tensor]:
        """The last gradients taken, by the identity of their parameters."""
        pairs = zip(self.params.values(), self._seen, strict=True)
        return {id(param): grad for param, grad in pairs if grad is not None}

    def _taken(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        """Gradients as a method gets them: clipped, and remembered."""
        self._seen = clipped(grads, self._clip)
        return self._seen

    def _accumulated(self, before: Any) -> Tensor:
        """The mean loss of several closures, with the mean gradient in ``.grad``."""
        count, keep = len(self._parts), self._keep_first
        seen = getattr(self._parts, "seen", None)
        params = list(self.params.values())
        total: list[Tensor | None] = [None] * len(params)
        losses: list[Tensor] = []
        for index, closure in enumerate(self._parts):
            self._keep_first = keep  # every one of them is a batch of its own
            silent = seen is None and index < count - 1
            with self._unsynchronised(silent), self._evaluation():
                loss = self._checked(closure())
                if index == 0 and self._world.grads_changed(before):
                    raise calls_backward()
                self._backward(loss / count)
            losses.append(loss.detach())
            if seen is not None:
                own = [p.grad for p in params]
                seen([None if g is None else g * count for g in own])
                total = [_sum(t, g) for t, g in zip(total, own, strict=True)]
                for param in params:
                    param.grad = None
        if seen is not None:
            for param, grad in zip(params, total, strict=True):
                param.grad = grad
        return torch.stack(losses).mean()

    def _unsynchronised(self, silent: bool) -> contextlib.AbstractContextManager[None]:
        """Processes need to exchange the sum of several gradients only."""
        pause = getattr(self._module, "no_sync", None)
        return pause() if silent and pause is not None else contextlib.nullcontext()

    def hessian(self, *, products: Literal["exact", "finite"] = "exact") -> Hessian | FiniteHessian:
        """The Hessian as an operator, with the loss and gradient it came from. Counts one grad.

        ``H @ v`` costs one product each, or two gradients with ``products="finite"`` (differences,
        for models without second derivatives). Use it as a context: its graph is freed at the end.
        """
        if products == "finite":
            loss, grads = self.grad()
            return FiniteHessian(loss, grads, self.params, self._grad_at)
        with (
            self._asking(**one_gradient(self._parts[0])),
            torch.enable_grad(),
            self._world.grads_put_aside() as before,
            self._evaluation(),
        ):
            loss = self._checked(self._closure())
            if self._world.grads_changed(before):
                raise calls_backward()
            operator = Hessian(
                loss * self._sign, self.params, self._product, self._average, self._settle
            )
        self._finite(operator.loss, operator.grads)
        operator.grads = self._taken(operator.grads)
        return operator

    def _grad_at(self, scale: float, vector: Sequence[Tensor]) -> list[Tensor | None]:
        return self.grad_at(self.shift(vector, scale))[1]

    def shift(self, vector: Sequence[Tensor], scale: float = 1.0) -> Shift:
        """The point that lies ``scale * vector`` away; ``vector`` is shaped like the parameters."""
        return Shift(scale, Dense(dict(zip(self.params, vector, strict=True))))

    def grad_at(self, shift: Shift) -> tuple[Tensor, list[Tensor | None]]:
        """:meth:`grad` at a shifted point; needs memory for a copy of the parameters."""
        with in_place(self.params, shift, self._engine):
            loss, grads = self.grad()
        self._average([loss, *(g for g in grads if g is not None)])
        return loss, grads

    def target(self) -> Target:
        """The loss and its gradients in parameters and outputs. Counts one grad and one target.

        Needs a closure in two parts, ``Composite(outputs, loss)``, and a loss that depends on the
        parameters through the outputs alone.
        """
        closure = in_two_parts(self._closure, "gradients in the model's outputs need")
        with (
            self._asking(grads=1, targets=1),
            torch.enable_grad(),
            self._world.grads_put_aside() as before,
        ):
            with self._evaluation():
                outputs = checked_outputs(closure.outputs())
                wide = torch.promote_types(outputs.dtype, torch.float32)
                point = outputs.detach().to(wide).requires_grad_()
                loss = self._checked(closure.loss(point))
                if self._world.grads_changed(before):
                    raise calls_backward()
                slopes = self._slopes(loss, point)
                # Its gradient in the outputs is `slopes`; hooks and a scaler see a plain backward.
                self._backward((outputs.to(wide) * slopes).sum())
            grads = [p.grad for p in self.params.values()]
        self._average([loss.detach(), *(g for g in grads if g is not None)])
        self._finite(loss, [*grads, slopes])
        if self._sign < 0:
            grads = [None if g is None else -g for g in grads]
        return Target(loss.detach() * self._sign, grads, point.detach(), slopes * self._sign)

    def _slopes(self, loss: Tensor, outputs: Tensor) -> Tensor:
        """The gradient of the loss in the outputs; refuses losses that read parameters too."""
        params = list(self.params.values())
        found = torch.autograd.grad(loss, [outputs, *params], allow_unused=True)
        slopes, *direct = cast("tuple[Tensor | None, ...]", found)
        if slopes is None or any(d is not None for d in direct):
            raise ClosureError(
                "the second part of the closure must compute the loss from the outputs it is "
                "given, and from no parameter; move what reads parameters into the first part"
            )
        return slopes

    def reusing_outputs(
        self, loss: Callable[[Tensor], Tensor], *, nonfinite: Nonfinite | None = None
    ) -> Oracle:
        """An oracle for another loss of the same model's outputs: a surrogate.

        Same parameters, ledger, budget and random numbers; the loss is never maximised, and its
        gradients are not counted as targets.

        Args:
            loss: maps the outputs of the closure's first part to a loss, shape ().
            nonfinite: another policy than this oracle's.
        """
        closure = in_two_parts(self._closure, "another loss of the outputs needs")
        twin = copy.copy(self)
        twin._closure = lambda: loss(closure.outputs())
        twin._parts = [twin._closure]
        twin._sign = 1.0
        twin._nonfinite = nonfinite or self._nonfinite
        return twin

    def ggn(self) -> GGN:
        """The generalised Gauss-Newton matrix as an operator. Counts one value.

        Needs a closure in two parts, ``Composite(outputs, loss)``, the loss convex in the outputs.
        """
        closure = in_two_parts(self._closure, "Gauss-Newton products need")
        with self._asking(values=1, targets=1), torch.enable_grad(), self._evaluation():
            return GGN(closure, self.params, self._sign, self._product, self._settle)

    # Counting ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _asking(self, **asked: int) -> Generator[None]:
        """Check the budget, then time and count one question (for each of several closures)."""
        asked = {n: c if n in _RANKS else c * len(self._parts) for n, c in asked.items()}
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

    @contextlib.contextmanager
    def _product(self) -> Generator[None]:
        with self._asking(products=1), self._world.unmoved():
            yield

    # Evaluating ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _evaluation(self) -> Generator[None]:
        """One run of the closure; buffers, modes and random state are put back afterwards.

        With ``advance`` the first run of the step is let through: after the step the world is as
        one plain evaluation would have left it (batch-norm statistics, the next dropout mask).
        """
        with self._world.evaluation(keep=self._keep_first):
            yield
        self._keep_first = False
        self._evaluated += 1

    @torch.no_grad()
    def _value(self, shift: Shift) -> Tensor:
        loss, seen = self._value_once(shift)
        unseen = frozenset(self.params) - seen
        if not self.learned.opaque >= unseen:
            # Never asked for: unused, or read by code no operation of which can be seen.
            self.learned.opaque |= unseen
            self._evaluated -= 1
            loss, _ = self._value_once(shift)
        return self._finite(loss)

    def _value_once(self, shift: Shift) -> tuple[Tensor, set[str]]:
        # What was learned of parameters that have been frozen since does not count here.
        opaque = frozenset(self.learned.opaque & set(self.params))
        try:
            with (
                torch.set_grad_enabled(self.learned.graph),
                self._world.grads_put_aside() as before,
                self._evaluation(),
                shifted(self.params, shift, self._engine, opaque) as seen,
            ):
                loss = self._checked(self._closure(), graph=False).detach()
                if self.learned.graph and self._world.grads_changed(before):
                    raise calls_backward()
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            if self.learned.graph:
                raise calls_backward() from error
            # It differentiates inside, as losses on derivatives do, or it calls backward().
            self.learned.graph = True
            return self._value_once(shift)
        return loss, seen

    def _finite(self, loss: Tensor, grads: Sequence[Tensor | None] = ()) -> Tensor:
        """``loss``, unless it or a gradient is not finite and the policy forbids that."""
        require_finite(self._nonfinite, loss, grads, [*self.params, "the model's outputs"])
        return loss

    def _checked(self, loss: Any, *, graph: bool = True) -> Tensor:
        found = checked_loss(loss)
        return with_graph(found) if graph and not self._legacy else found

    def _backward(self, loss: Tensor) -> None:
        """Backward into ``.grad``: hooks of DDP and of the user fire as in a plain loop."""
        with_graph(loss)
        if self._scaler is None:
            loss.backward()
            return
        self._scaler.scale(loss).backward()
        owner = _Groups(list(self.params.values()))
        self._scaler.unscale_(owner)
        self._scaler.update()  # grows or shrinks by whether unscale_ met an overflow
        if not all_finite([p.grad for p in owner.params if p.grad is not None]):
            raise SkipStep(loss.detach())

    def _settle(self, product: Sequence[Tensor]) -> None:
        """Average a curvature product over the processes and see that it is finite."""
        self._average(product)
        if self._nonfinite != "ignore" and not all_finite(product):
            refuse(
                self._nonfinite,
                "a curvature product is not finite: the loss has no second derivative there",
            )

    def _average(self, tensors: Sequence[Tensor]) -> None:
        """Average answers over the processes in place."""
        if self._group is None:
            return
        import torch.distributed as dist

        for tensor in tensors:
            dist.all_reduce(tensor, group=self._group)
            tensor.div_(dist.get_world_size(self._group))
            self.calls.bytes_sent += tensor.numel() * tensor.element_size()


def _outside_inference_mode() -> contextlib.AbstractContextManager[Any]:
    """Questions need graphs, which inference mode would not build."""
    if torch.is_inference_mode_enabled():
        return torch.inference_mode(False)
    return contextlib.nullcontext()


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return second if first is None else first if second is None else first + second


class _Groups:
    """The one thing a gradient scaler asks of an optimizer: its parameter groups."""

    def __init__(self, params: list[Tensor]) -> None:
        self.params = params
        self.param_groups = [{"params": params}]
