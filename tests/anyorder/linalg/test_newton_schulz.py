"""Newton-Schulz rounds: singular values by hand, batches, extremes, and the best coefficients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from anyorder.linalg import newton_schulz as module
from anyorder.linalg.newton_schulz import (
    CUBIC,
    JORDAN,
    NewtonSchulzError,
    Round,
    minimax_rounds,
    newton_schulz,
    newton_schulz_each,
)


def mapped(values: np.ndarray, rounds: tuple[Round, ...]) -> np.ndarray:
    """What the rounds make of singular values."""
    for a, b, c in rounds:
        values = a * values + b * values**3 + c * values**5
    return values


def by_svd(matrix: Tensor, rounds: tuple[Round, ...]) -> Tensor:
    """The same function of a matrix, by its singular values."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = torch.from_numpy(mapped((s / s.square().sum().sqrt()).numpy(), rounds))
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("shape", [(5, 5), (3, 9), (9, 3), (1, 4), (4, 1), (1, 1)])
@pytest.mark.parametrize("rounds", [JORDAN, minimax_rounds(count=6)], ids=["jordan", "minimax"])
def test_maps_singular_values_and_keeps_vectors(
    shape: tuple[int, int], rounds: tuple[Round, ...]
) -> None:
    matrix = torch.randn(shape, dtype=torch.float64)
    before = matrix.clone()
    found = newton_schulz(matrix, rounds)
    torch.testing.assert_close(found, by_svd(matrix, rounds), rtol=1e-9, atol=1e-9)
    assert torch.equal(matrix, before)


def test_many_exact_rounds_give_the_polar_factor() -> None:
    matrix = torch.randn(6, 4, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = newton_schulz(matrix, (CUBIC,) * 30)
    torch.testing.assert_close(found, u @ v, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.mT @ found, torch.eye(4, dtype=torch.float64))


def test_jordans_numbers_leave_what_the_documentation_says() -> None:
    values = mapped(np.geomspace(0.01, 1.0, 100_001), JORDAN)
    assert 0.68 < values.min() < 0.69 and 1.13 < values.max() < 1.14


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_the_size_of_the_matrix_does_not_matter(factor: float) -> None:
    matrix = torch.randn(8, 5)
    found = newton_schulz(matrix * factor, eps=1e-30)
    torch.testing.assert_close(found, newton_schulz(matrix), rtol=1e-4, atol=1e-5)


def test_zero_and_empty_matrices_stay_what_they_are() -> None:
    assert torch.equal(newton_schulz(torch.zeros(3, 4)), torch.zeros(3, 4))
    for shape in ((0, 3), (3, 0), (2, 0, 3), (0, 2, 3)):
        assert newton_schulz(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_keeps_the_dtype_it_was_given(dtype: torch.dtype) -> None:
    matrix = torch.randn(6, 3, dtype=torch.float64)
    found = newton_schulz((matrix * 1e3).to(dtype))
    assert found.dtype is dtype
    expected = newton_schulz(matrix)
    rtol = {torch.float16: 0.02, torch.bfloat16: 0.05}.get(dtype, 1e-4)
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=rtol)


def test_products_in_bfloat16_come_close() -> None:
    matrix = torch.randn(32, 64)
    full, half = newton_schulz(matrix), newton_schulz(matrix, dtype=torch.bfloat16)
    assert half.dtype is torch.float32 and not torch.equal(full, half)
    assert (full - half).norm() / full.norm() < 0.02


# Batches ---------------------------------------------------------------------------------------


def test_batched_equals_one_by_one() -> None:
    shapes = [(4, 7), (7, 4), (4, 7), (3, 4, 7), (2, 2), (4, 7)]
    matrices = [torch.randn(shape) for shape in shapes]
    together = newton_schulz_each(matrices)
    for matrix, found in zip(matrices, together, strict=True):
        assert found.shape == matrix.shape
        alone = [newton_schulz(m) for m in matrix.reshape(-1, *matrix.shape[-2:])]
        torch.testing.assert_close(found, torch.stack(alone).reshape(matrix.shape))


def test_equal_shapes_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Size] = []

    def counted(matrices: Tensor, *args: object, **options: object) -> Tensor:
        calls.append(matrices.shape)
        return matrices

    monkeypatch.setattr(module, "newton_schulz", counted)
    matrices = [torch.randn(4, 7), torch.randn(2, 2), torch.randn(4, 7), torch.randn(3, 4, 7)]
    found = newton_schulz_each(matrices)
    assert calls == [(5, 4, 7), (1, 2, 2)]
    assert all(torch.equal(a, b) for a, b in zip(found, matrices, strict=True))


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(matrices: Tensor, *args: object, **options: object) -> Tensor:
        sizes.append(len(matrices))
        return matrices

    monkeypatch.setattr(module, "newton_schulz", counted)
    monkeypatch.setattr(module, "BATCH", 10)
    newton_schulz_each([torch.ones(2, 2)] * 5 + [torch.ones(4, 4)])
    assert sizes == [2, 2, 1, 1]


