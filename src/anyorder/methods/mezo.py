"""MeZO: fine-tune with forward passes only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anyorder.hyper import hyper
from anyorder.optimizer import Optimizer
from anyorder.optimizer.options import same_in_all_groups
from anyorder.oracle import Oracle
from anyorder.points.directions import Shift


class MeZO(Optimizer):
    r"""MeZO: zeroth-order SGD with two forward passes per direction and the memory of inference.

    With Gaussian directions :math:`z_i`, regenerated from their seeds and never stored:

    .. math::
        g_i = \frac{f(x + \epsilon z_i) - f(x - \epsilon z_i)}{2 \epsilon}, \qquad
        x \leftarrow x - \eta \left( \frac{1}{n} \sum_{i=1}^n g_i z_i + \lambda x \right)

    The stored weights are never changed: each operation of the closure receives perturbed weights
    that are computed for it (:mod:`anyorder.points.substitution`). The weights are therefore
    bitwise unchanged in every dtype, and the memory is that of inference plus one layer. If PyTorch
    cannot intercept the operations that read a weight (compiled or scripted modules), the weight is
    perturbed in place and restored from a copy, which needs memory for these weights.

    State: none. Oracle calls per step: ``2 * directions`` values. The returned loss is the mean of
    these values. Both points use the same dropout masks.

    In half precision ``eps`` must be larger than the spacing of floating-point numbers at the
    magnitude of the weights (2^-8 of them in bfloat16), or most perturbations round to zero;
    ``explain`` warns about this.

    Departures from the paper's code: weight decay skips biases and normalisation layers as there
    (here: all parameters with fewer than two axes). There is no perturbing and restoring in place.

    Example:
        >>> import torch
        >>> from anyorder.methods.mezo import MeZO
        >>> x = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = MeZO([x], lr=0.05, eps=1e-3)
        >>> for _ in range(200):
        ...     loss = optimizer.step(lambda: (x ** 2).sum())
        >>> bool(loss < 0.1), optimizer.calls.values
        (True, 400)

    References:
        Malladi et al. (2023), "Fine-Tuning Language Models with Just Forward Passes",
        arXiv 2305.17333; Spall (1992).
    """

    order = 0
    needs = frozenset({"value"})

    lr: float = hyper(
        1e-6, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter / slope", doc="learning rate"
    )
    eps: float = hyper(1e-3, gt=0, unit="parameter", doc="size of the perturbation")
    directions: int = hyper(1, ge=1, doc="directions per step")
    weight_decay: float = hyper(0.0, ge=0, unit="slope / parameter", doc="weight decay of matrices")

    def check_group(self, group: dict[str, Any]) -> None:
        """Check options of the direction, which all groups share."""
        names, why = ("eps", "directions"), "all groups move along one direction"
        same_in_all_groups(names, group, self.param_groups, why)

    def note(self, name: str, param: Tensor) -> str:
        """Warn if the parameter's dtype cannot represent the perturbation."""
        if not param.numel():
            return ""
        spacing = float(param.detach().abs().float().mean()) * torch.finfo(param.dtype).eps
        if self.eps >= spacing:
            return ""
        return f"eps is below the resolution of these weights (about {spacing:.1g}); raise it"

    def update(self, oracle: Oracle) -> Tensor:
        """Evaluate two values per direction, then move along all directions."""
        drawn = [self.direction(index) for index in range(self.directions)]
        slopes: list[float] = []
        seen: list[Tensor] = []
        for z in drawn:
            ahead, behind = oracle.values([Shift(self.eps, z), Shift(-self.eps, z)])
            slopes.append((ahead.item() - behind.item()) / (2 * self.eps))
            seen.append((ahead + behind) / 2)
        if any(group["weight_decay"] for group in self.param_groups):
            self.shrink_(lambda group: 1.0 - float(group["lr"]) * group["weight_decay"])
        for z, slope in zip(drawn, slopes, strict=True):
            scale = -slope / len(slopes)
            self.move_(z, lambda group, s=scale: s * float(group["lr"]))
        return torch.stack(seen).mean()
