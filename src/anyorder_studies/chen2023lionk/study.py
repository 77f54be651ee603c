"""Lion-K on quadratics and digits: its limit, its path, and its Lyapunov function."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import torch
from torch import nn

from anyorder import Lion, LionK
from anyorder.problems import load
from anyorder_studies.chen2023lionk.quadratics import (
    BALLS,
    Quadratic,
    constrained_optimum,
    projected,
    random_quadratic,
)
from anyorder_studies.contest import descend
from anyorder_studies.study import (
    Claim,
    Measurement,
    Result,
    Results,
    Study,
    Unit,
    exact,
    mean_interval,
    range_interval,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DECAY = 0.5  # so the radius is 2
BETAS = (0.9, 0.99)
# Step size on quadratics. It decays when searching the optimum; it is constant when measuring H.
LR = 0.02
UPHILL = 50  # steps with the opposite gradient before H is measured, so that momentum points uphill
# Weight decay of networks, for boxes of 0.2, 0.1 and 0.033. Weights start below 0.125.
NETWORK_DECAYS = (5.0, 10.0, 30.0)
NETWORK_LR, BATCH = 3e-3, 64
# Number of points per curve of the figure; for H and the loss, from the first steps.
POINTS, FIRST = 60, 150
ABSTRACT = "abstract of arXiv:2310.05898"


@final
class LionInABall(Study):
    r"""Lion's weight decay acts as a constraint: Lion minimises within abs(x) <= 1 / decay.

    The paper replaces Lion's sign by the gradient of a convex function. Weight decay then bounds
    the dual norm of the weights: each element for Lion itself, the Euclidean norm for normalised
    momentum (`l2`), the norm of each row (`group`), the singular values for Muon's direction
    (`spectral`).

    Quadratics of 6 x 5 matrices in random bases, with condition number 100, have their minimum and
    initial point about three radii away from zero, outside every ball. Each method runs with a
    decaying step size; the optimum in the ball is computed by accelerated projected gradients,
    which share no code with the method. `gap` is the distance between the method's final point and
    that optimum, over the optimum's norm. The optimum differs from the clipped unconstrained
    minimum: `clip_gap` is the distance between them. On the way into the ball, `entry` is the
    largest factor on the distance to the ball in a step, over 1 - lr decay.

    A second run starts inside the ball, with a momentum that points uphill and a constant step
    size. The loss does not measure its progress: it increases first. The Lyapunov function H, which
    includes the momentum, may increase in a step by at most half the largest curvature times the
    squared length of the step. `rise` is its largest change in that unit, over all steps and balls;
    `h_rises` and `loss_rises` are the sums of all increases of H and of the loss, each over its
    total decrease.

    Finally, Lion trains the network 64-128-64-10 on digits in batches of 64 with three weight
    decays; `network` is the largest weight, over the radius, after the last step.

    Claims and tolerances were set first; the constant step size, the uphill momentum and the decays
    of networks were chosen in trial runs with the first seed. After the first full run, in which
    the largest `rise` of all seeds was 0.25, `rise` was changed to a mean over seeds with an
    interval.
    """

    key: ClassVar[str] = "chen2023lionk"
    paper: ClassVar[int | None] = 61
    title: ClassVar[str] = "Lion-K: does weight decay enforce a constraint?"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="gap_l1",
            direction="equal",
            expected=0.0,
            threshold=0.0,
            tolerance=0.01,
            unit="distance over norm of the optimum",
            source=f"{ABSTRACT}: Lion minimises a general loss while enforcing the bound "
            "max abs(x) <= 1 / decay",
            text="Lion ends at the minimum within the box.",
            central=True,
        ),
        Claim(
            quantity="gap_others",
            direction="equal",
            expected=0.0,
            threshold=0.0,
            tolerance=0.01,
            unit="distance over norm of the optimum, the worst of l2, group and spectral",
            source=f"{ABSTRACT}: the family solves a composite problem with the convex conjugate; "
            "for singular values, abstract of arXiv:2506.15054",
            text="Its relatives end at the minimum within theirs.",
        ),
        Claim(
            quantity="entry",
            direction="lower",
            expected=1.000001,
            threshold=1.000001,
            tolerance=0.0,
            unit="x (largest factor of a step over 1 - lr decay)",
            source="published summaries of arXiv:2310.05898: a first phase in which the constraint "
            "is approached exponentially (the factor is that of the update itself)",
            text="Outside, the distance to the ball falls at least by 1 - lr decay a step.",
        ),
        Claim(
            quantity="rise",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (largest change of H over half the curvature times the squared step)",
            source=f"{ABSTRACT}: a Lyapunov function for continuous time and discrete steps",
            text="Inside, the Lyapunov function falls, up to the error of the step size.",
        ),
        Claim(
            quantity="network",
            direction="lower",
            expected=1.001,
            threshold=1.001,
            tolerance=0.0,
            unit="x (largest weight over the radius)",
            source=f"{ABSTRACT}: the bound is enforced for a general loss",
            text="Networks trained in mini-batches end within the box.",
        ),
    )
    headline: ClassVar[str] = (
        "Lion solves min f(x) with the bound max abs(x) <= 1 / decay (abstract of "
        "arXiv:2310.05898, first result)"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"seeds": 2, "steps": 400, "watched": 50, "epochs": 2},
        "small": {"seeds": 5, "steps": 8_000, "watched": 1_500, "epochs": 40},
        "full": {
            "seeds": 5,
            "steps": 8_000,
            "watched": 1_500,
            "epochs": 300,
            "need": "the paper also trains networks on ImageNet and language models: some thousand "
            "GPU hours; the quadratics are the same at every scale",
        },
    }

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return one unit per seed and ball, and one per seed and weight decay of a network."""
        settings = self.settings(scale)
        for seed in range(settings["seeds"]):
            for ball in BALLS:
                lengths = {key: settings[key] for key in ("steps", "watched")}
                yield {"kind": "quadratic", "ball": ball, "seed": seed, **lengths}
            for decay in NETWORK_DECAYS:
                yield {
                    "kind": "network", "decay": decay, "seed": seed, "epochs": settings["epochs"],
                }  # fmt: skip

    def run(self, unit: Unit) -> Result:
        """Run a method twice on a quadratic, or once on a network."""
        if unit["kind"] == "network":
            return trained(unit["decay"], unit["seed"], unit["epochs"])
        problem = random_quadratic(unit["seed"], 1 / DECAY)
        way = travelled(unit["ball"], problem, unit["steps"])
        return {**way, **watched(unit["ball"], problem, unit["watched"])}

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Means over seeds of gaps, sizes and largest increases; the maximum for factors."""
        quadratics = {ball: _of(results, "ball", ball) for ball in BALLS}
        measured: dict[str, Measurement] = {}
        for ball, found in quadratics.items():
            for key in ("gap", "clip_gap", "size"):
                measured[f"{key}_{ball}"] = mean_interval([r[key] for r in found])
        pairs = zip(*(quadratics[ball] for ball in BALLS[1:]), strict=True)
        measured["gap_others"] = mean_interval([max(r["gap"] for r in same) for same in pairs])
        seeds = zip(*quadratics.values(), strict=True)
        measured["rise"] = mean_interval([max(r["rise"] for r in same) for same in seeds])
        every = [r for found in quadratics.values() for r in found]
        measured["entry"] = exact(max(r["entry"] for r in every), len(every))
        for key in ("h_rises", "loss_rises"):
            measured[key] = range_interval([r[key] for r in every])
        networks = {decay: _of(results, "decay", decay) for decay in NETWORK_DECAYS}
        for decay, found in networks.items():
            for key in ("network", "start", "accuracy"):
                measured[f"{key}_{decay:g}"] = mean_interval([r[key] for r in found])
        largest = [r["network"] for found in networks.values() for r in found]
        measured["network"] = exact(max(largest), len(largest))
        return measured

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Plot distances to the balls, and H and the loss, for the first seed."""
        from anyorder_studies.chen2023lionk.picture import draw_ways

        lengths = {key: results[0][0][key] for key in ("steps", "watched")}
        return draw_ways({ball: _of(results, "ball", ball)[0] for ball in BALLS}, **lengths)


