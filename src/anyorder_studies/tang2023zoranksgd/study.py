"""ZO-RankSGD: cosines to the gradient, optimisation runs, and a real tuning task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, final

from anyorder_studies.contest import Repetitions, tuned_seeds, tuning_of
from anyorder_studies.study import (
    Claim,
    Measurement,
    Result,
    Results,
    Study,
    Unit,
    exact,
    range_interval,
)
from anyorder_studies.tang2023zoranksgd.cosines import RANKED, mean_cosines
from anyorder_studies.tang2023zoranksgd.descents import (
    GRIDS,
    TASKS,
    evaluations_to_the_same,
    run_task,
    tuned,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABSTRACT = "abstract of arXiv:2303.03751"
SUMMARIES = (
    "summaries of arXiv:2303.03751: on a par with methods that are told values, on quadratics and "
    "Rosenbrock's function (not checked in the paper's own text; a quarter more evaluations still "
    "counts as a par here)"
)


@final
class RanksAgainstValues(Study):
    """ZO-RankSGD minimises a function using only the order of candidates.

    There are four experiments. Cosines: how well is the estimate from ranks aligned with the
    gradient of a quadratic in 100 dimensions, if all of 15 or 50 candidates are ranked, or only the
    best 3 or the best one of 15? Descents: a quadratic in 20 dimensions with condition number 10
    and Rosenbrock's function in 10 dimensions are minimised with 1,760 evaluations. A real task:
    ten length scales of a kernel regression on the diabetes data are tuned in 880 evaluations,
    using only the order of validation errors. Another one: ten hyper-parameters of gradient
    boosting on the breast-cancer data are tuned in 440 evaluations, from the middle of their
    ranges, using only the order of the validation losses.

    In the last three, the method is compared with a reference method (the "twin") that evaluates
    the same kinds of points and uses the same line search, but knows the values: they differ only
    in this information. Plain zeroth-order descent (MeZO, two values per step, no line search) is
    measured as well, except for boosting, whose loss is constant over its small differences. There
    the third method is CMA-ES, which also uses ranks and is the natural choice for so few
    dimensions; it gets ranks only. All are tuned in the same way: ten settings, selected by the
    final loss on separate seeds, initial points or splits. The number of evaluations is measured
    where both runs of a pair reach the same loss.

    The first result had one tuning, six settings, four of whose choices were at the end of a grid,
    and half the evaluations. Now each of eight tunings is one repetition.
    """

    key: ClassVar[str] = "tang2023zoranksgd"
    paper: ClassVar[int | None] = 109
    title: ClassVar[str] = "ZO-RankSGD: an order instead of values"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="cosine_ranks_15_15",
            direction="higher",
            expected=0.0,
            threshold=0.0,
            tolerance=0.0,
            unit="cosine to the gradient",
            source=f"{ABSTRACT}: the estimate from ranks gives a descent direction (no figure)",
            text="The order of 15 candidates tells a direction of descent.",
        ),
        Claim(
            quantity="cosine_ranks_15_1",
            direction="higher",
            expected=0.0,
            threshold=0.0,
            tolerance=0.0,
            unit="cosine to the gradient",
            source="definition of the (m, k) oracle in arXiv:2303.03751, which allows k = 1 (no "
            "figure)",
            text="So does the single best of 15.",
        ),
        Claim(
            quantity="evaluations_ratio_quadratic",
            direction="lower",
            expected=1.25,
            threshold=1.25,
            tolerance=0.0,
            unit="x (evaluations, ranks over values)",
            source=SUMMARIES,
            text="On a quadratic, an order needs no more evaluations than values.",
            central=True,
        ),
        Claim(
            quantity="evaluations_ratio_rosenbrock",
            direction="lower",
            expected=1.25,
            threshold=1.25,
            tolerance=0.0,
            unit="x (evaluations, ranks over values)",
            source=SUMMARIES,
            text="On Rosenbrock's function, an order needs no more evaluations than values.",
        ),
        Claim(
            quantity="validation_ratio_scales",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (validation error, after over before)",
            source=f"{ABSTRACT}: improves what is known through a ranking only (there: images and "
            "policies)",
            text="Ten hyper-parameters can be tuned by the order of validation errors alone.",
        ),
        Claim(
            quantity="evaluations_ratio_boosting",
            direction="lower",
            expected=1.25,
            threshold=1.25,
            tolerance=0.0,
            unit="x (evaluations, ranks over values)",
            source=f"{SUMMARIES}; gradient boosting is not among the paper's experiments",
            text="Ten hyper-parameters of gradient boosting need no more evaluations by the order "
            "of their losses than by the losses.",
        ),
    )
    headline: ClassVar[str] = (
        "an algorithm that needs only a ranking, with proved convergence (abstract of "
        "arXiv:2303.03751, no figure), as good as one that knows the values on a quadratic, the "
        "first of its experiments"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"seeds": 2, "tuning_seeds": 1, "draws": 3, "dim": 100, "budget": 88, "grid": 2},
        "small": {
            "tunings": 8,
            "seeds": 3,
            "tuning_seeds": 2,
            "draws": 15,
            "dim": 100,
            "budget": 1760,
            "grid": 10,
            "minutes": 170,
        },
        "full": {
            "seeds": 20,
            "tuning_seeds": 5,
            "draws": 2000,
            "dim": 100,
            "budget": 8800,
            "grid": 10,
            "need": "simulated robots and people who rank images, as in the paper; for what is "
            "measured here, some hours on one core",
        },
    }

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return one unit per seed for the cosines, and one per task, method and seed."""
        settings = self.settings(scale)
        for seed in tuned_seeds(settings):
            yield {
                "task": "cosines",
                "seed": seed,
                "draws": settings["draws"],
                "dim": settings["dim"],
            }
        for task in TASKS:
            for seed in tuned_seeds(settings):
                for method, grid in GRIDS[task].items():
                    middle = (len(grid) - settings["grid"]) // 2
                    yield {
                        "task": task,
                        "method": method,
                        "seed": seed,
                        # Each evaluation of the real tasks fits a regression or a classifier.
                        "budget": settings["budget"] // {"scales": 2, "boosting": 4}.get(task, 1),
                        "grid": grid[middle : middle + settings["grid"]],
                        "tuning_seeds": settings["tuning_seeds"],
                    }

    def run(self, unit: Unit) -> Result:
        """Average cosines; or tune (once per tuning) and minimise with the best setting."""
        if unit["task"] == "cosines":
            return {**mean_cosines(unit["dim"], unit["draws"], unit["seed"])}
        contest = (unit["task"], unit["method"])
        grid = tuple(tuple(setting) for setting in unit["grid"])
        tuning = tuning_of(unit["seed"])
        setting = list(tuned(*contest, grid, unit["budget"], unit["tuning_seeds"], tuning))
        return {**run_task(*contest, setting, unit["seed"], unit["budget"]), "setting": setting}

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Cosines; ratios of evaluations by task, paired by seed or split."""
        cosines = [result for unit, result in results if unit["task"] == "cosines"]
        over = Repetitions([unit["seed"] for unit, _ in results if unit["task"] == "cosines"])
        measured = {f"cosine_{name}": over.mean([c[name] for c in cosines]) for name in cosines[0]}
        for m, k in RANKED:
            tops, bottoms = (
                [c[name] for c in cosines] for name in (f"ranks_{m}_{k}", f"values_{m}")
            )
            # With few draws a mean cosine can be negative by chance; then there is no ratio.
            if min(*tops, *bottoms) > 0:
                measured[f"share_of_values_{m}_{k}"] = over.ratio(tops, bottoms)
        for task in TASKS:
            found = by_method(results, task)
            for peer in [method for method in found if method != "ranks"]:
                pairs = [
                    evaluations_to_the_same(a, b)
                    for a, b in zip(found["ranks"], found[peer], strict=True)
                ]
                name = f"evaluations_ratio_{task}" + ("" if peer == "values" else f"_to_{peer}")
                measured[name] = _ratio(task, over)([a for a, _ in pairs], [b for _, b in pairs])
            for method, runs in found.items():
                name = f"loss_after_over_before_{task}_{method}"
                measured[name] = _ratio(task, over)(
                    [r["best"][-1] for r in runs], [r["best"][0] for r in runs]
                )
                names = ("deviation",) if method == "cma" else ("lr", "mu")
                for name, value in zip(names, runs[0]["setting"], strict=False):
                    measured[f"{name}_{task}_{method}"] = exact(value)
        first = [
            (u, r["setting"][0])
            for u, r in results
            if "grid" in u and u["seed"] == results[0][0]["seed"]
        ]
        ends = [(min(u["grid"])[0], max(u["grid"])[0], lr) for u, lr in first]
        measured["lr_at_edge"] = exact(sum(lr in (low, high) for low, high, lr in ends))
        measured["validation_ratio_scales"] = measured.pop("loss_after_over_before_scales_ranks")
        for task in ("scales", "boosting"):
            for method, runs in by_method(results, task).items():
                ratios = [run["test_ratio"] for run in runs]
                measured[f"test_ratio_{task}_{method}"] = range_interval(ratios)
        return measured

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Plot cosines by type of information, and losses over evaluations for each task."""
        from anyorder_studies.tang2023zoranksgd.picture import draw_ranks_and_values

        return draw_ranks_and_values({t: by_method(results, t) for t in TASKS}, measurements)


def by_method(results: Results, task: str) -> dict[str, list[Result]]:
    """The results of a task by method, ordered by seed."""
    found: dict[str, list[Result]] = {}
    for unit, result in results:
        if unit["task"] == task:
            found.setdefault(unit["method"], []).append(result)
    return found


def _ratio(
    task: str, over: Repetitions
) -> Callable[[Sequence[float], Sequence[float]], Measurement]:
    """The interval of paired ratios: seeds are independent, splits of one data set overlap."""
    return _range_of_ratios if task in ("scales", "boosting") else over.ratio


def _range_of_ratios(tops: Sequence[float], bottoms: Sequence[float]) -> Measurement:
    return range_interval([top / bottom for top, bottom in zip(tops, bottoms, strict=True)])
