"""Rates of accelerated methods on a quadratic, a ridge regression and a piecewise function."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import torch

from anyorder_studies.parimi2025acceleration.functions import (
    Smooth,
    descent,
    pieces,
    prepared,
    quadratic,
    ridge,
)
from anyorder_studies.study import (
    Claim,
    Measurement,
    Result,
    Results,
    Study,
    Unit,
    exact,
    mean_interval,
    ratio_interval,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMS = ("gradient", "heavy_ball", "nesterov", "triple_momentum", "nesterov_convex")
# Methods with proved convergence for all functions within the curvature bounds.
SAFE = ("gradient", "nesterov", "triple_momentum")
# Initial points on the piecewise function, including the published one.
STARTS = [round(-4.0 + 0.1 * i, 1) for i in range(81)]
PUBLISHED = STARTS.index(3.3)
# Multiples of the cycle length of three: the factor is measured between these two steps.
SETTLED, END = 150, 300
# A run counts as cycling if its final distance to the minimum is larger than this.
FAR = 0.1
SHOWN = 40


@final
class Acceleration(Study):
    """Accelerated methods use one gradient per step and store one difference of points.

    The paper derives Nesterov's and the triple momentum method from one construction of control
    theory and explains why heavy ball may fail to converge. It is a theory of known methods, so
    this study measures their rates. Gradient descent needs about kappa / 2 steps for a factor e,
    Nesterov's method about the square root of kappa, so their ratio should be half the square root.

    Three kinds of functions have known bounds on curvature: logistic regression with a ridge
    penalty on the breast-cancer data, with condition numbers from 10 to 1,000 and random initial
    points; a quadratic with condition number 1,000; and the function of one variable with three
    pieces on which heavy ball cycles. Steps are counted until the distance to the minimum is 1e-8
    of the initial one. All methods know mu and L and nothing is tuned; outside the claims,
    Nesterov's method also runs without them (`steps_untold`).

    The speed of triple momentum is the number of digits gained per step, in the second half of a
    run, over the theoretical number; the minimum over all functions counts.
    """

    key: ClassVar[str] = "parimi2025acceleration"
    paper: ClassVar[int | None] = 9
    title: ClassVar[str] = "Acceleration: rates as promised, and heavy ball's endless cycle"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="acceleration",
            direction="higher",
            expected=math.sqrt(1000.0) / 2,
            threshold=1.0,
            tolerance=0.25,
            unit="x (steps of gradient descent over Nesterov's, condition 1,000)",
            source="abstract of arXiv:2509.18346: Nesterov's method is faster (no figure); the "
            "size is that of the rates 1 - 2/kappa and 1 - 1/sqrt(kappa)",
            text="Nesterov's method saves a factor of half the root of the condition.",
            central=True,
        ),
        Claim(
            quantity="exponent",
            direction="equal",
            expected=0.5,
            threshold=0.5,
            tolerance=0.1,
            unit="slope of the logarithm of that ratio over the logarithm of the condition",
            source="the same rates",
            text="The saving grows as the root of the condition.",
        ),
        Claim(
            quantity="triple_speed",
            direction="higher",
            expected=1.0,
            threshold=0.5,
            tolerance=0.02,
            unit="digits per step over the promise (Nesterov's promise: 0.5)",
            source="Van Scoy, Freeman and Lynch (2018), theorem 1: rate 1 - 1/sqrt(kappa), which "
            "arXiv:2509.18346 sets out to explain",
            text="Triple momentum keeps its promise on all functions.",
        ),
        Claim(
            quantity="heavy_ball_factor",
            direction="equal",
            expected=1.0,
            threshold=1.0,
            tolerance=1e-6,
            unit="factor on the gradient per step (promised on quadratics: 2/3)",
            source="Lessard, Recht and Packard (2016), section 4.6 and appendix B: the cycle that "
            "arXiv:2509.18346 sets out to explain",
            text="Heavy ball cycles for ever on a strongly convex function.",
        ),
        Claim(
            quantity="largest_rest",
            direction="lower",
            expected=1e-9,
            threshold=FAR,
            tolerance=0.0,
            unit="distance to the minimum after 300 steps, worst of 81 starts",
            source="their theorems hold for all smooth, strongly convex functions",
            text="Gradient descent, Nesterov and triple momentum converge there.",
        ),
    )
    headline: ClassVar[str] = (
        "why Nesterov's method is faster, derived from control theory, and as extensions triple "
        "momentum and the non-convergence of heavy ball (abstract of arXiv:2509.18346; no "
        "figure). The derivation itself cannot be measured; the rates that it explains are"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"seeds": 2, "conditions": [10.0, 40.0], "quadratic": 40.0},
        "small": {"seeds": 5, "conditions": [10.0, 30.0, 100.0, 300.0, 1000.0], "quadratic": 1e3},
        "full": {
            "seeds": 20,
            "conditions": [10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5],
            "quadratic": 1e5,
            "need": "one core for ten hours, nearly all of it for gradient descent",
        },
    }

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return one unit per function, condition and start, and one for the piecewise function."""
        settings = self.settings(scale)
        yield {"function": "pieces"}
        for seed in range(settings["seeds"]):
            yield {"function": "quadratic", "condition": settings["quadratic"], "seed": seed}
            for condition in settings["conditions"]:
                yield {"function": "ridge", "condition": condition, "seed": seed}

    def run(self, unit: Unit) -> Result:
        """Steps and speeds of all methods, or their distances on the piecewise function."""
        if unit["function"] == "pieces":
            return _on_pieces()
        function = {"quadratic": quadratic, "ridge": ridge}[unit["function"]](unit["condition"])
        rng = np.random.default_rng(unit["seed"])
        start = torch.tensor(rng.normal(size=len(function.minimum)))
        found = {form: descent(function, start, form) for form in FORMS}
        result: Result = {f"steps_{form}": steps for form, (steps, _) in found.items()}
        untold, _ = descent(function, start, "nesterov", known=False)
        return {**result, "steps_untold": untold, "triple_speed": found["triple_momentum"][1]}

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Ratios of steps paired by start, speeds, and the convergence of heavy ball."""
        ridges = ratios(results)
        hardest = max(ridges)
        (on_pieces,) = (r for u, r in results if u["function"] == "pieces")
        seeds = sorted({u["seed"] for u, _ in results if "seed" in u})
        worst = [
            min(r["triple_speed"] for u, r in results if u.get("seed") == seed) for seed in seeds
        ]
        worst = [min(speed, on_pieces["triple_speed"]) for speed in worst]
        slopes = [
            float(np.polyfit(np.log(list(ridges)), np.log([r[i] for r in ridges.values()]), 1)[0])
            for i in range(len(seeds))
        ]
        measured = {
            "acceleration": ratio_interval(ridges[hardest], [1.0] * len(seeds)),
            "exponent": mean_interval(slopes),
            "triple_speed": mean_interval(worst),
            "heavy_ball_factor": exact(on_pieces["heavy_ball_factor"]),
            "largest_rest": exact(max(on_pieces["rest"][form] for form in SAFE)),
            "cycling_share": exact(on_pieces["cycling_share"]),
        }
        rows = [r for u, r in results if u["function"] == "ridge" and u["condition"] == hardest]
        for name in (*FORMS, "untold"):
            steps = [float(r[f"steps_{name}"]) for r in rows]
            measured[f"steps_{name}"] = mean_interval(steps)
        return measured

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Plot savings over conditions, and heavy ball and triple momentum on the pieces."""
        from anyorder_studies.parimi2025acceleration.picture import draw_family

        (on_pieces,) = (r for u, r in results if u["function"] == "pieces")
        return draw_family(ratios(results), on_pieces["paths"])


