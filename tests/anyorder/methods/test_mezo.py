"""MeZO: its formulas by hand, exactness on quadratics, statistics, and unharmed weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder.engine import Engine
from anyorder.hyper import HyperError
from anyorder.methods.mezo import MeZO
from anyorder.oracle.gradients import NonFiniteError
from anyorder.oracle.ledger import Budget, BudgetExhausted
from anyorder.points.directions import BLOCK, Seeded
from anyorder.testing import MethodContract, Values, World

EAGER = Engine("eager")
STEPS = 30


def schedule(step: int) -> float:
    return 1.0 - step / STEPS


# A function in numpy and in torch --------------------------------------------------------------


def wave(parts: dict[str, np.ndarray]) -> float:
    m, v, s = parts["matrix"], parts["vector"], parts["scalar"]
    return float(np.sin(m).sum() + (v**4).sum() / 4 + (m.sum() * s - v.sum()) ** 2 / 2)


def waving() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor]]:
    """:func:`wave` as parameters and a closure."""
    rng = np.random.default_rng(6)
    shapes = {"matrix": (3, 4), "vector": (5,), "scalar": ()}
    params = {
        name: nn.Parameter(torch.tensor(rng.normal(size=shape))) for name, shape in shapes.items()
    }

    def closure() -> Tensor:
        m, v, s = params.values()
        return m.sin().sum() + (v**4).sum() / 4 + (m.sum() * s - v.sum()) ** 2 / 2

    return params, closure


def noise(values: Values, seed: int, step: int, index: int) -> Values:
    """The direction, taken as given; the paper asks for standard normals and no more."""
    direction = Seeded(seed, step, index, "normal")
    like = {name: torch.zeros(np.shape(v), dtype=torch.float64) for name, v in values.items()}
    return {name: direction.tensor(name, tensor).numpy() for name, tensor in like.items()}


def by_hand(
    x: Values,
    eps: float,
    directions: int,
    settings: Mapping[str, Mapping[str, Any]],
    seed: int,
    value_at: Callable[[Values], float] = wave,
    steps: int = STEPS,
    schedule: Callable[[int], float] = schedule,
) -> tuple[Values, list[float]]:
    """Algorithms 1 and 2 (n-SPSA) of Malladi et al. (2023), decay as in their code.

    x <- x - (lr / n) sum g_i z_i - lr decay x, the decay for matrices alone.
    """
    x = dict(x)
    losses: list[float] = []
    for step in range(steps):
        moves = {name: np.zeros_like(value) for name, value in x.items()}
        seen: list[float] = []
        for index in range(directions):
            z = noise(x, seed, step, index)
            ahead = value_at({name: x[name] + eps * z[name] for name in x})
            behind = value_at({name: x[name] - eps * z[name] for name in x})
            seen += [ahead, behind]
            for name in x:
                moves[name] += (ahead - behind) / (2 * eps) * z[name] / directions
        losses.append(sum(seen) / len(seen))
        for name, value in x.items():
            decay = settings[name]["weight_decay"] if value.ndim > 1 else 0.0
            lr = settings[name]["lr"] * schedule(step)
            x[name] = value - lr * (moves[name] + decay * value)
    return x, losses


@pytest.mark.parametrize(("eps", "directions"), [(1e-3, 1), (1e-2, 3), (0.5, 2)])
def test_equals_the_algorithm_in_numpy(eps: float, directions: int) -> None:
    params, closure = waving()
    groups = {
        "matrix": {"lr": 0.01, "weight_decay": 0.3},
        "vector": {"lr": 0.002, "weight_decay": 0.3},
        "scalar": {"lr": 0.005, "weight_decay": 0.0},
    }
    start = {name: p.detach().numpy().copy() for name, p in params.items()}
    expected, losses = by_hand(start, eps, directions, groups, seed=9)
    optimizer = MeZO(
        [{"params": [(name, p)], **groups[name]} for name, p in params.items()],
        eps=eps,
        directions=directions,
        seed=9,
        engine="eager",
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    for step in range(STEPS):
        loss = optimizer.step(closure)
        assert loss is not None and loss.item() == pytest.approx(losses[step], rel=1e-8, abs=1e-8)
        scheduler.step()
    for name, p in params.items():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=1e-7, atol=1e-9)
        assert not np.allclose(expected[name], start[name], rtol=1e-3)


# Limit cases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [1e-3, 1.0, 30.0])
def test_difference_of_two_sides_is_exact_on_quadratics(eps: float) -> None:
    """The slope along z is z . grad f for every eps, so the step is -lr (z . grad f) z."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=(6, 6))
    b, start = rng.normal(size=6), rng.normal(size=6)
    matrix, offset = torch.tensor(a + a.T), torch.tensor(b)
    x = nn.Parameter(torch.tensor(start))
    optimizer = MeZO([("x", x)], lr=0.01, eps=eps, seed=2, engine="eager")
    z = Seeded(2, 0, 0).tensor("x", x.detach()).numpy()
    slope = z @ ((a + a.T) @ start + b)
    loss = optimizer.step(lambda: x @ matrix @ x / 2 + offset @ x)
    np.testing.assert_allclose(x.detach().numpy(), start - 0.01 * slope * z, rtol=1e-8)
    mean = start @ (a + a.T) @ start / 2 + b @ start + eps**2 * z @ (a + a.T) @ z / 2
    assert loss is not None and loss.item() == pytest.approx(mean, rel=1e-9)


