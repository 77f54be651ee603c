"""Schedule-free AdamW: iterate averaging instead of a learning rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from torch import Tensor

from anyorder.engine.tensors import sqrt
from anyorder.hyper import HyperError, hyper
from anyorder.optimizer import Optimizer
from anyorder.optimizer.options import RECORD
from anyorder.optimizer.record import CheckpointError, number, numbers
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


def pull_(
    param: Tensor, ahead: Tensor, move: Tensor, *, in_param: Tensor, in_ahead: Tensor
) -> None:
    """A move of z as y and e follow it."""
    param.add_(move * in_param)
    ahead.add_(move * in_ahead)


PULL = Rule(pull_, buffers=("ahead",), gradient=False, ends_step=False)


class ScheduleFreeAdamW(Optimizer):
    r"""Schedule-free AdamW: an average of iterates replaces the schedule and momentum.

    Gradients :math:`g_t` are taken at :math:`y`, between the point :math:`z` that Adam moves and
    the average :math:`x` of such points, which is the point to evaluate:

    .. math::
        \eta_t &= \eta \min(1, t / T_{\mathrm{warm}}), \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        u_t &= \frac{g_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} + \lambda y_t, \qquad
        z_{t+1} = z_t - \eta_t u_t \\
        x_{t+1} &= (1 - c_t) x_t + c_t z_{t+1}, \qquad
        c_t = \eta_t^2 \Big/ \sum_{i \le t} \eta_i^2 \\
        y_{t+1} &= (1 - \beta_1) z_{t+1} + \beta_1 x_{t+1}

    The parameters hold :math:`y` during training. To evaluate or save a model use
    ``with optimizer.answer():`` or ``optimizer.eval()``, and the parameters hold :math:`x`. Batch
    normalisation has the statistics of the network at :math:`y`; run some batches at :math:`x`
    first.

    The state is :math:`v` and :math:`e = z - y`, which determine both points: :math:`z = y + e`,
    :math:`x = y - e (1 - \beta_1) / \beta_1`, and

    .. math::
        y_{t+1} = y_t + c_t e_t - \eta_t (1 - \beta_1 (1 - c_t)) u_t, \qquad
        e_{t+1} = (1 - c_t) (e_t - \eta_t \beta_1 u_t).

    State: two buffers per parameter, like Adam. Oracle calls per step: 1 gradient. Each step
    transfers 28 bytes per float32 parameter.

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
        2.5e-3, ge=0, search="log", low=2.5e-5, high=0.25, unit="parameter", doc="learning rate"
    )
    betas: tuple[float, float] = hyper(
        (0.9, 0.999),
        ge=0,
        lt=1,
        doc="weight of the average in y (above 0), decay rate of the second moment",
    )
    eps: float = hyper(1e-8, ge=0, unit="gradient", doc="added to the denominator")
    weight_decay: float = hyper(
        0.0,
        ge=0,
        search="log",
        low=1e-4,
        high=1.0,
        unit="1 / step size",
        doc="weight decay of z, at y",
    )
    warmup: int = hyper(0, ge=0, unit="steps", doc="warm-up steps")

    def check_group(self, group: dict[str, Any]) -> None:
        """Check that y contains the average, which could not be recovered otherwise."""
        if group["betas"][0] == 0.0:
            raise HyperError("betas[0]: expected a value > 0, got 0.0; for z alone use AdamW")

    def _scalars(self, group: Mapping[str, Any], step: int) -> dict[str, float]:
        """See the class for the symbols."""
        beta1, beta2 = group["betas"]
        lr, share = self._share(group)
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

    def _share(self, group: Mapping[str, Any]) -> tuple[float, float]:
        """The last step size of a group, and the share of its point in the average."""
        _, lr, total = _average(group)
        return lr, lr**2 / total if total else 0.0  # steps of size zero have no weight

    def _pull(self, group: Mapping[str, Any], step: int) -> dict[str, float]:
        """How y and e follow a move of z."""
        behind = group["betas"][0] * (1.0 - self._share(group)[1])
        return {"in_param": 1.0 - behind, "in_ahead": behind}

    def update(self, oracle: Oracle) -> Tensor:
        """Compute one gradient, then update."""
        loss, grads = oracle.grad()
        for group in self.param_groups:
            steps, _, total = _average(group)
            rise = min(1.0, (steps + 1) / group["warmup"]) if group["warmup"] else 1.0
            lr = float(group["lr"]) * rise
            _set_average(group, (steps + 1, lr, total + lr**2))
        self.apply(SCHEDULE_FREE, grads, scalars=self._scalars)
        return loss

    def constrain(self, after: Callable[[str, Tensor], Any]) -> None:
        """Constrain z, of which x is the average, and then y, which the parameters hold.

        Of y alone a bound would be no bound: pushed back, it takes the average along.
        """
        moves: list[Tensor] = []
        ahead = self.buffer("ahead")
        for name, param in self.named_params().items():
            y = param.detach().clone()
            try:
                z = param.add_(ahead[name]).detach().clone()
                after(name, param)
                moves.append(param.detach() - z)
            finally:
                param.copy_(y)
        self.apply(PULL, moves, scalars=self._pull)
        super().constrain(after)

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
