"""Per-sample gradients, computed with ``torch.func``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from anyorder.batching.loaders import BatchingError


def per_sample_gradients(
    model: nn.Module, loss: Callable[..., Tensor], batch: Any
) -> dict[str, Tensor]:
    """Compute the gradient of each sample of a batch.

    Args:
        model: the model that ``loss`` calls. It must process samples independently.
        loss: as in :meth:`BatchSizeController.closures`; it receives batches of one sample.
        batch: tensors whose first axis counts samples, in tuples, lists or dictionaries.

    Returns:
        Tensors of shape ``(samples, *parameter.shape)`` by the parameter's name.

    Raises:
        BatchingError: the model or the loss does not work on single samples.
    """
    owner = _Owner(model)
    params = {f"model.{n}": p.detach() for n, p in model.named_parameters() if p.requires_grad}

    def alone(weights: dict[str, Tensor], sample: Any) -> Tensor:
        single = pytree.tree_map(lambda t: t.unsqueeze(0), sample)
        return torch.func.functional_call(owner, weights, (partial(called, loss, single),))

    devices = sorted({p.device.index or 0 for p in params.values() if p.is_cuda})
    try:
        with torch.random.fork_rng(devices):
            found = torch.func.vmap(torch.func.grad(alone), (None, 0), randomness="different")(
                params, batch
            )
    except (RuntimeError, ValueError) as error:
        raise BatchingError(
            f"per-sample gradients cannot be computed here: {str(error).splitlines()[0]} "
            "Leave out exact=; micro-batches work with any model"
        ) from error
    return {name.removeprefix("model."): grads for name, grads in found.items()}


class _Owner(nn.Module):
    """Runs a function while its model's parameters are replaced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Tensor]) -> Tensor:
        return function()


def called(loss: Callable[..., Tensor], batch: Any) -> Tensor:
    """The loss of a batch, whose elements are the arguments."""
    return loss(*batch) if isinstance(batch, (tuple, list)) else loss(batch)
