"""Trials of ``loss``: its value, its side effects and its repeatability."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anyorder.problems._acceptance import (
    Bench,
    Snapshot,
    close,
    copied,
    place,
    same,
    some,
    source_line,
    watched_backward,
)
from anyorder.problems.registry import describe, say


def loss(bench: Bench) -> None:
    """``loss`` returns one finite number with a graph and has no side effects."""
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
            "Only compute the loss; the optimiser changes the parameters.",
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
            "changes the batch, so the next evaluation uses different data",
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
    """Report why the value is not a loss; return whether it can be differentiated."""
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
            "Return a floating-point loss; a count or an accuracy belongs in evaluate.",
        )
        return False
    if not math.isfinite(value.item()):
        bench.add(
            "error",
            "loss",
            f"is {value.item()} at the initial point",
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
    """The loss is repeatable; report whether it depends on the global random state."""
    again = float(bench.loss(model, bench.batch).item())
    before.restore()
    if not close(value, again):
        bench.add(
            "error",
            "loss",
            f"two evaluations of the same model and batch differ: {value:.8g} and {again:.8g}",
            "Use the batch passed to loss; no counter, iterator or random generator of your own. "
            "Random numbers belong in batch(seed, step).",
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
    """The loss also works under ``torch.no_grad``, where methods that need only values call it."""
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
