"""minimize: every kind of start and derivative, its ends, its budget, the best point, errors."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anyorder import methods
from anyorder.methods import UnknownMethodError
from anyorder.minimize import PATIENCE, SKIPS, minimize
from anyorder.oracle.ledger import Budget
from anyorder.plain_function import MinimizeError

# The point is a vector, which methods for matrices say they leave to AdamW.
pytestmark = pytest.mark.filterwarnings("ignore::anyorder.model.roles.RoleWarning")

TARGET = np.array([1.0, -2.0, 0.5])


def bowl(x: Any) -> Any:
    """A bowl around TARGET with the value 3 at its bottom, for arrays and tensors."""
    target = torch.as_tensor(TARGET, dtype=x.dtype) if isinstance(x, Tensor) else TARGET
    return ((x - target) ** 2).sum() + 3.0


def slope(x: np.ndarray) -> np.ndarray:
    return 2 * (x - TARGET)


class Counted:
    """A function that counts and remembers where it was asked."""

    def __init__(self, fun: Callable[..., Any] = bowl) -> None:
        self.fun, self.points = fun, []

    def __call__(self, x: Any, *args: Any) -> Any:
        self.points.append(x.detach().numpy().copy() if isinstance(x, Tensor) else x.copy())
        return self.fun(x, *args)

    @property
    def runs(self) -> int:
        return len(self.points)


#: Settings under which each method gets to the bottom of the bowl.
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1},
    "adamw": {"lr": 0.1, "weight_decay": 0.0},
    "lion": {"lr": 0.02},
    "adahessian": {"lr": 0.3},
    "mezo": {"lr": 0.1},
    "rank_sgd": {"lr": 1.0, "mu": 0.01},
    "accelerated": {},
    "adagrad": {"lr": 1.0},
    "adagrad_norm": {"lr": 1.0},
    "deepzero": {"lr": 0.05, "density": 1.0},
    "exadam": {"lr": 0.05},
    "lion_k": {"lr": 0.02},
    "muon": {"adamw_lr": 0.1, "roles": "shape"},
    "scale": {"adamw_lr": 0.1, "roles": "shape"},
    "schedule_free_adamw": {"lr": 0.3},
    "zeroth_order": {"lr": 0.1},
    "sparse_mezo": {"lr": 0.1, "sparsity": 0.0},
    "zo_adam": {"lr": 0.1},
    "zo_block": {"lr": 0.1},
    "zo_conservative": {"lr": 0.1},
    "zo_hybrid": {"lr": 0.1},
    "zo_momentum": {"lr": 0.02, "momentum": 0.5},
    "zo_sign": {"lr": 0.03},
    "forward_gradient": {"lr": 0.1},
}
#: Methods that need the function in two parts.
IN_PARTS = {"sso"}


def enough(name: str) -> str:
    """A budget with which the method gets there; steps of one length take longer."""
    return "600forwards" if name.startswith(("lion", "zo_sign")) else "300forwards"


# Every kind of start ---------------------------------------------------------------------------


def test_settings_cover_every_method() -> None:
    assert set(SETTINGS) | IN_PARTS == set(methods.names())


@pytest.mark.parametrize("name", IN_PARTS)
def test_methods_of_functions_in_two_parts_say_so(name: str) -> None:
    with pytest.raises(MinimizeError, match="Composite"):
        minimize(bowl, torch.zeros(3), method=name)


@pytest.mark.parametrize("name", SETTINGS)
def test_tensor_start_is_differentiated(name: str) -> None:
    start = torch.zeros(3, dtype=torch.float64)
    found = minimize(bowl, start, method=name, budget=enough(name), **SETTINGS[name])
    assert isinstance(found.x, Tensor) and found.x.dtype == torch.float64
    assert not found.x.requires_grad
    np.testing.assert_allclose(found.x.numpy(), TARGET, atol=0.1)
    assert found.fun == pytest.approx(float(bowl(found.x)), rel=1e-12)
    assert found.success and found.status == "budget" and found.nit > 5
    assert bool((start == 0).all())


@pytest.mark.parametrize("name", SETTINGS)
def test_array_start_with_the_derivatives_the_method_needs(name: str) -> None:
    start = np.zeros(3)
    needs = methods.get(name).needs
    if "jvp" in needs:
        with pytest.raises(MinimizeError, match="forward mode; start from a tensor"):
            minimize(bowl, start, method=name, budget="10jvps")
        return
    extra: dict[str, Any] = {"jac": slope} if "grad" in needs else {}
    if "hessian" in needs:
        extra["products"] = "finite"
    found = minimize(bowl, start, method=name, budget=enough(name), **SETTINGS[name], **extra)
    assert isinstance(found.x, np.ndarray) and found.x.shape == (3,)
    np.testing.assert_allclose(found.x, TARGET, atol=0.1)
    assert found.fun == pytest.approx(float(bowl(found.x)), rel=1e-12)
    assert not start.any()


@pytest.mark.parametrize(
    "start",
    [
        [0.0, 0.0, 0.0],
        (0, 0, 0),
        np.zeros(3, dtype=int),
        np.zeros(3, dtype=np.float32),
        torch.zeros(3),
        torch.zeros(3, dtype=torch.float64, requires_grad=True),
    ],
    ids=["list", "tuple", "whole", "float32", "tensor", "requires grad"],
)
def test_starts_of_every_kind(start: Any) -> None:
    found = minimize(bowl, start, method="mezo", lr=0.1, budget="400values")
    np.testing.assert_allclose(np.asarray(found.x), TARGET, atol=1e-3)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 2)])
def test_any_shape_comes_back(shape: tuple[int, ...]) -> None:
    seen: set[tuple[int, ...]] = set()

    def fun(x: np.ndarray) -> float:
        seen.add(x.shape)
        return float(((x - 1) ** 2).sum())

    found = minimize(fun, np.zeros(shape), method="mezo", lr=0.05, budget="400values")
    assert found.x.shape == shape and seen == {shape}
    np.testing.assert_allclose(found.x, 1.0, atol=1e-2)


def test_arguments_reach_function_and_gradient() -> None:
    def fun(x: np.ndarray, centre: float, power: int) -> float:
        return float(((x - centre) ** power).sum())

    def jac(x: np.ndarray, centre: float, power: int) -> np.ndarray:
        return power * (x - centre) ** (power - 1)

    found = minimize(fun, np.zeros(2), (4.0, 2), method="sgd", jac=jac, lr=0.2, budget="60grads")
    np.testing.assert_allclose(found.x, 4.0, atol=1e-6)


def test_jac_of_a_tensor_takes_the_place_of_autograd() -> None:
    asked: list[Tensor] = []

    def jac(x: Tensor) -> Tensor:
        asked.append(x)
        return 2 * (x - torch.as_tensor(TARGET))

    def fun(x: Tensor) -> float:
        return bowl(x).item()  # no graph

    found = minimize(fun, torch.zeros(3).double(), method="sgd", jac=jac, lr=0.1, budget="80grads")
    np.testing.assert_allclose(found.x.numpy(), TARGET, atol=1e-3)
    assert len(asked) == 80


def test_a_scaled_loss_scales_the_gradient_of_jac() -> None:
    """A power of two comes off again without a trace."""
    runs: list[Tensor] = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=8.0)):
        start = torch.zeros(3)
        jac = lambda x: 2 * (x - torch.as_tensor(TARGET).float())  # noqa: E731
        found = minimize(bowl, start, method="sgd", jac=jac, lr=0.1, budget="9grads", scaler=scaler)
        runs.append(found.x)
    assert torch.equal(runs[0], runs[1]) and bool(runs[0].any())


@pytest.mark.parametrize("answer", [list, np.ndarray.tolist, torch.tensor])
def test_gradients_may_be_anything_of_the_right_shape(answer: Callable[..., Any]) -> None:
    jac = lambda x: answer(slope(x))  # noqa: E731
    found = minimize(bowl, np.zeros(3), method="sgd", jac=jac, lr=0.1, budget="60grads")
    np.testing.assert_allclose(found.x, TARGET, atol=1e-3)


@pytest.mark.parametrize("number", [float, np.float32, np.asarray, lambda v: [v], torch.tensor])
def test_functions_may_return_any_one_number(number: Callable[..., Any]) -> None:
    found = minimize(lambda x: number(bowl(x)), np.zeros(3), lr=0.1, budget="300values")
    np.testing.assert_allclose(found.x, TARGET, atol=1e-3)


def test_function_may_spoil_the_array_it_is_given() -> None:
    def fun(x: np.ndarray) -> float:
        value = float(bowl(x))
        x[:] = 1e9
        return value

    found = minimize(fun, np.zeros(3), lr=0.1, budget="300values")
    np.testing.assert_allclose(found.x, TARGET, atol=1e-3)


@pytest.mark.parametrize("name", SETTINGS)
def test_function_may_spoil_the_tensor_it_is_given(name: str) -> None:
    """What it is given is a copy, so that f(result.x) is result.fun."""

    def spoiling(x: Tensor) -> Tensor:
        return (x.sub_(torch.as_tensor(TARGET)) ** 2).sum() + 3.0

    start, settings = torch.zeros(3).double(), SETTINGS[name]
    found = minimize(spoiling, start, method=name, budget="90forwards", **settings)
    plain = minimize(bowl, start, method=name, budget="90forwards", **settings)
    assert torch.equal(found.x, plain.x) and found.fun == plain.fun
    assert float(spoiling(found.x.clone())) == found.fun and not start.any()


def test_gradient_may_spoil_the_tensor_it_is_given() -> None:
    def jac(x: Tensor) -> Tensor:
        return x.sub_(torch.as_tensor(TARGET)).mul_(2)

    found = minimize(bowl, torch.zeros(3).double(), method="sgd", jac=jac, lr=0.1)
    np.testing.assert_allclose(found.x.numpy(), TARGET, atol=1e-6)


def test_the_result_is_nobody_elses() -> None:
    start = torch.zeros(3)
    kept: list[Tensor] = []
    found = minimize(lambda x: kept.append(x) or bowl(x), start, lr=0.0, budget="5values")
    assert all(found.x.data_ptr() != x.data_ptr() for x in [start, *kept])


@pytest.mark.parametrize("name", ["mezo", "rank_sgd"])
def test_tensors_may_give_numbers_where_no_gradient_is_asked(name: str) -> None:
    settings = SETTINGS[name]
    found = minimize(
        lambda x: bowl(x).item(), torch.zeros(3), method=name, budget=enough(name), **settings
    )
    np.testing.assert_allclose(found.x.numpy(), TARGET, atol=0.05)
    assert isinstance(found.fun, float)


@pytest.mark.parametrize("start", [np.zeros(3), torch.zeros(3).double()], ids=["array", "tensor"])
@pytest.mark.parametrize("name", ["sgd", "adahessian", "mezo", "rank_sgd"])
def test_value_and_gradient_may_come_together(name: str, start: Any) -> None:
    def both(x: Any) -> tuple[Any, Any]:
        return bowl(x), 2 * (x - (torch.as_tensor(TARGET) if isinstance(x, Tensor) else TARGET))

    extra = {"products": "finite"} if name == "adahessian" else {}
    fun, settings = Counted(both), {**SETTINGS[name], **extra}
    found = minimize(fun, start, method=name, jac=True, budget=enough(name), **settings)
    np.testing.assert_allclose(np.asarray(found.x), TARGET, atol=0.1)
    calls = found.calls
    assert fun.runs == calls.values + calls.grads + calls.jvps + calls.ranked


def test_an_argument_that_is_no_tuple_is_one_argument() -> None:
    found = minimize(lambda x, a: ((x - a) ** 2).sum(), np.zeros(2), 2.0, lr=0.1)
    np.testing.assert_allclose(found.x, 2.0, atol=1e-3)


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


WORLDS: list[Callable[[], Any]] = [
    torch.inference_mode,
    torch.no_grad,
    default_dtype,
    default_device,
    lambda: torch.device("meta"),
]


@pytest.mark.parametrize("kind", ["array", "float32", "float64"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_of_torch_change_nothing(name: str, kind: str) -> None:
    needs, settings = methods.get(name).needs, dict(SETTINGS[name])
    if kind == "array" and "jvp" in needs:
        pytest.skip("forward mode differentiates functions of tensors")
    start = np.zeros(3) if kind == "array" else torch.zeros(3, dtype=getattr(torch, kind))
    target = TARGET if kind == "array" else torch.tensor(TARGET, dtype=start.dtype)
    if kind == "array" and needs & {"grad"}:
        settings["jac"] = slope
    if kind == "array" and "hessian" in needs:
        settings["products"] = "finite"

    def run() -> Any:
        return minimize(
            lambda x: ((x - target) ** 2).sum() * 3.0,
            start,
            method=name,
            budget="60forwards",
            **settings,
        )

    plain = run()
    for world in WORLDS:
        with world():
            found = run()
        assert np.array_equal(np.asarray(found.x), np.asarray(plain.x)) and found.fun == plain.fun
        assert found.calls.forwards() == plain.calls.forwards()
        assert isinstance(found.x, np.ndarray) or not found.x.is_inference()


def test_starts_and_arguments_from_inference_mode_can_be_differentiated() -> None:
    with torch.inference_mode():
        start, weights = torch.zeros(3), torch.full((3,), 2.0)
        found = minimize(
            lambda x, w: ((x - 1) * w).square().sum(), start, weights, method="sgd", lr=0.1
        )
    np.testing.assert_allclose(found.x.numpy(), 1.0, atol=1e-3)


def test_functions_find_the_default_device_of_the_caller() -> None:
    seen: set[str] = set()

    def fun(x: np.ndarray) -> float:
        seen.add(torch.empty(1).device.type)
        return float(bowl(x))

    def callback(x: np.ndarray) -> None:
        seen.add(torch.empty(1).device.type)

    with default_device():
        minimize(fun, np.zeros(3), budget="5values", callback=callback)
        assert torch.empty(1).device.type == "meta"
    assert seen == {"meta"}


def test_seed_decides_the_run() -> None:
    runs = [minimize(bowl, np.zeros(3), lr=0.1, budget="20values", seed=s).x for s in (1, 1, 2)]
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])


# Budgets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 50, 51])
def test_values_are_never_exceeded_and_one_is_kept_for_the_end(limit: int) -> None:
    fun = Counted()
    found = minimize(fun, np.zeros(3), lr=0.1, budget=Budget(values=limit))
    assert fun.runs == found.calls.values <= limit
    assert found.calls.values == (limit if limit % 2 else max(limit - 1, 1))
    assert found.nit == (fun.runs - 1) // 2
    assert found.fun == pytest.approx(float(bowl(found.x)))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("forwards", [1, 2, 7, 60])
def test_forwards_are_never_exceeded(name: str, forwards: int) -> None:
    fun = Counted()
    start = torch.zeros(3, dtype=torch.float64)
    found = minimize(fun, start, method=name, budget=Budget(forwards=forwards), **SETTINGS[name])
    assert found.calls.forwards() <= forwards
    calls = found.calls
    assert fun.runs == calls.values + calls.grads + calls.jvps + calls.ranked
    assert found.status == "budget"


@pytest.mark.parametrize(
    ("name", "unit", "most"),
    [
        ("sgd", "grads", {"grads": 7, "values": 1}),
        ("adahessian", "products", {"grads": 8, "products": 7}),  # the end's value is known
        ("mezo", "steps", {"values": 15}),
        ("rank_sgd", "steps", {"rankings": 14, "ranked": 7 * 17, "values": 1}),
        ("rank_sgd", "rankings", {"rankings": 7, "ranked": 3 * 17 + 10, "values": 1}),
        ("sgd", "steps", {"grads": 7, "values": 1}),
    ],
)
def test_budget_in_every_unit(name: str, unit: str, most: dict[str, int]) -> None:
    fun = Counted()
    start = torch.zeros(3, dtype=torch.float64)
    found = minimize(fun, start, method=name, budget=f"7{unit}")
    calls = found.calls.to_dict()
    calls.pop("seconds")
    assert {k: v for k, v in calls.items() if v} == most
    assert fun.runs == sum(most.get(k, 0) for k in ("values", "grads", "ranked"))
    assert unit in found.message


def test_seconds_end_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks) / 1000)  # each look takes 1 ms
    found = minimize(bowl, np.zeros(3), lr=0.1, budget="50ms")
    assert found.status == "budget" and "seconds" in found.message and found.nit > 0


def test_budget_of_the_caller_is_left_as_it_was() -> None:
    budget = Budget(values=11, seconds=60.0)
    before = (budget.limits(), budget.spent_seconds())
    for _ in range(2):
        assert minimize(bowl, np.zeros(3), lr=0.1, budget=budget).calls.values == 11
    assert (budget.limits(), budget.spent_seconds()) == before


@pytest.mark.parametrize(
    ("name", "budget", "instead"),
    [
        ("mezo", "100grads", "values"),
        ("mezo", "100values,5products", "values"),
        ("adamw", "100values", "grads"),
        ("adamw", "100products", "grads"),
        ("rank_sgd", "100values", "rankings"),
        ("mezo", Budget(rankings=3), "values"),
        ("mezo", Budget(forwards=3, rates={"grads": 3.0}), "values"),
        ("adahessian", "100output_grads", "products"),
    ],
)
def test_units_that_the_method_never_spends_are_refused(
    name: str, budget: Any, instead: str
) -> None:
    with pytest.raises(MinimizeError, match=f"budget: .* never spends .*{instead}"):
        minimize(bowl, torch.zeros(3), method=name, budget=budget)


def test_differences_of_gradients_spend_no_products() -> None:
    with pytest.raises(MinimizeError, match="never spends products"):
        minimize(bowl, torch.zeros(3), method="adahessian", products="finite", budget="100products")


@pytest.mark.parametrize("budget", [500, 500.0, np.int64(500), None, True, ["500values"]])
@pytest.mark.parametrize("name", ["mezo", "sgd", "rank_sgd"])
def test_budgets_without_a_unit_are_refused(name: str, budget: Any) -> None:
    unit = {"mezo": "values", "sgd": "grads", "rank_sgd": "rankings"}[name]
    with pytest.raises(MinimizeError, match=f"write '500{unit}'"):
        minimize(bowl, torch.zeros(3), method=name, budget=budget)


def test_without_any_limit_something_else_must_end_the_run() -> None:
    with pytest.raises(MinimizeError, match="nothing ends the run"):
        minimize(bowl, np.zeros(3), budget=Budget())
    found = minimize(bowl, np.zeros(3), budget=Budget(), callback=lambda x: True)
    assert found.status == "stopped" and found.nit == 1


def test_less_than_one_value_asks_nothing() -> None:
    fun = Counted()
    found = minimize(fun, np.zeros(3), budget="0.5forwards")
    assert fun.runs == found.calls.values == 0 and np.isnan(found.fun)


def test_budget_ends_a_run_whose_every_step_is_left_out() -> None:
    runs = 0

    def fun(x: np.ndarray) -> float:
        nonlocal runs
        runs += 1
        assert runs <= 200, "no end in sight"
        return float("nan")

    found = minimize(fun, np.zeros(3), nonfinite="skip", budget="20values")
    assert runs <= 20 and found.status == "budget"
    assert not found.success and "no finite value" in found.message
    assert np.isnan(found.fun) and not found.x.any()


# The best point --------------------------------------------------------------------------------


def test_gradient_methods_return_the_best_point_they_have_seen() -> None:
    """A step size that overshoots: the run ends higher than it has been."""
    fun = Counted()
    found = minimize(fun, torch.zeros(3).double(), method="lion", lr=0.37, budget="30grads")
    heights = [float(bowl(p)) for p in fun.points]
    assert len(heights) == 31
    assert found.fun == pytest.approx(min(heights)) == pytest.approx(float(bowl(found.x)))
    assert min(heights) < heights[-1] - 1e-3


def test_gradient_methods_that_diverge_return_the_best_point_before() -> None:
    start = torch.tensor([1.5, -2.0, 0.5], dtype=torch.float64)
    found = minimize(lambda x: bowl(x) ** 3, start, method="sgd", lr=0.5, budget="500grads")
    assert found.status == "diverged" and not found.success
    assert "not finite" in found.message or "inf" in found.message or "nan" in found.message
    assert torch.equal(found.x, start)
    assert found.fun == pytest.approx(float(bowl(start)) ** 3)


def test_value_methods_ask_at_the_point_of_their_last_step() -> None:
    """They see values beside their points, so the last point is asked for."""
    fun = Counted()
    found = minimize(fun, np.zeros(3), lr=0.1, budget="41values")
    assert np.array_equal(fun.points[-1], found.x)
    assert found.fun == float(bowl(found.x))


@pytest.mark.parametrize("kind", ["array", "tensor"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("budget", ["19forwards", "120forwards"])
def test_the_result_is_the_best_of_all_that_was_asked(kind: str, name: str, budget: str) -> None:
    """Also of the points beside the method's own, and of a run that goes wrong."""
    needs = methods.get(name).needs
    if kind == "array" and "jvp" in needs:
        pytest.skip("forward mode differentiates functions of tensors")
    settings = {"lr": 2.0, "restart": False} if name == "accelerated" else {**SETTINGS[name]}
    settings |= {key: 30.0 for key in ("lr", "adamw_lr") if key in settings}
    extra: dict[str, Any] = {}
    if kind == "array" and needs & {"grad"}:
        extra["jac"] = slope
    if kind == "array" and "hessian" in needs:
        extra["products"] = "finite"
    fun = Counted()
    start = np.zeros(3) if kind == "array" else torch.zeros(3).double()
    found = minimize(fun, start, method=name, budget=budget, **settings, **extra)
    heights = [float(bowl(p)) for p in fun.points]
    assert found.fun == pytest.approx(min(heights), rel=1e-12)
    assert np.array_equal(np.asarray(found.x), fun.points[int(np.argmin(heights))])
    assert found.success == (found.status != "diverged")


