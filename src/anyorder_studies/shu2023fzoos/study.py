"""FZooS: queries and rounds to the same loss, in federations of quadratics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

from anyorder_studies.contest import Repetitions, tuned_seeds, tuning_of
from anyorder_studies.shu2023fzoos.quadratics import BASELINES, METHODS, run, tuned
from anyorder_studies.study import Claim, Measurement, Result, Results, Study, Unit, exact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABSTRACT = "abstract of arXiv:2308.04077"
FEW, MANY = 20, 300


@final
class FederatedSurrogates(Study):
    """FZooS minimises the mean of functions of several clients, which can only be evaluated.

    A client of FZooS (arXiv:2308.04077) takes the gradient of a Gaussian process over its past
    queries instead of differences, and corrects its local steps with models that the clients share
    as random Fourier features. The paper's experiments are quadratics in 300 dimensions, attacks on
    image classifiers, and a metric of a classifier. Measured here are the quadratics of the
    published code, for five clients, with 20 and with 300 parameters.

    Baselines are FedZO, FedProx and both variants of SCAFFOLD, with random directions and forward
    differences. Each method has the same tuning, four settings: two learning rates, and two numbers
    of queries per local gradient. (The published comparison fixes 20 directions for the baselines
    and 5 points for FZooS.) Queries and rounds are read where all five methods have reached the
    same loss, the highest of the five final ones, and FZooS is compared with the baseline that gets
    there first. The server's own evaluations, with which the published code refuses bad rounds, are
    left out. Each of four tunings, with its own functions, is one repetition.
    """

    key: ClassVar[str] = "shu2023fzoos"
    paper: ClassVar[int | None] = 114
    title: ClassVar[str] = "FZooS: surrogates of past queries in a federation"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity=f"queries_ratio_{FEW}",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="queries over queries (FZooS over the best baseline, to the same loss)",
            source=f"{ABSTRACT}: query-efficient, improvements over the existing approaches (no "
            "figure)",
            text=f"With {FEW} parameters FZooS needs fewer queries than any baseline.",
            central=True,
        ),
        Claim(
            quantity=f"rounds_ratio_{FEW}",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="rounds over rounds (FZooS over the best baseline, to the same loss)",
            source=f"{ABSTRACT}: communication-efficient, improvements over the existing "
            "approaches (no figure)",
            text=f"With {FEW} parameters FZooS needs fewer rounds than any baseline.",
        ),
        Claim(
            quantity=f"queries_ratio_{MANY}",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="queries over queries (FZooS over the best baseline, to the same loss)",
            source=f"{ABSTRACT}: query-efficient (no figure; the published code has 300 parameters "
            "by default)",
            text=f"With {MANY} parameters FZooS needs fewer queries than any baseline.",
        ),
    )
    headline: ClassVar[str] = (
        "query- and communication-efficient federated zeroth-order optimisation with improvements "
        "over existing approaches (abstract of arXiv:2308.04077, last two sentences)"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"seeds": 2, "tuning_seeds": 1, "settings": 1, "budget": 100},
        "small": {"tunings": 4, "seeds": 1, "tuning_seeds": 1, "settings": 4, "budget": 800,
                  "minutes": 10},
        "full": {"tunings": 5, "seeds": 2, "tuning_seeds": 2, "settings": 4, "budget": 10_000,
                 "need": "attacks on classifiers of CIFAR-10 and the metric on Covertype, as in "
                 "the paper: a GPU for some days; with the quadratics, some hours on one core"},
    }  # fmt: skip

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return one unit per seed, number of parameters and method."""
        settings = self.settings(scale)
        shared = {key: settings[key] for key in ("settings", "budget", "tuning_seeds")}
        for seed in tuned_seeds(settings):
            for dim in (FEW, MANY):
                for method in METHODS:
                    yield {"method": method, "dim": dim, "seed": seed, **shared}

    def run(self, unit: Unit) -> Result:
        """Tune (once per tuning) and minimise with the best setting."""
        method, dim, seed, budget = unit["method"], unit["dim"], unit["seed"], unit["budget"]
        limits = (unit["settings"], budget, unit["tuning_seeds"], tuning_of(seed))
        setting = list(tuned(method, dim, *limits))
        return {**run(method, dim, setting, seed, budget), "setting": setting}

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Ratios, paired by seed, where all methods have come to the same loss."""
        found = by_task(results)
        over = Repetitions(
            [u["seed"] for u, _ in results if (u["method"], u["dim"]) == ("fzoos", FEW)]
        )
        measured: dict[str, Measurement] = {}
        for dim in (FEW, MANY):
            trials = list(zip(*(found[method, dim] for method in METHODS), strict=True))
            for quantity in ("queries", "rounds", "floats"):
                costs = [
                    costs_to_the_same(dict(zip(METHODS, t, strict=True)), quantity) for t in trials
                ]
                own = [cost["fzoos"] for cost in costs]
                best = [min(cost[name] for name in BASELINES) for cost in costs]
                measured[f"{quantity}_ratio_{dim}"] = over.ratio(own, best)
                for name in BASELINES:
                    ratio = over.ratio(own, [cost[name] for cost in costs])
                    measured[f"{quantity}_ratio_{dim}_to_{name}"] = ratio
            for name in METHODS:
                runs = found[name, dim]
                measured[f"gap_after_over_before_{dim}_{name}"] = over.ratio(
                    [r["best"][-1] for r in runs], [r["best"][0] for r in runs]
                )
                for part, value in zip(("lr", "queries"), runs[0]["setting"], strict=True):
                    measured[f"{part}_{dim}_{name}"] = exact(value)
        ends = [r["setting"][0] in (0.01, 0.03) for _, r in results]
        measured["lr_at_edge"] = exact(sum(ends))
        return measured

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """The gap over queries."""
        from anyorder_studies.shu2023fzoos.picture import draw_gaps

        return draw_gaps(by_task(results), (FEW, MANY))


def by_task(results: Results) -> dict[tuple[str, int], list[Result]]:
    """The results by method and number of parameters, ordered by seed."""
    found: dict[tuple[str, int], list[Result]] = {}
    for unit, result in results:
        found.setdefault((unit["method"], unit["dim"]), []).append(result)
    return found


def costs_to_the_same(trial: Mapping[str, Result], quantity: str) -> dict[str, float]:
    """What each method has spent when it reaches the highest of the final gaps, from round 1 on.

    Args:
        trial: The result of each method, on the same functions.
        quantity: ``queries``, ``rounds`` or ``floats``.
    """
    target = max(result["best"][-1] for result in trial.values())

    def spent(result: Result) -> float:
        place = max(1, next(i for i, gap in enumerate(result["best"]) if gap <= target))
        return float(place if quantity == "rounds" else result[quantity][place])

    return {method: spent(result) for method, result in trial.items()}
