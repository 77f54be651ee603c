"""The trials of ``loss``: its value, its side effects, its derivatives."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from anyorder.problems._probe import (
    Bench,
    Snapshot,
    close,
    copied,
    place,
    same,
    some,
    source_line,
    trainable,
    watched_backward,
)
from anyorder.problems.base import map_tree
from anyorder.problems.registry import describe, say


def loss(bench: Bench) -> None:
    """``loss`` is one attached, finite number, found without disturbing anything."""
    model = bench.fresh()
    before, data = Snapshot(model), copied(bench.batch)
    with watched_backward(bench.problem) as backwards:
        value = bench.loss(model, bench.batch)
    changed = before.changed()
    if backwards:
        _report_backward(bench, backwards[0])
    if "parameters" in changed:
        bench.add(
            "error",
            "loss",
            f"changes parameters: {some(changed['parameters'])}",
            "Compute the loss only; the step is the optimiser's.",
        )
    if "buffers" in changed:
        bench.add("info", "loss", f"changes buffers: {some(changed['buffers'])}")
    if "modes" in changed or "flags" in changed:
        names = changed.get("modes", []) + changed.get("flags", [])
        bench.add(
            "warning",
            "loss",
            f"changes the mode or the requires_grad of {some(names)}",
            "Set modes and frozen parameters in build.",
        )
    if same(data, copied(bench.batch)) is False:
        bench.add(
            "error",
            "loss",
            "changes the batch, so its next value is that of other data",
            "Use operations that return a new tensor instead of those ending in an underscore.",
        )
        bench.batch = data
    before.restore()
    if _is_scalar_loss(bench, value, attached=not backwards) and not backwards:
        bench.passed.add("loss")
    if isinstance(value, Tensor) and value.numel() == 1 and math.isfinite(value.item()):
        _repeat_loss(bench, model, before, value.item())


def _report_backward(bench: Bench, where: str) -> None:
    line = source_line(where) if where else ""
    quoted = f" `{line}`" if line else ""
    bench.add(
        "error",
        "loss",
        f"calls backward itself{f' at {where}' if where else ''}",
        f"Remove the line{quoted or ' that calls backward'}\n"
        "and return the loss with its graph: `return loss`, not loss.item() or loss.detach().",
    )


def _is_scalar_loss(bench: Bench, value: object, *, attached: bool) -> bool:
    """Report what keeps the value from being a loss; say whether it can be differentiated."""
    if not isinstance(value, Tensor):
        bench.add(
            "error",
            "loss",
            f"returned {describe(value)}",
            "Return the tensor itself: no .item(), no float().",
        )
        return False
    if value.numel() != 1:
        bench.add(
            "error",
            "loss",
            f"returned a tensor of shape {tuple(value.shape)}",
            "Reduce it to one number with .mean() or .sum().",
        )
        return False
    if value.ndim:
        bench.add(
            "warning",
            "loss",
            f"returned a tensor of shape {tuple(value.shape)} instead of ()",
            "Reduce it with .mean() or .squeeze().",
        )
    if not value.is_floating_point():
        bench.add(
            "error",
            "loss",
            f"returned a tensor of type {value.dtype}",
            "Return a floating-point loss; a count or an accuracy belongs into evaluate.",
        )
        return False
    if not math.isfinite(value.item()):
        bench.add(
            "error",
            "loss",
            f"is {value.item()} at the start",
            "Look for log(0), division by zero, overflow, or NaN in the data.",
        )
        return False
    if attached and not value.requires_grad:
        bench.add(
            "error",
            "loss",
            "is not attached to the parameters: it has no gradient",
            "Remove .detach(), .item(), torch.no_grad() and conversions to NumPy on the way from "
            "the model to the loss.",
        )
        return False
    return True


def _repeat_loss(bench: Bench, model: nn.Module, before: Snapshot, value: float) -> None:
    """The same loss comes out again; or a different one, if the random state differs."""
    again = float(bench.loss(model, bench.batch).item())
    before.restore()
    if not close(value, again):
        bench.add(
            "error",
            "loss",
            f"two evaluations of the same model and batch differ: {value:.8g} and {again:.8g}",
            "Use the batch that is given, and neither a counter, an iterator nor a generator of "
            "your own in loss. Random numbers belong into batch(seed, step).",
        )
        return
    bench.passed.add("repeatable")
    other = float(bench.loss(model, bench.batch, state=4).item())
    before.restore()
    if not close(value, other):
        bench.add(
            "info",
            "loss",
            "depends on the global random state (dropout or noise); methods that compare two "
            "values must repeat the state",
        )


def without_graph(bench: Bench) -> None:
    """Methods that take only values call the loss under ``torch.no_grad``."""
    model = bench.fresh()
    before = Snapshot(model)
    expected = float(bench.loss(model, bench.batch).item())
    before.restore()
    advice = "If the loss contains a derivative, compute it under `with torch.enable_grad():`."
    try:
        with torch.no_grad():
            value = float(bench.loss(model, bench.batch).item())
    except Exception as error:
        at = place(error, bench.problem)
        found = f"fails under torch.no_grad(){f' at {at}' if at else ''}: {say(error)}"
        bench.add("warning", "loss", found, advice)
        return
    if not close(expected, value):
        found = f"is {value:.8g} under torch.no_grad() and {expected:.8g} otherwise"
        bench.add("warning", "loss", found, advice)


def gradients(bench: Bench) -> None:
    """Every parameter has a finite gradient."""
    model = bench.fresh()
    bench.loss(model, bench.batch).backward()
    parameters = trainable(model)
    missing = [name for name, p in parameters.items() if p.grad is None]
    if len(missing) == len(parameters):
        bench.add(
            "error",
            "loss",
            "no parameter of the model received a gradient",
            "Use the model that loss is given, not one kept in self.",
        )
        return
    strange = [n for n, p in parameters.items() if not _is_finite(p.grad)]
    if strange:
        bench.add(
            "error",
            "loss",
            f"has a NaN or infinite gradient at the start, in {some(strange)}",
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
    """A gradient of zero at a start of zeros is common; one that stays zero nearby is not."""
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
            f"the gradient is exactly zero for {some(dead)}, at the start and near it",
            "Look for a product with zero, a clamp, a rounding or a saturated activation.",
        )
    at_start = [name for name in zero if name not in dead]
    if at_start:
        bench.add("info", "loss", f"the gradient is zero at the start for {some(at_start)}")


class _Slope(NamedTuple):
    """Derivative along one direction: by the gradient and by differences of the loss."""

    gradient: float
    difference: float
    agree: bool


def finite_differences(bench: Bench) -> None:
    """The gradient is that of the loss, along itself and along a random direction."""
    try:
        model = bench.fresh().double()
        slopes = _slopes(bench, model, map_tree(copied(bench.batch), _to_double))
    except Exception as error:
        bench.add(
            "info",
            "loss",
            f"does not run in float64 ({say(error)}), so its gradient was checked only roughly",
        )
        slopes = _slopes(bench, bench.fresh(), bench.batch)
    wrong = next((slope for slope in slopes if not slope.agree), None)
    if wrong is not None:
        bench.add(
            "warning",
            "loss",
            f"its gradient is not its derivative: along one direction the gradient says "
            f"{wrong.gradient:.6g}, differences of the loss say {wrong.difference:.6g}",
            "Look for .detach(), .data, rounding or a custom backward. If this is meant "
            "(straight-through estimator), methods that use values and methods that use gradients "
            "solve different problems here.",
        )


def _to_double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _slopes(bench: Bench, model: nn.Module, data: Any) -> list[_Slope]:
    parameters = list(trainable(model).values())
    value = bench.loss(model, data)
    gradient = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
    gradient = [g.to_dense() if g.layout != torch.strided else g for g in gradient]
    chance = torch.Generator().manual_seed(bench.seed)
    anywhere = [torch.randn(p.shape, generator=chance).to(p) for p in parameters]
    # float16 and bfloat16 hold too few digits for a difference to say anything.
    eps = torch.finfo(value.dtype).eps
    if eps > 1e-5:
        return []
    directions = (_unit(gradient), _unit(anywhere))
    return [_slope(bench, model, data, gradient, v, eps) for v in directions if v is not None]


def _unit(direction: list[Tensor]) -> list[Tensor] | None:
    norm = _norm(direction)
    return None if norm == 0 else [part / norm for part in direction]


def _norm(parts: list[Tensor]) -> float:
    return math.sqrt(sum(float(part.detach().double().square().sum().item()) for part in parts))


def _slope(
    bench: Bench,
    model: nn.Module,
    data: Any,
    gradient: list[Tensor],
    direction: list[Tensor],
    eps: float,
) -> _Slope:
    """Compare the slope with central differences; one of three step widths has to agree.

    A kink of the loss between the two points spoils a wide step and rounding a narrow one; a
    wrong gradient spoils all.
    """
    parameters = list(trainable(model).values())
    start = [p.detach().clone() for p in parameters]
    slope = sum(float((g * v).sum().item()) for g, v in zip(gradient, direction, strict=True))

    def go(length: float) -> None:
        with torch.no_grad():
            for p, origin, v in zip(parameters, start, direction, strict=True):
                p.copy_(origin + length * v)

    def value(length: float) -> float:
        go(length)
        number = float(bench.loss(model, data).item())
        go(0.0)
        return number

    widths, tolerance = ((1e-4, 1e-5, 1e-6), 1e-3) if eps < 1e-12 else ((1e-1, 1e-2, 1e-3), 5e-2)
    size = max(1.0, _norm(start) / math.sqrt(bench.parameters))
    nearest = math.nan
    for width in widths:
        h = width * size
        ahead, behind = value(h), value(-h)
        difference = (ahead - behind) / (2 * h)
        rounding = 20 * eps * max(abs(ahead), abs(behind)) / h
        allowed = tolerance * max(abs(difference), abs(slope)) + rounding
        if abs(difference - slope) <= allowed:
            return _Slope(slope, difference, agree=True)
        if not abs(difference - slope) >= abs(nearest - slope):
            nearest = difference
    return _Slope(slope, nearest, agree=False)


def second_derivative(bench: Bench) -> None:
    """Say whether Hessian products can be taken."""
    model = bench.fresh()
    parameters = list(trainable(model).values())
    value = bench.loss(model, bench.batch)
    try:
        first = cast(
            tuple[Tensor | None, ...],
            torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True),
        )
        attached = [g for g in first if g is not None and g.requires_grad]
        if attached:
            total = torch.stack([g.sum() for g in attached]).sum()
            torch.autograd.grad(total, parameters, allow_unused=True)
    except Exception as error:
        bench.add(
            "info",
            "loss",
            f"cannot be differentiated twice: {say(error)}",
            "Methods that use curvature products will not run on it. For attention, write softmax "
            "and matrix products instead of scaled_dot_product_attention.",
        )


def speed(bench: Bench) -> None:
    """Note the wall time of a loss and of its backward pass."""
    model = bench.fresh()
    values: list[Tensor] = []
    bench.time("loss", lambda: values.append(bench.loss(model, bench.batch)))
    bench.time("backward", lambda: values.pop().backward())


def _is_finite(gradient: Tensor | None) -> bool:
    if gradient is None:
        return True
    dense = gradient.to_dense() if gradient.layout != torch.strided else gradient
    return bool(dense.isfinite().all().item())