@pytest.mark.parametrize("name", ["sgd", "mezo", "rank_sgd"])
def test_a_run_that_ends_worse_than_it_began_is_no_success(name: str) -> None:
    settings = {"line_search": 0} if name == "rank_sgd" else {}
    began = float(bowl(np.zeros(3)))
    found = minimize(
        bowl, torch.zeros(3), method=name, lr=30.0, budget="200forwards", nonfinite="skip",
        **settings,
    )  # fmt: skip
    assert found.status == "diverged" and not found.success
    assert "worse than" in found.message
    assert found.fun <= began and found.fun == float(bowl(found.x))


def test_a_run_that_is_stopped_while_worse_than_it_began_is_stopped_without_success() -> None:
    found = minimize(
        bowl, torch.zeros(3), method="sgd", lr=3.0, budget="9grads", callback=lambda x: True
    )
    assert found.status == "stopped" and not found.success
    assert torch.equal(found.x, torch.zeros(3))


def test_rising_values_are_no_convergence() -> None:
    found = minimize(bowl, torch.zeros(3).double(), method="sgd", lr=1.5, tol=1e-3)
    assert found.status == "diverged" and not found.success and found.nit == PATIENCE + 1


def test_ending_where_it_began_is_no_divergence() -> None:
    found = minimize(lambda x: (x * 0.1).sum() + 1e6, torch.ones(3), lr=0.0, budget="21values")
    assert found.status == "budget" and found.success


