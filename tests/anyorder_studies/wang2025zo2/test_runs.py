from __future__ import annotations

import torch

from anyorder_studies.wang2025zo2.runs import (
    closure_of,
    decoder,
    fine_tuned,
    side_by_side,
    times,
)


def test_decoders_and_batches_follow_from_their_numbers() -> None:
    one, two = decoder(32, 2, 5), decoder(32, 2, 5)
    assert one.head.weight is one.embedding.weight
    assert torch.equal(closure_of(one, 3)(), closure_of(two, 3)())
    assert not torch.equal(closure_of(one, 3)(), closure_of(one, 4)())


def test_both_methods_end_with_the_same_weights() -> None:
    assert side_by_side(32, 3, 2, 1) == {
        "weight_difference": 0.0, "loss_difference": 0.0, "reads": 1.0, "writes": 1.0,
    }  # fmt: skip


def test_times_are_those_of_both() -> None:
    found = times(32, 2, 1, 0)
    assert set(found) == {"seconds_mezo", "seconds_zo2"}
    assert all(value > 0 for value in found.values())


def test_narrow_storage_gives_another_network() -> None:
    full, narrow = (fine_tuned(storage, 60, 1e-2, 0) for storage in (None, "float16"))
    assert full["before"] == narrow["before"]
    assert full["after"] > full["before"]
    assert full == fine_tuned(None, 60, 1e-2, 0)


def test_a_run_that_diverges_guesses() -> None:
    assert fine_tuned("float16", 30, 1e20, 0)["after"] == 10.0
