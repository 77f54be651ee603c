"""Lion-K: plain loops for every map, limit cases, the balls that decay keeps to, Lyapunov."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods import lion_k
from anyorder.methods.lion import Lion
from anyorder.methods.lion_k import LionK
from anyorder.methods.sgd import SGD
from anyorder.rules.kappa import NAMES, kappa
from anyorder.testing import MethodContract, Values, World

STEPS = 60
P, THRESHOLD = 3.0, 0.4
BOUNDED = [name for name in NAMES if name != "squared"]


def bend(dtype: torch.dtype = torch.float64) -> tuple[dict[str, nn.Parameter], Any]:
    """A curved function of a kernel, a matrix, a vector and a number."""
    rng = np.random.default_rng(5)
    shapes = {"kernel": (3, 2, 2), "matrix": (4, 3), "vector": (5,), "number": ()}
    params = {
        name: nn.Parameter(torch.tensor(rng.normal(size=shape), dtype=dtype))
        for name, shape in shapes.items()
    }

    def closure() -> Tensor:
        powers = sum(((p**4).sum() / 4 for p in params.values()), torch.zeros((), dtype=dtype))
        gap = params["matrix"].sum() - params["vector"].sum() + params["number"]
        return powers + 3 * (params["vector"] ** 2).sum() + gap**2 / 2

    return params, closure


def slopes(values: Values) -> Values:
    """The gradient of :func:`bend` by hand."""
    gap = values["matrix"].sum() - values["vector"].sum() + values["number"]
    return {
        "kernel": values["kernel"] ** 3,
        "matrix": values["matrix"] ** 3 + gap,
        "vector": values["vector"] ** 3 + 6 * values["vector"] - gap,
        "number": values["number"] ** 3 + gap,
    }


def sign(x: float) -> float:
    return 0.0 if x == 0 else math.copysign(1.0, x)


def mapped(name: str, c: np.ndarray, p: float = P, threshold: float = THRESHOLD) -> np.ndarray:
    """The maps, written out element by element and row by row."""
    one: dict[str, Callable[[float], float]] = {
        "l1": sign,
        "squared": lambda x: x,
        "huber": lambda x: min(max(x / threshold, -1.0), 1.0),
        "soft": lambda x: sign(x) if abs(x) > threshold else 0.0,
    }
    out = np.zeros_like(c)
    if name in one:
        for place in np.ndindex(c.shape):
            out[place] = one[name](float(c[place]))
    elif name in ("l2", "lp"):
        p = 2.0 if name == "l2" else p
        norm = sum(abs(float(c[place])) ** p for place in np.ndindex(c.shape)) ** (1 / p)
        for place in np.ndindex(c.shape):
            x = float(c[place])
            out[place] = sign(x) * abs(x) ** (p - 1) / norm ** (p - 1)
    elif name == "group":
        for row in range(c.shape[0]) if c.ndim else [()]:
            out[row] = c[row] / math.sqrt(float((c[row] ** 2).sum()))
    else:
        rows = c.reshape(c.shape[0], -1) if c.ndim > 1 else c.reshape(-1, 1)
        left, _, right = np.linalg.svd(rows, full_matrices=False)
        out = (left @ right).reshape(c.shape)
    return out


def by_hand(
    values: Values,
    s: Mapping[str, Any],
    gradient_at: Callable[[Values], Values] = slopes,
    steps: int = STEPS,
) -> Values:
    """The updates of the paper, in which -m is its momentum."""
    values = {name: value.copy() for name, value in values.items()}
    memory = {name: np.zeros_like(value) for name, value in values.items()}
    (b1, b2), lr, wd = s["betas"], s["lr"], s["weight_decay"]
    for _ in range(steps):
        gradient = gradient_at(values)
        for key, x in values.items():
            g, m = gradient[key], memory[key]
            if not s.get("decoupled_weight_decay", True):
                g, wd = g + s["weight_decay"] * x, 0.0
            direction = mapped(s["kappa"], b1 * m + (1 - b1) * g, s["p"], s["threshold"])
            values[key] = x - lr * (direction + wd * x)
            memory[key] = b2 * m + (1 - b2) * g
    return values


def make(params: Any, name: str, **settings: Any) -> LionK:
    options = {"p": P, "threshold": THRESHOLD, "engine": "eager", **settings}
    return LionK(params, kappa=name, **options)


def numbers(params: dict[str, nn.Parameter]) -> Values:
    return {name: p.detach().numpy().copy() for name, p in params.items()}


def run(optimizer: Any, closure: Callable[[], Tensor], steps: int = 30) -> None:
    for _ in range(steps):
        optimizer.step(closure)


# The program -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.0, 0.5), (0.7, 0.7), (0.5, 0.0)])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_equals_the_program(name: str, betas: tuple[float, float], decay: float) -> None:
    params, closure = bend()
    start = numbers(params)
    settings: dict[str, Any] = {"lr": 0.011, "betas": betas, "weight_decay": decay}
    expected = by_hand(start, {"kappa": name, "p": P, "threshold": THRESHOLD, **settings})
    run(make(params.items(), name, **settings), closure, STEPS)
    for key, p in params.items():
        np.testing.assert_allclose(p.detach().numpy(), expected[key], rtol=1e-9, atol=1e-11)
        assert not np.allclose(expected[key], start[key], rtol=1e-2)


def test_groups_may_have_maps_of_their_own() -> None:
    """Each group as if it were alone, where the loss does not couple them."""
    rng = np.random.default_rng(1)
    starts = {name: torch.tensor(rng.normal(size=(4, 3))) for name in NAMES}
    together = {name: nn.Parameter(x.clone()) for name, x in starts.items()}
    alone = {name: nn.Parameter(x.clone()) for name, x in starts.items()}
    groups = [{"params": [(name, p)], "kappa": name} for name, p in together.items()]
    run(make(groups, "l1", lr=0.01), lambda: sum((p**4).sum() for p in together.values()))  # type: ignore[arg-type,return-value]
    for name, p in alone.items():
        run(make([(name, p)], name, lr=0.01), lambda p=p: (p**4).sum())
        assert torch.equal(p, together[name])


@pytest.mark.parametrize("name", NAMES)
def test_parameters_without_gradient_stay(name: str) -> None:
    used, unused = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))
    optimizer = make([("used", used), ("unused", unused)], name, lr=0.1, weight_decay=0.5)
    run(optimizer, lambda: (used**2).sum(), 3)
    assert torch.equal(unused, torch.ones(3, 2))
    assert not torch.equal(used, torch.ones(3, 2))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_directions_are_made_in_float32(name: str, dtype: torch.dtype) -> None:
    """One step from zero memory: the map of 0.1 g, rounded once."""
    slope = torch.tensor(np.random.default_rng(2).normal(size=(4, 3))).to(dtype)
    x = nn.Parameter(torch.zeros(4, 3, dtype=dtype))
    optimizer = make([x], name, lr=0.25)
    optimizer.step(lambda: (slope * x).float().sum())
    move = kappa(name, p=P, threshold=THRESHOLD).gradient(slope.double() * (1.0 - 0.9))
    torch.testing.assert_close(x.double(), (-0.25 * move).to(dtype).double(), rtol=1e-2, atol=1e-4)
    assert optimizer.state[x]["exp_avg"].dtype is torch.float32


@pytest.mark.parametrize("name", ["l2", "lp", "group", "spectral"])
@pytest.mark.parametrize("state", ["bf16", "8bit"])
def test_reduced_state_stays_near(name: str, state: str) -> None:
    """Maps of the whole tensor read the memory that is kept."""
    rng = np.random.default_rng(3)
    start, target = (torch.tensor(rng.normal(size=(80, 64))).float() for _ in range(2))
    ends: list[Tensor] = []
    for precision in ("fp32", state):
        x = nn.Parameter(start.clone())
        optimizer = make([x], name, lr=1e-2, state=precision)
        run(optimizer, lambda x=x: ((x - target) ** 2).sum(), 20)
        ends.append(x.detach())
    moved = (ends[0] - start).norm()
    assert 0 < (ends[1] - ends[0]).norm() < 0.1 * moved


@pytest.mark.parametrize("name", NAMES)
def test_coupled_decay_goes_through_the_map(name: str) -> None:
    """The same run as with the penalty written into the loss."""
    ends: list[Values] = []
    for coupled in (True, False):
        params, closure = bend()

        def penalised(params: Any = params, closure: Any = closure) -> Tensor:
            return closure() + 0.15 * sum((p**2).sum() for p in params.values())

        settings = {"weight_decay": 0.3, "decoupled_weight_decay": False} if coupled else {}
        optimizer = make(params.items(), name, lr=0.01, **settings)
        run(optimizer, closure if coupled else penalised)
        assert all(b.radius == math.inf for b in optimizer.bound().values())
        ends.append(numbers(params))
    for key, expected in ends[1].items():
        np.testing.assert_allclose(ends[0][key], expected, rtol=1e-9, atol=1e-11)


# Limit cases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_l1_is_lion_bit_for_bit(dtype: torch.dtype) -> None:
    runs: list[list[Tensor]] = []
    for method in (Lion, LionK):
        params, closure = bend(dtype)
        optimizer = method(params.items(), lr=0.02, weight_decay=0.1, engine="eager")
        run(optimizer, closure)
        runs.append([p.detach() for p in params.values()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_squared_is_sgd_with_momentum_and_decay() -> None:
    """With equal betas; SGD's first velocity is the whole gradient, so it begins after one."""
    params, closure = bend()
    twins = {name: nn.Parameter(p.detach().clone()) for name, p in params.items()}
    beta, lr, decay = 0.8, 0.05, 0.3
    ours = make(params.items(), "squared", lr=lr, betas=(beta, beta), weight_decay=decay)
    theirs = SGD(
        twins.items(), lr=lr * (1 - beta), momentum=beta, weight_decay=decay / (1 - beta),
        decoupled_weight_decay=True, engine="eager",
    )  # fmt: skip
    for _ in range(STEPS):
        ours.step(closure)
        for name, p in twins.items():
            p.grad = torch.tensor(slopes(numbers(twins))[name])
        theirs.step()
    for name, p in params.items():
        torch.testing.assert_close(p, twins[name], rtol=1e-10, atol=1e-12)


