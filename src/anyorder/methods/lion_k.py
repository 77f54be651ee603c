"""Lion-K: momentum mapped by the gradient of a convex function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from anyorder.hyper import HyperError, hyper
from anyorder.linalg.newton_schulz import CUBIC, JORDAN, newton_schulz_each
from anyorder.model.sharding import full, shard_of
from anyorder.optimizer import Optimizer
from anyorder.oracle import Oracle
from anyorder.rules import Rule
from anyorder.rules.kappa import NAMES, Kappa, kappa, matrix
from anyorder.rules.lion import (
    ALONG,
    CLIP,
    LOUD,
    PLAIN,
    SIGN,
    Bound,
    decoupled,
    mixed,
    momentum_weight,
    radius,
    radius_note,
)

#: The rule of each elementwise map.
RULES: dict[str, Rule] = {"l1": SIGN, "squared": PLAIN, "huber": CLIP, "soft": LOUD}
#: Label of parameters whose map needs the whole tensor.
WHOLE = "whole"
#: ``polar="auto"`` uses the SVD for matrices up to this shorter side (per device type). On one CPU
#: core the SVD is faster for any size; accelerators are faster at matrix products.
EXACT_SIDE = {"cpu": 1024, "cuda": 64}
#: Jordan's rounds enlarge small singular values without loss of digits; the others converge.
ROUNDS = (*JORDAN[:1] * 9, CUBIC, CUBIC, CUBIC)


class LionK(Optimizer):
    r"""Lion-K: Lion with the sign replaced by the gradient of another convex function.

    .. math::
        c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        x_t &= (1 - \eta \lambda) x_{t-1} - \eta \nabla \kappa(c_t) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    The choice of :math:`\kappa` determines the effect of decoupled weight decay :math:`\lambda`.
    The method minimises :math:`f(x) + \kappa^*(\lambda x) / \lambda` with the convex conjugate
    :math:`\kappa^*(y) = \sup_v v \cdot y - \kappa(v)`, and where :math:`\kappa` grows like a norm
    that is a constraint of radius :math:`1 / \lambda` in the dual norm:

    | `kappa` | direction of the step | constraint by decay; penalty added to the loss |
    |---|---|---|
    | `l1` | signs: Lion | every abs(x) <= 1/λ |
    | `l2` | c over its norm | norm of x <= 1/λ |
    | `lp` | sign(c) abs(c)^(p-1), scaled | q-norm of x <= 1/λ, where 1/p + 1/q = 1 |
    | `squared` | c: SGD with momentum | none; ridge λ/2 norm² |
    | `huber` | c / threshold, clipped to [-1, 1] | every abs(x) <= 1/λ; ridge λ threshold/2 norm² |
    | `soft` | signs where abs(c) > threshold, else 0 | every abs(x) <= 1/λ; lasso threshold norm₁ |
    | `group` | rows of c over their norms | norm of each row <= 1/λ |
    | `spectral` | U V' of c: Muon's direction | every singular value <= 1/λ |

    Norms are computed per parameter. Rows correspond to a parameter's first axis, the outputs of a
    layer; further axes are flattened. A vector is a column: its rows are its elements. A step has
    length :math:`\eta` in the norm that decay bounds. For the same movement, `l2` and `group`
    therefore need a larger :math:`\eta` than `l1`, by the square root of the number of elements in
    the parameter or row.

    **Two phases.** Outside the ball the distance to it decreases by the factor :math:`1 - \eta
    \lambda` per step, regardless of the loss; once inside, the weights stay inside.
    ``optimizer.bound()`` returns the norm of each parameter and its radius, and ``explain()`` shows
    the radius. Inside, with the full loss (no mini-batches), constant settings and :math:`\beta_1
    \le \beta_2`, this function of weights and momentum decreases:

    .. math::
        H(x, m) = f(x) + \frac{\kappa^*(\lambda x)}{\lambda}
                  + c \left(\kappa^*(\lambda x) + \kappa(m) + \lambda m \cdot x\right),
        \qquad c = \frac{\eta' \beta_1}{\eta' \lambda (1 - \beta_1) + 1 - \beta_2}, \quad
        \eta' = \frac{\eta}{1 - \eta \lambda}

    The bracket is never negative (Fenchel and Young). With an :math:`L`-smooth loss a step
    satisfies

    .. math::
        H_t - H_{t-1} \le - (1 + c \lambda) \eta' \Delta_1
        - c \frac{1 - \beta_2}{\beta_2 - \beta_1} \Delta_2
        + \frac{L}{2} \lVert x_t - x_{t-1} \rVert^2

    where :math:`\Delta_1 = (n - c_t) \cdot (\nabla \kappa(n) - \nabla \kappa(c_t))` with
    :math:`\nabla \kappa(n) = -\lambda x_t`, and :math:`\Delta_2 = (m_t - c_t) \cdot (\nabla
    \kappa(m_t) - \nabla \kappa(c_t))`; neither is negative, as :math:`\kappa` is convex. H
    therefore decreases until the last term, which is due to the step size :math:`\eta`, dominates.
    ``optimizer.lyapunov(loss)`` computes H.

    State: one buffer per parameter. Oracle calls per step: 1 gradient. `l1` and `squared`, `huber`
    and `soft` move 20 bytes per float32 parameter and step; the others allocate temporaries and
    move about four times that. `spectral` also computes polar factors. ``polar="svd"`` computes the
    SVD of each matrix, about 20 r² c operations for sides r <= c that are hard to parallelize.
    ``newton-schulz`` uses twelve rounds of matrix products, 48 r² c + 24 r³ operations, which bring
    singular values above 1e-5 of the Frobenius norm to 1 up to rounding. Smaller ones stay below 1,
    so the weights stay in the ball. ``auto`` uses the SVD for matrices with a side of at most 1024
    on CPUs and 64 on accelerators.

    Example:
        >>> import torch
        >>> from anyorder.methods.lion_k import LionK
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
        >>> optimizer = LionK([x], lr=0.01, kappa="l2", weight_decay=1.0)
        >>> for _ in range(1000):
        ...     loss = optimizer.step(lambda: ((x - torch.tensor([6.0, 8.0])) ** 2).sum())
        >>> [round(v, 2) for v in x.tolist()]  # the nearest point within distance 1 of zero
        [0.6, 0.8]
        >>> optimizer.bound()["param.0"].radius
        1.0

    Departures from the paper:
        - Norms are computed per parameter, not of all parameters as one vector.
        - The Lyapunov function is our derivation, for steps that apply decay first. For small steps
          it equals that of the flow :math:`\dot m = -\gamma (\nabla f + m)`, :math:`\dot x = \nabla
          \kappa(m + \epsilon \dot m) - \lambda x` with :math:`\gamma = (1 - \beta_2) / \eta` and
          :math:`\epsilon = (1 - \beta_1) / \gamma`, whose m has the opposite sign.
        - If :math:`\kappa` has several subgradients, the one with minimal norm is used, so zeros
          stay zero.

    References:
        Chen, Liu, Liang and Liu (2023), "Lion Secretly Solves Constrained Optimization: As Lyapunov
        Predicts", arXiv 2310.05898; Chen, Li and Liu (2025), arXiv 2506.15054 (`spectral`).
    """

    order = 1
    rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {
        **{name: (rule,) for name, rule in RULES.items()},
        WHOLE: (ALONG,),
    }

    lr: float = hyper(
        1e-4, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter", doc="learning rate"
    )
    betas: tuple[float, float] = hyper(
        (0.9, 0.99), ge=0, lt=1, doc="momentum weights in the update and in the state"
    )
    weight_decay: float = hyper(
        0.0,
        ge=0,
        search="log",
        low=1e-3,
        high=10.0,
        unit="1 / parameter",
        doc="decoupled weight decay: 1 / radius",
    )
    kappa: str = hyper("l1", choices=NAMES, doc="convex function whose gradient is the direction")
    p: float = hyper(1.5, ge=1, doc="exponent, for lp")
    threshold: float = hyper(1e-3, ge=0, unit="gradient", doc="width, for huber and soft")
    polar: str = hyper(
        "auto", choices=("auto", "svd", "newton-schulz"), doc="how to orthogonalise, for spectral"
    )

    def check_group(self, group: dict[str, Any]) -> None:
        """Check that Huber's function has a width."""
        if group["kappa"] == "huber" and group["threshold"] == 0:
            raise HyperError(
                "threshold: expected a value > 0 with kappa='huber', got 0; kappa='l1' is the "
                "limit for small widths"
            )

    def label(self, name: str, group: Mapping[str, Any]) -> str:
        """Return the map if it is elementwise."""
        return group["kappa"] if group["kappa"] in RULES else WHOLE

    def update(self, oracle: Oracle) -> Tensor:
        """Compute one gradient, then update."""
        loss, grads = oracle.grad()
        used = {group["kappa"] for group in self.param_groups}
        for name in sorted(used & RULES.keys()):
            self.apply(RULES[name], grads, label=name)
        if used - RULES.keys():
            self.apply(ALONG, grads, self._directions(grads), label=WHOLE)
        return loss

    def bound(self) -> dict[str, Bound]:
        """Return for each parameter the norm that decay bounds, its current value, and the radius.

        Outside, ``size - radius`` decreases at least by the factor ``1 - lr * weight_decay`` per
        step. Parameters without a bounded norm (`squared`) are omitted.
        """
        return {
            name: Bound(of.ball, float(of.dual(full(param.detach()).double())), radius(group))
            for name, param, group, of in self._members()
            if of.dual is not None and param.numel()
        }

    def lyapunov(self, loss: float | Tensor) -> float:
        """Return the Lyapunov function H at the current weights and momentum; see the class.

        Args:
            loss: the full loss at the current weights.

        Returns:
            H in the units of the loss, computed in float64; infinite while a parameter is outside
            its ball.

        Raises:
            HyperError: ``lr * weight_decay`` is 1 or more.
        """
        memory = self.buffer("exp_avg")
        total = -float(loss) if self.maximize else float(loss)
        for name, param, group, of in self._members():
            decay, share = decoupled(group), momentum_weight(group)
            # Each step rounds, and decay forgets the errors of 1 / (lr wd) steps.
            slack = 4 * torch.finfo(param.dtype).eps / max(float(group["lr"]) * decay, 1e-12)
            m, x = full(memory[name]).double(), full(param.detach()).double()
            penalty = of.conjugate(decay * x, slack) if param.numel() and decay else 0.0
            if decay:
                total += penalty / decay
            else:  # no decay, or part of the loss
                total += float(group["weight_decay"]) / 2 * float((x * x).sum())
            total += share * (penalty + float(of.value(m)) + decay * float((m * x).sum()))
        return total

    def note(self, name: str, param: Tensor) -> str:
        """The radius of the parameter's decay."""
        group = next(g for g in self.param_groups if name in g["param_names"])
        of = _kappa(group)
        return radius_note(group, of.ball) if of.dual is not None else ""

    def _members(self) -> list[tuple[str, Tensor, dict[str, Any], Kappa]]:
        """Yield names, trainable parameters, their groups and functions."""
        return [
            (name, param, group, _kappa(group))
            for group in self.param_groups
            for name, param in zip(group["param_names"], group["params"], strict=True)
            if param.requires_grad
        ]

    def _directions(self, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The directions for parameters whose map needs the whole tensor."""
        memory = self.buffer("exp_avg")
        found: list[Tensor | None] = [None] * len(grads)
        large: dict[int, Tensor] = {}
        for place, (grad, (name, param, group, of)) in enumerate(
            zip(grads, self._members(), strict=True)
        ):
            if grad is None or group["kappa"] in RULES:
                continue
            momentum = _mixture(group, full(param), full(memory[name]), full(grad))
            if group["kappa"] == "spectral" and not _exact(group["polar"], matrix(momentum)):
                large[place] = matrix(momentum)
            else:
                found[place] = of.gradient(momentum) if momentum.numel() else momentum
        for place, factor in _factors(large).items():
            found[place] = factor
        return [
            None if direction is None else shard_of(direction.reshape(param.shape), param)
            for direction, param in zip(found, self.named_params().values(), strict=True)
        ]


def _kappa(group: dict[str, Any]) -> Kappa:
    return kappa(group["kappa"], p=group["p"], threshold=group["threshold"])


def _exact(polar: str, momentum: Tensor) -> bool:
    side = EXACT_SIDE.get(momentum.device.type, EXACT_SIDE["cuda"])
    return polar == "svd" or (polar == "auto" and min(momentum.shape) <= side)


def _factors(matrices: dict[int, Tensor]) -> dict[int, Tensor]:
    """Polar factors by matrix products, in the precision of each matrix."""
    found: dict[int, Tensor] = {}
    for dtype in {m.dtype for m in matrices.values()}:
        places = [place for place, m in matrices.items() if m.dtype is dtype]
        scaled = [_scaled(matrices[place]) for place in places]
        factors = newton_schulz_each(scaled, ROUNDS, dtype=dtype)
        found.update(zip(places, factors, strict=True))
    return found


def _scaled(momentum: Tensor) -> Tensor:
    """Scale the largest element to 1, so that squares neither underflow nor overflow."""
    if not momentum.numel():
        return momentum
    largest = momentum.abs().amax()
    return momentum / torch.where(largest > 0, largest, 1.0)


def _mixture(group: dict[str, Any], param: Tensor, exp_avg: Tensor, grad: Tensor) -> Tensor:
    """The mean of momentum and gradient, with the decay in the gradient if it is coupled."""
    grad = grad.to(exp_avg.dtype)
    if group["weight_decay"] and not group["decoupled_weight_decay"]:
        grad = grad + param.to(exp_avg.dtype) * group["weight_decay"]
    beta1 = group["betas"][0]
    return mixed(exp_avg, grad, beta1, 1.0 - beta1)
