"""Gradients that can be differentiated once more, and the names of operations that forbid it.

PyTorch raises only where an operation says of itself that it has no second derivative and is on the
way of the second pass. A function of the user's own whose ``backward`` leaves the graph (it is
marked ``once_differentiable``, works on ``.data`` or under ``no_grad``) is on no way at all: its
curvature would be taken for zero. Here it is found in the first pass.

What cannot be found is a ``backward`` that keeps the graph of the gradient it is given and takes
its own inputs out of theirs, such as ``2 * x.data * grad``: a linear function looks the same.
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
    """Gradients with the graph they were computed by.

    Attributes:
        tensors: one for each input, ``None`` where the output does not depend on it.
        fault: the operation that cut them off from their graph, in words; empty if none did.
    """

    tensors: Sequence[Tensor | None]
    fault: str = ""

    def require_whole(self) -> None:
        """Raise :class:`SecondDerivativeError` if the graph is not whole."""
        if self.fault:
            raise SecondDerivativeError(f"{self.fault}. {_REMEDY}")


_REMEDY = (
    "Use a plain version of it (for attention: "
    "torch.nn.attention.sdpa_kernel(SDPBackend.MATH)), or let products come from differences of "
    "gradients: products='finite', which counts two gradients for each product"
)


def gradients(output: Tensor, inputs: Mapping[str, Tensor], weight: Tensor) -> Gradients:
    """The gradients of ``(output * weight).sum()``, with their graph.

    Args:
        output: what is differentiated.
        inputs: in what, by name.
        weight: shaped like ``output``. It requires a gradient itself: backward passes are linear in
            it, so whatever loses track of it has left the graph.
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
    """Run a differentiation, naming the operation where it has no second derivative."""
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
    """Remembers the first function whose gradients have left the graph."""

    def __init__(self) -> None:
        self.fault = ""

    def hook(self, node: Node, places: list[int]) -> Callable[..., None]:
        """A hook for ``node`` that looks at the gradients of some of its arguments."""

        def look(grads: Sequence[Tensor | None], _: object) -> None:
            found = [grad for place in places if (grad := grads[place]) is not None]
            if self.fault or not any(map(_cut_off, found)):
                return
            once = any(_delayed(grad) for grad in found)
            why = "it is marked once_differentiable" if once else "its backward leaves the graph"
            self.fault = f"the operation {_name(node)} has no second derivative ({why})"

        return look


def _cut_off(grad: Tensor) -> bool:
    """Whether a gradient has lost its graph; zeros, as of a step function, need none."""
    return _delayed(grad) if grad.requires_grad else bool((grad != 0).any())


def _delayed(grad: Tensor) -> bool:
    """Whether a gradient's only way back is the error that ``once_differentiable`` leaves."""
    return grad.grad_fn is not None and grad.grad_fn.name().rpartition("::")[2] == "Error"


def _name(node: Node) -> str:
    """The name of the class that the user wrote."""
    written = getattr(node, "_forward_cls", None)
    return node.name() if written is None else written.__name__


def _python_functions(output: Tensor, leaves: Sequence[Node]) -> list[tuple[Node, list[int]]]:
    """The functions written in Python between ``output`` and ``leaves``.

    Each comes with the numbers of those of its arguments through which a leaf can be reached.
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
