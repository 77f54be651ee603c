r"""Neural differential equations that are cheap to solve, by a penalty at a single time.

An adaptive solver estimates its local error from an embedded pair of orders. Adding that estimate
to the loss, at one random time per training step, trains a field that needs fewer evaluations:

.. math:: L = L_{task} + \lambda_k\, h\,\|E(t^*, z(t^*), h)\|,

where :math:`E` is the difference of the two orders after **one** step of length :math:`h` from the
state :math:`z(t^*)` on the solver's path, treated as a constant. The main solver is a black box.

Checked against the authors' public code (the paper's text was not accessible): the time is uniform
on the interval (*unbiased*) or uniform among the solver's accepted times but the last (*biased*);
the state comes from the solver's interpolation without gradient; the step is the initial step of an
integrator that starts there; the error is scaled by the tolerances, its root mean square is
multiplied by the step; the weight decays exponentially (2.5 to 1 on MNIST); the stiffness estimate
is the alternative. One departure: the authors' code drops the gradient through the first stage's
slope because it is cached; here all stages carry gradients.

References:
    A. Pal, A. Edelman, C. Rackauckas, "Locally Regularized Neural Differential Equations: Some
    Black Boxes Were Meant to Remain Closed!", ICML 2023, arXiv:2303.02262.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from anyorder_studies.pal2023localreg.adjoint import solve_adjoint
from anyorder_studies.pal2023localreg.solver import (
    Field,
    Solution,
    initial_step,
    rk_step,
    scaled_norm,
    solve,
)
from anyorder_studies.pal2023localreg.tableaus import TSIT5, LocalRegError, Tableau

Sampling = Literal["unbiased", "biased"]
Kind = Literal["error", "stiffness"]
StepRule = Literal["initial", "solver"]
Batch = TypeVar("Batch")


def local_error_penalty(
    field: Field,
    t: float,
    z: Tensor,
    h: float,
    tableau: Tableau = TSIT5,
    *,
    atol: float = 1e-6,
    rtol: float = 1e-6,
    kind: Kind = "error",
) -> Tensor:
    """Penalty of one step from a state, differentiable in the field's parameters only.

    Args:
        field: Slope of the state.
        t: Time.
        z: State, any shape; treated as a constant.
        h: Step length.
        tableau: The embedded pair.
        atol: Absolute tolerance for scaling the error.
        rtol: Relative tolerance for scaling the error.
        kind: ``"error"``, ``h`` times the scaled norm of the difference of the two orders; or
            ``"stiffness"``, the rate of change of the slope between the last two stages in units of
            the pair's stability limit.

    Returns:
        A scalar.
    """
    step = rk_step(field, t, z.detach(), h, tableau)
    if kind == "error":
        return abs(h) * scaled_norm(step.error, z.detach(), step.state, atol, rtol)
    if kind != "stiffness":
        raise LocalRegError(f"expected kind 'error' or 'stiffness', got {kind!r}")
    distance = (step.points[-1] - step.points[-2]).square().mean()
    if float(distance.detach()) == 0.0:
        return distance
    change = (step.slopes[-1] - step.slopes[-2]).square().mean()
    return (change / distance).sqrt() / tableau.stability


@dataclass(frozen=True)
class LocalRegularizer:
    """The sampling of the penalty's time, and its weight during training.

    Args:
        sampling: ``"unbiased"``, a uniform time; or ``"biased"``, one of the solver's accepted
            times, which are denser where steps are short.
        first: Weight at the first training step.
        last: Weight at the last; in between it decays exponentially.
        kind: See :func:`local_error_penalty`.
        step: ``"initial"``, the initial step of a solver that starts at that time; or ``"solver"``,
            the accepted step that contains the time.

    Raises:
        LocalRegError: If a choice is unknown or a weight is not positive.
    """

    sampling: Sampling = "unbiased"
    first: float = 2.5
    last: float = 1.0
    kind: Kind = "error"
    step: StepRule = "initial"

    def __post_init__(self) -> None:
        """Check the settings."""
        for value, known in ((self.sampling, Sampling), (self.kind, Kind), (self.step, StepRule)):
            if value not in get_args(known):
                raise LocalRegError(f"expected one of {get_args(known)}, got {value!r}")
        if not (self.first > 0.0 and self.last > 0.0):
            raise LocalRegError(f"expected positive weights, got {self.first} and {self.last}")

    def weight(self, progress: float) -> float:
        """Weight at a fraction of the training in [0, 1]."""
        return self.first * (self.last / self.first) ** progress

    def pick(self, solution: Solution, generator: torch.Generator) -> float:
        """Draw the time of the penalty."""
        draw = float(torch.rand((), generator=generator, dtype=torch.float64))
        times = solution.times
        if self.sampling == "biased":
            return times[int(draw * (len(times) - 1))]
        return times[0] + draw * (times[-1] - times[0])

    def penalty(
        self,
        field: Field,
        solution: Solution,
        generator: torch.Generator,
        *,
        atol: float,
        rtol: float,
        tableau: Tableau = TSIT5,
    ) -> Tensor:
        """Penalty at a random time of a solution, without the weight."""
        t = self.pick(solution, generator)
        z = solution.at(t).detach()
        if self.step == "solver":
            h = solution.step_at(t)
        else:
            end = solution.times[-1]
            h = initial_step(field, t, z, end, atol=atol, rtol=rtol, tableau=tableau)
        return local_error_penalty(field, t, z, h, tableau, atol=atol, rtol=rtol, kind=self.kind)


class NeuralODE(nn.Module):
    """A layer whose output is the final state of a differential equation.

    Args:
        field: Module that maps a time and a state to the slope.
        t0: Start.
        t1: End.
        rtol: Tolerance relative to the state.
        atol: Absolute tolerance.
        tableau: The embedded pair.
        sensitivity: ``"direct"``, gradients through the solver's steps; or ``"adjoint"``, by a
            backward solve.
    """

    def __init__(
        self,
        field: nn.Module,
        *,
        t0: float = 0.0,
        t1: float = 1.0,
        rtol: float = 1e-6,
        atol: float = 1e-6,
        tableau: Tableau = TSIT5,
        sensitivity: Literal["direct", "adjoint"] = "direct",
    ) -> None:
        super().__init__()
        if sensitivity not in ("direct", "adjoint"):
            raise LocalRegError(f"expected sensitivity 'direct' or 'adjoint', got {sensitivity!r}")
        self.field = field
        self.t0, self.t1 = t0, t1
        self.rtol, self.atol, self.tableau = rtol, atol, tableau
        self.sensitivity = sensitivity

    def forward(self, z0: Tensor) -> Solution:
        """Solve from ``z0``; ``.final`` of the result is the layer's output."""
        settings: dict[str, Any] = {
            "rtol": self.rtol,
            "atol": self.atol,
            "tableau": self.tableau,
        }
        if self.sensitivity == "direct":
            return solve(self.field, z0, self.t0, self.t1, **settings)
        weights = [p for p in self.field.parameters() if p.requires_grad]
        return solve_adjoint(self.field, z0, self.t0, self.t1, weights, **settings)

    def penalty(
        self, regularizer: LocalRegularizer, solution: Solution, generator: torch.Generator
    ) -> Tensor:
        """The regularizer's penalty for a solution of this layer."""
        return regularizer.penalty(
            self.field,
            solution,
            generator,
            atol=self.atol,
            rtol=self.rtol,
            tableau=self.tableau,
        )


