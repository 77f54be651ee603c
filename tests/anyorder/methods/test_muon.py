"""Muon: the algorithm in plain loops, torch.optim's, shapes, pieces, batches, and limit cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.linalg import newton_schulz as products
from anyorder.methods.adamw import AdamW
from anyorder.methods.muon import Muon, factor
from anyorder.testing import MethodContract, Values, World

STEPS = 30
JORDAN = (3.4445, -4.7750, 2.0315)


def bend(dtype: torch.dtype = torch.float64) -> tuple[nn.ParameterDict, Callable[[], Tensor]]:
    """A curved function of a wide, a tall and a square matrix."""
    generator = torch.Generator().manual_seed(5)
    params = nn.ParameterDict(
        {
            name: nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype))
            for name, shape in {"wide": (3, 5), "tall": (6, 2), "square": (4, 4)}.items()
        }
    )

    def closure() -> Tensor:
        terms = [(p**4).sum() / 4 + (p.sum() ** 2) / 2 for p in params.values()]
        return torch.stack(terms).sum()

    return params, closure


def matrices(params: nn.ParameterDict, **options: Any) -> Muon:
    return Muon(params.items(), roles="shape", engine="eager", **options)


def rounds_by_hand(matrix: np.ndarray, count: int) -> np.ndarray:
    a, b, c = JORDAN
    turned = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if turned else matrix
    x = x / max(math.sqrt((x**2).sum()), 1e-7)
    for _ in range(count):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if turned else x


def by_hand(
    values: Values, gradient_at: Callable[[Values], Values], steps: int, s: Mapping[str, Any]
) -> Values:
    """Jordan's program for matrices, outputs by everything else; AdamW's formulas for vectors."""
    values, lr, mu = dict(values), s["lr"], s["momentum"]
    (b1, b2), matched = s["adamw_betas"], s["adjust_lr"] == "match_rms_adamw"
    share = lr * (1.0 if matched else 0.015) if s["adamw_lr"] is None else s["adamw_lr"]
    m = {name: np.zeros_like(value) for name, value in values.items()}
    v = {name: np.zeros_like(value) for name, value in values.items()}
    for t in range(1, steps + 1):
        gradient = gradient_at(values)
        for name, x in values.items():
            g = gradient[name]
            if x.ndim < 2:
                m[name] = b1 * m[name] + (1 - b1) * g
                v[name] = b2 * v[name] + (1 - b2) * g * g
                adam = m[name] / (1 - b1**t) / (np.sqrt(v[name] / (1 - b2**t)) + s["adamw_eps"])
                values[name] = np.array((1 - share * s["weight_decay"]) * x - share * adam)
                continue
            m[name] = mu * m[name] + (1 - mu) * g
            look = mu * m[name] + (1 - mu) * g if s["nesterov"] else m[name]
            matrix = look.reshape(len(look), -1)
            rows, columns = matrix.shape
            size = 0.2 * math.sqrt(max(rows, columns)) if matched else 1.0
            if not matched and rows > columns:
                size = math.sqrt(rows / columns)
            move = size * rounds_by_hand(matrix, s["rounds"]).reshape(x.shape)
            values[name] = (1 - lr * s["weight_decay"]) * x - lr * move
    return values


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("adjust_lr", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_equals_the_algorithm(nesterov: bool, adjust_lr: str, weight_decay: float) -> None:
    params, closure = bend()
    start = {name: p.detach().numpy().copy() for name, p in params.items()}
    settings: dict[str, Any] = {
        "lr": 0.03, "momentum": 0.9, "nesterov": nesterov, "adjust_lr": adjust_lr,
        "weight_decay": weight_decay,
    }  # fmt: skip
    defaults = {name: hyper.default for name, hyper in Muon.hypers.items()}
    values = by_hand(
        start,
        lambda at: {name: x**3 + x.sum() for name, x in at.items()},
        STEPS,
        {**defaults, **settings},
    )
    optimizer = matrices(params, **settings)
    for _ in range(STEPS):
        optimizer.step(closure)
    for name, p in params.items():
        np.testing.assert_allclose(p.detach().numpy(), values[name], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("adjust_lr", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_equals_torch_in_the_same_precision(adjust_lr: str, nesterov: bool) -> None:
    """torch.optim.Muon makes its products in bfloat16 everywhere, whose numbers are 0.4 % apart."""
    peer = getattr(torch.optim, "Muon", None)
    if peer is None:
        pytest.skip("torch.optim.Muon came with torch 2.9")
    settings: dict[str, Any] = {
        "lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "nesterov": nesterov,
    }  # fmt: skip
    mine, closure = bend(torch.float32)
    theirs, other = bend(torch.float32)
    start = {name: p.detach().clone() for name, p in mine.items()}
    optimizer = matrices(mine, adjust_lr=adjust_lr, precision="bfloat16", **settings)
    peer_optimizer = peer(theirs.values(), adjust_lr_fn=adjust_lr, **settings)
    for _ in range(5):
        optimizer.step(closure)
        peer_optimizer.zero_grad()
        other().backward()
        peer_optimizer.step()
    for name, p in mine.items():
        moved, expected = p.detach() - start[name], theirs[name].detach() - start[name]
        assert (moved - expected).norm() < 0.02 * expected.norm(), name


def test_torchs_own_rounds_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its cast to bfloat16 taken away, torch.optim.Muon agrees to rounding."""
    peer = getattr(torch.optim, "Muon", None)
    if peer is None:
        pytest.skip("torch.optim.Muon came with torch 2.9")
    mine, closure = bend()
    theirs, other = bend()
    optimizer = matrices(mine, lr=0.02, weight_decay=0.1)
    peer_optimizer = peer(theirs.values(), lr=0.02, weight_decay=0.1)
    monkeypatch.setattr(Tensor, "bfloat16", lambda self: self.clone())
    for _ in range(STEPS):
        optimizer.step(closure)
        peer_optimizer.zero_grad()
        other().backward()
        peer_optimizer.step()
    for name, p in mine.items():
        torch.testing.assert_close(p, theirs[name], rtol=1e-9, atol=1e-11)


