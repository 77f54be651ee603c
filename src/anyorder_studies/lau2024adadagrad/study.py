"""AdAdaGrad on digits: growing and fixed batches, for equally many samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from anyorder import AdaGrad
from anyorder.batching import BatchSizeController
from anyorder.oracle import NonFiniteError
from anyorder.problems import load
from anyorder.problems.base import seeded
from anyorder_studies.contest import (
    WORST,
    Repetitions,
    all_digits,
    choose,
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

SMALLEST, LARGEST, EVERY = 8, 1024, 5
#: Contestants: fixed batches, growing ones by their eta, and the fixed batch size with as many
#: steps as the growing one of the claims.
FIXED = {"smallest": SMALLEST, "largest": LARGEST}
GROWING = {"eta_0.5": 0.5, "eta_1": 1.0}
CLAIMED = "eta_1"
NAMES = (*FIXED, *GROWING, "matched")
#: Step sizes, half a decade apart, the same for all.
GRID = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
PAPER = "arXiv:2402.11215"


@final
class AdAdaGradAgainstFixedBatches(Study):
    """AdAdaGrad starts with small batches and enlarges them if a test shows noisy gradients.

    Softmax regression on digits is trained with AdaGrad for equally many samples: in fixed batches
    of 8, in fixed batches of 1,024, and in batches that grow from 8 to at most 1,024 by the norm
    test on per-sample gradients, after every fifth step, with eta = 0.5 and 1 (smaller is
    stricter). Samples are drawn without replacement, so the test uses 1 - b/1,197 of the variance
    for a batch of b of the 1,197 images. The claims are about eta = 1. *matched* is the control:
    the fixed batch size with as many steps as eta = 1.

    All have a constant step size and the same tuning: the same six step sizes, half a decade apart,
    on separate seeds. Claims on held-out data are tuned by the loss on the validation images and
    reported on the test images; claims on the training loss are tuned by the training loss. The
    paper trains networks on image data too, and reports accuracy, which is measured as well.

    There were three runs before this one. In the first, the best step sizes were at the end of the
    grid, which was then moved up by a decade. In the second, everything was tuned by the training
    loss, which large steps reduce to zero: all contestants but the batches of 1,024 overfitted, and
    the result was the opposite of the central claim (validation loss 2.7 times that of the largest
    batch). That was an effect of the tuning, not of batch sizes, so each claim now has its own
    tuning. With eta = 2 batches never grew, so it was removed. In the third, batches of 1,024 had
    only 20 steps, there was a single tuning, and the control had the steps of a run that was
    reported, tuned by the training loss. Now there are six tunings and twice as many epochs, and
    the control has the steps of the held-out tuning.
    """

    key: ClassVar[str] = "lau2024adadagrad"
    paper: ClassVar[int | None] = 122
    title: ClassVar[str] = "AdAdaGrad: do growing batches beat fixed ones?"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="test_loss_ratio_largest",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (growing batches over batches of 1,024)",
            source=f"abstract of {PAPER}: large batches generalise worse, and growing ones have "
            "merits in model generalisation (no figure)",
            text="Growing batches generalise better than the largest batch.",
        ),
        Claim(
            quantity="steps_ratio_smallest",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (steps with growing batches over steps with batches of 8)",
            source=f"abstract of {PAPER}: merits in training efficiency (no figure)",
            text="They take fewer steps than the smallest batch.",
        ),
        Claim(
            quantity="test_loss_ratio_matched",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (growing batches over a fixed batch with as many steps)",
            source=f"abstract of {PAPER}: merits in both training efficiency and model "
            "generalisation (no figure)",
            text="They generalise better than a fixed batch that takes as many steps.",
            central=True,
        ),
        Claim(
            quantity="loss_ratio_matched",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (growing batches over a fixed batch with as many steps)",
            source=f"title of {PAPER}: that the batch adapts is the gain; the comparison with a "
            "fixed batch of the mean size is ours",
            text="They end lower than a fixed batch that takes as many steps.",
        ),
    )
    headline: ClassVar[str] = (
        "merits in both training efficiency and model generalisation (abstract of "
        "arXiv:2402.11215, its experiments; no figure). A fixed batch that takes as many steps "
        "and samples is the control for both at once; the largest batch takes far fewer steps, "
        "the smallest far more"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"seeds": 2, "tuning_seeds": 1, "epochs": 1, "grid": 2},
        "small": {
            "tunings": 6,
            "seeds": 3,
            "tuning_seeds": 1,
            "epochs": 40,
            "grid": 6,
            "minutes": 40,
        },
        "full": {
            "seeds": 6,
            "tuning_seeds": 2,
            "epochs": 200,
            "grid": 6,
            "need": "CIFAR-10 and ImageNet with residual networks, batches up to 16,384: some "
            "hundred GPU hours; with digits, two hours on one core",
        },
    }

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return one unit per contestant and seed."""
        settings = self.settings(scale)
        middle = (len(GRID) - settings["grid"]) // 2
        for name in NAMES:
            for seed in tuned_seeds(settings):
                yield {
                    "name": name,
                    "seed": seed,
                    "epochs": settings["epochs"],
                    "grid": GRID[middle : middle + settings["grid"]],
                    "tuning_seeds": settings["tuning_seeds"],
                }

    def run(self, unit: Unit) -> Result:
        """Tune by each loss (once per tuning), then train with its best step size."""
        grid, seeds = tuple(unit["grid"]), unit["tuning_seeds"]
        tuning = tuning_of(unit["seed"])
        plan = plan_of(unit["name"], unit["epochs"], grid, seeds, tuning)
        lr = _tuned(plan, grid, seeds, tuning, "loss")
        held = _tuned(plan, grid, seeds, tuning, "validation_loss")
        judged = _trained(plan, held, unit["seed"])
        return {
            **_trained(plan, lr, unit["seed"]),
            "lr": lr,
            "held_out_lr": held,
            "held_out_steps": judged["steps"],
            "test_loss": judged["test_loss"],
            "test_accuracy": judged["test_accuracy"],
        }

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Ratios of losses and steps, paired by seed; accuracy differences in percentage points."""
        found = {name: [r for u, r in results if u["name"] == name] for name in NAMES}
        over = Repetitions([u["seed"] for u, _ in results if u["name"] == CLAIMED])
        measured: dict[str, Measurement] = {}
        for other in ("largest", "smallest", "matched"):
            for key in ("loss", "test_loss", "steps"):
                measured[f"{key}_ratio_{other}"] = over.ratio(
                    [float(r[key]) for r in found[CLAIMED]], [float(r[key]) for r in found[other]]
                )
            pairs = zip(found[CLAIMED], found[other], strict=True)
            gains = [100 * (a["test_accuracy"] - b["test_accuracy"]) for a, b in pairs]
            measured[f"accuracy_gain_{other}"] = over.mean(gains)
        edge = 0
        for name, runs in found.items():
            measured[f"lr_{name}"] = exact(runs[0]["lr"])
            measured[f"held_out_lr_{name}"] = exact(runs[0]["held_out_lr"])
            measured[f"steps_{name}"] = over.mean([float(r["steps"]) for r in runs])
            measured[f"loss_{name}"] = over.mean([r["loss"] for r in runs])
            measured[f"test_loss_{name}"] = over.mean([r["test_loss"] for r in runs])
            grid = results[0][0]["grid"]
            ends = (grid[0], grid[-1])
            edge += (runs[0]["lr"] in ends) + (runs[0]["held_out_lr"] in ends)
        measured["lr_at_edge"] = exact(edge)
        return measured

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Plot losses over steps, and batch sizes over samples."""
        from anyorder_studies.lau2024adadagrad.picture import draw_batches

        return draw_batches([(unit["name"], result) for unit, result in results])


