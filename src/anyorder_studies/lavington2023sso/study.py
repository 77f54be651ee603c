"""SSO and gradient descent with equally many gradients of the loss, on three tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder import SGD, SSO, Composite, Optimizer
from anyorder.oracle import NonFiniteError
from anyorder.problems import load
from anyorder.problems.base import minibatch
from anyorder_studies.contest import WORST, all_digits, choose
from anyorder_studies.study import (
    Claim,
    Measurement,
    Result,
    Results,
    Study,
    Unit,
    exact,
    ratio_interval,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Price of a gradient of the loss in forward passes of the model, in the priced contest.
PRICE = 100.0
PRICES = {"values": 1.0, "grads": 3.0, "output_grads": PRICE}
#: Step sizes in factors of two, the same number for all: of SGD in the weights, of SSO in the
#: outputs.
GRIDS = {
    "full_gd": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
    "full_10": [32.0, 64.0, 128.0, 256.0, 512.0, 1024.0],
    "full_30": [16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
    "priced_gd": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
    "batch_gd": [0.5, 1.0, 2.0, 4.0, 8.0, 16.0],
    "batch_10": [2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
    "network_gd": [0.05, 0.1, 0.2, 0.4, 0.8, 1.6],
    "network_10": [8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
}
BATCH = 32
PAPER = "arXiv:2302.02607"


@final
class SSOAgainstDescent(Study):
    """SSO computes one gradient of the loss in the model's outputs and takes many steps with it.

    There are three tasks. *full*: logistic regression on the breast-cancer data, all 456 samples in
    every batch, no penalty. *batch*: the same in batches of 32. *network*: a network with layers
    64-128-64-10 on digits, all 1,197 images in every batch. Gradient descent and SSO, with 10 or 30
    inner steps of gradient descent with a line search, use equally many gradients of the loss; the
    training losses on all data after the last one are compared. Step sizes are constant and tuned
    in the same way: six of them, a factor of two apart, selected on separate seeds; the grids were
    chosen in a pilot run with one seed.

    *priced* tests when this pays off: a gradient of the loss costs as much as 100 forward passes of
    the model, and gradient descent has the same budget as SSO with 10 inner steps used on *full*,
    according to the ledger.

    Seeds change the initial weights (and the batches); there is one data set for each task.
    """

    key: ClassVar[str] = "lavington2023sso"
    paper: ClassVar[int | None] = 77
    title: ClassVar[str] = "SSO: more steps for each gradient of the loss"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="loss_ratio_full",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (SSO with 10 inner steps over gradient descent)",
            source=f"abstract of {PAPER}: multiple updates amortise the cost of a gradient "
            "(no figure)",
            text="In the full-batch setting SSO ends lower for equally many gradients.",
            central=True,
        ),
        Claim(
            quantity="inner_ratio",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (30 inner steps over 10)",
            source=f"follows from the abstract of {PAPER}: the surrogate is a bound to be "
            "minimised, so that minimising it further helps",
            text="More inner steps end lower.",
        ),
        Claim(
            quantity="loss_ratio_batch",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (SSO with 10 inner steps over SGD)",
            source=f"abstract of {PAPER}: effective in the stochastic setting too (no figure)",
            text="With batches of 32 SSO ends lower for equally many gradients.",
        ),
        Claim(
            quantity="loss_ratio_network",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (SSO with 10 inner steps over gradient descent)",
            source=f"abstract of {PAPER}: any model whose outputs a loss is taken of (no figure)",
            text="With a network, which is not linear, SSO ends lower as well.",
        ),
        Claim(
            quantity="loss_ratio_priced",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (SSO with 10 inner steps over gradient descent)",
            source=f"abstract of {PAPER}: meant for losses whose gradient is expensive; that it "
            "costs 100 forward passes is our reading",
            text="With dear gradients SSO ends lower for equal cost, inner steps included.",
        ),
        Claim(
            quantity="same_step",
            direction="equal",
            expected=0.0,
            threshold=0.0,
            tolerance=1e-12,
            unit="largest difference of a weight",
            source=f"section on the algorithm in {PAPER}: one inner gradient step is SGD",
            text="With one plain inner step SSO is stochastic gradient descent.",
        ),
    )
    headline: ClassVar[str] = (
        "several parameter updates for each gradient of an expensive loss, with the guarantee of "
        "descent on a smooth surrogate (abstract of arXiv:2302.02607; no figure)"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"seeds": 2, "tuning_seeds": 1, "grid": 2, "full": 3, "batch": 4, "network": 2},
        "small": {
            "seeds": 5,
            "tuning_seeds": 2,
            "grid": 6,
            "full": 40,
            "batch": 120,
            "network": 20,
        },
        "full": {
            "seeds": 5,
            "tuning_seeds": 2,
            "grid": 6,
            "full": 500,
            "batch": 5000,
            "network": 500,
            "need": "the paper's LIBSVM data sets (rcv1, mushrooms, ijcnn, w8a) and MuJoCo "
            "imitation learning: some days on one GPU; with these data, half a day on one core",
        },
    }

    def runs(self, scale: str) -> Iterable[Unit]:
        """One unit per contestant and seed."""
        settings = self.settings(scale)
        for name, grid in GRIDS.items():
            middle = (len(grid) - settings["grid"]) // 2
            for seed in range(settings["seeds"]):
                task = name.partition("_")[0]
                yield {
                    "name": name,
                    "seed": seed,
                    "targets": settings["full" if task == "priced" else task],
                    "grid": grid[middle : middle + settings["grid"]],
                    "dear": GRIDS["full_10"][middle : middle + settings["grid"]],
                    "tuning_seeds": settings["tuning_seeds"],
                }

    def run(self, unit: Unit) -> Result:
        """Tune (once for all seeds of a contestant), then run with the best step size."""
        plan = Plan(unit["name"], unit["targets"])
        if unit["name"] == "priced_gd":
            most = affordable(unit["targets"], tuple(unit["dear"]), unit["tuning_seeds"])
            plan = plan._replace(targets=most)
        lr = _tuned(plan, tuple(unit["grid"]), unit["tuning_seeds"])
        result = {**_trained(plan, lr, unit["seed"]), "lr": lr}
        if unit["name"] == "batch_gd":
            result["same_step"] = same_step(unit["seed"])
        return result

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Ratios of final training losses, paired by seed, and the costs."""
        found = {name: [r for u, r in results if u["name"] == name] for name in GRIDS}
        pairs = {
            "loss_ratio_full": ("full_10", "full_gd"),
            "inner_ratio": ("full_30", "full_10"),
            "loss_ratio_batch": ("batch_10", "batch_gd"),
            "loss_ratio_network": ("network_10", "network_gd"),
            "loss_ratio_priced": ("full_10", "priced_gd"),
        }
        measured = {
            quantity: ratio_interval(
                [r["loss"] for r in found[top]], [r["loss"] for r in found[bottom]]
            )
            for quantity, (top, bottom) in pairs.items()
        }
        gaps = [r["same_step"] for r in found["batch_gd"]]
        measured["same_step"] = exact(max(gaps), len(gaps))
        edge = 0
        for name, runs in found.items():
            measured[f"lr_{name}"] = exact(runs[0]["lr"])
            measured[f"targets_{name}"] = exact(runs[0]["targets"])
            grid = next(u["grid"] for u, _ in results if u["name"] == name)
            edge += runs[0]["lr"] in (grid[0], grid[-1])
        measured["lr_at_edge"] = exact(edge)
        return measured

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Plot the loss over gradients of the loss, by task."""
        from anyorder_studies.lavington2023sso.picture import draw_descents

        return draw_descents([(unit["name"], result) for unit, result in results])


class Plan(NamedTuple):
    """A contestant and its number of gradients of the loss."""

    name: str
    targets: int


class Task(NamedTuple):
    """A model, all its data, the batch size, and the loss of outputs."""

    model: nn.Module
    inputs: Tensor
    answers: Tensor
    batch: int
    loss: Any

    def closure(self, rows: Tensor | slice) -> Composite:
        """The loss of some samples as a composite."""
        inputs, answers = self.inputs[rows], self.answers[rows]
        return Composite(lambda: self.model(inputs), lambda z: self.loss(z, answers))

    def judged(self) -> float:
        """The loss on all data, at most :data:`WORST`."""
        with torch.no_grad():
            loss = float(self.closure(slice(None))())
        return min(loss, WORST) if math.isfinite(loss) else WORST


def task_of(name: str, seed: int) -> Task:
    """The task of a contestant, with the initial weights of a seed."""
    kind = name.partition("_")[0]
    if kind == "network":
        problem, everything = all_digits()
        count = len(everything.labels)
        model = problem.build(seed)
        return Task(model, everything.pixels, everything.labels, count, F.cross_entropy)
    problem = load("cancer")
    data = problem.batch(0, 0)
    answers = data.answers.unsqueeze(1)
    batch = BATCH if kind == "batch" else len(answers)
    loss = F.binary_cross_entropy_with_logits
    return Task(problem.build(seed), data.features, answers, batch, loss)


def optimizer_for(name: str, model: nn.Module, lr: float) -> Optimizer:
    """SGD, or SSO with the number of inner steps in the contestant's name."""
    inner = name.partition("_")[2]
    if inner == "gd":
        return SGD(model, lr=lr, engine="eager")
    return SSO(model, lr=lr, inner_steps=int(inner), engine="eager")