def ratios(results: Results) -> dict[float, list[float]]:
    """Steps of gradient descent over Nesterov's on the ridge regression, by condition number."""
    found: dict[float, list[float]] = {}
    for unit, result in results:
        if unit["function"] == "ridge":
            ratio = result["steps_gradient"] / result["steps_nesterov"]
            found.setdefault(unit["condition"], []).append(ratio)
    return found


def _on_pieces() -> Result:
    """Run all methods from all starts at once, as coordinates of a separable function."""
    function = pieces(len(STARTS))
    points = {form: _path(function, form) for form in ("heavy_ball", *SAFE)}
    ball = points["heavy_ball"]
    before, after = abs(_slope(ball[[SETTLED, END], PUBLISHED]))
    start = torch.tensor([STARTS[PUBLISHED]], dtype=torch.float64)
    return {
        "rest": {form: float(abs(found[-1]).max()) for form, found in points.items()},
        "paths": {f: abs(found[: SHOWN + 1, PUBLISHED]).tolist() for f, found in points.items()},
        "cycling_share": float((abs(ball[-1]) > FAR).mean()),
        "heavy_ball_factor": float((after / before) ** (1.0 / (END - SETTLED))),
        "triple_speed": descent(pieces(1), start, "triple_momentum")[1],
    }


def _path(function: Smooth, form: str) -> np.ndarray:
    """Iterates after 0 to :data:`END` steps from all starts, shape ``(END + 1, len(STARTS))``."""
    x, optimizer = prepared(function, torch.tensor(STARTS, dtype=torch.float64), form, True)
    points = [x.detach().numpy().copy()]
    for _ in range(END):
        optimizer.step(lambda: function.value(x))
        with optimizer.answer():
            points.append(x.detach().numpy().copy())
    return np.array(points)


def _slope(x: np.ndarray) -> np.ndarray:
    """The gradient of the piecewise function."""
    return np.where(x < 1, 25 * x, np.where(x < 2, x + 24, 25 * x - 24))
