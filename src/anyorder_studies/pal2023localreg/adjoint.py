"""Gradients of a solve by a backward solve, which stores no stages of the forward solve.

The solver can thus be a black box: the local penalty needs only the trajectory of the main solve,
so the main solve may compute its gradient with any method, including this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from anyorder_studies.pal2023localreg.solver import Field, Solution, solve
from anyorder_studies.pal2023localreg.tableaus import TSIT5, Tableau


def solve_adjoint(
    field: Field,
    z0: Tensor,
    t0: float,
    t1: float,
    parameters: Sequence[Tensor],
    *,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    tableau: Tableau = TSIT5,
    max_steps: int = 10_000,
) -> Solution:
    r"""Like :func:`solve`, with the gradient of the final state from the interpolating adjoint.

    With :math:`a = \partial L/\partial z`, backwards in time along the interpolated states

    .. math:: \dot a = -a^T\,\partial f/\partial z,\qquad
              \dot g = -a^T\,\partial f/\partial\theta.

    Args:
        field: Slope of the state.
        z0: State at ``t0``.
        t0: Start.
        t1: End.
        parameters: All tensors that the field depends on and that require a gradient.
        rtol: Tolerance relative to the state, in both directions.
        atol: Absolute tolerance, in both directions.
        tableau: The embedded pair.
        max_steps: Maximum number of steps in each direction.

    Returns:
        The solution; only its final state carries a gradient.
    """
    with torch.no_grad():
        path = solve(field, z0, t0, t1, rtol=rtol, atol=atol, tableau=tableau, max_steps=max_steps)
    settings = {"rtol": rtol, "atol": atol, "tableau": tableau, "max_steps": max_steps}
    final = cast(Tensor, _Adjoint.apply(z0, field, path, settings, *parameters))  # pyright: ignore
    states = [*path.states[:-1], final]
    return Solution(path.times, states, path.slopes, path.evaluations, path.rejected)


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z0: Tensor, field: Field, path: Solution, settings: dict[str, Any], *rest: Tensor
    ) -> Tensor:
        ctx.field, ctx.path, ctx.settings = field, path, settings
        ctx.save_for_backward(*rest)
        return path.final.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        field, path = ctx.field, ctx.path
        parameters: tuple[Tensor, ...] = ctx.saved_tensors
        shape, size = path.final.shape, path.final.numel()

        def slope(t: float, augmented: Tensor) -> Tensor:
            a = augmented[:size].reshape(shape)
            with torch.enable_grad():
                z = path.at(t).detach().requires_grad_()
                found = torch.autograd.grad(
                    field(t, z), (z, *parameters), a, allow_unused=True, materialize_grads=True
                )
            return -torch.cat([part.reshape(-1) for part in found])

        empty = [torch.zeros_like(p).reshape(-1) for p in parameters]
        with torch.no_grad():
            start = torch.cat([grads[0].reshape(-1), *empty])
            done = solve(slope, start, path.times[-1], path.times[0], **ctx.settings).final
        parts = torch.split(done, [size, *[p.numel() for p in parameters]])
        shaped = [part.reshape(p.shape) for part, p in zip(parts[1:], parameters, strict=True)]
        return (parts[0].reshape(shape), None, None, None, *shaped)