def same_step(seed: int) -> float:
    """Largest difference of a weight after 20 steps of SGD and of SSO with one inner step."""
    ends: list[Tensor] = []
    for sso in (False, True):
        task = task_of("batch_gd", seed)
        optimizer: Optimizer = (
            SSO(task.model, lr=2.0, inner="gd", inner_steps=1, engine="eager")
            if sso
            else SGD(task.model, lr=2.0, engine="eager")
        )
        for step in range(20):
            optimizer.step(task.closure(_rows(task, seed, step)))
        ends.append(torch.cat([p.detach().flatten() for p in task.model.parameters()]))
    return float((ends[0] - ends[1]).abs().max())


@cache
def affordable(targets: int, grid: tuple[float, ...], seeds: int) -> int:
    """Steps of gradient descent that cost as much as SSO with 10 inner steps on *full*."""
    plan = Plan("full_10", targets)
    spent = _trained(plan, _tuned(plan, grid, seeds), seed=0)["price"]
    return int(spent / (PRICES["grads"] + PRICES["output_grads"]))


def _rows(task: Task, seed: int, step: int) -> Tensor | slice:
    if task.batch == len(task.answers):
        return slice(None)
    return minibatch(len(task.answers), task.batch, seed=seed, step=step)


@cache
def _tuned(plan: Plan, grid: tuple[float, ...], seeds: int) -> float:
    """The step size with the lowest training loss."""

    def score(lr: float, seed: int) -> float:
        return float(_trained(plan, lr, seed)["loss"])

    return choose(grid, score, seeds)


def _trained(plan: Plan, lr: float, seed: int) -> Result:
    """Run once; losses in nats."""
    task = task_of(plan.name, seed)
    optimizer = optimizer_for(plan.name, task.model, lr)
    curve = [task.judged()]
    try:
        for step in range(plan.targets):
            optimizer.step(task.closure(_rows(task, seed, step)))
            if (step + 1) * 20 // plan.targets > step * 20 // plan.targets:
                curve.append(task.judged())
    except NonFiniteError:
        curve.append(WORST)
    calls = optimizer.calls
    return {
        "loss": curve[-1],
        "curve": curve,
        "targets": plan.targets,
        "passes": calls.values + 3 * calls.grads,
        "price": calls.forwards(PRICES),
    }
