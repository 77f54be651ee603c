"""AdaHessian: its formulas in plain loops, limit cases, and the faults other libraries had."""

from __future__ import annotations

import gc
import itertools
import math
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods.adahessian import AdaHessian, spatial_average
from anyorder.oracle import curvature
from anyorder.oracle.gradients import NonFiniteError
from anyorder.points.directions import Seeded
from anyorder.testing import MethodContract, Values, World

STEPS = 30
SHAPES = {
    "matrix": (3, 4),
    "kernel": (2, 2, 3),
    "window": (2, 1, 2, 2),
    "vector": (4,),
    "scalar": (),
}


def schedule(step: int) -> float:
    return (1 + math.cos(0.15 * step)) / 2


# A function whose gradient and Hessian can be written down --------------------------------------


def quartic() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor], np.ndarray, np.ndarray]:
    """x' A x / 2 + sum c x^4 / 4 over all parameters end to end; also A and c."""
    rng = np.random.default_rng(4)
    size = sum(math.prod(shape) for shape in SHAPES.values())
    root = rng.normal(size=(size, size)) / math.sqrt(size)
    matrix, c = root @ root.T + 0.5 * np.eye(size), rng.uniform(0.1, 0.6, size)
    params = {
        name: nn.Parameter(torch.tensor(rng.normal(size=shape))) for name, shape in SHAPES.items()
    }
    a, coefficients = torch.tensor(matrix), torch.tensor(c)

    def closure() -> Tensor:
        x = torch.cat([p.reshape(-1) for p in params.values()])
        return x @ a @ x / 2 + (coefficients * x**4).sum() / 4

    return params, closure, matrix, c