def test_narrow_huber_soft_of_width_zero_and_exponent_one_are_lion() -> None:
    ends: list[list[Tensor]] = []
    for settings in (
        {"kappa": "l1"},
        {"kappa": "huber", "threshold": 1e-300},
        {"kappa": "soft", "threshold": 0.0},
        {"kappa": "lp", "p": 1.0},
    ):
        params, closure = bend()
        run(LionK(params.items(), lr=0.01, weight_decay=0.2, engine="eager", **settings), closure)
        ends.append([p.detach() for p in params.values()])
    assert all(torch.equal(a, b) for end in ends[1:] for a, b in zip(end, ends[0], strict=True))


def test_wide_huber_is_squared_with_a_smaller_step() -> None:
    ends: list[Values] = []
    for name, width, lr in (("huber", 1e4, 100.0), ("squared", 1.0, 0.01)):
        params, closure = bend()
        run(make(params.items(), name, threshold=width, lr=lr), closure)
        ends.append(numbers(params))
    for key, value in ends[0].items():
        np.testing.assert_allclose(value, ends[1][key], rtol=1e-9)


def test_group_on_rows_is_l2_on_each_row() -> None:
    rng = np.random.default_rng(8)
    start, target = (torch.tensor(rng.normal(size=(4, 3))) for _ in range(2))
    whole = nn.Parameter(start.clone())
    rows = [nn.Parameter(row.clone()) for row in start]
    run(make([whole], "group", lr=0.01, weight_decay=0.2), lambda: ((whole - target) ** 2).sum())
    run(
        make(rows, "l2", lr=0.01, weight_decay=0.2),
        lambda: ((torch.stack([*rows]) - target) ** 2).sum(),
    )
    torch.testing.assert_close(whole, torch.stack([*rows]), rtol=1e-11, atol=1e-13)


