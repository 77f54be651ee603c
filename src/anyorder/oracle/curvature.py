"""Curvature as operators: ``H @ v`` on lists of tensors, each product counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.oracle.closures import Composite, checked_loss, checked_outputs, with_graph
from anyorder.oracle.scaling import Scaling
from anyorder.oracle.second_derivatives import Gradients, SecondDerivativeError, gradients, named

Vector = Sequence[Tensor]
#: Parameters by name, by the name of the closure they belong to.
_Owned = Mapping[str, Mapping[str, Tensor]]
_GradAt = Callable[[float, Vector, str | None], list[Tensor | None]]
_Product = Callable[[], AbstractContextManager[None]]
#: Takes a product, what undoes its scale, and the loss; returns the product as a method gets it.
_Settle = Callable[[list[Tensor], float, Tensor], list[Tensor]]


class CrossError(AnyOrderError, ValueError):
    """Mixed derivatives with a closure that has no parameters."""


@dataclass(frozen=True, slots=True)
class OutputGrad:
    """A loss and its gradients in the parameters and in the model's outputs.

    Attributes:
        loss: the loss, shape ().
        grads: its gradient per parameter (``None`` if there is none).
        outputs: the model's outputs, at least in float32.
        grad_outputs: the gradient of the loss in the outputs, in their shape.
    """

    loss: Tensor
    grads: list[Tensor | None]
    outputs: Tensor
    grad_outputs: Tensor

    @property
    def samples(self) -> int:
        """The number of samples, assuming that the loss is a mean over all axes but the last."""
        classes = self.outputs.shape[-1] if self.outputs.dim() > 1 else 1
        return self.outputs.numel() // max(classes, 1)


class Hessian:
    """The Hessian of a loss at one point. Created by ``oracle.hessian()``.

    Attributes:
        loss: the loss, shape ().
        grads: the gradient, one tensor per parameter (``None`` if there is none); with a scaler,
            that of the scaled loss until the oracle unscales it.
    """

    def __init__(
        self,
        loss: Tensor,
        params: Mapping[str, Tensor],
        product: _Product,
        settle: _Settle,
        scaling: Scaling,
        owned: _Owned,
    ) -> None:
        self.loss = loss.detach()
        self._params, self._owned = list(params.values()), owned
        self._product, self._settle = product, settle
        scaled, self._factor = scaling.up(loss), scaling.factor()
        self._graph: Gradients | None = gradients(scaled, params, _weight(scaled))
        self.grads = [None if g is None else g.detach() for g in self._graph.tensors]

    def __matmul__(self, vector: Vector) -> list[Tensor]:
        """Return the Hessian times ``vector`` (shaped like the parameters). Counts one product."""
        return self._times(vector, self._params)

    def cross(self, vector: Vector, owner: str) -> list[Tensor]:
        """Return mixed second derivatives times ``vector``. Counts one product.

        For named closures: the derivative, with respect to the parameters of ``owner``, of the
        inner product of ``vector`` with the gradient in this operator's own parameters.
        """
        return self._times(vector, _owned_by(self._owned, owner))

    def _times(self, vector: Vector, params: list[Tensor]) -> list[Tensor]:
        if self._graph is None:
            raise SecondDerivativeError("this Hessian is closed; take products inside `with`")
        self._graph.require_whole()
        pairs = _tracked(self._graph, vector)
        with self._product(), torch.enable_grad():
            found = _grad([g for g, _ in pairs], params, [v for _, v in pairs])
        return self._settle(_filled(found, params), self._factor, self.loss)

    def __enter__(self) -> Self:
        """Use as a context manager to free the graph at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the graph, which breaks the cycle grad -> graph -> grad."""
        self._graph = None


class FiniteHessian:
    """Hessian products from differences of gradients, for models without second derivatives.

    ``H v`` is (grad(x + h v) - grad(x - h v)) / 2h with ``h`` scaled to the sizes of x and v. Each
    product counts two gradients.
    """

    def __init__(
        self,
        loss: Tensor,
        grads: list[Tensor | None],
        params: Mapping[str, Tensor],
        grad_at: _GradAt,
        owned: _Owned,
    ) -> None:
        self.loss, self.grads = loss, grads
        self._params, self._grad_at, self._owned = list(params.values()), grad_at, owned

    def __matmul__(self, vector: Vector) -> list[Tensor]:
        """Return the Hessian times ``vector``. Counts two gradients."""
        return self._times(vector, None, self._params)

    def cross(self, vector: Vector, owner: str) -> list[Tensor]:
        """Like :meth:`Hessian.cross`. Counts two gradients."""
        return self._times(vector, owner, _owned_by(self._owned, owner))

    def _times(self, vector: Vector, owner: str | None, params: list[Tensor]) -> list[Tensor]:
        size = _norm(self._params) / max(_norm(vector), 1e-30)
        precision = torch.finfo(self._params[0].dtype).eps
        step = precision ** (1 / 3) * max(size, 1e-3)
        ahead, behind = (self._grad_at(h, vector, owner) for h in (step, -step))
        pairs = zip(_filled(ahead, params), _filled(behind, params), strict=True)
        return [(a - b) / (2 * step) for a, b in pairs]

    def __enter__(self) -> Self:
        """Do nothing; for compatibility with :class:`Hessian`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