@pytest.mark.parametrize("policy", ["raise", "skip", "ignore"])
@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "mezo", "rank_sgd", "adahessian"])
def test_progress_is_kept_where_the_function_is_not_a_number(name: str, policy: str) -> None:
    """Downhill leads over a cliff."""

    def cliff(x: Tensor) -> Tensor:
        return torch.where(x[0] > 0.5, torch.nan, ((x - 1.0) ** 2).sum())

    few: dict[str, dict[str, Any]] = {"rank_sgd": {"points": 3, "line_search": 2}}
    settings = few.get(name, {"eps": 0.1} if name == "mezo" else {})
    found = minimize(
        cliff, torch.zeros(2).double(), method=name, lr=0.06, budget="80steps", nonfinite=policy,
        **settings,
    )  # fmt: skip
    assert found.fun < 2.0 and found.fun == float(cliff(found.x))
    if policy == "raise" and name != "rank_sgd":
        assert found.status == "diverged" and not found.success and "nan" in found.message


def test_value_methods_that_meet_a_cliff_return_the_best_point_seen() -> None:
    fun = Counted(lambda x: float("nan") if x[0] > 0.5 else float(-x.sum()))
    found = minimize(fun, np.zeros(2), lr=0.3, eps=0.1, budget="5000values")
    assert found.status == "diverged" and not found.success and fun.runs < 100
    heights = [float("inf") if p[0] > 0.5 else float(-p.sum()) for p in fun.points]
    assert found.fun == min(heights) < 0
    assert found.fun == float(-found.x.sum())