def cut(flat: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters of a flat vector."""
    found: dict[str, np.ndarray] = {}
    start = 0
    for name, shape in SHAPES.items():
        found[name] = flat[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    return found


def joined(values: Values) -> np.ndarray:
    return np.concatenate([values[name].ravel() for name in SHAPES])


def signs(values: Values, seed: int, step: int, index: int) -> Values:
    """The probe, taken as given: its statistics are tested further down."""
    direction = Seeded(seed, step, index, "rademacher")
    like = {name: torch.zeros(v.shape, dtype=torch.float64) for name, v in values.items()}
    return {name: direction.tensor(name, tensor).numpy() for name, tensor in like.items()}


def averaged(values: np.ndarray, block: int, average: str) -> np.ndarray:
    """Block means by loops: windows of a kernel, runs of a row, nothing for a vector."""
    values = np.abs(values) if average == "abs" else values
    out = np.array(values, dtype=float)
    if values.ndim == 2:
        rows, width = values.shape
        size = block or max(width, 1)
        for row, start in itertools.product(range(rows), range(0, width, size)):
            run = values[row, start : start + size]
            out[row, start : start + size] = sum(run) / len(run)
    elif values.ndim > 2:
        for place in np.ndindex(values.shape[:2]):
            window = values[place].ravel()
            out[place] = sum(window) / len(window)
    return out


def by_hand(
    values: Values,
    gradient_at: Callable[[Values], Values],
    product_at: Callable[[Values, Values], Values],
    settings: Mapping[str, Mapping[str, Any]],
    every: int,
    probes: int,
    seed: int,
    steps: int = STEPS,
    schedule: Callable[[int], float] = schedule,
) -> Values:
    """Algorithm 1 of Yao et al. (2021) with the decoupled decay of their code, by elements."""
    values = {name: value.copy() for name, value in values.items()}
    m = {name: np.zeros_like(value) for name, value in values.items()}
    v = {name: np.zeros_like(value) for name, value in values.items()}
    estimates = 0
    for t in range(1, steps + 1):
        gradient = gradient_at(values)
        if (t - 1) % every == 0:
            estimates += 1
            fresh = {name: np.zeros_like(value) for name, value in values.items()}
            for index in range(probes):
                z = signs(values, seed, t - 1, index)
                product = product_at(values, z)
                for name in values:
                    fresh[name] += z[name] * product[name] / probes
            for name, s in settings.items():
                d = averaged(fresh[name], s["block"], s["average"])
                b2 = s["betas"][1]
                v[name][...] = b2 * v[name] + (1 - b2) * d * d
        for name, value in values.items():
            s = settings[name]
            (b1, b2), lr = s["betas"], s["lr"] * schedule(t - 1)
            for place in np.ndindex(value.shape):
                g = gradient[name][place]
                m[name][place] = b1 * m[name][place] + (1 - b1) * g
                mean = m[name][place] / (1 - b1**t)
                bent = math.sqrt(v[name][place] / (1 - b2**estimates)) ** s["hessian_power"]
                move = mean / (bent + s["eps"]) + s["weight_decay"] * value[place]
                value[place] -= lr * move
    return values


@pytest.mark.parametrize(("every", "probes"), [(1, 1), (1, 3), (4, 1), (3, 2)])
def test_equals_the_formulas_element_by_element(every: int, probes: int) -> None:
    params, closure, matrix, c = quartic()
    plain = {"betas": (0.9, 0.999), "hessian_power": 1.0, "weight_decay": 0.0, "eps": 1e-4}
    other = {"betas": (0.8, 0.9), "hessian_power": 0.5, "weight_decay": 0.1, "eps": 1e-2}
    groups: dict[str, dict[str, Any]] = {
        "matrix": {"lr": 0.1, "block": 0, "average": "abs", **plain},
        "kernel": {"lr": 0.05, "block": 0, "average": "signed", **other},
        "window": {"lr": 0.1, "block": 2, "average": "abs", **plain, "hessian_power": 0.7},
        "vector": {"lr": 0.08, "block": 0, "average": "abs", **other},
        "scalar": {"lr": 0.1, "block": 0, "average": "signed", **plain},
    }
    start = np.concatenate([p.detach().numpy().ravel() for p in params.values()])

    def gradient_at(values: Values) -> Values:
        x = joined(values)
        return cut(matrix @ x + c * x**3)

    def product_at(values: Values, z: Values) -> Values:
        return cut((matrix + np.diag(3 * c * joined(values) ** 2)) @ joined(z))

    expected = by_hand(cut(start), gradient_at, product_at, groups, every, probes, seed=11)
    optimizer = AdaHessian(
        [{"params": [(name, p)], **groups[name]} for name, p in params.items()],
        every=every,
        probes=probes,
        seed=11,
        engine="eager",
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for _ in range(STEPS):
        optimizer.step(closure)
        scheduler.step()
    for name, p in params.items():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=1e-9, atol=1e-12)
        assert not np.allclose(p.detach().numpy(), cut(start)[name], rtol=1e-2)


@pytest.mark.parametrize("average", ["abs", "signed"])
@pytest.mark.parametrize("block", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize(
    "shape", [(), (5,), (2, 7), (1, 1), (3, 2, 5), (2, 3, 3, 2), (2, 1, 2, 2, 2), (0, 3), (2, 0)]
)
def test_blocks_by_loops(shape: tuple[int, ...], block: int, average: str) -> None:
    values = torch.randn(shape, dtype=torch.float64)
    found = spatial_average(values, block, average)
    assert found.shape == shape
    np.testing.assert_allclose(found.numpy(), averaged(values.numpy(), block, average), rtol=1e-12)


# Limit cases -----------------------------------------------------------------------------------


def diagonal_bowl(
    curvatures: list[float], **settings: Any
) -> tuple[Tensor, AdaHessian, Callable[[], Tensor]]:
    """sum c x^2 / 2 from x = 1: one probe finds its Hessian exactly."""
    c = torch.tensor(curvatures, dtype=torch.float64)
    x = nn.Parameter(torch.ones_like(c))
    return x, AdaHessian([("x", x)], engine="eager", **settings), lambda: (c * x * x).sum() / 2


def test_diagonal_quadratic_is_scaled_newton() -> None:
    """Every coordinate shrinks by 1 - lr a step, whatever its curvature."""
    x, optimizer, closure = diagonal_bowl([1e-3, 1.0, 1e4], lr=0.3, betas=(0.0, 0.999), eps=0.0)
    for step in range(1, 20):
        optimizer.step(closure)
        np.testing.assert_allclose(x.tolist(), 0.7**step, rtol=1e-11)


def test_full_newton_step_is_exact_at_once() -> None:
    x, optimizer, closure = diagonal_bowl([0.5, 3.0, -2.0], lr=1.0, eps=0.0)
    optimizer.step(closure)
    assert x.tolist() == pytest.approx([0.0, 0.0, 2.0])  # away from a maximum, not towards it


@pytest.mark.parametrize("power", [1.0, 0.5, 0.25])
def test_power_of_the_curvature(power: float) -> None:
    x, optimizer, closure = diagonal_bowl([4.0, 100.0], lr=0.01, hessian_power=power, eps=0.0)
    optimizer.step(closure)
    expected = [1 - 0.01 * c / c**power for c in (4.0, 100.0)]
    np.testing.assert_allclose(x.tolist(), expected, rtol=1e-12)


def test_power_towards_zero_is_momentum_descent() -> None:
    x, optimizer, closure = diagonal_bowl([4.0, 100.0], lr=0.01, hessian_power=1e-9, eps=0.0)
    optimizer.step(closure)
    np.testing.assert_allclose(x.tolist(), [1 - 0.04, 0.0], atol=1e-7)


def test_constant_curvature_stays_what_it_is_under_its_bias_correction() -> None:
    x, optimizer, closure = diagonal_bowl([2.0, 8.0], lr=0.1)
    for step in range(1, 15):
        optimizer.step(closure)
        found = optimizer.state[x]["exp_hessian_diag_sq"] / (1 - 0.999**step)
        np.testing.assert_allclose(found.sqrt().tolist(), [2.0, 8.0], rtol=1e-12)


def test_first_step_is_a_share_lr_of_the_newton_step() -> None:
    params, closure, matrix, c = quartic()
    x = np.concatenate([p.detach().numpy().ravel() for p in params.values()])
    optimizer = AdaHessian(params.items(), lr=0.15, eps=0.0, probes=600, block=1, engine="eager")
    optimizer.step(closure)
    newton = (matrix @ x + c * x**3) / np.diag(matrix + np.diag(3 * c * x**2))
    moved = x - np.concatenate([p.detach().numpy().ravel() for p in params.values()])
    plain = [n for n, shape in SHAPES.items() if len(shape) < 3]  # the rest averages windows
    for name in plain:
        np.testing.assert_allclose(cut(moved)[name], 0.15 * cut(newton)[name], rtol=0.25)


# Curvature in some steps only ------------------------------------------------------------------


def test_estimates_are_taken_every_so_often_and_kept_between() -> None:
    params, closure, *_ = quartic()
    optimizer = AdaHessian(params.items(), every=3, probes=2, engine="eager")
    for step in range(1, 11):
        before = {n: b.clone() for n, b in optimizer.buffer("exp_hessian_diag_sq").items()}
        optimizer.step(closure)
        changed = {
            not torch.equal(before[name], now)
            for name, now in optimizer.buffer("exp_hessian_diag_sq").items()
        }
        assert changed == {step % 3 == 1}
        assert optimizer.calls.grads == step
        assert optimizer.calls.products == 2 * math.ceil(step / 3)


@pytest.mark.parametrize("every", [2, 5])
def test_first_step_never_divides_by_eps_alone(every: int) -> None:
    """A peer left the second moment at zero in the first step and divided by 1e-16."""
    x, optimizer, closure = diagonal_bowl([2.0, 8.0], lr=0.1, every=every, eps=1e-16)
    for step in range(1, 8):
        optimizer.step(closure)
        assert x.abs().max() < 1.0, step


def test_parameter_that_joins_between_estimates_waits_for_the_next() -> None:
    early = nn.Parameter(torch.ones(2, dtype=torch.float64))
    late = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)
    optimizer = AdaHessian(
        [("early", early), ("late", late)],
        lr=0.5,
        every=3,
        betas=(0.0, 0.999),
        eps=1e-8,
        engine="eager",
    )

    def closure() -> Tensor:
        return (early**2).sum() + 5 * (late**2).sum()

    optimizer.step(closure)
    late.requires_grad_(True)
    added = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer.add_param_group({"params": [("added", added)]})
    both = lambda: closure() + 7 * (added**2).sum()  # noqa: E731
    for _ in range(2):
        optimizer.step(both)
        assert late.tolist() == added.tolist() == [1.0, 1.0]
    for step in range(1, 6):
        optimizer.step(both)
        np.testing.assert_allclose(late.tolist(), 0.5**step, rtol=1e-6)
        np.testing.assert_allclose(added.tolist(), 0.5**step, rtol=1e-6)


def test_parameter_without_gradient_at_some_estimates_keeps_its_own_count() -> None:
    """Bias correction follows the estimates a parameter has had, not the steps it has seen."""
    a = nn.Parameter(torch.ones(2, dtype=torch.float64))
    b = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = AdaHessian(
        [("a", a), ("b", b)], lr=0.5, every=2, betas=(0.0, 0.999), eps=0.0, engine="eager"
    )
    for step in range(12):
        before = b.detach().clone()
        optimizer.step(lambda: (a**2).sum() + (3 * (b**2).sum() if step % 3 == 0 else 0.0))  # noqa: B023
        np.testing.assert_allclose(
            b.tolist(), (before * (0.5 if step % 3 == 0 else 1)).tolist(), rtol=1e-12
        )


def test_counts_of_estimates_survive_a_checkpoint() -> None:
    def run(restart: bool) -> Tensor:
        x, optimizer, closure = diagonal_bowl([2.0, 8.0], lr=0.3, every=3, betas=(0.5, 0.9))
        for step in range(10):
            if restart and step == 4:
                saved, optimizer = optimizer.state_dict(), AdaHessian([("x", x)], engine="eager")
                optimizer.load_state_dict(saved)
            optimizer.step(closure)
        return x.detach()

    assert torch.equal(run(restart=False), run(restart=True))


# Products --------------------------------------------------------------------------------------


class _Slope(torch.autograd.Function):
    """The derivative of x^3, counting how often it is differentiated itself."""

    runs = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor) -> Tensor:
        ctx.save_for_backward(x, grad)
        return 3 * x * x * grad

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        _Slope.runs += 1
        x, grad = ctx.saved_tensors
        return 6 * x * grad * grads[0], 3 * x * x * grads[0]


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _Slope.apply(x, grads[0])  # type: ignore[no-any-return]


def test_products_in_the_ledger_have_been_computed() -> None:
    """A peer's switch for Hessian products took none and nobody noticed."""
    x = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    optimizer = AdaHessian([("x", x)], every=2, probes=3, lr=0.0, engine="eager")
    _Slope.runs = 0
    for _ in range(5):
        optimizer.step(lambda: _Cube.apply(x).sum())
    assert _Slope.runs == optimizer.calls.products == 9
    root = (optimizer.state[x]["exp_hessian_diag_sq"] / (1 - 0.999**3)).sqrt()
    np.testing.assert_allclose(root.tolist(), [6.0, 12.0], rtol=1e-12)


@pytest.mark.parametrize(("products", "probes"), [("exact", 1), ("exact", 2), ("finite", 2)])
def test_ledger_of_a_step(products: str, probes: int) -> None:
    params, closure, *_ = quartic()
    runs = 0

    def counted() -> Tensor:
        nonlocal runs
        runs += 1
        return closure()

    optimizer = AdaHessian(
        params.items(), products=products, probes=probes, every=2, engine="eager"
    )
    optimizer.step(counted)
    exact = products == "exact"
    first = {"grads": 1, "products": probes} if exact else {"grads": 1 + 2 * probes}
    second = {**first, "grads": first["grads"] + 1}
    for expected in (first, second):
        calls = optimizer.calls.to_dict()
        calls.pop("seconds")
        assert {name: count for name, count in calls.items() if count} == expected
        assert runs == expected["grads"]
        if expected is first:
            optimizer.step(counted)


def test_products_from_differences_are_close_to_exact_ones() -> None:
    runs: list[np.ndarray] = []
    for products in ("exact", "finite"):
        params, closure, *_ = quartic()
        optimizer = AdaHessian(params.items(), products=products, lr=0.1, engine="eager")
        for _ in range(20):
            optimizer.step(closure)
        runs.append(np.concatenate([p.detach().numpy().ravel() for p in params.values()]))
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-6, atol=1e-8)
    assert not np.array_equal(runs[0], runs[1])


