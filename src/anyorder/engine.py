"""The one place that runs rules: eagerly or compiled, with the same bits.

A *rule* is the arithmetic of a method: a short function that works in place and element by element
on 1-D tensors of equal length, written with plain tensor operations::

    def sgd_(param, velocity, grad, *, lr, momentum):
        velocity.mul_(momentum).add_(grad)
        param.sub_(lr * velocity)

Tensors are positional, the ones it writes to come first; scalars are keyword-only and arrive as
0-dim float64 tensors, so that a schedule changes their value and never the program. A rule uses
only operations that IEEE 754 rounds exactly (``+ - * / sqrt``, sign, comparisons, integer and bit
operations), never ``add(alpha=)`` or ``lerp``, which some kernels fuse: that is why eager and
compiled runs agree bit for bit and a run may change over in the middle.

Tensors in half precision are widened to float32 for the rule and rounded once when written back.

A rule is compiled once per set of dtypes, for every length, by ahead-of-time Inductor. The kernel
is kept on disk, so the next process loads it in milliseconds.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError

Rule = Callable[..., None]
Kernel = Callable[[list[Tensor]], Any]
Mode = Literal["auto", "eager", "compiled"]
MODES: tuple[Mode, ...] = ("auto", "eager", "compiled")

#: Eager rules work through long CPU tensors in slices of this many elements, so that their
#: temporaries stay in the processor's cache.
SLICE = 1 << 17
#: ``auto`` compiles a rule after it has updated this many elements eagerly: about as long in time
#: as compiling takes, so that waiting never more than doubles the cost of the better choice.
AUTO_ELEMENTS = 2_000_000_000


class EngineWarning(UserWarning):
    """Compiled rules are not to be had on this machine; eager ones are used instead."""


class EngineError(AnyOrderError, ValueError):
    """An unknown engine mode."""


class Engine:
    """Runs rules in one of the modes ``auto``, ``eager`` and ``compiled``.

    Args:
        mode: ``eager`` runs the rule as written; ``compiled`` compiles it at first use; ``auto``
            starts eagerly and compiles once a rule has been used enough to repay the wait.
    """

    def __init__(self, mode: Mode = "auto") -> None:
        if mode not in MODES:
            raise EngineError(f"engine: expected one of {list(MODES)}, got {mode!r}")
        self.mode: Mode = mode
        self.work: dict[str, int] = {}
        self._kernels: dict[Any, Kernel | None] = {}

    def run(self, rule: Rule, tensors: Sequence[Tensor], scalars: Mapping[str, Tensor]) -> None:
        """Apply ``rule`` in place.

        Args:
            rule: the arithmetic.
            tensors: 1-D contiguous tensors of equal length on one device, the written ones first.
            scalars: 0-dim float64 CPU tensors by the rule's keyword names.
        """
        kernel = self._kernel(rule, tensors, scalars)
        if kernel is None:
            _eager(rule, tensors, scalars)
        else:
            kernel([*tensors, *scalars.values()])
            torch.autograd.graph.increment_version(tensors[: _written(rule, len(tensors))])

    def _kernel(
        self, rule: Rule, tensors: Sequence[Tensor], scalars: Mapping[str, Tensor]
    ) -> Kernel | None:
        if self.mode == "eager" or not tensors[0].numel():
            return None
        if self.mode == "auto":
            name = rule.__qualname__
            self.work[name] = self.work.get(name, 0) + tensors[0].numel()
            if self.work[name] < AUTO_ELEMENTS:
                return None
        key = (rule, tensors[0].device, *(t.dtype for t in tensors))
        if key not in self._kernels:
            self._kernels[key] = kernel_for(
                rule,
                tuple(t.dtype for t in tensors),
                tensors[0].device,
                tuple(scalars),
                torch.get_num_threads(),
            )
        return self._kernels[key]


def _eager(rule: Rule, tensors: Sequence[Tensor], scalars: Mapping[str, Tensor]) -> None:
    length = tensors[0].numel()
    step = SLICE if tensors[0].device.type == "cpu" else max(length, 1)
    if length <= step:
        _widened(rule, tensors, scalars)
        return
    for start in range(0, length, step):
        _widened(rule, [t[start : start + step] for t in tensors], scalars)


def _widened(rule: Rule, tensors: Sequence[Tensor], scalars: Mapping[str, Tensor]) -> None:
    """Run ``rule`` with half-precision tensors widened to float32, written back rounded once."""
    wide = [t.float() if t.dtype in (torch.bfloat16, torch.float16) else t for t in tensors]
    rule(*wide, **scalars)
    for tensor, result in zip(tensors[: _written(rule, len(tensors))], wide, strict=False):
        if tensor is not result:
            tensor.copy_(result)


@functools.cache
def _written(rule: Rule, count: int) -> int:
    """How many of a rule's leading tensors it writes to, found by running it once on ones."""
    tensors = [torch.ones(2, dtype=torch.float64) for _ in range(count)]
    before = [t._version for t in tensors]
    rule(*tensors, **{n: torch.ones((), dtype=torch.float64) for n in scalar_names(rule)})
    return max(i + 1 for i, t in enumerate(tensors) if t._version != before[i])


