"""The bridge to scipy.optimize.minimize: all it passes through, all it gives back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from scipy import optimize

from anyorder.integrations.scipy import method
from anyorder.minimize import MinimizeError, minimize


def bowl(x: np.ndarray, centre: float = 1.0) -> float:
    return float(((x - centre) ** 2).sum())


def slope(x: np.ndarray, centre: float = 1.0) -> np.ndarray:
    return 2 * (x - centre)


def test_finds_what_minimize_finds() -> None:
    theirs = optimize.minimize(bowl, np.zeros(3), method=method("mezo", lr=0.1, budget="301values"))
    ours = minimize(bowl, np.zeros(3), method="mezo", lr=0.1, budget="301values")
    assert isinstance(theirs, optimize.OptimizeResult)
    assert np.array_equal(theirs.x, ours.x) and theirs.fun == ours.fun < 1e-6
    assert theirs.success and theirs.status == 0 and theirs.message == ours.message
    assert (theirs.nit, theirs.nfev, theirs.njev) == (150, 301, 0)
    assert theirs.calls.values == 301


@pytest.mark.parametrize("name", ["sgd", "rank_sgd", "mezo"])
def test_evaluations_are_those_that_were_run(name: str) -> None:
    runs = slopes = 0

    def fun(x: np.ndarray) -> float:
        nonlocal runs
        runs += 1
        return bowl(x)

    def jac(x: np.ndarray) -> np.ndarray:
        nonlocal slopes
        slopes += 1
        return slope(x)

    given = jac if name == "sgd" else None
    found = optimize.minimize(fun, np.zeros(2), jac=given, method=method(name, budget="80forwards"))
    assert found.nfev == runs and found.njev == slopes
    assert found.nit > 0 and runs <= 80


def test_a_ranker_leaves_the_function_alone() -> None:
    def ranker(points: list[np.ndarray]) -> list[int]:
        return np.argsort([bowl(p) for p in points]).tolist()

    def never(x: np.ndarray) -> float:
        raise AssertionError("the ranker answers")

    rule = method("rank_sgd", lr=1.0, ranker=ranker, budget="40rankings")
    found = optimize.minimize(never, np.zeros(2), method=rule)
    assert (found.nfev, found.njev) == (0, 0) and bowl(found.x) < 0.1


def test_gradients_from_a_function_or_beside_the_value() -> None:
    rule = method("sgd", lr=0.2, budget="40grads")
    alone = optimize.minimize(bowl, np.zeros(2), jac=slope, method=rule)
    beside = optimize.minimize(lambda x: (bowl(x), slope(x)), np.zeros(2), jac=True, method=rule)
    np.testing.assert_allclose(alone.x, 1.0, atol=1e-6)
    assert np.array_equal(alone.x, beside.x)
    with pytest.raises(MinimizeError, match="jac="):
        optimize.minimize(bowl, np.zeros(2), method=rule)


def test_args_and_options_are_passed_on() -> None:
    rule = method("mezo", lr=1e-9, budget="10values")
    options = {"lr": 0.1, "budget": "301values"}
    found = optimize.minimize(bowl, np.zeros(2), args=(4.0,), method=rule, options=options)
    np.testing.assert_allclose(found.x, 4.0, atol=1e-3)
    with pytest.raises(TypeError, match="lrr"):
        optimize.minimize(bowl, np.zeros(2), method=rule, options={"lrr": 0.1})


def test_tol_means_the_same_as_here() -> None:
    rule = method("sgd", lr=0.2)
    found = optimize.minimize(bowl, np.zeros(2), jac=slope, method=rule, tol=1e-6)
    assert found.status == 0 and found.success and "10 steps in a row" in found.message


@pytest.mark.parametrize("kind", ["answer", "exception", "named"])
def test_callbacks_of_every_kind_stop_a_run(kind: str) -> None:
    seen: list[np.ndarray] = []

    def answer(x: np.ndarray) -> bool:
        seen.append(x)
        return len(seen) == 3

    def exception(xk: np.ndarray) -> None:
        if answer(xk):
            raise StopIteration

    def named(intermediate_result: Any) -> None:
        exception(intermediate_result.x)

    chosen = {"answer": answer, "exception": exception, "named": named}[kind]
    found = optimize.minimize(bowl, np.zeros(2), method=method("mezo", lr=0.1), callback=chosen)
    assert len(seen) == found.nit == 3
    assert found.status == 1 and found.success and "callback" in found.message
    assert np.array_equal(seen[-1], found.x)


def test_divergence_is_no_success() -> None:
    def cliff(x: np.ndarray) -> float:
        return float("nan") if x[0] > 0.5 else float(-x.sum())

    found = optimize.minimize(cliff, np.zeros(2), method=method("mezo", lr=0.3, eps=0.1))
    assert found.status == 2 and not found.success


@pytest.mark.parametrize(
    "extra",
    [
        {"bounds": [(0, 1), (0, 1)]},
        {"constraints": [{"type": "eq", "fun": lambda x: x.sum()}]},
        {"hess": lambda x: np.eye(2)},
        {"hessp": lambda x, p: p},
    ],
    ids=lambda e: next(iter(e)),
)
def test_what_no_method_takes_is_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="mezo: .* remove them"):
        optimize.minimize(bowl, np.zeros(2), method=method("mezo"), **extra)


def test_unknown_methods_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="'mezo'"):
        optimize.minimize(bowl, np.zeros(2), method=method("meso"))
