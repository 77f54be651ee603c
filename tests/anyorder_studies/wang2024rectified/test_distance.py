"""Sliced Wasserstein against closed forms."""

from __future__ import annotations

import pytest
import torch

from anyorder_studies.wang2024rectified.distance import sliced_wasserstein
from anyorder_studies.wang2024rectified.schedules import DiffusionError


def test_a_shift_costs_its_length_over_the_root_of_the_dimension():
    cloud = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([3.0, 0.0, 4.0])
    found = sliced_wasserstein(cloud, cloud + shift, directions=20_000)
    assert found == pytest.approx(5.0 / 3**0.5, rel=0.02)


def test_order_of_points_does_not_matter():
    cloud = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    assert sliced_wasserstein(cloud, cloud.flip(0)) < 1e-12


def test_one_dimension_is_exact():
    a, b = torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([[6.0], [1.0], [2.0]])
    assert sliced_wasserstein(a, b) == pytest.approx(((1 + 0 + 1) / 3) ** 0.5)


def test_clouds_must_match():
    with pytest.raises(DiffusionError, match="same shape"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(4, 2))