def _of(results: Results, key: str, value: Any) -> list[Result]:
    return [result for unit, result in results if unit.get(key) == value]


def started(ball: Any, point: np.ndarray, lr: float) -> tuple[nn.Parameter, Any]:
    """Return a float64 parameter at ``point`` and its optimizer."""
    x = nn.Parameter(torch.tensor(point))
    settings: dict[str, Any] = {"lr": lr, "betas": BETAS, "weight_decay": DECAY, "engine": "eager"}
    return x, LionK([("x", x)], kappa=ball, **settings)


def travelled(ball: Any, problem: Quadratic, steps: int) -> Result:
    """Run from outside the ball to the optimum with a decaying step size."""
    radius = 1 / DECAY
    x, optimizer = started(ball, problem.start, LR)
    entry, before, sizes = 0.0, _outside(optimizer), [_outside(optimizer)]
    for step in range(steps):
        lr = LR / (1.0 + 4.0 * step / steps) ** 3
        optimizer.param_groups[0]["lr"] = lr
        _follow(x, optimizer, problem)
        after = _outside(optimizer)
        if before > 1e-6:
            entry = max(entry, after / before / (1.0 - lr * DECAY))
        before = after
        sizes.append(after)
    end = x.detach().numpy()
    best = constrained_optimum(ball, problem, radius)
    clipped = projected(ball, problem.target, radius)
    return {
        "gap": _apart(end, best),
        "clip_gap": _apart(clipped, best),
        "size": optimizer.bound()["x"].size / radius,
        "entry": entry,
        "outside": _thinned(sizes),
    }


