"""Kernels: kept on disk, made anew when damaged, and done without where there is no compiler."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.engine import kernels as module
from anyorder.engine.formats import PLAIN, STOCHASTIC, Blockwise
from anyorder.engine.kernels import EngineWarning, cache_folder
from anyorder.engine.program import program_for
from anyorder.rules.adamw import adamw_


def shift_(param: Tensor, given: Tensor, *, lr: Tensor) -> None:
    param.sub_(given * lr)


def scalars() -> dict[str, Tensor]:
    return {"lr": torch.tensor(0.3, dtype=torch.float64)}


def tensors(n: int) -> list[Tensor]:
    return list(torch.randn(2, n, generator=torch.Generator().manual_seed(n)))


@pytest.fixture(autouse=True)
def no_kernels() -> Iterator[None]:
    """No kernel of another test is at hand, nor one of these in another test."""
    module.kernel_for.cache_clear()
    yield
    module.kernel_for.cache_clear()


def test_without_a_compiler_rules_run_eagerly_with_one_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr(module, "_compile", fails)
    module.kernel_for.cache_clear()
    try:
        a, b = tensors(20), tensors(20)
        with pytest.warns(EngineWarning, match="C\\+\\+ compiler"):
            Engine("compiled").run(shift_, a, scalars())
        Engine("compiled").run(shift_, a, scalars())  # warnings are errors: there is no second one
        for _ in range(2):
            Engine("eager").run(shift_, b, scalars())
        assert torch.equal(a[0], b[0])
    finally:
        module.kernel_for.cache_clear()


def test_kernels_are_kept_on_disk_and_made_anew_when_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYORDER_CACHE", str(tmp_path))
    expected = tensors(20)
    Engine("eager").run(shift_, expected, scalars())
    kernels = tmp_path / "kernels"

    def run() -> int:
        module.kernel_for.cache_clear()
        made = tensors(20)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Engine("compiled").run(shift_, made, scalars())
        assert torch.equal(made[0], expected[0])
        (kept,) = kernels.iterdir()
        return kept.stat().st_mtime_ns

    try:
        kernels.mkdir(mode=0o700)
        monkeypatch.setattr(module, "_digest", lambda *_: "fixed")
        (kernels / "shift_-fixed.pt2").write_bytes(b"not a kernel")
        first = run()
        assert run() == first
    finally:
        module.kernel_for.cache_clear()


def test_unwritable_cache_falls_back_to_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("ANYORDER_CACHE", str(blocked))
    folder = cache_folder()
    assert folder.is_dir() and tmp_path not in folder.parents


@pytest.mark.parametrize("earlier", [False, True])
def test_only_later_rules_wait_for_precompiled_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    import torch._inductor as inductor

    asked: list[dict[str, Any]] = []

    def build(*_: object, package_path: str, inductor_configs: dict[str, Any]) -> str:
        asked.append(inductor_configs)
        Path(package_path).write_bytes(b"")
        return package_path

    monkeypatch.setattr(inductor, "aoti_compile_and_package", build)
    if earlier:
        (tmp_path / "other.pt2").write_bytes(b"")
    module._build(None, tmp_path / "rule.pt2", threads=1)
    assert (tmp_path / "rule.pt2").exists()
    assert asked[0]["aot_inductor.precompile_headers"] is earlier


def test_settings_that_this_version_lacks_are_left_out() -> None:
    from torch._inductor import config

    assert module._has(config, "cpp.threads")
    assert not module._has(config, "cpp.no_such_setting")


def test_two_threads_that_need_a_kernel_compile_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYORDER_CACHE", str(tmp_path))
    built: list[Path] = []

    def build(_: object, path: Path, threads: int) -> None:
        built.append(path)
        path.write_bytes(b"")

    def load(path: Path) -> object:
        if path.exists():
            return path
        raise FileNotFoundError(path)

    monkeypatch.setattr(module, "_build", build)
    monkeypatch.setattr(module, "_load", load)
    both = threading.Barrier(2)

    def needed() -> object:
        both.wait()
        return module.kernel_for(program_for(shift_), (torch.float32,) * 2, torch.device("cpu"), 1)

    with ThreadPoolExecutor(2) as threads:
        first, second = [threads.submit(needed) for _ in range(2)]
        assert first.result() == second.result() == built[0]
    assert len(built) == 1


def test_one_kernel_serves_all_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user_mode: Any
) -> None:
    """What is exported is the same, so its file is."""
    monkeypatch.setenv("ANYORDER_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "_load", lambda path: path)
    program = program_for(adamw_, (STOCHASTIC, PLAIN, Blockwise(False, 256)), "decoupled", 3)
    dtypes = (torch.bfloat16, torch.float32, torch.uint8, torch.float32, torch.bfloat16)
    cpu = torch.device("cpu")
    expected = module.kernel_for(program, dtypes, cpu, 1)
    module.kernel_for.cache_clear()
    with user_mode():
        assert module.kernel_for(program, dtypes, cpu, 1) == expected
