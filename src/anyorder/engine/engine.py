"""Runs update rules, eager or compiled, with bitwise equal results.

:mod:`anyorder.engine.program` defines rules and programs; :mod:`anyorder.engine.kernels` compiles
them. This module chooses between eager and compiled, and splits large tensors.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from anyorder.engine.kernels import Kernel, kernel_for
from anyorder.engine.program import (
    NOISE,
    Arithmetic,
    Program,
    Scalars,
    eager_run,
    program_for,
    tensors_of,
)
from anyorder.errors import AnyOrderError

Mode = Literal["auto", "eager", "compiled"]
MODES: tuple[Mode, ...] = ("auto", "eager", "compiled")

#: Eager rules process long CPU tensors in slices of this many elements, so that temporaries fit in
#: the CPU cache.
SLICE = 1 << 17
#: ``auto`` compiles a rule after it has updated this many elements eagerly. This takes about as
#: long as compiling, so ``auto`` costs at most twice the better choice.
AUTO_ELEMENTS = 2_000_000_000


class EngineError(AnyOrderError, ValueError):
    """An unknown engine mode."""


class Engine:
    """Runs rules in one of the modes ``auto``, ``eager`` and ``compiled``.

    Args:
        mode: ``eager`` runs the rule as written; ``compiled`` compiles it at first use; ``auto``
            starts eagerly and compiles a rule once it has been used enough to repay compiling.
    """

    def __init__(self, mode: Mode = "auto") -> None:
        if mode not in MODES:
            raise EngineError(f"engine: expected one of {list(MODES)}, got {mode!r}")
        self.mode: Mode = mode
        self.work: dict[str, int] = {}

    def run(self, rule: Arithmetic | Program, tensors: Sequence[Tensor], scalars: Scalars) -> None:
        """Apply a rule in place.

        Args:
            rule: the rule, or a program that contains it.
            tensors: contiguous tensors on one device, outputs first: 1-D and of equal length, or of
                equal first dimension if the program has blocks.
            scalars: numbers by name, as Python numbers or 0-dim tensors.
        """
        program = rule if isinstance(rule, Program) else program_for(rule)
        self.run_each(program, [tensors], scalars)

    def run_each(
        self, program: Program, sets: Iterable[Sequence[Tensor]], scalars: Scalars
    ) -> None:
        """Apply a program to several sets of tensors, each as in :meth:`run`.

        Elements are numbered across all sets, so no two use the same random bits. All kernels are
        prepared before the first one runs: kernels evict the CPU caches, which would slow down any
        work between two of them.
        """
        sets = [tensors for tensors in sets if tensors[0].numel()]
        kernels = self._kernels(program, sets)
        ready: list[tuple[Kernel, list[Tensor]]] = []
        numbers: list[Tensor] = []  # the scalars as kernels take them
        for tensors, kernel in zip(sets, kernels, strict=True):
            if kernel is None:
                _run_eagerly(program, tensors, scalars)
            else:
                # Kernels with blocks read each block twice, the others stream.
                cut = _slices(program, tensors, scalars) if program.block else [(tensors, scalars)]
                for piece, given in cut:
                    if not numbers or program.random:
                        numbers = tensors_of(program, given)
                    ready.append((kernel, [*piece, *numbers]))
            if program.random:
                scalars = _after(tensors, scalars)
        for kernel, arguments in ready:
            kernel(arguments)
        if ready:
            written = program.changed(len(sets[0]))
            torch.autograd.graph.increment_version([t for each in sets for t in each[:written]])

    def _kernels(
        self, program: Program, sets: Sequence[Sequence[Tensor]]
    ) -> Sequence[Kernel | None]:
        """Return the kernel for each set, ``None`` to run eagerly; count the elements."""
        work = 0
        if self.mode == "auto":
            work = self.work.get(program.name, 0) + sum([tensors[0].numel() for tensors in sets])
            self.work[program.name] = work
        if self.mode == "eager" or (self.mode == "auto" and work < AUTO_ELEMENTS):
            return [None] * len(sets)
        threads = torch.get_num_threads()
        return [
            kernel_for(program, tuple([t.dtype for t in each]), each[0].device, threads)
            for each in sets
        ]


def _run_eagerly(program: Program, tensors: Sequence[Tensor], scalars: Scalars) -> None:
    run = eager_run(program, tuple([t.dtype for t in tensors]), threading.get_ident())
    if tensors[0].numel() <= SLICE:
        run(tensors, scalars)
        return
    for piece, given in _slices(program, tensors, scalars):
        run(piece, given)


def _slices(
    program: Program, tensors: Sequence[Tensor], scalars: Scalars
) -> Iterable[tuple[Sequence[Tensor], Scalars]]:
    """Split the tensors so that temporaries stay in cache; yield each piece with its scalars."""
    rows, width = tensors[0].shape[0], program.block or 1
    step = SLICE // width
    if rows <= step or tensors[0].device.type != "cpu":
        return ((tensors, scalars),)
    return _cut(program, tensors, scalars, step)


def _cut(
    program: Program, tensors: Sequence[Tensor], scalars: Scalars, step: int
) -> Iterator[tuple[Sequence[Tensor], Scalars]]:
    """Split into pieces of ``step`` rows."""
    for start in range(0, tensors[0].shape[0], step):
        piece = [t[start : start + step] for t in tensors]
        yield piece, scalars
        if program.random:
            scalars = _after(piece, scalars)


def _after(tensors: Sequence[Tensor], scalars: Scalars) -> Scalars:
    """The scalars for the set after ``tensors``: random bits are numbered by element."""
    return {**scalars, NOISE[2]: scalars[NOISE[2]] + tensors[0].numel()}