@pytest.mark.parametrize("products", ["exact", "finite"])
def test_maximize_climbs_by_curvature_too(products: str) -> None:
    c = torch.tensor([2.0, 8.0], dtype=torch.float64)
    x = nn.Parameter(torch.ones_like(c))
    optimizer = AdaHessian(
        [("x", x)], lr=0.5, eps=0.0, maximize=True, products=products, engine="eager"
    )
    optimizer.step(lambda: -(c * x * x).sum() / 2)
    np.testing.assert_allclose(x.tolist(), [0.5, 0.5], rtol=1e-6)


# Statistics ------------------------------------------------------------------------------------


def test_probes_are_signs_without_mean_or_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer drew -1 everywhere: its "diagonal" was the sum of a row."""
    seen: list[Tensor] = []
    product = curvature.Hessian.__matmul__

    def spy(self: curvature.Hessian, vector: Any) -> list[Tensor]:
        seen.append(torch.cat([v.reshape(-1) for v in vector]))
        return product(self, vector)

    monkeypatch.setattr(curvature.Hessian, "__matmul__", spy)
    params = {name: nn.Parameter(torch.ones(2, 3)) for name in ("a", "b")}
    params["s"] = nn.Parameter(torch.ones(()))
    optimizer = AdaHessian(params.items(), lr=0.0, probes=10, engine="eager")
    for _ in range(200):
        optimizer.step(lambda: torch.stack([(p**2).sum() for p in params.values()]).sum())
    z = torch.stack(seen).double()
    n, size = z.shape
    assert (n, size) == (2000, 13)
    assert bool((z.abs() == 1).all())
    assert len({tuple(row) for row in z.tolist()}) > 0.8 * n * (1 - n / 2**14)  # no repetitions
    assert bool((z.std(0) > 0.9).all())
    assert float(z.mean(0).abs().max()) < 5 / math.sqrt(n)
    moments = z.T @ z / n - torch.eye(size, dtype=torch.float64)
    assert float(moments.abs().max()) < 5 / math.sqrt(n)


def test_estimate_is_unbiased_with_the_variance_of_theory() -> None:
    """Mean: the diagonal. Variance: the squares of the rest of the row (Bekas et al., 2007)."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    matrix = (root + root.T) / 2
    a = torch.tensor(matrix)
    x = nn.Parameter(torch.tensor(rng.normal(size=5)))
    n = 2000
    optimizer = AdaHessian([("x", x)], engine="eager")
    drawn: list[np.ndarray] = []
    with optimizer.oracle(lambda: x @ a @ x / 2).hessian() as hessian:
        for index in range(n):
            z = optimizer.direction(index, "rademacher").tensor("x", x.detach())
            drawn.append((z * (hessian @ [z])[0]).numpy())
    d = np.array(drawn)
    spread = np.sqrt((matrix**2).sum(1) - np.diag(matrix) ** 2)
    assert np.all(np.abs(d.mean(0) - np.diag(matrix)) < 5 * spread / math.sqrt(n))
    np.testing.assert_allclose(d.std(0), spread, rtol=0.1)


