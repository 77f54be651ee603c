"""Curvature as operators: ``H @ v`` on lists of tensors, each product counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.oracle.closures import Composite

Vector = Sequence[Tensor]
_Product = Callable[[], AbstractContextManager[None]]
_Settle = Callable[[Sequence[Tensor]], None]


class SecondDerivativeError(AnyOrderError, RuntimeError):
    """An operation in the closure has no second derivative."""


@dataclass(frozen=True, slots=True)
class Target:
    """A loss and its gradients, in the parameters and in the model's outputs.

    Attributes:
        loss: the loss, shape ().
        grads: its gradient by parameter (``None`` where it has none).
        outputs: what the model gave, at least in float32.
        slopes: the gradient of the loss in the outputs, in their shape.
    """

    loss: Tensor
    grads: list[Tensor | None]
    outputs: Tensor
    slopes: Tensor

    @property
    def samples(self) -> int:
        """Over how many outputs the loss is taken to be a mean: all axes but the last count."""
        classes = self.outputs.shape[-1] if self.outputs.dim() > 1 else 1
        return self.outputs.numel() // max(classes, 1)


class Hessian:
    """The Hessian of a loss at one point. Made by ``oracle.hessian()``.

    Attributes:
        loss: the loss there, shape ().
        grads: the gradient there, one tensor per parameter (``None`` where it has none).
    """

    def __init__(
        self,
        loss: Tensor,
        params: Mapping[str, Tensor],
        product: _Product,
        average: _Settle,
        settle: _Settle,
    ) -> None:
        self.loss = loss.detach()
        self._params = list(params.values())
        self._product, self._settle = product, settle
        self._graph = _second(
            lambda: torch.autograd.grad([loss], self._params, create_graph=True, allow_unused=True)
        )
        self.grads = [None if g is None else g.detach() for g in self._graph]
        average([g for g in self.grads if g is not None])

    def __matmul__(self, vector: Vector) -> list[Tensor]:
        """Hessian times ``vector``, tensors shaped like the parameters. Counts one product."""
        if not self._graph:
            raise SecondDerivativeError("this Hessian is closed; take products inside `with`")
        pairs = [(g, v) for g, v in zip(self._graph, vector, strict=True) if _curved(g)]
        with self._product(), torch.enable_grad():
            if pairs:
                found = _second(
                    lambda: torch.autograd.grad(  # pyright: ignore[reportCallIssue]
                        [g for g, _ in pairs],  # pyright: ignore[reportArgumentType]
                        self._params,
                        [v for _, v in pairs],
                        retain_graph=True,
                        allow_unused=True,
                    )
                )
            else:  # a loss linear in its parameters
                found = (None,) * len(self._params)
        result = _filled(found, self._params)
        self._settle(result)
        return result

    def __enter__(self) -> Self:
        """Use as a context to free the graph at its end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Free the graph: nothing may keep grad -> graph -> grad alive."""
        self._graph = ()


class FiniteHessian:
    """Products from differences of gradients, for models without second derivatives.

    ``H v`` is (grad(x + h v) - grad(x - h v)) / 2h with ``h`` scaled to the sizes of x and v. Each
    product counts two gradients.
    """

    def __init__(
        self,
        loss: Tensor,
        grads: list[Tensor | None],
        params: Mapping[str, Tensor],
        grad_at: Callable[[float, Vector], list[Tensor | None]],
    ) -> None:
        self.loss, self.grads = loss, grads
        self._params, self._grad_at = list(params.values()), grad_at

    def __matmul__(self, vector: Vector) -> list[Tensor]:
        """Hessian times ``vector``; counts two gradients."""
        size = _norm(self._params) / max(_norm(vector), 1e-30)
        precision = torch.finfo(self._params[0].dtype).eps
        step = precision ** (1 / 3) * max(size, 1e-3)
        ahead, behind = self._grad_at(step, vector), self._grad_at(-step, vector)
        return [
            (a - b) / (2 * step)
            for a, b in zip(
                _filled(ahead, self._params), _filled(behind, self._params), strict=True
            )
        ]

    def __enter__(self) -> Self:
        """Nothing is held; a context for likeness with :class:`Hessian`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to free."""


class GGN:
    """The generalised Gauss-Newton matrix ``J' H_loss J``. Made by ``oracle.ggn()``."""

    def __init__(
        self,
        closure: Composite,
        params: Mapping[str, Tensor],
        sign: float,
        product: _Product,
        settle: _Settle,
    ) -> None:
        self._params = list(params.values())
        self._product, self._settle = product, settle
        self._outputs = closure.outputs()
        self._point = self._outputs.detach().requires_grad_()
        loss = closure.loss(self._point) * sign
        self.loss = loss.detach()
        (self._slope,) = torch.autograd.grad(loss, self._point, create_graph=True)
        # J v by two reverse passes: differentiate u -> J'u, which is linear, once more.
        self._dummy = torch.zeros_like(self._outputs, requires_grad=True)
        self._pulled = _second(
            lambda: torch.autograd.grad(
                self._outputs, self._params, self._dummy, create_graph=True, allow_unused=True
            )
        )

    def __matmul__(self, vector: Vector) -> list[Tensor]:
        """Gauss-Newton matrix times ``vector``. Counts one product."""
        pairs = [(p, v) for p, v in zip(self._pulled, vector, strict=True) if p is not None]
        with self._product(), torch.enable_grad():
            (push,) = torch.autograd.grad(
                [p for p, _ in pairs], self._dummy, [v for _, v in pairs], retain_graph=True
            )
            (bent,) = torch.autograd.grad(self._slope, self._point, push, retain_graph=True)
            found = torch.autograd.grad(
                self._outputs, self._params, bent, retain_graph=True, allow_unused=True
            )
        result = _filled(found, self._params)
        self._settle(result)
        return result

    def __enter__(self) -> Self:
        """Use as a context to free the graphs at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the graphs."""
        self._pulled, self._outputs, self._slope = (), self._point, self._point


def _curved(grad: Tensor | None) -> bool:
    return grad is not None and grad.requires_grad


def _filled(found: Sequence[Tensor | None], params: Sequence[Tensor]) -> list[Tensor]:
    pairs = zip(found, params, strict=True)
    return [torch.zeros_like(p) if f is None else f.detach() for f, p in pairs]


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([t.detach().double().norm() for t in tensors]).norm())


def _second(derive: Callable[[], Sequence[Tensor | None]]) -> Sequence[Tensor | None]:
    """Run a differentiation, naming the operation where it has no second derivative."""
    try:
        return derive()
    except (RuntimeError, NotImplementedError) as error:
        match = re.search(r"derivative for '?(?:aten::)?(\w+)'? is not implemented", str(error))
        if match is None:
            match = re.search(r"(\w+) does not support double backward", str(error))
        if match is None:
            raise
        raise SecondDerivativeError(
            f"the operation {match.group(1)} has no second derivative. Use a plain version of it "
            "(for attention: torch.nn.attention.sdpa_kernel(SDPBackend.MATH)), or let products "
            "come from differences of gradients: products='finite', which counts two gradients "
            "for each product"
        ) from error