class Plan(NamedTuple):
    """The settings of a contestant: first and largest batch, eta of the test, and duration."""

    smallest: int
    largest: int
    eta: float
    epochs: int


def plan_of(name: str, epochs: int, grid: tuple[float, ...], seeds: int, tuning: int = 0) -> Plan:
    """Return the settings of a contestant in a tuning."""
    if name in FIXED:
        return Plan(FIXED[name], FIXED[name], 1.0, epochs)
    if name in GROWING:
        return Plan(SMALLEST, LARGEST, GROWING[name], epochs)
    claimed = plan_of(CLAIMED, epochs, grid, seeds, tuning)
    # The steps of a run that only tunes: the control must not know the reported ones.
    (seed,) = tuning_seeds(1, tuning)
    grown = _trained(claimed, _tuned(claimed, grid, seeds, tuning, "validation_loss"), seed)
    size = max(1, round(grown["samples"] / grown["steps"]))
    return Plan(size, size, 1.0, epochs)


@cache
def _tuned(plan: Plan, grid: tuple[float, ...], seeds: int, tuning: int, by: str) -> float:
    """The step size with the lowest ``loss`` or ``validation_loss``."""

    def score(lr: float, seed: int) -> float:
        return float(_trained(plan, lr, seed)[by])

    return choose(grid, score, seeds, tuning=tuning)


@cache
def _trained(plan: Plan, lr: float, seed: int) -> Result:
    """Train one softmax regression; losses in nats."""
    data = all_digits()[1]
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(
        TensorDataset(data.pixels, data.labels),
        batch_size=plan.smallest,
        shuffle=True,
        generator=order,
    )
    with seeded(seed):
        model = nn.Linear(64, 10)
    controller = BatchSizeController(
        loader,
        eta=plan.eta,
        smallest=plan.smallest,
        largest=plan.largest,
        every=EVERY,
        how="resample",
        exact=model,
    )
    optimizer = AdaGrad(model, lr=lr, engine="eager")
    most = plan.epochs * len(data.labels)
    sizes: list[list[int]] = []

    def loss(pixels: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model(pixels), labels)

    ended = True
    try:
        while controller.samples < most:
            for batches in controller:
                if not sizes or sizes[-1][1] != len(batches[0][0]):
                    sizes.append([controller.samples, len(batches[0][0])])
                optimizer.step(controller.closures(batches, loss))
                if controller.samples >= most:
                    break
    except NonFiniteError:
        ended = False
    problem = load("digits")
    tested = problem.test(model)
    assert tested is not None
    judged = problem.evaluate(model)
    return {
        "loss": digits_training_loss(model) if ended else WORST,
        "validation_loss": min(judged["loss"], WORST) if ended else WORST,
        "test_loss": min(tested["loss"], WORST) if ended else WORST,
        "test_accuracy": tested["accuracy"],
        "steps": controller.steps,
        "samples": controller.samples,
        "sizes": sizes,
    }