# Shapes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows", "columns", "expected"),
    [
        ("original", 9, 4, 1.5),
        ("original", 4, 9, 1.0),
        ("match_rms_adamw", 4, 9, 0.6),
        ("match_rms_adamw", 25, 9, 1.0),
    ],
)
def test_factor_of_the_step_size(name: str, rows: int, columns: int, expected: float) -> None:
    assert factor(name, rows, columns) == pytest.approx(expected)


@pytest.mark.parametrize("coefficients", ["jordan", "minimax"])
def test_first_move_has_singular_values_near_the_step_size(coefficients: str) -> None:
    x = nn.Parameter(torch.zeros(4, 6, dtype=torch.float64))
    slope = torch.randn(4, 6, dtype=torch.float64)
    optimizer = Muon(
        [("x", x)], lr=0.1, coefficients=coefficients, rounds=6, roles="shape", engine="eager"
    )
    optimizer.step(lambda: (x * slope).sum())
    values = torch.linalg.svdvals(x.detach() / 0.1)
    error = 0.4 if coefficients == "jordan" else 0.005
    assert bool(((values - 1).abs() < error).all())
    u, _, v = torch.linalg.svd(slope, full_matrices=False)
    if coefficients == "minimax":
        torch.testing.assert_close(x.detach(), -0.1 * u @ v, rtol=0.02, atol=1e-3)


def test_kernels_are_matrices_of_outputs_by_everything_else() -> None:
    model = nn.ModuleDict({"conv": nn.Conv2d(3, 4, 2, bias=False), "head": nn.Linear(4, 2)})
    weight = model["conv"].weight
    flat = nn.Parameter(weight.detach().reshape(4, 12).clone())
    slope = torch.randn(4, 12)
    kernel = Muon(model, lr=0.1, engine="eager")
    matrix = Muon([("x", flat)], lr=0.1, roles="shape", engine="eager")
    for _ in range(3):
        kernel.step(lambda: (weight.reshape(4, 12) * slope).square().sum())
        matrix.step(lambda: (flat * slope).square().sum())
    assert torch.equal(weight.reshape(4, 12), flat)