def test_a_vector_makes_spectral_l2_and_group_l1() -> None:
    for one, other in (("spectral", "l2"), ("group", "l1")):
        ends: list[Tensor] = []
        for name in (one, other):
            x = nn.Parameter(torch.arange(1.0, 6.0, dtype=torch.float64))
            run(make([x], name, lr=0.01), lambda x=x: (x**4).sum())
            ends.append(x.detach())
        torch.testing.assert_close(*ends, rtol=1e-11, atol=1e-13)


# Polar factors by products ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_products_give_the_exact_factor(dtype: torch.dtype) -> None:
    """Several shapes and sizes of momentum at once."""
    rng = np.random.default_rng(4)
    shapes = [(5, 3), (3, 5), (5, 3), (4, 2, 3), (6,), ()]
    scales = [1.0, 1e-25, 1e15, 1.0, 1.0, 1.0]
    slope = [torch.tensor(rng.normal(size=s) * k).to(dtype)
             for s, k in zip(shapes, scales, strict=True)]  # fmt: skip
    moves: list[list[Tensor]] = []
    for polar in ("svd", "newton-schulz"):
        xs = [nn.Parameter(torch.zeros(s, dtype=dtype)) for s in shapes]
        optimizer = make(xs, "spectral", lr=1.0, polar=polar)
        optimizer.step(
            lambda xs=xs: sum((g * x).sum() for g, x in zip(slope, xs, strict=True))  # type: ignore[return-value]
        )
        moves.append([x.detach() for x in xs])
    for exact, close in zip(*moves, strict=True):
        torch.testing.assert_close(
            close, exact, rtol=0, atol=3e-6 if dtype is torch.float32 else 1e-9
        )
        assert close.dtype is dtype


