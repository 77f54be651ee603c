from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate

from anyorder_studies.contest import WORST, digits_training_loss
from anyorder_studies.malladi2023mezo.transfer import (
    WEIGHTS,
    Turned,
    accuracy,
    fine_tuned,
    pretrained,
    tuned,
)


def test_images_are_turned_as_scipy_turns_them() -> None:
    image = np.random.default_rng(0).random((8, 8))
    expected = rotate(image, 30.0, reshape=False, order=1).reshape(64)
    found = Turned()(torch.tensor(image.reshape(1, 64), dtype=torch.float32))[0]
    assert found.numpy() == pytest.approx(expected, abs=1e-6)


def test_the_pretrained_network_knows_upright_digits_and_belongs_to_the_caller() -> None:
    model = pretrained(0)
    assert sum(p.numel() for p in model.parameters()) == WEIGHTS == 2410
    assert accuracy(model) > 93
    assert accuracy(torch.nn.Sequential(Turned(), model)) < 60
    with torch.no_grad():
        model[0].weight.zero_()  # type: ignore[union-attr, index]
    assert accuracy(pretrained(0)) > 93


@pytest.mark.parametrize(("method", "price"), [("sgd", 3.0), ("mezo", 2.0)])
def test_fine_tuning_is_watched_from_the_start(method: str, price: float) -> None:
    run = fine_tuned(method, 4, 0.01, 0, every=2)
    assert run["checks"] == [0, 2, 4]
    assert run["losses"][0] == digits_training_loss(torch.nn.Sequential(Turned(), pretrained(0)))
    assert run["losses"][2] < run["losses"][0]
    assert run["forwards_per_step"] == price
    assert len(run["accuracies"]) == 3


def test_gradients_learn_what_was_turned() -> None:
    run = fine_tuned("sgd", 40, 0.5, 0, every=40)
    assert run["accuracies"][-1] > run["accuracies"][0] + 20


def test_a_run_that_diverges_counts_as_a_guess() -> None:
    run = fine_tuned("mezo", 6, 1e38, 0, every=2)
    assert (run["losses"][-1], run["accuracies"][-1], run["checks"][-1]) == (WORST, 10.0, 6)


def test_tuning_takes_the_step_size_with_the_lowest_loss() -> None:
    assert tuned("sgd", 5, (1e-30, 0.3, 1e30), 1) == 0.3
