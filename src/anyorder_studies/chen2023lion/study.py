"""Lion and AdamW on digits, with batches of 16, 64 and 512 images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, final

from anyorder import AdamW, Lion, Optimizer
from anyorder.compare.run.memory import state_bytes
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

METHODS = {"lion": Lion, "adamw": AdamW}
# Images per batch, and epochs in multiples of those of the scale. The last one has as many steps #
# as batches of 64.
CONTESTS = {"16": (16, 1), "64": (64, 1), "512": (512, 1), "512_longer": (512, 9)}
# Half decades, the same number for both. The paper recommends 3 to 10 times smaller steps for Lion.
GRIDS = {
    "lion": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
    "adamw": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
}


@final
class LionAgainstAdamW(Study):
    """Lion's update is the sign of a momentum, so it stores one number per weight; Adam stores two.

    A network with layers 64-128-64-10 is trained on digits with Lion and AdamW, in batches of 16,
    64 and 512 images and for equally many epochs, so large batches mean few steps. Both methods use
    the betas of their papers, no weight decay, a cosine schedule, and the same tuning: six step
    sizes, half a decade apart, selected for each batch size by the training loss on separate seeds.
    Both then use the same initial weights and batches. Ratios compare the loss on all training data
    after the last step. The paper reports accuracy on held-out data: for it, step sizes are
    selected by the validation loss, and the test images judge.

    With equal epochs, batches of 512 have thirty steps; the paper's largest batches still have
    about 11,000. A fourth contest, added after the first run of the claims, gives batches of 512 as
    many steps as batches of 64: `loss_ratio_512_longer` relative to `loss_ratio_64` is the effect
    of the batch size, `loss_ratio_512` also includes that of few steps.

    The verdict depends on the test accuracy in the fourth contest, not on the bytes of state, which
    are known by counting. The first result had one tuning, by the training loss, and its central
    claim was the trend over batch sizes. Now each of eight tunings is one repetition.
    """

    key: ClassVar[str] = "chen2023lion"
    paper: ClassVar[int | None] = 71
    title: ClassVar[str] = "Lion: does its gain grow with the batch?"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="test_accuracy_gain_512_longer",
            direction="higher",
            expected=0.0,
            threshold=0.0,
            tolerance=0.0,
            unit="points of test accuracy over AdamW's, both tuned by the validation loss",
            source="abstract of arXiv:2302.06675: up to 2 points on ImageNet, where far more is to "
            "be gained than on digits; the direction alone is asked here",
            text="With large batches and enough steps Lion generalises better than AdamW.",
            central=True,
        ),
        Claim(
            quantity="trend",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (loss ratio at batch 512 over that at batch 16)",
            source="abstract of arXiv:2302.06675: the gain grows with the batch size (no figure)",
            text="The ratio of Lion's to AdamW's loss falls as the batch grows.",
        ),
        Claim(
            quantity="state_ratio",
            direction="equal",
            expected=0.5,
            threshold=0.5,
            tolerance=1e-9,
            unit="bytes over bytes (Lion over AdamW)",
            source="README of the authors' code (google/automl, lion): the momentum alone halves "
            "the additional memory",
            text="Lion keeps exactly half of AdamW's state.",
        ),
        Claim(
            quantity="loss_ratio_512",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (Lion over AdamW)",
            source="README of the authors' code (google/automl, lion): with ViT-B/16 on ImageNet "
            "and batches of 32K, 77.9 % accuracy against 75.4 %",
            text="With large batches and few steps Lion ends lower than AdamW.",
        ),
    )
    headline: ClassVar[str] = (
        "up to 2 points more accuracy than the usual optimizers with vision transformers on "
        "ImageNet (abstract of arXiv:2302.06675, first result); that the gain grows with the "
        "batch comes last"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"seeds": 2, "tuning_seeds": 1, "epochs": 2, "grid": 2},
        "small": {
            "tunings": 8,
            "seeds": 4,
            "tuning_seeds": 2,
            "epochs": 15,
            "grid": 6,
            "minutes": 30,
        },
        "full": {
            "seeds": 8,
            "tuning_seeds": 2,
            "epochs": 300,
            "grid": 6,
            "need": "ImageNet and ViT-B/16 for 300 epochs with batches of 64 to 32,768: some "
            "thousand GPU hours; with digits, an hour on one core",
        },
    }

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return one unit per contest, seed and method."""
        settings = self.settings(scale)
        for contest, (batch, times) in CONTESTS.items():
            for seed in tuned_seeds(settings):
                for method, grid in GRIDS.items():
                    middle = (len(grid) - settings["grid"]) // 2
                    yield {
                        "contest": contest,
                        "method": method,
                        "batch": batch,
                        "seed": seed,
                        "epochs": settings["epochs"] * times,
                        "grid": grid[middle : middle + settings["grid"]],
                        "tuning_seeds": settings["tuning_seeds"],
                    }

    def run(self, unit: Unit) -> Result:
        """Tune by each loss (once per tuning of a contestant), then train with the best step size.

        Test images are seen only with the step size of the lowest validation loss.
        """
        contest = (unit["method"], unit["batch"], unit["epochs"])
        grid, tuning = tuple(unit["grid"]), tuning_of(unit["seed"])
        lr, held = (
            _tuned(*contest, grid, unit["tuning_seeds"], tuning, by)
            for by in ("loss", "validation_loss")
        )
        return {
            **_trained(*contest, lr, unit["seed"]),
            "lr": lr,
            "held_out_lr": held,
            "test_accuracy": _trained(*contest, held, unit["seed"])["test_accuracy"],
        }

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Ratios of Lion to AdamW, paired by seed; differences of accuracy in percentage points."""
        found = paired(results)
        contests = [(u["contest"], u["method"], u["seed"]) for u, _ in results]
        over = Repetitions([s for c, m, s in contests if (c, m) == ("512", "lion")])
        measured: dict[str, Measurement] = {}
        ratios: dict[str, list[float]] = {}
        for contest, (lion, adamw) in found.items():
            for key in ("loss", "validation_loss"):
                tops, bottoms = [r[key] for r in lion], [r[key] for r in adamw]
                measured[f"{key}_ratio_{contest}"] = over.ratio(tops, bottoms)
            ratios[contest] = [a["loss"] / b["loss"] for a, b in zip(lion, adamw, strict=True)]
            for key in ("accuracy", "test_accuracy"):
                gains = [100 * (a[key] - b[key]) for a, b in zip(lion, adamw, strict=True)]
                measured[f"{key}_gain_{contest}"] = over.mean(gains)
            measured[f"lr_lion_{contest}"] = exact(lion[0]["lr"])
            measured[f"lr_adamw_{contest}"] = exact(adamw[0]["lr"])
        measured["trend"] = over.ratio(ratios["512"], ratios["16"])
        lion, adamw = found["512"]
        measured["state_ratio"] = exact(lion[0]["state_bytes"] / adamw[0]["state_bytes"])
        measured["lr_at_edge"] = exact(
            sum(
                r["lr"] in (u["grid"][0], u["grid"][-1])
                for u, r in results
                if u["seed"] == results[0][0]["seed"]
            )
        )
        return measured

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Plot loss ratios by batch size, one point per seed, with their intervals."""
        from anyorder_studies.chen2023lion.picture import draw_ratios

        return draw_ratios(paired(results), measurements)


