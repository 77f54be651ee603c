"""Neural ODEs with a penalty on the solver's error at one random time: cost and accuracy."""

# matplotlib's types have untyped keyword arguments.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from anyorder_studies.pal2023localreg.field import NetworkField
from anyorder_studies.pal2023localreg.solver import Solution, solve
from anyorder_studies.pal2023localreg.system import (
    LocalRegularizer,
    NeuralODE,
    train_regularized,
)
from anyorder_studies.study import (
    Claim,
    Measurement,
    Result,
    Results,
    Study,
    Unit,
    mean_interval,
    ratio_interval,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ARMS = ("none", "unbiased", "biased")
NAMES = {"none": "no penalty", "unbiased": "at a uniform time", "biased": "at an accepted time"}
FIRST, LAST = 100.0, 10.0
END, OBSERVED = 3.0, 12
NOISE = 0.1

ABSTRACT = (
    "proceedings.mlr.press/v202/pal23a, abstract (checked): evaluations fall to 0.556 to 0.733 of "
    "what they were"
)


class LocalRegStudy(Study):
    """The cost of a neural differential equation is the number of evaluations of its solver.

    An adaptive solver estimates its error from the difference of two orders and shortens its steps
    where it is large. The paper adds the same difference to the loss, at a single time per training
    step: drawn uniformly (*unbiased*) or among the solver's time points (*biased*). Since only one
    additional step is differentiated, the main solver can be a black box.

    Here a neural ODE with 64 hidden units classifies the 8 x 8 digits of scikit-learn, solved with
    Tsitouras' pair at tolerance 1e-6 in double precision; the error is scaled by the tolerance and
    evaluated over the solver's step, and its weight decreases from 100 to 10, the default of the
    authors' public code. A second problem fits the Lotka-Volterra field to sixteen trajectories in
    logarithms (tolerance 1e-4, same weights, squared errors in units of a tenth): there the data
    determine the field and leave little freedom. Evaluations are counted on test data in batches of
    50 (digits) or in one batch of 16 trajectories. Counts are used instead of time, which depends
    on the machine.
    """

    key: ClassVar[str] = "pal2023localreg"
    paper: ClassVar[int] = 132
    title: ClassVar[str] = "Locally regularised neural differential equations"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="evaluations_unbiased",
            direction="lower",
            expected=0.733,
            threshold=1.0,
            tolerance=0.0,
            unit="ratio of evaluations",
            source=ABSTRACT,
            text="Penalised at a uniform time, the trained classifier needs fewer evaluations.",
            central=True,
        ),
        Claim(
            quantity="evaluations_biased",
            direction="lower",
            expected=0.733,
            threshold=1.0,
            tolerance=0.0,
            unit="ratio of evaluations",
            source=ABSTRACT,
            text="Penalised at one of the solver's own times, it does too.",
        ),
        Claim(
            quantity="accuracy_lost",
            direction="lower",
            expected=0.0,
            threshold=0.02,
            tolerance=0.01,
            unit="share of test digits",
            source="proceedings.mlr.press/v202/pal23a, abstract (checked; 'similar performance', "
            "taken here as less than two points)",
            text="The cheaper classifier (uniform time) is no less accurate.",
        ),
        Claim(
            quantity="evaluations_trajectories",
            direction="lower",
            expected=0.733,
            threshold=1.0,
            tolerance=0.0,
            unit="ratio of evaluations",
            source=ABSTRACT,
            text="Fields fitted to trajectories (uniform time) need fewer evaluations as well.",
        ),
    )
    headline: ClassVar[str] = (
        "fewer function evaluations at the same accuracy (abstract of arXiv:2303.02262: 0.556 to "
        "0.733 of what they were, training as a black box)"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"seeds": 2, "digits_steps": 12, "trajectories_steps": 10},
        "small": {"seeds": 5, "digits_steps": 200, "trajectories_steps": 200},
        "full": {
            "seeds": 10,
            "digits_steps": 7500,
            "trajectories_steps": 5000,
            "need": "about two days of one core; the paper's MNIST and PhysioNet want one GPU",
        },
    }

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return one unit per problem, seed and kind of penalty."""
        settings = self.settings(scale)
        for problem in ("digits", "trajectories"):
            for seed in range(settings["seeds"]):
                for arm in ARMS:
                    steps = settings[f"{problem}_steps"]
                    yield {"problem": problem, "seed": seed, "arm": arm, "steps": steps}

    def run(self, unit: Unit) -> Result:
        """Train one model and count the evaluations of solving it."""
        run = {"digits": _digits, "trajectories": _trajectories}[str(unit["problem"])]
        arm = str(unit["arm"])
        regularizer = (
            None
            if arm == "none"
            else LocalRegularizer(
                "biased" if arm == "biased" else "unbiased", FIRST, LAST, step="solver"
            )
        )
        return run(int(unit["seed"]), int(unit["steps"]), regularizer)

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Ratios of evaluations and differences of accuracy, paired by seed."""

        def column(problem: str, arm: str, name: str) -> list[float]:
            return [
                float(result[name])
                for unit, result in results
                if unit["problem"] == problem and unit["arm"] == arm
            ]

        def ratio(problem: str, arm: str, name: str = "evaluations") -> Measurement:
            return ratio_interval(column(problem, arm, name), column(problem, "none", name))

        def lost(arm: str) -> Measurement:
            pairs = zip(
                column("digits", "none", "score"), column("digits", arm, "score"), strict=True
            )
            return mean_interval([plain - penalised for plain, penalised in pairs])

        return {
            "evaluations_unbiased": ratio("digits", "unbiased"),
            "evaluations_biased": ratio("digits", "biased"),
            "accuracy_lost": lost("unbiased"),
            "accuracy_lost_biased": lost("biased"),
            "accuracy_without_penalty": mean_interval(column("digits", "none", "score")),
            "evaluations_trajectories": ratio("trajectories", "unbiased"),
            "evaluations_trajectories_biased": ratio("trajectories", "biased"),
            "squared_error_trajectories": ratio("trajectories", "unbiased", "score"),
            "squared_error_trajectories_biased": ratio("trajectories", "biased", "score"),
        }

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Plot cost over quality, one point per seed, for both problems."""
        from matplotlib.figure import Figure

        figure = Figure()
        panels = figure.subplots(1, 2)
        for axes, problem in zip(panels, ("digits", "trajectories"), strict=True):
            for colour, marker, arm in zip(("C6", "C0", "C1"), "os^", ARMS, strict=True):
                chosen = [
                    result
                    for unit, result in results
                    if unit["problem"] == problem and unit["arm"] == arm
                ]
                cost = [result["evaluations"] for result in chosen]
                score = [result["score"] for result in chosen]
                axes.scatter(cost, score, s=14, marker=marker, color=colour, alpha=0.55)
                middle = (sum(cost) / len(cost), sum(score) / len(score))
                axes.scatter(*middle, s=110, marker="+", color=colour, label=NAMES[arm])
            most = max(r["evaluations"] for u, r in results if u["problem"] == problem)
            axes.set_xlim(0.0, 1.12 * most)
            axes.set_title(problem)
            axes.set_xlabel("evaluations to solve")
        panels[0].set_ylabel("test accuracy")
        panels[1].set_ylabel("squared error, test trajectories")
        panels[1].set_ylim(bottom=0)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
        return figure


def _digits(seed: int, steps: int, regularizer: LocalRegularizer | None) -> Result:
    from sklearn.datasets import load_digits  # pyright: ignore

    images, labels = load_digits(return_X_y=True)  # pyright: ignore
    x, y = torch.tensor(images / 16.0), torch.tensor(labels)  # pyright: ignore
    generator = torch.Generator().manual_seed(132_000 + seed)
    order = torch.randperm(len(x), generator=generator)
    train, test = order[:1297], order[1297:]
    field = NetworkField(64, width=64, seed=seed)
    ode = NeuralODE(field)
    # With zero weights, all classes are equally likely at first.
    head = nn.ParameterList([torch.zeros(10, 64, dtype=x.dtype), torch.zeros(10, dtype=x.dtype)])

    def task(rows: Tensor) -> tuple[Tensor, Solution]:
        solution = ode(x[rows])
        return functional.cross_entropy(functional.linear(solution.final, *head), y[rows]), solution

    def batches() -> Iterator[Tensor]:
        while True:
            yield train[torch.randint(len(train), (128,), generator=generator)]

    weights = [*field.parameters(), *head]
    train_regularized(
        ode, task, batches(), weights, steps=steps, regularizer=regularizer, lr=3e-3, seed=seed
    )
    hits, evaluations = 0, list[int]()
    with torch.no_grad():
        for i in range(0, len(test), 50):
            rows = test[i : i + 50]
            solution = ode(x[rows])
            evaluations.append(solution.evaluations)
            answers = functional.linear(solution.final, *head).argmax(dim=1)
            hits += int((answers == y[rows]).sum())
    return {"evaluations": sum(evaluations) / len(evaluations), "score": hits / len(test)}


def lotka_volterra(t: float, u: Tensor) -> Tensor:
    """Derivatives of the logarithms of prey and predators, (..., 2)."""
    numbers = u.exp()
    return torch.stack([1.5 - numbers[..., 1], numbers[..., 0] - 3.0], dim=-1)


def _trajectories(seed: int, steps: int, regularizer: LocalRegularizer | None) -> Result:
    generator = torch.Generator().manual_seed(132_500 + seed)
    starts = (0.8 + 2.0 * torch.rand(32, 2, generator=generator, dtype=torch.float64)).log()
    times = [END * (i + 1) / OBSERVED for i in range(OBSERVED)]
    truth = solve(lotka_volterra, starts, 0.0, END, rtol=1e-9, atol=1e-9)
    target = torch.stack([truth.at(t) for t in times])
    field = NetworkField(2, width=50, seed=seed)
    ode = NeuralODE(field, t1=END, rtol=1e-4, atol=1e-4)

    def squared_error(rows: slice) -> tuple[Tensor, Solution]:
        solution = ode(starts[rows])
        found = torch.stack([solution.at(t) for t in times])
        return (found - target[:, rows]).square().mean(), solution

    def task(rows: slice) -> tuple[Tensor, Solution]:
        error, solution = squared_error(rows)
        return error / (2.0 * NOISE**2), solution

    train_regularized(
        ode,
        task,
        [slice(0, 16)] * steps,
        list(field.parameters()),
        steps=steps,
        regularizer=regularizer,
        lr=1e-2,
        seed=seed,
    )
    with torch.no_grad():
        error, solution = squared_error(slice(16, 32))
    return {"evaluations": float(solution.evaluations), "score": float(error)}
