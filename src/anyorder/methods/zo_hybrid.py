"""Hybrid of zeroth and first order: backpropagation for the last layers, values for the others."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from anyorder.estimators.differences import Differences, blocks_of, descend
from anyorder.hyper import hyper
from anyorder.methods._from_values import FromValues
from anyorder.oracle import ClosureError, Oracle
from anyorder.rules.descent import DESCENT


class ZOHybrid(FromValues):
    r"""Hybrid of zeroth and first order: backpropagation for the last layers only.

    The parameters of the last layers descend along their exact gradient, the others along an
    estimate from two values per direction, which perturbs only them:

    .. math::
        x_{last} \leftarrow x_{last} - \rho \eta \nabla_{last} f(x), \qquad
        x_{first} \leftarrow x_{first} - \eta \frac{1}{q} \sum_{i=1}^q
        \frac{f(x + \epsilon z_i) - f(x - \epsilon z_i)}{2 \epsilon} z_i

    The others need no graph, so activations are kept from the first backpropagated layer on. All
    is evaluated at one point and on one batch before anything moves.

    A layer is what precedes the first number in a parameter's name, with the number
    (``encoder.layer.3``); without a number it is the module. ``last`` counts them from the end.

    State: none. Oracle calls per step: 1 gradient and ``2 * directions`` values. The returned loss
    is that at the current point.

    Departures from the paper: ``lr_ratio`` gives the backpropagated layers a step size of their
    own, since exact gradients tolerate larger ones.

    Example:
        >>> import torch
        >>> from anyorder.methods.zo_hybrid import ZOHybrid
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> optimizer = ZOHybrid(model, lr=1e-3, lr_ratio=10.0)
        >>> loss = optimizer.step(lambda: model(torch.ones(1, 2)).square().mean())
        >>> optimizer.calls.values, optimizer.calls.grads
        (2, 1)

    References:
        Zhang et al. (2024), "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM
        Fine-Tuning: A Benchmark", arXiv 2402.11592.
    """

    needs = frozenset({"value", "grad"})
    estimator = Differences("eps", "directions")
    rule = DESCENT

    lr: float = hyper(
        1e-6, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter / gradient",
        doc="learning rate",
    )  # fmt: skip
    lr_ratio: float = hyper(
        1.0, ge=0, doc="learning rate of the backpropagated layers, in multiples of lr"
    )
    last: int = hyper(1, ge=1, doc="number of layers at the end that are backpropagated")
    blocks: str = hyper(
        "layers", choices=("layers", "modules", "parameters"), doc="what counts as a layer"
    )

    def update(self, oracle: Oracle) -> Tensor:
        """Compute the gradient of the last layers, estimate that of the others, and descend."""
        named = self.named_params()
        blocks = list(blocks_of(named, self.blocks).values())
        first = [name for block in blocks[: -self.last] for name in block]
        loss, grads = self._gradients(oracle, first)
        estimated = self.estimator.estimate(self, oracle, first) if first else None
        self.apply(DESCENT, grads, lr=lambda group: float(group["lr"]) * group["lr_ratio"])
        if estimated is not None:
            descend(self, estimated[1], first)
        return loss

    def _gradients(
        self, oracle: Oracle, without: Collection[str]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """The gradients of all parameters but some, whose graph is not built."""
        constants = [self.named_params()[name] for name in without]
        for param in constants:
            param.requires_grad_(False)
        try:
            return oracle.grad()
        except ClosureError:  # the loss does not depend on the last layers, or is wrong: see which
            return oracle.value(), [None for _ in self.named_params()]
        finally:
            for param in constants:
                param.requires_grad_(True)
