"""Functions on tensors that several modules share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyorder.engine.tensors import all_finite, sqrt


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_one_bad_element_is_found(bad: float, dtype: torch.dtype) -> None:
    many = [torch.zeros(1000, dtype=dtype), torch.ones(3, dtype=dtype)]
    assert all_finite(many)
    many[0][517] = bad
    assert not all_finite(many)
    few = torch.ones(5, 3, dtype=dtype)
    assert all_finite([few])
    few[2, 1] = bad
    assert not all_finite([few]) and not all_finite([few[2]]) and not all_finite([few[2, 1]])


def test_large_numbers_are_finite() -> None:
    assert all_finite([torch.full((1000,), 3e38)])
    assert all_finite([torch.full((2,), 1.7e308, dtype=torch.float64)])


def test_nothing_is_finite() -> None:
    assert all_finite([]) and all_finite([torch.zeros(0)])


def test_square_root_equals_numpy_in_every_bit() -> None:
    x = torch.rand(100_000) * 1e3
    assert np.array_equal(sqrt(x).numpy(), np.sqrt(x.numpy()))
    assert sqrt(x.double()).dtype is torch.float64
