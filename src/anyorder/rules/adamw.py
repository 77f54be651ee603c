"""The Adam update."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from anyorder.engine.tensors import sqrt
from anyorder.hyper import hyper
from anyorder.rules.rule import Rule, Scalars


def adamw_(
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    grad: Tensor,
    *,
    beta2: Tensor,
    take1: Tensor,
    take2: Tensor,
    step_size: Tensor,
    root: Tensor,
    eps: Tensor,
) -> None:
    """Update the moments, then the parameter."""
    exp_avg.add_((grad - exp_avg).mul_(take1))
    exp_avg_sq.mul_(beta2).add_((grad * grad).mul_(take2))
    denominator = sqrt(exp_avg_sq).mul_(root).add_(eps)
    param.sub_((exp_avg / denominator).mul_(step_size))


def adamw_scalars(betas: str = "betas", eps: str = "eps") -> Scalars:
    """The scalars of Adam, read from hyperparameters with these names."""

    def scalars(group: Mapping[str, Any], step: int) -> dict[str, float]:
        beta1, beta2 = group[betas]
        return {
            "beta2": beta2,
            "take1": 1.0 - beta1,
            "take2": 1.0 - beta2,
            "step_size": float(group["lr"]) / (1.0 - beta1**step),
            "root": 1.0 / math.sqrt(1.0 - beta2**step),
            "eps": group[eps],
        }

    return scalars


#: Adam with decoupled weight decay.
ADAMW = Rule(
    adamw_,
    buffers=("exp_avg", "exp_avg_sq"),
    nonnegative=frozenset({"exp_avg_sq"}),
    scalars=adamw_scalars(),
    hypers={
        "lr": hyper(
            1e-3, ge=0, search="log", low=1e-5, high=1e-1, unit="parameter", doc="learning rate"
        ),
        "betas": hyper((0.9, 0.999), ge=0, lt=1, doc="decay rates of the first and second moment"),
        "eps": hyper(1e-8, ge=0, unit="gradient", doc="added to the denominator"),
        "weight_decay": hyper(
            1e-2, ge=0, search="log", low=1e-4, high=1.0, unit="1 / step size",
            doc="weight decay",
        ),
    },
)  # fmt: skip