@pytest.mark.parametrize("name", ["mezo", "sgd"])
def test_steps_that_are_left_out_for_ever_end_the_run(name: str) -> None:
    """Steps and seconds are limits that skipped steps do not use up."""
    fun = Counted(lambda x: x.sum() * float("nan"))
    found = minimize(
        fun, torch.zeros(3), method=name, nonfinite="skip", budget=Budget(steps=7, seconds=600)
    )
    assert found.status == "diverged" and not found.success
    assert found.nit == 0 and found.calls.skipped == SKIPS
    assert f"{SKIPS} steps in a row" in found.message


def test_infinite_values_are_not_the_best() -> None:
    fun = Counted(lambda x: float("-inf") if len(fun.points) == 3 else float(bowl(x)))
    found = minimize(fun, np.zeros(3), lr=0.1, nonfinite="ignore", budget="9values")
    assert np.isfinite(found.fun) and found.fun == float(bowl(found.x))


@pytest.mark.parametrize("name", SETTINGS)
def test_maximize_returns_the_highest_point(name: str) -> None:
    start = torch.zeros(3, dtype=torch.float64)
    found = minimize(
        lambda x: -bowl(x),
        start,
        method=name,
        maximize=True,
        budget=enough(name),
        **SETTINGS[name],
    )
    np.testing.assert_allclose(found.x.numpy(), TARGET, atol=0.1)
    assert found.fun == pytest.approx(-3.0, abs=0.02)