def test_transposed_kernels_are_turned() -> None:
    layer = nn.ConvTranspose1d(3, 4, 2, bias=False)
    model = nn.ModuleDict({"it": layer, "head": nn.Linear(4, 2)})
    slope = torch.randn(4, 6)
    start = layer.weight.detach().clone()
    Muon(model, lr=1.0, coefficients="minimax", rounds=8, engine="eager").step(
        lambda: (layer.weight.movedim(1, 0).reshape(4, 6) * slope).sum()
    )
    move = (layer.weight.detach() - start).movedim(1, 0).reshape(4, 6)
    torch.testing.assert_close(move @ move.mT, torch.eye(4), rtol=0, atol=1e-3)


def test_packed_projections_are_orthogonalised_piece_by_piece() -> None:
    layer = nn.MultiheadAttention(4, 2, bias=False)
    model = nn.ModuleDict({"it": layer, "head": nn.Linear(4, 2)})
    slope = torch.randn(12, 4) * torch.tensor([1.0, 10.0, 100.0]).repeat_interleave(4)[:, None]
    start = layer.in_proj_weight.detach().clone()
    Muon(model, lr=1.0, coefficients="minimax", rounds=8, engine="eager").step(
        lambda: (layer.in_proj_weight * slope).sum()
    )
    for piece in (layer.in_proj_weight.detach() - start).chunk(3):
        torch.testing.assert_close(piece @ piece.mT, torch.eye(4), rtol=0, atol=1e-3)


def test_batched_equals_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[Tensor]:
        torch.manual_seed(1)
        model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)), nn.Linear(8, 3))
        x = torch.randn(5, 8)
        optimizer = Muon(model, lr=0.05, engine="eager")
        for _ in range(10):
            optimizer.step(lambda: model(x).square().sum())
        return [p.detach() for p in model.parameters()]

    together = run()
    monkeypatch.setattr(products, "BATCH", 1)
    for a, b in zip(together, run(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_groups_with_their_own_settings() -> None:
    params, closure = bend()
    own: dict[str, dict[str, Any]] = {
        "wide": {"rounds": 1},
        "tall": {"coefficients": "minimax", "rounds": 8},
        "square": {"precision": "bfloat16"},
    }
    groups = [{"params": [(name, params[name])], **settings} for name, settings in own.items()]
    optimizer = Muon(groups, roles="shape", lr=0.1, engine="eager")
    start = {name: p.detach().clone() for name, p in params.items()}
    slopes = {name: p.detach() ** 3 + p.detach().sum() for name, p in params.items()}
    optimizer.step(closure)
    moves = {name: (start[name] - p.detach()) / 0.1 for name, p in params.items()}
    np.testing.assert_allclose(
        moves["wide"].numpy(), rounds_by_hand(slopes["wide"].numpy(), 1), rtol=1e-9
    )
    values = torch.linalg.svdvals(moves["tall"] / math.sqrt(3))
    torch.testing.assert_close(values, torch.ones_like(values), rtol=1e-3, atol=0)
    exact = rounds_by_hand(slopes["square"].numpy(), 5)
    assert 0 < np.abs(moves["square"].numpy() - exact).max() < 0.1


# Limit cases -----------------------------------------------------------------------------------


def test_no_momentum_is_descent_along_orthogonalised_gradients() -> None:
    params, closure = bend()
    optimizer = matrices(params, lr=0.01, momentum=0.0)
    for _ in range(5):
        before = {name: p.detach().numpy().copy() for name, p in params.items()}
        optimizer.step(closure)
        for name, x in before.items():
            move = rounds_by_hand(x**3 + x.sum(), 5) * math.sqrt(max(1, x.shape[0] / x.shape[1]))
            np.testing.assert_allclose(params[name].detach().numpy(), x - 0.01 * move, rtol=1e-9)


def test_a_row_is_normalised() -> None:
    """The orthogonal factor of a single row is the row over its length."""
    model = nn.ModuleDict({"it": nn.Linear(4, 1, bias=False), "head": nn.Linear(1, 2)})
    weight = model["it"].weight
    start, slope = weight.detach().clone(), torch.tensor([[3.0, 0.0, -4.0, 0.0]])
    optimizer = Muon(model, lr=0.1, coefficients="minimax", rounds=8, engine="eager")
    optimizer.step(lambda: (weight * slope).sum())
    torch.testing.assert_close(weight.detach() - start, -0.1 * slope / 5.0, rtol=1e-3, atol=1e-6)


def test_where_slope_and_memory_are_zero_nothing_moves() -> None:
    x = nn.Parameter(torch.ones(3, 3))
    optimizer = Muon([("x", x)], roles="shape", engine="eager")
    optimizer.step(lambda: 0.0 * x.sum())
    assert torch.equal(x, torch.ones(3, 3))


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
def test_size_of_the_loss_does_not_matter(factor: float) -> None:
    runs: list[list[Tensor]] = []
    for scale in (1.0, factor):
        params, closure = bend()
        optimizer = matrices(params, lr=0.02)
        for _ in range(10):
            optimizer.step(lambda: closure() * scale)  # noqa: B023 - used within the loop
        runs.append([p.detach() for p in params.values()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


# Words and numbers -----------------------------------------------------------------------------


def test_keeps_half_of_adams_state_for_matrices() -> None:
    def state_bytes(method: type[Any]) -> int:
        model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 3))
        optimizer = method(model, engine="eager")
        optimizer.step(lambda: model(torch.ones(2, 4)).square().sum())
        tensors = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        return sum(t.numel() * t.element_size() for t in tensors)

    assert state_bytes(Muon) == 4 * (32 + 2 * (24 + 3))
    assert state_bytes(AdamW) == 4 * 2 * (32 + 24 + 3)


def test_step_size_of_the_partner() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))
    options: list[tuple[dict[str, Any], float]] = [
        ({}, 3e-4),
        ({"adjust_lr": "match_rms_adamw"}, 0.02),
        ({"adamw_lr": 0.5}, 0.5),
    ]
    for given, expected in options:
        optimizer = Muon(model, lr=0.02, engine="eager", **given)
        assert [group["lr"] for group in optimizer.param_groups] == [0.02]
        before = model[0].bias.detach().clone()
        optimizer.step(lambda: model(torch.ones(2, 4)).sum())
        moved = (model[0].bias - before).abs().max().item()  # the first step has the size of lr
        assert moved == pytest.approx(expected, rel=1e-3)


