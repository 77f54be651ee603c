"""The point network is seeded and leaves the global random state alone."""

from __future__ import annotations

import torch

from anyorder_studies.wang2024rectified.network import PointNetwork


def test_seeded_without_touching_global_state():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two, other = (PointNetwork(3, width=8, layers=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    x, t = torch.randn(4, 3), torch.rand(4)
    assert torch.equal(one(x, t), two(x, t))
    assert not torch.equal(one(x, t), other(x, t))
    assert one(x, t).shape == (4, 3)
