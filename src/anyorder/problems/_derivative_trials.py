"""Trials of the derivatives of ``loss``: they exist, are finite and correct; their speed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from anyorder.model.sharding import is_sharded
from anyorder.problems._acceptance import Bench, copied, some, trainable
from anyorder.problems._trees import map_tree
from anyorder.problems.registry import say


def gradients(bench: Bench) -> None:
    """Every parameter has a finite gradient."""
    model = bench.fresh()
    bench.loss(model, bench.batch).backward()
    parameters = trainable(model)
    if any(map(is_sharded, parameters.values())):
        bench.add(
            "info",
            "loss",
            "the parameters are sharded (DTensor), so the derivatives were not checked",
            "Check the problem in one process, without fully_shard.",
        )
        return
    missing = [name for name, p in parameters.items() if p.grad is None]
    if len(missing) == len(parameters):
        bench.add(
            "error",
            "loss",
            "no parameter of the model received a gradient",
            "Use the model passed to loss, not one stored in self.",
        )
        return
    strange = [n for n, p in parameters.items() if not _is_finite(p.grad)]
    if strange:
        bench.add(
            "error",
            "loss",
            f"has a NaN or infinite gradient at the initial point, in {some(strange)}",
            "Look for sqrt(0), log(0), division by zero, or torch.where around one of these.",
        )
        return
    bench.passed.add("gradients")
    if missing:
        bench.add(
            "warning",
            "loss",
            f"no gradient for {some(missing)}: the loss does not use them",
            "Use them in the loss, or freeze them with requires_grad_(False) in build.",
        )
    zero = [n for n, p in parameters.items() if p.grad is not None and not p.grad.any()]
    if zero:
        _report_zero(bench, zero)


def _report_zero(bench: Bench, zero: list[str]) -> None:
    """Report zero gradients: an error only if they are also zero near the initial point."""
    model = bench.fresh()
    chance = torch.Generator().manual_seed(bench.seed)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=chance).to(p)
            p += 0.01 * (1 + p.abs().mean()) * noise
    bench.loss(model, bench.batch).backward()
    nearby = trainable(model)
    gradient = {name: nearby[name].grad for name in zero}
    dead = [name for name, g in gradient.items() if g is None or not g.any()]
    if dead:
        bench.add(
            "warning",
            "loss",
            f"the gradient is exactly zero for {some(dead)}, at the initial point and near it",
            "Look for a product with zero, a clamp, a rounding or a saturated activation.",
        )
    at_start = [name for name in zero if name not in dead]
    if at_start:
        bench.add("info", "loss", f"the gradient is zero at the initial point for {some(at_start)}")


class _Place(NamedTuple):
    """A model with its data, and a unit direction in parameter space."""

    model: nn.Module
    data: Any
    direction: list[Tensor]


class _Pair(NamedTuple):
    """One derivative, computed in two ways."""

    exact: float
    difference: float
    agree: bool


def finite_differences(bench: Bench) -> None:
    """The gradient matches finite differences, along itself and along a random direction."""
    try:
        pairs = [_slope(bench, at) for at in _directions(bench, *_doubled(bench))]
    except Exception as error:
        bench.add(
            "info",
            "loss",
            f"does not run in float64 ({say(error)}), so the check of its gradient is coarse",
        )
        pairs = [_slope(bench, at) for at in _directions(bench, bench.fresh(), bench.batch)]
    wrong = next((pair for pair in pairs if not pair.agree), None)
    if wrong is None:
        bench.passed.add("slope")
    else:
        bench.add(
            "warning",
            "loss",
            f"its gradient is wrong: along one direction autograd gives "
            f"{wrong.exact:.6g}, finite differences of the loss give {wrong.difference:.6g}",
            "Look for .detach(), .data, rounding or a custom backward. If this is intended "
            "(straight-through estimator), methods that use values and methods that use gradients "
            "solve different problems here.",
        )


def second_derivative(bench: Bench) -> None:
    """Hessian products can be computed and match differences of the gradient."""
    try:
        model, data = _doubled(bench)
        bench.loss(model, data)
    except Exception:  # finite_differences has reported it
        model, data = bench.fresh(), bench.batch
    *_, at = _directions(bench, model, data)
    try:
        curvature = _curvature(bench, at)
    except Exception as error:
        bench.add(
            "info",
            "loss",
            f"cannot be differentiated twice: {say(error)}",
            "Methods that use curvature products will not run on it. For attention, write softmax "
            "and matrix products instead of scaled_dot_product_attention.",
        )
        return
    eps = _precision(bench, at)
    if eps > 1e-12 or "slope" not in bench.passed:
        return
    pair = _compare(at, lambda: _derivative(bench, at), curvature, eps, tolerance=1e-2)
    if not pair.agree:
        bench.add(
            "warning",
            "loss",
            f"its second derivative is wrong: along one direction a Hessian product gives "
            f"{pair.exact:.6g}, differences of the gradient give {pair.difference:.6g}",
            "Look for a custom backward that is not itself differentiable: PyTorch omits its "
            "second derivative without an error. Methods that use curvature products need it.",
        )


def _doubled(bench: Bench) -> tuple[nn.Module, Any]:
    """Return a new model and the batch, both in float64."""
    return bench.fresh().double(), map_tree(copied(bench.batch), _to_double)


def _to_double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _directions(bench: Bench, model: nn.Module, data: Any) -> list[_Place]:
    """Return the direction of the gradient, unless it is zero, and a random one."""
    parameters = list(trainable(model).values())
    gradient = _gradient(bench, model, data)
    chance = torch.Generator().manual_seed(bench.seed)
    anywhere = [torch.randn(p.shape, generator=chance).to(p) for p in parameters]
    norms = _norm(gradient), _norm(anywhere)
    return [
        _Place(model, data, [part / norm for part in direction])
        for direction, norm in zip((gradient, anywhere), norms, strict=True)
        if norm > 0
    ]


def _norm(parts: list[Tensor]) -> float:
    return math.sqrt(sum(float(part.detach().double().square().sum().item()) for part in parts))


def _gradient(bench: Bench, model: nn.Module, data: Any) -> list[Tensor]:
    parameters = list(trainable(model).values())
    gradient = torch.autograd.grad(
        bench.loss(model, data), parameters, allow_unused=True, materialize_grads=True
    )
    return [g.to_dense() if g.layout != torch.strided else g for g in gradient]


def _derivative(bench: Bench, at: _Place) -> float:
    """Derivative of the loss along the direction, from its gradient."""
    gradient = _gradient(bench, at.model, at.data)
    return sum(float((g * v).sum().item()) for g, v in zip(gradient, at.direction, strict=True))


def _curvature(bench: Bench, at: _Place) -> float:
    """Second derivative of the loss along the direction, from a Hessian product."""
    parameters = list(trainable(at.model).values())
    first = cast(
        tuple[Tensor | None, ...],
        torch.autograd.grad(
            bench.loss(at.model, at.data), parameters, create_graph=True, allow_unused=True
        ),
    )
    parts = [(g * v).sum() for g, v in zip(first, at.direction, strict=True) if g is not None]
    slope = torch.stack(parts).sum()
    if not slope.requires_grad:  # the loss is linear
        return 0.0
    second = torch.autograd.grad(slope, parameters, allow_unused=True, materialize_grads=True)
    return sum(float((g * v).sum().item()) for g, v in zip(second, at.direction, strict=True))


def _precision(bench: Bench, at: _Place) -> float:
    """Rounding unit of the loss; a float64 model may still compute its loss in float32."""
    return torch.finfo(bench.loss(at.model, at.data).dtype).eps


def _slope(bench: Bench, at: _Place) -> _Pair:
    """Compare the derivative from the gradient with differences of the loss."""
    slope, eps = _derivative(bench, at), _precision(bench, at)
    if eps > 1e-5:  # float16 and bfloat16 have too few digits for finite differences
        return _Pair(slope, math.nan, agree=True)

    def value() -> float:
        return float(bench.loss(at.model, at.data).item())

    return _compare(at, value, slope, eps, tolerance=1e-3 if eps < 1e-12 else 5e-2)


def _compare(
    at: _Place, function: Callable[[], float], exact: float, eps: float, *, tolerance: float
) -> _Pair:
    """Compare a derivative of ``function`` along a direction with central differences.

    One of three step sizes must agree: a kink between the two points spoils a large step and
    rounding a small one, but a wrong derivative spoils all three.

    Args:
        at: The point and the direction.
        function: Evaluates at the model's current parameters.
        exact: The derivative to test.
        eps: Rounding unit of ``function``.
        tolerance: Relative difference that is accepted.
    """
    parameters = list(trainable(at.model).values())
    start = [p.detach().clone() for p in parameters]

    def value(length: float) -> float:
        _go(parameters, start, at.direction, length)
        number = function()
        _go(parameters, start, at.direction, 0.0)
        return number

    widths = (1e-4, 1e-5, 1e-6) if eps < 1e-12 else (1e-1, 1e-2, 1e-3)
    size = max(1.0, _norm(start) / math.sqrt(sum(p.numel() for p in parameters)))
    nearest = math.nan
    for width in widths:
        h = width * size
        ahead, behind = value(h), value(-h)
        difference = (ahead - behind) / (2 * h)
        rounding = 20 * eps * max(abs(ahead), abs(behind)) / h
        allowed = tolerance * max(abs(difference), abs(exact)) + rounding
        if abs(difference - exact) <= allowed:
            return _Pair(exact, difference, agree=True)
        if not abs(difference - exact) >= abs(nearest - exact):
            nearest = difference
    return _Pair(exact, nearest, agree=False)


@torch.no_grad()
def _go(
    parameters: list[nn.Parameter], start: list[Tensor], direction: list[Tensor], length: float
) -> None:
    for p, origin, v in zip(parameters, start, direction, strict=True):
        p.copy_(origin + length * v)


def speed(bench: Bench) -> None:
    """Record the wall time of a loss and of its backward pass."""
    model = bench.fresh()
    values: list[Tensor] = []
    bench.time("loss", lambda: values.append(bench.loss(model, bench.batch)))
    bench.time("backward", lambda: torch.autograd.backward(values.pop()))


def _is_finite(gradient: Tensor | None) -> bool:
    if gradient is None:
        return True
    dense = gradient.to_dense() if gradient.layout != torch.strided else gradient
    return bool(dense.isfinite().all().item())
