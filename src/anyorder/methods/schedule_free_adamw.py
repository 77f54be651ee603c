"""Schedule-free AdamW: gradients between a fast point and its average, and no schedule."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from torch import Tensor

from anyorder.engine.tensors import sqrt
from anyorder.hyper import HyperError, hyper
from anyorder.optimizer import Optimizer
from anyorder.optimizer.checkpoint import CheckpointError, number, numbers
from anyorder.optimizer.options import RECORD
from anyorder.oracle import Oracle
from anyorder.rules import Rule


def schedule_free_adamw_(
    param: Tensor,
    ahead: Tensor,
    exp_avg_sq: Tensor,
    grad: Tensor,
    *,
    beta2: Tensor,
    take2: Tensor,
    square: Tensor,
    eps: Tensor,
    decay: Tensor,
    share: Tensor,
    keep: Tensor,
    step_size: Tensor,
    left: Tensor,
) -> None:
    """Mean square, direction u, then y and e = z - y."""
    exp_avg_sq.mul_(beta2).add_((grad * grad).mul_(take2))
    denominator = sqrt(exp_avg_sq * square).add_(eps)
    direction = (grad / denominator).add_(param * decay)
    param.add_((ahead * share).sub_(direction * step_size))
    ahead.sub_(direction.mul_(left)).mul_(keep)


SCHEDULE_FREE = Rule(
    schedule_free_adamw_,
    buffers=("ahead", "exp_avg_sq"),
    nonnegative=frozenset({"exp_avg_sq"}),
    own_decay=True,  # it acts on z by way of y and does not shrink y itself
)


class ScheduleFreeAdamW(Optimizer):
    r"""AdamW with an average of its points in place of a schedule, and of momentum.

    Gradients :math:`g_t` are taken at :math:`y`, between the point :math:`z` that Adam moves and
    the average :math:`x` of such points, which is the answer:

    .. math::
        \eta_t &= \eta \min(1, t / T_{\mathrm{warm}}), \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        u_t &= \frac{g_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} + \lambda y_t, \qquad
        z_{t+1} = z_t - \eta_t u_t \\
        x_{t+1} &= (1 - c_t) x_t + c_t z_{t+1}, \qquad
        c_t = \eta_t^2 \Big/ \sum_{i \le t} \eta_i^2 \\
        y_{t+1} &= (1 - \beta_1) z_{t+1} + \beta_1 x_{t+1}

    The parameters hold :math:`y` while training. To validate or to save a model use
    ``with optimizer.answer():``, in which they hold :math:`x`. Batch normalisation keeps statistics
    of the network at :math:`y`; let it see some batches at :math:`x` first.

    Kept are :math:`v` and :math:`e = z - y`, from which both points follow: :math:`z = y + e`,
    :math:`x = y - e (1 - \beta_1) / \beta_1`, and

    .. math::
        y_{t+1} = y_t + c_t e_t - \eta_t (1 - \beta_1 (1 - c_t)) u_t, \qquad
        e_{t+1} = (1 - c_t) (e_t - \eta_t \beta_1 u_t).

    State: two buffers per parameter, as Adam. Oracle calls per step: 1 gradient. Each step moves
    28 bytes per float32 parameter.

    Example:
        >>> import torch
        >>> from anyorder.methods.schedule_free_adamw import ScheduleFreeAdamW
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
        >>> optimizer = ScheduleFreeAdamW([x], lr=0.1)
        >>> for _ in range(300):
        ...     loss = optimizer.step(lambda: (x ** 2).sum())
        >>> with optimizer.answer():
        ...     bool((x.abs() < 0.1).all())
        True

    Departures from the paper:
        As in the authors' program, Adam's correction of the second moment stands in the
        denominator, beside :math:`\epsilon`; algorithm 1 multiplies :math:`\eta_t` by it, and with
        that the decay and the weights of the average too. As in algorithm 1, the weights follow the
        present step size; the program takes the largest so far, which is the same until a schedule
        lowers it.

    References:
        Defazio, Yang, Khaled, Mishchenko, Mehta and Cutkosky (2024), "The Road Less Scheduled",
        arXiv 2405.15682; the authors' program, github.com/facebookresearch/schedule_free.
    """

    order = 1
    rule = SCHEDULE_FREE
    answer_buffer = "ahead"
    scheduled = False

    lr: float = hyper(
        2.5e-3, ge=0, search="log", low=1e-5, high=1e-1, unit="parameter", doc="step size"
    )
    betas: tuple[float, float] = hyper(
        (0.9, 0.999), ge=0, lt=1, doc="share of the average in y (above 0), memory of the square"
    )
    eps: float = hyper(1e-8, ge=0, unit="gradient", doc="added to the denominator")
    weight_decay: float = hyper(
        0.0, ge=0, search="log", low=1e-4, high=1.0, unit="1 / step size", doc="decay of z, at y"
    )
    warmup: int = hyper(0, ge=0, unit="steps", doc="steps over which the step size rises")

    def check_group(self, group: dict[str, Any]) -> None:
        """Without a share of the average in y, it could not be had back from y and z."""
        if group["betas"][0] == 0.0:
            raise HyperError("betas[0]: expected a value > 0, got 0.0; for z alone use AdamW")

    def _scalars(self, group: Mapping[str, Any], step: int) -> dict[str, float]:
        """See the class for the symbols."""
        beta1, beta2 = group["betas"]
        _, lr, total = _average(group)
        share = lr**2 / total if total else 0.0  # steps of size zero have no weight
        return {
            "beta2": beta2,
            "take2": 1.0 - beta2,
            "square": 1.0 / (1.0 - beta2**step),
            "eps": group["eps"],
            "decay": group["weight_decay"],
            "share": share,
            "keep": 1.0 - share,
            "step_size": lr * (1.0 - beta1 * (1.0 - share)),
            "left": lr * beta1,
        }

    def update(self, oracle: Oracle) -> Tensor:
        """One gradient, one move."""
        loss, grads = oracle.grad()
        for group in self.param_groups:
            steps, _, total = _average(group)
            rise = min(1.0, (steps + 1) / group["warmup"]) if group["warmup"] else 1.0
            lr = float(group["lr"]) * rise
            _set_average(group, (steps + 1, lr, total + lr**2))
        self.apply(SCHEDULE_FREE, grads, scalars=self._scalars)
        return loss

    def answer_scale(self, group: Mapping[str, Any]) -> float:
        """From y to the average x."""
        beta1 = group["betas"][0]
        return -(1.0 - beta1) / beta1

    def extra_state(self) -> dict[str, Any]:
        """The weights of the averages."""
        return {"averages": [list(_average(group)) for group in self.param_groups]}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Take over what :meth:`extra_state` saved."""
        found = [numbers(extra, average, "averages", 3) for average in extra["averages"]]
        if len(found) != len(self.param_groups):
            raise CheckpointError(f"averages: expected {len(self.param_groups)}, got {len(found)}")
        averages = [
            (
                number(extra, steps, "averages", least=0, whole=True),
                lr,
                number(extra, total, "averages", least=0.0),
            )
            for steps, lr, total in found
        ]
        for group, place in zip(self.param_groups, extra.get("order", count()), strict=False):
            _set_average(group, averages[place])


#: Of a group: steps taken, the last step size (warm-up included), the sum of their squares.
_Average = tuple[int, float, float]


def _average(group: Mapping[str, Any]) -> _Average:
    return group.get(RECORD, {}).get("average", (0, 0.0, 0.0))


def _set_average(group: dict[str, Any], average: _Average) -> None:
    """Keep it in the group, which may be moved, copied or removed."""
    group[RECORD] = {**group.get(RECORD, {}), "average": average}