def test_second_moment_comes_from_the_diagonal_not_from_row_sums() -> None:
    """Many probes on a full matrix find the diagonal within their confidence bound."""
    matrix = torch.full((4, 4), 3.0, dtype=torch.float64) + torch.diag(torch.tensor([1.0, 2, 3, 4]))
    x = nn.Parameter(torch.ones(4, dtype=torch.float64))
    optimizer = AdaHessian([("x", x)], lr=0.0, probes=2000, engine="eager")
    optimizer.step(lambda: x @ matrix @ x / 2)
    found = (optimizer.state[x]["exp_hessian_diag_sq"] / 0.001).sqrt().numpy()
    bound = 5 * math.sqrt(3 * 3.0**2 / 2000)
    assert np.all(np.abs(found - matrix.diagonal().numpy()) < bound)
    assert np.all(np.abs(found - matrix.sum(1).numpy()) > 5)


# Memory ----------------------------------------------------------------------------------------


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_flat_over_a_thousand_steps() -> None:
    """grad -> graph -> grad is the leak everybody reports; nothing may wait for the collector."""
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(64, 64) / 8)
    x = torch.randn(64, 64)
    optimizer = AdaHessian([("w", w)], lr=0.01, engine="eager")
    losses: list[weakref.ref[Tensor]] = []

    def closure() -> Tensor:
        loss = (torch.tanh(x @ w) - x).square().mean()
        losses.append(weakref.ref(loss))
        return loss

    def tensors() -> int:
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    for _ in range(20):
        optimizer.step(closure)
    gc.collect()
    gc.disable()
    try:
        before, resident = tensors(), _resident()
        for _ in range(1000):
            optimizer.step(closure)
        assert tensors() < before + 100  # other threads may have some; leaks would be thousands
        assert all(loss() is None for loss in losses[:-1])
        # One graph holds over 60 kB of activations and gradients: leaks would be over 60 MB.
        assert _resident() - resident < 30e6
    finally:
        gc.enable()