def watched(ball: Any, problem: Quadratic, steps: int) -> Result:
    """Run from inside the ball with a constant step size; record H and the loss."""
    x, optimizer = started(ball, projected(ball, problem.start, 0.5 / DECAY), LR)
    for _ in range(UPHILL):
        _follow(x, optimizer, problem, -1.0)
    levels = [optimizer.lyapunov(_loss(problem, x))]
    losses, rise = [_loss(problem, x)], -math.inf
    for _ in range(steps):
        old = x.detach().clone()
        _follow(x, optimizer, problem)
        losses.append(_loss(problem, x))
        levels.append(optimizer.lyapunov(losses[-1]))
        allowed = 0.5 * float(((x.detach() - old) ** 2).sum())  # the largest curvature is 1
        rise = max(rise, (levels[-1] - levels[-2]) / allowed)
    return {
        "rise": rise,
        "h_rises": _rises(levels) / (levels[0] - levels[-1]),
        "loss_rises": _rises(losses) / (losses[0] - losses[-1]),
        "levels": _thinned(levels[:FIRST]),
        "losses": _thinned(losses[:FIRST]),
    }


def trained(decay: float, seed: int, epochs: int) -> Result:
    """Train Lion on digits; return the largest weight over the radius, before and after."""
    problem = load("digits", batch_size=BATCH)
    model = problem.build(seed)
    optimizer = Lion(model, lr=NETWORK_LR, betas=BETAS, weight_decay=decay, engine="eager")
    start = _largest(model) * decay
    descend(problem, model, optimizer, steps=epochs * (1_197 // BATCH), seed=seed)
    accuracy = problem.evaluate(model)["accuracy"]
    return {"network": _largest(model) * decay, "start": start, "accuracy": accuracy}


def _follow(x: nn.Parameter, optimizer: Any, problem: Quadratic, sign: float = 1.0) -> None:
    x.grad = torch.tensor(sign * problem.slope(x.detach().numpy()))
    optimizer.step()


def _loss(problem: Quadratic, x: nn.Parameter) -> float:
    away = (x.detach().numpy() - problem.target).ravel()
    return float(away @ problem.metric @ away) / 2.0


def _outside(optimizer: Any) -> float:
    bound = optimizer.bound()["x"]
    return max(bound.size - bound.radius, 0.0)


def _largest(model: nn.Module) -> float:
    return max(float(p.detach().abs().max()) for p in model.parameters())


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _rises(values: list[float]) -> float:
    return float(np.diff(values).clip(min=0.0).sum())


def _thinned(values: list[float]) -> list[float]:
    return [values[i] for i in np.linspace(0, len(values) - 1, POINTS).round().astype(int)]
