"""EXAdam, its components and Adam on digits, over a sweep of step sizes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, final

from anyorder import AdamW, EXAdam, Optimizer
from anyorder.problems import load
from anyorder_studies.contest import (
    WORST,
    Repetitions,
    all_digits,
    choose,
    descend,
    digits_training_loss,
    tuned_seeds,
    tuning_of,
    tuning_seeds,
)
from anyorder_studies.study import (
    Claim,
    Measurement,
    Result,
    Results,
    Study,
    Unit,
    exact,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Each contestant: method, options, and whether the study increases its step size.
CONTESTANTS: dict[str, tuple[Any, dict[str, Any], bool]] = {
    "adam": (AdamW, {"weight_decay": 0.0}, False),
    "adam_growing": (AdamW, {"weight_decay": 0.0}, True),
    "exadam": (EXAdam, {"version": 2}, False),
    "exadam_growing": (EXAdam, {"version": 1}, False),  # increases its step size itself
    "exadam_no_boost": (EXAdam, {"version": 2, "boost": 0.0}, False),
}
# Three step sizes per decade, the same for all methods.
GRID = [1e-4, 2.2e-4, 4.6e-4, 1e-3, 2.2e-3, 4.6e-3, 1e-2, 2.2e-2, 4.6e-2]
# The step size of all methods in the authors' CIFAR-10 notebook.
THEIRS = 1e-4
BATCH = 64
# The loss on all training data is evaluated every this many steps.
EVERY = 6


@final
class EXAdamAgainstAdam(Study):
    """EXAdam uses both moments to correct each bias, and adds the current gradient to the mean.

    The first version of the paper also increases the step size with the logarithm of the step.

    A network with layers 64-128-64-10 is trained on digits in batches of 64 for 15 epochs, without
    weight decay or schedule. Five contestants are tuned in the same way: nine step sizes, three per
    decade, selected by the training loss on separate seeds. Besides Adam and both versions of
    EXAdam these are Adam with the increasing step size of version 1, and version 2 without the
    added gradient. All of them use the same initial weights and batches. A second comparison uses
    the same step size, 1e-4, for EXAdam and Adam, as the authors' notebook does for all methods (it
    also reduces the step size on plateaus of the loss).

    Speed is the number of steps to the lowest training loss that both the method and Adam reach
    with the same seed; a run that diverges counts twice its length.

    The protocol was changed in three ways. First, there were ten seeds. Final losses differ by a
    factor of ten between seeds, and the comparison of version 1 with Adam with the same increasing
    step size was undecided on one thread and met on two, which sum in another order. Second, the
    target was the lowest loss of Adam's run, and a run that missed it counted twice its length.
    With thirty seeds EXAdam, whose final loss is lower than Adam's on average, missed it twelve
    times, and the ratio was 1.25 with that penalty and 0.94 with half of it. A target that both
    reach needs no penalty and is symmetric. Third, all thirty seeds used the step sizes of a single
    tuning; now there are ten tunings, each with its own seeds, and a tuning is one repetition.
    """

    key: ClassVar[str] = "adly2024exadam"
    paper: ClassVar[int | None] = 68
    title: ClassVar[str] = "EXAdam: faster than a tuned Adam, and by which of its parts?"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="steps_ratio",
            direction="lower",
            expected=0.6154,
            threshold=1.0,
            tolerance=0.25,
            unit="steps over Adam's steps, both tuned",
            source="abstract of arXiv:2412.20302v2: 38.46 % faster convergence (CIFAR-10; equal "
            "step sizes in the authors' notebook)",
            text="EXAdam needs 38 % fewer steps than Adam.",
            central=True,
        ),
        Claim(
            quantity="steps_ratio_equal",
            direction="lower",
            expected=0.6154,
            threshold=1.0,
            tolerance=0.25,
            unit="steps over Adam's steps, both at 1e-4",
            source="abstract of arXiv:2412.20302v2: 38.46 % faster convergence; step size of the "
            "authors' notebook cifar-10-cnn",
            text="It does so at the step size of the authors' notebook, the same for both.",
        ),
        Claim(
            quantity="boost_ratio",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (loss with the added gradient over that without, both tuned)",
            source="abstract of arXiv:2412.20302v2: the added gradient is one of two enhancements "
            "(no figure)",
            text="The added gradient lowers the loss.",
        ),
        Claim(
            quantity="growing_ratio",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (loss of EXAdam version 1 over that of Adam with the same growing step size)",
            source="abstract of arXiv:2412.20302v1: new bias corrections and the added gradient, "
            "beside the growing step size (no figure)",
            text="Version 1 beats Adam that is given the same growing step size.",
        ),
        Claim(
            quantity="accuracy_gain",
            direction="higher",
            expected=0.0,
            threshold=0.0,
            tolerance=0.0,
            unit="points of validation accuracy over Adam's, both tuned",
            source="abstract of arXiv:2412.20302v2: 2.17 points on CIFAR-10, where far more is to "
            "be gained than on digits; the direction alone is asked here",
            text="EXAdam generalises better than Adam.",
        ),
    )
    headline: ClassVar[str] = (
        "faster convergence than Adam by 38.46 %, and 1.96, 2.17 and 1.17 points more training, "
        "validation and test accuracy (abstract of arXiv:2412.20302v2, its only figures; "
        "CIFAR-10)"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"seeds": 2, "tuning_seeds": 1, "epochs": 2, "grid": GRID[3:8:2]},
        "small": {
            "tunings": 10,
            "seeds": 5,
            "tuning_seeds": 3,
            "epochs": 15,
            "grid": GRID,
            "minutes": 16,
        },
        "full": {
            "seeds": 30,
            "tuning_seeds": 3,
            "epochs": 100,
            "grid": GRID,
            "need": "CIFAR-10 and the notebook's convolutional network of 3.2 million weights for "
            "100 epochs: some hundred GPU hours for the sweep; with digits, an hour on one core",
        },
    }

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return one unit per seed and contestant."""
        settings = self.settings(scale)
        for seed in tuned_seeds(settings):
            for contestant in CONTESTANTS:
                yield {
                    "contestant": contestant,
                    "seed": seed,
                    "epochs": settings["epochs"],
                    "grid": settings["grid"],
                    "tuning_seeds": settings["tuning_seeds"],
                }

    def run(self, unit: Unit) -> Result:
        """Sweep and tune once per tuning; train with the best and the shared step size."""
        name, epochs, seeds = unit["contestant"], unit["epochs"], unit["tuning_seeds"]
        grid, tuning = tuple(unit["grid"]), tuning_of(unit["seed"])
        lr = choose(
            grid,
            lambda lr, seed: _trained(name, epochs, lr, seed)["loss"],
            seeds,
            tuning=tuning,
        )
        equal = _trained(name, epochs, THEIRS, unit["seed"])
        chosen = tuning_seeds(seeds, tuning)
        sweep = [sum(_trained(name, epochs, lr, s)["loss"] for s in chosen) / seeds for lr in grid]
        best = _trained(name, epochs, lr, unit["seed"])
        return {**best, "curve_equal": equal["curve"], "lr": lr, "sweep": sweep}

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Ratios paired by seed; the difference of accuracy in percentage points."""
        found = {name: by_seed(results, name) for name in CONTESTANTS}
        adam, ex = found["adam"], found["exadam"]
        over = Repetitions([u["seed"] for u, _ in results if u["contestant"] == "adam"])
        losses = {name: [r["loss"] for r in rows] for name, rows in found.items()}
        gains = [100 * (a["accuracy"] - b["accuracy"]) for a, b in zip(ex, adam, strict=True)]
        measured = {
            "steps_ratio": _speed(ex, adam, "curve", over),
            "steps_ratio_equal": _speed(ex, adam, "curve_equal", over),
            "steps_ratio_growing": _speed(found["exadam_growing"], adam, "curve", over),
            "loss_ratio": over.ratio(losses["exadam"], losses["adam"]),
            "loss_ratio_version_1": over.ratio(losses["exadam_growing"], losses["adam"]),
            "corrections_ratio": over.ratio(losses["exadam_no_boost"], losses["adam"]),
            "boost_ratio": over.ratio(losses["exadam"], losses["exadam_no_boost"]),
            "growing_ratio": over.ratio(losses["exadam_growing"], losses["adam_growing"]),
            "growth_for_adam": over.ratio(losses["adam_growing"], losses["adam"]),
            "growth_for_exadam": over.ratio(losses["exadam_growing"], losses["exadam"]),
            "accuracy_gain": over.mean(gains),
        }
        for name, rows in found.items():
            measured[f"lr_{name}"] = exact(rows[0]["lr"])
        grid = results[0][0]["grid"]
        edges = sum(rows[0]["lr"] in (grid[0], grid[-1]) for rows in found.values())
        return {**measured, "lr_at_edge": exact(edges)}

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Plot the sweeps of all contestants, and the ratios."""
        from anyorder_studies.adly2024exadam.picture import draw_sweeps

        sweeps = {name: by_seed(results, name)[0]["sweep"] for name in CONTESTANTS}
        return draw_sweeps(results[0][0]["grid"], sweeps, measurements)