def test_products_keep_to_the_ball_whatever_the_condition() -> None:
    """Singular values over twelve decades: small ones fall short, none exceeds 1."""
    rng = np.random.default_rng(6)
    left, right = (torch.linalg.qr(torch.tensor(rng.normal(size=(30, 30))))[0] for _ in range(2))
    sizes = torch.logspace(-12, 0, 30, dtype=torch.float64)
    slope = left @ torch.diag(sizes) @ right
    x = nn.Parameter(torch.zeros(30, 30, dtype=torch.float64))
    make([x], "spectral", lr=1.0, polar="newton-schulz").step(lambda: (slope * x).sum())
    found = torch.linalg.svdvals(x.detach())
    assert found.max() < 1 + 1e-12
    assert found[:12].min() > 1 - 1e-9
    assert found.min() < 1e-3


def test_auto_decomposes_what_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    by_products = lion_k._factors

    def counted(matrices: dict[int, Tensor]) -> dict[int, Tensor]:
        calls.append(len(matrices))
        return by_products(matrices)

    monkeypatch.setattr(lion_k, "_factors", counted)
    params, closure = bend()
    run(make(params.items(), "spectral", lr=0.01), closure, 1)
    monkeypatch.setitem(lion_k.EXACT_SIDE, "cpu", 2)
    run(make(params.items(), "spectral", lr=0.01), closure, 1)
    assert calls == [0, 2]  # then the kernel of 3 x 4 and the matrix of 4 x 3


# Decay as a radius -----------------------------------------------------------------------------


def measured(name: str, x: Tensor) -> float:
    """The norm that the decay of each map bounds, by NumPy."""
    value = x.detach().numpy()
    rows = value.reshape(value.shape[0], -1)
    return float({
        "l1": np.abs(value).max(),
        "huber": np.abs(value).max(),
        "soft": np.abs(value).max(),
        "l2": np.linalg.norm(value),
        "lp": (np.abs(value) ** (P / (P - 1))).sum() ** ((P - 1) / P),
        "group": np.sqrt((rows**2).sum(1)).max(),
        "spectral": np.linalg.norm(rows, 2),
    }[name])  # fmt: skip


@pytest.mark.parametrize("name", BOUNDED)
def test_the_way_into_the_ball_and_never_out(name: str) -> None:
    """Outside, the distance falls by 1 - lr wd a step, whatever the gradient; inside it stays."""
    rng = np.random.default_rng(9)
    lr, decay = 0.05, 2.0
    x = nn.Parameter(torch.tensor(rng.normal(size=(4, 3)) * 3))
    optimizer = make([("x", x)], name, lr=lr, weight_decay=decay)
    outside = measured(name, x) - 1 / decay
    assert outside > 0.5
    for step in range(300):
        noise = torch.tensor(rng.normal(size=(4, 3)) * 10.0 ** rng.integers(-3, 4))
        optimizer.step(lambda noise=noise: (x * noise).sum())
        now = measured(name, x) - 1 / decay
        assert now <= max(outside, 0.0) * (1 - lr * decay) + 1e-12, f"step {step}"
        outside = now
        found = optimizer.bound()["x"]
        assert found.size == pytest.approx(now + 1 / decay, rel=1e-9)
        assert found.radius == 0.5
    assert outside < 1e-12


