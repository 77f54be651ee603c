"""The engine: eager and compiled agree bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anyorder.engine import engine as module
from anyorder.engine import kernels
from anyorder.engine.engine import AUTO_ELEMENTS, SLICE, Engine, EngineError
from anyorder.engine.formats import Blockwise, Format, Plain, Stochastic
from anyorder.engine.program import NOISE, Program, program_for
from anyorder.engine.tensors import sqrt
from anyorder.testing.worlds import mix_
from anyorder.testing.worlds import mix_scalars as scalars
from anyorder.testing.worlds import mix_tensors as tensors


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        pytest.param(torch.bfloat16, marks=pytest.mark.slow),  # as the weights of "8bit" below
    ],
)
def test_compiled_gives_the_bits_of_eager(dtype: torch.dtype) -> None:
    eager, compiled = Engine("eager"), Engine("compiled")
    for n in (1, 2, 7, 16, 1001, SLICE + 3):
        a, b = tensors(n, dtype), tensors(n, dtype)
        for step in range(3):
            eager.run(mix_, a, scalars(0.1 / (step + 1)))
            compiled.run(mix_, b, scalars(0.1 / (step + 1)))
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x, y), n


def test_one_kernel_for_all_lengths_and_all_scalars() -> None:
    compiled = Engine("compiled")
    kernels.kernel_for.cache_clear()
    for n in (3, 50, 7000):
        for lr in (0.1, 0.2):
            compiled.run(mix_, tensors(n), scalars(lr))
    assert kernels.kernel_for.cache_info().misses == 1


def test_scalars_are_converted_once_for_all_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Program] = []
    convert = module.tensors_of

    def count(program: Program, given: Any) -> list[Tensor]:
        made.append(program)
        return convert(program, given)

    monkeypatch.setattr(module, "tensors_of", count)
    sets, alone = [tensors(n) for n in (3, 50, 7000)], [tensors(n) for n in (3, 50, 7000)]
    Engine("compiled").run_each(program_for(mix_), sets, scalars(0.1))
    assert len(made) == 1
    for one, other in zip(sets, alone, strict=True):
        Engine("compiled").run(mix_, other, scalars(0.1))
        assert all(map(torch.equal, one, other))


FORMATS: dict[str, tuple[Format, ...]] = {
    "bf16": (Plain(), Stochastic()),
    "bf16 weights": (Stochastic(), Plain()),
    "8bit": (Plain(), Blockwise(True, 256)),  # over weights in half precision
    "unsigned": (Plain(), Blockwise(False, 256)),
    "8bit in long blocks": (Plain(), Blockwise(True, 2048)),
}


def stored(formats: tuple[Format, ...], blocks: int) -> list[Tensor]:
    """A parameter, its mean in its format, and a gradient, in rows where there are blocks."""
    width = Program(mix_, formats).block
    shape = (blocks, width) if width else (256 * blocks,)
    param, mean, grad = (t.view(shape) for t in tensors((width or 256) * blocks))
    if formats == FORMATS["8bit"]:
        param = param.bfloat16()
    made: list[Tensor] = []
    for form, values in zip(formats, (param, mean.abs()), strict=True):
        parts = form.zeros(values.numel(), values)
        parts = parts if form.block else tuple(p.view(shape) for p in parts)
        form.write_(parts, values, torch.zeros(shape, dtype=torch.int32))
        made.extend(parts)
    return [*made, grad]


def noise(low: int = 3, high: int = -4) -> dict[str, Tensor]:
    return dict(zip(NOISE, map(torch.tensor, (low, high, 0)), strict=True))


@pytest.mark.parametrize(
    ("form", "decay"),
    [
        ("bf16 weights", "decoupled"),
        ("8bit", "coupled"),
        # Each takes a compiler seven to eleven seconds.
        *(pytest.param("bf16", d, marks=pytest.mark.slow) for d in ("", "decoupled", "coupled")),
        # Differs from 8bit in nothing else, so must have its own kernel.
        pytest.param("8bit in long blocks", "coupled", marks=pytest.mark.slow),
        pytest.param("unsigned", "decoupled", marks=pytest.mark.slow),
    ],
)
def test_programs_give_the_same_bits_compiled(form: str, decay: Any) -> None:
    formats = FORMATS[form]
    program = program_for(mix_, formats, decay, 2)
    numbers = {"shrink": torch.tensor(0.99).double(), "penalty": torch.tensor(0.1).double()}
    for blocks in (2, 3, SLICE // 256 + 1):
        a, b = stored(formats, blocks), stored(formats, blocks)
        for step in range(3):
            given = {**scalars(0.1 / (step + 1)), **numbers, **noise(low=step)}
            Engine("eager").run(program, a, given)
            Engine("compiled").run(program, b, given)
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_every_piece_of_a_long_tensor_has_its_own_random_bits() -> None:
    program = Program(mix_, (Stochastic(), Plain()), "", 2)
    n = SLICE * 2
    param, mean, grad = torch.ones(n).bfloat16(), torch.ones(n), torch.ones(n)
    Engine("eager").run(program, [param, mean, grad], {**scalars(1e-3), **noise()})
    first, second = param[:SLICE], param[SLICE:]
    assert not torch.equal(first, second)
    assert 1 - param.float().mean().item() == pytest.approx(1e-3 / 1.001, rel=0.02)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_several_sets_draw_the_bits_of_one(mode: Any) -> None:
    formats = FORMATS["bf16 weights"]
    program = program_for(mix_, formats, "decoupled", 2)
    whole, parts = stored(formats, 9), stored(formats, 9)
    given = {**scalars(), "shrink": torch.tensor(0.99).double(), **noise()}
    Engine(mode).run(program, whole, given)
    split = [[t[start:end] for t in parts] for start, end in ((0, 700), (700, 700), (700, 2304))]
    version = parts[0]._version
    Engine(mode).run_each(program, split, given)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert parts[0]._version > version


def test_slices_change_nothing() -> None:
    whole, parts = tensors(3 * SLICE + 5), tensors(3 * SLICE + 5)
    Engine("eager").run(mix_, whole, scalars())
    mix_(*parts, **scalars())
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_compiled_writes_are_seen_by_autograd() -> None:
    param, mean, grad = tensors(10)
    x = torch.ones(10, requires_grad=True)
    loss = (x * param).sum()
    Engine("compiled").run(mix_, [param, mean, grad], scalars())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_auto_starts_eagerly_and_compiles_when_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    monkeypatch.setattr(
        module, "kernel_for", lambda *_: used.append("compiled") or (lambda _: None)
    )
    auto = Engine("auto")
    auto.run(mix_, tensors(10), scalars())
    assert not used
    auto.work[mix_.__name__] = AUTO_ELEMENTS
    auto.run(mix_, tensors(10), scalars())
    assert set(used) == {"compiled"}


def test_unknown_mode() -> None:
    with pytest.raises(EngineError, match="auto"):
        Engine("fast")  # type: ignore[arg-type]


def test_copies_share_no_work() -> None:
    first = Engine("eager")
    first.work["x"] = 1
    second = copy.deepcopy(first)
    second.work["x"] = 2
    assert first.work == {"x": 1} and second.mode == "eager"


def test_empty_tensors_are_no_work() -> None:
    for mode in ("eager", "compiled", "auto"):
        Engine(mode).run(mix_, tensors(0), scalars())  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=50))
def test_square_roots_are_correctly_rounded(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    assert sqrt(x).tolist() == torch.from_numpy(x.numpy() ** 0.5).tolist()
