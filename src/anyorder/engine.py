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

What is stored in another precision is read before the rule and written after it, and weight decay
comes in between: a :class:`Program` is a rule with these around it, and compiled as one. Tensors in
half precision are widened to float32 for the rule and rounded once when written back.

A program is compiled once per set of dtypes, for every length, by ahead-of-time Inductor. The
kernel is kept on disk, so the next process loads it in milliseconds.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.precision import Format, Parts, Plain, noise_for

Rule = Callable[..., None]
Kernel = Callable[[list[Tensor]], Any]
Mode = Literal["auto", "eager", "compiled"]
Decay = Literal["", "decoupled", "coupled"]
MODES: tuple[Mode, ...] = ("auto", "eager", "compiled")

#: Eager rules work through long CPU tensors in slices of this many elements, so that their
#: temporaries stay in the processor's cache.
SLICE = 1 << 17
#: ``auto`` compiles a rule after it has updated this many elements eagerly: about as long in time
#: as compiling takes, so that waiting never more than doubles the cost of the better choice.
AUTO_ELEMENTS = 2_000_000_000
#: Scalars of a program that rounds at random: two keys and the number of the first element.
NOISE = ("noise_low", "noise_high", "noise_start")


class EngineWarning(UserWarning):
    """Compiled rules are not to be had on this machine; eager ones are used instead."""


class EngineError(AnyOrderError, ValueError):
    """An unknown engine mode."""


