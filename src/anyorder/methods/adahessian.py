"""AdaHessian: Adam with the Hessian's diagonal in place of the squared gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from anyorder.engine.program import Arithmetic
from anyorder.engine.tensors import sqrt
from anyorder.hyper import hyper
from anyorder.linalg.hutchinson import Operator, diagonal
from anyorder.optimizer import Optimizer
from anyorder.optimizer.options import same_in_all_groups
from anyorder.oracle import Oracle
from anyorder.points.directions import Seeded
from anyorder.rules import Rule
from anyorder.rules.rule import Scalars


def adahessian_(
    param: Tensor,
    exp_avg: Tensor,
    square: Tensor,
    grad: Tensor,
    curvature: Tensor,
    *,
    take1: Tensor,
    keep2: Tensor,
    take2: Tensor,
    step_size: Tensor,
    root: Tensor,
    eps: Tensor,
) -> None:
    """Mean of the gradient, mean of the squared curvature, and move."""
    exp_avg.copy_(exp_avg + (grad - exp_avg) * take1)
    square.copy_(square * keep2 + curvature * curvature * take2)
    param.copy_(param - exp_avg / (sqrt(square) * root + eps) * step_size)


def adahessian_power_(
    param: Tensor,
    exp_avg: Tensor,
    square: Tensor,
    grad: Tensor,
    curvature: Tensor,
    *,
    take1: Tensor,
    keep2: Tensor,
    take2: Tensor,
    step_size: Tensor,
    root: Tensor,
    power: Tensor,
    eps: Tensor,
) -> None:
    """As :func:`adahessian_` with the denominator raised to ``power``."""
    exp_avg.copy_(exp_avg + (grad - exp_avg) * take1)
    square.copy_(square * keep2 + curvature * curvature * take2)
    param.copy_(param - exp_avg / ((sqrt(square) * root) ** power + eps) * step_size)


def _scalars(due: bool, taken: int) -> Scalars:
    """The numbers of a step; between estimates the curvature stays as it is.

    Args:
        due: whether this step has an estimate.
        taken: estimates in the second moment so far.
    """

    def scalars(group: Mapping[str, Any], step: int) -> dict[str, float]:
        (beta1, beta2), lr = group["betas"], float(group["lr"])
        return {
            "take1": 1.0 - beta1,
            "keep2": beta2 if due else 1.0,
            "take2": 1.0 - beta2 if due else 0.0,
            "step_size": lr / (1.0 - beta1**step),
            "root": 1.0 / math.sqrt(1.0 - beta2**taken),
            "power": group["hessian_power"],
            "eps": group["eps"],
        }

    return scalars


def _rule(function: Arithmetic) -> Rule:
    return Rule(
        function,
        buffers=("exp_avg", "exp_hessian_diag_sq"),
        nonnegative=frozenset({"exp_hessian_diag_sq"}),
    )


ADAHESSIAN, ADAHESSIAN_POWER = _rule(adahessian_), _rule(adahessian_power_)


class AdaHessian(Optimizer):
    r"""AdaHessian: Adam with curvature instead of squared gradients in the denominator.

    With a Rademacher probe :math:`z`, the Hutchinson estimate of the Hessian's diagonal is
    :math:`D = z \odot H z`, averaged over blocks of related entries to :math:`\bar D`:

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) \bar D_t^2 \\
        x_t &= x_{t-1} - \eta \left( \frac{m_t / (1 - \beta_1^t)}
               {\left(\sqrt{v_t / (1 - \beta_2^{t})}\right)^k + \epsilon} + \lambda x_{t-1} \right)

    Blocks: the kernel window of a convolution; rows of a matrix (or runs of ``block`` entries of
    them); vectors are not averaged. The best ``lr`` is 10 to 100 times Adam's.

    State: two buffers per parameter. Oracle calls per step: 1 gradient and ``probes`` products, the
    products only in every ``every``-th step; the graph is freed at the end of the step.

    Departures from the paper: the paper averages the signed diagonal, the authors' code (used for
    all published numbers) absolute values; ``average`` selects this, by default as in the code.
    With ``every > 1`` the bias correction of the second moment counts its own updates, and a
    parameter that is added between two estimates is first updated after the next one.

    Example:
        >>> import torch
        >>> from anyorder.methods.adahessian import AdaHessian
        >>> x = torch.nn.Parameter(torch.tensor([3.0, 1.0]))
        >>> scale = torch.tensor([1.0, 100.0])
        >>> optimizer = AdaHessian([x], lr=1.0, eps=1e-12)
        >>> loss = optimizer.step(lambda: (scale * x ** 2).sum() / 2)
        >>> [round(v, 4) for v in x.abs().tolist()]  # Newton's method on a diagonal quadratic
        [0.0, 0.0]

    References:
        Yao et al. (2021), "ADAHESSIAN", arXiv 2006.00719.
    """

    order = 2
    needs = frozenset({"grad", "hessian"})
    rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {
        "plain": (ADAHESSIAN,),
        "power": (ADAHESSIAN_POWER,),
    }
    counters = ("estimates",)  # curvature estimates in a parameter's second moment

    lr: float = hyper(
        0.15,
        ge=0,
        search="log",
        low=1.5e-3,
        high=15.0,
        unit="share of a Newton step",
        doc="learning rate",
    )
    betas: tuple[float, float] = hyper(
        (0.9, 0.999), ge=0, lt=1, doc="decay rates of gradient and curvature"
    )
    eps: float = hyper(1e-4, ge=0, unit="curvature", doc="added to the denominator")
    hessian_power: float = hyper(1.0, gt=0, le=1, doc="power k of the curvature")
    weight_decay: float = hyper(0.0, ge=0, unit="1 / step size", doc="weight decay")
    every: int = hyper(1, ge=1, doc="steps between two curvature estimates")
    probes: int = hyper(1, ge=1, doc="probes per estimate")
    block: int = hyper(
        0, ge=0, doc="entries of a matrix row averaged together; 0 is the whole row, 1 none"
    )
    average: Literal["abs", "signed"] = hyper(
        "abs", choices=("abs", "signed"), doc="what is averaged"
    )
    products: Literal["exact", "finite"] = hyper(
        "exact", choices=("exact", "finite"), doc="second derivatives, or differences of gradients"
    )

    def check_group(self, group: dict[str, Any]) -> None:
        """Check options of the curvature estimate, which all groups share."""
        names, why = ("every", "probes", "products"), "one curvature estimate serves all groups"
        same_in_all_groups(names, group, self.param_groups, why)

    def label(self, name: str, group: Mapping[str, Any]) -> str:
        """Whether the curvature is raised to a power."""
        return "plain" if group["hessian_power"] == 1.0 else "power"

    def update(self, oracle: Oracle) -> Tensor:
        """Compute a gradient, and curvature if it is due."""
        due = self._due()
        if due:
            with oracle.hessian(products=self.products) as hessian:
                loss, grads = hessian.loss, hessian.grads
                curved = self._averaged(self._diagonal(hessian))
        else:
            loss, grads = oracle.grad()
            curved = [None if g is None else torch.zeros_like(g) for g in grads]
        taken: list[int] = []
        for entry, grad in zip(self.entries().values(), grads, strict=True):
            entry["estimates"] += due and grad is not None
            taken.append(entry["estimates"])
        for count in sorted(set(taken) - {0}):  # one, but for parameters that joined late
            chosen = [g if n == count else None for g, n in zip(grads, taken, strict=True)]
            for label, (rule,) in self.rules.items():
                self.apply(rule, chosen, curved, label=label, scalars=_scalars(due, count))
        return loss

    def _due(self) -> bool:
        return self.steps % self.every == 0

    def _diagonal(self, hessian: Operator) -> list[Tensor]:
        def probe(index: int) -> Seeded:
            return self.direction(index, "rademacher")

        return diagonal(hessian, self.named_params(), probe, self.probes, self.engine)

    def _averaged(self, estimate: list[Tensor]) -> list[Tensor]:
        named = dict(zip(self.named_params(), estimate, strict=True))
        return [
            spatial_average(named[name], group["block"], group["average"])
            for group in self.param_groups
            for name in group["param_names"]
            if name in named
        ]


def spatial_average(diagonal: Tensor, block: int, average: str) -> Tensor:
    """Every entry becomes the mean over its block.

    Args:
        diagonal: the estimate, shaped like its parameter.
        block: entries of a matrix row averaged together; 0 is the whole row, 1 none. A last run
            that is shorter is averaged by itself.
        average: ``abs`` averages magnitudes, ``signed`` values.
    """
    values = diagonal.abs() if average == "abs" else diagonal
    if values.ndim < 2:
        return values
    if values.ndim > 2:
        window = tuple(range(2, values.ndim))
        return values.mean(window, keepdim=True).expand_as(values).contiguous()
    width = values.shape[1]
    size = block or width
    runs = [run.mean(1, keepdim=True).expand_as(run) for run in values.split(size, dim=1)]
    return torch.cat(runs, dim=1)
