"""How parameters lie in memory: packs, views, and the way back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.engine import stretches as layout
from anyorder.engine.formats import SMALLEST_8BIT, Blockwise, Format, Plain, format_for
from anyorder.engine.program import program_for
from anyorder.engine.stretches import SCALE, Stretch, stretches


def plain(name: str, size: int) -> Format:
    return Plain()


def eight(name: str, size: int) -> Format:
    return format_for("8bit", size, nonnegative=False, block=256)


def arranged(params: list[Tensor], buffers: tuple[str, ...] = (), form=plain) -> list[Stretch]:
    return stretches([(f"p{i}", p) for i, p in enumerate(params)], buffers, form)


def sizes(found: list[Stretch]) -> list[list[int]]:
    return [[p.numel() for p in s.params] for s in found]


def test_large_ones_stay_where_they_lie_and_small_ones_are_packed() -> None:
    large = [torch.zeros(layout.SMALL["cpu"]), torch.zeros(100, 100)]
    small = [torch.zeros(3, 2), torch.zeros(()), torch.zeros(0)]
    found = arranged([small[0], large[0], *small[1:], large[1]], ("a",))
    assert sorted(sizes(found)) == [[6, 1, 0], [large[0].numel(), 10_000]]
    assert {tuple(s.names): s.packed for s in found} == {
        ("p0", "p2", "p3"): True,
        ("p1", "p4"): False,
    }


def test_strided_ones_are_gathered() -> None:
    turned = torch.zeros(200, 100).t()
    (found,) = arranged([turned])
    assert found.packed


def test_dtypes_do_not_mix_and_half_precision_keeps_float32_state() -> None:
    found = arranged([torch.zeros(2), torch.zeros(2).double(), torch.zeros(2).bfloat16()], ("m",))
    dtypes = [s.buffers["m"][0].dtype for s in found]
    assert dtypes == [torch.float32, torch.float64, torch.float32]


def test_packs_are_bounded() -> None:
    many = [torch.zeros(8000) for _ in range(100)]
    found = arranged(many)
    assert all(sum(s) <= layout.PACK["cpu"] for s in sizes(found))
    assert sum(map(len, sizes(found))) == 100


def test_rows_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(layout, "ROW", 25_000)
    found = arranged([torch.zeros(10_000) for _ in range(5)])
    assert sizes(found) == [[10_000] * 2] * 2 + [[10_000]]


def test_views_are_the_state() -> None:
    (found,) = arranged([torch.zeros(2, 3), torch.zeros(4)], ("m",))
    first, second = found.views()
    first["m"].fill_(1.0)
    second["m"].fill_(2.0)
    assert found.buffers["m"][0].tolist() == [1.0] * 6 + [2.0] * 4
    assert [a.buffers["m"][0].tolist() for a in found.alone()] == [[1.0] * 6, [2.0] * 4]
    assert [v.tolist() for v in found.values("m")] == [[[1.0] * 3] * 2, [2.0] * 4]


def test_8_bit_state_is_for_tensors_large_enough() -> None:
    params = [torch.zeros(SMALLEST_8BIT), torch.zeros(SMALLEST_8BIT - 1), torch.zeros(3)]
    found = arranged(params, ("m",), eight)
    assert sizes(found) == [[SMALLEST_8BIT], [SMALLEST_8BIT - 1, 3]]
    assert [type(s.formats["m"]) for s in found] == [Blockwise, Plain]
    (views,) = found[0].views()
    assert set(views) == {"m", "m" + SCALE}


def add_(param: Tensor, memory: Tensor, given: Tensor) -> None:
    memory.copy_(memory + 1.0)
    param.copy_(param + given)


ADD = program_for(add_, (Plain(), Plain()))


def test_apply_writes_parameters_back_in_every_layout(engine) -> None:
    contiguous, turned = torch.zeros(2, 3), torch.zeros(3, 2).t()
    for params in (
        [contiguous],
        [turned],
        [torch.zeros(2, 3), torch.zeros(())],
        [torch.zeros(2, 3), torch.zeros(3, 2).t(), torch.zeros(())],
        [torch.zeros(100, 100), torch.zeros(9000)],
    ):
        for stretch in arranged(params, ("m",)):
            inputs = [torch.arange(p.numel(), dtype=torch.float32).reshape(p.shape) for p in params]
            stretch.apply(Engine(engine), ADD, ("m",), [[g] for g in inputs], {})
            for param, given in zip(stretch.params, inputs, strict=True):
                assert torch.equal(param, given)
            assert bool((stretch.buffers["m"][0] == 1).all())


@pytest.mark.parametrize("shape", [(4096,), (4097,), (71, 67), (3, 5, 300)])
@pytest.mark.parametrize("turned", [False, True])
def test_blocks_reach_the_last_element_and_no_further(engine, shape, turned) -> None:
    param = torch.zeros(shape)
    if turned:
        param = torch.zeros(shape[::-1]).permute(*reversed(range(len(shape))))
    (stretch,) = arranged([param], ("m",), eight)
    given = torch.randn(shape)
    program = program_for(add_, (Plain(), stretch.formats["m"]))
    for _ in range(2):
        stretch.apply(Engine(engine), program, ("m",), [[given]], {})
    assert torch.equal(param, given + given)
    (memory,) = stretch.values("m")
    assert memory.shape == param.shape
    assert torch.equal(memory, torch.full(shape, 2.0))


@pytest.mark.parametrize("size", [5, 10_000])
def test_a_pending_sign_is_no_part_of_the_bits_and_still_counts(engine, size) -> None:
    given = torch.ones(size, dtype=torch.complex64).mul(1j).conj().imag
    assert given.is_neg()
    (stretch,) = arranged([torch.zeros(size)], ("m",))
    stretch.apply(Engine(engine), ADD, ("m",), [[given]], {})
    assert torch.equal(stretch.params[0], torch.full((size,), -1.0))
    (stretch,) = arranged([given], ("m",))
    stretch.apply(Engine(engine), ADD, ("m",), [[torch.ones(size)]], {})
    assert torch.equal(given, torch.zeros(size))


def test_memory_that_moved_is_followed() -> None:
    params = [torch.zeros(10_000), torch.zeros(100, 100)]
    (stretch,) = arranged(params, ("m",))
    program = ADD
    inputs = [torch.ones_like(p) for p in params]
    stretch.apply(Engine("eager"), program, ("m",), [[g] for g in inputs], {})
    old = params[0].data
    params[0].data = torch.full((10_000,), 5.0)
    stretch.apply(Engine("eager"), program, ("m",), [[g] for g in inputs], {})
    assert torch.equal(params[0], torch.full((10_000,), 6.0))
    assert torch.equal(old, torch.ones(10_000))


def test_one_alone_shares_state_and_keeps_its_name() -> None:
    (stretch,) = arranged([torch.zeros(10_000), torch.zeros(9_000)], ("m",))
    stretch.entries = [{"step": 0, **views} for views in stretch.views()]
    first, second = stretch.alone()
    assert (first.names, second.names) == (["p0"], ["p1"])
    program = ADD
    second.apply(Engine("eager"), program, ("m",), [[torch.ones(9_000)]], {})
    assert stretch.buffers["m"][0].sum() == 9_000
    assert second.entries[0] is stretch.entries[1]


def test_filling_a_buffer_rounds_as_its_format_does() -> None:
    values = torch.randn(5000)
    (stretch,) = arranged([torch.zeros(5000)], ("m",), eight)
    stretch.fill_("m", values)
    (read,) = stretch.values("m")
    assert 0 < (read - values).abs().max() < 0.05
