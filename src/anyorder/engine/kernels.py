"""Compiles programs to kernels, once, with ahead-of-time Inductor, and caches them on disk.

A kernel is specific to a set of dtypes and works for every length. Later processes load it from
disk in milliseconds.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyorder.engine.formats import PLAIN
from anyorder.engine.program import NOISE, Program

Kernel = Callable[[list[Tensor]], Any]
#: Lock for compiling: a process compiles one kernel at a time, and of two threads that need the
#: same kernel the second loads it from disk.
_COMPILING = threading.Lock()
#: Wall-clock seconds of each kernel that was compiled or loaded in this process.
_seconds: list[float] = []


class EngineWarning(UserWarning):
    """Rules cannot be compiled on this machine; they run eagerly instead."""


class _Traced(torch.nn.Module):
    """A program as a module, as ``torch.export`` requires."""

    def __init__(self, program: Program, count: int) -> None:
        super().__init__()
        self.program, self.count = program, count

    def forward(self, *arguments: Tensor) -> None:
        scalars = dict(zip(self.program.scalars, arguments[self.count :], strict=True))
        self.program(arguments[: self.count], scalars)


@functools.cache
def kernel_for(
    program: Program, dtypes: tuple[torch.dtype, ...], device: torch.device, threads: int
) -> Kernel | None:
    """Return the kernel for these dtypes, loaded or compiled; ``None`` if impossible."""
    began = time.perf_counter()
    try:
        with _COMPILING:
            return _compile(program, dtypes, device, threads)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        warnings.warn(
            f"rules cannot be compiled here ({reason}); running them eagerly, which gives the same "
            "numbers more slowly. Install a C++ compiler, or pass engine='eager' to silence this.",
            EngineWarning,
            stacklevel=6,
        )
        return None
    finally:
        _seconds.append(time.perf_counter() - began)


def compile_seconds() -> float:
    """Return the wall-clock seconds that this process has spent compiling and loading kernels."""
    return math.fsum(_seconds)


@torch.inference_mode(False)  # export supports ordinary tensors only
def _compile(
    program: Program, dtypes: tuple[torch.dtype, ...], device: torch.device, threads: int
) -> Kernel:
    tensors = _examples(program, dtypes, device)
    scalars = tuple(
        torch.ones((), dtype=torch.int64 if name in NOISE else torch.float64, device="cpu")
        for name in program.scalars
    )
    # One run before tracing, so that tracing creates no cached values (tables, for example).
    program([t[:2].clone() for t in tensors], dict(zip(program.scalars, scalars, strict=True)))
    length = torch.export.Dim("length", min=2)
    shapes = (tuple({0: length} for _ in tensors) + tuple({} for _ in scalars),)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(
            _Traced(program, len(dtypes)), (*tensors, *scalars), dynamic_shapes=shapes
        )
        digest = _digest(exported, tensors, device, threads)
        path = cache_folder() / f"{program.name}-{digest}.pt2"
        try:
            return _load(path)
        except (OSError, RuntimeError):  # missing or damaged
            _build(exported, path, threads)
            return _load(path)


def _examples(
    program: Program, dtypes: tuple[torch.dtype, ...], device: torch.device
) -> tuple[Tensor, ...]:
    """Example tensors of the shapes and dtypes that the program takes."""
    if not program.block:
        return tuple(torch.ones(1 << 16, dtype=dtype, device=device) for dtype in dtypes)
    made: list[Tensor] = []
    forms = [*program.formats, *[PLAIN] * len(dtypes)]
    for form in forms:
        for part in range(form.parts):
            if len(made) < len(dtypes):
                width = 1 if part else program.block  # scales come second, one per block
                made.append(torch.ones((64, width), dtype=dtypes[len(made)], device=device))
    return tuple(made)


def _build(program: Any, path: Path, threads: int) -> None:
    """Compile an exported program and move it into the cache atomically."""
    from torch._inductor import aoti_compile_and_package, config  # slow; only for compiled runs

    wanted = {
        "aot_inductor.compile_wrapper_opt_level": "O0",
        # Precompiled headers would delay the first rule and speed up only later ones.
        "aot_inductor.precompile_headers": any(path.parent.glob("*.pt2")),
        # The CPU reports its features; this avoids some trial compilations.
        "cpp.vec_isa_ok": True,
        "cpp.threads": threads,
    }
    settings = {name: value for name, value in wanted.items() if _has(config, name)}
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        target = str(Path(scratch) / path.name)
        built = aoti_compile_and_package(program, package_path=target, inductor_configs=settings)
        os.replace(built, path)


def _has(config: Any, name: str) -> bool:
    """Whether this version of PyTorch has the setting ``group.setting``."""
    group, setting = name.split(".")
    return hasattr(getattr(config, group), setting)


def _load(path: Path) -> Kernel:
    from torch._inductor import aoti_load_package  # slow import; only for compiled runs

    if not path.exists():
        raise FileNotFoundError(path)
    package = aoti_load_package(str(path))
    loader = getattr(package, "loader", None)
    # The package's own __call__ rebuilds nested arguments and costs 10 us more than its loader.
    return getattr(loader, "run", None) or (lambda arguments: package(*arguments))


def _digest(program: Any, tensors: tuple[Tensor, ...], device: torch.device, threads: int) -> str:
    """Name a kernel after its code and inputs; the code alone does not determine shapes."""
    capability = (
        torch.backends.cpu.get_cpu_capability()
        if device.type == "cpu"
        else str(torch.cuda.get_device_capability(device))
    )
    kinds = [(t.dtype, tuple(t.shape[1:])) for t in tensors]
    parts = (program.graph_module.code, kinds, device, threads, capability, torch.__version__)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def cache_folder() -> Path:
    """Return the folder of compiled rules: ``ANYORDER_CACHE``, or the user's cache folder.

    Only its owner can access the folder, since its files are executed.
    """
    base = os.environ.get("ANYORDER_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "anyorder"
    )
    folder = Path(base) / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return _private_folder()


@functools.cache
def _private_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="anyorder-kernels-"))
