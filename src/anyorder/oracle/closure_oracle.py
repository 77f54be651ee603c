"""The oracle of one closure: counted evaluations without side effects.

``closure() -> loss`` returns the loss of one fixed batch and does nothing else. The
:class:`ClosureOracle` computes values, rankings, gradients and curvature products with it. It
counts every answer in a ledger, refuses an evaluation that would exceed the budget *before* it
runs, and restores parameters, ``.grad``, ``requires_grad``, buffers, module modes and random state,
even if the closure raises.

Example:
    >>> import torch
    >>> from anyorder.oracle import ClosureOracle
    >>> x = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    >>> oracle = ClosureOracle(lambda: (x ** 2).sum(), {"x": x})
    >>> loss, grads = oracle.grad()
    >>> loss.item(), grads[0].tolist(), x.grad
    (5.0, [2.0, 4.0], None)
    >>> oracle.calls.grads
    1
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Unpack, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from anyorder.engine import Engine
from anyorder.engine.tensors import all_finite
from anyorder.oracle.closures import (
    Closure,
    ClosureError,
    Mean,
    Ranker,
    as_composite,
    batches_of,
    calls_backward,
    checked_loss,
    checked_order,
    checked_outputs,
    one_gradient,
    with_graph,
)
from anyorder.oracle.curvature import GGN, FiniteHessian, Hessian, OutputGrad
from anyorder.oracle.gradients import Nonfinite, refuse, refuse_sparse, require_finite
from anyorder.oracle.oracle import NeedsError, Oracle, Policies
from anyorder.oracle.user_state import UserState
from anyorder.points.directions import Direction, Shift
from anyorder.points.substitution import in_place, shifted, tangents


@dataclass(slots=True)
class Learned:
    """Facts about a closure from earlier evaluations, kept from step to step.

    Attributes:
        opaque: parameters read by operations that cannot be intercepted
            (:mod:`anyorder.points.substitution`).
        graph: whether the closure itself differentiates something and therefore needs a graph.
        watched: parameters whose reads were all looked at during one evaluation.
        unused: parameters that do not change the loss, as far as forward mode has seen.
    """

    opaque: set[str] = field(default_factory=set)
    graph: bool = False
    watched: set[str] = field(default_factory=set)
    unused: set[str] = field(default_factory=set)


class ClosureOracle(Oracle):
    """The oracle of one closure.

    Args:
        closure: returns the scalar loss of one fixed batch; or a list of closures, one per batch.
        params: see :class:`~anyorder.oracle.oracle.Oracle`.
        ranker: computes :meth:`rank`; by default points are ordered by their values.
        engine: runs the rules that compute shifted points.
        advance: let the *first* evaluation change buffers and random state, as a plain call would;
            otherwise everything is restored.
        legacy: accept a closure that calls ``backward`` itself, for :meth:`grad` only.
        learned: facts from earlier evaluations; updated.
        name: the name of this closure, if there are several.
        owned: the parameters that belong to each closure, by closure name.
        user: the user's state, if several closures share it.
        policies: see :class:`~anyorder.oracle.oracle.Oracle`; the buffers of the module are
            restored between evaluations.
    """

    knows = "one closure"
    instead = "Ask what a closure can answer"

    def __init__(
        self,
        closure: Closure | Sequence[Closure],
        params: Mapping[str, Tensor],
        *,
        ranker: Ranker | None = None,
        engine: Engine | None = None,
        advance: bool = False,
        legacy: bool = False,
        learned: Learned | None = None,
        name: str = "",
        owned: Mapping[str, Mapping[str, Tensor]] | None = None,
        user: UserState | None = None,
        **policies: Unpack[Policies],
    ) -> None:
        super().__init__(params, **policies)
        self._batches = batches_of(closure)
        self._count = len(self._batches)
        self._closure: Closure = Mean(self._batches) if len(self._batches) > 1 else self._batches[0]
        self._ranker, self._engine = ranker, engine or Engine("eager")
        self._legacy, self._compares = legacy, not legacy
        self._name, self._owned = name, owned or {name: self.params}
        self._user = user or UserState(self.params, self._module, [name] if advance else ())
        self.learned = Learned() if learned is None else learned

    def over(self, *names: str) -> ClosureOracle:
        """Return an oracle of this closure with respect to the parameters of other closures.

        Args:
            names: the closures whose parameters to use, in this order; all others are constants.
        """
        if unknown := [name for name in names if name not in self._owned]:
            raise NeedsError(f"over: expected some of {list(self._owned)}, got {unknown}")
        twin = copy.copy(self)
        twin.params = {
            key: param
            for name in names
            for key, param in self._owned[name].items()
            if param.requires_grad
        }
        twin._seen = [None] * len(twin.params)
        return twin

    # Questions -----------------------------------------------------------------------------

    def values(self, shifts: Sequence[Shift]) -> Tensor:
        """Return the losses at shifted points, shape ``(len(shifts),)``. Counts one value each."""
        with self._asking(values=len(shifts)):
            losses = torch.stack([self._value(shift) for shift in shifts])
        self._average([losses])
        return losses * self._sign

    @torch.no_grad()  # does not concern forward mode
    def jvp(self, direction: Direction) -> tuple[Tensor, Tensor]:
        """Return the loss and its exact derivative along a direction. Counts one jvp."""
        with self._asking(jvps=1):
            loss, slope, seen = self._dual(direction)
            unseen = {name: p for name, p in self.params.items() if name not in seen}
            if not self.learned.unused >= unseen.keys():
                self._refuse_hidden(unseen, loss, direction)
                self.learned.unused |= unseen.keys()
        self._average([loss, slope])
        require_finite(self._nonfinite, loss, [slope])
        return loss * self._sign, slope * self._sign

    def _dual(self, direction: Direction) -> tuple[Tensor, Tensor, set[str]]:
        try:
            with (
                forward_ad.dual_level(),
                self._user.grads_put_aside(),
                self._evaluation(),
                tangents(self.params, direction, self._engine) as seen,
            ):
                found = self._checked(self._closure(), graph=False)
                loss, slope = forward_ad.unpack_dual(found)
        except RuntimeError as error:
            raise (calls_backward() if "does not require grad" in str(error) else error) from None
        loss = loss.detach().clone()
        return loss, torch.zeros_like(loss) if slope is None else slope.clone(), seen

    def _refuse_hidden(
        self, unseen: Mapping[str, Tensor], loss: Tensor, direction: Direction
    ) -> None:
        """Refuse parameters that are read, but not by operations that can be intercepted."""
        with in_place(unseen, Shift(1.0, direction), self._engine), self._evaluation():
            changed = self._checked(self._closure(), graph=False).detach()
        self._evaluated -= 1
        if not torch.equal(changed, loss):
            raise NeedsError(
                f"forward mode cannot differentiate {', '.join(list(unseen)[:5])}: compiled or "
                "scripted code reads them. Pass the original module, or use a method that needs "
                "values only, such as MeZO"
            )

    def rank(self, shifts: Sequence[Shift]) -> list[int]:
        """Return positions of the shifted points, best first; possibly only the best few."""
        with self._asking(rankings=1, ranked=len(shifts)):
            if self._ranker is not None:
                return checked_order(self._ranker(shifts), len(shifts))
            policy, self._nonfinite = self._nonfinite, "ignore"  # NaN is the worst rank
            try:
                losses = torch.stack([self._value(shift) for shift in shifts])
            finally:
                self._nonfinite = policy
            self._average([losses])
        losses = torch.where(losses.isnan(), torch.inf, losses * self._sign)
        return losses.argsort(stable=True).tolist()

    def grad(self) -> tuple[Tensor, list[Tensor | None]]:
        """Return the loss and its gradient per parameter (``None`` if there is none)."""
        scaled = True
        with (
            self._asking(**one_gradient(self._batches[0])),
            torch.enable_grad(),
            self._user.grads_put_aside() as before,
        ):
            if len(self._batches) > 1:
                loss = self._accumulated(before)
            else:
                with self._evaluation():
                    loss = self._checked(self._closure())
                    if self._legacy and self._user.grads_changed(before):
                        before.keep()  # a torch.optim closure: leave its gradients in place
                        scaled = False
                    elif self._user.grads_changed(before):
                        raise calls_backward()
                    else:
                        self._backward(loss)
            grads = self._own_grads()
        loss = self._settled(loss, grads, scaled=scaled)
        assert loss is not None
        return loss.detach() * self._sign, self._taken(self._turned(grads))

    def _accumulated(self, before: Any) -> Tensor:
        """Return the mean loss of several closures, with the mean gradient in ``.grad``."""
        count, waiting = len(self._batches), set(self._user.waiting)
        seen = getattr(self._batches, "seen", None)
        params = list(self.params.values())
        total: list[Tensor | None] = [None] * len(params)
        losses: list[Tensor] = []
        for index, closure in enumerate(self._batches):
            self._user.waiting |= waiting  # each closure is a batch of its own
            silent = seen is None and index < count - 1
            with self._unsynchronised(silent), self._evaluation():
                loss = self._checked(closure())
                if index == 0 and self._user.grads_changed(before):
                    raise calls_backward()
                self._backward(loss / count)
            losses.append(loss.detach())
            if seen is not None:
                own = [p.grad for p in params]
                whole = count * self._scaling.factor()
                seen([None if g is None else g * whole for g in own])
                total = [_sum(t, g) for t, g in zip(total, own, strict=True)]
                for param in params:
                    param.grad = None
        if seen is not None:
            for param, grad in zip(params, total, strict=True):
                param.grad = grad
        return torch.stack(losses).mean()

    def _unsynchronised(self, silent: bool) -> contextlib.AbstractContextManager[None]:
        """Let processes only exchange the sum of several gradients."""
        pause = getattr(self._module, "no_sync", None)
        return pause() if silent and pause is not None else contextlib.nullcontext()

    def hessian(self, *, products: Literal["exact", "finite"] = "exact") -> Hessian | FiniteHessian:
        """Return the Hessian as an operator, with loss and gradient. Counts one grad."""
        if products == "finite":
            loss, grads = self.grad()
            return FiniteHessian(loss, grads, self.params, self._grad_at, self._owned)
        with (
            self._asking(**one_gradient(self._batches[0])),
            torch.enable_grad(),
            self._user.grads_put_aside() as before,
            self._evaluation(),
        ):
            found = self._closure()
            if self._user.grads_changed(before):
                raise calls_backward()
            operator = Hessian(
                self._checked(found) * self._sign,
                self.params,
                self._product,
                self._settle,
                self._scaling,
                self._owned,
            )
        grads = operator.grads
        refuse_sparse(self.params, grads)
        if self._communicator is not None or self._scaling:  # do not modify tensors of the graph
            grads = [None if g is None else g.clone() for g in grads]
        loss = self._settled(operator.loss, grads, hooked=False)
        assert loss is not None
        operator.loss, operator.grads = loss, self._taken(grads)
        return operator

    def _grad_at(
        self, scale: float, vector: Sequence[Tensor], owner: str | None = None
    ) -> list[Tensor | None]:
        """Return the gradient at a nearby point, in the own parameters or in those of an owner."""
        asked = copy.copy(self) if owner is None else self.over(owner)
        asked._clip = None  # differences of clipped gradients are not curvature
        with in_place(self.params, self.shift(vector, scale), self._engine):
            return asked.grad()[1]

    def grad_at(self, shift: Shift) -> tuple[Tensor, list[Tensor | None]]:
        """Like :meth:`grad`, at a shifted point; needs memory for a copy of the parameters."""
        with in_place(self.params, shift, self._engine):
            return self.grad()

    def output_grad(self) -> OutputGrad:
        """Return the loss and its gradients in parameters and outputs. Counts one of each."""
        closure = as_composite(self._closure, "gradients in the model's outputs need")
        with (
            self._asking(grads=1, output_grads=1),
            torch.enable_grad(),
            self._user.grads_put_aside() as before,
        ):
            with self._evaluation():
                outputs = checked_outputs(closure.outputs())
                wide = torch.promote_types(outputs.dtype, torch.float32)
                point = outputs.detach().to(wide).requires_grad_()
                loss = self._checked(closure.loss(point))
                if self._user.grads_changed(before):
                    raise calls_backward()
                grad_outputs = self._in_outputs(loss, point)
                # Its gradient in the outputs is grad_outputs; hooks and scaler see plain backward.
                self._backward((outputs.to(wide) * grad_outputs).sum())
            grads = self._own_grads()
        loss = self._settled(loss, [*grads, grad_outputs])
        assert loss is not None
        sign = self._sign
        return OutputGrad(
            loss.detach() * sign, self._turned(grads), point.detach(), grad_outputs * sign
        )

    def _in_outputs(self, loss: Tensor, outputs: Tensor) -> Tensor:
        """Return the gradient of the loss in the outputs; refuse losses that read parameters."""
        params = list(self.params.values())
        found = torch.autograd.grad(loss, [outputs, *params], allow_unused=True)
        grad_outputs, *direct = cast("tuple[Tensor | None, ...]", found)
        if grad_outputs is None or any(d is not None for d in direct):
            raise ClosureError(
                "the loss of the Composite must be computed from its outputs only, and "
                "from no parameter; move everything that reads parameters into the outputs"
            )
        return grad_outputs

    def reusing_outputs(
        self, loss: Callable[[Tensor], Tensor], *, nonfinite: Nonfinite | None = None
    ) -> ClosureOracle:
        """Return an oracle for another loss of the same outputs, a surrogate."""
        closure = as_composite(self._closure, "another loss of the outputs needs")
        twin = copy.copy(self)
        twin._closure = lambda: loss(closure.outputs())
        twin._batches = [twin._closure]
        twin._sign = 1.0
        twin._nonfinite = nonfinite or self._nonfinite
        return twin

    def ggn(self) -> GGN:
        """Return the generalised Gauss-Newton matrix as an operator. Counts one value."""
        closure = as_composite(self._closure, "Gauss-Newton products need")
        with self._asking(values=1, output_grads=1), torch.enable_grad(), self._evaluation():
            operator = GGN(
                closure, self.params, self._sign, self._product, self._settle, self._scaling
            )
        self._average([operator.loss])
        require_finite(self._nonfinite, operator.loss)
        return operator

    # Counting ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _product(self) -> Generator[None]:
        with self._asking(products=1), self._user.unmoved():
            yield

    # Evaluating ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _evaluation(self) -> Generator[None]:
        """Context for one evaluation; restores buffers, modes and random state afterwards.

        With ``advance`` the first evaluation of a step is not undone, so that a step has the side
        effects of one plain evaluation (batch-norm statistics, the next dropout mask).
        """
        with self._user.evaluation(self._name):
            yield
        self._evaluated += 1

    @torch.no_grad()
    def _value(self, shift: Shift) -> Tensor:
        loss, seen = self._value_once(shift)
        unseen = frozenset(self.params) - seen
        if not self.learned.opaque >= unseen:
            # Unused, or read by code whose operations cannot be intercepted.
            self.learned.opaque |= unseen
            self._evaluated -= 1
            loss, _ = self._value_once(shift)
        require_finite(self._nonfinite, loss)
        return loss

    def _value_once(self, shift: Shift) -> tuple[Tensor, set[str]]:
        # Ignore parameters that were frozen since.
        opaque = frozenset(self.learned.opaque & set(self.params))
        thorough = not self.learned.watched >= set(self.params)
        try:
            with (
                torch.set_grad_enabled(self.learned.graph),
                self._user.grads_put_aside() as before,
                self._evaluation(),
                shifted(self.params, shift, self._engine, opaque, thorough=thorough) as seen,
            ):
                loss = self._checked(self._closure(), graph=False).detach()
                if self.learned.graph and self._user.grads_changed(before):
                    raise calls_backward()
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            if self.learned.graph:
                raise calls_backward() from error
            # It differentiates inside, like a loss on derivatives, or it calls backward().
            self.learned.graph = True
            return self._value_once(shift)
        if shift:
            self.learned.watched |= set(self.params)
        return loss, seen

    def _checked(self, loss: Any, *, graph: bool = True) -> Tensor:
        found = checked_loss(loss)
        return with_graph(found) if graph and not self._legacy else found

    def _backward(self, loss: Tensor) -> None:
        """Run backward into ``.grad``, so that hooks of DDP and of the user run."""
        some = list(self.params.values()) if len(self._owned) > 1 else None
        self._scaling.up(with_graph(loss)).backward(inputs=some)

    def _settle(self, product: list[Tensor], factor: float, loss: Tensor) -> list[Tensor]:
        """Average and unscale a curvature product, and check that it is finite."""
        if self._communicator is not None:
            product = [p.clone() for p in product]
            self._average(product)
        product = self._scaling.undone(product, factor, loss)
        if self._nonfinite != "ignore" and not all_finite(product):
            refuse(
                self._nonfinite,
                "a curvature product is not finite: the loss has no second derivative there",
            )
        return product


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return second if first is None else first if second is None else first + second
