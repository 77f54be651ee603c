"""Directions made from others equal what their names say, however they are used."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyorder.engine import Engine
from anyorder.oracle import ClosureOracle
from anyorder.points.composed import (
    TOGETHER,
    LowRank,
    Masked,
    Scaled,
    Sparse,
    Sum,
    norm,
    portions,
    vectors,
)
from anyorder.points.directions import Dense, Direction, Seeded, Shift

EAGER = Engine("eager")
A, B = Seeded(1, 2, 0), Seeded(1, 2, 1)


def params(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """A scalar, small and large ones, one that is not contiguous, an empty one."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"scalar": (), "vector": (7,), "matrix": (80, 70), "empty": (0, 3)}
    made = {n: torch.randn(s, generator=generator).to(dtype) for n, s in shapes.items()}
    made["turned"] = torch.randn(5, 6, generator=generator).to(dtype).t()
    return made


def seeded(direction: Seeded, like: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {n: direction.tensor(n, torch.zeros(t.shape)).double().numpy() for n, t in like.items()}


def magnitudes(name: str, param: Tensor, engine: Engine) -> Tensor:
    return param.abs() <= 0.5


def expected(kind: str, like: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """By NumPy."""
    a, b = seeded(A, like), seeded(B, like)
    zero = {name: np.zeros(t.shape) for name, t in like.items()}
    if kind == "scaled":
        return zero | {"vector": 2.0 * a["vector"], "matrix": -0.5 * a["matrix"]}
    if kind == "masked":
        return {name: a[name] * (np.abs(t.numpy()) <= 0.5) for name, t in like.items()}
    if kind == "sum":
        return {name: 0.3 * a[name] - 2.0 * b[name] for name in like}
    if kind == "sparse":
        zero["matrix"].reshape(-1)[[3, 71]] = [1.5, -2.0]
        zero["turned"].reshape(-1)[1] = 1.0
    return zero


KINDS: dict[str, Direction] = {
    "scaled": Scaled(A, {"vector": 2.0, "matrix": -0.5, "scalar": 0.0}),
    "masked": Masked(A, magnitudes),
    "sum": Sum([(0.3, A), (-2.0, B)]),
    "sparse": Sparse({"matrix": ([3, 71], [1.5, -2.0]), "turned": ([1], [1.0])}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_its_definition_however_it_is_used(kind: str) -> None:
    like = params()
    z = KINDS[kind]
    wanted = expected(kind, like)
    made = vectors(z, like, EAGER)
    moved = {name: t.clone() for name, t in like.items()}
    z.add_all_(moved, 0.7, EAGER)
    for name, t in like.items():
        tensor = made[name] if name in made else torch.zeros_like(t)
        np.testing.assert_allclose(tensor, wanted[name], rtol=1e-6, atol=1e-7)
        for found in (moved[name], z.shifted(name, t, 0.7, EAGER)):
            np.testing.assert_allclose(found, t.numpy() + 0.7 * wanted[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_evaluations_at_shifted_points_leave_the_weights(kind: str, dtype: torch.dtype) -> None:
    named = {name: nn.Parameter(t) for name, t in params(dtype).items()}
    before = {name: p.detach().clone() for name, p in named.items()}
    wanted = expected(kind, {name: p.detach().double() for name, p in named.items()})
    oracle = ClosureOracle(
        lambda: torch.stack([p.double().sum() for p in named.values()]).sum(), named
    )
    start, there = oracle.values([Shift(), Shift(0.5, KINDS[kind])]).tolist()
    total = 0.5 * sum(float(value.sum()) for value in wanted.values())
    rounding = sum(float(p.detach().double().abs().sum()) for p in named.values())
    assert there - start == pytest.approx(total, abs=rounding * torch.finfo(dtype).eps)
    assert there != start
    assert all(torch.equal(p, before[name]) for name, p in named.items())


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_directions(rank: int) -> None:
    like = {"matrix": torch.zeros(90, 60), "kernel": torch.zeros(6, 2, 3), "vector": torch.zeros(9)}
    made = vectors(LowRank(A, rank), like, EAGER)
    assert {name: z.shape for name, z in made.items()} == {n: t.shape for n, t in like.items()}
    assert int(torch.linalg.matrix_rank(made["matrix"])) == rank
    assert int(torch.linalg.matrix_rank(made["kernel"].flatten(1))) == rank
    assert torch.equal(made["vector"], A.tensor("vector", like["vector"]))
    wide = vectors(LowRank(A, rank), {"matrix": torch.zeros(90, 60).double()}, EAGER)["matrix"]
    torch.testing.assert_close(wide.float(), made["matrix"])


def test_low_rank_entries_are_uncorrelated_with_variance_one() -> None:
    like = {"x": torch.zeros(3, 2)}
    rows = [vectors(LowRank(Seeded(0, t), 2), like, EAGER)["x"].reshape(-1) for t in range(600)]
    moments = torch.stack(rows).double()
    moments = moments.T @ moments / len(rows)
    assert float((moments - torch.eye(6)).abs().max()) < 5 * math.sqrt(5 / len(rows))


def test_norm_of_a_direction() -> None:
    like = params(torch.float32)
    wanted = math.sqrt(sum(float((z**2).sum()) for z in seeded(A, like).values()))
    assert norm(A, like, EAGER) == pytest.approx(wanted, rel=1e-6)
    assert norm(Scaled(A, {}), like, EAGER) == 0.0
    assert norm(Dense({"x": torch.tensor([3.0, 4.0])}), {"x": torch.zeros(2)}, EAGER) == 5.0


def test_portions_hold_all_in_order_and_no_more_than_the_largest() -> None:
    half = TOGETHER // 2
    sizes = {"a": half, "b": half, "c": 3, "d": 3 * half, "e": half, "f": half}
    named = {name: torch.empty(size, device="meta") for name, size in sizes.items()}
    assert [list(part) for part in portions(named)] == [["a", "b", "c"], ["d"], ["e", "f"]]
    assert [list(part) for part in portions({n: t for n, t in named.items() if n != "d"})] == [
        ["a", "b"], ["c", "e"], ["f"],
    ]  # fmt: skip
    assert list(portions({})) == []
