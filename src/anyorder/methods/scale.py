"""SCALE: gradients normalised by column, with momentum for the output layer only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from anyorder.hyper import hyper
from anyorder.methods._by_role import ADAMW, ADAMW_RULE, ByRole
from anyorder.model.roles import Assignment, Role, RoleError, names_head
from anyorder.model.sharding import full, shard_of
from anyorder.oracle import Oracle
from anyorder.rules import Rule
from anyorder.rules.descent import AVERAGE, DESCENT

COLUMNS, MOMENTUM = "columns", "columns with momentum"


class SCALE(ByRole):
    r"""SCALE: SGD with column-wise normalised gradients and momentum only in the output layer.

    A linear layer maps inputs to outputs; its *column* is what belongs to one output unit. With
    gradient :math:`G_t` of a matrix, columns :math:`G_t^{(j)}` of length :math:`n`,

    .. math::
        M_t &= \begin{cases} \beta M_{t-1} + (1 - \beta) G_t & \text{output layer} \\
               G_t & \text{other matrices} \end{cases} \\
        W_t^{(j)} &= (1 - \eta \lambda) W_{t-1}^{(j)}
                   - \eta \frac{M_t^{(j)}}{\max(\lVert M_t^{(j)} \rVert, \epsilon)}

    so that the update of a column does not depend on the size of its gradient. Vectors (norms,
    biases) use AdamW. In PyTorch's layout a column is a row of ``Linear.weight`` and of a flattened
    kernel, and a column of ``Embedding.weight`` (one feature of all tokens). A matrix shared
    between embedding and output layer counts as the output layer.

    ``norm="rms"``, the default, divides by the root mean square: every element changes by about lr.
    The learning rates of the authors' scripts (1e-3 for models up to 350 million parameters, 2e-4
    for 1 billion, 1e-4 for 7 billion) are for this norm. ``norm="l2"`` divides by the Euclidean
    norm, as in the paper; updates are :math:`\sqrt n` times smaller, so it needs larger learning
    rates.

    Use warm-up, because the first steps are as large as all others. The authors use 10 % of all
    steps, then a cosine schedule.

    State: one buffer for the output layer, two for each vector, none for other matrices.

    Oracle calls per step: 1 gradient. Each step transfers 24 bytes per float32 element of a
    hidden matrix: the gradient is read for its norms and again for the division, the direction is
    written and read, the weight is read and written.

    Example:
        >>> import torch
        >>> from anyorder.methods.scale import SCALE
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> optimizer = SCALE(model, lr=0.01)
        >>> x, y = torch.ones(5, 3), torch.zeros(5, 2)
        >>> loss = optimizer.step(lambda: nn.functional.mse_loss(model(x), y))
        >>> print(optimizer.explain().splitlines()[2])  # doctest: +NORMALIZE_WHITESPACE
          0.weight  8x3 float32  matrix: columns (weight of Linear)

    Departures from the paper: kernels are flattened to (outputs, everything else), which the
    authors' program does not support; AdamW applies its bias correction before adding epsilon,
    theirs after it; the default of ``norm``, for which their program and their paper differ.

    References:
        Glentis, Li, Han and Hong (2025), "A Minimalist Optimizer Design for LLM Pretraining",
        arXiv 2506.16659.
    """

    order = 1
    rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {
        COLUMNS: (DESCENT,),
        MOMENTUM: (AVERAGE, DESCENT),
        ADAMW: (ADAMW_RULE,),
    }
    rule_by_role: ClassVar[Mapping[Role, str]] = {
        "matrix": COLUMNS,
        "convolution": COLUMNS,
        "embedding": COLUMNS,
        "head": MOMENTUM,
        "tied": MOMENTUM,
        "vector": ADAMW,
    }

    lr: float = hyper(
        1e-3, ge=0, search="log", low=1e-5, high=1e-1, unit="parameter", doc="learning rate"
    )
    momentum: float = hyper(
        0.9, ge=0, lt=1, doc="momentum factor of the output layer; 0 for none, and no state"
    )
    norm: str = hyper(
        "rms", choices=("rms", "l2"), doc="norm of a column: root mean square or Euclidean"
    )
    eps: float = hyper(1e-8, gt=0, unit="gradient", doc="lower bound of the norm")
    weight_decay: float = hyper(
        0.0, ge=0, search="log", low=1e-4, high=1.0, unit="1 / step size", doc="weight decay"
    )

    def told_enough(self) -> bool:
        """Whether the output layer is named, or said not to exist."""
        return self._told == "shape" or (isinstance(self._told, Mapping) and names_head(self._told))

    def without_module(self, named: Mapping[str, Tensor]) -> None:
        """Bare tensors do not say which of them is the output layer."""
        first = next(iter(named))
        raise RoleError(
            "SCALE keeps a momentum for the output layer, and parameters given one by one do not "
            "say which that is. Write SCALE(model); or pass roles=model beside groups; or name it, "
            f"roles={{{first!r}: 'head'}} (names: {', '.join(list(named)[:5])}), with any "
            "embedding besides; or pass roles='shape' for no output layer at all"
        )

    def label(self, name: str, group: Mapping[str, Any]) -> str:
        """Without momentum the output layer is treated like other matrices."""
        found = super().label(name, group)
        return COLUMNS if found == MOMENTUM and not group["momentum"] else found

    def update(self, oracle: Oracle) -> Tensor:
        """Compute one gradient, then update."""
        loss, grads = oracle.grad()
        self.apply(AVERAGE, grads, label=MOMENTUM)
        directions = self._directions(grads)
        self.apply(DESCENT, directions, label=COLUMNS)
        self.apply(DESCENT, directions, label=MOMENTUM)
        self.apply_adamw(grads)
        return loss

    def _directions(self, grads: list[Tensor | None]) -> list[Tensor | None]:
        """Normalised columns of gradients or momenta, ``None`` for vectors."""
        settings = {
            name: group
            for group in self.param_groups
            for name, label in zip(group["param_names"], self.labels(group), strict=True)
            if label != ADAMW
        }
        momenta = self.buffer("momentum_buffer")
        found: list[Tensor | None] = []
        for (name, param), grad in zip(self.named_params().items(), grads, strict=True):
            if grad is None or name not in settings:
                found.append(None)
                continue
            group = settings[name]
            whole = normalised(
                full(momenta.get(name, grad)), self.assignment(name), group["norm"], group["eps"]
            )
            found.append(shard_of(whole, param))
        return found


def normalised(tensor: Tensor, assigned: Assignment, norm: str, eps: float) -> Tensor:
    """Divide what belongs to each output unit by its norm.

    Args:
        tensor: a gradient or momentum, of any shape with the axis ``assigned.output``.
        assigned: tells the axis of output units.
        norm: ``rms`` or ``l2``.
        eps: norms below it count as it, so what is zero stays zero.

    Returns:
        A new tensor of the same shape, in at least float32.
    """
    wide = tensor.contiguous().to(torch.promote_types(tensor.dtype, torch.float32))
    if not wide.numel():
        return wide.clone()
    others = [axis for axis in range(wide.ndim) if axis != assigned.output]
    size = torch.linalg.vector_norm(wide, dim=others, keepdim=True)
    if norm == "rms":
        size = size / math.sqrt(wide.numel() / wide.shape[assigned.output])
    return wide / size.clamp(min=eps)
