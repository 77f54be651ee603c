from __future__ import annotations

import gc

import torch

from anyorder_studies.malladi2023mezo.memory import footprints, peak_allocated


def test_the_peak_is_that_of_what_is_alive_together() -> None:
    def run() -> list[torch.Tensor]:
        kept = [torch.zeros(1000)]  # 4,000 bytes that stay
        for _ in range(5):
            torch.zeros(2000)  # 8,000 bytes that go before the next ones come
        return kept

    assert peak_allocated(run) == 12_000


def test_what_existed_before_is_not_counted() -> None:
    before = torch.zeros(100_000)
    assert peak_allocated(lambda: before.sum()) < 1000


def test_garbage_of_an_earlier_run_is_not_taken_off() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me, self.held = self, torch.zeros(100_000)

    def run() -> torch.Tensor:
        kept = torch.zeros(1000)
        gc.collect()
        return torch.cat([kept, torch.zeros(1000)])

    peak_allocated(lambda: Cycle() and None)
    assert peak_allocated(run) == 16_000


def test_footprints_are_ordered_and_repeat() -> None:
    found = footprints(128, 2, 2)
    assert found["weights"] < found["inference"] < found["mezo"] < found["adamw"]
    # AdamW: weights, gradients and two moments at least.
    assert found["adamw"] >= 4 * found["weights"]
    assert found["weights"] == 4 * (2 * (12 * 128**2 + 13 * 128) + (2 * 256 + 64 + 2) * 128)
    assert footprints(128, 2, 2) == found


def test_what_mezo_adds_hardly_grows_with_depth() -> None:
    shallow, deep = footprints(128, 2, 2), footprints(128, 6, 2)
    extra = [found["mezo"] - found["inference"] for found in (shallow, deep)]
    assert extra[1] - extra[0] < 0.1 * (deep["weights"] - shallow["weights"])
