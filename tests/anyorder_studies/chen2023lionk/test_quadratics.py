"""Quadratics and their optima within balls, by conditions that only an optimum meets."""

from __future__ import annotations

import numpy as np
import pytest

from anyorder_studies.chen2023lionk.quadratics import (
    BALLS,
    CONDITION,
    constrained_optimum,
    projected,
    random_quadratic,
)

RADIUS = 2.0


def size(ball: str, x: np.ndarray) -> float:
    return {
        "l1": float(np.abs(x).max()),
        "l2": float(np.linalg.norm(x)),
        "group": float(np.linalg.norm(x, axis=1).max()),
        "spectral": float(np.linalg.norm(x, 2)),
    }[ball]


def test_quadratics_are_what_they_say() -> None:
    problem = random_quadratic(3, RADIUS)
    curvatures = np.linalg.eigvalsh(problem.metric)
    assert curvatures.max() == pytest.approx(1.0)
    assert curvatures.max() / curvatures.min() == pytest.approx(CONDITION)
    step = np.random.default_rng(0).normal(size=problem.target.shape)

    def value(x: np.ndarray) -> float:
        away = (x - problem.target).ravel()
        return float(away @ problem.metric @ away) / 2

    slope = (value(problem.start + 1e-5 * step) - value(problem.start - 1e-5 * step)) / 2e-5
    assert float((problem.slope(problem.start) * step).sum()) == pytest.approx(slope, rel=1e-7)
    assert not np.array_equal(problem.target, random_quadratic(4, RADIUS).target)
    for seed in range(20):
        for ball in BALLS:
            assert size(ball, random_quadratic(seed, RADIUS).target) > RADIUS
            assert size(ball, random_quadratic(seed, RADIUS).start) > RADIUS


@pytest.mark.parametrize("ball", BALLS)
def test_projections_are_the_nearest_points(ball: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 5)) * 5
    nearest = projected(ball, x, RADIUS)
    assert size(ball, nearest) == pytest.approx(RADIUS)
    np.testing.assert_allclose(projected(ball, nearest, RADIUS), nearest)
    np.testing.assert_allclose(projected(ball, nearest / 2, RADIUS), nearest / 2)
    for _ in range(200):  # the angle to every other point of the ball is obtuse
        other = projected(ball, rng.normal(size=(6, 5)) * 3, RADIUS)
        assert ((x - nearest) * (other - nearest)).sum() <= 1e-9


@pytest.mark.parametrize("ball", BALLS)
def test_at_the_optimum_no_point_of_the_ball_lies_downhill(ball: str) -> None:
    problem = random_quadratic(0, RADIUS)
    best = constrained_optimum(ball, problem, RADIUS)
    assert size(ball, best) <= RADIUS * (1 + 1e-12)
    slope = problem.slope(best)
    # The lowest value of the slope within the ball is minus the radius times the dual norm.
    dual = {
        "l1": np.abs(slope).sum(),
        "l2": np.linalg.norm(slope),
        "group": np.linalg.norm(slope, axis=1).sum(),
        "spectral": np.linalg.norm(slope, "nuc"),
    }[ball]
    assert float((slope * best).sum()) == pytest.approx(-RADIUS * float(dual), rel=1e-9)
