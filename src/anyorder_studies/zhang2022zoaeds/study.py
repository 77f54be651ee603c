"""ZO-AE-DS: defences of a frozen classifier of digits at equal numbers of queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

from anyorder_studies.contest import Repetitions, tuned_seeds, tuning_of
from anyorder_studies.study import Claim, Measurement, Result, Results, Study, Unit, exact
from anyorder_studies.zhang2022zoaeds.defence import (
    METHODS,
    QUERIES,
    TRAINED,
    UNTRAINED,
    certified,
    cosine,
    trained,
    tuned,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = (3e-4, 1e-3, 3e-3)
ABSTRACT = "abstract of arXiv:2203.14195"


@final
class BlackBoxDefence(Study):
    """ZO-AE-DS makes a classifier certifiably robust although it can only be queried.

    A denoiser is trained in front of the frozen classifier: noisy images shall be classified as the
    classifier does the clean ones. Derivatives through the classifier are estimated from queries.
    In the space of pixels the estimate has a large variance, so the paper (arXiv:2203.14195)
    inserts an autoencoder and estimates in its small code, one coordinate at a time.

    Here the images are 8 x 8 digits (64 pixels), the code has 16 numbers (principal components,
    with a trainable encoder), and the classifier is a network with one hidden layer. All defences
    that query use the same number of queries per image and step, 33: coordinates of the code,
    random directions in the code, and random directions in the space of pixels. (The published
    comparison gives coordinates twice as many queries as random directions.) Upper bounds use the
    derivatives of the classifier. "Untrained" is the autoencoder without training, which already
    removes noise. Each method has the same tuning: three step sizes, selected by the accuracy on
    noisy images.

    Radii are those of randomised smoothing with failure probability 0.001 for each of 100 held-out
    images. The standard deviation of the noise is 0.5, not 0.25 as in the paper: 0.25 costs the
    bare classifier little accuracy on these small images, 0.5 costs it two fifths.
    """

    key: ClassVar[str] = "zhang2022zoaeds"
    paper: ClassVar[int | None] = 20
    title: ClassVar[str] = "ZO-AE-DS: certified robustness from queries alone"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="certified_gain_over_pixels",
            direction="higher",
            expected=0.0,
            threshold=0.0,
            tolerance=0.0,
            unit="points (certified accuracy at radius 0.25, ZO-AE-DS minus random directions of "
            "pixels)",
            source=f"{ABSTRACT}: improved certified robustness over existing baselines (no figure)",
            text="At equal queries, a small code gives more certified accuracy than pixels.",
            central=True,
        ),
        Claim(
            quantity="certified_gain_over_none",
            direction="higher",
            expected=0.0,
            threshold=0.0,
            tolerance=0.0,
            unit="points (certified accuracy at radius 0.25, ZO-AE-DS minus no defence)",
            source=f"{ABSTRACT}: a black-box model is robustified with queries only (no figure)",
            text="Queries alone make the classifier certifiably more robust.",
        ),
        Claim(
            quantity="standard_gain_over_pixels",
            direction="higher",
            expected=0.0,
            threshold=0.0,
            tolerance=0.0,
            unit="points (accuracy of the smoothed classifier)",
            source=f"{ABSTRACT}: improved accuracy over existing baselines (no figure)",
            text="At equal queries, a small code gives more accuracy than pixels.",
        ),
        Claim(
            quantity="queries_ratio",
            direction="lower",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="queries over queries (ZO-AE-DS over pixels, to the same noisy accuracy)",
            source=f"{ABSTRACT}: improved query complexity over existing baselines (no figure)",
            text="A small code needs fewer queries to the same accuracy.",
        ),
        Claim(
            quantity="cosine_gain",
            direction="higher",
            expected=0.0,
            threshold=0.0,
            tolerance=0.0,
            unit="cosine to the derivative (coordinates of the code minus random directions of "
            "pixels)",
            source=f"{ABSTRACT}: a direct zeroth-order implementation suffers a high variance of "
            "gradient estimates, the autoencoder reduces it (no figure)",
            text="At equal queries, the estimate in the code is closer to the derivative.",
        ),
    )
    headline: ClassVar[str] = (
        "improved accuracy, certified robustness and query complexity over existing baselines "
        "(abstract of arXiv:2203.14195, last result; the central claim is the certified robustness)"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"seeds": 2, "tuning_seeds": 1, "epochs": 1, "grid": 1, "images": 5,
                  "samples": 200},
        "small": {"tunings": 5, "seeds": 1, "tuning_seeds": 1, "epochs": 10, "grid": 3,
                  "images": 100, "samples": 1000, "minutes": 10},
        "full": {"seeds": 5, "tuning_seeds": 2, "epochs": 200, "grid": 3, "images": 300,
                 "samples": 10_000,
                 "need": "CIFAR-10, STL-10 and restricted ImageNet with their classifiers: one GPU "
                 "for some days; with digits, some hours on one core"},
    }  # fmt: skip

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return one unit per seed and method."""
        settings = self.settings(scale)
        middle = (len(GRID) - settings["grid"]) // 2
        shared = {key: settings[key] for key in ("epochs", "images", "samples", "tuning_seeds")}
        for seed in tuned_seeds(settings):
            for method in METHODS:
                grid = list(GRID[middle : middle + settings["grid"]])
                yield {"method": method, "seed": seed, "grid": grid, **shared}

    def run(self, unit: Unit) -> Result:
        """Tune (once per tuning), train with the best step size, and certify."""
        method, seed, epochs = unit["method"], unit["seed"], unit["epochs"]
        grid = tuple(unit["grid"])
        lr = 0.0
        if method not in UNTRAINED:
            lr = tuned(method, grid, epochs, unit["tuning_seeds"], tuning_of(seed))
        model, curve = trained(method, lr, seed, epochs)
        found = {**curve, **certified(model, unit["images"], unit["samples"], seed), "lr": lr}
        return found | ({"cosine": cosine(method, seed)} if method.startswith("zo") else {})

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Differences and ratios, paired by seed; accuracies in percent."""
        found = by_method(results)
        over = Repetitions([u["seed"] for u, _ in results if u["method"] == "none"])
        measured = {
            f"{quantity}_{method}": over.mean([run[quantity] for run in found[method]])
            for quantity in ("certified", "standard")
            for method in METHODS
        }
        for method in ("zo_ae_ds", "zo_ae_rge", "zo_ds"):
            measured[f"cosine_{method}"] = over.mean([run["cosine"] for run in found[method]])
        best, pixels = found["zo_ae_ds"], found["zo_ds"]

        def gain(quantity: str, other: str) -> Measurement:
            pairs = zip(best, found[other], strict=True)
            return over.mean([a[quantity] - b[quantity] for a, b in pairs])

        for quantity, other, name in (
            ("certified", "zo_ds", "certified_gain_over_pixels"),
            ("certified", "none", "certified_gain_over_none"),
            ("certified", "ae", "certified_gain_over_untrained"),
            ("certified", "zo_ae_rge", "certified_gain_over_random_codes"),
            ("certified", "fo_ae_ds", "certified_gain_over_derivatives"),
            ("standard", "zo_ds", "standard_gain_over_pixels"),
            ("cosine", "zo_ds", "cosine_gain"),
        ):
            measured[name] = gain(quantity, other)
        counts = [queries_to_the_same(a, b) for a, b in zip(best, pixels, strict=True)]
        measured["queries_ratio"] = over.ratio([a for a, _ in counts], [b for _, b in counts])
        measured["queries_per_image_and_step"] = exact(QUERIES)
        ends = [
            (u["grid"][0], u["grid"][-1], r["lr"]) for u, r in results if u["method"] in TRAINED
        ]
        measured["lr_at_edge"] = exact(sum(lr in (low, high) for low, high, lr in ends))
        return measured

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Left: noisy accuracy over queries. Right: certified accuracy."""
        from anyorder_studies.zhang2022zoaeds.picture import draw_defences

        return draw_defences(by_method(results))


def by_method(results: Results) -> dict[str, list[Result]]:
    """The results by method, ordered by seed."""
    found: dict[str, list[Result]] = {}
    for unit, result in results:
        found.setdefault(unit["method"], []).append(result)
    return found


def queries_to_the_same(first: Result, second: Result) -> tuple[float, float]:
    """Queries until each run reaches the lower of the two highest accuracies, from one epoch on."""
    target = min(max(first["noisy"]), max(second["noisy"]))

    def reached(run: Result) -> float:
        pairs = zip(run["queries"], run["noisy"], strict=True)
        return max(run["queries"][1], next(q for q, accuracy in pairs if accuracy >= target))

    return reached(first), reached(second)
