"""The study's measurements follow from its results, whichever way they point."""

from __future__ import annotations

from typing import Any

import pytest

from anyorder_studies.study import Verdict, judge
from anyorder_studies.vinyals2015ordermatters.study import (
    SORT_ARMS,
    STAR_ARMS,
    OrderMattersStudy,
)


def results(
    gap: float, process: float, encoder: float, search: float
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Made-up results with the given differences and a little spread over seeds."""
    excess = {
        ("head first", "few"): 1.0,
        ("head last", "few"): 1.0 + gap,
        ("head first", "many"): 0.2,
        ("head last", "many"): 0.2,
        ("random", "many"): 0.8,
        ("searched", "many"): 0.8 - search,
    }
    one = 80.0
    accuracy = {
        "LSTM in given order": one - encoder,
        "set, 0 steps": one - process,
        "set, 1 step": one,
        "set, 5 steps": one + 1.0,
    }
    made = []
    for seed in range(5):
        wobble = 0.01 * (seed - 2)
        for arm, data in STAR_ARMS:
            unit = {"task": "star", "seed": seed, "arm": arm, "data": data}
            jitter = wobble if arm in ("head last", "searched") else 0.0
            made.append((unit, {"excess": excess[arm, data] + jitter, "head_first": 0.5}))
        for arm in SORT_ARMS:
            jitter = wobble if arm == "set, 1 step" else 0.0
            unit = {"task": "sort", "seed": seed, "arm": arm}
            made.append((unit, {"accuracy": accuracy[arm] + jitter}))
    return made


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        ((0.3, 10.0, 5.0, 0.3), Verdict.REPRODUCED),
        ((0.3, 10.0, 0.0, 0.3), Verdict.PARTLY),
        ((0.3, 10.0, 5.0, -0.3), Verdict.PARTLY),
        ((0.05, 10.0, 5.0, 0.3), Verdict.PARTLY),
        ((0.0, 10.0, 5.0, 0.3), Verdict.NOT_AT_THIS_SCALE),
        ((-0.3, 10.0, 5.0, 0.3), Verdict.REFUTED),
    ],
)
def test_verdict_follows_the_differences(numbers: tuple[float, ...], verdict: Verdict):
    measured = OrderMattersStudy().measure(results(*numbers))
    for name, number in zip(
        ("order_gap_few", "process_gain", "set_gain", "search_gain"), numbers, strict=True
    ):
        assert measured[name].value == pytest.approx(number, abs=1e-9)
    assert judge(OrderMattersStudy.claims, measured) is verdict


@pytest.mark.parametrize("index", [0, 1, 4, 5, 6, 8])
def test_a_unit_is_deterministic(index: int):
    study = OrderMattersStudy(seeds=1)
    unit = {**list(study.runs("smoke"))[index], "steps": 4}
    one = study.run(unit)
    assert one == study.run(unit)
    assert all(value >= 0.0 for value in one.values())


def test_training_brings_the_loss_towards_the_entropy():
    study = OrderMattersStudy(seeds=1)
    unit = {**next(iter(study.runs("smoke"))), "size": 2000}
    short, longer = (study.run({**unit, "steps": steps})["excess"] for steps in (4, 80))
    assert 0.0 < longer < 0.7 * short
