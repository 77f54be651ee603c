"""SCALE: the algorithm in plain loops, the authors' program on its own cases, limit cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError
from anyorder.methods.adamw import AdamW
from anyorder.methods.scale import SCALE, normalised
from anyorder.model.roles import Assignment, RoleError
from anyorder.testing import MethodContract, Values, World

STEPS = 40


class Small(nn.Module):
    """Embedding, hidden matrix with bias, output layer; in float64."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.tokens = nn.Embedding(6, 4, dtype=torch.float64)
        self.body = nn.Linear(4, 4, dtype=torch.float64)
        self.head = nn.Linear(4, 6, bias=False, dtype=torch.float64)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(self.tokens(tokens))))


def small(tied: bool = False) -> tuple[Small, Callable[[], Tensor]]:
    torch.manual_seed(3)
    model = Small(tied)
    tokens, targets = torch.arange(6), torch.tensor([1, 2, 0, 5, 3, 4])
    return model, lambda: nn.functional.cross_entropy(model(tokens), targets)


def by_hand(
    values: Values,
    gradient_at: Callable[[Values], Values],
    steps: int,
    s: Mapping[str, Any],
    *,
    head: str = "",
    turned: str = "",
) -> Values:
    """Algorithm 1, one column at a time; a column is what belongs to one output unit.

    Output units are on the first axis, on the last one in ``turned``; ``head`` has a momentum.
    """
    values, (b1, b2) = dict(values), s["adamw_betas"]
    partner = s["lr"] if s["adamw_lr"] is None else s["adamw_lr"]
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
                values[name] = np.array((1 - partner * s["weight_decay"]) * x - partner * adam)
                continue
            if name == head:
                g = m[name] = s["momentum"] * m[name] + (1 - s["momentum"]) * g
            columns = g.T if name == turned else g
            scaled: list[np.ndarray] = []
            for column in columns:
                length = math.sqrt(sum(float(entry) ** 2 for entry in column.flat))
                if s["norm"] == "rms":
                    length /= math.sqrt(column.size)
                scaled.append(column / max(length, s["eps"]))
            moved = np.array(scaled).T if name == turned else np.array(scaled)
            values[name] = (1 - s["lr"] * s["weight_decay"]) * x - s["lr"] * moved
    return values


@pytest.mark.parametrize("norm", ["rms", "l2"])
@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 0.0), (0.5, 0.3), (0.0, 0.0)])
def test_equals_the_algorithm(norm: str, momentum: float, weight_decay: float) -> None:
    settings: dict[str, Any] = {
        "lr": 0.02, "momentum": momentum, "norm": norm, "eps": 1e-8, "weight_decay": weight_decay,
    }  # fmt: skip
    model, closure = small()
    twin, twin_closure = small()
    start = {n: p.detach().numpy().copy() for n, p in twin.named_parameters()}

    def gradient_at(values: Values) -> Values:
        for n, p in twin.named_parameters():
            p.data.copy_(torch.from_numpy(values[n]))
        found = torch.autograd.grad(twin_closure(), list(twin.parameters()))
        return {n: g.numpy() for (n, _), g in zip(twin.named_parameters(), found, strict=True)}

    defaults = {name: hyper.default for name, hyper in SCALE.hypers.items()}
    parts = {"head": "head.weight", "turned": "tokens.weight"}
    expected = by_hand(start, gradient_at, STEPS, {**defaults, **settings}, **parts)
    optimizer = SCALE(model, engine="eager", **settings)
    for _ in range(STEPS):
        optimizer.step(closure)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.detach().numpy(), expected[name], rtol=1e-9, atol=1e-11)
        assert not np.allclose(p.detach().numpy(), start[name], rtol=1e-2)