@functools.cache
def scalar_names(rule: Rule) -> tuple[str, ...]:
    """The keyword-only arguments of a rule, in order."""
    parameters = inspect.signature(rule).parameters.values()
    return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


# Compiling ---------------------------------------------------------------------------------


class _Traced(torch.nn.Module):
    """A rule as a module, the form ``torch.export`` takes."""

    def __init__(self, rule: Rule, count: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self.rule, self.count, self.names = rule, count, names

    def forward(self, *arguments: Tensor) -> None:
        scalars = dict(zip(self.names, arguments[self.count :], strict=True))
        _widened(self.rule, arguments[: self.count], scalars)


@functools.cache
def kernel_for(
    rule: Rule,
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
    names: tuple[str, ...],
    threads: int,
) -> Kernel | None:
    """Compile ``rule`` for these dtypes, or load it from the cache; ``None`` where impossible."""
    try:
        return _compile(rule, dtypes, device, names, threads)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        warnings.warn(
            f"rules cannot be compiled here ({reason}); running them eagerly, which gives the same "
            "numbers more slowly. Install a C++ compiler, or pass engine='eager' to silence this.",
            EngineWarning,
            stacklevel=6,
        )
        return None


def _compile(
    rule: Rule,
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
    names: tuple[str, ...],
    threads: int,
) -> Kernel:
    _written(rule, len(dtypes))  # found before tracing, not inside it
    example = tuple(torch.ones(1 << 16, dtype=dtype, device=device) for dtype in dtypes)
    scalars = tuple(torch.ones((), dtype=torch.float64) for _ in names)
    length = torch.export.Dim("length", min=2)
    shapes = (tuple({0: length} for _ in example) + tuple({} for _ in scalars),)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            _Traced(rule, len(dtypes), names), example + scalars, dynamic_shapes=shapes
        )
        path = cache_folder() / f"{rule.__name__}-{_digest(program, dtypes, device, threads)}.pt2"
        try:
            return _load(path)
        except (OSError, RuntimeError):  # not there yet, or damaged
            _build(program, path)
            return _load(path)


def _build(program: Any, path: Path) -> None:
    """Compile an exported rule and put it in its place in one move."""
    from torch._inductor import aoti_compile_and_package  # heavy; only compiled runs need it

    settings = {
        "aot_inductor.compile_wrapper_opt_level": "O0",
        "aot_inductor.precompile_headers": False,
    }
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        target = str(Path(scratch) / path.name)
        built = aoti_compile_and_package(program, package_path=target, inductor_configs=settings)
        os.replace(built, path)


def _load(path: Path) -> Kernel:
    from torch._inductor import aoti_load_package  # heavy; only compiled runs need it

    if not path.exists():
        raise FileNotFoundError(path)
    package = aoti_load_package(str(path))
    loader = getattr(package, "loader", None)
    # The package's own __call__ rebuilds nested arguments and costs 10 us more than its loader.
    return getattr(loader, "run", None) or (lambda arguments: package(*arguments))


def _digest(program: Any, dtypes: Any, device: torch.device, threads: int) -> str:
    capability = (
        torch.backends.cpu.get_cpu_capability()
        if device.type == "cpu"
        else str(torch.cuda.get_device_capability(device))
    )
    parts = (program.graph_module.code, dtypes, device, threads, capability, torch.__version__)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def cache_folder() -> Path:
    """Where compiled rules are kept: ``ANYORDER_CACHE``, or the user's cache folder.

    The folder is readable by its owner alone, since what lies in it is executed.
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
