"""Checks of gradients before a method uses them: dense, finite, clipped."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NoReturn

import numpy as np
import torch
from torch import Tensor

from anyorder.engine.tensors import all_finite
from anyorder.errors import AnyOrderError
from anyorder.model.sharding import as_sharded, local, locals_of, summed

#: What to do about a NaN or infinite loss or gradient.
Nonfinite = Literal["raise", "skip", "ignore"]
POLICIES: tuple[Nonfinite, ...] = ("raise", "skip", "ignore")


_NAN = torch.from_numpy(np.array(np.nan, np.float32))


class SparseGradientError(AnyOrderError, TypeError):
    """A gradient is sparse; only dense gradients are supported."""


class NonFiniteError(AnyOrderError, ValueError):
    """A loss or a gradient is NaN or infinite. Raised before any parameter is changed."""


class SkipStep(AnyOrderError, RuntimeError):  # noqa: N818 - a signal, caught by Optimizer.step
    """Signals that this step is skipped: a loss or gradient was not finite."""

    def __init__(self, loss: Tensor) -> None:
        super().__init__("step skipped")
        self.loss = loss


def unknown_loss() -> Tensor:
    """What stands for a loss that nobody has seen: NaN, whatever the default dtype and device."""
    return _NAN * _NAN  # the fastest way to a new tensor


def refuse_sparse(params: Mapping[str, Tensor], grads: Sequence[Tensor | None]) -> None:
    """Raise :class:`SparseGradientError` at the first gradient that is not dense."""
    for name, grad in zip(params, grads, strict=True):
        if grad is not None and grad.layout is not torch.strided:
            raise SparseGradientError(
                f"the gradient of {name} is sparse; expected a dense one. Create the embedding "
                "with sparse=False"
            )


def require_finite(
    policy: Nonfinite,
    loss: Tensor | None,
    grads: Sequence[Tensor | None] = (),
    names: Iterable[str] = (),
) -> None:
    """Check that the loss (if known) and all gradients are finite.

    All processes that share sharded gradients get the same result.

    Args:
        policy: what to do if they are not.
        loss: shape ().
        grads: gradients by parameter, optionally followed by that in the model's outputs.
        names: names of the parameters.

    Raises:
        NonFiniteError: under the policy ``raise``.
        SkipStep: under ``skip``.
    """
    if policy == "ignore":
        return
    sound = loss is None or math.isfinite(loss.item())
    if finite_everywhere([g for g in grads if g is not None], sound):
        return
    at_fault = f"the loss is {loss.item()}" if loss is not None and not sound else ""
    refuse(policy, at_fault or _words_for(names, grads), loss)


def refuse(policy: Nonfinite, fault: str, loss: Tensor | None = None) -> NoReturn:
    """Skip the step or raise, depending on the policy."""
    if policy == "skip":
        raise SkipStep(unknown_loss() if loss is None else loss.detach())
    raise NonFiniteError(
        f"{fault}; no parameter was changed. Lower the learning rate or check the batch; "
        "nonfinite='skip' skips and counts such steps, 'ignore' does not check"
    )


def finite_everywhere(grads: Sequence[Tensor], sound: bool = True) -> bool:
    """Whether this process is ``sound`` and all gradients are finite.

    All processes that share sharded gradients get the same result.
    """
    here = locals_of(grads)
    sound = sound and all_finite(here)
    if all(map(operator.is_, here, grads)):  # none is sharded
        return sound
    faults = torch.tensor(float(not sound), dtype=torch.float32, device=here[0].device)
    return not bool(summed(faults, grads))


def _words_for(names: Iterable[str], grads: Sequence[Tensor | None]) -> str:
    """Describe which gradients are not finite."""
    pairs = zip(itertools.chain(names, ("the model's outputs",)), grads, strict=False)
    bad = [name for name, g in pairs if g is not None and not all_finite([local(g)])]
    return f"the gradient is not finite in {', '.join(bad[:5]) or 'a shard of another process'}"


def clipped(grads: list[Tensor | None], limit: float | None) -> list[Tensor | None]:
    """Rescale ``grads`` if their total Euclidean norm exceeds ``limit``."""
    if limit is None:
        return grads
    found = [g for g in grads if g is not None]
    if not found:
        return grads
    parts = [local(g) for g in found]
    wide = [t.to(torch.promote_types(t.dtype, torch.float32)) for t in parts]
    squares = torch.stack([t.square().sum() for t in wide]).sum()
    norm = summed(squares, found).sqrt()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)  # the small number is that of torch.nn.utils
    scaled = iter(
        [as_sharded(t * factor.to(t.dtype), g) for t, g in zip(parts, found, strict=True)]
    )
    return [None if g is None else next(scaled) for g in grads]
