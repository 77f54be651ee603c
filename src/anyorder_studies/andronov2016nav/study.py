"""NAV and trigonometric polynomials on real and simulated eclipsing binaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from anyorder_studies.andronov2016nav.lightcurves import Array, LightCurve, TwoDiscs
from anyorder_studies.andronov2016nav.system import Fit, NAVModel, best_trig_order
from anyorder_studies.study import (
    Claim,
    Measurement,
    Result,
    Results,
    Study,
    Unit,
    data_folder,
    exact,
    mean_interval,
    range_interval,
    ratio_interval,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DATA = "eclipsing_binary_light_curves"
REAL = ("asas_sn", "tess")
# Narrow: widths and depths of an Algol-type star; wide: stars that nearly touch; total: the #
# smaller star is fully eclipsed, and the minima have flat bottoms.
STARS = {
    "narrow": TwoDiscs(0.12, 0.10, 0.5, inclination=88.0, limb=0.6),
    "total": TwoDiscs(0.14, 0.10, 0.4),
    "wide": TwoDiscs(0.40, 0.35, 0.9, inclination=75.0, limb=0.6, ellipticity=0.12),
}
TRAIN_SHARE = 0.8
GRID = np.linspace(0.0, 1.0, 2000, endpoint=False)
ANDRONOV_2012 = "abstract of Andronov (2012), arXiv:1208.3655, which introduces the method"
REVIEW = "abstract of arXiv:1602.04179"


@final
class NavLightCurves(Study):
    """NAV describes the light curve of an eclipsing binary with few parameters.

    A light curve with narrow eclipses needs many harmonics, which oscillate (Gibbs phenomenon). NAV
    adds two localised dips to harmonics of order two: 11 parameters. It is compared here with the
    trigonometric polynomial whose order minimises the Bayesian information criterion: on two real
    Algol-type curves (ASAS-SN and TESS; random splits, 80 % to fit and 20 % held out), and on
    simulated pairs of discs (limb-darkened except for the total eclipse), where the true curve is
    known. The simulator is independent of NAV; each curve has 400 observations with noise of 0.01
    mag.

    There are two limitations. If the smaller star is fully hidden by the other and neither is
    limb-darkened, the minima have flat bottoms that the dips cannot represent, and the polynomial
    is at least as accurate (`error_ratio_total`). On the real curves, NAV does not predict held-out
    observations better than the polynomial; there it needs fewer parameters and is smoother.

    The shape of the dips, (1 - |z|^beta)^(3/2), is that of the method; 3/2 is the exponent of the
    overlap area of two discs near contact.
    """

    key: ClassVar[str] = "andronov2016nav"
    paper: ClassVar[int] = 131
    title: ClassVar[str] = "NAV: eclipses with eleven parameters"
    data: ClassVar[tuple[str, ...]] = (DATA,)
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            quantity="error_ratio_narrow",
            direction="higher",
            expected=1.5,
            threshold=1.0,
            tolerance=0.1,
            unit="x (polynomial over NAV)",
            source=f"{ANDRONOV_2012}: up to about 1.5-2 times more accurate",
            text="For narrow eclipses the NAV curve is closer to the truth than the trigonometric "
            "polynomial of optimal order (simulated stars).",
        ),
        Claim(
            quantity="parameter_ratio_asas_sn",
            direction="lower",
            expected=12 / 44,
            threshold=1.0,
            tolerance=0.1,
            unit="x (NAV over polynomial)",
            source=f"{REVIEW}: at most 12 parameters; abstract of arXiv:1510.00333: 44 are optimal "
            "for the polynomial on 2MASS J11080308-6145589",
            text="NAV needs a fraction of the parameters of the polynomial (real Algol-type star).",
            central=True,
        ),
        Claim(
            quantity="accuracy_ratio_asas_sn",
            direction="higher",
            expected=1.5,
            threshold=1.0,
            tolerance=0.1,
            unit="x (polynomial over NAV)",
            source=f"{ANDRONOV_2012}: up to about 1.5-2 times more accurate",
            text="The smoothing curve is statistically more accurate (real Algol-type star).",
        ),
        Claim(
            quantity="held_out_ratio_asas_sn",
            direction="higher",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (polynomial over NAV)",
            source="abstract of arXiv:1510.00333: the optimal polynomial is still worse than NAV",
            text="NAV predicts observations it has not seen better than the optimal polynomial "
            "does (real Algol-type star).",
        ),
        Claim(
            quantity="error_ratio_wide",
            direction="higher",
            expected=1.0,
            threshold=1.0,
            tolerance=0.0,
            unit="x (polynomial over NAV)",
            source=f"{REVIEW}: better even for EW-type stars with much wider eclipses",
            text="NAV is closer to the truth even for wide eclipses (simulated stars).",
        ),
    )
    headline: ClassVar[str] = (
        "far fewer parameters than a trigonometric polynomial of optimal order (abstract of "
        "arXiv:1602.04179: at most 12; abstract of arXiv:1510.00333: 44)"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"seeds": 2, "observations": 400, "noise": 0.01},
        "small": {"seeds": 20, "observations": 400, "noise": 0.01},
        "full": {
            "seeds": 20,
            "observations": 400,
            "noise": 0.01,
            "need": "the light curves that the paper itself fitted, and a survey's catalogue of "
            "classified binaries (thousands of curves, some core hours)",
        },
    }

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return one unit per curve and seed: a split of a real curve, or a simulated curve."""
        settings = self.settings(scale)
        for seed in range(settings["seeds"]):
            for name in REAL:
                yield {"curve": name, "seed": seed}
            for name in STARS:
                sizes = {key: settings[key] for key in ("observations", "noise")}
                yield {"curve": name, "seed": seed, **sizes}

    def run(self, unit: Unit) -> Result:
        """Fit both models to one curve and compare them."""
        if unit["curve"] in STARS:
            return _simulated(STARS[unit["curve"]], unit)
        curve = LightCurve.read(data_folder(DATA) / f"{unit['curve']}.csv")
        return _real(curve, unit["seed"])

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Ratios of polynomial to NAV, over splits of real curves and seeds of simulated ones.

        Splits of one curve overlap, so their interval is the central 95 % range. Simulated curves
        are independent, so they have a t interval of the logarithm.
        """
        found = {
            name: [result for unit, result in results if unit["curve"] == name]
            for name in (*REAL, *STARS)
        }
        measured: dict[str, Measurement] = {}
        for name in REAL:
            for key in ("accuracy", "held_out"):
                ratios = [r[f"{key}_trig"] / r[f"{key}_nav"] for r in found[name]]
                measured[f"{key}_ratio_{name}"] = range_interval(ratios)
            shares = [r["parameters_nav"] / r["parameters_trig"] for r in found[name]]
            measured[f"parameter_ratio_{name}"] = range_interval(shares)
            measured[f"half_width_{name}"] = range_interval([r["half_width"] for r in found[name]])
        for name, stars in STARS.items():
            measured[f"error_ratio_{name}"] = ratio_interval(
                [r["error_trig"] for r in found[name]], [r["error_nav"] for r in found[name]]
            )
            measured[f"half_width_{name}"] = mean_interval([r["half_width"] for r in found[name]])
            measured[f"true_half_width_{name}"] = exact(stars.half_width)
        for name, entries in found.items():
            orders = [(r["parameters_trig"] - 1) / 2 for r in entries]
            measured[f"trig_order_{name}"] = range_interval(orders)
        return measured

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Left: one real curve with both fits. Right: error ratios of the polynomial to NAV."""
        from anyorder_studies.andronov2016nav.picture import draw_fits

        shown = next(r for u, r in results if u["curve"] == REAL[0])
        return draw_fits(shown, measurements)


