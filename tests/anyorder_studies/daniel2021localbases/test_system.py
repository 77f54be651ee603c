"""POD, selection and the efficiency criterion against closed forms and naive computations."""

from __future__ import annotations

import numpy as np
import pytest

from anyorder_studies.daniel2021localbases.system import (
    Efficiency,
    LocalBases,
    LocalBasesError,
    choose_clusters,
    efficiency_criterion,
    euclidean_dissimilarity,
    pod,
    projection_error,
)


def two_lines(n: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Fields on two orthogonal lines with strengths over two decades and both signs."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    directions = np.linalg.qr(rng.normal(size=(8, 2)))[0].T
    sizes = 10.0 ** rng.uniform(-1, 1, n) * rng.choice([-1.0, 1.0], n)
    return directions[kind] * sizes[:, None], kind


def test_pod_is_the_best_basis_of_its_size():
    samples = np.random.default_rng(0).normal(size=(30, 6)) * np.array([5, 3, 1, 0.5, 0.2, 0.1])
    basis = pod(samples, modes=2)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-12)
    sizes = np.linalg.svd(samples, compute_uv=False)
    rest = samples - samples @ basis @ basis.T
    assert np.sum(rest**2) == pytest.approx(np.sum(sizes[2:] ** 2))


def test_pod_tolerance_takes_the_fewest_modes():
    samples = np.diag([4.0, 2.0, 1.0, 0.1])
    whole = np.sqrt(16 + 4 + 1 + 0.01)
    for tolerance in (0.9, 0.4, 0.1, 0.01):
        modes = pod(samples, tolerance=tolerance).shape[1]
        neglected = [np.sqrt(np.sum(np.diag(samples)[m:] ** 2)) / whole for m in range(5)]
        assert neglected[modes] <= tolerance < neglected[modes - 1]


def test_pod_returns_no_more_than_the_samples_span():
    assert pod(np.outer(np.arange(1.0, 5.0), np.ones(3)), modes=3).shape == (3, 1)


def test_projection_error_agrees_with_least_squares():
    rng = np.random.default_rng(1)
    samples, basis = rng.normal(size=(5, 3, 9)), np.linalg.qr(rng.normal(size=(9, 4)))[0]
    for sample, error in zip(samples, projection_error(samples, basis), strict=True):
        coefficients = np.linalg.lstsq(basis, sample.T, rcond=None)[0]
        naive = np.linalg.norm(sample.T - basis @ coefficients) / np.linalg.norm(sample)
        assert error == pytest.approx(naive, rel=1e-12)


def test_one_mode_per_line_is_exact_by_angle_only():
    samples, kind = two_lines()
    model = LocalBases(2, modes=1).fit(samples)
    assert model.error(samples, model.assign(samples)).max() < 1e-7
    assert len(set(zip(kind, model.clustering_.labels, strict=True))) == 2
    euclidean = LocalBases(2, modes=1, dissimilarity="euclidean").fit(samples)
    assert euclidean.error(samples, euclidean.assign(samples)).mean() > 0.1


def test_scaling_samples_changes_nothing_in_the_partition():
    rng = np.random.default_rng(2)
    samples = rng.normal(size=(30, 5))
    scaled = samples * rng.choice([-7.0, 0.01, 3.0], 30)[:, None]
    labels = [LocalBases(4, modes=1).fit(s).clustering_.labels for s in (samples, scaled)]
    np.testing.assert_array_equal(*labels)


def test_one_cluster_is_the_global_basis():
    samples, _ = two_lines()
    model = LocalBases(1, modes=2).fit(samples)
    np.testing.assert_allclose(model.bases_[0], model.global_basis_)
    np.testing.assert_allclose(
        model.error(samples, np.zeros(len(samples), int)), model.global_error(samples)
    )


def test_weights_are_an_inner_product():
    rng = np.random.default_rng(3)
    samples, weights = rng.normal(size=(20, 6)), rng.uniform(0.1, 2.0, 6)
    weighted = LocalBases(3, modes=2, weights=weights).fit(samples)
    plain = LocalBases(3, modes=2).fit(samples * np.sqrt(weights))
    np.testing.assert_allclose(
        weighted.global_error(samples), plain.global_error(samples * np.sqrt(weights))
    )
    np.testing.assert_array_equal(weighted.clustering_.labels, plain.clustering_.labels)


def test_own_dissimilarity_is_used():
    samples = np.random.default_rng(4).normal(size=(15, 4))
    own = LocalBases(3, modes=1, dissimilarity=euclidean_dissimilarity).fit(samples)
    named = LocalBases(3, modes=1, dissimilarity="euclidean").fit(samples)
    np.testing.assert_array_equal(own.clustering_.labels, named.clustering_.labels)


def test_classifier_learns_the_clusters_from_inputs():
    samples, kind = two_lines(60)
    inputs = kind[:, None] + np.random.default_rng(5).normal(size=(60, 1)) * 0.1
    model = LocalBases(2, modes=1).fit(samples, inputs)
    np.testing.assert_array_equal(model.predict(inputs), model.assign(samples))