def test_even_functions_have_no_slope_at_their_centre() -> None:
    x = nn.Parameter(torch.zeros(5))
    optimizer = MeZO([("x", x)], lr=1.0, eps=0.5, engine="eager")
    for _ in range(5):
        optimizer.step(lambda: x.cosh().sum())
    assert bool((x == 0).all())


def test_step_size_scales_the_first_move() -> None:
    moved: list[Tensor] = []
    for lr in (1e-3, 2e-3):
        params, closure = waving()
        before = params["matrix"].detach().clone()
        MeZO(params.items(), lr=lr, engine="eager").step(closure)
        moved.append(params["matrix"].detach() - before)
    torch.testing.assert_close(moved[1], 2 * moved[0], rtol=1e-9, atol=1e-12)


def test_decay_skips_what_is_not_a_matrix() -> None:
    params = {
        "matrix": nn.Parameter(torch.ones(2, 2, dtype=torch.float64)),
        "vector": nn.Parameter(torch.ones(3, dtype=torch.float64)),
        "scalar": nn.Parameter(torch.ones((), dtype=torch.float64)),
    }
    optimizer = MeZO(params.items(), lr=0.1, weight_decay=0.5, engine="eager")
    for step in range(1, 5):
        optimizer.step(lambda: 0.0 * torch.stack([p.sum() for p in params.values()]).sum())
        np.testing.assert_allclose(params["matrix"].tolist(), 0.95**step, rtol=1e-13)
        assert params["vector"].tolist() == [1.0] * 3 and params["scalar"].item() == 1.0


def test_frozen_parameters_are_neither_moved_nor_perturbed() -> None:
    x = nn.Parameter(torch.ones(3))
    frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    seen: list[list[float]] = []

    def closure() -> Tensor:
        seen.append((frozen * 1).tolist())
        return (x * frozen).sum()

    optimizer = MeZO([("x", x), ("frozen", frozen)], lr=0.1, eps=0.5, engine="eager")
    optimizer.step(closure)
    assert seen == [[1.0] * 3] * 2
    assert frozen.tolist() == [1.0] * 3 and x.tolist() != [1.0] * 3


def test_a_parameter_frozen_for_one_step_stands_still_for_that_step() -> None:
    a, b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    optimizer = MeZO([a, b], lr=0.1, engine="eager")
    here: list[Tensor] = []
    for trainable in (True, False, True):
        b.requires_grad_(trainable)
        here.append(b.detach().clone())
        before = a.detach().clone()
        optimizer.step(lambda: (a * b).sum() + (a**2).sum())
        assert not torch.equal(a, before)
    assert not torch.equal(here[1], here[0]) and torch.equal(here[2], here[1])
    assert not torch.equal(b, here[2])