@pytest.mark.parametrize("name", BOUNDED)
def test_ends_at_the_constrained_optimum(name: str) -> None:
    """Of a squared distance to a point far outside: the projection, and what penalties leave."""
    rng = np.random.default_rng(10)
    target = torch.tensor(rng.normal(size=(4, 3)) * 4)
    x = nn.Parameter(torch.zeros(4, 3, dtype=torch.float64))
    decay = 1.0
    optimizer = make([("x", x)], name, lr=0.08, weight_decay=decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t / 25))
    for _ in range(1000):
        optimizer.step(lambda: ((x - target) ** 2).sum() / 2)
        scheduler.step()
    np.testing.assert_allclose(x.detach(), optimum(name, target.numpy(), decay), atol=4e-3)


def optimum(name: str, target: np.ndarray, decay: float) -> np.ndarray:
    """Minimum of ``|x - target|^2 / 2 + kappa*(decay x) / decay`` in closed form."""
    radius = 1 / decay
    if name == "l1":
        return target.clip(-radius, radius)
    if name == "huber":  # a ridge of decay * threshold inside the box
        return (target / (1 + decay * THRESHOLD)).clip(-radius, radius)
    if name == "soft":  # shrunk by the threshold inside the box
        return (np.sign(target) * np.maximum(np.abs(target) - THRESHOLD, 0)).clip(-radius, radius)
    if name == "l2":
        return target * min(1.0, radius / np.linalg.norm(target))
    if name == "group":
        norms = np.sqrt((target**2).sum(1, keepdims=True))
        return target * np.minimum(1.0, radius / norms)
    if name == "spectral":
        left, sizes, right = np.linalg.svd(target, full_matrices=False)
        return left @ np.diag(sizes.clip(max=radius)) @ right
    return projection(target, P / (P - 1), radius)


def projection(target: np.ndarray, q: float, radius: float) -> np.ndarray:
    """The nearest point of a q-ball, by bisection on its multiplier."""

    def point(multiplier: float) -> np.ndarray:
        low, high = np.zeros_like(target), np.abs(target)
        for _ in range(100):  # y + multiplier q y^(q-1) = |target|, element by element
            middle = (low + high) / 2
            above = middle + multiplier * q * middle ** (q - 1) > np.abs(target)
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return low

    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        if (point(middle) ** q).sum() > radius**q:
            low = middle
        else:
            high = middle
    return np.sign(target) * point(high)


def test_squared_decay_is_a_ridge_without_bounds() -> None:
    target = torch.tensor([4.0, -2.0], dtype=torch.float64)
    x = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = make([("x", x)], "squared", lr=0.1, weight_decay=3.0)
    run(optimizer, lambda: ((x - target) ** 2).sum() / 2, 2000)
    torch.testing.assert_close(x.detach(), target / 4)
    assert optimizer.bound() == {}


def test_the_radius_is_explained() -> None:
    params = [("a", nn.Parameter(torch.ones(2, 2))), ("b", nn.Parameter(torch.ones(2)))]
    words = make(params, "spectral", weight_decay=0.25).explain()
    assert words.count("decay draws it into largest singular value of x <= 4") == 2
    assert "decay draws" not in make(params, "spectral").explain()
    assert "decay draws" not in make(params, "squared", weight_decay=0.25).explain()
    assert "decay draws" not in make(params, "l1", weight_decay=0.25, cautious=True).explain()
    assert "max |x| <= 4" in Lion(params, weight_decay=0.25).explain()


# Lyapunov --------------------------------------------------------------------------------------


