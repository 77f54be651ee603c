"""The simulated families solve the equations that they state."""

from __future__ import annotations

import numpy as np
import pytest

from anyorder_studies.daniel2021localbases.problems import FAMILIES, burgers, heat, poisson


@pytest.mark.parametrize("name", list(FAMILIES))
def test_draws_are_finite_seeded_and_standardised(name: str):
    fields, inputs = FAMILIES[name](20, np.random.default_rng(0))
    again, _ = FAMILIES[name](20, np.random.default_rng(0))
    assert np.isfinite(fields).all() and fields.shape[0] == inputs.shape[0] == 20
    np.testing.assert_array_equal(fields, again)
    np.testing.assert_allclose(inputs.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(inputs.std(axis=0), 1.0)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_even_takes_away_strength_and_sign(name: str):
    mixed, inputs = FAMILIES[name](60, np.random.default_rng(1))
    even, fewer = FAMILIES[name](60, np.random.default_rng(1), even=True)
    peak = np.abs(even).max(axis=(1, 2))
    assert fewer.shape[1] == inputs.shape[1] - 2
    assert even.sum(axis=(1, 2)).min() > 0.0
    assert np.abs(mixed).max(axis=(1, 2)).std() > 3 * peak.std()


def test_poisson_satisfies_its_stencil():
    fields, _ = poisson(3, np.random.default_rng(2))
    u = np.pad(fields.reshape(3, 24, 24), ((0, 0), (1, 1), (1, 1)))
    laplace = 4 * u[:, 1:-1, 1:-1] - u[:, 2:, 1:-1] - u[:, :-2, 1:-1]
    source = (laplace - u[:, 1:-1, 2:] - u[:, 1:-1, :-2]) * 25.0**2
    # The source is one bump of one sign: heat sources only or sinks only.
    assert (np.abs(source.sum(axis=(1, 2))) > 0.999 * np.abs(source).sum(axis=(1, 2))).all()
    peaks = np.abs(source).max(axis=(1, 2))
    assert (peaks > 0.05).all() and (peaks < 11.0).all()


def test_heat_is_kept():
    fields, _ = heat(50, np.random.default_rng(3), even=True)
    amounts = fields.sum(axis=2)
    inside = amounts[:, -1] > 0.999 * amounts[:, 0]
    assert inside.sum() > 20
    np.testing.assert_allclose(amounts[inside, -1], amounts[inside, 0], rtol=1e-3)


def test_burgers_conserves_mass_and_makes_no_new_extremes():
    fields, _ = burgers(20, np.random.default_rng(4))
    mass = fields.sum(axis=2)
    np.testing.assert_allclose(mass, np.repeat(mass[:, :1], 8, axis=1), rtol=1e-9)
    sizes = np.abs(fields).max(axis=2)
    assert (np.diff(sizes, axis=1) <= 1e-12).all()