def test_maximize_keeps_the_highest_of_an_overshooting_run() -> None:
    fun = Counted(lambda x: -bowl(x))
    start = torch.zeros(3).double()
    found = minimize(fun, start, method="lion", lr=0.37, maximize=True, budget="30grads")
    heights = [-float(bowl(p)) for p in fun.points]
    assert found.fun == pytest.approx(max(heights)) and max(heights) > heights[-1]


# Ends ------------------------------------------------------------------------------------------


def test_callback_sees_each_point_and_stops_the_run() -> None:
    seen: list[np.ndarray] = []

    def callback(x: np.ndarray) -> bool:
        seen.append(x)
        return len(seen) == 4

    found = minimize(bowl, np.zeros(3), lr=0.1, callback=callback)
    assert found.status == "stopped" and found.success and "callback" in found.message
    assert found.nit == len(seen) == 4
    assert np.array_equal(seen[-1], found.x)
    assert len({tuple(x) for x in seen}) == 4  # copies, not one array over and over


def test_callback_cannot_reach_into_the_run() -> None:
    def spoil(x: np.ndarray) -> None:
        x[:] = 1e9

    plain = minimize(bowl, np.zeros(3), lr=0.1, budget="50values")
    spoilt = minimize(bowl, np.zeros(3), lr=0.1, budget="50values", callback=spoil)
    assert np.array_equal(plain.x, spoilt.x)