class GGN:
    """The generalised Gauss-Newton matrix ``J' H_loss J``. Created by ``oracle.ggn()``."""

    def __init__(
        self,
        closure: Composite,
        params: Mapping[str, Tensor],
        sign: float,
        product: _Product,
        settle: _Settle,
        scaling: Scaling,
    ) -> None:
        self._params = list(params.values())
        self._product, self._settle, self._scaling = product, settle, scaling
        self._outputs = checked_outputs(closure.outputs())
        self._point = self._outputs.detach().requires_grad_()
        loss = checked_loss(closure.loss(self._point)) * sign
        self.loss = loss.detach()
        self._slope: Gradients | None = gradients(
            with_graph(loss), {"the model's outputs": self._point}, _weight(loss)
        )
        # J v by two reverse passes: differentiate u -> J'u, which is linear, once more. At which u
        # does not matter, but J'u should not be zero there, or lost graphs would go unseen.
        self._dummy = _ramp(self._outputs).requires_grad_()
        self._pulled: Gradients | None = gradients(self._outputs, params, self._dummy)

    def __matmul__(self, vector: Vector) -> list[Tensor]:
        """Return the Gauss-Newton matrix times ``vector``. Counts one product."""
        if self._slope is None or self._pulled is None:
            raise SecondDerivativeError(
                "this Gauss-Newton matrix is closed; take products inside `with`"
            )
        self._slope.require_whole()
        self._pulled.require_whole()
        pairs = _tracked(self._pulled, vector)
        slopes = _tracked(self._slope, [self._point])
        with self._product(), torch.enable_grad():
            (push,) = _filled(
                _grad([p for p, _ in pairs], [self._dummy], [v for _, v in pairs]), [self._dummy]
            )
            (bent,) = _filled(_grad([s for s, _ in slopes], [self._point], [push]), [self._point])
            bent, factor = self._scaling.up(bent), self._scaling.factor()
            found = _grad([self._outputs], self._params, [bent])
        return self._settle(_filled(found, self._params), factor, self.loss)

    def __enter__(self) -> Self:
        """Use as a context to free the graphs at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the graphs."""
        self._pulled, self._slope, self._outputs = None, None, self._point


def _owned_by(owned: _Owned, owner: str) -> list[Tensor]:
    if owner not in owned:
        raise CrossError(f"cross: expected one of {list(owned)}, got {owner!r}")
    return [param for param in owned[owner].values() if param.requires_grad]


def _weight(loss: Tensor) -> Tensor:
    """The weight 1 of a loss, which its gradients have to keep track of."""
    return torch.ones_like(loss, requires_grad=True)


def _ramp(like: Tensor) -> Tensor:
    """Different numbers around 1, shaped like a tensor."""
    steps = torch.linspace(0.5, 1.5, like.numel(), dtype=like.dtype, device=like.device)
    return steps.view(like.shape)


def _tracked(graph: Gradients, vector: Vector) -> list[tuple[Tensor, Tensor]]:
    """The gradients that can be differentiated again, with their parts of a vector."""
    pairs = zip(graph.tensors, vector, strict=True)
    return [(g, v) for g, v in pairs if g is not None and g.requires_grad]


def _grad(
    outputs: list[Tensor], inputs: list[Tensor], vector: list[Tensor]
) -> Sequence[Tensor | None]:
    """The gradients of ``(outputs * vector).sum()``; the graph stays."""
    if not outputs:
        return [None] * len(inputs)
    return named(
        lambda: torch.autograd.grad(outputs, inputs, vector, retain_graph=True, allow_unused=True)
    )


def _filled(found: Sequence[Tensor | None], params: Sequence[Tensor]) -> list[Tensor]:
    pairs = zip(found, params, strict=True)
    return [torch.zeros_like(p) if f is None else f.detach() for f, p in pairs]


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([t.detach().double().norm() for t in tensors]).norm())