def test_step_sizes_may_be_tensors_and_climbing_is_descent_on_minus_the_loss() -> None:
    def ends(climb: bool, *lrs: Any) -> list[Tensor]:
        params = [nn.Parameter(torch.full((2, 2), 0.7)) for _ in lrs]
        groups = [{"params": p, "lr": lr} for p, lr in zip(params, lrs, strict=True)]
        optimizer = MeZO(groups, weight_decay=0.1, directions=2, maximize=climb, engine="eager")
        sign = -1.0 if climb else 1.0
        for _ in range(3):
            optimizer.step(lambda: sign * sum((p**4).sum() for p in params))
        return [p.detach() for p in params]

    plain = ends(False, 0.01, 0.5)
    assert all(map(torch.equal, ends(True, 0.01, 0.5), plain))
    tensors = [torch.tensor(lr, dtype=torch.float64) for lr in (0.01, 0.5)]
    assert all(map(torch.equal, ends(False, *tensors), plain))


def test_directions_belong_to_the_seed_and_not_to_the_global_generator() -> None:
    runs: list[Tensor] = []
    for seed, chance in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(chance)
        params, closure = waving()
        optimizer = MeZO(params.items(), lr=1e-3, seed=seed, engine="eager")
        for _ in range(3):
            optimizer.step(closure)
        runs.append(params["matrix"].detach())
    assert torch.equal(runs[0], runs[1])
    assert not torch.allclose(runs[0], runs[2])


def test_both_sides_of_a_difference_see_one_dropout_mask() -> None:
    x = nn.Parameter(torch.ones(64))
    masks: list[Tensor] = []

    def closure() -> Tensor:
        mask = F.dropout(torch.ones(64), 0.5)
        masks.append(mask)
        return (x * mask).sum()

    optimizer = MeZO([("x", x)], directions=2, engine="eager")
    for _ in range(2):
        optimizer.step(closure)
    assert all(torch.equal(masks[0], m) for m in masks[1:4])
    assert not torch.equal(masks[0], masks[4])


# Statistics ------------------------------------------------------------------------------------


def test_mean_over_directions_is_the_gradient() -> None:
    """E[z z' g] = g; an entry's variance is |g|^2 + g_i^2, which bounds the error."""
    params, closure = waving()
    value = closure()
    grads = dict(zip(params, torch.autograd.grad(value, list(params.values())), strict=True))
    n = 1500
    before = {name: p.detach().clone() for name, p in params.items()}
    MeZO(params.items(), lr=1.0, eps=1e-4, directions=n, engine="eager").step(closure)
    square = sum(float((g**2).sum()) for g in grads.values())
    for name, g in grads.items():
        found = before[name] - params[name].detach()
        bound = 5 * ((square + g**2) / n).sqrt()
        assert bool(((found - g).abs() < bound).all())
        assert float((found - g).abs().max()) > 0


def test_directions_are_standard_normal_also_beyond_one_block() -> None:
    """A slope of one at a single place reads off that place's z."""
    size = BLOCK + 5_001
    x = nn.Parameter(torch.zeros(size))
    optimizer = MeZO([("x", x)], lr=1.0, eps=1.0, engine="eager")
    optimizer.step(lambda: x[0])
    z = x.detach().double() / math.sqrt(-x[0].item())  # x is -z[0] z, so this is z up to its sign
    assert abs(float(z.mean())) < 5 / math.sqrt(size)
    assert abs(float(z.std()) - 1) < 5 / math.sqrt(2 * size)
    assert abs(float((z**4).mean()) - 3) < 5 * math.sqrt(96 / size)
    lagged = (z[:-1] * z[1:]).mean()
    assert abs(float(lagged)) < 5 / math.sqrt(size)


# Ledger ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("directions", [1, 3])
def test_asks_for_two_values_per_direction(directions: int) -> None:
    params, closure = waving()
    runs = 0

    def counted() -> Tensor:
        nonlocal runs
        runs += 1
        return closure()

    optimizer = MeZO(params.items(), directions=directions, engine="eager")
    for step in range(1, 5):
        optimizer.step(counted)
        calls = optimizer.calls.to_dict()
        assert calls.pop("seconds") > 0
        assert {name: count for name, count in calls.items() if count} == {
            "values": 2 * directions * step
        }
        assert runs == 2 * directions * step
    assert optimizer.state_bytes() == 0