def test_stop_iteration_stops_the_run() -> None:
    def callback(x: np.ndarray) -> None:
        raise StopIteration

    found = minimize(bowl, np.zeros(3), lr=0.1, callback=callback)
    assert found.status == "stopped" and found.nit == 1


@pytest.mark.parametrize("name", ["sgd", "mezo", "rank_sgd"])
def test_callbacks_by_intermediate_result_see_the_best_point_and_its_value(name: str) -> None:
    seen: list[Any] = []

    def callback(*, intermediate_result: Any) -> bool:
        seen.append(intermediate_result)
        return len(seen) == 5

    found = minimize(bowl, torch.zeros(3).double(), method=name, lr=0.1, callback=callback)
    assert found.status == "stopped" and [s.nit for s in seen] == [1, 2, 3, 4, 5]
    assert all(s.fun == float(bowl(s.x)) for s in seen)
    heights = [s.fun for s in seen]
    assert heights == sorted(heights, reverse=True) and found.fun <= heights[-1]


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("name", ["sgd", "mezo"])
def test_tol_ends_a_run_after_ten_idle_steps(name: str, maximize: bool) -> None:
    sign = -1.0 if maximize else 1.0
    found = minimize(
        lambda x: sign * bowl(x),
        torch.zeros(3).double(),
        method=name,
        lr=0.1,
        tol=1e-4,
        maximize=maximize,
        budget="100000forwards",
    )
    assert found.status == "converged" and found.success
    assert found.fun == pytest.approx(sign * 3.0, abs=1e-2)
    assert PATIENCE < found.nit < 300