# Columns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "axes"),
    [
        (nn.Linear(5, 4), (1,)),
        (nn.Embedding(9, 4), (0,)),
        (nn.Conv2d(3, 4, 5), (1, 2, 3)),
        (nn.ConvTranspose1d(3, 4, 5), (0, 2)),
        (nn.MultiheadAttention(4, 2), (1,)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_every_output_unit_moves_by_the_step_size(layer: nn.Module, axes: tuple[int, ...]) -> None:
    """After the first step the root mean square of each column's move is lr."""
    model = nn.ModuleDict({"it": layer, "head": nn.Linear(4, 2)})
    weight = next(p for p in layer.parameters() if p.ndim > 1)
    before = weight.detach().clone()
    slope = torch.randn(weight.shape) * torch.logspace(-3, 3, weight.numel()).reshape(weight.shape)
    optimizer = SCALE(model, lr=0.01, engine="eager")
    optimizer.step(lambda: (weight * slope).sum())
    moves = (weight.detach() - before).double().square().mean(axes).sqrt()
    torch.testing.assert_close(moves, torch.full_like(moves, 0.01), rtol=1e-3, atol=0)
    assert bool(((weight.detach() - before) * slope <= 0).all())


def test_l2_is_shorter_by_the_root_of_the_inputs() -> None:
    tensor = torch.randn(4, 9, dtype=torch.float64)
    rms = normalised(tensor, Assignment("matrix", ""), "rms", 1e-8)
    l2 = normalised(tensor, Assignment("matrix", ""), "l2", 1e-8)
    torch.testing.assert_close(rms, l2 * 3.0)
    torch.testing.assert_close(l2.norm(dim=1), torch.ones(4, dtype=torch.float64))


def test_units_without_gradient_stay() -> None:
    model, _ = small()
    before = model.body.weight.detach().clone()
    optimizer = SCALE(model, lr=0.01, engine="eager")
    optimizer.step(lambda: model.body.weight[0].sum())
    assert torch.equal(model.body.weight[1:], before[1:])
    torch.testing.assert_close(model.body.weight[0], before[0] - 0.01)


def test_small_norms_count_as_eps() -> None:
    tensor = torch.full((2, 4), 1e-3)
    torch.testing.assert_close(
        normalised(tensor, Assignment("matrix", ""), "rms", 1e-2), torch.full((2, 4), 0.1)
    )


@pytest.mark.parametrize("factor", [2.0**-20, 2.0**20])
def test_size_of_the_loss_does_not_matter_to_matrices(factor: float) -> None:
    runs: list[list[Tensor]] = []
    for scale in (1.0, factor):
        model, closure = small()
        optimizer = SCALE(model, lr=0.02, adamw_lr=0.0, eps=1e-30, engine="eager")
        for _ in range(20):
            optimizer.step(lambda: closure() * scale)  # noqa: B023 - used within the loop
        runs.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


# Momentum --------------------------------------------------------------------------------------


def test_only_the_output_layer_remembers() -> None:
    """Where the gradient has gone, hidden matrices stop and the output layer goes on."""
    model, closure = small()
    optimizer = SCALE(model, lr=0.01, adamw_lr=0.0, engine="eager")
    optimizer.step(closure)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer.step(lambda: 0.0 * closure())
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert moved == ["head.weight"]
    move = before["head.weight"] - model.head.weight.detach()
    torch.testing.assert_close(
        move, 0.01 * normalised(optimizer.state[model.head.weight]["momentum_buffer"],
                                optimizer.assignment("head.weight"), "rms", 1e-8),
    )  # fmt: skip


def test_a_tied_matrix_is_the_output_layer() -> None:
    model, closure = small(tied=True)
    optimizer = SCALE(model, lr=0.01, engine="eager")
    optimizer.step(closure)
    assert set(optimizer.state[model.tokens.weight]) == {"step", "momentum_buffer"}
    assert "tied: columns with momentum" in optimizer.explain()


def test_momentum_switched_on_later_starts_afresh() -> None:
    model, closure = small()
    optimizer = SCALE(model, lr=0.01, momentum=0.0, engine="eager")
    optimizer.step(closure)
    assert set(optimizer.state[model.head.weight]) == {"step"}
    assert "head: columns (" in optimizer.explain()
    for group in optimizer.param_groups:
        group["momentum"] = 0.9
    optimizer.step(closure)
    assert set(optimizer.state[model.head.weight]) == {"step", "momentum_buffer"}
    assert set(optimizer.state[model.body.bias]) == {"step", "exp_avg", "exp_avg_sq"}
    assert optimizer.state[model.body.bias]["step"] == 2


# Words and numbers -----------------------------------------------------------------------------


def test_state_is_that_of_the_output_layer_and_vectors() -> None:
    def state_bytes(method: type[Any]) -> int:
        model, closure = small()
        optimizer = method(model, engine="eager")
        optimizer.step(closure)
        tensors = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
        return sum(t.numel() * t.element_size() for t in tensors)

    assert state_bytes(SCALE) == 8 * (6 * 4 + 2 * 4)
    assert state_bytes(AdamW) == 8 * 2 * (6 * 4 + 4 * 4 + 4 + 6 * 4)


def test_asks_for_one_gradient_a_step() -> None:
    model, closure = small()
    runs = 0

    def counted() -> Tensor:
        nonlocal runs
        runs += 1
        return closure()

    optimizer = SCALE(model, engine="eager")
    for step in range(1, 6):
        optimizer.step(counted)
        calls = optimizer.calls.to_dict()
        assert runs == step
        assert calls.pop("seconds") > 0
        assert {name: count for name, count in calls.items() if count} == {"grads": step}


def test_explains_which_rule_each_parameter_gets() -> None:
    model, _ = small()
    text = SCALE(model, engine="eager").explain()
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("  ")}
    assert "embedding: columns (" in lines["tokens.weight"]
    assert "matrix: columns (" in lines["body.weight"]
    assert "vector: adamw (" in lines["body.bias"]
    assert "head: columns with momentum (" in lines["head.weight"]


def test_descends_with_a_conv_net() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
    x, y = torch.randn(8, 1, 4, 4), torch.arange(8) % 3
    closure = lambda: nn.functional.cross_entropy(model(x), y)  # noqa: E731
    start = closure().item()
    optimizer = SCALE(model, lr=0.01, engine="eager")
    for _ in range(100):
        optimizer.step(closure)
    assert closure().item() < 0.1 * start


# Bad input -------------------------------------------------------------------------------------


def test_bare_parameters_are_asked_which_is_the_output_layer() -> None:
    model, closure = small()
    pairs = list(model.named_parameters())
    with pytest.raises(RoleError, match=r"SCALE\(model\).*roles=\{'tokens\.weight': 'head'\}"):
        SCALE(pairs)
    for told in (model, {"head.weight": "head", "tokens.weight": "embedding"}):
        optimizer = SCALE(pairs, roles=told, engine="eager")
        optimizer.step(closure)
        assert set(optimizer.state[model.head.weight]) == {"step", "momentum_buffer"}
        assert optimizer.assignment("tokens.weight").output == 1
    bare = SCALE(pairs, roles="shape", engine="eager")
    assert {bare.assignment(n).role for n, p in pairs if p.ndim > 1} == {"matrix"}


def test_a_mapping_without_an_output_layer_is_asked_too() -> None:
    model, _ = small()
    with pytest.raises(RoleError, match="output layer"):
        SCALE(model.named_parameters(), roles={"tokens.weight": "embedding"})


@pytest.mark.parametrize(
    "settings",
    [{"momentum": 1.0}, {"norm": "max"}, {"eps": 0.0}, {"adamw_lr": -1.0}, {"weight_decay": -1.0}],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        SCALE(small()[0], **settings)


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = SCALE
    options: ClassVar[dict[str, Any]] = {"roles": "shape"}  # bare parameters have no output layer
    reference_settings = (
        {},
        {"lr": 0.01, "roles": {"matrix": "head"}, "norm": "l2", "weight_decay": 0.3},
        {"lr": 0.01, "roles": {"matrix": "head"}, "momentum": 0.5, "eps": 3.0, "adamw_lr": 0.02},
        {"lr": 0.01, "adamw_betas": (0.7, 0.9), "adamw_eps": 0.1},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        head = "" if options["roles"] == "shape" else "matrix"
        return by_hand(values, world.gradient, steps, options, head=head)