def quadratic(seed: int) -> tuple[nn.Parameter, Callable[[], Tensor], float]:
    """Half a squared distance in a tilted metric; the largest curvature is returned too."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    curvatures = np.logspace(-1, 1, 12)
    metric = torch.tensor(basis @ np.diag(curvatures) @ basis.T)
    target = torch.tensor(rng.normal(size=12) * 2)
    x = nn.Parameter(torch.tensor(rng.normal(size=(4, 3)) * 0.05))

    def closure() -> Tensor:
        away = x.flatten() - target
        return away @ metric @ away / 2

    return x, closure, 10.0


def pieces(name: str, x: np.ndarray, m: np.ndarray, decay: float, c: float, loss: float) -> float:
    """H by hand, for a point inside the ball."""
    of = kappa(name, p=P, threshold=THRESHOLD)
    value = float(of.value(torch.tensor(m)))
    y = decay * x
    conjugate = {"squared": (y**2).sum() / 2, "huber": THRESHOLD * (y**2).sum() / 2,
                 "soft": THRESHOLD * np.abs(y).sum()}.get(name, 0.0)  # fmt: skip
    bracket = conjugate + value + float((m * y).sum())
    assert bracket >= -1e-12
    return loss + (conjugate / decay if decay else 0.0) + c * bracket


def source(name: str, x: Tensor, decay: float) -> Tensor:
    """A point where the gradient of each function is ``-decay x``, inside the ball."""
    points = {
        "squared": -decay * x,
        "huber": -THRESHOLD * decay * x,
        "soft": -THRESHOLD * x.sign() if decay else torch.zeros_like(x),
    }
    return points.get(name, torch.zeros_like(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("decay", [0.0, 0.7])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.8, 0.8), (0.0, 0.9)])
def test_lyapunov_falls_up_to_the_error_of_the_step(
    name: str, decay: float, betas: tuple[float, float]
) -> None:
    """Every step: the function of the class, by hand, and the whole inequality."""
    x, closure, curvature = quadratic(11)
    lr, (b1, b2) = 2e-3, betas
    optimizer = make([("x", x)], name, lr=lr, betas=betas, weight_decay=decay)
    of = kappa(name, p=P, threshold=THRESHOLD)
    implicit = lr / (1 - lr * decay)
    c = implicit * b1 / (implicit * decay * (1 - b1) + 1 - b2)
    before = optimizer.lyapunov(closure().detach())
    first = before
    for _ in range(80):
        old, kept = x.detach().clone(), optimizer.buffer("exp_avg")["x"].clone()
        loss = optimizer.step(closure)
        assert loss is not None
        x_now, m_now = x.detach(), optimizer.buffer("exp_avg")["x"]
        after = optimizer.lyapunov(closure().detach())
        by_hand = pieces(name, x_now.numpy(), m_now.numpy(), decay, c, float(closure().detach()))
        assert after == pytest.approx(by_hand, rel=1e-12)
        # Delta 1 between the mixture and the point n whose gradient is -decay x, and Delta 2
        # between the new memory and the mixture.
        slope = (m_now - b2 * kept) / (1 - b2)
        mixture = b1 * kept + (1 - b1) * slope
        gap = of.gradient(m_now) - of.gradient(mixture)
        spread = float(((m_now - mixture) * gap).sum())
        fall = c * (1 - b2) / (b2 - b1) * spread if b2 > b1 else 0.0
        rest = source(name, x_now, decay) - mixture
        distance = float((rest * (-decay * x_now - of.gradient(mixture))).sum())
        assert distance >= -1e-12
        fall += (1 + c * decay) * implicit * distance
        error = curvature / 2 * float(((x_now - old) ** 2).sum())
        assert spread >= -1e-12
        assert after - before <= -fall + error + 1e-10
        before = after
    assert before < first


@pytest.mark.parametrize("name", NAMES)
def test_small_steps_fall_all_the_way_down(name: str) -> None:
    """The fall per step is of order lr, its error of order lr squared."""
    rises: list[float] = []
    for lr in (5e-2, 5e-3):
        x, closure, _ = quadratic(12)
        optimizer = make([("x", x)], name, lr=lr, betas=(0.9, 0.99), weight_decay=0.5)
        levels: list[float] = []
        for _ in range(int(2 / lr)):
            optimizer.step(closure)
            levels.append(optimizer.lyapunov(closure().detach()))
        rises.append(max(np.diff(levels).max(), 0.0))
        assert levels[-1] < levels[0]
    # sign-like maps rattle at the optimum with steps of size lr: a rise of order lr squared
    assert rises[1] <= max(rises[0] / 30, 1e-9)


def test_lyapunov_is_infinite_outside_the_ball() -> None:
    x = nn.Parameter(torch.tensor([3.0, 0.1]))
    optimizer = make([x], "l1", lr=0.1, weight_decay=0.5)
    assert optimizer.lyapunov(1.0) == math.inf
    with torch.no_grad():
        x.copy_(torch.tensor([2.0, 0.1]))
    assert optimizer.lyapunov(1.0) == 1.0
    assert make([x], "l1", lr=0.1).lyapunov(torch.tensor(1.5)) == 1.5


def test_lyapunov_stays_finite_on_the_rim_in_float32() -> None:
    """Steps round; the weights creep up to the radius and a little over it."""
    x = nn.Parameter(torch.zeros(3))
    optimizer = make([("x", x)], "l1", lr=1e-2, weight_decay=3.0)
    for _ in range(800):
        loss = optimizer.step(lambda: -x.sum())
    assert loss is not None
    assert optimizer.bound()["x"].size == pytest.approx(1 / 3, rel=1e-4)
    assert math.isfinite(optimizer.lyapunov(loss))


def test_lyapunov_of_coupled_decay_holds_the_penalty() -> None:
    x = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = make([x], "l1", weight_decay=0.5, decoupled_weight_decay=False)
    assert optimizer.lyapunov(1.0) == pytest.approx(1.0 + 0.5 / 2 * 25)


def test_lyapunov_climbs_down_where_the_method_climbs() -> None:
    x = nn.Parameter(torch.ones(2))
    assert make([x], "l1", maximize=True).lyapunov(3.0) == -3.0


# Words and numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_asks_for_one_gradient_and_keeps_one_number(name: str) -> None:
    params, closure = bend()
    optimizer = make(params.items(), name)
    for step in range(1, 4):
        optimizer.step(closure)
        optimizer.bound()
        calls = optimizer.calls.to_dict()
        calls.pop("seconds")
        assert {key: count for key, count in calls.items() if count} == {"grads": step}
    kept = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    assert sum(v.numel() for v in kept) == sum(p.numel() for p in params.values())


def test_tensors_without_elements_are_no_trouble() -> None:
    for name in NAMES:
        empty, x = nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.ones(2))
        optimizer = make([("empty", empty), ("x", x)], name, lr=0.1, weight_decay=0.5)
        run(optimizer, lambda: empty.sum() + (x**2).sum(), 2)  # noqa: B023 - used within the loop
        assert "empty" not in optimizer.bound()
        assert math.isfinite(optimizer.lyapunov(1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kappa": "linf"}, "kappa: expected one of"),
        ({"p": 0.5}, "p: expected a value >= 1"),
        ({"threshold": -1.0}, "threshold: expected a value >= 0"),
        ({"kappa": "huber", "threshold": 0.0}, "kappa='l1' is the limit"),
        ({"polar": "qr"}, "polar: expected one of"),
        ({"betas": (0.9, 1.0)}, "betas"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(HyperError, match=message):
        LionK([nn.Parameter(torch.ones(1))], **settings)


def test_steps_that_forget_everything_have_no_lyapunov_function() -> None:
    optimizer = make([nn.Parameter(torch.zeros(1))], "l1", lr=0.5, weight_decay=2.0)
    with pytest.raises(HyperError, match=r"lr \* weight_decay below 1"):
        optimizer.lyapunov(0.0)


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = LionK
    reference_settings = (
        {},
        *({"kappa": name, "lr": 0.011, "p": P, "threshold": THRESHOLD} for name in NAMES),
        *({"kappa": name, "betas": (0.5, 0.9), "weight_decay": 0.5} for name in ("l2", "huber")),
        {"kappa": "group", "lr": 0.01, "weight_decay": 0.5, "decoupled_weight_decay": False},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        return by_hand(values, options, world.gradient, steps)