def test_tol_zero_waits_for_steps_that_bring_nothing() -> None:
    flat = minimize(
        lambda x: 0.0 * x.sum(), torch.ones(2).double(), method="sgd", tol=0.0, budget="100grads"
    )
    assert flat.status == "converged" and flat.nit == PATIENCE + 1


def test_without_tol_nothing_converges() -> None:
    found = minimize(lambda x: 0.0 * x.sum(), torch.ones(2), method="sgd", budget="100grads")
    assert found.status == "budget" and found.nit == 100


def test_errors_of_the_function_are_the_callers() -> None:
    def fun(x: np.ndarray) -> float:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        minimize(fun, np.zeros(2))


# Rankings --------------------------------------------------------------------------------------


def test_ranker_sees_points_and_the_function_is_never_asked() -> None:
    shown: list[int] = []

    def ranker(points: list[np.ndarray]) -> list[int]:
        shown.append(len(points))
        assert all(isinstance(p, np.ndarray) and p.shape == (3,) for p in points)
        return np.argsort([float(bowl(p)) for p in points]).tolist()

    def never(x: Any) -> float:
        raise AssertionError("the ranker answers")

    found = minimize(
        never,
        np.zeros(3),
        method="rank_sgd",
        ranker=ranker,
        budget="60rankings",
        **SETTINGS["rank_sgd"],
    )
    assert shown == [10, 7] * 30
    assert np.isnan(found.fun) and found.calls.values == 0 and found.calls.ranked == 17 * 30
    np.testing.assert_allclose(found.x, TARGET, atol=0.1)
    same = minimize(
        bowl, np.zeros(3), method="rank_sgd", budget="60rankings", **SETTINGS["rank_sgd"]
    )
    np.testing.assert_allclose(found.x, same.x, rtol=1e-5)


