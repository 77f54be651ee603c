"""Dissimilarities against scipy's principal angles, k-medoids against exhaustive search."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles

from anyorder_studies.daniel2021localbases.clustering import (
    LocalBasesError,
    angle_dissimilarity,
    as_samples,
    euclidean_dissimilarity,
    kmedoids,
)


def test_sine_of_known_angles():
    fields = np.array([[1.0, 0.0], [np.cos(0.3), np.sin(0.3)], [0.0, -2.0]])
    expected = np.array(
        [[0.0, np.sin(0.3), 1.0], [np.sin(0.3), 0.0, np.cos(0.3)], [1.0, np.cos(0.3), 0.0]]
    )
    np.testing.assert_allclose(angle_dissimilarity(fields), expected, atol=1e-8)


def test_subspaces_agree_with_principal_angles():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(4, 5, 12))
    found = angle_dissimilarity(samples, modes=3)
    for i in range(4):
        for j in range(4):
            spans = [np.linalg.svd(samples[s], full_matrices=False)[2][:3].T for s in (i, j)]
            sines = np.sin(subspace_angles(*spans))
            assert found[i, j] == pytest.approx(np.sqrt(np.mean(sines**2)), abs=1e-7)


def test_other_samples_give_a_rectangle():
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=(3, 6)), rng.normal(size=(2, 6))
    whole = angle_dissimilarity(np.concatenate([left, right]))
    np.testing.assert_allclose(angle_dissimilarity(left, right), whole[:3, 3:], atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.01, 100.0), min_size=5, max_size=5), st.integers(0, 31))
def test_angle_ignores_amplitude_and_sign(sizes: list[float], signs: int):
    fields = np.random.default_rng(2).normal(size=(5, 7))
    flips = np.array([1.0 if signs >> i & 1 else -1.0 for i in range(5)])
    scaled = fields * (np.array(sizes) * flips)[:, None]
    np.testing.assert_allclose(angle_dissimilarity(scaled), angle_dissimilarity(fields), atol=1e-7)


def test_euclidean_is_the_norm_of_the_difference():
    samples = np.random.default_rng(3).normal(size=(4, 2, 5))
    naive = [[np.linalg.norm(a - b) for b in samples] for a in samples]
    np.testing.assert_allclose(euclidean_dissimilarity(samples), naive, atol=1e-7)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_kmedoids_finds_the_best_of_all_choices(k: int):
    for seed in range(8):
        points = np.random.default_rng(seed).normal(size=(11, 2))
        matrix = euclidean_dissimilarity(points)
        best = min(matrix[:, list(c)].min(axis=1).sum() for c in combinations(range(11), k))
        found = kmedoids(matrix, k, starts=10, seed=seed)
        assert found.cost == pytest.approx(best, rel=1e-12)
        np.testing.assert_array_equal(found.labels, matrix[:, found.medoids].argmin(axis=1))


def test_kmedoids_limits():
    matrix = euclidean_dissimilarity(np.random.default_rng(4).normal(size=(6, 3)))
    assert kmedoids(matrix, 6).cost == 0.0
    np.testing.assert_array_equal(np.sort(kmedoids(matrix, 6).labels), np.arange(6))
    assert kmedoids(matrix, 1).medoids[0] == matrix.sum(axis=0).argmin()


def test_kmedoids_keeps_every_cluster_inhabited_among_twins():
    found = kmedoids(np.zeros((5, 5)), 3)
    assert set(found.labels) == {0, 1, 2}


def test_kmedoids_is_a_function_of_its_seed():
    matrix = euclidean_dissimilarity(np.random.default_rng(5).normal(size=(40, 2)))
    one, two = (kmedoids(matrix, 5, starts=1, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.labels, two.labels)


@pytest.mark.parametrize(
    ("matrix", "k", "message"),
    [
        (np.zeros((2, 3)), 1, "square"),
        (np.array([[0.0, -1.0], [1.0, 0.0]]), 1, "non-negative"),
        (np.eye(2), 1, "zero diagonal"),
        (np.zeros((2, 2)), 3, "1 to 2 clusters"),
        (np.zeros((2, 2)), 0, "1 to 2 clusters"),
    ],
)
def test_kmedoids_refuses(matrix: np.ndarray, k: int, message: str):
    with pytest.raises(LocalBasesError, match=message):
        kmedoids(matrix, k)


def test_kmedoids_needs_a_start():
    with pytest.raises(LocalBasesError, match="at least one start"):
        kmedoids(np.zeros((2, 2)), 1, starts=0)


@pytest.mark.parametrize("samples", [np.zeros(3), np.zeros((0, 3)), np.full((2, 2), np.nan)])
def test_samples_are_checked(samples: np.ndarray):
    with pytest.raises(LocalBasesError):
        as_samples(samples)


def test_a_zero_field_has_no_angle():
    with pytest.raises(LocalBasesError, match="sample 1 spans fewer"):
        angle_dissimilarity(np.array([[1.0, 0.0], [0.0, 0.0]]))


def test_grids_and_modes_must_fit():
    with pytest.raises(LocalBasesError, match="same grid"):
        angle_dissimilarity(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(LocalBasesError, match="1 to 1 modes"):
        angle_dissimilarity(np.ones((2, 3)), modes=2)
    with pytest.raises(LocalBasesError, match="equally many times"):
        euclidean_dissimilarity(np.ones((2, 3, 4)), np.ones((2, 2, 4)))
