"""Hutchinson's diagonal: by loops, exact where it should be, unbiased, as many products as said."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.linalg.hutchinson import diagonal
from anyorder.points.directions import Seeded

EAGER = Engine("eager")


class Matrix:
    """A matrix over tensors laid end to end, counting its products."""

    def __init__(self, matrix: np.ndarray, params: dict[str, Tensor]) -> None:
        self.matrix, self.params, self.products = matrix, params, 0
        self.seen: list[np.ndarray] = []

    def __matmul__(self, vector: list[Tensor]) -> list[Tensor]:
        self.products += 1
        flat = np.concatenate([v.double().numpy().ravel() for v in vector])
        self.seen.append(flat)
        pieces = torch.tensor(self.matrix @ flat).split([p.numel() for p in self.params.values()])
        return [
            piece.view(p.shape).to(p.dtype)
            for piece, p in zip(pieces, self.params.values(), strict=True)
        ]


def point(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """A matrix, a vector, a scalar, nothing, and a matrix that is not contiguous."""
    return {
        "matrix": torch.ones(2, 3, dtype=dtype),
        "vector": torch.ones(4, dtype=dtype),
        "scalar": torch.ones((), dtype=dtype),
        "nothing": torch.ones(0, 2, dtype=dtype),
        "turned": torch.ones(2, 3, dtype=dtype).t(),
    }


SIZE = 6 + 4 + 1 + 6


def symmetric(seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(SIZE, SIZE))
    return (root + root.T) / 2


def probe(step: int = 0) -> Callable[[int], Seeded]:
    return lambda index: Seeded(0, step, index, "rademacher")


def flat(tensors: list[Tensor]) -> np.ndarray:
    return np.concatenate([t.numpy().ravel() for t in tensors])


@pytest.mark.parametrize("probes", [1, 2, 7])
def test_is_the_mean_of_sign_times_product(probes: int) -> None:
    params = point()
    operator = Matrix(symmetric(0), params)
    found = flat(diagonal(operator, params, probe(), probes, EAGER))
    assert operator.products == probes
    expected = [
        sum(z[i] * sum(operator.matrix[i, j] * z[j] for j in range(SIZE)) for z in operator.seen)
        / probes
        for i in range(SIZE)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_one_probe_is_exact_on_a_diagonal() -> None:
    params = point()
    values = np.random.default_rng(1).normal(size=SIZE)
    found = diagonal(Matrix(np.diag(values), params), params, probe(), 1, EAGER)
    assert [t.shape for t in found] == [p.shape for p in params.values()]
    np.testing.assert_allclose(flat(found), values, rtol=1e-15)


def test_probes_are_different_vectors_of_signs() -> None:
    params = point()
    operator = Matrix(np.eye(SIZE), params)
    diagonal(operator, params, probe(), 30, EAGER)
    z = np.array(operator.seen)
    assert set(np.unique(z)) == {-1.0, 1.0}
    assert len({tuple(row) for row in z}) == 30
    first, last = z[:, :6], z[:, -6:]  # two parameters of equal size have their own signs
    assert not np.array_equal(first, last)


def test_is_unbiased_with_the_variance_of_the_rest_of_the_row() -> None:
    params = point()
    matrix = symmetric(2)
    n = 800
    operator = Matrix(matrix, params)
    drawn = np.array([flat(diagonal(operator, params, probe(s), 1, EAGER)) for s in range(n)])
    spread = np.sqrt((matrix**2).sum(1) - np.diag(matrix) ** 2)
    assert np.all(np.abs(drawn.mean(0) - np.diag(matrix)) < 5 * spread / math.sqrt(n))
    # A sum of independent signs has a kurtosis below 3: its variance is known to sqrt(2 / n).
    assert np.all(np.abs(drawn.var(0) / spread**2 - 1) < 5 * math.sqrt(2 / n))


def test_error_falls_as_the_root_of_the_number_of_probes() -> None:
    params = point()
    matrix = symmetric(3)
    errors: list[float] = []
    for probes in (10, 640):
        found = flat(diagonal(Matrix(matrix, params), params, probe(), probes, EAGER))
        errors.append(float(np.sqrt(((found - np.diag(matrix)) ** 2).mean())))
    assert 4 < errors[0] / errors[1] < 16  # 8 in the mean


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeps_dtype_and_leaves_the_parameters_alone(dtype: torch.dtype) -> None:
    params = point(dtype)
    before = {name: p.clone() for name, p in params.items()}
    found = diagonal(Matrix(np.eye(SIZE) * 2, params), params, probe(), 3, EAGER)
    assert all(f.dtype == dtype and bool((f == 2).all()) for f in found)
    assert all(torch.equal(p, before[name]) for name, p in params.items())
