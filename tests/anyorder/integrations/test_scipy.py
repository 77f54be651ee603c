"""The bridge to scipy.optimize.minimize: all it passes through, all it gives back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from scipy import optimize

from anyorder.integrations.scipy import method
from anyorder.minimize import minimize
from anyorder.oracle.ledger import Budget
from anyorder.plain_function import MinimizeError


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


@pytest.mark.parametrize("name", ["mezo", "rank_sgd"])
def test_a_gradient_beside_the_value_is_no_fault_where_none_is_asked(name: str) -> None:
    rule = method(name, lr=0.1, budget="400forwards")
    beside = optimize.minimize(lambda x: (bowl(x), slope(x)), np.zeros(2), jac=True, method=rule)
    alone = optimize.minimize(bowl, np.zeros(2), method=rule)
    assert np.array_equal(beside.x, alone.x) and beside.fun == alone.fun
    with pytest.raises(MinimizeError, match="jac: .* uses no gradient"):
        optimize.minimize(bowl, np.zeros(2), jac=slope, method=rule)


def test_a_gradient_that_is_a_method_of_the_function_is_not_taken_for_scipys() -> None:
    class Objective:
        def __call__(self, x: np.ndarray) -> float:
            return bowl(x)

        def derivative(self, x: np.ndarray) -> np.ndarray:
            return slope(x)

    own = Objective()
    found = optimize.minimize(own, np.zeros(2), jac=own.derivative, method=method("sgd", lr=0.2))
    np.testing.assert_allclose(found.x, 1.0, atol=1e-6)


@pytest.mark.parametrize("maxiter", [1, 5, 5.0, np.int64(5), 700])
@pytest.mark.parametrize("name", ["mezo", "sgd"])
def test_maxiter_is_the_number_of_steps(name: str, maxiter: Any) -> None:
    """Also where it is more than the usual budget allows."""
    jac = slope if name == "sgd" else None
    found = optimize.minimize(
        bowl, np.zeros(2), jac=jac, method=method(name), options={"maxiter": maxiter}
    )
    assert found.nit == maxiter and "steps" in found.message and found.success


@pytest.mark.parametrize(
    ("budget", "steps"),
    [("21values", 5), ("9values", 4), (Budget(steps=3), 3), ("8steps,100values", 5), (None, 5)],
)
def test_maxiter_and_budget_hold_together(budget: Any, steps: int) -> None:
    rule = method("mezo", maxiter=5) if budget is None else method("mezo", maxiter=5, budget=budget)
    assert optimize.minimize(bowl, np.zeros(2), method=rule).nit == steps


@pytest.mark.parametrize("maxiter", [0, -1, 2.5, "5", True, float("nan"), float("inf"), [5]])
def test_maxiter_is_a_whole_number(maxiter: Any) -> None:
    with pytest.raises(MinimizeError, match="maxiter: expected"):
        optimize.minimize(bowl, np.zeros(2), method=method("mezo"), options={"maxiter": maxiter})


def test_maxiter_of_none_is_none_given() -> None:
    found = optimize.minimize(bowl, np.zeros(2), method=method("mezo"), options={"maxiter": None})
    assert found.calls.values == 999


@pytest.mark.parametrize("disp", [True, 1, False, 0])
def test_disp_writes_how_the_run_ended(disp: Any, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"maxiter": 3, "disp": disp}
    found = optimize.minimize(bowl, np.ones(2), method=method("mezo"), options=options)
    written = capsys.readouterr().out
    assert (found.message in written and "3 steps" in written) if disp else not written
    with pytest.raises(MinimizeError, match="disp: expected"):
        optimize.minimize(bowl, np.ones(2), method=method("mezo"), options={"disp": "no"})


@pytest.mark.parametrize("args", [4.0, (4.0,)])
def test_args_need_not_be_a_tuple(args: Any) -> None:
    found = optimize.minimize(bowl, np.zeros(2), args=args, method=method("mezo", lr=0.1))
    np.testing.assert_allclose(found.x, 4.0, atol=1e-3)
    straight = method("mezo", lr=0.1)(bowl, np.zeros(2), args)
    np.testing.assert_allclose(straight.x, 4.0, atol=1e-3)


@pytest.mark.parametrize("budget", [500, "100grads"])
def test_budgets_that_never_end_a_run_are_refused(budget: Any) -> None:
    for options in ({}, {"maxiter": 5}):
        with pytest.raises(MinimizeError, match="budget: "):
            rule = method("mezo", budget=budget)
            optimize.minimize(bowl, np.zeros(2), method=rule, options=options)


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
    assert bowl(found.x) == found.fun <= bowl(seen[-1])


@pytest.mark.parametrize("name", ["sgd", "mezo", "rank_sgd"])
def test_intermediate_results_hold_a_point_and_its_value(name: str) -> None:
    seen: list[Any] = []

    def callback(intermediate_result: Any) -> None:
        seen.append(intermediate_result)

    jac = slope if name == "sgd" else None
    found = optimize.minimize(
        bowl, np.zeros(2), jac=jac, method=method(name), callback=callback, options={"maxiter": 9}
    )
    assert [s.nit for s in seen] == list(range(1, 10))
    assert all(isinstance(s, optimize.OptimizeResult) and s.fun == bowl(s.x) for s in seen)
    assert found.fun <= min(s.fun for s in seen)
    assert len({s.x.ctypes.data for s in seen}) == 9  # copies


def test_callbacks_without_a_signature_get_the_point() -> None:
    seen: list[Any] = []
    rule = method("mezo", maxiter=3)
    optimize.minimize(bowl, np.zeros(2), method=rule, callback=seen.append)
    assert [s.shape for s in seen] == [(2,)] * 3


def test_divergence_is_no_success() -> None:
    def cliff(x: np.ndarray) -> float:
        return float("nan") if x[0] > 0.5 else float(-x.sum())

    found = optimize.minimize(cliff, np.zeros(2), method=method("mezo", lr=0.3, eps=0.1))
    assert found.status == 2 and not found.success and np.isfinite(found.fun)
    rule = method("sgd", lr=3.0, budget="20grads")
    found = optimize.minimize(bowl, np.zeros(2), jac=slope, method=rule)
    assert found.status == 2 and not found.success and found.fun == 2.0


@pytest.mark.parametrize(
    "extra",
    [
        {"bounds": [(0, 1), (0, 1)]},
        {"bounds": [(None, None), (None, 1)]},
        {"bounds": optimize.Bounds([0, -np.inf], [np.inf, np.inf])},
        {"constraints": optimize.LinearConstraint(np.eye(2), 0, 1)},
        {"constraints": [{"type": "eq", "fun": lambda x: x.sum()}]},
        {"hess": lambda x: np.eye(2)},
        {"hessp": lambda x, p: p},
    ],
    ids=lambda e: next(iter(e)),
)
def test_what_no_method_takes_is_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="mezo: .* remove them"):
        optimize.minimize(bowl, np.zeros(2), method=method("mezo"), **extra)


@pytest.mark.parametrize(
    "bounds",
    [
        [(None, None), (None, None)],
        [(-np.inf, np.inf), (None, np.inf)],
        np.array([[-np.inf, np.inf]] * 2),
        optimize.Bounds(),
        optimize.Bounds([-np.inf] * 2, [np.inf] * 2),
    ],
    ids=str,
)
def test_bounds_that_bound_nothing_are_no_fault(bounds: Any) -> None:
    rule = method("mezo", lr=0.1)
    wanted: dict[str, Any] = {"method": rule, "options": {"maxiter": 30}}
    free = optimize.minimize(bowl, np.zeros(2), **wanted)
    found = optimize.minimize(bowl, np.zeros(2), bounds=bounds, constraints=[], **wanted)
    assert np.array_equal(found.x, free.x)


@pytest.mark.parametrize("option", ["gtol", "maxfev", "return_all", "maxitr"])
def test_options_of_other_methods_are_named(option: str) -> None:
    with pytest.raises(TypeError, match=f"no option '{option}'.* Known options: .*lr"):
        optimize.minimize(bowl, np.zeros(2), method=method("mezo"), options={option: 1})


def test_unknown_methods_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="'mezo'"):
        optimize.minimize(bowl, np.zeros(2), method=method("meso"))
