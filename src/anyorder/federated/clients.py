"""What a client does in a round: local steps from the server's point, then a summary.

A round has two exchanges. ``local`` improves the server's point; the server averages the points.
``summary`` is computed at the new point; all clients know the mean of the summaries in the next
round. :class:`FedZO` and :class:`FedProx` share nothing, :class:`Scaffold`
shares a gradient, and :class:`~anyorder.federated.fzoos.FZooS` a model of the function.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from anyorder.engine import Engine
from anyorder.errors import AnyOrderError
from anyorder.hyper import Hyper, hyper
from anyorder.oracle.gradients import NonFiniteError
from anyorder.oracle.ledger import Budget, Calls
from anyorder.points.directions import Seeded

SETTINGS: dict[str, Hyper] = {
    "number": hyper(0, ge=0),
    "lr": hyper(1e-2, ge=0),
    "steps": hyper(10, ge=1),
    "seed": hyper(0),
    "directions": hyper(20, ge=1),
    "mu": hyper(1e-2, gt=0),
    "prox": hyper(0.1, ge=0),
    "variant": hyper("I", choices=("I", "II")),
    "queries": hyper(5, ge=0),
    "summary_queries": hyper(50, ge=1),
    "candidates": hyper(100, ge=1),
    "history": hyper(150, ge=2),
    "features": hyper(1000, ge=2),
    "noise": hyper(1e-6, gt=0),
}
ENGINE = Engine("eager")


class FederatedError(AnyOrderError, ValueError):
    """A setting of a client, or a message from one, that does not fit."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a client knows of the last round.

    Attributes:
        mean: mean of the summaries of all clients.
        own: the client's own summary.
        averages: means of what ``local`` returned beside the point.
    """

    mean: Tensor
    own: Tensor
    averages: Tensor


class Client(ABC):
    """A client with a private function that can only be evaluated.

    Args:
        function: from a point, shape ``(d,)`` and float64, to its loss, a number.
        number: a different one for each client; selects its directions.
        lr: learning rate of the local Adam, which starts afresh in each round.
        steps: local steps per round.
        seed: seed of all random numbers; the same for all clients.
        budget: limits on evaluations, such as ``"5000values"``.
        optimizer: makes another local optimizer from a list of one parameter.

    Attributes:
        calls: the ledger.
        taken: local steps so far.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        *,
        number: int = 0,
        lr: float = 1e-2,
        steps: int = 10,
        seed: int = 0,
        budget: Budget | str | None = None,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    ) -> None:
        check(number=number, lr=lr, steps=steps, seed=seed)
        self.function, self.number, self.steps, self.seed = function, number, steps, seed
        self.lr, self.budget, self.calls, self.taken = lr, Budget.of(budget), Calls(), 0
        self._make = optimizer or (lambda params: torch.optim.Adam(params, lr=lr))

    def value(self, x: Tensor) -> float:
        """Evaluate the private function; counts one value.

        Raises:
            NonFiniteError: the loss is NaN or infinite.
            BudgetExhausted: the budget is used up; nothing was evaluated.
        """
        if self.budget is not None:
            self.budget.check(self.calls, {"values": 1})
        with torch.no_grad():
            loss = float(self.function(x.detach().clone()))
        self.calls.values += 1
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"the function of client {self.number} returned {loss}; expected a finite loss"
            )
        return loss

    def local(self, x: Tensor, shared: Shared | None) -> Tensor:
        """Take local steps.

        Args:
            x: the server's point, shape ``(d,)``.
            shared: what is known of the last round; ``None`` if nothing is shared.

        Returns:
            The new point, followed by other numbers to be averaged, if the method has some.
        """
        param = nn.Parameter(x.clone())
        optimizer = self._make([param])
        for step in range(1, self.steps + 1):
            here = param.detach().clone()
            param.grad = self.gradient(here) + self.correction(here, x, step, shared)
            optimizer.step()
            self.taken += 1
        return param.detach().clone()

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """Estimate the gradient of the private function at ``x`` from evaluations."""

    def correction(self, x: Tensor, server: Tensor, step: int, shared: Shared | None) -> Tensor:
        """Return what is added to the gradient in local step ``step``, from 1, against drift."""
        return torch.zeros_like(x)

    def summary(self, x: Tensor, averages: Tensor) -> Tensor:
        """Return what the others are told at the new server's point; empty by default.

        Args:
            x: the new point, shape ``(d,)``.
            averages: means of the other numbers that ``local`` returned.
        """
        return x[:0]

    def state_dict(self) -> dict[str, Any]:
        """Return all that exact resumption needs."""
        return {"taken": self.taken, "calls": self.calls.to_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        calls = Calls()
        calls.update(state["calls"])
        self.calls, self.taken = calls, int(state["taken"])


class FedZO(Client):
    r"""Local steps along a mean of forward differences.

    :math:`g = \frac{1}{q} \sum_{j=1}^{q} \frac{f(x + \mu z_j) - f(x)}{\mu} z_j` with standard
    normal :math:`z_j`: ``directions + 1`` values per local step.

    Args:
        function: see :class:`Client`, also for ``options``.
        directions: number of directions q.
        mu: length of a step along a direction.
        options: of :class:`Client`.

    References:
        Fang et al. (2022), "Communication-Efficient Stochastic Zeroth-Order Optimization for
        Federated Learning", arXiv 2201.09531.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        *,
        directions: int = 20,
        mu: float = 1e-2,
        **options: Any,
    ) -> None:
        check(directions=directions, mu=mu)
        super().__init__(function, **options)
        self.directions, self.mu = directions, mu
        self._asked = 0

    def gradient(self, x: Tensor) -> Tensor:
        """Estimate the gradient from ``directions + 1`` values."""
        base, estimate = self.value(x), torch.zeros_like(x)
        like = torch.empty(len(x))
        names = [f"{self.number}/{index}" for index in range(self.directions)]
        drawn = Seeded(self.seed, self._asked).many(dict.fromkeys(names, like), ENGINE)
        for z in (drawn[name].double() for name in names):
            estimate += (self.value(x + self.mu * z) - base) / self.mu * z
        self._asked += 1
        return estimate / self.directions

    def state_dict(self) -> dict[str, Any]:
        """Return all that exact resumption needs."""
        return {**super().state_dict(), "asked": self._asked}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        super().load_state_dict(state)
        self._asked = int(state["asked"])


class FedProx(FedZO):
    """FedZO with a pull towards the server's point: ``prox * (x - server)`` joins the gradient.

    Args:
        function: see :class:`Client`.
        prox: strength of the pull.
        options: of :class:`FedZO`.

    References:
        Li et al. (2020), "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127.
    """

    def __init__(
        self, function: Callable[[Tensor], Any], *, prox: float = 0.1, **options: Any
    ) -> None:
        check(prox=prox)
        super().__init__(function, **options)
        self.prox = prox

    def correction(self, x: Tensor, server: Tensor, step: int, shared: Shared | None) -> Tensor:
        """Return the pull."""
        return self.prox * (x - server)


class Scaffold(FedZO):
    """FedZO with control variates: the mean of all clients' gradients minus the own one is added.

    Variant ``I`` estimates the own gradient at the new server's point, which costs
    ``directions + 1`` more values per round; variant ``II`` takes the mean of the estimates of the
    local steps.

    Args:
        function: see :class:`Client`.
        variant: ``"I"`` or ``"II"``.
        options: of :class:`FedZO`.

    References:
        Karimireddy et al. (2020), "SCAFFOLD: Stochastic Controlled Averaging for Federated
        Learning", arXiv 1910.06378.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Any],
        *,
        variant: Literal["I", "II"] = "I",
        **options: Any,
    ) -> None:
        check(variant=variant)
        super().__init__(function, **options)
        self.variant = variant
        self._sum = torch.zeros(0)

    def local(self, x: Tensor, shared: Shared | None) -> Tensor:
        """Take local steps, and add up their estimates."""
        self._sum = torch.zeros_like(x)
        return super().local(x, shared)

    def correction(self, x: Tensor, server: Tensor, step: int, shared: Shared | None) -> Tensor:
        """Return the difference of the control variates; zero in the first round."""
        return torch.zeros_like(x) if shared is None else shared.mean - shared.own

    def gradient(self, x: Tensor) -> Tensor:
        """Estimate the gradient, and add it to the sum."""
        estimate = super().gradient(x)
        self._sum += estimate
        return estimate

    def summary(self, x: Tensor, averages: Tensor) -> Tensor:
        """Return the own control variate, d numbers."""
        return self._sum / self.steps if self.variant == "II" else super().gradient(x)


def check(**settings: Any) -> None:
    """Raise :class:`~anyorder.hyper.HyperError` for a setting out of its range."""
    for name, value in settings.items():
        SETTINGS[name].check(name, value)
