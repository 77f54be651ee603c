"""The network field is seeded and sees the time in every layer."""

from __future__ import annotations

import torch

from anyorder_studies.pal2023localreg.field import NetworkField


def test_same_as_feeding_the_time_as_an_input():
    field = NetworkField(3, width=5, hidden=2, seed=4)
    z = torch.randn(6, 3, dtype=torch.float64)
    out = z
    for i in range(3):
        wide = torch.cat([field.weights[i], field.rates[i][:, None]], dim=1)
        fed = torch.cat([out, torch.full((6, 1), 0.3, dtype=torch.float64)], dim=1)
        out = fed @ wide.T + field.biases[i]
        out = torch.tanh(out) if i < 2 else out
    torch.testing.assert_close(field(0.3, z), out)


def test_seeded():
    one, two, other = (NetworkField(2, seed=s).weights[0] for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, other)
