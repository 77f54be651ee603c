"""Gradients that can be differentiated again, and detection of operations that prevent it.

PyTorch only raises if an operation declares that it has no second derivative and the second
backward pass reaches it. A custom function whose ``backward`` leaves the graph (it is marked
``once_differentiable``, works on ``.data`` or under ``no_grad``) is never reached, and its
curvature would silently be zero. This module detects it in the first pass.

A ``backward`` that keeps the graph of the incoming gradient and detaches its own inputs, such as
``2 * x.data * grad``, cannot be detected: a linear function looks the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node, get_gradient_edge

from anyorder.errors import AnyOrderError

_REFUSALS = (
    (r"derivative for '?(?:aten::)?(\w+)'? is not implemented", "{}"),
    (r"(\w+) does not support double backward", "{}"),
    (r"torch\.compile with aot_autograd does not currently support double", "torch.compile"),
)


class SecondDerivativeError(AnyOrderError, RuntimeError):
    """An operation in the closure has no second derivative."""


@dataclass(slots=True)
class Gradients:
    """Gradients with their graph.

    Attributes:
        tensors: one for each input, ``None`` where the output does not depend on it.
        fault: description of the operation that broke the graph; empty if none did.
    """

    tensors: Sequence[Tensor | None]
    fault: str = ""

    def require_whole(self) -> None:
        """Raise :class:`SecondDerivativeError` if the graph is broken."""
        if self.fault:
            raise SecondDerivativeError(f"{self.fault}. {_REMEDY}")


_REMEDY = (
    "Use a plain version of it (for attention: "
    "torch.nn.attention.sdpa_kernel(SDPBackend.MATH)), or let products come from differences of "
    "gradients: products='finite', which counts two gradients for each product"
)


def gradients(output: Tensor, inputs: Mapping[str, Tensor], weight: Tensor) -> Gradients:
    """Return the gradients of ``(output * weight).sum()``, with their graph.

    Args:
        output: the tensor to differentiate.
        inputs: the tensors to differentiate with respect to, by name.
        weight: shaped like ``output``. It requires a gradient: backward passes are linear in it, so
            a gradient that does not depend on it has left the graph.
    """
    leaves = [get_gradient_edge(tensor).node for tensor in inputs.values()]
    watch = _Watch()
    handles = [
        cast("Any", node).register_hook(watch.hook(node, places))
        for node, places in _python_functions(output, leaves)
    ]
    try:
        found = named(
            lambda: torch.autograd.grad(
                [output], list(inputs.values()), [weight], create_graph=True, allow_unused=True
            )
        )
    finally:
        for handle in handles:
            handle.remove()
    for name, grad in zip(inputs, found, strict=True):
        if not watch.fault and grad is not None and _cut_off(grad):
            watch.fault = f"the gradient of {name} is cut off from its graph by a hook or a detach"
    return Gradients(found, watch.fault)


def named(derive: Callable[[], Sequence[Tensor | None]]) -> Sequence[Tensor | None]:
    """Differentiate; if there is no second derivative, raise an error that names the operation."""
    try:
        return derive()
    except (RuntimeError, NotImplementedError) as error:
        for pattern, words in _REFUSALS:
            if match := re.search(pattern, str(error)):
                name = words.format(*match.groups())
                raise SecondDerivativeError(
                    f"the operation {name} has no second derivative. {_REMEDY}"
                ) from error
        raise


class _Watch:
    """Records the first function whose gradients have left the graph."""

    def __init__(self) -> None:
        self.fault = ""

    def hook(self, node: Node, places: list[int]) -> Callable[..., None]:
        """Return a hook for ``node`` that checks the gradients of some of its arguments."""

        def look(grads: Sequence[Tensor | None], _: object) -> None:
            found = [grad for place in places if (grad := grads[place]) is not None]
            if self.fault or not any(map(_cut_off, found)):
                return
            once = any(_delayed(grad) for grad in found)
            why = "it is marked once_differentiable" if once else "its backward leaves the graph"
            self.fault = f"the operation {_name(node)} has no second derivative ({why})"

        return look


def _cut_off(grad: Tensor) -> bool:
    """Whether a gradient has lost its graph; zeros need none."""
    return _delayed(grad) if grad.requires_grad else bool((grad != 0).any())


def _delayed(grad: Tensor) -> bool:
    """Whether the graph of a gradient is only the error node of ``once_differentiable``."""
    return grad.grad_fn is not None and grad.grad_fn.name().rpartition("::")[2] == "Error"


def _name(node: Node) -> str:
    """Return the name of the user's class."""
    written = getattr(node, "_forward_cls", None)
    return node.name() if written is None else written.__name__


def _python_functions(output: Tensor, leaves: Sequence[Node]) -> list[tuple[Node, list[int]]]:
    """Return the Python functions between ``output`` and ``leaves``.

    Each with the indices of those arguments through which a leaf can be reached.
    """
    users: dict[Node, list[Node]] = {}
    nodes = [output.grad_fn] if output.grad_fn is not None else []
    known = set(nodes)
    for node in nodes:  # grows
        for child, _ in node.next_functions:
            if child is None:
                continue
            users.setdefault(child, []).append(node)
            if child not in known:
                known.add(child)
                nodes.append(child)
    written = [node for node in nodes if isinstance(node, BackwardCFunction)]
    if not written:
        return []
    reaching, new = set(leaves), list(leaves)
    while new:
        for user in users.get(new.pop(), ()):
            if user not in reaching:
                reaching.add(user)
                new.append(user)
    pairs = [
        (node, [i for i, (child, _) in enumerate(node.next_functions) if child in reaching])
        for node in written
    ]
    return [(node, places) for node, places in pairs if places]