def _compare(curve: LightCurve) -> tuple[Fit, Fit, Result]:
    """Fit both models and return results that depend on the fits only."""
    nav, (_, trig) = NAVModel().fit(curve), best_trig_order(curve)
    return (
        nav,
        trig,
        {
            "parameters_nav": nav.m,
            "parameters_trig": trig.m,
            "accuracy_nav": nav.accuracy,
            "accuracy_trig": trig.accuracy,
            "half_width": nav.parameters["half_width"],
        },
    )


def _real(curve: LightCurve, seed: int) -> Result:
    """Fit a random part of a curve and predict the rest."""
    order = np.random.default_rng([seed, 131]).permutation(len(curve))
    cut = round(TRAIN_SHARE * len(curve))
    rest = curve.pick(np.sort(order[cut:]))
    nav, trig, result = _compare(curve.pick(np.sort(order[:cut])))
    for name, fit in (("nav", nav), ("trig", trig)):
        misses = (rest.magnitude - fit.predict(rest.phase)) / rest.error
        result[f"held_out_{name}"] = float(np.sqrt(np.mean(misses**2)))
    # Stored for every seed: the figure chooses one after all have finished.
    coarse = GRID[::4]
    result["phase"], result["magnitude"] = _rounded(rest.phase), _rounded(rest.magnitude)
    result["grid"] = _rounded(coarse)
    result["nav"], result["trig"] = (_rounded(fit.predict(coarse)) for fit in (nav, trig))
    return result


def _simulated(stars: TwoDiscs, unit: Unit) -> Result:
    """Fit a simulated curve and compare with the true one."""
    curve = stars.observe(unit["observations"], unit["noise"], unit["seed"])
    nav, trig, result = _compare(curve)
    truth = stars.magnitude(GRID)
    for name, fit in (("nav", nav), ("trig", trig)):
        result[f"error_{name}"] = float(np.sqrt(np.mean((fit.predict(GRID) - truth) ** 2)))
    return result


def _rounded(values: Array) -> list[float]:
    return np.round(values, 5).tolist()