def test_no_matrices_are_no_work() -> None:
    assert newton_schulz_each([]) == []


# Coefficients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("low", [1e-3, 1e-2, 0.1, 0.5])
def test_each_round_is_the_best_of_its_degree(low: float) -> None:
    """The error swings between equal extremes four times: no polynomial of the kind is nearer."""
    high = 1.0
    for a, b, c in minimax_rounds(low, 2, safety=1.0):
        x = np.linspace(low, high, 400_001)
        error = 1.0 - (a * x + b * x**3 + c * x**5)
        size = np.abs(error).max()
        peaks = [error[0]]
        for value in error[np.abs(error) > size * (1 - 1e-6)]:
            if np.sign(value) != np.sign(peaks[-1]):
                peaks.append(value)
        assert len(peaks) == 4
        np.testing.assert_allclose(np.abs(peaks), size, rtol=1e-5)
        low, high = 1 - size, 1 + size


def test_rounds_reach_the_errors_of_the_documentation() -> None:
    values = np.geomspace(1e-3, 1.0, 100_001)
    errors = {n: np.abs(mapped(values, minimax_rounds(1e-3, n)) - 1).max() for n in (5, 6)}
    assert errors[5] < 0.14 and errors[6] < 0.004
    assert np.abs(mapped(values, JORDAN) - 1).max() > 0.5
    plain = np.abs(mapped(values, minimax_rounds(1e-3, 5, safety=1.0)) - 1).max()
    assert plain < errors[5]


def test_late_rounds_are_the_classical_one() -> None:
    np.testing.assert_allclose(minimax_rounds(0.5, 8, safety=1.0)[-1], CUBIC, rtol=1e-12)


def test_safety_keeps_values_that_rounding_pushed_out() -> None:
    """One per cent above 1 after each round: with safety they stay near 1, never far off."""
    values = np.geomspace(1e-3, 1.0, 10_001)
    for numbers in minimax_rounds(1e-3, 8):
        values = mapped(values * 1.01, (numbers,))
    assert np.abs(values / 1.01 - 1).max() < 0.02


@pytest.mark.parametrize(
    "bad", [{"smallest": 0.0}, {"smallest": 1.0}, {"count": 0}, {"safety": 0.9}]
)
def test_senseless_numbers_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(NewtonSchulzError, match="smallest"):
        minimax_rounds(**bad)  # type: ignore[arg-type]


def test_a_vector_is_refused() -> None:
    with pytest.raises(NewtonSchulzError, match=r"\(3,\)"):
        newton_schulz(torch.ones(3))


@pytest.mark.gpu
def test_products_are_made_in_bfloat16_on_cuda() -> None:
    matrix = torch.randn(64, 32, device="cuda")
    half = newton_schulz(matrix)
    assert torch.equal(half, newton_schulz(matrix, dtype=torch.bfloat16))
    full = newton_schulz(matrix, dtype=torch.float32)
    assert (full - half).norm() / full.norm() < 0.05