def test_graph_is_freed_when_a_product_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    x, optimizer, closure = diagonal_bowl([1.0])
    losses: list[weakref.ref[Tensor]] = []

    def watched() -> Tensor:
        loss = closure()
        losses.append(weakref.ref(loss))
        return loss

    def fail(self: curvature.Hessian, vector: Any) -> list[Tensor]:
        raise RuntimeError("boom")

    monkeypatch.setattr(curvature.Hessian, "__matmul__", fail)
    with pytest.raises(RuntimeError, match="boom"):
        optimizer.step(watched)
    assert losses[0]() is None
    assert x.tolist() == [1.0] and optimizer.steps == 0


# Bad input -------------------------------------------------------------------------------------


def test_curvature_that_is_not_finite_changes_nothing() -> None:
    """|x|^1.5 at 0 has a loss, a slope and no curvature."""
    x = nn.Parameter(torch.tensor([0.0, 1.0]))
    optimizer = AdaHessian([("x", x)], engine="eager")
    with pytest.raises(NonFiniteError):
        optimizer.step(lambda: (x.abs() ** 1.5).sum())
    assert x.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("settings", [{"every": 2}, {"probes": 2}, {"products": "finite"}])
def test_how_curvature_is_taken_is_common_to_all_groups(settings: dict[str, Any]) -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        AdaHessian([{"params": [a]}, {"params": [b], **settings}])
    AdaHessian([{"params": [a], **settings}, {"params": [b], **settings}])


@pytest.mark.parametrize(
    "settings",
    [
        {"hessian_power": 0.0},
        {"hessian_power": 1.5},
        {"every": 0},
        {"probes": 0},
        {"every": 1.5},
        {"block": -1},
        {"average": "median"},
        {"products": "some"},
        {"eps": -1.0},
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        AdaHessian([nn.Parameter(torch.ones(1))], **settings)


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = AdaHessian
    reference_settings = (
        {},
        {"lr": 0.05, "betas": (0.8, 0.9), "hessian_power": 0.5, "eps": 0.1, "weight_decay": 0.1},
        {"lr": 0.05, "every": 3, "probes": 2, "block": 2, "average": "signed", "seed": 11},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        groups = dict.fromkeys(values, options)
        shared = (options["every"], options["probes"], options["seed"])
        ask = (world.gradient, world.product)
        return by_hand(values, *ask, groups, *shared, steps, lambda step: 1.0)
