"""How parameters lie in memory: packs, views, and the way back."""

from __future__ import annotations

import torch
from torch import Tensor

from anyorder import layout
from anyorder.layout import Stretch, stretches


def sizes(found: list[Stretch]) -> list[list[int]]:
    return [[p.numel() for p in s.params] for s in found]


def test_large_ones_stand_alone_and_small_ones_are_packed() -> None:
    large = torch.zeros(layout.SMALL["cpu"])
    small = [torch.zeros(3, 2), torch.zeros(()), torch.zeros(0)]
    found = stretches([small[0], large, *small[1:]], ("a",))
    assert sorted(sizes(found)) == [[6, 1, 0], [large.numel()]]
    assert [s.packed for s in found if len(s.params) == 1] == [False]


def test_strided_ones_are_gathered() -> None:
    turned = torch.zeros(200, 100).t()
    (found,) = stretches([turned], ())
    assert found.packed


def test_dtypes_do_not_mix_and_half_precision_keeps_float32_state() -> None:
    found = stretches([torch.zeros(2), torch.zeros(2).double(), torch.zeros(2).bfloat16()], ("m",))
    assert [s.buffers["m"].dtype for s in found] == [torch.float32, torch.float64, torch.float32]


def test_packs_are_bounded() -> None:
    many = [torch.zeros(8000) for _ in range(100)]
    found = stretches(many, ())
    assert all(sum(s) <= layout.PACK["cpu"] for s in sizes(found))
    assert sum(map(len, sizes(found))) == 100


def test_views_are_the_state() -> None:
    params = [torch.zeros(2, 3), torch.zeros(4)]
    (found,) = stretches(params, ("m",))
    first, second = found.views()
    first["m"].fill_(1.0)
    second["m"].fill_(2.0)
    assert found.buffers["m"].tolist() == [1.0] * 6 + [2.0] * 4
    assert [a.buffers["m"].tolist() for a in found.alone()] == [[1.0] * 6, [2.0] * 4]


def test_apply_writes_parameters_back_in_every_layout() -> None:
    def add(tensors: list[Tensor]) -> None:
        param, memory, given = tensors
        memory.add_(1.0)
        param.add_(given)

    contiguous, turned = torch.zeros(2, 3), torch.zeros(3, 2).t()
    for params in (
        [contiguous],
        [turned],
        [torch.zeros(2, 3), torch.zeros(3, 2).t(), torch.zeros(())],
    ):
        for stretch in stretches(params, ("m",)):
            inputs = [torch.arange(p.numel(), dtype=torch.float32).reshape(p.shape) for p in params]
            stretch.apply(add, [inputs])
            for param, given in zip(stretch.params, inputs, strict=True):
                assert torch.equal(param, given)
            assert bool((stretch.buffers["m"] == 1).all())