def paired(results: Results) -> dict[str, tuple[list[Result], list[Result]]]:
    """The results of Lion and AdamW by contest, ordered by seed."""
    return {name: (_of(results, "lion", name), _of(results, "adamw", name)) for name in CONTESTS}


def _of(results: Results, method: str, contest: str) -> list[Result]:
    return [r for u, r in results if u["method"] == method and u["contest"] == contest]


@cache
def _tuned(
    method: str,
    batch: int,
    epochs: int,
    grid: tuple[float, ...],
    seeds: int,
    tuning: int,
    by: str,
) -> float:
    """The step size with the lowest ``loss`` or ``validation_loss``."""

    def score(lr: float, seed: int) -> float:
        return float(_trained(method, batch, epochs, lr, seed)[by])

    return choose(grid, score, seeds, tuning=tuning)


@cache
def _trained(method: str, batch: int, epochs: int, lr: float, seed: int) -> Result:
    """Train one network; losses in nats, accuracy on validation and test images."""
    problem = load("digits", batch_size=batch)
    model = problem.build(seed)
    options: dict[str, Any] = {
        "betas": (0.9, 0.99 if method == "lion" else 0.999),
        "weight_decay": 0.0,
    }
    optimizer: Optimizer = METHODS[method](model, lr=lr, engine="eager", **options)
    steps = epochs * (len(all_digits()[1].labels) // batch)
    ended = descend(problem, model, optimizer, steps=steps, seed=seed)
    judged, tested = problem.evaluate(model), problem.test(model)
    assert tested is not None
    return {
        "loss": digits_training_loss(model) if ended else WORST,
        "validation_loss": min(judged["loss"], WORST) if ended else WORST,
        "accuracy": judged["accuracy"],
        "test_accuracy": tested["accuracy"],
        "state_bytes": state_bytes(optimizer),
    }