def test_ranker_of_tensors() -> None:
    def ranker(points: list[Tensor]) -> list[int]:
        assert all(isinstance(p, Tensor) for p in points)
        return torch.stack([bowl(p) for p in points]).argsort()[:3].tolist()

    found = minimize(
        bowl,
        torch.zeros(3),
        method="rank_sgd",
        ranker=ranker,
        budget="60rankings",
        lr=1.0,
        mu=0.01,
        top=3,
    )
    np.testing.assert_allclose(found.x.numpy(), TARGET, atol=0.2)


# Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        [],
        [float("nan")],
        [float("inf"), 1.0],
        "abc",
        None,
        [1 + 2j],
        np.array([1 + 2j]),
        torch.tensor([1 + 2j]),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(0),
        {"x": 1.0},
    ],
    ids=str,
)
def test_starts_that_are_no_finite_numbers_are_refused(start: Any) -> None:
    with pytest.raises(MinimizeError, match="x0"):
        minimize(bowl, start)


@pytest.mark.parametrize(
    "value", [None, "high", [1.0, 2.0], np.ones((2, 2)), object()], ids=lambda v: type(v).__name__
)
def test_functions_that_return_no_number_are_refused(value: Any) -> None:
    with pytest.raises(MinimizeError, match="fun: expected one number"):
        minimize(lambda x: value, np.zeros(2))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("tol", t) for t in (float("nan"), float("inf"), -1e-3, "1e-3", True)),
        *(("seed", s) for s in (1.7, "1", None, True)),
        *(("maximize", m) for m in ("no", 1, None)),
        *(("callback", c) for c in (3, "stop")),
        *(("jac", j) for j in ("2-point", 3)),
    ],
)
def test_values_that_mean_something_else_are_refused(option: str, value: Any) -> None:
    with pytest.raises(MinimizeError, match=f"{option}: expected"):
        minimize(bowl, torch.zeros(3), method="sgd", **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [("tol", np.float32(1e-3)), ("tol", 0), ("seed", np.int64(3)), ("seed", -1)],
)
def test_numbers_of_numpy_are_numbers(option: str, value: Any) -> None:
    assert minimize(bowl, torch.zeros(3), budget="9values", **{option: value}).nit == 4


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(MinimizeError, match="fun: expected a function, got None"):
        minimize(None, np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(MinimizeError, match="ranker: expected a function"):
        minimize(bowl, np.zeros(3), method="rank_sgd", ranker=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["sgd", "adahessian"])
def test_gradients_must_come_from_somewhere(name: str) -> None:
    with pytest.raises(MinimizeError, match="jac="):
        minimize(bowl, np.zeros(3), method=name)


def test_curvature_is_not_taken_from_a_gradient_without_graph() -> None:
    """Its products would be zero, and zero curvature a step of lr / eps."""
    with pytest.raises(MinimizeError, match="products='finite'"):
        minimize(bowl, np.zeros(3), method="adahessian", jac=slope)


def test_gradient_of_another_shape_is_refused() -> None:
    with pytest.raises(MinimizeError, match=r"jac: expected the shape \(3,\)"):
        minimize(bowl, np.zeros(3), method="sgd", jac=lambda x: slope(x)[:2])
    with pytest.raises(MinimizeError, match="jac: expected numbers"):
        minimize(bowl, np.zeros(3), method="sgd", jac=lambda x: None)
    with pytest.raises(MinimizeError, match="jac=True"):
        minimize(bowl, np.zeros(3), method="sgd", jac=True)


def test_options_that_mean_nothing_to_the_method_are_refused() -> None:
    with pytest.raises(MinimizeError, match="ranker"):
        minimize(bowl, np.zeros(3), method="mezo", ranker=lambda points: [0])
    with pytest.raises(MinimizeError, match="jac: MeZO uses no gradient"):
        minimize(bowl, np.zeros(3), method="mezo", jac=slope)
    with pytest.raises(MinimizeError, match="tol"):
        minimize(bowl, np.zeros(3), method="rank_sgd", tol=1e-3)
    for name in ("lrr", "bounds", "options"):
        with pytest.raises(TypeError, match=name):
            minimize(bowl, np.zeros(3), method="mezo", **{name: 0.1})


def test_unknown_methods_name_the_nearest() -> None:
    with pytest.raises(UnknownMethodError, match="'mezo'"):
        minimize(bowl, np.zeros(3), method="meso")


@pytest.mark.parametrize("budget", ["lots", "-3values", "0grads"])
def test_budgets_that_cannot_be_read_are_refused(budget: str) -> None:
    with pytest.raises(ValueError, match="budget"):
        minimize(bowl, np.zeros(3), budget=budget)
