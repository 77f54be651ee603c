from __future__ import annotations

import pytest
import torch
from torch import nn

from anyorder.nn import BlackBox
from anyorder_studies.zhang2022zoaeds import defence
from anyorder_studies.zhang2022zoaeds.defence import (
    BATCH,
    CODE,
    METHODS,
    QUERIES,
    autoencoder,
    certified,
    classifier,
    cosine,
    encoder,
    images,
    noisy_accuracy,
    trained,
    tuned,
)


def test_images_are_split_once() -> None:
    parts = images()
    assert [len(part.labels) for part in parts] == [1197, 300, 300]
    assert all(part.pixels.min() >= 0 and part.pixels.max() == 1 for part in parts)
    rows = {tuple(row) for part in parts for row in part.pixels.tolist()}
    assert len(rows) == 1797  # no image is in two parts


def test_encoder_and_decoder_start_as_principal_components() -> None:
    basis, mean = autoencoder()
    torch.testing.assert_close(basis @ basis.T, torch.eye(CODE), atol=1e-5, rtol=0)
    pixels = images()[0].pixels
    again = encoder()(pixels) @ basis + mean
    kept = 1 - (again - pixels).square().sum() / (pixels - mean).square().sum()
    assert 0.8 < kept < 0.9


@pytest.mark.parametrize("method", METHODS)
def test_defences_train_only_their_own_layers_at_equal_queries(method: str) -> None:
    frozen = [p.clone() for p in classifier(3).parameters()]
    model, curve = trained(method, 1e-3, 3, 1)
    assert all(torch.equal(a, b) for a, b in zip(frozen, classifier(3).parameters(), strict=True))
    box = model[-1]
    assert not list(box.parameters(recurse=False))
    assert isinstance(box, BlackBox) == method.startswith("zo")
    if method in defence.UNTRAINED:
        assert curve == {"noisy": [noisy_accuracy(model)], "queries": [0.0]}
        return
    assert len(curve["noisy"]) == 2
    assert curve["queries"] == [0.0, QUERIES if method.startswith("zo") else 0.0]


def test_a_step_asks_for_every_image_of_the_batch() -> None:
    for method in ("zo_ae_ds", "zo_ae_rge", "zo_ds"):
        model = defence.defence(method, 0)
        assert isinstance(model, nn.Sequential) and isinstance(model[-1], BlackBox)
        model(images()[0].pixels[:BATCH]).sum().backward()
        assert model[-1].calls.values == BATCH * QUERIES


def test_coordinates_of_a_code_give_its_derivative() -> None:
    assert cosine("zo_ae_ds", 5) > 0.999
    # 32 random directions: about the root of 32 / (32 + d + 1).
    assert 0.45 < cosine("zo_ds", 5) < 0.7
    assert 0.7 < cosine("zo_ae_rge", 5) < 0.95


def test_certified_is_at_most_standard_accuracy() -> None:
    found = certified(defence.defence("none", 3), 10, 200, seed=0)
    assert 0 <= found["certified"] <= found["standard"] <= 100


def test_tuning_takes_the_step_size_that_learns() -> None:
    assert tuned("fo_ds", (1e-9, 3e-3), 2, 1, 0) == 3e-3
