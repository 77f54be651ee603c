"""The forms of diffusion have the ends and the identities they promise."""

from __future__ import annotations

import pytest
import torch

from anyorder_studies.wang2024rectified.schedules import (
    SCHEDULES,
    DiffusionError,
    sub_vp_schedule,
    vp_schedule,
)

TIMES = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_sample_at_the_start_and_noise_growing(name: str):
    schedule = SCHEDULES[name]()
    alpha, sigma = schedule.alpha(TIMES), schedule.sigma(TIMES)
    assert alpha[0] == 1.0 and sigma[0] == 0.0
    assert (alpha.diff() < 0).all() and (sigma.diff() > 0).all()


def test_vp_keeps_the_variance_and_integrates_its_rate():
    schedule = vp_schedule()
    alpha, sigma = schedule.alpha(TIMES), schedule.sigma(TIMES)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(TIMES))
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    thousand_steps = (1.0 - roots**2).prod().sqrt()
    assert float(alpha[-1]) == pytest.approx(float(thousand_steps), rel=0.02)


def test_sub_vp_has_less_noise_than_vp():
    vp, sub = vp_schedule(), sub_vp_schedule()
    torch.testing.assert_close(sub.sigma(TIMES), vp.sigma(TIMES) ** 2)


def test_bad_rates_and_times():
    with pytest.raises(DiffusionError, match="0 < first <= last"):
        vp_schedule(2.0, 1.0)
    with pytest.raises(DiffusionError, match="one time per sample"):
        vp_schedule().at(torch.zeros(3), torch.zeros(2, 2))
