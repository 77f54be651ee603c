"""SSO: several model steps per loss gradient, on a surrogate in output space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from anyorder.hyper import HyperError, hyper
from anyorder.linalg.line_search import Search
from anyorder.optimizer import Optimizer
from anyorder.optimizer.options import same_in_all_groups
from anyorder.optimizer.record import number
from anyorder.oracle import Oracle
from anyorder.rules.descent import MOVE


class SSO(Optimizer):
    r"""SSO: several model steps per loss gradient, for losses that are expensive to differentiate.

    The loss is a mean over samples, :math:`f(w) = \frac1b \sum_i \ell_i(z_i(w))`, of model outputs
    :math:`z_i`. Each step computes one gradient in output space,
    :math:`G_i = \nabla \ell_i(z_i(w_t))`, and then takes ``inner_steps`` deterministic steps on

    .. math::
        S(w) = \frac1b \sum_i \left[ \langle G_i, z_i(w) \rangle
               + \frac{1}{2 \eta_t} \left| z_i(w) - z_i(w_t) \right|^2 \right]

    which requires the model but not the loss. With :math:`\eta = 1/L`, :math:`L` the smoothness
    of :math:`\ell_i` (1/4 for logistic, 1/2 for softmax, 1 for squared error), and full batches,
    :math:`f(w_t) + S(w) - S(w_t)` is never below :math:`f(w)`; larger :math:`\eta` is often faster.
    Many inner steps approach the regression of the outputs on
    :math:`z(w_t) - \eta_t G`: gradient descent in output space, projected onto the outputs that the
    model can represent.

    Inner steps minimise :math:`\eta_t S`, whose curvature does not depend on :math:`\eta_t`. One
    inner step with ``inner="gd"`` is bitwise equal to stochastic gradient descent with step size
    ``lr * inner_lr``. ``armijo`` is gradient descent with a backtracking line search, ``lbfgs`` a
    quasi-Newton method with a line search.

    The closure is a ``Composite(lambda: model(x), lambda z: criterion(z, y))``.
    Outputs may have any shape; all axes but the last are sample axes, over which the loss must be a
    mean. SSO saves ``output_grads`` in the ledger. It saves many with (nearly) full batches and few
    with noisy batches, since the inner steps then fit the noise.

    State: one number (an inner step size), none per parameter; during a step one displacement per
    parameter, with ``lbfgs`` up to 20 more. Oracle calls per step: 1 output_grad, ``inner_steps``
    gradients of the model, and with a line search one value per trial. Weights change only when the
    step is complete, so a step that fails changes nothing.

    Departures from the paper: rejected trial steps are halved; the authors' code multiplies by 0.9.
    The first trial of a step is twice the largest step size accepted in the previous step; theirs
    is always 18. Step sizes do not grow between inner steps. The authors' code minimises the mean
    of :math:`G z / c + (z - z_t)^2` over samples and classes, so their
    :math:`c` is :math:`1/(2\eta)`.

    Example:
        >>> import torch
        >>> from anyorder import Composite
        >>> from anyorder.methods.sso import SSO
        >>> x = torch.nn.Parameter(torch.zeros(2))
        >>> a, y = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([1.0, 3.0])
        >>> closure = Composite(lambda: a @ x, lambda z: ((z - y) ** 2).mean() / 2)
        >>> optimizer = SSO([x], lr=1.0, inner="lbfgs", inner_steps=20)
        >>> loss = optimizer.step(closure)
        >>> [round(v, 3) for v in x.tolist()]  # solved with one gradient of the loss
        [1.0, 2.0]
        >>> optimizer.calls.output_grads
        1

    References:
        Lavington et al. (2023), "Target-based Surrogates for Stochastic Optimization",
        arXiv 2302.02607.
    """

    order = 1
    needs = frozenset({"output_grad"})
    rule = MOVE

    lr: float = hyper(
        1.0, ge=0, search="log", low=1e-2, high=1e2, unit="output^2 / loss",
        doc="learning rate eta in output space; with 1/L the surrogate is a bound",
    )  # fmt: skip
    inner: Literal["armijo", "gd", "lbfgs"] = hyper(
        "armijo", choices=("armijo", "gd", "lbfgs"), doc="method that minimises the surrogate"
    )
    inner_steps: int = hyper(10, ge=1, doc="steps on each surrogate")
    inner_lr: float = hyper(
        1.0, gt=0, unit="parameter / slope of eta S", doc="step on the surrogate, or first trial"
    )
    armijo: float = hyper(
        0.5, gt=0, lt=1, doc="fraction of the expected decrease that a step must reach"
    )
    schedule: Literal["constant", "sqrt", "exponential"] = hyper(
        "constant",
        choices=("constant", "sqrt", "exponential"),
        doc="eta, eta / sqrt(t) or eta (1/horizon)^(t/horizon) in step t",
    )
    horizon: int = hyper(1000, ge=1, doc="length of the exponential schedule in steps")

    def __init__(self, params: Any, **options: Any) -> None:
        self._length: float | None = None  # the longest inner step size accepted in the last step
        super().__init__(params, **options)

    def check_group(self, group: dict[str, Any]) -> None:
        """Check that all groups are equal, since they share one surrogate."""
        why = "all groups share one surrogate"
        same_in_all_groups(self.hypers, group, self.param_groups, why)

    def extra_state(self) -> dict[str, Any]:
        """The longest inner step size accepted in the last step."""
        return {"length": self._length}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Load the inner step size."""
        length = extra["length"]
        self._length = None if length is None else number(extra, length, "length", least=0.0)

    def update(self, oracle: Oracle) -> Tensor:
        """Compute one gradient in output space, take ``inner_steps`` model steps, and update."""
        group, found = self.param_groups[0], oracle.output_grad()
        search = Search(
            oracle, found, self._eta(group), float(group["inner_lr"]), float(group["armijo"])
        )
        trial = 2.0 * self._length if self._length else float(group["inner_lr"])
        moved = search.run(group["inner"], group["inner_steps"], trial)
        moves = [None if g is None else m for g, m in zip(found.grads, moved, strict=True)]
        self.apply(MOVE, moves, scalars=lambda group, step: {"lr": -1.0})
        self._length = search.length
        return found.loss

    def _eta(self, group: dict[str, Any]) -> float:
        """The step size in output space at this step, counted from 1."""
        rates = {float(other["lr"]) for other in self.param_groups}
        if len(rates) > 1:
            raise HyperError(f"lr: expected one value for all groups, got {sorted(rates)}")
        eta, t = rates.pop(), self.steps + 1
        if group["schedule"] == "sqrt":
            return eta / t**0.5
        if group["schedule"] == "exponential":
            return eta * (1.0 / group["horizon"]) ** (t / group["horizon"])
        return eta