@dataclass(frozen=True)
class History:
    """The history of training, one number per step: task loss, penalty, evaluations."""

    losses: list[float]
    penalties: list[float]
    evaluations: list[int]


def train_regularized(
    ode: NeuralODE,
    task: Callable[[Batch], tuple[Tensor, Solution]],
    batches: Iterable[Batch],
    parameters: Sequence[nn.Parameter],
    *,
    steps: int,
    regularizer: LocalRegularizer | None,
    lr: float = 1e-3,
    seed: int = 0,
) -> History:
    """Train with Adam on the task's loss plus the weighted local penalty.

    Args:
        ode: The layer whose solutions are regularized.
        task: Maps a batch to its loss and the layer's solution.
        batches: At least ``steps`` batches.
        parameters: Parameters to train: those of the layer and of the rest of the model.
        steps: Number of training steps.
        regularizer: The penalty, or ``None`` for plain training.
        lr: Learning rate of Adam.
        seed: Seed of the random times.

    Returns:
        The history of the training; the parameters are changed in place.

    Raises:
        LocalRegError: If there are too few batches.
    """
    if steps < 1:
        raise LocalRegError(f"expected at least one step, got {steps}")
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(parameters, lr=lr)
    history = History([], [], [])
    for batch in batches:
        done = len(history.losses)
        loss, solution = task(batch)
        total, penalty = loss, loss.new_zeros(())
        if regularizer is not None:
            penalty = ode.penalty(regularizer, solution, generator)
            total = loss + regularizer.weight(done / steps) * penalty
        optimizer.zero_grad()
        total.backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        history.losses.append(float(loss.detach()))
        history.penalties.append(float(penalty.detach()))
        history.evaluations.append(solution.evaluations)
        if done + 1 == steps:
            return history
    raise LocalRegError(f"expected {steps} batches, got {len(history.losses)}")
