"""What gradients must be before a method sees them: dense, finite, and not too long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NoReturn

import torch
from torch import Tensor

from anyorder.engine.tensors import all_finite
from anyorder.errors import AnyOrderError
from anyorder.model.sharding import as_sharded, is_sharded, local, summed

#: What a NaN or infinite loss or gradient does.
Nonfinite = Literal["raise", "skip", "ignore"]
POLICIES: tuple[Nonfinite, ...] = ("raise", "skip", "ignore")


class SparseGradientError(AnyOrderError, TypeError):
    """A gradient is sparse; methods here take dense ones."""


class NonFiniteError(AnyOrderError, ValueError):
    """A loss or a gradient is NaN or infinite. Raised before any parameter was changed."""


class SkipStep(AnyOrderError, RuntimeError):  # noqa: N818 - a signal, caught by Optimizer.step
    """This step is left out: a loss or gradient was not finite and the policy is to go on."""

    def __init__(self, loss: Tensor) -> None:
        super().__init__("step left out")
        self.loss = loss


def unknown_loss() -> Tensor:
    """What stands for a loss that nobody has seen: NaN, whatever the default dtype and device."""
    return torch.tensor(float("nan"), dtype=torch.float32, device="cpu")


def refuse_sparse(params: Mapping[str, Tensor], grads: Sequence[Tensor | None]) -> None:
    """Raise :class:`SparseGradientError` at the first gradient that is not dense."""
    for name, grad in zip(params, grads, strict=True):
        if grad is not None and grad.layout is not torch.strided:
            raise SparseGradientError(
                f"the gradient of {name} is sparse; expected a dense one. Create the embedding "
                "with sparse=False"
            )


def require_finite(
    policy: Nonfinite, loss: Tensor | None, grads: Sequence[Tensor | None], names: Sequence[str]
) -> None:
    """Return if the loss (where it is known) and all gradients are finite, or nobody looks.

    Processes that share the gradients come to the same answer.

    Args:
        policy: what happens if they are not.
        loss: shape ().
        grads: gradients by parameter.
        names: what they are the gradients of.

    Raises:
        NonFiniteError: under the policy ``raise``.
        SkipStep: under ``skip``.
    """
    if policy == "ignore":
        return
    sound = loss is None or bool(torch.isfinite(loss.detach()))
    if finite_everywhere([g for g in grads if g is not None], sound):
        return
    at_fault = f"the loss is {loss.item()}" if loss is not None and not sound else ""
    refuse(policy, at_fault or _words_for(names, grads), loss)


def refuse(policy: Nonfinite, fault: str, loss: Tensor | None = None) -> NoReturn:
    """Leave the step out or raise, as the policy says."""
    if policy == "skip":
        raise SkipStep(unknown_loss() if loss is None else loss.detach())
    raise NonFiniteError(
        f"{fault}; no parameter was changed. Lower the step size or look at the batch; "
        "nonfinite='skip' leaves such steps out and counts them, 'ignore' does not look"
    )


def finite_everywhere(grads: Sequence[Tensor], sound: bool = True) -> bool:
    """Whether this process is ``sound`` and all gradients are finite.

    Processes that share the gradients come to the same answer.
    """
    sound = sound and all_finite([local(g) for g in grads])
    if not any(map(is_sharded, grads)):
        return sound
    device = local(grads[0]).device
    faults = torch.tensor(float(not sound), dtype=torch.float32, device=device)
    return not bool(summed(faults, grads))


def _words_for(names: Sequence[str], grads: Sequence[Tensor | None]) -> str:
    """Words for which gradients are not finite."""
    pairs = zip(names, grads, strict=False)
    bad = [name for name, g in pairs if g is not None and not all_finite([local(g)])]
    return f"the gradient is not finite in {', '.join(bad[:5]) or 'the part of another process'}"


def clipped(grads: list[Tensor | None], limit: float | None) -> list[Tensor | None]:
    """``grads``, scaled down together if their Euclidean norm exceeds ``limit``."""
    found = [g for g in grads if g is not None]
    if limit is None or not found:
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