@dataclass(frozen=True, eq=False)
class Program:
    """A rule and what is done around it; equal ones are the same, from :func:`program_for`.

    Attributes:
        rule: the arithmetic.
        formats: how the leading tensors of the rule are stored (the others: as they are).
        decay: weight decay before the rule: ``decoupled`` multiplies the first tensor by the scalar
            ``shrink``; ``coupled`` adds ``penalty`` times it to the input at ``gradient``.
        gradient: position of the gradient among the rule's tensors.
    """

    rule: Rule
    formats: tuple[Format, ...] = ()
    decay: Decay = ""
    gradient: int = 1

    @property
    def name(self) -> str:
        """What the program is called in files and counts."""
        return self.rule.__name__

    @functools.cached_property
    def random(self) -> bool:
        """Whether it rounds at random."""
        return any(form.random for form in self.formats)

    @functools.cached_property
    def block(self) -> int:
        """Elements of a row of its tensors, which are then two-dimensional; 0 for flat ones."""
        return max((form.block for form in self.formats), default=0)

    @functools.cached_property
    def scalars(self) -> tuple[str, ...]:
        """Names of all scalars it takes, in order."""
        decay = {"": (), "decoupled": ("shrink",), "coupled": ("penalty",)}[self.decay]
        return (*scalar_names(self.rule), *decay, *(NOISE if self.random else ()))

    def __call__(self, tensors: Sequence[Tensor], scalars: Mapping[str, Tensor]) -> None:
        """Read, decay, run the rule, write, in place."""
        stored, values = self._read(tensors)
        if self.decay == "decoupled":
            values[0].mul_(scalars["shrink"])
        elif self.decay == "coupled":
            grad = values[self.gradient]
            values[self.gradient] = grad + values[0] * scalars["penalty"]
        self.rule(*values, **{name: scalars[name] for name in scalar_names(self.rule)})
        for index in range(self.written(len(values))):
            form = self.formats[index] if index < len(self.formats) else _PLAIN
            form.write_(stored[index], values[index], self._noise(index, values, scalars))

    def written(self, count: int) -> int:
        """How many of the ``count`` leading tensors of its rule are written."""
        return max(_written(self.rule, count), self.decay == "decoupled")

    @functools.cached_property
    def extra(self) -> int:
        """How many more tensors it takes than its rule."""
        return sum(form.parts - 1 for form in self.formats)

    def changed(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Those of ``tensors`` that it writes."""
        written = self.written(len(tensors) - self.extra)
        if self.extra:
            written += sum(form.parts - 1 for form in self.formats[:written])
        return tensors[:written]

    def _read(self, tensors: Sequence[Tensor]) -> tuple[list[Parts], list[Tensor]]:
        stored: list[Parts] = []
        values: list[Tensor] = []
        rest = list(tensors)
        while rest:
            form = self.formats[len(stored)] if len(stored) < len(self.formats) else _PLAIN
            parts = tuple(rest[: form.parts])
            del rest[: form.parts]
            stored.append(parts)
            values.append(form.read(parts))
        return stored, values

    def _noise(
        self, index: int, values: Sequence[Tensor], scalars: Mapping[str, Tensor]
    ) -> Tensor | None:
        if index >= len(self.formats) or not self.formats[index].random:
            return None
        like = values[index]
        low, high, start = (scalars[name] for name in NOISE)
        words = noise_for(like.numel(), low + index, high, start, like.device)
        return words.view(like.shape)


_PLAIN = Plain()


@functools.cache
def program_for(
    rule: Rule, formats: tuple[Format, ...] = (), decay: Decay = "", gradient: int = 1
) -> Program:
    """The program of these parts, always the same one: it is looked up by identity."""
    return Program(rule, formats, decay, gradient)


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

    def run(
        self, rule: Rule | Program, tensors: Sequence[Tensor], scalars: Mapping[str, Tensor]
    ) -> None:
        """Apply a rule in place.

        Args:
            rule: the arithmetic, or a program around it.
            tensors: contiguous tensors on one device, the written ones first: 1-D and of equal
                length, or of equal first dimension where the program has blocks.
            scalars: 0-dim CPU tensors by name, float64 (int64 for those of the noise).
        """
        program = rule if isinstance(rule, Program) else program_for(rule)
        if not tensors[0].numel():
            return
        kernel = self._kernel(program, tensors)
        for piece, given in _slices(program, tensors, scalars, kernel is not None):
            if kernel is None:
                program(piece, given)
            else:
                kernel([*piece, *(given[name] for name in program.scalars)])
        if kernel is not None:
            torch.autograd.graph.increment_version(program.changed(tensors))

    def _kernel(self, program: Program, tensors: Sequence[Tensor]) -> Kernel | None:
        """The kernel to run, or ``None`` to run eagerly; counts the work."""
        if self.mode == "eager":
            return None
        if self.mode == "auto":
            work = self.work.get(program.name, 0) + tensors[0].numel()
            self.work[program.name] = work
            if work < AUTO_ELEMENTS:
                return None
        dtypes = tuple([t.dtype for t in tensors])
        return kernel_for(program, dtypes, tensors[0].device, torch.get_num_threads())


def _slices(
    program: Program, tensors: Sequence[Tensor], scalars: Mapping[str, Tensor], compiled: bool
) -> Iterable[tuple[Sequence[Tensor], Mapping[str, Tensor]]]:
    """The tensors cut so that temporaries stay in cache, with the scalars for each piece."""
    block = program.block
    # A compiled program has no temporaries, unless each block is looked at twice.
    if (compiled and not block) or tensors[0].device.type != "cpu":
        return ((tensors, scalars),)
    rows, width = tensors[0].shape[0], block or 1
    step = SLICE // width
    if rows <= step:
        return ((tensors, scalars),)
    return _cut(tensors, scalars, step, width if program.random else 0)


def _cut(
    tensors: Sequence[Tensor], scalars: Mapping[str, Tensor], step: int, random: int
) -> Iterator[tuple[Sequence[Tensor], Mapping[str, Tensor]]]:
    """Pieces of ``step`` rows; ``random`` is how many random words a row takes."""
    for start in range(0, tensors[0].shape[0], step):
        given = scalars
        if random:
            given = {**scalars, NOISE[2]: scalars[NOISE[2]] + start * random}
        yield [t[start : start + step] for t in tensors], given


@functools.cache
def _written(rule: Rule, count: int) -> int:
    """How many of a rule's leading tensors it writes to, found by running it once on ones."""
    tensors = [torch.ones(2, dtype=torch.float64) for _ in range(count)]
    before = [t._version for t in tensors]
    rule(*tensors, **{n: torch.ones((), dtype=torch.float64) for n in scalar_names(rule)})
    return max((i + 1 for i, t in enumerate(tensors) if t._version != before[i]), default=0)


@functools.cache
def scalar_names(rule: Rule) -> tuple[str, ...]:
    """The keyword-only arguments of a rule, in order."""
    parameters = inspect.signature(rule).parameters.values()
    return tuple(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


# Compiling ---------------------------------------------------------------------------------


class _Traced(torch.nn.Module):
    """A program as a module, the form ``torch.export`` takes."""

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
    """The kernel of ``program`` for these dtypes, made or found; ``None`` where impossible."""
    try:
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


def _compile(
    program: Program, dtypes: tuple[torch.dtype, ...], device: torch.device, threads: int
) -> Kernel:
    tensors = _examples(program, dtypes, device)
    scalars = tuple(
        torch.ones((), dtype=torch.int64 if name in NOISE else torch.float64)
        for name in program.scalars
    )
    # One run before tracing, so that nothing is made for good inside it (tables, for example).
    program([t[:2].clone() for t in tensors], dict(zip(program.scalars, scalars, strict=True)))
    length = torch.export.Dim("length", min=2)
    shapes = (tuple({0: length} for _ in tensors) + tuple({} for _ in scalars),)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(
            _Traced(program, len(dtypes)), (*tensors, *scalars), dynamic_shapes=shapes
        )
        digest = _digest(exported, dtypes, device, threads)
        path = cache_folder() / f"{program.name}-{digest}.pt2"
        try:
            return _load(path)
        except (OSError, RuntimeError):  # not there yet, or damaged
            _build(exported, path, threads)
            return _load(path)


def _examples(
    program: Program, dtypes: tuple[torch.dtype, ...], device: torch.device
) -> tuple[Tensor, ...]:
    """Tensors of the shapes and dtypes that the program takes."""
    if not program.block:
        return tuple(torch.ones(1 << 16, dtype=dtype, device=device) for dtype in dtypes)
    made: list[Tensor] = []
    forms = [*program.formats, *[_PLAIN] * len(dtypes)]
    for form in forms:
        for part in range(form.parts):
            if len(made) < len(dtypes):
                width = 1 if part else program.block  # scales come second, one for each block
                made.append(torch.ones((64, width), dtype=dtypes[len(made)], device=device))
    return tuple(made)


def _build(program: Any, path: Path, threads: int) -> None:
    """Compile an exported program and put it in its place in one move."""
    from torch._inductor import aoti_compile_and_package  # heavy; only compiled runs need it

    settings = {
        "aot_inductor.compile_wrapper_opt_level": "O0",
        "cpp.threads": threads,
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