def test_budget_ends_a_step_of_several_directions_before_it_moves() -> None:
    params, closure = waving()
    optimizer = MeZO(params.items(), lr=0.1, directions=3, budget=Budget(values=10), engine="eager")
    optimizer.step(closure)
    before = {name: p.detach().clone() for name, p in params.items()}
    with pytest.raises(BudgetExhausted):
        optimizer.step(closure)
    assert optimizer.calls.values == 10
    assert all(torch.equal(p, before[name]) for name, p in params.items())


# Weights stay what they are --------------------------------------------------------------------


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def unharmed(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_unharmed_after_a_thousand_evaluations(dtype: torch.dtype) -> None:
    """Adding and subtracting noise in place moves bfloat16 weights by 12 % in that time."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(80, 60), nn.Tanh(), nn.Linear(60, 3)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.02)
    x = torch.randn(4, 80).to(dtype)
    before = weights(model)
    optimizer = MeZO(model, lr=0.0, eps=1e-2, engine="eager")
    seen: set[float] = set()
    for _ in range(500):
        loss = optimizer.step(lambda: (model(x).float() ** 2).mean())
        assert loss is not None
        seen.add(loss.item())
    assert optimizer.calls.values == 1000
    assert unharmed(model, before)
    assert len(seen) > 400  # and they were perturbed all the time


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("fatal", [1, 2, 3])
def test_weights_are_unharmed_when_the_closure_raises(fatal: int, hidden: bool) -> None:
    torch.manual_seed(0)
    model: Any = nn.Linear(4, 3)
    if hidden:
        model = scripted(model)
    x = torch.randn(5, 4)
    before = weights(model)
    runs = 0

    def closure() -> Tensor:
        nonlocal runs
        runs += 1
        loss = (model(x) ** 2).mean()
        if runs == fatal:
            raise KeyboardInterrupt
        return loss

    optimizer = MeZO(model, lr=0.0, eps=0.3, engine="eager")
    with pytest.raises(KeyboardInterrupt):
        for _ in range(2):
            optimizer.step(closure)
    assert runs == fatal
    assert unharmed(model, before)
    optimizer.step(lambda: (model(x) ** 2).mean())
    assert unharmed(model, before)


def test_loss_that_is_not_finite_on_the_second_side_changes_nothing() -> None:
    x = nn.Parameter(torch.ones(3))
    runs = 0

    def closure() -> Tensor:
        nonlocal runs
        runs += 1
        return x.sum() * (float("nan") if runs == 2 else 1.0)

    optimizer = MeZO([("x", x)], lr=0.1, engine="eager")
    with pytest.raises(NonFiniteError):
        optimizer.step(closure)
    assert x.tolist() == [1.0] * 3 and optimizer.steps == 0


def test_evaluations_of_left_out_steps_are_counted() -> None:
    """Else a budget never ends where every loss is NaN."""
    x = nn.Parameter(torch.ones(3))
    runs = 0

    def closure() -> Tensor:
        nonlocal runs
        runs += 1
        return x.sum() * float("nan")

    optimizer = MeZO([("x", x)], nonfinite="skip", engine="eager")
    for _ in range(3):
        optimizer.step(closure)
    assert optimizer.calls.skipped == 3
    assert optimizer.calls.values == runs


# Models of every kind --------------------------------------------------------------------------


class Tied(nn.Module):
    """An embedding whose table is also the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.table(tokens)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **settings: Any) -> None:
        super().__init__()
        self.cell = kind(6, 5, batch_first=True, **settings)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class Functional(nn.Module):
    """Weights used by functions, views, lists and keywords, never by their own module."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)
        self.rows = nn.ParameterList([nn.Parameter(torch.randn(6)) for _ in range(3)])
        self.gate = nn.Parameter(torch.randn(()))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(input=x, weight=self.inner.weight, bias=self.inner.bias)
        y = y @ self.inner.weight.T + self.inner.weight.view(36)[:6]
        y = y * torch.cat([torch.stack(list(self.rows)).sum(0, keepdim=True)])
        y = torch.vmap(lambda row: self.inner.weight @ row)(y.reshape(-1, 6))
        return torch.einsum("ij,j->i", y, self.rows[0]) * self.gate


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.group = nn.GroupNorm(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.group(torch.relu(self.norm(self.conv(x))))


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(self.layer, x, use_reentrant=False)


def scripted(module: nn.Module) -> nn.Module:
    """A module PyTorch's Python side cannot look into."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