def test_asks_for_one_gradient_a_step() -> None:
    params, closure = bend()
    optimizer = matrices(params)
    for step in range(1, 4):
        optimizer.step(closure)
        calls = optimizer.calls.to_dict()
        assert calls.pop("seconds") > 0
        assert {name: count for name, count in calls.items() if count} == {"grads": step}


def test_half_precision_keeps_its_memory_in_float32() -> None:
    x = nn.Parameter(torch.ones(3, 3, dtype=torch.bfloat16))
    optimizer = Muon([("x", x)], roles="shape", engine="eager")
    for _ in range(3):
        optimizer.step(lambda: x.sum())
    memory = optimizer.state[x]["momentum_buffer"]
    assert memory.dtype is torch.float32
    torch.testing.assert_close(memory, torch.full((3, 3), 1 - 0.95**3), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "settings",
    [{"momentum": 1.0}, {"rounds": 0}, {"adjust_lr": "none"}, {"coefficients": "exact"},
     {"precision": "float16"}, {"adamw_betas": (0.9, 1.0)}],
)  # fmt: skip
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        Muon(nn.Linear(3, 4), **settings)


@pytest.mark.gpu
def test_the_gpu_comes_close_to_the_processor() -> None:
    runs: list[Tensor] = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, 4)).to(device)
        x = torch.linspace(-1, 1, 320, device=device).reshape(10, 32)
        optimizer = Muon(model, lr=0.02, engine="eager")
        for _ in range(5):
            optimizer.step(lambda model=model, x=x: model(x).square().mean())
        runs.append(next(model.parameters()).detach().cpu())
    assert (runs[0] - runs[1]).norm() < 0.02 * runs[0].norm()


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = Muon
    #: Bare parameters do not say what they are for.
    options: ClassVar[dict[str, Any]] = {"roles": "shape", "adjust_lr": "match_rms_adamw"}
    reference_settings = (
        {},
        {"adjust_lr": "original", "momentum": 0.8, "nesterov": False, "weight_decay": 0.5},
        {"lr": 0.01, "rounds": 3, "adamw_lr": 0.02, "adamw_betas": (0.7, 0.9), "adamw_eps": 0.01},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        return by_hand(values, world.gradient, steps, options)
