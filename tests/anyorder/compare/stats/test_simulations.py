"""What the referee promises, held against comparisons whose truth is known."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import example_results as example
import numpy as np
import pytest
from numpy.random import Generator, default_rng
from scipy import stats
from simulated import LAWS, Law, comparisons, separated

from anyorder.compare.stats.differences import (
    crossed_interval,
    error_of_look,
    paired_test,
    relabelling_test,
    units_needed,
)
from anyorder.compare.stats.estimators import MIN_UNITS, Floats, interval, iqm
from anyorder.compare.stats.verdicts import compare_pairs

DOCS = Path(__file__).parents[4] / "docs" / "compare.md"


def at_most(share: float, found: int, count: int) -> bool:
    """Whether ``found`` of ``count`` are no more than chance makes of a true ``share``."""
    return bool(stats.binomtest(found, count, share, alternative="greater").pvalue > 1e-3)


def at_least(share: float, found: int, count: int) -> bool:
    """Whether ``found`` of ``count`` are no fewer than chance makes of a true ``share``."""
    return bool(stats.binomtest(found, count, share, alternative="less").pvalue > 1e-3)


# --- A method against itself ---------------------------------------------------------------------


@pytest.mark.parametrize("law", ["normal", "lognormal", "Student, 2"])
@pytest.mark.parametrize(("tunings", "methods"), [(4, 2), (6, 3)])
def test_200_comparisons_of_a_method_with_itself(law: str, tunings: int, methods: int) -> None:
    values = comparisons(
        default_rng(tunings), LAWS[law], count=200, methods=methods, tunings=tunings, seeds=3
    )
    assert at_most(0.05, int(separated(values).any(axis=1).sum()), 200)


@pytest.mark.slow
@pytest.mark.parametrize("law", list(LAWS))
@pytest.mark.parametrize(("tunings", "methods", "trials"), [(4, 2, 4), (5, 3, 8), (8, 3, 16)])
def test_thousand_comparisons_of_a_method_with_itself(
    law: str, tunings: int, methods: int, trials: int
) -> None:
    values = comparisons(
        default_rng(trials), LAWS[law],
        count=1000, methods=methods, tunings=tunings, seeds=5, trials=trials,
    )  # fmt: skip
    assert separated(values).any(axis=1).mean() <= 0.05


def _five_looks(values: Floats, units: tuple[int, ...]) -> Floats:
    """Which comparisons separate a pair at any of five looks at growing data."""
    unit_axis = 3 if values.shape[2] == 1 else 2
    looks = [
        separated(values.take(range(n), axis=unit_axis), look).any(axis=1)
        for look, n in enumerate(units, start=1)
    ]
    return np.any(looks, axis=0)


def test_extending_five_times_stays_within_five_percent() -> None:
    """Looking again at 5 % each time would separate more than 10 %."""
    values = 1.0 + 0.05 * default_rng(2).normal(size=(300, 2, 1, 14))
    units = (8, 9, 10, 12, 14)
    apart = values[:, 0, 0] - values[:, 1, 0]
    naive = np.any([paired_test(apart[:, :n]) <= 0.05 for n in units], axis=0)
    assert naive.mean() > 0.08
    assert at_most(0.05, int(_five_looks(values, units).sum()), 300)


@pytest.mark.slow
@pytest.mark.parametrize("law", list(LAWS))
def test_extending_tunings_five_times_stays_within_five_percent(law: str) -> None:
    values = comparisons(default_rng(3), LAWS[law], count=1000, methods=2, tunings=8, seeds=3)
    assert _five_looks(values, (4, 5, 6, 7, 8)).mean() <= 0.05


# --- Intervals -----------------------------------------------------------------------------------


def _middle(law: Law) -> float:
    """Mean of the middle half of a law, from a million draws."""
    drawn = np.sort(law(default_rng(0), (1_000_000,)))
    return float(drawn[250_000:750_000].mean())


def _covered(law: Law, units: int, count: int) -> int:
    """How many intervals hold the middle of the law."""
    middle, found = _middle(law), 0
    for values in law(default_rng(units), (count, units)):
        ends = interval(values)
        assert ends is not None
        found += ends.low <= middle <= ends.high
    return found


@pytest.mark.parametrize("law", ["normal", "exponential", "Student, 2"])
def test_intervals_of_six_units_cover(law: str) -> None:
    assert at_least(0.93, _covered(LAWS[law], MIN_UNITS, 100), 100)


@pytest.mark.slow
@pytest.mark.parametrize("law", list(LAWS))
@pytest.mark.parametrize("units", [MIN_UNITS, 10, 20])
def test_intervals_cover_whatever_the_law(law: str, units: int) -> None:
    assert _covered(LAWS[law], units, 1000) / 1000 >= 0.93


@pytest.mark.parametrize("law", list(LAWS))
def test_five_units_cannot_cover_95_percent(law: str) -> None:
    """The reason why they have no interval: even their whole range is too narrow."""
    drawn = LAWS[law](default_rng(5), (100_000, MIN_UNITS - 1))
    middle = _middle(LAWS[law])
    assert ((drawn.min(1) <= middle) & (middle <= drawn.max(1))).mean() < 0.94


def _crossed(law: Law, rng: Generator, units: int, count: int) -> int:
    """How many intervals over units and rows hold the true difference, which is 0."""
    found = 0
    for _ in range(count):
        rows = 0.5 * rng.normal()  # these test rows favour one of the two
        apart = rows + law(rng, (units,)) - law(rng, (units,))
        ends = crossed_interval(apart, apart.mean() + 0.5 * rng.normal(size=200))
        found += ends.low <= 0 <= ends.high
    return found


@pytest.mark.parametrize("law", ["normal", "lognormal"])
@pytest.mark.parametrize("units", [4, 10])
def test_intervals_over_rows_and_units_cover(law: str, units: int) -> None:
    assert at_least(0.93, _crossed(LAWS[law], default_rng(6), units, 300), 300)


@pytest.mark.slow
@pytest.mark.parametrize("law", list(LAWS))
@pytest.mark.parametrize("units", [4, 6, 10, 20])
def test_intervals_over_rows_and_units_cover_whatever_the_law(law: str, units: int) -> None:
    assert _crossed(LAWS[law], default_rng(7), units, 2000) / 2000 >= 0.93


# --- Power ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("effect", [1.2, 2.0])
def test_the_advised_number_of_units_has_the_promised_power(paired: bool, effect: float) -> None:
    error = error_of_look(1)
    units = units_needed(effect, 1, error, paired=paired)
    assert units is not None
    a, b = default_rng(8).normal(size=(2, 300, units))
    p = paired_test(a + effect) if paired else relabelling_test(a + effect, b)
    assert 0.72 <= (p <= error).mean() <= 0.92


def _power(
    methods: int, tunings: int, seeds: int, spread: tuple[float, float], count: int = 1000
) -> float:
    """Share of comparisons in which a 10 % lower loss is separated from the next method's.

    Args:
        methods: how many take part.
        tunings: per method.
        seeds: per tuning.
        spread: standard deviation between tunings and between seeds, in losses.
        count: number of comparisons.
    """
    rng = default_rng([methods, tunings, seeds])
    values = 1 + spread[0] * rng.normal(size=(count, methods, tunings, 1))
    values = values + spread[1] * rng.normal(size=(count, methods, tunings, seeds))
    values[:, 0] *= 0.9
    return float(separated(values)[:, 0].mean())


def _documented() -> list[list[str]]:
    """Rows of the table of power in the documentation."""
    text = DOCS.read_text(encoding="utf-8").split("<!-- power -->")[1]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_power_in_the_documentation_is_what_is_simulated() -> None:
    methods, tunings, seeds, *powers = _documented()[0]
    found = _power(int(methods), int(tunings), int(seeds), (0.05, 0.05))
    assert powers[0] == f"{found:.0%}".replace("%", " %")


@pytest.mark.slow
def test_all_power_in_the_documentation_is_what_is_simulated() -> None:
    rows = _documented()
    assert len(rows) >= 8
    for methods, tunings, seeds, *powers in rows:
        case = int(methods), int(tunings), int(seeds)
        found = [_power(*case, spread) for spread in ((0.05, 0.05), (0.1, 0.05))]
        assert powers == [f"{each:.0%}".replace("%", " %") for each in found]


def test_the_middle_of_a_law_is_what_the_estimate_goes_to() -> None:
    law = LAWS["lognormal"]
    assert iqm(law(default_rng(9), (100_000,))) == pytest.approx(_middle(law), abs=0.01)


# --- Inclusion -----------------------------------------------------------------------------------


@pytest.fixture
def frozen() -> Iterator[None]:
    """Every run collects garbage first: exclude old objects from it, as workers do."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.slow
@pytest.mark.usefixtures("frozen")
def test_a_special_case_is_not_better_than_its_generalisation() -> None:
    """Adam with a large ``eps`` is SGD with momentum (Choi et al., 2019).

    So with enough tuning of ``eps`` it must not be called worse; without, it is.
    """
    found = example.measured(
        ["momentum=sgd", "adam=adamw", "narrow=adamw"],
        sets=[
            "momentum.momentum=0.9", "adam.weight_decay=0", "narrow.weight_decay=0",
            "narrow.eps=1e4",
        ],
        spaces=[
            "momentum.lr=log:1e-3..10", "adam.lr=log:1e-4..1e4", "adam.eps=log:1e-8..1e4",
            "narrow.lr=log:1e-4..1",
        ],
        budget="60grads", tune=16, tunings=5, seeds=1, evaluations=4,
    )  # fmt: skip
    verdicts = {(pair.a, pair.b): pair.verdict for pair in compare_pairs(found)}
    assert verdicts["momentum", "adam"] in ("not separable", "worse")
    assert verdicts["momentum", "narrow"] == "better"
    assert verdicts["adam", "narrow"] == "better"