def by_seed(results: Results, contestant: str) -> list[Result]:
    """The results of a contestant, ordered by seed."""
    return [r for u, r in results if u["contestant"] == contestant]


def steps_to(curve: list[float], level: float) -> int:
    """Number of steps until a curve is at or below ``level``; twice its length if it never is."""
    for place, loss in enumerate(curve):
        if loss <= level:
            return (place + 1) * EVERY
    return 2 * len(curve) * EVERY


def _speed(rows: list[Result], adam: list[Result], key: str, over: Repetitions) -> Measurement:
    """Steps relative to Adam's to the lowest loss that both reach, paired by seed."""
    tops: list[float] = []
    bottoms: list[float] = []
    for row, other in zip(rows, adam, strict=True):
        level = max(low for run in (row, other) if (low := min(run[key])) < WORST)
        tops.append(steps_to(row[key], level))
        bottoms.append(steps_to(other[key], level))
    return over.ratio(tops, bottoms)


def growth(step: int) -> float:
    """The factor on the step size of version 1 in step ``step``, counted from 1."""
    return math.log(math.sqrt(2.0) * math.sqrt(step + 1.0))


@cache
def _trained(name: str, epochs: int, lr: float, seed: int) -> Result:
    """Train one network; losses in nats, accuracy on the validation images."""
    method, options, growing = CONTESTANTS[name]
    problem = load("digits", batch_size=BATCH)
    model = problem.build(seed)
    start = lr * growth(1) if growing else lr
    optimizer: Optimizer = method(model, lr=start, engine="eager", **options)
    curve: list[float] = []

    def after(step: int) -> None:
        if growing:
            optimizer.param_groups[0]["lr"] = lr * growth(step + 1)
        if step % EVERY == 0:
            curve.append(digits_training_loss(model))

    steps = epochs * (len(all_digits()[1].labels) // BATCH)
    if not descend(problem, model, optimizer, steps=steps, seed=seed, cosine=False, after=after):
        return {"loss": WORST, "accuracy": 0.0, "curve": [WORST] * (steps // EVERY)}
    accuracy = problem.evaluate(model)["accuracy"]
    return {"loss": digits_training_loss(model), "accuracy": accuracy, "curve": curve}