def partly_scripted() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), scripted(nn.Linear(6, 6)), nn.Linear(6, 2))


def turned() -> nn.Module:
    """A layer whose weight is not contiguous."""
    layer = nn.Linear(6, 4)
    layer.weight = nn.Parameter(torch.randn(6, 4).t())
    return layer


def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, dropout=0.0)


FLOATS = lambda: torch.randn(4, 7, 6)  # noqa: E731
TOKENS = lambda: torch.randint(0, 11, (4, 7))  # noqa: E731
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "layers": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)), FLOATS),
    "wide": (lambda: nn.Sequential(nn.Linear(6, 700), nn.Tanh(), nn.Linear(700, 20)), FLOATS),
    "tied": (Tied, TOKENS),
    "attention": (Attention, FLOATS),
    "attention in eval": (lambda: Attention().eval(), FLOATS),
    "transformer": (transformer, FLOATS),
    "transformer in eval": (lambda: transformer().eval(), FLOATS),
    "lstm": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), FLOATS),
    "gru": (lambda: Recurrent(nn.GRU), FLOATS),
    "embedding": (lambda: nn.Embedding(11, 4), TOKENS),
    "embedding bag": (lambda: nn.EmbeddingBag(11, 4), TOKENS),
    "functional": (Functional, FLOATS),
    "norms": (Normed, lambda: torch.randn(4, 3, 7)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), FLOATS),
    "checkpointed": (Checkpointed, FLOATS),
    "turned": (turned, FLOATS),
    "scripted": (lambda: scripted(nn.Linear(6, 4)), FLOATS),
    "partly scripted": (partly_scripted, FLOATS),
}  # fmt: skip


def at(model: nn.Module, scale: float, step: int = 0) -> nn.Module:
    """A copy of the model, moved along the direction of a step of the run with seed 0."""
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in moved.named_parameters():
            p.add_(Seeded(0, step, 0).tensor(name, torch.empty(p.shape)) * scale)
    return moved


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    return (model(x) + 0.3).square().mean()


@torch.no_grad()
def both_sides(model: nn.Module, x: Tensor, step: int) -> list[float]:
    return [float(loss_of(at(model, scale, step), x)) for scale in (0.05, -0.05)]


@pytest.mark.parametrize("kind", MODELS)
def test_models_are_evaluated_at_both_sides_and_left_alone(kind: str) -> None:
    torch.manual_seed(1)
    build, data = MODELS[kind]
    model, x = build(), data()
    before = weights(model)
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    expected = both_sides(model, x, 0)
    with torch.no_grad():
        base = float(loss_of(copy.deepcopy(model), x))
    seen: list[float] = []

    def closure() -> Tensor:
        loss = loss_of(model, x)
        seen.append(loss.item())
        return loss

    optimizer = MeZO(model, lr=0.0, eps=0.05, engine="eager")
    loss = optimizer.step(closure)
    assert seen[-2:] == pytest.approx(expected, rel=1e-4)
    assert all(abs(value - base) > 1e-3 * base for value in expected)
    assert loss is not None and loss.item() == pytest.approx(sum(expected) / 2, rel=1e-4)
    assert unharmed(model, before)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    if kind == "norms":  # buffers go on as after one plain evaluation
        assert int(model.norm.num_batches_tracked) == 1  # type: ignore[union-attr, arg-type]
        assert not torch.equal(model.norm.running_mean, buffers["norm.running_mean"])  # type: ignore[union-attr]
    else:
        assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())


