"""Small tensors into one and back: by address and by tensor, the same bytes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from anyorder.engine import packing
from anyorder.engine.packing import Pack


@pytest.fixture(params=["native", "torch"])
def native(request) -> bool:
    return request.param == "native"


@pytest.fixture
def fresh(monkeypatch, tmp_path) -> Iterator[None]:
    """A machine on which nothing was compiled yet."""
    monkeypatch.setenv("ANYORDER_CACHE", str(tmp_path))
    packing._native.cache_clear()
    yield
    packing._native.cache_clear()


def pieces(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = [(3, 4), (), (0,), (5,), (2, 1, 7)]
    return [torch.randn(shape).to(dtype) for shape in shapes]


def packed(tensors: list[Tensor], native: bool) -> Pack:
    return Pack([t.numel() for t in tensors], native)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.uint8])
def test_there_and_back(native, dtype) -> None:
    tensors = pieces(dtype)
    pack = packed(tensors, native)
    flat = pack.gather(tensors, 0)
    assert torch.equal(flat, torch.cat([t.reshape(-1) for t in tensors]))
    back = [torch.zeros_like(t) for t in tensors]
    pack.scatter(flat, back)
    assert all(torch.equal(a, b) for a, b in zip(tensors, back, strict=True))


def odd(kind: str) -> Tensor:
    if kind == "strided":
        return torch.randn(4, 3).t()
    if kind == "pending sign":
        return torch.randn(12, dtype=torch.complex64).conj().imag.view(3, 4)
    if kind == "view":
        return torch.randn(24)[12:].view(3, 4)
    return nn.Parameter(torch.randn(3, 4))


@pytest.mark.parametrize("kind", ["strided", "pending sign", "view", "parameter"])
def test_unusual_ones_are_copied_by_value(native, kind) -> None:
    tensors = [odd(kind), torch.randn(5)]
    expected = [t.detach().clone() for t in tensors]
    pack = packed(tensors, native)
    with torch.no_grad():
        flat = pack.gather(tensors, 0)
        assert torch.equal(flat, torch.cat([t.reshape(-1) for t in expected]))
        pack.scatter(flat + 1.0, tensors)
    assert all(torch.equal(t, e + 1.0) for t, e in zip(tensors, expected, strict=True))


def test_autograd_notices_what_was_written(native) -> None:
    weight = nn.Parameter(torch.ones(3))
    loss = (weight * weight).sum()
    pack = packed([weight], native)
    with torch.no_grad():
        pack.scatter(pack.gather([weight], 0), [weight])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_memory_is_kept_and_grows(native) -> None:
    small, large = [torch.randn(3)], [torch.randn(7)]
    first = packed(small, native).gather(small, 17)
    again = packed(small, native).gather(small, 17)
    assert first.data_ptr() == again.data_ptr()
    assert torch.equal(packed(large, native).gather(large, 17), large[0])


def test_another_size_than_agreed_is_not_read_past_its_end(fresh) -> None:
    pack = Pack([1000, 5])
    with pytest.warns(UserWarning, match="resized"):
        flat = pack.gather([torch.ones(2), torch.ones(5)], 23)
    assert flat.tolist() == [1.0] * 7


def test_a_machine_without_a_compiler(fresh, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert packing._native() is None
    test_there_and_back(True, torch.float32)


def test_a_compiler_that_fails(fresh, monkeypatch) -> None:
    monkeypatch.setenv("CXX", "false")
    assert packing._native() is None
    test_there_and_back(True, torch.float32)


def test_a_compiler_without_openmp(fresh, monkeypatch) -> None:
    run = subprocess.run

    def refuse(command, **options):
        if "-fopenmp" in command:
            return subprocess.CompletedProcess(command, 1)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", refuse)
    assert packing._native() is not None
    test_there_and_back(True, torch.float32)


def test_a_damaged_file_is_made_anew(fresh, tmp_path, monkeypatch) -> None:
    assert packing._native() is not None
    (built,) = (tmp_path / "kernels").glob("packing-*.so")
    other = tmp_path / "other"
    monkeypatch.setenv("ANYORDER_CACHE", str(other))  # a library is loaded once from each place
    (other / "kernels").mkdir(parents=True)
    damaged = other / "kernels" / built.name
    damaged.write_bytes(b"not a library")
    packing._native.cache_clear()
    assert packing._native() is not None
    assert damaged.stat().st_size > 1000


def test_memory_does_not_follow_the_mode_it_is_made_in(native, user_mode) -> None:
    packing._memory.cache_clear()
    pack, pieces = Pack([2, 3], native), [torch.ones(2), torch.zeros(3)]
    with user_mode():
        assert pack.gather(pieces, 0).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    flat = pack.gather(pieces, 0)
    flat.add_(1.0)
    pack.scatter(flat, pieces)
    assert pieces[0].tolist() == [2.0, 2.0] and not flat.is_inference()
