"""Autocast, GradScaler and gradient accumulation in loops that PyTorch users write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import anyorder


def test_the_example(
    example: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    example("mixed_precision")
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("120 gradients")
    assert second.endswith("0 steps skipped")
    assert third.endswith("30 gradients")
    assert all(float(line.split("loss ")[1].split(",")[0]) < 2.0 for line in (first, second, third))


def lossy(model: nn.Module, part: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    with torch.autocast("cpu", dtype=dtype):
        return cross_entropy(model(part[0]), part[1])


@pytest.mark.parametrize("scaled", [False, True], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("parts", [1, 4])
def test_closures_train_as_the_loop_does(
    digits: tuple[Tensor, Tensor],
    network: Callable[[], nn.Module],
    equal: Callable[..., bool],
    scaled: bool,
    parts: int,
) -> None:
    dtype = torch.float16 if scaled else torch.bfloat16
    chunks = list(zip(digits[0].chunk(parts), digits[1].chunk(parts), strict=True))
    ours, theirs, scaler = network(), network(), torch.amp.GradScaler("cpu", enabled=scaled)
    own = torch.amp.GradScaler("cpu") if scaled else None
    closing = anyorder.AdamW(ours, lr=1e-2, scaler=own)
    looping = anyorder.AdamW(theirs, lr=1e-2)
    for _ in range(3):
        closures = [lambda c=chunk: lossy(ours, c, dtype) for chunk in chunks]
        closing.step(closures if parts > 1 else closures[0])
        looping.zero_grad()
        for chunk in chunks:
            scaler.scale(lossy(theirs, chunk, dtype) / parts).backward()
        scaler.step(looping)
        scaler.update()
    assert equal(ours, theirs)
    assert (closing.calls.grads, looping.calls.grads) == (3 * parts, 3)


def test_an_overflow_skips_the_step_in_both_loops(
    digits: tuple[Tensor, Tensor], network: Callable[[], nn.Module], equal: Callable[..., bool]
) -> None:
    ours, theirs, start = network(), network(), network()
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**40) for _ in range(2)]
    closing = anyorder.AdamW(ours, scaler=scalers[0])
    closing.step(lambda: lossy(ours, digits, torch.float16))
    looping = anyorder.AdamW(theirs)
    scalers[1].scale(lossy(theirs, digits, torch.float16)).backward()
    scalers[1].step(looping)
    scalers[1].update()
    assert equal(ours, start) and equal(theirs, start)
    assert closing.calls.skipped == 1
    assert [s.get_scale() for s in scalers] == [2.0**39] * 2