@pytest.mark.parametrize("kind", MODELS)
def test_models_of_every_kind_are_trained(kind: str) -> None:
    """Whatever the model, the move is along the direction, by the slope measured."""
    torch.manual_seed(1)
    build, data = MODELS[kind]
    model, x = build(), data()
    ahead, behind = both_sides(model, x, 0)
    expected = weights(at(model, -0.01 * (ahead - behind) / 0.1))
    optimizer = MeZO(model, lr=0.01, eps=0.05, engine="eager")
    optimizer.step(lambda: loss_of(model, x))
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
@pytest.mark.parametrize(("width", "whole"), [(5, True), (5, False), (900, True)])
def test_compiled_modules_see_every_perturbation(width: int, whole: bool) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 2))
    x = torch.randn(4, 6)
    before = weights(model)
    torch._dynamo.reset()
    called: Any = torch.compile(model if whole else model[0], backend="aot_eager")
    seen: list[float] = []

    def closure() -> Tensor:
        loss = loss_of(called if whole else lambda x: model[2](model[1](called(x))), x)  # type: ignore[arg-type]
        seen.append(loss.item())
        return loss

    with torch.no_grad():
        closure()  # compiled before the first shift
    optimizer = MeZO(model, lr=0.0, eps=0.05, engine="eager")
    for step in range(3):
        optimizer.step(closure)
        assert seen[-2:] == pytest.approx(both_sides(model, x, step), rel=1e-4)
    assert unharmed(model, before)
    torch._dynamo.reset()


@pytest.mark.parametrize(("kind", "more"), [("scripted", 0), ("unused", 1)])
def test_hidden_weights_are_known_or_found_by_one_more_evaluation(kind: str, more: int) -> None:
    torch.manual_seed(1)
    model: Any = scripted(nn.Linear(6, 4)) if kind == "scripted" else nn.Bilinear(6, 6, 4)
    x = torch.randn(4, 6)
    runs = 0

    def closure() -> Tensor:
        nonlocal runs
        runs += 1
        return loss_of(model if kind == "scripted" else lambda x: x @ model.weight[0], x)  # type: ignore[arg-type]

    optimizer = MeZO(model, lr=0.01, engine="eager")
    for _ in range(5):
        optimizer.step(closure)
    assert (runs, optimizer.calls.values) == (10 + more, 10)


def test_scripted_weights_read_by_a_penalty_as_well() -> None:
    """The scripted part must be evaluated at the shifted weights, not the penalty alone."""
    torch.manual_seed(1)
    model = scripted(nn.Linear(6, 4))
    x = torch.randn(4, 6)
    seen: list[float] = []

    def closure() -> Tensor:
        loss = loss_of(model, x)
        seen.append(loss.item())
        return loss + 1e-3 * torch.stack([(p**2).sum() for p in model.parameters()]).sum()

    MeZO(model, lr=0.0, eps=0.05, engine="eager").step(closure)
    assert seen[-1] != seen[-2]


# Words and bad input ---------------------------------------------------------------------------


def test_explains_that_half_precision_cannot_hold_the_perturbation() -> None:
    model = nn.Linear(4, 4).to(torch.bfloat16)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.zero_()
    text = MeZO(model, eps=1e-3).explain().splitlines()
    (weight,) = [line for line in text if "weight " in line and "bfloat16" in line]
    (bias,) = [line for line in text if line.strip().startswith("bias")]
    assert "raise it" in weight and "raise it" not in bias
    assert "raise it" not in MeZO(model, eps=0.05).explain()
    empty = nn.Parameter(torch.empty(0))
    assert "nan" not in MeZO([empty, nn.Parameter(torch.ones(1))]).explain()


@pytest.mark.parametrize("settings", [{"eps": 0.5}, {"directions": 3}])
def test_how_slopes_are_measured_is_common_to_all_groups(settings: dict[str, Any]) -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        MeZO([{"params": [a]}, {"params": [b], **settings}])
    MeZO([{"params": [a], **settings}, {"params": [b], **settings}])


@pytest.mark.parametrize(
    "settings", [{"eps": 0.0}, {"directions": 0}, {"directions": 1.5}, {"weight_decay": -1.0}]
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        MeZO([nn.Parameter(torch.ones(1))], **settings)


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = MeZO
    #: A perturbation must be larger than the distance between neighbouring numbers.
    half: ClassVar[dict[str, Any]] = {"eps": 0.05}
    reference_settings = (
        {},
        {"lr": 1e-3, "eps": 0.1, "directions": 3, "weight_decay": 0.3},
        {"lr": 1e-3, "seed": 4},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        groups = dict.fromkeys(values, options)
        shared = (options["eps"], options["directions"], groups, options["seed"])
        return by_hand(values, *shared, world.value, steps, lambda step: 1.0)[0]
