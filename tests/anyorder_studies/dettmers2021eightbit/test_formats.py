from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from anyorder import AdamW
from anyorder.engine.formats import Blockwise, Plain, Stochastic
from anyorder_studies.dettmers2021eightbit.formats import (
    CONTESTANTS,
    Ablated,
    adamw,
    rounding_error,
)


def rows(signed: bool, block: int = 64) -> Tensor:
    made = torch.Generator().manual_seed(0)
    values = torch.randn(8, block, generator=made) * torch.logspace(-5, 2, 8).unsqueeze(1)
    return values if signed else values.square()


def kept(form: Blockwise, values: Tensor) -> Tensor:
    stored = form.zeros(values.numel(), values)
    form.write_(stored, values, None)
    return form.read(stored)


@pytest.mark.parametrize("signed", [True, False])
def test_with_nothing_left_out_it_is_the_librarys_format(signed: bool) -> None:
    values = rows(signed)
    assert torch.equal(kept(Ablated(signed, 64), values), kept(Blockwise(signed, 64), values))


@pytest.mark.parametrize("signed", [True, False])
def test_linear_levels_lie_at_equal_distances(signed: bool) -> None:
    values = rows(signed)
    levels = torch.arange(-127, 128) / 127 if signed else torch.arange(256) / 255
    most = values.abs().amax(1, keepdim=True)
    distances = ((values / most).unsqueeze(-1) - levels).abs()
    nearest = levels[distances.argmin(-1)] * most
    found = kept(Ablated(signed, 64, linear=True, guarded=False), values)
    torch.testing.assert_close(found, nearest, rtol=1e-5, atol=0)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("linear", [True, False])
def test_state_begins_at_zero_and_zeros_stay(signed: bool, linear: bool) -> None:
    form = Ablated(signed, 64, linear=linear)
    zeros = torch.zeros(2, 64)
    assert torch.equal(form.read(form.zeros(100, zeros)), zeros)
    assert torch.equal(kept(form, zeros), zeros)


@pytest.mark.parametrize("linear", [True, False])
def test_only_the_guard_keeps_small_second_moments_positive(linear: bool) -> None:
    values = torch.ones(1, 64)
    values[0, 0] = 1e-12
    assert kept(Ablated(False, 64, linear=linear, guarded=False), values)[0, 0] == 0
    assert 0 < kept(Ablated(False, 64, linear=linear), values)[0, 0] <= 1 / 255


def test_errors_of_known_numbers() -> None:
    # The last is lost; with a block of its own for the small number.
    values = torch.tensor([1.0, 1.0, 1.0, 1e-9])
    assert rounding_error(True, 0, values) == (0.0, 0.25)
    assert rounding_error(True, 1, values) == (0.0, 0.0)
    # 0.75 / 255 is kept as 1 / 255, a third too large; so are three of the four.
    error, lost = rounding_error(True, 0, torch.tensor([1.0, *[0.75 / 255] * 3]))
    assert error == pytest.approx(1 / 3, rel=1e-4)
    assert lost == 0


@pytest.mark.parametrize("name", CONTESTANTS)
def test_contestants_keep_large_matrices_in_their_format_and_small_ones_in_float32(
    name: str,
) -> None:
    model = nn.Sequential(nn.Linear(64, 96), nn.Linear(96, 10))
    optimizer = adamw(name, model, 1e-3)
    optimizer.step(lambda: model(torch.ones(2, 64)).square().mean())
    state = optimizer.state[model[0].weight]
    given = CONTESTANTS[name]
    if given.get("state") != "8bit":
        dtype = torch.bfloat16 if given else torch.float32
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == dtype
        return
    block = 64 * 96 if given.get("whole") else given["state_block"]
    for buffer in ("exp_avg", "exp_avg_sq"):
        assert state[buffer].dtype == torch.uint8
        assert state[buffer].shape == (64 * 96 // block, block)
        assert optimizer.state[model[1].weight][buffer].dtype == torch.float32


def test_the_first_step_is_that_of_float32() -> None:
    """From zero state the first move is that of AdamW, whatever the state is kept in."""

    def end(name: str) -> Tensor:
        torch.manual_seed(0)
        model = nn.Linear(64, 96)
        optimizer = adamw(name, model, 1e-3)
        optimizer.step(lambda: model(torch.ones(2, 64)).square().mean())
        return model.weight.detach()

    assert torch.equal(end("float32"), end("linear_tensor"))


def test_formats_by_buffer() -> None:
    optimizer = adamw("linear_tensor", nn.Linear(64, 96), 1e-3)
    group = optimizer.param_groups[0]
    assert isinstance(optimizer, AdamW)
    first = optimizer._format(group, "8bit", "exp_avg", 6144)
    second = optimizer._format(group, "8bit", "exp_avg_sq", 6144)
    assert first == Ablated(True, 6144, linear=True)
    assert second == Ablated(False, 6144, linear=True)
    assert optimizer._format(group, "8bit", "exp_avg", 4095) == Plain()
    assert optimizer._format(group, "bf16", "exp_avg", 6144) == Stochastic()