def test_a_classifier_of_ones_own_is_asked():
    class Always:
        def fit(self, X: np.ndarray, y: np.ndarray) -> None:
            self.seen = (X.shape, y.shape)

        def predict(self, X: np.ndarray) -> np.ndarray:
            return np.ones(len(X), int)

    samples, _ = two_lines()
    mine = Always()
    model = LocalBases(2, modes=1, classifier=mine).fit(samples, np.zeros((20, 3)))
    assert mine.seen == ((20, 3), (20,))
    assert model.predict(np.zeros((4, 3))).tolist() == [1, 1, 1, 1]


def test_efficiency_by_hand():
    errors = [[0.1, 0.5, 0.9], [0.8, 0.2, 0.6]]
    found = efficiency_criterion(errors, [0, 1], [0.4, 0.4])
    assert found.right_error == pytest.approx(0.15)
    assert found.wrong_error == pytest.approx(0.7)
    assert found.break_even == pytest.approx(0.3 / 0.55)
    assert found.expected_error(found.break_even) == pytest.approx(found.global_error)


def test_efficiency_limits():
    assert Efficiency(3, global_error=0.5, right_error=0.1, wrong_error=0.4).break_even == 0.0
    assert Efficiency(3, global_error=0.1, right_error=0.3, wrong_error=0.9).break_even > 1.0
    assert Efficiency(2, 0.1, 0.3, 0.3).break_even == float("inf")
    alone = efficiency_criterion([[0.2], [0.4]], [0, 0], [0.2, 0.4])
    assert alone.expected_error(0.0) == alone.expected_error(1.0) == pytest.approx(0.3)


def test_criterion_predicts_the_error_of_a_classifier_with_random_mistakes():
    rng = np.random.default_rng(6)
    place = rng.uniform(0.1, 0.9, (1500, 1))
    fields = np.exp(-0.5 * ((np.linspace(0, 1, 60) - place) / 0.05) ** 2)
    model = LocalBases(4, modes=2).fit(fields[:300])
    labels = model.assign(fields[300:])
    mistakes = rng.random(1200) < 0.2
    named = np.where(mistakes, (labels + rng.integers(1, 4, 1200)) % 4, labels)
    measured = model.error(fields[300:], named).mean()
    expected = model.efficiency(fields[300:]).expected_error(1.0 - mistakes.mean())
    assert expected == pytest.approx(measured, rel=0.03)


def test_choose_clusters_weighs_accuracy():
    rng = np.random.default_rng(7)
    place = rng.uniform(0.1, 0.9, (240, 1))
    fields = np.exp(-0.5 * ((np.linspace(0, 1, 60) - place) / 0.05) ** 2)
    arguments = (fields[:160], fields[160:], (1, 2, 6))
    sure, table = choose_clusters(*arguments, lambda k: 1.0, modes=2)
    always_wrong, _ = choose_clusters(*arguments, lambda k: float(k == 1), modes=2)
    assert (sure, always_wrong) == (6, 1)
    assert table[6].right_error < table[1].right_error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pod(np.ones((2, 3))), "either modes= or tolerance="),
        (lambda: pod(np.ones((2, 3)), modes=1, tolerance=0.1), "only one"),
        (lambda: pod(np.ones((2, 3)), modes=0), "at least one mode"),
        (lambda: pod(np.ones((2, 3)), tolerance=1.0), "in \\(0, 1\\)"),
        (lambda: pod(np.zeros((2, 3)), modes=1), "all samples are zero"),
        (lambda: projection_error(np.ones((2, 3)), np.ones((4, 1))), "shape \\(3, modes\\)"),
        (lambda: projection_error(np.zeros((1, 3)), np.eye(3)), "not zero"),
        (lambda: LocalBases(2, modes=1, dissimilarity="cosine"), "'cosine'"),
        (lambda: LocalBases(2, modes=1, weights=[-1.0, 1.0]), "positive"),
        (lambda: LocalBases(2, modes=1, weights=[1.0]).fit(np.ones((4, 3))), "3 weights"),
        (lambda: LocalBases(2, modes=1).assign(np.ones((2, 3))), "call fit"),
        (lambda: LocalBases(2, modes=1).predict(np.ones((2, 3))), "call fit"),
        (lambda: LocalBases(2, modes=1).fit(np.eye(3)).predict(np.ones((2, 3))), "no classifier"),
        (lambda: LocalBases(2, modes=1).fit(np.eye(3), np.ones((2, 1))), r"shape \(3, p\)"),
        (lambda: LocalBases(2, modes=1).fit(np.eye(3)).error(np.eye(3), [0]), "one label"),
        (lambda: LocalBases(2, modes=1).fit(np.eye(3)).error(np.eye(3), [0, 1, 2]), "0..1"),
        (lambda: efficiency_criterion([[0.1, 0.2]], [2], [0.1]), "0..1"),
        (lambda: efficiency_criterion([[0.1, 0.2]], [0, 1], [0.1]), "expected errors"),
        (lambda: Efficiency(2, 0.1, 0.1, 0.2).expected_error(1.2), "accuracy"),
        (lambda: choose_clusters(np.eye(3), np.eye(3), [], lambda k: 1.0), "to try"),
    ],
)
def test_bad_input_is_explained(call, message: str):
    with pytest.raises(LocalBasesError, match=message):
        call()
